"""What ``ppcls infer`` and ``ppcls predict`` do with results: print them, write a file, sort the images."""

from __future__ import annotations

import argparse
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppcls.console import results_alone
from ppcls.errors import ConfigError

if TYPE_CHECKING:
    from ppcls.data import Topk
    from ppcls.deploy.batches import ResultOptions
    from ppcls.deploy.sorting import SortAs, Sorter


def add_result_options(parser: argparse.ArgumentParser) -> None:
    """Add the options about results, which both commands have."""
    add = parser.add_argument_group("results").add_argument
    add("--output", metavar="FILE", help="write .json, .jsonl or .csv, chosen by the suffix")
    add("--topk", type=int, metavar="K", help="classes in a result (default: as in the recipe or export)")
    add("--threshold", type=float, metavar="P", help="if the best class has less, the class is unknown, -1")
    add("--unknown-name", metavar="NAME", help="name of the unknown class (default: unknown)")
    add("--all-probabilities", action="store_true", help="add the probabilities of all classes")
    add("--sort-into", metavar="DIR", help="put copies of the images into a folder for each predicted class")
    add("--sort-as", choices=["copy", "link"], help="what --sort-into makes (default: copy)")
    add("--on-error", default="raise", choices=["raise", "skip"], help="images that cannot be read")
    add(
        "--print",
        dest="form",
        choices=["log", "jsonl"],
        help="print one line of JSON for each image (jsonl; default without --output), or as PaddleClas does "
        "(log; default of infer on a terminal)",
    )


def given_result_options(args: argparse.Namespace) -> list[tuple[str, Any, Any]]:
    """Return name, value and default of each option about results that was given."""
    defaults = {"--on-error": "raise", "--all-probabilities": False, "--print": None}
    names = ["--output", "--topk", "--threshold", "--unknown-name", "--sort-into", "--sort-as", *defaults]
    found = []
    for name in names:
        attribute = "form" if name == "--print" else name.removeprefix("--").replace("-", "_")
        found.append((name, getattr(args, attribute), defaults.get(name)))
    return [option for option in found if option[1] != option[2]]


def result_options(args: argparse.Namespace) -> ResultOptions:
    """Return the options of the command line about the content of results.

    Raises:
        ConfigError: for values that are out of range or have no effect.
    """
    from ppcls.deploy.batches import ResultOptions

    return ResultOptions(args.topk, args.threshold, args.unknown_name, args.all_probabilities)


@dataclass(frozen=True)
class Delivery:
    """Where results go.

    Attributes:
        output: file to write, or None.
        form: how results are printed, ``log`` or ``jsonl``; None to print nothing.
        sort_into: folder of class folders; None not to sort.
        sort_as: ``copy`` or ``link``.
    """

    output: Path | None
    form: str | None
    sort_into: str | None
    sort_as: SortAs

    @classmethod
    def of(cls, args: argparse.Namespace, default_form: str, *, features: bool = False) -> Delivery:
        """Return what the command line asks for, and send log lines to standard error if they would disturb.

        Args:
            args: of the command line.
            default_form: how results are printed on a terminal.
            features: results are features, not classes.

        Raises:
            ConfigError: for options that cannot be followed or have no effect.
        """
        from ppcls.deploy.results import FEATURE_FORMATS, FORMATS, require_result_file
        from ppcls.logger import setup_logging

        if args.sort_as is not None and args.sort_into is None:
            raise ConfigError("--sort-as: has no effect without --sort-into")
        for name, value, _ in given_result_options(args) if features else []:
            if name not in ("--output", "--on-error", "--print"):
                raise ConfigError(f"{name} {value}: is about classes, and --features asks for features")
        formats = FEATURE_FORMATS if features else FORMATS
        output = None if args.output is None else require_result_file(args.output, formats)
        form = args.form
        if form is None and output is None:
            form = default_form if sys.stdout.isatty() else "jsonl"
        setup_logging(to_stderr=form != "log")
        return cls(output, form, args.sort_into, args.sort_as or "copy")

    def alone(self) -> AbstractContextManager[None]:
        """Return a block in which standard output gets results alone, if programs read them."""
        return nullcontext() if self.form == "log" else results_alone()

    def deliver(
        self, batches: Iterable[list[dict[str, Any]]], postprocess: Any, inputs: Sequence[str]
    ) -> None:
        """Take results as they come, and say at the end what became of them.

        Args:
            batches: of results.
            postprocess: what made them; it knows the names of the classes.
            inputs: files, folders, patterns and lists that the user named.
        """
        from ppcls.data.postprocess_distillation import topk_of
        from ppcls.deploy.results import write_results
        from ppcls.deploy.sorting import Sorter, require_sort_folder
        from ppcls.logger import LOGGER

        topk = topk_of(postprocess)
        counts: Counter[str] = Counter()
        with ExitStack() as stack:
            sorter = None
            if self.sort_into is not None:
                folder = require_sort_folder(self.sort_into, inputs)
                sorter = Sorter(folder, self.sort_as, lambda: None if topk is None else topk.names)
                stack.enter_context(sorter.open())
            results = self._results(batches, sorter, counts)
            if self.output is None:
                deque(results, maxlen=0)
            else:
                write_results(self.output, results, topk=_columns(topk))
                LOGGER.info("%s: %d results", self.output, counts.total())
        if sorter is not None:
            LOGGER.info("%s: %s", self.sort_into, sorter.summary())
        if counts["unreadable"]:
            LOGGER.warning(
                "%d of %d images could not be read; their results say why",
                counts["unreadable"],
                counts.total(),
            )

    def _results(
        self, batches: Iterable[list[dict[str, Any]]], sorter: Sorter | None, counts: Counter[str]
    ) -> Iterator[dict[str, Any]]:
        """Yield the results of all batches; sort, print and count them on the way."""
        from ppcls.logger import progress_bar

        on_screen = self.form is not None and sys.stdout.isatty()
        with nullcontext() if on_screen else progress_bar(None, "images") as bar:
            for batch in batches:
                for result in batch:
                    counts["unreadable" if "error" in result else "read"] += 1
                    if sorter is not None:
                        sorter(result)
                if self.form is not None:
                    _print(batch, self.form)
                yield from batch
                if bar is not None:
                    bar.update(len(batch))


def _columns(topk: Topk | None) -> int:
    """Return the largest number of classes in a result."""
    if topk is None:
        return 1
    return min(topk.topk, len(topk.names)) if topk.names else topk.topk


def _print(batch: list[dict[str, Any]], form: str) -> None:
    from ppcls.deploy.results import json_line
    from ppcls.logger import LOGGER

    if form == "log":
        LOGGER.info("%s", batch)
        return
    ascii_only = (sys.stdout.encoding or "ascii").lower().replace("-", "") != "utf8"
    for result in batch:
        print(json_line(result, ascii_only=ascii_only), flush=True)

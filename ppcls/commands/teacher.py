"""``ppcls teacher``: store the outputs of the frozen networks of a recipe, or check stored ones."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ppcls.commands.command import Command, add_recipe

_MOST_PROCESSES = 1024


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    text = "fill the store of a recipe (TeacherStore.path) with what is missing"
    store = actions.add_parser("store", help=text, description=text)
    add_recipe(store)
    store.add_argument(
        "--shard",
        type=_part,
        default=(1, 1),
        metavar="I/N",
        help="only part I of N, for N processes or machines that fill a store together",
    )
    store.add_argument(
        "--nproc", type=_count, metavar="N", help="compute in N processes on this machine, one for each GPU"
    )
    text = "verify a store; with a recipe, also compare both and run the teacher again for some images"
    check = actions.add_parser("check", help=text, description=text)
    check.add_argument("store", metavar="STORE", help="folder of the store")
    add_recipe(check, required=False)


def _part(text: str) -> tuple[int, int]:
    numbers = [int(number) for number in text.split("/") if number.isdecimal()]
    if len(numbers) != 2 or text.count("/") != 1 or not 1 <= numbers[0] <= numbers[1]:
        raise argparse.ArgumentTypeError(f"expected I/N with I from 1 to N, such as 1/4, got {text!r}")
    return numbers[0], numbers[1]


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_PROCESSES:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {_MOST_PROCESSES}, got {text!r}")
    return int(text)


def _run(args: argparse.Namespace) -> int:
    from ppcls.logger import setup_logging

    setup_logging()
    return _store(args) if args.action == "store" else _check(args)


def _store(args: argparse.Namespace) -> int:
    from ppcls.engine.store_processes import fill_in_processes
    from ppcls.engine.teacher_outputs import fill, log_size

    with _ending_in_order():
        if args.nproc is not None:
            fill_in_processes(args.config, args.override, args.nproc, *args.shard)
        else:
            log_size(fill(_load(args), *args.shard).store)
    return 0


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Store what was computed also after SIGTERM, as after Ctrl-C; Paddle, imported before, would crash.

    Raises:
        SystemExit: after SIGTERM.
    """
    received: list[int] = []

    def interrupt(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        if not received:
            raise
        print("ppcls: ended by SIGTERM; what was computed is stored", file=sys.stderr)
        raise SystemExit(128 + received[0]) from None
    finally:
        signal.signal(signal.SIGTERM, old)


def _check(args: argparse.Namespace) -> int:
    if args.config is None:
        return _verify(args)
    from ppcls.config.loading import override_of

    args.override.append(override_of("TeacherStore.path", args.store))
    config = _load(args)
    from ppcls.engine.teacher_outputs import check

    found = check(config)
    for row in found:
        verdict = "rounding" if row.is_rounding else "NOT what the network gives"
        print(
            f"{row.name}  {row.precision}  {row.values} values  "
            f"relative difference {row.largest:.1e}  {verdict}"
        )
    return 0 if all(row.is_rounding for row in found) else 1


def _verify(args: argparse.Namespace) -> int:
    """Check the files of a store without its recipe."""
    from ppcls.errors import ConfigError
    from ppcls.teacher.stored import verify

    if args.override:
        raise ConfigError("-o changes a recipe, so it needs -c")
    found = verify(Path(args.store))
    for problem in found.problems:
        print(problem)
    print(f"{args.store}: {found.shards} shards, {found.complete} of {found.views} views are complete")
    print("The teacher was not run, which needs the recipe: -c FILE")
    return 1 if found.problems else 0


def _load(args: argparse.Namespace) -> Any:
    from ppcls.config import load_config

    return load_config(args.config, args.override, mode="train")


COMMAND = Command(
    "store the outputs of frozen networks, so that training does not run them again",
    _add_arguments,
    _run,
    writes_files=True,
)

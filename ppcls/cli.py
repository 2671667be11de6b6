"""The command ``ppcls``: finds the requested command and runs it. Nothing slow is imported before that."""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any

from ppcls.commands import COMMANDS, Command
from ppcls.console import Console, patient_console
from ppcls.cpu.switches import check_switches
from ppcls.distributed import announce_end
from ppcls.errors import INTERRUPTED, PADDLE_MISSING, PpclsError, TrainingError, hint, was_interrupted
from ppcls.job import alone, end_with_launcher, read_job


class _Parser(argparse.ArgumentParser):
    """A parser that reports an unknown option with the usage of its command and the most similar option.

    A list of paths may have options between its entries: ``ppcls shard DATA --size 1GB OUT``.

    Args:
        add_arguments: adds the arguments when the first ones are read, so that only those of the requested
            command are created.
        **options: those of argparse.
    """

    def __init__(
        self, *, add_arguments: Callable[[argparse.ArgumentParser], None] | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self._add_arguments = add_arguments

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Report a value that is none of the choices with the most similar one."""
        near = hint(str(value), list(action.choices or ()))
        if action.choices is not None and value not in action.choices and near:
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}.{near}")
        super()._check_value(action, value)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Report unknown options here: the main parser would only show the usage of ``ppcls``."""
        if self._add_arguments is not None:
            self._add_arguments(self)
            self._add_arguments = None
        known, unknown = super().parse_known_args(args, namespace)
        lists = [action.dest for action in self._get_positional_actions() if action.nargs in ("*", "+")]
        if lists:
            entries = list(itertools.takewhile(lambda text: not text.startswith("-"), unknown))
            getattr(known, lists[0]).extend(entries)
            unknown = unknown[len(entries) :]
        for action in self._actions:
            value = getattr(known, action.dest, None)
            if value == "" or (isinstance(value, list) and "" in value):
                name = "/".join(action.option_strings) or action.metavar or action.dest
                self.error(f"argument {name}: got an empty text; is a variable of the shell not set?")
        if unknown:
            options = [text for text in self._option_string_actions if text.startswith("--")]
            self.error(f"unrecognized arguments: {' '.join(unknown)}.{hint(unknown[0], options)}".rstrip("."))
        return known, unknown


@cache
def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _Parser(prog="ppcls", description="Knowledge distillation on PaddlePaddle.")
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        parsers.add_parser(
            name, help=command.help, description=command.help, add_arguments=command.add_arguments
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; default: those of the process.

    Returns:
        exit code: 0 done, 1 training cannot continue, 2 a mistake in config, data, weights or usage,
        128 + signal number when interrupted.
    """
    with patient_console() as output:
        args = build_parser().parse_args(argv)
        if output is not None:
            output.strict = not COMMANDS[args.command].writes_files
        code = _exit_code(_run(args, output), output)
        announce_end(code)
        return code


def _exit_code(code: int, output: Console | None) -> int:
    """Return the exit code of a command with the result `code`, after a check of its output."""
    if output is None or output.error is None:
        return code
    if output.strict and isinstance(output.error, BrokenPipeError):  # `ppcls layers ResNet50 | head`
        return 128 + signal.SIGPIPE
    print(f"ppcls: standard output could not be written: {output.error.strerror}", file=sys.stderr)
    return code or 1 if output.strict else code


def _silence(command: Command) -> None:
    """Suppress messages of libraries about themselves."""
    if command.quiet:
        os.environ.setdefault("GLOG_minloglevel", "2")  # tracing makes Paddle warn about unused features
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # it reports damaged images without their names
    for noise in ("No ccache found", "When training, we now always track global mean"):
        warnings.filterwarnings("ignore", message=noise)  # Paddle's messages about itself


def _run(args: argparse.Namespace, output: Console | None) -> int:
    """Run a command; return the exit code that it would end with."""
    command = COMMANDS[args.command]
    end_with_launcher()
    _silence(command)
    try:
        with nullcontext() if command.joins_processes else alone():
            read_job()
            check_switches()
            return command.run(args)
    except OSError as error:
        if output is None or error is not output.error:
            raise
        return 1
    except PpclsError as error:
        print(f"ppcls: {error}", file=sys.stderr)
        return 1 if isinstance(error, TrainingError) else 2
    except (ImportError, KeyboardInterrupt) as error:
        if was_interrupted(error):
            print(INTERRUPTED, file=sys.stderr)
            return 128 + signal.SIGINT
        if not isinstance(error, ModuleNotFoundError) or error.name != "paddle":
            raise
        print(f"ppcls: {PADDLE_MISSING}", file=sys.stderr)
        return 2
    except UnicodeEncodeError as error:
        encoding = sys.getfilesystemencoding()
        if encoding == "utf-8":
            raise
        where = f"{error.object!r}: names of files are {encoding} here, which lacks these characters"
        print(f"ppcls: {where}; set PYTHONUTF8=1 in the environment", file=sys.stderr)
        return 2

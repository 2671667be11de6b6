"""Train a recipe several times with other settings and seeds, one run after another.

Each run has a folder of its own, whose name says its settings. A sweep that was interrupted can be started
again: finished runs are kept, and the run under way is resumed from its latest checkpoint.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppcls.config import Recipe, load_config, parse_yaml, plain
from ppcls.config.loading import override_of, override_steps
from ppcls.config.mistakes import is_below
from ppcls.errors import ConfigError, mask_credentials, show
from ppcls.launch import passing_signals_to, with_this_package
from ppcls.report.comparison import settings_of, short_names
from ppcls.report.runs import CONFIG, read_run

_MOST_RUNS = 1000
_LONGEST_NAME = 100
_SEED = "Global.seed"
# The run ends together with the sweep, also if that is killed; otherwise it would hold its folder.
_START = """
import sys
from ppcls.job import end_with_parent
end_with_parent()
from ppcls.cli import main
sys.argv[0] = "ppcls"
sys.exit(main(sys.argv[1:]))
"""
_OURS = ("Global.output_dir", "Global.run_name", "Global.checkpoints")


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        name: name of its folder.
        overrides: its settings, as for ``-o``.
        folder: its folder.
    """

    name: str
    overrides: tuple[str, ...]
    folder: Path


@dataclass(frozen=True)
class Sweep:
    """The runs of a sweep.

    Attributes:
        recipe: the recipe.
        out: folder of the runs.
        trials: the runs, in the order in which they are trained.
    """

    recipe: str
    out: Path
    trials: Sequence[Trial]


def plan_sweep(
    recipe: str,
    choices: Sequence[str],
    seeds: str | None,
    out: Path | None = None,
    overrides: Sequence[str] = (),
) -> Sweep:
    """Return the runs of a sweep, all of them checked.

    Args:
        recipe: a file, or the name of a packaged recipe.
        choices: settings with their values, such as ``Optimizer.lr.learning_rate=0.1,0.2``.
        seeds: seeds with commas between them; None for that of the recipe.
        out: folder of the runs; None for ``sweep_<name of the recipe>`` in ``Global.output_dir``.
        overrides: settings of all runs, as for ``-o``.

    Raises:
        ConfigError: for a setting or value that the recipe does not take, or a folder with other runs.
    """
    varied = _varied(choices, seeds)
    given = dict.fromkeys(".".join(override_steps(text)) for text in overrides)
    for key in [*varied, *given]:
        if key in _OURS:
            raise ConfigError(f"{key} is chosen by the sweep; use --out for the folder of the runs")
        if key in varied and key in given:
            raise ConfigError(f"{key} has several values and one with -o; use one of both")
    _check_order([*given, *varied], varied)
    base = load_config(recipe, overrides, "train")
    place = out or Path(base.Global.output_dir) / f"sweep_{Path(recipe).stem}"
    trials = _trials(varied, overrides, place)
    problems = []
    for trial in trials:
        try:
            _check(load_config(recipe, trial.overrides, "train"), trial)
        except ConfigError as error:
            problems.append(f"{trial.name}: {error}")
    if problems:
        more = f"\n{len(problems) - 5} more" if len(problems) > 5 else ""
        raise ConfigError("\n".join(problems[:5]) + more)
    return Sweep(recipe, place, trials)


def _check_order(keys: Sequence[str], varied: Collection[str]) -> None:
    """Refuse a value of --set that would take back what an earlier key sets inside it.

    Args:
        keys: those of -o and of --set, in the order in which they are set.
        varied: those of --set.
    """
    for position, key in enumerate(keys):
        lost = next((other for other in keys[:position] if other != key and is_below(other, key)), None)
        if lost is not None and key in varied:
            remedy = f"give {key} first" if lost in varied else f"write {lost} into the values of {key}"
            raise ConfigError(f"--set {key} would replace {lost}, which is set before it; {remedy}")


def _varied(choices: Sequence[str], seeds: str | None) -> dict[str, list[str]]:
    """Return the values of each setting that varies, as texts."""
    found: dict[str, list[str]] = {}
    for text in choices:
        key = ".".join(override_steps(text))
        if not key:
            raise ConfigError(f"--set {text}: expected KEY=VALUE,VALUE, such as Global.epochs=10,20")
        if key in found:
            raise ConfigError(f"--set {text}: {key} is given twice; write all values into one")
        found[key] = _values(text.partition("=")[2], f"--set {text}")
    if seeds is not None:
        if _SEED in found:
            raise ConfigError(f"--seeds and --set {_SEED}: use one of both")
        found[_SEED] = _values(seeds, f"--seeds {seeds}")
        wrong = [value for value in found[_SEED] if not (value.isascii() and value.isdecimal())]
        if wrong:
            raise ConfigError(f"--seeds {seeds}: expected whole numbers such as 1,2,3, got {wrong[0]}")
    if not found:
        raise ConfigError("nothing varies: give --set KEY=VALUE,VALUE or --seeds 1,2,3")
    return found


def _values(text: str, where: str) -> list[str]:
    """Return the values in a list with commas; commas in brackets belong to a value."""
    parts = _split(text)
    if any(not part for part in parts):
        raise ConfigError(f"{where}: expected values with commas between them, got {show(text)}")
    known: dict[str, str] = {}
    for part in parts:
        value = repr(parse_yaml(part, where))
        if value in known:
            raise ConfigError(f"{where}: a value is given twice, {known[value]} and {part}")
        known[value] = part
    return parts


def _split(text: str) -> list[str]:
    parts = [""]
    depth = 0
    quote = ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        else:
            depth += (sign in "[{") - (sign in "]}")
        if sign == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]


def _trials(varied: Mapping[str, list[str]], overrides: Sequence[str], out: Path) -> list[Trial]:
    names = short_names(list(varied))
    combinations = list(itertools.islice(itertools.product(*varied.values()), _MOST_RUNS + 1))
    if len(combinations) > _MOST_RUNS:
        raise ConfigError(f"more than {_MOST_RUNS} runs; take fewer values")
    trials = []
    for values in combinations:
        settings = tuple(f"{key}={value}" for key, value in zip(varied, values, strict=True))
        name = _folder_name([f"{names[key]}={value}" for key, value in zip(varied, values, strict=True)])
        own = (override_of("Global.output_dir", str(out)), override_of("Global.run_name", name))
        trials.append(Trial(name, (*overrides, *settings, *own), out / name))
    taken: dict[str, Trial] = {}
    for trial in trials:
        other = taken.setdefault(trial.name.lower(), trial)  # some file systems do not tell them apart
        if other is not trial:
            raise ConfigError(
                f"two runs would have the folder {trial.folder}; write their values differently"
            )
    return trials


def _folder_name(parts: Sequence[str]) -> str:
    words = (re.sub(r"[][{}'\"\s]+", " ", part).replace("= ", "=").strip() for part in parts)
    text = "_".join(re.sub(r"[^\w.=+-]+", "-", word) for word in words)
    if len(text) <= _LONGEST_NAME:
        return text
    digest = hashlib.sha256("_".join(parts).encode()).hexdigest()[:8]
    return f"{text[: _LONGEST_NAME - 9]}_{digest}"


def _check(recipe: Recipe, trial: Trial) -> None:
    """Check that the folder of a run is free, or holds a run of this recipe.

    Raises:
        ConfigError: naming the first settings that differ.
    """
    if not (trial.folder / CONFIG).is_file():
        return
    there = settings_of(read_run(trial.folder).config)
    # A saved recipe has no passwords in its addresses.
    here = {key: mask_credentials(value) for key, value in settings_of(_as_plain(recipe)).items()}
    differing = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    if differing:
        shown = ", ".join(f"{key}: {there.get(key)} there, {here.get(key)} now" for key in differing[:3])
        raise ConfigError(
            f"{trial.folder} holds a run of another recipe ({shown}); choose another folder with --out"
        )


def _as_plain(recipe: Recipe) -> dict[str, Any]:
    found: dict[str, Any] = plain(recipe)
    return found


def is_finished(trial: Trial) -> bool:
    """Tell whether a run of a sweep has completed all its epochs."""
    return (trial.folder / CONFIG).is_file() and read_run(trial.folder).finished


def run_sweep(sweep: Sweep, say: Callable[[str], None], processes: int | None = None) -> int:
    """Train the runs of a sweep that are not finished; return the exit code.

    A run that cannot continue (exit code 1, such as a loss that is not finite) is left, and the next begins.

    Args:
        sweep: the sweep.
        say: called with a line before each run.
        processes: number of processes of each run; None for one.

    Returns:
        0 if all are finished, 1 if some are not, that of a run that was stopped by a signal or refused.
    """
    failed = []
    for number, trial in enumerate(sweep.trials, 1):
        place = f"run {number} of {len(sweep.trials)}: {trial.name}"
        if is_finished(trial):
            say(f"{place}: finished before")
            continue
        say(place)
        code = _train(sweep.recipe, trial, processes)
        if code == 1:
            failed.append(trial.name)
        elif code:
            return code
    if failed:
        say(f"not finished, see above: {', '.join(failed)}")
    return 1 if failed else 0


def _train(recipe: str, trial: Trial, processes: int | None) -> int:
    arguments = ["train", "-c", recipe, "--resume", "auto"]
    for text in trial.overrides:
        arguments += ["-o", text]
    if processes is not None:
        arguments += ["--nproc", str(processes)]
    command = [sys.executable, "-c", _START, *arguments]
    # In a separate session: Ctrl-C reaches only this process, which passes it on.
    child = subprocess.Popen(command, env=with_this_package(os.environ), start_new_session=True)
    with passing_signals_to(child) as received:
        code = child.wait()
    if received:
        return 128 + received[0]
    return 128 - code if code < 0 else code

"""Which recipes of a folder are valid here, and what keeps the others from it, as a table by reason.

python benchmarks/recipe_verdicts.py FOLDER [--mode train] [--warnings] [--json FILE]

Every ``*.yaml`` below FOLDER, except in ``_base_``, is checked as `ppcls validate` checks it: nothing is
trained, and no data is read. Reasons are counted by file; "alone" counts the files that have no other reason.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ppcls.config.checks.recipe import check_recipe
from ppcls.config.interpolation import resolve
from ppcls.config.loading import read
from ppcls.config.mistakes import Findings
from ppcls.config.schema import REQUIRED
from ppcls.errors import ConfigError, Mistake, WeightsError
from ppcls.files import write_atomic

EXAMPLES = 2


@dataclass
class Verdict:
    """What was found in one recipe; a valid one has no mistakes."""

    mistakes: list[Mistake]
    warnings: list[Mistake] = field(default_factory=list)


def judge(file: Path, mode: str) -> Verdict:
    """Check one file."""
    findings = Findings()
    try:
        check_recipe(resolve(read(file)), mode, findings)
    except ConfigError as error:
        return Verdict([replace(mistake, place=None) for mistake in error.mistakes])
    return Verdict(findings.mistakes, findings.warnings)


def reason_of(mistake: Mistake) -> str:
    """Return a mistake without what differs from file to file: places, names, values, suggestions."""
    steps = [step for step in mistake.path.split(".") if not step.isdecimal()]
    steps = ["*" if before == "models" else step for before, step in zip(["", *steps], steps, strict=False)]
    text = re.sub(r"'[^']*'", "'...'", mistake.problem or f"expected {mistake.expected}")
    return ": ".join(filter(None, (".".join(steps), text)))


def table(found: Mapping[str, Sequence[Mistake]]) -> list[str]:
    """Return the rows of reasons, the most frequent first, as Markdown."""
    files: dict[str, list[str]] = {}
    alone: dict[str, int] = {}
    for name, mistakes in found.items():
        reasons = {reason_of(mistake) for mistake in mistakes}
        for reason in reasons:
            files.setdefault(reason, []).append(name)
            alone[reason] = alone.get(reason, 0) + (len(reasons) == 1)
    rows = ["| files | alone | reason | examples |", "| ---: | ---: | --- | --- |"]
    for reason, names in sorted(files.items(), key=lambda item: (-len(item[1]), item[0])):
        examples = ", ".join(f"`{name}`" for name in sorted(names)[:EXAMPLES])
        rows.append(f"| {len(names)} | {alone[reason]} | {reason.replace('|', '/')} | {examples} |")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 1 if a recipe is not valid."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mode", choices=list(REQUIRED), default="train")
    parser.add_argument("--warnings", action="store_true", help="a table of warnings too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the mistakes of every file")
    args = parser.parse_args(arguments)
    files = [path for path in sorted(args.folder.rglob("*.y*ml")) if "_base_" not in path.parts]
    if not files:  # a table of nothing would look like success
        what = "holds no recipe (*.yaml)" if args.folder.is_dir() else "is no folder"
        parser.error(f"{args.folder} {what}")
    verdicts = {os.fspath(path.relative_to(args.folder)): judge(path, args.mode) for path in files}
    refused = {name: verdict.mistakes for name, verdict in verdicts.items() if verdict.mistakes}
    print(f"{len(verdicts)} recipes: {len(verdicts) - len(refused)} valid, {len(refused)} not\n")
    print("\n".join(table(refused)))
    warned = {name: verdict.warnings for name, verdict in verdicts.items() if verdict.warnings}
    if args.warnings:
        print(f"\n{len(warned)} recipes with warnings\n")
        print("\n".join(table(warned)))
    if args.json is not None:
        content = {name: list(map(str, verdict.mistakes)) for name, verdict in verdicts.items()}
        text = json.dumps(content, indent=1) + "\n"
        try:
            write_atomic(args.json, lambda stream: stream.write(text.encode()))
        except WeightsError as error:
            parser.error(str(error))
    return 1 if refused else 0


if __name__ == "__main__":
    logging.getLogger("ppcls").setLevel(logging.ERROR)  # what components warn of while they are tried out
    sys.exit(main())

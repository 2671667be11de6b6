"""What ``ppcls explain`` shows of the settings of a recipe: those of :mod:`ppcls.config.schema`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ppcls.config.option_types import describe
from ppcls.config.schema import Recipe
from ppcls.config.section import default_of, fields_of
from ppcls.errors import ConfigError, hint
from ppcls.report.components import LISTED, Explanation, Option

PAGE = "docs/config.md"


def setting_names() -> list[str]:
    """Return the config paths of all sections and keys of a recipe."""
    return list(_paths(Recipe, ""))


def _paths(section: type, above: str) -> Iterator[str]:
    for name, (field, _) in fields_of(section).items():
        yield above + name
        if "section" in field.metadata:
            yield from _paths(field.metadata["section"], f"{above}{name}.")


def is_setting(path: str) -> bool:
    """Tell whether a config path begins with a section of a recipe."""
    return path.partition(".")[0] in fields_of(Recipe)


def find_setting(path: str) -> tuple[Explanation, str]:
    """Return what is known about a section or a key of a recipe, and the rest of the path below it.

    There is a rest only below a key that holds components: ``Loss.Train.0.CELoss`` leads to ``Loss.Train``
    and ``0.CELoss``.

    Raises:
        ConfigError: if there is none; the message has the nearest names of the section.
    """
    fields = fields_of(Recipe)
    steps = path.split(".")
    for number, step in enumerate(steps, 1):
        here = ".".join(steps[:number])
        above = here.rpartition(".")[0]
        if step not in fields:
            advice = hint(step, fields) or f" `ppcls explain {above}` shows its keys"
            raise ConfigError(f"{above} has no key {step!r}.{advice}")
        field, wanted = fields[step]
        if "section" in field.metadata:
            fields = fields_of(field.metadata["section"])
        elif "kind" in field.metadata or number == len(steps):
            return _explained(here, field, wanted), ".".join(steps[number:])
        else:
            raise ConfigError(f"{here} is a single setting; there is no {steps[number]!r} in it")
    return _explained(path, field, wanted), ""


def _title(kind: str) -> str:
    return next(title for title, listed in LISTED.items() if listed.kind == kind)


def _explained(path: str, field: Any, wanted: Any) -> Explanation:
    meta = field.metadata
    options: tuple[Option, ...] = ()
    note = ""
    kind = "setting"
    text = [meta["doc"]]
    if "section" in meta:
        kind = "section"
        text += [(meta["section"].__doc__ or "").strip()]
        options = tuple(_option(name, *entry) for name, entry in fields_of(meta["section"]).items())
    elif "kind" in meta:
        title = _title(meta["kind"])
        note = (
            f"`ppcls list {title}` shows what may stand here; `ppcls explain NAME` explains one of them, and "
            "`ppcls explain NAME.OPTION` one of its options."
        )
    else:
        options = (replace(_option(path.rpartition(".")[2], field, wanted), meaning=""),)
    return Explanation(
        name=path,
        kind=kind,
        text=tuple(dict.fromkeys(part for part in text if part)),
        options=options,
        note=note,
        example=None,
        recipes=(),
        page=PAGE,
        source="",
    )


def _option(name: str, field: Any, wanted: Any) -> Option:
    meta = field.metadata
    if "section" in meta:
        return Option(name, "section", False, None, meta["doc"])
    if "kind" in meta:
        many = "a list of " if meta["many"] else "one of "
        return Option(name, many + _title(meta["kind"]), False, None, meta["doc"])
    kind = meta["form"][1] if meta["form"] else describe(wanted)
    low, high = meta["minimum"], meta["maximum"]
    limits = "" if low is None else f", {low} or more" if high is None else f", {low} to {high}"
    return Option(name, kind + limits, False, default_of(field), meta["doc"])

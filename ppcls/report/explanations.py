"""Answers of ``ppcls explain`` and ``ppcls list`` as text for the terminal."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ppcls.config import dump_yaml
from ppcls.errors import ConfigError, hint
from ppcls.report.components import Explanation, Option, find_component, is_component
from ppcls.report.settings import find_setting, is_setting, setting_names

_MOST_RECIPES = 8
_WIDEST = 110


def explain(name: str) -> list[Explanation]:
    """Return what is known about a component, an option of one (``Name.option``) or a setting of recipes.

    Raises:
        ConfigError: if there is none of this name; the message has the nearest names.
    """
    if is_setting(name):
        setting, rest = find_setting(name)
        inside = [step for step in rest.split(".") if not step.isdecimal()]
        if not rest:
            return [setting]
        components = [index for index, step in enumerate(inside) if is_component(step)]
        if not components:
            raise ConfigError(
                f"there is no component in {rest!r}, which stands in {setting.name}. {setting.note}"
            )
        name = ".".join(inside[components[-1] :])
    component, _, option = name.partition(".")
    if option and is_component(component):
        return [_one_option(found, option) for found in find_component(component)]
    return find_component(name, setting_names())


def _one_option(found: Explanation, option: str) -> Explanation:
    chosen = tuple(one for one in found.options if one.name == option)
    if not chosen:
        near = hint(option, [one.name for one in found.options])
        raise ConfigError(f"{found.name} has no option {option!r}.{near}")
    return replace(found, text=found.text[:1], options=chosen)


def render_list(found: Mapping[str, str]) -> str:
    """Return names and their summaries, one line each; in a terminal, lines are cut to its width."""
    width = max(map(len, found))
    room = max(shutil.get_terminal_size().columns - width - 2, 40) if sys.stdout.isatty() else sys.maxsize
    return "\n".join(
        f"{name.ljust(width)}  {textwrap.shorten(text, room, placeholder=' ...')}".rstrip()
        for name, text in found.items()
    )


def render(found: Explanation) -> str:
    """Return an explanation as text."""
    article = "an" if found.kind[0] in "aeiou" else "a"
    parts = [f"{found.name}: {article} {found.kind}", *(_wrapped(text, "  ") for text in found.text)]
    if found.note:
        parts.append(_wrapped(found.note, "  "))
    if found.options:
        title = "Keys:" if found.kind == "section" else "Options:" if found.kind != "setting" else "Value:"
        parts.append("\n".join([title, *(line for option in found.options for line in _lines(option))]))
    if found.example is not None:
        where = f"Example, {found.example.path} of {found.example.recipe}:"
        parts.append(
            f"{where}\n{textwrap.indent(dump_yaml(found.example.node, compact=True).rstrip(), '  ')}"
        )
    if found.recipes:
        parts.append(_wrapped(f"Packaged recipes that use it: {_named(found.recipes)}", "", "  "))
    parts += [f"Documentation: {found.page}"] if found.page else []
    parts += [f"Defined in {found.source}"] if found.source else []
    return "\n\n".join(parts)


def _named(recipes: tuple[str, ...]) -> str:
    rest = len(recipes) - _MOST_RECIPES
    return ", ".join(recipes[:_MOST_RECIPES]) + (f" and {rest} more" if rest > 0 else "")


def _lines(option: Option) -> Iterator[str]:
    default = "required" if option.required else f"default {_default(option)}"
    yield f"  {option.name}: {option.type} ({default})"
    if option.meaning:
        yield _wrapped(option.meaning, "      ")


def _default(option: Option) -> str:
    value = option.default
    return value if isinstance(value, str) and value else json.dumps(value, default=repr, ensure_ascii=False)


def _wrapped(text: str, first: str, rest: str | None = None) -> str:
    return textwrap.fill(
        " ".join(text.split()),
        _width(),
        initial_indent=first,
        subsequent_indent=first if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _width() -> int:
    return min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)

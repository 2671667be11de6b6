"""Pieces of a page: texts in two languages, tables that sort, and the frame around everything."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any


def escaped(value: object) -> str:
    """Return a value as text of a page; what no encoding has (parts of odd file names) is replaced."""
    return html.escape(str(value).encode("utf-8", "replace").decode("utf-8"))


def both(english: str, chinese: str) -> str:
    """Return a text in English and in Chinese, of which the page shows one. Both are HTML."""
    return f'<span lang="en">{english}</span><span lang="zh">{chinese}</span>'


def embedded_json(value: Any) -> str:
    """Return a value as JSON for a ``script`` element, which no text in it can end."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        html: what it shows.
        key: what it is sorted by; None for a cell without a value, which is always last.
    """

    html: str
    key: float | str | None = None


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        title: HTML.
        number: aligned to the right, and sorted by size.
    """

    title: str
    number: bool = False


def number_cell(value: float | None, form: str = "{:.4f}") -> Cell:
    """Return the cell of a number; an empty one for None and for what is not finite."""
    if value is None or not math.isfinite(value):
        return Cell("", None)
    return Cell(form.format(value), float(value))


def text_cell(value: object) -> Cell:
    """Return the cell of a plain text."""
    return Cell(escaped(value), str(value))


def table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[Cell]],
    *,
    sorts: bool = False,
    tall: bool = False,
    main: int | None = None,
) -> str:
    """Return a table.

    Args:
        columns: its columns.
        rows: as many cells in a row as there are columns.
        sorts: a click on a title sorts the rows.
        tall: it has many rows, and scrolls inside its own frame.
        main: number of the row to emphasise.
    """
    order = ' aria-sort="none"' if sorts else ""
    head = "".join(
        f"<th scope=col{order}{' class=n' if column.number else ''}>{column.title}</th>" for column in columns
    )
    lines = []
    for place, row in enumerate(rows):
        cells = "".join(_cell(cell, column, sorts) for cell, column in zip(row, columns, strict=True))
        lines.append(f"<tr{' class=main' if place == main else ''}>{cells}</tr>")
    kind = "scroll tall" if tall else "scroll"
    return (
        f'<div class="{kind}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(cell: Cell, column: Column, sorts: bool) -> str:
    key = f' data-key="{escaped("" if cell.key is None else cell.key)}"' if sorts else ""
    return f"<td{' class=n' if column.number else ''}{key}>{cell.html}</td>"


def facts_table(rows: Iterable[tuple[str, str]]) -> str:
    """Return titles with what they say, both HTML."""
    lines = "".join(f"<tr><th scope=row>{title}</th><td>{value}</td></tr>" for title, value in rows)
    return f'<table class="facts">{lines}</table>'


def section(title: str, content: str, *, long: bool = False, name: str = "") -> str:
    """Return a section of the page; a `long` one may be divided between printed pages."""
    return f'<section id="{name}"{" class=long" if long else ""}><h2>{title}</h2>{content}</section>'


def note(text: str) -> str:
    """Return a remark below a table or a picture."""
    return f'<p class="note">{text}</p>'


def page(title: str, heading: str, subtitle: str, content: Iterable[str], footer: str) -> str:
    """Return a complete page in one file, which loads nothing.

    Args:
        title: plain text for the title of the window.
        heading: HTML of the first line.
        subtitle: HTML of the line below it.
        content: HTML of the sections.
        footer: HTML of the last line.
    """
    assets = resources.files("ppcls.report").joinpath("assets")
    style = assets.joinpath("page.css").read_text("utf-8")
    script = assets.joinpath("page.js").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en" data-lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escaped(title)}</title><link rel="icon" href="data:,">\n'
        f"<style>\n{style}</style></head>\n<body>"
        f"<header><div><h1>{heading}</h1><p>{subtitle}</p></div>"
        f'<button id="language" type="button" aria-label="中文 / English">{both("中文", "English")}</button>'
        f"</header>\n<main>\n{chr(10).join(content)}\n</main>\n<footer>{footer}</footer>\n"
        f"<script>\n{script}</script></body></html>\n"
    )

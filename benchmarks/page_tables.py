"""The tables and pictures of docs/page_orientation.md, from the lines of results_page_orientation.jsonl."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evidence.marks import fill
from PIL import Image, ImageDraw, ImageFont

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "page_orientation.md"
_TITLES = {
    "unlabelled": "4,000 pages without labels, the teacher's answers and features",
    "answers alone": "the same pages, the teacher's answers alone",
    "labels + teacher": "40 labelled pages, labels and the teacher's answers and features",
    "labels": "40 labelled pages, no teacher",
}
_CELL = (150, 190)
_PUBLISHED = "as published"


SHIPPED = "224"  # pixels of the students that are shipped; keys of JSON are strings


def accuracy_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of accuracies on the test pages."""
    lines = ["| network | learned from | top-1 % | seeds |", "| --- | --- | ---: | --- |"]
    for row in rows:
        if row.get("network") == "teacher" and row["view"] in (_PUBLISHED, SHIPPED):
            seen = "" if row["view"] == _PUBLISHED else ", seeing what the student sees"
            lines.append(f"| teacher, PPLCNet_x1_0 | as published{seen} | {row['top1'] * 100:.2f} | |")
    for variant, title in _TITLES.items():
        found = _seeds(rows, variant, "test", SHIPPED)
        if found:
            each = ", ".join(f"{value:.2f}" for value in found)
            lines.append(f"| student, PPLCNet_x0_25 | {title} | {_mean(found)} | {each} |")
    return "\n".join(lines)


def size_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of the unlabelled student and the teacher by the size of images; empty without it."""
    latency: dict[str, Any] = next((row["latency_ms"] for row in rows if "latency_ms" in row), {})
    teacher = {row["view"]: row["top1"] * 100 for row in rows if row.get("network") == "teacher"}
    lines = [
        "| pixels | student: validation % | student: test % | teacher, same view: test % | latency |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    student = next((row for row in rows if row.get("variant") == "unlabelled"), None)
    for side in student["test"] if student else ():
        cells = [_mean(_seeds(rows, "unlabelled", part, side)) for part in ("val", "test")]
        cells.append(f"{teacher[side]:.2f}" if side in teacher else "")
        time = latency.get(f"student, {side}")
        cells.append("" if time is None else f"{time:.2f} ms")
        lines.append(f"| {side} | {' | '.join(cells)} |")
    return "\n".join(lines) if student else ""


def _seeds(rows: Sequence[dict[str, Any]], variant: str, part: str, side: str) -> list[float]:
    """Return the top-1 of each seed in per cent, in the order of the seeds."""
    found = {row["seed"]: row[part][side] * 100 for row in rows if row.get("variant") == variant}
    return [found[seed] for seed in sorted(found)]


def _mean(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def cost_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of file sizes and latencies; empty if something was not measured."""
    latency = next((row["latency_ms"] for row in rows if "latency_ms" in row), None)
    sizes = {row["network"]: row["bytes"] for row in rows if "network" in row}
    if latency is None or len(sizes) < 2:
        return ""
    lines = ["| network | ONNX file | latency, one image |", "| --- | ---: | ---: |"]
    for name, key in (("teacher", "teacher"), ("student", f"student, {SHIPPED}")):
        lines.append(f"| {name} | {sizes[name] / 1e6:.2f} MB | {latency[key]:.2f} ms |")
    return "\n".join(lines)


def write_tables(rows: Sequence[dict[str, Any]], pages: Path, page: Path = PAGE) -> None:
    """Print the tables, write them into the page, and draw its pictures if the pages are there."""
    text = page.read_text(encoding="utf-8")
    tables = {"accuracy": accuracy_table(rows), "sizes": size_table(rows), "cost": cost_table(rows)}
    for name, table in tables.items():
        print(table)
        text = fill(text, name, table)
    page.write_text(text, encoding="utf-8")
    if (pages / "test").is_dir():
        samples(pages).save(page.parent / "images" / "page_orientation.jpg", quality=80)
        mistakes(rows, pages).save(page.parent / "images" / "page_orientation_mistakes.jpg", quality=80)


def samples(pages: Path) -> Image.Image:
    """Return a picture of 16 pages of training and 8 of the test."""
    files: list[Path] = [pages / "train" / f"{number:05d}.jpg" for number in range(16)]
    files += [pages / "test" / f"{number:05d}.jpg" for number in range(8)]
    return _sheet([(file, "") for file in files])


def mistakes(rows: Sequence[dict[str, Any]], pages: Path, count: int = 8) -> Image.Image:
    """Return a picture of test pages that the teacher gets wrong, and of the student's surest mistakes."""
    teachers = [row for row in rows if row.get("view") == _PUBLISHED]
    students = [row for row in rows if row.get("variant") == "unlabelled"]
    cells: list[tuple[Path | None, str]] = []
    for row in (*teachers[:1], *students[:1]):
        for number, _, answer, score in row["wrong"][:count]:
            cells.append((pages / "test" / f"{number:05d}.jpg", f"{answer.replace('_', ' ')} {score:.0%}"))
        cells += [(None, "")] * (-len(cells) % count)
    return _sheet(cells)


def _sheet(cells: Sequence[tuple[Path | None, str]], columns: int = 8) -> Image.Image:
    width, height = _CELL
    sheet = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    for place, (file, title) in enumerate(cells):
        if file is None:
            continue
        left, top = place % columns * width, place // columns * height
        with Image.open(file) as picture:
            picture.thumbnail((width - 8, height - 24))
            sheet.paste(picture, (left + 4, top + 4))
        draw.text((left + width / 2, top + height - 10), title, "black", font, anchor="mm")
    return sheet

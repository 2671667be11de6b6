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


def accuracy_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of accuracies on the test pages."""
    lines = ["| network | learned from | top-1 % | seeds |", "| --- | --- | ---: | --- |"]
    for row in rows:
        if row.get("network") == "teacher":
            seen = "as published" if row["side"] == 224 else "as published, seeing what the student sees"
            lines.append(f"| teacher, PPLCNet_x1_0 | {seen} | {row['top1'] * 100:.2f} | |")
    for variant, title in _TITLES.items():
        found = {row["seed"]: row["top1"] * 100 for row in rows if row.get("variant") == variant}
        if found:
            values = [found[seed] for seed in sorted(found)]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            each = ", ".join(f"{value:.2f}" for value in values)
            mean = f"{statistics.mean(values):.2f}{spread}"
            lines.append(f"| student, PPLCNet_x0_25 | {title} | {mean} | {each} |")
    return "\n".join(lines)


def cost_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of file sizes and latencies; empty if something was not measured."""
    latency = next((row["latency_ms"] for row in rows if "latency_ms" in row), None)
    sizes = {row["network"]: row["bytes"] for row in rows if "network" in row}
    if latency is None or len(sizes) < 2:
        return ""
    lines = ["| network | ONNX file | latency, one image |", "| --- | ---: | ---: |"]
    for name in ("teacher", "student"):
        lines.append(f"| {name} | {sizes[name] / 1e6:.2f} MB | {latency[name]:.2f} ms |")
    return "\n".join(lines)


def write_tables(rows: Sequence[dict[str, Any]], pages: Path, page: Path = PAGE) -> None:
    """Print the tables, write them into the page, and draw its pictures if the pages are there."""
    text = page.read_text(encoding="utf-8")
    for name, table in (("accuracy", accuracy_table(rows)), ("cost", cost_table(rows))):
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
    teachers = [row for row in rows if row.get("side") == 224]
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

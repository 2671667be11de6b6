"""benchmarks/page_orientation.py: its pages and tables; nothing is trained here."""

from __future__ import annotations

import importlib
import itertools
import random
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

TEXTS = [
    ["The", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"] * 9,
    ["Terms", "and", "so", "on"],
]


@pytest.fixture(scope="module")
def images() -> ModuleType:
    return importlib.import_module("page_images")


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return importlib.import_module("page_tables")


@pytest.fixture(scope="module")
def fonts() -> list[Path]:
    matplotlib = pytest.importorskip("matplotlib")
    return [Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"]


def test_parts_share_neither_texts_nor_fonts(images):
    for one, other in itertools.combinations(images.TEXTS, 2):
        assert not set(images.TEXTS[one]) & set(images.TEXTS[other])
        assert not set(images.FONTS[one]) & set(images.FONTS[other])


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("turn", range(4))
def test_a_photographed_page_lies_as_its_class_says(images, turn, seed):
    ramp = 5 + 245 * np.linspace(0, 1, 280) ** 2  # dark above, light below
    upright = Image.fromarray(np.repeat(ramp.astype(np.uint8)[:, None], 200, axis=1))
    seen = images.photograph(upright.rotate(90 * turn, expand=True), random.Random(seed))
    assert min(seen.size) == pytest.approx(400, abs=1)
    back = np.rot90(np.asarray(seen.convert("L"), float), -turn)
    height, width = back.shape
    middle = back[:, width // 4 : -width // 4]
    assert middle[height // 8 : height // 4].mean() < middle[-height // 4 : -height // 8].mean()


def test_a_page_depends_on_seed_part_and_number_alone(images, fonts):
    content, turn = images.page("test", 7, 0, fonts, TEXTS)
    assert (content, turn) == images.page("test", 7, 0, fonts, TEXTS)
    assert turn == 3
    others = [images.page("val", 7, 0, fonts, TEXTS), images.page("test", 7, 1, fonts, TEXTS)]
    assert all(other != content for other, _ in others)


def test_pages_that_are_there_are_not_drawn_again(images, fonts, tmp_path):
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "00001.jpg").write_bytes(b"there")
    lines = images.write_pages(tmp_path, "val", range(2), 0, fonts, TEXTS)
    assert lines == ["val/00000.jpg upright", "val/00001.jpg turned_left"]
    assert (tmp_path / "val" / "00001.jpg").read_bytes() == b"there"
    assert sorted(file.name for file in (tmp_path / "val").iterdir()) == ["00000.jpg", "00001.jpg"]


def test_what_is_missing_is_named_with_the_command_that_brings_it(images, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "INSTALLED", tmp_path / "no fonts")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="fonts-dejavu-core are missing: apt-get install fonts-dejavu-core"):
        images.find_fonts(tmp_path / "cache")
    with pytest.raises(SystemExit, match="GPL-1 is missing"):
        images.read_texts("train", tmp_path)


@pytest.mark.parametrize("option", ["--work", "--cache"])
def test_a_folder_that_cannot_be_made_is_named(option, tmp_path, monkeypatch):
    script = importlib.import_module("page_orientation")
    folders = {"--work": tmp_path / "work", "--cache": tmp_path / "cache"}
    (tmp_path / "file").touch()
    folders[option] = tmp_path / "file" / "below"
    monkeypatch.setattr(
        sys, "argv", ["page_orientation.py", *(str(part) for pair in folders.items() for part in pair)]
    )
    with pytest.raises(SystemExit, match=f"^{option} .*file/below: no folder to write to: Not a directory"):
        script.main()
    with pytest.raises(SystemExit, match="file: no folder to write to: File exists"):
        script.make_folder(option, tmp_path / "file")


def test_tables_are_those_of_the_lines(tables, tmp_path, capsys):
    def student(variant: str, seed: int, test: float) -> dict[str, object]:
        right = {"test": {"128": 0.25, "224": test}, "val": {"128": 0.5, "224": 0.75}}
        return {
            "network": "student",
            "variant": variant,
            "seed": seed,
            **right,
            "bytes": 1022651,
            "wrong": [],
        }

    rows = [
        {"network": "teacher", "view": "as published", "top1": 0.9825, "bytes": 6783084, "wrong": []},
        {"network": "teacher", "view": "128", "top1": 0.96, "bytes": 6783084, "wrong": []},
        student("labels", 1, 0.5),
        student("labels", 0, 0.52),
        student("unlabelled", 0, 0.9),
        {"latency_ms": {"teacher": 9.0, "student, 128": 0.5, "student, 224": 0.75}},
    ]
    page = tmp_path / "page.md"
    marks = [f"<!-- {name} -->\n<!-- end -->" for name in ("accuracy", "sizes", "cost")]
    page.write_text("\n".join(["A", marks[0], "B", marks[1], "C", marks[2], "D", ""]))
    tables.write_tables(rows, tmp_path, page)
    text = page.read_text()
    assert [line for line in text.splitlines() if len(line) == 1] == ["A", "B", "C", "D"]
    assert "| teacher, PPLCNet_x1_0 | as published | 98.25 | |" in text
    assert "| student, PPLCNet_x0_25 | 40 labelled pages, no teacher | 51.00 ± 1.41 | 52.00, 50.00 |" in text
    assert "| 128 | 50.00 | 25.00 | 96.00 | 0.50 ms |\n| 224 | 75.00 | 90.00 |  | 0.75 ms |" in text
    assert "| student | 1.02 MB | 0.75 ms |" in text
    tables.write_tables(rows, tmp_path, page)
    assert page.read_text() == text
    tables.write_tables([{**rows[0], "top1": 0.5}, *rows[1:]], tmp_path, page)
    assert page.read_text() == text.replace("98.25", "50.00")

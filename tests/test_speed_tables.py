"""benchmarks/speed.py: its tables from made-up times, and that its sides run; nothing is measured here."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
from support import slow_unless


@pytest.fixture(scope="module")
def speed() -> ModuleType:
    return importlib.import_module("speed")


@pytest.fixture(scope="module")
def sides() -> ModuleType:
    return importlib.import_module("speed_sides")


def test_ratios_are_those_of_the_same_turn(speed):
    times = {"a": [(1.0, 2.0), (4.0, 2.0), (3.0, 2.0)], "b": [(2.0, 1.0), (4.0, 1.0), (1.0, 1.0)]}
    assert speed.ratio(times, "a", "b") == 1.0
    assert speed.ratio(times, "a", "b", clock=1) == 2.0
    assert speed.ratio(times, "a", "missing") is None


def test_a_side_that_failed_leaves_its_cells_empty(speed):
    found = {
        32: {speed.ALL: [(0.1, 0.1)] * 3, "everything off": [(0.4, 0.2)] * 3},
        64: {speed.ALL: [(0.5, 0.5)] * 3},
    }
    text = speed.render(found, "somewhere")
    assert f"| {speed.ALL} | 100 (100) | 500 (500) |" in text
    assert "| everything off | 400 (200) |  |" in text
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {speed.ALL} / everything off")]
    assert row.startswith(f"| {speed.ALL} / everything off | 0.25 (0.50) |  |")
    assert "reference" not in text


def test_a_side_that_needs_an_option_says_which(speed, capsys):
    with pytest.raises(SystemExit):
        speed.main(["--sides", "reference"])
    assert "--sides: reference needs --reference" in capsys.readouterr().err


def test_the_tables_of_the_page_are_replaced(speed, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{speed.BEGIN}\nold\n{speed.END}\nafter\n")
    monkeypatch.setattr(speed, "PAGE", page)
    speed.write("new\n")
    assert page.read_text() == f"before\n{speed.BEGIN}\nnew\n{speed.END}\nafter\n"


def test_the_page_has_a_place_for_them(speed):
    text = speed.PAGE.read_text(encoding="utf-8")
    assert text.count(speed.BEGIN) == text.count(speed.END) == 1


def test_every_ratio_names_sides_that_exist(speed, sides):
    known = {*speed.SIDES, "reference", "torch"}
    assert {name for row in speed.RATIOS for name in row[:2]} <= known
    assert all(hasattr(sides, side.kind) for side in speed.SIDES.values())


@pytest.mark.parametrize(
    "kind", slow_unless(lambda kind: kind == "build_ppcls", ["build_ppcls", "build_student", "build_bare"])
)
def test_our_sides_make_steps(speed, sides, tmp_path, kind):
    step = getattr(sides, kind)(32, 2, speed.EAGER, tmp_path)
    step()


def test_an_evaluation_makes_steps(sides, tmp_path):
    options = {"network": "resnet8", "engine": "paddle_inference"}
    step = sides.build_evaluation(32, 2, options, tmp_path)
    step()

"""Curves: finite, inside the picture, and with round numbers at their edges."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppcls.report.charts import HEIGHT, WIDTH, Line, chart

NUMBERS = st.floats(-1e6, 1e6) | st.sampled_from([float("nan"), float("inf"), 0.0, 1e-9])


@pytest.mark.parametrize("form", [".4f", "%", ".3g"])
@settings(max_examples=25)
@given(ys=st.lists(st.lists(NUMBERS, min_size=1, max_size=40), min_size=1, max_size=4), clipped=st.booleans())
def test_every_point_is_inside_the_picture(form, ys, clipped):
    lines = [Line(f"line {n}", list(range(1, len(y) + 1)), y) for n, y in enumerate(ys)]
    drawn = chart("title", [*lines, Line("level", level=0.5)], form=form, clipped=clipped)
    assert "nan" not in drawn.partition("<script")[0]
    places = [place for points in re.findall(r'points="([^"]*)"', drawn) for place in points.split()]
    for place in places:
        x, y = map(float, place.split(","))
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT
    assert len(re.findall("<text", drawn)) < 30


def test_nothing_to_draw_is_no_picture():
    assert chart("title", [Line("a"), Line("b", level=0.5), Line("c", [1.0], [float("nan")])]) == ""


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.1, 0.9], "80%"), ([0.981, 0.987], "98.2%"), ([0.0, 0.0], "0%")],
)
def test_shares_have_round_percentages(values, expected):
    assert f">{expected}<" in chart("title", [Line("a", [1, 2], values)], form="%")


def test_a_spike_at_the_beginning_does_not_flatten_the_rest():
    ys = [100.0, *[1 + n / 20 for n in range(20, 0, -1)]]
    drawn = chart("title", [Line("a", list(range(1, 22)), ys)], clipped=True)
    heights = [float(place.split(",")[1]) for place in re.findall(r'points="([^"]*)"', drawn)[0].split()]
    assert max(heights[1:]) - min(heights[1:]) > 40
    assert '"100.0000"' in drawn  # the pointer still reads the value
    assert "cut off, peak 100.0000" in drawn

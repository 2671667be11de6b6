"""The pages of the methods: their YAML builds, their options exist, their links lead somewhere."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import yaml

from ppcls.loss import build_loss
from ppcls.loss.weight_schedule import epoch_value
from ppcls.registry import LOSSES

DOCS = Path(__file__).parents[2] / "docs" / "methods"
PAGES = sorted(DOCS.glob("*.md"))
METHODS = [p for p in PAGES if not p.stem.startswith("README")]


def blocks(page: Path) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_there_is_a_page_in_both_languages_for_each_method():
    stems = {p.stem for p in METHODS}
    assert len(stems) >= 46
    assert {s for s in stems if s.endswith("_zh")} == {f"{s}_zh" for s in stems if not s.endswith("_zh")}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_each_page_is_named_in_the_overview_and_in_the_index_of_the_site(page):
    end = "_zh" if page.stem.endswith("_zh") else ""
    index = (DOCS.parent / f"index{end}.md").read_text(encoding="utf-8").splitlines()
    assert f"methods/{page.stem}" in index
    overview = (DOCS / f"README{end}.md").read_text(encoding="utf-8")
    assert page.stem.startswith("README") or f"({page.name})" in overview


@pytest.mark.parametrize("page", METHODS, ids=lambda p: p.stem)
def test_yaml_builds_and_options_exist(page):
    (text,) = blocks(page)
    losses = yaml.safe_load(text)["Loss"]["Train"]
    build_loss(losses)
    known = {"weight"}
    for node in losses:
        ((name, options),) = node.items()
        signature = LOSSES.trait(name, "signature_for")(options) or inspect.signature(LOSSES[name])
        known |= set(signature.parameters)
    table = re.findall(r"^\| (`.*?) \|", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert table
    for cell in table:
        assert set(re.findall(r"`(\w+)`", cell)) <= known
    other = page.with_stem(page.stem.removesuffix("_zh") if page.stem.endswith("_zh") else f"{page.stem}_zh")
    assert blocks(other) == [text]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert links
    assert not [link for link in links if not link.startswith("http") and not (DOCS / link).exists()]


def test_schedules_of_the_overview():
    for name in ("README.md", "README_zh.md"):
        (text,) = blocks(DOCS / name)
        lines = [yaml.safe_load(line)["weight"] for line in text.splitlines()]
        assert len(lines) == 4
        for weight in lines:
            assert epoch_value(weight, "weight")(100) > 0

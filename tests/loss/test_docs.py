"""The pages of the methods: their YAML trains, their options exist, their links lead somewhere."""

from __future__ import annotations

import contextlib
import inspect
import math
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.engine.train import forward_and_backward, start_epoch
from ppcls.loss.weight_schedule import epoch_value
from ppcls.registry import LOSSES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "methods"
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


def english(page: Path) -> Path:
    return page.with_stem(page.stem.removesuffix("_zh"))


@pytest.fixture(scope="module")
def clothes(tmp_path_factory) -> list[str]:
    """Settings that put twelve images in the place of those of the demo, which an archive holds."""
    folder = tmp_path_factory.mktemp("clothes")
    rng = np.random.default_rng(0)
    for i in range(12):
        cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 256, (28, 28), dtype=np.uint8))
    (folder / "list.txt").write_text("".join(f"{i}.png {i % 10}\n" for i in range(12)), encoding="utf-8")
    data = [f"DataLoader.{part}.dataset" for part in ("Train", "Eval")]
    settings = [f"{one}.image_root={folder}" for one in data]
    settings += [f"{one}.cls_label_path={folder / 'list.txt'}" for one in data]
    return [*settings, f"Global.output_dir={folder / 'output'}", "Global.check_teacher=False"]


@pytest.mark.parametrize("page", METHODS, ids=lambda p: p.stem)
def test_yaml_is_the_same_in_both_languages_and_options_exist(page):
    (text,) = blocks(page)
    assert blocks(english(page)) == [text]
    known = {"weight"}
    for node in yaml.safe_load(text)["Loss"]["Train"]:
        ((name, options),) = node.items()
        signature = LOSSES.trait(name, "signature_for")(options) or inspect.signature(LOSSES[name])
        known |= set(signature.parameters)
    table = re.findall(r"^\| (`.*?) \|", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert table
    for cell in table:
        assert set(re.findall(r"`(\w+)`", cell)) <= known


@pytest.mark.parametrize("page", [p for p in METHODS if p == english(p)], ids=lambda p: p.stem)
def test_yaml_trains(page, clothes, tmp_path, monkeypatch):
    """The recipe of the page as it stands makes a step, in which each of its losses has a value."""
    monkeypatch.chdir(ROOT)
    (text,) = blocks(page)
    file = tmp_path / f"{page.stem}.yaml"
    file.write_text(text, encoding="utf-8")
    recipe = load_config(file, clothes)
    run = Engine(recipe).build_run()
    with contextlib.closing(run.parts.loader):
        start_epoch(run)
        (batch,) = run.parts.loader.epoch(run.data_epoch)
        _, _, losses = forward_and_backward(run, batch)
    assert len(losses) > len(recipe.Loss.Train)  # each loss has a part or more, and there is their sum
    assert all(math.isfinite(float(value)) and not value.stop_gradient for value in losses.values())
    assert all(
        parameter.grad is not None
        for _, parameter in run.parts.model.named_parameters()
        if not parameter.stop_gradient
    )


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


@pytest.mark.parametrize("page", ["which_method.md", "which_method_zh.md"])
def test_links_of_the_page_that_helps_to_choose(page):
    text = (DOCS.parent / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+\.md)", text)
    assert len(links) > 20
    assert not [link for link in links if not (DOCS.parent / link).exists()]

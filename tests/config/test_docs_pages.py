"""The pages about datasets, schedules and class names: their YAML is accepted, and they name all options."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from ppcls.config import complete_config
from ppcls.config.binding import parameters_of
from ppcls.config.loading import PACKAGED, read
from ppcls.contracts import is_ours
from ppcls.registry import DATASETS, SCHEDULES

DOCS = Path(__file__).parents[2] / "docs"
BLOCKS = [
    (page, text)
    for page in ("datasets.md", "schedules.md", "class_names.md")
    for text in re.findall(r"```yaml\n(.*?)```", (DOCS / page).read_text("utf-8"), flags=re.DOTALL)
]


@pytest.mark.parametrize(("page", "text"), BLOCKS)
def test_the_yaml_of_the_pages_is_accepted(page, text, recipe):
    part = yaml.safe_load(text)
    if "dataset" in part:
        recipe["DataLoader"]["Train"].update(part)
    else:
        recipe.update(part)
    complete_config(recipe, "train")


@pytest.mark.parametrize(("page", "registry"), [("datasets.md", DATASETS), ("schedules.md", SCHEDULES)])
def test_the_pages_name_every_option(page, registry):
    found = set(re.findall(r"`([\w]+)", (DOCS / page).read_text("utf-8")))
    ours = [name for name in registry if is_ours(registry[name])]
    missing = {f"{name}.{o}" for name in ours for o in parameters_of(registry[name]) if o not in found}
    assert not missing
    assert set(ours) <= found


def named_weights(value):
    """The networks of a recipe that begin with official weights."""
    if isinstance(value, dict):
        if value.get("pretrained") is True:
            yield value["name"]
        for inner in value.values():
            yield from named_weights(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from named_weights(inner)


def test_the_page_of_weights_has_the_licence_of_each_default_teacher():
    text = (
        (DOCS / "weights.md").read_text("utf-8").partition("## Licence and source")[2].partition("\n## ")[0]
    )
    names = {name for file in PACKAGED.glob("**/*.yaml") for name in named_weights(read(file).get("Arch"))}
    assert {"ResNet34", "ResNet50_vd", "DeiT_tiny_patch16_224"} <= names
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []

"""Every example of docs/plugins.md works: it is a file of its own, and its recipe trains with it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from support import distilled

from ppcls import registry
from ppcls.config import load_config
from ppcls.contracts import Component
from ppcls.engine import Engine
from ppcls.registry import Registry

PAGE = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n# (\w+\.py)\n(.*?)```\n.*?```yaml\n(.*?)```", PAGE, flags=re.DOTALL)


def overlay(below, above):
    """Lay a fragment over a recipe; a node with a name replaces the one that is there."""
    if not isinstance(below, dict) or not isinstance(above, dict) or "name" in above:
        return above
    return {**below, **{key: overlay(below.get(key), value) for key, value in above.items()}}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch, forget_plugins):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "train.npz", images=pixels, labels=np.arange(12) % 4)


@pytest.mark.parametrize(("file", "code", "fragment"), EXAMPLES, ids=[example[0] for example in EXAMPLES])
def test_an_example_trains(file, code, fragment, recipe, write_recipe, tmp_path):
    (tmp_path / file).write_text(code, encoding="utf-8")
    asked = yaml.safe_load(fragment)
    assert asked["Global"]["plugins"] == [f"./{file}"]
    if "model_name_pairs" in fragment:
        recipe = distilled(recipe)
    content = overlay(recipe, asked)
    content["Global"]["epochs"] = 2
    result = Engine(load_config(write_recipe(content))).train()
    assert result["epoch"] > 0
    assert all(np.isfinite(value) for value in result.values())
    name = Path(file).stem
    if name == "my_postprocess":
        run = tmp_path / "output" / content["Arch"]["name"]
        content["Global"]["pretrained_model"] = str(run / "best_model")
        (first, *_) = Engine(load_config(write_recipe(content), mode="infer"), "infer").infer()
        assert first.keys() == {"file_name", "class", "score"}
    if name == "my_hook":
        assert '"epoch": 2' in (tmp_path / "latest.json").read_text()
    if name == "my_optimizer":
        resumes_exactly(content, write_recipe, tmp_path)


def resumes_exactly(content, write_recipe, tmp_path):
    """A run that is stopped after one epoch and resumed ends with the weights of one that was not."""
    from ppcls.weights import read_params

    path, name = write_recipe(content), content["Arch"]["name"]
    first = [f"Global.output_dir={tmp_path / 'parts'}", "Optimizer.lr={name: ConstLR, learning_rate: 0.001}"]
    Engine(load_config(path, [*first, "Global.epochs=2"])).train()
    whole = read_params(tmp_path / "parts" / name / "latest.pdparams")
    second = [f"Global.output_dir={tmp_path / 'again'}", first[1]]
    Engine(load_config(path, [*second, "Global.epochs=1"])).train()
    resumed = f"Global.checkpoints={tmp_path / 'again' / name / 'latest'}"
    Engine(load_config(path, [*second, "Global.epochs=2", resumed])).train()
    ended = read_params(tmp_path / "again" / name / "latest.pdparams")
    assert all(np.array_equal(ended[key], value) for key, value in whole.items())


def test_there_is_an_example_of_every_kind():
    kinds = {key for key, value in vars(registry).items() if isinstance(value, Registry)}
    used = {kind for kind in kinds if any(f"@{kind}.register" in code for _, code, _ in EXAMPLES)}
    assert used == kinds
    assert any("@pair_loss(" in code for _, code, _ in EXAMPLES)
    assert len(EXAMPLES) == 13


def test_the_table_names_base_classes_that_exist_and_what_they_have():
    rows = re.findall(
        r"^\| [^|]+ \| `(\w+)` \| `([\w.]+)` \| ([^|]+) \| ([^|]*?) ?\|$", PAGE, flags=re.MULTILINE
    )
    assert len(rows) == 14
    for kind, base, must, may in rows:
        module, _, name = base.rpartition(".")
        __import__(module)
        found = getattr(sys.modules[module], name)
        assert issubclass(found, Component)
        assert isinstance(vars(registry)[kind], Registry)
        known = {*dir(found), *(key for one in found.__mro__ for key in vars(one).get("__annotations__", {}))}
        assert set(re.findall(r"`(\w+)", must + may)) - {"hooks"} <= known

"""A Recipe: read and written by attribute and by key, made in Python, written as YAML and read back."""

import copy
import json
import pickle

import pytest
import yaml
from omegaconf import OmegaConf

from ppcls import config
from ppcls.config import ArchSpec, Recipe, complete_config, dump_yaml, load_config, parse_yaml, plain
from ppcls.config.schema import EMASpec
from ppcls.errors import ConfigError

NODE = {"name": "resnet8", "class_num": 4}


def test_a_key_and_its_attribute_are_one(write_recipe):
    recipe = load_config(write_recipe())
    assert recipe["Global"]["epochs"] == recipe.Global.epochs
    recipe["Global"]["epochs"] = 3
    assert recipe.Global.epochs == 3
    recipe.Global.epochs = 4
    assert recipe["Global"]["epochs"] == 4 == recipe.Global.get("epochs")
    assert "epochs" in recipe.Global
    assert {**recipe}["Global"]["epochs"] == 4
    assert list(recipe) == list(Recipe())


def test_a_map_that_is_written_is_read_by_attribute_too():
    recipe = Recipe(Arch=NODE)
    recipe.Arch.notes = {"a": [{"b": 1}]}
    assert recipe.Arch.notes.a[0].b == 1 == recipe["Arch"]["notes"]["a"][0]["b"]
    del recipe.Arch.notes
    assert "notes" not in recipe["Arch"]
    with pytest.raises(AttributeError, match="notes"):
        del recipe.Arch.notes


def test_the_networks_are_those_that_the_keys_say_now(write_recipe):
    recipe = load_config(write_recipe())
    first, *_, last = recipe.arch.names
    recipe["Arch"]["infer_model_name"] = first
    assert recipe.arch.main_name == first
    recipe["Global"]["infer_model_name"] = last
    assert recipe.arch.main_name == last
    recipe["Arch"]["models"][0][first]["pretrained"] = "elsewhere"
    recipe["Arch"]["pretrained_list"] = None
    assert recipe.arch.find(first).pretrained == "elsewhere"
    recipe["Arch"] = NODE
    assert recipe.Arch.name == recipe.arch.name == "resnet8"
    recipe.Arch = ArchSpec.read({"name": "resnet14"})
    assert recipe["Arch"] == {"name": "resnet14"}


def test_a_section_given_as_a_map_has_its_other_keys_too():
    recipe = Recipe()
    writes = (
        lambda: recipe.update(EMA={"decay": 0.5}),
        lambda: recipe.__setitem__("EMA", {"decay": 0.5}),
        lambda: recipe.__ior__({"EMA": {"decay": 0.5}}),
        lambda: recipe.update({"EMA": OmegaConf.create({"decay": 0.5})}),
    )
    for write in writes:
        recipe.EMA = None
        assert recipe["EMA"] is None
        write()
        assert isinstance(recipe.EMA, EMASpec)
        assert recipe.EMA.decay == 0.5
    recipe["Loss"] = None  # a section that always counts
    assert recipe.Loss == {"Train": None, "Eval": None}


@pytest.mark.parametrize(
    "write",
    [
        lambda recipe: recipe["Global"].__setitem__("epoch", 3),
        lambda recipe: setattr(recipe.Global, "epoch", 3),
        lambda recipe: recipe.Global.update(epoch=3),
        lambda recipe: recipe.Global.setdefault("epoch", 3),
        lambda recipe: recipe.update(Global={"epoch": 3}),
        lambda recipe: recipe.__ior__({"Global": {"epoch": 3}}),
        lambda _: Recipe.from_dict({"Global": {"epoch": 3}}),
    ],
)
def test_a_key_that_there_is_not_cannot_be_written(write):
    with pytest.raises(ConfigError, match=r"Global has no key 'epoch'\. Did you mean: epochs\?"):
        write(Recipe())


def test_what_there_is_not_cannot_be_read(write_recipe):
    recipe = load_config(write_recipe())
    with pytest.raises(AttributeError, match="epoch"):
        assert recipe.Global.epoch
    with pytest.raises(KeyError, match="epoch"):
        assert recipe["Global"]["epoch"]
    with pytest.raises(ConfigError, match="Arch: expected a network"):
        assert Recipe().arch


@pytest.mark.parametrize(
    "again",
    [
        copy.deepcopy,
        copy.copy,
        lambda recipe: pickle.loads(pickle.dumps(recipe)),
        lambda recipe: Recipe.from_dict(json.loads(json.dumps(recipe))),
        lambda recipe: Recipe.from_dict(yaml.safe_load(yaml.safe_dump(recipe))),
        lambda recipe: Recipe.from_dict(yaml.safe_load(yaml.dump(recipe))),
        lambda recipe: Recipe.from_dict(parse_yaml(dump_yaml(recipe), "")),
        lambda recipe: Recipe.from_dict(parse_yaml(recipe.to_yaml(), "")),
        lambda recipe: Recipe.from_dict(OmegaConf.create(recipe.to_dict())),
        lambda recipe: Recipe(**recipe),
        lambda recipe: complete_config(recipe, "train"),
    ],
)
def test_copies_are_the_same_recipe(again, write_recipe):
    recipe = load_config(write_recipe())
    found = again(recipe)
    assert isinstance(found, Recipe)
    assert found == recipe == plain(recipe)
    assert type(found.Global) is type(recipe.Global)
    assert found.DataLoader.Train.loader.num_workers == recipe.DataLoader.Train.loader.num_workers


def test_copies_share_nothing(write_recipe):
    recipe = load_config(write_recipe())
    before = recipe.to_dict()
    for found in (copy.deepcopy(recipe), complete_config(recipe, "train"), recipe.to_dict()):
        found["Global"]["epochs"] = 99
        found["Arch"]["models"].clear()
        found["Loss"]["Train"][0].clear()
    assert recipe == before


def test_a_recipe_made_in_python_is_checked_where_it_is_used():
    recipe = Recipe(Arch=NODE)
    recipe.Global.output_dir = "somewhere"
    recipe.Infer = {
        "transforms": [{"DecodeImage": None}, {"ResizeImage": {"size": 224}}, {"ToCHWImage": None}]
    }
    assert recipe.arch.class_count == 4
    assert not recipe.AMP.use_amp
    complete = complete_config(recipe, "export")
    assert complete.is_checked("export")
    assert complete.Global.output_dir == "somewhere"
    recipe.Arch["class_nums"] = 3
    with pytest.raises(ConfigError, match=r"Did you mean: class_num\?"):
        complete_config(recipe, "export")
    with pytest.raises(ConfigError, match="Loss.Train: missing"):
        complete_config(Recipe(Arch=NODE), "train")


def test_a_recipe_is_checked_once_until_it_is_changed(write_recipe, monkeypatch):
    checked = []

    def check(tree, mode, findings, original=config.check_recipe):
        checked.append(mode)
        return original(tree, mode, findings)

    monkeypatch.setattr(config, "check_recipe", check)
    recipe = load_config(write_recipe())
    for same in (recipe, copy.deepcopy(recipe), pickle.loads(pickle.dumps(recipe))):
        assert complete_config(complete_config(same, "train"), "train") == recipe
    assert checked == ["train"]
    complete_config(recipe, "eval")  # which needs other sections
    recipe.Loss.Train[0]["DistillationGTCELoss"]["weight"] = True  # equal to 1.0, which it was
    with pytest.raises(ConfigError, match="expected a number or a map, got True"):
        complete_config(recipe, "train")
    assert checked == ["train", "eval", "train"]


def test_a_checked_recipe_is_checked_alike_again(write_recipe):
    recipe = load_config(write_recipe())
    again = complete_config(Recipe.from_dict(recipe.to_dict()), "train")
    assert again == recipe


def test_a_recipe_is_written_and_read_back_unchanged(write_recipe, tmp_path):
    recipe = load_config(write_recipe(), ["Global.output_dir='1e3'"])
    recipe.save(tmp_path / "again.yaml")
    assert load_config(tmp_path / "again.yaml") == recipe

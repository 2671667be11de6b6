"""Every recipe names the command that runs it, and every file in configs/_base_ is used by a recipe.

Other tests, in tests/recipes, show that each recipe is valid and trains.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from ppcls.config import load_config, read_yaml
from ppcls.config.loading import read

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RECIPES = sorted(path for path in CONFIGS.rglob("*.yaml") if "_base_" not in path.parts)
IDS = [str(path.relative_to(CONFIGS)) for path in RECIPES]
BASES = {path for path in CONFIGS.rglob("*.yaml") if "_base_" in path.parts}
PAIRS, METHODS = CONFIGS / "_base_/cifar/pairs", CONFIGS / "_base_/cifar/methods"


@pytest.mark.parametrize("path", RECIPES, ids=IDS)
def test_header_names_the_command(path):
    head = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    commands = [found for line in head for found in re.findall(r"-c (\S+\.yaml)", line)]
    assert any(command.endswith(str(path.relative_to(CONFIGS))) for command in commands)


@pytest.mark.parametrize("path", RECIPES, ids=IDS)
def test_a_copy_in_a_folder_of_its_own_is_the_same_recipe(path, tmp_path):
    copy = shutil.copy(path, tmp_path / "my.yaml")
    assert read(Path(copy)) == read(path)


@pytest.mark.parametrize("path", RECIPES, ids=IDS)
def test_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 70, "move shared parts to configs/_base_"


def test_every_base_is_used():
    # `ppcls init` writes recipes with the first, and users of class folders name the second.
    used = {CONFIGS / f"_base_/{name}.yaml" for name in ("small_images", "own_class_folders")}
    for path in CONFIGS.rglob("*.yaml"):
        for line in re.findall(r"^_base_:(.*(?:\n +- .*)*)", path.read_text(encoding="utf-8"), re.MULTILINE):
            used |= {(path.parent / name).resolve() for name in re.findall(r"[\w./-]+\.yaml", line)}
    assert BASES, "the folder of bases moved"
    assert used >= BASES


@pytest.mark.parametrize("method", [path.stem for path in sorted(METHODS.glob("*.yaml"))])
def test_a_cifar_recipe_is_a_pair_and_a_method(method):
    recipes = [path for path in (CONFIGS / "cifar").glob("*.yaml") if path.stem.endswith(f"_{method}")]
    assert recipes
    for recipe in recipes:
        pair = recipe.stem.removesuffix(f"_{method}")
        expected = [f"../_base_/cifar/pairs/{pair}.yaml", f"../_base_/cifar/methods/{method}.yaml"]
        assert read_yaml(recipe)["_base_"] == expected


@pytest.mark.parametrize(
    "method", ["kd", "kd_mixup", "dkd", "dist", "wsl", "skd", "refinery", "dml", "rkd", "pefd"]
)
def test_a_pair_of_ones_own_is_one_file(method, tmp_path):
    pair = (PAIRS / "resnet56_resnet20.yaml").read_text(encoding="utf-8").replace("resnet56", "resnet110")
    bases = str(CONFIGS / "_base_").replace("\\", "/")
    (tmp_path / "pair.yaml").write_text(pair.replace("../..", bases), encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"_base_: [pair.yaml, ../_base_/cifar/methods/{method}.yaml]\n", encoding="utf-8")
    teacher, student = load_config(recipe).Arch.models
    assert (teacher.Teacher.name, student.Student.name) == ("resnet110", "resnet20")
    features = ["flatten"] if method in ("rkd", "pefd") else None
    assert teacher.Teacher.get("return_patterns") == student.Student.get("return_patterns") == features
    assert bool(teacher.Teacher.pretrained) == (method != "dml")


@pytest.mark.parametrize("method", ["mgd", "ofd"])
def test_the_loss_compares_the_features_that_the_networks_return(method):
    for recipe in (CONFIGS / "cifar").glob(f"*_{method}.yaml"):
        config = load_config(recipe)
        teacher, student = config.Arch.models
        (loss,) = config.Loss.Train[1].values()
        keys = ([loss.t_key], [loss.s_key]) if method == "mgd" else (loss.teacher_keys, loss.student_keys)
        assert keys == (teacher.Teacher.return_patterns, student.Student.return_patterns)


def test_ssld_evaluates_on_the_validation_list():
    for name in ("PPLCNet_x2_5_ssld", "PPLCNet_x1_0_ssld"):
        config = load_config(CONFIGS / "ImageNet/Distillation" / f"{name}.yaml")
        assert config.DataLoader.Train.dataset.cls_label_path.endswith("train_list_all.txt")
        assert config.DataLoader.Eval.dataset.cls_label_path.endswith("val_list.txt")


@pytest.mark.parametrize("name", ["baseline", "distill"])
def test_own_images_recipes_take_class_folders(tmp_path, name):
    text = (CONFIGS / f"quick_start/own_images_{name}.yaml").read_text(encoding="utf-8")
    path = tmp_path / "my.yaml"
    before = "_base_: [../_base_/own_images.yaml"
    path.write_text(text.replace(before, "_base_: [../_base_/own_class_folders.yaml"), encoding="utf-8")
    assert before in text
    assert load_config(path).DataLoader.Eval.dataset["name"] == "FolderDataset"

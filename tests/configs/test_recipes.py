"""Every recipe of the project is valid, says how to run it, and nothing in configs/_base_ lies idle."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from ppcls.config import load_config
from ppcls.config.loading import read

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
RECIPES = sorted(path for path in CONFIGS.rglob("*.yaml") if "_base_" not in path.parts)
IDS = [str(path.relative_to(CONFIGS)) for path in RECIPES]


@pytest.mark.parametrize("path", RECIPES, ids=IDS)
def test_validates(path):
    config = load_config(path)
    assert config.Arch.name
    label_map = config.Infer.PostProcess and config.Infer.PostProcess.get("class_id_map_file")
    if label_map and label_map.startswith("ppcls/"):
        assert (CONFIGS.parent / label_map).is_file()


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


def test_no_idle_base():
    used = set()
    for path in CONFIGS.rglob("*.yaml"):
        for line in re.findall(r"^_base_:(.*(?:\n +- .*)*)", path.read_text(encoding="utf-8"), re.MULTILINE):
            used |= {(path.parent / name).resolve() for name in re.findall(r"[\w./-]+\.yaml", line)}
    assert set(CONFIGS.rglob("_base_/*.yaml")) <= used


def test_ssld_evaluates_on_the_validation_list():
    for name in ("PPLCNet_x2_5_ssld", "PPLCNet_x1_0_ssld"):
        config = load_config(CONFIGS / "ImageNet/Distillation" / f"{name}.yaml")
        assert config.DataLoader.Train.dataset.cls_label_path.endswith("train_list_all.txt")
        assert config.DataLoader.Eval.dataset.cls_label_path.endswith("val_list.txt")

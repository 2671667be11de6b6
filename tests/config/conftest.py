"""Recipes to break: a complete distillation recipe as a plain tree, and a way to write a changed one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ppcls.config.loading import read

HERE = Path(__file__).parent
Edit = tuple[Any, ...]


@pytest.fixture(scope="session")
def recipe_tree(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A teacher that is frozen, a student, and losses of logits and of a feature."""
    file = tmp_path_factory.mktemp("recipe") / "base.yaml"
    file.write_text(f"_base_: [{HERE / 'rest.yaml'}, {HERE / 'tutorial' / 'udml.yaml'}]\n", encoding="utf-8")
    tree = read(file)
    teacher, student = (next(iter(entry.values())) for entry in tree["Arch"]["models"])
    teacher |= {"name": "resnet14", "return_patterns": ["blocks[5]"]}
    student |= {"name": "resnet8", "return_patterns": ["blocks[2]"]}
    tree["Arch"] |= {"freeze_params_list": [True, False], "infer_model_name": "Student"}
    tree["Loss"]["Train"] = [
        {"DistillationGTCELoss": {"weight": 1.0, "model_names": ["Student"]}},
        {
            "DistillationKLDivLoss": {
                "weight": 0.9,
                "model_name_pairs": [["Student", "Teacher"]],
                "temperature": 4,
            }
        },
        {
            "DistillationPairLoss": {
                "model_name_pairs": [["Student", "Teacher"]],
                "base_loss_name": "MGDLoss",
                "s_key": "blocks[2]",
                "t_key": "blocks[5]",
                "student_channels": 64,
                "teacher_channels": 64,
            }
        },
    ]
    return tree


@pytest.fixture
def write_recipe(recipe_tree: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """Return a function that applies edits to the recipe and writes it.

    Edits: ``("set", path, value)``, ``("rename", path, new_key)``, ``("drop", path)``.
    """

    def write(*edits: Edit, name: str = "recipe.yaml") -> Path:
        tree = copy.deepcopy(recipe_tree)
        for action, path, *value in edits:
            *parents, last = path.split(".")
            node: Any = tree
            for step in parents:
                node = node[int(step) if isinstance(node, list) else step]
            key = int(last) if isinstance(node, list) else last
            if action == "set":
                node[key] = value[0]
            elif action == "rename":
                node[value[0]] = node.pop(key)
            else:
                assert action == "drop"
                del node[key]
        file = tmp_path / name
        file.write_text(json.dumps(tree, ensure_ascii=False), encoding="utf-8")  # JSON is YAML, and fast
        return file

    return write

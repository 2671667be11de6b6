"""A network's own mean, std and input_size in a recipe; keys and shapes of AFD left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ppcls.config import load_config, plain
from ppcls.errors import ConfigError

HERE = Path(__file__).parents[1]
TEACHER = "Arch.models.0.Teacher"
TRAIN, EVAL = (f"DataLoader.{part}.dataset.transform_ops" for part in ("Train", "Eval"))
OWN = [("set", f"{TEACHER}.mean", [0.5, 0.5, 0.5]), ("set", f"{TEACHER}.std", [0.5, 0.5, 0.5])]


def position(tree: dict[str, Any], part: str) -> int:
    ops = tree["DataLoader"][part]["dataset"]["transform_ops"]
    return next(i for i, op in enumerate(ops) if "NormalizeImage" in op)


def mistakes(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return [str(mistake) for mistake in caught.value.mistakes]


def test_the_options_arrive(write_recipe: Callable[..., Path]) -> None:
    config = load_config(write_recipe(*OWN, ("set", f"{TEACHER}.input_size", 160)))
    teacher = plain(config.Arch.models[0].Teacher)
    assert (teacher["mean"], teacher["std"], teacher["input_size"]) == ([0.5] * 3, [0.5] * 3, 160)


@pytest.mark.parametrize(
    ("edits", "place", "words"),
    [
        (OWN[:1], TEACHER, "mean is given without std; a network's own normalisation needs both"),
        (OWN[1:], TEACHER, "std is given without mean"),
        ([OWN[0], ("set", f"{TEACHER}.std", [0.5])], TEACHER, "mean has 3 values and std has 1"),
        ([("set", f"{TEACHER}.input_size", "large")], f"{TEACHER}.input_size", "expected a whole number"),
        ([("set", f"{TEACHER}.input_size", [0, 1])], TEACHER, "expected a side length or [height, width]"),
        ([("set", f"{TEACHER}.mean", "dark"), OWN[1]], f"{TEACHER}.mean", "expected a list of numbers"),
    ],
)
def test_mistakes(write_recipe: Callable[..., Path], edits: list[Any], place: str, words: str) -> None:
    (line,) = mistakes(write_recipe(*edits))
    assert line.startswith(f"{place}: ")
    assert words in line


@pytest.mark.parametrize("chain", [TRAIN, EVAL, "Infer.transforms"])
def test_an_order_of_axes_that_does_not_fit_is_found_in_every_chain(
    write_recipe: Callable[..., Path], chain: str
) -> None:
    ops = [{"DecodeImage": None}, {"ResizeImage": {"size": [32, 32]}}, {"NormalizeImage": {"order": "chw"}}]
    found = mistakes(write_recipe(("set", chain, ops)))
    (line,) = [line for line in found if "NormalizeImage" in line]
    assert line.startswith(f"{chain}.2.NormalizeImage.order: 'chw', which is for images [C, H, W]")


def test_it_needs_one_known_normalisation(
    write_recipe: Callable[..., Path], recipe_tree: dict[str, Any]
) -> None:
    train, eval_ = (position(recipe_tree, part) for part in ("Train", "Eval"))
    (line,) = mistakes(write_recipe(*OWN, ("drop", f"{TRAIN}.{train}")))
    assert line.startswith(f"{TEACHER}.mean: {TRAIN} has 0 NormalizeImage, expected one")
    twice = [
        *recipe_tree["DataLoader"]["Eval"]["dataset"]["transform_ops"],
        {"NormalizeImage": {"order": ""}},
    ]
    (line,) = mistakes(write_recipe(*OWN, ("set", EVAL, twice)))
    assert line.startswith(f"{TEACHER}.mean: {EVAL} has 2 NormalizeImage")
    (line,) = mistakes(write_recipe(*OWN, ("set", f"{EVAL}.{eval_}.NormalizeImage.mean", [0.1, 0.2, 0.3])))
    assert line.startswith(f"{EVAL}.{eval_}.NormalizeImage: other numbers than {TRAIN}.{train}")
    # Without such a network that is nobody's business.
    load_config(write_recipe(("set", f"{EVAL}.{eval_}.NormalizeImage.mean", [0.1, 0.2, 0.3])))
    load_config(write_recipe(("drop", f"{TRAIN}.{train}")))
    load_config(write_recipe(("drop", f"{TRAIN}.{train}"), ("set", f"{TEACHER}.input_size", 32)))


def test_only_networks_of_a_distillation_model_have_them(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    plain_network = [("set", "Arch", {"name": "resnet8", "mean": [0.5], "std": [0.5]})]
    assert any("resnet8 has no option 'mean'" in line for line in mistakes(write_recipe(*plain_network)))
    (line, *_) = mistakes(afd(tmp_path), "Arch.models.0.Teacher.models.0.ResNet34.input_size=160")
    assert "ResNet34 has no option 'input_size'" in line
    load_config(afd(tmp_path), ["Arch.models.0.Teacher.input_size=160"])


def afd(folder: Path) -> Path:
    file = folder / "afd.yaml"
    file.write_text(f"_base_: [{HERE / 'rest.yaml'}, {HERE / 'tutorial' / 'afd.yaml'}]\n", encoding="utf-8")
    return file


def test_keys_and_shapes_of_afd_may_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    teacher = "Arch.models.0.Teacher.models.1.LinearTransformTeacher"
    student = "Arch.models.1.Student.models.1.LinearTransformStudent"
    left_out = [f"{teacher}.{key}=null" for key in ("keys", "t_shapes")]
    left_out += [f"{student}.{key}=null" for key in ("keys", "s_shapes", "t_shapes")]
    loss = "Loss.Train.2.AFDLoss"
    left_out += [f"{loss}.{key}=null" for key in ("student_keys", "teacher_keys", "s_shapes", "t_shapes")]
    load_config(afd(tmp_path), left_out)
    assert "no loss of Loss.Train uses" not in caplog.text  # a transform without keys reads all features

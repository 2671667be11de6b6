"""Mistakes as objects: what the text of an error says is in its parts, and nothing reads a text of ours."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ppcls.config import load_config
from ppcls.config.binding import construct
from ppcls.config.mistakes import Findings
from ppcls.data import build_transforms
from ppcls.errors import ABSENT, ConfigError, Mistake, Place, WeightsError
from ppcls.loss import build_loss
from ppcls.registry import TRANSFORMS

PACKAGE = Path(__file__).parents[2] / "ppcls"
KL = "DistillationKLDivLoss"
BASE = """\
Global:
  epochs: 3
  device: cpu
Arch:
  name: resnet8
  class_num: 10
"""


def mistakes_of(action: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[Mistake, ...]:
    with pytest.raises(ConfigError) as caught:
        action(*arguments, **options)
    lines = str(caught.value).splitlines()
    shown = [line.strip() for line in lines[1:]] if len(lines) > 1 else lines
    assert [str(mistake) for mistake in caught.value.mistakes] == shown, "the text is made of the mistakes"
    return caught.value.mistakes


def by_path(mistakes: tuple[Mistake, ...]) -> dict[str, Mistake]:
    return {mistake.path: mistake for mistake in mistakes}


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        (Mistake("A", value=1.5, expected="a number"), "A: expected a number, got 1.5 (float)"),
        (Mistake("A.b", value=None, expected="a string"), "A.b: expected a string, got null"),
        (Mistake("A", "unknown", suggestions=("Arch", "AMP")), "A: unknown. Did you mean: Arch, AMP?"),
        (Mistake("A", "unknown", advice="Known: x"), "A: unknown. Known: x"),
        (Mistake("A", "no 'x'", suggestions=("y",), advice="More"), "A: no 'x'. Did you mean: y? More"),
        (Mistake("", "not YAML", place=Place("a.yaml", 3)), "a.yaml:3: not YAML"),
        (Mistake("A", "wrong", place=Place("a.yaml", 3)), "A: wrong"),
        (Mistake("", "wrong"), "wrong"),
    ],
)
def test_one_function_writes_the_text(mistake: Mistake, text: str) -> None:
    assert str(mistake) == text
    assert str(ConfigError.of(mistake)) == text


def test_parts_and_places_of_the_mistakes_of_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE, encoding="utf-8")
    text = "_base_: base.yaml\n\nGlobal:\n  # more\n  epochs: many\n  sede: 1\nArch:\n  class_nun: 5\n"
    file = tmp_path / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    overrides = ["Global.keep_last=-2", "Global.print_batch_step.x=3", "nonsense"]
    named = by_path(mistakes_of(load_config, file, overrides, mode="export"))
    assert named["Global.epochs"] == Mistake(
        "Global.epochs", value="many", expected="a whole number", place=Place(str(file), 5)
    )
    assert named["Global.sede"].suggestions == ("seed",)
    assert named["Global.sede"].place == Place(str(file), 6)
    assert named["Global.sede"].value == 1
    assert named["Arch"].suggestions[0] == "class_num"
    assert named["Arch"].place == Place(str(file), 8)
    assert named["Global.keep_last"].place == Place("-o Global.keep_last=-2")
    assert named["Global.keep_last"].expected == "0 or more"
    assert named["Global.print_batch_step"].place == Place("-o Global.print_batch_step.x=3")
    nonsense = "expected key=value, for example Global.epochs=10"
    assert named[""] == Mistake("", nonsense, place=Place("-o nonsense"))


def test_what_a_base_says_is_found_in_the_base(tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    base.write_text(BASE.replace("cpu", "tpu").replace("resnet8", "resnet9"), encoding="utf-8")
    other = tmp_path / "other.yaml"
    other.write_text("Arch:\n  class_num: ten\n", encoding="utf-8")
    file = tmp_path / "recipe.yaml"
    file.write_text("_base_: [base.yaml, other.yaml]\nGlobal: {seed: 1}\n", encoding="utf-8")
    named = by_path(mistakes_of(load_config, file, mode="export"))
    assert named["Global.device"].place == Place(str(base), 3)
    assert named["Arch.name"].place == Place(str(base), 5)
    assert named["Arch.name"].suggestions


def test_lists_and_maps_that_change_entries(tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    losses = "Loss:\n  Train:\n    - CELoss:\n        epsilon: x\n    - CELoss: {epsilon: 2}\n"
    base.write_text(BASE + losses, encoding="utf-8")
    file = tmp_path / "recipe.yaml"
    file.write_text("_base_: base.yaml\nLoss: {Train: {1: {CELoss:\n    {epsilon: 3}}}}\n", encoding="utf-8")
    named = by_path(mistakes_of(load_config, file, mode="export"))
    assert named["Loss.Train.0.CELoss.epsilon"].place == Place(str(base), 10)
    assert named["Loss.Train.1.CELoss.epsilon"].place == Place(str(file), 3)


def test_an_unknown_option_is_found_where_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    losses = "Loss:\n  Train:\n    - CELoss:\n        weight: 1\n        epsilo: x\n"
    file.write_text(BASE + losses, encoding="utf-8")
    named = by_path(mistakes_of(load_config, file, ["Arch.nme=3"], mode="export"))
    assert named["Loss.Train.0"].place == Place(str(file), 11)
    assert named["Arch"].place == Place("-o Arch.nme=3")


def test_files_that_cannot_be_read_have_a_place(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("Global:\n  epochs: 1\n  epochs: 2\n", encoding="utf-8")
    (mistake,) = mistakes_of(load_config, file)
    assert (mistake.path, mistake.place, mistake.value) == ("", Place(str(file), 3), ABSENT)
    assert mistake.problem == "the key 'epochs' is given twice"
    file.write_text("{}", encoding="utf-8")
    assert mistakes_of(load_config, file)[0].place == Place(str(file))
    file.write_text("Global: {output_dir: '${nothing.there}'}", encoding="utf-8")
    assert mistakes_of(load_config, file)[0].path == "Global.output_dir"


@pytest.mark.parametrize(
    ("action", "node", "paths"),
    [
        (build_transforms, [{"DecodeImage": {}}, {"GridMask": {"mode": 7}}], ["t.1.GridMask.mode"]),
        (build_transforms, [{"RandomErasing": {"EPSILON": 2}}], ["t.0.RandomErasing.EPSILON"]),
        (build_transforms, [{"GridMask": {"d1": 9, "d2": 3}}], ["t.0.GridMask.d2"]),
        (build_transforms, [{"Nothing": {}}], ["t.0"]),
        (build_transforms, [{"ResizeImage": {"size": "x", "more": 1}}], ["t.0.ResizeImage.size", "t.0"]),
    ],
)
def test_mistakes_found_while_transforms_are_built(action: Any, node: Any, paths: list[str]) -> None:
    assert [mistake.path for mistake in mistakes_of(action, node, "t")] == paths


@pytest.mark.parametrize(
    ("node", "path"),
    [
        ({"CELoss": {"epsilon": 3}}, "Loss.0.CELoss.epsilon"),
        ({"name": "CELoss", "epsilon": 3}, "Loss.0.epsilon"),
        ({"CELoss": {"weight": "heavy"}}, "Loss.0.CELoss.weight"),
        ({"CELoss": {"weight": {"name": "Steps", "values": 1}}}, "Loss.0.CELoss.weight"),
        ({"CELos": None}, "Loss.0"),
        ({KL: {"model_name_pairs": [["a", "a", "b"]]}}, f"Loss.0.{KL}.model_name_pairs.0"),
        ({KL: {"model_name_pairs": [["a", "b"]], "temperature": 0}}, f"Loss.0.{KL}.temperature"),
    ],
)
def test_mistakes_found_while_losses_are_built(node: dict[str, Any], path: str) -> None:
    assert mistakes_of(build_loss, [node])[0].path == path


def test_an_error_moves_below_other_paths_and_through_processes() -> None:
    inner = ConfigError.of(Mistake("b.c", value=1, expected="a string", suggestions=("x",)))
    outer = inner.below("A")
    assert (outer.path, outer.mistakes[0].suggestions) == ("A.b.c", ("x",))
    assert str(outer) == f"A.{inner}"
    for error in (outer, WeightsError("no file", path="Arch")):
        copied = pickle.loads(pickle.dumps(error))
        assert (str(copied), copied.path, type(copied)) == (str(error), error.path, type(error))
    assert pickle.loads(pickle.dumps(outer)).mistakes == outer.mistakes
    several = ConfigError("2 mistakes", mistakes=[Mistake("A", "x"), Mistake("B", "y")])
    assert several.below("C") is several


def test_the_same_mistake_counts_once() -> None:
    findings = Findings()
    for _ in range(2):
        findings.error("A", "wrong")
        findings.error("A.b", value=[1], expected="a map")
    assert [mistake.path for mistake in findings.mistakes] == ["A", "A.b"]
    assert findings.mistakes_below("A")
    assert not findings.mistakes_below("A.c")
    with pytest.raises(ConfigError, match="2 mistakes in here"):
        findings.raise_mistakes("here")


def test_python_objects_of_scripts_pass() -> None:
    assert construct(TRANSFORMS, {"NormalizeImage": {"mean": (0.5, 0.5, 0.5)}}, "t")


def _raised_texts(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line and beginning of each text that a ConfigError is raised with, values as {}."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
            continue
        text = node.args[0]
        if node.func.id != "ConfigError" or not isinstance(text, ast.JoinedStr | ast.Constant):
            continue
        parts = text.values if isinstance(text, ast.JoinedStr) else [text]
        yield node.lineno, "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in parts)


@pytest.mark.parametrize("room", ["loss", "data", "metric", "config"])
def test_components_say_by_path_which_option_they_are_about(room: str) -> None:
    """A path in the text itself would be lost: nothing reads it from there."""
    option = re.compile(r"([A-Z]\w+|\{\})(\.[a-z_{}][\w{}]*)+: ")
    found = [
        f"{file.relative_to(PACKAGE)}:{line}: {text[:60]}"
        for file in sorted((PACKAGE / room).rglob("*.py"))
        for line, text in _raised_texts(file)
        if option.match(text)
    ]
    assert found == [], 'write ConfigError("what is wrong", path="Name.option")'

"""What a user sees at the command line: exit code 2, the whole report on stderr, no traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ppcls.cli import main
from ppcls.config.json_schema import render


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    return code, captured.out, captured.err


def test_a_right_recipe(write_recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, "validate", "-c", str(write_recipe()), "-o", "Global.epochs=2")
    assert code == 0
    assert "valid" in out


@pytest.mark.parametrize("command", ["validate", "train", "eval", "infer", "export"])
def test_every_command_reports_a_mistake_with_code_2(
    write_recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    file = write_recipe(("rename", "Global.epochs", "epoch"))
    code, _, err = _run(capsys, command, "-c", str(file), "-o", "Arch.models.0.Teacher.nam=x")
    assert code == 2
    assert f"2 mistakes in {file}" in err
    assert "  Global.epoch: unknown. Did you mean: epochs?" in err
    assert "has no option 'nam'. Did you mean: name" in err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Global: {epochs: 1, epochs: 2}\n", ":1: the key 'epochs' is given twice"),
        ("Global: [\n", ":1: not YAML"),
        ("_base_: nothing.yaml\n", "nothing.yaml"),
        ("", "empty"),
    ],
)
def test_files_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text, encoding="utf-8")
    code, _, err = _run(capsys, "validate", "-c", str(file))
    assert code == 2
    assert str(file) in err
    assert words in err


def test_a_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = _run(capsys, "validate", "-c", "ImageNet/Distillation/PPLCNet_x2_5_sld.yaml")
    assert code == 2
    assert "PPLCNet_x2_5_ssld.yaml" in err


def test_several_files_are_all_checked(
    write_recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    bad = write_recipe(("rename", "Global.epochs", "epoch"), name="bad.yaml")
    good = write_recipe(name="good.yaml")
    code, out, err = _run(capsys, "validate", "-c", str(bad), "-c", str(good))
    assert code == 2
    assert f"{good}: valid" in out
    assert f"1 mistake in {bad}" in err


@pytest.mark.parametrize("override", ["Global.epochs", "Arch.models.7.x=1", "Global.epochs={"])
def test_a_bad_override(
    write_recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str], override: str
) -> None:
    code, _, err = _run(capsys, "validate", "-c", str(write_recipe()), "-o", override)
    assert code == 2
    assert f"-o {override}: " in err


def test_the_schema_is_printed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--schema"]) == 0
    assert capsys.readouterr().out == render()
    assert main(["validate"]) == 2
    assert "-c FILE" in capsys.readouterr().err


@pytest.mark.usefixtures("forget_plugins")
def test_the_schema_knows_the_plugins_of_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = """
from ppcls.registry import LOSSES


@LOSSES.register()
class SchemaLoss:
    def __init__(self, margin: float = 1.0) -> None: ...

    def forward(self, outputs, label): ...
"""
    (tmp_path / "my_schema_loss.py").write_text(code, encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("Global: {plugins: [./my_schema_loss.py]}\n", encoding="utf-8")
    assert main(["validate", "--schema", "-c", str(recipe)]) == 0
    losses = json.loads(capsys.readouterr().out)["definitions"]
    assert "SchemaLoss" in losses["loss"]["else"]["properties"]
    assert losses["loss SchemaLoss"]["properties"].keys() == {"name", "margin", "weight"}

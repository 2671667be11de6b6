"""The table of verdicts: every recipe is counted once, under reasons that do not name the file."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("recipe_verdicts")


def test_the_table_of_a_folder(
    script: ModuleType, write_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "recipes"
    (folder / "sub").mkdir(parents=True)
    for name, edits in {
        "good.yaml": [],
        "one.yaml": [("set", "Global.use_multilabel", True)],
        "sub/two.yaml": [("set", "Global.use_multilabel", True), ("set", "Loss.Train.1", {"NoLoss": None})],
        "sub/three.yaml": [("set", "Loss.Train.0", {"OtherLoss": None})],
        "notice.yaml": [("set", "Optimizer.clip_grad", 5.0)],
    }.items():
        shutil.move(write_recipe(*edits), folder / name)
    (folder / "broken.yaml").write_text("Arch: {name: [\n", encoding="utf-8")
    (folder / "_base_").mkdir()
    (folder / "_base_/part.yaml").write_text("Global: {epochs: none}\n", encoding="utf-8")
    report = tmp_path / "verdicts.json"
    assert script.main([str(folder), "--warnings", "--json", str(report)]) == 1
    printed = capsys.readouterr().out
    assert "6 recipes: 2 valid, 4 not" in printed
    (several,) = [line for line in printed.splitlines() if "use_multilabel" in line]
    assert several.startswith("| 2 | 1 | Global.use_multilabel: ")
    assert several.endswith("| `one.yaml`, `sub/two.yaml` |")
    (loss,) = [line for line in printed.splitlines() if "unknown loss" in line]
    assert loss == "| 2 | 1 | Loss.Train: unknown loss '...' | `sub/three.yaml`, `sub/two.yaml` |"
    assert "1 recipes with warnings" in printed
    assert "| 1 | 1 | Optimizer.clip_grad: has no effect" in printed
    found = json.loads(report.read_text(encoding="utf-8"))
    assert len(found) == 6
    assert found["good.yaml"] == []
    assert len(found["sub/two.yaml"]) == 2
    assert str(tmp_path) not in found["broken.yaml"][0]
    shutil.rmtree(folder / "sub")
    (folder / "one.yaml").unlink()
    (folder / "broken.yaml").unlink()
    assert script.main([str(folder)]) == 0


@pytest.mark.parametrize(
    ("place", "words"),
    [("nowhere", "is no folder"), ("empty", "holds no recipe"), ("one.yaml", "is no folder")],
)
def test_a_table_of_nothing_is_a_mistake(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, words: str
) -> None:
    (tmp_path / "empty" / "_base_").mkdir(parents=True)
    (tmp_path / "empty" / "_base_" / "part.yaml").write_text("Global: {}\n", encoding="utf-8")
    (tmp_path / "one.yaml").write_text("Global: {}\n", encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        script.main([str(tmp_path / place)])
    assert stopped.value.code == 2
    assert f"{tmp_path / place} {words}" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_named(
    script: ModuleType, write_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    shutil.move(write_recipe(), tmp_path / "folder")
    with pytest.raises(SystemExit) as stopped:
        script.main([str(tmp_path / "folder"), "--json", str(tmp_path / "folder/recipe.yaml/x.json")])
    assert stopped.value.code == 2
    assert "cannot write" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["recipe.yaml"]

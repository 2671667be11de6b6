"""What `ppcls export` says about the exported network and the teachers of its recipe."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import KL, distilled

import ppcls
from ppcls.cli import main
from ppcls.config import load_config
from ppcls.engine import export_costs
from ppcls.engine.export import ExportedFiles
from ppcls.engine.export_costs import NetworkCost, cost_table, measure_costs
from ppcls.weights import write_params


def numbers(line: str) -> list[float]:
    return [float(text) for text in re.findall(r"(\d+\.\d+) (?:M|MB|ms)\b", line)]


def test_the_teacher_stands_beside_the_student(
    recipe: dict[str, Any],
    write_recipe: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = ppcls.create_model("resnet8", class_num=4)
    write_params(tmp_path / "w.pdparams", net.state_dict())
    recipe = distilled(recipe, **KL)
    recipe["Arch"]["models"][0]["Teacher"]["pretrained"] = str(tmp_path / "lost.pdparams")  # not needed
    recipe["Global"] |= {"pretrained_model": str(tmp_path / "w"), "export_format": "paddle"}
    path = str(write_recipe(recipe))
    assert main(["export", "-c", path]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "(resnet" in line]
    assert [line.split(")")[0] for line in lines[:2]] == ["Teacher (resnet14", "Student (resnet8"]
    teacher, student = numbers(lines[0]), numbers(lines[1])
    assert len(teacher) == len(student) == 3
    assert student[0] == round(sum(p.size for p in net.parameters()) / 1e6, 2)
    file = tmp_path / "output" / "inference" / "inference.pdiparams"
    assert student[1] == round(file.stat().st_size / 1e6, 2)
    assert teacher[0] > 2 * student[0]
    assert re.search(
        r"Student \(resnet8\) against Teacher \(resnet14\): 1/\d\.\d of the size, \d+\.\d times", lines[2]
    )

    assert main(["export", "-c", path, "--no-latency"]) == 0
    assert "resnet14" not in capsys.readouterr().out

    monkeypatch.setattr(export_costs, "_LARGEST", 1000)
    config = load_config(path, mode="export")
    large, _ = measure_costs(config, ExportedFiles(file.parent, (), {}), seconds=0)
    assert large.milliseconds is None
    assert large.parameters
    assert "not measured" in large.reason


def test_what_is_unknown_is_left_empty() -> None:
    table = cost_table(
        [
            NetworkCost("Teacher (ViT)", True, None, None, reason="not measured: why"),
            NetworkCost("Student (resnet8)", False, 80_000, 310_000, 1.5),
        ]
    )
    head, teacher, student = table.splitlines()
    assert teacher.split() == ["Teacher", "(ViT)", "not", "measured:", "why"]
    assert numbers(student) == [0.08, 0.31, 1.5]

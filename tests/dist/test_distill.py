"""``ppcls distill --nproc``: the trainings of a distillation in several processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import paddle
import pytest

import ppcls
from ppcls.api import distill
from ppcls.cli import main
from ppcls.distilling import steps
from ppcls.engine import Engine
from ppcls.errors import ConfigError, TrainingError
from ppcls.report.runs import read_run


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """Arguments of a distillation from a teacher that is there."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 255, (32, 32, 3), np.uint8)
            cv2.imwrite(str(tmp_path / "pets" / name / f"{number}.png"), pixels)
    teacher = tmp_path / "teacher.pdparams"
    paddle.save(ppcls.create_model("resnet8", class_num=2).state_dict(), str(teacher))
    return {
        "data": tmp_path / "pets",
        "teacher": teacher,
        "teacher_network": "resnet8",
        "student": "resnet8",
        "epochs": 2,
        "batch_size": 8,
        "image_size": 32,
        "seed": 1,
        "out": tmp_path / "out",
        "overrides": ["Global.device=cpu", "Global.report=False"],
    }


@pytest.mark.dist
@pytest.mark.slow
def test_two_processes_share_the_images_of_a_step(options: dict[str, Any], monkeypatch: Any) -> None:
    result = distill(**options, processes=2)
    run = read_run(result.folder)
    assert run.finished
    assert run.config["DataLoader"]["Train"]["sampler"]["batch_size"] == 4
    assert run.rows_of("epoch")[-1]["step"] == 4  # 16 images, two epochs
    assert len(list((result.project / "output" / "log").glob("workerlog.*"))) == 2
    assert result.accuracy == run.best_metrics["top1"]
    monkeypatch.setattr(steps, "launch", None)
    monkeypatch.setattr(Engine, "train", None)
    for processes in (None, 1, 2, 3):  # nothing is left to do, with however many processes it was done
        assert distill(**options, processes=processes).accuracy == result.accuracy


@pytest.mark.parametrize(
    ("code", "error"), [(1, TrainingError), (-9, TrainingError), (128 + signal.SIGINT, SystemExit)]
)
def test_a_process_that_fails_ends_the_call(
    options: dict[str, Any], monkeypatch: Any, code: int, error: type[BaseException]
) -> None:
    called = []
    monkeypatch.setattr(steps, "launch", lambda *arguments: called.append(arguments) or code)
    monkeypatch.setattr("ppcls.api.announce", lambda steps: None)
    monkeypatch.setattr("ppcls.api.rehearse", lambda steps: None)
    with pytest.raises(
        error, match="130" if error is SystemExit else f"alone .*: a process ended with exit code {code}"
    ):
        distill(**options, processes=2, baseline=True)
    ((arguments, processes, device, logs),) = called  # the student alone is the first training
    assert arguments[:2] == ["train", "-c"]
    assert "DataLoader.Train.sampler.batch_size=4" in arguments
    assert (processes, device, logs) == (2, "cpu", Path(options["out"]) / "output" / "log")


def test_every_list_of_training_is_shared() -> None:
    sizes = {"Train": {"batch_size": 8}, "UnLabelTrain": {"first_bs": 6}, "Eval": {"batch_size": 5}}
    parts = {part: SimpleNamespace(sampler=sampler) for part, sampler in sizes.items()}
    config: Any = SimpleNamespace(DataLoader=SimpleNamespace(parts=parts))
    assert steps._shares(config, 1) == []
    assert steps._shares(config, 2) == [
        "DataLoader.Train.sampler.batch_size=4",
        "DataLoader.UnLabelTrain.sampler.first_bs=3",
    ]
    with pytest.raises(ConfigError, match="UnLabelTrain.sampler.first_bs: 6 images"):
        steps._shares(config, 4)


def test_processes_that_cannot_be(options: dict[str, Any], capsys: Any, monkeypatch: Any) -> None:
    with pytest.raises(ConfigError, match="batch_size: 8 images cannot be shared equally by 3 processes"):
        distill(**options, processes=3)
    assert not os.path.exists(options["out"] / "output")
    assert main(["distill", str(options["data"]), "--nproc", "0", "--out", str(options["out"])]) == 2
    assert "--nproc: expected at least 1, got 0" in capsys.readouterr().err
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    with pytest.raises(ConfigError, match="already one of 2"):
        distill(**options, processes=2)

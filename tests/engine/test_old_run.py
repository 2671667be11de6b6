"""A run that version 0.1.0 wrote resumes, evaluates, infers and exports with today's code.

The numbers are those that 0.1.0 itself gave. Other processors round differently, and a few steps of training
enlarge that: losses may differ by 0.3 %, and one of the six images of the evaluation may change its class.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ppcls.cli import main
from ppcls.config import load_config
from ppcls.deploy import Predictor
from ppcls.engine import Engine

KEPT = Path(__file__).parent / "data" / "run_0.1.0"
RECORDED = json.loads((KEPT / "recorded.json").read_text())
LATEST = "Global.pretrained_model=output/DistillationModel/latest"
ONE_IMAGE = 1 / 6 + 1e-6


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, and the working directory."""
    copy = tmp_path / "run"
    shutil.copytree(KEPT, copy)
    monkeypatch.chdir(copy)
    return copy


def same_numbers(found: dict, recorded: dict) -> None:
    for name, value in recorded.items():
        if name in ("kind", "epoch", "step"):
            assert found[name] == value, recorded
        elif name.startswith(("top", "agreement")):
            assert abs(found[name] - value) <= ONE_IMAGE, (name, recorded)
        else:
            assert found[name] == pytest.approx(value, rel=3e-3), (name, recorded)


def test_it_resumes_in_the_middle_of_its_epoch_and_gives_the_same_numbers(folder, capsys):
    assert main(["train", "-c", "recipe.yaml", "--resume", "auto"]) == 0
    printed = capsys.readouterr().out
    assert "resumed output/DistillationModel/latest: epoch 2 of 3" in printed
    assert "WARNING" not in printed
    rows = [json.loads(line) for line in (folder / "output/DistillationModel/metrics.jsonl").open()]
    steps = [row["step"] for row in rows if row["kind"] == "train"]
    assert steps == list(range(1, 10))
    new = [row for row in rows if row["step"] > 5 and row["kind"] != "epoch"]  # which 0.1.0 did not write
    assert len(new) == len(RECORDED["resumed"])
    for found, recorded in zip(new, RECORDED["resumed"], strict=True):
        same_numbers(found, recorded)


def test_its_recorded_config_is_a_recipe_that_resumes_too(capsys):
    config = "output/DistillationModel/config.yaml"
    assert main(["train", "-c", config, "-o", "Global.checkpoints=auto", "-o", "Global.epochs=2"]) == 0
    printed = capsys.readouterr().out
    assert "Global.epochs: was 3, is 2" in printed
    assert "[Eval][Epoch 2][best metric" in printed


def test_it_evaluates_to_the_same_numbers():
    found = Engine(load_config("recipe.yaml", [LATEST], mode="eval"), "eval").eval()
    same_numbers(found, RECORDED["eval"])


@pytest.mark.parametrize("weights", ["latest", "best_model", "best_model_student", "best_model_ema_student"])
def test_every_kept_file_of_weights_loads_completely(weights, capsys):
    where = f"Global.pretrained_model=output/DistillationModel/{weights}"
    assert main(["eval", "-c", "recipe.yaml", "-o", where]) == 0
    assert "(0 missing, 0 unexpected, 0 of another shape)" in capsys.readouterr().out


def by_class(results: list[dict]) -> dict[str, list[float]]:
    return {
        result["file_name"]: [
            score for _, score in sorted(zip(result["class_ids"], result["scores"], strict=True))
        ]
        for result in results
    }


def test_it_infers_and_exports_the_same_probabilities():
    inferred = by_class(Engine(load_config("recipe.yaml", [LATEST], mode="infer"), "infer").infer())
    assert main(["export", "-c", "recipe.yaml", "-o", LATEST]) == 0
    exported = by_class(Predictor("inference", batch_size=4).predict("images"))
    assert inferred.keys() == exported.keys() == RECORDED["infer"].keys()
    for name, probabilities in RECORDED["infer"].items():
        assert inferred[name] == pytest.approx(probabilities, abs=1e-4)
        assert exported[name] == pytest.approx(probabilities, abs=1e-4)

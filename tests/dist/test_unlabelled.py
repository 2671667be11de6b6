"""Images without labels in two processes: the weights of one process, gradients of all losses exchanged."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from launching import WORKER, together, train_here
from support import distilled, tiny_recipe

from ppcls.weights import read_params

pytestmark = [pytest.mark.dist, pytest.mark.slow]
PAIR = {"model_name_pairs": [["Student", "Teacher"]]}
LOSSES = {
    "DistillationGTCELoss": {"model_names": ["Student"]},
    "DistillationKLDivLoss": {**PAIR, "temperature": 4.0},
    "DistillationDISTLoss": {**PAIR, "gather": True},
    "DistillationPairLoss": {
        **PAIR, "base_loss_name": "MGDLoss", "s_key": "body", "t_key": "body", "alpha_mgd": 0.5
    },
}  # fmt: skip


def write(images: Path, output: Path, labelled: int, unlabelled: int) -> Path:
    """Write a recipe that sees 8 labelled and 12 unlabelled images a step as 1 x (8 + 12) or 2 x (4 + 6)."""
    output.mkdir()
    recipe = tiny_recipe(images, output)
    recipe["Arch"] = {"name": "Plain", "class_num": 4}
    recipe = distilled(recipe, **LOSSES)
    taps = {"name": "Plain", "return_patterns": ["body"]}
    recipe["Arch"]["models"] = [{"Teacher": {**taps, "width": 7}}, {"Student": taps}]
    recipe["Global"] |= {"epochs": 4, "eval_interval": 4, "save_interval": 4}
    recipe["Optimizer"]["lr"] = {"name": "Cosine", "learning_rate": 0.3}
    loaders = recipe["DataLoader"]
    loaders["Train"]["sampler"] |= {"name": "RASampler", "batch_size": labelled, "num_repeats": 2}
    loaders["UnLabelTrain"] = copy.deepcopy(loaders["Eval"])
    loaders["UnLabelTrain"]["sampler"] |= {"batch_size": unlabelled, "shuffle": True}
    path = output / "recipe.json"
    path.write_text(json.dumps(recipe))
    return path


def test_two_processes_equal_one(image_folder, tmp_path, monkeypatch):
    train_here([write(image_folder, tmp_path / "one", 8, 12)], monkeypatch)
    done = together(tmp_path / "two", [WORKER, write(image_folder, tmp_path / "two", 4, 6)])
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {}
    for name in ("one", "two"):
        text = next((tmp_path / name).rglob("metrics.jsonl")).read_text()
        rows[name] = [json.loads(line) for line in text.splitlines()]
    one, two = (read_params(next((tmp_path / name).rglob("latest.pdparams"))) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for key, value in one.items():
        atol = 1e-6 + 1e-4 * np.abs(value).max()
        np.testing.assert_allclose(two[key], value, rtol=0, atol=atol, err_msg=key)
    for mine, theirs in zip(rows["one"], rows["two"], strict=True):
        for name in mine.keys() & {"top1", "loss", "CELoss_Student"}:
            assert mine[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-6)

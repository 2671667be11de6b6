"""Two processes on the CPU against one: the same weights, the same metrics, and no hanging."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import distilled, tiny_recipe

from ppcls.weights import read_params

WORKER = str(Path(__file__).parent / "worker.py")
pytestmark = pytest.mark.dist
PAIR = {"model_name_pairs": [["Student", "Teacher"]]}
CE = {"DistillationGTCELoss": {"model_names": ["Student"]}}
LOSSES = {
    "kd": {**CE, "DistillationKLDivLoss": {**PAIR, "temperature": 4.0}},
    "mgd": {
        **CE,
        "DistillationPairLoss": {
            **PAIR, "base_loss_name": "MGDLoss", "s_key": "body", "t_key": "body", "alpha_mgd": 0.5
        },  # the mask is drawn alike
    },
    "dist": {"DistillationDISTLoss": {**PAIR, "gather": True}},
    "rkd": {
        "DistillationRKDLoss": {
            **PAIR, "student_keepkeys": ["body"], "teacher_keepkeys": ["body"], "gather": True
        }
    },
}  # fmt: skip


def recipes(images, output, batch_size, **settings):
    """Write recipes that see 16 samples a step as 1 x 8 or 2 x 4; return their paths by name."""
    paths = {}
    output.mkdir()
    for name in ("plain", *LOSSES):
        recipe = tiny_recipe(images, output / name)
        recipe["Arch"] = {"name": "Plain", "class_num": 4}
        if name != "plain":
            recipe = distilled(recipe, **LOSSES[name])
            taps = {"return_patterns": ["body"]} if name in ("mgd", "rkd") else {}
            recipe["Arch"]["models"] = [
                {"Teacher": {"name": "Plain", "width": 7, **taps}}, {"Student": {"name": "Plain", **taps}}
            ]  # fmt: skip
        recipe["Global"] |= {"epochs": 10, "eval_interval": 10, "save_interval": 10, **settings}
        recipe["Optimizer"]["lr"] = {"name": "Cosine", "learning_rate": 0.3}
        for part in recipe["DataLoader"].values():
            part["sampler"]["batch_size"] = batch_size
        paths[name] = output / f"{name}.json"
        paths[name].write_text(json.dumps(recipe))
    return paths


def launch(folder, paths, processes):
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "paddle.distributed.launch", "--nproc_per_node", str(processes)]
        command += ["--log_dir", str(folder / "log")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PADDLE", "CUDA"))}
    return subprocess.run(
        [*command, WORKER, *map(str, paths)], capture_output=True, text=True, timeout=200, env=environment
    )


def final(folder, name):
    return read_params(next((folder / name).rglob("latest.pdparams")))


def evaluations(folder, name):
    rows = [
        json.loads(line) for line in next((folder / name).rglob("metrics.jsonl")).read_text().splitlines()
    ]
    return [row for row in rows if row["kind"] == "eval"]


def test_two_processes_equal_one(image_folder, tmp_path):
    one = recipes(image_folder, tmp_path / "one", batch_size=8)
    two = recipes(image_folder, tmp_path / "two", batch_size=4)
    accumulated = recipes(image_folder, tmp_path / "accumulated", batch_size=4, update_freq=2)
    for folder, paths, processes in (("one", one, 1), ("two", two, 2), ("accumulated", accumulated, 1)):
        # DIST and RKD look across the batch, which accumulation splits
        chosen = [p for n, p in paths.items() if folder != "accumulated" or n in ("plain", "kd")]
        done = launch(tmp_path / folder, chosen, processes)
        assert done.returncode == 0, done.stdout + done.stderr
    for name in one:
        expected = final(tmp_path / "one", name)
        start = np.abs(expected["fc.weight" if name == "plain" else "Student.fc.weight"]).max()
        assert start > 0
        others = ["two"] + (["accumulated"] if name in ("plain", "kd") else [])
        for other in others:
            found = final(tmp_path / other, name)
            assert found.keys() == expected.keys()
            for key, value in expected.items():
                np.testing.assert_allclose(
                    found[key],
                    value,
                    rtol=0,
                    atol=1e-6 + 1e-4 * np.abs(value).max(),
                    err_msg=f"{other} {name} {key}",
                )
        for mine, theirs in zip(
            evaluations(tmp_path / "one", name), evaluations(tmp_path / "two", name), strict=True
        ):
            assert mine["top1"] == pytest.approx(theirs["top1"])
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-4)

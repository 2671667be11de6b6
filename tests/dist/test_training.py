"""Two processes on the CPU against one: the same weights, the same metrics, and no hanging."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from launching import WORKER, launch, together, train_here
from support import distilled, tiny_recipe

from ppcls.weights import read_params

pytestmark = pytest.mark.dist
PAIR = {"model_name_pairs": [["Student", "Teacher"]]}
CE = {"DistillationGTCELoss": {"model_names": ["Student"]}}
MGD = {
    "DistillationPairLoss": {
        **PAIR, "base_loss_name": "MGDLoss", "s_key": "body", "t_key": "body", "alpha_mgd": 0.5
    }
}  # fmt: skip
LOSSES = {
    "kd": {**CE, "DistillationKLDivLoss": {**PAIR, "temperature": 4.0}},
    "mgd": {**CE, **MGD},  # its mask is drawn alike
    "mgd_alone": MGD,  # the student's classifier has no gradient in any process
    "dist": {"DistillationDISTLoss": {**PAIR, "gather": True}},
    "rkd": {
        "DistillationRKDLoss": {
            **PAIR, "student_keepkeys": ["body"], "teacher_keepkeys": ["body"], "gather": True
        }
    },
    "afd": {**CE, "AFDLoss": {"model_name_pair": ["Student", "Teacher"], "weight": 5.0}},
}  # fmt: skip
# DIST and RKD look across the batch, which accumulation splits; so does AFD's BatchNorm. MGD draws anew.
ACCUMULATED = ("plain", "kd")
# Samples to evaluate with: not divisible by the processes, and fewer than there are.
SAMPLES = {"kd": 5, "mgd": 1, "dist": 5}


def networks(name):
    """Return the teacher and the student for a loss; for AFD each is followed by a transform."""
    taps = {"return_patterns": ["body"]} if name in ("mgd", "mgd_alone", "rkd", "afd") else {}
    teacher, student = {"name": "Plain", "width": 7, **taps}, {"name": "Plain", **taps}
    if name == "rkd":
        teacher["frozen_engine"] = "paddle_inference"
    if name == "afd":
        teacher = {
            "name": "AttentionModel",
            "freeze_params_list": [True, False],
            "models": [{"T": teacher}, {"TT": {"name": "LinearTransformTeacher", "qk_dim": 8}}],
        }
        student = {
            "name": "AttentionModel",
            "models": [{"S": student}, {"ST": {"name": "LinearTransformStudent", "qk_dim": 8}}],
        }
    return [{"Teacher": teacher}, {"Student": student}]


def recipes(images, output, batch_size, names=("plain", *LOSSES), **settings):
    """Write recipes whose step takes `batch_size` samples a process; return their paths by name."""
    paths = {}
    output.mkdir()
    for name in names:
        recipe = tiny_recipe(images, output / name)
        recipe["Arch"] = {"name": "Plain", "class_num": 4}
        if name != "plain":
            recipe = distilled(recipe, **LOSSES[name])
            recipe["Arch"]["models"] = networks(name)
            if name == "afd":
                recipe["Arch"].pop("freeze_params_list")
                recipe["Loss"]["Train"][0]["DistillationGTCELoss"]["key"] = "logits"
        recipe["Global"] |= {"epochs": 10, "eval_interval": 10, "save_interval": 10, **settings}
        recipe["Optimizer"]["lr"] = {"name": "Cosine", "learning_rate": 0.3}
        recipe["DataLoader"]["Train"]["sampler"]["batch_size"] = batch_size
        evaluation = recipe["DataLoader"]["Eval"]
        evaluation["sampler"]["batch_size"] = 2
        if name in SAMPLES:
            lines = Path(evaluation["dataset"]["cls_label_path"]).read_text().splitlines()
            chosen = output / f"{name}.txt"
            chosen.write_text("\n".join(lines[: SAMPLES[name]]) + "\n")
            evaluation["dataset"]["cls_label_path"] = str(chosen)
        if name == "dist":  # processes with different numbers of batches must not wait for each other
            recipe["Loss"]["Eval"] += [{loss: options} for loss, options in LOSSES[name].items()]
        paths[name] = output / f"{name}.json"
        paths[name].write_text(json.dumps(recipe))
    return paths


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def final(folder, name):
    return read_params(next((folder / name).rglob("latest.pdparams")))


def evaluations(folder, name):
    rows = [
        json.loads(line) for line in next((folder / name).rglob("metrics.jsonl")).read_text().splitlines()
    ]
    return [row for row in rows if row["kind"] == "eval"]


@pytest.mark.parametrize(
    "names",
    [("plain", "kd", "mgd"), pytest.param(("dist", "rkd", "afd", "mgd_alone"), marks=pytest.mark.slow)],
)
def test_two_processes_equal_one(image_folder, tmp_path, monkeypatch, names):
    """20 steps of 8 samples (then 4): by one process at once or in parts, by two at once or in parts."""
    accumulated = [name for name in names if name in ACCUMULATED]
    one = recipes(image_folder, tmp_path / "one", 8, names)
    parts = recipes(image_folder, tmp_path / "parts", 4, accumulated, update_freq=2)
    two = recipes(image_folder, tmp_path / "two", 4, names)
    two_parts = recipes(image_folder, tmp_path / "two_parts", 2, accumulated, update_freq=2)
    train_here([*one.values(), *parts.values()], monkeypatch)
    done = together(tmp_path / "two", [WORKER, *two.values(), *two_parts.values()])
    assert done.returncode == 0, done.stdout + done.stderr
    for name in one:
        expected = final(tmp_path / "one", name)
        moved = [key for key, value in expected.items() if np.ptp(value) > 0]
        assert len(moved) > 4
        for other in ["two", *(["parts", "two_parts"] if name in accumulated else [])]:
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
                evaluations(tmp_path / "one", name), evaluations(tmp_path / other, name), strict=True
            ):
                assert mine["top1"] == pytest.approx(theirs["top1"])
                assert mine["CELoss"] == pytest.approx(theirs["CELoss"], rel=1e-4)
    for folder in ("one", "two") if "rkd" in names else ():
        states = json.loads(next((tmp_path / folder / "rkd").rglob("latest.pdstates")).read_text())
        assert states["engines"]["Teacher"]["used"] == "paddle_inference/float32"
    # one exchange of gradients for each of the 20 steps, however many parts a step has
    for path in (*(two[name] for name in names if name in ("plain", "kd", "mgd")), *two_parts.values()):
        assert json.loads(path.with_suffix(".collectives.json").read_text())["all_reduce"] == 20


@pytest.mark.slow
def test_two_launchers_are_two_machines(image_folder, tmp_path, monkeypatch):
    """What docs/distributed.md writes for several machines, with one process each, on this one."""
    one = recipes(image_folder, tmp_path / "one", 8, ("kd",))
    two = recipes(image_folder, tmp_path / "two", 4, ("kd",))
    nodes = ["--master", f"127.0.0.1:{free_port()}", "--nnodes", "2"]
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(launch, tmp_path / f"node{n}", two.values(), 1, *nodes, "--rank", str(n))
            for n in (0, 1)
        ]
        for run in runs:
            done = run.result()
            assert done.returncode == 0, done.stdout + done.stderr
    train_here([*one.values()], monkeypatch)
    expected, found = final(tmp_path / "one", "kd"), final(tmp_path / "two", "kd")
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-6 + 1e-4 * np.abs(value).max())

"""What goes wrong in one of two processes ends both, says why, and leaves a run that can continue exactly."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support import tiny_recipe

from ppcls.weights import read_params

pytestmark = pytest.mark.dist
ROOT = Path(__file__).parents[2]
PLUGIN = Path(__file__).parent / "plugin"
FAULTY_STEP = 4  # in the second epoch, after the save at step 3
ERRORS = {
    "raise": "ValueError: something of the user's own went wrong",
    "nan": "the loss is not finite at step 3",
    "kill": "code -9",
    "exit": "code 3",
}


@pytest.fixture
def job(image_folder, tmp_path):
    """Return a function that runs a recipe in two processes, with a fault; they have to end within 30 s."""
    recipe = tiny_recipe(image_folder, tmp_path / "output")
    recipe["Global"] |= {"epochs": 3, "save_steps": 3, "eval_interval": 3}
    recipe["DataLoader"]["Train"]["sampler"]["batch_size"] = 3
    recipe["Loss"]["Train"].append({"Fault": {}})
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe))

    def run(fault="none:*:0", *options, output="output", bare=False):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PADDLE", "CUDA"))}
        environment |= {"PPCLS_TEST_FAULT": fault, "PYTHONPATH": f"{PLUGIN}{os.pathsep}{ROOT}"}
        command = [sys.executable, "-m", "ppcls", "train", "--nproc", "2"]
        if bare:
            command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
            command += ["--log_dir", str(tmp_path / "log"), str(ROOT / "tools/train.py")]
        command += ["-c", str(path), "-o", f"Global.output_dir={tmp_path / output}"]
        moment = tmp_path / "moment"
        environment["PPCLS_TEST_FAULT_TIME"] = str(moment)
        moment.unlink(missing_ok=True)
        done = subprocess.run(
            [*command, *options], capture_output=True, text=True, env=environment, timeout=250
        )
        if moment.exists():
            passed = time.time() - float(moment.read_text())
            print(f"{fault}: all ended after {passed:.1f} s")
            assert passed < 30
        return done

    return run


def same_end(one, other):
    """Both runs ended with the same weights, optimizer, position and metrics, bit by bit."""
    for suffix in (".pdparams", ".pdopt"):
        first, second = (read_params(folder / f"resnet8/latest{suffix}") for folder in (one, other))
        assert first.keys() == second.keys()
        for name in first:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    states = [json.loads((folder / "resnet8/latest.pdstates").read_text()) for folder in (one, other)]
    for state in states:
        state.pop("files")
        assert state["finished"]
    assert states[0] == states[1]


@pytest.mark.parametrize(
    ("kind", "who", "bare"),
    [
        ("nan", 1, False),
        *(
            pytest.param(kind, who, bare, marks=pytest.mark.slow)
            for kind in ERRORS
            for who in (0, 1)
            for bare in (False, True)
            if (kind, who, bare) != ("nan", 1, False)
        ),
    ],
)
def test_one_failing_process_ends_both_and_is_heard(job, tmp_path, kind, who, bare):
    done = job(f"{kind}:{who}:{FAULTY_STEP}", bare=bare)
    printed = done.stdout + done.stderr
    assert done.returncode != 0
    assert ERRORS[kind] in printed, printed
    if kind in ("raise", "nan") and not bare:
        last = done.stderr[done.stderr.rindex("ppcls: process ") :]
        assert f"process {who} of 2" in last
        assert ERRORS[kind] in last, last
    assert json.loads((tmp_path / "output/resnet8/latest.pdstates").read_text())["step"] == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "code", "bare"),
    [
        (f"term:0:{FAULTY_STEP}", 143, False),
        (f"int:1:{FAULTY_STEP}", 130, False),
        (f"term-launcher:0:{FAULTY_STEP}", 15, True),
        (f"kill:*:{FAULTY_STEP}", None, False),
        (f"kill:*:{FAULTY_STEP}", None, True),
    ],
)
def test_an_interrupted_run_of_two_processes_goes_on_exactly(job, tmp_path, fault, code, bare):
    assert job(output="whole", bare=True).returncode == 0
    done = job(fault, bare=bare)
    printed = done.stdout + done.stderr
    assert done.returncode == code if code else done.returncode != 0, printed
    latest = tmp_path / "output/resnet8/latest"
    assert json.loads(latest.with_suffix(".pdstates").read_text())["step"] == (FAULTY_STEP if code else 3)
    done = job("none:*:0", "-o", f"Global.checkpoints={latest}", bare=True)
    assert done.returncode == 0, done.stdout + done.stderr
    same_end(tmp_path / "whole", tmp_path / "output")


@pytest.mark.slow
def test_processes_stop_together_within_an_evaluation(job, image_folder, tmp_path):
    lists = image_folder / "val_list.txt"
    lists.write_text((image_folder / "train_list.txt").read_text() * 2)  # 12 batches for each process
    options = ("-o", "DataLoader.Eval.sampler.batch_size=1", "-o", "Loss.Eval.0={Fault: {}}")
    options += ("-o", "Global.epochs=1", "-o", "Global.eval_interval=1")
    done = job("term-eval:1:6", *options)
    assert done.returncode == 143, done.stdout + done.stderr
    latest = tmp_path / "output/resnet8/latest"
    states = json.loads(latest.with_suffix(".pdstates").read_text())
    assert (states["epoch"], states["batch"], states["finished"]) == (1, 2, False)
    done = job("none:*:0", *options, "-o", f"Global.checkpoints={latest}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(latest.with_suffix(".pdstates").read_text())["finished"]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("late", [0, 1])
def test_one_process_may_be_late_by_more_than_a_collective_waits(job, tmp_path, late):
    """gloo gives up after 30 s; a slow save of process 0 and a slow part of an evaluation end no run."""
    done = job(f"slow:{late}:0", "-o", "Loss.Eval.0={Fault: {}}", "-o", "Global.epochs=1", bare=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "output/resnet8/latest.pdstates").exists()
    rows = [json.loads(line) for line in (tmp_path / "output/resnet8/metrics.jsonl").read_text().splitlines()]
    assert [row["kind"] for row in rows].count("eval") == 1

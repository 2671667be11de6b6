"""Processes that are not started alike end before anything is written, and none outlives its launcher."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import tiny_recipe

pytestmark = pytest.mark.dist
ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(image_folder, tmp_path):
    recipe = tiny_recipe(image_folder, tmp_path / "output")
    recipe["DataLoader"]["Train"]["sampler"]["batch_size"] = 3
    recipe["Global"]["epochs"] = 1
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe))
    return path


def plain_environment():
    found = {k: v for k, v in os.environ.items() if not k.startswith(("PADDLE", "CUDA"))}
    return found | {"PYTHONPATH": str(ROOT)}


def start_by_hand(rank, port, command, *options, **variables):
    """Start one of two processes, as a script without Paddle's launcher does."""
    variables |= {
        "PADDLE_TRAINER_ID": str(rank),
        "PADDLE_TRAINERS_NUM": "2",
        "PADDLE_MASTER": f"127.0.0.1:{port}",
        "PADDLE_TRAINER_ENDPOINTS": "127.0.0.1:7000,127.0.0.1:7001",
        "PADDLE_CURRENT_ENDPOINT": f"127.0.0.1:{7000 + rank}",
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    command = [sys.executable, "-m", "ppcls", *command, *options]
    return subprocess.Popen(command, env=plain_environment() | variables, **pipes)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def endings(processes):
    printed = [process.communicate(timeout=120)[0] for process in processes]
    return [process.returncode for process in processes], printed


@pytest.mark.slow
def test_processes_with_different_recipes_are_refused(path, tmp_path):
    port, command = free_port(), ["train", "-c", str(path), "-o", "Optimizer.momentum=0.8"]
    options = ["-o", "Optimizer.lr.learning_rate=0.1", "-o", f"Global.output_dir={tmp_path / 'other'}"]
    codes, printed = endings(
        [start_by_hand(0, port, command), start_by_hand(1, port, command, *options, "-o", "Global.seed=4")]
    )
    assert codes == [2, 2], printed
    for text in printed:
        assert "  Optimizer.lr.learning_rate: 0.05 in process 0, 0.1 in process 1\n" in text
        assert "  Global.seed: 3 in process 0, 4 in process 1\n" in text
        assert text.count(" in process 1") == 2
    assert {file.name for file in tmp_path.iterdir()} == {"images", "recipe.json"}


@pytest.mark.slow
def test_processes_with_different_lists_are_refused(path, tmp_path, image_folder):
    lines = (image_folder / "val_list.txt").read_text().splitlines(keepends=True)
    (tmp_path / "short.txt").write_text("".join(lines[:-1]))
    port, command = free_port(), ["train", "-c", str(path)]
    option = f"DataLoader.Eval.dataset.cls_label_path={tmp_path / 'short.txt'}"
    codes, printed = endings([start_by_hand(0, port, command), start_by_hand(1, port, command, "-o", option)])
    assert codes == [2, 2], printed
    for text in printed:
        assert f"DataLoader.Eval.dataset: {len(lines)} images (" in text
        assert f"{len(lines) - 1} (" in text
    assert not (tmp_path / "output").exists() or not list((tmp_path / "output").glob("[!.]*"))


def test_a_process_that_does_not_come_is_named(path):
    command, port = ["eval", "-c", str(path)], free_port()
    codes, printed = endings([start_by_hand(0, port, command, FLAGS_stop_check_timeout="1")])
    assert codes == [1]
    assert "ppcls: process 1 (127.0.0.1:7001) of 2 did not start" in printed[0]
    assert "Traceback" not in printed[0]


def status_of(pid):
    """Return the state of a process and its parent's number; None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else (fields[0], int(fields[1]))


def children(pid):
    everyone = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [other for other in everyone if (status_of(other) or ("", 0))[1] == pid]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")
@pytest.mark.parametrize(
    ("bare", "victim"),
    [
        (False, "command"),
        pytest.param(False, "launcher", marks=pytest.mark.slow),
        pytest.param(True, "launcher", marks=pytest.mark.slow),
    ],
)
def test_no_process_outlives_its_launcher(path, tmp_path, bare, victim):
    """Not even one that is stopped."""
    command = [sys.executable, "-m", "ppcls", "train", "--nproc", "2"]
    if bare:
        command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
        command += ["--log_dir", str(tmp_path / "log"), str(ROOT / "tools/train.py")]
    command += ["-c", str(path), "-o", "Global.epochs=9999", "-o", "Global.eval_during_train=false"]
    process = subprocess.Popen(command, env=plain_environment(), stdout=subprocess.DEVNULL)
    while not (tmp_path / "output/resnet8/latest.pdstates").exists():
        assert process.poll() is None
        time.sleep(0.05)
    launcher = process.pid if bare else children(process.pid)[0]
    processes = [launcher, *children(launcher)]
    try:
        assert len(processes) == 3
        os.kill(processes[2], signal.SIGSTOP)
        os.kill(process.pid if victim == "command" else launcher, signal.SIGKILL)
        process.wait(30)
        end = time.monotonic() + 30
        while any(map(status_of, processes)) and time.monotonic() < end:
            time.sleep(0.05)
        assert [pid for pid in processes if status_of(pid)] == []
    finally:
        for pid in filter(status_of, processes):
            os.kill(pid, signal.SIGKILL)

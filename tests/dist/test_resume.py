"""Two processes killed with -9 continue with ``--resume auto``, exactly; a second run is refused."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from support import tiny_recipe

from ppcls.engine.checkpoint.lock import RunLock, lock_path
from ppcls.weights import read_params


@pytest.mark.dist
@pytest.mark.slow
def test_two_killed_processes_go_on_exactly(image_folder, tmp_path):
    path = tmp_path / "recipe.json"
    recipe = tiny_recipe(image_folder, tmp_path)
    recipe["Global"] |= {"epochs": 20, "save_steps": 1, "keep_last": 1, "eval_interval": 20}
    recipe["DataLoader"]["Train"]["sampler"]["batch_size"] = 3
    path.write_text(json.dumps(recipe))

    def start(name):
        command = [sys.executable, "-m", "ppcls", "train", "--nproc", "2", "-c", str(path)]
        command += ["-o", f"Global.output_dir={tmp_path / name}", "--resume", "auto"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PADDLE", "CUDA"))}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, env=environment, **pipes)

    whole = start("whole")
    cut = start("cut")
    folder = tmp_path / "cut/resnet8"
    while not (folder / "latest.pdstates").exists():
        assert cut.poll() is None, cut.stdout.read()
        time.sleep(0.02)
    os.kill(json.loads(lock_path(folder).read_text())["pid"], signal.SIGKILL)
    assert cut.wait(60) != 0
    with RunLock(folder) as lock:
        lock.claim()
        lock.sign()
        second = start("cut")
        printed, _ = second.communicate(timeout=120)
    assert second.returncode == 2
    assert f"another run is writing to {folder} (process {os.getpid()} on" in printed
    assert whole.wait(200) == 0, whole.stdout.read()
    done = start("cut")
    printed, _ = done.communicate(timeout=200)
    assert done.returncode == 0, printed
    assert f"resumed {folder / 'latest'}" in printed
    for tag in ("latest", "best_model", "epoch_20"):
        for suffix in (".pdparams", ".pdopt"):
            mine, theirs = (read_params(f / f"{tag}{suffix}") for f in (folder, tmp_path / "whole/resnet8"))
            assert mine.keys() == theirs.keys()
            assert all(mine[name].tobytes() == value.tobytes() for name, value in theirs.items())

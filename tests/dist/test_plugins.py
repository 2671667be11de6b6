"""Plug-ins that a recipe names are there in every process that a training starts, and each keeps its log."""

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.dist, pytest.mark.slow]
PLUGIN = """
from paddle import nn
from ppcls.distributed import rank
from ppcls.registry import HOOKS, LOSSES


@LOSSES.register()
class OwnLoss(nn.Layer):
    def forward(self, logits, label):
        return nn.functional.cross_entropy(logits, label)


@HOOKS.register()
class Sign:
    def __init__(self, folder: str):
        self.folder = folder

    def after_train(self, run):
        open(f"{self.folder}/rank{rank()}", "w").close()
"""


def test_every_process_loads_them(recipe, write_recipe, tmp_path):
    (tmp_path / "my_plugin.py").write_text(PLUGIN)
    recipe["Global"] |= {"plugins": ["./my_plugin.py"], "epochs": 1}
    recipe["Loss"]["Train"] = [{"OwnLoss": None}]
    recipe["Hooks"] = [{"Sign": {"folder": str(tmp_path)}}]
    command = [sys.executable, "-m", "ppcls", "train", "-c", str(write_recipe(recipe)), "--nproc", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "OwnLoss: " in done.stdout
    assert (tmp_path / "rank0").exists()
    assert (tmp_path / "rank1").exists()
    logs = tmp_path / "output/log"
    assert sorted(path.name for path in logs.iterdir()) == ["workerlog.0", "workerlog.1"]
    assert "[Train][Epoch 1/1][Avg]" in (logs / "workerlog.0").read_text()
    assert "[Train][Epoch 1/1][Avg]" in done.stdout

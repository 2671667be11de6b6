"""What `ppcls train --nproc` makes of a machine and of logs; whole jobs are in tests/dist."""

import paddle
import pytest

from ppcls import launch
from ppcls.distributed import LOST
from ppcls.errors import ConfigError


def test_the_process_with_the_cause_is_shown(tmp_path):
    logs = {
        0: ["[Train] ...", f"ppcls: process 0 of 3 {LOST} (Connection reset by peer)"],
        1: ["ppcls: an older error", "going on", "ppcls: cat.png: cannot be read", "  look at it"],
        2: ["Traceback (most recent call last):", "  File x", f"ppcls.errors.TrainingError: {LOST}"],
    }
    assert launch._explain(logs, tmp_path).splitlines() == [
        f"ppcls: process 1 of 3 ({tmp_path}/workerlog.1):",
        "  ppcls: cat.png: cannot be read",
        "    look at it",
    ]


def test_without_a_cause_the_last_lines_of_all_are_shown(tmp_path):
    text = launch._explain({0: [f"line {n}" for n in range(9)], 1: []}, tmp_path)
    assert "  line 4\n  line 5\n  line 6\n  line 7\n  line 8\nppcls: process 1 of 2" in text
    assert "line 3" not in text


def test_only_this_run_is_read(tmp_path):
    file = tmp_path / "workerlog.0"
    assert launch._read(file, 0) == []
    file.write_bytes(b"of the run before\n\xff now\n")
    assert launch._read(file, 18) == ["\ufffd now"]


@pytest.mark.parametrize(
    ("gpus", "device", "used"),
    [(4, "auto", True), (4, "cpu", False), (0, "auto", False), (None, "auto", False)],
)
def test_the_launcher_gets_what_the_machine_can_run(monkeypatch, tmp_path, gpus, device, used):
    """`gpus` None stands for a CPU build of Paddle, which crashes on --gpus and on CUDA_VISIBLE_DEVICES."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("PYTHONPATH", "mine")
    monkeypatch.setattr(paddle.device, "is_compiled_with_cuda", lambda: gpus is not None)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: gpus)
    command, environment = launch._command(2, device, tmp_path)
    assert ("--gpus" in command) == used
    if used:
        assert command[command.index("--gpus") + 1] == "0,1"
    assert ("CUDA_VISIBLE_DEVICES" in environment) == (gpus is not None)
    assert environment["PYTHONPATH"].endswith("mine")
    if used:
        with pytest.raises(ConfigError, match="5 processes need a GPU each, and Paddle sees 4"):
            launch._command(5, device, tmp_path)

"""The parts of several processes that one process can show; the rest is in tests/dist."""

import os
import signal
import types

import paddle
import pytest

from ppcls import distributed
from ppcls.engine.train import _signals_wait_for_the_step
from ppcls.errors import TrainingError


@pytest.mark.parametrize("error", [RuntimeError, OSError])
def test_a_lost_process_is_no_traceback_and_no_hurry(monkeypatch, error):
    """The launcher shows the error of whoever ends first; that must not be who merely lost the connection."""

    def collective(value):
        raise error("Connection reset by peer")

    slept = []
    monkeypatch.setattr(distributed.time, "sleep", slept.append)
    with pytest.raises(TrainingError, match=rf"{distributed.LOST} \(Connection reset by peer\)"):
        distributed._exchange(collective, 1)
    assert slept == [distributed.GRACE]
    with pytest.raises(TrainingError, match=distributed.LOST):  # Paddle's store says it in another way
        distributed._exchange(int, "InvalidArgument", lost=distributed._STORE_LOST)
    with pytest.raises(ValueError, match="ours"):  # a mistake of the program is not taken for a lost process
        distributed._exchange(int, "ours")


def test_evaluation_gathers_nothing(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    rows = paddle.ones([3, 2])
    with paddle.no_grad():
        assert distributed.gather_rows(rows) is rows


def test_paddles_launcher_may_repeat_its_signal():
    """It sends SIGTERM up to three times within a second; only a second Ctrl-C cuts a step short."""
    run = types.SimpleNamespace(stop_signal=None)
    with _signals_wait_for_the_step(run):
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert run.stop_signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)

"""The parts of several processes that one process can show; the rest is in tests/dist."""

import os
import signal
import threading
import types

import paddle
import pytest

from ppcls import distributed
from ppcls.engine.train import signals_wait_for_the_step
from ppcls.errors import ConfigError, TrainingError
from ppcls.job import BACKEND, PATIENCE, Job


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
    with signals_wait_for_the_step(run):
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert run.stop_signal == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def place(monkeypatch):
    """Return a function that lets this process be one of several."""

    def be(rank, size=2):
        monkeypatch.setenv("PADDLE_TRAINER_ID", str(rank))
        monkeypatch.setenv("PADDLE_TRAINERS_NUM", str(size))

    return be


def process(gradients, buffer):
    """Return parameters with these gradients (None for none), and a buffer."""
    parameters = [paddle.nn.Linear(2, 1, bias_attr=False).weight for _ in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            (parameter * paddle.to_tensor(gradient).reshape([2, 1])).sum().backward()
    return parameters, [paddle.to_tensor(buffer)]


@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("large", [1, 3], ids=["one by one", "together"])
def test_gradients_and_statistics_are_averaged(monkeypatch, place, flags, large):
    """The first of two processes sends; the second one adds what came."""
    gradients = [[[1.0, 2.0], [4.0, 6.0], None, None], [[3.0, 6.0], None, [8.0, 2.0], None]]
    facts = [
        [flag, *(value is not None for value in own)] for flag, own in zip(flags, gradients, strict=True)
    ]
    sent = []

    def any_of(own):
        assert list(own) == facts[distributed.rank()]
        return [one or other for one, other in zip(*facts, strict=True)]

    monkeypatch.setattr(distributed, "any_of", any_of)
    monkeypatch.setattr(distributed, "LARGE", large)
    monkeypatch.setattr(paddle.distributed, "all_reduce", lambda tensor: sent.append(tensor.clone()))
    place(0)
    flag = distributed.average_gradients(*process(gradients[0], [[1.0, 3.0]]), flags[0])
    assert flag is any(flags)
    assert len(sent) == (4 if large == 1 else 1)
    first = iter(sent[:])

    def add(tensor):
        tensor.set_value(tensor + next(first))

    monkeypatch.setattr(paddle.distributed, "all_reduce", add)
    place(1)
    parameters, buffers = process(gradients[1], [[5.0, 5.0]])
    assert distributed.average_gradients(parameters, buffers, flags[1]) is any(flags)
    assert next(first, None) is None
    found = [None if p.grad is None else p.grad.flatten().tolist() for p in parameters]
    assert found == [[2.0, 4.0], [2.0, 3.0], [4.0, 1.0], None]
    assert buffers[0].tolist() == [[3.0, 4.0]]


@pytest.mark.parametrize("large", [1, 10], ids=["one by one", "together"])
def test_gradients_that_are_views_are_averaged_like_others(monkeypatch, place, large):
    """A gradient that is a transposed view, and one that two parameters share."""
    monkeypatch.setattr(distributed, "any_of", list)
    monkeypatch.setattr(distributed, "LARGE", large)
    monkeypatch.setattr(paddle.distributed, "all_reduce", lambda tensor: tensor.set_value(4 * tensor))
    place(0)
    x = paddle.arange(6, dtype="float32").reshape([2, 3])
    transposed, one, other = (
        paddle.nn.Linear(*sizes, bias_attr=False).weight for sizes in ([2, 3], [2, 2], [2, 2])
    )
    ((x @ transposed.t()) ** 2).sum().backward()
    expected = 2 * transposed.grad.numpy()
    assert not transposed.grad.is_contiguous()
    shared = paddle.to_tensor([[1.0, 2.0], [3.0, 4.0]])
    distributed.average_gradients([transposed], [], False)
    assert transposed.grad.numpy().tolist() == expected.tolist()
    for parameter in (one, other):
        parameter.grad = shared
    monkeypatch.setattr(type(shared), "data_ptr", lambda tensor: 0)  # as if they had one memory
    distributed.average_gradients([one, other], [], False)
    assert one.grad.tolist() == other.grad.tolist() == (2 * shared).tolist()


@pytest.mark.parametrize("flag", [True, False])
def test_one_process_keeps_its_gradients(flag):
    parameters, buffers = process([[1.0, 2.0], None], [1.0])
    assert distributed.average_gradients(parameters, buffers, flag) is flag
    assert parameters[0].grad.flatten().tolist() == [1.0, 2.0]
    assert parameters[1].grad is None


def test_rows_of_all_are_gathered_and_ours_get_the_gradient(monkeypatch, place):
    place(1)
    monkeypatch.setattr(
        paddle.distributed, "all_gather", lambda parts, mine: parts.extend([paddle.ones([2, 2]), mine])
    )
    rows = paddle.to_tensor([[0.1, 0.2], [0.3, 0.4]], stop_gradient=False)
    found = distributed.gather_rows(rows)
    assert found[:2].tolist() == [[1.0, 1.0]] * 2
    assert found[2:].tolist() == rows.tolist()
    found.sum().backward()
    assert rows.grad.tolist() == [[2.0, 2.0]] * 2
    place(0, 1)
    assert distributed.gather_rows(rows) is rows


class Link:
    """Stands for the connection of all processes; keeps what is called."""

    def __init__(self, broken=False):
        self.calls = []
        self.broken = broken

    def wait_for_hub(self):
        self.calls.append("main")

    def any_of(self, facts):
        self.calls.append("all")
        return facts

    def is_broken(self):
        return self.broken


def test_processes_wait_for_each_other_over_their_connection(monkeypatch, place):
    """It finds a machine that is lost; a request to Paddle's store would wait for it for ever."""
    link = Link()
    monkeypatch.setattr(distributed, "_channel", lambda: link)
    place(0, 1)
    distributed.wait_for_main()
    distributed.wait_for_all()
    assert link.calls == []
    place(1, 3)
    distributed.wait_for_main()
    distributed.wait_for_all()
    assert link.calls == ["main", "all"]


@pytest.mark.parametrize(
    ("broken", "stuck", "ends"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_a_process_that_waits_for_a_lost_one_is_ended(monkeypatch, place, capsys, broken, stuck, ends):
    codes = []
    monkeypatch.setattr(distributed, "_channel", lambda: Link(broken))
    monkeypatch.setattr(distributed, "LONGEST_AFTER_LOSS", 0.1 if stuck else 30)
    monkeypatch.setattr(distributed, "_LOOK_EVERY", 0.01)
    monkeypatch.setattr(distributed.os, "_exit", codes.append)
    place(1)
    before = set(threading.enumerate())
    with distributed.ending_with_others():
        (watch,) = set(threading.enumerate()) - before
        watch.join(1)
    watch.join(5)
    assert not watch.is_alive()
    assert codes == ([1] if ends else [])
    assert (f"process 1 of 2 {distributed.LOST}" in capsys.readouterr().err) == ends


def test_values_and_tensors_are_exchanged(monkeypatch, place):
    monkeypatch.setattr(distributed, "wait_for_all", lambda: None)
    monkeypatch.setattr(
        paddle.distributed, "all_gather_object", lambda found, value: found.extend([value, "theirs"])
    )
    sources = []
    monkeypatch.setattr(
        paddle.distributed, "broadcast", lambda tensor, source: sources.append((tensor, source))
    )
    distributed.copy_from_main(["a"])
    assert distributed.gather("mine") == ["mine"]
    assert sources == []
    place(0)
    distributed.copy_from_main(["a", "b"])
    assert distributed.gather("mine") == ["mine", "theirs"]
    assert sources == [("a", 0), ("b", 0)]


@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_announces_the_start(monkeypatch, place, tmp_path, rank):
    """On a further machine there is no process 0."""
    place(rank)
    distributed.announce_start()
    monkeypatch.setenv(distributed.STARTED, str(tmp_path / "started"))
    distributed.announce_start()
    assert (tmp_path / "started").exists()


@pytest.fixture
def meeting(monkeypatch):
    """Return the list of what happens when two processes start; the other one says ``theirs``."""
    events = []

    def meet(job, note, patience):
        events.append(f"meet for {patience}")
        return [note, "theirs"]

    monkeypatch.setattr(distributed, "read_job", lambda: Job(0, 2, "h:1", "PADDLE_MASTER", ("h:2", "h:3")))
    monkeypatch.setattr(distributed, "end_with_launcher", lambda: events.append("bind"))
    monkeypatch.setattr(distributed, "meet", meet)
    monkeypatch.setattr(distributed, "_channel", lambda: None)
    monkeypatch.setattr(paddle.distributed, "is_initialized", lambda: False)
    monkeypatch.setattr(paddle.device, "get_device", lambda: "cpu")
    monkeypatch.setattr(
        paddle.distributed,
        "init_parallel_env",
        lambda: events.append(f"connect for {os.environ[PATIENCE]} by {os.environ[BACKEND]}"),
    )
    monkeypatch.setenv(BACKEND, "gloo")
    monkeypatch.delenv(PATIENCE, raising=False)
    return events


def test_processes_meet_compare_and_only_then_connect(meeting, monkeypatch):
    monkeypatch.delenv(BACKEND)
    distributed.start("mine", lambda notes: meeting.append(notes))
    assert meeting == ["bind", "meet for 40.0", ["mine", "theirs"], "connect for 40 by gloo"]


def test_processes_that_are_connected_merely_compare(meeting, monkeypatch):
    monkeypatch.setattr(paddle.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "wait_for_all", lambda: meeting.append("wait"))
    monkeypatch.setattr(distributed, "gather", lambda note: [note, "theirs"])
    distributed.start("mine", lambda notes: meeting.append(notes))
    assert meeting == ["bind", "wait", ["mine", "theirs"]]


def test_a_start_that_cannot_connect_is_named(meeting, monkeypatch):
    def fail():
        raise RuntimeError(" no route ")

    monkeypatch.setattr(paddle.distributed, "init_parallel_env", fail)
    with pytest.raises(TrainingError, match=r"process 0 \(h:2\) of 2 .* at h:1 \(PADDLE_MASTER\): no route$"):
        distributed.start()
    monkeypatch.setenv(BACKEND, "nccl")
    with pytest.raises(ConfigError, match=f"{BACKEND}=nccl: expected gloo"):
        distributed.start()
    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(paddle.distributed, "init_parallel_env", lambda: meeting.append("connect"))
    distributed.start()
    assert meeting[-1] == "connect"


@pytest.mark.parametrize(
    ("device", "gpus", "processes", "found"),
    [("cpu", 4, 8, 0), ("gpu", 4, 3, 3), ("gpu", 4, 5, "need a GPU each"), ("gpu", 0, 8, 0)],
)
def test_every_process_has_a_gpu_or_some_of_the_cores(monkeypatch, device, gpus, processes, found):
    monkeypatch.setattr(distributed, "available_cores", lambda: 2)
    monkeypatch.setattr(paddle.device, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: gpus)
    if isinstance(found, str):
        with pytest.raises(ConfigError, match=found):
            distributed.gpus_for(processes, device)
        return
    assert distributed.gpus_for(processes, device) == found
    if found == 0:
        with pytest.raises(ConfigError, match="9 processes on 2 cores would only use memory"):
            distributed.gpus_for(9, device)

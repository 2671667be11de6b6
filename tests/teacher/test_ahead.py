"""Frozen networks that run beside the training, one batch ahead: the same results, errors at their batch."""

from __future__ import annotations

import copy
import json
import os
import pickle
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
import yaml
from paddle import nn
from support import KL, distilled, train

from ppcls._paddle import compute_with_threads
from ppcls.config import load_config
from ppcls.cpu import threads
from ppcls.data import Batch
from ppcls.engine import Engine, speed
from ppcls.engine.hooks import Hook
from ppcls.engine.start import lookahead as start_module
from ppcls.engine.train import StopRequested
from ppcls.errors import ConfigError, DataError, TrainingError
from ppcls.runner import RunnerProcess
from ppcls.teacher import Lookahead
from ppcls.teacher import ahead as ahead_module
from ppcls.weights import read_params


class Doubling:
    """Stands in for a program: it doubles images, and counts batches and threads that run it."""

    outputs = ["double"]

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self.batches = 0
        self.ran_in: set[str] = set()

    def run(self, batch, outputs):
        self.batches += 1
        self.ran_in.add(threading.current_thread().name)
        if np.isposinf(batch).any():
            raise ConfigError("it cannot run on such images")
        return [2 * batch]


def batches(*values):
    for value in values:
        if value is None:
            raise DataError("b.jpg cannot be read")
        images = np.full((2, 3, 4, 4), value, np.float32)
        yield Batch(images, np.zeros((2, 1), np.int64), np.arange(2))


@pytest.fixture
def ahead():
    """Return a lookahead, a program, and what runs it."""
    lookahead, program = Lookahead(1), Doubling()
    runner = lookahead.add("Teacher", (3, 4, 4), lambda number: lambda: program, own_process=False)
    yield lookahead, program, runner
    lookahead.close()


def taken(runner, walk, found=None):
    """Return the largest output of each batch, also in `found`."""
    found = [] if found is None else found
    for batch in walk:
        found.append(runner.run(batch.image.copy(), ["double"])[0].max())
    return found


def test_outputs_are_those_of_the_images_and_each_batch_is_computed_once(ahead):
    lookahead, program, runner = ahead
    assert taken(runner, lookahead.over(batches(1, 2, 3))) == [2, 4, 6]
    assert program.batches == 3
    assert all(name.startswith("ppcls-teacher") for name in program.ran_in)


def test_images_that_a_hook_changes_are_computed_anew(ahead):
    lookahead, program, runner = ahead
    found = []
    for batch in lookahead.over(batches(1, 2, 3)):
        batch.image[0] += 10
        found.append(runner.run(batch.image, ["double"])[0][:, 0, 0, 0].tolist())
    assert found == [[22, 2], [24, 4], [26, 6]]


def test_nothing_is_computed_for_a_training_that_does_not_ask(ahead):
    lookahead, program, runner = ahead
    assert len(list(lookahead.over(batches(*range(8))))) == 8
    assert program.batches <= 2
    assert runner.run(np.ones((2, 3, 4, 4), np.float32), ["double"])[0].max() == 2
    for batch in lookahead.over(batches(1, 2)):
        runner.run(batch.image, ["double"])
    assert program.batches <= 5


def test_images_of_another_size_wait_for_their_turn(ahead):
    lookahead, program, runner = ahead
    other = Batch(np.ones((2, 3, 8, 8), np.float32), np.zeros((2, 1), np.int64), np.arange(2))
    for batch in lookahead.over(iter([other, other])):
        assert program.batches == 0
        assert batch is other


def test_an_error_is_raised_at_its_batch_with_its_message(ahead):
    lookahead, program, runner = ahead
    found = []
    with pytest.raises(ConfigError, match="it cannot run on such images"):
        taken(runner, lookahead.over(batches(1, np.inf, 3)), found)
    assert found == [2]


def test_an_error_of_the_next_batch_does_not_take_the_present_one(ahead):
    lookahead, program, runner = ahead
    found = []
    with pytest.raises(DataError, match=r"b\.jpg cannot be read"):
        taken(runner, lookahead.over(batches(1, 2, None)), found)
    assert found == [2, 4]


def test_leaving_early_ends_the_epoch_of_the_loader(ahead):
    lookahead, program, runner = ahead
    closed = []

    def loader():
        try:
            yield from batches(1, 2, 3)
        finally:
            closed.append(True)

    walk = lookahead.over(loader())
    next(walk)
    walk.close()
    assert closed == [True]


# ---------------------------------------------------------------- the process


def double():
    return Doubling()


def fail():
    raise ConfigError("the program is missing")


@pytest.fixture
def importable(monkeypatch):
    """Let another process find what is pickled by the name of this module, which depends on pytest's root."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[__name__.count(".")]))


def test_a_process_runs_a_program_and_passes_on_its_errors(importable):
    runner = RunnerProcess(double, "Teacher", 1)
    try:
        images = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
        assert runner.outputs == ["double"]
        np.testing.assert_array_equal(runner.run(images, ["double"])[0], 2 * images)
        with pytest.raises(ConfigError, match="it cannot run on such images"):
            runner.run(np.full((1, 3, 4, 4), np.inf, np.float32), ["double"])
        np.testing.assert_array_equal(runner.run(images, ["double"])[0], 2 * images)
        os.kill(runner._process.pid, signal.SIGKILL)
        with pytest.raises(TrainingError, match=r"outputs of Teacher ended \(exit code -9\)"):
            runner.run(images, ["double"])
    finally:
        runner.close()


# ---------------------------------------------------------------- runs

INFERENCE = "Arch.models.0.Teacher.frozen_engine=paddle_inference"


@pytest.fixture
def two_cores(monkeypatch, tmp_path):
    """Give runs two cores, and let every run begin a process; set all back afterwards."""
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(threads.VARIABLE, os.environ[threads.VARIABLE])
    monkeypatch.setattr(threads, "CHOSEN", None)
    monkeypatch.setattr(speed, "available_cores", lambda: 2)
    monkeypatch.setattr(start_module, "_WORTH", 0.0)
    yield
    compute_with_threads(1)


@pytest.fixture
def path(recipe, write_recipe, tmp_path):
    """A distillation with a teacher whose weights are in a file, batches of random choices, accumulation."""
    paddle.seed(5)
    from ppcls.arch import create_model

    teacher = create_model("resnet14", class_num=4)
    paddle.save(teacher.state_dict(), str(tmp_path / "teacher.pdparams"))
    content = distilled(copy.deepcopy(recipe), **KL)
    content["Arch"]["models"][0]["Teacher"]["pretrained"] = str(tmp_path / "teacher.pdparams")
    content["Global"]["update_freq"] = 2
    return write_recipe(content)


def run(path, tmp_path, name, *overrides):
    assert train(path, INFERENCE, f"Global.output_dir={tmp_path}/{name}", *overrides) == 0
    return tmp_path / name / "DistillationModel"


def weights(folder):
    return {name: np.asarray(value) for name, value in read_params(folder / "latest.pdparams").items()}


def recorded(folder):
    states = json.loads((folder / "latest.pdstates").read_text())
    environment = json.loads((folder / "environment.json").read_text())
    keys = ("threads", "teacher_threads")
    assert [str(states[key]) for key in keys] == [environment[key] for key in keys]
    return states["threads"], states["teacher_threads"]


class StopAfter(Hook):
    """End a run as a signal does."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def after_step(self, run, batch):
        self.left -= 1
        if not self.left:
            raise StopRequested(15)


class StopAfterEpoch(Hook):
    """End a run after its first epoch as a signal does."""

    def after_epoch(self, run, epoch):
        raise StopRequested(15)


class WithoutProcess:
    """Stands in for the process of a program, which needs seconds to start."""

    def __init__(self, open_runner, title, threads):
        runner = pickle.loads(pickle.dumps(open_runner))()
        self.outputs, self.run = runner.outputs, runner.run

    def close(self):
        pass


@pytest.mark.parametrize("own_process", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_runs_are_equal_with_and_without_and_resumed(
    path, two_cores, tmp_path, capsys, monkeypatch, own_process
):
    if not own_process:
        monkeypatch.setattr(ahead_module, "RunnerProcess", WithoutProcess)
    whole = run(path, tmp_path, "whole")
    assert "Teacher runs beside the training, one batch ahead, with 1 CPU thread; " in capsys.readouterr().out
    assert recorded(whole) == (1, 1)

    engine = Engine(load_config(path, [f"Global.output_dir={tmp_path}/cut", INFERENCE]), "train")
    with pytest.raises(SystemExit):
        engine.train(hooks=[StopAfter(2)])
    monkeypatch.setattr(speed, "available_cores", lambda: 1)
    cut = run(path, tmp_path, "cut", "Global.checkpoints=auto")
    assert recorded(cut) == (1, 1)

    within = run(path, tmp_path, "within", "Global.teacher_ahead=False")
    assert recorded(within) == (1, 0)
    for name, value in weights(whole).items():
        np.testing.assert_array_equal(weights(cut)[name], value, err_msg=name)
        np.testing.assert_array_equal(weights(within)[name], value, err_msg=name)


def test_a_run_computes_within_the_training_where_no_second_process_can_be_started(
    path, two_cores, write_recipe, tmp_path, capsys, monkeypatch
):
    content = yaml.safe_load(path.read_text())
    content["Arch"]["models"].insert(1, {"Second": content["Arch"]["models"][0]["Teacher"]})
    content["Arch"]["freeze_params_list"] = [True, True, False]
    pairs = [["Student", "Teacher"], ["Student", "Second"]]
    content["Loss"]["Train"][0]["DistillationKLDivLoss"]["model_name_pairs"] = pairs
    path = write_recipe(content)
    started = []

    def start(*arguments):
        started.append(arguments)
        if len(started) == 2:
            raise OSError("no memory")
        return WithoutProcess(*arguments)

    monkeypatch.setattr(ahead_module, "RunnerProcess", start)
    monkeypatch.setattr(speed, "compute_with_threads", lambda number: None)
    engines = [INFERENCE, INFERENCE.replace("0.Teacher", "1.Second")]
    assert recorded(run(path, tmp_path, "output", "Global.epochs=1", *engines)) == (2, 0)
    assert len(started) == 2
    assert "frozen networks do not run beside the training: no memory" in capsys.readouterr().out


@pytest.mark.slow
def test_a_resumed_run_keeps_its_threads_where_the_store_is_complete_by_now(
    path, two_cores, tmp_path, monkeypatch
):
    monkeypatch.setattr(ahead_module, "RunnerProcess", WithoutProcess)
    store = [f"TeacherStore.path={tmp_path}/store", "TeacherStore.views=1", "Global.epochs=2"]
    whole = run(path, tmp_path, "whole", *store)
    assert recorded(whole) == (1, 1)
    (tmp_path / "store").rename(tmp_path / "first")
    overrides = [f"Global.output_dir={tmp_path}/cut", INFERENCE, *store]
    with pytest.raises(SystemExit):
        Engine(load_config(path, overrides), "train").train(hooks=[StopAfterEpoch()])
    cut = run(path, tmp_path, "cut", *store, "Global.checkpoints=auto")
    assert recorded(cut) == (1, 0)
    for name, value in weights(whole).items():
        np.testing.assert_array_equal(weights(cut)[name], value, err_msg=name)


def test_a_small_teacher_gets_no_core_unless_the_run_to_resume_gave_it_one(
    path, two_cores, write_recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr(ahead_module, "RunnerProcess", WithoutProcess)
    # Two threads would change the last digits: what is recorded is looked at, not computed with.
    monkeypatch.setattr(speed, "compute_with_threads", lambda number: None)
    content = yaml.safe_load(path.read_text())
    content["Arch"]["models"][1]["Student"]["name"] = "resnet32"
    path = write_recipe(content)
    assert recorded(run(path, tmp_path, "new", "Global.epochs=1")) == (2, 0)
    with monkeypatch.context() as earlier:
        earlier.setattr(start_module, "pays_beside", lambda *arguments: True)
        engine = Engine(load_config(path, [f"Global.output_dir={tmp_path}/cut", INFERENCE]), "train")
        with pytest.raises(SystemExit):
            engine.train(hooks=[StopAfter(2)])
    assert recorded(run(path, tmp_path, "cut", "Global.checkpoints=auto")) == (1, 1)


class RefusesOneImage(nn.Layer):
    """A plug-in that draws in eval mode too, and needs a batch."""

    def forward(self, x):
        paddle.rand([3])
        raise ValueError("a batch, please")


def test_a_network_that_refuses_a_single_image_changes_nothing():
    group = SimpleNamespace(names=["Student"], frozen=set(), network=lambda name: RefusesOneImage())
    answers = {"Teacher": SimpleNamespace(shape_ahead=(3, 8, 8))}
    made = SimpleNamespace(parts=SimpleNamespace(answers=answers, model=group))
    paddle.seed(3)
    expected = paddle.rand([4]).numpy()
    paddle.seed(3)
    assert start_module._take_enough(made, 1.0)
    np.testing.assert_array_equal(paddle.rand([4]).numpy(), expected)


def test_threads_are_divided_by_a_rule():
    assert [threads.threads_for_teachers(total) for total in (1, 2, 3, 4, 6, 8, 16)] == [0, 1, 1, 1, 2, 2, 5]

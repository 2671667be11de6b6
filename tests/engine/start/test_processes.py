"""Resuming with another number of processes or with other batches, as one process sees it."""

from __future__ import annotations

import json
import logging
import zlib

import pytest

from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.engine.checkpoint import Checkpoint, Progress
from ppcls.engine.hooks import Hook
from ppcls.engine.start import processes
from ppcls.engine.start.processes import former_processes, set_course
from ppcls.optimizer import build_schedule
from ppcls.optimizer.joint import JointSchedule, move_schedule


class Watch(Hook):
    """Keeps images and learning rate of each step; stops the run after one."""

    def __init__(self, stop_at):
        self.stop_at = stop_at
        self.images = {}
        self.rates = {}

    def before_train(self, run):
        inner = run.parts.loader.epoch

        def epoch(*args, **kwargs):
            for batch in inner(*args, **kwargs):
                self.images.setdefault(run.progress.step, []).extend(batch.index.tolist())
                yield batch

        run.parts.loader.epoch = epoch

    def after_step(self, run, batch):
        self.rates[run.progress.step - 1] = run.learning_rates[0]
        if run.progress.step == self.stop_at:
            run.stop_signal = 2


@pytest.fixture
def run(recipe, write_recipe, tmp_path):
    """Return a function that trains on 12 images and returns what the steps used."""
    recipe["Global"] |= {"epochs": 3, "eval_during_train": False}
    recipe["DataLoader"]["Train"]["sampler"]["batch_size"] = 4
    path = write_recipe(recipe)

    def run(name, *overrides, stop_at=None):
        options = [f"Global.output_dir={tmp_path / name}", "Global.checkpoints=auto", *overrides]
        watch = Watch(stop_at)
        try:
            Engine(load_config(path, options), "train").train(hooks=[watch])
        except SystemExit:
            assert stop_at is not None
        return watch

    return run


BATCH = "DataLoader.Train.sampler.batch_size="


def test_other_batches_go_on_at_the_same_image_and_learning_rate(run, capsys):
    """3 steps of 4 images in an epoch become 6 of 2, or 2 of 8, of which the last one has 4."""
    whole = run("whole")
    order = [image for step in range(9) for image in whole.images[step]]
    for name in ("more", "fewer"):
        run(name, stop_at=4)
    capsys.readouterr()
    more = run("more", f"{BATCH}2")
    assert [image for step in sorted(more.images) for image in more.images[step]] == order[16:]
    assert (
        "a step now has 2 images, 1 process x 2; before, it had 4, 1 process x 4" in capsys.readouterr().out
    )
    fewer = run("fewer", f"{BATCH}8")
    assert [image for step in sorted(fewer.images) for image in fewer.images[step]] == order[12:]
    assert "4 images of epoch 2 are used a second time" in capsys.readouterr().out
    assert more.rates[4] == pytest.approx(whole.rates[4])  # 4 of 9 steps, or 8 of 18
    assert more.rates[6] == pytest.approx(whole.rates[5])
    assert fewer.rates[4] == pytest.approx(whole.rates[3])  # the beginning of the second epoch
    assert fewer.rates[6] == pytest.approx(whole.rates[6])


def test_an_old_checkpoint_of_two_processes_goes_on_with_one(run, tmp_path, capsys):
    """It does not say what formed its batches; its config and the number of its meters do."""
    run("cut", f"{BATCH}2", stop_at=4)
    states = tmp_path / "cut/resnet8/latest.pdstates"
    content = json.loads(states.read_text())
    content["meters"] = content["meters"] * 2
    assert content.pop("batches") == {"processes": 1, "update_freq": 1, "Train": 2}
    content["batch"] = 1
    content["epoch"] = 2
    del content["crc32"]
    body = json.dumps(content, indent=1).removesuffix("\n}").encode()
    states.write_bytes(body + b',\n "crc32": "%08x"\n}' % zlib.crc32(body))
    capsys.readouterr()
    found = run("cut", f"{BATCH}2")
    printed = capsys.readouterr().out
    assert (
        printed.count("written by 2 processes, this run has 1: every step keeps its images: 2 batches") == 1
    )
    whole = run("whole")
    assert [found.images[step] for step in sorted(found.images)] == [whole.images[s] for s in range(4, 9)]
    state = json.loads(states.read_text())
    assert state["batches"] == {"processes": 2, "update_freq": 1, "Train": 2}
    assert state["finished"]


class NotDivided:
    division = None

    def __len__(self):
        return 100


@pytest.mark.parametrize(
    ("now", "changes", "batch", "text"),
    [
        (3, {}, 6, "a step now has 12 images, 3 processes x 4; before, it had 8, 2 processes x 4"),
        (3, {}, 7, "8 images of epoch 2 are used a second time"),
        (1, {"Train": 8}, 7, "a step still has 8 images, 1 process x 8 instead of 2 processes x 4"),
        (2, {"update_freq": 2}, 7, "8 images of epoch 2 are used a second time"),
    ],
)
def test_what_cannot_be_kept_is_reported_once(
    recipe, write_recipe, monkeypatch, caplog, tmp_path, now, changes, batch, text
):
    monkeypatch.setattr(processes, "world_size", lambda: now)
    before = {"processes": 2, "update_freq": 1, "Train": 4}
    is_now = {**before, "processes": now, **changes}
    recipe["Global"]["update_freq"] = is_now["update_freq"]
    recipe["DataLoader"]["Train"]["sampler"]["batch_size"] = is_now["Train"]
    config = load_config(write_recipe(recipe), [])
    progress = Progress(epoch=2, batch=batch, batches=before, meters=[{}, {}])
    resumed = Checkpoint(tmp_path / "latest", {}, {}, progress)
    assert former_processes(config, resumed) == (2 if not changes else now)
    with caplog.at_level(logging.INFO, "ppcls"):
        course = set_course(config, resumed, NotDivided())
    assert course.batches == is_now
    assert course.other
    per_batch = is_now["processes"] * is_now["Train"]
    again = batch * 8 - course.batch * per_batch
    assert course.batch % course.update_freq == 0
    assert 0 <= again < per_batch * course.update_freq
    assert [text in record.getMessage() for record in caplog.records] == [True]


def test_schedules_of_all_kinds_move_to_the_same_place():
    node = {"name": "Cosine", "learning_rate": 0.1, "warmup_epoch": 1}
    for options in ({}, {"by_epoch": True}):
        ten, twenty = (build_schedule({**node, **options}, 4, steps) for steps in (10, 20))
        for done in range(15):
            if not ten.by_epoch or done == 10:
                ten.step()
                twenty.step() if ten.by_epoch else None
        move_schedule(twenty, 30)
        assert twenty() == pytest.approx(ten())
    both = JointSchedule([build_schedule(node, 4, 20), build_schedule({**node, "by_epoch": True}, 4, 20)], 20)
    for _ in range(25):
        both.step()
    move_schedule(both, 30)
    assert both.state_dict()["done"] == 30
    assert both.schedules[0].last_epoch == 30
    assert both.schedules[1].last_epoch == 1
    plateau = build_schedule({"name": "ReduceOnPlateau", "learning_rate": 0.1, "warmup_epoch": 1}, 4, 20)
    move_schedule(plateau, 10)
    assert plateau() == pytest.approx(0.05)

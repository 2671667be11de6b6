"""Going on: the newest valid checkpoint, a changed config, one run in a folder, a disk that is full."""

import contextlib
import copy
import errno
import json
import logging
import os
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from support import KL, distilled

from ppcls.arch import create_model
from ppcls.cli import main
from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.engine.checkpoint import Checkpointer, explained, lock
from ppcls.engine.checkpoint.changes import find_changes, report_changes
from ppcls.engine.checkpoint.lock import RunLock, lock_path
from ppcls.engine.checkpoint.resume import is_kept
from ppcls.engine.evaluation import evaluate
from ppcls.engine.evaluation.measures import measure_batch
from ppcls.engine.hooks import Hook
from ppcls.errors import ConfigError, TrainingError, WeightsError
from ppcls.logger import METRICS, ScalarWriter
from ppcls.loss.ofd import negative_mean
from ppcls.run_states import Progress
from ppcls.weights import read_params

# ---------------------------------------------------------------- whole runs


def train(path, *overrides, resume="auto"):
    options = [part for text in overrides for part in ("-o", text)]
    return main(["train", "-c", str(path), *options, "--resume", str(resume)])


def same_run(a, b):
    """Compare everything two runs left, but for measured times and the config's paths."""
    assert {p.name for p in a.glob("*.pd*")} == {p.name for p in b.glob("*.pd*")}
    for path in a.glob("*.pd*"):
        if path.suffix == ".pdstates":
            assert path.read_bytes() == (b / path.name).read_bytes()
            continue
        first, second = read_params(path), read_params(b / path.name)
        assert first.keys() == second.keys()
        for name, value in first.items():
            np.testing.assert_array_equal(value, second[name], err_msg=f"{path.name} {name}")
    rows = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (a, b)
    ]
    for row in (*rows[0], *rows[1]):
        for measured in ("batch_cost", "reader_cost", "ips"):
            row.pop(measured, None)
    assert rows[0] == rows[1]


def damage(path):
    """Replace a file by a damaged one; other tags of the same step keep the whole one."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.unlink()
    path.write_bytes(content)


def test_auto_starts_goes_on_past_damage_and_says_when_it_is_done(recipe, write_recipe, tmp_path, capsys):
    path = write_recipe(recipe)
    folder = tmp_path / "output/resnet8"
    assert train(path) == 0
    assert "no checkpoint to resume from in" in capsys.readouterr().out
    whole = folder.rename(tmp_path / "whole")

    assert train(path, "Global.epochs=1") == 0
    damage(folder / "latest.pdopt")
    capsys.readouterr()
    assert train(path) == 0
    printed = capsys.readouterr().out
    assert "skipped: " in printed
    assert "latest.pdopt is damaged" in printed
    assert f"resumed {folder / 'epoch_1'}: epoch 2 of 2" in printed
    assert "Global.epochs: was 1, is 2" in printed
    old = yaml.safe_load((folder / "config.until_step_3.yaml").read_text())
    assert old["Global"]["epochs"] == 1
    assert yaml.safe_load((folder / "config.yaml").read_text())["Global"]["epochs"] == 2
    # the first epoch was trained under another schedule, so only the files can be compared
    assert {p.name for p in folder.glob("*.pd*")} == {p.name for p in whole.glob("*.pd*")}

    before = (folder / "latest.pdparams").read_bytes()
    assert train(path) == 0
    assert f"{folder / 'latest'}: already finished, nothing to do" in capsys.readouterr().out
    assert (folder / "latest.pdparams").read_bytes() == before

    for states in folder.glob("*.pdstates"):
        states.write_text("{}")
    assert train(path, "Global.epochs=1") == 0
    printed = capsys.readouterr().out
    assert printed.count("skipped: ") == 4  # latest, epoch_2, epoch_1, best_model
    assert "it is kept as" in printed
    assert (tmp_path / "output/resnet8.earlier-1/latest.pdparams").read_bytes() == before


@pytest.mark.parametrize("moved", [0, 1, 3])
def test_a_run_killed_in_its_last_save_is_completed(recipe, write_recipe, tmp_path, moved):
    """Killed after the commit: some files are not renamed yet, or all are and only the commit is left."""
    path = write_recipe(recipe)
    assert train(path) == 0
    folder = tmp_path / "output/resnet8"
    latest = sorted(folder.glob("latest.pd*"))
    assert len(latest) == 3
    whole = {file: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    for file in latest[moved:]:
        file.rename(file.with_name(f"{file.name}.new"))
        file.write_bytes(b"of the save before")
    (folder / "latest.commit").touch()
    assert train(path) == 0
    assert {file: file.read_bytes() for file in folder.iterdir() if file.is_file()} == whole


@pytest.mark.parametrize("suffix", [".pdparams", ".pdopt"])
def test_auto_goes_back_past_a_damaged_file_of_several_tags(recipe, write_recipe, tmp_path, capsys, suffix):
    """The tags of one step are links to one file, so damage of one is damage of all of them."""
    path = write_recipe(recipe)
    folder = tmp_path / "output/resnet8"
    assert train(path) == 0
    whole = {name: value.copy() for name, value in read_params(folder / "latest.pdparams").items()}
    shared = [folder / f"{tag}{suffix}" for tag in ("latest", "epoch_2")]
    assert shared[0].samefile(shared[1])
    os.truncate(shared[1], 100)  # in place, unlike a save
    capsys.readouterr()
    assert train(path) == 0
    printed = capsys.readouterr().out
    for file in shared:
        assert f"{file} is damaged" in printed
    assert f"resumed {folder / 'epoch_1'}: epoch 2 of 2" in printed
    for tag in ("latest", "epoch_2"):  # written again, and whole
        found = Checkpointer(folder).load(tag).params
        for name, value in whole.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_finished_run_goes_on_when_it_gets_more_epochs(recipe, write_recipe, tmp_path, capsys):
    recipe["Optimizer"]["lr"] = {"name": "ConstLR", "learning_rate": 0.05}
    path = write_recipe(recipe)
    assert train(path) == 0
    whole = (tmp_path / "output/resnet8").rename(tmp_path / "whole")
    assert train(path, "Global.epochs=1") == 0
    assert train(path, "Global.seed=9", "Global.print_batch_step=2", "Global.print_batch_step=1") == 0
    assert "Global.seed has no effect: the run keeps its seed, 3" in capsys.readouterr().out
    for folder in (whole, tmp_path / "output/resnet8"):
        (folder / "epoch_1.pdstates").unlink()  # in one of them, this was the end
    same_run(whole, tmp_path / "output/resnet8")
    written = yaml.safe_load((tmp_path / "output/resnet8/config.yaml").read_text())
    assert written["Global"]["seed"] == 3


def test_a_checkpoint_of_another_run_is_read_and_left_alone(recipe, write_recipe, tmp_path):
    path = write_recipe(recipe)
    assert train(path, "Global.epochs=1") == 0
    folder = tmp_path / "output/resnet8"
    half = folder / "latest.pdparams.new"
    half.write_bytes(b"the other run is saving this")
    other = tmp_path / "other/resnet8"
    for _ in range(2):
        assert train(path, f"Global.output_dir={tmp_path}/other", resume=folder / "latest") == 0
    assert half.exists()
    # the second run was not to continue with what lay in its folder, so that was kept
    same_run(other, tmp_path / "other/resnet8.earlier-1")


def test_a_list_of_optimizers_resumes_in_the_middle_of_an_epoch(recipe, write_recipe, tmp_path, capsys):
    steady = {"name": "ConstLR", "learning_rate": 0.01}
    falling = {"name": "Step", "learning_rate": 0.1, "step_size": 1, "gamma": 0.5, "by_epoch": True}
    recipe["Optimizer"] = [
        {"Momentum": {"lr": falling, "momentum": 0.9}},
        {"AdamW": {"scope": "fc", "lr": steady, "weight_decay": 0.01}},
    ]
    recipe["Global"]["save_steps"] = 1
    path = write_recipe(recipe)
    assert train(path) == 0
    assert "lr(Step): 0.10000000, lr(ConstLR): 0.01000000, " in capsys.readouterr().out
    folder = tmp_path / "output/resnet8"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rates = [(row["lr"], row["lr_2"]) for row in rows if row["kind"] == "train"]
    assert set(rates) == {(0.1, 0.01), (0.05, 0.01)}
    whole = folder.rename(tmp_path / "whole")

    stopped = Checkpointer.save

    def stop_at_the_fifth(self, tag, params, optimizer, progress, averages=None):
        stopped(self, tag, params, optimizer, progress, averages)
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpointer, "save", stop_at_the_fifth)
        assert train(path) == 130
    assert train(path) == 0
    assert "resumed" in capsys.readouterr().out
    same_run(whole, folder)


def test_only_the_best_and_the_latest_are_kept_on_request(recipe, write_recipe, tmp_path):
    path = write_recipe(recipe)
    assert train(path, "Global.keep_last=0") == 0
    found = {p.stem for p in (tmp_path / "output/resnet8").glob("*.pdparams")}
    assert found == {"best_model", "latest"}


@pytest.mark.parametrize("fails_at", [10, 25])
def test_a_run_goes_on_after_the_disk_was_full(recipe, write_recipe, tmp_path, monkeypatch, capsys, fails_at):
    recipe["Global"] |= {"save_steps": 2, "epochs": 1}
    path = write_recipe(recipe)
    assert train(path) == 0
    folder = tmp_path / "output/resnet8"
    whole = folder.rename(tmp_path / "whole")
    count, sync = 0, os.fsync

    def full(handle):
        nonlocal count
        count += 1
        if count >= fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert train(path) == 1
    told = capsys.readouterr().err
    assert "No space left on device" in told
    assert "MB are free there" in told
    assert not list(folder.glob("*.new"))
    assert not list(folder.glob(".*.tmp"))
    assert train(path) == 0
    same_run(whole, folder)


# ---------------------------------------------------------------- changes


OLD = {
    "Global": {"epochs": 2, "print_batch_step": 10, "output_dir": "a", "seed": 1},
    "Loss": {"Train": [{"CELoss": {"weight": 1.0}}, {"KL": {"temperature": 4.0}}]},
    "DataLoader": {"Train": {"loader": {"num_workers": 2}, "sampler": {"batch_size": 8}}},
}


def test_changes_are_named_by_their_keys():
    new = {
        "Global": {"epochs": 3, "print_batch_step": 1, "output_dir": "b", "seed": 2},
        "Loss": {"Train": [{"CELoss": {"weight": 1.0}}, {"KL": {"temperature": 2.0, "note": "x"}}]},
        "DataLoader": {"Train": {"loader": {"num_workers": 4}, "sampler": {}}},
    }
    found = {str(change): change.harmless for change in find_changes(OLD, new)}
    assert found == {
        "Global.epochs: was 2, is 3": False,
        "Global.print_batch_step: was 10, is 1": True,
        "Loss.Train.1.KL.temperature: was 4.0, is 2.0": False,
        'Loss.Train.1.KL.note: was not set, is "x"': False,
        "DataLoader.Train.loader.num_workers: was 2, is 4": True,
        "DataLoader.Train.sampler.batch_size: was 8, is not set": False,
    }


def test_a_section_that_the_version_before_did_not_have_is_no_change():
    assert not find_changes(OLD, {**OLD, "Hooks": None})
    # Size and normalisation have an effect through the transforms alone, which are compared themselves.
    now = {**OLD["Global"], "mean": [0.5], "std": [0.2], "image_size": 32}
    assert not find_changes(OLD, {**OLD, "Global": now})
    assert [change.key for change in find_changes(OLD, {**OLD, "Hooks": [{"Mine": None}]})] == ["Hooks"]


def test_a_list_of_another_length_is_shown_whole():
    (change,) = find_changes({"Loss": [1, 2]}, {"Loss": [1]})
    assert str(change) == "Loss: was [1, 2], is [1]"


def test_an_unchanged_config_is_not_worth_a_word(caplog):
    with caplog.at_level(logging.INFO, "ppcls"):
        assert not report_changes(OLD, json.loads(json.dumps(OLD)), "latest")
    assert not caplog.records


def test_a_resumed_log_keeps_exactly_what_is_not_written_again():
    """Every position of a run of two epochs with three steps, against the order in which it writes."""
    written = []  # (row, position of the checkpoint that is written right after it)
    for epoch in (1, 2):
        for batch in (1, 2, 3):
            step = 3 * (epoch - 1) + batch
            written.append(({"kind": "train", "step": step}, Progress(epoch=epoch, batch=batch, step=step)))
        after = Progress(epoch=epoch + 1, batch=0, step=step)
        written.append(({"kind": "eval", "step": step}, after))
    rows = [{"kind": "teacher", "step": 0}, *(row for row, _ in written)]
    for done, (_, start) in enumerate(written, 2):
        assert [row for row in rows if is_kept(row, start)] == rows[:done]
    assert not any(is_kept(row, Progress()) for row in rows)


# ---------------------------------------------------------------- one run in a folder


@contextlib.contextmanager
def held(folder):
    """Hold the lock of a run, as training does from the moment on at which it changes the folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with RunLock(folder) as lock:
        lock.claim()
        lock.sign()
        yield


def holder(folder, *, with_child=False):
    """Fork a process that holds the lock, and perhaps a child of it; return their ids when it does."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with held(folder):
                child = os.fork() if with_child else 0
                if with_child and child == 0:
                    signal.pause()
                os.write(write, f"{child}\n".encode())
                signal.pause()
        finally:
            os._exit(1)
    return pid, int(os.read(read, 100))


def refused(folder):
    with pytest.raises(ConfigError) as error, RunLock(folder):
        pass
    return str(error.value)


@pytest.mark.parametrize("with_child", [False, True])
def test_a_second_run_is_refused_until_the_first_is_killed(tmp_path, with_child):
    folder = tmp_path / "output" / "resnet8"
    pid, child = holder(folder, with_child=with_child)
    try:
        told = refused(folder)
        assert f"process {pid} on {os.uname().nodename}" in told
        assert str(folder) in told
        assert "Global.output_dir" in told
        with held(tmp_path / "output" / "resnet14"):
            pass
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    try:
        with held(folder):  # although a worker of the dead run may still live
            pass
    finally:
        if child:
            os.kill(child, signal.SIGKILL)


def test_the_note_of_a_run_that_has_ended_is_not_shown(tmp_path):
    """A run that has just begun holds the lock, but signs it only when it opens the folder."""
    folder = tmp_path / "output" / "resnet8"
    with held(folder):
        pass
    note = json.loads(lock_path(folder).read_text())
    for pid, told in ((2**22 + 1, "(it is starting)"), (os.getpid(), f"(process {os.getpid()} on")):
        lock_path(folder).write_text(json.dumps(note | {"pid": pid}))
        read, write = os.pipe()
        other = os.fork()
        if other == 0:
            with RunLock(folder):
                os.write(write, b".")
                signal.pause()
        os.read(read, 1)
        try:
            assert told in refused(folder)
        finally:
            os.kill(other, signal.SIGKILL)
            os.waitpid(other, 0)


def test_a_run_that_is_refused_changes_nothing(recipe, write_recipe, tmp_path, capsys):
    path = write_recipe(recipe)
    folder = tmp_path / "output/resnet8"
    assert train(path, "Global.epochs=1") == 0
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    pid, _ = holder(folder)
    try:
        assert train(path) == 2
        assert main(["train", "-c", str(path)]) == 2
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert capsys.readouterr().err.count(f"process {pid} on") == 2
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_file_system_without_locks_gets_a_warning(tmp_path, monkeypatch, caplog):
    def unsupported(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "lock_descriptor", unsupported)
    with caplog.at_level(logging.WARNING, "ppcls"), held(tmp_path / "resnet8"):
        pass
    assert "cannot be locked (No locks available)" in caplog.text


# ---------------------------------------------------------------- disks


@pytest.fixture
def small_disk(tmp_path):
    """Return a function that mounts a file system of some kilobytes; skip where that is not allowed."""
    mounted = []

    def mount(size, *options):
        point = tmp_path / f"disk{len(mounted)}"
        point.mkdir()
        flags = ",".join((f"size={size}k", *options))
        try:
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", flags, "none", point], check=True, capture_output=True
            )
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mounting is not allowed here")
        mounted.append(point)
        return point

    yield mount
    for point in mounted:
        subprocess.run(["umount", "-l", point], check=True)


def save(folder, value):
    params = {"conv.weight": np.full(20_000, value, "float32")}
    Checkpointer(folder).save("latest", params, {"conv.weight@velocity": params["conv.weight"]}, Progress())


def stored(folder):
    return Checkpointer(folder).load("latest").params["conv.weight"][0]


def test_the_size_is_asked_for_after_an_error_only(tmp_path):
    def never():
        raise AssertionError("it copies all weights from a GPU")

    with explained(tmp_path, "checkpoint", never):
        pass


def test_a_full_disk_keeps_the_checkpoint_and_says_what_is_needed(small_disk):
    disk = small_disk(400)
    save(disk, 1)
    filler = disk / "somebody else's file"
    expected, told = 1, []
    for spare in range(0, 200, 20):  # so that another file is the one that does not fit
        filler.write_bytes(bytes(1024 * (220 - spare)))
        try:
            save(disk, 2 + spare)
        except TrainingError as error:
            told.append(str(error))
        else:
            expected = 2 + spare
        assert stored(disk) == expected
        assert {p.name for p in disk.iterdir()} == {
            "latest.pdparams", "latest.pdopt", "latest.pdstates", filler.name
        }  # fmt: skip
    assert told
    assert expected > 1
    for text in told:
        assert re.search(
            r"latest\.pd\w+\.new: No space left on device. .*needs 0\.2 MB, 0\.\d MB are free there.*"
            "--resume auto",
            text,
        )


@pytest.mark.parametrize("number", range(12))
def test_every_write_may_be_the_one_that_fails(tmp_path, monkeypatch, number):
    save(tmp_path, 1)
    count = 0

    def failing(function):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            if count > number:
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(os.fsync))
        patch.setattr(os, "replace", failing(os.replace))
        with pytest.raises(TrainingError, match="No space left on device"):
            save(tmp_path, 2)
    assert stored(tmp_path) in (1, 2)
    save(tmp_path, 3)
    assert stored(tmp_path) == 3
    assert len(list(tmp_path.iterdir())) == 3


def test_an_output_folder_that_is_read_only(recipe, write_recipe, small_disk, capsys):
    disk = small_disk(100, "ro")
    path = write_recipe(recipe)
    assert main(["train", "-c", str(path), "-o", f"Global.output_dir={disk}"]) == 2
    assert (
        f"Global.output_dir: cannot write to {disk}/resnet8: Read-only file system" in capsys.readouterr().err
    )


def test_a_run_folder_on_a_disk_of_its_own(recipe, write_recipe, small_disk, tmp_path):
    disk, folder = small_disk(20_000), tmp_path / "output/resnet8"
    folder.parent.mkdir()
    folder.symlink_to(disk)
    path = write_recipe(recipe)
    assert train(path, "Global.epochs=1") == 0
    assert train(path, "Global.epochs=2") == 0
    assert (disk / "config.until_step_3.yaml").exists()
    assert not list(disk.glob(".*.tmp"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_metrics_on_a_full_disk_end_the_run_with_the_reason(tmp_path):
    (tmp_path / METRICS).symlink_to("/dev/full")
    writer = ScalarWriter(tmp_path)
    with pytest.raises(TrainingError, match=r"metrics\.jsonl: No space left on device.*--resume auto"):
        writer.write("train", 1, 1, {"loss": 1.0})
    writer.close()


# ------------------------------------------------------------------ a request to stop in an evaluation


def test_a_run_stops_within_an_evaluation_and_goes_on_with_it(
    recipe, write_recipe, tmp_path, monkeypatch, capsys
):
    recipe["EMA"] = {"decay": 0.5}
    path = write_recipe(recipe)
    assert train(path) == 0
    folder = tmp_path / "output/resnet8"
    whole = folder.rename(tmp_path / "whole")
    measured = []

    def stops_at_the_first_of_epoch_2(*arguments):
        measured.append(1)
        if len(measured) == asked_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return measure_batch(*arguments)

    monkeypatch.setattr(evaluate, "measure_batch", stops_at_the_first_of_epoch_2)
    asked_at = 2 + 4 + 1  # a trial of each, two batches of each in epoch 1
    with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
        train(path)
    assert len(measured) == asked_at  # the second batch was not waited for
    assert train(path) == 0
    assert "latest: epoch 2 of 2, 3 batches of it done" in capsys.readouterr().out
    same_run(folder, whole)


def test_a_run_that_is_asked_to_stop_after_its_last_evaluation_ends_whole(recipe, tmp_path, capsys):
    class Asks(Hook):
        def after_eval(self, run, metrics):
            if run.progress.epoch == run.settings.epochs:
                os.kill(os.getpid(), signal.SIGTERM)

    recipe["Global"]["report"] = True
    with pytest.raises(SystemExit, match="143"):
        Engine(copy.deepcopy(recipe), "train").train([Asks()])
    assert (tmp_path / "output/resnet8/report.html").exists()
    assert "2 of 2 epochs" in capsys.readouterr().out
    recipe["Global"]["checkpoints"] = "auto"
    assert Engine(recipe, "train").train()["epoch"] in (1, 2)
    assert "already finished" in capsys.readouterr().out


# ------------------------------------------------------- frozen networks from Global.pretrained_model


class LooksAtTheTeacher(Hook):
    """Notes the teacher's weights and the margins that OFD read of them; may ask the run to stop."""

    def __init__(self, stop_after=0):
        self.stop_after = stop_after

    def before_train(self, run):
        teacher = run.parts.model.network("Teacher")
        self.seen = {name: value.numpy() for name, value in teacher.state_dict().items()}
        (self.margins,) = (
            part.layer._margins for part in run.parts.loss._parts if hasattr(part.layer, "_margins")
        )

    def after_epoch(self, run, epoch):
        if epoch == self.stop_after:
            run.stop_signal = signal.SIGTERM


@pytest.fixture
def from_one_file(recipe, tmp_path):
    """A distillation whose teacher has its weights from Global.pretrained_model alone, and these weights."""
    maps = ["blocks[0].conv1"]
    ofd = {"model_name_pair": ["Student", "Teacher"], "student_keys": maps, "teacher_keys": maps}
    ofd["teacher_bns"] = ["blocks[0].conv1.bn"]
    recipe = distilled(recipe, OFDLoss=ofd, DistillationGTCELoss={"model_names": ["Student"]})
    for model in recipe["Arch"]["models"]:
        next(iter(model.values()))["return_patterns"] = maps
    rng = np.random.default_rng(1)
    teacher, student = (create_model(name, class_num=4) for name in ("resnet14", "resnet8"))
    weights = {
        name: rng.uniform(0.5, 1.5, value.shape).astype("float32")
        for name, value in teacher.state_dict().items()
    }
    both = {f"Teacher.{name}": value for name, value in weights.items()}
    both |= {f"Student.{name}": value.numpy() for name, value in student.state_dict().items()}
    paddle.save(
        {name: paddle.to_tensor(value) for name, value in both.items()}, str(tmp_path / "both.pdparams")
    )
    recipe["Global"]["pretrained_model"] = str(tmp_path / "both")
    return recipe, weights


def test_a_resumed_run_gives_frozen_networks_their_weights_again(from_one_file):
    recipe, weights = from_one_file
    first, second = LooksAtTheTeacher(stop_after=1), LooksAtTheTeacher()
    with pytest.raises(SystemExit):
        Engine(copy.deepcopy(recipe), "train").train([first])
    recipe["Global"]["checkpoints"] = "auto"
    Engine(recipe, "train").train([second])
    expected = negative_mean(*(weights[f"blocks.0.conv1.bn.{name}"].tolist() for name in ("weight", "bias")))
    for look in (first, second):
        for name, value in weights.items():
            np.testing.assert_array_equal(look.seen[name], value, err_msg=name)
        np.testing.assert_allclose(look.margins[0].numpy(), expected, rtol=1e-6)


def test_a_resumed_run_whose_teacher_cannot_be_found_again_is_refused(from_one_file, tmp_path, capsys):
    recipe, _ = from_one_file
    with pytest.raises(SystemExit):
        Engine(copy.deepcopy(recipe), "train").train([LooksAtTheTeacher(stop_after=1)])
    (tmp_path / "both.pdparams").rename(tmp_path / "elsewhere.pdparams")
    recipe["Global"]["checkpoints"] = "auto"
    with pytest.raises(WeightsError, match=r"Global.pretrained_model: .*both"):
        Engine(copy.deepcopy(recipe), "train").train()
    own = create_model("resnet14", class_num=4)
    paddle.save(own.state_dict(), str(tmp_path / "own.pdparams"))
    recipe["Arch"]["models"][0]["Teacher"]["pretrained"] = str(tmp_path / "own")
    look = LooksAtTheTeacher()
    Engine(recipe, "train").train([look])
    assert (
        "both is no longer there; frozen networks keep the weights of their `pretrained`"
        in capsys.readouterr().out
    )
    np.testing.assert_array_equal(look.seen["fc.weight"], own.fc.weight.numpy())


def test_statistics_of_a_frozen_network_in_train_mode_go_on(recipe, write_recipe, tmp_path, capsys):
    recipe = distilled(recipe, **KL)
    recipe["Arch"]["frozen_mode"] = "train"
    teacher = create_model("resnet14", class_num=4)
    paddle.save(teacher.state_dict(), str(tmp_path / "teacher.pdparams"))
    recipe["Arch"]["models"][0]["Teacher"]["pretrained"] = str(tmp_path / "teacher")
    path = write_recipe(recipe)
    assert train(path) == 0
    folder = tmp_path / "output/DistillationModel"
    whole = folder.rename(tmp_path / "whole")

    class Stops(Hook):
        def after_step(self, run, batch):
            if run.progress.step == 4:
                run.stop_signal = signal.SIGTERM

    with pytest.raises(SystemExit):
        Engine(load_config(path), "train").train([Stops()])
    assert train(path) == 0
    same_run(folder, whole)
    changed = {
        name: value
        for name, value in read_params(folder / "latest.pdopt").items()
        if name.startswith("frozen.")
    }
    assert "frozen.Teacher.blocks.0.conv1.bn._mean" in changed
    assert not np.array_equal(changed["frozen.Teacher.blocks.0.conv1.bn._mean"], np.zeros(16))

"""Tags of one step are written once: links to one file, valid for themselves."""

import contextlib
import errno
import os
from pathlib import Path

import numpy as np
import pytest

import ppcls.engine.checkpoint.equal_files as equal_files
import ppcls.engine.checkpoint.files as files
from ppcls.engine.checkpoint import Checkpointer
from ppcls.errors import WeightsError
from ppcls.run_states import Progress

TAGS = ("best_model", "epoch_2", "latest")


def params(value):
    return {"fc.weight": np.full((3, 2), value, "float32"), "fc.bias": np.full(2, value, "float32")}


def save(checkpointer, tag, value, **more):
    checkpointer.save(
        tag, params(value), {"fc.weight@velocity": params(-value)["fc.weight"]}, Progress(step=value), **more
    )


def inodes(folder, suffix=".pdparams"):
    return {path.name.removesuffix(suffix): path.stat().st_ino for path in folder.glob(f"*{suffix}")}


def check(folder, tag, value):
    found = Checkpointer(folder).load(tag)
    assert found.progress.step == value
    for name, expected in params(value).items():
        np.testing.assert_array_equal(found.params[name], expected)


def test_tags_of_one_step_share_their_files(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    save(checkpointer, "epoch_1", 1)
    for tag in TAGS:
        save(checkpointer, tag, 2, ema=params(7))
    for suffix in (".pdparams", ".pdopt", ".pdema"):
        found = inodes(tmp_path, suffix)
        assert found["best_model"] == found["epoch_2"] == found["latest"] != found.get("epoch_1")
    for tag in TAGS:
        check(tmp_path, tag, 2)
    assert len({path.stat().st_ino for path in tmp_path.glob("*.pdstates")}) == 4  # each has its own position
    save(checkpointer, "latest", 3)  # replaces one name, not the file of the others
    check(tmp_path, "latest", 3)
    check(tmp_path, "epoch_2", 2)
    save(checkpointer, "epoch_3", 3)
    checkpointer.prune(1)
    assert set(inodes(tmp_path)) == {"best_model", "epoch_3", "latest"}
    check(tmp_path, "best_model", 2)


def test_a_tag_saved_twice_at_a_step_leaves_nothing_behind(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    for _ in range(2):
        for tag in ("latest", "epoch_2", "latest"):
            save(checkpointer, tag, 2)
            checkpointer.save_weights("best_model_student", params(2))
            checkpointer.save_weights("best_model.Student", params(2))
    assert len(set(inodes(tmp_path).values())) == 1
    assert {path.suffix for path in tmp_path.iterdir()} == {".pdparams", ".pdopt", ".pdstates"}
    check(tmp_path, "latest", 2)


def test_a_file_that_was_changed_is_not_used_again(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    save(checkpointer, "epoch_2", 2)
    content = bytearray((tmp_path / "epoch_2.pdparams").read_bytes())
    content[-20] ^= 1
    with (tmp_path / "epoch_2.pdparams").open("r+b") as stream:
        stream.write(content)
    os.utime(tmp_path / "epoch_2.pdparams", ns=(1, 1))  # at once, a coarse clock might not see the change
    save(checkpointer, "latest", 2)
    check(tmp_path, "latest", 2)
    with pytest.raises(WeightsError, match=r"epoch_2\.pdparams is damaged"):
        Checkpointer(tmp_path).load("epoch_2")


def test_damage_of_a_shared_file_is_seen_in_each_of_its_tags(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    save(checkpointer, "epoch_1", 1)
    for tag in TAGS:
        save(checkpointer, tag, 2)
    with (tmp_path / "latest.pdopt").open("r+b") as stream:
        stream.truncate(20)
    for tag in TAGS:
        with pytest.raises(WeightsError, match=rf"{tag}\.pdopt is damaged"):
            Checkpointer(tmp_path).load(tag)
    check(tmp_path, "epoch_1", 1)


@pytest.mark.parametrize("error", [errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP])
def test_a_file_system_without_links_gets_copies(tmp_path, monkeypatch, error):
    def refuse(*paths):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "link", refuse)
    checkpointer = Checkpointer(tmp_path)
    for tag in TAGS:
        save(checkpointer, tag, 2)
    assert len(set(inodes(tmp_path).values())) == 3
    for tag in TAGS:
        check(tmp_path, tag, 2)


def test_only_equal_tensors_are_equal():
    base = np.arange(6, dtype="float32")
    different = [
        {"a": base},
        {"b": base},
        {"a": base.reshape(2, 3)},
        {"a": base.reshape(3, 2)},
        {"a": base.view("int32")},
        {"a": base + np.float32(1e-6)},
        {"a": base[:3], "b": base[3:]},
        {"a": base[:1]},
        {"a": base[0]},
        {},
    ]
    assert len({equal_files._digest(values) for values in different}) == len(different)
    assert equal_files._digest({"a": base.reshape(2, 3).T}) == equal_files._digest(
        {"a": base.reshape(2, 3).T.copy()}
    )


class Killed(BaseException):
    pass


def save_until(folder, stop_at):
    """Save the tags at step 2 over those of step 1, and die at an operation; return how many there are."""
    count = 0

    def counted(function):
        def call(*args, **kwargs):
            nonlocal count
            if count == stop_at:
                raise Killed
            count += 1
            return function(*args, **kwargs)

        return call

    checkpointer = Checkpointer(folder)
    with pytest.MonkeyPatch.context() as patch:
        for tag in TAGS:
            save(checkpointer, tag, 1)
        patch.setattr(equal_files, "write_params", counted(equal_files.write_params))
        patch.setattr(files, "write_atomic", counted(files.write_atomic))
        for name in ("replace", "link"):
            patch.setattr(os, name, counted(getattr(os, name)))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        with contextlib.nullcontext() if stop_at is None else pytest.raises(Killed):
            for tag in (*TAGS, "latest"):
                save(checkpointer, tag, 2)
    return count


def test_killed_at_any_operation_leaves_whole_checkpoints(tmp_path, monkeypatch):
    (tmp_path / "count").mkdir()
    operations = save_until(tmp_path / "count", None)
    assert operations > 30
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # slow, and a kill does not need it
    seen = set()
    for stop in range(operations):
        folder = tmp_path / str(stop)
        folder.mkdir()
        save_until(folder, stop)
        steps = []
        for tag in TAGS:
            step = Checkpointer(folder).load(tag).progress.step
            check(folder, tag, step)
            steps.append(step)
        assert steps == sorted(steps, reverse=True)
        seen.add(tuple(steps))
        after = Checkpointer(folder)
        after.clean()
        assert {path.suffix for path in folder.iterdir()} == {".pdparams", ".pdopt", ".pdstates"}
        for tag in TAGS:
            check(folder, tag, steps[TAGS.index(tag)])
            save(after, tag, 3)
            check(folder, tag, 3)
    assert seen == {(1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 2, 2)}

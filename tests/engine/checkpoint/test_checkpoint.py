"""Checkpoints: three files that are valid together, or not at all."""

import json

import numpy as np
import pytest

from ppcls.engine.checkpoint import Checkpointer, name_for_earlier_run
from ppcls.errors import WeightsError
from ppcls.run_states import Progress


def weights(value):
    return {"conv.weight": np.full((3, 2), value, "float32")}


def save(folder, value, tag="latest"):
    Checkpointer(folder).save(
        tag,
        weights(value),
        {"conv.weight@velocity": -weights(value)["conv.weight"]},
        Progress(epoch=int(value), step=10 * int(value), best={"top1": 0.5}),
    )


def test_what_is_saved_comes_back(tmp_path):
    save(tmp_path, 3)
    found = Checkpointer(tmp_path).load("latest")
    np.testing.assert_array_equal(found.params["conv.weight"], weights(3)["conv.weight"])
    np.testing.assert_array_equal(found.optimizer["conv.weight@velocity"], -weights(3)["conv.weight"])
    assert found.progress == Progress(epoch=3, step=30, best={"top1": 0.5})


def test_nothing_temporary_stays(tmp_path):
    save(tmp_path, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "latest.pdopt",
        "latest.pdparams",
        "latest.pdstates",
    ]


@pytest.mark.parametrize("suffix", [".pdparams", ".pdopt"])
def test_files_of_different_saves_are_refused(tmp_path, suffix):
    save(tmp_path, 1)
    save(tmp_path, 2, tag="other")
    (tmp_path / f"latest{suffix}").write_bytes((tmp_path / f"other{suffix}").read_bytes())
    with pytest.raises(WeightsError, match=f"latest{suffix}.*not of the same save"):
        Checkpointer(tmp_path).load("latest")


def test_a_missing_file_is_named_with_the_remedy(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "latest.pdopt").unlink()
    with pytest.raises(WeightsError, match=r"latest\.pdopt not found.*Global\.pretrained_model"):
        Checkpointer(tmp_path).load("latest")


@pytest.mark.parametrize("content", [b"\x80\x04junk", json.dumps({"format": 99}).encode(), b"[]"])
def test_states_of_another_program_are_refused(tmp_path, content):
    save(tmp_path, 1)
    (tmp_path / "latest.pdstates").write_bytes(content)
    with pytest.raises(WeightsError, match="latest.pdstates"):
        Checkpointer(tmp_path).load("latest")


def test_keep_last_counts_epochs_as_numbers(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    for epoch in (2, 9, 10, 11):
        save(tmp_path, epoch, tag=f"epoch_{epoch}")
    save(tmp_path, 1, tag="best_model")
    checkpointer.prune(2)
    assert {p.stem for p in tmp_path.glob("*.pdparams")} == {"epoch_10", "epoch_11", "best_model"}


def test_keep_last_clears_what_a_kill_left_of_an_earlier_one(tmp_path):
    for epoch in (1, 2, 3):
        save(tmp_path, epoch, tag=f"epoch_{epoch}")
    (tmp_path / "epoch_1.pdstates").unlink()
    Checkpointer(tmp_path).prune(2)
    assert {p.stem for p in tmp_path.iterdir()} == {"epoch_2", "epoch_3"}


def test_reading_finds_a_committed_save_and_changes_nothing(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2, tag="other")
    for suffix in (".pdparams", ".pdopt", ".pdstates"):
        (tmp_path / f"other{suffix}").rename(tmp_path / f"latest{suffix}.new")
    before = sorted(tmp_path.iterdir())
    assert Checkpointer(tmp_path).load("latest").progress.epoch == 1
    (tmp_path / "latest.commit").touch()
    assert Checkpointer(tmp_path).tags() == ["latest"]
    assert Checkpointer(tmp_path).load("latest").progress.epoch == 2
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "latest.commit"])
    Checkpointer(tmp_path).clean()
    assert len(list(tmp_path.iterdir())) == 3
    assert Checkpointer(tmp_path).load("latest").progress.epoch == 2


def test_remains_of_killed_runs_are_cleared_away(tmp_path):
    save(tmp_path, 1)
    for name in (
        ".latest.pdparams.new.7.tmp",
        ".write-test-7",
        "epoch_3.pdopt.new",
        "best_model.pdparams.new",
    ):
        (tmp_path / name).write_bytes(b"half")
    Checkpointer(tmp_path).clean()
    assert {p.name for p in tmp_path.iterdir()} == {"latest.pdparams", "latest.pdopt", "latest.pdstates"}


def test_an_earlier_run_gets_the_next_free_name(tmp_path):
    folder = tmp_path / "ResNet18"
    assert name_for_earlier_run(folder) is None
    for number in (1, 2):
        folder.mkdir()
        assert name_for_earlier_run(folder) is None
        save(folder, 1)
        kept = name_for_earlier_run(folder)
        assert kept == tmp_path / f"ResNet18.earlier-{number}"
        folder.rename(kept)
    folder.mkdir()
    (folder / "latest.commit").touch()  # killed as the first checkpoint was moved into place
    assert name_for_earlier_run(folder) == tmp_path / "ResNet18.earlier-3"

"""Programs on disk: made once, whole or made anew, whatever happens to the files."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import paddle
import pytest

from ppcls.arch import create_model
from ppcls.arch.answering import Answering
from ppcls.teacher import Answer
from ppcls.teacher import answer as answer_module
from ppcls.teacher import cache as cache_module
from ppcls.teacher.cache import FILES, KEPT, is_whole, stored_program
from ppcls.teacher.program import Images, fingerprint

IMAGES = Images(3, (16, 16))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "programs"


@pytest.fixture
def written(monkeypatch):
    """Count how often programs are made."""
    made = []
    write = answer_module.write_program

    def counting(*args, **kwargs):
        made.append(args)
        write(*args, **kwargs)

    monkeypatch.setattr(answer_module, "write_program", counting)
    return made


def network(seed=1, **options):
    paddle.seed(seed)
    layer = create_model("resnet8", class_num=4, **options)
    layer.eval()
    return layer


def images(count=2):
    values = np.random.default_rng(0).standard_normal((count, 3, 16, 16)).astype(np.float32)
    return paddle.to_tensor(values)


def ask(layer):
    """Answer a batch through Paddle Inference; return the output and what was used."""
    answer = Answer(layer, "Teacher", Answering("paddle_inference"), 1)
    with paddle.no_grad():
        answer(images())
        return answer(images()).numpy(), answer.choice.used


def folder_of(home):
    (folder,) = (path for path in home.iterdir() if path.is_dir())
    return folder


def test_program_is_made_once_for_all_runs(written, home):
    first, second = ask(network()), ask(network())
    assert len(written) == 1
    assert (first[0] == second[0]).all()
    assert is_whole(folder_of(home))


def spoil(path: Path, damage: str) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(bytes(content) if damage == "changed" else content[: len(content) // 2])


@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
@pytest.mark.parametrize("file", ["inference.pdiparams", "layout.json", FILES])
def test_damaged_files_are_written_anew(file, damage):
    made = []

    def write(folder: Path) -> None:
        made.append(folder)
        for name in ("inference.pdiparams", "layout.json"):
            (folder / name).write_text("content of the file")

    for number in (1, 2):
        with stored_program("key", write) as (folder, there):
            assert (folder / "layout.json").read_text() == "content of the file"
            assert not there
        assert len(made) == number
        spoil(folder / file, damage)


def test_program_without_its_parameters_is_made_anew(written, home):
    expected, _ = ask(network())
    (folder_of(home) / "inference.pdiparams").unlink()  # Paddle would run on whatever is in memory
    found, used = ask(network())
    assert len(written) == 2
    assert used == "paddle_inference/float32"
    assert (found == expected).all()


def test_stored_program_that_disagrees_is_made_anew(written, home, monkeypatch):
    """Whatever the fingerprint may miss, the first batch finds."""
    monkeypatch.setattr(answer_module, "fingerprint", lambda *args: "same")
    ask(network(seed=1))
    layer = network(seed=2)
    found, used = ask(layer)
    assert len(written) == 2
    assert used == "paddle_inference/float32"
    assert np.abs(found - layer(images()).numpy()).max() < 1e-4


def test_fingerprint_depends_on_weights_structure_features_and_images():
    prints = [fingerprint(network(), IMAGES), fingerprint(network(), IMAGES)]
    assert prints[0] == prints[1]
    prints.append(fingerprint(network(seed=2), IMAGES))
    prints.append(fingerprint(network(return_patterns=["blocks[0]"]), IMAGES))
    prints.append(fingerprint(network(return_patterns=["blocks[1]"]), IMAGES))
    prints.append(fingerprint(network(stop_after="blocks[1]"), IMAGES))
    prints.append(fingerprint(network(), Images(3, None)))
    other = network()
    other.stem.bn._epsilon = 0.1
    prints.append(fingerprint(other, IMAGES))
    assert len(set(prints)) == len(prints) - 1


def test_folder_that_cannot_be_written_is_replaced_by_a_temporary_one(written, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "file"))
    _, used = ask(network())
    assert used == "paddle_inference/float32"
    assert len(written) == 1


def test_program_in_a_folder_that_cannot_be_written_is_used(written, monkeypatch):
    ask(network())

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache_module, "FileLock", refuse)
    _, used = ask(network())
    assert used == "paddle_inference/float32"
    assert len(written) == 1


def test_processes_wait_for_the_one_that_writes(home):
    """Locks are of files, so threads that open the file by themselves stand in for processes."""
    made, found = [], []

    def write(folder: Path) -> None:
        made.append(folder)
        (folder / "inference.json").write_text("program")

    def take() -> None:
        with stored_program("key", write) as (folder, _):
            found.append((folder / "inference.json").read_text())

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert found == ["program"] * 8


def test_remains_of_a_killed_process_are_removed_after_a_day(home):
    def write(folder: Path) -> None:
        (folder / "inference.json").write_text("program")

    for name, age in ((".old.tmp", 100_000), (".new.tmp", 1000)):
        (home / name).mkdir(parents=True)
        os.utime(home / name, (time.time() - age,) * 2)
    with stored_program("key", write):
        pass
    assert not (home / ".old.tmp").exists()
    assert (home / ".new.tmp").exists()


def test_failed_writing_leaves_nothing_behind(home):
    def write(folder: Path) -> None:
        (folder / "inference.json").write_text("half")
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"), stored_program("key", write):
        pass
    assert [path for path in home.iterdir() if path.is_dir()] == []


def test_programs_that_were_not_used_for_long_are_removed(home):
    def write(folder: Path) -> None:
        (folder / "inference.json").write_text("program")

    for number in range(KEPT + 4):
        with stored_program(f"key{number}", write) as (folder, _):
            pass
        if number < KEPT:
            os.utime(folder, (10_000 + number, 10_000 + number))
    left = {path.name for path in home.iterdir() if path.is_dir()}
    assert left == {f"key{number}" for number in range(4, KEPT + 4)}

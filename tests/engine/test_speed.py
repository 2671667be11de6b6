"""Threads of a run: chosen, recorded, kept by a resumed run."""

from __future__ import annotations

import json
import os
import re

import paddle
import pytest
from engine_hooks import StopAt
from support import KL, distilled, train

from ppcls._paddle import compute_with_threads
from ppcls.arch.conv import Conv2D
from ppcls.config import load_config
from ppcls.cpu import threads
from ppcls.engine import Engine, speed
from ppcls.errors import ConfigError


@pytest.fixture
def machine(monkeypatch):
    """Return a function that gives this process a number of cores and a choice of the user."""
    used: list[int] = []
    monkeypatch.setenv(threads.VARIABLE, os.environ[threads.VARIABLE])  # put back afterwards
    monkeypatch.setattr(speed, "compute_with_threads", used.append)

    def become(cores: int, chosen: int | None = None) -> list[int]:
        monkeypatch.setattr(speed, "available_cores", lambda: cores)
        monkeypatch.setattr(threads, "CHOSEN", chosen)
        if chosen is not None:
            monkeypatch.setenv(threads.VARIABLE, str(chosen))
        used.clear()
        return used

    return become


def recorded(folder) -> tuple[int, str]:
    """Return the threads that a checkpoint and the environment of its run say."""
    states = json.loads((folder / "latest.pdstates").read_text())
    return states["threads"], json.loads((folder / "environment.json").read_text())["threads"]


def test_a_run_takes_the_cores_and_keeps_the_number(recipe, write_recipe, machine, tmp_path, capsys):
    path, folder = write_recipe(recipe), tmp_path / "output/resnet8"
    used = machine(cores=8)
    assert train(path, "Global.epochs=1") == 0
    assert set(used) == {6}  # two cores for the threads that load
    assert "6 CPU threads on 8 cores" in capsys.readouterr().out
    assert recorded(folder) == (6, "6")

    used = machine(cores=2)
    assert train(path, "Global.checkpoints=auto") == 0
    assert used[-1] == 6
    printed = capsys.readouterr().out
    assert "6 CPU threads, as when this run was started; on this machine 2 would be chosen" in printed
    assert recorded(folder) == (6, "6")


def test_the_number_of_the_user_wins(recipe, write_recipe, machine, tmp_path, capsys):
    path, folder = write_recipe(recipe), tmp_path / "output/resnet8"
    used = machine(cores=8, chosen=3)
    assert train(path, "Global.epochs=1") == 0
    assert not used, "Paddle has read the variable itself"
    assert recorded(folder) == (3, "3")
    capsys.readouterr()

    used = machine(cores=8, chosen=1)
    assert train(path, "Global.checkpoints=auto") == 0
    assert not used
    assert "OMP_NUM_THREADS=1: this run was started with 3 CPU threads" in capsys.readouterr().out
    assert recorded(folder) == (1, "1")


def test_a_list_of_the_user_counts_although_paddle_takes_one_thread(
    recipe, write_recipe, machine, monkeypatch, capsys
):
    used = machine(cores=8, chosen=4)
    monkeypatch.setenv(threads.VARIABLE, "1")  # as Paddle leaves it for OMP_NUM_THREADS=4,2
    assert train(write_recipe(recipe), "Global.epochs=1") == 0
    assert set(used) == {4}
    assert "4 CPU threads on 8 cores" in capsys.readouterr().out


def test_a_number_of_threads_that_is_none_is_reported(recipe, write_recipe, machine, monkeypatch, capsys):
    machine(cores=1)
    monkeypatch.setattr(threads, "MISTAKE", threads.find_mistake({threads.VARIABLE: "many"}))
    assert train(write_recipe(recipe), "Global.epochs=1") == 0
    assert "OMP_NUM_THREADS=many: expected a whole number above 0" in capsys.readouterr().out


@pytest.mark.parametrize(("noted", "expected"), [("2", 2), (None, 1), ("gone", 1)])
def test_a_run_of_an_older_version_keeps_what_paddle_had(
    recipe, write_recipe, machine, tmp_path, noted, expected
):
    path, folder = write_recipe(recipe), tmp_path / "output/resnet8"
    machine(cores=1)
    assert train(path, "Global.epochs=1") == 0
    states = (folder / "latest.pdstates").read_bytes().rpartition(b',\n "crc32"')[0] + b"\n}"
    without = re.sub(rb' "threads": \d+,\n', b"", states)
    assert without != states
    (folder / "latest.pdstates").write_bytes(without.replace(b'"format": 2', b'"format": 1'))
    file = folder / "environment.json"
    if noted == "gone":
        file.unlink()
    else:
        file.write_text(json.dumps({"threads": noted}))
    used = machine(cores=8)
    assert train(path, f"Global.checkpoints={folder / 'latest'}") == 0
    assert used[-1] == expected


def test_a_wrong_switch_is_an_error(recipe, write_recipe, monkeypatch):
    monkeypatch.setenv("PPCLS_BLAS", "no")
    with pytest.raises(ConfigError, match="PPCLS_BLAS=no: expected auto or off"):
        Engine(load_config(write_recipe(recipe)))


def test_one_debug_line_says_how_products_go(recipe, write_recipe, monkeypatch, caplog):
    monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", "7")
    with caplog.at_level("DEBUG", logger="ppcls"):
        Engine(load_config(write_recipe(recipe)))
    assert [line for line in caplog.messages if "MKL_DEBUG_CPU_TYPE=7" in line] == [
        "matrix products use MKL_DEBUG_CPU_TYPE=7"
    ]
    assert speed.describe_processor()["MKL_DEBUG_CPU_TYPE"] == "7"


@pytest.mark.parametrize("wanted", [True, False])
def test_convolutions_follow_the_recipe(recipe, write_recipe, wanted):
    engine = Engine(load_config(write_recipe(recipe), [f"Global.fast_small_convs={wanted}"]))
    found = {layer.fast_small_maps for layer in engine.model.sublayers() if isinstance(layer, Conv2D)}
    assert found == {wanted}


def test_a_resumed_run_stays_exact_with_everything_on(recipe, write_recipe, tmp_path, monkeypatch):
    """Two threads, products in place of all convolutions, the teacher through its engine."""
    monkeypatch.setattr("ppcls.arch.conv._RULE", ((10**9, 0, 0, True),))
    monkeypatch.setenv(threads.VARIABLE, os.environ[threads.VARIABLE])
    monkeypatch.setattr(threads, "CHOSEN", None)
    monkeypatch.setattr(speed, "available_cores", lambda: 2)
    path = write_recipe(distilled(recipe, **KL, DistillationGTCELoss={"model_names": ["Student"]}))
    try:
        assert train(path, f"Global.output_dir={tmp_path}/whole") == 0
        with pytest.raises(SystemExit):
            Engine(load_config(path, [f"Global.output_dir={tmp_path}/cut"])).train([StopAt(4)])
        paddle.seed(99)
        latest = f"Global.checkpoints={tmp_path}/cut/DistillationModel/latest"
        assert train(path, f"Global.output_dir={tmp_path}/cut", latest) == 0
    finally:
        compute_with_threads(1)
    for suffix in (".pdparams", ".pdopt"):
        whole, cut = (tmp_path / name / f"DistillationModel/latest{suffix}" for name in ("whole", "cut"))
        assert whole.read_bytes() == cut.read_bytes()

"""Sweeps: planned and checked as a whole, and restartable at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ppcls import sweeps
from ppcls.cli import main
from ppcls.config import load_config
from ppcls.engine.build import run_files
from ppcls.errors import ConfigError
from ppcls.run_states import Progress, encode_states
from ppcls.sweeps import is_finished, plan_sweep, run_sweep

RATES = "Optimizer.lr.learning_rate=0.1,0.2"


@pytest.fixture
def path(recipe, write_recipe):
    return str(write_recipe(recipe))


def write_as_trained(trial, path, *, finished=True):
    """Write the folder that a run of a sweep has."""
    trial.folder.mkdir(parents=True)
    (trial.folder / "config.yaml").write_text(load_config(path, trial.overrides, "train").to_yaml())
    (trial.folder / "metrics.jsonl").write_text("")
    files = {suffix: {"size": 0, "crc32": 0} for suffix in (".pdparams", ".pdopt")}
    states = encode_states(Progress(finished=finished), files)
    (trial.folder / "latest.pdstates").write_bytes(states)


@pytest.fixture
def trained(monkeypatch, path):
    """Let runs finish at once; return their names in order, and a map of exit codes by name to fill."""
    names, codes = [], {}

    def train(recipe, trial, processes):
        names.append(trial.name)
        if not codes.get(trial.name):
            write_as_trained(trial, path)
        return codes.get(trial.name, 0)

    monkeypatch.setattr(sweeps, "_train", train)
    return names, codes


def test_every_combination_has_a_folder_that_says_its_settings(path, tmp_path):
    sweep = plan_sweep(
        path, [RATES, "Arch={name: resnet8, class_num: 4},{name: resnet14, class_num: 4}"], "1,2"
    )
    assert len({trial.folder for trial in sweep.trials}) == 8
    assert sweep.out == tmp_path / "output" / "sweep_recipe"
    first = sweep.trials[0]
    assert first.name == "learning_rate=0.1_Arch=name-resnet8-class_num-4_seed=1"
    recipe = load_config(path, first.overrides, "train")
    assert (recipe.Optimizer["lr"]["learning_rate"], recipe.Global.seed) == (0.1, 1)
    assert recipe.Global.run_name == first.name


@pytest.mark.parametrize(
    ("choices", "seeds", "expected"),
    [
        ([], None, "nothing varies"),
        (["Optimizer.lr.learning_rat=0.1,0.2"], None, "did you mean"),
        (["Optimizer.lr.learning_rate=0.1,fast"], None, "learning_rate=fast.*expected a number"),
        (["Global.epochs"], None, "expected KEY=VALUE"),
        (["Global.epochs=1,,2"], None, "commas between them"),
        (["Global.epochs=1,1"], None, "given twice"),
        (["Optimizer.lr.learning_rate=0.1,1.0e-1"], None, "given twice, 0.1 and 1.0e-1"),
        ([], "1,01", "given twice, 1 and 01"),
        (["Global.epochs=1", "Global.epochs=2"], None, "given twice"),
        (["Global.run_name=a,b"], None, "chosen by the sweep"),
        (["Global.seed=1,2"], "3", "use one of both"),
        ([RATES, "Optimizer.lr={name: Cosine, learning_rate: 0.1}"], None, "would replace Optimizer.lr"),
        ([], "1,x", "whole numbers"),
        (
            ["Global.epochs=" + ",".join(map(str, range(1, 50)))],
            ",".join(map(str, range(50))),
            "more than 1000",
        ),
    ],
)
def test_mistakes_are_found_before_the_first_run(path, choices, seeds, expected):
    with pytest.raises(ConfigError, match=f"(?is){expected}"):
        plan_sweep(path, choices, seeds)


def test_a_choice_does_not_take_back_what_was_set_inside_it(path):
    sections = "Optimizer.lr={name: Cosine, learning_rate: 1.0},{name: ConstLR, learning_rate: 1.0}"
    sweep = plan_sweep(path, [sections, RATES], None)
    found = [load_config(path, trial.overrides, "train").Optimizer["lr"] for trial in sweep.trials]
    assert [(lr["name"], lr["learning_rate"]) for lr in found] == [
        (name, rate) for name in ("Cosine", "ConstLR") for rate in (0.1, 0.2)
    ]
    with pytest.raises(ConfigError, match="write Optimizer.lr.warmup_epoch into the values of Optimizer.lr"):
        plan_sweep(path, [sections], None, overrides=["Optimizer.lr.warmup_epoch=1"])


@pytest.mark.parametrize("name", ["2026-01-02", "a: b", "#1", "[x]", "no", "1e3", "null"])
def test_a_folder_keeps_its_name_also_where_yaml_reads_something_else(path, tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (trial,) = plan_sweep(path, [], "1", Path(name)).trials
    config = load_config(path, trial.overrides, "train")
    assert (config.Global.output_dir, config.Global.run_name) == (name, "seed=1")


def test_finished_runs_are_kept_and_others_trained_in_order(path, trained):
    names, _ = trained
    sweep = plan_sweep(path, [RATES], "1,2")
    write_as_trained(sweep.trials[1], path)
    write_as_trained(sweep.trials[2], path, finished=False)
    # The first run is new, the second finished; the third was cut off and is resumed.
    sweep.trials[2].folder.rename(sweep.trials[2].folder.with_name("aside"))
    lines = []
    assert run_sweep(sweep, lines.append) == 0
    assert names == [sweep.trials[place].name for place in (0, 2, 3)]
    assert lines[1] == f"run 2 of 4: {sweep.trials[1].name}: finished before"
    assert all(map(is_finished, sweep.trials))


def test_a_run_that_cannot_continue_does_not_stop_the_others(path, trained, capsys):
    names, codes = trained
    codes["learning_rate=0.1"] = 1
    out = plan_sweep(path, [RATES], None).out
    assert main(["sweep", "-c", path, "--set", RATES]) == 1
    assert names == ["learning_rate=0.1", "learning_rate=0.2"]
    printed = capsys.readouterr().out
    assert "not finished, see above: learning_rate=0.1" in printed
    assert str(out / "compare.html") in printed


@pytest.mark.parametrize("code", [2, 130, 143])
def test_a_sweep_ends_with_the_code_of_a_run_that_was_stopped_or_refused(path, trained, code):
    names, codes = trained
    codes["learning_rate=0.1"] = code
    assert main(["sweep", "-c", path, "--set", RATES]) == code
    assert len(names) == 1


def test_runs_of_a_changed_recipe_are_not_mixed(path, trained):
    run_sweep(plan_sweep(path, [RATES], None), lambda line: None)
    plan_sweep(path, [RATES], None, overrides=["Global.print_batch_step=7"])  # without effect on results
    with pytest.raises(ConfigError, match=r"holds a run of another recipe \(Global.epochs: 2 there, 3 now\)"):
        plan_sweep(path, [RATES], None, overrides=["Global.epochs=3"])


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was(path, tmp_path):
    command = [sys.executable, "-m", "ppcls", "sweep", "-c", path, "--set", RATES, "--seeds", "1,2"]
    command += ["-o", "Global.epochs=30", "-o", "Global.save_interval=100", "--out", str(tmp_path / "sweep")]
    folders = [tmp_path / "sweep" / f"learning_rate={r}_seed={s}" for r in (0.1, 0.2) for s in (1, 2)]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (folders[1] / "latest.pdstates").exists():
        assert first.poll() is None
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = (folders[0] / "latest.pdparams").stat().st_mtime_ns
    again = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, check=True)
    assert "resumed " in again.stdout
    assert (folders[0] / "latest.pdparams").stat().st_mtime_ns == done
    assert (tmp_path / "sweep" / "compare.html").is_file()
    for folder in folders:
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [row["epoch"] for row in rows if row["kind"] == "eval"] == list(range(1, 31))


def test_a_sweep_goes_on_although_saved_recipes_have_no_passwords(recipe, write_recipe):
    recipe["Arch"]["pretrained"] = "https://user:secret@host.example/resnet8.pdparams"
    path = str(write_recipe(recipe))
    (trial, _) = plan_sweep(path, [RATES], None).trials
    trial.folder.mkdir(parents=True)
    for name, content in run_files(load_config(path, trial.overrides, "train")).items():
        (trial.folder / name).write_bytes(content)
    assert "secret" not in (trial.folder / "config.yaml").read_text()
    assert [other.folder for other in plan_sweep(path, [RATES], None).trials][0] == trial.folder
    with pytest.raises(ConfigError, match="holds a run of another recipe"):
        plan_sweep(str(write_recipe({**recipe, "EMA": {"decay": 0.5}})), [RATES], None)

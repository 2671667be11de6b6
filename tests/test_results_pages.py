"""benchmarks/methods.py: the pages of results agree with the committed lines; its statistics are right."""

from __future__ import annotations

import argparse
import contextlib
import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from evidence import pages, runner, statistics
from evidence.comparisons import FASHION, OTHER_KIND, SETTINGS, TEACHER, TOGETHER
from evidence.guide import guide
from evidence.images import cifar_lists
from evidence.methods import METHODS
from evidence.runner import Job, rows_of, run, write_recipe
from evidence.settings import Places, Setting
from evidence.tables import BASE, pool_of, runs_of
from methods import all_jobs, main

from ppcls.config import load_config


def test_pages_are_those_of_the_lines():
    for path, text in pages.render().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run benchmarks/methods.py table"


@pytest.mark.parametrize(
    "setting", [s for s in SETTINGS.values() if s.variants], ids=lambda setting: setting.key
)
def test_an_ablation_shares_the_deviation_of_the_comparison_it_belongs_to(setting):
    found = statistics.gains(runs_of(setting), BASE, pool_of(setting))
    text = pages._section(setting)
    assert found
    assert all(f" | {gain} | " in text for gain in found.values())


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda setting: setting.key)
def test_every_line_is_a_run_of_its_own(setting):
    rows = rows_of(setting.results)
    for one, other in itertools.combinations(rows, 2):
        names = ("method", "seed", "processor")
        assert [one.get(name) for name in names] != [other.get(name) for name in names]
    assert all(0 < row["top1"] < 1 for row in rows)


@pytest.mark.parametrize("name", ["baseline", "KD", "DKD", "OverHaul", "AFD", "WKD", "DML", "UDML"])
def test_recipes_are_valid(name, tmp_path):
    config = load_config(write_recipe(Job(FASHION, name, 0), Places(tmp_path), tmp_path))
    stored = config.TeacherStore is not None
    assert stored == (name != "baseline" and not METHODS[name].peer)
    if name == "DKD":
        (loss,) = config.Loss.Train[1].values()
        assert loss["beta"] == 2
        assert loss["weight"]["epochs"] == 3  # 20 of 240 epochs, here of 33


@pytest.mark.parametrize("name", ["DKD", "RLD", "WKD", "WKD-L"])
def test_schedules_of_methods_fit_into_a_single_epoch(name, tmp_path):
    load_config(write_recipe(Job(replace(FASHION, epochs=1), name, 0), Places(tmp_path), tmp_path))


def test_runs_that_are_there_are_not_repeated(tmp_path, capsys):
    job = Job(FASHION, "KD", 0)
    run([job], Places(tmp_path), 1)
    assert capsys.readouterr().out == "1 of 1 runs are in the results\n"


def test_no_run_starts_after_the_hours(tmp_path, capsys):
    run([Job(FASHION, "KD", seed) for seed in (97, 98)], Places(tmp_path), 1, hours=0.0)
    message = "The 0 hours are over. Runs still missing: 2. To train them, repeat the command."
    assert capsys.readouterr().out == f"0 of 2 runs are in the results\n{message}\n"


def test_runs_that_begin_within_the_hours_are_kept(tmp_path, monkeypatch, capsys):
    setting = replace(FASHION, key="short")
    monkeypatch.setattr(Setting, "results", property(lambda self: tmp_path / f"{self.key}.jsonl"))
    clock = iter([0.0, 1.0, 3599.0, 3601.0])
    monkeypatch.setattr(runner, "time", SimpleNamespace(time=lambda: next(clock)))
    monkeypatch.setattr(runner, "fill", lambda job, places: None)
    monkeypatch.setattr(runner, "train", lambda job, places: {"method": job.name, "seed": job.seed})

    def two_at_once(function, jobs):
        first, second, late = map(function, jobs[:3])
        yield from (first, late, second)
        raise AssertionError("nothing else had begun, so nothing is to be waited for")

    pool = contextlib.nullcontext(SimpleNamespace(imap_unordered=two_at_once))
    here = SimpleNamespace(Pool=lambda *_, **__: pool)
    monkeypatch.setattr(runner.multiprocessing, "get_context", lambda _: here)
    run([Job(setting, "KD", seed) for seed in range(5)], Places(tmp_path), 1, hours=1.0)
    assert [row["seed"] for row in rows_of(setting.results)] == [0, 1]
    assert "\nThe 1 hours are over. Runs still missing: 3." in capsys.readouterr().out


@pytest.mark.parametrize("hours", ["nan", "-1", "0", "four"])
def test_hours_that_cannot_be_are_refused(hours, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["methods.py", "run", "--hours", hours])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert f"--hours: expected a number of hours above 0, not {hours}" in capsys.readouterr().err


def test_lists_are_written_once_for_a_folder(tmp_path):
    folder, other = tmp_path / "images", tmp_path / "other"
    for number, place in itertools.product(range(10), (folder, other)):
        for part, name in (("train", place.name), ("test", "image")):
            (place / part / str(number)).mkdir(parents=True)
            (place / part / str(number) / f"{name}.png").touch()
    lists = cifar_lists(folder, tmp_path / "lists", 1)
    assert lists["train"].read_text().split("\n")[3] == "train/3/images.png 3"
    lists["test"].write_text("kept")
    assert cifar_lists(folder, tmp_path / "lists", 1) == lists
    assert lists["test"].read_text() == "kept"
    cifar_lists(other, tmp_path / "lists", 1)
    assert lists["train"].read_text().split("\n")[3] == "train/3/other.png 3"
    assert lists["test"].read_text() != "kept"


def test_methods_that_a_comparison_does_not_have_are_refused():
    asked = argparse.Namespace(settings=["cifar10_shufflenet"], methods=["KD", "AT"], seeds=[0])
    with pytest.raises(
        SystemExit, match="cifar10_shufflenet does not compare AT, but baseline, KD, KD standardised"
    ):
        all_jobs(asked)
    asked.methods = ["KD"]
    assert [(job.setting, job.name) for job in all_jobs(asked)] == [(OTHER_KIND, "KD")]
    everything = all_jobs(argparse.Namespace(settings=["all"], methods=None, seeds=None))
    assert {job.setting.key for job in everything} == set(SETTINGS)
    runs = [job.name for job in everything if job.setting == OTHER_KIND]
    assert [runs.count(name) for name in ("baseline", "KD", "DIST", "NKD")] == [5, 5, 5, 3]


def test_files_that_a_setting_needs_are_asked_for_before_the_first_run(tmp_path):
    variant = TEACHER.variants[-1]
    job = Job(TEACHER, variant.method, 99, variant)
    places = Places(tmp_path, teacher=tmp_path)
    with pytest.raises(SystemExit, match="cifar10_teachers needs --small-teacher"):
        run([job], places, 1)
    with pytest.raises(SystemExit, match="--small-teacher .*: no such file"):
        run([job], replace(places, small_teacher=tmp_path / "no.pth"), 1)


def test_the_mean_of_two_teachers_is_called_teacher(tmp_path):
    variant = TEACHER.variants[-1]
    weights = tmp_path / "weights.pth"
    weights.touch()
    places = Places(tmp_path, tmp_path, weights, weights)
    for number in range(10):
        (tmp_path / "train" / str(number)).mkdir(parents=True)
    config = load_config(write_recipe(Job(TEACHER, "KD", 0, variant), places, tmp_path), ["Global.seed=0"])
    assert config.Arch.ensembles == {"Teacher": {"networks": ["First", "Second"]}}
    assert [next(iter(network)) for network in config.Arch.models] == ["First", "Second", "Student"]


def test_the_guide_names_settings_as_they_are_trained():
    rows = [line.split(" | ") for line in guide("").splitlines()[2:]]
    assert {row[0].split("]")[0].strip("| [") for row in rows} == {*METHODS} - {"baseline"}
    found = {row[0].split("]")[0].strip("| ["): row[2] for row in rows}
    assert found["KD"] == "`weight` 0.9, `temperature` 4"
    assert found["ReviewKD"] == "`weight` 5"  # changed by the pair's recipe
    assert found["WKD-L"] == "`weight` 1, `temperature` 8, `gamma` 600"  # a schedule


def test_gains_have_the_interval_of_the_pooled_deviation():
    runs = {"baseline": [80.0, 82.0], "a": [83.0, 85.0], "b": [81.0]}
    found = statistics.gains(runs, "baseline")
    assert {name: gain.mean for name, gain in found.items()} == {"a": 3.0, "b": 0.0}
    # t of two degrees of freedom is 4.303; the expansion is for more, and 3 % too small here
    assert found["a"].half == pytest.approx(4.303 * 2**0.5, rel=0.04)
    assert found["b"].half == pytest.approx(found["a"].half * 1.5**0.5)
    assert str(statistics.gains({"baseline": [80.0], "a": [81.5]}, "baseline")["a"]) == "+1.50"


def test_a_method_of_which_a_run_fails_does_not_widen_the_intervals_of_others():
    steady = {str(number): [80.0 + number, 81.0 + number, 82.0 + number] for number in range(6)}
    alone = statistics.gains(steady, "0")
    found = statistics.gains({**steady, "fails": [80.0, 82.0, 52.0]}, "0")
    assert {name: gain for name, gain in found.items() if name != "fails"} == alone
    own = statistics.deviation([80.0, 82.0, 52.0])
    assert found["fails"].half == pytest.approx(4.303 * ((own**2 + 1) / 3) ** 0.5, rel=0.04)
    assert statistics.unsteady(steady) == set()


@pytest.mark.parametrize(("others", "expected"), [(5, set()), (30, {"fails"})])
def test_what_is_too_much_for_luck_depends_on_the_runs_of_the_others(others, expected):
    steady = {str(number): [80.0, 81.0, 82.0] for number in range(others)}
    assert statistics.unsteady({**steady, "fails": [76.0, 80.0, 84.0]}) == expected  # 16 times the variance


def test_correlations_are_a_triangle_with_a_row_for_each_comparison():
    rows = [line.split(" | ") for line in pages._order().splitlines() if line.startswith("| ")][2:]
    filled = [sum(any(map(str.isdigit, cell)) for cell in row[1:]) for row in rows]
    assert filled == list(range(1, len(TOGETHER) + 1))


@pytest.mark.parametrize(("freedom", "expected"), [(10, 7.559), (30, 5.390), (120, 4.787)])
def test_ratios_of_variances_are_the_tabled_ones_of_f(freedom, expected):
    assert statistics.largest_ratio(freedom, luck=0.01) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("freedom", "expected"), [(4, 2.776), (10, 2.228), (30, 2.042), (1000, 1.962)])
def test_quantiles_of_t(freedom, expected):
    assert statistics.t_quantile(freedom) == pytest.approx(expected, rel=0.01)


def test_rank_correlation():
    rho, p = statistics.spearman([1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7], draws=2000)
    assert rho == pytest.approx(1)
    assert p < 0.01
    rho, p = statistics.spearman([1, 2, 2, 3], [2, 1, 4, 3], draws=2000)
    assert rho == pytest.approx(0.3162, abs=1e-4)
    assert p > 0.3


def test_layers_of_a_recipe_are_plain_yaml(tmp_path):
    path = write_recipe(Job(FASHION, "KD", 0), Places(tmp_path), tmp_path)
    assert all(Path(base).is_file() for base in yaml.safe_load(path.read_text())["_base_"])


@pytest.mark.parametrize(
    ("option", "there", "message"),
    [
        ("teacher", "folder", "no such file"),
        ("small_teacher", "nothing", "no such file"),
        ("cifar", "file", "no such folder"),
        ("fashion", "nothing", "no such folder"),
    ],
)
def test_what_a_setting_needs_is_checked_before_the_first_run(tmp_path, option, there, message):
    path = tmp_path / "given"
    if there == "folder":
        path.mkdir()
    elif there == "file":
        path.touch()
    with pytest.raises(SystemExit, match=f"--{option.replace('_', '-')} .*: {message}"):
        Places(tmp_path, **{option: path}).given(option, "cifar10")

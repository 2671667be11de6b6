"""Comparisons of runs: recipes are told apart, seeds of one recipe are averaged."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics

import pytest
import yaml
from run_folders import KD, write_run

from ppcls.cli import main
from ppcls.errors import ConfigError
from ppcls.report import write_comparison, write_report
from ppcls.report.comparison import compare, groups_of, short_names
from ppcls.report.comparison_text import render
from ppcls.run_states import encode_states, read_states


def sharper(weight: float) -> list:
    return [{"DistillationKLDivLoss": {**KD[0]["DistillationKLDivLoss"], "weight": weight}}]


@pytest.fixture
def runs(tmp_path):
    for seed, (low, high) in enumerate([(0.5, 0.8), (0.52, 0.76), (0.6, 0.9)], 1):
        write_run(tmp_path / f"low{seed}" / "DistillationModel", seed=seed, top1=low)
        write_run(tmp_path / f"high{seed}" / "DistillationModel", seed=seed, top1=high, losses=sharper(2.0))
    return tmp_path


def test_runs_that_differ_only_in_their_seed_are_one_recipe(runs):
    groups = groups_of(compare([runs]))
    assert [len(group.rows) for group in groups] == [3, 3]
    best = groups[0]
    assert {row.name for row in best.rows} == {"high1", "high2", "high3"}
    assert best.mean == pytest.approx(statistics.fmean([0.8, 0.76, 0.9]))
    assert best.deviation == pytest.approx(statistics.stdev([0.8, 0.76, 0.9]))
    assert best.rows[0].differences == {"DistillationKLDivLoss.weight": "2.0"}


def chosen_by(folder, by, **metrics):
    """Change the states of a run to those of one that was chosen by another value than top1."""
    progress, files = read_states(folder / "latest.pdstates")
    own = {name: value for name, value in metrics.items() if not name.endswith("_ema")}
    progress.best, progress.best_score, progress.best_by = own, own[by], f"{by} of Student"
    if f"{by}_ema" in metrics:
        progress.best_ema, progress.best_ema_score, progress.best_ema_epoch = metrics, metrics[f"{by}_ema"], 1
    (folder / "latest.pdstates").write_bytes(encode_states(progress, files))


def test_the_score_is_that_of_the_weights_that_were_kept(tmp_path):
    for name in ("mine", "other"):
        write_run(tmp_path / name, seed=1, top1=0.5, losses=sharper(len(name)))
    # chosen by top2, at which the weights were better than their averages, unlike at top1
    chosen_by(tmp_path / "mine", "top2", top1=0.3, top2=0.9, top1_ema=0.6, top2_ema=0.8)
    first, second = compare([tmp_path])
    # the order is that of the scores that are shown
    assert [(row.name, row.score) for row in (first, second)] == [("other", 0.5), ("mine", 0.3)]
    chosen_by(tmp_path / "other", "loss", loss=0.7)
    assert "score (loss, top1)" in render(compare([tmp_path]))
    assert "0.7000 loss" in render(compare([tmp_path]))
    chosen_by(tmp_path / "mine", "loss", loss=0.8)
    assert [row.score for row in compare([tmp_path])] == [0.7, 0.8]


def test_a_run_without_an_evaluation_changes_no_order(tmp_path):
    for seed in (1, 2):
        write_run(
            tmp_path / f"high{seed}", seed=seed, top1=0.9, losses=sharper(2.0), done=0 if seed == 1 else 4
        )
        write_run(tmp_path / f"low{seed}", seed=seed, top1=0.5)
    rows = compare([tmp_path])
    assert {row.name for row in rows if row.group == 0} == {"high1", "high2"}
    assert " score " in render(rows).splitlines()[0]
    assert "top1" not in render(rows)


def test_losses_are_named_where_they_differ(tmp_path):
    write_run(tmp_path / "kd", seed=1)
    write_run(tmp_path / "dkd", seed=1, losses=[{"DistillationDKDLoss": {"weight": 1.0}}])
    mgd = {"base_loss_name": "MGDLoss", "weight": 1.0}
    write_run(tmp_path / "mgd", seed=1, losses=[{"DistillationPairLoss": mgd}])
    table = render(compare([tmp_path]))
    assert "losses" in table.splitlines()[0]
    assert all(name in table for name in ("KLDiv", "DKD", "MGD"))
    assert "losses" not in render(compare([tmp_path / "kd"])).splitlines()[0]


def test_a_copy_of_a_run_is_no_further_seed(tmp_path):
    for name in ("one", "copy"):
        write_run(tmp_path / name, seed=1, top1=0.5)
    (group,) = groups_of(compare([tmp_path]))
    assert (len(group.rows), group.mean, group.deviation) == (2, 0.5, None)
    assert "standard deviation" not in render(group.rows)
    write_run(tmp_path / "two", seed=2, top1=0.7)
    (group,) = groups_of(compare([tmp_path]))
    assert group.mean == pytest.approx(0.6)
    assert group.deviation == pytest.approx(statistics.stdev([0.5, 0.7]))


def test_runs_on_other_images_are_no_seeds_of_one_recipe(tmp_path):
    for seed, (name, digest) in enumerate([("one", "abc"), ("same", "abc"), ("other", "xyz")], 1):
        write_run(tmp_path / name, seed=seed, digest=digest)
    assert [len(group.rows) for group in groups_of(compare([tmp_path]))] in ([2, 1], [1, 2])
    assert "evaluated on different images" in render(compare([tmp_path]))
    assert "evaluated on different images" not in render(compare([tmp_path / "one", tmp_path / "same"]))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_a_run_that_does_not_tell_its_images_yet_joins_another(tmp_path, order):
    digests = ["abc", "abc", "xyz", ""]
    for seed, digest in enumerate(digests, 1):
        write_run(tmp_path / f"run{seed}", seed=seed, digest=digest)
    rows = compare([tmp_path / f"run{number + 1}" for number in order])
    groups = {row.name: row.group for row in rows}
    assert groups["run1"] == groups["run2"] != groups["run3"]
    assert groups["run4"] in (groups["run1"], groups["run3"])


@pytest.mark.parametrize(("name", "value"), [("top2", 0.9), ("loss", math.nan)])
def test_a_run_before_its_first_checkpoint_is_shown_with_what_there_is(tmp_path, name, value):
    folder = write_run(tmp_path / "run")
    (folder / "latest.pdstates").unlink()
    row = {"kind": "eval", "epoch": 1, "step": 10, name: value}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert name in write_report(folder).read_text("utf-8")
    (found,) = compare([folder])
    assert found.as_dict()["score_name"] == name
    assert found.as_dict()["score"] == (None if math.isnan(value) else value)


def test_plugins_do_not_make_another_recipe(tmp_path):
    for seed, name in enumerate(("one", "two"), 1):
        folder = write_run(tmp_path / name, seed=seed)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["Global"]["plugins"] = [str(tmp_path / name / "my_plugin.py")]
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (group,) = groups_of(compare([tmp_path]))
    assert group.deviation is not None


def test_runs_that_were_evaluated_on_other_images_are_not_ranked_silently(tmp_path):
    for name, line in (("one", "a.png 0"), ("same", "a.png 0"), ("other", "b.png 0")):
        folder = write_run(tmp_path / name, digest="")  # as earlier versions wrote it
        (tmp_path / f"{name}.txt").write_text(line)
        text = (folder / "config.yaml").read_text().replace("eval_list.txt", str(tmp_path / f"{name}.txt"))
        (folder / "config.yaml").write_text(text)
    runs = {name: tmp_path / name for name in ("one", "same", "other")}
    for second, differ in (("same", False), ("other", True)):
        folders = [runs["one"], runs[second]]
        assert ("evaluated on different images" in render(compare(folders))) == differ
        page = write_comparison(folders, tmp_path / "compare.html").read_text("utf-8")
        assert ("evaluated on different images" in page) == differ


@pytest.mark.parametrize("name", ["runs.pdf", "runs", "runs.csv"])
def test_a_page_has_the_name_of_a_page(tmp_path, name, capsys):
    write_run(tmp_path / "one")
    assert main(["compare", str(tmp_path), "--out", str(tmp_path / name)]) == 2
    assert "expected a name that ends in .html" in capsys.readouterr().err
    assert not (tmp_path / name).exists()


def test_every_format_has_every_run(runs):
    rows = compare([runs])
    listed = json.loads(render(rows, "json"))
    assert {row["name"] for row in listed} == {f"{kind}{n}" for kind in ("low", "high") for n in (1, 2, 3)}
    assert listed[0]["agreement"] == 0.7
    table = list(csv.DictReader(io.StringIO(render(rows, "csv"))))
    assert [row["name"] for row in table] == [row["name"] for row in listed]
    assert "± " in render(rows, "table")
    assert render(rows, "markdown").count("\n| high") == 3


def test_the_page_has_a_curve_for_each_run(runs):
    path = write_comparison([runs], runs / "compare.html")
    page = path.read_text("utf-8")
    assert page.count("<polyline") >= 12
    assert "± " in page or "±" in page


def test_an_unfinished_run_without_evaluation_is_shown(tmp_path):
    write_run(tmp_path / "one", done=0)
    write_run(tmp_path / "two")
    rows = compare([tmp_path])
    assert groups_of(rows)[0].scores == [0.8]
    assert [row.score for row in rows] == [None, 0.8]
    assert "0 of 4" in render(rows)
    write_comparison([tmp_path], tmp_path / "c.html")


@pytest.mark.parametrize("wrong", ["nowhere", "empty"])
def test_a_folder_without_runs_is_refused(tmp_path, wrong):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=wrong):
        compare([tmp_path / wrong])


def test_settings_have_the_shortest_names_that_tell_them_apart():
    keys = [
        "DataLoader.Train.sampler.batch_size",
        "DataLoader.Eval.sampler.batch_size",
        "Global.shape.1",
        "A",
    ]
    assert list(short_names(keys).values()) == [
        *("Train.sampler.batch_size", "Eval.sampler.batch_size", "shape.1", "A")
    ]
    keys = ["Loss.Train.0.DistillationGTCELoss.weight", "Arch.models.0.Teacher.name", "Arch.name"]
    owned = ["DistillationGTCELoss.weight", "Teacher.name", "name"]
    assert list(short_names(keys, with_owner=True).values()) == owned
    assert list(short_names(keys[:1]).values()) == ["weight"]  # the folders of sweeps

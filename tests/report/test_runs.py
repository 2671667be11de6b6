"""The reader of run folders, on a run of version 0.1.0 and on folders that are no runs."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ppcls.errors import ConfigError, WeightsError
from ppcls.report.runs import find_runs, is_run, read_run
from ppcls.run_states import Progress

KEPT = Path(__file__).parents[1] / "engine" / "data" / "run_0.1.0" / "output" / "DistillationModel"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of a run of version 0.1.0."""
    return Path(shutil.copytree(KEPT, tmp_path / "output" / "DistillationModel"))


def test_a_run_of_an_earlier_version_is_read_whole(old):
    run = read_run(old)
    assert run.name == "DistillationModel"
    assert run.problems == ()
    assert run.arch.main_name == "Student"
    assert run.epochs == 3
    assert not run.finished
    assert [row["kind"] for row in run.rows] == ["teacher"] + ["train"] * 3 + ["eval"] + ["train"] * 2
    assert run.rows_of("eval")[0]["top1"] == run.best_metrics["top1"]
    assert run.best_epoch == 1
    assert run.environment["ppcls"] == "0.1.0"


def test_rows_give_numbers_that_json_does_not_have(old):
    row = {"kind": "eval", "epoch": 1, "step": 3, "loss": "nan", "top1": "-inf", "note": "inf."}
    (old / "metrics.jsonl").write_text(json.dumps(row) + '\n{"kind": 3}\nnonsense\n{"kind": "tr')
    run = read_run(old)
    assert math.isnan(run.rows[0]["loss"])
    assert run.rows[0]["top1"] == -math.inf
    assert run.rows[0]["note"] == "inf."
    assert len(run.rows) == 1
    assert "2 damaged lines" in run.problems[0]


def test_damaged_parts_are_named_and_the_rest_is_read(old):
    (old / "environment.json").write_bytes(b"\xff{")
    (old / "latest.pdstates").write_text("[]")
    run = read_run(old)
    assert [part in text for part, text in zip(("environment", "latest"), run.problems, strict=True)]
    assert run.progress is None
    assert run.best_epoch == 1  # from best_model


def test_a_run_that_just_began_has_no_weights(old):
    for path in old.glob("*.pd*"):
        path.unlink()
    run = read_run(old)
    with pytest.raises(WeightsError, match=r"no best_model: .*0 of 3 epochs are done.*no weights in it"):
        run.weights()
    assert run.epochs_done == 0


def test_the_best_weights_are_the_averaged_ones_where_they_are_better(old):
    for name in ("best_model_ema", "best_model_ema.Other", "best_model.Other"):
        (old / f"{name}.pdparams").write_bytes(b"")
    run = read_run(old)
    assert run.weights().name == "best_model"
    assert run.weights(network="Other").name == "best_model.Other"
    assert run.weights("latest.pdparams").name == "latest"
    better = replace(run, progress=Progress(best_score=0.5, best_ema_score=0.6))
    assert better.weights().name == "best_model_ema"
    assert better.weights(network="Other").name == "best_model_ema.Other"
    assert replace(run, progress=Progress(best_score=0.6, best_ema_score=0.6)).weights().name == "best_model"
    with pytest.raises(WeightsError, match="Did you mean: latest"):
        run.weights("lastest")


def test_names_are_those_of_the_file_of_the_run(old):
    (old / "class_names.txt").write_text("0 cat\n1 dog\n", encoding="utf-8")
    assert read_run(old).class_names == ["cat", "dog"]
    (old / "class_names.txt").write_text("0 cat\n7 dog\n", encoding="utf-8")
    assert read_run(old).class_names is None


def test_runs_are_found_below_a_folder(old):
    output = old.parent
    shutil.copytree(old, output / "seeds" / "1")
    (output / "seeds" / "notes").mkdir()
    assert find_runs(output) == [old, output / "seeds" / "1"]
    assert find_runs(old) == [old]
    assert find_runs(output / "nowhere") == []
    assert not is_run(output)


def test_folders_may_be_texts(old, monkeypatch):
    assert is_run(str(old))
    assert read_run(find_runs(str(old.parent))[0]).folder == old
    monkeypatch.setenv("HOME", str(old.parent))
    assert find_runs("~") == [old]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("output", "is not the folder of a run, but it holds some: .*DistillationModel"),
        ("output/DistilationModel", "there is no such folder. Did you mean: DistillationModel?"),
        ("output/DistillationModel/config.yaml", "got a file; eval, infer and export take a recipe with -c"),
        ("empty", "it has no config.yaml"),
        ("exported", "an exported network; use ppcls predict --model-dir"),
        (
            "weights",
            "it has weights, but no config.yaml. .* -o Global.pretrained_model=.*best_model.pdparams",
        ),
    ],
)
def test_what_is_no_run_is_named(old, tmp_path, path, words):
    for name, file in (("empty", "notes"), ("exported", "inference.yml"), ("weights", "best_model.pdparams")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_bytes(b"")
    with pytest.raises(ConfigError, match=words):
        read_run(tmp_path / path)


@pytest.mark.parametrize("text", ["Global: {}\n", "- 1\n", "Arch: ["])
def test_a_damaged_recipe_of_a_run_is_an_error_that_names_it(old, text):
    (old / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        read_run(old)

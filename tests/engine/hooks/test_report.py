"""What a run leaves at its end: the answers of its best evaluation, its page and its summary."""

from __future__ import annotations

import json

import numpy as np
import pytest
from engine_hooks import StopAt

from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.engine.hooks import report as report_hook
from ppcls.report.answers import FILES, read_answers
from ppcls.weights import read_params


@pytest.fixture(scope="module")
def engine(finished, tmp_path_factory):
    """Return a function that builds a run with a teacher in a new folder, or in a given one."""

    def build(*overrides, output=None):
        output = output or tmp_path_factory.mktemp("output")
        settings = ["Global.report=true", "Global.epochs=2", f"Global.output_dir={output}", *overrides]
        built = Engine(load_config(finished / "both.yaml", settings), "train")
        return built, output / "DistillationModel"

    return build


@pytest.fixture(scope="module")
def done(engine):
    """Return the result and the folder of a run."""
    run, folder = engine()
    return run.train(), folder


def test_the_answers_are_those_of_the_best_evaluation(done):
    best, folder = done
    answers = read_answers(folder / FILES[False])
    assert answers.epoch == best["epoch"]
    assert answers.index.tolist() == list(range(7))
    assert answers.accuracy("Student") == pytest.approx(best["top1"])
    assert answers.agreement("Student", "Teacher") == pytest.approx(best["agreement_Teacher"])
    facts = json.loads((folder / "report.json").read_text())
    wrong = round(7 * (1 - best["top1"]))
    assert len(facts["images"]) == wrong
    assert all(entry["picture"].startswith("data:image/png;base64,") for entry in facts["images"])
    teacher, student = facts["networks"]
    assert teacher["parameters"] > student["parameters"] > 0
    assert student["multiply_adds"] > 0
    assert student["latency"] > 0
    assert (folder / "report.html").read_text("utf-8").count("<img src=") == wrong


def test_the_end_says_how_well_how_long_and_what_next(done):
    _, folder = done
    log = (folder / "train.log").read_text()
    for part in (
        "2 of 2 epochs in ",
        ", by top1",
        "Student (resnet8)   top1 ",
        "report.html (",
        "ppcls export ",
    ):
        assert part in log
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["kind"] for row in rows][-2:] == ["epoch", "eval"]


def test_a_run_without_report_has_the_same_weights_and_no_files(engine, done):
    run, folder = engine("Global.report=false")
    run.train()
    one, other = (read_params(place / "latest.pdparams") for place in (done[1], folder))
    assert all(np.array_equal(one[name], other[name]) for name in one)
    names = {file.name for file in folder.iterdir()}
    assert not names & {"report.html", "report.json", *FILES.values()}


def test_a_resumed_run_has_the_same_answers(engine, done):
    run, folder = engine()
    with pytest.raises(SystemExit):
        run.train(hooks=[StopAt(2)])
    engine("Global.checkpoints=auto", output=folder.parent)[0].train()
    one, other = ((place / FILES[False]).read_bytes() for place in (done[1], folder))
    assert one == other


def test_averaged_weights_have_answers_of_their_own_and_a_failing_report_fails_no_run(
    engine, monkeypatch, caplog
):
    def fail(*_):
        raise RuntimeError("no luck today")

    monkeypatch.setattr(report_hook, "write_facts", fail)
    monkeypatch.setattr(report_hook, "render_summary", fail)
    run, folder = engine("EMA.decay=0.9", "Global.epochs=1")
    assert run.train()["epoch"] == 1
    assert read_answers(folder / FILES[False]).accuracy("Student") is not None
    assert read_answers(folder / FILES[True]).accuracy("Student") is not None
    log = (folder / "train.log").read_text()
    assert log.count("no luck today; the run itself is complete") == 2

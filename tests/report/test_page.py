"""The page of a run: what it says, and that it is one safe file."""

from __future__ import annotations

import json
import re

import pytest
from run_folders import PAIR, write_run, write_some_answers

from ppcls.errors import ConfigError
from ppcls.report import write_report


def text_of(page: str) -> str:
    """The English text of a page."""
    page = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)
    page = re.sub(r'<span lang="zh">.*?</span>', "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_a_page_says_what_was_trained_on_what_and_how_well(tmp_path):
    run = write_run(tmp_path / "kd" / "DistillationModel")
    write_some_answers(run)
    path = write_report(run)
    assert path == run / "report.html"
    page = path.read_text("utf-8")
    text = text_of(page)
    for part in ("resnet8, taught by resnet14", "80.00 %", "70.00 %", "DistillationKLDivLoss(weight=1.0)"):
        assert part in text
    assert "ppcls train -c &#x27;a b.yaml&#x27;" in page
    assert page.count("<svg") >= 3
    assert 'id="confusion"' in page
    assert 'id="mistakes"' in page


def test_a_page_loads_nothing(tmp_path):
    page = write_report(write_run(tmp_path / "run")).read_text("utf-8")
    assert not re.search(r"""(src|href|url|import)\s*[=(]\s*["']?(https?:|//|/|\.)""", page)
    assert "http" not in page


@pytest.mark.parametrize(
    "evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</script><b>"]
)
def test_names_cannot_become_markup(tmp_path, evil):
    names = [evil, "b", "c", "d"]
    arch = json.loads(json.dumps(PAIR).replace('"teacher"', json.dumps(evil)))
    run = write_run(tmp_path / "run", arch=arch, names=names, environment={"device": evil})
    write_some_answers(run)
    assert evil not in write_report(run).read_text("utf-8")


def test_the_student_alone_is_found_beside_the_run(tmp_path):
    alone = {"name": "resnet8", "class_num": 4}
    write_run(tmp_path / "student" / "resnet8", arch=alone, top1=0.7)
    write_run(tmp_path / "larger" / "resnet14", arch={"name": "resnet14", "class_num": 4}, top1=0.1)
    write_run(tmp_path / "other_images" / "resnet8", arch=alone, top1=0.2, digest="other")
    run = write_run(tmp_path / "kd" / "DistillationModel")
    assert "+10.00" in text_of(write_report(run).read_text("utf-8"))


def test_a_student_alone_of_other_images_is_not_compared(tmp_path, caplog):
    alone = write_run(tmp_path / "alone", arch={"name": "resnet8", "class_num": 4}, top1=0.7, digest="other")
    run = write_run(tmp_path / "kd" / "DistillationModel")
    page = text_of(write_report(run, alone).read_text("utf-8"))
    assert "+10.00" not in page
    assert "evaluated on other images" in caplog.text


@pytest.mark.parametrize("done", [0, 2])
def test_an_unfinished_run_has_a_page(tmp_path, done):
    assert "not finished" in text_of(write_report(write_run(tmp_path / "run", done=done)).read_text("utf-8"))


def test_damaged_files_are_named_on_the_page(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "best_answers.npz").write_bytes(b"PK\x03\x04 not a zip")
    (run / "report.json").write_text("[")
    text = text_of(write_report(run).read_text("utf-8"))
    assert "best_answers.npz is damaged" in text
    assert "report.json is damaged" in text


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is not the folder of a run"):
        write_report(tmp_path)


def test_answers_of_another_epoch_are_called_out(tmp_path):
    run = write_run(tmp_path / "run", epochs=3)
    write_some_answers(run)  # of epoch 4
    text = text_of(write_report(run).read_text("utf-8"))
    assert "is of epoch 4, the best evaluation of epoch 3" in text


def test_many_classes_are_condensed_and_the_page_stays_small(tmp_path):
    names = [f"class {number} with a long name" for number in range(1000)]
    arch = json.loads(json.dumps(PAIR).replace('"class_num": 4', '"class_num": 1000'))
    run = write_run(tmp_path / "run", arch=arch, names=names)
    write_some_answers(run, classes=1000, images=5000)
    path = write_report(run)
    text = text_of(path.read_text("utf-8"))
    assert "Of 1000 classes, the 16 with the most mistakes" in text
    assert all(f"class {number} with" in text for number in (0, 500, 999))
    assert path.stat().st_size < 1_500_000

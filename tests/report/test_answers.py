"""The file of answers: what is written is read, and nothing damaged is believed."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from run_folders import write_some_answers

from ppcls.errors import DataError
from ppcls.report.answers import FILES, read_answers


@pytest.mark.parametrize("classes", [2, 70000])
def test_what_is_written_is_read(tmp_path, classes):
    written = write_some_answers(tmp_path, classes=classes, images=11)
    found = read_answers(tmp_path / FILES[False])
    assert (found.epoch, found.classes) == (4, classes)
    assert np.array_equal(found.label, written.label)
    for name, answer in written.networks.items():
        assert np.array_equal(found.networks[name].predicted, answer.predicted)
        assert np.allclose(found.networks[name].score, answer.score)
    assert found.accuracy("Student") == (written.networks["Student"].predicted == written.label).mean()
    assert found.accuracy("Nobody") is None


def test_the_most_confident_mistakes_come_first(tmp_path):
    answers = write_some_answers(tmp_path)
    rows = answers.most_wrong("Student", 5)
    student = answers.networks["Student"]
    assert all(student.predicted[row] != answers.label[row] for row in rows)
    scores = [student.score[row] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert max(student.score[student.predicted != answers.label]) == scores[0]


def test_no_file_is_no_answers(tmp_path):
    assert read_answers(tmp_path / "nothing.npz") is None


@pytest.mark.parametrize("place", range(0, 100, 4))
def test_a_damaged_file_is_refused_or_harmless(tmp_path, place):
    write_some_answers(tmp_path, images=200)
    path = tmp_path / FILES[False]
    content = bytearray(path.read_bytes())
    content[len(content) * place // 100] ^= 0xFF
    path.write_bytes(content)
    with contextlib.suppress(DataError):  # nothing else is raised
        found = read_answers(path)
        assert all(a.predicted.min() >= 0 for a in found.networks.values())
        assert all(a.predicted.max() < found.classes for a in found.networks.values())


@pytest.mark.parametrize("kept", [0, 1, 100, 2000])
def test_a_file_that_was_cut_off_is_refused(tmp_path, kept):
    write_some_answers(tmp_path, images=500)
    path = tmp_path / FILES[False]
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match="damaged"):
        read_answers(path)

"""What the files of a run say about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppcls.report.record import read_log

START = "resnet8: 77,652 parameters, 77,652 of them train; device cpu; seed 3"


def lines_of(*parts: tuple[str, str]) -> str:
    return "".join(f"[2026/01/{moment}] ppcls INFO: {text}\n" for moment, text in parts)


TRAINING = [
    ("02 10:00:00", START),
    ("02 10:00:10", "[Train][Epoch 1/2][Iter: 0/10]loss: 1.0"),
    ("02 10:10:00", "[Eval][Epoch 1][Avg]top1: 0.5"),
]
RESUMED = [
    ("05 08:00:00", START),
    ("05 08:00:20", "[Train][Epoch 2/2][Iter: 0/10]loss: 1.0"),
    ("05 08:10:00", "[Eval][Epoch 2][Avg]top1: 0.6"),
]


@pytest.mark.parametrize(
    ("before", "between", "after"),
    [
        ([], [], []),
        ([("01 10:00:00", "[Eval][Epoch 0][Avg]top1: 0.1")], [], []),
        (
            [],
            [
                ("03 09:00:00", "an evaluation of its own begins"),
                ("03 09:30:00", "[Eval][Epoch 0][Avg]top1: 0.5"),
                ("04 09:30:00", "[Eval][Epoch 0][Avg]top1: 0.5"),
            ],
            [],
        ),
        ([], [], [("06 08:00:00", "[Eval][Epoch 0][Avg]top1: 0.6")]),
    ],
    ids=["alone", "evaluated before", "between", "after"],
)
def test_only_the_training_itself_counts(tmp_path: Path, before: list, between: list, after: list) -> None:
    path = tmp_path / "train.log"
    path.write_text(lines_of(*before, *TRAINING, *between, *RESUMED, *after))
    log = read_log(path)
    assert log.seconds == 600 + 600
    assert log.began == "2026/01/02 10:00:00"

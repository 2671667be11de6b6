"""PyTorch's networks and ours answer alike with the same weights.

The answers were recorded with `torch_reference.py`, in this folder.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from torch_reference import CLASSES, images, weights_for

from ppcls import create_model
from ppcls.weights import convert, load_into

DATA = Path(__file__).parent / "data"
ROWS: list[dict[str, Any]] = json.loads(gzip.decompress((DATA / "torch_reference.json.gz").read_bytes()))


def row_of(theirs: str) -> dict[str, Any]:
    return next(row for row in ROWS if row["theirs"] == theirs)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['ours']}-{row['theirs'].replace(' ', '-')}")
def test_logits_are_those_of_pytorch(row: dict[str, Any]) -> None:
    net = create_model(row["ours"], class_num=CLASSES)
    found = convert(weights_for(row["shapes"]), net, row["ours"], "file")
    report = load_into(net, found, "file", allow_missing_head=False)
    assert not report.unexpected
    net.eval()
    with paddle.no_grad():
        logits = net(paddle.to_tensor(images(row["side"]))).numpy()
    wanted = np.array(row["logits"])
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())

"""Tests of teachers convert no program for ONNX Runtime unless they say so, because that takes seconds.

On a busy machine a program may seem to be slower than the network; that does not change what tests find.
"""

from __future__ import annotations

import math

import pytest

from ppcls.teacher import answer


@pytest.fixture(autouse=True)
def _steady_choices(monkeypatch):
    monkeypatch.setattr(answer, "can_convert", lambda: False)
    monkeypatch.setattr(answer, "_SLOWER", math.inf)

"""A few inputs for every reader by default, and thousands with ``-m slow``; no luck is involved in either."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import pytest

from fuzz import harness
from fuzz.harness import Figures, fuzz
from fuzz.targets import make_targets
from ppcls.errors import ConfigError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and memory as Unix counts them")

# Inputs by default, with -m slow.
AMOUNTS = {
    "pdparams": (600, 20_000),
    "safetensors": (400, 10_000),
    "torch-zip": (300, 10_000),
    "torch-old": (300, 10_000),
    "checkpoints": (150, 5_000),
    "recipes": (60, 3_000),
    "inference.yml": (20, 3_000),
}


def _clean(figures: Figures, inputs: int) -> None:
    assert not figures.failures, "\n".join(figures.failures[:3])
    assert (figures.tracebacks, figures.hangs) == (0, 0)
    assert figures.inputs == figures.accepted + figures.refused == inputs
    assert figures.refused > inputs / 10, "hardly any input was damaged"
    assert figures.growth < 400


@pytest.mark.parametrize("name", AMOUNTS)
def test_a_few_inputs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (target,) = make_targets(tmp_path, [name])
    _clean(fuzz(target, AMOUNTS[name][0], seed=0), AMOUNTS[name][0])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", AMOUNTS)
def test_many_inputs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (target,) = make_targets(tmp_path, [name])
    _clean(fuzz(target, AMOUNTS[name][1], seed=1), AMOUNTS[name][1])


class Faulty:
    """Fails in every way that is to be noticed."""

    name = "faulty"
    taken = 0

    def make(self, dice: random.Random) -> bytes:
        return dice.choice((b"error", b"refused", b"read", b"hang", b"memory"))

    def read(self, content: bytes) -> None:
        if content == b"error":
            raise KeyError("x")
        if content == b"refused":
            raise ConfigError("no")
        if content == b"hang":
            end = time.process_time() + 5
            while time.process_time() < end:
                pass
        if content == b"memory":
            self.taken += 300


def test_failures_are_noticed_and_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Faulty()
    monkeypatch.setattr(harness, "LIMIT", 0.2)
    monkeypatch.setattr(harness, "peak_memory", lambda: 1000 + target.taken)
    figures = fuzz(target, 20, seed=0, keep=tmp_path)
    kinds = [Faulty().make(random.Random(f"faulty 0 {number}")) for number in range(20)]
    assert figures.tracebacks == kinds.count(b"error") > 0
    assert figures.hangs == kinds.count(b"hang") > 0
    assert figures.refused == kinds.count(b"refused") > 0
    assert figures.accepted == kinds.count(b"read") + kinds.count(b"memory")
    assert figures.growth == 300 * kinds.count(b"memory") > 0
    assert sum("300 MB more" in failure for failure in figures.failures) == kinds.count(b"memory")
    assert any("KeyError" in failure for failure in figures.failures)
    assert len(list(tmp_path.glob("*.txt"))) == len(figures.failures)
    again = fuzz(Faulty(), 1, seed=0, first=kinds.index(b"error"))
    assert again.tracebacks == 1


@pytest.mark.parametrize("name", AMOUNTS)
def test_inputs_are_a_function_of_seed_and_number(name: str, tmp_path: Path) -> None:
    (target,) = make_targets(tmp_path, [name])
    first = [target.make(random.Random(f"x {number}")) for number in range(20)]
    assert [target.make(random.Random(f"x {number}")) for number in range(20)] == first
    assert len(set(first)) > 15

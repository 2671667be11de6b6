"""Find the run of the student alone, with which a distilled student is compared."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from ppcls.config import ArchSpec
from ppcls.config.arch import without_weights
from ppcls.errors import ConfigError
from ppcls.report.record import Record, read_record
from ppcls.report.runs import CONFIG

_MOST = 300  # folders to look at
_READ = 12  # runs to read


def find_baseline(record: Record) -> Record | None:
    """Return a finished run of the same student alone, evaluated on the same images; None if there is none.

    Runs beside this one and beside its output folder are considered. One with the same seed is preferred,
    then one with as many epochs, then the newest one.
    """
    if record.arch is None or not record.teachers:
        return None
    folder = record.folder.resolve()
    places = dict.fromkeys(
        file.parent
        for pattern, home in (("*/config.yaml", folder.parent), ("*/*/config.yaml", folder.parent.parent))
        for file in islice(home.glob(pattern), _MOST)
    )
    network = record.arch.main.head.name
    seed = record.run.settings.get("seed")
    likely = [(*rank, place) for place in places if (rank := _likeness(place, network, seed)) is not None]
    chosen = [place for *_, place in sorted(likely, key=lambda entry: entry[:2], reverse=True)]
    found = [other for place in chosen[:_READ] for other in _fitting(place, record)]
    return max(found, key=lambda other: _closeness(other, record), default=None)


def _likeness(place: Path, network: str, seed: Any) -> tuple[bool, float] | None:
    """Return whether a run has a seed, and its age, from the text of its recipe; None if it cannot fit."""
    file = place / CONFIG
    try:
        text = file.read_text("utf-8", "replace")
        age = file.stat().st_mtime
    except OSError:
        return None
    if f"  name: {network}\n" not in text or "\n  models:" in text:
        return None
    return (f"\n  seed: {seed}\n" in text, age)


def _fitting(place: Path, record: Record) -> list[Record]:
    try:
        other = read_record(place)
    except ConfigError:
        return []
    if record.arch is None or other.arch is None or other.arch.children or not other.run.finished:
        return []
    same = _network(other.arch) == _network(record.arch.main) and _evaluated(other) == _evaluated(record)
    return [other] if same and _evaluated(record) is not None else []


def _network(arch: ArchSpec) -> Any:
    """Return what makes two networks the same one before training."""
    options = {
        key: value
        for key, value in without_weights(arch.head.options).items()
        if not key.startswith("return_") and key != "class_num"
    }
    return options, arch.class_count


def evaluated_alike(one: Record, other: Record) -> bool:
    """Tell whether two runs were evaluated on the same images, as far as is known."""
    digests = {_evaluated(one), _evaluated(other)} - {None}
    return len(digests) < 2


def _evaluated(record: Record) -> str | None:
    """Return the fingerprint of the evaluation images."""
    states = record.run.progress or record.run.best
    known = None if states is None else states.lists.get("DataLoader.Eval.dataset")
    return None if known is None else str(known["digest"])


def _closeness(other: Record, record: Record) -> tuple[bool, bool, float]:
    same_seed = other.run.settings.get("seed") == record.run.settings.get("seed")
    return (same_seed, other.run.epochs == record.run.epochs, other.run.config_file.stat().st_mtime)

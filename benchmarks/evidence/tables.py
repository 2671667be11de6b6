"""The runs of a setting, by method."""

from __future__ import annotations

from evidence.comparisons import SETTINGS
from evidence.methods import METHODS
from evidence.runner import rows_of
from evidence.settings import Setting

BASE = "baseline"


def runs_of(setting: Setting) -> dict[str, list[float]]:
    """Return top-1 in per cent of every run, by method in the order of the tables."""
    found: dict[str, list[float]] = {}
    for row in sorted(rows_of(setting.results), key=lambda row: row["seed"]):
        found.setdefault(row["method"], []).append(row["top1"] * 100)
    if setting.variants and found:
        compared = runs_of(SETTINGS[setting.reference])
        found[BASE] = compared[BASE]
        reused = [variant for variant in setting.variants if variant.reused and variant.method in compared]
        found |= {variant.name: compared[variant.method] for variant in reused}
    names = [*METHODS, *(variant.name for variant in setting.variants)]
    return {name: found[name] for name in names if name in found}


def pool_of(setting: Setting) -> dict[str, list[float]]:
    """Return the runs that give the deviation between seeds; an ablation shares it with its setting."""
    runs = runs_of(setting)
    if not setting.variants:
        return runs
    reused = {variant.name for variant in setting.variants if variant.reused}
    own = {name: values for name, values in runs.items() if name not in reused}
    return {**runs_of(SETTINGS[setting.reference]), **own}

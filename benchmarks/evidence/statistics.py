"""Gains with intervals from few runs, and rank correlations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_NORMAL = 1.959964  # 97.5 % quantile of the normal distribution
_LUCK = 1e-4  # probability of a steady method to be called unsteady
_ENOUGH = 10  # degrees of freedom of the others, for that relation to say something


@dataclass(frozen=True)
class Gain:
    """What a method adds to the labels alone, in points.

    Attributes:
        mean: difference of the means.
        half: half the width of its 95 % interval; NaN if no method has two runs.
    """

    mean: float
    half: float

    def __str__(self) -> str:
        """Return the gain as the tables show it."""
        return f"{self.mean:+.2f}" + ("" if math.isnan(self.half) else f" ± {self.half:.2f}")


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of a sample; NaN for one value."""
    if len(values) < 2:
        return math.nan
    center = mean(values)
    return math.sqrt(sum((value - center) ** 2 for value in values) / (len(values) - 1))


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation, the mean alone for one value."""
    text = f"{mean(values):.2f}"
    return text if len(values) == 1 else f"{text} ± {deviation(values):.2f}"


def unsteady(runs: Mapping[str, Sequence[float]]) -> set[str]:
    """Return the methods of which single runs fail: their seeds differ too much to share a deviation.

    Their variance, of three or more runs, differs from that of all others together more than luck explains
    (p < 0.0001 in an F test).
    """
    found: set[str] = set()
    while True:
        steady = {name: values for name, values in runs.items() if name not in found}
        ratios = {}
        for name, values in steady.items():
            sigma, freedom = _pooled({other: more for other, more in steady.items() if other != name})
            if len(values) >= 3 and freedom >= _ENOUGH and sigma > 0:
                ratios[name] = (deviation(values) / sigma) ** 2 / largest_ratio(freedom)
        most = max(ratios, key=lambda name: ratios[name], default="")
        if ratios.get(most, 0.0) <= 1.0:
            return found
        found.add(most)


def largest_ratio(freedom: int, luck: float = _LUCK) -> float:
    """Return how many times the variance of three runs exceeds that of others with probability `luck`.

    This is the quantile of F with 2 and `freedom` degrees of freedom, whose distribution function is
    1 - (1 + 2 x / freedom) ** (-freedom / 2). With more than three runs it happens less often.
    """
    return freedom / 2 * (math.pow(luck, -2 / freedom) - 1)


def pooled_deviation(runs: Mapping[str, Sequence[float]]) -> tuple[float, int]:
    """Return the standard deviation between seeds, the same for all steady methods, and its freedom."""
    left_out = unsteady(runs)
    return _pooled({name: values for name, values in runs.items() if name not in left_out})


def _pooled(runs: Mapping[str, Sequence[float]]) -> tuple[float, int]:
    freedom = sum(len(values) - 1 for values in runs.values())
    if not freedom:
        return math.nan, 0
    squares = sum((len(values) - 1) * deviation(values) ** 2 for values in runs.values() if len(values) > 1)
    return math.sqrt(squares / freedom), freedom


def gains(
    runs: Mapping[str, Sequence[float]], base: str, pool: Mapping[str, Sequence[float]] | None = None
) -> dict[str, Gain]:
    """Return the gain of every method over `base`, with 95 % intervals.

    Three runs say little about the deviation of one method, so the deviation between seeds is estimated from
    all methods together: those of `pool`, or of `runs`. An unsteady method has its own.
    """
    pool = pool or runs
    sigma, freedom = pooled_deviation(pool)
    left_out = unsteady(pool)
    reference = runs[base]
    found = {}
    for name, values in runs.items():
        if name == base:
            continue
        if name in left_out and len(values) > 1:
            own, free = deviation(values), len(values) - 1
        else:
            own, free = sigma, freedom
        error = math.sqrt(own**2 / len(values) + sigma**2 / len(reference))
        found[name] = Gain(mean(values) - mean(reference), t_quantile(free) * error)
    return found


def t_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t; an expansion, good to 1 % from 3 degrees of freedom on."""
    if not freedom:
        return math.nan
    z = _NORMAL
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / math.pow(freedom, power) for power, term in enumerate(terms))


def spearman(first: Sequence[float], second: Sequence[float], draws: int = 20_000) -> tuple[float, float]:
    """Return the rank correlation and its two-sided p-value by permutations (with a fixed seed)."""
    one, two = (ranks - ranks.mean() for ranks in (_ranks(first), _ranks(second)))
    scale = math.sqrt((one @ one) * (two @ two))
    found = float(one @ two) / scale
    rng = np.random.default_rng(0)
    drawn = abs(rng.permuted(np.tile(two, (draws, 1)), axis=1) @ one) / scale >= abs(found) - 1e-12
    return found, (int(drawn.sum()) + 1) / (draws + 1)


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Return ranks; equal values share the mean of their ranks."""
    array = np.asarray(values, float)
    return np.array([(array < value).sum() + ((array == value).sum() - 1) / 2 for value in array])

"""Check metrics against the rest of a recipe: their sections and their number of classes."""

from __future__ import annotations

from ppcls.config.checks.networks import Networks
from ppcls.config.mistakes import Findings, join
from ppcls.config.schema import MetricSpec
from ppcls.registry import METRICS


def check_metrics(section: MetricSpec, networks: Networks | None, findings: Findings) -> None:
    """Check the attributes of a metric's class, see :class:`ppcls.metric.Metric`.

    Args:
        section: ``Metric``, checked by itself before.
        networks: the networks; None if unknown.
        findings: receives the mistakes.
    """
    for part in ("Train", "Eval"):
        nodes = section[part]
        for index, node in enumerate(nodes if isinstance(nodes, list) else ()):
            name = next(iter(node)) if isinstance(node, dict) and len(node) == 1 else None
            if name is None or name not in METRICS:
                continue
            place = join("Metric", part, index)
            if part == "Train" and METRICS.trait(name, "evaluation_only"):
                findings.error(place, f"{name} is for evaluations only; name it in Metric.Eval")
            needed = METRICS.trait(name, "class_num")
            main = networks.members.get(networks.main) if networks is not None else None
            if needed is not None and main is not None and main.class_num not in (None, needed):
                text = f"{name} is for {needed} classes, but {main.title} has {main.class_num}"
                findings.error(place, text)

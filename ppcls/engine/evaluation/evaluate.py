"""Evaluation: every sample counts exactly once, with any batch size."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

import paddle
from paddle import nn

from ppcls import distributed
from ppcls.data import Batch, Loader, ahead
from ppcls.engine.evaluation.measures import Measure, measure_batch, value_name
from ppcls.engine.meters import Meters, format_metrics, short_metrics
from ppcls.logger import LOGGER, ShortLine, log_values, progress_bar
from ppcls.metric import WholeSet


@contextmanager
def evaluating(*layers: nn.Layer) -> Iterator[None]:
    """Set layers to eval mode, and restore the mode of each sub-layer afterwards."""
    modes = [(sub, sub.training) for layer in layers for sub in layer.sublayers(include_self=True)]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for sub, training in modes:
            sub.training = training


def evaluate(
    forward: Callable[[Batch], Any],
    loader: Loader,
    groups: Mapping[str, Sequence[Measure]],
    *,
    epoch: int,
    print_every: int,
    title: str = "Eval",
    observe: Callable[[Any, Batch], None] | None = None,
    between: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Average the measures over all samples of `loader`; log one line of averages per student.

    Args:
        forward: returns the outputs for a batch; already in eval mode.
        loader: yields every sample once.
        groups: losses and metrics, each mapping (outputs, label) to named batch means, by student; ``""``
            means the network to deploy, whose values keep their names.
        epoch: epoch for log lines; 0 outside training.
        print_every: number of batches between log lines.
        title: beginning of log lines.
        observe: is also called with the outputs of each batch.
        between: is called with the number of each batch before it; equally often in every process. What it
            raises ends the evaluation.

    Returns:
        averages by name, in the order of `groups`.
    """
    meters = {network: Meters() for network in groups}
    total = len(loader)
    # The values that every batch has, unlike a rate of the whole set.
    means: dict[str, set[str]] = {network: set() for network in groups}
    shared = 0  # batches that every process has
    if between is not None:
        distributed.wait_for_all()
        shared = min(distributed.gather(total))
    begin = time.perf_counter()
    with paddle.no_grad(), closing(progress_bar(total, title.lower())) as bar:
        for number, batch in enumerate(ahead(loader.epoch(0))):
            if between is not None and number < shared:
                between(number)
            ready = time.perf_counter()
            outputs = forward(batch)
            label = paddle.to_tensor(batch.label)
            for network, values in measure_batch(groups, outputs, label).items():
                meters[network].add(values, len(batch.index))
                means[network] |= {name for name in values if not isinstance(values[name], WholeSet)}
            if observe is not None:
                observe(outputs, batch)
            if number % print_every == 0:
                for meter in meters.values():
                    meter.flush()
                shown = next(iter(meters.values())).averages()
                cost = time.perf_counter() - begin
                place = f"[{title}][Epoch {epoch}][Iter: {number}/{total}]"
                _log_batch(place, shown, cost, ready - begin, len(batch.index))
            bar.update()
            begin = time.perf_counter()
    for meter in meters.values():
        meter.flush()
    distributed.wait_for_all()  # one process may be slower than the time limit of a collective
    found: dict[str, float] = {}
    for network, meter in meters.items():
        averages = meter.averages(everywhere=True)
        place = f"[{title}][{network}]" if network else f"[{title}]"
        _log_averages(f"{place}[Epoch {epoch}]", averages, means[network])
        found |= {value_name(name, network): value for name, value in averages.items()}
    return found


def _log_batch(place: str, shown: Mapping[str, float], cost: float, reading: float, images: int) -> None:
    where = place.removeprefix("[").removesuffix("]").replace("][", " ").replace("Iter: ", "").lower()
    speed = images / max(cost, 1e-12)
    log_values(
        "%s%s, batch_cost: %.5fs, reader_cost: %.5f, ips: %.5f images/sec",
        place,
        format_metrics(shown),
        cost,
        reading,
        speed,
        short=ShortLine(where, [*short_metrics(shown)[:2], f"{speed:.0f} images/s"], in_bar=True),
    )


def _log_averages(place: str, averages: Mapping[str, float], means: set[str]) -> None:
    """Print the averages of a network, and warn if those that every batch has (`means`) are not finite."""
    where = place.removeprefix("[").removesuffix("]").replace("][", " ").lower()
    log_values("%s[Avg]%s", place, format_metrics(averages), short=ShortLine(where, short_metrics(averages)))
    broken = [name for name, value in averages.items() if name in means and not math.isfinite(value)]
    if broken:
        LOGGER.warning(
            "%snot finite: %s. Accuracies of a network whose outputs are no numbers mean nothing",
            place,
            ", ".join(broken),
        )

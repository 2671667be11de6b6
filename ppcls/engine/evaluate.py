"""Evaluation: every sample counts once, whatever the batch size."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import paddle
from paddle import nn

from ppcls import distributed
from ppcls.data import Batch, Loader
from ppcls.engine.hooks import format_metrics
from ppcls.engine.meters import Meters
from ppcls.logger import LOGGER, progress_bar

Measure = Callable[[Any, paddle.Tensor], Mapping[str, paddle.Tensor]]


@contextmanager
def evaluating(*layers: nn.Layer) -> Iterator[None]:
    """Put layers into eval mode and restore each sub-layer's own mode afterwards."""
    modes = [(sub, sub.training) for layer in layers for sub in layer.sublayers(include_self=True)]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for sub, training in modes:
            sub.training = training


def evaluate(
    forward: Callable[[paddle.Tensor], Any],
    loader: Loader,
    measures: list[Measure],
    *,
    epoch: int,
    print_every: int,
    title: str = "Eval",
    observe: Callable[[Any, Batch], None] | None = None,
) -> dict[str, float]:
    """Average `measures` over all samples of `loader`.

    Args:
        forward: maps images [N, C, H, W] to outputs; in eval mode already.
        loader: yields every sample once.
        measures: losses and metrics, each mapping (outputs, label) to named batch means.
        epoch: shown in log lines; 0 outside training.
        print_every: batches between log lines.
        title: how log lines begin.
        observe: sees the outputs of each batch too.

    Returns:
        averages by name, in the order of `measures`.
    """
    meters, total = Meters(), len(loader)
    bar = progress_bar(total, title.lower())
    begin = time.perf_counter()
    with paddle.no_grad():
        for number, batch in enumerate(loader.epoch(0)):
            ready = time.perf_counter()
            outputs, label = forward(paddle.to_tensor(batch.image)), paddle.to_tensor(batch.label)
            values: dict[str, paddle.Tensor] = {}
            for measure in measures:
                values.update(measure(outputs, label))
            meters.add(values, len(batch.index))
            if observe is not None:
                observe(outputs, batch)
            if number % print_every == 0:
                meters.flush()
                cost = time.perf_counter() - begin
                LOGGER.info(
                    "[%s][Epoch %d][Iter: %d/%d]%s, batch_cost: %.5fs, reader_cost: %.5f, "
                    "ips: %.5f images/sec",
                    title,
                    epoch,
                    number,
                    total,
                    format_metrics(meters.averages()),
                    cost,
                    ready - begin,
                    len(batch.index) / max(cost, 1e-12),
                )
            bar.update()
            begin = time.perf_counter()
    bar.close()
    meters.flush()
    distributed.wait_for_all()  # one process may be slower than a collective would wait
    averages = meters.averages(everywhere=True)
    LOGGER.info("[%s][Epoch %d][Avg]%s", title, epoch, format_metrics(averages))
    return averages

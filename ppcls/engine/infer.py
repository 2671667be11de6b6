"""Classify images with a network in memory, in the same way as `ppcls.deploy` does with an exported one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import paddle
from paddle.nn import functional as F

from ppcls.data import build_transforms, read_image
from ppcls.deploy.batches import OnError, PostProcess, classified, result_batches


def classify(
    network: Callable[[paddle.Tensor], Any],
    files: Sequence[str],
    transforms: list[Any],
    postprocess: PostProcess,
    *,
    batch_size: int,
    on_error: OnError = "raise",
    all_probabilities: bool = False,
) -> Iterator[list[dict[str, Any]]]:
    """Yield the results of each batch, see :func:`ppcls.deploy.batches.result_batches`.

    Args:
        network: in eval mode; maps [N, C, H, W] to logits [N, classes] or a dict with ``logits``.
        files: the images.
        transforms: ``Infer.transforms``.
        postprocess: turns probabilities and file names into results.
        batch_size: number of images in a batch.
        on_error: what happens with an image that cannot be read.
        all_probabilities: results have the probabilities of all classes.

    Raises:
        DataError: if an image cannot be read; the images before it have their results.
        WeightsError: if the network gives scores that are not finite.
    """
    chain = build_transforms(transforms)

    def answer(batch: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
        scores = _probabilities(network, batch)
        return classified(scores, names, postprocess, all_probabilities=all_probabilities)

    return result_batches(
        [(name, name) for name in files],
        lambda name, _: read_image(name, chain),
        answer,
        batch_size=batch_size,
        on_error=on_error,
        remedy="Remove it from Infer.infer_imgs",
    )


def _probabilities(network: Callable[[paddle.Tensor], Any], batch: np.ndarray) -> np.ndarray:
    with paddle.no_grad():
        outputs = network(paddle.to_tensor(batch))
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs
        return np.asarray(F.softmax(logits.astype("float32"), axis=-1).numpy())

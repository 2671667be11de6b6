"""Classify images with a network in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import paddle
from paddle.nn import functional as F

from ppcls.data import Compose, ImageError, build_transforms, read_image
from ppcls.data.postprocess import check_scores
from ppcls.logger import LOGGER

Postprocess = Callable[[np.ndarray, Sequence[str]], list[dict[str, Any]]]


def classify(
    network: Callable[[paddle.Tensor], Any],
    files: Sequence[str],
    transforms: list[Any],
    postprocess: Postprocess,
    *,
    batch_size: int,
) -> list[dict[str, Any]]:
    """Classify images; log the results batch by batch.

    Args:
        network: in eval mode; maps [N, C, H, W] to logits [N, classes] or a dict with ``logits``.
        files: the images.
        transforms: ``Infer.transforms``.
        postprocess: turns probabilities and file names into results.
        batch_size: number of images in a batch.

    Returns:
        one dict per image: class_ids, scores, file_name, label_names.

    Raises:
        DataError: if an image cannot be read; results of the images before it are logged.
        WeightsError: if the network gives scores that are not finite.
    """
    chain = build_transforms(transforms)
    results: list[dict[str, Any]] = []
    for start in range(0, len(files), batch_size):
        names = files[start : start + batch_size]
        arrays, unreadable = _read(names, chain)
        if arrays:
            with paddle.no_grad():
                outputs = network(paddle.to_tensor(np.stack(arrays)))
                logits = outputs["logits"] if isinstance(outputs, dict) else outputs
                probabilities = F.softmax(logits.astype("float32"), axis=-1).numpy()
            check_scores(probabilities, names[: len(arrays)])
            found = postprocess(probabilities, names[: len(arrays)])
            LOGGER.info("%s", found)
            results.extend(found)
        if unreadable is not None:
            raise unreadable
    return results


def _read(names: Sequence[str], chain: Compose) -> tuple[list[np.ndarray], ImageError | None]:
    """Return the images before the first unreadable one, and the error of that one."""
    images = []
    for name in names:
        try:
            images.append(read_image(name, chain))
        except ImageError as error:
            return images, ImageError(f"{error}. Remove it from Infer.infer_imgs")
    return images, None

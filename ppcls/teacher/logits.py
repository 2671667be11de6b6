"""Logits of networks that do not change, for the images of the evaluation set: computed once in a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import paddle
from paddle import Tensor

from ppcls.data import Batch, image_tensor
from ppcls.logger import LOGGER

MOST_BYTES = 1 << 30  # for one network


class KnownLogits:
    """Logits in memory, by network and image.

    Args:
        images: number of images in the evaluation set.
    """

    def __init__(self, images: int) -> None:
        self.images = images
        self._logits: dict[str, np.ndarray] = {}
        self._known: dict[str, np.ndarray] = {}
        self._in_map: dict[str, bool] = {}

    def ask(self, name: str, batch: Batch, run: Callable[[Tensor], Any]) -> Any:
        """Return the output of a network for a batch; if all images are known, only its logits.

        Args:
            name: name of the network.
            batch: a batch of the evaluation set.
            run: the network itself.
        """
        known = self._known.get(name)
        if known is not None and known[batch.index].all():
            logits = paddle.to_tensor(self._logits[name][batch.index])
            return {"logits": logits} if self._in_map[name] else logits
        output = run(image_tensor(batch))
        self._keep(name, batch.index, output)
        return output

    def _keep(self, name: str, index: np.ndarray, output: Any) -> None:
        logits = output.get("logits") if isinstance(output, Mapping) else output
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(index) != logits.shape[0]:
            return
        if name not in self._known:
            size = 4 * self.images * logits.shape[1]
            if size > MOST_BYTES:
                LOGGER.debug("logits of %s would take %d MB and are not kept", name, size >> 20)
                return
            self._logits[name] = np.empty([self.images, logits.shape[1]], np.float32)
            self._known[name] = np.zeros(self.images, bool)
            self._in_map[name] = isinstance(output, Mapping)
        self._logits[name][index] = logits.astype("float32").numpy()
        self._known[name][index] = True

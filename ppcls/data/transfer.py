"""The way of images to the device of the networks.

8-bit pixels are normalised on the device: by looking up, in the same table as on the CPU, so the values are
equal bit by bit, and a GPU is sent a quarter of the bytes. To a GPU a batch is copied from pinned memory by a
stream of its own, while the batch before it is computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from ppcls.data.batch import Batch, Pixels
from ppcls.data.transforms.normalize import NormalizeImage

_HELD = 3  # batches whose memory on the host is kept: the one in use, the next, and one that is surely copied


def image_tensor(batch: Batch) -> Any:
    """Return the images of a batch for networks, normalised, a tensor [N, C, H, W] on the current device.

    It is the same tensor at each call.
    """
    import paddle

    if batch.tensor is None:
        pixels = batch.pixels
        if pixels is None:
            batch.tensor = paddle.to_tensor(batch.image)
        elif paddle.device.get_device() == "cpu":
            batch.tensor = _normalise_on_cpu(pixels)
        else:
            batch.tensor = normalise_on_device(paddle.to_tensor(pixels.levels), pixels)
    return batch.tensor


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield batches whose images are on their way to the GPU one batch ahead; on a CPU, the batches as given.

    The copy of the next batch runs on a stream of its own while the caller's work on this one is computed.
    """
    import paddle

    on_gpu = paddle.device.get_device().startswith("gpu")
    return copied_ahead(batches, Copies()) if on_gpu else batches


def _normalise_on_cpu(pixels: Pixels) -> Any:
    """Normalise straight into the memory of a tensor, which saves a copy."""
    import paddle

    tensor = paddle.empty(pixels.shape, str(pixels.dtype))
    memory = np.from_dlpack(tensor)
    if not memory.flags.writeable:  # NumPy 1
        return paddle.to_tensor(pixels.normalised())
    pixels.normalised(memory)
    return tensor


def normalise_on_device(levels: Any, pixels: Pixels) -> Any:
    """Normalise the levels [N, C, H, W], a tensor on the device."""
    import paddle

    count, channels, height, width = levels.shape
    table, first = _tables(pixels.normalize, channels, paddle.device.get_device())
    image = paddle.gather(table, (levels.astype("int32") + first).flatten()).reshape(levels.shape)
    missing = pixels.shape[1] - channels
    if missing:
        image = paddle.concat([image, paddle.zeros([count, missing, height, width], image.dtype)], axis=1)
    return image if pixels.dtype == np.float32 else image.astype(str(pixels.dtype))


@lru_cache(maxsize=8)
def _tables(normalize: NormalizeImage, channels: int, device: str) -> tuple[Any, Any]:
    """Return the results of all levels, float32 [K * 256], and where those of each channel begin, [C, 1, 1].

    They stay on the device: sending them would make the host wait for the work that is queued there.
    """
    import paddle

    # float16 cannot be gathered on every device, and float32 holds its values.
    table = normalize.table(channels).astype(np.float32).reshape(-1)
    first = 256 * np.arange(channels, dtype=np.int32).reshape(channels, 1, 1)
    return paddle.to_tensor(table, place=device), paddle.to_tensor(first, place=device)


def copied_ahead(batches: Iterator[Batch], copies: Copies) -> Iterator[Batch]:
    """Yield batches, each when the copy of the next one has started."""
    sent: deque[Sent] = deque()
    try:
        for batch in batches:
            sent.append(copies.send(batch))
            if len(sent) > 1:
                yield sent[-2].arrived()
            if len(sent) > _HELD:
                sent.popleft().wait()
        if sent:
            yield sent[-1].arrived()
    finally:
        for copy in sent:
            copy.wait()
        close = getattr(batches, "close", None)
        if close is not None:  # end the epoch of the loader
            close()


class Sent:
    """A batch on its way to the GPU.

    Args:
        batch: the batch.
        image: its images on the GPU, as soon as `event` has happened.
        pinned: the memory that they are copied from.
        event: the end of the copy.
    """

    def __init__(self, batch: Batch, image: Any, pinned: Any, event: Any) -> None:
        self._batch = batch
        self._image = image
        self._pinned = pinned
        self._event = event

    def arrived(self) -> Batch:
        """Return the batch; work on the GPU that uses it begins after the copy."""
        import paddle

        paddle.device.current_stream().wait_event(self._event)
        self._batch.tensor = self._image
        return self._batch

    def wait(self) -> None:
        """Wait until the copy is over; then its memory may be used again."""
        self._event.synchronize()
        self._pinned = None


class Copies:
    """Copies batches to the GPU on a stream of their own."""

    def __init__(self) -> None:
        import paddle

        self._stream = paddle.device.Stream()

    def send(self, batch: Batch) -> Sent:
        """Start to copy the images of a batch.

        The copy may reuse memory of a batch that the caller has dropped, but that the GPU still computes
        with. So it waits for the work that was queued before. The work on the batch that the caller gets next
        is queued after that, and runs beside the copy.
        """
        import paddle

        pixels = batch.pixels
        source = batch.image if pixels is None else pixels.levels
        pinned = paddle.to_tensor(source, place=paddle.CUDAPinnedPlace())
        self._stream.wait_stream(paddle.device.current_stream())
        with paddle.device.stream_guard(self._stream):
            image = pinned.cuda(blocking=False)
            if pixels is not None:
                image = normalise_on_device(image, pixels)
            return Sent(batch, image, pinned, self._stream.record_event())

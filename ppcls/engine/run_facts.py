"""What a run knows at its end and its other files do not say: ``report.json``, for the page of the run."""

from __future__ import annotations

import base64
import io
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import paddle
from PIL import Image, ImageOps

from ppcls.config import ArchSpec, Recipe
from ppcls.console import without_native_messages
from ppcls.cpu.processor import processor_name
from ppcls.data import Dataset
from ppcls.distributed import world_size
from ppcls.engine.evaluation.evaluate import evaluating
from ppcls.engine.run import Run
from ppcls.errors import PpclsError
from ppcls.files import write_atomic
from ppcls.logger import LOGGER
from ppcls.report.answers import Answers
from ppcls.report.image_sections import WRONG_IMAGES
from ppcls.report.layer_tables import list_layers
from ppcls.report.record import FACTS

_SIDE = 160  # pixels of a picture
_SMALL = 64  # pixels up to which a picture is stored without loss
_PATIENCE = 0.25  # seconds in which the latency of a network is measured
_FORMAT = 1


def write_facts(run: Run, config: Recipe, shape: Sequence[int], answers: Answers | None) -> None:
    """Write ``report.json`` into the folder of a run.

    Args:
        run: a run that has ended.
        config: its recipe.
        shape: [C, H, W] of its images.
        answers: the answers of the best evaluation.

    Raises:
        WeightsError: if it cannot be written.
    """
    arch = config.arch
    facts = {
        "format": _FORMAT,
        "processes": world_size(),
        "latency_of": _device(),
        "networks": list(_networks(run, arch, shape)),
        "images": [] if answers is None else list(_wrong_images(run, arch, answers)),
    }
    text = json.dumps(facts, indent=1) + "\n"
    write_atomic(run.settings.folder / FACTS, lambda stream: stream.write(text.encode()))


def _device() -> str:
    device = str(paddle.device.get_device())
    if device.startswith("gpu"):
        return str(paddle.device.cuda.get_device_name())
    return f"{device}, {processor_name()}" if device == "cpu" and processor_name() else device


# ---------------------------------------------------------------- networks


def _networks(run: Run, arch: ArchSpec, shape: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield size, cost and latency of each network."""
    costs = _costs(arch, shape)
    for child in arch.children or [arch]:
        found: dict[str, Any] = {"title": child.title, **costs.get(child.title, {})}
        network = run.parts.model.network(child.title) if child.title else run.parts.model
        state = network.state_dict().values()
        if state:  # nothing is known of one whose answers come from a store
            found["bytes"] = sum(int(value.size) * value.element_size() for value in state)
            try:
                found["latency"] = _latency(network, shape)
            except (PpclsError, RuntimeError, ValueError, TypeError) as error:  # a file for other batches
                LOGGER.debug("latency of %s: %s", child.title or child.name, error)
        yield found


def _costs(arch: ArchSpec, shape: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Return parameters and multiply-adds by network; nothing if one of them cannot be traced."""
    try:
        with without_native_messages():
            listed = list_layers(arch, shape)
    except PpclsError as error:
        LOGGER.debug("sizes of the networks: %s", error)
        return {}
    return {
        one.title: {"parameters": one.seen.parameters, "multiply_adds": one.seen.multiply_adds}
        for one in listed
    }


def _latency(network: Any, shape: Sequence[int]) -> float:
    """Return the median milliseconds of a forward pass of one image; the first passes do not count."""
    image = paddle.zeros([1, *shape])
    costs: list[float] = []
    with evaluating(network), paddle.no_grad():
        end = time.perf_counter() + _PATIENCE
        while len(costs) < 3 or time.perf_counter() < end:
            begin = time.perf_counter()
            network(image)
            if str(paddle.device.get_device()).startswith("gpu"):
                paddle.device.cuda.synchronize()
            costs.append(time.perf_counter() - begin)
    return statistics.median(costs[1:]) * 1000


# ---------------------------------------------------------------- images


def _wrong_images(run: Run, arch: ArchSpec, answers: Answers) -> Iterator[dict[str, Any]]:
    """Yield the images with the most confident mistakes of the student, each as a small picture."""
    evaluation = run.parts.evaluation
    if evaluation is None:
        return
    dataset = evaluation.loader.dataset
    for row in answers.most_wrong(arch.main.title, WRONG_IMAGES):
        index = int(answers.index[row])
        yield {"index": index, "file": dataset.path(index), **_picture(dataset, index)}


def _picture(dataset: Dataset, index: int) -> Mapping[str, Any]:
    """Return an image as a small picture; nothing if it is of a kind that cannot be shown."""
    try:
        content = dataset.read(index)
        image = _opened(content) if isinstance(content, bytes) else Image.fromarray(np.asarray(content))
        small = ImageOps.exif_transpose(image).convert("RGB")
        small.thumbnail((_SIDE, _SIDE))
    except (PpclsError, OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError) as error:
        LOGGER.debug("no picture of %s: %s", dataset.path(index), error)
        return {}
    stream = io.BytesIO()
    kind = "png" if max(small.size) <= _SMALL else "jpeg"
    small.save(stream, kind, quality=82)
    text = base64.b64encode(stream.getvalue()).decode()
    return {"side": max(small.size), "picture": f"data:image/{kind};base64,{text}"}


def _opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.draft("RGB", (2 * _SIDE, 2 * _SIDE))  # a large JPEG is decoded at a part of its size
    return image

"""Classify images with a folder that `ppcls export` wrote."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ppcls.cpu.processor import available_cores
from ppcls.data import ImageError, build_postprocess, build_transforms, list_images, matching, read_image
from ppcls.data.images import Naming
from ppcls.data.postprocess import check_scores
from ppcls.deploy.description import described_in, described_postprocess, described_transforms
from ppcls.deploy.engines import Engine, Precision, open_network
from ppcls.errors import ConfigError, DataError, WeightsError
from ppcls.runtime import DESCRIPTION, find_program, read_description

Image = str | os.PathLike[str] | np.ndarray
_SINGLE = (str, os.PathLike, np.ndarray)
_EXPECTED = "expected a file, a folder, a list or an array [H, W, C]"


class Predictor:
    """An exported network with its transforms and class names.

    Threads may share one predictor: they read images in parallel, and Paddle Inference runs one batch at a
    time, by default on all cores (ONNX Runtime several). A predictor can be pickled; the files are then
    opened again in the other process. After ``os.fork`` it works in the child if no thread was predicting at
    that moment.

    Args:
        model_dir: folder with ``inference.json`` (else ``inference.pdmodel``), ``inference.pdiparams`` and
            ``inference.yml``.
        batch_size: number of images in a batch.
        device: ``cpu``, ``gpu``, ``gpu:1``, or ``auto`` for a GPU if there is one.
        threads: CPU threads; None for one on each core that this process may use.
        mkldnn: use oneDNN on the CPU.
        engine: ``paddle_inference``, ``onnxruntime`` or ``auto``: ONNX Runtime on the CPU in float32 where it
            is installed and the folder has an ``inference.onnx`` (``Global.export_onnx``), otherwise Paddle
            Inference. Probabilities of the two agree to about 1e-6.
        precision: ``float32``, or ``bfloat16``: faster on processors that have instructions for it, with
            probabilities that differ by about 0.01. Paddle Inference on the CPU only; a processor that does
            not compute in bfloat16 computes in float32, and a warning says so.
        on_error: for an unreadable image, ``raise`` a DataError that names it, or ``skip`` it: then its
            result is empty and has the reason under ``error``.

    Raises:
        WeightsError: if a file of the folder is missing, cut off or damaged.
        ConfigError: if ``inference.yml`` or an argument is wrong.

    Example:
        >>> Predictor("inference").predict("photos/")   # doctest: +SKIP
        [{'class_ids': [8, 7], 'scores': [0.9, 0.1], 'file_name': 'photos/a.jpg', 'label_names': [...]}]
    """

    def __init__(
        self,
        model_dir: str | os.PathLike[str],
        *,
        batch_size: int = 1,
        device: str = "auto",
        threads: int | None = None,
        mkldnn: bool = True,
        on_error: Literal["raise", "skip"] = "raise",
        engine: Engine = "auto",
        precision: Precision = "float32",
    ) -> None:
        for name, count in (("batch_size", batch_size), ("threads", 1 if threads is None else threads)):
            if not isinstance(count, Integral) or count < 1:
                raise ConfigError(f"{name}: {count!r}; expected a whole number, at least 1")
        if on_error not in ("raise", "skip"):
            raise ConfigError(f"on_error: {on_error!r}; expected raise or skip")
        files = find_program(Path(model_dir))
        if files.description is None:
            raise ConfigError(_missing(Path(model_dir) / DESCRIPTION))
        description = read_description(files.description)
        self.batch_size = batch_size
        self.on_error = on_error
        self._description = files.description
        self._softmax: bool = description["Global"].get("softmax", True)
        operations = described_transforms(description, files.description)
        postprocess = described_postprocess(description, files.description, files.files.place)
        with described_in(files.description):
            where = "PreProcess.transform_ops"
            self._chain = build_transforms(operations, where)
            self._array_chain = build_transforms([op for op in operations if "DecodeImage" not in op], where)
            self._postprocess = build_postprocess(postprocess, "PostProcess")
        self._run = open_network(
            files,
            description["Global"],
            engine=engine,
            precision=precision,
            device=device,
            threads=threads or available_cores(),
            mkldnn=mkldnn,
        )
        if len(self._run.outputs) != 1:
            raise WeightsError(f"{files.program} has {len(self._run.outputs)} outputs, a classifier has one")

    def predict(self, images: Image | Sequence[Image]) -> list[dict[str, Any]]:
        """Classify images.

        Args:
            images: a file, a folder, a ``.txt`` list, a pattern such as ``photos/*.jpg``, an array [H, W, C]
                uint8 with the channel order of the training (RGB unless the recipe says otherwise),
                or a sequence of these.

        Returns:
            one dict per image, in the same order: class_ids, scores, label_names, file_name.

        Raises:
            DataError: if nothing is found, or, with ``on_error="raise"``, an image cannot be read.
            WeightsError: if the network gives scores that are not finite.
        """
        return list(self.stream(images))

    def stream(self, images: Image | Sequence[Image]) -> Iterator[dict[str, Any]]:
        """Yield the results of :meth:`predict` as soon as each batch is finished."""
        source = iter(self._expand(images))
        while batch := list(islice(source, self.batch_size)):
            yield from self._predict_batch(batch)

    def _predict_batch(self, batch: list[tuple[str, Image]]) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = []
        arrays = []
        for name, image in batch:
            failed: dict[str, Any] = {}
            try:
                arrays.append(self._transform(name, image))
            except ImageError as error:
                if self.on_error == "raise":
                    raise ImageError(
                        f"{error}. Remove it, or leave such files out with on_error skip"
                    ) from error
                failed = {"class_ids": [], "scores": [], "label_names": [], "file_name": name}
                failed["error"] = str(error)
            results.append(failed)
        if arrays:
            outputs = self._run(np.stack(arrays))
            names = [name for (name, _), failed in zip(batch, results, strict=True) if not failed]
            check_scores(outputs, names)
            probabilities = outputs if self._softmax else _softmax(outputs)
            with described_in(self._description):
                found = iter(self._postprocess(probabilities, names))
            results = [failed or next(found) for failed in results]
        return results

    def _transform(self, name: str, image: Image) -> np.ndarray:
        if not isinstance(image, np.ndarray):
            return read_image(str(image), self._chain)
        if image.ndim != 3 or not image.size or image.dtype != np.uint8:
            raise ImageError(f"{name}: {image.dtype} of shape {list(image.shape)}; expected uint8 [H, W, C]")
        with Naming(lambda: name):
            return self._array_chain.chw(image)

    def _expand(self, images: Image | Sequence[Image]) -> list[tuple[str, Image]]:
        """Return name and file or array of each image, and find wrong paths before anything is predicted."""
        many = [images] if isinstance(images, _SINGLE) else images
        if isinstance(many, (bytes, Mapping)) or not isinstance(many, Iterable):
            raise DataError(f"images: {_EXPECTED}, or a sequence of these, got {type(many).__name__}")
        found: list[tuple[str, Image]] = []
        for number, image in enumerate(many):
            if isinstance(image, np.ndarray):
                found.append((f"array {number}", image))
                continue
            if not isinstance(image, _SINGLE):
                raise DataError(f"image {number}: {_EXPECTED}, got {type(image).__name__}")
            path = str(image)
            exists = os.path.exists(path)
            if not exists and glob.has_magic(path):
                files = matching(path) or list_images(path)
            elif not exists and self.on_error == "skip":
                files = [path]  # reported when it is read
            else:
                files = list_images(path)
            found.extend((file, file) for file in files)
        return found


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _missing(file: Path) -> str:
    return (
        f"{file} is missing: it says how images are prepared and what the classes are called. "
        "`ppcls export` writes it; for a folder exported elsewhere write one with Global, "
        "PreProcess.transform_ops (as Infer.transforms in the recipe) and PostProcess"
    )

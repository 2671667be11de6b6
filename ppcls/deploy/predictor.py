"""Classify images with a folder that `ppcls export` wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.cpu.processor import available_cores
from ppcls.data import ImageError, build_postprocess, build_transforms, read_image
from ppcls.data.images import Naming
from ppcls.data.postprocess import check_scores
from ppcls.deploy.batches import OnError, ResultOptions, classified, result_batches
from ppcls.deploy.description import described_in, described_postprocess, described_transforms
from ppcls.deploy.engines import Engine, Precision
from ppcls.deploy.images import Image, expand_images
from ppcls.deploy.opening import open_export
from ppcls.errors import ConfigError


class Predictor:
    """An exported network with its transforms and class names.

    Threads may share one predictor: they read images in parallel, and Paddle Inference runs one batch at a
    time, by default on all cores (ONNX Runtime several). A predictor can be pickled; the files are then
    opened again in the other process. After ``os.fork`` it works in the child if no thread was predicting at
    that moment.

    Args:
        model_dir: folder with ``inference.json`` (else ``inference.pdmodel``), ``inference.pdiparams`` and
            ``inference.yml``; or an ``inference.onnx`` alone, if ppcls has written it.
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
        topk: number of classes in a result; None for that of the export.
        threshold: probability that the best class must reach; otherwise the result is class -1.
        unknown_name: name of class -1; ``unknown`` by default.
        all_probabilities: results also have ``probabilities``, of all classes in order of their ids.

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
        on_error: OnError = "raise",
        engine: Engine = "auto",
        precision: Precision = "float32",
        topk: int | None = None,
        threshold: float | None = None,
        unknown_name: str | None = None,
        all_probabilities: bool = False,
    ) -> None:
        for name, count in (("batch_size", batch_size), ("threads", 1 if threads is None else threads)):
            if not isinstance(count, Integral) or count < 1:
                raise ConfigError(f"{name}: {count!r}; expected a whole number, at least 1")
        if on_error not in ("raise", "skip"):
            raise ConfigError(f"on_error: {on_error!r}; expected raise or skip")
        self.batch_size = batch_size
        self.on_error = on_error
        self._all_probabilities = all_probabilities
        exported = open_export(
            Path(model_dir),
            engine=engine,
            precision=precision,
            device=device,
            threads=threads or available_cores(),
            mkldnn=mkldnn,
        )
        self._run, self._description = exported.run, exported.source
        described = exported.description
        self._softmax: bool = described["Global"].get("softmax", True)
        self.gives_features: bool = described["Global"].get("output") == "features"
        operations = described_transforms(described, exported.source)
        options = ResultOptions(topk, threshold, unknown_name, all_probabilities)
        postprocess = described_postprocess(described, exported.source, exported.place)
        if self.gives_features and options != ResultOptions():
            raise ConfigError(f"{model_dir} gives features; topk, threshold and the like are about classes")
        postprocess = options.applied_to(postprocess)
        with described_in(exported.source):
            where = "PreProcess.transform_ops"
            self._chain = build_transforms(operations, where)
            self._array_chain = build_transforms([op for op in operations if not _decodes(op)], where)
            self.postprocess = build_postprocess(postprocess, "PostProcess")

    def predict(self, images: Image | Sequence[Image]) -> list[dict[str, Any]]:
        """Classify images, in batches of `batch_size`.

        Args:
            images: a file, a folder, a ``.txt`` list, a pattern such as ``photos/*.jpg``, the bytes of an
                image file, an array [H, W, C] uint8 with the channel order of the training (RGB unless the
                recipe says otherwise), or a sequence of these.

        Returns:
            one dict per image, in the same order: class_ids, scores, file_name, label_names. If the network
            was exported with ``stop_after``: file_name and features, an array [D] or [C, H, W].

        Raises:
            DataError: if nothing is found, or, with ``on_error="raise"``, an image cannot be read.
            WeightsError: if the network gives scores that are not finite.
        """
        return list(self.stream(images))

    def stream(self, images: Image | Sequence[Image]) -> Iterator[dict[str, Any]]:
        """Yield the results of :meth:`predict` as soon as each batch is finished."""
        for results in self.batches(images):
            yield from results

    def batches(self, images: Image | Sequence[Image]) -> Iterator[list[dict[str, Any]]]:
        """Yield the results of :meth:`predict` batch by batch."""
        found = expand_images(images, skip_missing=self.on_error == "skip")
        options: dict[str, Any] = {"batch_size": self.batch_size, "on_error": self.on_error}
        if self.gives_features:
            return result_batches(found, self._read, self._features, empty={"features": []}, **options)
        return result_batches(found, self._read, self._classify, **options)

    def _classify(self, batch: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
        scores = self._run(batch)
        with described_in(self._description):
            return classified(
                scores,
                names,
                self.postprocess,
                softmax=not self._softmax,
                all_probabilities=self._all_probabilities,
            )

    def _features(self, batch: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
        features = self._run(batch)
        check_scores(features.reshape(len(features), -1), names)
        if features.ndim == 4 and features.shape[2:] == (1, 1):
            features = features.reshape(features.shape[:2])
        return [{"file_name": name, "features": row} for name, row in zip(names, features, strict=True)]

    def _read(self, name: str, image: Image) -> np.ndarray:
        if isinstance(image, bytes):
            with Naming(lambda: name):
                return self._chain.chw(image)
        if not isinstance(image, np.ndarray):
            return read_image(str(image), self._chain)
        if image.ndim != 3 or not image.size or image.dtype != np.uint8:
            raise ImageError(f"{name}: {image.dtype} of shape {list(image.shape)}; expected uint8 [H, W, C]")
        with Naming(lambda: name):
            return self._array_chain.chw(image)


def _decodes(op: Any) -> bool:
    """Tell whether an entry of the transforms is DecodeImage, in either spelling."""
    return "DecodeImage" in op or (isinstance(op, dict) and op.get("name") == "DecodeImage")

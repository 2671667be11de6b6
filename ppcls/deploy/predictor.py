"""Classify images with a folder that `ppcls export` wrote."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ppcls.config import MAX_NODES_OF_DATA, read_yaml
from ppcls.data import ImageError, build_postprocess, build_transforms, list_images, read_image
from ppcls.errors import ConfigError, WeightsError
from ppcls.runtime import PARAMS, Program, find_program

DESCRIPTION = "inference.yml"

Image = str | os.PathLike[str] | np.ndarray


class Predictor:
    """An exported network with its transforms and class names.

    Args:
        model_dir: folder with ``inference.json`` (else ``inference.pdmodel``), ``inference.pdiparams`` and
            ``inference.yml``.
        batch_size: images run at a time.
        device: ``cpu``, ``gpu``, ``gpu:1``, or ``auto`` for a GPU if there is one.
        threads: CPU threads; None for all cores.
        mkldnn: use oneDNN on the CPU.
        on_error: what an unreadable image does: ``raise`` a DataError that names it, or ``skip``, which
            leaves its result empty with the reason under ``error``.

    Raises:
        WeightsError: if a file of the folder is missing or cut off.
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
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size: {batch_size}; expected at least 1")
        if on_error not in ("raise", "skip"):
            raise ConfigError(f"on_error: {on_error!r}; expected raise or skip")
        folder = Path(model_dir)
        program = find_program(folder)
        description = _read_description(folder)
        self.batch_size = batch_size
        self.on_error = on_error
        self._softmax = bool(description["Global"].get("softmax", True))
        _check_params(folder / PARAMS, description["Global"].get("params_size"))
        operations = description["PreProcess"]["transform_ops"]
        self._chain = build_transforms(operations)
        self._array_chain = build_transforms([op for op in operations if "DecodeImage" not in op])
        self._postprocess = build_postprocess(_post_process(description, folder))
        self._run = Program(program, device=device, threads=threads or os.cpu_count() or 1, mkldnn=mkldnn)
        if len(self._run.outputs) != 1:
            raise WeightsError(f"{program} has {len(self._run.outputs)} outputs, a classifier has one")

    def predict(self, images: Image | Sequence[Image]) -> list[dict[str, Any]]:
        """Classify images.

        Args:
            images: a file, a folder, a ``.txt`` list, a pattern such as ``photos/*.jpg``, an array [H, W, C]
                uint8 with its channels as the network was trained (RGB unless its recipe says otherwise),
                or a sequence of these.

        Returns:
            a dict an image, in order: class_ids, scores, label_names, file_name.

        Raises:
            DataError: if nothing is found, or, with ``on_error="raise"``, an image cannot be read.
        """
        results: list[dict[str, Any]] = []
        source = iter(self._expand(images))
        while batch := list(islice(source, self.batch_size)):
            results.extend(self._predict_batch(batch))
        return results

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
            found = iter(self._postprocess(outputs if self._softmax else _softmax(outputs), names))
            results = [failed or next(found) for failed in results]
        return results

    def _transform(self, name: str, image: Image) -> np.ndarray:
        if not isinstance(image, np.ndarray):
            return read_image(str(image), self._chain)
        if image.ndim != 3 or image.dtype != np.uint8:
            raise ImageError(f"{name}: {image.dtype} of shape {list(image.shape)}; expected uint8 [H, W, C]")
        return self._array_chain.chw(image)

    def _expand(self, images: Image | Sequence[Image]) -> list[tuple[str, Image]]:
        """Return a name and a file or array for each single image, so that a wrong path is found at once."""
        many = [images] if isinstance(images, (str, os.PathLike, np.ndarray)) else images
        found: list[tuple[str, Image]] = []
        for number, image in enumerate(many):
            if isinstance(image, np.ndarray):
                found.append((f"array {number}", image))
                continue
            path = str(image)
            exists = os.path.exists(path)
            if not exists and glob.has_magic(path):
                files = sorted(glob.glob(path, recursive=True)) or list_images(path)
            elif not exists and self.on_error == "skip":
                files = [path]  # its turn comes when it is read
            else:
                files = list_images(path)
            found.extend((file, file) for file in files)
        return found


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _check_params(file: Path, size: int | None) -> None:
    """Refuse parameters that were cut off or belong to another export; Paddle would run on garbage."""
    if size is not None and file.stat().st_size != size:
        raise WeightsError(
            f"{file} has {file.stat().st_size} bytes, its {DESCRIPTION} says {size}: the file was not copied "
            "to its end, or comes from another export"
        )


def _read_description(folder: Path) -> dict[str, Any]:
    file = folder / DESCRIPTION
    if not file.is_file():
        raise ConfigError(
            f"{file} is missing: it says how images are prepared and what the classes are called. "
            "`ppcls export` writes it; for a folder exported elsewhere write one with Global, "
            "PreProcess.transform_ops (as Infer.transforms in the recipe) and PostProcess"
        )
    content = read_yaml(file, MAX_NODES_OF_DATA)
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected the sections Global, PreProcess and PostProcess")
    pre = content.get("PreProcess")
    if not isinstance(pre, Mapping) or not isinstance(pre.get("transform_ops"), list):
        raise ConfigError(f"{file}: PreProcess.transform_ops: expected a list of transforms")
    content.setdefault("Global", {})
    return content


def _post_process(description: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the post-process as recipes write it, with the file of class names inside the folder."""
    section = dict(description.get("PostProcess") or {"Topk": {"topk": 5}})
    name = section.pop("main_indicator", None) or next(iter(section))
    if name not in section:
        raise ConfigError(f"{folder / DESCRIPTION}: PostProcess has no {name}")
    options = dict(section[name] or {})
    labels = options.get("class_id_map_file")
    if labels and (folder / labels).is_file():
        options["class_id_map_file"] = str(folder / labels)
    return {"name": name, **options}

"""What a user means by a teacher: a name, weights, a run, or a network of another program."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ppcls.arch.foreign import cpu_threads
from ppcls.config import ArchSpec, single
from ppcls.config.arch import without_weights
from ppcls.config.arithmetic import evaluate
from ppcls.config.nodes import Node
from ppcls.data.transforms.normalize import IMAGENET_MEAN, IMAGENET_STD
from ppcls.engine.build import build_trained_model
from ppcls.errors import ConfigError, PpclsError, WeightsError, hint
from ppcls.onnx_program import OnnxProgram
from ppcls.report.network_tables import network_names
from ppcls.report.runs import BEST, RunFolder, find_runs, is_run, read_run
from ppcls.runtime import DESCRIPTION, PROGRAMS, find_program, read_description
from ppcls.weights import find_file
from ppcls.weights.parameter_files import SUFFIXES
from ppcls.weights.torch_file import TORCH_SUFFIXES

_EXPORTED = (DESCRIPTION, *PROGRAMS)
# Options of a network that ask for features, which no method of a project needs.
_FEATURES = ("return_patterns", "return_stages", "stop_after", "freeze_befor")
_WEIGHTS = (*SUFFIXES, *TORCH_SUFFIXES)
_CHANNELS = 3
_USUAL_SIDE = 224


@dataclass(frozen=True)
class Preprocessing:
    """How a teacher wants its images.

    Attributes:
        size: side of the images, or height and width; None if it is unknown or does not matter.
        mean: mean of each channel, for pixels of 0 to 1; None if it is unknown.
        std: standard deviation, in the same way.
    """

    size: int | tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def options(self, side: int) -> dict[str, Any]:
        """Return the options of a teacher that gets images of `side` pixels, normalised for ImageNet."""
        found: dict[str, Any] = {}
        if self.size is not None and self.size not in (side, (side, side)):
            found["input_size"] = self.size if isinstance(self.size, int) else list(self.size)
        if self.mean is not None and self.std is not None:
            usual = (*IMAGENET_MEAN, *IMAGENET_STD)
            if not np.allclose((*self.mean, *self.std), usual, atol=1e-3):
                found |= {"mean": list(self.mean), "std": list(self.std)}
        return found


@dataclass(frozen=True)
class Teacher:
    """A teacher.

    Attributes:
        shown: what it is, for messages.
        network: its registered name, such as ``ResNet50_vd`` or ``OnnxModel``.
        node: its entry in ``Arch.models``, with weights; None if it has yet to be trained.
        classes: number of its classes; None if it has yet to be trained.
        names: names of its classes; None if they are unknown.
        preprocessing: how it wants its images.
        notes: sentences about what is assumed.
    """

    shown: str
    network: str
    node: Node | None = None
    classes: int | None = None
    names: tuple[str, ...] | None = None
    preprocessing: Preprocessing = Preprocessing()
    notes: tuple[str, ...] = ()

    def check_classes(self, names: Sequence[str]) -> None:
        """Raise an error if it answers about other classes than these.

        Args:
            names: names of the classes of the data, in order.

        Raises:
            ConfigError: if their number, their names or their order differ.
        """
        if self.classes is not None and self.classes != len(names):
            raise ConfigError(
                f"teacher: {self.shown} has {self.classes} classes, and the data have {len(names)}. Name the "
                "network alone (`ppcls models` lists all), then it is trained on your classes first"
            )
        ours, theirs = list(names), list(self.names or names)
        if ours == theirs or all(name.isdecimal() for name in ours) or all(n.isdecimal() for n in theirs):
            return
        place = next(i for i, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other)
        order = "the same classes in another order" if sorted(ours) == sorted(theirs) else "other classes"
        raise ConfigError(
            f"teacher: {self.shown} was trained on {order}: class {place} is {theirs[place]!r} there and "
            f"{ours[place]!r} in the data"
        )


def find_teacher(given: str | os.PathLike[str], network: str | None = None) -> Teacher:
    """Return the teacher that a text names.

    Args:
        given: a registered network, a weights file, the folder of a run, an ONNX file, or an exported folder.
        network: the registered network of a weights file.

    Raises:
        ConfigError: if there is none, with the nearest name; or if it does not take colour images.
        WeightsError: if a file cannot be read.
    """
    text = os.fspath(given)
    path = Path(text).expanduser()
    if network is not None:
        return _from_weights(_known(network), find_file(text, "teacher"))
    if text in network_names():
        return Teacher(text, text)
    if path.is_dir():
        return _from_folder(path)
    if path.suffix == ".onnx":
        return _from_onnx(path)
    if path.name in _EXPORTED and path.is_file():
        return _from_export(path.parent)
    try:
        file = find_file(text, "teacher")
    except WeightsError as error:
        if os.sep in text or path.suffix:
            raise
        raise ConfigError(
            f"teacher: {text!r} is no network, and there is no such file or folder."
            f"{hint(text, network_names())} `ppcls models` lists all networks"
        ) from error
    if not file.name.endswith(_WEIGHTS):
        raise ConfigError(f"teacher: {file} is not a weights file ({', '.join(_WEIGHTS)}) or an ONNX file")
    if is_run(file.parent):
        return _from_run(read_run(file.parent), file.stem)
    raise ConfigError(
        f"teacher: which network are the weights {file} for? Say it with --teacher-network NAME"
    )


def _known(network: str) -> str:
    if network not in network_names():
        raise ConfigError(f"teacher_network: unknown network {network!r}.{hint(network, network_names())}")
    return network


def _from_folder(folder: Path) -> Teacher:
    if is_run(folder):
        return _from_run(read_run(folder), BEST)
    if any((folder / name).is_file() for name in _EXPORTED):
        return _from_export(folder)
    inside = find_runs(folder)
    if inside:
        shown = ", ".join(map(str, inside[:8]))
        raise ConfigError(f"teacher: {folder} is not the folder of a run; it holds {shown}")
    raise ConfigError(f"teacher: {folder} is neither the folder of a run nor that of an exported network")


def _from_weights(network: str, file: Path) -> Teacher:
    return Teacher(f"{network} ({file})", network, {"name": network, "pretrained": str(file.absolute())})


def _from_run(run: RunFolder, which: str) -> Teacher:
    """Return the network that a run deploys, with its weights."""
    shape = run.settings.get("image_shape") or [_CHANNELS, None, None]
    if shape[0] != _CHANNELS:
        raise ConfigError(f"teacher: {run.folder} takes images of {shape[0]} channels, expected {_CHANNELS}")
    spec = run.arch.main
    weights = run.weights(which)
    if f"{weights.name}_student" in run.tags():
        weights = weights.with_name(f"{weights.name}_student")  # that network alone
    options = without_weights(spec.node())
    node = {key: value for key, value in options.items() if key not in _FEATURES}
    node |= {"class_num": spec.class_count, "pretrained": str(weights.absolute())}
    names = run.class_names
    return Teacher(
        f"{spec.name} of the run {run.folder}",
        spec.name,
        node,
        spec.class_count,
        None if names is None else tuple(names),
        Preprocessing(_side(shape), *_normalization(_evaluation_chain(run))),
    )


def _side(shape: Sequence[int | None]) -> int | tuple[int, int] | None:
    """Return the size of images [..., height, width]: one number for a square; None if it is open."""
    height, width = shape[-2:]
    if height is None or width is None:
        return None
    return height if height == width else (height, width)


def _evaluation_chain(run: RunFolder) -> Any:
    node: Any = run.config
    for step in ("DataLoader", "Eval", "dataset", "transform_ops"):
        node = node.get(step) if isinstance(node, Mapping) else None
    return node


def _normalization(chain: Any) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return mean and standard deviation for pixels of 0 to 1; None if a chain does not say them."""
    for entry in chain if isinstance(chain, list) else []:
        name, options = single(entry, "transform_ops")
        if name != "NormalizeImage":
            continue
        scale = options.get("scale")
        factor = float(evaluate(scale) if isinstance(scale, str) else 1 / 255 if scale is None else scale)
        mean, std = (
            np.resize(np.asarray(usual if options.get(key) is None else options[key], float), _CHANNELS)
            for key, usual in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
        )
        return tuple((mean / (255 * factor)).tolist()), tuple((std / (255 * factor)).tolist())
    return None, None


def _from_export(folder: Path) -> Teacher:
    """Return the network in a folder for Paddle Inference."""
    files = find_program(folder)
    node: Node = {"name": "PaddleInferenceModel", "path": str(folder.absolute())}
    shown = f"the exported network {folder}"
    if files.description is None:
        note = f"{folder} has no {DESCRIPTION}: its images are assumed to be normalised as for ImageNet."
        return Teacher(shown, node["name"], node, notes=(note,))
    content = read_description(files.description)
    about = content["Global"]
    shape = about.get("image_shape") or [_CHANNELS, None, None]
    if shape[0] != _CHANNELS:
        raise ConfigError(f"teacher: {shown} takes images of {shape[0]} channels, expected {_CHANNELS}")
    preprocess = content.get("PreProcess")
    chain = preprocess.get("transform_ops") if isinstance(preprocess, Mapping) else None
    return Teacher(
        shown,
        node["name"],
        node,
        about.get("class_num"),
        _described_names(content),
        Preprocessing(_side(shape), *_normalization(chain)),
    )


def _described_names(content: Mapping[str, Any]) -> tuple[str, ...] | None:
    post = content.get("PostProcess")
    for options in post.values() if isinstance(post, Mapping) else ():
        if isinstance(options, Mapping) and isinstance(options.get("label_list"), list):
            return tuple(map(str, options["label_list"]))
    return None


def _from_onnx(file: Path) -> Teacher:
    """Return the network in an ONNX file; a trial tells its classes and whether it ends with softmax."""
    if not file.is_file():
        raise WeightsError(f"teacher: {file}: there is no such file")
    if is_our_onnx(file):
        described = _from_export(file.parent)
    else:
        note = f"{file}: its images are assumed to be normalised as for ImageNet."
        described = Teacher("", "", notes=(note,))
    program = OnnxProgram(file, cpu_threads())
    shape = program.input_shape
    if len(shape) != 4 or shape[1] not in (None, _CHANNELS):
        raise ConfigError(
            f"teacher: {file} takes an input of the shape {shape}, expected images [N, {_CHANNELS}, H, W]"
        )
    size = _side(shape)
    wanted = size or described.preprocessing.size or _USUAL_SIDE
    height, width = (wanted, wanted) if isinstance(wanted, int) else wanted
    noise = np.random.default_rng(0).standard_normal((2, _CHANNELS, height, width)).astype(np.float32)
    answer = program(noise)
    if answer.ndim != 2:
        raise ConfigError(f"teacher: {file} gives an output of the shape {list(answer.shape)}, not logits")
    node: Node = {"name": "OnnxModel", "path": str(file.absolute())}
    if (answer >= 0).all() and np.allclose(answer.sum(axis=1), 1, atol=1e-3):
        node["probabilities"] = True
    preprocessing = replace(described.preprocessing, size=size or described.preprocessing.size)
    shown = f"the ONNX model {file}"
    return Teacher(shown, "OnnxModel", node, answer.shape[1], described.names, preprocessing, described.notes)


def is_our_onnx(file: Path) -> bool:
    """Tell whether an ONNX file is a part of an export, whose description tells how it wants its images."""
    if file.name != "inference.onnx" or not (file.parent / DESCRIPTION).is_file():
        return False
    try:
        find_program(file.parent)
    except PpclsError:
        return False
    return True


def check_weights(teacher: Teacher, class_num: int) -> None:
    """Load the weights of a teacher once, so that wrong ones are found before anything is trained.

    Raises:
        WeightsError: if they do not fit, their number of classes included.
    """
    if teacher.node is None or "pretrained" not in teacher.node:
        return
    node = {**teacher.node, "class_num": class_num}
    weights = node.pop("pretrained")
    for option in ("mean", "std", "input_size"):
        node.pop(option, None)
    try:
        build_trained_model(ArchSpec.read(node), None, weights, "distill")
    except WeightsError as error:
        advice = "A teacher has to know the classes of the data; the name of a network alone trains one"
        raise WeightsError(f"teacher: {error}\n  {advice}") from error

"""What a call asks for, and the project that is written for it: once, also if the call is repeated."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from paddle import nn

from ppcls.config.nodes import Node
from ppcls.distilling.find_teacher import find_teacher
from ppcls.distilling.teacher import Teacher, check_weights
from ppcls.engine.export import export_network
from ppcls.errors import ConfigError, DataError, PpclsError
from ppcls.files import require_writable, write_atomic
from ppcls.logger import LOGGER
from ppcls.project import (
    DEFAULT_METHOD,
    DataSummary,
    Project,
    check_choices,
    check_folder,
    finish_project,
    inspect_data,
    is_project,
    plan,
    read_project,
    write_project,
)
from ppcls.project.sources import find_source
from ppcls.project.summary import check_split
from ppcls.registry import BACKBONES
from ppcls.weights.parameter_files import SUFFIXES

DEFAULT_FOLDER = "distilled"
_RECORD = "distill.json"
_IMAGES = "images"  # their number, in the record
_LAYER = "teacher"  # folder of a teacher that was given as a layer
_FITS = 1.1  # images may be enlarged by so much for a teacher's size


@dataclass(frozen=True)
class Request:
    """What to distill, apart from where; see :func:`ppcls.distill`."""

    data: str
    teacher: str | None = None
    teacher_network: str | None = None
    student: str | None = None
    method: str = DEFAULT_METHOD
    image_size: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    val: float = 0.2
    seed: int | None = None
    image_root: str | None = None
    from_scratch: bool = False

    @property
    def absolute(self) -> Request:
        """The same, with paths that hold in every working folder."""
        teacher = self.teacher
        named = self.teacher_network is None and teacher in BACKBONES
        if teacher is not None and not named and _is_file_or_folder(teacher):
            teacher = _absolute(teacher)
        root = None if self.image_root is None else _absolute(self.image_root)
        return replace(self, data=_absolute(self.data), teacher=teacher, image_root=root)


def _is_file_or_folder(path: str) -> bool:
    """Tell whether a path, or a weights file of that name without its suffix, is there."""
    path = os.path.expanduser(path)
    return any(os.path.exists(f"{path}{suffix}") for suffix in ("", *SUFFIXES))


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def open_project(request: Request, out: str | os.PathLike[str] | None, layer: nn.Layer | None) -> Project:
    """Return the project for a request; it is written if this was not done before.

    Args:
        request: what to distill; its data may be a project of ``ppcls init``.
        out: folder of the project.
        layer: the teacher, if it is a layer.

    Raises:
        ConfigError: if the options contradict each other, or the project of another call.
        DataError: if the data cannot be trained on.
        WeightsError: if weights of the teacher cannot be read or do not fit.
    """
    if is_project(request.data):
        _require_nothing_else(request, out, layer)
        return read_project(request.data)
    check_choices(
        None,
        request.student,
        request.method,
        image_size=request.image_size,
        epochs=request.epochs,
        batch_size=request.batch_size,
    )
    folder = Path(_absolute(os.fspath(out or DEFAULT_FOLDER)))
    if layer is not None:
        request = replace(request, teacher=f"layer {digest_of(layer)}")
    elif request.teacher is not None:
        request = replace(request, teacher=os.fspath(request.teacher))
    record = _read_record(folder / _RECORD)
    if record is not None:
        _require_same(request, record, folder)
        if finish_project(folder):
            _warn_of_changed_data(request, record, folder)
            return read_project(folder)
    elif is_project(folder):
        raise ConfigError(
            f"out: {folder} holds a project; `ppcls distill {folder}` runs it, or choose another --out"
        )
    return _write(request, folder, layer)


def _require_nothing_else(request: Request, out: object, layer: nn.Layer | None) -> None:
    """Raise an error for options that the recipes of a project have decided already."""
    usual = Request(request.data)
    given = [name for name, value in asdict(request).items() if value != getattr(usual, name)]
    given += ["teacher"] if layer is not None else []
    given += ["out"] if out is not None else []
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ConfigError(
            f"{options}: {request.data} is a project, whose recipes have decided that; change the recipes, "
            "or use -o"
        )


def _read_record(file: Path) -> dict[str, object] | None:
    try:
        found = json.loads(file.read_bytes().decode())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is damaged ({error}); delete it, or choose another --out") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{file} is damaged; delete it, or choose another --out")
    return found


def _require_same(request: Request, record: dict[str, object], folder: Path) -> None:
    """Raise an error if a folder holds the project of a call that asked for something else."""
    now = asdict(request.absolute)
    changed = [
        f"{name}: was {record.get(name)!r}, is {value!r}"
        for name, value in now.items()
        if record.get(name, getattr(Request(""), name)) != value
    ]
    if changed:
        raise ConfigError(
            f"out: {folder} holds the distillation of another call:\n  " + "\n  ".join(changed) + "\nChoose "
            f"another --out; or run what is there with `ppcls distill {folder}`"
        )


def _warn_of_changed_data(request: Request, record: dict[str, object], folder: Path) -> None:
    """Log a warning if images were added or removed since the project was written."""
    before = record.get(_IMAGES)
    try:
        source = find_source(request.data, request.image_root)
    except DataError:
        return  # what is finished needs no images; a training will say what is missing
    now = len(source.train) + len(source.val or ())
    if isinstance(before, int) and now != before:
        LOGGER.warning(
            "%s has %d images now, and had %d when %s was written: what is finished is not trained again, "
            "and lists in that folder stay as they are. Choose another --out to use the images of now",
            *(request.data, now, before, folder),
        )


def _write(request: Request, folder: Path, layer: nn.Layer | None) -> Project:
    """Look at the data, find the teacher, check both, and write the project."""
    require_writable(folder, "out")
    if request.teacher_network is not None and (request.teacher is None or layer is not None):
        raise ConfigError(
            f"teacher_network: {request.teacher_network} is for a weights file, and the teacher is none; "
            "a network that is to be trained is named by teacher alone"
        )
    given = None if layer is not None or request.teacher is None else request.teacher
    teacher = None if given is None else find_teacher(given, request.teacher_network, request.image_size)
    check_split(request.val, request.seed or 0)
    # The split stays the same for every seed, so that `compare` may put runs of several seeds together.
    summary = inspect_data(request.data, val=request.val, image_root=request.image_root, out=folder)
    LOGGER.info("%s\n%s", request.data, summary.describe())
    check_folder(summary, folder, overwrite=False)
    side = request.image_size or (None if teacher is None else _side_of(teacher, summary))
    if teacher is not None:
        teacher.check_classes(summary.class_names)
        check_weights(teacher, summary.class_num)
    node = None if teacher is None or teacher.node is None else dict(teacher.node)
    if layer is not None:
        node = {"name": "PaddleInferenceModel", "path": str(folder / _LAYER)}
    chosen = plan(
        summary,
        teacher=None if teacher is None else teacher.network,
        student=request.student,
        method=request.method,
        image_size=side,
        epochs=request.epochs,
        batch_size=request.batch_size,
        teacher_node=node,
        from_scratch=request.from_scratch,
    )
    if teacher is not None and node is not None:
        node |= teacher.preprocessing.options(chosen.image_size)
        chosen = replace(chosen, teacher_node=node, notes=[*chosen.notes, *teacher.notes, *_resized(node)])
    for note in chosen.notes:
        LOGGER.warning("%s", note)
    record = {**asdict(request.absolute), _IMAGES: len(summary.train) + len(summary.val)}
    text = json.dumps(record, indent=1) + "\n"
    if layer is not None:
        _check_layer(layer, chosen.image_size, summary)
    write_atomic(folder / _RECORD, lambda stream: stream.write(text.encode()))
    if layer is not None:
        _export_layer(layer, folder / _LAYER, chosen.image_size, summary)
    project = write_project(summary, chosen, folder)
    LOGGER.info("recipes: %s", folder)
    return project


def _side_of(teacher: Teacher, summary: DataSummary) -> int | None:
    """Return the image size of a teacher, if the images are large enough for it."""
    size = teacher.preprocessing.size
    return size if isinstance(size, int) and size <= _FITS * summary.short_side else None


def _resized(node: Node) -> list[str]:
    if "input_size" not in node:
        return []
    return [
        f"The teacher takes images of {node['input_size']} pixels; those of the student are resized for it."
    ]


# ---------------------------------------------------------------- a layer as the teacher


def digest_of(layer: nn.Layer) -> str:
    """Return what tells a layer from another: its class and its parameters."""
    digest = hashlib.sha256(type(layer).__qualname__.encode())
    for name, value in sorted(layer.state_dict().items()):
        array = np.ascontiguousarray(value.numpy())
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def _check_layer(layer: nn.Layer, side: int, summary: DataSummary) -> None:
    """Raise an error if a layer does not answer with logits of these classes."""
    import paddle

    modes = [part.training for part in layer.sublayers(include_self=True)]
    layer.eval()
    try:
        with paddle.no_grad():
            answer = layer(paddle.zeros([2, 3, side, side]))
    except (ValueError, RuntimeError, TypeError) as error:
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise ConfigError(
            f"teacher: the layer cannot run on images [2, 3, {side}, {side}]: {reason[0]}"
        ) from error
    finally:
        for part, mode in zip(layer.sublayers(include_self=True), modes, strict=True):
            part.training = mode
    logits = answer.get("logits") if isinstance(answer, dict) else answer
    shape = list(getattr(logits, "shape", []))
    if shape != [2, summary.class_num]:
        raise ConfigError(
            f"teacher: the layer gives {shape or type(logits).__name__} for two images, expected logits "
            f"[2, {summary.class_num}], one number for each class of the data"
        )


def _export_layer(layer: nn.Layer, folder: Path, side: int, summary: DataSummary) -> None:
    """Write a layer as a program, so that recipe and resume do not need the Python code of it."""
    about = {"model_name": type(layer).__name__, "class_num": summary.class_num}
    try:
        export_network(
            layer, folder, (3, side, side), formats="paddle", softmax=False, inference_yml={"Global": about}
        )
    except PpclsError as error:
        raise type(error)(f"teacher: {error}") from error

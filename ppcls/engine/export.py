"""Write a network for deployment, and compare the written files with the network in memory."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F
from paddle.pir_utils import DygraphOldIrGuard

from ppcls.arch import TheseusLayer
from ppcls.arch.foreign import OnnxModel
from ppcls.class_names import find_class_names
from ppcls.config import dump_yaml, plain, single
from ppcls.deploy.description import describe_transforms
from ppcls.errors import ConfigError, TrainingError
from ppcls.onnx_program import onnx_digest
from ppcls.runtime import DESCRIPTION, ONNX, PARAMS, Program, export_files, fingerprint

LOGGER = logging.getLogger("ppcls.export")
TOLERANCE = 1e-4

# Program of each format and its other files. Both formats read the same parameters file.
_FILES = {
    "paddle": ("inference.json", PARAMS),
    "legacy": ("inference.pdmodel", PARAMS, f"{PARAMS}.info"),
}
_OPSET = 17


@dataclass(frozen=True)
class ExportedFiles:
    """The written files, and how exactly they reproduce the network.

    Attributes:
        folder: folder of the files.
        files: names of the files.
        differences: largest absolute difference of an output, by program and way of running it.
    """

    folder: Path
    files: tuple[str, ...]
    differences: Mapping[str, float]

    def __str__(self) -> str:
        checks = ", ".join(f"{name} {value:.1e}" for name, value in self.differences.items())
        return f"exported {', '.join(self.files)} to {self.folder}; largest difference from memory: {checks}"


class _Deployed(nn.Layer):
    """The network as it is deployed: one output, [N, classes]."""

    def __init__(self, net: nn.Layer, softmax: bool) -> None:
        super().__init__()
        self.net = net
        self.softmax = softmax

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        out = self.net(x)
        if isinstance(out, dict) and "logits" not in out:
            raise ConfigError(
                f"export writes one network, and this one returns {', '.join(out)}; "
                "name one with -o Arch.infer_model_name=..."
            )
        logits = out["logits"] if isinstance(out, dict) else out
        return F.softmax(logits, axis=-1) if self.softmax else logits


def export_network(
    net: nn.Layer,
    out_dir: str | os.PathLike[str],
    image_shape: tuple[int, ...],
    *,
    formats: Literal["paddle", "legacy", "both"] = "paddle",
    onnx: bool = False,
    softmax: bool = True,
    sample: np.ndarray | None = None,
    inference_yml: Mapping[str, Any] | None = None,
) -> ExportedFiles:
    """Write `net` to `out_dir` in eval mode, check the files, and only then replace older ones.

    Layers with a method ``reparameterize`` train in one form and are deployed in a simpler, equivalent one;
    they are written in the simpler form. `net` itself is not changed.

    Args:
        net: a single network with weights; features that it returns are not exported. Its train and eval
            modes are restored.
        out_dir: folder; files of an earlier export in it are replaced, others stay.
        image_shape: [C, H, W] of one input; the number of images stays open.
        formats: ``paddle`` (Paddle 3: inference.json), ``legacy`` (inference.pdmodel) or ``both``, which
            share one inference.pdiparams.
        onnx: write inference.onnx too, which holds its own parameters. Needs the extra ``onnx``.
        softmax: end with probabilities instead of logits.
        sample: images to check with, [N, C, H, W], transformed; random numbers if None.
        inference_yml: the description of the deployed network (Global, PreProcess, PostProcess); the file of
            class names that it mentions is copied into the same folder.

    Raises:
        ConfigError: if the network cannot be exported in this form.
        TrainingError: if the outputs of a written program differ from the network by more than 1e-4.
    """
    if formats not in ("paddle", "legacy", "both"):
        raise ConfigError(f"Global.export_format: {formats!r}; expected paddle, legacy or both")
    chosen = list(_FILES) if formats == "both" else [formats]
    target = Path(out_dir)
    with _new_files(target) as folder, _eval_mode(net):
        deployed = _Deployed(net, softmax)
        deployed.eval()
        if sample is None:
            sample = _random_sample(net, image_shape)
        expected = _run_in_memory(deployed, sample)
        _check_classes(expected, (inference_yml or {}).get("Global") or {})
        simple = _Deployed(_reparameterized(net), softmax)
        for name in chosen:
            _write_program(simple, image_shape, name, folder)
        programs = [_FILES[name][0] for name in chosen]
        if onnx:
            _write_onnx(simple, image_shape, folder)
            programs.append(ONNX)
        differences = _check(folder, programs, sample, expected, deployed)
        _write_description(folder, inference_yml or {}, image_shape, softmax)
        names = sorted(path.name for path in folder.iterdir())
    report = ExportedFiles(target, tuple(names), differences)
    LOGGER.info("%s", report)
    return report


@contextlib.contextmanager
def _new_files(target: Path) -> Iterator[Path]:
    """Yield a folder for the new files, which replace those of an earlier export if nothing fails."""
    try:
        with export_files(target).replacing() as folder:
            yield folder
    except OSError as error:
        raise ConfigError(f"cannot write to {target}: {error.strerror or error}") from error


@contextlib.contextmanager
def _eval_mode(net: nn.Layer) -> Iterator[None]:
    """Set eval mode, and restore the mode of every layer afterwards."""
    layers = net.sublayers(include_self=True)
    modes = [layer.training for layer in layers]
    net.eval()
    try:
        yield
    finally:
        for layer, mode in zip(layers, modes, strict=True):
            layer.training = mode


def _check_classes(output: np.ndarray, described: Mapping[str, Any]) -> None:
    """Raise an error if the network does not return one number per class."""
    classes = described.get("class_num")
    if output.ndim != 2 or classes not in (None, output.shape[1]):
        wanted = "classes" if classes is None else classes
        raise ConfigError(
            f"export: the network gives {list(output.shape[1:])} numbers for an image, expected [{wanted}]; "
            "stop_after ends a network before its classifier"
        )


def _random_sample(net: nn.Layer, image_shape: tuple[int, ...]) -> np.ndarray:
    """Return two images of noise, weak enough that probabilities are not all 0 and 1.

    Such probabilities would be equal even if the networks differ.
    """
    noise = np.random.default_rng(0).standard_normal((2, *image_shape)).astype(np.float32)
    probabilities = _Deployed(net, softmax=True)
    for scale in (1.0, 0.1, 0.01):
        sample = noise * np.float32(scale)
        if _run_in_memory(probabilities, sample).max() < 0.99:
            break
    return np.asarray(sample)


def _reparameterized(net: nn.Layer) -> nn.Layer:
    """Return the network in its form for deployment; a copy if that is a different form."""
    if not any(hasattr(layer, "reparameterize") for layer in net.sublayers(include_self=True)):
        return net
    net = copy.deepcopy(net)
    if isinstance(net, TheseusLayer):
        net.update_res([])  # a branch whose output is returned would be missing
    for layer in net.sublayers(include_self=True):
        if hasattr(layer, "reparameterize"):
            layer.reparameterize()
    return net


def _run_in_memory(deployed: nn.Layer, sample: np.ndarray) -> np.ndarray:
    with paddle.no_grad():
        return np.asarray(deployed(paddle.to_tensor(sample)).numpy())


def _write_program(deployed: _Deployed, image_shape: tuple[int, ...], name: str, folder: Path) -> None:
    """Trace `deployed` and save it in format `name`; refuse two formats that need different parameters."""
    part = folder / name
    _trace(deployed, image_shape, name, part)
    for file in _FILES[name]:
        made = part / file
        place = folder / file
        # Parameters are stored by position, so one file serves two programs only if it is the same file.
        if place.exists() and place.read_bytes() != made.read_bytes():
            raise ConfigError(
                "Global.export_format: both: this network's two formats order their parameters differently; "
                "export them one after the other into two folders"
            )
        os.replace(made, place)
    shutil.rmtree(part)


def _trace(deployed: _Deployed, image_shape: tuple[int, ...], name: str, part: Path) -> None:
    """Write the program of `deployed` and its parameters into the folder `part`."""
    spec = [paddle.static.InputSpec([None, *image_shape], "float32", name="x")]
    with DygraphOldIrGuard() if name == "legacy" else contextlib.nullcontext():
        inner = _Deployed(deployed.net, deployed.softmax)
        inner.eval()
        try:
            static = paddle.jit.to_static(inner, input_spec=spec, full_graph=True)
            paddle.jit.save(static, str(part / "inference"))
        except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
            raise ConfigError(_why_not(name, error)) from error


def _write_onnx(deployed: _Deployed, image_shape: tuple[int, ...], folder: Path) -> None:
    """Convert the program of `deployed` to ``inference.onnx``."""
    try:
        import paddle2onnx
    except ImportError as error:
        raise ConfigError(
            f"Global.export_onnx: it needs paddle2onnx ({error}); install it with pip install 'ppcls[onnx]' "
            "(it has no build for Python 3.13)"
        ) from None
    part = folder / "onnx"
    _trace(deployed, image_shape, "paddle", part)
    try:
        # Without an optimize_tool: the default would let polygraphy install packages by itself.
        paddle2onnx.export(
            str(part / "inference.json"),
            str(part / PARAMS),
            str(folder / ONNX),
            opset_version=_OPSET,
            optimize_tool="None",
        )
    except (RuntimeError, ValueError, UnboundLocalError) as error:
        # It prints its own errors, and goes on until it misses its own result: UnboundLocalError.
        raise ConfigError("Global.export_onnx: paddle2onnx cannot convert this network, see above") from error
    shutil.rmtree(part)


def _why_not(name: str, error: Exception) -> str:
    text = str(error).strip().splitlines()
    reason = text[-1].strip() if text else type(error).__name__
    if name == "legacy" and "must be Value" in str(error):
        return (
            "Global.export_format: the network calls a function that Paddle 3 cannot write in the legacy "
            f"format ({reason}); use an operator or layer in its place, or export_format: paddle"
        )
    return f"this network cannot be traced for export ({name}): {reason}"


def _check(
    folder: Path, programs: list[str], sample: np.ndarray, expected: np.ndarray, deployed: nn.Layer
) -> dict[str, float]:
    """Run each program on the batch and on only its first image, exactly and with default settings."""
    differences = {}
    tolerance = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    for title, run in _runs(folder, programs):
        both = [(run(sample), expected), (run(sample[:1]), expected[:1])]
        worst = max(float(np.abs(got - want).max()) for got, want in both)
        if not worst <= tolerance:  # also false for NaN
            why = _unstable(deployed, sample, expected, tolerance)
            raise TrainingError(
                f"export: {title} differs from the network in memory by {worst:.3g} "
                f"(limit {tolerance:.1g}); nothing was written{why}"
            )
        differences[title] = worst
    return differences


def _unstable(deployed: nn.Layer, sample: np.ndarray, expected: np.ndarray, tolerance: float) -> str:
    """Return an explanation if the network in memory is random or amplifies rounding errors."""
    if not (_run_in_memory(deployed, sample) == expected).all():
        return ". The network in memory itself gives another answer at every call"
    noise = np.random.default_rng(0).standard_normal(sample.shape).astype(np.float32)
    moved = float(np.abs(_run_in_memory(deployed, sample * (1 + np.float32(1e-7) * noise)) - expected).max())
    if moved <= tolerance:
        return ""
    return (
        f". The network in memory itself moves by {moved:.3g} when its input changes by 1e-7 of its size: "
        "its weights are untrained, or training has diverged"
    )


def _runs(folder: Path, programs: list[str]) -> Iterator[tuple[str, Callable[[np.ndarray], np.ndarray]]]:
    """Yield a function for each program and each way to run it."""
    for program in programs:
        if program == ONNX:
            model = OnnxModel(path=str(folder / program))
            model.eval()
            yield f"{program} with ONNX Runtime", partial(_run_in_memory, model)
            continue
        yield program, Program(folder / program, mkldnn=False)
        yield f"{program} with oneDNN", Program(folder / program, mkldnn=True)


def _write_description(
    folder: Path, description: Mapping[str, Any], image_shape: tuple[int, ...], softmax: bool
) -> None:
    """Write inference.yml, and next to it the file of class names if the post-processing reads one."""
    content = plain(description)
    if content.get("PreProcess"):
        content |= describe_transforms(content["PreProcess"]["transform_ops"], image_shape[0])
    content["Global"] = {
        **content.get("Global", {}),
        "image_shape": list(image_shape),
        "softmax": softmax,
        **fingerprint(folder / PARAMS),
    }
    if (folder / ONNX).exists():
        content["Global"]["onnx_sha256"] = onnx_digest(folder / ONNX)
    post = content.get("PostProcess")
    if post:
        name, options = single(post, "PostProcess")
        if options.get("class_id_map_file"):
            source = find_class_names(options["class_id_map_file"])
            options["class_id_map_file"] = source.name
            shutil.copyfile(source, folder / source.name)
        content["PostProcess"] = {name: options}
    (folder / DESCRIPTION).write_text(dump_yaml(content), encoding="utf-8")

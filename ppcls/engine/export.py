"""Write a network for deployment, and compare the written files with the network in memory."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import paddle
from paddle import nn

from ppcls.arch import TheseusLayer
from ppcls.class_names import find_class_names, read_fitting_names
from ppcls.config import dump_yaml, plain
from ppcls.cpu.threads import threads_in_use
from ppcls.deploy.description import describe_postprocess, describe_transforms
from ppcls.engine.onnx_export import write_onnx
from ppcls.engine.tracing import Deployed, trace_program
from ppcls.errors import ConfigError, TrainingError
from ppcls.onnx_program import OnnxProgram, onnx_digest
from ppcls.runtime import DESCRIPTION, ONNX, PARAMS, Program, export_files, fingerprint

LOGGER = logging.getLogger("ppcls.export")
TOLERANCE = 1e-4

# Program of each format and its other files. Both formats read the same parameters file.
_FILES = {
    "paddle": ("inference.json", PARAMS),
    "legacy": ("inference.pdmodel", PARAMS, f"{PARAMS}.info"),
}


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


def export_network(
    net: nn.Layer,
    out_dir: str | os.PathLike[str],
    image_shape: tuple[int, ...],
    *,
    formats: Literal["paddle", "legacy", "both"] = "paddle",
    onnx: bool = False,
    onnx_batch_size: int | None = None,
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
        onnx_batch_size: number of images in a batch of inference.onnx; None leaves it open.
        softmax: end with probabilities instead of logits. A network that ``stop_after`` ends gives features.
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
    if onnx_batch_size is not None and not onnx:
        raise ConfigError("Global.onnx_batch_size: has no effect without Global.export_onnx: True")
    features = isinstance(net, TheseusLayer) and net.ends_early
    output = "features" if features else "probabilities" if softmax else "logits"
    with _new_files(target) as folder, _eval_mode(net):
        deployed = Deployed(net, output)
        deployed.eval()
        if sample is None:
            sample = _random_sample(net, image_shape, output)
        expected = _run_in_memory(deployed, sample)
        content = _described(inference_yml or {}, image_shape, output, expected.shape[1:])
        if not features:
            _check_classes(expected, content["Global"])
        simple = Deployed(_reparameterized(net), output)
        for name in chosen:
            _write_program(simple, image_shape, name, folder)
        programs = [_FILES[name][0] for name in chosen]
        if onnx:
            if onnx_batch_size is not None:
                content["Global"]["onnx_batch_size"] = onnx_batch_size
            write_onnx(
                simple, image_shape, folder, batch=onnx_batch_size, description=_with_label_list(content)
            )
            programs.append(ONNX)
        differences = _check(folder, programs, sample, expected, deployed)
        _write_description(folder, content)
        names = sorted(path.name for path in folder.iterdir())
    report = ExportedFiles(target, tuple(names), differences)
    LOGGER.info("%s", report)
    if features:
        LOGGER.info(
            "stop_after ends this network before its logits: the export gives features, %s for an image "
            "(`ppcls predict --features`)",
            list(expected.shape[1:]),
        )
    return report


@contextlib.contextmanager
def _new_files(target: Path) -> Iterator[Path]:
    """Yield a folder for the new files, which replace those of an earlier export if nothing fails."""
    folder = target
    try:
        with export_files(target).replacing() as folder:
            yield folder
    except OSError as error:
        elsewhere = error.filename is not None and not Path(error.filename).is_relative_to(folder)
        place = error.filename if elsewhere else target
        raise ConfigError(f"cannot write to {place}: {error.strerror or error}") from error


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
            f"export: the network gives {list(output.shape[1:])} numbers for an image, expected [{wanted}]"
        )


def _random_sample(net: nn.Layer, image_shape: tuple[int, ...], output: str) -> np.ndarray:
    """Return two images of noise, weak enough that probabilities are not all 0 and 1.

    Such probabilities would be equal even if the networks differ.
    """
    noise = np.random.default_rng(0).standard_normal((2, *image_shape)).astype(np.float32)
    if output == "features":
        return noise
    probabilities = Deployed(net, "probabilities")
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


def _write_program(deployed: Deployed, image_shape: tuple[int, ...], name: str, folder: Path) -> None:
    """Trace `deployed` and save it in format `name`; refuse two formats that need different parameters."""
    part = folder / name
    trace_program(deployed, image_shape, name, part)
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
            yield f"{program} with ONNX Runtime", OnnxProgram(folder / program, threads_in_use())
            continue
        yield program, Program(folder / program, mkldnn=False)
        yield f"{program} with oneDNN", Program(folder / program, mkldnn=True)


def _described(
    description: Mapping[str, Any], image_shape: tuple[int, ...], output: str, shape: tuple[int, ...]
) -> dict[str, Any]:
    """Return the content of inference.yml, except for what it says about the written files.

    Args:
        description: Global, PreProcess and PostProcess.
        image_shape: [C, H, W].
        output: ``probabilities``, ``logits`` or ``features``.
        shape: of the output for one image.
    """
    content: dict[str, Any] = plain(description)
    if content.get("PreProcess"):
        content |= describe_transforms(content["PreProcess"]["transform_ops"], image_shape[0])
    content["Global"] = {
        **content.get("Global", {}),
        "image_shape": list(image_shape),
        "softmax": output == "probabilities",
        "output": output,
    }
    if content.get("PostProcess"):
        content["PostProcess"], ours = describe_postprocess(content["PostProcess"])
        if ours:
            content["ppcls"] = {**content.get("ppcls", {}), **ours}
    if output == "features":
        content["Global"] |= {"class_num": None, "feature_shape": list(shape)}
        content.pop("PostProcess", None)
    return content


def _with_label_list(content: dict[str, Any]) -> dict[str, Any]:
    """Return a description that needs no file of class names."""
    for name, options in (content.get("PostProcess") or {}).items():
        file = options.get("class_id_map_file")
        if file is not None:
            rest = {k: v for k, v in options.items() if k not in ("class_id_map_file", "delimiter")}
            names = read_fitting_names(file, None, options.get("delimiter"))
            return {**content, "PostProcess": {name: {**rest, "label_list": names}}}
    return content


def _write_description(folder: Path, content: dict[str, Any]) -> None:
    """Write inference.yml, and next to it the file of class names if the post-processing reads one."""
    content["Global"] |= fingerprint(folder / PARAMS)
    if (folder / ONNX).exists():
        content["Global"]["onnx_sha256"] = onnx_digest(folder / ONNX)
    for options in (content.get("PostProcess") or {}).values():
        if options.get("class_id_map_file"):
            source = find_class_names(options["class_id_map_file"])
            options["class_id_map_file"] = source.name
            shutil.copyfile(source, folder / source.name)
    (folder / DESCRIPTION).write_text(dump_yaml(content), encoding="utf-8")

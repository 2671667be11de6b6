"""A network as a program that engines run: traced once, with all its outputs including features."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ppcls._paddle import post_hooks_of, pre_hooks_of, to_static
from ppcls.errors import ConfigError
from ppcls.logger import LOGGER
from ppcls.onnx_program import is_installed
from ppcls.runner import with_these_modules
from ppcls.runtime import ONNX, PARAMS, short_reason
from ppcls.teacher.outputs import Layout, flatten

PROGRAM = "inference.json"
LAYOUT = "layout.json"
# Exceptions of Paddle, and of the code that it traces, for something that a program cannot express.
REFUSALS = (TypeError, ValueError, RuntimeError, NotImplementedError, AttributeError, IndexError, KeyError)
# Without an optimize_tool: the default would let polygraphy install packages by itself.
_CONVERT = """
import sys, paddle2onnx
paddle2onnx.export(*sys.argv[1:], opset_version=17, optimize_tool="None")
"""
_OWN_CODE = ("ppcls.arch", "ppcls.teacher")
_DEPTH = 6


class _Flat(nn.Layer):
    """A network whose output is a list of tensors; the layout is found while it is traced."""

    def __init__(self, network: nn.Layer) -> None:
        super().__init__()
        self.network = network
        self.found: list[Layout] = []

    def forward(self, x: paddle.Tensor) -> list[Any]:
        tensors, layout = flatten(self.network(x), kind=type(x))
        self.found.append(layout)
        return list(tensors)


@dataclass(frozen=True)
class Images:
    """The images that a program accepts.

    Attributes:
        channels: number of channels of an image.
        size: height and width; None for any size.
    """

    channels: int
    size: tuple[int, int] | None

    @property
    def spec(self) -> list[int | None]:
        """The shape of a batch; None for a dimension of any length."""
        return [None, self.channels, *(self.size or (None, None))]


def write_program(network: nn.Layer, images: Images, folder: Path, *, onnx: bool = False) -> None:
    """Write a network in eval mode, with all its outputs, as a program into `folder`.

    Args:
        network: the network to trace, including its hooks; it is not changed.
        images: the images that the program has to accept.
        folder: an empty folder.
        onnx: also write ``inference.onnx``. Needs the extra ``onnx``.

    Raises:
        ConfigError: if the network cannot be traced or converted.
    """
    flat = _Flat(network)
    flat.eval()
    spec = paddle.static.InputSpec(images.spec, "float32", name="x")
    try:
        with paddle.utils.unique_name.guard(), paddle.no_grad():
            static = to_static(flat, input_spec=[spec], full_graph=True)
            paddle.jit.save(static, str(folder / "inference"))
    except (*REFUSALS, ConfigError) as error:
        raise ConfigError(f"it cannot be traced: {short_reason(error)}") from error
    if not flat.found:
        raise ConfigError("it cannot be traced: its code was not run")
    (folder / LAYOUT).write_text(json.dumps(flat.found[-1]), "utf-8")
    if onnx:
        _write_onnx(folder)


def read_layout(folder: Path) -> Layout:
    """Return the layout of the outputs of a program."""
    return json.loads((folder / LAYOUT).read_text("utf-8"))


def can_convert() -> bool:
    """Tell whether networks can be converted for ONNX Runtime, and run there: the extra ``onnx`` is there."""
    return is_installed("paddle2onnx") and is_installed("onnxruntime")


def _write_onnx(folder: Path) -> None:
    """Convert the program in a folder, in a process of its own: paddle2onnx may crash, and prints a lot."""
    if not is_installed("paddle2onnx"):
        raise ConfigError("onnxruntime needs paddle2onnx; install it with pip install 'ppcls[onnx]'")
    files = [str(folder / name) for name in (PROGRAM, PARAMS, ONNX)]
    done = subprocess.run(
        [sys.executable, "-c", _CONVERT, *files],
        env=with_these_modules(os.environ),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode or not (folder / ONNX).is_file():
        LOGGER.debug("paddle2onnx: %s\n%s", done.stdout, done.stderr)
        raise ConfigError(f"paddle2onnx cannot convert it (exit code {done.returncode})")


def fingerprint(network: nn.Layer, images: Images) -> str:
    """Return a hash of everything that a program depends on: weights, structure, code, version of Paddle.

    A difference that the hash misses is found when the first outputs of the program are compared with the
    network's.
    """
    digest = hashlib.sha256()
    known = [paddle.__version__, sys.version_info[:2], images.spec, _sources(network)]
    digest.update(json.dumps([known, _structure(network)], default=repr).encode())
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        values = np.ascontiguousarray(tensor.detach().astype("float32").numpy())
        digest.update(f"{name} {tensor.dtype} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()[:32]


def _structure(network: nn.Layer) -> list[Any]:
    """Describe every layer: its class, its plain attributes and its hooks."""
    return [
        [
            path,
            _qualified(type(layer)),
            {
                key: _plain(value)
                for key, value in sorted(vars(layer).items())
                if key not in _IGNORED_ATTRIBUTES
            },
            [_plain(hook) for hook in pre_hooks_of(layer).values()],
            [_plain(hook) for hook in post_hooks_of(layer).values()],
        ]
        for path, layer in network.named_sublayers(include_self=True)
    ]


# Attributes of a layer that do not affect what it computes, or that are described elsewhere.
_IGNORED_ATTRIBUTES = {
    "training",
    "_full_name",
    "_helper",
    "_parameters",
    "_buffers",
    "_sub_layers",
    "_forward_pre_hooks",
    "_forward_post_hooks",
    "_store",
    "_loaddict_holder",
    "_non_persistable_buffer_names_set",
    "_state_dict_hooks",
    "_original_funcs",
    "_casted_by_pure_fp16",
    "_init_in_dynamic_mode",
    "_answers",
    "answering",
}


def _plain(value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if depth > _DEPTH or isinstance(value, nn.Layer | paddle.Tensor):
        return _qualified(type(value))
    if isinstance(value, np.ndarray):
        return [list(value.shape), hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(inner, depth + 1) for inner in value]
    if inspect.isroutine(value) or inspect.isclass(value):
        return _qualified(value)
    members = getattr(value, "__dict__", {})
    return [_qualified(type(value)), {k: _plain(v, depth + 1) for k, v in sorted(members.items())}]


def _qualified(thing: Any) -> str:
    name = getattr(thing, "__qualname__", type(thing).__qualname__)
    return f"{getattr(thing, '__module__', '')}.{name}"


def _sources(network: nn.Layer) -> dict[str, str]:
    """Return a hash of the code of each module that defines a layer, of `ppcls.arch` and `ppcls.teacher`."""
    names = {type(layer).__module__ for layer in network.sublayers(include_self=True)}
    names |= {name for name in sys.modules if name.startswith(_OWN_CODE)}
    found = {}
    for name in sorted(names):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and not name.startswith("paddle.") and Path(file).is_file():
            found[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return found

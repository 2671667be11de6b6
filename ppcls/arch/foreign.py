"""Teachers in a file: ONNX models of any framework, and folders for Paddle Inference.

They run outside Paddle's graph, so they give no gradients and cannot be trained: they are frozen networks of
a DistillationModel. Checkpoints do not contain them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import Tensor

from ppcls._paddle import pre_hooks_of
from ppcls.arch.base import Network
from ppcls.cpu.threads import threads_in_use
from ppcls.errors import ConfigError, WeightsError, hint
from ppcls.onnx_program import OnnxProgram
from ppcls.registry import BACKBONES
from ppcls.runner import Runner
from ppcls.runtime import (
    DESCRIPTION,
    Program,
    check_params,
    export_files,
    find_program,
    onnx_description,
    read_description,
)

logger = logging.getLogger("ppcls.arch")


class ForeignModel(Network):
    """A network in a file of another program; see `OnnxModel` and `PaddleInferenceModel`.

    Attributes:
        always_frozen: it cannot be trained.
        probabilities: whether the output went through a softmax; None until the first images tell.
        threads: CPU threads; None for as many as Paddle uses.
    """

    always_frozen = True
    threads: int | None
    names_layers = True

    def __init__(
        self,
        path: str,
        logits: str | None,
        probabilities: bool | None,
        return_patterns: list[str] | str | None,
        class_num: int | None,
    ) -> None:
        super().__init__()
        if class_num is not None and class_num < 1:
            raise ConfigError(f"class_num: expected 1 or more, got {class_num}")
        self.class_num = class_num
        self.path = Path(path).expanduser()
        if not self.path.exists():
            raise WeightsError(f"{type(self).__name__}: path: {self.path} does not exist")
        self._logits = logits
        self.probabilities = probabilities
        self._looked = False
        self._patterns: list[str] = []
        if logits is not None:
            self._check(logits)
        self.update_res(return_patterns or [])

    @cached_property
    def _runner(self) -> Runner:
        """The open file; it is opened when it is first needed."""
        return self._open()

    def _open(self) -> Runner:
        raise NotImplementedError

    @property
    def outputs(self) -> list[str]:
        """Names of all outputs of the file, in order, without tensors inside its graph."""
        return [name for name in self._runner.outputs if name not in self.inner_names]

    def update_res(self, return_patterns: str | Sequence[str]) -> list[str]:
        """Set which outputs of the file a forward pass returns in addition to the logits; return them.

        Raises:
            ConfigError: if the file has no such output.
        """
        patterns = [return_patterns] if isinstance(return_patterns, str) else list(return_patterns)
        for pattern in patterns:
            self._check(pattern)
        self._patterns = list(dict.fromkeys(patterns))
        return list(self._patterns)

    def _check(self, name: str) -> None:
        known = [*self._runner.outputs, *self.inner_names]
        if name not in known:
            advice = hint(name, known) or f" It has {', '.join(known[:12])}."
            raise ConfigError(f"{self.path} has no output {name!r}.{advice}")

    @cached_property
    def inner_names(self) -> list[str]:
        """Names of tensors inside the graph, in order, which an ONNX file can return as well."""
        return list(self._runner.layers) if isinstance(self._runner, OnnxProgram) else []

    def inner_layers(self) -> list[tuple[str, str, str]]:
        """Return name, operator and shape for one image of the tensors of `inner_names` that have one."""
        if not isinstance(self._runner, OnnxProgram):
            return []
        kinds = self._runner.layers
        return [(name, kinds[name], str(shape)) for name, shape in self._runner.layer_shapes().items()]

    def forward(self, x: Tensor) -> Any:
        """Run images [N, C, H, W].

        Returns:
            logits [N, classes]; with ``return_patterns`` a map of them and the named outputs.

        Raises:
            ConfigError: if it would train, or runs inside a static graph.
        """
        title = type(self).__name__
        if not paddle.in_dynamic_mode():
            raise ConfigError(f"{title} runs outside Paddle's graph; set Global.to_static to False")
        if self.training and paddle.is_grad_enabled():
            raise ConfigError(f"{title} cannot be trained; freeze it with freeze_params_list")
        return self._answer(self._runner, x)

    def _answer(self, runner: Runner, x: Tensor) -> Any:
        names = [self._logits or runner.outputs[0], *self._patterns]
        values = runner.run(x.numpy(), names)
        if self._logits is None and not self._patterns and values[0].ndim != 2:
            shape = ", ".join(map(str, ["N", *values[0].shape[1:]]))
            raise ConfigError(
                f"the output {names[0]!r} of {self.path} has the shape [{shape}], expected logits "
                "[N, classes]; the option `logits` names another output"
            )
        softmax = self._ends_with_softmax(values[0])
        found = [paddle.to_tensor(value) for value in values]
        # The logarithm gives the logits up to a constant, which neither softmax nor losses on logits depend
        # on.
        logits = found[0].clip(min=np.finfo(np.float32).tiny).log() if softmax else found[0]
        if self.class_num not in (None, logits.shape[-1]):
            found_classes = f"{self.path} knows {logits.shape[-1]} classes"
            raise ConfigError(f"{found_classes}, but class_num is {self.class_num}")
        if not self._patterns:
            return logits
        return {"logits": logits, **dict(zip(self._patterns, found[1:], strict=True))}

    def _ends_with_softmax(self, answer: np.ndarray) -> bool:
        """Tell whether answers [N, classes] are probabilities, and say so where that is not as expected."""
        if self._looked and self.probabilities is not None:
            return self.probabilities
        self._looked = True  # at the first images alone, not at every step
        if self.probabilities is None:
            described = self._described() if self._logits is None else {}
            self.probabilities = bool(described.get("softmax", are_probabilities(answer)))
            if self.probabilities and "softmax" not in described:
                logger.info("%s ends with a softmax: its outputs are probabilities", self.path)
        elif not self.probabilities and are_probabilities(answer):
            logger.warning(
                "%s: its outputs are taken as logits (probabilities: False), but they are probabilities: "
                "none is negative, and those of each image sum to 1",
                self.path,
            )
        return self.probabilities

    def _described(self) -> Mapping[str, Any]:
        """Return what an open file says about itself; empty for files of other programs."""
        return {}


def are_probabilities(answer: np.ndarray) -> bool:
    """Tell whether answers [N, classes] went through a softmax: none is negative, and each row sums to 1."""
    if answer.ndim != 2 or answer.shape[1] < 2 or not len(answer):
        return False
    return bool((answer >= 0).all() and np.allclose(answer.sum(axis=1), 1, atol=1e-3))


@BACKBONES.register()
class OnnxModel(ForeignModel):
    """A frozen teacher in an ONNX file. Needs ONNX Runtime: ``pip install ppcls[onnx]``.

    Args:
        path: the file. Its only input is images [N, C, H, W]; with a fixed batch size it is run several
            times.
        logits: name of the output that is the logits (default: the first), or of a tensor inside the graph.
        probabilities: the output went through a softmax already; its logarithm is taken. Default: what an
            export of ppcls says; for other files, whether the outputs of the first images are probabilities.
        return_patterns: names of further outputs, or of tensors inside the graph, to return together with the
            logits; `ppcls layers` lists them.
        threads: CPU threads (default: as many as Paddle uses).
        class_num: number of classes of the logits; needed if it is the only network of a recipe, as in an
            evaluation of the teacher.

    Raises:
        ConfigError: if ONNX Runtime is not installed, or the file has no tensor of a given name.
        WeightsError: if the file is missing or is not an ONNX model.
    """

    def __init__(
        self,
        *,
        path: str,
        logits: str | None = None,
        probabilities: bool | None = None,
        return_patterns: list[str] | str | None = None,
        threads: int | None = None,
        class_num: int | None = None,
    ) -> None:
        self.threads = threads
        super().__init__(path, logits, probabilities, return_patterns, class_num)

    def _open(self) -> Runner:
        return OnnxProgram(self.path, self.threads or cpu_threads())

    def _described(self) -> Mapping[str, Any]:
        runner = self._runner
        metadata = runner.metadata if isinstance(runner, OnnxProgram) else {}
        return (onnx_description(self.path, metadata) or {}).get("Global", {})

    def update_res(self, return_patterns: str | Sequence[str]) -> list[str]:
        """Set which outputs of the file, or tensors inside its graph, a forward pass returns; return them.

        Raises:
            ConfigError: if the file has no such tensor.
        """
        found = super().update_res(return_patterns)
        wanted = dict.fromkeys(name for name in (self._logits, *found) if name is not None)
        if any(name not in self._runner.outputs for name in wanted):
            inside = [name for name in wanted if name in self.inner_names]  # those of an earlier call too
            self._runner = OnnxProgram(self.path, self.threads or cpu_threads(), inner=inside)
        return found


@BACKBONES.register()
class PaddleInferenceModel(ForeignModel):
    """A frozen teacher in a folder that `ppcls export`, or `paddle.jit.save`, wrote.

    Args:
        path: folder with ``inference.json`` (else ``inference.pdmodel``) and ``inference.pdiparams``.
        logits: name of the output that is the logits (default: the first).
        probabilities: the output went through a softmax already; its logarithm is taken. Default: the
            value in ``inference.yml`` of the folder; without it, as in a folder that PaddleClas exported, or
            with `logits`, whether the outputs of the first images are probabilities.
        return_patterns: names of further outputs to return together with the logits.
        threads: CPU threads (default: as many as Paddle uses).
        class_num: number of classes of the logits; needed if it is the only network of a recipe, as in an
            evaluation of the teacher.

    Raises:
        ConfigError: if the program has no output of a given name.
        WeightsError: if a file is missing or cannot be read.
    """

    def __init__(
        self,
        *,
        path: str,
        logits: str | None = None,
        probabilities: bool | None = None,
        return_patterns: list[str] | str | None = None,
        threads: int | None = None,
        class_num: int | None = None,
    ) -> None:
        self.threads = threads
        described = _description(Path(path).expanduser())
        if probabilities is None and logits is None:
            probabilities = described.get("softmax")
        super().__init__(path, logits, probabilities, return_patterns, class_num)

    def _open(self) -> Runner:
        return self._program("float32")

    def _program(self, precision: str) -> Program:
        files = find_program(self.path)
        check_params(files.params, _description(self.path))
        threads = self.threads or cpu_threads()
        device = paddle.device.get_device()
        return Program(files.program, files.params, device=device, threads=threads, precision=precision)

    def in_precision(self, precision: str) -> Callable[[Tensor], Any]:
        """Return a function that runs images [N, C, H, W] in another precision, and gives what forward gives.

        Args:
            precision: ``float32`` or ``bfloat16``.

        Raises:
            ConfigError: if the device does not compute in it.
            WeightsError: if the program cannot be opened.
        """
        runner = self._program(precision)

        def run(x: Tensor) -> Any:
            for hook in pre_hooks_of(self).values():  # its own normalisation and image size
                (x,) = hook(self, (x,))
            return self._answer(runner, x)

        return run


def cpu_threads() -> int:
    """Return the number of threads for an engine: as many as Paddle uses."""
    return threads_in_use()


def _description(folder: Path) -> dict[str, Any]:
    """Return the section ``Global`` of ``inference.yml`` in a folder; empty if there is no such file."""
    file = export_files(folder).place(DESCRIPTION)
    return read_description(file)["Global"] if file else {}

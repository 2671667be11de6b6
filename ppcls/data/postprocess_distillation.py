"""Post-processing of one network out of several, in the form of PaddleClas's distillation recipes."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from ppcls.config.binding import construct, joined_signature
from ppcls.config.nodes import Options
from ppcls.data.postprocess import PostProcess, Topk
from ppcls.errors import ConfigError
from ppcls.registry import POSTPROCESSES


@POSTPROCESSES.register()
class DistillationPostProcess(PostProcess):
    """The post-process `func` for the network to deploy.

    Only the network to deploy predicts here, so this is the same as naming `func` in the recipe directly.

    Args:
        model_name: the network to deploy, ``Arch.infer_model_name``.
        key: its output; only ``logits``, or null, which means the same.
        func: name of the post-process.
        **options: its options.

    Raises:
        ConfigError: for an unknown `func`, other outputs or options that do not fit.
    """

    def __init__(
        self, model_name: str = "Student", key: str | None = None, func: str = "Topk", **options: Any
    ) -> None:
        name = type(self).__name__
        if key not in (None, "logits"):
            raise ConfigError(
                f"expected logits or null, got {key!r}: probabilities come from it", path=f"{name}.key"
            )
        self._factory(func)
        self.inner = construct(POSTPROCESSES, {func: options}, name)

    def __call__(
        self, probabilities: np.ndarray, file_names: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return the result of `func` for probabilities [N, C]."""
        found: list[dict[str, Any]] = self.inner(probabilities, file_names)
        return found

    @classmethod
    def signature_for(cls, options: Options) -> inspect.Signature:
        """Return what a recipe may set: the options of this class and those of the post-process `func`.

        Raises:
            ConfigError: for an unknown `func`.
        """
        func = options.get("func", "Topk")
        return joined_signature(cls, *([cls._factory(func)] if isinstance(func, str) else []))

    @classmethod
    def _factory(cls, func: str) -> Any:
        if func == cls.__name__:
            raise ConfigError(
                "names itself; expected one for a single network, such as Topk", path=f"{func}.func"
            )
        try:
            return POSTPROCESSES[func]
        except ConfigError as error:
            raise error.below(f"{cls.__name__}.func") from None


def topk_of(postprocess: Any) -> Topk | None:
    """Return the Topk that a post-process is, or that it stands for; None if it is something else."""
    inner = postprocess.inner if isinstance(postprocess, DistillationPostProcess) else postprocess
    return inner if isinstance(inner, Topk) else None

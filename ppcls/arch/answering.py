"""Options of every network for its use as a frozen network: the engine that runs it, and the precision.

They are read when networks are built; `ppcls.teacher` uses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from paddle import nn

from ppcls.errors import ConfigError, hint

Engine = Literal["auto", "eager", "paddle_inference", "onnxruntime"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Answering:
    """How a network that stands still is run; None where nothing was said.

    Attributes:
        engine: ``auto``, ``eager`` (Paddle itself), ``paddle_inference`` or ``onnxruntime``.
        precision: ``float32`` or ``bfloat16``.
    """

    engine: Engine | None = None
    precision: Precision | None = None

    def otherwise(self, default: Answering) -> Answering:
        """Return this with what was not said taken from `default`."""
        return Answering(self.engine or default.engine, self.precision or default.precision)


DEFAULT = Answering("auto", "float32")


def take_answering(options: dict[str, Any]) -> Answering:
    """Remove ``frozen_engine`` and ``frozen_precision`` from the options of a network and return them.

    Raises:
        ConfigError: for a value that is none of the known ones.
    """
    engine = options.pop("frozen_engine", None)
    precision = options.pop("frozen_precision", None)
    _check("frozen_engine", engine, get_args(Engine))
    _check("frozen_precision", precision, get_args(Precision))
    return Answering(engine, precision)


def answering_of(network: nn.Layer) -> Answering:
    """Return what the options of a network said; nothing, if it was built in another way."""
    return vars(network).get("answering", Answering())


def _check(option: str, value: Any, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        advice = hint(str(value), known) or f" Expected {', '.join(known)}."
        raise ConfigError(f"{option}: {value!r} is not known.{advice}")

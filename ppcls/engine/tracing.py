"""From a network in memory to a program: what every exported file begins with."""

from __future__ import annotations

import contextlib
from pathlib import Path

import paddle
from paddle import nn
from paddle.nn import functional as F
from paddle.pir_utils import DygraphOldIrGuard

from ppcls._paddle import to_static
from ppcls.errors import ConfigError

INPUT = "x"  # name of the input of every exported program


class Deployed(nn.Layer):
    """The network as it is deployed, with one output.

    Args:
        net: the network.
        output: ``probabilities`` or ``logits``, [N, classes], or ``features``.
    """

    def __init__(self, net: nn.Layer, output: str) -> None:
        super().__init__()
        self.net = net
        self.output = output

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return the output for images [N, C, H, W]."""
        out = self.net(x)
        if isinstance(out, dict) and "logits" not in out:
            raise ConfigError(
                f"export writes one network, and this one returns {', '.join(out)}; "
                "name one with -o Arch.infer_model_name=..."
            )
        logits = out["logits"] if isinstance(out, dict) else out
        return F.softmax(logits, axis=-1) if self.output == "probabilities" else logits


def trace_program(
    deployed: Deployed, image_shape: tuple[int, ...], name: str, part: Path, batch: int | None = None
) -> None:
    """Write the program of `deployed` and its parameters into the folder `part`.

    Args:
        deployed: the network.
        image_shape: [C, H, W].
        name: of the format, ``paddle`` or ``legacy``.
        part: the folder.
        batch: number of images in a batch; None leaves it open.
    """
    spec = [paddle.static.InputSpec([batch, *image_shape], "float32", name=INPUT)]
    with DygraphOldIrGuard() if name == "legacy" else contextlib.nullcontext():
        inner = Deployed(deployed.net, deployed.output)
        inner.eval()
        try:
            static = to_static(inner, input_spec=spec, full_graph=True)
            paddle.jit.save(static, str(part / "inference"))
        except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
            raise ConfigError(_why_not(name, error)) from error


def _why_not(name: str, error: Exception) -> str:
    text = str(error).strip().splitlines()
    reason = text[-1].strip() if text else type(error).__name__
    if name == "legacy" and "must be Value" in str(error):
        return (
            "Global.export_format: the network calls a function that Paddle 3 cannot write in the legacy "
            f"format ({reason}); use an operator or layer in its place, or export_format: paddle"
        )
    return f"this network cannot be traced for export ({name}): {reason}"

"""Overhaul of feature distillation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import paddle
from paddle import Tensor, nn

from ppcls.errors import ConfigError, hint
from ppcls.loss._select import check_pairs, network_output
from ppcls.loss._tensors import check_positive
from ppcls.loss.base import Loss
from ppcls.loss.dropping import counted
from ppcls.loss.pair import pair_tensors, weighted
from ppcls.loss.shapes import check_sizes, found_size, not_prepared
from ppcls.registry import LOSSES

_RARE = 1e-3  # if negative values are less probable than this, their mean is set to -3 sigma


def negative_mean(weight: Sequence[float], bias: Sequence[float]) -> list[float]:
    """Return the expected value of the negative outputs of a BatchNorm, per channel: Heo et al.

    ``E[x | x < 0]`` of ``x ~ N(bias, weight^2)``, in closed form; -3 |weight| where negative values are rarer
    than 0.001.

    Args:
        weight: scale of the BatchNorm, one number per channel.
        bias: shift of the BatchNorm.
    """
    margins = []
    for scale, mean in zip(weight, bias, strict=True):
        sigma = abs(float(scale))
        if sigma == 0:
            margins.append(min(float(mean), 0.0))
            continue
        z = -float(mean) / sigma
        probability = 0.5 * math.erfc(-z / math.sqrt(2))
        density = math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        margins.append(float(mean) - sigma * density / probability if probability > _RARE else -3 * sigma)
    return margins


def partial_l2(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """Heo et al.: squared differences from ``max(teacher, margin)``, summed over all elements.

    The difference does not count where the target is not positive and the student is below it, because both
    are zero after the ReLU.

    Args:
        student: pre-ReLU features, [N, C, H, W].
        teacher: pre-ReLU features, [N, C, H, W].
        margin: negative, one per channel, [C].

    Returns:
        A scalar.
    """
    target = paddle.maximum(teacher, margin.reshape([1, -1, 1, 1]))
    counts = ((student > target) | (target > 0)).astype(student.dtype)
    return ((student - target).square() * counts).sum()


def _connector(channels_in: int, channels_out: int) -> nn.Sequential:
    init = nn.initializer.KaimingNormal()
    conv = nn.Conv2D(channels_in, channels_out, 1, weight_attr=init, bias_attr=False)
    return nn.Sequential(conv, nn.BatchNorm2D(channels_out))


@LOSSES.register("OFDLoss", aliases=("DistillationOFDLoss",))
class OFDLoss(Loss):
    """Heo et al., "A comprehensive overhaul of feature distillation" (ICCV 2019, arXiv 1904.01866).

    ``sum_i 2^-(n-1-i) * partial_l2(connector_i(student_i), teacher_i, margin_i) / (N * divisor)`` over n
    feature maps taken before their ReLU, from low to high. A connector is a 1x1 convolution with BatchNorm.
    The teacher's BatchNorm runs in train mode in the paper: ``frozen_mode: {Teacher: train}``. Part:
    `name`.

    Args:
        model_name_pair: student and teacher.
        student_keys: pre-ReLU features of the student, such as ``blocks[1].add``.
        teacher_keys: pre-ReLU features of the teacher with the same height and width.
        teacher_bns: for each teacher key the BatchNorm before that ReLU, such as ``blocks[2].conv1.bn``; the
            margins are the means of its negative outputs (:func:`negative_mean`).
        margins: instead of `teacher_bns`: for each teacher key a number or a list with one per channel.
        student_channels: for each student key; null: found by a dry forward.
        teacher_channels: for each teacher key; null: found by a dry forward.
        divisor: 1000 is suitable for images of 32 pixels, 10000 for images of 224 pixels.
        name: name of the part.
    """

    label_free = True
    one_way = True

    def __init__(
        self,
        model_name_pair: list[str],
        student_keys: list[str],
        teacher_keys: list[str],
        teacher_bns: list[str] | None = None,
        margins: list[float | list[float]] | None = None,
        student_channels: list[int] | None = None,
        teacher_channels: list[int] | None = None,
        divisor: float = 1000.0,
        name: str = "loss_ofd",
    ) -> None:
        super().__init__()
        (self.pair,) = check_pairs("OFDLoss", [model_name_pair])
        check_positive("OFDLoss", divisor=divisor)
        if (teacher_bns is None) == (margins is None):
            raise ConfigError(
                "OFDLoss needs either teacher_bns (layers such as blocks[2].conv1.bn) or margins (numbers)"
            )
        self.keys = list(zip(student_keys, teacher_keys, strict=False))
        lists = {
            "student_keys": student_keys,
            "teacher_keys": teacher_keys,
            "teacher_bns": teacher_bns,
            "margins": margins,
            "student_channels": student_channels,
            "teacher_channels": teacher_channels,
        }
        for option, value in lists.items():
            if value is not None and (not value or len(value) != len(teacher_keys)):
                raise ConfigError(
                    f"{len(value)} entries for {len(teacher_keys)} teacher_keys", path=f"OFDLoss.{option}"
                )
        check_sizes("OFDLoss.student_channels", student_channels or [])
        check_sizes("OFDLoss.teacher_channels", teacher_channels or [])
        self.student_channels = student_channels
        self.teacher_channels = teacher_channels
        self.teacher_bns = teacher_bns
        self.divisor = divisor
        self.part = name
        self._margins = None if margins is None else [_margin(m, i) for i, m in enumerate(margins)]
        self.connectors: nn.LayerList | None = None
        if student_channels is not None and teacher_channels is not None:
            self._create(student_channels, teacher_channels)

    def _create(self, student: Sequence[int], teacher: Sequence[int]) -> None:
        pairs = zip(student, teacher, strict=True)
        self.connectors = nn.LayerList([_connector(s, t) for s, t in pairs])

    @property
    def networks(self) -> frozenset[str]:
        """Names of the sub-networks whose outputs are used."""
        return frozenset(self.pair)

    def _features(self, outputs: Mapping[str, Any]) -> list[tuple[Tensor, Tensor]]:
        found = []
        for keys in self.keys:
            s, t = pair_tensors(outputs, self.pair, keys, "OFDLoss")
            if s.ndim != 4 or t.ndim != 4 or list(s.shape[2:]) != list(t.shape[2:]):
                raise ConfigError(
                    f"OFDLoss: {keys[0]} {list(s.shape)} and {keys[1]} {list(t.shape)}, expected "
                    "[N, C, H, W] with equal H and W"
                )
            found.append((s.astype("float32"), t.detach().astype("float32")))
        return found

    def prepare_networks(self, networks: Mapping[str, nn.Layer]) -> None:
        """Read the margins from the teacher's BatchNorm layers, once its weights are loaded.

        Raises:
            ConfigError: if a layer of `teacher_bns` does not exist or is not a BatchNorm.
        """
        if self.teacher_bns is None:
            return
        teacher = network_output(networks, self.pair[1], "OFDLoss")
        layers = dict(teacher.named_sublayers())
        margins = []
        for i, descriptor in enumerate(self.teacher_bns):
            layer = layers.get(descriptor.replace("[", ".").replace("]", ""))
            if layer is None or getattr(layer, "weight", None) is None or not hasattr(layer, "_variance"):
                what = "no sublayer" if layer is None else f"a {type(layer).__name__}, no BatchNorm, at"
                raise ConfigError(
                    f"{self.pair[1]} has {what} {descriptor!r}."
                    f"{hint(descriptor.replace('[', '.').replace(']', ''), layers)}",
                    path=f"OFDLoss.teacher_bns.{i}",
                )
            values = negative_mean(layer.weight.numpy().tolist(), layer.bias.numpy().tolist())
            margins.append(paddle.to_tensor(values, dtype="float32"))
        self._margins = margins

    def prepare(self, outputs: Mapping[str, Any]) -> None:
        """Create the connectors, or check given channel counts, from one dry forward.

        Raises:
            ConfigError: if counts or sizes do not fit.
        """
        features = self._features(outputs)
        given = (self.student_channels, self.teacher_channels)
        student, teacher = (
            [
                found_size(
                    f"OFDLoss.{side}_channels.{i}", channels[i] if channels else None, pair[k].shape[1]
                )
                for i, pair in enumerate(features)
            ]
            for k, (side, channels) in enumerate(zip(("student", "teacher"), given, strict=True))
        )
        if self.connectors is None:
            self._create(student, teacher)

    def forward(self, outputs: Mapping[str, Any], label: Tensor | None = None) -> dict[str, Tensor]:
        """Return ``{name: value}``."""
        if self.connectors is None:
            raise not_prepared("OFDLoss", "student_channels, teacher_channels")
        if self._margins is None:
            raise ConfigError(
                "OFDLoss: the margins of teacher_bns have not been read; use "
                "build_loss(config, outputs=model(images), networks={...})"
            )
        features = self._features(outputs)
        total = 0.0
        for i, (s, t) in enumerate(features):
            share = 0.5 ** (len(features) - 1 - i)
            total = total + share * partial_l2(self.connectors[i](s), t, _per_channel(self._margins[i], t, i))
        value = total / (features[0][0].shape[0] * self.divisor)
        return {self.part: weighted(value, counted(1.0, self.pair[1]))}


def _margin(value: Any, i: int) -> Tensor:
    numbers = value if isinstance(value, list) else [value]
    if any(n > 0 for n in numbers):
        raise ConfigError(f"got {value}, expected numbers of at most 0", path=f"OFDLoss.margins.{i}")
    return paddle.to_tensor(numbers, dtype="float32")


def _per_channel(margin: Tensor, teacher: Tensor, i: int) -> Tensor:
    if margin.shape[0] not in (1, teacher.shape[1]):
        raise ConfigError(
            f"OFDLoss: {margin.shape[0]} margins for the {teacher.shape[1]} channels of key {i}"
        )
    return margin

"""The trained transforms of attention-based feature distillation (AFD).

Ji et al., "Show, Attend and Distill: Knowledge Distillation via Attention-based Feature Matching", AAAI 2021,
arXiv 2102.02973, section 3. They stand behind a backbone in an `AttentionModel`; `AFDLoss` compares what they
give. Queries and keys say which student feature should learn from which teacher feature, values say what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from ppcls.errors import ConfigError, hint
from ppcls.registry import BACKBONES


class LinearBN(nn.Layer):
    """Linear map, BatchNorm and an activation, [N, in_features] to [N, out_features]."""

    def __init__(self, in_features: int, out_features: int, act: nn.Layer | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.bn = nn.BatchNorm1D(out_features)
        self.act = nn.Identity() if act is None else act

    def forward(self, x: Tensor) -> Tensor:
        """Map the features of a batch."""
        return self.act(self.bn(self.linear(x)))


@BACKBONES.register()
class LinearTransformTeacher(nn.Layer):
    """Queries and values of a teacher's features.

    Args:
        qk_dim: length of queries and keys.
        keys: the features to use, as the backbone's output names them.
        t_shapes: the shape [C, H, W] of each.

    Raises:
        ConfigError: if `keys` and `t_shapes` do not match.
    """

    output_keys = ("query", "value")

    def __init__(self, qk_dim: int, keys: list[str], t_shapes: list[list[int]]) -> None:
        super().__init__()
        self.keys = list(keys)
        self.shapes = _shapes("t_shapes", t_shapes)
        _same_length("keys", self.keys, "t_shapes", self.shapes)
        self.query_layer = nn.LayerList([LinearBN(shape[0], qk_dim) for shape in self.shapes])

    def forward(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Return "query" [N, T, qk_dim] and "value", one [N, H * W] for each of the T features."""
        maps = _pick(features, self.keys, "t_shapes", self.shapes)
        query = [layer(map_.mean([2, 3])) for layer, map_ in zip(self.query_layer, maps, strict=True)]
        value = [F.normalize(_energy(map_).flatten(1), axis=1) for map_ in maps]
        return {"query": paddle.stack(query, 1), "value": value}


@BACKBONES.register()
class LinearTransformStudent(nn.Layer):
    """Keys and values of a student's features.

    Args:
        qk_dim: length of queries and keys.
        keys: the features to use, as the backbone's output names them.
        s_shapes: the shape [C, H, W] of each.
        t_shapes: the shapes of the teacher's features.

    Raises:
        ConfigError: if `keys` and `s_shapes` do not match.
    """

    output_keys = ("bilinear_key", "value")

    def __init__(
        self, qk_dim: int, keys: list[str], s_shapes: list[list[int]], t_shapes: list[list[int]]
    ) -> None:
        super().__init__()
        self.keys = list(keys)
        self.shapes = _shapes("s_shapes", s_shapes)
        _same_length("keys", self.keys, "s_shapes", self.shapes)
        teacher = _shapes("t_shapes", t_shapes)
        self.n_teacher = len(teacher)
        self.sizes = list(dict.fromkeys((height, width) for _, height, width in teacher))
        self.key_layer = nn.LayerList([LinearBN(shape[0], qk_dim, nn.ReLU()) for shape in self.shapes])
        self.bilinear = LinearBN(qk_dim, qk_dim * self.n_teacher)

    def forward(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Return "bilinear_key" [N, S, T, qk_dim] and "value".

        "value" holds, for each size H x W that teacher features have, in order of first appearance, the S
        student features at that size, [N, S, H * W].
        """
        maps = _pick(features, self.keys, "s_shapes", self.shapes)
        keys = [layer(map_.mean([2, 3])) for layer, map_ in zip(self.key_layer, maps, strict=True)]
        key = paddle.stack(keys, 1)
        bilinear = self.bilinear(key.flatten(0, 1)).reshape([key.shape[0], len(maps), self.n_teacher, -1])
        value = []
        for size in self.sizes:
            pooled = [F.adaptive_avg_pool2d(_energy(map_), size).flatten(1) for map_ in maps]
            value.append(F.normalize(paddle.stack(pooled, 1), axis=2))
        return {"bilinear_key": bilinear, "value": value}


def _energy(map_: Tensor) -> Tensor:
    """Return the mean square over channels: [N, C, H, W] to [N, 1, H, W]."""
    return map_.square().mean(1, keepdim=True)


def _pick(
    features: Mapping[str, Any], keys: Sequence[str], option: str, shapes: Sequence[tuple[int, int, int]]
) -> list[Tensor]:
    """Return the named features as float32, so that autocast does not lose the squares.

    Raises:
        ConfigError: if one is missing or has another channel count than its shape says.
    """
    maps = []
    for index, key in enumerate(keys):
        if key not in features:
            advice = hint(key, features) or f" There is {', '.join(features)}."
            raise ConfigError(f"keys: there is no feature {key!r}.{advice} Name it in return_patterns")
        map_ = features[key]
        if map_.ndim != 4 or map_.shape[1] != shapes[index][0]:
            raise ConfigError(f"{option}: {key!r} is {list(map_.shape[1:])}, given is {list(shapes[index])}")
        maps.append(map_.astype("float32"))
    return maps


def _shapes(option: str, given: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    shapes = []
    for index, shape in enumerate(given):
        if len(shape) != 3:
            raise ConfigError(f"{option}.{index}: expected [channels, height, width], got {list(shape)}")
        channels, height, width = shape
        shapes.append((channels, height, width))
    return shapes


def _same_length(first: str, one: Sequence[Any], second: str, two: Sequence[Any]) -> None:
    if len(one) != len(two):
        raise ConfigError(f"{first} has {len(one)} entries, {second} has {len(two)}")

"""The trained transforms of attention-based feature distillation (AFD).

Ji et al., "Show, Attend and Distill: Knowledge Distillation via Attention-based Feature Matching", AAAI 2021,
arXiv 2102.02973, section 3. They follow a backbone in an `AttentionModel`; `AFDLoss` compares their outputs.
Queries and keys determine which student feature learns from which teacher feature; values are what it learns.
Shapes and keys that are not given are found by `NetworkGroup.prepare`, which creates the parameters then.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from ppcls.arch.base import Network
from ppcls.errors import ConfigError, hint
from ppcls.registry import BACKBONES

LOGGER = logging.getLogger(__name__)
Shape = tuple[int, int, int]


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


class LinearTransform(Network):
    """What the transforms of both sides share: which features they take, and of which shapes.

    What a config leaves out is None until `prepare_for` finds it.

    Attributes:
        keys: names of the features.
        shapes: the shape (C, H, W) of each.
    """

    option = ""  # name of `shapes` in the config

    def __init__(self, qk_dim: int, keys: list[str] | None, shapes: list[list[int]] | None) -> None:
        super().__init__()
        self.qk_dim = qk_dim
        self.keys = None if keys is None else list(keys)
        self.shapes = None if shapes is None else _shapes(self.option, shapes)
        if self.keys is not None and self.shapes is not None:
            _same_length("keys", self.keys, self.option, self.shapes)

    def prepare_for(self, features: Mapping[str, Any], teachers: Sequence[LinearTransformTeacher]) -> None:
        """Find the keys and shapes that were left out, and check those that were given.

        Args:
            features: outputs of the networks before it, for any batch.
            teachers: the transforms of teachers, prepared.

        Raises:
            ConfigError: if a given option differs from the network.
        """
        found = []
        if self.keys is None:
            self.keys = [key for key in features if key != "logits"]
            found.append(f"keys {self.keys}")
        if not self.keys:
            raise ConfigError("keys: there are no features; name some in the backbone's return_patterns")
        there = []
        for key in self.keys:
            shape = _feature(features, key).shape[1:]
            if len(shape) != 3:
                raise ConfigError(f"keys: {key!r} is {list(shape)}, expected a map [C, H, W]")
            there.append((shape[0], shape[1], shape[2]))
        if self.shapes is None:
            self.shapes = there
            found.append(f"{self.option} {[list(shape) for shape in there]}")
        _same_length("keys", self.keys, self.option, self.shapes)
        for key, given, shape in zip(self.keys, self.shapes, there, strict=True):
            if given != shape:
                raise ConfigError(
                    f"{self.option}: {list(given)} is given for {key!r}, the network gives {list(shape)}; "
                    f"leave {self.option} out to have it found"
                )
        if found:
            LOGGER.info("%s: %s found", type(self).__name__, ", ".join(found))

    def _maps(self, features: Mapping[str, Any]) -> list[Tensor]:
        """Return the features as float32, so that autocast does not lose the squares.

        Raises:
            ConfigError: if one is missing or its number of channels differs from its shape.
        """
        if self.keys is None or self.shapes is None:
            raise ConfigError(
                f"{type(self).__name__}: keys, {self.option} are not given; give them, or have them found: "
                "model.prepare(image_shape)"
            )
        maps = []
        for key, shape in zip(self.keys, self.shapes, strict=True):
            map_ = _feature(features, key)
            if map_.ndim != 4 or map_.shape[1] != shape[0]:
                raise ConfigError(f"{self.option}: {key!r} is {list(map_.shape[1:])}, given is {list(shape)}")
            maps.append(map_.astype("float32"))
        return maps


@BACKBONES.register()
class LinearTransformTeacher(LinearTransform):
    """Queries and values of a teacher's features.

    Args:
        qk_dim: length of queries and keys.
        keys: names of the features in the backbone's output; null: all of its return_patterns.
        t_shapes: the shape [C, H, W] of each; null: found by a dry forward.

    Raises:
        ConfigError: if `keys` and `t_shapes` do not match.
    """

    output_keys = ("query", "value")
    option = "t_shapes"

    def __init__(
        self, qk_dim: int, keys: list[str] | None = None, t_shapes: list[list[int]] | None = None
    ) -> None:
        super().__init__(qk_dim, keys, t_shapes)
        self._create()

    def _create(self) -> None:
        if self.shapes is not None and not hasattr(self, "query_layer"):
            self.query_layer = nn.LayerList([LinearBN(shape[0], self.qk_dim) for shape in self.shapes])

    def prepare_for(self, features: Mapping[str, Any], teachers: Sequence[LinearTransformTeacher]) -> None:
        """See `LinearTransform.prepare_for`; creates the parameters if shapes had to be found."""
        super().prepare_for(features, teachers)
        self._create()

    def forward(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Return "query" [N, T, qk_dim] and "value", one [N, H * W] for each of the T features."""
        maps = self._maps(features)
        query = [layer(map_.mean([2, 3])) for layer, map_ in zip(self.query_layer, maps, strict=True)]
        value = [F.normalize(_energy(map_).flatten(1), axis=1) for map_ in maps]
        return {"query": paddle.stack(query, 1), "value": value}


@BACKBONES.register()
class LinearTransformStudent(LinearTransform):
    """Keys and values of a student's features.

    Args:
        qk_dim: length of queries and keys.
        keys: names of the features in the backbone's output; null: all of its return_patterns.
        s_shapes: the shape [C, H, W] of each; null: found by a dry forward.
        t_shapes: the shapes of the teacher's features; null: those of the LinearTransformTeacher.

    Raises:
        ConfigError: if `keys` and `s_shapes` do not match.
    """

    output_keys = ("bilinear_key", "value")
    option = "s_shapes"

    def __init__(
        self,
        qk_dim: int,
        keys: list[str] | None = None,
        s_shapes: list[list[int]] | None = None,
        t_shapes: list[list[int]] | None = None,
    ) -> None:
        super().__init__(qk_dim, keys, s_shapes)
        self.teacher_shapes = None if t_shapes is None else _shapes("t_shapes", t_shapes)
        self._create()

    def _create(self) -> None:
        if self.shapes is None or self.teacher_shapes is None or hasattr(self, "bilinear"):
            return
        self.key_layer = nn.LayerList([LinearBN(shape[0], self.qk_dim, nn.ReLU()) for shape in self.shapes])
        self.bilinear = LinearBN(self.qk_dim, self.qk_dim * len(self.teacher_shapes))

    def prepare_for(self, features: Mapping[str, Any], teachers: Sequence[LinearTransformTeacher]) -> None:
        """See `LinearTransform.prepare_for`; creates the parameters if shapes had to be found."""
        super().prepare_for(features, teachers)
        self._prepare_teacher_shapes([teacher.shapes for teacher in teachers if teacher.shapes is not None])
        self._create()

    def _prepare_teacher_shapes(self, known: Sequence[list[Shape]]) -> None:
        if self.teacher_shapes is None:
            if len(known) != 1:
                raise ConfigError(
                    f"t_shapes: found where there is one LinearTransformTeacher, not {len(known)}; give them"
                )
            self.teacher_shapes = known[0]
            LOGGER.info("LinearTransformStudent: t_shapes found, %d of them", len(known[0]))
        elif known and self.teacher_shapes not in known:
            raise ConfigError(
                f"t_shapes: {[list(shape) for shape in self.teacher_shapes]} is given, the teacher has "
                f"{[list(shape) for shape in known[0]]}; leave t_shapes out to have it found"
            )

    def forward(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Return "bilinear_key" [N, S, T, qk_dim] and "value".

        "value" holds, for each size H x W that teacher features have, in order of first appearance, the S
        student features at that size, [N, S, H * W].
        """
        maps = self._maps(features)
        if self.teacher_shapes is None:
            raise ConfigError(
                "LinearTransformStudent: t_shapes is not given; give it, or have it found: "
                "model.prepare(image_shape)"
            )
        keys = [layer(map_.mean([2, 3])) for layer, map_ in zip(self.key_layer, maps, strict=True)]
        key = paddle.stack(keys, 1)
        count = len(self.teacher_shapes)
        bilinear = self.bilinear(key.flatten(0, 1)).reshape([key.shape[0], len(maps), count, -1])
        value = []
        for size in dict.fromkeys((height, width) for _, height, width in self.teacher_shapes):
            pooled = [F.adaptive_avg_pool2d(_energy(map_), size).flatten(1) for map_ in maps]
            value.append(F.normalize(paddle.stack(pooled, 1), axis=2))
        return {"bilinear_key": bilinear, "value": value}


@dataclass(frozen=True)
class Waiting:
    """A transform in a model, its config path, and the features it will get."""

    where: str
    transform: LinearTransform
    features: Mapping[str, Any]


def prepare_transforms(waiting: Sequence[Waiting]) -> None:
    """Prepare the transforms of a model; those of teachers come first.

    Raises:
        ConfigError: with the path of the transform.
    """
    teachers: list[LinearTransformTeacher] = []
    for entry in sorted(waiting, key=lambda entry: not isinstance(entry.transform, LinearTransformTeacher)):
        try:
            entry.transform.prepare_for(entry.features, teachers)
        except ConfigError as error:
            raise error.below(entry.where) from None
        if isinstance(entry.transform, LinearTransformTeacher):
            teachers.append(entry.transform)


def _energy(map_: Tensor) -> Tensor:
    """Return the mean square over channels: [N, C, H, W] to [N, 1, H, W]."""
    return map_.square().mean(1, keepdim=True)


def _feature(features: Mapping[str, Any], key: str) -> Tensor:
    if key not in features:
        advice = hint(key, features) or f" There is {', '.join(features)}."
        raise ConfigError(f"keys: there is no feature {key!r}.{advice} Name it in return_patterns")
    return features[key]


def _shapes(option: str, given: Sequence[Sequence[int]]) -> list[Shape]:
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

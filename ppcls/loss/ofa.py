"""One for all: distillation between networks of different architectures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import paddle.nn.functional as F
from paddle import Tensor, nn

from ppcls.errors import ConfigError
from ppcls.loss._select import network_output, select
from ppcls.loss._tensors import to_float
from ppcls.loss.base import free_name
from ppcls.loss.dropping import counted
from ppcls.loss.formula import FormulaLoss, pair_loss
from ppcls.loss.pair import weighted
from ppcls.loss.shapes import check_falling, not_prepared

_LOSS = "DistillationOFALoss"


class StageHead(nn.Sequential):
    """A classifier for a feature map: convolutions that halve it, mean over the positions, linear layer.

    Args:
        channels: number of channels of the map.
        width: number of features before the linear layer.
        classes: number of classes.
        halvings: how often the map is halved; 0 for the deepest map, which gets a 1x1 convolution.
    """

    def __init__(self, channels: int, width: int, classes: int, halvings: int) -> None:
        steps: list[nn.Layer] = []
        for i in range(halvings):
            last = i == halvings - 1
            steps.append(_halving(channels * 2**i, width if last else channels * 2 ** (i + 1)))
        if not steps:
            steps.append(nn.Conv2D(channels, width, 1, weight_attr=_init(width, 1)))
        linear = nn.Linear(width, classes, weight_attr=nn.initializer.TruncatedNormal(std=0.02))
        super().__init__(*steps, nn.AdaptiveAvgPool2D(1), nn.Flatten(), linear)


def _halving(channels: int, channels_out: int) -> nn.Sequential:
    """Return two separable convolutions, of which the first halves height and width."""
    return nn.Sequential(
        *_separable(channels, channels, stride=2), *_separable(channels, channels_out, stride=1)
    )


def _separable(channels: int, channels_out: int, stride: int) -> list[nn.Layer]:
    return [
        nn.Conv2D(
            channels,
            channels,
            3,
            stride=stride,
            padding=1,
            groups=channels,
            weight_attr=_init(channels, 3),
            bias_attr=False,
        ),
        nn.Conv2D(channels, channels_out, 1, weight_attr=_init(channels_out, 1), bias_attr=False),
        nn.BatchNorm2D(channels_out),
        nn.ReLU(),
    ]


def _init(channels_out: int, kernel: int) -> nn.initializer.Normal:
    return nn.initializer.Normal(std=(2 / (channels_out * kernel**2)) ** 0.5)


class StageHeadsLoss(FormulaLoss):
    """A formula of logits that is applied to classifiers for the student's feature maps as well.

    The classifiers are parameters of the loss: they are trained with the student and stored in training
    checkpoints, but are not part of the student. The log shows one more part for each pair,
    ``<name>_stages_<student>_<teacher>``, the sum over the maps.

    Args:
        student_keys: outputs of the student that are feature maps, from the shallowest to the deepest; null:
            none.
    """

    own_options = {"student_keys": (list[str] | None, None)}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.student_keys: list[str] = list(self.own["student_keys"] or ())
        self.heads: nn.LayerList | None = None

    def _maps(self, outputs: Mapping[str, Any], student: str) -> list[Tensor]:
        """Return the student's maps as float32.

        Raises:
            ConfigError: if an output is missing or is not a map [N, C, H, W].
        """
        found = []
        for key in self.student_keys:
            x = to_float(select(network_output(outputs, student, self.loss), key, self.loss, student))
            if x.ndim != 4:
                text = f"{key} has the shape {list(x.shape)}, expected a feature map [N, C, H, W]"
                raise ConfigError(text, path=f"{self.loss}.student_keys")
            found.append(x.astype("float32"))
        return found

    def prepare(self, outputs: Mapping[str, Any]) -> None:
        """Check names, keys and shapes, and create the classifiers, from one dry forward.

        Raises:
            ConfigError: if something does not fit.
        """
        super().prepare(outputs)
        if self.student_keys and self.heads is None:
            self.heads = nn.LayerList([self._heads_of(outputs, pair) for pair in self.pairs])

    def _heads_of(self, outputs: Mapping[str, Any], pair: tuple[str, str]) -> nn.LayerList:
        classes = self.tensors(outputs, pair)[0].shape[-1]
        maps = self._maps(outputs, pair[0])
        check_falling(f"{self.loss}.student_keys", maps)
        channels: Sequence[int] = [x.shape[1] for x in maps]
        halvings = reversed(range(len(channels)))
        return nn.LayerList(
            [StageHead(c, channels[-1], classes, n) for c, n in zip(channels, halvings, strict=True)]
        )

    def forward(self, outputs: Mapping[str, Any], label: Tensor | None = None) -> dict[str, Tensor]:
        """Return one part for the logits of each pair, and one for its maps."""
        parts = super().forward(outputs, label)
        if not self.student_keys:
            return parts
        if self.heads is None:
            raise not_prepared(self.loss, "shapes of the student's maps")
        for i, (pair, heads) in enumerate(zip(self.pairs, self.heads, strict=True)):
            teacher = self.tensors(outputs, pair)[1]
            maps = self._maps(outputs, pair[0])
            logits = [head(x) for head, x in zip(heads, maps, strict=True)]
            value = sum(self.compare(i, own, teacher, label) for own in logits)
            name = free_name(f"{self.names['name']}_stages_{pair[0]}_{pair[1]}", parts)
            parts[name] = weighted(value, counted(self.pair_weights[i], *pair))
        return parts


@pair_loss(
    _LOSS,
    name="loss_ofa",
    positive=["eps"],
    one_class_reason="it strengthens the teacher's probability of one class",
    base=StageHeadsLoss,
)
def one_for_all(student: Tensor, teacher: Tensor, target: Tensor, *, eps: float = 1.0) -> Tensor:
    """Hao et al., "One-for-all: bridge the gap between heterogeneous architectures" (NeurIPS 2023).

    arXiv 2310.19444: ``-sum_c ((p_t[c] + [c = y])^eps - [c = y]) * log p_s[c]``, mean over the batch, with p
    the softmax of the logits and y the target. For ``eps = 1`` it is the cross entropy with the teacher's
    probabilities; a larger one strengthens the target where the teacher is certain of it, and weakens the
    other classes, because a teacher of another architecture tells the student less about these. The cross
    entropy with labels is added to this loss (DistillationGTCELoss of weight 1). With `student_keys`, feature
    maps of the student get classifiers that learn by the same formula (:class:`StageHeadsLoss`).

    Args:
        student: logits, [N, C].
        teacher: logits, [N, C].
        target: class indices, int64 [N].
        eps: exponent above 0.

    Returns:
        A scalar.
    """
    truth = F.one_hot(target, student.shape[-1]).astype(student.dtype)
    weight = (F.softmax(teacher, -1) + truth).pow(eps) - truth
    return -(weight * F.log_softmax(student, -1)).sum(-1).mean()

"""Cross entropy against labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from ppcls.errors import ConfigError
from ppcls.loss._select import logits_of, network_output, select
from ppcls.loss._tensors import check_one_of, class_distribution, to_float
from ppcls.loss.base import Loss
from ppcls.registry import LOSSES

_TINY = 1e-30  # the smallest sum of weights that is divided by, above the smallest float32


def cross_entropy(
    logits: Tensor,
    label: Tensor | None,
    *,
    epsilon: float = 0.0,
    class_weights: Tensor | None = None,
    reduction: str = "mean",
    loss: str = "CELoss",
) -> Tensor:
    """Cross entropy with labels, smoothed as in Szegedy et al. (arXiv 1512.00567), sec. 7.

    ``sum_nc w_c q_nc (-log p_nc) / sum_nc w_c q_nc`` with ``q = (1 - epsilon) * label + epsilon / C`` and
    ``p = softmax(logits)``; without class weights this is the mean over the batch. A soft label counts as a
    mixture of hard labels, so class weights have the same effect on both kinds. A batch of which all classes
    have weight 0 gives 0.

    Class weights compare the classes of a batch with each other: in a batch of a single class they cancel. So
    does the mean over the batches of an evaluation depend on which images are in a batch; of a list that is
    sorted by class it is that without weights.

    Args:
        logits: [N, C].
        label: class indices, int [N] or [N, 1], or class probabilities, float [N, C].
        epsilon: label smoothing, 0 <= epsilon < 1.
        class_weights: one weight per class, [C].
        reduction: ``mean``, or ``sum`` (no division).
        loss: name used in messages.

    Returns:
        A scalar.
    """
    logits = to_float(logits)
    q = class_distribution(label, logits, loss, epsilon)
    if class_weights is not None:
        q = q * class_weights.astype(q.dtype)
    total = -(q * F.log_softmax(logits, -1)).sum()
    if reduction == "sum":
        return total
    if class_weights is None:
        return total / logits.shape[0]
    return total / q.sum().clip(min=_TINY)  # 0 for a batch that has only classes of weight 0


def check_ce_options(loss: str, epsilon: float | None, class_weights: Sequence[float] | None) -> None:
    """Raise ConfigError for options outside their range."""
    if epsilon is not None and not 0 <= epsilon < 1:
        raise ConfigError(f"got {epsilon}, expected a number from 0 to below 1", path=f"{loss}.epsilon")
    if class_weights is not None and (not any(class_weights) or min(class_weights) < 0):
        raise ConfigError("expected numbers of at least 0, one of them above 0", path=f"{loss}.class_weights")


class SmoothedCE(nn.Layer):
    """:func:`cross_entropy` with fixed options, which are checked once."""

    def __init__(
        self,
        loss: str,
        epsilon: float | None,
        class_weights: Sequence[float] | None,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        check_ce_options(loss, epsilon, class_weights)
        check_one_of(loss, "reduction", reduction, ("mean", "sum"))
        self._loss = loss
        self._epsilon = epsilon or 0.0
        self._reduction = reduction
        self._weights = None if class_weights is None else paddle.to_tensor(class_weights, dtype="float32")

    def forward(self, logits: Tensor, label: Tensor | None) -> Tensor:
        """Return the scalar loss of logits [N, C]."""
        weights = self._weights
        if weights is not None and weights.shape[0] != logits.shape[-1]:
            raise ConfigError(
                f"{weights.shape[0]} numbers for {logits.shape[-1]} classes",
                path=f"{self._loss}.class_weights",
            )
        return cross_entropy(
            logits,
            label,
            epsilon=self._epsilon,
            class_weights=weights,
            reduction=self._reduction,
            loss=self._loss,
        )


@LOSSES.register("CELoss")
class CELoss(Loss):
    """Cross entropy with labels (:func:`cross_entropy`) for one network. Parts: ``CELoss``.

    Args:
        reduction: ``mean`` over the batch or ``sum``.
        epsilon: label smoothing; null means none.
        class_weights: one weight per class, for unbalanced data. They cancel in a batch of one class, as a
            list sorted by class has them in evaluation.
    """

    def __init__(
        self,
        reduction: Literal["mean", "sum"] = "mean",
        epsilon: float | None = None,
        class_weights: list[float] | None = None,
    ) -> None:
        super().__init__()
        self.ce = SmoothedCE("CELoss", epsilon, class_weights, reduction)

    def forward(self, outputs: Tensor | Mapping[str, Any], label: Tensor | None = None) -> dict[str, Tensor]:
        """Return ``{"CELoss": value}`` for logits, or for a mapping with the key ``logits``."""
        return {"CELoss": self.ce(logits_of(outputs, "CELoss"), label)}


@LOSSES.register("DistillationGTCELoss")
class DistillationGTCELoss(Loss):
    """Cross entropy with labels (:func:`cross_entropy`) for the networks that are listed.

    Parts: ``CELoss_<network>``.

    Args:
        model_names: sub-networks that learn from the labels.
        epsilon: label smoothing; null means none.
        key: which output; null means logits.
        name: beginning of the part's name.
        class_weights: one weight per class, for unbalanced data.
    """

    def __init__(
        self,
        model_names: list[str],
        epsilon: float | None = None,
        key: str | None = None,
        name: str = "CELoss",
        class_weights: list[float] | None = None,
    ) -> None:
        super().__init__()
        if not model_names or isinstance(model_names, str) or len(set(model_names)) != len(model_names):
            raise ConfigError(
                f"got {model_names!r}, expected a list of different names",
                path="DistillationGTCELoss.model_names",
            )
        self.model_names = list(model_names)
        self.key = key
        self.part = name
        self.ce = SmoothedCE("DistillationGTCELoss", epsilon, class_weights)

    @property
    def networks(self) -> frozenset[str]:
        """Names of the sub-networks whose outputs are used."""
        return frozenset(self.model_names)

    def _logits(self, outputs: Mapping[str, Any], network: str) -> Tensor:
        loss = "DistillationGTCELoss"
        return select(network_output(outputs, network, loss), self.key, loss, network)

    def prepare(self, outputs: Mapping[str, Any]) -> None:
        """Check names and key against the outputs of one dry forward."""
        for network in self.model_names:
            self._logits(outputs, network)

    def forward(self, outputs: Mapping[str, Any], label: Tensor | None = None) -> dict[str, Tensor]:
        """Return one part for each network."""
        return {f"{self.part}_{n}": self.ce(self._logits(outputs, n), label) for n in self.model_names}

"""The ``Distillation*`` names: functions of two tensors, applied to pairs of sub-networks.

Options that they share: `model_name_pairs` (student first, then the network it learns from), `key` (which
output; null means logits), `name` (beginning of the part's name), `pair_weights` (a factor for each pair)
and, for losses of logits, `class_map` (a file with one line ``student_class teacher_class`` for each student
class, for a teacher with other classes).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from paddle import Tensor, nn

from ppcls.errors import ConfigError
from ppcls.loss._select import network_output, select
from ppcls.loss._tensors import check_one_of, check_positive
from ppcls.loss.ce import SmoothedCE
from ppcls.loss.distance import ACTIVATIONS, MODES, distance
from ppcls.loss.dml import symmetric_kl
from ppcls.loss.kldiv import kl_divergence
from ppcls.loss.pairs import PairLoss
from ppcls.loss.soft_ce import soft_cross_entropy
from ppcls.registry import LOSSES


@LOSSES.register("DistillationGTCELoss")
class DistillationGTCELoss(nn.Layer):
    """Cross entropy with labels (:func:`ppcls.loss.ce.cross_entropy`) for some networks.

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
                f"DistillationGTCELoss.model_names: got {model_names!r}, expected a list of different names"
            )
        self.model_names, self.key, self.part = list(model_names), key, name
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


@LOSSES.register("DistillationCELoss")
def distillation_ce(
    model_name_pairs: list[list[str]],
    key: str | None = None,
    name: str = "CELoss",
    pair_weights: list[float] | None = None,
    class_map: str | None = None,
) -> PairLoss:
    """:func:`ppcls.loss.soft_ce.soft_cross_entropy`. Parts: ``CELoss_<student>_<teacher>``."""
    return PairLoss(
        "DistillationCELoss",
        lambda s, t, _: soft_cross_entropy(s, t),
        model_name_pairs,
        lambda _, s, t: f"{name}_{s}_{t}",
        s_key=key,
        t_key=key,
        pair_weights=pair_weights,
        class_map=class_map,
    )


@LOSSES.register("DistillationDMLLoss")
def distillation_dml(
    model_name_pairs: list[list[str]],
    act: Literal["softmax", "sigmoid"] | None = "softmax",
    sum_across_class_dim: bool = False,
    eps: float = 1e-12,
    key: str | None = None,
    name: str = "DMLLoss",
    pair_weights: list[float] | None = None,
    class_map: str | None = None,
) -> PairLoss:
    """:func:`ppcls.loss.dml.symmetric_kl`. Parts: ``DMLLoss_<first>_<second>_<position>``."""
    check_one_of("DistillationDMLLoss", "act", act, ("softmax", "sigmoid", None))
    check_positive("DistillationDMLLoss", eps=eps)
    return PairLoss(
        "DistillationDMLLoss",
        lambda a, b, _: symmetric_kl(a, b, act=act, sum_across_class_dim=sum_across_class_dim, eps=eps),
        model_name_pairs,
        lambda i, a, b: f"{name}_{a}_{b}_{i}",
        s_key=key,
        t_key=key,
        pair_weights=pair_weights,
        class_map=class_map,
        mutual=True,
    )


@LOSSES.register("DistillationKLDivLoss")
def distillation_kldiv(
    model_name_pairs: list[list[str]],
    temperature: float = 4.0,
    key: str | None = None,
    name: str = "loss_kldiv",
    pair_weights: list[float] | None = None,
    class_map: str | None = None,
) -> PairLoss:
    """:func:`ppcls.loss.kldiv.kl_divergence`. Parts: ``loss_kldiv_<student>_<teacher>``."""
    check_positive("DistillationKLDivLoss", temperature=temperature)
    return PairLoss(
        "DistillationKLDivLoss",
        lambda s, t, _: kl_divergence(s, t, temperature=temperature),
        model_name_pairs,
        lambda _, s, t: f"{name}_{s}_{t}",
        s_key=key,
        t_key=key,
        pair_weights=pair_weights,
        class_map=class_map,
    )


@LOSSES.register("DistillationDistanceLoss")
def distillation_distance(
    model_name_pairs: list[list[str]],
    mode: Literal["l1", "l2", "smooth_l1"] = "l2",
    act: Literal["softmax", "sigmoid"] | None = None,
    key: str | None = None,
    name: str = "loss_",
    pair_weights: list[float] | None = None,
) -> PairLoss:
    """:func:`ppcls.loss.distance.distance`. Parts: ``loss_<mode>_loss_<mode>_<position>``."""
    check_one_of("DistillationDistanceLoss", "mode", mode, MODES)
    check_one_of("DistillationDistanceLoss", "act", act, ACTIVATIONS)
    return PairLoss(
        "DistillationDistanceLoss",
        lambda a, b, _: distance(a, b, mode=mode, act=act),
        model_name_pairs,
        lambda i, a, b: f"{name}{mode}_loss_{mode}_{i}",
        s_key=key,
        t_key=key,
        pair_weights=pair_weights,
        logits=False,
        mutual=True,
    )

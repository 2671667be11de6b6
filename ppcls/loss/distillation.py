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

from ppcls.distributed import gather_rows
from ppcls.errors import ConfigError
from ppcls.loss._select import network_output, select
from ppcls.loss._tensors import check_one_of, check_positive, class_distribution, class_index
from ppcls.loss.ce import SmoothedCE
from ppcls.loss.dist import dist
from ppcls.loss.distance import ACTIVATIONS, MODES, distance
from ppcls.loss.dkd import decoupled_kl
from ppcls.loss.dml import symmetric_kl
from ppcls.loss.kldiv import kl_divergence
from ppcls.loss.pairs import PairLoss
from ppcls.loss.schedule import epoch_value
from ppcls.loss.skd import spherical_kd
from ppcls.loss.soft_ce import soft_cross_entropy
from ppcls.loss.wsl import weighted_soft_labels
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


@LOSSES.register("DistillationDKDLoss")
def distillation_dkd(
    model_name_pairs: list[list[str]],
    key: str | None = None,
    temperature: float = 1.0,
    alpha: float = 1.0,
    beta: float = 1.0,
    use_target_as_gt: bool = False,
    name: str = "loss_dkd",
    pair_weights: list[float] | None = None,
    class_map: str | None = None,
) -> PairLoss:
    """:func:`ppcls.loss.dkd.decoupled_kl`. Parts: ``loss_dkd_<student>_<teacher>``.

    Args:
        model_name_pairs: see the module.
        key: see the module.
        temperature: T.
        alpha: weight of the target part.
        beta: weight of the part among the other classes.
        use_target_as_gt: take the teacher's most probable class for the target instead of the label, as for
            unlabelled images.
        name: see the module.
        pair_weights: see the module.
        class_map: see the module.
    """
    loss = "DistillationDKDLoss"
    check_positive(loss, temperature=temperature)

    reason = (
        "it splits the classes into one target and the others; use_target_as_gt: True does without labels"
    )

    def fn(student: Tensor, teacher: Tensor, label: Tensor | None) -> Tensor:
        target = teacher.argmax(-1) if use_target_as_gt else class_index(label, loss, reason)
        return decoupled_kl(student, teacher, target, alpha=alpha, beta=beta, temperature=temperature)

    return PairLoss(
        loss,
        fn,
        model_name_pairs,
        lambda _, s, t: f"{name}_{s}_{t}",
        s_key=key,
        t_key=key,
        pair_weights=pair_weights,
        class_map=class_map,
        labels=not use_target_as_gt,
        hard_labels_only=None if use_target_as_gt else reason,
    )


@LOSSES.register("DistillationDISTLoss")
def distillation_dist(
    model_name_pairs: list[list[str]],
    key: str | None = None,
    beta: float = 1.0,
    gamma: float = 1.0,
    tau: float = 1.0,
    gather: bool = False,
    name: str = "loss_dist",
    pair_weights: list[float] | None = None,
    class_map: str | None = None,
) -> PairLoss:
    """:func:`ppcls.loss.dist.dist`. Parts: ``loss_dist_<student>_<teacher>``.

    With `gather` the relations are those of the batch of all processes together.
    """
    check_positive("DistillationDISTLoss", tau=tau)

    def fn(student: Tensor, teacher: Tensor, label: Tensor | None) -> Tensor:
        if gather:
            student, teacher = gather_rows(student), gather_rows(teacher)
        return dist(student, teacher, beta=beta, gamma=gamma, tau=tau)

    return PairLoss(
        "DistillationDISTLoss",
        fn,
        model_name_pairs,
        lambda _, s, t: f"{name}_{s}_{t}",
        s_key=key,
        t_key=key,
        pair_weights=pair_weights,
        class_map=class_map,
    )


def _truth(
    label: Tensor | None, student: Tensor, teacher: Tensor, loss: str, use_target_as_gt: bool
) -> Tensor:
    """Return label probabilities [N, C], or one-hot the teacher's most probable class."""
    return class_distribution(teacher.argmax(-1) if use_target_as_gt else label, student, loss)


@LOSSES.register("DistillationWSLLoss")
def distillation_wsl(
    model_name_pairs: list[list[str]],
    key: str | None = None,
    temperature: float = 2.0,
    use_target_as_gt: bool = False,
    name: str = "wsl_loss",
    pair_weights: list[float] | None = None,
    class_map: str | None = None,
) -> PairLoss:
    """:func:`ppcls.loss.wsl.weighted_soft_labels`. Parts: ``wsl_loss_<student>_<teacher>``.

    Soft labels work: their cross entropies take the place of those with hard labels.
    """
    loss = "DistillationWSLLoss"
    check_positive(loss, temperature=temperature)

    def fn(student: Tensor, teacher: Tensor, label: Tensor | None) -> Tensor:
        truth = _truth(label, student, teacher, loss, use_target_as_gt)
        return weighted_soft_labels(student, teacher, truth, temperature=temperature)

    return PairLoss(
        loss,
        fn,
        model_name_pairs,
        lambda _, s, t: f"{name}_{s}_{t}",
        s_key=key,
        t_key=key,
        pair_weights=pair_weights,
        class_map=class_map,
        labels=not use_target_as_gt,
    )


@LOSSES.register("DistillationSKDLoss")
class DistillationSKDLoss(PairLoss):
    """:func:`ppcls.loss.skd.spherical_kd`. Parts: ``skd_loss_<student>_<teacher>``.

    Args:
        model_name_pairs: see the module.
        key: see the module.
        temperature: T.
        multiplier: standard deviation of the normalised logits.
        alpha: share of the teacher; a number or a schedule (:func:`ppcls.loss.schedule.epoch_value`).
        use_target_as_gt: take the teacher's most probable class for the label.
        name: see the module.
        pair_weights: see the module.
        class_map: see the module.
    """

    def __init__(
        self,
        model_name_pairs: list[list[str]],
        key: str | None = None,
        temperature: float = 1.0,
        multiplier: float = 2.0,
        alpha: float | dict[str, Any] = 0.9,
        use_target_as_gt: bool = False,
        name: str = "skd_loss",
        pair_weights: list[float] | None = None,
        class_map: str | None = None,
    ) -> None:
        loss = "DistillationSKDLoss"
        check_positive(loss, temperature=temperature, multiplier=multiplier)
        schedule = epoch_value(alpha, f"{loss}.alpha")

        def fn(student: Tensor, teacher: Tensor, label: Tensor | None) -> Tensor:
            return spherical_kd(
                student,
                teacher,
                _truth(label, student, teacher, loss, use_target_as_gt),
                temperature=temperature,
                multiplier=multiplier,
                alpha=schedule(self._epoch),
            )

        super().__init__(
            loss,
            fn,
            model_name_pairs,
            lambda _, s, t: f"{name}_{s}_{t}",
            s_key=key,
            t_key=key,
            pair_weights=pair_weights,
            class_map=class_map,
            labels=not use_target_as_gt,
        )
        self._epoch = 1

    def set_epoch(self, epoch: int) -> None:
        """Move the schedule of `alpha` to `epoch`, counted from 1."""
        self._epoch = epoch

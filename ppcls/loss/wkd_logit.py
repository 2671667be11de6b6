"""Wasserstein distance between the class probabilities, with costs by the similarity of the classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from ppcls.errors import ConfigError, DataError
from ppcls.loss._select import network_output
from ppcls.loss._tensors import EXCLUDED, check_several_classes, norm, split_target
from ppcls.loss.formula import FormulaLoss, pair_loss

_SHARPNESS = 0.05  # strength of the entropy term of the transport, as published
_ROUNDS = 10
_EPS = 1e-8  # added to costs and marginals, as published
_LOSS = "DistillationWKDLogitLoss"


def class_distances(weight: Tensor) -> Tensor:
    """Return the distances of the classes, [C, C]: 1 - cosine of the columns of a classifier's [D, C]."""
    unit = weight.t() / norm(weight.t(), keepdim=True)
    return 1 - unit @ unit.t()


def transport(student: Tensor, teacher: Tensor, start: Tensor, cost: Tensor) -> Tensor:
    """Entropic transport cost of two distributions by ten rounds of Sinkhorn's algorithm, per sample [N].

    A class without mass in both distributions and in `start` has no effect.

    Args:
        student: probabilities, [N, C].
        teacher: probabilities, [N, C].
        start: first scaling of the student's side, [N, C].
        cost: the cost of moving mass from class to class, [C, C], at least 0.
    """
    kernel = (-cost / _SHARPNESS).exp()
    own = start
    theirs = teacher
    for _ in range(_ROUNDS):
        theirs = teacher / (own @ kernel + _EPS)
        own = student / (theirs @ kernel.t() + _EPS)
    return (own * (theirs @ (kernel * cost).t())).sum(-1)


class ClassCostLoss(FormulaLoss):
    """A formula that also gets the distances of the classes, from a classifier or from a file.

    Args:
        cost: ``classifier``, which is 1 - cosine of the classes' weights in the last linear layer of the
            teacher, or a ``.npy`` file with the distances of the student's classes, [C, C].
    """

    own_options = {"cost": (str, "classifier")}
    supplied = ("distances",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cost = self.own["cost"]
        self._stored = None if cost == "classifier" else _read_distances(cost)
        self._classifiers: dict[str, Tensor] = {}
        self._distances: dict[int, Tensor] = {}

    def prepare_networks(self, networks: Mapping[str, nn.Layer]) -> None:
        """Read the classifiers of the teachers, once their weights are loaded.

        Raises:
            ConfigError: if a teacher has no linear layer.
        """
        if self._stored is not None:
            return
        for _, teacher in self.pairs:
            network = network_output(networks, teacher, _LOSS)
            linear = [layer for layer in network.sublayers() if isinstance(layer, nn.Linear)]
            if not linear:
                text = f"{teacher} has no linear layer to compare classes by; give `cost` a .npy file, [C, C]"
                raise ConfigError(text, path=f"{_LOSS}.cost")
            self._classifiers[teacher] = linear[-1].weight.detach().astype("float32")

    def prepare(self, outputs: Mapping[str, Any]) -> None:
        """Check names, keys and shapes, and compute the distances of the classes.

        Raises:
            ConfigError: if something does not fit.
        """
        for position, pair in enumerate(self.pairs):
            self._distances[position] = self._distances_of(pair[1], self.tensors(outputs, pair)[0].shape[-1])

    def _distances_of(self, teacher: str, classes: int) -> Tensor:
        """Return the distances of the student's classes, [C, C].

        Raises:
            ConfigError: if their number differs from that of the student's classes.
        """
        if self._stored is not None:
            found = self._stored
        elif teacher in self._classifiers:
            found = class_distances(self._classifiers[teacher])
            if self.class_map is not None and max(self.class_map) < found.shape[0]:
                index = paddle.to_tensor(self.class_map)
                found = found.index_select(index, 0).index_select(index, 1)
        else:
            raise ConfigError(
                f"{_LOSS}: the classifier of {teacher} has not been read; use "
                "build_loss(config, outputs=model(images), networks={...}), or give `cost` a .npy file"
            )
        if found.shape[0] != classes:
            text = f"{found.shape[0]} classes in the distances, but the student has {classes}"
            raise ConfigError(text, path=f"{_LOSS}.cost")
        return found

    def arguments(self, position: int, first: Tensor) -> dict[str, Any]:
        """Return the options of the formula, and the distances of the classes."""
        if position not in self._distances:
            self._distances[position] = self._distances_of(self.pairs[position][1], first.shape[-1])
        distances = self._distances[position].astype(first.dtype)
        return {**super().arguments(position, first), "distances": distances}


@pair_loss(
    _LOSS,
    name="loss_wkd_l",
    positive=["temperature", "sharpness"],
    scheduled=["temperature", "gamma"],
    one_class_reason="it splits the classes into one target and the others",
    base=ClassCostLoss,
)
def wasserstein_logits(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    *,
    distances: Tensor,
    temperature: float = 2.0,
    gamma: float = 30.0,
    sharpness: float = 1.0,
) -> Tensor:
    """Lv et al., "Wasserstein distance rivals Kullback-Leibler divergence for knowledge distillation", WKD-L.

    NeurIPS 2024, arXiv 2412.08139: ``-p_t[y] log p_s[y] + gamma * W``, mean over the batch, with p the
    softmax of the logits. W is the cost of transporting the probabilities among the classes that are not the
    target y, softmax of logits / T, from the student's to the teacher's (:func:`transport`): to move mass
    between two classes costs ``c = 1 - exp(-sharpness * D) + 1e-8``, where D is the distance of the two
    classes. The cross entropy with labels is added to this loss (DistillationGTCELoss of weight 1).

    Args:
        student: logits, [N, C], C >= 2.
        teacher: logits, [N, C].
        target: class indices, int64 [N].
        distances: D, the distances of the classes, [C, C]; the option `cost` of a recipe names their source
            (:class:`ClassCostLoss`).
        temperature: T > 0, of the classes that are not the target.
        gamma: weight of W.
        sharpness: how fast the cost grows with the distance of the classes, above 0.

    Returns:
        A scalar.

    Raises:
        ConfigError: for a single class.
    """
    check_several_classes(_LOSS, student)
    hit_s, hit_t = (split_target(z, target)[0] for z in (student, teacher))
    is_target = F.one_hot(target, student.shape[-1]).astype("bool")
    excluded = paddle.full_like(student, EXCLUDED)
    own, theirs = (
        F.softmax(paddle.where(is_target, excluded, z / temperature), -1) for z in (student, teacher)
    )
    start = (~is_target).astype(student.dtype) / (student.shape[-1] - 1)
    moved = transport(own, theirs, start, F.relu(1 - (-sharpness * distances).exp()) + _EPS)
    return (gamma * moved - hit_t.exp() * hit_s).mean()


def _read_distances(path: str) -> Tensor:
    """Read the distances of the classes, [C, C] numbers of at least 0.

    Raises:
        ConfigError: if it is not a ``.npy`` file.
        DataError: if it cannot be read or contains something else.
    """
    if not path.endswith(".npy"):
        raise ConfigError(f"got {path!r}, expected classifier or a .npy file", path=f"{_LOSS}.cost")
    try:
        found = np.load(Path(path), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot read the distances of the classes: {error}") from error
    square = found.ndim == 2 and found.shape[0] == found.shape[1] and found.dtype.kind in "fiu"
    if not square or not np.isfinite(found).all() or found.min() < -1e-6:
        raise DataError(
            f"{path}: {found.dtype} of shape {list(found.shape)}, expected the distances of the classes: "
            "[C, C] numbers of at least 0"
        )
    return paddle.to_tensor(found.astype("float32"))

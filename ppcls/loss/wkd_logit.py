"""Wasserstein distance between the class probabilities, with costs by the similarity of the classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from ppcls._paddle import buffers_of
from ppcls.errors import ConfigError, DataError
from ppcls.loss._select import select
from ppcls.loss._tensors import EXCLUDED, check_several_classes, norm, split_target
from ppcls.loss.formula import FormulaLoss, pair_loss
from ppcls.loss.measured import Measurement, Moments

_SHARPNESS = 0.05  # strength of the entropy term of the transport, as published
_ROUNDS = 10
_EPS = 1e-8  # added to costs and marginals, as published
_LOSS = "DistillationWKDLogitLoss"
_MEASURED = ("classifier", "logits")  # values of `cost` that are no files
_CONSTANT = 1e-6  # a class whose logits vary by less than this share of the largest variation does not vary


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


def distances_of_logits(products: np.ndarray) -> np.ndarray:
    """Return the distances of the classes, [C, C]: 1 - CKA of their logits, with linear kernels.

    Kornblith et al., "Similarity of neural network representations revisited" (ICML 2019), as WKD uses it:
    ``CKA = HSIC(K_i, K_j) / sqrt(HSIC(K_i, K_i) HSIC(K_j, K_j))``, ``HSIC(K, L) = tr(K H L H) / (b - 1)^2``,
    H centring. Here the features of class i are the column z_i of the logits of all b images, so
    K_i = z_i z_i^T, ``tr(K_i H K_j H) = (z_i^T H z_j)^2``, and CKA is the squared correlation of two columns.

    Args:
        products: ``z_i^T H z_j``, the summed products of deviations of the logits, float64 [C, C].

    Raises:
        ConfigError: if the logits of no class vary.
    """
    products = (products + products.T) / 2
    variance = np.diag(products)
    varies = variance > _CONSTANT**2 * variance.max()
    if not varies.any():
        raise ConfigError("the logits are the same for all images", path=f"{_LOSS}.cost")
    scale = np.where(varies, variance, 1.0)
    similar = np.where(np.outer(varies, varies), products**2 / np.outer(scale, scale), 0.0)
    np.fill_diagonal(similar, 1.0)
    return 1.0 - similar.clip(0.0, 1.0)


class ClassCostLoss(FormulaLoss):
    """A formula that also gets the distances of the classes: of a classifier, of logits, or from a file.

    Args:
        cost: ``classifier``, which is 1 - cosine of the classes' weights in the last linear layer of the
            teacher; ``logits``, which is 1 - CKA of the classes' logits (:func:`distances_of_logits`),
            measured on the training images before the first step; or a ``.npy`` file with the distances of
            the student's classes, [C, C].
    """

    own_options = {"cost": (str, "classifier")}
    supplied = ("distances",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cost = self.own["cost"]
        self._stored = None if cost in _MEASURED else _read_distances(cost)
        self._classifiers: dict[str, Tensor] = {}
        self._distances: dict[int, Tensor] = {}

    @property
    def reads_networks(self) -> bool:
        """Whether it reads the weights of the teacher."""
        return bool(self.own["cost"] == "classifier")

    def prepare_networks(self, networks: Mapping[str, nn.Layer]) -> None:
        """Find the classifiers of the teachers.

        Raises:
            ConfigError: if a teacher has no linear layer.
        """
        if not self.reads_networks:
            return
        for _, teacher in self.pairs:
            if teacher not in networks:
                text = f"{teacher} is no single network with a classifier; set `cost` to logits"
                raise ConfigError(text, path=f"{_LOSS}.cost")
            network = networks[teacher]
            linear = [layer for layer in network.sublayers() if isinstance(layer, nn.Linear)]
            if not linear:
                text = (
                    f"{teacher} has no linear layer to compare classes by; set `cost` to logits, or to a "
                    ".npy file, [C, C]"
                )
                raise ConfigError(text, path=f"{_LOSS}.cost")
            self._classifiers[teacher] = linear[-1].weight

    def prepare(self, outputs: Mapping[str, Any]) -> None:
        """Check names, keys, shapes and the number of distances.

        The distances themselves are computed later, because the weights of the teacher may be loaded later.

        Raises:
            ConfigError: if something does not fit.
        """
        for position, pair in enumerate(self.pairs):
            classes = self.tensors(outputs, pair)[0].shape[-1]
            if self.own["cost"] == "logits":
                self.register_buffer(_buffer(position), paddle.full([classes, classes], -1.0, "float64"))
                self._distances.pop(position, None)
            else:
                self._distances_of(position, classes)

    def measurements(self) -> list[Measurement]:
        """Return what has to be measured of the logits of each teacher."""
        if self.own["cost"] != "logits":
            return []
        return [self._measurement(position, teacher) for position, (_, teacher) in enumerate(self.pairs)]

    def _measurement(self, position: int, teacher: str) -> Measurement:
        classes = None if self.class_map is None else np.array(self.class_map)
        kept = buffers_of(self)[_buffer(position)]
        key = cast("str | None", self.keys[1])

        def rows(output: Any) -> np.ndarray:
            logits: np.ndarray = select(output, key, _LOSS, teacher).astype("float32").numpy()
            return logits if classes is None else logits[:, classes]

        def finish(moments: Moments) -> None:
            kept.set_value(distances_of_logits(moments.sums))
            self._distances.clear()

        return Measurement(
            what=f"distances of {kept.shape[0]} classes",
            loss=_LOSS,
            network=teacher,
            rows=rows,
            moments=Moments(products=True),
            finish=finish,
            needs_all_logits=True,
        )

    def _distances_of(self, position: int, classes: int) -> Tensor:
        """Return the distances of the student's classes, [C, C].

        Raises:
            ConfigError: if their number differs from that of the student's classes, or they are not known.
        """
        teacher = self.pairs[position][1]
        if self._stored is not None:
            found = self._stored
        elif self.own["cost"] == "logits":
            found = self._measured(position, teacher)
        elif teacher in self._classifiers:
            found = class_distances(self._classifiers[teacher].detach().astype("float32"))
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

    def _measured(self, position: int, teacher: str) -> Tensor:
        found = buffers_of(self).get(_buffer(position))
        if found is None or float(found.min()) < 0:
            raise ConfigError(
                f"{_LOSS}: the logits of {teacher} have not been measured; a run of ppcls does it before the "
                "first step. In a loop of your own, add the teacher's outputs to each of loss.measurements() "
                "and finish it, or give `cost` a .npy file"
            )
        return found

    def arguments(self, position: int, first: Tensor) -> dict[str, Any]:
        """Return the options of the formula, and the distances of the classes."""
        if position not in self._distances:
            self._distances[position] = self._distances_of(position, first.shape[-1])
        distances = self._distances[position].astype(first.dtype)
        return {**super().arguments(position, first), "distances": distances}


def _buffer(position: int) -> str:
    """Return the name of the buffer with the measured distances of a pair."""
    return f"distances_{position}"


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
        raise ConfigError(f"got {path!r}, expected classifier, logits or a .npy file", path=f"{_LOSS}.cost")
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

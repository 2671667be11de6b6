"""Losses of pairs of networks: their base class, and `DistillationPairLoss` for losses of two tensors."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from paddle import Tensor, nn

from ppcls.config.binding import joined_signature
from ppcls.contracts import PluginErrors
from ppcls.errors import ConfigError, hint
from ppcls.loss._select import check_pairs, network_output, select
from ppcls.loss._tensors import check_finite, check_scalar, to_float
from ppcls.loss.base import Loss, free_name
from ppcls.loss.dropping import counted
from ppcls.loss.measured import Measurement
from ppcls.loss.teacher_scale import TeacherScale
from ppcls.registry import LOSSES

Key = str | list[str] | None
Keys = tuple[Key, Key]


class PairLoss(Loss):
    """Base class of losses of pairs: a list of pairs, and for each a factor and a part in the log.

    Args:
        loss: registered name, for messages.
        model_name_pairs: pairs of sub-network names, student first.
        keys: which output of the first and of the second network; None means logits.
        part: name of a part, a format of `position`, `student`, `teacher` and the keys of `names`.
        names: values for that format.
        pair_weights: a factor for each pair.

    Attributes:
        compared_by: registered name of the loss that compares the tensors, for messages about its result.
    """

    def __init__(
        self,
        loss: str,
        model_name_pairs: Sequence[Sequence[str]],
        keys: Keys,
        part: str,
        names: Mapping[str, Any],
        pair_weights: Sequence[float] | None,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.compared_by = loss
        self.keys = keys
        self.part = part
        self.names = dict(names)
        self.pairs = check_pairs(loss, model_name_pairs)
        self.pair_weights = check_pair_weights(loss, pair_weights, len(self.pairs))
        self.standardize_teacher = False

    @property
    def networks(self) -> frozenset[str]:
        """Names of the sub-networks whose outputs are used."""
        return frozenset(name for pair in self.pairs for name in pair)

    def tensors(self, outputs: Mapping[str, Any], pair: tuple[str, str]) -> tuple[Any, Any]:
        """Return what is compared for one pair of networks: a tensor of each, or a list of tensors."""
        return pair_tensors(outputs, pair, self.keys, self.loss)

    def compare(self, position: int, first: Any, second: Any, label: Tensor | None) -> Tensor:
        """Return the scalar loss of the pair at this position."""
        raise NotImplementedError

    def prepare_scales(self, outputs: Mapping[str, Any]) -> None:
        """Create the buffers for mean and scale of the teachers' outputs, if these are standardised."""
        if not self.standardize_teacher:
            return
        self.scales = nn.LayerList(
            [
                nn.LayerList([TeacherScale(x) for x in _listed(self.tensors(outputs, p)[1])])
                for p in self.pairs
            ]
        )

    def measurements(self) -> list[Measurement]:
        """Return what has to be measured of the teachers' outputs, if these are standardised."""
        if not self.standardize_teacher:
            return []
        keys = _listed(self.keys[1])
        return [
            scale.measurement(self.loss, pair[1], key)
            for pair, scales in zip(self.pairs, self.scales, strict=True)
            for key, scale in zip(keys, scales, strict=True)
        ]

    def scaled(self, position: int, second: Any) -> Any:
        """Return the output of the teacher of a pair, standardised if the loss wants it."""
        if not self.standardize_teacher:
            return second
        found = [scale(x) for x, scale in zip(_listed(second), self.scales[position], strict=True)]
        return found if isinstance(second, list) else found[0]

    def forward(self, outputs: Mapping[str, Any], label: Tensor | None = None) -> dict[str, Tensor]:
        """Return one part for each pair.

        Raises:
            ConfigError: if the comparison returns something else than one number.
        """
        parts: dict[str, Tensor] = {}
        for i, pair in enumerate(self.pairs):
            first, second = self.tensors(outputs, pair)
            value = self.compare(i, first, self.scaled(i, second), label)
            check_scalar(self.compared_by, value)
            name = self.part.format(position=i, student=pair[0], teacher=pair[1], **self.names)
            parts[free_name(name, parts)] = weighted(value, counted(self.pair_weights[i], *pair))
        return parts


def _pair_loss_class(name: Any) -> Any:
    """Return the registered loss of two tensors.

    Raises:
        ConfigError: if there is none of this name.
    """
    known = [n for n in LOSSES if LOSSES.trait(n, "is_pair_loss")]
    if name not in known:
        raise ConfigError(
            f"got {name!r}, expected one of {', '.join(known)}.{hint(str(name), known)}",
            path="DistillationPairLoss.base_loss_name",
        )
    return LOSSES[name]


@LOSSES.register("DistillationPairLoss")
class DistillationPairLoss(PairLoss):
    """Apply a loss of two tensors to pairs of networks; each pair has separate parameters.

    Parts: ``<name>_<position>_<student>_<teacher>``. No gradient reaches the second network of a pair.

    A loss can be used here if it is registered and derives from `ppcls.loss.TensorPairLoss`, or has the same
    attributes, with ``is_pair_loss = True``. Its options are written in the same node as those of
    DistillationPairLoss. They depend on `base_loss_name`, so checks call :meth:`signature_for` instead of
    ``inspect.signature``.

    Args:
        base_loss_name: MGDLoss, PEFDLoss or another registered loss of two tensors.
        model_name_pairs: pairs of sub-network names, student first.
        s_key: which output of the student; null means logits. A list of outputs for a loss that compares
            several maps at once, such as ReviewKDLoss.
        t_key: which output of the teacher; null means logits. A list as long as that of `s_key`.
        name: beginning of the part's name; null is the registered name of the loss, or ``loss`` for
            MGDLoss and PEFDLoss, as in PaddleClas.
        pair_weights: a factor for each pair.
        standardize_teacher: bring the output of each teacher to mean 0 in each channel and an average
            variance of 1 first; mean and scale are measured on training images before the first step.
        **options: of the chosen loss.
    """

    label_free = True
    one_way = True

    def __init__(
        self,
        base_loss_name: str,
        model_name_pairs: list[list[str]],
        s_key: str | list[str] | None = None,
        t_key: str | list[str] | None = None,
        name: str | None = None,
        pair_weights: list[float] | None = None,
        standardize_teacher: bool = False,
        **options: Any,
    ) -> None:
        _pair_loss_class(base_loss_name)
        _check_several(base_loss_name, bool(LOSSES.trait(base_loss_name, "several_maps")), s_key, t_key)
        super().__init__(
            "DistillationPairLoss",
            model_name_pairs,
            (s_key, t_key),
            "{name}_{position}_{student}_{teacher}",
            {"name": name or LOSSES.trait(base_loss_name, "part") or base_loss_name},
            pair_weights,
        )
        self.compared_by = base_loss_name
        self.standardize_teacher = standardize_teacher
        self.loss_func = nn.LayerList([LOSSES.create(base_loss_name, options) for _ in self.pairs])

    @classmethod
    def signature_for(cls, options: Mapping[str, Any]) -> inspect.Signature:
        """Return the signature of a node: its own options and those of the chosen loss.

        Raises:
            ConfigError: if `base_loss_name` is missing or unknown.
        """
        if "base_loss_name" not in options:
            raise ConfigError("DistillationPairLoss needs the option 'base_loss_name'")
        return joined_signature(cls, _pair_loss_class(options["base_loss_name"]))

    def tensors(self, outputs: Mapping[str, Any], pair: tuple[str, str]) -> tuple[Any, Any]:
        """Return what is compared for one pair of networks, in the precision of the parameters."""
        first, second = super().tensors(outputs, pair)
        if isinstance(first, list):
            return [x.astype("float32") for x in first], [x.detach().astype("float32") for x in second]
        return first.astype("float32"), second.detach().astype("float32")

    def prepare(self, outputs: Mapping[str, Any]) -> None:
        """Create parameters whose shapes depend on the outputs, or check them, from one dry forward."""
        self.prepare_scales(outputs)
        for pair, loss_func in zip(self.pairs, self.loss_func, strict=True):
            tensors = self.tensors(outputs, pair)
            with PluginErrors(loss_func, f"loss {self.compared_by}"):
                loss_func.prepare(*tensors)

    def compare(self, position: int, first: Any, second: Any, label: Tensor | None) -> Tensor:
        """Return the value of the loss of the pair at this position."""
        loss_func = self.loss_func[position]
        with PluginErrors(loss_func, f"loss {self.compared_by}"):
            return loss_func(first, second)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def pair_tensors(outputs: Mapping[str, Any], pair: tuple[str, str], keys: Keys, loss: str) -> tuple[Any, Any]:
    """Return the chosen tensors of both networks as float32; a list of them where `keys` has a list."""

    def chosen(network: str, key: Key) -> Any:
        if isinstance(key, list):
            return [chosen(network, name) for name in key]
        return to_float(select(network_output(outputs, network, loss), key, loss, network))

    return chosen(pair[0], keys[0]), chosen(pair[1], keys[1])


def _check_several(base: str, several: bool, s_key: Key, t_key: Key) -> None:
    """Check that a loss gets one output of each network, or equally many of both.

    Raises:
        ConfigError: if it cannot work with these keys.
    """
    lists = [key for key in (s_key, t_key) if isinstance(key, list)]
    if lists and not several:
        raise ConfigError(f"DistillationPairLoss: {base} compares one output, got a list: {lists[0]}")
    if lists and (len(lists) != 2 or len(lists[0]) != len(lists[1]) or not lists[0]):
        raise ConfigError(
            f"DistillationPairLoss: got s_key {s_key!r} and t_key {t_key!r}, expected lists of equal length"
        )


def weighted(value: Tensor, weight: float) -> Tensor:
    """Return ``value * weight``, leaving the value untouched for 1."""
    return value if weight == 1.0 else value * weight


def check_pair_weights(loss: str, weights: Sequence[float] | None, pairs: int) -> list[float]:
    """Return one factor per pair, 1 without `weights`.

    Raises:
        ConfigError: if their number differs from that of the pairs, or one is not finite.
    """
    if weights is None:
        return [1.0] * pairs
    if len(weights) != pairs:
        raise ConfigError(f"{len(weights)} numbers for {pairs} model_name_pairs", path=f"{loss}.pair_weights")
    check_finite(f"{loss}.pair_weights", dict(enumerate(weights)))
    return [float(w) for w in weights]

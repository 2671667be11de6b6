"""The one adapter that applies a function of two tensors to named pairs of sub-networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from paddle import Tensor, nn

from ppcls.errors import ConfigError
from ppcls.loss._select import check_pairs, match_classes, network_output, read_class_map, select
from ppcls.loss._tensors import to_float

PairFunction = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class PairLoss(nn.Layer):
    """Apply ``fn(first, second, label)`` to each pair of networks.

    The second network of a pair is the target: no gradient reaches it. To let two networks that both train
    teach each other, list both orders. A `mutual` function is symmetric and sends gradient to both sides.

    Args:
        loss: registered name, for messages.
        fn: function of two float32 tensors and the label.
        model_name_pairs: pairs of sub-network names, student first.
        part: gives the name of a part from the pair's position and its two names.
        s_key, t_key: which output of the first and second network; None means logits.
        pair_weights: a factor for each pair.
        class_map: file that names the teacher class of each student class (:func:`read_class_map`).
        logits: the tensors are class logits, so their class counts have to fit.
        mutual: let gradient flow to the second network as well.
        labels: the function reads the label; without, it works on images that have none, too.
        hard_labels_only: why the function cannot work with label probabilities; None if it can.
    """

    def __init__(
        self,
        loss: str,
        fn: PairFunction,
        model_name_pairs: Sequence[Sequence[str]],
        part: Callable[[int, str, str], str],
        *,
        s_key: str | None = None,
        t_key: str | None = None,
        pair_weights: Sequence[float] | None = None,
        class_map: str | None = None,
        logits: bool = True,
        mutual: bool = False,
        labels: bool = False,
        hard_labels_only: str | None = None,
    ) -> None:
        super().__init__()
        self.loss, self.fn, self.part = loss, fn, part
        self.pairs = check_pairs(loss, model_name_pairs)
        self.keys = (s_key, t_key)
        self.pair_weights = check_pair_weights(loss, pair_weights, len(self.pairs))
        self.class_map = None if class_map is None else read_class_map(class_map)
        self.label_free = not labels
        self.logits, self.mutual, self.hard_labels_only = logits, mutual, hard_labels_only

    @property
    def networks(self) -> frozenset[str]:
        """Names of the sub-networks whose outputs are used."""
        return frozenset(name for pair in self.pairs for name in pair)

    def prepare(self, outputs: Mapping[str, Any]) -> None:
        """Check names, keys and shapes against the outputs of one dry forward.

        Raises:
            ConfigError: if something does not fit.
        """
        for pair in self.pairs:
            self._tensors(outputs, pair)

    def _tensors(self, outputs: Mapping[str, Any], pair: tuple[str, str]) -> tuple[Tensor, Tensor]:
        first, second = pair_tensors(outputs, pair, self.keys, self.loss)
        if not self.mutual:
            second = second.detach()
        if self.logits:
            second = match_classes(first, second, self.class_map, self.loss)
        if self.logits and list(first.shape) != list(second.shape):
            raise ConfigError(f"{self.loss}: {pair} give {list(first.shape)} and {list(second.shape)}")
        return first, second

    def forward(self, outputs: Mapping[str, Any], label: Tensor | None = None) -> dict[str, Tensor]:
        """Return one part for each pair."""
        parts = {}
        for i, pair in enumerate(self.pairs):
            value = self.fn(*self._tensors(outputs, pair), label)
            parts[self.part(i, *pair)] = weighted(value, self.pair_weights[i])
        return parts


def pair_tensors(
    outputs: Mapping[str, Any], pair: tuple[str, str], keys: tuple[str | None, str | None], loss: str
) -> tuple[Tensor, Tensor]:
    """Return the chosen tensors of both networks as float32."""
    first, second = (
        to_float(select(network_output(outputs, name, loss), key, loss, name))
        for name, key in zip(pair, keys, strict=True)
    )
    return first, second


def weighted(value: Tensor, weight: float) -> Tensor:
    """Return ``value * weight``, leaving the value untouched for 1."""
    return value if weight == 1.0 else value * weight


def check_pair_weights(loss: str, weights: Sequence[float] | None, pairs: int) -> list[float]:
    """Return one factor per pair, 1 without `weights`.

    Raises:
        ConfigError: if their number differs from that of the pairs.
    """
    if weights is None:
        return [1.0] * pairs
    if len(weights) != pairs:
        raise ConfigError(f"{loss}.pair_weights: {len(weights)} numbers for {pairs} model_name_pairs")
    return [float(w) for w in weights]

"""DistillationPairLoss: a loss of two tensors, chosen by name, for pairs of sub-networks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from paddle import Tensor, nn

from ppcls.errors import ConfigError, hint
from ppcls.loss._select import check_pairs
from ppcls.loss.pairs import check_pair_weights, pair_tensors, weighted
from ppcls.registry import LOSSES


def _base(name: Any) -> Any:
    """Return the registered loss of two tensors.

    Raises:
        ConfigError: if there is none of this name.
    """
    known = [n for n in LOSSES if getattr(LOSSES[n], "is_pair_loss", False)]
    if name not in known:
        raise ConfigError(
            f"DistillationPairLoss.base_loss_name: got {name!r}, expected one of {', '.join(known)}."
            f"{hint(str(name), known)}"
        )
    return LOSSES[name]


@LOSSES.register("DistillationPairLoss")
class DistillationPairLoss(nn.Layer):
    """Apply a loss of two tensors to pairs of networks; each pair has one of its own, parameters included.

    Parts: ``<name>_<position>_<student>_<teacher>``. No gradient reaches the second network of a pair.

    A loss can be used here if it is registered, has the class attribute ``is_pair_loss = True`` and its
    ``forward(student, teacher)`` returns a scalar. If it has a method ``prepare(student, teacher)``, that is
    called once before training, to create or check what depends on shapes. Its options stand in the same node
    as those of DistillationPairLoss. Which options those are depends on `base_loss_name`, so checkers ask
    :meth:`signature_for` instead of ``inspect.signature``.

    Args:
        base_loss_name: MGDLoss, PEFDLoss or another registered loss of two tensors.
        model_name_pairs: pairs of sub-network names, student first.
        s_key: which output of the student; null means logits.
        t_key: which output of the teacher; null means logits.
        name: beginning of the part's name.
        pair_weights: a factor for each pair.
        **options: of the chosen loss.
    """

    label_free = True

    def __init__(
        self,
        base_loss_name: str,
        model_name_pairs: list[list[str]],
        s_key: str | None = None,
        t_key: str | None = None,
        name: str = "loss",
        pair_weights: list[float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        base = _base(base_loss_name)
        self.pairs = check_pairs("DistillationPairLoss", model_name_pairs)
        self.keys = (s_key, t_key)
        self.part = name
        self.pair_weights = check_pair_weights("DistillationPairLoss", pair_weights, len(self.pairs))
        self.loss_func = nn.LayerList([base(**options) for _ in self.pairs])

    @classmethod
    def signature_for(cls, options: Mapping[str, Any]) -> inspect.Signature:
        """Return the options a node may have, given those it has.

        Raises:
            ConfigError: if `base_loss_name` is missing or unknown.
        """
        if "base_loss_name" not in options:
            raise ConfigError("DistillationPairLoss needs the option 'base_loss_name'")
        own = [
            p
            for p in inspect.signature(cls, eval_str=True).parameters.values()
            if p.kind is not p.VAR_KEYWORD
        ]
        base = inspect.signature(_base(options["base_loss_name"]), eval_str=True).parameters.values()
        return inspect.Signature([p.replace(kind=p.KEYWORD_ONLY) for p in (*own, *base)])

    @property
    def networks(self) -> frozenset[str]:
        """Names of the sub-networks whose outputs are used."""
        return frozenset(name for pair in self.pairs for name in pair)

    def _tensors(self, outputs: Mapping[str, Any], pair: tuple[str, str]) -> tuple[Tensor, Tensor]:
        first, second = pair_tensors(outputs, pair, self.keys, "DistillationPairLoss")
        return first.astype("float32"), second.detach().astype("float32")  # as the parameters are

    def prepare(self, outputs: Mapping[str, Any]) -> None:
        """Create or check what depends on shapes, from the outputs of one dry forward."""
        for pair, loss_func in zip(self.pairs, self.loss_func, strict=True):
            tensors = self._tensors(outputs, pair)
            if hasattr(loss_func, "prepare"):
                loss_func.prepare(*tensors)

    def forward(self, outputs: Mapping[str, Any], label: Tensor | None = None) -> dict[str, Tensor]:
        """Return one part for each pair."""
        parts = {}
        for i, pair in enumerate(self.pairs):
            value = self.loss_func[i](*self._tensors(outputs, pair))
            parts[f"{self.part}_{i}_{pair[0]}_{pair[1]}"] = weighted(value, self.pair_weights[i])
        return parts

"""The weighted sum of the losses that a recipe lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import paddle
from paddle import Tensor, nn

from ppcls.contracts import PluginErrors, adopt
from ppcls.errors import ConfigError
from ppcls.loss._tensors import check_scalar
from ppcls.loss.base import TOTAL, Loss, free_name
from ppcls.loss.measured import Measurement
from ppcls.loss.weight_schedule import EpochValue


@dataclass(frozen=True)
class Part:
    """One entry of the list: the loss, its registered name and its weight over the epochs."""

    name: str
    layer: Loss
    weight: EpochValue


class CombinedLoss(nn.Layer):
    """Every listed loss times its weight, and their sum.

    A loss that names its sub-networks (attribute ``networks``) is called with the outputs of all networks. A
    loss that names none, such as CELoss, is called with the output of the network `main`. A loss with
    ``label_free`` is called without labels, and also sees images that have none.

    Args:
        parts: the losses in the order of the config.
        main: sub-network for losses that name none; None if the model is a single network.
    """

    def __init__(self, parts: Sequence[Part], main: str | None = None) -> None:
        super().__init__()
        for part in parts:
            adopt(part.layer, Loss)  # a loss made in Python may derive from nn.Layer only
        self.layers = nn.LayerList([part.layer for part in parts])
        self._parts = list(parts)
        self._main = main
        self._epoch = 1

    @property
    def networks(self) -> frozenset[str]:
        """Names of all sub-networks whose outputs the losses read."""
        own = frozenset({self._main} if self._main else ())
        return frozenset().union(*(frozenset(part.layer.networks) or own for part in self._parts))

    @property
    def hard_label_losses(self) -> list[str]:
        """Names of the losses that cannot work with label probabilities, which mixup and cutmix produce."""
        return [part.name for part in self._parts if part.layer.hard_labels_only]

    @property
    def uses_unlabelled(self) -> bool:
        """Whether a loss works on images without labels."""
        return any(part.layer.label_free for part in self._parts)

    def for_network(self, network: str) -> CombinedLoss | None:
        """Return the losses that name no sub-network, applied to `network`; None if there are none."""
        plain = [part for part in self._parts if not part.layer.networks]
        return CombinedLoss(plain, network) if plain else None

    @property
    def reads_networks(self) -> bool:
        """Whether a loss takes something of the networks themselves, such as weights of the teacher."""
        return any(part.layer.reads_networks for part in self._parts)

    def measurements(self) -> list[Measurement]:
        """Return what the losses need measured of frozen networks before the first step."""
        return [wanted for part in self._parts for wanted in part.layer.measurements()]

    def set_epoch(self, epoch: int) -> None:
        """Move weight schedules to `epoch`, counted from 1 as in the log lines."""
        self._epoch = epoch
        for part in self._parts:
            part.layer.set_epoch(epoch)

    def prepare(
        self, outputs: Tensor | Mapping[str, Any], networks: Mapping[str, nn.Layer] | None = None
    ) -> None:
        """Create loss parameters whose shapes were left out, and check given shapes, keys and class counts.

        Args:
            outputs: the outputs of the model for any batch.
            networks: the sub-networks themselves; OFDLoss reads BatchNorm parameters of the teacher.

        Raises:
            ConfigError: if a given shape differs from the network's, or a key or sub-network is missing.
        """
        if networks is not None:
            self.read_networks(networks)
        for part in self._parts:
            part.layer.prepare(self._outputs_for(part.layer, outputs))

    def read_networks(self, networks: Mapping[str, nn.Layer]) -> None:
        """Let losses read what they need of the networks' weights; again after other weights were loaded."""
        for part in self._parts:
            part.layer.prepare_networks(networks)

    def forward(
        self,
        outputs: Tensor | Mapping[str, Any],
        label: Tensor | None = None,
        labelled: Tensor | Mapping[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """Return ``{"loss": sum, "<part>": value after weighting, ...}``.

        Args:
            outputs: logits [N, C], or ``{"logits": ...}``, or one of these for each sub-network by name.
            label: class indices, int [N] or [N, 1], or class probabilities, float [N, C].
            labelled: if some images have no labels, the outputs for the images that have; `label` belongs to
                these.

        Raises:
            ConfigError: naming a loss that returns something else than one number, or numbers by name.
        """
        values: dict[str, Tensor] = {}
        dynamic = paddle.in_dynamic_mode()
        # Under autocast, products and convolutions in a loss would run in half precision. Each loss casts its
        # inputs to float32 itself.
        with paddle.amp.auto_cast(enable=False):
            for part in self._parts:
                weight = part.weight(self._epoch)
                seen = outputs if labelled is None or part.layer.label_free else labelled
                targets = () if part.layer.label_free else (label,)
                with PluginErrors(part.layer, f"loss {part.name}"):
                    found = part.layer(self._outputs_for(part.layer, seen), *targets)
                for name, value in (found if isinstance(found, Mapping) else {part.name: found}).items():
                    if dynamic:
                        check_scalar(name, value)
                    values[free_name(name, values)] = value if weight == 1.0 else value * weight
            return {**values, TOTAL: sum(values.values())}  # the order of log lines

    def _outputs_for(self, layer: Loss, outputs: Tensor | Mapping[str, Any]) -> Tensor | Mapping[str, Any]:
        if layer.networks or self._main is None or not isinstance(outputs, Mapping):
            return outputs
        if self._main in outputs:
            return outputs[self._main]
        if "logits" in outputs:
            return outputs
        raise ConfigError(f"no sub-network {self._main!r} in the outputs ({', '.join(map(str, outputs))})")

"""What every network has that ``Arch`` can name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from paddle import Tensor, nn

from ppcls.contracts import Component
from ppcls.errors import ConfigError
from ppcls.weights.loadable import Loadable


class Network(nn.Layer, Loadable, Component):
    """Base class of networks; `ppcls.arch.TheseusLayer` is that of networks whose layers can be named.

    Attributes:
        shared_options: see `Component`; those that `ppcls.arch.register_network` adds.
        names: names of the sub-networks, in order; none for a plain network.
        always_frozen: whether it cannot be trained.
        output_keys: what its output is a map of, if that does not depend on options; None for logits.
        names_layers: whether `update_res` chooses what a forward returns beside the logits.
    """

    shared_options = {
        "class_num": "number of classes.",
        "pretrained": "True for the official weights of this name, or a path, or an address.",
        "use_ssld": "take the official weights that were distilled by SSLD.",
        "use_ssld_stage1_pretrained": "take the official weights after the first stage of SSLD.",
        "use_imagenet22k_pretrained": "take the official weights for the 21841 classes of ImageNet-22k.",
        "use_imagenet22kto1k_pretrained": "the same, fine-tuned on 1000 classes.",
        "return_patterns": "layers whose outputs are returned together with the logits; `ppcls layers` lists "
        "them.",
        "return_stages": "the same by stage: true (all), an index or a list of indices.",
        "stop_after": "the layer that ends the network.",
        "freeze_befor": "the last layer that does not train.",
    }
    names: Sequence[str] = ()
    always_frozen: ClassVar[bool] = False
    output_keys: Sequence[str] | None = None
    names_layers: ClassVar[bool] = False

    @abstractmethod
    def forward(self, x: Any) -> Any:
        """Return the logits [N, C] of images [N, C, H, W], float32, or a map with ``logits`` in it."""

    def network(self, name: str) -> Network:
        """Return a sub-network by name.

        Raises:
            ConfigError: if there is none of that name.
        """
        raise ConfigError(f"there is no network {name!r}: {type(self).__name__} is a single network")

    def update_res(self, return_patterns: str | Sequence[str]) -> list[str]:
        """Set what a forward returns beside the logits, and return it; see `TheseusLayer.update_res`.

        Raises:
            ConfigError: if it has nothing of a given name.
        """
        if return_patterns:
            raise ConfigError(f"{type(self).__name__} has no layers that could be named")
        return []

    def members(self, name: str) -> list[str]:
        """Return the networks that an output of this name is made of; several only for an ensemble."""
        return [name]

    def drop_teachers(self, seed: int, step: int) -> frozenset[str]:
        """Draw the teachers that a step of training leaves out (DistillationModel); return their names.

        Args:
            seed: seed of the run.
            step: number of optimizer steps before this one.
        """
        return frozenset()

    def prepare(self, image_shape: Sequence[int]) -> None:
        """Create parameters whose shapes depend on the images, [C, H, W]; before weights are loaded."""

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Return the state without that of frozen networks: what belongs into a checkpoint."""
        state: dict[str, Tensor] = self.state_dict()
        return state

    def frozen_statistics(self) -> dict[str, Tensor]:
        """Return by name the statistics that frozen networks change in training (``frozen_mode: train``)."""
        return {}

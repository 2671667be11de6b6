"""Base classes of losses: which outputs a loss reads, whether it needs labels, and how it is prepared."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from paddle import Tensor, nn

from ppcls.contracts import Component
from ppcls.loss.measured import Measurement

TOTAL = "loss"  # name of the sum of all losses, in their values and in the log


class Loss(nn.Layer, Component):
    """Base class of losses.

    Attributes:
        networks: names of the sub-networks whose outputs it reads; it is called with the outputs of all of
            them by name. Empty for a loss such as CELoss, which is called with the output of one network.
        label_free: whether it needs no labels. Then it is called without them, and also for the images of
            ``DataLoader.UnLabelTrain``.
        hard_labels_only: why it cannot work with label probabilities, which mixup and cutmix produce; None if
            it can.
        is_pair_loss: whether it compares two tensors and is used by DistillationPairLoss, see
            `TensorPairLoss`.
        one_way: whether no gradient reaches the second network of a pair that it names. Derived classes may
            compute otherwise, so they say it again.
    """

    is_pair_loss: ClassVar[bool] = False
    one_way: ClassVar[bool] = False

    if TYPE_CHECKING:  # a subclass may have attributes or properties of these names

        @property
        def networks(self) -> Collection[str]: ...  # noqa: D102

        @property
        def label_free(self) -> bool: ...  # noqa: D102

        @property
        def hard_labels_only(self) -> str | None: ...  # noqa: D102
    else:
        networks: Collection[str] = frozenset()
        label_free: bool = False
        hard_labels_only: str | None = None

    @abstractmethod
    def forward(self, outputs: Any, label: Tensor | None = None) -> Tensor | Mapping[str, Tensor]:
        """Return the loss, a scalar, or several scalars by the names that the log shows.

        Args:
            outputs: logits [N, C], or a map with ``logits`` among other outputs; with `networks` a map from
                the names of all sub-networks to such outputs.
            label: class indices, int64 [N, 1], or probabilities, float32 [N, C]; left out with `label_free`.
        """

    def prepare(self, outputs: Any) -> None:
        """Create parameters whose shapes depend on the outputs, and check given shapes.

        Called once, before weights are loaded and the optimizer is made.

        Args:
            outputs: as for `forward`, of a dry run with two images.

        Raises:
            ConfigError: if something does not fit.
        """

    def prepare_networks(self, networks: Mapping[str, nn.Layer]) -> None:
        """Read what the loss needs from the sub-networks, given by name; called before `prepare`."""

    @property
    def reads_networks(self) -> bool:
        """Whether it takes something of the networks themselves, such as weights of the teacher."""
        return type(self).prepare_networks is not Loss.prepare_networks

    def measurements(self) -> Sequence[Measurement]:
        """Return what has to be measured of frozen networks on the training images before the first step.

        Called after `prepare`, in a run that begins; a resumed run has the results in its checkpoint.
        """
        return ()

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that begins, counted from 1."""

    @classmethod
    def arguments_of(cls, method: str, component: Any) -> Sequence[str]:
        """Return the arguments a method is called with; a loss without labels gets only the outputs."""
        free = method == "forward" and vars(component).get("label_free") is True
        return ["outputs"] if free else super().arguments_of(method, component)


class TensorPairLoss(nn.Layer, Component):
    """Base class of losses of two tensors, which ``DistillationPairLoss: {base_loss_name: ...}`` chooses.

    Attributes:
        is_pair_loss: true for these losses only.
        several_maps: whether it accepts lists of tensors; `s_key` and `t_key` are then lists.
        part: beginning of its name in the log, for a recipe without ``name``; None for its registered name.
    """

    is_pair_loss: ClassVar[bool] = True
    several_maps: ClassVar[bool] = False
    part: ClassVar[str | None] = None

    @abstractmethod
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss, a scalar, for an output of the student and one of the teacher, float32.

        No gradient reaches `teacher`.
        """

    def prepare(self, student: Tensor, teacher: Tensor) -> None:
        """Create parameters whose shapes depend on the tensors, and check given shapes.

        Raises:
            ConfigError: if something does not fit.
        """


def free_name(name: str, taken: Mapping[str, Any]) -> str:
    """Return `name`, or `name_2`, `name_3`, ... if it is taken or is the name of the sum."""
    candidate = name
    number = 1
    while candidate in taken or candidate == TOTAL:
        number += 1
        candidate = f"{name}_{number}"
    return candidate

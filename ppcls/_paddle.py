"""All uses of private parts of Paddle, as they are in Paddle 3.3.1.

Paddle may change these parts without notice, so a new version is tested with this file first.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, MutableMapping, Sequence
from functools import cache
from typing import Any

import paddle
from paddle import nn
from paddle.base.dygraph.base import in_sot_simulation_mode
from paddle.nn.layer.norm import _BatchNormBase as BatchNormBase
from paddle.optimizer import Optimizer

from ppcls.job import end_on_sigterm

__all__ = ["BatchNormBase", "in_sot_simulation_mode"]

end_on_sigterm()


def children_of(layer: nn.Layer) -> MutableMapping[str, nn.Layer]:
    """Return the sub-layers of `layer` by name; changes of the mapping change the layer."""
    return layer._sub_layers


def buffers_of(layer: nn.Layer) -> MutableMapping[str, paddle.Tensor]:
    """Return the buffers of `layer` itself by name; changes of the mapping change the layer."""
    return layer._buffers


def pre_hooks_of(layer: nn.Layer) -> MutableMapping[int, Any]:
    """Return the hooks that run before the forward pass of `layer`, by their ids."""
    return layer._forward_pre_hooks


def post_hooks_of(layer: nn.Layer) -> MutableMapping[int, Any]:
    """Return the hooks that run after the forward pass of `layer`, by their ids."""
    return layer._forward_post_hooks


def share_hooks(source: nn.Layer, target: nn.Layer) -> None:
    """Share the forward hooks of `source` with `target`; removing a hook removes it from both."""
    target._forward_pre_hooks = source._forward_pre_hooks
    target._forward_post_hooks = source._forward_post_hooks


def groups_of(convolution: nn.Layer) -> int:
    """Return the number of groups of channels of a convolution."""
    return int(convolution._groups)


def epsilon_of(norm: nn.Layer) -> float:
    """Return the number that a normalisation adds to the variance."""
    return float(norm._epsilon)


def uses_running_statistics(norm: BatchNormBase) -> bool:
    """Tell whether a BatchNorm uses its running statistics even in training."""
    return bool(norm._use_global_stats)


def to_static(network: nn.Layer, **options: Any) -> Any:
    """``paddle.jit.to_static``, which also works where ``~/.cache`` cannot be written.

    Paddle writes the code that it makes of a forward pass into ``~/.cache/paddle``, now or when the network
    is first run.
    """
    _write_code_elsewhere()
    return paddle.jit.to_static(network, **options)


@cache
def _write_code_elsewhere() -> None:
    """Let Paddle write code into a temporary folder whenever its own one cannot be created."""
    utils: Any = getattr(getattr(paddle.jit, "dy2static", None), "utils", None)
    usual = getattr(utils, "get_temp_dir", None)
    if usual is not None:
        utils.get_temp_dir = lambda: _folder_for_code(usual)


def _folder_for_code(usual: Callable[[], str]) -> str:
    """Return the folder that `usual` creates, or a temporary one."""
    if not os.path.expanduser("~").startswith("~"):  # otherwise, Paddle would create a folder named ~
        try:
            folder = usual()
        except OSError:
            return _temporary_folder()
        if os.access(folder, os.W_OK | os.X_OK):  # another user's process may have had the same number
            return folder
    return _temporary_folder()


@cache
def _temporary_folder() -> str:
    folder = tempfile.mkdtemp(prefix="ppcls-code-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def runs_outside_old_programs() -> bool:
    """Tell whether a forward pass runs eagerly or builds a new (PIR) program, not a legacy one."""
    return bool(paddle.framework.in_dynamic_or_pir_mode())


def parameters_of(optimizer: Optimizer) -> Sequence[paddle.Tensor]:
    """Return the parameters that `optimizer` changes."""
    return optimizer._parameter_list


def slots_of(optimizer: Optimizer) -> dict[str, dict[str, paddle.Tensor]]:
    """Return the state of `optimizer` as ``{slot: {automatic parameter name: tensor}}``."""
    return optimizer._accumulators


def master_weights_of(optimizer: Optimizer) -> dict[str, paddle.Tensor]:
    """Return the float32 copies of half-precision parameters, by automatic parameter name."""
    return dict(getattr(optimizer, "_master_weights", {}))  # not every optimizer has them


def create_slots(optimizer: Optimizer, parameters: Sequence[paddle.Tensor]) -> None:
    """Create the state for `parameters` that Paddle would create in the first step."""
    block = paddle.base.framework.default_main_program().global_block()
    optimizer._create_accumulators(block, parameters)


def keep_master_weights(optimizer: Optimizer, wanted: bool) -> None:
    """Let `optimizer` keep float32 copies, which Paddle implements here without an argument for them."""
    optimizer._multi_precision = wanted


def compute_with_threads(number: int) -> None:
    """Let operators on the CPU use `number` threads from now on."""
    paddle.base.core.set_num_threads(number)


def shared_store() -> Any:
    """Return the key-value store of all processes; unlike a collective, it has no time limit."""
    from paddle.base.core import create_or_get_global_tcp_store

    return create_or_get_global_tcp_store()

"""BatchNorm with the statistics of all processes."""

from __future__ import annotations

from paddle import nn

from ppcls._paddle import BatchNormBase, share_hooks, uses_running_statistics


def synchronise_batch_norm(model: nn.Layer) -> int:
    """Replace the BatchNorm layers that train by Paddle's SyncBatchNorm.

    Names, parameters, statistics, modes and hooks stay the same, so weights, returned features and
    checkpoints are not affected. Frozen layers, and those that always use their running statistics, are not
    replaced.

    Args:
        model: a network, or a group of networks, some of which may be frozen.

    Returns:
        number of replaced layers.
    """
    replaced = 0
    for parent in model.sublayers(include_self=True):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, BatchNormBase) and _uses_the_batch(layer):
                parent.add_sublayer(name, _synchronised(layer))
                replaced += 1
    return replaced


def _uses_the_batch(layer: BatchNormBase) -> bool:
    if isinstance(layer, nn.SyncBatchNorm) or uses_running_statistics(layer):
        return False
    return any(not p.stop_gradient for p in (layer.weight, layer.bias) if p is not None)


def _synchronised(layer: BatchNormBase) -> nn.SyncBatchNorm:
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(layer)  # shares parameters and statistics
    converted.training = layer.training
    share_hooks(layer, converted)
    return converted

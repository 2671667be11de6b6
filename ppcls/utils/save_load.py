"""Functions that load and save weights, with the names that scripts written for PaddleClas use.

Files are compared with the network: the log says how many tensors fit, and a file that would leave the
network untrained is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paddle import nn

from ppcls.errors import ConfigError
from ppcls.weights import load_pretrained, write_params
from ppcls.weights.loadable import Loadable

__all__ = ["init_model", "load_dygraph_pretrain", "load_dygraph_pretrain_from_url", "save_model"]


def load_dygraph_pretrain(model: nn.Layer, path: str | None = None) -> None:
    """Load the weights file `path`, with or without ``.pdparams``, into a network.

    Raises:
        WeightsError: if the file cannot be read or does not fit.
    """
    if not path:
        raise ConfigError("load_dygraph_pretrain: expected the path of a weights file")
    load_pretrained(model, _name(model), str(path), where="load_dygraph_pretrain")


def load_dygraph_pretrain_from_url(model: nn.Layer, pretrained_url: str, use_ssld: bool = False) -> None:
    """Download weights, unless the cache has them, and load them into a network.

    Args:
        model: the network.
        pretrained_url: address of ``..._pretrained.pdparams``.
        use_ssld: use ``..._ssld_pretrained.pdparams`` at the same address instead.

    Raises:
        ConfigError: if `use_ssld` is True and the address does not have that form.
        WeightsError: if the file cannot be obtained or does not fit.
    """
    if use_ssld:
        folder, slash, file = pretrained_url.rpartition("/")
        if "_pretrained" not in file:
            raise ConfigError(
                "load_dygraph_pretrain_from_url: use_ssld needs an address that ends in "
                f"..._pretrained.pdparams, got {pretrained_url!r}"
            )
        pretrained_url = folder + slash + file.replace("_pretrained", "_ssld_pretrained")
    load_pretrained(model, _name(model), pretrained_url, where="load_dygraph_pretrain_from_url")


def init_model(
    config: Mapping[str, Any], net: nn.Layer, optimizer: Any = None, loss: Any = None, ema: Any = None
) -> None:
    """Load ``pretrained_model`` of a section ``Global`` into a network.

    Args:
        config: the section; nothing is loaded without ``pretrained_model``.
        net: the network.
        optimizer: accepted for old scripts.
        loss: accepted for old scripts.
        ema: accepted for old scripts.

    Raises:
        ConfigError: if ``checkpoints`` is set: a run is resumed as a whole, by ``Engine(config).train()``.
        WeightsError: if the file cannot be read or does not fit.
    """
    if config.get("checkpoints"):
        raise ConfigError(
            f"init_model: Global.checkpoints is {config['checkpoints']!r}; resume that run with "
            "Engine(config).train(), or load its weights alone with Global.pretrained_model"
        )
    if config.get("pretrained_model"):
        load_dygraph_pretrain(net, config["pretrained_model"])


def save_model(
    net: nn.Layer,
    optimizer: Any,
    metric_info: Mapping[str, Any],
    model_path: str,
    model_name: str = "",
    prefix: str = "ppcls",
    **others: Any,
) -> None:
    """Write the weights of a network to ``<model_path>/<model_name>/<prefix>.pdparams``.

    Args:
        net: the network.
        optimizer: accepted for old scripts; checkpoints to resume from are written by ``Engine.train``.
        metric_info: accepted for old scripts.
        model_path: folder.
        model_name: folder in it.
        prefix: name of the file.
        **others: accepted for old scripts.

    Raises:
        WeightsError: if the file cannot be written.
    """
    write_params(Path(model_path) / model_name / f"{prefix}.pdparams", net.state_dict())


def _name(model: nn.Layer) -> str:
    own = model.registered_name if isinstance(model, Loadable) else ""
    return own or type(model).__name__

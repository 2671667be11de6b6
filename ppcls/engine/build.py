"""Build the parts of a run from a validated config."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import paddle
from paddle import nn

from ppcls import __version__
from ppcls._paddle import to_static
from ppcls.arch import TheseusLayer, build_empty, build_model
from ppcls.arch.conv import use_kernels_alone
from ppcls.arch.distillation import NetworkGroup
from ppcls.arch.sync_bn import synchronise_batch_norm
from ppcls.config import ArchSpec, ComponentSpec, Recipe, dump_yaml, plain
from ppcls.data.transforms.normalize import IMAGENET_MEAN, IMAGENET_STD
from ppcls.distributed import is_main, rank, world_size
from ppcls.engine.deployment import deployed_transforms
from ppcls.engine.evaluation.evaluate import evaluating
from ppcls.engine.speed import describe_processor
from ppcls.errors import ConfigError, DataError, mask_credentials
from ppcls.logger import LOGGER, setup_logging
from ppcls.weights import (
    find_file,
    in_our_names,
    load_into,
    load_loss_parameters,
    log_left_out,
    read_params,
    split_loss_parameters,
    untrained,
)

# The entry of environment.json with the folder to which relative paths of the recipe belong.
WORKING_FOLDER = "working_folder"


def require_float32() -> None:
    """Refuse another default type of numbers than that of images and of weights.

    Raises:
        ConfigError: saying how to set it.
    """
    kind = paddle.get_default_dtype()
    if kind != "float32":
        raise ConfigError(
            f"the default dtype of Paddle is {kind}, but ppcls computes in float32; "
            "call paddle.set_default_dtype('float32') first"
        )


def select_device(name: str) -> str:
    """Set and return Paddle's device for ``Global.device``.

    Args:
        name: ``auto`` (a GPU if there is one), ``cpu``, ``gpu``, ``gpu:1`` and so on.

    Raises:
        ConfigError: if a GPU is requested but not available.
    """
    gpus = paddle.device.cuda.device_count() if paddle.device.is_compiled_with_cuda() else 0
    if name == "auto":
        name = "gpu" if gpus else "cpu"
    if name.startswith("gpu") and not gpus:
        build = "has no GPU support" if not paddle.device.is_compiled_with_cuda() else "sees no GPU"
        raise ConfigError(f"Global.device: gpu, but this Paddle {build}; use -o Global.device=cpu")
    try:
        return str(paddle.device.set_device(name))
    except ValueError as error:
        raise ConfigError(f"Global.device: {name!r}: {error}") from None


def start_logging(log_ranks: list[int], *, hold: bool = False) -> None:
    """Log to the console in the processes of ``log_ranks``.

    Args:
        log_ranks: ``Global.log_ranks``.
        hold: rank 0 keeps the lines for ``train.log`` too, until :func:`ppcls.logger.open_log` is called.
    """
    setup_logging(quiet=rank() not in log_ranks, hold=hold and is_main(), to_stderr=None)


def run_files(config: Recipe, noted: Mapping[str, Any] | None = None) -> dict[str, bytes]:
    """Return the resolved config and the environment as files for the folder of the run, by name.

    Args:
        config: the resolved config.
        noted: further entries of the environment.
    """
    text = mask_credentials(dump_yaml(plain(config)))
    environment = {
        "ppcls": __version__,
        "python": sys.version.split()[0],
        "paddle": paddle.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "device": paddle.device.get_device(),
        WORKING_FOLDER: os.getcwd(),
        "command": [mask_credentials(argument) for argument in sys.argv],
        **describe_processor(),
        **(noted or {}),
    }
    described = json.dumps(environment, indent=1) + "\n"
    return {"config.yaml": text.encode(), "environment.json": described.encode()}


def check_deployed_trains(arch: ArchSpec) -> None:
    """Raise an error if the best network of a run would be chosen by a network that does not change.

    Raises:
        ConfigError: naming those that train.
    """
    main = arch.main.title
    if main and arch.trained and main not in arch.trained:
        raise ConfigError(
            f"Arch.infer_model_name: {main} is frozen, so best_model would follow a network that does not "
            f"change; name one that trains: {', '.join(arch.trained)}"
        )


def networks_with_weights(arch: ArchSpec, names: Sequence[str], weights: str | None) -> list[str]:
    """Return the networks of `names` that have weights for an evaluation.

    Args:
        arch: the networks of the recipe.
        names: names of sub-networks that train.
        weights: ``Global.pretrained_model``; None for the weights that the recipe loads.
    """
    if weights is None or not names:
        return [name for name in names if arch.find(name).has_own_weights]
    there = {key.partition(".")[0] for key in read_params(find_file(weights, "Global.pretrained_model"))}
    return [name for name in names if name in there]


def normalization(config: Recipe, mode: str) -> dict[str, Sequence[float]] | None:
    """Return mean and std of the input images in a mode; None if they are not normalised."""
    if mode in ("train", "eval"):
        data = config.DataLoader.Train if mode == "train" else config.DataLoader.Eval
        ops = data.dataset.get("transform_ops") if data is not None and data.dataset else None
    elif mode == "infer":
        ops = config.Infer.transforms
    else:
        ops = deployed_transforms(config)
    for op in reversed(ComponentSpec.read_all(ops, "transforms")):
        if op.name == "NormalizeImage":
            mean = op.options.get("mean")
            std = op.options.get("std")
            return {"mean": mean or IMAGENET_MEAN, "std": std or IMAGENET_STD}
    return None


def build_trained_model(
    arch: ArchSpec,
    only: set[str] | None,
    weights: str | None,
    mode: str,
    normalize: dict[str, Sequence[float]] | None = None,
    main: str | None = None,
) -> nn.Layer:
    """Build the networks for evaluation, inference or export, with weights.

    Args:
        arch: the networks of the recipe.
        only: names of the sub-networks needed; None for a plain network.
        weights: ``Global.pretrained_model``; it replaces the weights that the recipe loads.
        mode: named in the message.
        normalize: see :func:`normalization`.
        main: the sub-network for a file of a single network.

    Raises:
        ConfigError: if there are no weights at all, because predictions would be random.
    """
    if weights is None and not all(arch.find(name).has_own_weights for name in only or {""}):
        what = f"network {', '.join(sorted(only))}" if only else f"network {arch.name}"
        raise ConfigError(
            f"Global.pretrained_model: not set, and {what} has no pretrained weights, so {mode} would show "
            "an untrained network; use -o Global.pretrained_model=output/.../best_model"
        )
    if weights is None:
        model = build_model(arch, only=only, normalize=normalize)
    else:
        path = find_file(weights, "Global.pretrained_model")
        params, of_losses = split_loss_parameters(read_params(path))
        log_left_out(of_losses, str(path))
        absent = _frozen_elsewhere(arch, only or set(), params)
        if not all(arch.find(name).has_own_weights for name in absent):
            raise ConfigError(
                f"{path} leaves out the frozen network {', '.join(sorted(absent))}, which {mode} needs, "
                "and the recipe does not say where its weights come from; set its `pretrained`"
            )
        if absent:
            model = build_model(arch.without_weights(keep=absent), only=only, normalize=normalize)
        else:
            model = build_empty(arch, only=only, normalize=normalize)
        params = in_our_names(params, path, model, arch.name)
        load_into(model, params, where=str(path), allow_missing_head=False, network=main)
    model.eval()
    warn_of_random_answers(model)
    return model


def warn_of_random_answers(model: nn.Layer, *, training: bool = False) -> None:
    """Warn of networks whose classifier has no trained values although it will not be trained.

    Args:
        model: the network or networks.
        training: whether those that are not frozen are to be trained.
    """
    left: dict[str, list[str]] = {}
    several = isinstance(model, NetworkGroup)
    state = model.state_dict()
    if training:
        frozen = model.frozen_prefixes() if several else ()
        state = {name: value for name, value in state.items() if name.startswith(frozen)}
    for name in untrained(state):
        network, _, rest = name.partition(".") if several else ("The network", "", name)
        left.setdefault(network, []).append(rest)
    for network, names in left.items():
        LOGGER.warning(
            "!!! %s is not trained here, and its classifier has no trained values: its file of weights has "
            "none that fit %s, so its logits are random; only its features can teach. With the class_num of "
            "the file it would have its classifier",
            network,
            ", ".join(names),
        )


def _frozen_elsewhere(arch: ArchSpec, names: set[str], params: Collection[str]) -> set[str]:
    """Return the frozen networks of `names` that are not in a checkpoint: they keep the recipe's weights."""
    if len(names) == 1 and not any(key.partition(".")[0] in arch.names for key in params):
        return set()  # a file of a single network, the requested one
    heads = {name: arch.find(name).head for name in names}
    return {
        name
        for name, head in heads.items()
        if head.frozen and not any(key.startswith(head.prefix) for key in params)
    }


def load_start(model: nn.Layer, loss: nn.Layer, weights: str, name: str, main: str | None) -> None:
    """Load the initial weights of a run, ``Global.pretrained_model``.

    Args:
        model: the network or networks.
        loss: the training loss, whose parameters exist already.
        weights: the file, with or without suffix.
        name: the registered name of `model`.
        main: the network to deploy, which gets the weights of a file of a single network.

    Raises:
        WeightsError: if they cannot be read or do not fit.
    """
    path = find_file(weights, "Global.pretrained_model")
    params, of_losses = split_loss_parameters(read_params(path))
    load_into(model, in_our_names(params, path, model, name), where=str(path), network=main)
    if of_losses:
        load_loss_parameters(loss, of_losses, str(path))


def first_sample_shape(loader: Any, part: str = "Train") -> tuple[int, ...]:
    """Read one sample; errors of the transforms occur here, before anything is built.

    Args:
        loader: the loader of ``DataLoader.<part>``.
        part: ``Train`` or ``Eval``, for the message.

    Returns:
        (C, H, W)
    """
    image = loader.first_image()
    if image.ndim != 3:
        raise DataError(
            f"DataLoader.{part}.dataset.transform_ops give an array of shape {image.shape}, not [C, H, W]"
        )
    return tuple(image.shape)


def dry_forward(model: nn.Layer, shape: tuple[int, ...]) -> Any:
    """Return the output of `model` for two empty images of `shape`, [C, H, W]; its mode does not change."""
    with evaluating(model), paddle.no_grad():
        return model(paddle.zeros([2, *shape]))


def check_outputs(arch: ArchSpec, outputs: Any) -> None:
    """Refuse networks that do not return what losses, metrics and exports read.

    Args:
        arch: the networks of the recipe.
        outputs: outputs of the networks for two images.

    Raises:
        ConfigError: naming a network that returns neither a tensor nor a map, or one that trains and whose
            logits are not [N, class_num].
    """
    several = bool(arch.children) and not arch.is_chain
    for spec in arch.children if several else (arch,):
        output = outputs[spec.title] if several else outputs
        logits = output.get("logits") if isinstance(output, Mapping) else output
        features = logits is None or bool(spec.head.options.get("stop_after"))
        if features or (spec.frozen and isinstance(logits, paddle.Tensor)):
            continue  # losses themselves compare the classes of frozen networks with those of students
        classes = spec.head.class_num
        if isinstance(logits, paddle.Tensor):
            if logits.ndim == 2 and classes in (None, logits.shape[1]):
                continue
            got = f"the shape [{', '.join(map(str, ['N', *logits.shape[1:]]))}]"
        else:
            got = type(logits).__name__
        raise ConfigError(
            f"the network {spec.head.name} has to return logits [N, {classes or 'C'}], or a map with them as "
            f"'logits', but returns {got}" + ("" if classes is None else f" (class_num is {classes})"),
            path=spec.path,
        )


def networks_of(model: nn.Layer) -> dict[str, nn.Layer]:
    """Return the networks of a group by name; a single network has none."""
    return {name: model.network(name) for name in model.names}


def find_shapes(model: nn.Layer, loss: nn.Layer, shape: tuple[int, ...], arch: ArchSpec) -> Any:
    """Find shapes that the recipe leaves out in feature transforms and losses, and check given ones.

    This runs a trial forward pass. It creates the parameters whose shapes were left out, and reports wrong
    keys and shapes before training.

    Args:
        model: the network.
        loss: the training loss.
        shape: [C, H, W] of the images.
        arch: the networks of the recipe.

    Returns:
        the outputs of the network for two images.
    """
    model.prepare(shape)
    networks = networks_of(model)
    outputs = dry_forward(model, shape)
    check_outputs(arch, outputs)
    with paddle.no_grad():
        loss.prepare(outputs, networks)
    return outputs


def synchronise(layers: Iterable[nn.Layer], asked: bool) -> None:
    """Let BatchNorm layers that train use the statistics of all processes, if ``Global.use_sync_bn`` is set.

    Raises:
        ConfigError: with several processes on the CPU, for which Paddle has no kernel.
    """
    if not asked:
        return
    if world_size() == 1:
        LOGGER.warning("use_sync_bn: one process has nothing to synchronise; its BatchNorm stays as it is")
        return
    if not paddle.device.get_device().startswith("gpu"):
        raise ConfigError(
            "use_sync_bn: Paddle's SyncBatchNorm has no CPU kernel; use -o Arch.use_sync_bn=false (each "
            "process then normalises by its own part of the batch; running statistics are averaged anyway)"
        )
    count = sum(synchronise_batch_norm(layer) for layer in layers)
    LOGGER.info("use_sync_bn: %d BatchNorm layers are synchronised", count)


def make_static(model: nn.Layer) -> None:
    """Let each network train as a static graph; a frozen one still runs under no_grad."""
    use_kernels_alone(model)  # a graph is traced once, for maps and batches of any size
    for network in [model.network(name) for name in model.names] or [model]:
        to_static(network)


def moving_buffers(model: nn.Layer, loss: nn.Layer) -> list[paddle.Tensor]:
    """Return the float32 tensors that forward passes of training change, such as BatchNorm statistics.

    Weights and statistics of layers that `freeze_befor` holds are left out: averaging them over processes
    would cost time, and rounding would change them.
    """
    named = {**trainable_state(model), **loss.state_dict(), **model.frozen_statistics()}
    layers = model.sublayers(include_self=True)
    held = [part for layer in layers if isinstance(layer, TheseusLayer) for part in layer.frozen_layers]
    left_out = {id(tensor) for part in held for tensor in part.state_dict().values()}
    return [
        tensor
        for tensor in named.values()
        if tensor.stop_gradient and tensor.dtype == paddle.float32 and id(tensor) not in left_out
    ]


def trainable_state(model: nn.Layer) -> dict[str, Any]:
    """Return the tensors for a checkpoint: all except those of frozen networks."""
    state: dict[str, Any] = model.trainable_state_dict()
    return state


def count_parameters(model: nn.Layer) -> tuple[int, int]:
    """Return the numbers of all and of trained parameters, without BatchNorm statistics.

    A parameter whose learning rate is multiplied by 0 (``lr_mult_list``) does not count as trained.
    """
    named = [(name.rpartition(".")[2], p) for name, p in model.named_parameters()]
    sizes = [
        (int(np.prod(p.shape)), not p.stop_gradient and p.optimize_attr["learning_rate"] > 0)
        for leaf, p in named
        if leaf not in ("_mean", "_variance")
    ]
    return sum(n for n, _ in sizes), sum(n for n, trains in sizes if trains)


def announce(model: nn.Layer, title: str, seed: int) -> None:
    """Log which model will be trained; `title` is its registered name."""
    everything, trained = count_parameters(model)
    LOGGER.info(
        "%s: %s parameters, %s of them train; device %s; seed %d",
        title,
        f"{everything:,}",
        f"{trained:,}",
        paddle.device.get_device(),
        seed,
    )

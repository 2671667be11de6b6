"""Load parameters into a network, and report exactly which ones fitted."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcls.errors import WeightsError, mask_credentials
from ppcls.weights.convert import convert
from ppcls.weights.loadable import Loadable
from ppcls.weights.loss_parameters import log_left_out, split_loss_parameters
from ppcls.weights.parameter_files import find_file, has_torch_layout, read_params
from ppcls.weights.renames import advice_on_shapes, in_present_names, warn_of_other_answers
from ppcls.weights.sources import fetch, official_url
from ppcls.weights.values import assign, check_finite, mark_untrained

if TYPE_CHECKING:
    from paddle import nn

logger = logging.getLogger("ppcls.weights")

_IGNORED = "num_batches_tracked"
_TORCH_NAMES = (
    "The names are PyTorch's, and the file does not say that PyTorch wrote it; `ppcls convert-weights` turns "
    "it into weights of ppcls"
)


class ClassifierError(WeightsError):
    """Weights of this network that have no classifier for its number of classes."""


@dataclass(frozen=True)
class LoadSummary:
    """Which names of a network and of a file matched, and which did not."""

    source: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]

    def __str__(self) -> str:
        wanted = len(self.matched) + len(self.missing) + len(self.wrong_shape)
        return (
            f"{len(self.matched)} of {wanted} tensors loaded from {self.source} "
            f"({len(self.missing)} missing, {len(self.unexpected)} unexpected, "
            f"{len(self.wrong_shape)} of another shape)"
        )


def load_into(
    net: nn.Layer,
    params: Mapping[str, np.ndarray],
    where: str,
    allow_missing_head: bool = True,
    *,
    network: str | None = None,
) -> LoadSummary:
    """Copy `params` into `net` by name and log how many fitted.

    Values are cast to the network's types. A file of a whole distillation run can be loaded into a single one
    of its networks, and a file of one network into its sub-network of a whole run. Frozen sub-networks that
    do not occur in the file keep their values.

    Args:
        net: the network; its types and devices do not change.
        params: arrays by name, as `read_params` returns them.
        where: the source of the parameters, for messages.
        allow_missing_head: accept a classifier for another number of classes, or a file without a classifier;
            the network's classifier then keeps its values.
        network: which sub-network of a distillation run's file to use if several would fit
            (default: ``Student``).

    Raises:
        WeightsError: if nothing matches, if anything other than the classifier would stay untrained, or if a
            value is not finite. The network is then unchanged.
    """
    own = {name: value for name, value in net.state_dict().items() if _IGNORED not in name}
    given = {name: value for name, value in params.items() if _IGNORED not in name}
    given = in_present_names(net, given, where)
    note = ""
    if not own.keys() & given.keys():
        given, own, note = _align(own, given, where, network)
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    frozen = net.frozen_prefixes() if isinstance(net, Loadable) else ()
    absent = tuple(prefix for prefix in frozen if not any(k.startswith(prefix) for k in given))
    wanted = [name for name in own if not name.startswith(absent)] if absent else list(own)
    report = LoadSummary(
        source=where,
        matched=tuple(n for n in wanted if n in given and given[n].shape == shapes[n]),
        missing=tuple(n for n in wanted if n not in given),
        unexpected=tuple(n for n in given if n not in own),
        wrong_shape=tuple(n for n in wanted if n in given and given[n].shape != shapes[n]),
    )
    if absent:
        note += f"; {', '.join(p[:-1] for p in absent)} not in the file, left as built"
    left = [*report.missing, *report.wrong_shape]
    if left:
        if not (allow_missing_head and report.matched and _is_head(report, shapes, given)):
            advice = advice_on_shapes(net, report.wrong_shape, given)
            kind = ClassifierError if report.matched and _is_head(report, shapes, given) else WeightsError
            raise kind(_explain(report, shapes, given, allow_missing_head) + advice)
        note += f"; classifier left untrained: {', '.join(left)}" + _class_counts(report, shapes, given)
    check_finite({name: given[name] for name in report.matched}, where)
    for name in report.matched:
        assign(own[name], given[name])
    mark_untrained((own[name] for name in left), (own[name] for name in report.matched))
    logger.info("%s%s", report, note)
    warn_of_other_answers(net, where)
    return report


def load_pretrained(
    net: nn.Layer,
    name: str,
    pretrained: bool | str | None,
    use_ssld: bool = False,
    where: str = "Arch",
    *,
    variant: str | None = None,
    allow_missing_head: bool = True,
    network: str | None = None,
) -> LoadSummary | None:
    """Load weights as the ``pretrained`` option of a network says.

    Args:
        net: the network.
        name: the registered name of the network, by which official weights and the rules for PyTorch's names
            are found.
        pretrained: True for the official weights, a path (with or without ``.pdparams``) or a URL; False or
            None for none. PyTorch's files are converted.
        use_ssld: use the official weights distilled by SSLD.
        where: config path for messages, such as ``Arch.models.0.Teacher``.
        variant: other official weights; see `ppcls.weights.sources.official_url`.
        allow_missing_head: see `load_into`.
        network: see `load_into`.

    Raises:
        WeightsError: if the weights cannot be obtained or do not fit.
    """
    if not pretrained:
        return None
    if pretrained is True:
        source: str | os.PathLike[str] = official_url(name, use_ssld, where, variant=variant)
    else:
        source = str(pretrained)
        if use_ssld or variant:
            logger.warning(
                "%s: pretrained is %s; choosing among the official weights has no effect",
                where,
                mask_credentials(source),
            )
    is_url = "://" in str(source)
    file = fetch(str(source)) if is_url else find_file(source, f"{where}.pretrained")
    params, of_losses = split_loss_parameters(read_params(file))
    log_left_out(of_losses, str(file))
    params = in_our_names(params, file, net, name)
    return load_into(net, params, str(file), allow_missing_head, network=network)


def in_our_names(
    params: dict[str, np.ndarray], file: Path, net: nn.Layer, name: str
) -> dict[str, np.ndarray]:
    """Return the content of a file under the names of a network; PyTorch's files are converted.

    Args:
        params: the result of `read_params` for the file.
        file: the file.
        net: the network.
        name: its registered name.

    Raises:
        WeightsError: if a PyTorch file is not of this network.
    """
    return convert(params, net, name, str(file)) if has_torch_layout(file) else params


def _align(
    own: dict[str, Any], given: dict[str, np.ndarray], where: str, network: str | None
) -> tuple[dict[str, np.ndarray], dict[str, Any], str]:
    """If no name is common, find the sub-network that one side is; return both sides by common names.

    A run's file names its tensors ``Student.conv1...``, a network alone ``conv1...``.
    """
    prefix = _choose(_prefixes(own, given), network, where, "is meant to be loaded")
    if prefix:
        chosen = {n[len(prefix) :]: v for n, v in given.items() if n.startswith(prefix)}
        rest = len(given) - len(chosen)
        return (
            chosen,
            own,
            f"; taken from {prefix[:-1]} in the file, {rest} tensors of other networks left out",
        )
    prefix = _choose(_prefixes(given, own), network, where, "the file is meant for")
    if prefix:
        # Both sides get the network's full names, because the user knows these.
        part = {n: v for n, v in own.items() if n.startswith(prefix)}
        return {prefix + n: v for n, v in given.items()}, part, f"; put into {prefix[:-1]} alone"
    advice = "It is the file of another network"
    if any(name.endswith("running_mean") for name in given):
        advice = _TORCH_NAMES
    raise WeightsError(
        f"{where}: none of its {len(given)} tensors fits the network's {len(own)}. The file has "
        f"{_first_names(given)}; the network wants {_first_names(own)}. {advice}"
    )


def _prefixes(short: Mapping[str, Any], long: Mapping[str, Any]) -> dict[str, int]:
    """Count for each prefix the names in `long` that are it and a name in `short` of the same shape."""
    counts: dict[str, int] = {}
    for name, value in long.items():
        parts = name.split(".")
        for i in range(1, len(parts)):
            rest = ".".join(parts[i:])
            if rest in short and tuple(short[rest].shape) == tuple(value.shape):
                prefix = name[: len(name) - len(rest)]
                counts[prefix] = counts.get(prefix, 0) + 1
    return counts


def _choose(counts: dict[str, int], network: str | None, where: str, meaning: str) -> str | None:
    if not counts:
        return None
    most = max(counts.values())
    # Networks of one family share some names and shapes by chance: only near-complete fits compete.
    good = [prefix for prefix, count in counts.items() if count >= 0.9 * most]
    for wish in (network, "Student"):
        for prefix in good:
            if wish is not None and prefix.split(".")[0] == wish:
                return prefix
    if len(good) > 1:
        names = ", ".join(p[:-1] for p in good)
        raise WeightsError(f"{where}: {names} fit alike; which of them {meaning}? Set Arch.infer_model_name")
    return good[0]


def _output_axis(shape: tuple[int, ...]) -> int:
    """Return the axis of the outputs of a weight: the last in Paddle's Linear [in, out], else the first."""
    return 1 if len(shape) == 2 else 0


def _is_head(
    report: LoadSummary, shapes: Mapping[str, tuple[int, ...]], given: Mapping[str, np.ndarray]
) -> bool:
    """Tell whether only the classifier of each network did not fit (or the two of a distilled transformer).

    A tensor of another shape may differ only in its number of outputs, in the same way for weight and bias. A
    missing one must belong to a layer with as many outputs as the last layer of the network.
    """
    for name in report.wrong_shape:
        mine = shapes[name]
        theirs = given[name].shape
        axis = _output_axis(mine)
        if len(mine) != len(theirs) or np.delete(mine, axis).tolist() != np.delete(theirs, axis).tolist():
            return False
    if len(_class_pairs(report, shapes, given)) > 1:
        return False
    left = {name.rpartition(".")[0] for name in (*report.missing, *report.wrong_shape)}
    outputs = {layer: _outputs(layer, shapes) for layer in left}
    last = _outputs(list(shapes)[-1].rpartition(".")[0], shapes)
    alike = all(count is not None and count == last for count in outputs.values())
    return alike and len(left) <= 2


def _outputs(layer: str, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Return how many outputs a Linear or 1x1 convolution has, None for other layers."""
    weight = shapes.get(f"{layer}.weight", ())
    if len(weight) == 2 or (len(weight) == 4 and weight[2:] == (1, 1)):
        return weight[_output_axis(weight)]
    return None


def _class_pairs(
    report: LoadSummary, shapes: Mapping[str, tuple[int, ...]], given: Mapping[str, np.ndarray]
) -> set[tuple[int, int]]:
    pairs = set()
    for name in report.wrong_shape:
        axis = _output_axis(shapes[name])
        pairs.add((given[name].shape[axis], shapes[name][axis]))
    return pairs


def _class_counts(
    report: LoadSummary, shapes: Mapping[str, tuple[int, ...]], given: Mapping[str, np.ndarray]
) -> str:
    pairs = _class_pairs(report, shapes, given)
    return "".join(f" (file: {theirs} classes, network: {mine})" for theirs, mine in pairs)


def _explain(
    report: LoadSummary,
    shapes: Mapping[str, tuple[int, ...]],
    given: Mapping[str, np.ndarray],
    allow_missing_head: bool,
) -> str:
    lines = [f"{report}; this would leave parts of the network untrained"]
    if report.missing:
        lines.append(f"  missing in the file: {_first_names(report.missing)}")
    if report.wrong_shape:
        rows = [f"{n} {list(given[n].shape)} in the file, {list(shapes[n])} here" for n in report.wrong_shape]
        lines.append(f"  of another shape: {_first_names(rows)}")
    if report.unexpected:
        lines.append(f"  only in the file: {_first_names(report.unexpected)}")
    if any(name.endswith("running_mean") for name in report.unexpected):
        lines.append(f"  {_TORCH_NAMES}")
    elif 2 * len(report.matched) < len(shapes):
        lines.append("  Most of it does not fit: it looks like the file of another network")
    if not allow_missing_head and report.matched and _is_head(report, shapes, given):
        lines.append("  Only the classifier differs: set class_num to what the file was trained with")
    return "\n".join(lines)


def _first_names(names: Iterable[str], most: int = 6) -> str:
    names = list(names)
    more = f", ... ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more

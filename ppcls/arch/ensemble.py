"""Several teachers as one: the weighted mean of their logits, and which of them a step leaves out."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from ppcls.class_maps import read_class_map
from ppcls.errors import ConfigError, DataError, hint

_AVERAGES = ("logits", "probabilities")
_OPTIONS = ("networks", "weights", "average", "class_maps")
_STREAM = 7  # separates these random numbers from all others of the same seed


class Ensemble:
    """The weighted mean of several frozen networks, which losses and metrics use like the logits of one.

    Args:
        title: its name.
        networks: names of the networks.
        weights: a number above 0 for each, relative to each other; None: equal.
        average: ``logits``: the mean of the logits; ``probabilities``: the logarithm of the mean of the class
            probabilities, so that the softmax of the result is the mean.
        class_maps: for networks with other classes, by name: a file with one line
            ``student_class teacher_class`` for each class of the student.

    Raises:
        ConfigError: for values that do not fit; its path starts at the option.
    """

    def __init__(
        self,
        title: str,
        networks: Sequence[str],
        weights: Sequence[float] | None = None,
        average: str = "logits",
        class_maps: Mapping[str, str] | None = None,
    ) -> None:
        self.title = title
        self.networks = list(networks)
        given = [1.0] * len(self.networks) if weights is None else _checked_weights(weights)
        if len(given) != len(self.networks):
            raise ConfigError(f"{len(given)} numbers for {len(self.networks)} networks", path="weights")
        if average not in _AVERAGES:
            known = " or ".join(_AVERAGES)
            raise ConfigError(
                f"got {average!r}, expected {known}.{hint(str(average), _AVERAGES)}", path="average"
            )
        self.weights = dict(zip(self.networks, given, strict=True))
        self.average = average
        maps = {} if class_maps is None else class_maps
        if not isinstance(maps, Mapping) or not all(isinstance(path, str) for path in maps.values()):
            text = f"got {maps!r}, expected a map from names of networks to files"
            raise ConfigError(text, path="class_maps")
        for name in maps:
            if name not in self.networks:
                raise ConfigError(
                    f"{name!r} is not one of networks.{hint(name, self.networks)}", path="class_maps"
                )
        self.class_maps = {name: _class_map(name, file) for name, file in maps.items()}

    def combine(self, outputs: Mapping[str, Any], dropped: Collection[str] = ()) -> Tensor:
        """Return the mean of the logits, float32 [N, C], without gradient.

        Args:
            outputs: outputs of the networks by name, each logits or a map with ``logits``.
            dropped: networks to leave out; if these are all, none is left out.

        Raises:
            ConfigError: if the numbers of classes differ.
        """
        present = [name for name in self.networks if name not in dropped] or self.networks
        with paddle.no_grad(), paddle.amp.auto_cast(enable=False):
            logits = {name: self._logits(outputs[name], name) for name in self.networks}
            self._check_classes(logits)
            total = sum(self.weights[name] for name in present)
            shares = {name: self.weights[name] / total for name in present}
            if self.average == "logits":
                return paddle.add_n([logits[name] * share for name, share in shares.items()])
            logs = [F.log_softmax(logits[name], -1) + math.log(share) for name, share in shares.items()]
            return paddle.logsumexp(paddle.stack(logs), 0)

    def _logits(self, output: Any, name: str) -> Tensor:
        logits = output.get("logits") if isinstance(output, Mapping) else output
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise ConfigError(f"{name} of the ensemble {self.title} gives no logits [N, C]")
        logits = logits.astype("float32")
        classes = self.class_maps.get(name)
        if classes is None:
            return logits
        if max(classes) >= logits.shape[1]:
            raise ConfigError(
                f"the map of {name} names class {max(classes)}, but {name} has {logits.shape[1]} classes",
                path=f"Arch.ensembles.{self.title}.class_maps",
            )
        return paddle.index_select(logits, paddle.to_tensor(classes, dtype="int64"), axis=1)

    def _check_classes(self, logits: Mapping[str, Tensor]) -> None:
        counts = {name: value.shape[1] for name, value in logits.items()}
        if len(set(counts.values())) > 1:
            shown = ", ".join(f"{name} has {count}" for name, count in counts.items())
            raise ConfigError(
                f"the numbers of classes differ ({shown}); give class_maps, for each network with other "
                "classes a file with one line `student_class teacher_class` per student class",
                path=f"Arch.ensembles.{self.title}",
            )


def _class_map(name: str, file: str) -> list[int]:
    try:
        return read_class_map(file)
    except DataError as error:
        raise ConfigError(str(error), path=f"class_maps.{name}") from error


def _checked_weights(weights: Any) -> list[float]:
    """Return the weights as floats.

    Raises:
        ConfigError: if they are no list of numbers above 0.
    """
    numbers = isinstance(weights, Sequence) and all(type(weight) in (int, float) for weight in weights)
    if not numbers or not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise ConfigError(f"got {weights!r}, expected numbers above 0", path="weights")
    return [float(weight) for weight in weights]


def build_ensembles(
    nodes: Mapping[str, Any] | None, names: Sequence[str], frozen: Collection[str]
) -> dict[str, Ensemble]:
    """Return the ensembles of the option ``ensembles``.

    Args:
        nodes: the option.
        names: names of all networks.
        frozen: names of the frozen ones.

    Raises:
        ConfigError: with its path, if an ensemble cannot be built.
    """
    found: dict[str, Ensemble] = {}
    if nodes is not None and not isinstance(nodes, Mapping):
        raise ConfigError(
            f"got {nodes!r}, expected a map such as {{Teachers: {{networks: [A, B]}}}}", path="ensembles"
        )
    for title, node in (nodes or {}).items():
        path = f"ensembles.{title}"
        if title in names:
            raise ConfigError(f"a network is called {title!r} already; choose another name", path=path)
        if not str(title).isidentifier():
            raise ConfigError(f"{title!r} cannot name an ensemble; use letters, digits and '_'", path=path)
        _check_node(node, names, frozen, path)
        try:
            found[title] = Ensemble(title, **node)
        except ConfigError as error:
            raise error.below(path) from None
    return found


def _check_node(node: Any, names: Sequence[str], frozen: Collection[str], path: str) -> None:
    if not isinstance(node, Mapping) or "networks" not in node:
        raise ConfigError(
            f"got {node!r}, expected a map such as {{networks: [A, B], weights: [2, 1]}}", path=path
        )
    for option in node:
        if option not in _OPTIONS:
            raise ConfigError(f"no option {option!r}.{hint(str(option), _OPTIONS)}", path=path)
    members = node["networks"]
    if not isinstance(members, list) or len(members) < 2:
        raise ConfigError(
            f"got {members!r}, expected the names of two networks or more", path=f"{path}.networks"
        )
    for place, name in enumerate(members):
        where = f"{path}.networks.{place}"
        if name not in names:
            raise ConfigError(f"there is no network {name!r}.{hint(str(name), names)}", path=where)
        if name not in frozen:
            raise ConfigError(
                f"{name} trains; an ensemble has frozen networks (freeze_params_list)", path=where
            )
        if name in members[:place]:
            raise ConfigError(f"{name} is listed twice", path=where)


def check_dropping(probability: float, teachers: Collection[str]) -> None:
    """Refuse a probability that cannot be used.

    Args:
        probability: the option ``teacher_dropping``.
        teachers: names of the frozen networks.

    Raises:
        ConfigError: if it is no probability below 1, or there is only one teacher to drop.
    """
    if not 0 <= probability < 1:
        raise ConfigError(
            f"got {probability}, expected a probability from 0 to below 1", path="teacher_dropping"
        )
    if probability and len(teachers) < 2:
        raise ConfigError(
            f"{probability}, but {len(teachers)} network is frozen, and one always stays; it needs two",
            path="teacher_dropping",
        )


def draw_dropped(teachers: Sequence[str], probability: float, seed: int, step: int) -> frozenset[str]:
    """Return the teachers that a step leaves out: each with this probability, but never all of them.

    If the draw leaves out all, one of them, drawn with equal probability, stays. The result depends only on
    the arguments, so it is the same in every process and in a resumed run.

    Args:
        teachers: their names, in the order of the recipe.
        probability: of leaving out each of them.
        seed: seed of the run.
        step: number of optimizer steps before this one.
    """
    rng = np.random.default_rng([seed, step, _STREAM])
    dropped = rng.random(len(teachers)) < probability
    stays = int(rng.integers(len(teachers)))
    if dropped.all():
        dropped[stays] = False
    return frozenset(name for name, out in zip(teachers, dropped, strict=True) if out)

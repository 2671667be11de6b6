"""Groups of networks: teachers and students of a distillation run, and chains of networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import paddle
from paddle import Tensor, nn

from ppcls._paddle import children_of
from ppcls.arch.afd_transforms import LinearTransform, Waiting, prepare_transforms
from ppcls.arch.base import Network
from ppcls.arch.ensemble import build_ensembles, check_dropping, draw_dropped
from ppcls.arch.input_adapter import InputAdapter, take_adapter
from ppcls.arch.network import build_network
from ppcls.config import ArchSpec, single
from ppcls.config.binding import takes
from ppcls.config.nodes import Node
from ppcls.errors import ConfigError, hint
from ppcls.registry import BACKBONES

_FROZEN_MODES = ("eval", "train")
Answer = Callable[[Any], Any]


class NetworkGroup(Network):
    """Named sub-networks, some of them frozen.

    The parameters of a frozen network do not train, it runs under `paddle.no_grad`, and it stays in its
    `frozen_mode`, independent of the mode of the group.

    Attributes:
        names: names of the sub-networks in order.
        frozen: names of the frozen ones.
    """

    def __init__(
        self,
        models: list[Node],
        pretrained_list: list[bool | str | None] | None,
        freeze_params_list: list[bool | None] | None,
        frozen_mode: str | dict[str, str],
        class_num: int | None,
    ) -> None:
        super().__init__()
        title = type(self).__name__
        nodes = _split_models(models, title)
        self.names = list(nodes)
        pretrained = _one_each("pretrained_list", pretrained_list, nodes)
        freeze = _one_each("freeze_params_list", freeze_params_list, nodes)
        self.frozen = {name for name in nodes if freeze[name]}
        self._frozen_modes = _modes(frozen_mode, self.names, self.frozen)
        self._answers: dict[str, Answer] = {}
        for index, (name, node) in enumerate(nodes.items()):
            path = f"models.{index}.{name}"
            if hasattr(type(self), name) or name in self.__dict__:
                raise ConfigError(
                    f"{name!r} cannot name a network, {title} has something of that name", path=path
                )
            _add_pretrained(node, pretrained[name], path)
            _add_class_num(node, class_num, name in self.frozen, path)
            network = build_network(node, path)
            if network.always_frozen and name not in self.frozen:
                raise ConfigError(
                    f"{node['name']} cannot be trained; freeze_params_list must say True for it", path=path
                )
            self.add_sublayer(name, network)
        for name in self.frozen:
            for parameter in self.network(name).parameters():
                parameter.stop_gradient = True
        self._hold_frozen()

    def network(self, name: str) -> Network:
        """Return a sub-network by name.

        Raises:
            ConfigError: if there is no network of that name.
        """
        if name not in self.names:
            raise ConfigError(f"there is no network {name!r}.{hint(name, self.names) or _listed(self.names)}")
        found: Network = children_of(self)[name]
        return found

    def never_changes(self, name: str) -> bool:
        """Tell whether a sub-network is frozen and always has the same output for the same image."""
        return name in self.frozen and self._frozen_modes[name] == "eval"

    def logits_never_change(self, name: str) -> bool:
        """Tell whether the logits of a sub-network never change; what follows them in a chain may train."""
        network = self.network(name)
        first = isinstance(network, AttentionModel) and network.never_changes(network.names[0])
        return first or self.never_changes(name)

    def answer_with(self, name: str, answer: Answer | None) -> None:
        """Let `answer` compute the outputs of a sub-network; None removes it again.

        A network that trains is replaced only while the whole is in eval mode.
        """
        self.network(name)
        if answer is None:
            self._answers.pop(name, None)
        else:
            self._answers[name] = answer

    def leave_out(self, name: str) -> None:
        """Drop a frozen sub-network whose answers come from elsewhere (see `answer_with`)."""
        if name not in self.frozen:
            raise ConfigError(f"{name} trains and cannot be left out")
        setattr(self, name, _LeftOut(name))

    def run(self, name: str, x: Any) -> Any:
        """Run one sub-network by name; a frozen one creates no graph."""
        answer = self._answers.get(name) if paddle.in_dynamic_mode() else None  # a program has no other in it
        if name not in self.frozen:
            return self.network(name)(x) if answer is None or self.training else answer(x)
        self._hold_frozen()
        with paddle.no_grad():
            return (answer or self.network(name))(x)

    def train(self) -> None:
        """Set train mode, except for frozen networks."""
        super().train()
        for name in self.names:
            self.network(name).train()  # sub-networks may have frozen parts
        self._hold_frozen()

    def frozen_prefixes(self) -> tuple[str, ...]:
        """Return the prefixes, such as ``Teacher.``, of the names of frozen networks' parameters."""
        found = [f"{name}." for name in self.names if name in self.frozen]
        for name in self.names:
            inner = self.network(name)
            if name not in self.frozen and isinstance(inner, NetworkGroup):
                found += [f"{name}.{prefix}" for prefix in inner.frozen_prefixes()]
        return tuple(found)

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """Return the state without that of frozen networks."""
        frozen = self.frozen_prefixes()
        return {name: value for name, value in self.state_dict().items() if not name.startswith(frozen)}

    def frozen_statistics(self) -> dict[str, Tensor]:
        """Return by name the statistics that frozen networks change in training (``frozen_mode: train``)."""
        found: dict[str, Tensor] = {}
        for name in self.names:
            network = self.network(name)
            if name in self.frozen:
                state = network.state_dict() if self._frozen_modes[name] == "train" else {}
                state = {key: value for key, value in state.items() if key.endswith(("._mean", "._variance"))}
            else:
                state = network.frozen_statistics() if isinstance(network, NetworkGroup) else {}
            found |= {f"{name}.{key}": value for key, value in state.items()}
        return found

    def _hold_frozen(self) -> None:
        # Repeated at every forward: train() of a wrapper such as DataParallel sets the flags of all layers
        # inside without calling their train().
        for name in self.frozen:
            training = self._frozen_modes[name] == "train" and self.training
            network = self.network(name)
            if network.training != training:
                for layer in network.sublayers(include_self=True):
                    layer.training = training


class _LeftOut(Network):
    """Stands where a frozen network was, which nobody is to ask any more."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = title

    def forward(self, x: Any) -> Any:
        raise ConfigError(
            f"{self.title} was not built, because training uses its stored outputs; something else asks it"
        )


@BACKBONES.register()
class DistillationModel(NetworkGroup):
    """Teachers and students side by side on the same images; the output is ``{name: output}``.

    A node may have three further options if its network was trained with different
    preprocessing: ``mean`` and ``std`` (in the units of the pipeline's NormalizeImage, after its scale) and
    ``input_size``. That network then gets the same augmented view, normalised and resized in its own way;
    see `ppcls.arch.input_adapter`.

    Args:
        models: one map ``{name: node}`` for each network; any number, any names.
        pretrained_list: for each network the value of its ``pretrained`` option, or null.
        freeze_params_list: for each network whether it is frozen.
        infer_model_name: the network that evaluation, inference and export use (default: ``Student`` if
            there is one, else the last network that trains).
        class_num: number of classes of the networks that do not have their own ``class_num``.
        frozen_mode: "eval" (a frozen network is always in eval mode) or "train" (it follows the mode of the
            group, so its BatchNorm uses batch statistics and updates the running ones, as OFD needs it); or
            a map from names to these.
        ensembles: further outputs, each the weighted mean of the logits of several frozen networks, which
            losses and metrics name like a network: ``{Teachers: {networks: [A, B], weights: [2, 1]}}``. An
            ensemble also has ``average: probabilities`` (instead of logits) and ``class_maps``; see
            `ppcls.arch.ensemble`.
        teacher_dropping: in each step of training, each frozen network is left out with this probability,
            but never all of them: ensembles are the mean of the others, and losses that compare with a
            network that is left out count nothing.

    Attributes:
        ensembles: the ensembles by name.

    Raises:
        ConfigError: if the options contradict each other or describe no network.
        WeightsError: if pretrained weights cannot be obtained or do not fit.
    """

    def __init__(
        self,
        models: list[Node],
        pretrained_list: list[bool | str | None] | None = None,
        freeze_params_list: list[bool | None] | None = None,
        infer_model_name: str | None = None,
        class_num: int | None = None,
        frozen_mode: str | dict[str, str] = "eval",
        ensembles: dict[str, dict[str, Any]] | None = None,
        teacher_dropping: float = 0.0,
    ) -> None:
        models, adapters = _take_adapters(models)
        super().__init__(models, pretrained_list, freeze_params_list, frozen_mode, class_num)
        self._adapters = adapters
        for name, adapter in self._adapters.items():
            self.infer_network(name).register_forward_pre_hook(adapter)
        if infer_model_name is not None and infer_model_name not in self.names:
            advice = hint(infer_model_name, self.names) or _listed(self.names)
            raise ConfigError(f"infer_model_name: there is no network {infer_model_name!r}.{advice}")
        spec = ArchSpec.read(
            {
                "name": type(self).__name__,
                "models": models,
                "freeze_params_list": freeze_params_list,
                "infer_model_name": infer_model_name,
            }
        )
        self.infer_model_name = spec.main.title
        self.ensembles = build_ensembles(ensembles, self.names, self.frozen)
        self._teachers = [name for name in self.names if name in self.frozen]
        check_dropping(teacher_dropping, self._teachers)
        self._dropping = teacher_dropping
        self._dropped: frozenset[str] = frozenset()

    def forward(self, x: Tensor) -> dict[str, Any]:
        """Run every network on images [N, C, H, W]; outputs of frozen ones have no gradient."""
        outputs = {}
        for name in self.names:  # not a comprehension: to_static loses `self` in one
            outputs[name] = self.run(name, x)
        for name in self.ensembles:
            outputs[name] = self.combine(name, outputs)
        return outputs

    def members(self, name: str) -> list[str]:
        """Return the networks that an output is made of: those of an ensemble, else the network itself."""
        return self.ensembles[name].networks if name in self.ensembles else [name]

    def combine(self, name: str, outputs: Mapping[str, Any]) -> Any:
        """Return an output of this name from the outputs of its :meth:`members`."""
        if name not in self.ensembles:
            return outputs[name]
        return self.ensembles[name].combine(outputs, self._dropped if self.training else ())

    def run(self, name: str, x: Any) -> Any:
        """Run one network, or all those of an ensemble, by name."""
        if name not in self.ensembles:
            return super().run(name, x)
        return self.combine(
            name, {member: super(DistillationModel, self).run(member, x) for member in self.members(name)}
        )

    def never_changes(self, name: str) -> bool:
        """Tell whether an output is always the same for the same image, outside of training."""
        return all(super(DistillationModel, self).never_changes(member) for member in self.members(name))

    def logits_never_change(self, name: str) -> bool:
        """Tell whether the logits of a network or an ensemble never change."""
        return all(
            super(DistillationModel, self).logits_never_change(member) for member in self.members(name)
        )

    def drop_teachers(self, seed: int, step: int) -> frozenset[str]:
        """Draw the teachers that a step of training leaves out, and return their names.

        They depend only on the arguments and the networks, so they are the same in every process.
        """
        if self._dropping:
            self._dropped = draw_dropped(self._teachers, self._dropping, seed, step)
        return self._dropped

    def connect_inputs(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Tell networks with their own ``mean`` and ``std`` how their input images are normalised."""
        for adapter in self._adapters.values():
            adapter.connect(mean, std)

    def prepare(self, image_shape: Sequence[int]) -> None:
        """Let feature transforms find the shapes and keys that the recipe leaves out, and check given ones.

        This runs one trial forward pass and creates the parameters whose shapes were left out, so call it
        before weights are loaded and an optimizer is created. Without such transforms it does nothing.

        Args:
            image_shape: [C, H, W] of the images to train with.

        Raises:
            ConfigError: with the path of the network, if a given option differs from the network.
        """
        waiting: list[Waiting] = []
        training = self.training
        self.eval()
        with paddle.no_grad():
            for index, name in enumerate(self.names):
                chain = self.network(name)
                if isinstance(chain, AttentionModel) and chain.transforms():
                    waiting += chain.features(paddle.zeros([1, *image_shape]), f"Arch.models.{index}.{name}")
        if training:
            self.train()
        prepare_transforms(waiting)

    def infer_network(self, name: str | None = None) -> nn.Layer:
        """Return the network to use after training, without the parts that only training needs.

        Args:
            name: its name (default: `infer_model_name`).
        """
        network = self.network(name or self.infer_model_name)
        return network.backbone if isinstance(network, AttentionModel) else network

    def student_state_dict(self, name: str | None = None) -> dict[str, Tensor]:
        """Return the state of `infer_network(name)` with the names of the single network."""
        return self.infer_network(name).state_dict()


@BACKBONES.register()
class AttentionModel(NetworkGroup):
    """Networks in a chain: each gets the outputs of those before it; the result is one map of all outputs.

    The first network gets the images; with ``return_patterns`` it returns a map. Every further network gets
    the map so far and returns a map, whose entries are added. AFD uses it for a backbone and a transform of
    its features.

    Args:
        models: one map ``{name: node}`` for each network, in the order of the chain.
        pretrained_list: for each network the value of its ``pretrained`` option, or null.
        freeze_params_list: for each network whether it is frozen.
        class_num: number of classes of the networks that do not have their own ``class_num``.
        frozen_mode: see `DistillationModel`.

    Raises:
        ConfigError: if the options contradict each other or describe no network.
        WeightsError: if pretrained weights cannot be obtained or do not fit.
    """

    def __init__(
        self,
        models: list[Node],
        pretrained_list: list[bool | str | None] | None = None,
        freeze_params_list: list[bool | None] | None = None,
        class_num: int | None = None,
        frozen_mode: str | dict[str, str] = "eval",
    ) -> None:
        super().__init__(models, pretrained_list, freeze_params_list, frozen_mode, class_num)

    @property
    def backbone(self) -> nn.Layer:
        """The first network of the chain, the one that classifies."""
        return self.network(self.names[0])

    def transforms(self) -> list[str]:
        """Return the names of the networks in the chain that transform features."""
        return [name for name in self.names if isinstance(self.network(name), LinearTransform)]

    def features(self, x: Tensor, where: str) -> list[Waiting]:
        """Return each transform with its config path and features; the transforms themselves do not run."""
        found: list[Waiting] = []
        given: dict[str, Any] = {}
        for index, name in enumerate(self.names):
            network = self.network(name)
            if isinstance(network, LinearTransform):
                found.append(Waiting(f"{where}.models.{index}.{name}", network, given))
                continue
            output = self.run(name, given if index else x)
            given = {**given, **(output if isinstance(output, Mapping) else {"logits": output})}
        return found

    def forward(self, x: Tensor) -> dict[str, Any]:
        """Run the chain on images [N, C, H, W] and return the outputs of all networks by key."""
        given: dict[str, Any] = {}
        for index, name in enumerate(self.names):
            output = self.run(name, given if index else x)
            given = {**given, **(output if isinstance(output, Mapping) else {"logits": output})}
        return given


def _split_models(models: Any, title: str) -> dict[str, dict[str, Any]]:
    if not isinstance(models, Sequence) or isinstance(models, str) or not models:
        raise ConfigError(f"{title}: models must be a list of maps from a name to a network, got {models!r}")
    nodes: dict[str, dict[str, Any]] = {}
    for index, entry in enumerate(models):
        name, node = single(entry, f"models.{index}")
        if name in nodes:
            raise ConfigError(f"there are two networks {name!r}", path=f"models.{index}")
        if not name.isidentifier():
            text = f"{name!r} cannot name a network; use letters, digits and '_'"
            raise ConfigError(text, path=f"models.{index}")
        nodes[name] = node
    return nodes


def _take_adapters(models: Any) -> tuple[Any, dict[str, InputAdapter]]:
    """Return `models` without the input options of its nodes, and the adapters for them."""
    bare = []
    adapters = {}
    for index, entry in enumerate(models if isinstance(models, list) else []):
        name, node = single(entry, f"models.{index}")
        adapter = take_adapter(node, f"models.{index}.{name}")
        if adapter is not None:
            adapters[name] = adapter
        bare.append({name: node})
    return bare or models, adapters


def _one_each(key: str, values: Sequence[Any] | None, nodes: Mapping[str, Any]) -> dict[str, Any]:
    if values is None:
        return dict.fromkeys(nodes)
    if len(values) != len(nodes):
        raise ConfigError(f"{key} has {len(values)} entries for {len(nodes)} networks ({', '.join(nodes)})")
    return dict(zip(nodes, values, strict=True))


def _modes(frozen_mode: str | Mapping[str, str], names: Sequence[str], frozen: set[str]) -> dict[str, str]:
    given = frozen_mode if isinstance(frozen_mode, Mapping) else dict.fromkeys(frozen, frozen_mode)
    for name, mode in given.items():
        if name not in names:
            raise ConfigError(
                f"frozen_mode: there is no network {name!r}.{hint(name, names) or _listed(names)}"
            )
        if name not in frozen:
            raise ConfigError(f"frozen_mode: {name} is not frozen; freeze_params_list says what is")
        if mode not in _FROZEN_MODES:
            raise ConfigError(f"frozen_mode of {name}: expected eval or train, got {mode!r}")
    return {name: given.get(name, "eval") for name in frozen}


def _add_pretrained(node: Node, pretrained: bool | str | None, path: str) -> None:
    """Write an entry of pretrained_list into the node of the network."""
    if not pretrained:
        return
    own = node.get("pretrained")
    if own and own != pretrained:
        raise ConfigError(
            f"pretrained is {own!r} and pretrained_list says {pretrained!r}; give one", path=path
        )
    node["pretrained"] = pretrained


def _add_class_num(node: Node, class_num: int | None, frozen: bool, path: str) -> None:
    """Give the number of classes of the group to a network without its own."""
    if class_num is None:
        return
    own = node.get("class_num")
    if own is not None and own != class_num and not frozen:
        raise ConfigError(f"class_num is {own}, but {class_num} for the whole model; give one", path=path)
    name = str(node.get("name"))
    if BACKBONES.trait(name, "always_frozen"):
        return  # what is in a file has its own classes
    if own is None and name in BACKBONES and takes(BACKBONES[name], "class_num"):
        node["class_num"] = class_num


def _listed(names: Sequence[str]) -> str:
    return f" There is {', '.join(names)}."

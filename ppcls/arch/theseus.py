"""The base class of networks, with which users return, cut off, freeze and replace layers by name.

A layer descriptor names a layer by its path of attributes: ``blocks[3].conv0`` or ``blocks.3.conv0``.
Everything about descriptors is implemented here for all backbones.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

from paddle import Tensor, nn

from ppcls._paddle import post_hooks_of
from ppcls.arch.base import Network
from ppcls.errors import ConfigError, hint

_END = "\0end"  # key of the output at which a forward pass stops; no descriptor equals it


class _Store(threading.local):
    """The outputs that one forward pass of a network has collected; every thread has its own."""

    def __init__(self) -> None:
        self.running = False
        self.seen: dict[str, Any] = {}

    def __reduce__(self) -> tuple[type[_Store], tuple[()]]:
        return _Store, ()  # a copied network starts with an empty store


class _Stop(Exception):
    """Ends a forward pass at the layer of ``stop_after``."""


class _Tap:
    """A forward post hook that keeps a layer's output.

    It is a class and not a closure, so that the hooks of a copied network use the copy's store.
    """

    def __init__(self, store: _Store, key: str) -> None:
        self.store = store
        self.key = key

    def __call__(self, layer: nn.Layer, inputs: Any, output: Any) -> None:
        if self.store.running:
            self.store.seen[self.key] = output
            if self.key == _END:
                raise _Stop


def _collecting(inner: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `forward` that runs `inner` and adds the collected outputs.

    It wraps forward instead of ``__call__``, because conversion to a static graph and export trace only
    forward.
    """

    def forward(self: TheseusLayer, x: Tensor) -> Any:
        if self._store.running:  # a subclass calls the forward of its base class
            return inner(self, x)
        self._hold_frozen()
        self._store.running = True
        try:
            output = inner(self, x)
        except _Stop:
            output = self._store.seen[_END]
        finally:
            seen = self._store.seen
            self._store.seen = {}
            self._store.running = False
        return self._result(output, seen)

    forward.__doc__ = inner.__doc__
    vars(forward)["_collects"] = True
    return forward


class TheseusLayer(Network):
    """Base class of the networks.

    A subclass defines `forward(x)`, which returns the logits for a tensor. It defines its layers in the order
    in which they run, because :meth:`freeze_befor` and :meth:`stop_after` use the order of definition.

    Attributes:
        stages_pattern: descriptors of the layers that end the network's stages, first stage first.
    """

    stages_pattern: Sequence[str] = ()
    names_layers = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.forward not in (nn.Layer.forward, Network.forward) and "_collects" not in vars(cls.forward):
            setattr(cls, "forward", _collecting(cls.forward))  # noqa: B010 - to mypy, methods are final

    def __init__(self) -> None:
        super().__init__()
        self.adopted()

    def adopted(self) -> None:
        """Begin with no layer named; also for a network whose class does not derive from this one."""
        self.registered_name = type(self).__name__
        self._store = _Store()
        self._patterns: list[str] = []
        self._stop: str | None = None
        self._cut_off: list[str] = []
        self._frozen_layers: list[nn.Layer] = []

    def train(self) -> None:
        """Set train mode, except for the layers that :meth:`freeze_befor` froze."""
        super().train()
        self._hold_frozen()

    @property
    def frozen_layers(self) -> list[nn.Layer]:
        """The layers that :meth:`freeze_befor` holds."""
        return list(self._frozen_layers)

    def descriptors(self) -> list[str]:
        """Return the descriptors of all layers, ``blocks[3].conv0`` and the like, in order of definition."""
        return [bracketed(path) for path, _ in self.named_sublayers()]

    def update_res(self, return_patterns: str | Sequence[str]) -> list[str]:
        """Set which layers' outputs are returned; with an empty list only the logits are returned.

        With at least one layer, the output is ``{"logits": ..., "<descriptor as written>": ...}``, all from
        the same forward pass. Of a layer that runs several times, the last output is returned.

        Returns:
            the descriptors.

        Raises:
            ConfigError: if a descriptor does not name a layer, or :meth:`stop_after` has cut the layer off.
        """
        patterns = [return_patterns] if isinstance(return_patterns, str) else list(return_patterns)
        for pattern in patterns:
            self._find(pattern)
            self._refuse_cut_off(pattern, self._cut_off)
        self._patterns = list(dict.fromkeys(patterns))
        self._attach()
        return list(self._patterns)

    def stage_patterns(self, return_stages: bool | int | Sequence[int]) -> list[str]:
        """Return the descriptors of some stages.

        Args:
            return_stages: True for all stages, the index of one (the first is 0), or a list of indices.

        Raises:
            ConfigError: if the network has no such stage.
        """
        stages = list(self.stages_pattern)
        if return_stages is False:
            return []
        if return_stages is True:
            if not stages:
                raise ConfigError(f"{self.registered_name} has no stages; name layers with return_patterns")
            return stages
        wanted = [return_stages] if isinstance(return_stages, int) else return_stages
        for index in wanted:
            if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(stages):
                known = ", ".join(f"{i} ({name})" for i, name in enumerate(stages)) or "none"
                raise ConfigError(f"{self.registered_name} has no stage {index!r}; it has {known}")
        return [stages[index] for index in wanted]

    def stop_after(self, stop_layer_name: str) -> bool:
        """End the network at a layer: the layer's output becomes the network's output.

        A forward pass ends right after the layer. The layers defined after it become `nn.Identity`, so the
        network no longer has their parameters.

        Returns:
            True.

        Raises:
            ConfigError: if the descriptor does not name a layer, or a layer to return would be cut off.
        """
        self._find(stop_layer_name)
        later = _defined_after(self, dotted(stop_layer_name))
        for pattern in [*self._patterns, stop_layer_name]:
            self._refuse_cut_off(pattern, [*self._cut_off, *later])
        for path in later:
            parent, key, _ = self._find(path)
            parent.add_sublayer(key, nn.Identity())
        self._cut_off += [path for path in later if path not in self._cut_off]
        self._stop = stop_layer_name
        self._attach()
        return True

    @property
    def ends_early(self) -> bool:
        """Tell whether `stop_after` has cut layers off, so that the output is not the logits."""
        return bool(self._cut_off)

    def freeze_befor(self, layer_name: str) -> bool:
        """Freeze a layer and all layers before it (the spelling is the public one).

        Their parameters do not train, and they stay in eval mode when the network is in train mode, so that
        BatchNorm statistics do not change either. Parameters of an enclosing layer itself, such as a position
        embedding, are frozen too.

        Returns:
            True.

        Raises:
            ConfigError: if the descriptor does not name a layer.
        """
        self._find(layer_name)
        target = dotted(layer_name)
        later = _defined_after(self, target)
        for path, layer in self.named_sublayers(include_self=True):
            if any(_within(path, other) for other in later):
                continue
            for parameter in layer.parameters(include_sublayers=False):
                parameter.stop_gradient = True
            if not _within(target, path) or path == target:  # an enclosing layer itself continues to train
                self._frozen_layers.append(layer)
        self._hold_frozen()
        return True

    def upgrade_sublayer(
        self, layer_name_pattern: str | Sequence[str], handle_func: Callable[[nn.Layer, str], nn.Layer]
    ) -> list[str]:
        """Replace layers by the results of `handle_func(layer, descriptor)`.

        Returns:
            the descriptors of the replaced layers.

        Raises:
            ConfigError: if a descriptor does not name a layer, or `handle_func` does not return a layer.
        """
        names = layer_name_pattern
        patterns = [names] if isinstance(names, str) else list(names)
        for pattern in patterns:
            parent, key, layer = self._find(pattern)
            new = handle_func(layer, pattern)
            if not isinstance(new, nn.Layer):
                raise ConfigError(
                    f"upgrade_sublayer({pattern!r}): expected a layer, got {type(new).__name__}"
                )
            parent.add_sublayer(key, new)
        self._attach()
        return patterns

    def _find(self, descriptor: str) -> tuple[nn.Layer, str, nn.Layer]:
        """Return the layer's parent, its key there and the layer itself."""
        parent: nn.Layer = self
        done = ""
        steps = _steps(self, dotted(descriptor))
        for step in steps[:-1]:
            parent = self._child(parent, done, step, descriptor)
            done = f"{done}.{step}" if done else step
        return parent, steps[-1], self._child(parent, done, steps[-1], descriptor)

    def _child(self, parent: nn.Layer, path: str, key: str, descriptor: str) -> nn.Layer:
        children = dict(parent.named_children())
        if key in children:
            return children[key]
        names = [bracketed(f"{path}.{child}" if path else child) for child in children]
        wrong = bracketed(f"{path}.{key}" if path else key)
        advice = hint(wrong, names)
        if not names:
            advice = f" {bracketed(path)} has no layers inside."
        elif len(names) > 1 and all(child.isdigit() for child in children):
            advice = f" It has {names[0]} to {names[-1]}."
        elif not advice:
            advice = f" It has {', '.join(names[:12])}."
        raise ConfigError(f"{self.registered_name} has no layer {descriptor!r}.{advice}")

    def _refuse_cut_off(self, pattern: str, cut_off: Sequence[str]) -> None:
        if any(_within(dotted(pattern), path) for path in cut_off):
            raise ConfigError(
                f"{self.registered_name}: {pattern!r} comes after the layer of stop_after, it never runs"
            )

    def _attach(self) -> None:
        """Attach the required hooks to the layers, and remove all others."""
        for layer in self.sublayers():
            # After a deep copy, handles would belong to the hooks of the original, so search for the hooks.
            hooks = post_hooks_of(layer)
            for key in [
                k for k, hook in hooks.items() if isinstance(hook, _Tap) and hook.store is self._store
            ]:
                del hooks[key]
        for pattern in self._patterns:
            self._find(pattern)[2].register_forward_post_hook(_Tap(self._store, pattern))
        if self._stop is not None:  # last, because later hooks would not run
            self._find(self._stop)[2].register_forward_post_hook(_Tap(self._store, _END))

    def _result(self, output: Any, seen: dict[str, Any]) -> Any:
        if not self._patterns:
            return output
        missed = [pattern for pattern in self._patterns if pattern not in seen]
        if missed:
            raise ConfigError(
                f"{self.registered_name}: {missed[0]!r} gives no output, the layer does not run by itself"
            )
        return {"logits": output, **{pattern: seen[pattern] for pattern in self._patterns}}

    def _hold_frozen(self) -> None:
        # Repeated at every forward pass: Paddle's train() of an enclosing layer sets the flags of all inner
        # layers without calling their train().
        for layer in self._frozen_layers:
            layer.training = False


def dotted(descriptor: str) -> str:
    """Return ``blocks.3.conv0`` for ``blocks[3].conv0``; the index may be quoted."""
    return re.sub(r"\[\s*[\"']?([^\]\"']*)[\"']?\s*\]", r".\1", descriptor)


def bracketed(descriptor: str) -> str:
    """Return ``blocks[3].conv0`` for ``blocks.3.conv0``."""
    return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", descriptor)


def _within(path: str, other: str) -> bool:
    """Tell whether the layer at `path` is the layer at `other` or inside it; "" is the network."""
    return not other or path == other or path.startswith(f"{other}.")


def _steps(network: nn.Layer, path: str) -> list[str]:
    """Split a path into the names of layers.

    A name may contain dots: layers with official names such as ``stages.0`` and ``downsample_layers.1`` run
    alternately, which would be impossible if ``stages`` and ``downsample_layers`` were layers.
    """
    steps: list[str] = []
    children = dict(network.named_children())
    while path or not steps:
        spelt = (name for name in children if "." in name and _within(path, name))
        steps.append(next(spelt, path.partition(".")[0]))
        path = path[len(steps[-1]) + 1 :]
        children = dict(children[steps[-1]].named_children()) if steps[-1] in children else {}
    return steps


def _defined_after(network: nn.Layer, path: str) -> list[str]:
    """Return the paths of the outermost layers that are defined after the layer at `path`."""
    found: list[str] = []
    parent = network
    prefix = ""
    for step in _steps(network, path):
        names = list(dict(parent.named_children()))
        found += [prefix + name for name in names[names.index(step) + 1 :]]
        parent = dict(parent.named_children())[step]
        prefix = f"{prefix}{step}."
    return found

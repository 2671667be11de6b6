"""Named components: one class for networks, losses, transforms and everything else named in a YAML file.

Importing this module is fast: the packages that fill the registries are imported by
:func:`load_components`, once, when a name is first needed.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from ppcls.contracts import (
    Component,
    PluginErrors,
    adopt,
    breaches,
    breaches_of_object,
    is_ours,
    package_of,
    where_defined,
)
from ppcls.errors import ConfigError, describe_failure, hint

T = TypeVar("T", bound=Callable[..., Any])

PLUGIN_GROUP = "ppcls.plugins"
# Built-in components are loaded like third-party plugins: late, by the name of their module.
_PROVIDERS = ("ppcls.arch", "ppcls.loss", "ppcls.data", "ppcls.metric", "ppcls.optimizer")


class Registry:
    """A mapping from the names used in YAML files to classes or factory functions.

    Args:
        kind: what its entries are called in messages.
        contract: module and name of the base class that says what an entry must have, see `ppcls.contracts`.
        variants: contracts of entries that have (and do not set to False) an attribute or a method, by its
            name.
        completion: module and name of a function ``(name, component)``, which completes what a plug-in
            registers.
    """

    def __init__(
        self,
        kind: str,
        contract: str = "ppcls.contracts:Component",
        variants: Mapping[str, str] | None = None,
        completion: str | None = None,
    ) -> None:
        self.kind = kind
        self._completion = completion
        self._contract = contract
        self._variants = dict(variants or {})
        self._items: dict[str, Callable[..., Any]] = {}

    @property
    def one(self) -> str:
        """What a message calls one entry: ``a loss``, ``an optimizer``."""
        return f"{'an' if self.kind[0] in 'aeiou' else 'a'} {self.kind}"

    @property
    def many(self) -> str:
        """What a message calls several entries."""
        return f"{self.kind}{'es' if self.kind.endswith('s') else 's'}"

    @property
    def entries(self) -> dict[str, Callable[..., Any]]:
        """What is registered so far, by name; imports nothing."""
        return dict(self._items)

    def load(self) -> None:
        """Import the built-in components of this kind, and the installed plug-ins if there are any.

        That is quicker than to import all kinds, as a look-up by name does.
        """
        package = ".".join(self._contract.split(".")[:2])
        if has_plugins():
            load_components()
        elif package in _PROVIDERS:
            importlib.import_module(package)

    def restore(self, entries: Mapping[str, Callable[..., Any]]) -> None:
        """Forget all but these entries, after a plug-in has failed."""
        self._items = dict(entries)

    def register(self, name: str | None = None, *, aliases: tuple[str, ...] = ()) -> Callable[[T], T]:
        """Return a decorator that registers a class or function under `name` (default: its own name).

        Raises:
            ValueError: if a name is taken already; it says by what.
            TypeError: if it is written without parentheses, which would register nothing.
        """
        if name is not None and not isinstance(name, str):
            raise TypeError(
                f"register is written with parentheses: @...register() or @...register('Name'), got {name!r}"
            )

        def add(obj: T) -> T:
            if not callable(obj):
                raise TypeError(f"expected a class or function to register as {self.kind}, got {obj!r}")
            for key in (name or obj.__name__, *aliases):
                if key in self._items:
                    first = self._items[key]
                    owner = "ppcls itself" if is_ours(first) else f"the plugin {package_of(first)!r}"
                    text = f"{self.kind} {key!r} is registered twice; {owner} did it first"
                    raise ValueError(f"{text} ({where_defined(first)})")
                self._items[key] = obj
            return obj

        return add

    def trait(self, name: str, attribute: str) -> Any:
        """Return an attribute of what is filed under `name`; the default of its kind if it has none.

        Args:
            name: of an entry.
            attribute: one that the base class of the kind declares.

        Raises:
            ConfigError: for an unknown name.
        """
        return getattr(self._origin(name), attribute, getattr(self.base_of(name), attribute))

    def own_trait(self, name: str, attribute: str) -> Any:
        """Like `trait`, for an attribute that does not hold for classes derived from the one that sets it."""
        own = vars(self._origin(name))
        return own[attribute] if attribute in own else getattr(self.base_of(name), attribute)

    def base_of(self, name: str) -> type[Component]:
        """Return the base class whose contract holds for the entry `name`."""
        component = self._origin(name)
        for attribute, contract in self._variants.items():
            if getattr(component, attribute, False):
                return _base(contract)
        return _base(self._contract)

    def breach(self, name: str) -> str | None:
        """Return in what the class filed under `name` breaks its contract, as a text for its author."""
        component = self._origin(name)
        found = [] if is_ours(component) else breaches(component, self.base_of(name))
        return self._complaint(name, found, component) if found else None

    def create(self, name: str, options: Mapping[str, Any]) -> Any:
        """Construct what is filed under `name`; what comes back has all that the base class of its kind has.

        Raises:
            ConfigError: for an unknown name; if it comes from a plugin and fails in any way, naming plugin,
                file and line, or if it breaks the contract of its kind, naming what is missing. What our own
                components raise is passed on as it is.
        """
        factory = self[name]
        if is_ours(factory):
            return factory(**options)
        origin = self._origin(name)
        with PluginErrors(origin, f"{name} of the plugin {package_of(factory)!r} failed"):
            made = factory(**options)
        base = self.base_of(name)
        found = breaches(type(made), base)
        if not found:
            try:
                made = adopt(made, base)
            except TypeError:
                found = [f"a {type(made).__name__} cannot be one"]
            else:
                found = breaches_of_object(made, base)
        if found:
            raise ConfigError(self._complaint(name, found, self._origin(name)))
        return made

    def _complaint(self, name: str, found: list[str], component: Any) -> str:
        base = self.base_of(name)
        where = where_defined(component)
        contract = f"{base.__module__}.{base.__name__}"
        others = self._variants.items() if base is _base(self._contract) else ()
        rest = "".join(
            f", and {other.replace(':', '.')} what one with {attribute} has" for attribute, other in others
        )
        return (
            f"{name}{f' ({where})' if where else ''} is no complete {self.kind}: {'; '.join(found)}. "
            f"{contract} says what {self.one} has{rest}"
        )

    def find(self, name: str) -> Callable[..., Any] | None:
        """Return the component `name`, or None if it is not registered so far; imports nothing."""
        return self._items.get(name)

    def __getitem__(self, name: str) -> Callable[..., Any]:
        found = self._found(name)
        if self._completion is None or is_ours(found):
            return found
        complete: Callable[..., Any] = _imported(self._completion)(name, found)
        return complete

    def _found(self, name: str) -> Callable[..., Any]:
        """Return what was registered under `name`, as it was."""
        if name not in self:
            raise ConfigError(f"{self.unknown(name)}.{hint(name, self._items)}")
        return self._items[name]

    def unknown(self, name: str) -> str:
        """Return the text that a name is not registered, and which other kinds have it."""
        others = " and ".join(other.one for other in registries() if name in other.entries)
        rest = f", but there is {others} of this name" if others else ""
        return f"unknown {self.kind} {name!r}{rest}"

    def _origin(self, name: str) -> Callable[..., Any]:
        """Return the class or function that makes what `name` stands for."""
        return inspect.unwrap(self._found(name))

    def __contains__(self, name: object) -> bool:
        if name not in self._items:  # otherwise no import: deployment must not import networks or losses
            load_components()
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        load_components()
        return iter(self._items)


BACKBONES = Registry("network", "ppcls.arch.base:Network", completion="ppcls.arch.network:plugin_network")
LOSSES = Registry("loss", "ppcls.loss.base:Loss", {"is_pair_loss": "ppcls.loss.base:TensorPairLoss"})
METRICS = Registry("metric", "ppcls.metric.base:Metric")
TRANSFORMS = Registry("transform", "ppcls.data.transforms.base:Transform")
BATCH_OPS = Registry("batch transform", "ppcls.data.transforms.base:BatchTransform")
DATASETS = Registry("dataset", "ppcls.data.dataset:Dataset")
SAMPLERS = Registry("sampler", "ppcls.data.sampler:Sampler", {"order": "ppcls.data.sampler:EpochSampler"})
POSTPROCESSES = Registry("post-process", "ppcls.data.postprocess:PostProcess")
OPTIMIZERS = Registry("optimizer", "ppcls.optimizer.base:OptimizerFactory")
SCHEDULES = Registry(
    "learning-rate schedule",
    "ppcls.optimizer.base:ScheduleFactory",
    {"curve": "ppcls.optimizer.learning_rates:Schedule"},
)
HOOKS = Registry("hook", "ppcls.engine.hooks.base:Hook")


def registries() -> list[Registry]:
    """Return the registries of all kinds."""
    return [value for value in globals().values() if isinstance(value, Registry)]


_loaded = False
_broken_plugin: ConfigError | None = None


def _base(contract: str) -> type[Component]:
    base: type[Component] = _imported(contract)
    return base


def _imported(place: str) -> Any:
    module, _, name = place.partition(":")
    return vars(importlib.import_module(module))[name]


def source_of(module: str) -> str | None:
    """Return the file of a top-level module, or the folder of a package; None if it is not known."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    return None if spec is None or spec.origin is None else spec.origin.removesuffix("__init__.py")


def has_plugins() -> bool:
    """Tell whether packages with components for ppcls are installed; none is imported."""
    return bool(entry_points(group=PLUGIN_GROUP))


def load_components() -> None:
    """Import the built-in components and every installed plugin (entry-point group ``ppcls.plugins``).

    Raises:
        ConfigError: if a plugin fails in any way while it is loaded; the message names its distribution and
            the line that failed. Every later call raises it again.
    """
    global _loaded, _broken_plugin
    if _broken_plugin is not None:
        raise _broken_plugin
    if _loaded:
        return
    _loaded = True  # set first, because components look up names while they are imported
    for module in _PROVIDERS:
        importlib.import_module(module)
    for point in entry_points(group=PLUGIN_GROUP):
        try:
            plugin = point.load()
            if callable(plugin):
                plugin()
        except Exception as error:
            owner = point.dist.name if point.dist else "an installed package"
            where = f"plugin {point.name!r} of {owner} ({point.value})"
            failure = describe_failure(error, source_of(point.module.partition(".")[0]))
            _broken_plugin = ConfigError(f"{where} cannot be loaded: {failure}")
            raise _broken_plugin from error

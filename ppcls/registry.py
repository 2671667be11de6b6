"""Named components. One class serves networks, losses, transforms and everything else a YAML names.

Importing this module imports nothing heavy: the packages that fill the registries are imported by
:func:`load_components`, once, when a name is first needed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from ppcls.errors import ConfigError, PpclsError, describe_failure, hint

T = TypeVar("T", bound=Callable[..., Any])

PLUGIN_GROUP = "ppcls.plugins"
# Built-in providers are loaded the way third-party plugins are: by name, late.
_PROVIDERS = ("ppcls.arch", "ppcls.loss", "ppcls.data", "ppcls.metric", "ppcls.optimizer")


class Registry:
    """A mapping from the names used in YAML files to classes or factory functions."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, Callable[..., Any]] = {}

    def register(self, name: str | None = None, *, aliases: tuple[str, ...] = ()) -> Callable[[T], T]:
        """Return a decorator that files a class or function under `name` (default: its own name).

        Raises:
            ValueError: if a name is taken already.
        """

        def add(obj: T) -> T:
            for key in (name or obj.__name__, *aliases):
                if key in self._items:
                    raise ValueError(f"{self.kind} {key!r} is registered twice")
                self._items[key] = obj
            return obj

        return add

    def find(self, name: str) -> Callable[..., Any] | None:
        """Return what is filed under `name`, None if nothing is so far; imports nothing."""
        return self._items.get(name)

    def __getitem__(self, name: str) -> Callable[..., Any]:
        if name not in self:
            raise ConfigError(f"unknown {self.kind} {name!r}.{hint(name, self._items)}")
        return self._items[name]

    def __contains__(self, name: object) -> bool:
        if name not in self._items:  # a known name costs no import: deployment needs no networks or losses
            load_components()
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        load_components()
        return iter(self._items)


BACKBONES = Registry("network")
LOSSES = Registry("loss")
METRICS = Registry("metric")
TRANSFORMS = Registry("transform")
BATCH_OPS = Registry("batch transform")
DATASETS = Registry("dataset")
SAMPLERS = Registry("sampler")
POSTPROCESSES = Registry("post-process")
OPTIMIZERS = Registry("optimizer")
SCHEDULES = Registry("learning-rate schedule")
HOOKS = Registry("hook")

_loaded = False
_broken_plugin: ConfigError | None = None


def create(name: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    """Call a registered class or function with its options.

    Raises:
        ConfigError: if it comes from a plugin and fails in any way; the message names plugin, file and line.
            What our own components raise is passed on as it is.
    """
    try:
        return factory(**options)
    except Exception as error:
        package = str(getattr(factory, "__module__", "")).partition(".")[0]
        if isinstance(error, PpclsError) or package == __name__.partition(".")[0]:
            raise
        raise ConfigError(f"{name} of the plugin {package!r} failed: {describe_failure(error)}") from error


def load_components() -> None:
    """Import the built-in components and every installed plugin (entry-point group ``ppcls.plugins``).

    Raises:
        ConfigError: if a plugin fails while it is loaded, in whatever way; the message names its
            distribution and the line that failed. Every later call raises it again.
    """
    global _loaded, _broken_plugin
    if _broken_plugin is not None:
        raise _broken_plugin
    if _loaded:
        return
    _loaded = True  # set first: providers look names up while they are being imported
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
            _broken_plugin = ConfigError(f"{where} cannot be loaded: {describe_failure(error)}")
            raise _broken_plugin from error

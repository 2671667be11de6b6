"""What every kind of component must have: base classes as contracts, also for classes that do not derive.

A base class such as `ppcls.metric.Metric` declares all that is read of a component of its kind. Its abstract
methods must be defined; attributes without a default must be there once the component is constructed; all
else has a default. A class without the base class is taken too, if it has what must be there: its objects
get the base class besides their own (`adopt`), so that whoever reads them finds every attribute.
"""

from __future__ import annotations

import copyreg
import inspect
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

from ppcls.errors import ConfigError, PpclsError, describe_failure

_Made = Callable[..., Any]  # a class, or a function that returns an object
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


class Component:
    """Base of all base classes: what every kind of component may have.

    Attributes:
        nested_kind: the kind of the components that it chooses among, if its further options name those; see
            ``ppcls.config.checks.components.KINDS``.
        does_nothing_alone: whether an object that defines no method of its base class has no effect.
        shared_options: what the options mean that all components of the kind get when they are registered.
    """

    shared_options: ClassVar[Mapping[str, str]] = {}
    nested_kind: ClassVar[str | None] = None
    does_nothing_alone: ClassVar[bool] = False

    @classmethod
    def signature_for(cls, options: Mapping[str, Any]) -> inspect.Signature | None:
        """Return the options that a node may have, given those it has; None: those of the constructor."""
        return None

    @classmethod
    def arguments_of(cls, method: str, component: _Made) -> Sequence[str]:
        """Return the names of the positional arguments with which a method of `component` is called."""
        return _positional(getattr(cls, method))

    def adopted(self) -> None:
        """Set up what the base class needs in an object whose class does not derive from it."""


def breaches(component: _Made, base: type[Component]) -> list[str]:
    """Return in what a class breaks the contract of its kind, one text for each thing.

    Args:
        component: what is registered. What a function returns is looked at when it has returned it.
        base: the base class of its kind.
    """
    if not isinstance(component, type):
        return []
    for ancestor in base.__mro__:
        package = ancestor.__module__.partition(".")[0]
        if package not in ("ppcls", "builtins", "abc", "typing") and not issubclass(component, ancestor):
            return [f"it does not derive from {package}'s {ancestor.__name__}"]
    found = [f"it has no method {_call(base, name, component)}" for name in _missing(component, base)]
    for name in _methods(base):
        definer = _definer(component, name)
        own = inspect.getattr_static(component, name, None)
        if definer is None or is_ours(definer) or not inspect.isfunction(own):
            continue
        if not _takes(own, base.arguments_of(name, component)):
            text = f"its method {name}{inspect.signature(own)} is called as"
            found.append(f"{text} {_call(base, name, component)}")
    return found + list(_wrong_attributes(component, base))


def breaches_of_object(component: Any, base: type[Component]) -> list[str]:
    """Return in what an object breaks the contract of its kind, see :func:`breaches`."""
    found = breaches(type(component), base)
    methods = _methods(base)
    if base.does_nothing_alone and not any(_is_defined(component, name) for name in methods):
        found.append(f"it defines none of the methods {', '.join(methods)}")
    for name, hint in _declared(base).items():
        if not hasattr(component, name):
            words = f" ({_described(hint)})" if _described(hint) else ""
            found.append(f"it has no attribute {name}{words}")
    return [*found, *(text for text in _wrong_attributes(component, base) if text not in found)]


def package_of(component: Any) -> str:
    """Return the package, or the top-level module, of a class, a function or the class of an object."""
    return str(component.__module__).partition(".")[0]


def is_ours(component: Any) -> bool:
    """Tell whether a class, a function or the class of an object is part of ppcls itself."""
    return package_of(component) == package_of(Component)


class PluginErrors:
    """Names a component of a plug-in in whatever fails in a ``with`` block, with the line of its code.

    Failures of our own components pass unchanged, because they are to be seen with their traceback; so do our
    own errors, whoever raises them, because they are messages already.

    Args:
        component: what is called in the block.
        what: text that names it for the user.
        error: class of the error to raise.
        advice: sentence at the end of the message.
        own_errors: name the component in our own errors too.

    Raises:
        PpclsError: of the class `error`.
    """

    def __init__(
        self,
        component: Any,
        what: str,
        error: type[PpclsError] = ConfigError,
        *,
        advice: str = "",
        own_errors: bool = False,
    ) -> None:
        self._component = component
        self._what = what
        self._error = error
        self._advice = advice
        self._own_errors = own_errors

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if not isinstance(error, Exception) or is_ours(self._component):
            return
        if isinstance(error, PpclsError):
            if not self._own_errors:
                return
            failure = str(error)
        else:
            file = where_defined(self._component).rpartition(":")[0]
            failure = describe_failure(error, file or None)
        raise self._error(f"{self._what}: {failure}{self._advice}") from error


def where_defined(component: Any) -> str:
    """Return ``file:line`` of a class or function, of an object that of its class; empty if not known."""
    defined = component if isinstance(component, type) or inspect.isroutine(component) else type(component)
    try:
        line = inspect.getsourcelines(defined)[1]
        return f"{inspect.getsourcefile(defined)}:{line}"
    except (OSError, TypeError):
        return ""


def adopt(component: Any, base: Any) -> Any:
    """Return an object with `base` among its base classes; one that has it comes back as it is.

    A function, or another object whose class cannot be changed, is wrapped if calling it is all that the
    contract asks for.

    Raises:
        TypeError: if neither is possible.
    """
    if isinstance(component, base):
        return component
    try:
        original: Any = type(component)
        object.__setattr__(component, "__class__", _joined(original, base))
    except TypeError:
        if not callable(component) or _abstract(base) != {"__call__"}:
            raise
        component = _wrapped(component, base)
    component.adopted()
    return component


@cache
def _joined(original: Any, base: Any) -> Any:
    """Return a class with both as base classes, under the name of the first."""
    members = {key: getattr(original, key) for key in ("__module__", "__qualname__", "__doc__")}

    def reduce(self: Any, protocol: Any) -> Any:
        """Pickle by the original class, which can be imported by its name."""
        reduced = original.__reduce_ex__(self, protocol)
        if reduced[0] is not copyreg.__newobj__:  # type: ignore[attr-defined]
            return reduced
        return (_new, (original, base, *reduced[1][1:]), *reduced[2:])

    return type(original.__name__, (original, base), {**members, "__reduce_ex__": reduce})


def _new(original: Any, base: Any, *arguments: Any) -> Any:
    joined = _joined(original, base)
    return joined.__new__(joined, *arguments)


def _wrapped(function: Callable[..., Any], base: type[Component]) -> Any:
    """Return an object of `base` that calls a function and has the function's attributes."""

    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        return function(*arguments, **options)

    title = function.__name__ if inspect.isroutine(function) else type(function).__name__
    attributes = {key: value for key, value in vars(function).items() if not key.startswith("__")}
    members = {**attributes, "__call__": call, "__module__": function.__module__, "__doc__": function.__doc__}
    return type(title, (base,), members)()


def _abstract(kind: type) -> set[str]:
    """Return the names of the methods that a class leaves to be defined."""
    return {
        name
        for name in dir(kind)
        if getattr(inspect.getattr_static(kind, name), "__isabstractmethod__", False)
    }


def _missing(component: type, base: type[Component]) -> list[str]:
    wanted = {name for name in _abstract(base) if _definer(component, name) in (None, *base.__mro__)}
    return sorted(wanted | _abstract(component))


def _methods(base: type[Component]) -> list[str]:
    """Return the names of the methods that our base classes of a kind define for others to override."""
    ours = [kind for kind in base.__mro__ if is_ours(kind) and kind is not Component]
    names = [name for kind in ours for name, member in vars(kind).items() if inspect.isfunction(member)]
    return [name for name in dict.fromkeys(names) if name == "__call__" or not name.startswith("_")]


def _is_defined(component: Any, name: str) -> bool:
    """Tell whether an object has a method that is not that of our base class."""
    definer = _definer(type(component), name)
    return name in vars(component) or (definer is not None and not is_ours(definer))


def _definer(component: type, name: str) -> type | None:
    return next((kind for kind in component.__mro__ if name in vars(kind)), None)


def _call(base: type[Component], method: str, component: _Made) -> str:
    """Return how a method is called, ``forward(outputs, label)``."""
    if not hasattr(base, method):  # of another base class, such as EpochSampler.order
        return f"{method}{inspect.signature(getattr(component, method))}".replace("(self, ", "(")
    return f"{method}({', '.join(base.arguments_of(method, component))})"


def _positional(method: Callable[..., Any]) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(method).parameters.items()
    return [name for name, parameter in parameters if parameter.kind in kinds and name not in ("self", "cls")]


def _takes(method: Callable[..., Any], arguments: Sequence[str]) -> bool:
    try:
        inspect.signature(method).bind(None, *arguments)
    except TypeError:
        return False
    return True


def _declared(base: type[Component]) -> dict[str, Any]:
    """Return the attributes that a base class declares, with their types."""
    found: dict[str, Any] = {}
    for kind in reversed([kind for kind in base.__mro__ if is_ours(kind)]):
        own = {"__annotations__": vars(kind).get("__annotations__", {}), "__module__": kind.__module__}
        found |= get_type_hints(type(kind.__name__, (), own))
    return {name: hint for name, hint in found.items() if not name.startswith("_")}


def _wrong_attributes(component: Any, base: type[Component]) -> Iterator[str]:
    for name, hint in _declared(base).items():
        value = inspect.getattr_static(component, name, None)
        if isinstance(value, property | types.MemberDescriptorType) or not hasattr(component, name):
            continue
        value = getattr(component, name)
        if not _fits(value, hint):
            yield f"its attribute {name} is {value!r:.60}, expected {_described(hint)}"


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a type, as far as it can be told without looking inside."""
    origin = get_origin(hint)
    if origin is ClassVar:
        return _fits(value, get_args(hint)[0])
    if origin in (Union, types.UnionType):
        return any(_fits(value, choice) for choice in get_args(hint))
    if hint in (int, float) and isinstance(value, bool):
        return False
    if hint is float:
        return isinstance(value, int | float)
    if hint is None or hint in (bool, int, str, type(None)):
        return isinstance(value, type(None) if hint is None else hint)
    if origin in (Collection, Sequence, list, tuple, frozenset, set):
        return isinstance(value, Collection) and not isinstance(value, str)
    return True


def _described(hint: Any) -> str:
    if get_origin(hint) is ClassVar:
        return _described(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join("None" if part is type(None) else _described(part) for part in get_args(hint))
    if isinstance(get_origin(hint), type) and issubclass(get_origin(hint) or object, Collection):
        inner = {str: " of names", int: " of whole numbers"}.get(next(iter(get_args(hint)), type(None)), "")
        return f"a list{inner}"
    return _WORDS.get(hint, "")

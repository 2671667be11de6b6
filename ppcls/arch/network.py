"""Registration of networks, and the options that every network has."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Mapping
from functools import cache
from numbers import Integral
from typing import Any

from paddle import nn

from ppcls.arch.answering import take_answering
from ppcls.arch.base import Network
from ppcls.arch.theseus import TheseusLayer
from ppcls.config import single
from ppcls.config.binding import bind, joined_signature, parameters_of
from ppcls.config.checks.paddleclas import without_foreign
from ppcls.config.mistakes import Findings
from ppcls.contracts import adopt, breaches, is_ours
from ppcls.errors import ConfigError, WeightsError, describe_failure
from ppcls.random_numbers import random_state, set_random_state
from ppcls.registry import BACKBONES
from ppcls.weights import load_pretrained
from ppcls.weights.sources import VARIANTS

_log = logging.getLogger("ppcls")


def _common(
    *,
    class_num: int = 1000,
    pretrained: bool | str | None = False,
    use_ssld: bool = False,
    use_ssld_stage1_pretrained: bool = False,
    use_imagenet22k_pretrained: bool = False,
    use_imagenet22kto1k_pretrained: bool = False,
    return_patterns: list[str] | str | None = None,
    return_stages: bool | int | list[int] | None = None,
    stop_after: str | None = None,
    freeze_befor: str | None = None,
) -> None:
    """Has the signature with the options of every network; `Network.shared_options` says what they mean."""


def register_network(
    build: Callable[..., TheseusLayer],
    name: str | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
    **fixed: Any,
) -> Callable[..., TheseusLayer]:
    """Register a network under a name and give it the options that every network has.

    `build` is a class or function whose typed keyword parameters are the network's own options, including
    `class_num`. It works as a decorator too. The result is registered in `BACKBONES`; recipes are checked
    with its signature, which has all options. `Network.shared_options` says what those of every network mean.

    Args:
        build: class or function that makes the network.
        name: the name to register (default: that of `build`).
        defaults: options of this variant whose defaults differ from those of `build`.
        **fixed: parameters of `build` that define this variant; they are not options of it.

    Raises:
        ValueError: if the name is taken.
    """
    title = name or build.__name__
    return BACKBONES.register(title)(_with_common_options(build, title, dict(defaults or {}), fixed))


@cache
def plugin_network(name: str, build: Callable[..., Any]) -> Callable[..., Any]:
    """Return what a plug-in registered as a network with the options that every network has.

    Args:
        name: its registered name.
        build: a class or function; a network of networks, and one that `register_network` made, come back as
            they are.
    """
    group = isinstance(build, type) and issubclass(build, Network) and not issubclass(build, TheseusLayer)
    if group or breaches(build, Network) or _COMMON.keys() <= parameters_of(build).keys():
        return build
    return _with_common_options(build, name, {}, {})


def _with_common_options(
    build: Callable[..., Any], title: str, defaults: Mapping[str, Any], fixed: Mapping[str, Any]
) -> Callable[..., TheseusLayer]:
    own = parameters_of(build)
    ours = _COMMON.keys() - own.keys()  # a network may have read an option itself before
    make = build
    if _into_the_rest(own):
        ours -= {"class_num"}
        make = _with_or_without_class_num(build, title)
    signature = _signature(own, defaults, fixed)

    def create(**options: Any) -> TheseusLayer:
        options = _accepted(title, create, options)
        if "class_num" in options:
            options["class_num"] = _class_num(title, options["class_num"])
        for option in _COUNTS if is_ours(build) else ():
            value = options.get(option, 1)
            if not 0 < value < math.inf:
                raise ConfigError(f"{title}: {option} must be a finite number above 0, got {value!r}")
        given = {key: options.pop(key) for key in list(options) if key in ours}
        network = make(**fixed, **{**defaults, **options})
        if not isinstance(network, nn.Layer):
            return network  # the registry says what is wrong with it
        network = adopt(network, TheseusLayer)
        network.registered_name = title
        load_pretrained(network, title, given.get("pretrained"), where=title, variant=_variant(title, given))
        if given.get("freeze_befor"):
            network.freeze_befor(given["freeze_befor"])
        if given.get("stop_after"):
            network.stop_after(given["stop_after"])
        patterns = given.get("return_patterns") or []
        patterns = [patterns] if isinstance(patterns, str) else list(patterns)
        stages = given.get("return_stages")
        patterns += network.stage_patterns(stages) if stages is not None else []
        if ours & {"return_patterns", "return_stages"}:
            network.update_res(patterns)
        return network

    create.__name__ = create.__qualname__ = title
    create.__module__ = build.__module__
    create.__doc__ = build.__doc__
    create.__wrapped__ = build  # type: ignore[attr-defined]
    create.__signature__ = signature  # type: ignore[attr-defined]
    return create


def _class_num(title: str, given: Any) -> int:
    if isinstance(given, bool) or not isinstance(given, Integral) or int(given) < 1:
        raise ConfigError(f"{title}: class_num must be a whole number above 0, got {given!r}")
    if int(given) > _MOST_CLASSES:
        raise ConfigError(f"{title}: class_num must be at most {_MOST_CLASSES}, got {given}")
    return int(given)


def _into_the_rest(own: Mapping[str, inspect.Parameter]) -> bool:
    """Tell whether ``class_num`` goes to a network that has no such parameter, but takes any option."""
    return "class_num" not in own and any(value.kind is value.VAR_KEYWORD for value in own.values())


def _with_or_without_class_num(build: Callable[..., Any], title: str) -> Callable[..., Any]:
    """Return a function that builds a network, and warns of one that turns out not to take ``class_num``."""
    warned = False

    def made(**options: Any) -> Any:
        nonlocal warned
        if "class_num" not in options:
            return build(**options)
        drawn = random_state()
        try:
            return build(**options)
        except Exception as error:
            if _is_paddles(error):
                raise
            refusal = error
        set_random_state(drawn)  # it may have drawn before it refused
        del options["class_num"]
        try:
            network = build(**options)
        except Exception as error:
            if _is_paddles(error):
                raise
            raise refusal from refusal.__cause__
        if not warned:  # a recipe is checked before its networks are built
            warned = True
            reason = describe_failure(refusal)
            _log.warning("%s: class_num has no effect, because the network refuses it: %s", title, reason)
        return network

    return made


def _is_paddles(error: Exception) -> bool:
    """Tell whether Paddle failed: memory was short, or parameters had none, see `built_lazily`."""
    return type(error) is RuntimeError


_COMMON = parameters_of(_common)
_COUNTS = ("width", "scale", "class_expand", "input_image_channel")  # channels, and factors on them
_MOST_CLASSES = 2**31 - 1  # sides of tensors are 32-bit numbers in Paddle
_OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _signature(
    own: Mapping[str, inspect.Parameter], defaults: Mapping[str, Any], fixed: Mapping[str, Any]
) -> inspect.Signature:
    named = {key: value for key, value in own.items() if value.kind not in _OPEN}
    parameters = {"class_num": named["class_num"]} if "class_num" in named else {}
    parameters.update({key: value for key, value in named.items() if key not in fixed})
    parameters.update({key: named[key].replace(default=value) for key, value in defaults.items()})
    parameters.update({key: value for key, value in _COMMON.items() if key not in parameters})
    rest = {key: value for key, value in own.items() if value.kind is inspect.Parameter.VAR_KEYWORD}
    if _into_the_rest(own):
        parameters["class_num"] = parameters["class_num"].replace(default=None)  # its default is not known
    elif "class_num" not in named:
        del parameters["class_num"]
    return joined_signature(parameters, rest, result=TheseusLayer)


def _variant(title: str, options: Mapping[str, Any]) -> str | None:
    """Return the variant of official weights that the options choose, None for the plain ones."""
    asked = [option for option in VARIANTS if options.get(option)]
    if asked == ["use_ssld", "use_ssld_stage1_pretrained"]:  # public recipes use both for the first stage
        asked = asked[1:]
    if len(asked) > 1:
        raise ConfigError(f"{title}: {' and '.join(asked)} name different weights; give one")
    return VARIANTS[asked[0]] if asked else None


def build_network(node: Any, where: str = "Arch") -> nn.Layer:
    """Build the network of a node ``{"name": ..., <options>}``.

    Beside the options of the network itself there may be ``frozen_engine`` and ``frozen_precision``; they are
    kept as the network's attribute ``answering``.

    Args:
        node: the node, plain or OmegaConf.
        where: its config path, the beginning of messages.

    Raises:
        ConfigError: for an unknown name or option, or a value that does not fit.
        WeightsError: if pretrained weights cannot be obtained or do not fit.
    """
    name, options = single(node, where)
    try:
        answering = take_answering(options)
        network = BACKBONES.create(name, _accepted(name, BACKBONES[name], options))
    except (ConfigError, WeightsError) as error:
        raise error.below(where) from error  # a network of networks says which of them it is about
    network.answering = answering
    return network


def _accepted(name: str, make: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    findings = Findings()
    known = parameters_of(make)
    options = without_foreign("network", name, options, known, "", findings)
    for warning in findings.warnings:
        _log.warning("%s.%s", name, warning)
    options = bind(name, known, options, ("", ""), findings)
    findings.raise_mistakes(name)
    return options

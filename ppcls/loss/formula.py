"""`pair_loss`: a loss of pairs of networks, made from one function.

A new loss of logits is one function in one file::

    @pair_loss("DistillationKLDivLoss", name="loss_kldiv", positive=["temperature"])
    def kl_divergence(student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor:
        return softened_kl(student / temperature, teacher / temperature).mean() * temperature**2

Options that all of them share: `model_name_pairs` (student first, then the network it learns from), `key`
(which output; null means logits), `name` (beginning of the part's name in the log), `pair_weights` (a factor
for each pair) and, for losses of logits, `class_map` (a file with one line ``student_class teacher_class``
for each student class, for a teacher with other classes).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin

from paddle import Tensor, nn

from ppcls.class_maps import read_class_map
from ppcls.config.binding import parameters_of
from ppcls.errors import ConfigError
from ppcls.loss._tensors import (
    check_finite,
    check_one_of,
    check_positive,
    class_distribution,
    class_index,
    standardized,
)
from ppcls.loss.class_map import match_classes
from ppcls.loss.pair import PairLoss
from ppcls.loss.temperature import check_schedule, is_learnable, learnable_temperature
from ppcls.loss.weight_schedule import EpochValue, epoch_value
from ppcls.registry import LOSSES

F = TypeVar("F", bound=Callable[..., Tensor])
_NO_RESULT = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


@dataclass(frozen=True)
class Formula:
    """A function of two tensors, and the arguments of its decorator :func:`pair_loss`."""

    function: Callable[..., Tensor]
    registered: str
    name: str
    part: str
    positive: Collection[str]
    scheduled: Collection[str]
    learnable: Collection[str]
    labels: Literal["class", "probabilities"] | None
    one_class_reason: str
    logits: bool
    mutual: bool
    standardizable: bool
    key_last: bool
    options: Mapping[str, inspect.Parameter]

    def check(self, given: Mapping[str, Any]) -> None:
        """Raise ConfigError for an option outside its range."""
        for option, parameter in self.options.items():
            choices = _choices(parameter.annotation)
            if choices:
                check_one_of(self.registered, option, given[option], choices)
        check_finite(self.registered, {option: given[option] for option in self.options})
        for option in self.positive:
            value = given[option]
            where = f"{self.registered}.{option}"
            if is_learnable(value) and option not in self.learnable:
                raise ConfigError(
                    "cannot be learned in this loss, expected a number or a schedule", path=where
                )
            if isinstance(value, Mapping) and not is_learnable(value):
                check_schedule(value, where)
            elif value is not None and not isinstance(value, Mapping):
                check_positive(self.registered, **{option: value})

    @cached_property
    def signature(self) -> inspect.Signature:
        """The options of the loss: those of the formula and those that all losses of pairs share.

        Raises:
            TypeError: if an option of the formula has the name of a shared one.
        """
        options = list(self.options.values())
        key = [_option("key", str | None)]
        parameters = [_option("model_name_pairs", list[list[str]], inspect.Parameter.empty)]
        parameters += [*options, *key] if self.key_last else [*key, *options]
        if self.labels is not None:
            parameters.append(_option("use_target_as_gt", bool, False))
        parameters += [_option("name", str, self.name), _option("pair_weights", list[float] | None)]
        if self.logits:
            parameters.append(_option("class_map", str | None))
        else:
            parameters.append(_option("standardize_teacher", bool, False))
        if self.standardizable:
            parameters.append(_option("standardize", bool, False))
        names = [p.name for p in parameters]
        taken = sorted({n for n in names if names.count(n) > 1} | {"weight"} & set(self.options))
        if taken:
            raise TypeError(
                f"pair_loss: every loss already has the options {', '.join(taken)}; choose other names"
            )
        return inspect.Signature(parameters)


class FormulaLoss(PairLoss):
    """A :class:`Formula`, applied to pairs of networks: the base class of what :func:`pair_loss` registers.

    The second network of a pair is the target: no gradient reaches it. If two networks learn from each
    other, list the pair in both orders. A mutual formula is symmetric and sends gradient to both sides.

    Args:
        model_name_pairs: pairs of networks: first the one that learns, then the one it learns from.
        key: which output of both networks is compared; null: the logits. Others come from `return_patterns`.
        use_target_as_gt: take the teacher's most probable class as the label: for images without labels.
        name: beginning of the part's name in the log.
        pair_weights: one factor for each pair; null: 1 each.
        class_map: if the teacher has other classes: a file with one line `student_class teacher_class` for
            each class of the student.
        standardize: bring the logits of both networks to mean 0 and standard deviation 1 first.
        standardize_teacher: for losses of features: bring the teacher's output to mean 0 in each channel and
            an average variance of 1 first; measured on training images before the first step.

    Attributes:
        formula: set by the decorator.
        own_options: options of a subclass besides those of its formula: their types and defaults.
        supplied: parameters of the formula that a subclass passes to it (:meth:`arguments`).
    """

    formula: ClassVar[Formula]
    own_options: ClassVar[Mapping[str, tuple[Any, Any]]] = {}
    supplied: ClassVar[Collection[str]] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        formula = self.formula
        bound = formula.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        formula.check(given)
        options = {option: given[option] for option in formula.options}
        names = {"name": given["name"], **options}
        pairs = given["model_name_pairs"]
        key = given["key"]
        super().__init__(formula.registered, pairs, (key, key), formula.part, names, given["pair_weights"])
        class_map = given.get("class_map")
        self.class_map = None if class_map is None else read_class_map(class_map)
        self.teacher_as_label = bool(given.get("use_target_as_gt"))
        self.standardize = bool(given.get("standardize"))
        self.standardize_teacher = bool(given.get("standardize_teacher"))
        self.own = {option: options.pop(option) for option in self.own_options}
        self.options = options
        self.scheduled: dict[str, EpochValue] = {}
        self.learned = nn.LayerDict()
        for option in formula.scheduled:
            node, where = options.pop(option), f"{formula.registered}.{option}"
            if option in formula.learnable and is_learnable(node):
                self.learned[option] = learnable_temperature(node, where)
            else:
                self.scheduled[option] = epoch_value(node, where)
        self.set_epoch(1)

    @property
    def label_free(self) -> bool:
        """Whether the loss works on images without labels."""
        return self.formula.labels is None or self.teacher_as_label

    @property
    def hard_labels_only(self) -> str | None:
        """Why the loss cannot work with label probabilities; None if it can."""
        needs_class = self.formula.labels == "class" and not self.teacher_as_label
        return self.formula.one_class_reason if needs_class else None

    def set_epoch(self, epoch: int) -> None:
        """Set the options that follow a schedule to their values at `epoch`, counted from 1."""
        self.current = {option: value(epoch) for option, value in self.scheduled.items()}
        for layer in self.learned.values():
            layer.set_epoch(epoch)

    def prepare(self, outputs: Mapping[str, Any]) -> None:
        """Check names, keys and shapes against the outputs of one dry forward.

        Raises:
            ConfigError: if something does not fit.
        """
        for pair in self.pairs:
            self.tensors(outputs, pair)
        self.prepare_scales(outputs)

    def tensors(self, outputs: Mapping[str, Any], pair: tuple[str, str]) -> tuple[Tensor, Tensor]:
        """Return the tensors of both networks, logits in the order of the student's classes.

        Raises:
            ConfigError: if the numbers of classes differ.
        """
        first, second = super().tensors(outputs, pair)
        if not self.formula.mutual:
            second = second.detach()
        if self.formula.logits:
            second = match_classes(first, second, self.class_map, self.loss)
            if list(first.shape) != list(second.shape):
                raise ConfigError(
                    f"{self.loss}: the logits of {pair} have the shapes {list(first.shape)} and "
                    f"{list(second.shape)}, expected equal shapes"
                )
        return first, second

    def compare(self, position: int, first: Tensor, second: Tensor, label: Tensor | None) -> Tensor:
        """Return the value of the formula."""
        tensors = [standardized(first), standardized(second)] if self.standardize else [first, second]
        if self.formula.labels is not None:
            tensors.append(self._target(second.argmax(-1) if self.teacher_as_label else label, first))
        return self.formula.function(*tensors, **self.arguments(position, first))

    def arguments(self, position: int, first: Tensor) -> dict[str, Any]:
        """Return the options of the formula for one pair; `first` is the student's tensor."""
        learned = {option: layer() for option, layer in self.learned.items()}
        return {**self.options, **self.current, **learned}

    def _target(self, label: Tensor | None, logits: Tensor) -> Tensor:
        if self.formula.labels == "probabilities":
            return class_distribution(label, logits, self.loss)
        return class_index(label, self.loss, self.formula.one_class_reason)


def pair_loss(
    registered: str,
    *,
    name: str | None = None,
    part: str = "{name}_{student}_{teacher}",
    positive: Collection[str] = (),
    scheduled: Collection[str] = (),
    learnable: Collection[str] = (),
    soft_labels: bool = False,
    one_class_reason: str = "it needs one class for each image",
    logits: bool = True,
    mutual: bool = False,
    standardizable: bool = False,
    key_last: bool = False,
    base: type[FormulaLoss] = FormulaLoss,
) -> Callable[[F], F]:
    """Return a decorator that registers a formula as a loss of pairs and returns the formula unchanged.

    The formula takes the student's tensor and the teacher's, both [N, C] and float32, and returns a scalar. A
    third parameter without default receives the labels: class indices, int64 [N]. All parameters with a
    default are options of the loss. Added to them are the options that all losses of pairs share (see the
    module) and, with labels, `use_target_as_gt`: take the teacher's most probable class as the label, so
    that images without labels can be used. An option whose type is a ``Literal`` accepts only the listed
    values.

    Args:
        registered: name used in recipes, such as ``DistillationKLDivLoss``.
        name: default of the option `name`; None: the registered name.
        part: name of each pair's part in the log, a format of `name`, `student`, `teacher`, `position` (of
            the pair in the list) and the options.
        positive: options that have to be above 0.
        scheduled: options that may be a schedule over the epochs instead of a number.
        learnable: temperatures among the scheduled options that may be learned against the student
            (:class:`ppcls.loss.temperature.LearnableTemperature`). The loss must not grow without end with
            them.
        soft_labels: the formula gets labels as class probabilities [N, C]; class indices become one-hot.
        one_class_reason: why the formula needs one class for each image, for the error message about soft
            labels.
        logits: the tensors are logits, so the numbers of classes have to be equal; False: tensors of any
            shape.
        mutual: let gradient reach the second network, too.
        standardizable: add the option `standardize`: bring the logits of each sample to mean 0 and standard
            deviation 1 first (:func:`ppcls.loss._tensors.standardized`).
        key_last: the options of the formula come before `key` if options are passed by position.
        base: base class of the loss, for a formula that needs more than tensors and options.

    Raises:
        TypeError: if the function cannot be called as described, is ``async`` or a generator, or lacks an
            option that is named here; if `part` contains something else; if the decorator is written without
            a name, which would register nothing.
    """
    if not isinstance(registered, str):
        raise TypeError(f"pair_loss is written with a name: @pair_loss('MyLoss'), got {registered!r}")

    def register(function: F) -> F:
        labelled = _reads_labels(function, base.supplied)
        kind: Literal["class", "probabilities"] = "probabilities" if soft_labels else "class"
        formula = Formula(
            function=function,
            registered=registered,
            name=name or registered,
            part=part,
            positive=positive,
            scheduled=scheduled,
            learnable=learnable,
            labels=kind if labelled else None,
            one_class_reason=f"{one_class_reason}; use_target_as_gt: True needs no labels",
            logits=logits,
            mutual=mutual,
            standardizable=standardizable,
            key_last=key_last,
            options=_options(function, base, positive, scheduled, learnable),
        )
        _check_part(formula)
        LOSSES.register(registered)(_loss_class(formula, base))
        return function

    return register


def _loss_class(formula: Formula, base: type[FormulaLoss]) -> type[FormulaLoss]:
    members = {
        "formula": formula,
        "one_way": not formula.mutual,
        "__signature__": formula.signature,
        "__doc__": formula.function.__doc__,
        "__module__": formula.function.__module__,
    }
    return type(formula.registered, (base,), members)


def _options(
    function: Callable[..., Tensor],
    base: type[FormulaLoss],
    positive: Collection[str],
    scheduled: Collection[str],
    learnable: Collection[str],
) -> dict[str, inspect.Parameter]:
    """Return the options of a formula, its parameters with a default, and those of the base class.

    Raises:
        TypeError: if `positive`, `scheduled` or `learnable` is not a list of names among them.
    """
    options = {
        name: _option(name, parameter.annotation, parameter.default)
        for name, parameter in parameters_of(function).items()
        if parameter.default is not parameter.empty
    }
    options |= {name: _option(name, *own) for name, own in base.own_options.items()}
    for names in (positive, scheduled, learnable):
        if isinstance(names, str):
            raise TypeError(f"pair_loss: expected a list of options such as [{names!r}], got {names!r}")
    unknown = sorted({*positive, *scheduled, *learnable} - options.keys())
    if unknown:
        raise TypeError(f"pair_loss: {function.__name__} has no option {', '.join(unknown)}")
    for name in scheduled:
        options[name] = options[name].replace(annotation=float | dict[str, Any])
    return options


def _check_part(formula: Formula) -> None:
    """Refuse a format of names in the log that no loss could fill in.

    Raises:
        TypeError: naming what it may contain.
    """
    known = ["name", "student", "teacher", "position", *formula.options]
    try:
        formula.part.format(**dict.fromkeys(known, ""))
    except (KeyError, IndexError, ValueError) as error:
        raise TypeError(
            f"pair_loss: cannot fill in part={formula.part!r}, expected a format of {', '.join(known)}"
        ) from error


def _reads_labels(function: Callable[..., Tensor], supplied: Collection[str]) -> bool:
    """Tell whether a formula has a third tensor, the labels.

    Raises:
        TypeError: if it is not a function of two or three tensors and of options with defaults, or if calling
            it gives something else than its result.
    """
    if not inspect.isfunction(function):
        raise TypeError(f"pair_loss decorates a function (student, teacher), got {function!r}")
    name = function.__name__
    if any(kind(function) for kind in _NO_RESULT):
        raise TypeError(
            f"pair_loss: {name} is an async function or a generator, expected one that returns a scalar"
        )
    parameters = parameters_of(function)
    tensors = [p for n, p in parameters.items() if p.default is p.empty and n not in supplied]
    positional = all(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in tensors)
    if not positional or len(tensors) not in (2, 3):
        raise TypeError(
            f"pair_loss: {name}({', '.join(parameters)}) has {len(tensors)} parameters without default, "
            "expected (student, teacher) or (student, teacher, label), and options with defaults"
        )
    return len(tensors) == 3


def _option(name: str, annotation: Any, default: Any = None) -> inspect.Parameter:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _choices(annotation: Any) -> tuple[str | None, ...]:
    """Return the values that a ``Literal`` lists, and None if the type allows it; otherwise nothing."""
    kinds = [annotation] if get_origin(annotation) is Literal else list(get_args(annotation))
    listed = [value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
    return (*listed, None) if listed and type(None) in kinds else tuple(listed)

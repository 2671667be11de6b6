"""Optimizers: settings as written in YAML, and the Paddle optimizers made from them.

Three rules for weight decay apply to every optimizer:

* Give either ``regularizer`` or ``weight_decay``. ``weight_decay`` means ``L2``, except for AdamW, where it
is
  decoupled (arXiv 1711.05101).
* A parameter that a network created with its own regularizer keeps it: PPLCNet exempts the scales and shifts
  of its BatchNorm layers in this way.
* ``no_weight_decay_name`` and ``one_dim_param_no_weight_decay`` exempt further parameters, in the same way.

Gradients are clipped first and decayed afterwards. All parameters of an optimizer form one group: Paddle
clips the norm of each group separately, which would not be the global norm.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import paddle
from paddle import nn
from paddle.optimizer import Optimizer
from paddle.optimizer.lr import LRScheduler
from paddle.regularizer import L1Decay, L2Decay, WeightDecayRegularizer

from ppcls._paddle import keep_master_weights
from ppcls.config.arithmetic import evaluate
from ppcls.errors import ConfigError, hint
from ppcls.logger import LOGGER
from ppcls.optimizer.base import NamedParameters, OptimizerFactory
from ppcls.optimizer.learning_rates import require, require_amount
from ppcls.registry import OPTIMIZERS

_REGULARIZERS = {"L1": L1Decay, "L2": L2Decay}


def trainable_parameters(models: Sequence[nn.Layer]) -> NamedParameters:
    """Return names and parameters of `models` that train, each parameter once.

    Raises:
        ConfigError: if there is none.
    """
    seen: dict[int, tuple[str, paddle.Tensor]] = {}
    for model in models:
        for name, parameter in model.named_parameters():
            if not parameter.stop_gradient:
                seen.setdefault(id(parameter), (name, parameter))
    if not seen:
        raise ConfigError("Optimizer: nothing to train: every parameter of the network is frozen")
    return list(seen.values())


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings(OptimizerFactory):
    """Settings of all optimizers.

    Attributes:
        lr: the schedule, see :mod:`ppcls.optimizer.learning_rates`.
        regularizer: ``{name: L1 | L2, coeff: ...}``; adds ``coeff * sign(w)`` or ``coeff * w`` to gradients.
        weight_decay: short form of an L2 regularizer; decoupled in AdamW.
        no_weight_decay_name: parts of parameter names, as a list or separated by blanks; parameters with
            such a part in their name are not decayed; a part that occurs in no name gives a warning.
        one_dim_param_no_weight_decay: do not decay parameters with one axis (biases, normalisation).
        clip_norm: scale all gradients so that their joint norm is at most this.
        clip_value: limit each element of the gradients to -clip_value ... clip_value.
        multi_precision: keep float32 copies of float16 or bfloat16 parameters.
        scope: in a list of optimizers, the parameters to train: a class (``MGDLoss``), a layer
            (``Student.fc``), or several of them; ``all`` means everything that no other optimizer of the list
            trains.
    """

    lr: dict[str, Any]
    regularizer: dict[str, Any] | None = None
    weight_decay: float | None = None
    no_weight_decay_name: str | list[str] | None = None
    one_dim_param_no_weight_decay: bool = False
    clip_norm: float | None = None
    clip_value: float | None = None
    multi_precision: bool = True
    scope: str | list[str] = "all"

    def __post_init__(self) -> None:
        for key in ("clip_norm", "clip_value"):
            value = getattr(self, key)
            if value is not None:
                require_amount(key, value, above_zero=True)
        both = self.clip_norm is not None and self.clip_value is not None
        require(not both, "clip_value", self.clip_value, "either clip_norm or clip_value, not both")
        if self.weight_decay is not None:
            require_amount("weight_decay", self.weight_decay)
        if self.regularizer is not None:
            given = dict(self.regularizer)
            require(self.weight_decay is None, "regularizer", given, "either it or weight_decay, not both")
            require(set(given) == {"name", "coeff"}, "regularizer", given, "the keys name and coeff")
            require(given["name"] in _REGULARIZERS, "regularizer.name", given["name"], "L1 or L2")
            require_amount("regularizer.coeff", _computed(given["coeff"]))

    def build(self, schedule: LRScheduler, parameters: NamedParameters) -> Optimizer:
        """Return the Paddle optimizer over `parameters`."""
        decay = self._decay()
        for _, parameter in self._exempt(parameters):
            parameter.regularizer = L2Decay(0.0)
        return self._create(schedule, [p for _, p in parameters], decay)

    @abstractmethod
    def _create(
        self, schedule: LRScheduler, parameters: list[paddle.Tensor], decay: WeightDecayRegularizer | None
    ) -> Optimizer:
        """Return the optimizer; `decay` is what `weight_decay` or `regularizer` asks for."""

    def _common(self, schedule: LRScheduler, parameters: list[paddle.Tensor]) -> dict[str, Any]:
        return {"learning_rate": schedule, "parameters": parameters, "grad_clip": self._clip()}

    def _decay(self) -> WeightDecayRegularizer | None:
        if self.weight_decay is not None:
            return L2Decay(float(self.weight_decay))
        if self.regularizer is None:
            return None
        return _REGULARIZERS[self.regularizer["name"]](float(_computed(self.regularizer["coeff"])))

    def _clip(self) -> nn.ClipGradByGlobalNorm | nn.ClipGradByValue | None:
        if self.clip_norm is not None:
            return nn.ClipGradByGlobalNorm(float(self.clip_norm))
        return None if self.clip_value is None else nn.ClipGradByValue(float(self.clip_value))

    def _exempt(self, parameters: NamedParameters) -> NamedParameters:
        """Return the parameters that the no-decay options exempt."""
        parts = self.no_weight_decay_name or []
        parts = parts.split() if isinstance(parts, str) else parts
        for part in parts:
            if not any(part in name for name, _ in parameters):
                close = hint(part, {piece for name, _ in parameters for piece in name.split(".")})
                LOGGER.warning(
                    "Optimizer.no_weight_decay_name: %r has no effect: no parameter has it in its name.%s",
                    part,
                    close,
                )
        flat = self.one_dim_param_no_weight_decay
        return [
            (name, p)
            for name, p in parameters
            if any(s in name for s in parts) or (flat and len(p.shape) == 1)
        ]


def _computed(number: Any) -> Any:
    """Return the value of a number that is written as arithmetic; anything else as it is."""
    try:
        return evaluate(number) if isinstance(number, str) else number
    except ConfigError:
        return number


@OPTIMIZERS.register()
@dataclass(frozen=True, kw_only=True)
class SGD(OptimizerSettings):
    """Stochastic gradient descent without momentum."""

    def _create(
        self, schedule: LRScheduler, parameters: list[paddle.Tensor], decay: WeightDecayRegularizer | None
    ) -> Optimizer:
        return paddle.optimizer.SGD(
            **self._common(schedule, parameters), weight_decay=decay, multi_precision=self.multi_precision
        )


@OPTIMIZERS.register()
@dataclass(frozen=True, kw_only=True)
class Momentum(OptimizerSettings):
    """Heavy-ball momentum, ``v = momentum * v + g; w -= lr * v``, or Nesterov's form of it.

    Attributes:
        momentum: share of the last step that is added to the gradient, 0 to below 1.
        use_nesterov: whether to use Nesterov's form.
    """

    momentum: float = 0.9
    use_nesterov: bool = False

    def __post_init__(self) -> None:
        require(0 <= self.momentum < 1, "momentum", self.momentum, "0 to 1, 1 excluded")
        super().__post_init__()

    def _create(
        self, schedule: LRScheduler, parameters: list[paddle.Tensor], decay: WeightDecayRegularizer | None
    ) -> Optimizer:
        return paddle.optimizer.Momentum(
            **self._common(schedule, parameters),
            momentum=self.momentum,
            use_nesterov=self.use_nesterov,
            weight_decay=decay,
            multi_precision=self.multi_precision,
        )


@dataclass(frozen=True, kw_only=True)
class _Adaptive(OptimizerSettings):
    """The common settings of Adam and AdamW.

    Attributes:
        beta1: decay of the mean of the gradients, 0 to below 1.
        beta2: decay of the mean of their squares, 0 to below 1.
        epsilon: added to the root of the squares, above 0.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        for key, value in (("beta1", self.beta1), ("beta2", self.beta2)):
            require(0 <= value < 1, key, value, "0 to 1, 1 excluded")
        require_amount("epsilon", self.epsilon, above_zero=True)
        super().__post_init__()

    def _common(self, schedule: LRScheduler, parameters: list[paddle.Tensor]) -> dict[str, Any]:
        return super()._common(schedule, parameters) | {
            "beta1": self.beta1,
            "beta2": self.beta2,
            "epsilon": self.epsilon,
            "multi_precision": self.multi_precision,
        }


@OPTIMIZERS.register()
@dataclass(frozen=True, kw_only=True)
class Adam(_Adaptive):
    """Adam (arXiv 1412.6980); weight decay is added to the gradient; AdamW has the decoupled form."""

    def _create(
        self, schedule: LRScheduler, parameters: list[paddle.Tensor], decay: WeightDecayRegularizer | None
    ) -> Optimizer:
        return paddle.optimizer.Adam(**self._common(schedule, parameters), weight_decay=decay)


@OPTIMIZERS.register()
@dataclass(frozen=True, kw_only=True)
class AdamW(_Adaptive):
    """Adam with decoupled weight decay (arXiv 1711.05101): ``w -= lr * weight_decay * w``.

    A parameter with its own regularizer is not decayed a second time.
    """

    def __post_init__(self) -> None:
        require(self.regularizer is None, "regularizer", self.regularizer, "weight_decay instead, for AdamW")
        super().__post_init__()

    def _create(
        self, schedule: LRScheduler, parameters: list[paddle.Tensor], decay: WeightDecayRegularizer | None
    ) -> Optimizer:
        decayed = {p.name for p in parameters if p.regularizer is None}
        return paddle.optimizer.AdamW(
            **self._common(schedule, parameters),
            weight_decay=float(self.weight_decay or 0.0),
            apply_decay_param_fun=decayed.__contains__,
        )


@OPTIMIZERS.register()
@dataclass(frozen=True, kw_only=True)
class RMSProp(OptimizerSettings):
    """RMSProp (Hinton's lecture 6e) as Paddle defines it, with `epsilon` inside the square root.

    Attributes:
        rho: decay of the mean of the squared gradients, 0 to below 1.
        epsilon: added to these squares, above 0.
        momentum: share of the last step that is added, 0 to below 1.
        centered: subtract the squared mean of the gradients from the mean of their squares.
    """

    rho: float = 0.95
    epsilon: float = 1e-6
    momentum: float = 0.0
    centered: bool = False

    def __post_init__(self) -> None:
        require(0 <= self.rho < 1, "rho", self.rho, "0 to 1, 1 excluded")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "0 to 1, 1 excluded")
        require_amount("epsilon", self.epsilon, above_zero=True)
        super().__post_init__()

    def _create(
        self, schedule: LRScheduler, parameters: list[paddle.Tensor], decay: WeightDecayRegularizer | None
    ) -> Optimizer:
        optimizer = paddle.optimizer.RMSProp(
            **self._common(schedule, parameters),
            rho=self.rho,
            epsilon=self.epsilon,
            momentum=self.momentum,
            centered=self.centered,
            weight_decay=decay,
        )
        keep_master_weights(optimizer, self.multi_precision)
        return optimizer

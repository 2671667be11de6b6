"""The evaluations of a run and of ``ppcls eval``: networks, measures, and the value that chooses the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import paddle
from paddle import nn

from ppcls.arch.distillation import AttentionModel
from ppcls.config import ComponentSpec, Recipe
from ppcls.data import Batch, Loader, image_tensor
from ppcls.distributed import world_size
from ppcls.engine import build
from ppcls.engine.evaluation.asking import ask_networks
from ppcls.engine.evaluation.collected import AnswerCollector
from ppcls.engine.evaluation.evaluate import evaluate, evaluating
from ppcls.engine.evaluation.measures import Agreement, Measures, classifiers
from ppcls.engine.hooks.ema import ModelEMA
from ppcls.engine.run import Measurer
from ppcls.logger import LOGGER
from ppcls.metric import LOSS, Criterion
from ppcls.run_states import EMA
from ppcls.teacher import KnownLogits, running_trained


def watched_teachers(model: nn.Layer, student: str | None, classifying: Sequence[str]) -> list[str]:
    """Return the names of frozen networks with the student's classes.

    Args:
        model: the networks.
        student: the network to deploy; None for a single network, which has no teacher.
        classifying: names of the networks with the student's classes.
    """
    return [name for name in classifying if name != student and _is_frozen(model, name)]


def watched_students(model: nn.Layer, student: str | None, classifying: Sequence[str]) -> list[str]:
    """Return the names of the other networks that train and have the student's classes."""
    return [name for name in classifying if name != student and not _is_frozen(model, name)]


def _is_frozen(model: nn.Layer, name: str) -> bool:
    if name not in model.names:  # an ensemble of frozen networks
        return True
    network = model.network(name)
    if isinstance(network, AttentionModel) and network.names[0] in network.frozen:
        return True  # the classifier of the chain is frozen; the transforms of its features are not
    return name in model.frozen


def trained_and_measures(
    config: Recipe,
    main: str | None,
    class_num: int,
    loader: Loader,
    trained: Callable[[set[str] | None], Any],
) -> tuple[Any, Measures]:
    """Return the networks that ``ppcls eval`` evaluates, with weights, and their measures.

    Args:
        config: the recipe.
        main: the network to deploy; None for a model of one network.
        class_num: number of classes of the labels.
        loader: the images to evaluate.
        trained: returns the networks of these names with weights.
    """
    if main is None:
        measures = Measures(config, None)
        measures.check_labels(loader.dataset)
        return trained(None), measures
    arch = config.arch
    weights = config.Global.pretrained_model
    students = [name for name in arch.trained if name != main]
    there = build.networks_with_weights(arch, students, weights)
    absent = [name for name in students if name not in there]
    measures = Measures(config, main, there, absent)
    if main in measures.named:
        for name in sorted(measures.named & set(absent)):
            source = weights or "the recipe"
            LOGGER.warning("Metric.Eval: %s is not evaluated: %s has no weights of it", name, source)
    measures.log_following()
    model = trained({main, *measures.networks})
    if there:
        outputs = build.dry_forward(model, build.first_sample_shape(loader, "Eval"))
        classifying = set(classifiers(outputs, class_num))
        measures = Measures(config, main, [name for name in there if name in classifying], absent)
        measures.criteria(outputs)
    measures.check_labels(loader.dataset)
    return model, measures


def measures_of_run(
    config: Recipe,
    main: str | None,
    students: Sequence[str],
    teachers: Sequence[str],
    class_maps: Mapping[str, Sequence[int]],
) -> Measures:
    """Return the measures in evaluations of a run, including the agreement of students and teachers.

    Args:
        config: the recipe.
        main: the network to deploy; None for a model of one network.
        students: the other networks that are measured on their own.
        teachers: the frozen networks with as many classes as the network to deploy.
        class_maps: the class of a teacher for each of the student's, of teachers with another order.
    """
    measures = Measures(config, main, students)
    measures.log_following()
    if students:
        LOGGER.info(
            "%s is the network to deploy, which best_model follows; evaluated and saved at their best by "
            "themselves: %s",
            main,
            ", ".join(students),
        )
    if teachers and main is not None and config.Global.eval_agreement:
        measures.networks |= {main, *students, *teachers}
        measures.add("", Agreement(main, teachers, class_maps))
        for name in students:
            measures.add(name, Agreement(name, teachers, class_maps))
    return measures


def known_once(model: nn.Layer, measures: Measures, outputs: Any) -> list[str]:
    """Return the names of networks whose logits for the evaluation set have to be computed only once.

    Args:
        model: the networks.
        measures: measures of evaluations.
        outputs: outputs of the model for two images.
    """
    return [
        name
        for name in sorted(measures.networks)
        if model.logits_never_change(name) and measures.need_logits_alone(name, outputs)
    ]


def evaluator(
    model: Any,
    loader: Loader,
    measures: Measures,
    ema: ModelEMA | None,
    *,
    print_every: int,
    casting: Mapping[str, Any],
    known: KnownLogits,
    still: Sequence[str],
    programs: bool,
    collector: AnswerCollector | None = None,
) -> Measurer:
    """Return a function of the epoch that evaluates the present `model` and its averaged weights.

    Its second argument is `between` of :func:`ppcls.engine.evaluation.evaluate.evaluate`.

    Args:
        model: the networks.
        loader: the images to evaluate.
        measures: the measures.
        ema: the averaged weights, if there are any.
        print_every: number of batches between log lines.
        casting: options of ``paddle.amp.auto_cast``.
        known: logits of frozen networks.
        still: names of the frozen networks of which only logits are needed.
        programs: whether networks that train may be evaluated as programs.
        collector: keeps the answers of the networks.
    """
    training = [name for name in measures.networks if not model.logits_never_change(name)]
    told = False

    def forward(alone: Callable[[paddle.Tensor], Any], batch: Batch) -> Any:
        if not measures.networks:
            return alone(image_tensor(batch))
        return ask_networks(model, measures.networks, batch, known, still)

    def evaluate_once(epoch: int, between: Callable[[int], None] | None) -> dict[str, float]:
        nonlocal told
        # For the first batch alone, or where they are not wanted, none is worth its while.
        images = 0 if loader.is_tried or not programs else len(loader.dataset) // world_size()
        with (
            evaluating(model),
            paddle.amp.auto_cast(**casting),
            running_trained(model, training, images, quiet=told) as alone,
        ):
            told = told or not loader.is_tried
            return evaluate(
                partial(forward, alone),
                loader,
                measures.groups,
                epoch=epoch,
                print_every=print_every,
                observe=collector,
                between=between,
            )

    def evaluate_both(epoch: int, between: Callable[[int], None] | None = None, /) -> dict[str, float]:
        if collector is not None:
            collector.begin(averaged=False)
        metrics = evaluate_once(epoch, between)
        if ema is not None:
            LOGGER.info("[Eval][Epoch %d]averaged weights:", epoch)
            if collector is not None:
                collector.begin(averaged=True)
            with ema.applied():
                found = evaluate_once(epoch, between)
            metrics |= {f"{name}{EMA}": value for name, value in found.items()}
        return metrics

    return evaluate_both


def plateau_metric(
    schedules: Sequence[ComponentSpec], criterion: Criterion
) -> Callable[[Mapping[str, float]], float]:
    """Return the value for ReduceOnPlateau: the score that chooses `best_model`.

    In its mode ``min`` it is a value to minimise: the metric if smaller values are better, else the loss.

    Args:
        schedules: the schedule of each optimizer, as configured.
        criterion: the value that chooses `best_model`.
    """
    if all(lr.options.get("mode") != "min" for lr in schedules):
        return criterion.score
    falling = LOSS if criterion.higher_is_better else criterion
    return lambda metrics: -falling.score(metrics)

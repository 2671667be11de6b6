"""Build a run from a recipe, its open data and its networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ppcls import distributed
from ppcls.config import ArchSpec, Recipe
from ppcls.config.schema import GlobalSpec
from ppcls.engine import build
from ppcls.engine.amp import cast_networks, casting_in_evaluation, mixed_precision
from ppcls.engine.checkpoint import Checkpoint, Checkpointer, Progress
from ppcls.engine.checkpoint.contents import restore
from ppcls.engine.checkpoint.resume import compare_by
from ppcls.engine.evaluation.collected import AnswerCollector, collected_networks
from ppcls.engine.evaluation.evaluators import (
    evaluator,
    known_once,
    measures_of_run,
    plateau_metric,
    watched_students,
    watched_teachers,
)
from ppcls.engine.evaluation.measures import Measures, classifiers
from ppcls.engine.hooks.base import Hook
from ppcls.engine.hooks.checkpoint import CheckpointHook
from ppcls.engine.hooks.early_stopping import EarlyStopping
from ppcls.engine.hooks.ema import EMAHook, ModelEMA
from ppcls.engine.hooks.logging import LogHook
from ppcls.engine.hooks.report import ReportHook
from ppcls.engine.hooks.teachers import TeacherCheck
from ppcls.engine.run import Evaluation, Parts, Run, Settings
from ppcls.engine.start.measure import measure_teachers
from ppcls.engine.start.run_data import RunData
from ppcls.engine.start.teacher_store import OpenStore
from ppcls.errors import WeightsError
from ppcls.logger import LOGGER, ScalarWriter
from ppcls.loss import build_loss
from ppcls.loss.class_map import class_maps_of
from ppcls.loss.combined import CombinedLoss
from ppcls.metric import LOSS, Criterion, build_metric
from ppcls.optimizer import build_optimizer
from ppcls.teacher import (
    Answer,
    Choice,
    KnownLogits,
    answer_frozen,
    leave_out_frozen,
    names_of_frozen,
    store_frozen,
)
from ppcls.weights import find_file

# Stands among the engines of a run for those of networks that train, in evaluations.
EVALUATIONS = ""


@dataclass(frozen=True)
class Watched:
    """The networks that the evaluations of a run measure, and how evaluations are compared.

    Attributes:
        teachers: frozen networks with the classes of the network to deploy.
        measures: the measures of each network.
        criterion: the value by which evaluations of the network to deploy are compared.
        others: the same for each other student, by name.
        still: frozen networks of which only logits are needed.
        known: their logits.
        collector: keeps the answers in evaluations for the report; None without.
        class_maps: the class of a teacher for each of the student's, of teachers with another order.
    """

    teachers: list[str]
    measures: Measures
    criterion: Criterion
    others: dict[str, Criterion]
    still: list[str]
    known: KnownLogits
    collector: AnswerCollector | None = None
    class_maps: dict[str, list[int]] = field(default_factory=dict)


def build_run(
    config: Recipe,
    folder: Path,
    data: RunData,
    model: Any,
    store: OpenStore | None = None,
    *,
    resumed: Checkpoint | None,
    hooks: Sequence[Hook],
) -> Run:
    """Build everything that a run needs, and restore the state of a checkpoint if there is one to resume.

    Args:
        config: the recipe.
        folder: folder of the run; it is not changed.
        data: the open data.
        model: the networks, with the weights that the recipe names.
        store: outputs of frozen networks, if they are stored.
        resumed: the checkpoint to resume.
        hooks: hooks of the recipe and of the caller; they are called before those of ppcls.
    """
    settings = config.Global
    main = config.arch.main_name
    asks_frozen = store is None or not store.leaves_out or store.needs_weights
    weights = settings.pretrained_model
    if weights and resumed is not None and not (asks_frozen and _frozen_need(weights, config.arch)):
        weights = None
    loss, outputs = _prepare_networks(config, data, model, weights)
    left_out = names_of_frozen(model) if store is not None and store.leaves_out else []
    if left_out:
        leave_out_frozen(model)
    course = data.course
    steps = -(-len(data.loader) // course.update_freq)
    optimizer, schedule = build_optimizer(config.Optimizer, settings.epochs, steps, [model, loss])
    scaler, casting = mixed_precision(config.AMP)
    model = cast_networks(model, optimizer, casting)
    if settings.to_static:
        build.make_static(model)
    watched = _choose_watched(config, data, model, outputs, left_out)
    build.announce(model, config.arch.name, settings.seed or 0)
    trainable = build.trainable_state(model)
    ema = None if config.EMA is None else ModelEMA(trainable, config.EMA.decay)
    eval_casting = casting_in_evaluation(casting, config.AMP.use_fp16_test)
    parts = Parts(
        model=model,
        loss=loss,
        metric=build_metric(
            config.Metric.Train, main, "Metric.Train", class_maps_of(config.Loss, config.arch)
        ),
        optimizer=optimizer,
        schedule=schedule,
        loader=data.loader,
        evaluation=_build_evaluation(
            config,
            data,
            model,
            watched,
            ema,
            eval_casting,
            programs=_may_use_programs(resumed),
        ),
        scaler=scaler,
        trained=[p for p in (*model.parameters(), *loss.parameters()) if not p.stop_gradient],
        buffers=build.moving_buffers(model, loss),
        ema=ema,
    )
    run = Run(
        parts,
        Settings(folder, settings.epochs, course.update_freq, settings.print_batch_step, casting),
        [*hooks, *_build_hooks(config, folder, data, watched, eval_casting, resuming=resumed is not None)],
        Progress(seed=settings.seed or 0, lists=data.lists, batches=course.batches, batch=course.batch),
    )
    if resumed is not None:
        restore(run, resumed, other_batches=course.other)
    if not left_out:
        parts.answers = _let_frozen_answer(settings, data, model, resumed)  # with their final weights
    if store is not None:
        parts.stored = store.outputs
        store_frozen(model, store.outputs, parts.answers)
    if resumed is None:
        measure_teachers(config, data, model, loss, parts.stored, eval_casting)
    compare_by(run.progress, watched.criterion, main or config.arch.name)
    return run


def _prepare_networks(
    config: Recipe, data: RunData, model: Any, weights: str | None
) -> tuple[CombinedLoss, Any]:
    """Build the training loss, and give networks and loss their shapes and initial weights.

    Args:
        config: the recipe.
        data: the open data.
        model: the networks.
        weights: ``Global.pretrained_model``. Of a resumed run the frozen networks need it, which are in no
            checkpoint; the rest is restored.

    Returns:
        the loss, and the outputs of the networks for two images.
    """
    main = config.arch.main_name
    loss = build_loss(config.Loss.Train or [], main=main, where="Loss.Train")
    outputs = build.find_shapes(model, loss, data.shape, config.arch)
    distributed.copy_from_main([*model.state_dict().values(), *loss.state_dict().values()])
    if weights:
        build.load_start(model, loss, weights, config.arch.name, main)
        loss.read_networks(build.networks_of(model))
    build.warn_of_random_answers(model, training=True)
    build.synchronise([model, loss], config.Global.use_sync_bn)
    return loss, outputs


def _frozen_need(weights: str, arch: ArchSpec) -> bool:
    """Tell whether a resumed run has to read ``Global.pretrained_model`` for its frozen networks.

    Raises:
        WeightsError: if the file is gone, and a frozen network may have had its weights from it alone.
    """
    frozen = [child for child in arch.children if child.head.frozen]
    try:
        find_file(weights, "Global.pretrained_model")
    except WeightsError:
        unknown = [child.title for child in frozen if not child.has_own_weights]
        if unknown:
            raise
        if frozen:
            LOGGER.warning(
                "Global.pretrained_model: %s is no longer there; frozen networks keep the weights of their "
                "`pretrained`",
                weights,
            )
        return False
    return bool(frozen)


def _let_frozen_answer(
    settings: GlobalSpec, data: RunData, model: Any, resumed: Checkpoint | None
) -> dict[str, Answer]:
    """Run frozen networks with their engines; a resumed run keeps its engines."""
    done = 0 if resumed is None else resumed.progress.epoch - 1
    images = (settings.epochs - done) * (len(data.loader.dataset) // distributed.world_size())
    earlier = None
    if resumed is not None:
        earlier = {name: Choice(**choice) for name, choice in resumed.progress.engines.items()}
    return answer_frozen(model, data.shape, images, earlier)


def _choose_watched(
    config: Recipe, data: RunData, model: Any, outputs: Any, left_out: Sequence[str]
) -> Watched:
    """Choose the networks that evaluations measure.

    Args:
        config: the recipe.
        data: the open data.
        model: the networks.
        outputs: their outputs for two images.
        left_out: frozen networks that nobody may ask, by dotted name.
    """
    main = config.arch.main_name
    evaluates = data.eval_loader is not None
    classifying = classifiers(outputs, config.arch.main.class_count) if evaluates and main else []
    heads = {name.partition(".")[0] for name in left_out}
    teachers = [
        name for name in watched_teachers(model, main, classifying) if heads.isdisjoint(model.members(name))
    ]
    class_maps = class_maps_of(config.Loss, config.arch)
    students = watched_students(model, main, classifying)
    measures = measures_of_run(config, main, students, teachers, class_maps)
    criteria = measures.criteria(outputs) if evaluates else {}
    criterion = criteria.pop("", LOSS)
    if not evaluates:
        return Watched(teachers, measures, criterion, criteria, [], KnownLogits(0))
    images = data.eval_loader.dataset
    measures.check_labels(images)
    still = known_once(model, measures, outputs)
    collector = _build_collector(config, measures, outputs, class_maps)
    known = KnownLogits(len(images))
    return Watched(teachers, measures, criterion, criteria, still, known, collector, class_maps)


def _build_collector(
    config: Recipe, measures: Measures, outputs: Any, class_maps: Mapping[str, Sequence[int]]
) -> AnswerCollector | None:
    classes = config.arch.main.class_count
    names = collected_networks(measures.networks, outputs, classes) if config.Global.report else None
    return None if names is None else AnswerCollector(names, classes, class_maps)


def _build_evaluation(
    config: Recipe,
    data: RunData,
    model: Any,
    watched: Watched,
    ema: ModelEMA | None,
    casting: Mapping[str, Any],
    *,
    programs: bool,
) -> Evaluation | None:
    loader = data.eval_loader
    if loader is None:
        return None
    return Evaluation(
        loader,
        evaluator(
            model,
            loader,
            watched.measures,
            ema,
            print_every=config.Global.print_batch_step,
            casting=casting,
            known=watched.known,
            still=watched.still,
            programs=programs,
            collector=watched.collector,
        ),
        due=partial(_is_due, config.Global),
        plateau_metric=plateau_metric(config.schedules, watched.criterion),
        programs=programs,
    )


def _may_use_programs(resumed: Checkpoint | None) -> bool:
    """Tell whether networks that train may be evaluated as programs; earlier versions never did it."""
    return resumed is None or EVALUATIONS in resumed.progress.engines


def note_engines(run: Run) -> None:
    """Note in the state of a run, for those that resume it, which engines the first batch has chosen."""
    engines = {name: asdict(answer.choice) for name, answer in run.parts.answers.items()}
    if run.parts.evaluation is None or run.parts.evaluation.programs:
        engines[EVALUATIONS] = {"asked": "auto", "used": "auto"}
    run.progress.engines = engines


def _is_due(settings: GlobalSpec, epoch: int) -> bool:
    """Tell whether an evaluation follows an epoch."""
    in_turn = epoch % settings.eval_interval == 0 or epoch == settings.epochs
    return in_turn and epoch >= settings.start_eval_epoch


def _build_hooks(
    config: Recipe,
    folder: Path,
    data: RunData,
    watched: Watched,
    casting: Mapping[str, Any],
    *,
    resuming: bool,
) -> list[Hook]:
    """Return the hooks of ppcls itself, in the order in which they are called."""
    settings = config.Global
    log = LogHook(
        partial(_open_writer, folder, settings) if distributed.is_main() else None,
        schedule_names=[schedule.name for schedule in config.schedules],
        memory=settings.print_mem_info,
    )
    hooks: list[Hook] = [log] if config.EMA is None else [EMAHook(), log]
    if watched.teachers and settings.check_teacher and not resuming:
        check = TeacherCheck(
            watched.teachers,
            data.eval_loader,
            log,
            print_every=settings.print_batch_step,
            casting=casting,
            known=watched.known,
            class_maps=watched.class_maps,
        )
        hooks.append(check)
    stopping = config.EarlyStopping
    if stopping is not None:
        hooks.append(EarlyStopping(stopping.patience, stopping.min_delta, watched.criterion))
    saver = CheckpointHook(
        Checkpointer(folder),
        watched.criterion,
        config.arch.main_name,
        watched.others,
        save_interval=settings.save_interval,
        save_steps=settings.save_steps,
        keep_last=settings.keep_last,
    )
    report = ReportHook(config, data.shape, watched.criterion, watched.collector)
    return [*hooks, report, saver]


def _open_writer(folder: Path, settings: GlobalSpec, start: int) -> ScalarWriter:
    return ScalarWriter(
        folder,
        use_visualdl=settings.use_visualdl,
        use_tensorboard=settings.use_tensorboard,
        start=start,
    )

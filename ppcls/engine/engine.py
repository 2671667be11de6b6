"""The object behind every command: built from a config, it trains, evaluates, infers or exports."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ppcls import distributed
from ppcls.arch import build_model
from ppcls.config import ArchSpec, complete_config
from ppcls.data import (
    Batch,
    Loader,
    build_loader,
    build_postprocess,
    build_train_loader,
    datasets_of,
)
from ppcls.distributed import is_main, wait_for_main
from ppcls.engine import build
from ppcls.engine.amp import (
    cast_networks,
    casting_in_evaluation,
    in_float32,
    mixed_precision,
    scaler_state,
)
from ppcls.engine.checkpoint import Checkpoint, Checkpointer
from ppcls.engine.checkpoint.changes import read_run_config, report_changes, report_list_changes
from ppcls.engine.checkpoint.lock import RunLock
from ppcls.engine.checkpoint.resume import (
    compare_by,
    find_checkpoint,
    is_finished,
    restore,
)
from ppcls.engine.checkpoint.states import Progress
from ppcls.engine.deployment import deployed_transforms, export_sample
from ppcls.engine.evaluate import evaluate
from ppcls.engine.evaluators import (
    evaluator,
    measures_of_run,
    plateau_metric,
    trained_and_measures,
    watched_students,
    watched_teachers,
)
from ppcls.engine.export import ExportedFiles, export_network
from ppcls.engine.hooks.base import Hook, build_hooks, require_hook
from ppcls.engine.hooks.checkpoint import CheckpointHook, StudentFile
from ppcls.engine.hooks.early_stopping import EarlyStopping
from ppcls.engine.hooks.ema import EMAHook, ModelEMA
from ppcls.engine.hooks.logging import LogHook
from ppcls.engine.hooks.teachers import TeacherCheck
from ppcls.engine.infer import classify
from ppcls.engine.measures import classifiers
from ppcls.engine.run import Run
from ppcls.engine.run_class_names import (
    ClassNames,
    check_teachers,
    class_names,
    data_class_names,
    evaluation_names,
    names_file,
    names_to_record,
    recorded_names,
    weights_folder,
    with_names,
)
from ppcls.engine.run_folder import (
    check_images,
    check_run_folder,
    follow_earlier_run,
    goes_on_in_place,
    open_run_folder,
)
from ppcls.engine.sameness import require_same_lists, require_same_weights, start_alike
from ppcls.engine.speed import keep_old_convolutions, with_convolutions_as_set
from ppcls.engine.train import StopRequested, train
from ppcls.engine.trial import try_out
from ppcls.files import require_possible
from ppcls.logger import LOGGER, ScalarWriter, dropping_held_lines, open_log, require_scalar_packages
from ppcls.loss import build_loss
from ppcls.metric import LOSS, Criterion, build_metric
from ppcls.optimizer import build_optimizer
from ppcls.optimizer.state import structured_state
from ppcls.report.evaluation_tables import EvaluationTables
from ppcls.teacher import Answer, Choice, answer_frozen


@dataclass(frozen=True)
class RunData:
    """The data of a run, open.

    Attributes:
        loader: batches of training.
        eval_loader: batches of evaluation; None if the run does not evaluate.
        shape: [C, H, W] of an image of training.
        class_names: names to keep with the run, by class; None if they are not known.
        lists: fingerprint of each list, by its config path.
    """

    loader: Any
    eval_loader: Any
    shape: tuple[int, ...]
    class_names: list[str] | None
    lists: dict[str, dict[str, Any]]


class Engine:
    """One run of one mode.

    Args:
        config: what :func:`ppcls.config.load_config` returned. A part of a recipe is checked and completed.
        mode: ``train``, ``eval``, ``infer`` or ``export``.

    Raises:
        ConfigError: for mistakes in a part of a recipe.

    Attributes:
        folder: ``<Global.output_dir>/<Arch.name>``, where checkpoints and logs go.
    """

    def __init__(self, config: Mapping[str, Any], mode: str = "train") -> None:
        self.config = complete_config(config, mode)
        self.mode = mode
        self.globals = self.config.Global
        self.folder = Path(self.globals.output_dir) / self.arch.name
        require_possible(self.folder)
        build.select_device(self.globals.device)
        start_alike(self.config)
        self._seed_asked = seed = self.globals.seed
        drawn = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else int(seed)
        self._set_seed(distributed.gather(drawn)[0])
        self.main = self.arch.main_name
        self.class_num = self.arch.main.class_count
        self._model: Any = None

    @property
    def arch(self) -> ArchSpec:
        """The networks of the recipe as it is now."""
        return self.config.arch

    @property
    def model(self) -> Any:
        """The network, for scripts: in training the whole of ``Arch``, else the network to deploy.

        It is built with its weights when it is first asked for, and commands called afterwards use it as it
        is then. After :meth:`train` it is what was trained.
        """
        if self._model is None:
            needed = None if self.main is None or self.mode == "train" else {self.main}
            if self.mode != "train" and self.globals.pretrained_model:
                self._model = self._trained_model(needed)
            else:
                normalize = build.normalization(self.config, self.mode)
                model = build_model(self.arch, only=needed, normalize=normalize)
                self._model = with_convolutions_as_set(model, self.globals)
        return self._model

    # ------------------------------------------------------------------ commands

    def train(self, hooks: Sequence[Hook] = ()) -> dict[str, float]:
        """Train as the config says, or resume from ``Global.checkpoints``; one run at a time in a folder.

        Args:
            hooks: what happens around the loop besides; called after those of the recipe and before our own.

        Returns:
            metrics of the best evaluation and its ``epoch``; the training averages if nothing was evaluated.

        Raises:
            SystemExit: after Ctrl-C or SIGTERM, with ``latest`` saved; code 130 or 143.
        """
        build.start_logging(self.globals.logging_ranks, hold=True)
        require_scalar_packages(**self._scalar_packages())
        with dropping_held_lines(), RunLock(self.folder) as lock:
            resumed = find_checkpoint(self.globals.checkpoints, self.folder)
            if resumed is not None and is_finished(resumed, self.globals.epochs):
                LOGGER.info("%s: already finished, nothing to do", resumed.where)
                return {**resumed.progress.best, "epoch": float(resumed.progress.best_epoch or 0)}
            check_run_folder(self.folder, self.config, resumed)
            changed = resumed is not None and self._go_on_from(resumed)
            run, saver = self._build_run(resumed, hooks)
            try:
                require_same_weights(run.model)
                try_out(run)  # whatever fails has failed by now; from here on the folder changes
                run.progress.engines = {name: asdict(answer.choice) for name, answer in run.answers.items()}
                self._open_folder(run, resumed, lock, changed)
                train(run)
            except StopRequested as stop:
                saver.save(run, "latest")
                LOGGER.info(
                    "%s: saved %s; resume with -o Global.checkpoints=%s",
                    signal.Signals(stop.signum).name,
                    self.folder / "latest",
                    self.folder / "latest",
                )
                raise SystemExit(128 + stop.signum) from None
            finally:
                run.loader.close()
            return {**run.progress.best, "epoch": float(run.progress.best_epoch or 0)}

    def _go_on_from(self, resumed: Checkpoint) -> bool:
        """Take over from the run to resume what it decided; return whether its config was another one."""
        self._set_seed(resumed.progress.seed)  # a resumed run keeps the seed it was started with
        if self._seed_asked not in (None, self.seed):
            LOGGER.warning("Global.seed has no effect: the run keeps its seed, %d", self.seed)
        recorded = read_run_config(resumed.where.parent)
        if recorded is None:
            return False
        keep_old_convolutions(recorded, self.globals)
        if goes_on_in_place(self.folder, resumed):
            follow_earlier_run(self.config, recorded, self.folder)
        return report_changes(recorded, self.config, str(resumed.where))

    def _open_folder(self, run: Run, resumed: Checkpoint | None, lock: RunLock, changed: bool) -> None:
        """Make the folder of the run; rank 0 does it."""
        if is_main():
            open_run_folder(
                self.folder,
                self.config,
                resumed,
                lock,
                changed=changed,
                keep=self._rows_to_keep(run.progress),
                more=names_file(run.class_names),
            )
            open_log(self.folder / "train.log")
            distributed.announce_start()
        wait_for_main()

    def eval(self, report: str | None = None) -> dict[str, float]:
        """Evaluate the network to deploy, every other student and what else a metric names.

        Returns:
            averages by name; those of another student end in its name.

        Args:
            report: folder for tables of classes, confusions and mistakes (`ppcls.report.evaluation_tables`).
        """
        build.start_logging(self.globals.logging_ranks, hold=True)
        with dropping_held_lines():
            folder = weights_folder(self.config)
            known = data_class_names(self.config, folder)
            shown = class_names(self.config, self.class_num, known).names if report is not None else None
            writer = None if report is None else EvaluationTables(report, self.main, shown)
            loader = self._loader("Eval", evaluation_names(self.config, known, folder))
            with contextlib.closing(loader):
                return self._eval(loader, writer)

    def _eval(self, loader: Loader, writer: EvaluationTables | None) -> dict[str, float]:
        require_same_lists({"DataLoader.Eval.dataset": loader.dataset.fingerprint()})
        model, measures = trained_and_measures(
            self.config, self.main, self.class_num, loader, self._trained_model
        )
        require_same_weights(model)

        def observe(outputs: Any, batch: Batch) -> None:
            open_log(self.folder / "train.log")  # the first batch has passed
            if writer is not None:
                writer(outputs, batch)

        every = self.globals.print_batch_step
        found = evaluate(model, loader, measures.groups, epoch=0, print_every=every, observe=observe)
        if writer is not None:
            writer.write(loader.dataset)
        return found

    def infer(self) -> list[dict[str, Any]]:
        """Classify ``Infer.infer_imgs`` (an image, a folder or a list); logs and returns the results."""
        build.start_logging(self.globals.logging_ranks)
        infer = self.config.Infer
        postprocess = build_postprocess(with_names(infer, self._class_names().names))
        network = self._deployed_network()
        return classify(
            network, infer.infer_imgs or [], infer.transforms or [], postprocess, batch_size=infer.batch_size
        )

    def export(self) -> ExportedFiles:
        """Write the network to deploy to ``Global.save_inference_dir`` and check the files against it."""
        build.start_logging(self.globals.logging_ranks)
        transforms = deployed_transforms(self.config)
        return export_network(
            self._deployed_network(),
            Path(self.globals.save_inference_dir),
            tuple(self.globals.image_shape),
            formats=self.globals.export_format,
            onnx=self.globals.export_onnx,
            softmax=self.globals.infer_add_softmax,
            sample=export_sample(self.config, transforms),
            inference_yml=self._deployment_description(transforms),
        )

    # ------------------------------------------------------------------ parts

    def _set_seed(self, seed: int) -> None:
        """Seed everything; the config holds it, so that a run without one can be repeated from its config."""
        self.seed = self.globals.seed = seed
        paddle.seed(seed)

    def _trained_model(self, needed: set[str] | None) -> Any:
        if self._model is not None and (needed or set()) <= set(self._model.names):
            self._model.eval()
            return self._model
        normalize = build.normalization(self.config, self.mode)
        weights = self.globals.pretrained_model
        model = build.build_trained_model(self.arch, needed, weights, self.mode, normalize, self.main)
        return with_convolutions_as_set(model, self.globals)

    def _deployed_network(self) -> Any:
        """Return the network to deploy, alone, with weights, in eval mode."""
        if self.main is None:
            return self._trained_model(None)
        return self._trained_model({self.main}).infer_network(self.main)

    def _loader(self, mode: str, names: Sequence[str] | None = None) -> Any:
        node = self.config["DataLoader"][mode]
        return build_loader(node, mode, seed=self.seed, class_num=self.class_num, class_names=names)

    def _class_names(self) -> ClassNames:
        """Return the names that results are shown with; say so if there are none."""
        found = class_names(self.config, self.class_num)
        if found.names is None:
            LOGGER.info("no class names: %s", found.source)
        return found

    def _open_data(self, resumed: Checkpoint | None) -> RunData:
        """Open the data of a run and compare it with the run to resume and with the other processes."""
        kept = None if resumed is None else recorded_names(resumed.where.parent, self.config)
        loader = build_train_loader(
            self.config.DataLoader,
            seed=self.seed,
            class_num=self.class_num,
            class_names=None if kept is None else kept.names,
        )
        known = ClassNames(loader.dataset.class_names, loader.dataset.name)
        names = names_to_record(self.config, known, self.class_num)
        check_teachers(self.config, names)
        shape = build.first_sample_shape(loader)
        eval_loader = None
        if self.globals.eval_during_train:
            build.check_deployed_trains(self.arch)
            eval_loader = self._loader("Eval", evaluation_names(self.config, kept or known, None))
        datasets = datasets_of(loader, eval_loader)
        check_images(self.folder, datasets, resumed)
        lists = {where: dataset.fingerprint() for where, dataset in datasets.items()}
        require_same_lists(lists)
        if resumed is not None:
            report_list_changes(resumed.progress.lists, lists)
        recorded = {where: fingerprint.as_dict() for where, fingerprint in lists.items()}
        return RunData(loader, eval_loader, shape, names, recorded)

    def _build_run(
        self, resumed: Checkpoint | None, hooks: Sequence[Hook] = ()
    ) -> tuple[Run, CheckpointHook]:
        """Build everything a run needs; data first, because its mistakes are the cheapest to find."""
        own_hooks = build_hooks(self.config.Hooks)
        own_hooks += [require_hook(hook, f"hooks[{index}]") for index, hook in enumerate(hooks)]
        data = self._open_data(resumed)
        loader, eval_loader, shape = data.loader, data.eval_loader, data.shape
        evaluates = eval_loader is not None
        model = self.model
        loss = build_loss(self.config.Loss.Train or [], main=self.main)
        outputs = build.find_shapes(model, loss, shape)
        distributed.copy_from_main([*model.state_dict().values(), *loss.state_dict().values()])
        if self.globals.pretrained_model and resumed is None:
            build.load_start(model, loss, self.globals.pretrained_model, self.arch.name, self.main)
        build.synchronise([model, loss], self.globals.use_sync_bn)
        epochs, update_freq = self.globals.epochs, self.globals.update_freq
        steps = -(-len(loader) // update_freq)
        optimizer, schedule = build_optimizer(self.config.Optimizer, epochs, steps, [model, loss])
        scaler, amp = mixed_precision(self.config.AMP)
        model = cast_networks(model, optimizer, amp)
        if self.globals.to_static:
            build.make_static(model)
        classifying = classifiers(outputs, self.class_num) if evaluates and self.main is not None else []
        teachers = watched_teachers(model, self.main, classifying)
        students = watched_students(model, self.main, classifying)
        measures = measures_of_run(self.config, self.main, students, teachers)
        criteria = measures.criteria(outputs) if evaluates else {}
        criterion = criteria.pop("", LOSS)
        if eval_loader is not None:
            measures.check_labels(eval_loader.dataset)
        trainable = build.trainable_state(model)
        ema = ModelEMA(trainable, self.config.EMA.decay) if self.config.EMA else None
        run = Run(
            folder=self.folder,
            epochs=epochs,
            model=model,
            loss=loss,
            metric=build_metric(self.config.Metric.Train, self.main, "Metric.Train"),
            optimizer=optimizer,
            schedule=schedule,
            loader=loader,
            evaluate=None
            if eval_loader is None
            else evaluator(
                model,
                eval_loader,
                measures,
                ema,
                print_every=self.globals.print_batch_step,
                casting=self._eval_casting(amp),
            ),
            evaluation_due=self._evaluation_due,
            eval_loader=eval_loader,
            scaler=scaler,
            amp=amp,
            progress=Progress(seed=self.seed, lists=data.lists),
            hooks=[],
            plateau_metric=plateau_metric(self.config.schedules, criterion),
            trained=[p for p in (*model.parameters(), *loss.parameters()) if not p.stop_gradient],
            buffers=build.moving_buffers([*trainable.values(), *loss.state_dict().values()]),
            update_freq=update_freq,
            class_names=data.class_names,
        )
        saver = self._checkpoint_hook(run, ema, criterion, criteria)
        if resumed is not None:
            restore(run, resumed, ema)
        compare_by(run.progress, criterion, self.main or self.arch.name)
        run.hooks = own_hooks if ema is None else [*own_hooks, EMAHook(ema)]
        run.hooks += self._log_hooks(run.progress)
        if teachers and self.globals.check_teacher and resumed is None:
            run.hooks.append(self._teacher_check(teachers, eval_loader, run.hooks, amp))
        if self.config.EarlyStopping:
            run.hooks.append(EarlyStopping(**self.config.EarlyStopping, criterion=criterion))
        run.hooks.append(saver)
        build.announce(model, self.arch.name, self.seed)
        run.answers = self._answers(run, shape, resumed)
        return run, saver

    def _answers(self, run: Run, shape: tuple[int, ...], resumed: Checkpoint | None) -> dict[str, Answer]:
        """Let frozen networks answer through engines; a run that is resumed keeps those it has."""
        left = run.epochs - run.progress.epoch + 1
        images = left * (len(run.loader.dataset) // distributed.world_size())
        earlier = None
        if resumed is not None:
            earlier = {name: Choice(**choice) for name, choice in resumed.progress.engines.items()}
        return answer_frozen(run.model, shape, images, earlier)

    def _log_hooks(self, start: Progress) -> list[Hook]:
        def open_writer() -> ScalarWriter:
            return ScalarWriter(self.folder, **self._scalar_packages(), start=start.step)

        return [
            LogHook(
                self.globals.print_batch_step,
                open_writer if is_main() else None,
                schedule_names=[lr.name for lr in self.config.schedules],
                memory=self.globals.print_mem_info,
            )
        ]

    @staticmethod
    def _rows_to_keep(start: Progress) -> Callable[[dict[str, Any]], bool]:
        """Return what tells the rows from before the run stood at `start`: what came after comes again."""
        step, between = start.step, start.batch > 0

        def before_start(row: dict[str, Any]) -> bool:
            due_again = row["kind"] == "eval" and between
            here = row["step"] == step > 0 and not due_again
            return bool(row["step"] < step or here)

        return before_start

    def _scalar_packages(self) -> dict[str, bool]:
        return {name: self.globals[name] for name in ("use_visualdl", "use_tensorboard")}

    def _teacher_check(
        self, teachers: list[str], loader: Any, hooks: list[Hook], amp: dict[str, Any]
    ) -> TeacherCheck:
        log = next(hook for hook in hooks if isinstance(hook, LogHook))
        every = self.globals.print_batch_step
        return TeacherCheck(teachers, loader, log, print_every=every, casting=self._eval_casting(amp))

    def _eval_casting(self, amp: dict[str, Any]) -> dict[str, Any]:
        """Return the options of ``paddle.amp.auto_cast`` in evaluations."""
        return casting_in_evaluation(amp, self.config.AMP.use_fp16_test)

    def _checkpoint_hook(
        self, run: Run, ema: ModelEMA | None, criterion: Criterion, others: Mapping[str, Criterion]
    ) -> CheckpointHook:
        layers = {"network": run.model, "loss": run.loss}

        def collect() -> tuple[dict[str, Any], dict[str, Any]]:
            tensors = {f"loss.{name}": value for name, value in run.loss.state_dict().items()}
            tensors |= structured_state(run.optimizer, layers)
            tensors |= {f"scaler.{name}": value for name, value in scaler_state(run.scaler).items()}
            return in_float32(build.trainable_state(run.model)), tensors

        def student(name: str, compared_by: Criterion) -> StudentFile:
            return StudentFile(name, compared_by, lambda: in_float32(run.model.student_state_dict(name)))

        return CheckpointHook(
            Checkpointer(self.folder),
            collect,
            criterion,
            None if self.main is None else student(self.main, criterion),
            [student(name, compared_by) for name, compared_by in others.items()],
            save_interval=self.globals.save_interval,
            save_steps=self.globals.save_steps,
            keep_last=self.globals.keep_last,
            ema=ema,
        )

    def _evaluation_due(self, epoch: int) -> bool:
        start, interval = self.globals.start_eval_epoch, self.globals.eval_interval
        return epoch >= start and (epoch % interval == 0 or epoch == self.globals.epochs)

    def _deployment_description(self, transforms: list[dict[str, Any]]) -> dict[str, Any]:
        """Return what a deployed network must know: transforms, labels, shape, classes."""
        return {
            "Global": {
                "model_name": self.arch.main.name,
                "image_shape": list(self.globals.image_shape),
                "class_num": self.class_num,
            },
            "PreProcess": {"transform_ops": transforms},
            "PostProcess": with_names(self.config.Infer, self._class_names().names),
        }

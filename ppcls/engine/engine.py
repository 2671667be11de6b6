"""The object behind the commands: built from a config, it trains, evaluates, infers or exports."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ppcls import distributed
from ppcls.arch import build_model
from ppcls.arch.answering import Answering
from ppcls.config import ArchSpec, complete_config, plain
from ppcls.data import Batch, Loader, build_postprocess, image_tensor
from ppcls.deploy.batches import OnError, ResultOptions
from ppcls.deploy.images import expand_images
from ppcls.distributed import is_main, wait_for_main
from ppcls.engine import build
from ppcls.engine.checkpoint import Checkpoint, explained
from ppcls.engine.checkpoint.changes import read_run_config, report_changes
from ppcls.engine.checkpoint.lock import RunLock
from ppcls.engine.checkpoint.resume import (
    find_checkpoint,
    is_finished,
    is_kept,
)
from ppcls.engine.checkpoint.run_folder import (
    check_run_folder,
    finish_saves,
    follow_earlier_run,
    open_run_folder,
    resumes_in_place,
)
from ppcls.engine.deployment import deployed_transforms, export_sample
from ppcls.engine.evaluation.evaluate import evaluate
from ppcls.engine.evaluation.evaluators import (
    trained_and_measures,
)
from ppcls.engine.export import ExportedFiles, export_network
from ppcls.engine.hooks.base import Hook, build_hooks, call_hooks, require_hooks
from ppcls.engine.infer import classify
from ppcls.engine.run import Run
from ppcls.engine.run_class_names import (
    ClassNames,
    class_names,
    data_class_names,
    evaluation_names,
    names_file,
    weights_folder,
    with_names,
)
from ppcls.engine.speed import (
    announce_threads,
    keep_old_convolutions,
    use_processor,
    with_convolutions_as_set,
)
from ppcls.engine.start.build_run import build_run, note_engines
from ppcls.engine.start.lookahead import begin_lookahead
from ppcls.engine.start.run_data import RunData, open_data, open_evaluation
from ppcls.engine.start.sameness import require_same_lists, require_same_weights, start_alike
from ppcls.engine.start.teacher_store import OpenStore, open_store
from ppcls.engine.start.trial import try_out
from ppcls.engine.train import StopRequested, train
from ppcls.errors import DataError
from ppcls.files import require_possible
from ppcls.logger import LOGGER, SCALAR_FOLDERS, dropping_held_lines, open_log, require_scalar_packages
from ppcls.random_numbers import RandomState, random_state, set_random_state
from ppcls.report.evaluation_tables import EvaluationTables
from ppcls.run_states import Progress
from ppcls.teacher import remove_answers, running_frozen


class Engine:
    """One run of one mode.

    Args:
        config: the result of :func:`ppcls.config.load_config`. A part of a recipe is checked and completed.
        mode: ``train``, ``eval``, ``infer`` or ``export``.

    Raises:
        ConfigError: for mistakes in a part of a recipe.

    Attributes:
        folder: ``<Global.output_dir>/<Arch.name>``, or ``Global.run_name`` there: the folder of checkpoints
            and logs.
    """

    def __init__(self, config: Mapping[str, Any], mode: str = "train") -> None:
        self.config = complete_config(config, mode)
        self.mode = mode
        self.globals = self.config.Global
        self.folder = Path(self.globals.output_dir) / (self.globals.run_name or self.arch.name)
        require_possible(self.folder)
        build.require_float32()
        build.select_device(self.globals.device)
        use_processor(self.config, mode)
        start_alike(self.config)
        self._seed_asked = seed = self.globals.seed
        drawn = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else int(seed)
        self._set_seed(distributed.gather(drawn)[0])
        self._random: RandomState | None = random_state()  # None inside _own_random_numbers
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

        It is built with its weights when it is first used, and commands that are called later use it with its
        weights of that moment. After :meth:`train` it is the trained network.
        """
        if self._model is None:
            needed = None if self.main is None or self.mode == "train" else {self.main}
            with self._own_random_numbers():
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
            hooks: additional hooks; they are called after those of the recipe and before those of ppcls.

        Returns:
            metrics of the best evaluation and its ``epoch`` (0 without evaluations); those of averaged
            weights (`EMA`), if they are better.

        Raises:
            SystemExit: after Ctrl-C or SIGTERM, with ``latest`` saved; code 130 or 143.
        """
        build.start_logging(self.globals.logging_ranks, hold=True)
        require_scalar_packages(**{name: self.globals[name] for name in SCALAR_FOLDERS})
        with dropping_held_lines(), RunLock(self.folder) as lock, self._own_random_numbers():
            resumed = find_checkpoint(self.globals.checkpoints, self.folder)
            if resumed is not None and is_finished(
                resumed, self.globals.epochs, plain(self.config.EarlyStopping)
            ):
                if is_main() and resumes_in_place(self.folder, resumed):
                    finish_saves(self.folder)
                LOGGER.info("%s: already finished, nothing to do", resumed.where)
                return _result(resumed.progress)
            check_run_folder(self.folder, self.config, resumed)
            changed = resumed is not None and self._continue_from(resumed)
            announce_threads(self.config, resumed)
            # Hooks and data first, because their mistakes are the cheapest to find.
            hooks = [*build_hooks(self.config.Hooks), *require_hooks(hooks)]
            data = open_data(self.config, self.folder, resumed)
            store = open_store(self.config, data.loader)
            model = self.model if store is None else self._model_beside(store)
            run = build_run(self.config, self.folder, data, model, store, resumed=resumed, hooks=hooks)
            try:
                require_same_weights(run.parts.model)
                try_out(run)
                if store is not None:
                    store.outputs.check_room()
                # no other check follows; from here on the folder changes
                note_engines(run)
                begin_lookahead(run, self.config, resumed)
                self._open_folder(run.progress, data, resumed, lock, changed)
                if store is not None:
                    store.outputs.begin(
                        partial(explained, store.outputs.store.folder, "next part of the store")
                    )
                train(run)
            except StopRequested as stop:
                run.stop_signal = stop.signum
                call_hooks(run.hooks, "after_stop", run)
                raise SystemExit(128 + stop.signum) from None
            finally:
                data.loader.close()
                remove_answers(run.parts.model)
                if run.parts.lookahead is not None:
                    run.parts.lookahead.close()
            if run.stop_signal is not None:  # it came when nothing was left but the end of the run
                raise SystemExit(128 + run.stop_signal)
            return _result(run.progress)

    def build_run(self, hooks: Sequence[Hook] = ()) -> Run:
        """Build a run without starting it, for scripts with their own loop.

        ``run.parts.loader.close()`` ends it. Nothing is written.

        Args:
            hooks: see :meth:`train`.
        """
        with self._own_random_numbers():
            hooks = [*build_hooks(self.config.Hooks), *require_hooks(hooks)]
            data = open_data(self.config, self.folder, None)
            if self.config.TeacherStore is not None:
                LOGGER.warning(
                    "TeacherStore has no effect in a loop of your own: the networks themselves answer"
                )
            return build_run(self.config, self.folder, data, self.model, resumed=None, hooks=hooks)

    def _model_beside(self, store: OpenStore) -> Any:
        """Return the networks, those whose outputs are all stored without their weights."""
        if self._model is None and store.leaves_out and not store.needs_weights:
            kept = [child.title for child in self.arch.children if not child.frozen]
            normalize = build.normalization(self.config, self.mode)
            model = build_model(self.arch.without_weights(keep=kept), normalize=normalize)
            self._model = with_convolutions_as_set(model, self.globals)
        return self.model

    def _continue_from(self, resumed: Checkpoint) -> bool:
        """Take over decisions of the run to resume; return whether its config was different."""
        self._set_seed(resumed.progress.seed)  # a resumed run keeps its seed
        if self._seed_asked not in (None, self.seed):
            LOGGER.warning("Global.seed has no effect: the run keeps its seed, %d", self.seed)
        recorded = read_run_config(resumed.where.parent)
        if recorded is None:
            return False
        keep_old_convolutions(recorded, self.globals)
        if resumes_in_place(self.folder, resumed):
            follow_earlier_run(self.config, recorded, self.folder)
        return report_changes(recorded, self.config, str(resumed.where))

    def _open_folder(
        self, start: Progress, data: RunData, resumed: Checkpoint | None, lock: RunLock, changed: bool
    ) -> None:
        """Create the folder of the run, in rank 0."""
        if is_main():
            open_run_folder(
                self.folder,
                self.config,
                resumed,
                lock,
                changed=changed,
                keep=partial(is_kept, start=start),
                more=names_file(data.class_names),
                noted={"teacher_threads": str(start.teacher_threads)},
            )
            open_log(self.folder / "train.log")
        wait_for_main()
        distributed.announce_start()

    def eval(self, report: str | None = None) -> dict[str, float]:
        """Evaluate the network to deploy, every other student, and other networks that metrics name.

        Returns:
            averages by name; names of averages of another student end in its name.

        Args:
            report: folder for tables of classes, confusions and mistakes (`ppcls.report.evaluation_tables`).
        """
        build.start_logging(self.globals.logging_ranks, hold=True)
        with dropping_held_lines():
            folder = weights_folder(self.config)
            known = data_class_names(self.config, folder)
            shown = class_names(self.config, self.class_num, known).names if report is not None else None
            writer = None if report is None else EvaluationTables(report, self.main, shown)
            names = evaluation_names(self.config, known, folder)
            loader = open_evaluation(self.config, names)
            with contextlib.closing(loader):
                return self._eval(loader, writer)

    def _eval(self, loader: Loader, writer: EvaluationTables | None) -> dict[str, float]:
        require_same_lists({"DataLoader.Eval.dataset": loader.dataset.fingerprint()})
        model, measures = trained_and_measures(
            self.config, self.main, self.class_num, loader, self._trained_model
        )
        require_same_weights(model)

        def observe(outputs: Any, batch: Batch) -> None:
            open_log(self.folder / "train.log")  # the first batch has succeeded
            if writer is not None:
                writer(outputs, batch)

        images = len(loader.dataset) // distributed.world_size()
        with running_frozen(model, self.arch.name, self.answering(), images) as answer:
            found = evaluate(
                lambda batch: answer(image_tensor(batch)),
                loader,
                measures.groups,
                epoch=0,
                print_every=self.globals.print_batch_step,
                observe=observe,
            )
        if writer is not None:
            writer.write(loader.dataset)
        return found

    def infer(self) -> list[dict[str, Any]]:
        """Classify ``Infer.infer_imgs`` (an image, a folder or a list); logs and returns the results."""
        results: list[dict[str, Any]] = []
        for batch in self.infer_batches():
            LOGGER.info("%s", batch)
            results += batch
        return results

    def infer_postprocess(self, options: ResultOptions | None = None) -> Any:
        """Return the post-process of ``Infer`` with the names of the classes.

        Args:
            options: what is wanted instead of what the recipe says.
        """
        build.start_logging(self.globals.logging_ranks)
        described = with_names(self.config.Infer, self._class_names().names)
        return build_postprocess((options or ResultOptions()).applied_to(described))

    def infer_batches(
        self,
        images: Sequence[str] = (),
        *,
        postprocess: Any = None,
        on_error: OnError = "raise",
        all_probabilities: bool = False,
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield the results for images batch by batch, one dict for each image.

        Args:
            images: files, folders, patterns and ``.txt`` lists; empty for ``Infer.infer_imgs``.
            postprocess: from :meth:`infer_postprocess`, which is the default.
            on_error: ``raise`` an error for an image that cannot be read, or ``skip`` it: its result then has
                the reason under ``error``.
            all_probabilities: results have the probabilities of all classes.

        Raises:
            DataError: if nothing is found, or an image cannot be read.
        """
        postprocess = postprocess or self.infer_postprocess()
        infer = self.config.Infer
        found = expand_images(list(images) or infer.infer_imgs or [], skip_missing=on_error == "skip")
        if not found:
            raise DataError("no images: the list is empty")
        files = [name for name, _ in found]
        network = self._deployed_network()
        name = self.main or self.arch.name
        with running_frozen(network, name, self.answering(self.main), len(files)) as answer:
            yield from classify(
                answer,
                files,
                infer.transforms or [],
                postprocess,
                batch_size=infer.batch_size,
                on_error=on_error,
                all_probabilities=all_probabilities,
            )

    def export(self) -> ExportedFiles:
        """Write the network to deploy to ``Global.save_inference_dir`` and compare the files with it."""
        build.start_logging(self.globals.logging_ranks)
        transforms = deployed_transforms(self.config)
        return export_network(
            self._deployed_network(),
            Path(self.globals.save_inference_dir),
            tuple(self.globals.image_shape),
            formats=self.globals.export_format,
            onnx=self.globals.export_onnx,
            onnx_batch_size=self.globals.onnx_batch_size,
            softmax=self.globals.infer_add_softmax,
            sample=export_sample(self.config, transforms),
            inference_yml=self._deployment_description(transforms),
        )

    # ------------------------------------------------------------------ parts

    def _set_seed(self, seed: int) -> None:
        """Set all seeds; the config gets the seed, so that a run without one can be repeated."""
        self.seed = self.globals.seed = seed
        paddle.seed(seed)

    @contextlib.contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        """Continue with this engine's random numbers, whatever a script or another engine has drawn since.

        After an error before the networks are built, the next attempt begins with the same numbers again.
        """
        start, model = self._random, self._model
        if start is None:  # inside of such a block
            yield
            return
        set_random_state(start)
        self._random = None
        try:
            yield
        except Exception:
            if self._model is model:
                self._random = start
            raise
        finally:
            if self._random is None:
                self._random = random_state()

    def _trained_model(self, needed: set[str] | None) -> Any:
        needed = None if needed is None else self.arch.members(needed)
        if self._model is not None and (needed or set()) <= set(self._model.names):
            self._model.eval()
            return self._model
        normalize = build.normalization(self.config, self.mode)
        weights = self.globals.pretrained_model
        with self._own_random_numbers():
            model = build.build_trained_model(self.arch, needed, weights, self.mode, normalize, self.main)
            return with_convolutions_as_set(model, self.globals)

    def _deployed_network(self) -> Any:
        """Return only the network to deploy, with weights, in eval mode."""
        if self.main is None:
            return self._trained_model(None)
        return self._trained_model({self.main}).infer_network(self.main)

    def answering(self, name: str | None = None) -> Answering:
        """Return what ``Arch`` says about how a network that stands still is run.

        The precision in ``Arch`` is that of frozen networks; a student is evaluated as it was trained.

        Args:
            name: of the network; None for a model of one network, or for all.
        """
        node = self.arch.options
        precision = node.get("frozen_precision")
        if name is not None and not self.arch.find(name).frozen:
            precision = None
        return Answering(node.get("frozen_engine"), precision)

    def _class_names(self) -> ClassNames:
        """Return the names for results; log if there are none."""
        found = class_names(self.config, self.class_num)
        if found.names is None:
            LOGGER.info("no class names: %s", found.source)
        return found

    def _deployment_description(self, transforms: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the description of a deployed network: transforms, labels, shape, classes."""
        return {
            "Global": {
                "model_name": self.arch.main.name,
                "image_shape": list(self.globals.image_shape),
                "class_num": self.class_num,
            },
            "PreProcess": {"transform_ops": transforms},
            "PostProcess": with_names(self.config.Infer, self._class_names().names),
        }


def _result(progress: Progress) -> dict[str, float]:
    return {**progress.chosen, "epoch": float(progress.chosen_epoch or 0)}

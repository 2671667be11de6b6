"""The sections of a recipe: every key with its type, default, bounds and meaning. Docs come from here."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ppcls.config.arch import ArchSpec
from ppcls.config.nodes import Node
from ppcls.config.section import ComponentSpec, Section
from ppcls.config.yaml_text import dump_yaml
from ppcls.files import write_atomic


def key(
    default: Any,
    doc: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    length: int | None = None,
    form: tuple[str, str] | None = None,
) -> Any:
    """Declare a plain setting: its default, meaning, bounds (of each element, for a list) and form.

    A form is a pattern that text must match, and the words for it in messages.
    """
    meta = {"doc": doc, "minimum": minimum, "maximum": maximum, "length": length, "form": form}
    # A factory even for numbers, because a default would be an attribute of the class and hide the key.
    return field(default_factory=lambda: copy.copy(default), metadata=meta)


def section(cls: type, doc: str, *, optional: bool = False) -> Any:
    """Declare a sub-section; an `optional` one stays null when it is left out."""
    meta = {"doc": doc, "section": cls, "optional": optional}
    return field(default_factory=_nothing if optional else cls, metadata=meta)


def node(kind: str, doc: str, *, many: bool = False) -> Any:
    """Declare a named component of `kind` (see ``checks.components.KINDS``), or a list of them."""
    return field(default_factory=_nothing, metadata={"doc": doc, "kind": kind, "many": many})


def _nothing() -> None:
    return None


@dataclass(eq=False, repr=False)
class GlobalSpec(Section):
    """Settings of the run as a whole."""

    output_dir: str = key("./output/", "Folder that receives checkpoints, logs and metrics.")
    run_name: str | None = key(
        None,
        "Name of the run's folder in `output_dir`; null: the name of `Arch`, such as `DistillationModel`. "
        "Give several distillations of one `output_dir` different names.",
        form=(
            r"(?!\.)[^/\\\x00-\x1f]{1,200}",
            "the name of a folder, without / and \\, not beginning with a dot",
        ),
    )
    device: str = key(
        "auto",
        "Where to run; `auto` is the GPU if there is one, else the CPU; `gpu:1` is the second GPU.",
        form=(r"auto|cpu|(gpu|xpu|npu|mlu)(:\d+)?", "auto, cpu or gpu"),
    )
    epochs: int = key(100, "Epochs to train.", minimum=1)
    print_batch_step: int = key(10, "Steps between two log lines.", minimum=1)
    save_interval: int = key(
        1,
        "Epochs between two `epoch_N` checkpoints; -1, as PaddleClas has it, is the same as `keep_last: 0`.",
        minimum=1,
    )
    save_steps: int | None = key(None, "Steps between two saves of `latest` within an epoch.", minimum=1)
    keep_last: int | None = key(
        None,
        "`epoch_N` checkpoints to keep; null keeps all, 0 writes none: only `best_model` and `latest`.",
        minimum=0,
    )
    eval_during_train: bool = key(True, "Evaluate while training; needed to find `best_model`.")
    eval_interval: int = key(1, "Epochs between two evaluations.", minimum=1)
    start_eval_epoch: int = key(0, "First epoch that may be evaluated.", minimum=0)
    check_teacher: bool = key(
        True,
        "Before the first step, log the accuracy of frozen networks on `DataLoader.Eval` and warn of one "
        "that only guesses; costs one pass of each over that set, not repeated on resume.",
    )
    eval_agreement: bool = key(
        True,
        "In evaluations of a distillation, measure how often student and teacher agree, and their KL; costs "
        "one pass of each frozen network with the student's classes over `DataLoader.Eval` in a run.",
    )
    report: bool = key(
        True,
        "Keep the answers for the validation images in the best evaluation, and write `report.html` at the "
        "end of the run ([watching.md](watching.md)).",
    )
    use_visualdl: bool = key(False, "Write scalars for VisualDL (needs the extra `visualdl`).")
    use_tensorboard: bool = key(False, "Write scalars for TensorBoard (needs the extra `tensorboard`).")
    pretrained_model: str | None = key(
        None, "Weights to start from, or to evaluate, infer with or export; with or without `.pdparams`."
    )
    checkpoints: str | None = key(
        None,
        "Checkpoint to resume, e.g. `output/ResNet18/latest`; `auto`: the newest valid one of the output "
        "folder, the beginning if there is none (`ppcls train --resume auto`).",
    )
    image_size: int | None = key(
        None,
        "Side of square images: height and width of `image_shape`, said with one number. In the recipes of "
        "the package all chains of transforms follow, so that `-o Global.image_size=160` is enough.",
        minimum=1,
    )
    image_shape: list[int] = key(
        [3, 224, 224],
        "Channels, height, width of the images that an exported network takes: what the transforms of "
        "`Infer` (else of evaluation) give. If it differs from them, an export ends with an error. Other "
        "commands warn; they end with an error if you set it yourself and it fits neither. Transforms follow "
        "it with `${Global.image_shape[1]}`, as those of the package do.",
        minimum=1,
        length=3,
    )
    mean: list[float] | None = key(
        None,
        "Mean of each channel, for the transforms `NormalizeImage` of all chains, which take it with "
        "`mean: ${Global.mean}`; a warning names a chain with other numbers. null: each chain has its own.",
    )
    std: list[float] | None = key(
        None, "Standard deviation of each channel, in the same way: `std: ${Global.std}`."
    )
    save_inference_dir: str = key("./inference", "Folder that receives the exported network.")
    export_format: Literal["paddle", "legacy", "both"] = key(
        "both",
        "`paddle`: inference.json + .pdiparams; `legacy`: inference.pdmodel + .pdiparams + .pdiparams.info.",
    )
    export_onnx: bool = key(False, "Export `inference.onnx` too (needs the extra `onnx`).")
    onnx_batch_size: int | None = key(
        None,
        "Images in a batch of `inference.onnx`, for tools that need a fixed number; null leaves it open.",
        minimum=1,
    )
    infer_add_softmax: bool = key(
        True,
        "Let an exported network end with softmax. `Arch.infer_add_softmax`, as PaddleClas has it, is the "
        "same.",
    )
    infer_model_name: str | None = key(None, "The same as `Arch.infer_model_name`.")
    plugins: list[str] = key(
        [],
        "Python files, package folders and modules that register your own components, such as "
        "`./my_loss.py`; relative to the file that names them, otherwise to the working directory. See "
        "[plugins.md](plugins.md).",
    )
    seed: int | None = key(None, "Seed of everything random; null draws one and logs it.", minimum=0)
    update_freq: int = key(1, "Steps whose gradients are summed before an update.", minimum=1)
    use_sync_bn: bool = key(
        False,
        "BatchNorm of what trains takes the statistics of all processes (GPUs only). "
        "`Arch.use_sync_bn`, as PaddleClas has it, is the same.",
    )
    to_static: bool = key(False, "Train the network as a static graph.")
    fast_small_convs: bool = key(
        True,
        "Compute convolutions of maps of few pixels as one product over the batch, where that is faster on "
        "the CPU (docs/performance.md); false leaves them to Paddle's kernels. Results agree up to rounding.",
    )
    teacher_ahead: bool = key(
        True,
        "On the CPU, run frozen networks beside the training, one batch ahead, if a process has two or more "
        "cores, engines run them, and it saves time (docs/teachers.md); results are the same.",
    )
    log_ranks: str | int | list[int] = key([0], "Processes that log: a list, or numbers with commas: `0,1`.")
    print_mem_info: bool = key(False, "Log the memory used on the GPU.")
    train_mode: Literal["classification"] | None = key("classification", "Only `classification`.")
    eval_mode: Literal["classification"] | None = key("classification", "Only `classification`.")
    task: Literal["classification"] | None = key("classification", "Only `classification`.")
    use_dali: bool | None = key(
        False, "Accepted for old recipes: DALI is not used, the transforms are the same."
    )
    use_multilabel: Literal[False] | None = key(False, "One label for an image; only false.")

    @property
    def logging_ranks(self) -> list[int]:
        """The processes that log."""
        given = self.log_ranks if isinstance(self.log_ranks, list) else str(self.log_ranks).split(",")
        return [int(rank) for rank in given]


@dataclass(eq=False, repr=False)
class AMPSpec(Section):
    """Automatic mixed precision. The section's presence switches it on unless `use_amp` is false."""

    use_amp: bool = key(False, "Train in mixed precision; true if the section is there without this key.")
    level: Literal["O1", "O2"] = key("O1", "O1 casts listed operators, O2 the whole network.")
    dtype: Literal["float16", "bfloat16"] = key("float16", "The lower precision.")
    scale_loss: float = key(128.0, "First loss scale.", minimum=1)
    use_dynamic_loss_scaling: bool = key(True, "Adapt the loss scale to overflows.")
    use_promote: bool = key(False, "Let an operator run in the widest type of its inputs.")
    use_fp16_test: bool = key(False, "Evaluate in the lower precision as well.")


@dataclass(eq=False, repr=False)
class EMASpec(Section):
    """Exponential moving average of the weights; on as soon as the section is there."""

    decay: float = key(0.9999, "Share of the old average kept at each step.", minimum=0, maximum=1)


@dataclass(eq=False, repr=False)
class EarlyStoppingSpec(Section):
    """End the run when evaluations no longer get better, by the score that chooses `best_model`."""

    patience: int = key(10, "Evaluations in a row without improvement that end the run.", minimum=1)
    min_delta: float = key(0.0, "By how much the score must pass that of the last improvement.", minimum=0)


@dataclass(eq=False, repr=False)
class TeacherStoreSpec(Section):
    """Outputs of frozen networks, kept on disk: [teacher_store.md](teacher_store.md)."""

    path: str | None = key(None, "Folder of the store; required.")
    views: int | None = key(
        None,
        "Epochs whose images and outputs are stored; later epochs use them again in turn. null: all of "
        "`Global.epochs`, or as many as the store has.",
        minimum=1,
    )
    logits: Literal["all", "topk", "sample"] = key(
        "all",
        "Which logits are stored: those of all classes; those of the `k` most probable ones; or `k` classes "
        "drawn from the teacher's probabilities. Which losses the latter two serve is checked.",
    )
    k: int | None = key(None, "Number of classes for `topk` and `sample`.", minimum=1)
    precision: Literal["float16", "bfloat16", "float32"] = key("float16", "Precision of stored logits.")
    features: Literal["float16", "bfloat16", "float32"] = key("float16", "Precision of stored features.")
    fill: Literal["auto", "never"] = key(
        "auto",
        "`auto`: what is missing is computed by the networks and stored while the run trains; `never`: the "
        "store must be complete (`ppcls teacher store` fills it).",
    )


@dataclass(eq=False, repr=False)
class LossSpec(Section):
    """Losses; each counts with its `weight`, the total is their sum."""

    Train: list[Node] | None = node("loss", "Losses of training.", many=True)
    Eval: list[Node] | None = node("loss", "Losses reported by evaluation.", many=True)


@dataclass(eq=False, repr=False)
class MetricSpec(Section):
    """Metrics besides the loss; the first of `Eval` for the network to deploy chooses `best_model`."""

    Train: list[Node] | None = node("metric", "Metrics of training.", many=True)
    Eval: list[Node] | None = node("metric", "Metrics of evaluation.", many=True)


@dataclass(eq=False, repr=False)
class LoaderSpec(Section):
    """How batches are made."""

    num_workers: int = key(4, "Threads that load images; 0 loads in the main thread.", minimum=0)
    use_shared_memory: bool = key(True, "Accepted for old recipes: threads share memory anyway.")
    use_processes: bool = key(
        False,
        "Load in `num_workers` processes instead of threads: for plugins whose transforms are pure Python; "
        "slower otherwise. The batches are the same.",
    )
    timeout: float = key(
        600,
        "If no thread finishes a sample within this many seconds, the run ends and names the samples that "
        "were being read; 0 waits for ever. Not watched with `num_workers: 0`.",
        minimum=0,
    )


@dataclass(eq=False, repr=False)
class DataSpec(Section):
    """One stream of batches."""

    dataset: Node | None = node("dataset", "Where images and labels come from.")
    sampler: Node | None = node("sampler", "Order, batch size and split over processes.")
    loader: LoaderSpec = section(LoaderSpec, "How batches are made.")

    @property
    def labelled(self) -> bool:
        """Whether the images have labels: not with ``labelled: False`` in the dataset."""
        return not (isinstance(self.dataset, dict) and self.dataset.get("labelled") is False)


@dataclass(eq=False, repr=False)
class DataLoaderSpec(Section):
    """Data of training and evaluation."""

    Train: DataSpec | None = section(DataSpec, "Data of training.", optional=True)
    Eval: DataSpec | None = section(DataSpec, "Data of evaluation.", optional=True)
    UnLabelTrain: DataSpec | None = section(
        DataSpec,
        "Images without labels, `sampler.batch_size` of them in every batch besides those of `Train`; losses "
        "that need no labels see them. No loss sees the labels of its list.",
        optional=True,
    )

    @property
    def parts(self) -> dict[str, DataSpec]:
        """The parts that there are, by name."""
        return {name: part for name, part in self.items() if part is not None}


@dataclass(eq=False, repr=False)
class InferSpec(Section):
    """Prediction for images, and what an exported network carries in `inference.yml`."""

    infer_imgs: str | list[str] | None = key(None, "An image, a folder, a list file, or a list of images.")
    batch_size: int = key(1, "Images predicted at once.", minimum=1)
    transforms: list[Node] | None = node(
        "transform", "From the image file to the network's input; null: as in `DataLoader.Eval`.", many=True
    )
    PostProcess: Node | None = node("postprocess", "From probabilities to the printed result.")


@dataclass(eq=False, repr=False)
class Recipe(Section):
    """A recipe: the sections of a YAML file, read by attribute (``recipe.Global.epochs``) or by key.

    One can be made in Python too, by :meth:`from_dict` or section by section. It is checked where it is used,
    unless it comes from :func:`ppcls.config.load_config`, which has checked it, and was not changed since.
    """

    Global: GlobalSpec = section(GlobalSpec, "Settings of the run as a whole.")
    AMP: AMPSpec = section(AMPSpec, "Automatic mixed precision.")
    EMA: EMASpec | None = section(EMASpec, "Exponential moving average of the weights.", optional=True)
    EarlyStopping: EarlyStoppingSpec | None = section(
        EarlyStoppingSpec, "End a run that no longer gets better.", optional=True
    )
    Arch: Node | None = node("network", "The network, or `DistillationModel` with several.")
    Loss: LossSpec = section(LossSpec, "Losses.")
    Optimizer: Node | list[Node] | None = node(
        "optimizer", "One optimizer, or a list of them with a `scope` each; `lr` is a learning-rate schedule."
    )
    DataLoader: DataLoaderSpec = section(DataLoaderSpec, "Data.")
    Metric: MetricSpec = section(MetricSpec, "Metrics.")
    Hooks: list[Node] | None = node(
        "hook", "What happens around the training loop besides what ppcls does itself.", many=True
    )
    Infer: InferSpec = section(InferSpec, "Prediction for images.")
    TeacherStore: TeacherStoreSpec | None = section(
        TeacherStoreSpec, "Outputs of frozen networks, kept on disk.", optional=True
    )

    @property
    def arch(self) -> ArchSpec:
        """The networks, as ``Arch`` and ``Global.infer_model_name`` describe them now.

        Raises:
            ConfigError: if ``Arch`` describes no network.
        """
        return ArchSpec.read(self.Arch, self.Global.infer_model_name)

    @property
    def schedules(self) -> list[ComponentSpec]:
        """The learning-rate schedule of each optimizer."""
        if isinstance(self.Optimizer, list):
            entries = {f"Optimizer.{index}.lr": node["lr"] for index, node in enumerate(self.Optimizer)}
        else:
            entries = {} if self.Optimizer is None else {"Optimizer.lr": self.Optimizer["lr"]}
        return [ComponentSpec.read({"name": "ConstLR", **node}, path) for path, node in entries.items()]

    def to_yaml(self) -> str:
        """Return the recipe as YAML, from which :func:`ppcls.config.load_config` reads the same recipe."""
        return dump_yaml(self.to_dict())

    def save(self, path: str | Path) -> None:
        """Write the recipe as a YAML file."""
        content = self.to_yaml().encode()
        write_atomic(path, lambda stream: stream.write(content))

    def is_checked(self, mode: str) -> bool:
        """Tell whether it was checked as a whole for this mode, and has not been changed since."""
        return vars(self).get("_checked") == self._content(mode)

    def mark_checked(self, mode: str) -> Recipe:
        """Note that it was checked as a whole for this mode, and return it."""
        vars(self)["_checked"] = self._content(mode)
        return self

    def _content(self, mode: str) -> str:
        # As text, because values such as 1 and True are equal, and arrays cannot be compared by `==`.
        return f"{mode}: {self.to_dict()}"


# Sections that must be there, by what is about to be done.
REQUIRED: dict[str, tuple[str, ...]] = {
    "train": ("Arch", "Loss.Train", "Optimizer", "DataLoader.Train"),
    "eval": ("Arch", "DataLoader.Eval", "Metric.Eval"),
    "infer": ("Arch", "Infer.infer_imgs", "Infer.PostProcess"),
    "export": ("Arch",),
}
# Training asks for these too while Global.eval_during_train is true.
REQUIRED_WITH_EVAL = ("DataLoader.Eval", "Metric.Eval")

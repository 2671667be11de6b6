"""Broken recipes: each mistake is found, at its place, with the right name, and no other one is reported."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppcls.config import load_config
from ppcls.errors import ConfigError

TEACHER, STUDENT = "Arch.models.0.Teacher", "Arch.models.1.Student"
KL = "Loss.Train.1.DistillationKLDivLoss"
PAIR = "Loss.Train.2.DistillationPairLoss"
TRAIN = "DataLoader.Train"
OPS = f"{TRAIN}.dataset.transform_ops"


def _listed(scope: str, **options: Any) -> list[dict[str, Any]]:
    """A list of optimizers."""
    lr = {"learning_rate": 0.1}
    return [{"SGD": {"lr": lr}}, {"Adam": {"scope": scope, "lr": lr, **options}}]


# edits of the recipe, path of the one mistake, words of its message
MISSPELT: list[tuple[list[tuple[Any, ...]], str, str]] = [
    ([("rename", "Global", "Globl")], "Globl", "Did you mean: Global?"),
    ([("rename", "Metric", "metric")], "metric", "Did you mean: Metric?"),
    ([("rename", "Global.epochs", "epoch")], "Global.epoch", "Did you mean: epochs?"),
    ([("rename", "Global.output_dir", "out_dir")], "Global.out_dir", "output_dir"),
    ([("set", "AMP", {"use_amp": False, "lvel": "O1"})], "AMP.lvel", "Did you mean: level?"),
    (
        [
            ("set", "Global.mean", [0.5] * 3),
            ("set", "Global.std", [0.2] * 3),
            ("set", f"{OPS}.2", {"NormalizeImage": 3}),
        ],
        f"{OPS}.2",
        "NormalizeImage",
    ),
    ([("rename", "Loss.Eval", "Evl")], "Loss.Evl", "Did you mean: Eval?"),
    ([("rename", f"{TRAIN}.loader", "loadr")], f"{TRAIN}.loadr", "Did you mean: loader?"),
    (
        [("rename", f"{TRAIN}.loader.num_workers", "num_worker")],
        f"{TRAIN}.loader.num_worker",
        "Did you mean: num_workers?",
    ),
    (
        [("rename", f"{TRAIN}.sampler.batch_size", "batchsize")],
        f"{TRAIN}.sampler",
        "Did you mean: batch_size?",
    ),
    (
        [
            ("set", "Global.eval_during_train", False),
            ("set", "Optimizer.lr", {"name": "ReduceOnPlateau", "learning_rate": 0.1}),
        ],
        "Optimizer.lr",
        "the rate would never change",
    ),
    (
        [("rename", f"{TRAIN}.dataset.cls_label_path", "cls_lable_path")],
        f"{TRAIN}.dataset",
        "Did you mean: cls_label_path?",
    ),
    ([("rename", "Infer.infer_imgs", "infer_img")], "Infer.infer_img", "Did you mean: infer_imgs"),
    ([("rename", "Infer.PostProcess.topk", "top_k")], "Infer.PostProcess", "Did you mean: topk"),
    (
        [("rename", "Arch.freeze_params_list", "freeze_param_list")],
        "Arch",
        "Did you mean: freeze_params_list?",
    ),
    ([("rename", f"{STUDENT}.class_num", "class_nums")], STUDENT, "Did you mean: class_num?"),
    ([("rename", f"{STUDENT}.return_patterns", "return_pattern")], STUDENT, "Did you mean: return_patterns"),
    ([("rename", f"{KL}.temperature", "temprature")], "Loss.Train.1", "Did you mean: temperature?"),
    ([("rename", f"{KL}.model_name_pairs", "model_pairs")], "Loss.Train.1", "model_name_pairs"),
    ([("rename", f"{PAIR}.student_channels", "student_chanels")], "Loss.Train.2", "student_channels"),
    ([("set", "Optimizer.clip_gradd", 1.0)], "Optimizer", "clip_value"),
    ([("set", "Optimizer", _listed("Studnet.fc"))], "Optimizer.1.scope", "Did you mean: Student.fc"),
    ([("set", "Optimizer", _listed("DistillationPairLos"))], "Optimizer.1.scope", "DistillationPairLoss"),
    ([("set", "Optimizer", _listed("Student", scop="fc"))], "Optimizer.1", "Did you mean: scope"),
    ([("set", "Optimizer", _listed("Student", beta1=2))], "Optimizer.1", "expected 0 to 1"),
    ([("rename", "Optimizer.lr.warmup_epoch", "warm_up_epoch")], "Optimizer.lr", "warmup_epoch"),
    ([("rename", "Optimizer.regularizer.coeff", "coef")], "Optimizer", "coeff"),
    ([("rename", f"{OPS}.1.RandCropImage.size", "sizes")], f"{OPS}.1", "Did you mean: size?"),
    (
        [("rename", "Metric.Eval.0.DistillationTopkAcc.topk", "topks")],
        "Metric.Eval.0",
        "Did you mean: topk?",
    ),
]

UNKNOWN_NAMES: list[tuple[list[tuple[Any, ...]], str, str]] = [
    ([("set", f"{STUDENT}.name", "ResNet81")], f"{STUDENT}.name", "ResNet18"),
    ([("set", "Arch.name", "DistilationModel")], "Arch.name", "Did you mean: DistillationModel"),
    (
        [("rename", "Loss.Train.1.DistillationKLDivLoss", "DistillationKLDivLos")],
        "Loss.Train.1",
        "DistillationKLDivLoss",
    ),
    ([("set", f"{PAIR}.base_loss_name", "MGLoss")], "Loss.Train.2", "MGDLoss"),
    ([("set", "Optimizer.name", "Momentm")], "Optimizer.name", "Did you mean: Momentum?"),
    ([("set", "Optimizer.lr.name", "Cosin")], "Optimizer.lr.name", "Did you mean: Cosine?"),
    ([("set", "Optimizer.regularizer.name", "L3")], "Optimizer", "L1 or L2"),
    ([("set", f"{TRAIN}.dataset.name", "ImagenetDataset")], f"{TRAIN}.dataset.name", "ImageNetDataset"),
    ([("set", f"{TRAIN}.sampler.name", "BatchSamplers")], f"{TRAIN}.sampler.name", "DistributedBatchSampler"),
    ([("rename", f"{OPS}.2.RandFlipImage", "RandFlip")], f"{OPS}.2", "Did you mean: RandFlipImage"),
    ([("rename", "Infer.transforms.4.ToCHWImage", "ToCHW")], "Infer.transforms.4", "ToCHWImage"),
    ([("set", "Infer.PostProcess.name", "TopK5")], "Infer.PostProcess.name", "Did you mean: Topk?"),
    (
        [("rename", "Metric.Eval.0.DistillationTopkAcc", "TopKAccuracy")],
        "Metric.Eval.0",
        "TopkAcc",
    ),
]

WRONG_VALUES: list[tuple[list[tuple[Any, ...]], str, str]] = [
    ([("set", "Global.epochs", "ten")], "Global.epochs", "expected a whole number, got 'ten'"),
    ([("set", "Global.epochs", True)], "Global.epochs", "expected a whole number, got True"),
    ([("set", "Global.epochs", 0)], "Global.epochs", "expected 1 or more, got 0"),
    ([("set", "Global.print_batch_step", 0)], "Global.print_batch_step", "1 or more"),
    ([("set", "Global.use_visualdl", "yes please")], "Global.use_visualdl", "true or false"),
    ([("set", "Global.image_shape", [224, 224])], "Global.image_shape", "3 numbers, got 2"),
    ([("set", "Global.image_shape", [3, 224, "x"])], "Global.image_shape.2", "whole number"),
    ([("set", "Global.device", "gpus")], "Global.device", "auto, cpu or gpu"),
    ([("set", "Global.export_format", "onx")], "Global.export_format", "legacy"),
    ([("set", "Global.log_ranks", "zero")], "Global.log_ranks", "0,1"),
    ([("set", "Global", 3)], "Global", "expected a section"),
    ([("set", "AMP", {"use_amp": "false"})], "AMP.use_amp", "expected true or false, got 'false'"),
    ([("set", "AMP", {"dtype": "float61"})], "AMP.dtype", "Did you mean: float16"),
    ([("set", f"{TRAIN}.sampler.batch_size", 0)], f"{TRAIN}.sampler", "at least 1"),
    ([("set", f"{TRAIN}.sampler.batch_size", "64x")], f"{TRAIN}.sampler.batch_size", "whole number"),
    ([("set", f"{TRAIN}.loader.num_workers", -1)], f"{TRAIN}.loader.num_workers", "0 or more"),
    ([("set", f"{STUDENT}.class_num", "1000x")], f"{STUDENT}.class_num", "whole number"),
    ([("set", f"{KL}.temperature", "hot")], f"{KL}.temperature", "expected a number or a map, got 'hot'"),
    ([("set", f"{KL}.weight", "much")], f"{KL}.weight", "number"),
    ([("set", f"{KL}.weight", {"name": "Warmup"})], f"{KL}.weight.name", "Did you mean: LinearWarmup?"),
    (
        [("set", f"{KL}.weight", {"name": "LinearWarmup", "value": 1.0, "epoch": 3})],
        f"{KL}.weight",
        "Did you mean: epochs?",
    ),
    ([("set", f"{KL}.temperature", 0)], f"{KL}.temperature", "above 0"),
    ([("set", f"{KL}.model_name_pairs", [["Student"]])], f"{KL}.model_name_pairs.0", "two names"),
    ([("set", "Optimizer.momentum", 1.5)], "Optimizer", "momentum"),
    ([("set", "Optimizer.lr", None)], "Optimizer.lr", "map"),
    ([("set", "Optimizer.weight_decay", 0.1)], "Optimizer", "not both"),
    ([("set", "Optimizer", [0.1])], "Optimizer.0", "expected a name with options, got 0.1"),
    (
        [
            (
                "set",
                "Optimizer.lr",
                {"name": "Piecewise", "learning_rate": 0.1, "decay_epochs": [1], "values": [1, 2]},
            )
        ],
        "Optimizer.lr",
        "learning_rate",
    ),
    ([("drop", "Optimizer.lr.learning_rate")], "Optimizer.lr", "needs the option 'learning_rate'"),
    ([("drop", f"{KL}.model_name_pairs")], "Loss.Train.1", "needs the option 'model_name_pairs'"),
    (
        [("set", "Loss.Train", {"CELoss": None})],
        "Loss.Train",
        "expected a list",
    ),
    ([("set", "Loss.Train.0", "CELoss")], "Loss.Train.0", "Write 'CELoss:'"),
    (
        [("set", "Loss.Train.0", {"DistillationGTCELoss": None, "weight": 1.0})],
        "Loss.Train.0",
        "Indent the options of 'DistillationGTCELoss'",
    ),
    ([("set", f"{OPS}.1.RandCropImage", 224)], f"{OPS}.1", "must be a map"),
    ([("set", "Arch.models.1", {"name": "resnet8"})], "Arch.models.1", "a name of its own"),
    ([("set", "Arch.models", {"Student": {"name": "resnet8"}})], "Arch.models", "expected a list"),
]

NOT_FITTING: list[tuple[list[tuple[Any, ...]], str, str]] = [
    ([("set", "Arch.freeze_params_list", [True])], "Arch.freeze_params_list", "1 entries for 2 networks"),
    ([("set", "Arch.pretrained_list", [None])], "Arch.pretrained_list", "1 entries for 2 networks"),
    (
        [("set", "Arch.pretrained_list", ["a", None]), ("set", f"{TEACHER}.pretrained", "b")],
        f"{TEACHER}.pretrained",
        "Arch.pretrained_list.0 is 'a'",
    ),
    ([("set", "Arch.infer_model_name", "Stduent")], "Arch.infer_model_name", "Did you mean: Student"),
    ([("set", f"{TEACHER}.return_patterns.0", "blocks[99]")], f"{TEACHER}.return_patterns.0", "blocks[5]"),
    ([("set", f"{STUDENT}.return_stages", [9])], f"{STUDENT}.return_stages", "9"),
    ([("set", f"{STUDENT}.stop_after", "block[3]")], f"{STUDENT}.stop_after", "blocks"),
    ([("set", f"{STUDENT}.freeze_befor", "blocks[77]")], f"{STUDENT}.freeze_befor", "blocks[2]"),
    ([("set", "Arch.frozen_mode", {"Teachr": "train"})], "Arch", "Teacher"),
    (
        [
            ("set", "Arch.models.0", {"my teacher": {"name": "resnet14"}}),
            ("set", "Loss.Train", [{"CELoss": None}]),
        ],
        "Arch.models.0",
        "my teacher",
    ),
    ([("set", f"{STUDENT}.class_num", 10)], f"{STUDENT}.class_num", "Arch.class_num is 1000"),
    (
        [("set", f"{TEACHER}.class_num", 10)],
        f"{KL}.model_name_pairs.0",
        "Student has 1000 classes and Teacher 10",
    ),
    (
        [("set", f"{KL}.model_name_pairs.0.1", "Techer")],
        f"{KL}.model_name_pairs.0.1",
        "Did you mean: Teacher",
    ),
    (
        [("set", "Loss.Train.0.DistillationGTCELoss.model_names.0", "student")],
        "Loss.Train.0.DistillationGTCELoss.model_names.0",
        "Did you mean: Student",
    ),
    (
        [("set", "Metric.Train.0.DistillationTopkAcc.model_key", "Studnt")],
        "Metric.Train.0.DistillationTopkAcc.model_key",
        "Did you mean: Student",
    ),
    ([("set", f"{PAIR}.s_key", "blocks[4]")], f"{PAIR}.s_key", "Did you mean: blocks[2]"),
    ([("set", f"{PAIR}.t_key", "blocks[3]")], f"{PAIR}.t_key", "resnet14"),
    ([("set", f"{KL}.key", "logit")], f"{KL}.key", "Did you mean: logits"),
    (
        [("set", f"{KL}.model_name_pairs", [["Student", "Student"]])],
        f"{KL}.model_name_pairs.0",
        "with itself",
    ),
    (
        [("set", "Loss.Train.0.DistillationGTCELoss.model_names", ["Teacher"])],
        "Loss.Train.0.DistillationGTCELoss",
        "trains nothing: Teacher is frozen",
    ),
    (
        [("set", "Arch.freeze_params_list", [True, True]), ("set", "Loss.Train", [{"CELoss": None}])],
        "Loss.Train.0.CELoss",
        "trains nothing: Student is frozen",
    ),
    (
        [("set", "Arch.freeze_params_list", [False, False]), ("set", "Loss.Train", [{"CELoss": None}])],
        TEACHER,
        "no loss of Loss.Train looks at it",
    ),
    (
        [("set", "Arch.freeze_params_list", None)],
        TEACHER,
        "only compare others with it, so it would not train; add a loss or freeze it",
    ),
    (
        [("set", "Loss.Train", [{"DistillationGTCELoss": {"model_names": ["Student"], "weight": 0}}])],
        "Loss.Train",
        "every weight is 0",
    ),
    ([("set", f"{TRAIN}.sampler", None)], f"{TRAIN}.sampler", "missing"),
    (
        [("set", f"{TRAIN}.dataset.class_num", 1001)],
        f"{TRAIN}.dataset.class_num",
        "1001, but resnet8 (Arch.models.1.Student) has 1000 classes; leave it out",
    ),
    ([("set", "DataLoader.Eval.sampler.drop_last", True)], "DataLoader.Eval.sampler.drop_last", "False"),
    (
        [("set", "DataLoader.Eval.sampler", {"name": "RASampler", "batch_size": 4})],
        "DataLoader.Eval.sampler",
        "once",
    ),
    (
        [("set", "Arch.models.0", {"Student": {"name": "resnet14"}})],
        "Arch.models",
        "2 networks are named 'Student'",
    ),
]

MISSING_OR_LATER: list[tuple[list[tuple[Any, ...]], str, str]] = [
    ([("drop", "Arch")], "Arch", "missing; train needs it"),
    ([("drop", "Optimizer")], "Optimizer", "missing"),
    ([("set", "Loss.Train", [])], "Loss.Train", "missing"),
    ([("drop", "DataLoader.Train")], "DataLoader.Train", "missing"),
    ([("drop", "DataLoader.Eval")], "DataLoader.Eval", "while Global.eval_during_train is true"),
    ([("set", "EMA", {"decay": 1.5})], "EMA.decay", "1"),
    ([("set", "Global.update_freq", 0)], "Global.update_freq", "1"),
    ([("set", "Global.to_static", "yes please")], "Global.to_static", "expected true or false"),
    (
        [("set", "DataLoader.UnLabelTrain", {"sampler": {"name": "BatchSampler", "batch_size": 2}})],
        "DataLoader.UnLabelTrain.dataset",
        "missing",
    ),
]


@pytest.mark.parametrize(
    ("edits", "path", "words"),
    [*MISSPELT, *UNKNOWN_NAMES, *WRONG_VALUES, *NOT_FITTING, *MISSING_OR_LATER],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_mistake(
    write_recipe: Callable[..., Path], edits: list[tuple[Any, ...]], path: str, words: str
) -> None:
    file = write_recipe(*edits)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    head, *lines = str(caught.value).splitlines()
    assert head == f"1 mistake in {file}", caught.value
    assert lines[0].startswith(f"  {path}: "), caught.value
    assert words in lines[0]


@pytest.mark.parametrize(
    "edit", [("set", "Arch.freeze_params_list", None), ("set", f"{TRAIN}.dataset.class_num", 1001)]
)
def test_a_run_of_earlier_versions_can_still_be_used(write_recipe: Callable[..., Path], edit: Any) -> None:
    file = write_recipe(edit)
    for mode in ("eval", "export"):
        load_config(file, mode=mode)
    with pytest.raises(ConfigError, match="1 mistake"):
        load_config(file, mode="train")


def test_the_recipe_itself_is_right(
    write_recipe: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "ppcls"):
        load_config(write_recipe())
    assert caplog.messages == []


def test_three_mistakes_are_three_lines(write_recipe: Callable[..., Path]) -> None:
    file = write_recipe(
        ("rename", "Global.epochs", "epoch"),
        ("rename", f"{KL}.temperature", "temprature"),
        ("set", f"{TEACHER}.return_patterns.0", "blocks[99]"),
    )
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    head, *lines = str(caught.value).splitlines()
    assert head == f"3 mistakes in {file}"
    assert [line.split(":")[0].strip() for line in lines] == [
        "Global.epoch",
        "Loss.Train.1",
        f"{TEACHER}.return_patterns.0",
    ]


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("Global.epoch=1", "Global.epoch", "Did you mean: epochs?"),
        ("Global.epochs", "-o Global.epochs", "expected key=value"),
        ("Arch.models.2.Student.pretrained=x", "-o Arch.models.2.Student.pretrained=x", "past the last, 1"),
        ("Arch.models.1.Studnet.pretrained=x", "-o Arch.models.1.Studnet.pretrained=x", "Student"),
        ("Loss.Train.1.DistillationKLDivLoss.weight=.nan", f"{KL}.weight", "finite number"),
        ("Loss.Train.1.weight=2", "-o Loss.Train.1.weight=2", "Loss.Train.1.DistillationKLDivLoss"),
        ("Global.epochs.x=1", "-o Global.epochs.x=1", "not a section"),
        ("Optimizer.lr.warmup=1", "Optimizer.lr", "warmup_epoch"),
        ("Arch.infer_model_name=Studen", "Arch.infer_model_name", "Did you mean: Student"),
        ("Global.infer_model_name=Studen", "Arch.infer_model_name", "Did you mean: Student"),
        ("AMP.use_amp='false'", "AMP.use_amp", "true or false"),
        ("Global.output_dir=2024", "Global.output_dir", "in quotes"),
    ],
)
def test_a_bad_override_is_one_mistake(
    write_recipe: Callable[..., Path], text: str, path: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write_recipe(), [text])
    head, line = str(caught.value).splitlines()
    assert head.startswith("1 mistake in ")
    assert line.startswith(f"  {path}: ")
    assert words in line


def test_a_plain_network_cannot_be_distilled(write_recipe: Callable[..., Path]) -> None:
    file = write_recipe(("set", "Arch", {"name": "resnet8"}))
    with pytest.raises(ConfigError, match="but Arch is one network") as caught:
        load_config(file, ["Global.infer_model_name=Student"])
    paths = [mistake.path for mistake in caught.value.mistakes]
    assert paths == [
        "Global.infer_model_name",
        "Loss.Train.0",
        "Loss.Train.1",
        "Loss.Train.2",
        "Metric.Train.0",
        "Metric.Eval.0",
    ]


@pytest.mark.parametrize("mode", ["eval", "infer", "export"])
def test_other_modes_need_other_sections(write_recipe: Callable[..., Path], mode: str) -> None:
    sections = ["Loss", "Optimizer", "Metric", "DataLoader", "Infer"]
    file = write_recipe(*[("drop", name) for name in sections])
    needed = {"eval": {"DataLoader.Eval", "Metric.Eval"}, "export": {"Infer.transforms"}}
    needed["infer"] = {"Infer.infer_imgs", "Infer.transforms", "Infer.PostProcess"}
    with pytest.raises(ConfigError) as caught:
        load_config(file, mode=mode)
    assert {mistake.path for mistake in caught.value.mistakes} == needed[mode]


def test_an_unknown_mode_is_refused(write_recipe: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="Did you mean: train"):
        load_config(write_recipe(), mode="trian")


_GARBAGE = [None, True, -1, 1.5, "x", "${a.b}", [], ["x"], [[]], [None], {}, {"name": 3}, {"x": None}]


def _paths(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    children = node.items() if isinstance(node, dict) else enumerate(node if isinstance(node, list) else ())
    for step, child in children:
        yield from _paths(child, (*path, step))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_garbage_anywhere_gives_a_report_and_never_a_crash(
    recipe_tree: dict[str, Any], write_recipe: Callable[..., Path], data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(list(_paths(recipe_tree))))
    value = data.draw(st.sampled_from(_GARBAGE))
    file = write_recipe(("set", ".".join(map(str, path)), value))
    with contextlib.suppress(ConfigError):
        load_config(file)


WARNED: list[tuple[list[tuple[Any, ...]], str, str]] = [
    (
        [("set", "DataLoader.Eval.dataset.cls_label_path", "dataset/ILSVRC2012/train_list_all.txt")],
        "DataLoader.Eval.dataset.cls_label_path",
        "training list",
    ),
    (
        [
            ("set", "DataLoader.Train.dataset", {"name": "ShardDataset", "path": "shards/all"}),
            ("set", "DataLoader.Eval.dataset", {"name": "ShardDataset", "path": "shards/all/"}),
        ],
        "DataLoader.Eval.dataset.path",
        "training data",
    ),
    (
        [("set", f"{STUDENT}.return_patterns", ["blocks[2]", "blocks[1]"])],
        f"{STUDENT}.return_patterns",
        "no loss of Loss.Train uses blocks[1]",
    ),
    (
        [("set", f"{KL}.model_name_pairs", [["Teacher", "Student"]])],
        f"{KL}.model_name_pairs.0",
        "the network that learns comes first",
    ),
    ([("set", f"{KL}.weight", 0)], f"{KL}.weight", "no effect"),
    (
        [
            ("rename", KL, "DistillationDISTLoss"),
            ("drop", "Loss.Train.1.DistillationDISTLoss.temperature"),
            ("set", "Loss.Train.1.DistillationDISTLoss.gather", True),
            ("set", f"{TRAIN}.dataset.on_error", "skip"),
        ],
        "Loss.Train.1.DistillationDISTLoss.gather",
        "differ in size",
    ),
    (
        [("set", "Metric.Eval.0.DistillationTopkAcc.topk", [1, 5000])],
        "Metric.Eval.0.DistillationTopkAcc.topk",
        "5000 of 1000 classes",
    ),
    ([("set", "Infer.PostProcess.topk", 2000)], "Infer.PostProcess.topk", "2000 of 1000 classes"),
    (
        [("set", "Loss.Eval", [{"CELoss": {"weight": {"name": "LinearWarmup", "value": 1.0, "epochs": 3}}}])],
        "Loss.Eval.0.CELoss.weight",
        "stays at its first value",
    ),
    (
        [("set", f"{TRAIN}.dataset.relabel", "train.txt")],
        f"{TRAIN}.dataset.relabel",
        "DataLoader.Eval.dataset has none",
    ),
    (
        [("set", "DataLoader.Eval.dataset.relabel", "val.txt")],
        "DataLoader.Eval.dataset.relabel",
        "DataLoader.Train.dataset has none",
    ),
    (
        [
            ("set", f"{TRAIN}.dataset.relabel", "train.txt"),
            ("set", "DataLoader.Eval.dataset.relabel", "val.txt"),
        ],
        "DataLoader.Eval.dataset.relabel",
        "name one list in both",
    ),
    (
        [("set", "Global.eval_during_train", False), ("set", "EMA", {"decay": 0.9})],
        "EMA",
        "no best averaged weights",
    ),
    ([("set", "DataLoader.Eval.sampler.shuffle", True)], "DataLoader.Eval.sampler.shuffle", "no effect"),
    (
        [("set", "Global.pretrained_model", "a"), ("set", "Global.checkpoints", "b")],
        "Global.pretrained_model",
        "no effect",
    ),
    (
        [("set", "Global.save_interval", -1), ("set", "Global.keep_last", 3)],
        "Global.keep_last",
        "has no effect, because Global.save_interval is -1",
    ),
    ([("set", "Global.start_eval_epoch", 200)], "Global.start_eval_epoch", "no evaluation"),
    (
        [
            ("set", "Loss.Train", [{"CELoss": None}]),
            ("drop", f"{TEACHER}.return_patterns"),
            ("drop", f"{STUDENT}.return_patterns"),
        ],
        TEACHER,
        "runs at every step",
    ),
]


@pytest.mark.parametrize(
    ("edits", "path", "words"), WARNED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_works_but_is_hardly_meant_is_a_warning(
    write_recipe: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
    edits: list[tuple[Any, ...]],
    path: str,
    words: str,
) -> None:
    file = write_recipe(*edits)
    with caplog.at_level(logging.WARNING, "ppcls"):
        load_config(file)
    (message,) = caplog.messages
    assert message.startswith(f"{file}: {path}: ")
    assert words in message


def test_several_processes_cannot_gather_batches_that_may_differ_in_size(
    write_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    dist = "Loss.Train.1.DistillationDISTLoss"
    edits = [("rename", KL, "DistillationDISTLoss"), ("drop", f"{dist}.temperature")]
    edits += [("set", f"{dist}.gather", True), ("set", f"{TRAIN}.dataset.on_error", "skip")]
    file = write_recipe(*edits)
    load_config(file)
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    with pytest.raises(ConfigError, match=f"{dist}.gather: true, but .*several processes are refused"):
        load_config(file)

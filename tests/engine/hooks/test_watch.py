"""What a run tells about itself: teachers, agreement with them, gradients, and when it stops early."""

import json
import logging
import math
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from engine_hooks import StopAt
from support import distilled, slow_unless

import ppcls
from ppcls.config import load_config
from ppcls.data import build_loader
from ppcls.engine import Engine
from ppcls.engine.build import dry_forward
from ppcls.engine.evaluation.evaluators import watched_students, watched_teachers
from ppcls.engine.evaluation.measures import Agreement, classifiers
from ppcls.engine.hooks import Hook
from ppcls.engine.hooks.early_stopping import EarlyStopping
from ppcls.engine.hooks.teachers import guessing_accuracy, suspicious_below
from ppcls.engine.run import Run, Settings
from ppcls.engine.train import gradient_norm
from ppcls.errors import ConfigError
from ppcls.metric import Criterion
from ppcls.run_states import Progress
from ppcls.weights import read_params, write_params

KL = {"DistillationKLDivLoss": {"model_name_pairs": [["Student", "Teacher"]], "temperature": 4.0}}


def engine(path, *overrides):
    return Engine(load_config(path, list(overrides)), "train")


def metrics(tmp_path, name="DistillationModel", output="output"):
    text = (tmp_path / output / name / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("sizes", [[30], [7, 7, 7, 7, 2], [1] * 30])
def test_agreement_and_kl_for_any_split(sizes):
    from ppcls.engine.meters import Meters

    rng = np.random.default_rng(3)
    student, one, two = (rng.normal(size=(30, 5)) * scale for scale in (1, 3, 0.1))
    meters, measure, start = Meters(), Agreement("S", ["T", "U"]), 0
    for size in sizes:
        s, t, u = (paddle.to_tensor(x[start : start + size].astype("float32")) for x in (student, one, two))
        values = measure({"S": {"logits": s, "blocks[1]": None}, "T": t, "U": {"logits": u}}, None)
        meters.add(values, size)
        start += size
    meters.flush()
    found = meters.averages()
    for name, teacher in (("T", one), ("U", two)):
        p, q = softmax(teacher), softmax(student)
        assert found[f"kl_{name}"] == pytest.approx((p * np.log(p / q)).sum(-1).mean(), rel=1e-5)
        same = (teacher.argmax(-1) == student.argmax(-1)).mean()
        assert found[f"agreement_{name}"] == pytest.approx(same, abs=1e-7)


@pytest.mark.parametrize("order", [None, [3, 0, 2, 1]])
def test_a_distillation_is_measured_against_its_teacher(recipe, write_recipe, tmp_path, capsys, order):
    """Numbers of the log and of metrics.jsonl equal those of the saved student and the teacher's file.

    So they do with a teacher that counts the classes in another order and a loss with a `class_map`.
    """
    teacher = ppcls.create_model("resnet14", class_num=4)
    state = teacher.state_dict()
    recipe = distilled(recipe, **KL, DistillationGTCELoss={"model_names": ["Student"]})
    if order is not None:
        for key in ("fc.weight", "fc.bias"):
            state[key] = state[key][..., np.argsort(order)]
        (tmp_path / "map.txt").write_text("".join(f"{mine} {theirs}\n" for mine, theirs in enumerate(order)))
        recipe["Loss"]["Train"][0]["DistillationKLDivLoss"] |= {"class_map": str(tmp_path / "map.txt")}
    write_params(tmp_path / "teacher.pdparams", state)
    recipe["Arch"]["models"][0]["Teacher"]["pretrained"] = str(tmp_path / "teacher.pdparams")
    pytest.importorskip("tensorboardX")
    recipe["Global"] |= {"epochs": 1, "use_tensorboard": True}
    recipe["Metric"]["Eval"].append({"DistillationTopkAcc": {"model_key": "Teacher", "topk": 1}})
    run = engine(write_recipe(recipe))
    run.train()
    rows = metrics(tmp_path)
    assert [row["kind"] for row in rows] == ["teacher", "train", "train", "train", "epoch", "eval"]

    student = ppcls.create_model("resnet8", class_num=4)
    student.set_state_dict(
        {k: paddle.to_tensor(v)
         for k, v in read_params(tmp_path / "output/DistillationModel/best_model_student.pdparams").items()}
    )  # fmt: skip
    logits, labels = {"s": [], "t": []}, []
    for batch in build_loader(run.config.DataLoader.Eval, "Eval", seed=0, class_num=4).epoch(0):
        for name, network in (("s", student), ("t", teacher)):
            network.eval()
            logits[name].append(network(paddle.to_tensor(batch.image)).numpy().astype(np.float64))
        labels.append(batch.label.reshape(-1))
    s, t, label = np.concatenate(logits["s"]), np.concatenate(logits["t"]), np.concatenate(labels)
    top1 = pytest.approx((t.argmax(-1) == label).mean())
    assert rows[0] == {"kind": "teacher", "epoch": 0, "step": 0, "top1_Teacher": top1}
    kl = (softmax(t) * np.log(softmax(t) / softmax(s))).sum(-1).mean()
    assert rows[-1]["top1_Teacher"] == top1
    assert rows[-1]["agreement_Teacher"] == pytest.approx((s.argmax(-1) == t.argmax(-1)).mean(), abs=1e-6)
    assert rows[-1]["kl_Teacher"] == pytest.approx(kl, rel=1e-3)
    printed = capsys.readouterr().out
    assert f"agreement_Teacher: {rows[-1]['agreement_Teacher']:.5f}, kl_Teacher: " in printed
    assert f"[Teacher][Epoch 0][Avg]top1_Teacher: {rows[0]['top1_Teacher']:.5f}" in printed
    (curves,) = (tmp_path / "output/DistillationModel/tensorboard").iterdir()
    for tag in (
        b"teacher/top1_Teacher",
        b"train/grad_norm",
        b"train/lr",
        b"eval/agreement_Teacher",
        b"eval/kl_",
    ):
        assert tag in curves.read_bytes()
    assert "[Eval][Epoch 0]" not in printed  # a log parser takes those lines for the student


def test_a_writer_that_is_missing_stops_the_run_before_it_begins(recipe, write_recipe, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match=r"Global.use_tensorboard: .*'ppcls\[tensorboard\]'"):
        engine(write_recipe(recipe), "Global.use_tensorboard=true").train()
    assert not (tmp_path / "output").exists()


def test_the_frozen_classifier_of_a_chain_is_a_teacher():
    classifier = {"base": {"name": "resnet8", "class_num": 4, "return_patterns": ["avg_pool"]}}
    chain = {"name": "AttentionModel", "models": [classifier], "freeze_params_list": [True]}
    learning = {"name": "AttentionModel", "models": [classifier]}
    model = ppcls.arch.build_model({
        "name": "DistillationModel", "freeze_params_list": [False, True, False, True, False],
        "models": [
            {"Chain": chain}, {"Frozen": {"name": "resnet8", "class_num": 4}},
            {"Student": {"name": "resnet8", "class_num": 4}}, {"Other": {"name": "resnet8", "class_num": 5}},
            {"Peer": learning},
        ],
    })  # fmt: skip
    classifying = classifiers(dry_forward(model, (3, 32, 32)), 4)
    assert model.network("Student").training
    assert watched_teachers(model, "Student", classifying) == ["Chain", "Frozen"]
    assert watched_students(model, "Student", classifying) == ["Peer"]


def test_watching_can_be_switched_off_and_changes_nothing(recipe, write_recipe, tmp_path, capsys):
    path = write_recipe(distilled(recipe, **KL))
    forwards = []
    hook = paddle.nn.Layer.register_forward_pre_hook
    for output, on in (("on", "true"), ("off", "false")):
        run = engine(
            path, f"Global.output_dir={tmp_path}/{output}", f"Global.check_teacher={on}", "Global.epochs=1",
            f"Global.eval_agreement={on}",
        )  # fmt: skip
        counts = {"Teacher": 0, "Student": 0}
        for name in counts:
            network = run.model.network(name)
            hook(network, lambda _l, _i, n=name, counts=counts: counts.__setitem__(n, counts[n] + 1))
        forwards.append(counts)
        run.train()
    # Once to find shapes, 3 steps, 2 batches of evaluation, and the first of both beforehand; the student is
    # never asked twice, and the teacher sees an image of evaluation once.
    student = 1 + 1 + 1 + 3 + 2
    assert forwards == [
        {"Teacher": 1 + 1 + 3 + 2, "Student": student}, {"Teacher": 1 + 1 + 3, "Student": student}
    ]  # fmt: skip
    rows = metrics(tmp_path, output="off")
    assert not any("agreement" in name or "teacher" in name for row in rows for name in [*row, row["kind"]])
    files = [tmp_path / output / "DistillationModel/latest.pdparams" for output in ("on", "off")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_teacher_that_guesses_is_called_out_once(recipe, write_recipe, tmp_path, capsys, monkeypatch):
    path = write_recipe(distilled(recipe, **KL))
    engine(path, "Global.epochs=1").train()
    assert "!!! Teacher has top-1 accuracy" in capsys.readouterr().out
    rows = metrics(tmp_path)
    engine(path, f"Global.checkpoints={tmp_path}/output/DistillationModel/best_model").train()
    printed = capsys.readouterr().out
    assert "!!!" not in printed
    assert "[Teacher]" not in printed
    assert (
        [row["kind"] for row in metrics(tmp_path)].count("teacher") == 1 == rows[0]["kind"].count("teacher")
    )


def test_a_teacher_without_an_accuracy_is_called_out(recipe, write_recipe, capsys, monkeypatch):
    """Some of its logits are NaN."""
    nothing = [paddle.full([], math.nan)]
    monkeypatch.setattr("ppcls.engine.hooks.teachers.topk_accuracy", lambda *_: nothing)
    engine(write_recipe(distilled(recipe, **KL)), "Global.epochs=1").train()
    assert "!!! Teacher has top-1 accuracy nan" in capsys.readouterr().out


def test_teachers_of_other_classes_are_not_compared(recipe, write_recipe, tmp_path, capsys):
    recipe = distilled(recipe, DistillationDistanceLoss={
        "model_name_pairs": [["Student", "Teacher"]], "key": "avg_pool"
    })  # fmt: skip
    recipe["Arch"]["models"][0]["Teacher"] = {
        "name": "resnet14",
        "class_num": 7,
        "return_patterns": ["avg_pool"],
    }
    recipe["Arch"]["models"][1]["Student"]["return_patterns"] = ["avg_pool"]
    engine(write_recipe(recipe), "Global.epochs=1").train()
    assert {row["kind"] for row in metrics(tmp_path)} == {"train", "epoch", "eval"}
    assert "agreement_Teacher" not in capsys.readouterr().out


class Labels:
    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def label(self, index):
        return self.labels[index]


def test_when_a_teacher_is_suspicious():
    assert guessing_accuracy(Labels([0, 1, 1, 1])) == 0.75
    # ImageNet: guessing gives 0.1 %; a network that lost its classifier must not pass, a weak one must
    assert 0.02 < suspicious_below(0.001, 50000) < 0.1
    assert suspicious_below(0.5, 1000) < 0.56
    assert all(guess < suspicious_below(guess, n) < 1 for guess in (0.001, 0.5, 0.95) for n in (1, 10, 10**6))


def test_the_norm_of_gradients_is_the_joint_one():
    parameters = [paddle.create_parameter([3, 2], "float32"), paddle.create_parameter([4], "float32")]
    unused = paddle.create_parameter([9], "float32")
    (parameters[0].sum() * 3 + (parameters[1] * paddle.arange(4.0)).sum()).scale(8.0).backward()
    expected = math.sqrt(6 * 9 + 0 + 1 + 4 + 9)
    assert float(gradient_norm([*parameters, unused], 8.0)) == pytest.approx(expected)
    assert float(gradient_norm([unused])) == 0


@pytest.mark.parametrize("update_freq", [1, 2])
def test_the_norm_stands_in_lines_before_clipping(
    recipe, write_recipe, tmp_path, capsys, update_freq, monkeypatch
):
    from ppcls.engine import train as module

    seen = []

    def spy(parameters, scale):
        grads = [p.grad.numpy().astype(np.float64) for p in parameters if p.grad is not None]
        seen.append(math.sqrt(sum((grad**2).sum() for grad in grads)))
        return gradient_norm(parameters, scale)

    monkeypatch.setattr(module, "gradient_norm", spy)
    recipe["Optimizer"]["clip_norm"] = 1e-3
    recipe["DataLoader"]["Train"]["sampler"]["batch_size"] = 2  # 6 batches
    engine(
        write_recipe(recipe),
        "Global.epochs=1",
        "Global.print_batch_step=4",
        f"Global.update_freq={update_freq}",
    ).train()
    rows = [row for row in metrics(tmp_path, "resnet8") if row["kind"] == "train"]
    assert len(rows) == len(seen) == 2  # computed where a line is printed, nowhere else
    assert [row["grad_norm"] for row in rows] == pytest.approx(seen, rel=1e-5)
    assert min(seen) > 1e-2
    printed = capsys.readouterr().out
    assert all(f", grad_norm: {row['grad_norm']:.5f}\n" in printed for row in rows)


# ------------------------------------------------------------------ early stopping


def judged(scores, patience, min_delta=0.0, start=None):
    """Return after how many of `scores` the run ends (None: it does not) and its progress."""
    hook = EarlyStopping(patience, min_delta, Criterion("top1", True))
    run = Run(parts=None, settings=Settings(Path("unused"), epochs=100), progress=start or Progress())
    for number, score in enumerate(scores, 1):
        run.progress.epoch = number
        metrics = score if isinstance(score, dict) else {"top1": score}
        hook.after_eval(run, metrics)
        hook.after_eval(run, metrics)  # resumed between evaluation and save: judged again, counted once
        if run.ending:
            return number, run.progress
    return None, run.progress


@pytest.mark.parametrize(
    ("scores", "patience", "min_delta", "expected"),
    [
        ([1, 2, 3, 4], 1, 0.0, None),
        ([1, 2, 2, 2], 2, 0.0, 4),  # equal is not better
        ([5, 1, 6, 1, 1, 7], 2, 0.0, 5),
        ([1, 1.5, 2, 2.5], 2, 0.9, None),  # two small steps make a large one
        ([1, 1.5, 1.8, 3], 2, 0.9, 3),
        ([1, math.nan, math.nan], 2, 0.0, 3),
        ([{"top1": 1, "top1_ema": 0}, {"top1": 1, "top1_ema": 2}, {"top1": 1, "top1_ema": 3}], 1, 0.0, None),
    ],
)
def test_when_a_run_ends(scores, patience, min_delta, expected):
    assert judged(scores, patience, min_delta)[0] == expected


class Falling(Hook):
    """Makes each evaluation after the second worse than the one before."""

    def after_eval(self, run, metrics):
        metrics["top1"] = min(run.progress.epoch, 2) - 0.01 * run.progress.epoch


# Stopped at the end of the third epoch, and after it.
@pytest.mark.parametrize("stop_at", slow_unless(lambda n: n == 9, [9, 10]))
def test_early_stopping_survives_resume(recipe, write_recipe, tmp_path, capsys, stop_at):
    recipe["Global"] |= {"epochs": 12, "save_steps": 1}
    recipe["EarlyStopping"] = {"patience": 3}
    path = write_recipe(recipe)
    best = engine(path, f"Global.output_dir={tmp_path}/whole").train(hooks=[Falling()])
    assert best["epoch"] == 2
    assert "the run ends after epoch 5 of 12" in capsys.readouterr().out
    cut = [path, f"Global.output_dir={tmp_path}/cut"]
    with pytest.raises(SystemExit):
        engine(*cut).train(hooks=[Falling(), StopAt(stop_at)])
    resume = f"Global.checkpoints={tmp_path}/cut/resnet8/latest"
    engine(*cut, resume).train(hooks=[Falling()])
    states = [json.loads((tmp_path / d / "resnet8/latest.pdstates").read_text()) for d in ("whole", "cut")]
    assert states[0] == states[1]  # checksums of all tensors are part of it
    assert states[0]["finished"]
    assert (states[0]["epoch"], states[0]["waited"]) == (6, 3)
    rows = [row for row in metrics(tmp_path, "resnet8", "cut") if row["kind"] == "eval"]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert engine(*cut, resume).train()["epoch"] == 2
    assert "already finished" in capsys.readouterr().out
    engine(*cut, resume, "EarlyStopping.patience=4").train(hooks=[Falling()])
    rows = [row for row in metrics(tmp_path, "resnet8", "cut") if row["kind"] == "eval"]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]


def test_early_stopping_that_cannot_work_is_told(recipe, write_recipe, caplog):
    recipe["EarlyStopping"] = {"patience": 2}
    with caplog.at_level(logging.WARNING, "ppcls"):
        load_config(write_recipe(recipe))
    assert "EarlyStopping.patience: has no effect: 2 epochs have 2 evaluations" in caplog.text
    for change, place in (
        ({"patience": 0}, "patience"),
        ({"min_delta": -1}, "min_delta"),
        ({"wait": 1}, "wait"),
    ):
        recipe["EarlyStopping"] = change
        with pytest.raises(ConfigError, match=f"EarlyStopping.{place}"):
            load_config(write_recipe(recipe))
    recipe["EarlyStopping"] = {}
    recipe["Global"]["eval_during_train"] = False
    with pytest.raises(ConfigError, match="EarlyStopping: judges evaluations, but Global.eval_during_train"):
        load_config(write_recipe(recipe))

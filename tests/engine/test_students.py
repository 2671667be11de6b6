"""Several students, the network to deploy among them, and what chooses `best_model`."""

import dataclasses
import json
import math

import numpy as np
import paddle
import pytest
from engine_hooks import StopAt
from support import distilled, slow_unless

import ppcls
from ppcls.cli import main
from ppcls.config import ComponentSpec, load_config
from ppcls.data import build_loader
from ppcls.engine import Engine
from ppcls.engine.checkpoint import Checkpointer
from ppcls.engine.checkpoint.resume import compare_by
from ppcls.engine.evaluation.evaluators import plateau_metric
from ppcls.engine.evaluation.measures import is_better
from ppcls.engine.hooks import Hook
from ppcls.engine.hooks.checkpoint import CheckpointHook
from ppcls.engine.hooks.ema import ModelEMA
from ppcls.engine.run import Parts, Run, Settings
from ppcls.errors import ConfigError, TrainingError
from ppcls.metric import LOSS, Criterion, Metric
from ppcls.registry import METRICS
from ppcls.run_states import Progress, StudentBest
from ppcls.weights import read_params, write_params


def engine(path, mode="train", *overrides):
    return Engine(load_config(path, list(overrides), mode), mode)


def rows(tmp_path, kind="eval", name="DistillationModel", output="output"):
    lines = (tmp_path / output / name / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def students(recipe, *names, teacher=True, main=None):
    """Turn a tiny recipe into one with students of these names, and perhaps a frozen teacher."""
    frozen = ["Frozen"] if teacher else []
    recipe = distilled(recipe)
    recipe["Arch"] = {
        "name": "DistillationModel",
        "class_num": 4,
        "freeze_params_list": [True] * len(frozen) + [False] * len(names),
        "models": [{name: {"name": "resnet8"}} for name in (*frozen, *names)],
    }
    if main:
        recipe["Arch"]["infer_model_name"] = main
    recipe["Loss"]["Train"] = [{"DistillationGTCELoss": {"model_names": list(names)}}]
    pairs = [[name, "Frozen"] for name in names] if teacher else [list(names[:2])]
    recipe["Loss"]["Train"].append({"DistillationDMLLoss": {"model_name_pairs": pairs}})
    accuracy = {"DistillationTopkAcc": {"model_key": main or names[-1], "topk": [1, 2]}}
    recipe["Metric"] = {"Train": [accuracy], "Eval": [accuracy]}
    return recipe


def measured(run, weights):
    """Return top-1 accuracy and cross entropy of a file of one network on the validation set, by NumPy."""
    network = ppcls.create_model("resnet8", class_num=4)
    network.set_state_dict({name: paddle.to_tensor(value) for name, value in weights.items()})
    network.eval()
    logits, labels = [], []
    for batch in build_loader(run.config.DataLoader.Eval, "Eval", seed=0, class_num=4).epoch(0):
        logits.append(network(paddle.to_tensor(batch.image)).numpy().astype(np.float64))
        labels.append(batch.label.reshape(-1))
    x, y = np.concatenate(logits), np.concatenate(labels)
    log_p = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return (x.argmax(-1) == y).mean(), -log_p[np.arange(len(y)), y].mean()


class Scripted(Hook):
    """Replaces values of evaluations by those of a table, epoch by epoch."""

    def __init__(self, **table):
        self.table = table

    def after_eval(self, run, metrics):
        for name, values in self.table.items():
            assert name in metrics
            metrics[name] = values[run.progress.epoch - 1]


def part(params, name):
    return {key.removeprefix(f"{name}."): v for key, v in params.items() if key.startswith(f"{name}.")}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


@pytest.mark.parametrize(
    ("names", "teacher", "main"),
    [
        pytest.param(("Student", "Student2"), True, None, marks=pytest.mark.slow),
        # Deep mutual learning, as in the tutorial.
        pytest.param(("Teacher", "Student"), False, None, marks=pytest.mark.slow),
        (("A", "B", "C"), True, "B"),
    ],
)
def test_every_student_has_its_numbers_its_line_and_its_file(
    recipe, write_recipe, tmp_path, capsys, names, teacher, main
):
    path = write_recipe(students(recipe, *names, teacher=teacher, main=main))
    deployed = main or "Student"
    others = [name for name in names if name != deployed]
    run = engine(path)
    best = run.train()
    folder = tmp_path / "output/DistillationModel"
    printed = capsys.readouterr().out
    states = Checkpointer(folder).load("latest").progress
    assert set(states.students) == set(others)
    for name in names:
        end = "" if name == deployed else f"_{name}"
        epoch = best["epoch"] if name == deployed else states.students[name].epoch
        (row,) = (row for row in rows(tmp_path) if row["epoch"] == epoch)
        accuracy, loss = measured(run, read_params(folder / f"best_model.{name}.pdparams"))
        assert row[f"top1{end}"] == pytest.approx(accuracy)
        assert row[f"CELoss{end}"] == pytest.approx(loss, rel=1e-4)
        assert row[f"loss{end}"] == row[f"CELoss{end}"]
        assert row[f"top1{end}"] == max(other[f"top1{end}"] for other in rows(tmp_path))
        place = "" if name == deployed else f"[{name}]"
        for value in rows(tmp_path):
            shown = f"top1: {value[f'top1{end}']:.5f}, top2: {value[f'top2{end}']:.5f}"
            assert f"[Eval]{place}[Epoch {value['epoch']}][Avg]CELoss: {value[f'CELoss{end}']:.5f}" in printed
            assert shown in printed
        assert f"[Eval]{place}[Epoch 2][best metric: {row[f'top1{end}']:.5f}]" in printed
        assert teacher == (f"agreement_Frozen{end}" in row)
    assert_same(*(read_params(folder / f"best_model{n}.pdparams") for n in ("_student", f".{deployed}")))
    assert_same(
        part(read_params(folder / "best_model.pdparams"), deployed),
        read_params(folder / "best_model_student.pdparams"),
    )


def test_one_student_keeps_its_names(recipe, write_recipe, tmp_path):
    path = write_recipe(students(recipe, "Student"))
    engine(path, "train", "Global.epochs=1").train()
    weights = {file.name for file in (tmp_path / "output/DistillationModel").glob("best_model*.pdparams")}
    assert weights == {"best_model.pdparams", "best_model_student.pdparams"}
    (row,) = rows(tmp_path)
    names = ["CELoss", "loss", "top1", "top2", "agreement_Frozen", "kl_Frozen"]
    assert list(row) == ["kind", "epoch", "step", *names]


@pytest.mark.parametrize("ema", slow_unless(bool, [False, True]))
def test_best_files_follow_each_student_and_best_model_the_one_to_deploy(recipe, write_recipe, tmp_path, ema):
    recipe = students(recipe, "Student", "Student2", main="Student2")
    recipe["Global"]["epochs"] = 3
    recipe["Metric"]["Eval"][0]["DistillationTopkAcc"]["model_key"] = "Student"  # of the other one
    table = {"top1": [0.1, 0.3, 0.2], "top1_Student": [0.9, 0.8, 0.95]}
    if ema:
        recipe["EMA"] = {"decay": 0.5}
        table |= {"top1_ema": [0.6, 0.5, 0.4], "top1_Student_ema": [0.1, 0.2, 0.1]}
    best = engine(write_recipe(recipe)).train(hooks=[Scripted(**table)])
    assert (best["epoch"], best["top1"]) == ((1, 0.6) if ema else (2, 0.3))
    folder = tmp_path / "output/DistillationModel"
    epochs = {number: read_params(folder / f"epoch_{number}.pdparams") for number in (1, 2, 3)}
    assert_same(read_params(folder / "best_model.pdparams"), epochs[2])
    assert_same(read_params(folder / "best_model.Student2.pdparams"), part(epochs[2], "Student2"))
    assert_same(read_params(folder / "best_model_student.pdparams"), part(epochs[2], "Student2"))
    assert_same(read_params(folder / "best_model.Student.pdparams"), part(epochs[3], "Student"))
    progress = Checkpointer(folder).load("latest").progress
    assert progress.students == {"Student": StudentBest(0.95, 3, 0.2 if ema else None)}
    assert progress.best_ema_score == (0.6 if ema else None)
    if ema:
        averages = {number: read_params(folder / f"epoch_{number}.pdema") for number in (1, 2)}
        for name, epoch in (("_student", 1), (".Student2", 1), (".Student", 2)):
            network = "Student" if name == ".Student" else "Student2"
            assert_same(
                read_params(folder / f"best_model_ema{name}.pdparams"), part(averages[epoch], network)
            )


@pytest.mark.parametrize("stop_at", slow_unless(lambda n: n == 4, [4, 6]))
def test_the_best_of_each_student_survives_resume(recipe, write_recipe, tmp_path, stop_at):
    recipe = students(recipe, "Student", "Student2")
    recipe["Metric"]["Eval"][0]["DistillationTopkAcc"]["model_key"] = "Student"
    recipe["Global"]["epochs"] = 3
    path = write_recipe(recipe)
    table = {"top1": [0.1, 0.3, 0.2], "top1_Student2": [0.9, 0.8, 0.7]}
    engine(path, "train", f"Global.output_dir={tmp_path}/whole").train(hooks=[Scripted(**table)])
    cut = f"Global.output_dir={tmp_path}/cut"
    with pytest.raises(SystemExit):
        engine(path, "train", cut).train(hooks=[Scripted(**table), StopAt(stop_at)])
    latest = f"Global.checkpoints={tmp_path}/cut/DistillationModel/latest"
    engine(path, "train", cut, latest).train(hooks=[Scripted(**table)])
    folders = [tmp_path / name / "DistillationModel" for name in ("whole", "cut")]
    files = [{file.name for file in folder.glob("*.pd*")} for folder in folders]
    assert files[0] == files[1]
    assert "best_model.Student2.pdparams" in files[0]
    for name in files[0]:
        if not name.endswith(".pdstates"):
            assert_same(*(read_params(folder / name) for folder in folders))
    progress = [Checkpointer(folder).load("latest").progress for folder in folders]
    assert progress[0] == progress[1]
    assert progress[0].students["Student2"].epoch == 1


@pytest.mark.parametrize("kind", ["deployed", "other", "averaged"])
def test_no_file_of_a_student_is_written_that_is_not_finite(tmp_path, kind):
    """Each network has weights of its own, so each may go wrong by itself."""
    broken = paddle.to_tensor([1.0, math.nan])
    fine = {"w": paddle.ones([2])}

    class Networks:
        def trainable_state_dict(self):
            return fine

        def student_state_dict(self, name):
            return {"w": broken} if name == kind else fine

    ema = ModelEMA(fine, 0.5) if kind == "averaged" else None
    if ema is not None:
        ema.state()["w"].set_value(broken)
    hook = CheckpointHook(
        Checkpointer(tmp_path),
        Criterion("top1", True),
        "deployed",
        {"other": Criterion("top1_other", True)},
    )
    parts = Parts(**dict.fromkeys(field.name for field in dataclasses.fields(Parts)))
    parts.model, parts.ema = Networks(), ema
    run = Run(parts, Settings(tmp_path, epochs=3), progress=Progress(epoch=2, step=7))
    metrics = {"top1": 0.5, "top1_other": 0.5}
    if ema is not None:
        metrics |= {f"{name}_ema": value for name, value in metrics.items()}
    with pytest.raises(TrainingError, match="w is not finite after step 6"):
        hook.after_eval(run, metrics)
    for file in tmp_path.glob("*.pdparams"):
        assert np.isfinite(read_params(file)["w"]).all()


# ------------------------------------------------------------------ ppcls eval


def test_eval_shows_every_student_of_a_run_and_follows_the_one_to_deploy(
    recipe, write_recipe, tmp_path, capsys
):
    path = write_recipe(students(recipe, "Student", "Student2"))
    run = engine(path)
    run.train()
    folder = tmp_path / "output/DistillationModel"
    whole = read_params(folder / "best_model.pdparams")
    expected = {name: measured(run, part(whole, name)) for name in ("Student", "Student2")}
    assert expected["Student"] != expected["Student2"]
    for deployed, other in (("Student", "Student2"), ("Student2", "Student")):
        for place in ("Arch", "Global"):
            overrides = [
                f"{place}.infer_model_name={deployed}",
                f"Global.pretrained_model={folder}/best_model",
            ]
            capsys.readouterr()
            found = engine(path, "eval", *overrides).eval()
            assert (found["top1"], found["loss"]) == pytest.approx(expected[deployed], rel=1e-4)
            assert (found[f"top1_{other}"], found[f"loss_{other}"]) == pytest.approx(
                expected[other], rel=1e-4
            )
            printed = capsys.readouterr().out
            assert f"[Eval][Epoch 0][Avg]CELoss: {found['loss']:.5f}" in printed
            assert f"[Eval][{other}][Epoch 0][Avg]CELoss: {found[f'loss_{other}']:.5f}" in printed


def test_eval_measures_nothing_that_a_file_does_not_hold(recipe, write_recipe, tmp_path, capsys):
    """A file of one network has no weights for a second student: its numbers would be those of chance."""
    recipe = students(recipe, "Student", "Student2")
    both = [{"DistillationTopkAcc": {"model_key": n, "topk": [1]}} for n in ("Student", "Student2")]
    recipe["Metric"]["Eval"] = both
    path = write_recipe(recipe)
    network = ppcls.create_model("resnet8", class_num=4)
    write_params(tmp_path / "alone.pdparams", network.state_dict())
    alone = f"Global.pretrained_model={tmp_path}/alone"
    for deployed, other in (("Student", "Student2"), ("Student2", "Student")):
        found = engine(path, "eval", alone, f"Arch.infer_model_name={deployed}").eval()
        assert list(found) == ["CELoss", "loss", "top1"]
        warning = f"Metric.Eval: {other} is not evaluated: {tmp_path}/alone has no weights of it"
        assert warning in capsys.readouterr().out


def test_a_frozen_network_is_evaluated_on_request(recipe, write_recipe, tmp_path):
    path = write_recipe(students(recipe, "Student", main="Student"))
    network = ppcls.create_model("resnet8", class_num=4)
    write_params(tmp_path / "teacher.pdparams", network.state_dict())
    weights = [f"Global.pretrained_model={tmp_path}/teacher", "Arch.infer_model_name=Frozen"]
    run = engine(path, "eval", *weights)
    found = run.eval()
    expected = measured(run, {name: value.numpy() for name, value in network.state_dict().items()})
    assert (found["top1"], found["loss"]) == pytest.approx(expected, rel=1e-4)


def test_a_frozen_network_is_not_trained_for(recipe, write_recipe, tmp_path, capsys):
    path = write_recipe(students(recipe, "Student"))
    assert main(["train", "-c", str(path), "-o", "Arch.infer_model_name=Frozen"]) == 2
    assert "Arch.infer_model_name: Frozen is frozen" in capsys.readouterr().err
    assert not (tmp_path / "output").exists() or not list((tmp_path / "output/DistillationModel").glob("*"))


# ------------------------------------------------------------------ what chooses


@pytest.fixture
def metrics_of_a_plugin():
    """Register metrics as a plug-in does, and take them away afterwards."""

    @METRICS.register("MeanLogit")
    class MeanLogit(Metric):
        def __init__(self, scale: float = 1.0, higher: bool = False) -> None:
            self.scale, self.higher_is_better = scale, higher

        def __call__(self, outputs, label):
            return {"mean_logit": self.output_of(outputs).mean() * self.scale, "second": 0.5}

    @METRICS.register("Undeclared")
    class Undeclared:
        def __call__(self, outputs, label):
            return {"odd": paddle.mean(outputs)}

    @METRICS.register("Broken")
    class Broken(Metric):
        def __init__(self, gives: str) -> None:
            self.gives = gives

        def __call__(self, outputs, label):
            return {
                "tensor": label.mean(),
                "empty": {},
                "matrix": {"a": self.output_of(outputs)},
                "loss": {"loss": 1.0},
                "averaged": {"a_ema": 1.0},
            }[self.gives]

    yield
    for name in ("MeanLogit", "Undeclared", "Broken"):
        del METRICS._items[name]


@pytest.mark.parametrize(
    ("metrics", "name", "values", "best"),
    [
        ([{"MeanLogit": None}, {"TopkAcc": {"topk": 1}}], "mean_logit", [0.5, -2.0, 0.1], 2),
        ([{"MeanLogit": {"higher": True}}, {"TopkAcc": {"topk": 1}}], "mean_logit", [-5.0, -2.0, -3.0], 2),
        ([{"TopkAcc": {"topk": [2, 1]}}, {"MeanLogit": None}], "top2", [0.5, 0.9, 0.6], 2),
        ([{"Undeclared": None}], "odd", [0.5, 0.9, 0.6], 2),
        ([{"MeanLogit": None}], "mean_logit", [math.nan, 0.5, 0.6], 2),
        ([], "loss", [0.5, 0.2, math.inf], 2),
    ],
)
def test_the_first_metric_chooses_in_its_direction(
    recipe, write_recipe, tmp_path, capsys, metrics_of_a_plugin, metrics, name, values, best
):
    recipe["Global"]["epochs"] = 3
    recipe["Metric"]["Eval"] = metrics
    found = engine(write_recipe(recipe)).train(hooks=[Scripted(**{name: values})])
    assert found["epoch"] == best
    assert found[name] == values[best - 1]
    assert f"[Eval][Epoch 3][best metric: {values[best - 1]:.5f}]" in capsys.readouterr().out
    folder = tmp_path / "output/resnet8"
    assert_same(*(read_params(folder / f"{tag}.pdparams") for tag in ("best_model", f"epoch_{best}")))


def test_a_metric_of_a_plugin_follows_each_student(recipe, write_recipe, tmp_path, metrics_of_a_plugin):
    recipe = students(recipe, "Student", "Student2")
    recipe["Metric"] = {"Eval": [{"MeanLogit": {"scale": -1.0}}]}
    run = engine(write_recipe(recipe), "train", "Global.epochs=1")
    run.train()
    progress = Checkpointer(tmp_path / "output/DistillationModel").load("latest").progress
    (row,) = rows(tmp_path)
    assert progress.best_score == -row["mean_logit"]
    assert progress.students["Student2"].score == -row["mean_logit_Student2"]
    assert row["mean_logit"] != row["mean_logit_Student2"]


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        ("tensor", r"Metric.Eval.0.Broken: expected values by name .*, got a tensor of shape"),
        ("empty", "Metric.Eval.0.Broken: expected values by name .*, got an empty map"),
        ("matrix", r"Metric.Eval.0.Broken: a: expected one number.*got a tensor of shape \[2, 4\]"),
        ("loss", "two values of an evaluation are called 'loss'"),
        ("averaged", "'a_ema' cannot name a value"),
    ],
)
def test_a_broken_metric_is_named_before_training(
    recipe, write_recipe, tmp_path, metrics_of_a_plugin, gives, message
):
    recipe["Metric"]["Eval"] = [{"Broken": {"gives": gives}}]
    with pytest.raises(ConfigError, match=message):
        engine(write_recipe(recipe)).train()
    assert not list((tmp_path / "output").rglob("*.pd*"))


@pytest.mark.parametrize(
    ("mode", "criterion", "watched"),
    [
        ("max", Criterion("top1", True), 0.25),
        ("min", Criterion("top1", True), 2.0),
        ("max", Criterion("error", False), -0.75),
        ("min", Criterion("error", False), 0.75),
        ("max", LOSS, -2.0),
        ("min", LOSS, 2.0),
    ],
)
def test_what_reduce_on_plateau_watches(mode, criterion, watched):
    schedules = [ComponentSpec("Cosine", {}, "0"), ComponentSpec("ReduceOnPlateau", {"mode": mode}, "1")]
    metrics = {"loss": 2.0, "top1": 0.25, "error": 0.75}
    assert plateau_metric(schedules, criterion)(metrics) == watched


def test_an_equal_score_is_not_better_and_nothing_infinite_is_the_first():
    assert is_better(-5.0, None)
    assert is_better(0.5, 0.25)
    assert not is_better(0.25, 0.5)
    assert not is_better(0.5, 0.5)
    assert not is_better(-math.inf, None)


def test_a_best_evaluation_is_compared_with_its_like_only(caplog):
    accuracy = Criterion("top1", True)

    def resumed(best_by, **more):
        best = {"loss": 1.5, "top1": 0.5, **more}
        progress = Progress(best=best, best_score=0.5, best_epoch=3, best_by=best_by, waited=2)
        progress.students = {"B": StudentBest(0.5, 1)}
        return progress

    def kept(progress, criterion, network):
        caplog.clear()
        compare_by(progress, criterion, network)
        assert progress.best_by == f"{criterion.name} of {network}"
        lost = "the search for the best begins again" in caplog.text
        expected = (None, None, 0, {}) if lost else (0.5, 3, 2, {"B": StudentBest(0.5, 1)})
        assert (progress.best_score, progress.best_epoch, progress.waited, progress.students) == expected
        return not lost

    assert kept(resumed("top1 of A"), accuracy, "A")
    assert not kept(resumed("top1 of A"), accuracy, "B")
    assert not kept(resumed("top1 of A"), LOSS, "A")
    assert kept(resumed(""), accuracy, "A")  # written before the field was there
    assert not kept(resumed(""), LOSS, "A")  # chosen by another value
    assert not kept(resumed(""), Criterion("error", False), "A")
    fresh = Progress()
    compare_by(fresh, accuracy, "A")
    assert fresh == Progress(best_by="top1 of A")

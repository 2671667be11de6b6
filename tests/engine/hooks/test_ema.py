"""Averaged weights."""

import json

import numpy as np
import paddle
import pytest
from support import distilled

from ppcls.config import load_config
from ppcls.distilling.result import measure_of
from ppcls.engine import Engine
from ppcls.engine.from_run import load_run
from ppcls.engine.hooks import Hook
from ppcls.engine.hooks.ema import ModelEMA
from ppcls.errors import WeightsError
from ppcls.report.comparison import compare
from ppcls.report.record import read_record
from ppcls.report.runs import read_run
from ppcls.weights import read_params


def test_averages_follow_the_formula():
    tensor = paddle.to_tensor([1.0, -2.0])
    count = paddle.to_tensor([3])
    ema = ModelEMA({"w": tensor, "n": count}, decay=0.5)
    expected = np.array([1.0, -2.0])
    for step in range(1, 30):
        tensor.set_value(np.array([step, step**2], "float32"))
        count.set_value(np.array([step]))
        d = min(0.5, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * np.array([step, step**2])
        ema.update(step)
    np.testing.assert_allclose(ema.state()["w"].numpy(), expected, rtol=1e-6)
    assert ema.state()["n"].item() == 29
    with ema.applied():
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-6)
    np.testing.assert_array_equal(tensor.numpy(), [29, 29**2])


@pytest.mark.parametrize(
    ("step", "decay", "d"),
    [(1, 0.999, 2 / 11), (2, 0.999, 3 / 12), (90, 0.999, 0.91), (8990, 0.999, 0.999), (9000, 0.999, 0.999),
     (1, 0.1, 0.1), (10**7, 0.9999, 0.9999)],
)  # fmt: skip
def test_the_warm_up_is_that_of_its_definition(step, decay, d):
    """min(decay, (1 + t) / (10 + t)) with t counted from 1, by numbers worked out by hand."""
    tensor = paddle.to_tensor([1.0], dtype="float32")
    ema = ModelEMA({"w": tensor}, decay)
    tensor.set_value(np.zeros([1], "float32"))
    ema.update(step)
    assert ema.state()["w"].item() == pytest.approx(d, rel=1e-6)


class Follow(Hook):
    """Average the weights in numpy, by the definition."""

    def __init__(self, decay):
        self.decay = decay

    def before_train(self, run):
        self.averages = self.weights(run)

    def after_step(self, run, batch):
        step = run.progress.step
        d = min(self.decay, (1 + step) / (10 + step))
        for name, value in self.weights(run).items():
            self.averages[name] = d * self.averages[name] + (1 - d) * value

    @staticmethod
    def weights(run):
        return {name: value.numpy().astype("float64") for name, value in run.parts.model.state_dict().items()}


def test_a_run_averages_from_step_1_as_defined(recipe, write_recipe, tmp_path):
    recipe["EMA"] = {"decay": 0.9}
    follow = Follow(0.9)
    options = ["Global.epochs=1", "Global.eval_during_train=False"]
    Engine(load_config(write_recipe(recipe), options)).train(hooks=[follow])
    saved = read_params(tmp_path / "output/resnet8/latest.pdema")
    assert saved.keys() == follow.averages.keys()
    for name, value in saved.items():
        np.testing.assert_allclose(value, follow.averages[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_weights_come_back_when_the_evaluation_fails():
    tensor = paddle.to_tensor([1.0])
    ema = ModelEMA({"w": tensor}, 0.9)
    tensor.set_value(np.array([5.0], "float32"))

    def fail():
        with ema.applied():
            assert tensor.item() == 1.0
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert tensor.item() == 5.0


def test_averages_of_another_network_are_refused():
    ema = ModelEMA({"w": paddle.ones([2])}, 0.9)
    for state in ({}, {"w": np.ones([3], "float32")}, {"v": np.ones([2], "float32")}):
        with pytest.raises(WeightsError, match="another network"):
            ema.restore(state, "latest.pdema")


def test_a_run_keeps_and_resumes_them(recipe, write_recipe, tmp_path):
    recipe["EMA"] = {"decay": 0.9}
    path = write_recipe(recipe)
    Engine(load_config(path, [f"Global.output_dir={tmp_path}/whole"])).train()
    cut = [f"Global.output_dir={tmp_path}/cut"]
    Engine(load_config(path, [*cut, "Global.save_interval=1"])).train()
    folder = tmp_path / "cut" / "resnet8"
    for file in folder.glob("latest.*"):
        file.unlink()
    for file in folder.glob("epoch_1.*"):
        file.rename(folder / file.name.replace("epoch_1", "latest"))
    Engine(load_config(path, [*cut, f"Global.checkpoints={folder}/latest"])).train()
    for suffix in (".pdparams", ".pdema"):
        whole, resumed = (read_params(tmp_path / d / "resnet8" / f"latest{suffix}") for d in ("whole", "cut"))
        for name, value in whole.items():
            np.testing.assert_array_equal(resumed[name], value, err_msg=name + suffix)
    raw, averaged = (read_params(tmp_path / "whole/resnet8" / f"latest{s}") for s in (".pdparams", ".pdema"))
    assert raw.keys() == averaged.keys()
    assert any((raw[name] != averaged[name]).any() for name in raw)
    rows = [json.loads(line) for line in (tmp_path / "whole/resnet8/metrics.jsonl").read_text().splitlines()]
    assert "top1_ema" in rows[-1]
    best = f"Global.pretrained_model={tmp_path}/whole/resnet8/best_model_ema"
    found = Engine(load_config(path, [best], "eval"), "eval").eval()
    top = max(row["top1_ema"] for row in rows if row["kind"] == "eval")
    assert found["top1"] == pytest.approx(top)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "distillation"])
def test_static_graphs_train_alike(recipe, write_recipe, tmp_path, kind):
    if kind == "distillation":  # with features, and a loss that has parameters
        pair = {"model_name_pairs": [["Student", "Teacher"]]}
        maps = {"base_loss_name": "MGDLoss", "s_key": "blocks[1]", "t_key": "blocks[3]"}
        recipe = distilled(
            recipe,
            DistillationKLDivLoss={**pair, "key": "logits"},
            DistillationPairLoss={**pair, **maps},
        )
        for network, layer in zip(recipe["Arch"]["models"], ("blocks[3]", "blocks[1]"), strict=True):
            next(iter(network.values()))["return_patterns"] = [layer]
    path = write_recipe(recipe)
    results = {}
    for static in (False, True):
        output = tmp_path / str(static)
        Engine(load_config(path, [f"Global.output_dir={output}", f"Global.to_static={static}"])).train()
        results[static] = read_params(output / recipe["Arch"]["name"] / "latest.pdparams")
    for name, value in results[False].items():
        np.testing.assert_allclose(results[True][name], value, rtol=1e-4, atol=1e-5, err_msg=name)


class Measures(Hook):
    """Replaces what evaluations found, by epoch: accuracy of the weights and of their averages."""

    def __init__(self, *found):
        self.found = found

    def after_eval(self, run, metrics):
        metrics["top1"], metrics["top1_ema"] = self.found[run.progress.epoch - 1]


@pytest.mark.parametrize(
    ("found", "best", "epoch", "file"),
    [
        ([(0.7, 0.6), (0.65, 0.8)], 0.8, 2, "best_model_ema"),
        ([(0.7, 0.6), (0.65, 0.7)], 0.7, 1, "best_model"),
        ([(0.6, 0.9), (0.7, 0.8)], 0.9, 1, "best_model_ema"),
    ],
)
def test_a_run_is_known_by_the_better_of_weights_and_averages(
    recipe, tmp_path, capsys, found, best, epoch, file
):
    recipe["EMA"] = {"decay": 0.9}
    recipe["Global"]["report"] = True
    result = Engine(recipe, "train").train([Measures(*found)])
    assert (result["top1"], result["epoch"]) == (best, epoch)
    folder = tmp_path / "output/resnet8"
    run = read_run(folder)
    assert run.weights().name == file
    assert (run.best_epoch, run.best_metrics["top1"], measure_of(run)) == (epoch, best, "top1")
    (row,) = compare([folder])
    assert (row.score, row.record.run.best_epoch) == (best, epoch)
    printed = capsys.readouterr().out
    assert f"best epoch {epoch}, by top1" in printed
    assert f"top1 {best:.5f}" in printed
    assert read_record(folder).problems == ()
    page = (folder / "report.html").read_text("utf-8")
    assert ("Best evaluation of the averaged weights" in page) == file.endswith("_ema")
    load_run(folder, [], "eval")
    assert f"weights {file} of epoch {epoch}" in capsys.readouterr().out

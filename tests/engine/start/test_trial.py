"""What is tried out before a run leaves no trace in it but the lines of its log."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn
from support import KL, distilled, slow_unless, train

from ppcls.cli import main
from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.engine.start import trial
from ppcls.engine.train import train as run_loop
from ppcls.errors import ConfigError
from ppcls.registry import BACKBONES, LOSSES
from ppcls.weights import read_params


def same_end(one: Path, other: Path) -> None:
    for suffix in (".pdparams", ".pdopt"):
        first, second = (read_params(folder / f"latest{suffix}") for folder in (one, other))
        assert first.keys() == second.keys()
        for name in first:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    rows = []
    for folder in (one, other):
        rows.append([json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()])
        for row in rows[-1]:
            for measured in ("batch_cost", "reader_cost", "ips"):
                row.pop(measured, None)
    assert rows[0] == rows[1]


def _mgd(recipe):
    recipe = distilled(
        recipe,
        **KL,
        DistillationPairLoss={
            "model_name_pairs": [["Student", "Teacher"]], "base_loss_name": "MGDLoss",
            "s_key": "blocks[1]", "t_key": "blocks[3]",
        },
    )  # fmt: skip
    for network, layer in zip(recipe["Arch"]["models"], ("blocks[3]", "blocks[1]"), strict=True):
        next(iter(network.values()))["return_patterns"] = [layer]
    recipe["DataLoader"]["UnLabelTrain"] = copy.deepcopy(recipe["DataLoader"]["Eval"])
    return recipe


def _drawing(recipe):
    recipe["Arch"] = {"name": "MobileNetV3_small_x0_35", "class_num": 4, "dropout_prob": 0.5}
    recipe["Global"]["update_freq"] = 2
    recipe["EMA"] = {"decay": 0.9}
    del recipe["Metric"]["Train"]
    mixing = {"MixupOperator": {"alpha": 0.8, "prob": 0.5}, "CutmixOperator": {"alpha": 1.0, "prob": 0.5}}
    recipe["DataLoader"]["Train"]["dataset"]["batch_transform_ops"] = [{"OpSampler": mixing}]
    return recipe


def _static(recipe):
    recipe["Global"]["to_static"] = True
    return recipe


@pytest.mark.parametrize(
    "kind",
    slow_unless(lambda kind: kind is _drawing, [_mgd, _drawing, _static]),
    ids=lambda kind: kind.__name__,
)
def test_trying_out_leaves_no_trace(recipe, write_recipe, tmp_path, kind):
    """With statistics, losses with parameters, randomness of layers, losses and batches, and accumulation."""
    recipe = kind(recipe)
    path, name = write_recipe(recipe), recipe["Arch"]["name"]
    assert train(path, f"Global.output_dir={tmp_path}/tried") == 0
    run = Engine(
        load_config(path, [f"Global.output_dir={tmp_path}/not", "Global.check_teacher=false"])
    ).build_run()
    run_loop(run)
    run.parts.loader.close()
    rows = tmp_path / f"tried/{name}/metrics.jsonl"
    lines = rows.read_text().splitlines(keepends=True)
    rows.write_text("".join(line for line in lines if '"teacher"' not in line))
    same_end(tmp_path / f"tried/{name}", tmp_path / f"not/{name}")


@LOSSES.register()
class Remembering(nn.Layer):
    """A loss that keeps state in every way in which a layer can."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("replaced", paddle.zeros([1]))
        self.register_buffer("changed", paddle.zeros([1]), persistable=False)
        self.learned = self.create_parameter([1])
        self.calls, self.last = 0, None

    def forward(self, logits, label=None):
        self.replaced = self.replaced + 1
        self.changed.add_(paddle.ones([1]))
        self.calls, self.last = self.calls + 1, logits
        random.random()
        np.random.rand()
        return (logits.mean() * self.learned).sum()


def test_whatever_layers_keep_is_put_back(recipe, write_recipe):
    recipe["Loss"]["Train"].append({"Remembering": {}})
    run = Engine(load_config(write_recipe(recipe))).build_run()
    (loss,) = (layer for layer in run.parts.loss.sublayers() if isinstance(layer, Remembering))
    seen = loss.calls, loss.replaced.item(), loss.changed.item(), loss.last
    drawn = [state() for state in (random.getstate, lambda: np.random.get_state()[2])]
    seed, measured, metric = paddle.get_rng_state("cpu")[0].current_seed(), [], run.parts.metric
    run.parts.metric = lambda outputs, label: measured.append(len(label)) or metric(outputs, label)
    state = {name: value.numpy() for name, value in run.parts.model.state_dict().items()}
    trial.try_out(run)
    run.parts.loader.close()
    assert (loss.calls, loss.replaced.item(), loss.changed.item(), loss.last) == seen
    assert all(parameter.grad is None for parameter in run.parts.trained)
    for name, value in run.parts.model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[name], err_msg=name)
    assert paddle.get_rng_state("cpu")[0].current_seed() == seed
    assert [state() for state in (random.getstate, lambda: np.random.get_state()[2])] == drawn
    assert measured == [5]
    assert not run.meters.state()
    assert run.parts.model.training


@pytest.mark.parametrize(("done", "size"), [(0, [5]), (2, [2]), (3, [])])
def test_the_batch_that_comes_next_is_tried(recipe, write_recipe, done, size):
    """The third and last one has 2 images; after it only the evaluation of the epoch is left."""
    run = Engine(load_config(write_recipe(recipe))).build_run()
    run.progress.batch, run.parts.evaluation, seen = done, None, []
    run.parts.model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    trial.try_out(run)
    run.parts.loader.close()
    assert seen == size


def test_evaluations_that_never_come_are_not_tried(recipe, write_recipe):
    recipe["Global"]["start_eval_epoch"] = 3
    run = Engine(load_config(write_recipe(recipe))).build_run()
    evaluated = []
    run.parts.evaluation.measure = lambda epoch: evaluated.append(epoch) or {}
    trial.try_out(run)
    assert evaluated == []
    run.settings.epochs = 3
    trial.try_out(run)
    assert evaluated == [1]
    run.parts.loader.close()


def test_lines_of_the_start_are_in_the_log(home, capsys):
    assert train(home / "plain.yaml", "Global.pretrained_model=nowhere") == 2
    assert train(home / "plain.yaml", f"Global.pretrained_model={home}/keep/resnet8/best_model") == 0
    written = (home / "keep/resnet8/train.log").read_text().splitlines()
    printed = [line for line in capsys.readouterr().out.splitlines() if " INFO: " in line]
    assert written == printed[-len(written) :]
    assert any("tensors loaded from" in line for line in written[:3])
    assert any("holds an earlier run; it is kept as" in line for line in written)
    assert not any("nowhere" in line for line in written)
    best = f"Global.pretrained_model={home}/keep/resnet8/best_model"
    assert main(["eval", "-c", str(home / "plain.yaml"), "-o", best]) == 0
    after = (home / "keep/resnet8/train.log").read_text().splitlines()
    assert after[: len(written)] == written
    assert any("tensors loaded from" in line for line in after[len(written) :])
    assert "[Eval][Epoch 0][Avg]" in after[-1]


def test_warnings_about_the_recipe_are_in_the_log_too(home):
    assert train(home / "plain.yaml", "EarlyStopping={patience: 2}") == 0
    assert "EarlyStopping.patience: has no effect" in (home / "keep/resnet8/train.log").read_text()


@LOSSES.register()
class WithoutGradient(nn.Layer):
    """A loss that is constant, or computed from detached logits."""

    def __init__(self, detached: bool = False) -> None:
        super().__init__()
        self.detached = detached

    def forward(self, logits, label=None):
        return logits.detach().square().mean() if self.detached else paddle.to_tensor(1.5)


@pytest.mark.parametrize("detached", [False, True])
def test_losses_from_which_nothing_is_learned_are_refused(recipe, write_recipe, tmp_path, capsys, detached):
    recipe["Loss"]["Train"] = [{"WithoutGradient": {"detached": detached}}]
    assert train(write_recipe(recipe)) == 1
    assert (
        "no network would learn: the losses (WithoutGradient) give no trained parameter"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "output").exists()
    recipe["Loss"]["Train"].append({"CELoss": None})
    assert train(write_recipe(recipe), "Global.epochs=1") == 0
    output = capsys.readouterr().out
    assert output.count("Loss.Train: WithoutGradient has no gradient, so nothing is learned from it") == 1


class Returning(nn.Layer):
    """A network that returns something in a form of its own."""

    def __init__(self, form: str, classes: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2D(3, classes, 3, stride=4)
        self.form = form

    def forward(self, x):
        maps = self.convolution(x)
        logits = maps.mean([2, 3])
        return {
            "logits": logits,
            "map": {"logits": logits, "maps": maps},
            "tuple": (logits, maps),
            "list": [logits],
            "maps": maps,
            "map of maps": {"logits": maps},
            "column": logits.mean(1),
            "number": 3,
        }[self.form]


@BACKBONES.register()
class ReturnsWhatItLikes(Returning):
    def __init__(self, class_num: int = 1000, form: str = "logits", more: int = 0) -> None:
        super().__init__(form, class_num + more)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(
    ("options", "got"),
    [
        ({"more": 3}, r"the shape \[N, 7\]"),
        ({"more": -1}, r"the shape \[N, 3\]"),
        ({"form": "tuple"}, "tuple"),
        ({"form": "list"}, "list"),
        ({"form": "maps"}, r"the shape \[N, 4, 4, 4\]"),
        ({"form": "map of maps"}, r"the shape \[N, 4, 4, 4\]"),
        ({"form": "column"}, r"the shape \[N\]"),
        ({"form": "number"}, "int"),
    ],
)
def test_a_network_that_does_not_return_logits_is_named(
    recipe, write_recipe, tmp_path, options, got, several
):
    where = "Arch"
    if several:
        recipe = distilled(recipe, **KL)
        recipe["Arch"]["models"][1] = {"Student": {"name": "ReturnsWhatItLikes", **options}}
        where = "Arch.models.1.Student"
    else:
        recipe["Arch"] = {"name": "ReturnsWhatItLikes", "class_num": 4, **options}
    text = rf"^{where}: the network ReturnsWhatItLikes has to return logits \[N, 4\], .* returns {got} \("
    with pytest.raises(ConfigError, match=text):
        Engine(load_config(write_recipe(recipe))).train()
    assert not (tmp_path / "output").exists()


def test_a_student_that_learns_features_alone_needs_no_logits(recipe, write_recipe):
    recipe = distilled(
        recipe,
        DistillationDistanceLoss={
            "model_name_pairs": [["Student", "Teacher"]], "mode": "l2", "key": "blocks[1]",
        },
    )  # fmt: skip
    recipe["Arch"]["models"] = [
        {"Teacher": {"name": "resnet8", "return_patterns": ["blocks[1]"]}},
        {"Student": {"name": "resnet8", "return_patterns": ["blocks[1]"], "stop_after": "blocks[2]"}},
    ]
    recipe["Global"] |= {"eval_during_train": False, "epochs": 1}
    del recipe["Metric"], recipe["Loss"]["Eval"]
    assert train(write_recipe(recipe)) == 0


@pytest.mark.parametrize("form", ["logits", "map"])
def test_a_network_that_returns_logits_trains(recipe, write_recipe, form):
    recipe["Arch"] = {"name": "ReturnsWhatItLikes", "class_num": 4, "form": form}
    assert train(write_recipe(recipe), "Global.epochs=1") == 0

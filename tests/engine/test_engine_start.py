"""A start that fails leaves every file as it was, and one that passes is the run that it would have been."""

from __future__ import annotations

import copy
import errno
import json
import os
import random
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
import yaml
from paddle import nn
from support import distilled, tiny_recipe

import ppcls
from ppcls.cli import main
from ppcls.config import load_config
from ppcls.engine import Engine, trial
from ppcls.engine.lock import RunLock, lock_path
from ppcls.engine.resume import find_checkpoint
from ppcls.engine.run_folder import follow_earlier_run, following
from ppcls.errors import ConfigError, DataError
from ppcls.registry import LOSSES
from ppcls.weights import read_params, write_params

KL = {"DistillationKLDivLoss": {"model_name_pairs": [["Student", "Teacher"]], "temperature": 4.0}}


def tree(root: Path) -> dict:
    """Return everything below a folder: kind, content and time of the last change of each entry."""
    found = {}
    for path in sorted(root.rglob("*")):
        about = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = (about.st_mode, about.st_mtime_ns, content)
    return found


def train(path: Path, *overrides: str) -> int:
    return main(["train", "-c", str(path), *(part for text in overrides for part in ("-o", text))])


@LOSSES.register()
class Brittle(nn.Layer):
    """A loss that fails in the pass that it is told to."""

    def __init__(self, fails: str = "never") -> None:
        super().__init__()
        self.fails = fails

    def forward(self, logits, label=None):
        if self.fails == ("train" if self.training else "eval"):
            raise DataError(f"brittle in {self.fails}")
        if self.fails == "backward" and self.training:
            logits.register_hook(self._break)
        return (logits * (float("nan") if self.fails == "nan" and self.training else 0)).sum()

    @staticmethod
    def _break(gradient):
        raise DataError("brittle in backward")


# ---------------------------------------------------------------- starts that fail


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with images and two finished runs, `keep/resnet8` and `keep/DistillationModel`."""
    home = tmp_path_factory.mktemp("finished")
    images = home / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    lines = [f"{number}.png {number % 4}\n" for number in range(12)]
    for number in range(12):
        cv2.imwrite(str(images / f"{number}.png"), rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    (images / "train_list.txt").write_text("".join(lines))
    (images / "val_list.txt").write_text("".join(lines[:7]))
    plain = tiny_recipe(images, home / "keep")
    plain["Global"] |= {"epochs": 1, "save_interval": 2}
    (home / "plain.yaml").write_text(yaml.safe_dump(plain))
    both = distilled(copy.deepcopy(plain), **KL)
    (home / "both.yaml").write_text(yaml.safe_dump(both))
    for name in ("plain", "both"):
        assert train(home / f"{name}.yaml") == 0
    return home


@pytest.fixture
def home(finished, tmp_path):
    """A copy of them, with the remains of a save that was cut off."""
    copied = tmp_path / "home"
    shutil.copytree(finished, copied)
    for name in ("plain", "both"):
        text = (copied / f"{name}.yaml").read_text().replace(str(finished), str(copied))
        (copied / f"{name}.yaml").write_text(text)
    (copied / "keep/resnet8/latest.pdopt.new").write_bytes(b"half")
    return copied


def spoil_image(name):
    return lambda home: (home / "images" / name).write_bytes(b"no image")


def spoil_list(text):
    return lambda home: (home / "images/train_list.txt").write_text(text)


def spoil_checkpoint(home):
    path = home / "keep/resnet8/latest.pdparams"
    path.write_bytes(path.read_bytes()[:-9])


def other_weights(home):
    write_params(home / "other.pdparams", {"conv.weight": np.zeros([3, 3], "float32")})


def odd_image(home):
    cv2.imwrite(str(home / "images/4.png"), np.zeros((40, 32, 3), np.uint8))


def unlabelled(home):
    recipe = yaml.safe_load((home / "both.yaml").read_text())
    node = recipe["DataLoader"]["UnLabelTrain"] = copy.deepcopy(recipe["DataLoader"]["Eval"])
    node["dataset"]["cls_label_path"] = str(home / "images/pool.txt")
    (home / "images/pool.txt").write_text("pool.png 0\n")
    spoil_image("pool.png")(home)
    (home / "both.yaml").write_text(yaml.safe_dump(recipe))


def with_brittle(part):
    def change(home):
        recipe = yaml.safe_load((home / "plain.yaml").read_text())
        recipe["Loss"]["Eval" if part == "eval" else "Train"].append({"Brittle": {"fails": part}})
        (home / "plain.yaml").write_text(yaml.safe_dump(recipe))

    return change


def list_images_in_the_folder(home):
    shutil.copy(home / "images/0.png", home / "keep/resnet8/0.png")
    (home / "images/val_list.txt").write_text("images/1.png 1\nkeep/resnet8/0.png 0\n")


def folders_in_the_way(name):
    def change(home):
        (home / "keep/resnet8" / name).unlink()
        (home / "keep/resnet8" / name).mkdir()

    return change


def file_in_the_way(name):
    return lambda home: (home / "keep/resnet8" / name).write_text("in the way")


def nothing(home):
    pass


KEEP = "{home}/keep/resnet8"
# What is spoilt before, the recipe, overrides, exit code, a part of the message.
STARTS = {
    "no weights": (nothing, "plain", [f"Global.pretrained_model={KEEP}/x"], 2, "no weights file"),
    "other weights": (other_weights, "plain", ["Global.pretrained_model={home}/other"], 2, "other.pdparams"),
    "cut-off weights": (
        spoil_checkpoint, "plain", [f"Global.pretrained_model={KEEP}/latest"], 2, "latest.pdparams",
    ),
    "class_num": (nothing, "plain", ["Arch.class_num=3"], 2, "the label must be in 0..2"),
    "no list": (nothing, "plain", ["DataLoader.Train.dataset.cls_label_path=x.txt"], 2, "no such list"),
    "no list of evaluation": (
        nothing, "plain", ["DataLoader.Eval.dataset.cls_label_path=x.txt"], 2, "no such list",
    ),
    "a wrong list": (spoil_list("0.png zero\n"), "plain", [], 2, "train_list.txt:1"),
    "few images": (
        spoil_list("0.png 0\n"), "plain", ["DataLoader.Train.sampler.drop_last=True"], 2, "a step takes",
    ),
    "first image": (spoil_image("0.png"), "plain", [], 2, "0.png (sample 0)"),
    "an image of the first batch": (
        spoil_image("7.png"), "plain", ["DataLoader.Train.sampler.batch_size=12"], 2, "7.png (sample 7)",
    ),
    "an image of the first batch of evaluation": (spoil_image("4.png"), "plain", [], 2, "4.png (sample 4)"),
    "an image of another size": (
        odd_image, "plain", ["DataLoader.Train.sampler.batch_size=12"], 2, "4.png (sample 4)",
    ),
    "an image without label": (unlabelled, "both", [], 2, "pool.png"),
    "an image that teachers are checked on": (spoil_image("6.png"), "both", [], 2, "6.png (sample 6)"),
    "a loss in training": (with_brittle("train"), "plain", [], 2, "brittle in train"),
    "a loss in evaluation": (with_brittle("eval"), "plain", [], 2, "brittle in eval"),
    "a loss that is not finite": (
        with_brittle("nan"), "plain", [], 1, "the loss is not finite on the first batch, before anything",
    ),
    "a key of a loss": (
        nothing, "both", ["Loss.Train.0.DistillationKLDivLoss.key=nowhere"], 2, "nowhere",
    ),
    "a teacher": (nothing, "both", ["Arch.models.0.Teacher.pretrained={home}/keep/x"], 2, "no weights file"),
    "a student": (nothing, "both", ["Arch.models.1.Student.pretrained={home}/keep/x"], 2, "no weights file"),
    "an optimizer": (nothing, "plain", ["Optimizer.scope=nowhere"], 2, "nowhere"),
    "no checkpoint": (
        nothing, "plain", [f"Global.checkpoints={KEEP}/epoch_9", "Global.epochs=2"], 2, "epoch_9",
    ),
    "a damaged checkpoint": (
        spoil_checkpoint, "plain", [f"Global.checkpoints={KEEP}/latest", "Global.epochs=2"], 2, "is damaged",
    ),
    "a checkpoint of other classes": (
        nothing, "plain", ["Global.checkpoints=auto", "Global.epochs=2", "Arch.class_num=5"], 2, "latest",
    ),
    "a checkpoint of another optimizer": (
        nothing, "plain", ["Global.checkpoints=auto", "Global.epochs=2", "Optimizer.name=AdamW",
                           "Optimizer.momentum=null"], 2, "",
    ),
    "images of an auto-resumed run": (
        spoil_image("4.png"), "plain", ["Global.checkpoints=auto", "Global.epochs=2"], 2, "4.png",
    ),
    "a file in the way": (nothing, "plain", ["Global.output_dir={home}/plain.yaml/x"], 2, "Not a directory"),
    "a new folder": (
        nothing, "plain", ["Global.output_dir={home}/new/deep", "Global.pretrained_model=x"], 2, "no weights",
    ),
    "a new folder, a wrong image": (
        spoil_image("4.png"), "plain", ["Global.output_dir={home}/new/deep"], 2, "4.png (sample 4)",
    ),
    "data in the folder": (
        lambda home: shutil.copytree(home / "images", home / "keep/resnet8/images"), "plain",
        ["DataLoader.Train.dataset.image_root={home}/keep/resnet8/images"], 2,
        "DataLoader.Train.dataset.image_root",
    ),
    "an image in the folder that a list names": (
        list_images_in_the_folder, "plain", ["DataLoader.Eval.dataset.image_root={home}"], 2,
        "DataLoader.Eval.dataset: {home}/keep/resnet8/0.png lies in {home}/keep/resnet8, which holds an earl",
    ),
    "folders in the way": (
        folders_in_the_way("environment.json"), "plain", ["Global.checkpoints=auto", "Global.epochs=2"], 2,
        "keep/resnet8/environment.json",
    ),
    "a file in the way of VisualDL": (
        file_in_the_way("vdl"), "plain",
        ["Global.checkpoints=auto", "Global.epochs=2", "Global.use_visualdl=true"], 2,
        "Global.use_visualdl: cannot write to {home}/keep/resnet8/vdl: Not a directory",
    ),
    "a file in the way of TensorBoard": (
        file_in_the_way("tensorboard"), "plain",
        ["Global.checkpoints=auto", "Global.epochs=2", "Global.use_tensorboard=true"], 2,
        "Global.use_tensorboard: cannot write to",
    ),
    "a broken link in the way": (
        lambda home: (home / "link").symlink_to(home / "nowhere"), "plain",
        ["Global.output_dir={home}/link/x"], 2, "Not a directory",
    ),
    "a name that is too long": (nothing, "plain", ["Global.output_dir=" + "x" * 300], 2, "name too long"),
    "a name with a zero byte": (nothing, "plain", ['Global.output_dir="a\\0b"'], 2, "zero bytes"),
}  # fmt: skip


@pytest.mark.parametrize("name", STARTS)
def test_a_start_that_fails_changes_nothing(home, name, capsys):
    spoil, recipe, overrides, code, text = STARTS[name]
    spoil(home)
    before = tree(home)
    assert train(home / f"{recipe}.yaml", *(override.format(home=home) for override in overrides)) == code
    assert text.format(home=home) in capsys.readouterr().err
    assert tree(home) == before


def test_a_package_that_is_missing_changes_nothing(home, monkeypatch):
    before = tree(home)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert train(home / "plain.yaml", "Global.use_tensorboard=true") == 2
    assert tree(home) == before


def test_a_backward_pass_that_fails_changes_nothing(home):
    with_brittle("backward")(home)
    before = tree(home)
    with pytest.raises(OSError, match="brittle in backward"):  # what Paddle makes of any error there
        train(home / "plain.yaml")
    assert tree(home) == before


def test_ctrl_c_during_the_start_changes_nothing(home, monkeypatch):
    before = tree(home)

    def interrupt(run):
        raise KeyboardInterrupt

    monkeypatch.setattr("ppcls.engine.engine.try_out", interrupt)
    assert train(home / "plain.yaml") == 130
    assert tree(home) == before


@pytest.mark.parametrize(
    ("output", "resumed", "call", "number"),
    [
        ("keep", False, "mkdir", 2),
        ("keep", False, "fsync", 2),
        ("keep", False, "rename", 1),  # of the earlier run
        ("keep", False, "rename", 2),  # of the new folder
        ("keep", True, "mkdir", 2),
        ("keep", True, "fsync", 3),
        ("keep", True, "replace", 1),
        ("new/deep", False, "mkdir", 2),
        ("new/deep", False, "fsync", 1),
        ("new/deep", False, "rename", 1),
    ],
)
def test_a_disk_that_is_full_changes_nothing(home, monkeypatch, capsys, output, resumed, call, number):
    """Whichever call is the one that fails when the folder is opened."""
    options = ["Global.epochs=2", "Global.checkpoints=auto"] if resumed else []
    before = tree(home)
    real, count = getattr(os, call), 0

    def full(*arguments, **more):
        nonlocal count
        count += 1
        if count == number:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        assert train(home / "plain.yaml", *options, f"Global.output_dir={home / output}") == 2
    assert "Global.output_dir: cannot write to" in capsys.readouterr().err
    assert tree(home) == before


def test_a_run_that_begins_at_the_same_moment_is_refused(home, monkeypatch, capsys):
    """Neither of them finds a lock when it starts; the second finds that of the first in the end."""
    (home / "keep/.resnet8.lock").unlink()
    real, other = trial.try_out, []

    def meanwhile(run):
        real(run)
        process = os.fork()
        if process == 0:
            lock = RunLock(home / "keep/resnet8")
            lock.claim()
            os.write(other[1], b"held")
            os.read(other[2], 1)
            os._exit(0)
        os.read(other[0], 4)
        other.append(process)

    other += [*os.pipe(), *os.pipe()]
    monkeypatch.setattr("ppcls.engine.engine.try_out", meanwhile)
    before = tree(home / "keep/resnet8")
    try:
        assert train(home / "plain.yaml") == 2
    finally:
        os.write(other[3], b".")
        os.waitpid(other[4], 0)
    assert f"another run is writing to {home}/keep/resnet8 (process {other[4]} on" in capsys.readouterr().err
    assert tree(home / "keep/resnet8") == before
    assert not (home / "keep/resnet8.earlier-1").exists()


OTHERS = {
    "eval without weights": (nothing, ["eval", "-c", "plain.yaml", "--report", "report"], "pretrained_model"),
    "eval of other weights": (
        nothing,
        ["eval", "-c", "plain.yaml", "--report", "new/report", "-o", "Global.pretrained_model=x"],
        "no weights file",
    ),
    "eval of an image": (
        spoil_image("0.png"),
        ["eval", "-c", "plain.yaml", "--report", "report", "-o", f"Global.pretrained_model={KEEP}/latest"],
        "0.png (sample 0)",
    ),
    "eval in a new folder": (
        spoil_image("0.png"),
        ["eval", "-c", "plain.yaml", "-o", f"Global.pretrained_model={KEEP}/latest",
         "-o", "Global.output_dir={home}/new/deep"],
        "0.png (sample 0)",
    ),
    "infer": (nothing, ["infer", "-c", "plain.yaml", "-o", "Global.pretrained_model=x"], "no weights file"),
    "infer of an image": (
        spoil_image("0.png"),
        ["infer", "-c", "plain.yaml", "-o", f"Global.pretrained_model={KEEP}/latest"],
        "0.png",
    ),
    "export": (
        nothing,
        ["export", "-c", "plain.yaml", "-o", "Global.pretrained_model=x",
         "-o", "Global.save_inference_dir={home}/new/deep"],
        "no weights file",
    ),
    "mine": (
        spoil_image("pool.png"),
        ["mine", "-c", "both.yaml", "--pool", "{home}/images/pool.png", "--output", "{home}/new/list.txt"],
        "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_another_command_that_fails_changes_nothing(home, name, monkeypatch, capsys):
    spoil, arguments, text = OTHERS[name]
    spoil(home)
    monkeypatch.chdir(home)
    before = tree(home)
    assert main([argument.format(home=home) for argument in arguments]) != 0
    assert text in capsys.readouterr().err
    assert tree(home) == before


def test_an_export_that_fails_on_the_way_leaves_no_folder(home, monkeypatch, capsys):
    before = tree(home)
    monkeypatch.setitem(sys.modules, "paddle2onnx", None)
    options = [
        f"Global.save_inference_dir={home}/new/deep",
        f"Global.pretrained_model={home}/keep/resnet8/latest",
    ]
    arguments = [part for text in (*options, "Global.export_onnx=true") for part in ("-o", text)]
    assert main(["export", "-c", str(home / "plain.yaml"), *arguments]) == 2
    assert "paddle2onnx" in capsys.readouterr().err
    assert tree(home) == before


# ---------------------------------------------------------------- starts that pass


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
    "kind", [_mgd, _drawing, pytest.param(_static, marks=pytest.mark.slow)], ids=lambda kind: kind.__name__
)
def test_trying_out_leaves_no_trace(recipe, write_recipe, tmp_path, monkeypatch, kind):
    """With statistics, losses with parameters, randomness of layers, losses and batches, and accumulation."""
    recipe = kind(recipe)
    path, name = write_recipe(recipe), recipe["Arch"]["name"]
    assert train(path, f"Global.output_dir={tmp_path}/tried") == 0
    with monkeypatch.context() as patch:
        patch.setattr("ppcls.engine.engine.try_out", lambda run: None)
        assert train(path, f"Global.output_dir={tmp_path}/not", "Global.check_teacher=false") == 0
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
    run, _ = Engine(load_config(write_recipe(recipe)))._build_run(None)
    (loss,) = (layer for layer in run.loss.sublayers() if isinstance(layer, Remembering))
    seen = loss.calls, loss.replaced.item(), loss.changed.item(), loss.last
    drawn = [state() for state in (random.getstate, lambda: np.random.get_state()[2])]
    seed, measured, metric = paddle.get_rng_state("cpu")[0].current_seed(), [], run.metric
    run.metric = lambda outputs, label: measured.append(len(label)) or metric(outputs, label)
    state = {name: value.numpy() for name, value in run.model.state_dict().items()}
    trial.try_out(run)
    run.loader.close()
    assert (loss.calls, loss.replaced.item(), loss.changed.item(), loss.last) == seen
    assert all(parameter.grad is None for parameter in run.trained)
    for name, value in run.model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[name], err_msg=name)
    assert paddle.get_rng_state("cpu")[0].current_seed() == seed
    assert [state() for state in (random.getstate, lambda: np.random.get_state()[2])] == drawn
    assert measured == [5]
    assert not run.meters.state()
    assert run.model.training


@pytest.mark.parametrize(("done", "size"), [(0, [5]), (2, [2]), (3, [])])
def test_the_batch_that_comes_next_is_tried(recipe, write_recipe, done, size):
    """The third and last one has 2 images; after it only the evaluation of the epoch is left."""
    run, _ = Engine(load_config(write_recipe(recipe)))._build_run(None)
    run.progress.batch, run.evaluate, seen = done, None, []
    run.model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    trial.try_out(run)
    run.loader.close()
    assert seen == size


def test_evaluations_that_never_come_are_not_tried(recipe, write_recipe):
    recipe["Global"]["start_eval_epoch"] = 3
    run, _ = Engine(load_config(write_recipe(recipe)))._build_run(None)
    evaluated = []
    run.evaluate = lambda epoch: evaluated.append(epoch) or {}
    trial.try_out(run)
    assert evaluated == []
    run.epochs = 3
    trial.try_out(run)
    assert evaluated == [1]
    run.loader.close()


def test_lines_of_the_start_are_in_the_log(home, capsys):
    assert train(home / "plain.yaml", "Global.pretrained_model=nowhere") == 2
    assert train(home / "plain.yaml", f"Global.pretrained_model={home}/keep/resnet8/best_model") == 0
    written = (home / "keep/resnet8/train.log").read_text().splitlines()
    printed = [line for line in capsys.readouterr().out.splitlines() if " INFO: " in line]
    assert written == printed[-len(written) :]
    assert "tensors loaded from" in written[0]
    assert any("holds an earlier run; it is kept as" in line for line in written)
    assert not any("nowhere" in line for line in written)
    best = f"Global.pretrained_model={home}/keep/resnet8/best_model"
    assert main(["eval", "-c", str(home / "plain.yaml"), "-o", best]) == 0
    after = (home / "keep/resnet8/train.log").read_text().splitlines()
    assert after[: len(written)] == written
    assert "tensors loaded from" in after[len(written)]
    assert "[Eval][Epoch 0][Avg]" in after[-1]


def test_warnings_about_the_recipe_are_in_the_log_too(home):
    assert train(home / "plain.yaml", "EarlyStopping={patience: 2}") == 0
    assert "EarlyStopping.patience: has no effect" in (home / "keep/resnet8/train.log").read_text()


# ---------------------------------------------------------------- paths into an earlier run


def test_weights_of_the_run_that_is_renamed_are_followed(home):
    """The teacher lies in the output folder of the distillation itself."""
    folder = home / "keep/DistillationModel"
    net = ppcls.create_model("resnet14", class_num=4)
    write_params(folder / "teacher.pdparams", net.state_dict())
    teacher = f"Arch.models.0.Teacher.pretrained={folder}/teacher"
    infer = f"Infer.infer_imgs={folder}/teacher.pdparams"
    assert train(home / "both.yaml", teacher, infer, "Global.epochs=2", "Global.save_interval=1") == 0
    earlier = home / "keep/DistillationModel.earlier-1"
    recorded = yaml.safe_load((folder / "config.yaml").read_text())
    assert recorded["Arch"]["models"][0]["Teacher"]["pretrained"] == f"{earlier}/teacher"
    assert recorded["Infer"]["infer_imgs"] == f"{earlier}/teacher.pdparams"
    assert recorded["Global"]["output_dir"] == str(home / "keep")
    whole = shutil.copytree(folder, home / "whole")

    # by now another file has this name: a resume reads the one that the run began with
    write_params(folder / "teacher.pdparams", ppcls.create_model("resnet14", class_num=4).state_dict())
    latest = [folder / f"latest{suffix}" for suffix in (".pdparams", ".pdopt", ".pdstates")]
    for file in latest:
        shutil.copy(folder / f"epoch_1{file.suffix}", file)
    before = (folder / "train.log").read_text()
    assert train(home / "both.yaml", teacher, infer, "Global.epochs=2", "Global.checkpoints=auto") == 0
    said = (folder / "train.log").read_text()[len(before) :]
    assert "Arch.models.0.Teacher.pretrained: " in said
    assert "was renamed when this run began" in said
    assert "goes on under a changed config" not in said
    assert not list(folder.glob("config.until_step_*"))
    same = [read_params(place / "latest.pdparams") for place in (whole, folder)]
    for name, value in same[0].items():
        np.testing.assert_array_equal(same[1][name], value, err_msg=name)
    assert not (home / "keep/DistillationModel.earlier-2").exists()


def test_only_what_lies_in_the_folder_is_followed(tmp_path, monkeypatch):
    folder = tmp_path / "out/net"
    (folder / "sub").mkdir(parents=True)
    for name in ("best_model.pdparams", "sub/list.txt"):
        (folder / name).write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    config = {
        "Global": {"output_dir": "out/net/sub", "save_inference_dir": "out/net/sub", "n": 3},
        "Arch": {"name": "net", "pretrained": "out/net/best_model", "list": ["./out/net/sub/list.txt", None]},
        "absolute": f"{folder}/best_model.pdparams",
        "linked": "link/net/best_model",
        "missing": "out/net/other",
        "beside": "out/network/best_model",
        "itself": "out/net",
    }
    found = following(config, Path("out/net"), Path("out/net.earlier-1"))
    assert found == {
        **config,
        "Arch": {
            "name": "net",
            "pretrained": "out/net.earlier-1/best_model",
            "list": ["out/net.earlier-1/sub/list.txt", None],
        },
        "absolute": "out/net.earlier-1/best_model.pdparams",
        "linked": "out/net.earlier-1/best_model",
    }
    assert config["Arch"]["pretrained"] == "out/net/best_model"


def test_only_what_the_run_began_with_is_followed_by_a_resume(tmp_path):
    folder, earlier = tmp_path / "out/net", tmp_path / "out/net.earlier-2"
    for place in (folder, earlier):
        place.mkdir(parents=True)
    recorded = {
        "same": f"{earlier}/a", "other": f"{earlier}/b", "elsewhere": f"{tmp_path}/a", "own": f"{folder}/a",
        "gone": f"{tmp_path}/out/net.earlier-7/a", "list": [{"x": f"{earlier}/sub/a.pdparams"}],
    }  # fmt: skip
    config = {
        "same": f"{folder}/a", "other": f"{folder}/c", "elsewhere": f"{folder}/a", "own": f"{folder}/a",
        "gone": f"{folder}/a", "list": [{"x": f"{folder}/sub/a.pdparams", "n": 3}], "new": f"{folder}/a",
        "outside": "a",
    }  # fmt: skip
    expected = {**config, "same": f"{earlier}/a", "list": [{"x": f"{earlier}/sub/a.pdparams", "n": 3}]}
    follow_earlier_run(config, recorded, folder)
    assert config == expected


# ---------------------------------------------------------------- which runs are renamed


@pytest.mark.parametrize("kind", ["new", "in place", "in place by another path", "of another folder"])
def test_when_an_earlier_run_is_renamed(home, kind):
    folder, earlier = home / "keep/resnet8", home / "keep/resnet8.earlier-1"
    lock_path(folder).write_text(json.dumps({"pid": 0, "host": "another", "since": "long ago"}))
    (home / "link").symlink_to(home / "keep")
    shutil.copytree(folder, home / "copy")
    places = {
        "in place": folder,
        "in place by another path": home / "link/resnet8",
        "of another folder": home / "copy",
    }
    options = [f"Global.checkpoints={places[kind]}/latest"] if kind in places else []
    assert train(home / "plain.yaml", "Global.epochs=2", *options) == 0
    assert earlier.exists() == (kind in ("new", "of another folder"))
    assert not [*folder.glob("*.new"), *earlier.glob("*.new")]
    assert json.loads(lock_path(folder).read_text())["pid"] == os.getpid()
    states = [path.name for path in folder.glob("*.pdstates")]
    assert sorted(states) == ["best_model.pdstates", "epoch_2.pdstates", "latest.pdstates"][: len(states)]
    kept = [path for path in home.rglob("config.until_step_3.yaml")]
    assert [path.parent.name for path in kept] == (["resnet8"] if "in place" in kind else [])


def test_a_folder_without_checkpoints_is_used_as_it_is(home):
    folder = home / "new/resnet8"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / "metrics.jsonl").write_text('{"kind": "train", "epoch": 1, "step": 0}\n')
    for place in (home / "new", folder):
        (place / ".resnet8.99999999.tmp").mkdir()  # of a start that was killed
    assert train(home / "plain.yaml", f"Global.output_dir={home}/new") == 0
    assert (folder / "notes.txt").read_text() == "mine"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert "loss" in rows[0]
    assert sorted(path.name for path in (home / "new").iterdir()) == [".resnet8.lock", "resnet8"]
    assert not list(folder.glob(".*"))


def test_a_folder_that_cannot_be_written_is_named_before_any_work(home, capsys):
    options = [f"Global.output_dir={home}/plain.yaml/x", "DataLoader.Train.dataset.cls_label_path=nowhere"]
    assert train(home / "plain.yaml", *options) == 2
    assert f"cannot write to {home}/plain.yaml/x/resnet8: Not a directory" in capsys.readouterr().err


def test_rows_of_a_run_that_is_resumed_stay(home):
    rows = (home / "keep/resnet8/metrics.jsonl").read_text()
    assert train(home / "plain.yaml", "Global.epochs=2", "Global.checkpoints=auto") == 0
    after = (home / "keep/resnet8/metrics.jsonl").read_text()
    assert after.startswith(rows)
    assert len(after) > len(rows)


def test_a_finished_run_is_looked_at_and_left_alone(home):
    before = tree(home)
    assert train(home / "plain.yaml", "Global.checkpoints=auto") == 0
    assert find_checkpoint("auto", home / "keep/resnet8").progress.finished
    assert tree(home) == before


# ---------------------------------------------------------------- lists


LISTS = {
    "shorter": (lambda lines: lines[:9], "had 12 images, now it has 9"),
    "longer": (lambda lines: [*lines, lines[0]], "had 12 images, now it has 13"),
    "reordered": (lambda lines: lines[::-1], "has 12 images as before, but other names"),
    "relabelled": (lambda lines: [lines[0].replace(" 0", " 1"), *lines[1:]], "has 12 images as before, but"),
    "the same": (lambda lines: [f"\n{lines[0]}", *lines[1:]], None),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_that_changed_before_a_resume_is_named(home, capsys, name):
    change, text = LISTS[name]
    path = home / "images/train_list.txt"
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))
    assert train(home / "plain.yaml", "Global.epochs=2", "Global.checkpoints=auto") == 0
    printed = capsys.readouterr().out
    said = f"DataLoader.Train.dataset: {path} changed since the checkpoint was written: it {text}"
    moved = f"DataLoader.Train.dataset: {path} (then "
    if text is None:
        assert "changed since the checkpoint" not in printed
    else:
        assert said in printed or (moved in printed and f"checkpoint was written: it {text}" in printed)
    assert "DataLoader.Eval.dataset: " not in printed
    states = json.loads((home / "keep/resnet8/latest.pdstates").read_text())
    assert states["lists"]["DataLoader.Train.dataset"]["count"] == len(path.read_text().split("\n")) - 1 - (
        text is None
    )
    capsys.readouterr()
    assert train(home / "plain.yaml", "Global.epochs=3", "Global.checkpoints=auto") == 0
    assert "changed since the checkpoint" not in capsys.readouterr().out  # said once


def test_a_checkpoint_that_knows_no_lists_resumes_as_before(home, capsys):
    from ppcls.engine.states import encode_states, read_states

    path = home / "keep/resnet8/latest.pdstates"
    progress, files = read_states(path)
    assert progress.lists.keys() == {"DataLoader.Train.dataset", "DataLoader.Eval.dataset"}
    progress.lists = {}
    path.write_bytes(encode_states(progress, files))
    assert train(home / "plain.yaml", "Global.epochs=2", "Global.checkpoints=auto") == 0
    assert "changed since the checkpoint" not in capsys.readouterr().out


def test_refusals_name_the_data_in_the_folder(home):
    recipe = yaml.safe_load((home / "plain.yaml").read_text())
    shutil.copytree(home / "images", home / "keep/resnet8/images")
    recipe["DataLoader"]["Eval"]["dataset"]["image_root"] = f"{home}/keep/resnet8/images"
    (home / "plain.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(ConfigError, match="DataLoader.Eval.dataset.image_root: .* would be renamed"):
        Engine(load_config(home / "plain.yaml")).train()
    resume = ["Global.checkpoints=auto", "Global.epochs=2"]
    assert Engine(load_config(home / "plain.yaml", resume)).train()  # nothing is renamed

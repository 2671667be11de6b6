"""A start that fails leaves every file as it was."""

from __future__ import annotations

import copy
import errno
import os
import shutil
import sys

import cv2
import numpy as np
import pytest
import yaml
from paddle import nn
from support import train, tree

from ppcls.cli import main
from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.engine.checkpoint.lock import RunLock
from ppcls.engine.hooks import Hook
from ppcls.errors import ConfigError, DataError
from ppcls.registry import HOOKS, LOSSES
from ppcls.weights import write_params


@LOSSES.register()
class Brittle(nn.Layer):
    """A loss that fails in the forward or in the backward pass, as asked."""

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
    "a wrong list": (spoil_list("0.png 0\n1.png zero\n"), "plain", [], 2, "train_list.txt:2"),
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


@HOOKS.register()
class InterruptStart(Hook):
    """Do what Ctrl-C does while a run is tried out."""

    def before_start(self, run):
        raise KeyboardInterrupt


def test_ctrl_c_during_the_start_changes_nothing(home):
    before = tree(home)
    assert train(home / "plain.yaml", "Hooks=[{InterruptStart: null}]") == 130
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
    if call == "mkdir" and sys.version_info < (3, 11):
        pytest.skip("pathlib of Python 3.10 does not look os.mkdir up when it is called")
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


class Meanwhile(Hook):
    """Let another process begin a run in the same folder while this one is tried out."""

    def __init__(self, folder):
        self.folder, self.pipes = folder, [*os.pipe(), *os.pipe()]

    def before_start(self, run):
        self.process = os.fork()
        if self.process == 0:
            lock = RunLock(self.folder)
            lock.claim()
            os.write(self.pipes[1], b"held")
            os.read(self.pipes[2], 1)
            os._exit(0)
        os.read(self.pipes[0], 4)

    def end(self):
        os.write(self.pipes[3], b".")
        os.waitpid(self.process, 0)


def test_a_run_that_begins_at_the_same_moment_is_refused(home):
    """Neither of them finds a lock when it starts; the second finds that of the first in the end."""
    (home / "keep/.resnet8.lock").unlink()
    other = Meanwhile(home / "keep/resnet8")
    before = tree(home / "keep/resnet8")
    try:
        with pytest.raises(ConfigError) as refused:
            Engine(load_config(home / "plain.yaml")).train(hooks=[other])
    finally:
        other.end()
    assert f"another run is writing to {home}/keep/resnet8 (process {other.process} on" in str(refused.value)
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

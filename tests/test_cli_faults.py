"""Faults of data as a user meets them: one message that names file and remedy, exit code 2, no checkpoint."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from support import PHOTOS

from ppcls.cli import main


@pytest.fixture
def command(recipe, write_recipe, capsys):
    """Return a function that runs one command on the recipe: (exit code, standard output, errors)."""

    def run(name, *arguments):
        code = main([name, "-c", str(write_recipe(recipe)), *arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


def first_image(folder: Path) -> Path:
    return folder / (folder / "train_list.txt").read_text().split()[0]


def replace_image(content: bytes):
    return lambda folder, recipe: first_image(folder).write_bytes(content)


def write_list(text: str):
    def change(folder, recipe):
        names = [line.split()[0] for line in (folder / "train_list.txt").read_text().splitlines()]
        (folder / "train_list.txt").write_bytes(text.format(*names).encode("utf-8"))

    return change


def remove_image(folder, recipe):
    first_image(folder).unlink()


def folder_for_image(folder, recipe):
    first_image(folder).unlink()
    first_image(folder).mkdir()


def too_large_a_batch(folder, recipe):
    recipe["DataLoader"]["Train"]["sampler"].update(batch_size=64, drop_last=True)


def no_list(folder, recipe):
    recipe["DataLoader"]["Train"]["dataset"]["cls_label_path"] += "x"


JPEG = next(iter(sorted(PHOTOS.glob("*.jpg")))).read_bytes()
FAULTS = {
    "truncated": (replace_image(JPEG[:4000]), ["the JPEG data (4000 bytes) are damaged, cut off"]),
    "empty": (replace_image(b""), ["the file is empty"]),
    "text": (replace_image(b"<html>404</html>"), ["it is text, no image: '<html>404</html>'"]),
    "heic": (
        replace_image(b"\0\0\0\x18ftypheic" + bytes(99)),
        ["HEIC file, which is not supported; convert"],
    ),
    "missing": (remove_image, ["train_list.txt:1: no such file: "]),
    "a folder": (folder_for_image, ["train_list.txt:1: no such file: "]),
    "empty list": (write_list("\n"), ["train_list.txt: the list is empty; expected one line 'path label'"]),
    "no list": (no_list, ["train_list.txtx: no such list file. Did you mean: train_list.txt"]),
    "label too large": (write_list("{0} 0\n{1} 4\n"), ["train_list.txt:2: the label must be in 0..3"]),
    "negative label": (write_list("{0} 0\n\n{1} -1\n"), ["train_list.txt:3: the label must be in 0..3"]),
    "no integer": (
        write_list("{0} 0\n{1} 1.5"),
        ["train_list.txt:2: the label must be a whole number, got '1.5'"],
    ),
    "no label": (write_list("{0} 0\r\n{1}\r\n"), ["train_list.txt:2: expected a path and a label"]),
    "small set": (too_large_a_batch, ["12 samples, but a step takes 64", "use a smaller batch_size"]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_ends_training_with_a_message(command, image_folder, recipe, tmp_path, name):
    change, parts = FAULTS[name]
    change(image_folder, recipe)
    code, _, err = command("train")
    assert code == 2
    assert err.startswith("ppcls: ")
    for part in parts:
        assert part in err
    if name in ("truncated", "empty", "text", "heic"):
        assert f"{first_image(image_folder)} (sample 0): " in err
        assert "Replace the file, take it out of the data, or set on_error: skip" in err
    assert not list(tmp_path.glob("output/**/*.pd*"))


@pytest.mark.parametrize("fault", ["truncated", "empty", "text"])
def test_skipping_trains_and_counts(command, image_folder, recipe, tmp_path, fault):
    """The first sample too, which also tells the shape of images."""
    FAULTS[fault][0](image_folder, recipe)
    for part in ("Train", "Eval"):
        recipe["DataLoader"][part]["dataset"]["on_error"] = "skip"
    code, out, err = command("train")
    assert (code, err) == (0, "")
    assert "train_list.txt: 1 of 12 images left out (on_error: skip)" in out
    assert "val_list.txt: 1 of 6 images left out (on_error: skip)" in out
    assert list(tmp_path.glob("output/*/latest.pdparams"))


def test_awkward_lists_are_fine(command, image_folder, recipe):
    """A byte order mark, Windows line ends, tabs, blank lines, blanks in a path, a line twice."""
    first_image(image_folder).rename(image_folder / "a b  c.png")
    write_list("\ufeffa b  c.png 0\r\n\r\n{1}\t1\r\n   \r\n  {2} 2  \r\n{1} 1\r\n{3}  3")(
        image_folder, recipe
    )
    (image_folder / "val_list.txt").write_bytes((image_folder / "train_list.txt").read_bytes())
    recipe["Global"]["epochs"] = 1
    code, out, err = command("train")
    assert (code, err) == (0, "")


def test_an_output_folder_that_cannot_be_written(command, tmp_path):
    """Root may write into folders that are read-only, but nobody into a file."""
    (tmp_path / "taken").write_text("")
    code, _, err = command("train", "-o", f"Global.output_dir={tmp_path}/taken/output")
    assert code == 2
    assert f"Global.output_dir: cannot write to {tmp_path}/taken/output" in err


def test_paths_in_any_script_everywhere(recipe, write_recipe, image_folder, tmp_path, capsys):
    """Training, evaluation, inference, export and prediction with Chinese and emoji in every path."""
    home = tmp_path / "数据 🐱"
    image_folder.rename(home)
    names = [line.split() for line in (home / "train_list.txt").read_text().splitlines()]
    lines = []
    for name, label in names:
        (home / f"图 {name}").write_bytes((home / name).read_bytes())
        (home / name).unlink()
        lines.append(f"图 {name} {label}\n")
    for part in ("Train", "Eval"):
        (home / f"{part}_列表.txt").write_text("".join(lines), encoding="utf-8")
        recipe["DataLoader"][part]["dataset"].update(
            image_root=str(home), cls_label_path=str(home / f"{part}_列表.txt")
        )
    recipe["Global"].update(
        epochs=1, output_dir=str(tmp_path / "输出"), save_inference_dir=str(tmp_path / "部署 🚀")
    )
    recipe["Infer"]["infer_imgs"] = str(home)
    path = str(write_recipe(recipe, "配方 🧪.yaml"))
    weights = f"Global.pretrained_model={tmp_path / '输出' / 'resnet8' / 'latest'}"
    assert main(["check-data", "-c", path]) == 0
    assert main(["train", "-c", path]) == 0
    assert main(["eval", "-c", path, "-o", weights]) == 0
    assert main(["infer", "-c", path, "-o", weights]) == 0
    inferred = capsys.readouterr().out
    assert main(["export", "-c", path, "-o", weights]) == 0
    assert main(["predict", "--model-dir", str(tmp_path / "部署 🚀"), str(home)]) == 0
    predicted = capsys.readouterr().out
    for name, _ in names:
        assert str(home / f"图 {name}") in inferred
        assert str(home / f"图 {name}") in predicted


def test_what_infer_and_predict_say(command, image_folder, recipe, tmp_path, capsys):
    command("train", "-o", "Global.epochs=1")
    weights = f"Global.pretrained_model={tmp_path}/output/resnet8/latest"
    (tmp_path / "taken").write_text("")
    code, _, err = command(
        "export", "-o", weights, "-o", f"Global.save_inference_dir={tmp_path}/taken/inference"
    )
    assert code == 2
    assert f"{tmp_path}/taken/inference" in err
    assert command("export", "-o", weights)[0] == 0
    bad = image_folder / "zz.jpg"
    bad.write_bytes(JPEG[:4000])
    code, out, err = command("infer", "-o", weights, "-o", "Infer.batch_size=8")
    assert code == 2
    assert out.count('"class_ids": [') == 12  # also those of the batch of the bad one
    assert f"{bad}: cannot be decoded: the JPEG data (4000 bytes)" in err
    assert main(["predict", "--model-dir", f"{tmp_path}/output/inference", str(image_folder)]) == 2
    assert f"{bad}: cannot be decoded" in capsys.readouterr().err
    arguments = ["--on-error", "skip", str(image_folder)]
    assert main(["predict", "--model-dir", f"{tmp_path}/output/inference", *arguments]) == 0
    assert capsys.readouterr().out.count('"class_ids": [') == 13


def test_training_inference_and_prediction_see_the_same_turned_image(image_folder, recipe):
    from PIL import Image

    from ppcls.data import build_dataset, build_transforms, read_image

    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:8] = 255  # a bright top, which the camera held sideways
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(pixels).save(image_folder / "turned.jpg", exif=tags, quality=95)
    (image_folder / "train_list.txt").write_text("turned.jpg 0\n")
    dataset = build_dataset(
        recipe["DataLoader"]["Train"]["dataset"] | {"transform_ops": recipe["Infer"]["transforms"]}
    )
    trained = dataset.sample(0, 0, 0)[0]
    inferred = read_image(str(image_folder / "turned.jpg"), build_transforms(recipe["Infer"]["transforms"]))
    np.testing.assert_array_equal(trained, inferred)
    assert inferred[:, :, 28:].min() > inferred[:, :, :20].max()  # the bright side is at the right, upright
    assert cv2.imread(str(image_folder / "turned.jpg"))[:, 28:].min() > 128


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_a_hanging_file_ends_the_whole_process(image_folder, recipe, write_recipe):
    lines = (image_folder / "train_list.txt").read_text() * 6
    (image_folder / "train_list.txt").write_text(f"{lines}pipe.png 1\n")
    os.mkfifo(image_folder / "pipe.png")
    first_image(image_folder).write_bytes(first_image(image_folder).read_bytes()[:900])  # OpenCV is silent
    for part in ("Train", "Eval"):
        recipe["DataLoader"][part]["dataset"]["on_error"] = "skip"
    recipe["DataLoader"]["Train"]["loader"]["timeout"] = 1
    command = [sys.executable, "-m", "ppcls", "train", "-c", str(write_recipe(recipe))]
    begin = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"ppcls: {image_folder}/train_list.txt: no sample was finished for 1 s; the threads"
    )
    assert f"{image_folder}/pipe.png (sample 72)" in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - begin < 90

"""`ppcls check-data`: everything that is wrong or odd with the data of a recipe, in one reading."""

from __future__ import annotations

import json
import os
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image
from support import distilled

from ppcls.cli import main
from ppcls.config import load_config
from ppcls.data.audit import check_data
from ppcls.report.data import _by_reason, write_json


@pytest.fixture
def check(recipe, write_recipe, tmp_path, capsys):
    """Return a function that checks the recipe: (exit code, text, findings)."""

    def run(*arguments):
        report = tmp_path / "found.json"
        code = main(["check-data", "-c", str(write_recipe(recipe)), "--report", str(report), *arguments])
        out, err = capsys.readouterr()
        assert err == ""
        return code, out, json.loads(report.read_text(encoding="utf-8"))

    return run


def separate(folder):
    """Give evaluation files of its own: one more pixel row than those of training."""
    (folder / "val").mkdir()
    lines = []
    for line in (folder / "val_list.txt").read_text().splitlines():
        name, label = line.split()
        pixels = cv2.imread(str(folder / name))
        pixels[0, 0] ^= 255
        cv2.imwrite(str(folder / "val" / name), pixels)
        lines.append(f"val/{name} {label}\n")
    (folder / "val_list.txt").write_text("".join(lines))


def test_clean_data(check, image_folder, tmp_path):
    separate(image_folder)
    code, out, found = check()
    assert code == 0
    assert "Train: " in out
    assert "12 images, " in out
    assert "images/s" in out
    assert "4 of 4 classes; from 3 (class 0) to 3 images (class 3)" in out
    assert out.endswith("nothing would stop a training\n")
    assert [part["class_images"] for part in found["parts"]] == [[3, 3, 3, 3], [2, 1, 2, 1]]
    assert found["leaked"] == found["stops"] == []
    assert not (tmp_path / "output").exists()  # nothing is trained


def test_every_unreadable_file_is_named_with_its_reason(check, image_folder, recipe):
    names = [line.split()[0] for line in (image_folder / "train_list.txt").read_text().splitlines()]
    (image_folder / names[1]).write_bytes(b"")
    (image_folder / names[4]).write_text("<html>")
    (image_folder / names[7]).write_bytes((image_folder / names[7]).read_bytes()[:300])
    code, out, found = check()
    assert code == 2
    unreadable = found["parts"][0]["unreadable"]
    assert [os.path.basename(path) for path in unreadable] == [names[1], names[4], names[7]]
    for name, reason in zip(
        (names[1], names[4], names[7]), ("the file is empty", "it is text", "the PNG data"), strict=True
    ):
        assert unreadable[str(image_folder / name)].find(reason) >= 0
        assert str(image_folder / name) in out
    assert "Train: 3 images cannot be read; replace them" in out
    for part in ("Train", "Eval"):
        recipe["DataLoader"][part]["dataset"]["on_error"] = "skip"
    code, out, found = check()
    assert code == 0
    assert len(found["parts"][0]["unreadable"]) == 3


def test_leaks_repeats_and_contradictions(check, image_folder):
    lines = (image_folder / "train_list.txt").read_text().splitlines()
    first, third = lines[0].split()[0], lines[3].split()[0]
    shutil.copy(image_folder / first, image_folder / "copy.png")
    (image_folder / "train_list.txt").write_text("\n".join([*lines, "copy.png 0", f"{third} 3"]))
    code, out, found = check()
    assert code == 0
    train = found["parts"][0]
    assert train["repeated"] == [
        [str(image_folder / "copy.png"), str(image_folder / first)],
        [str(image_folder / third), str(image_folder / third)],
    ]
    assert train["contradictions"] == [train["repeated"][1]]
    assert len(found["leaked"]) == 6  # the evaluation of the small recipe is a part of its training
    assert "images of Eval that training has too, byte for byte: 6" in out
    assert "the same file with another label: 1" in out


def test_odd_images_are_named_by_kind(check, image_folder):
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    tags = Image.Exif()
    tags[0x0112] = 6
    picture.save(image_folder / "turned.jpg", exif=tags)
    picture.convert("CMYK").save(image_folder / "cmyk.jpg")
    picture.save(image_folder / "named.jpg", format="PNG")
    picture.convert("RGBA").save(image_folder / "clear.png")
    cv2.imwrite(str(image_folder / "deep.png"), pixels.astype(np.uint16) * 257)
    names = ("turned.jpg", "cmyk.jpg", "named.jpg", "clear.png", "deep.png")
    with (image_folder / "train_list.txt").open("a") as file:
        file.writelines(f"{name} 0\n" for name in names)
    _, out, found = check()
    odd = {kind: [os.path.basename(p) for p in files] for kind, files in found["parts"][0]["odd"].items()}
    assert odd == {
        "turned by EXIF": ["turned.jpg"],
        "CMYK": ["cmyk.jpg"],
        "wrong extension": ["named.jpg"],
        "transparency": ["clear.png"],
        "16 bits": ["deep.png"],
    }
    assert "orientation 6; decoded upright" in out


def test_tiny_images_and_classes_without_any(check, image_folder, recipe):
    lines = (image_folder / "train_list.txt").read_text().splitlines()
    (image_folder / "train_list.txt").write_text("\n".join(line for line in lines if not line.endswith(" 2")))
    cv2.imwrite(str(image_folder / lines[0].split()[0]), np.zeros((40, 15, 3), np.uint8))
    recipe["DataLoader"]["Train"]["dataset"]["transform_ops"].insert(1, {"ResizeImage": {"size": [32, 32]}})
    recipe["DataLoader"]["Eval"]["dataset"]["transform_ops"].insert(1, {"ResizeImage": {"size": [32, 32]}})
    code, out, found = check()
    assert code == 0
    assert "3 of 4 classes" in out
    assert "classes without images: 2" in out
    assert list(found["parts"][0]["odd"]) == ["constant", "tiny"]
    assert "15 x 40, less than half of what the network sees" in out


def test_all_mistakes_of_all_parts_at_once(check, image_folder):
    with (image_folder / "train_list.txt").open("a") as file:
        file.write("gone.png 0\nalso.png 9\n")
    name = (image_folder / "val_list.txt").read_text().split()[0]
    cv2.imwrite(str(image_folder / name), np.zeros((20, 30, 3), np.uint8))
    code, out, found = check()
    assert code == 2
    assert len(found["stops"]) == 2
    assert "train_list.txt:13: no such file" in out
    assert "train_list.txt:14: the label must be in 0..3 (class_num 4), got 9" in out
    assert "Eval: the transforms give images of 2 shapes ([3, 16, 16]: 5, [3, 20, 30]: 1)" in out


def test_too_few_samples_for_a_batch(check, recipe):
    recipe["DataLoader"]["Train"]["sampler"].update(batch_size=64, drop_last=True)
    code, out, _ = check()
    assert code == 2
    assert "12 samples, but a step takes 64" in out


@pytest.mark.timeout(60)
def test_a_file_that_hangs_is_named(check, image_folder, recipe):
    """A list of 64 names in one folder is compared with the folder's entries, which a pipe is one of."""
    line = (image_folder / "train_list.txt").read_text().splitlines()[0]
    (image_folder / "train_list.txt").write_text("\n".join([line] * 70 + ["pipe.png 0"]))
    os.mkfifo(image_folder / "pipe.png")
    recipe["DataLoader"]["Train"]["loader"]["timeout"] = 0.5
    code, out, found = check()
    assert code == 2
    assert f"reading hangs at: {image_folder}/pipe.png" in out
    assert found["parts"][1]["images"] == 6  # the other part was read
    (image_folder / "pipe.png").open("wb").close()  # let the thread go


def test_names_with_other_bytes_are_in_the_report(recipe, write_recipe, image_folder, tmp_path):
    for number, image in enumerate(sorted(image_folder.glob("*.png"))):
        folder = tmp_path / "classes" / str(number % 4)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder)
    (folder / b"bad \xff.png".decode("utf-8", "surrogateescape")).write_bytes(b"no image")
    for part in ("Train", "Eval"):
        dataset = recipe["DataLoader"][part]["dataset"]
        del dataset["cls_label_path"]
        dataset |= {"name": "FolderDataset", "image_root": str(tmp_path / "classes")}
    report = check_data(load_config(write_recipe(recipe)).DataLoader, 4)
    write_json(report, tmp_path / "found.json")
    assert "bad \\udcff.png" in (tmp_path / "found.json").read_text(encoding="utf-8")
    json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "message"), [("found.csv", "ends in .json"), ("none/found.json", "none is not a folder")]
)
def test_a_report_that_cannot_be_written(recipe, write_recipe, tmp_path, capsys, name, message):
    assert main(["check-data", "-c", str(write_recipe(recipe)), "--report", str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err


def test_mistakes_in_the_recipe_come_first(recipe, write_recipe, capsys):
    recipe["DataLoader"]["Train"]["dataset"]["image_rot"] = "x"
    assert main(["check-data", "-c", str(write_recipe(recipe))]) == 2
    assert "image_root" in capsys.readouterr().err


def test_unlabelled_images_are_read_too_and_their_labels_are_not(check, image_folder, recipe):
    separate(image_folder)
    names = [line.split()[0] for line in (image_folder / "val_list.txt").read_text().splitlines()]
    (image_folder / "more.txt").write_text("".join(f"{name} 77\n" for name in names))
    part = {**recipe["DataLoader"]["Train"], "dataset": dict(recipe["DataLoader"]["Train"]["dataset"])}
    part["dataset"]["cls_label_path"] = str(image_folder / "more.txt")
    recipe["DataLoader"]["UnLabelTrain"] = part
    pairs = [["Student", "Teacher"]]
    distilled(recipe, DistillationKLDivLoss={"weight": 1.0, "model_name_pairs": pairs})
    code, out, found = check()
    assert code == 0
    assert [part["part"] for part in found["parts"]] == ["Train", "UnLabelTrain", "Eval"]
    assert [part["images"] for part in found["parts"]] == [12, 6, 6]
    assert found["parts"][1]["class_images"] == []
    assert len(found["leaked"]) == 6
    (image_folder / names[0]).write_bytes(b"")
    assert check()[0] == 2


def test_errors_of_one_kind_are_counted_and_the_first_shown(check, image_folder, recipe):
    (image_folder / "more").mkdir()
    names = [f"more/{number:03d}.png" for number in range(60)]
    for number, name in enumerate(names):
        text = {0: f"<html>{number}", 1: f"<html> '{number}' {number}"}.get(number % 2)
        (image_folder / name).write_bytes(
            text.encode() if number % 10 else b"\x89PNG\r\n\x1a\n" + bytes(number)
        )
    with (image_folder / "train_list.txt").open("a") as file:
        file.writelines(f"{name} 0\n" for name in names)
    code, out, found = check()
    assert code == 2
    assert len(found["parts"][0]["unreadable"]) == 60
    assert "  cannot be read: 60\n" in out
    lines = out[out.index("cannot be read: 60") : out.index("Eval: ")].splitlines()[1:]
    assert [line.split(", such as")[0].strip() for line in lines[::6]] == ["54 files", "6 files"]
    assert "it is text, no image: " in lines[0]
    assert [line.strip() for line in lines[1:6]] == [
        *(f"{image_folder}/{n}" for n in names[2:6]),
        "and 49 more",
    ]
    assert "the PNG data" in lines[6]
    assert len(lines) == 12


def test_a_reason_of_its_own_for_each_file_is_cut_too():
    letters = [f"{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(100)]
    lines = _by_reason({f"{one}.png": f"odd {one}" for one in letters})
    assert len(lines) == 21
    assert lines[0] == "    aa.png: odd aa"
    assert lines[-1] == "    and 80 files for 80 other reasons"
    assert len(_by_reason({f"{one}.png": f"{one}.png is odd" for one in letters})) == 6


def messy(folder):
    """Put a damaged and a plain image, and one with two labels, among the data."""
    separate(folder)
    train = (folder / "train_list.txt").read_text()
    cv2.imwrite(str(folder / "plain.png"), np.full((32, 32, 3), 7, np.uint8))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff and nothing else")
    first = train.splitlines()[0].split()[0]
    shutil.copy(folder / first, folder / "again.png")
    lines = ["plain.png 0", "broken.jpg 1", "again.png 3"]
    (folder / "train_list.txt").write_text(train + "\n".join(lines) + "\n")


@pytest.mark.parametrize("suffix", [".html", ".png", ".jpg"])
def test_a_contact_sheet_shows_what_is_suspicious_and_some_of_each_class(
    check, image_folder, tmp_path, suffix, recipe
):
    messy(image_folder)
    (image_folder / "names.txt").write_text("0 cat\n1 \u732b\n2 <b>\n3 d\n", encoding="utf-8")
    recipe["Infer"]["PostProcess"]["class_id_map_file"] = str(image_folder / "names.txt")
    sheet = tmp_path / f"sheet{suffix}"
    code, out, found = check("--picture", str(sheet))
    assert code == 2
    assert f"contact sheet: {sheet}" in out
    assert "constant: 1" in out
    assert "datasets" not in found
    # The images of Eval differ in one pixel from those of training.
    assert len(found["near"]) >= 5
    if suffix == ".html":
        text = sheet.read_text("utf-8")
        titles = ["nearly the same in training<", "Train: cannot be read<", "with another label<"]
        titles += ["Train: constant<", "0 cat: Train 4, Eval 2<", "1 \u732b: Train 4, Eval 1<"]
        places = list(map(text.index, titles))
        assert places == sorted(places)
        assert "2 &lt;b&gt;: Train 3" in text
        assert text.count("data:image/jpeg;base64,") > 20
    else:
        with Image.open(sheet) as picture:
            assert picture.format == {".png": "PNG", ".jpg": "JPEG"}[suffix]
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 1000


@pytest.mark.parametrize(
    ("name", "message"), [("sheet.gif", "ends in .html or .png"), ("none/sheet.html", "is not a folder")]
)
def test_a_contact_sheet_that_cannot_be_written_is_refused_before_reading(
    recipe, write_recipe, tmp_path, name, message, capsys
):
    assert main(["check-data", "-c", str(write_recipe(recipe)), "--picture", str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err

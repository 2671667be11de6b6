"""Class names: part of the data, kept with a run, the same in every command, never those of other classes."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from ppcls.cli import main
from ppcls.config import Recipe, load_config
from ppcls.config.schema import InferSpec
from ppcls.data import build_loader
from ppcls.deploy import Predictor
from ppcls.engine import Engine
from ppcls.engine.run_class_names import (
    FILE,
    ClassNames,
    check_teachers,
    class_names,
    data_class_names,
    evaluation_names,
    names_file,
    names_to_record,
    recorded_names,
    weights_folder,
    with_names,
)
from ppcls.errors import ConfigError, DataError

PACKAGED = "ppcls/data/labels/imagenet1k_label_list.txt"
NUMBERS = [str(number) for number in range(12)]


def tree(root: Path, names: list[str], images: int = 2) -> Path:
    """Make class folders; the images of a class have its place in `names` as their gray level."""
    for place, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(images):
            pixels = np.full((32, 32, 3), 20 * place + number, np.uint8)
            cv2.imwrite(str(root / name / f"{number}.png"), pixels)
    return root


def use_folders(recipe: dict, train: Path, evaluation: Path, classes: int) -> dict:
    """Let a recipe read class folders."""
    recipe["Arch"]["class_num"] = classes
    for part, root in (("Train", train), ("Eval", evaluation)):
        node = recipe["DataLoader"][part]["dataset"]
        del node["cls_label_path"]
        node.update(name="FolderDataset", image_root=str(root))
    recipe["Global"]["epochs"] = 1
    return recipe


@pytest.fixture
def numbers(recipe, tmp_path):
    """A recipe on folders 0 to 11."""
    root = tree(tmp_path / "num", NUMBERS)
    recipe["Infer"]["infer_imgs"] = str(root / "10")
    recipe["Infer"]["PostProcess"]["topk"] = 12
    return use_folders(recipe, root, root, 12)


def run(command: str, path: Path, *overrides: str) -> int:
    return main([command, "-c", str(path), *(part for text in overrides for part in ("-o", text))])


def test_names_travel_with_the_run_and_the_export(numbers, write_recipe, tmp_path, capsys):
    path = write_recipe(numbers)
    assert run("train", path) == 0
    folder = tmp_path / "output" / "resnet8"
    assert (folder / FILE).read_text() == "".join(f"{number} {number}\n" for number in range(12))
    weights = f"Global.pretrained_model={folder / 'best_model'}"
    shutil.move(tmp_path / "num", tmp_path / "gone")
    tree(tmp_path / "num" / "sub", ["only"])
    numbers["Infer"]["infer_imgs"] = str(tmp_path / "gone" / "10")
    shutil.rmtree(tmp_path / "num")
    path = write_recipe(numbers)
    capsys.readouterr()
    results = Engine(load_config(path, [weights], mode="infer"), "infer").infer()
    assert all(result["label_names"] == [str(c) for c in result["class_ids"]] for result in results)
    assert run("export", path, weights) == 0
    inference = tmp_path / "output" / "inference"
    described = yaml.safe_load((inference / "inference.yml").read_text())
    assert described["PostProcess"]["Topk"]["label_list"] == NUMBERS
    predicted = Predictor(inference, device="cpu", threads=1).predict(tmp_path / "gone" / "10")
    assert [r["label_names"] for r in predicted] == [r["label_names"] for r in results]


def test_kept_names_of_another_number_are_left_out_with_a_warning(numbers, write_recipe, tmp_path, caplog):
    (tmp_path / FILE).write_text("0 a\n1 b\n")
    weights = f"Global.pretrained_model={tmp_path / 'best_model'}"
    config = load_config(write_recipe(numbers), [weights], mode="train")
    assert class_names(config, 12).names is None
    assert f"{tmp_path / FILE} has 2 names for 12 classes; results go without names" in caplog.text


def test_evaluation_with_fewer_folders_maps_them_by_name(numbers, write_recipe, tmp_path):
    """Each class has a gray level of its own, so a shifted label would show in the report."""
    few = tree(tmp_path / "few", ["2", "10"])
    numbers["DataLoader"]["Eval"]["dataset"]["image_root"] = str(few)
    path = write_recipe(numbers)
    assert run("train", path) == 0
    engine = Engine(load_config(path, mode="train"), "train")
    names = evaluation_names(engine.config, data_class_names(engine.config, None), None)
    node = engine.config.DataLoader.Eval
    dataset = build_loader(node, "Eval", seed=0, class_num=12, class_names=names).dataset
    assert {os.path.basename(os.path.dirname(dataset.path(i))): dataset.label(i) for i in range(4)} == {
        "2": 2,
        "10": 10,
    }


@pytest.mark.parametrize("command", ["train", "eval", "check-data"])
def test_other_classes_in_evaluation_are_refused(recipe, write_recipe, tmp_path, command, capsys):
    use_folders(
        recipe,
        tree(tmp_path / "tree", ["apple", "banana", "cherry", "zucchini"]),
        tree(tmp_path / "val", ["banana", "chery", "unknown", "zucchini"]),
        4,
    )
    path = write_recipe(recipe)
    assert run(command, path, "Global.pretrained_model=none") == 2
    printed = "".join(capsys.readouterr())
    assert (
        "val: folders that are none of the 4 classes: 'chery' (did you mean: cherry?), 'unknown'" in printed
    )
    assert "The classes are apple, banana, cherry, zucchini" in printed


def test_names_written_in_another_order_are_refused(recipe, write_recipe, tmp_path, capsys):
    root = tree(tmp_path / "tree", ["a", "b", "c", "d"])
    use_folders(recipe, root, root, 4)
    recipe["DataLoader"]["Eval"]["dataset"]["class_names"] = ["a", "c", "b", "d"]
    assert run("train", write_recipe(recipe)) == 2
    assert "DataLoader.Eval.dataset" in (printed := capsys.readouterr().err)
    assert "class 1 is c, but b in training" in printed
    del recipe["DataLoader"]["Eval"]["dataset"]["class_names"]
    names = tmp_path / "names.txt"
    names.write_text("0 a\n1 c\n2 b\n3 d\n")
    recipe["Infer"]["PostProcess"]["class_id_map_file"] = str(names)
    for command in ("train", "check-data"):
        assert run(command, write_recipe(recipe)) == 2
        printed = "".join(capsys.readouterr())
        assert "class 1 is 'c', but 'b' in" in printed
        assert "results would carry the names of other classes" in printed
    names.write_text("0 ant\n1 bee\n2 cat\n3 dog\n")  # other words for the same classes are fine
    config = load_config(write_recipe(recipe))
    assert class_names(config, 4).names == ["ant", "bee", "cat", "dog"]
    assert names_to_record(config, data_class_names(config, None), 4) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("names", "place", "refused"),
    [
        (["dog", "cat", "birds"], 0, False),
        (["Dog", "cat", "birds"], 0, False),
        (["birds", "Dog", "Cat"], 1, True),
        (["a", "b", "bird"], 2, False),
        (["big cat", "bird", "dog"], 1, False),  # it may be meant
        (["Vogel", "Katze", "Hund"], None, False),
        (["birds", "CAT", "dog"], None, False),
        (["cat", "cat", "dog"], None, False),  # names may be less exact than classes
        (["dog", "cat"], None, False),  # another check refuses it
    ],
)
def test_a_name_of_another_class_is_told_even_if_other_names_are_spelt_otherwise(
    recipe, tmp_path, names, place, refused, caplog
):
    theirs = ["bird", "cat", "dog"]
    recipe["Infer"]["PostProcess"] = {"name": "Topk", "label_list": names}
    config, of_data = Recipe.from_dict(recipe), ClassNames(theirs, "the data")
    said = None if place is None else f"class {place} is '{names[place]}', but '{theirs[place]}' in the"
    if refused:
        with pytest.raises(DataError, match=said):
            class_names(config, 3, of_data)
        return
    assert class_names(config, 3, of_data).names == names
    assert ("for another class" in caplog.text) == (said is not None)
    assert said is None or said in caplog.text


@pytest.mark.parametrize(("names", "refused"), [(["1", "2", "3"], False), (["2", "1", "0"], True)])
def test_numbers_as_names_may_be_other_numbers_than_those_of_folders(recipe, names, refused):
    recipe["Infer"]["PostProcess"] = {"name": "Topk", "label_list": names}
    with pytest.raises(DataError) if refused else nullcontext():
        class_names(Recipe.from_dict(recipe), 3, ClassNames(["0", "1", "2"], "the data"))


def test_a_resumed_run_keeps_its_classes(recipe, write_recipe, tmp_path, capsys):
    root = tree(tmp_path / "tree", ["a", "b", "c", "d"])
    path = write_recipe(use_folders(recipe, root, root, 4))
    assert run("train", path) == 0
    (root / "d").rename(root / "aa")
    again = ("Global.checkpoints=auto", "Global.epochs=2")
    assert run("train", path, *again) == 2
    assert (
        "folders that are none of the 4 classes: 'aa' (did you mean: a?). The classes are a, b, c, d"
        in capsys.readouterr().err
    )
    shutil.rmtree(root / "aa")  # a class without images is none of those that are unknown
    assert run("train", path, *again) == 0
    assert (tmp_path / "output/resnet8" / FILE).read_text() == "0 a\n1 b\n2 c\n3 d\n"


@pytest.mark.parametrize("gone", [False, True], ids=["data here", "training data gone"])
def test_a_run_of_an_earlier_version_keeps_its_order(numbers, write_recipe, tmp_path, capsys, gone):
    """It had 0, 1, 10, 11, 2, ... and wrote no names."""
    path = write_recipe(numbers)
    assert run("train", path) == 0
    folder = tmp_path / "output" / "resnet8"
    (folder / FILE).unlink()
    if gone:
        shutil.copytree(tmp_path / "num", tmp_path / "val")
        shutil.rmtree(tmp_path / "num")
        numbers["DataLoader"]["Eval"]["dataset"]["image_root"] = str(tmp_path / "val")
    config = load_config(write_recipe(numbers), [f"Global.pretrained_model={folder}/best_model"])
    capsys.readouterr()
    found = class_names(config, 12)
    assert found.names == sorted(NUMBERS)
    assert found.source.endswith("in order of texts")
    printed = capsys.readouterr().out
    assert (
        f"{folder} was trained by an earlier version, which ordered class folders as texts (0, 1, 10"
        in printed
    )
    assert evaluation_names(config, data_class_names(config, folder), folder) == sorted(NUMBERS)
    if not gone:
        assert run("train", path, "Global.checkpoints=auto", "Global.epochs=2") == 0
        assert (folder / FILE).read_text().splitlines()[2] == "2 10"


def test_weights_without_a_run_are_taken_in_the_order_of_numbers_with_a_warning(numbers, tmp_path, caplog):
    numbers = Recipe.from_dict(numbers)
    assert data_class_names(numbers, None).names == NUMBERS
    assert caplog.text == ""
    assert data_class_names(numbers, tmp_path / "copied").names == NUMBERS
    assert "copied keeps no class names; the classes are taken to be 0, 1, 2, ..." in caplog.text
    assert "have them as texts: 0, 1, 10, ...;" in caplog.text
    caplog.clear()
    numbers["DataLoader"]["Train"]["dataset"]["class_names"] = sorted(NUMBERS)
    assert data_class_names(numbers, tmp_path / "copied").names == sorted(NUMBERS)
    assert caplog.text == ""


def test_where_both_orders_agree_nothing_is_said(tmp_path, caplog):
    root = tree(tmp_path / "tree", ["a", "b"])
    node = {"name": "FolderDataset", "image_root": str(root)}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"DataLoader": {"Train": {"dataset": node}}}))
    assert recorded_names(tmp_path) is None
    node["class_names"] = ["b", "a"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"DataLoader": {"Train": {"dataset": node}}}))
    assert recorded_names(tmp_path).names == ["b", "a"]
    assert caplog.text == ""


def test_a_packaged_list_is_left_out_where_it_does_not_fit(recipe, write_recipe, caplog):
    recipe["Infer"]["PostProcess"]["class_id_map_file"] = PACKAGED
    config = load_config(write_recipe(recipe), mode="infer")
    assert caplog.text.count("class_id_map_file") == 1
    assert "it has 1000 and the network has 4 classes; set it to a file of your own" in caplog.text
    found = class_names(config, 4)
    assert found.names is None
    assert "names other classes than the 4 of the network" in found.source
    assert with_names(config.Infer, found.names) == {"name": "Topk", "topk": 3}
    assert class_names(config, 1000).names[8] == "hen"
    caplog.clear()
    recipe["Arch"]["class_num"] = 1000
    load_config(write_recipe(recipe), mode="infer")
    assert caplog.text == ""


def test_a_packaged_list_gives_way_to_the_names_of_the_data(numbers, write_recipe):
    numbers["Infer"]["PostProcess"]["class_id_map_file"] = PACKAGED
    config = load_config(write_recipe(numbers))
    assert class_names(config, 12).names == NUMBERS
    assert names_to_record(config, data_class_names(config, None), 12) == NUMBERS


@pytest.mark.parametrize("mode", ["train", "eval", "infer", "export"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 a\n2 b\n3 c\n4 d\n", "numbered from 1 to 4, but class_num is 4. Classes count from 0"),
        ("0 a\n1 b\n2 c\n", "it has 3 names, but class_num is 4: there is no name for class 3"),
        ("0 a\n1 b\n2 c\n3 d\n4 e\n", "it has 5 names, but class_num is 4: there is no class 4"),
        ("0 a\n1 b\n1 c\n3 d\n", "names.txt:3: class 1 has a name in line 2 already"),
        ("0 a\n1 b\n2 狗\n3 d\n", "names.txt:3: not UTF-8 (as GBK the line reads '2 狗'); save"),
    ],
)
def test_own_files_that_do_not_fit_are_refused_by_validate(
    recipe, write_recipe, tmp_path, capsys, mode, content, message
):
    (tmp_path / "names.txt").write_bytes(content.encode("gbk"))
    recipe["Infer"]["PostProcess"]["class_id_map_file"] = str(tmp_path / "names.txt")
    assert main(["validate", "-c", str(write_recipe(recipe)), "--mode", mode]) == 2
    printed = capsys.readouterr().err
    assert f"Infer.PostProcess.class_id_map_file: {tmp_path}/names.txt" in printed
    assert message in printed


def test_lists_in_the_recipe_are_checked_too(recipe, write_recipe):
    recipe["Infer"]["PostProcess"]["label_list"] = ["a", "b", "c"]
    with pytest.raises(ConfigError, match="label_list: 3 names, but the network has 4 classes"):
        load_config(write_recipe(recipe))
    recipe["Infer"]["PostProcess"]["label_list"] = ["a", "b", "c", "d"]
    assert class_names(load_config(write_recipe(recipe)), 4).names == ["a", "b", "c", "d"]


def test_a_list_run_keeps_the_names_of_its_file(recipe, write_recipe, tmp_path, caplog):
    path = write_recipe(recipe)
    config = load_config(path)
    assert names_to_record(config, data_class_names(config, None), 4) is None
    recipe["Infer"]["PostProcess"]["class_id_map_file"] = str(tmp_path / "names.txt")
    config = load_config(write_recipe(recipe))
    assert names_to_record(config, data_class_names(config, None), 4) is None
    assert "names.txt: no such file" in caplog.text
    (tmp_path / "names.txt").write_text("0 a\n1 b\n2 c\n3 d\n")
    assert names_to_record(config, data_class_names(config, None), 4) == ["a", "b", "c", "d"]
    (tmp_path / FILE).write_bytes(names_file(["a", "b", "c", "d"])[FILE])
    recipe["Infer"]["PostProcess"]["class_id_map_file"] = None
    recipe["Global"]["pretrained_model"] = str(tmp_path / "best_model")
    config = load_config(write_recipe(recipe))
    assert class_names(config, 4) == ClassNames(["a", "b", "c", "d"], str(tmp_path / FILE))
    assert class_names(config, 5).names is None
    assert names_file(None) == {}
    assert (tmp_path / FILE).exists()


def test_folders_of_evaluation_beside_a_list_of_training(recipe, write_recipe, tmp_path, caplog):
    """The names of a list come from a file, which may call classes otherwise than folders do."""
    node = recipe["DataLoader"]["Eval"]["dataset"]
    del node["cls_label_path"]
    node.update(name="FolderDataset", image_root=str(tree(tmp_path / "val", ["b", "d"])))
    config = load_config(write_recipe(recipe))
    known = ClassNames(["a", "b", "c", "d"], "names.txt")
    assert evaluation_names(config, known, None) == ["a", "b", "c", "d"]
    known = ClassNames(["ant", "bee", "cat", "dog"], "names.txt")
    assert evaluation_names(config, known, None) is None
    assert "make sure that class 0 is b" in caplog.text
    assert evaluation_names(config, ClassNames(None, "none"), None) is None
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    del config["DataLoader"]["Train"]
    assert evaluation_names(config, known, None) == known.names
    assert evaluation_names(config, known, tmp_path) is None  # that run was trained on a list


def teaching(recipe: dict, folder: Path) -> Recipe:
    arch = {
        "name": "DistillationModel",
        "class_num": 4,
        "freeze_params_list": [True, False],
        "models": [
            {"Teacher": {"name": "resnet14", "pretrained": str(folder / "best_model")}},
            {"Student": {"name": "resnet8"}},
        ],
    }
    losses = [{"DistillationKLDivLoss": {"model_name_pairs": [["Student", "Teacher"]]}}]
    return Recipe.from_dict({**recipe, "Arch": arch, "Loss": {"Train": losses}})


def test_a_teacher_of_the_same_classes_in_another_order_is_refused(recipe, tmp_path, caplog):
    (tmp_path / FILE).write_bytes(names_file(["a", "c", "b", "d"])[FILE])
    config = teaching(recipe, tmp_path)
    with pytest.raises(ConfigError, match="Teacher.*class 1 was 'c', here it is 'b'"):
        check_teachers(config, ["a", "b", "c", "d"])
    check_teachers(config, ["a", "c", "b", "d"])
    check_teachers(config, None)
    assert caplog.text == ""
    check_teachers(config, ["a", "c", "b", "e"])
    assert "Arch.models.Teacher: its weights were trained on other classes" in caplog.text
    assert "has another number here" not in caplog.text
    check_teachers(config, ["a", "b", "c", "e"])
    assert "its class 1, 'c', has another number here" in caplog.text
    config["Loss"]["Train"][0]["DistillationKLDivLoss"]["class_map"] = "map.txt"
    check_teachers(config, ["a", "b", "c", "d"])
    del config["Loss"]["Train"][0]["DistillationKLDivLoss"]["class_map"]
    config["Arch"]["freeze_params_list"] = [False, False]  # it may learn other classes
    check_teachers(config, ["a", "b", "c", "d"])


def test_where_weights_come_from(recipe, tmp_path):
    recipe = Recipe.from_dict(recipe)
    assert weights_folder(recipe) is None
    recipe["Arch"]["pretrained"] = True
    assert weights_folder(recipe) is None
    recipe["Arch"]["pretrained"] = "runs/a/best_model"
    assert weights_folder(recipe) == Path("runs/a")
    recipe["Global"]["pretrained_model"] = "https://example.org/x.pdparams"
    assert weights_folder(recipe) is None
    recipe["Global"]["pretrained_model"] = "runs/b/best_model"
    assert weights_folder(recipe) == Path("runs/b")
    config = teaching(recipe, tmp_path)
    config["Global"] = {**config["Global"], "pretrained_model": None, "infer_model_name": "Teacher"}
    assert weights_folder(config) == tmp_path
    config["Arch"]["pretrained_list"] = ["other/best_model", None]
    assert weights_folder(config) == Path("other")


def test_other_postprocesses_stay_as_they_are():
    node = {"name": "ThreshOutput", "threshold": 0.5, "label_0": "no"}
    assert with_names(InferSpec(PostProcess=node), ["a", "b"]) == node
    assert with_names(InferSpec(), ["a", "b"]) == {"name": "Topk", "topk": 5, "label_list": ["a", "b"]}


def test_the_report_of_check_data_has_names(numbers, write_recipe, tmp_path, capsys):
    (tmp_path / "num" / "3" / "0.png").unlink()
    report = tmp_path / "found.json"
    numbers["Infer"]["PostProcess"]["class_id_map_file"] = None
    shutil.move(tmp_path / "num" / "5", tmp_path / "num" / "frog")
    assert main(["check-data", "-c", str(write_recipe(numbers)), "--report", str(report)]) == 0
    assert "from 1 (class 3 3) to 2 images (class 11 frog)" in capsys.readouterr().out
    assert json.loads(report.read_text())["class_names"] == [*(n for n in NUMBERS if n != "5"), "frog"]


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / FILE).write_text("0 a\n2 b\n")
    with pytest.raises(DataError, match="class_names.txt: it has 2 names: there is no name for class 1"):
        recorded_names(tmp_path)


def test_a_folder_without_class_folders_has_no_names_to_compare_with(numbers, write_recipe, tmp_path, capsys):
    (tmp_path / "flat").mkdir()
    path = write_recipe(numbers)
    overrides = ["-o", f"DataLoader.Train.dataset.image_root={tmp_path / 'flat'}"]
    assert main(["check-data", "-c", str(path), *overrides]) == 2
    found = capsys.readouterr().out
    assert "flat: holds no folder for each class of images" in found
    assert "none of the 0 classes" not in found

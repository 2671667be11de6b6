"""Commands on the folder of a run: its saved recipe and its weights, wherever the folder is now."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import yaml

from ppcls.cli import main
from ppcls.deploy import Predictor
from ppcls.engine import Engine
from ppcls.engine.from_run import load_run
from ppcls.errors import ConfigError, WeightsError

RUN = "keep/DistillationModel"


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").open() if '"eval"' in line]


def test_a_run_is_evaluated_used_and_exported_without_a_recipe(home, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    run = home / RUN
    best = rows(run)[-1]
    found = Engine(load_run(run), "eval").eval()
    assert found == {name: best[name] for name in found}
    capsys.readouterr()
    assert main(["infer", str(run), "-o", f"Infer.infer_imgs={home}/images/3.png"]) == 0
    assert "weights best_model of epoch 1" in capsys.readouterr().err  # standard output is for the results
    assert main(["export", str(run), "--weights", "latest", "-o", "Global.export_format=paddle"]) == 0
    capsys.readouterr()
    assert len(Predictor(run / "inference").predict([str(home / "images/3.png")])) == 1
    assert not (tmp_path / "output").exists()


def test_relative_paths_are_those_of_the_folder_of_training(home, monkeypatch, tmp_path, caplog):
    run = home / RUN
    saved = yaml.safe_load((run / "config.yaml").read_text())
    relative = {"image_root": "images", "cls_label_path": "images/val_list.txt"}
    for part in ("Train", "Eval"):
        saved["DataLoader"][part]["dataset"] |= relative
    (run / "config.yaml").write_text(yaml.safe_dump(saved))
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps(environment | {"working_folder": str(home)}))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load_run(run).DataLoader.Eval.dataset["image_root"] == str(home / "images")
    shutil.move(home / "images", home / "pictures")
    with caplog.at_level(logging.WARNING):
        load_run(run)
    assert "-o DataLoader.Eval.dataset.cls_label_path=..." in caplog.text
    caplog.clear()
    load_run(run, [f"DataLoader.Eval.dataset.image_root={home}/pictures"])
    assert "image_root" not in caplog.text
    shutil.move(home / "pictures", elsewhere / "images")
    assert load_run(run).DataLoader.Eval.dataset["image_root"] == "images"


@pytest.mark.parametrize("where", ["Arch", "Global"])
def test_another_network_is_chosen_also_if_the_run_saved_its_name_in_two_sections(home, where, caplog):
    file = home / RUN / "config.yaml"
    saved = yaml.safe_load(file.read_text())
    saved["Global"]["infer_model_name"] = saved["Arch"]["infer_model_name"] = "Student"
    file.write_text(yaml.safe_dump(saved))
    recipe = load_run(home / RUN, [f"{where}.infer_model_name=Teacher", "Global.pretrained_model=x"])
    assert recipe.arch.main_name == "Teacher"
    assert ("no effect" in caplog.text) == (where == "Global")  # of the saved name


def test_warnings_about_the_recipe_of_a_run_appear_once(home, capsys):
    saved = yaml.safe_load((home / RUN / "config.yaml").read_text())
    saved["Infer"]["transforms"][0] = {"DecodeImage": {"to_rgb": False}}
    (home / RUN / "config.yaml").write_text(yaml.safe_dump(saved))
    assert main(["infer", str(home / RUN), "-o", f"Infer.infer_imgs={home}/images/3.png"]) == 0
    assert capsys.readouterr().err.count("Infer.transforms.0.DecodeImage.to_rgb: false, but true in") == 1


def test_a_moved_run_keeps_its_files_together(home, tmp_path):
    moved = shutil.move(home / RUN, tmp_path / "my run")
    recipe = load_run(moved, mode="export")
    assert Engine(recipe, "export").folder == Path(moved)
    assert recipe.Global.pretrained_model == str(Path(moved) / "best_model")
    assert recipe.Global.save_inference_dir == str(Path(moved) / "inference")
    given = load_run(moved, ["Global.save_inference_dir=x", "Global.output_dir=y"], "export")
    assert given.Global.save_inference_dir == "x"
    assert given.Global.output_dir == "y"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give the folder of a run, or a recipe with -c"),
        (["keep/resnet8", "-c", "plain.yaml"], "give the folder of a run, or a recipe with -c"),
        (["-c", "plain.yaml", "--weights", "latest"], "-o Global.pretrained_model=FILE"),
        (["keep/resnet8", "--weights", "epoch_7"], "it has no weights 'epoch_7'"),
        (["keep/resnet8", "--weights", "best", "-o", "Global.pretrained_model=x"], "both name weights"),
        (["keep"], "it holds some: keep/DistillationModel, keep/resnet8"),
        (["plain.yaml"], "take a recipe with -c plain.yaml"),
    ],
)
def test_wrong_command_lines_are_explained(home, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(home)
    assert main(["eval", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_run_without_an_evaluation_asks_for_its_latest_weights(home):
    run = home / "keep/resnet8"
    for path in run.glob("best_*"):
        path.unlink()
    with pytest.raises(WeightsError, match="no best_model.*use --weights latest"):
        load_run(run)
    assert load_run(run, weights="latest").Global.pretrained_model == str(run / "latest")


def test_runs_of_one_output_folder_have_their_own_names(home, capsys):
    assert main(["train", "-c", str(home / "plain.yaml"), "-o", "Global.run_name=seed 1"]) == 0
    assert (home / "keep/seed 1/best_model.pdparams").is_file()
    assert not list((home / "keep").glob("*.earlier-*"))
    arguments = ["-o", "Global.run_name=seed 1", "--resume", "auto"]
    assert main(["train", "-c", str(home / "plain.yaml"), *arguments]) == 0
    assert "already finished" in capsys.readouterr().out
    assert main(["eval", str(home / "keep/seed 1")]) == 0


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "", "a\nb", r"a\b"])
def test_a_run_name_is_the_name_of_a_folder(recipe, name):
    recipe["Global"]["run_name"] = name
    with pytest.raises(ConfigError, match=r"Global\.run_name: expected the name of a folder"):
        Engine(recipe, "train")


def test_what_was_moved_together_with_a_run_is_found_again(home, tmp_path):
    run = home / RUN
    saved = yaml.safe_load((run / "config.yaml").read_text())
    saved["Global"]["output_dir"] = str(home / "keep")
    names = home / "names.txt"
    names.write_text("0 a\n1 b\n2 c\n3 d\n")
    saved["Infer"]["PostProcess"] |= {"class_id_map_file": str(names)}
    data = saved["DataLoader"]["Eval"]["dataset"]
    data |= {"image_root": str(home / "images"), "cls_label_path": str(home / "images/val_list.txt")}
    (run / "config.yaml").write_text(yaml.safe_dump(saved))
    moved = Path(shutil.move(home, tmp_path / "moved"))
    recipe = load_run(moved / RUN)
    assert recipe.DataLoader.Eval.dataset["image_root"] == str(moved / "images")
    assert recipe.DataLoader.Eval.dataset["cls_label_path"] == str(moved / "images/val_list.txt")
    assert recipe.Infer.PostProcess["class_id_map_file"] == str(moved / "names.txt")
    kept = moved / RUN / "class_names.txt"
    kept.write_text("0 a\n1 b\n2 c\n3 d\n")
    (moved / "names.txt").unlink()
    assert load_run(moved / RUN).Infer.PostProcess["class_id_map_file"] == str(kept)


@pytest.mark.parametrize("option", ["relabel", "class_names"])
def test_lists_that_number_or_name_classes_are_found_too(home, monkeypatch, tmp_path, option):
    run = home / RUN
    saved = yaml.safe_load((run / "config.yaml").read_text())
    (home / "images/names.txt").write_text("".join(f"{number} class {number}\n" for number in range(4)))
    file = "images/train_list.txt" if option == "relabel" else "images/names.txt"
    for part in ("Train", "Eval"):
        saved["DataLoader"][part]["dataset"][option] = file
    (run / "config.yaml").write_text(yaml.safe_dump(saved))
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps(environment | {"working_folder": str(home)}))
    monkeypatch.chdir(tmp_path)
    assert load_run(run).DataLoader.Eval.dataset[option] == str(home / file)

"""`ppcls shard`, and the commands that work with its shards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import tiny_recipe

from ppcls.cli import main
from ppcls.commands.shard import _bytes
from ppcls.data import ShardDataset


def sharded(recipe: dict, folder: Path) -> dict:
    """Return a recipe that reads the shards of its parts."""
    parts = {}
    for name, part in recipe["DataLoader"].items():
        operators = part["dataset"]["transform_ops"]
        dataset = {"name": "ShardDataset", "path": str(folder / name), "transform_ops": operators}
        parts[name] = {**part, "dataset": dataset}
    return {**recipe, "DataLoader": parts}


def metrics(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in next(folder.rglob("metrics.jsonl")).read_text().splitlines()]
    return [{key: row[key] for key in row if "loss" in key.lower() or "top" in key.lower()} for row in rows]


def test_a_run_from_shards_equals_one_from_files(image_folder, write_recipe, tmp_path, capsys):
    (image_folder / "names.txt").write_text("0 chelsea\n1 coffee\n2 cat\n3 dog\n")
    recipe = tiny_recipe(image_folder, tmp_path / "files")
    recipe["Infer"]["PostProcess"]["class_id_map_file"] = str(image_folder / "names.txt")
    path = str(write_recipe(recipe))
    assert main(["shard", "-c", path, str(tmp_path / "shards"), "--size", "20KB"]) == 0
    shown = capsys.readouterr().out
    assert f"dataset: {{name: ShardDataset, path: {tmp_path}/shards/Train, " in shown
    assert main(["shard", "-c", path, str(tmp_path / "shards"), "--size", "20KB"]) == 0
    assert capsys.readouterr().out.count("all were there") == 2

    other = sharded(recipe, tmp_path / "shards")
    other["Global"] = {**recipe["Global"], "output_dir": str(tmp_path / "from_shards")}
    del other["Infer"]["PostProcess"]["class_id_map_file"]  # the names are in the shards
    from_shards = str(write_recipe(other, "other.yaml"))
    assert main(["check-data", "-c", from_shards]) == 0
    assert f"Train: {tmp_path}/shards/Train: 12 images" in capsys.readouterr().out
    assert main(["train", "-c", path]) == 0
    assert main(["train", "-c", from_shards]) == 0
    assert metrics(tmp_path / "files") == metrics(tmp_path / "from_shards")
    assert any("loss" in key for row in metrics(tmp_path / "files") for key in row)
    weights = tmp_path / "from_shards" / "resnet8" / "best_model"
    assert (weights.parent / "class_names.txt").read_text() == (image_folder / "names.txt").read_text()
    assert main(["eval", "-c", from_shards, "-o", f"Global.pretrained_model={weights}"]) == 0


def test_one_part_of_a_recipe(recipe, write_recipe, tmp_path):
    path = str(write_recipe(recipe))
    assert main(["shard", "-c", path, str(tmp_path / "out"), "--part", "Eval"]) == 0
    assert [folder.name for folder in (tmp_path / "out").iterdir()] == ["Eval"]
    assert len(ShardDataset(str(tmp_path / "out" / "Eval"))) == 6


def test_a_list_with_class_names_and_a_folder(image_folder, tmp_path):
    (image_folder / "names.txt").write_text("0 a\n1 b\n2 c\n3 d\n")
    options = ["--image-root", str(image_folder), "--class-names", str(image_folder / "names.txt")]
    out = str(tmp_path / "out")
    assert main(["shard", str(image_folder / "train_list.txt"), out, *options]) == 0
    assert ShardDataset(out).class_names == ["a", "b", "c", "d"]
    (tmp_path / "classes").mkdir()
    image_folder.rename(tmp_path / "classes" / "one")
    assert main(["shard", str(tmp_path / "classes"), str(tmp_path / "two")]) == 0
    assert ShardDataset(str(tmp_path / "two")).class_names == ["one"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["DATA"], "expected DATA OUT, got DATA"),
        (["DATA", "OUT", "MORE"], "expected DATA OUT"),
        (["DATA", "--json", "OUT", "MORE"], "expected DATA OUT, got DATA OUT MORE"),
        (["-c", "x.yaml", "DATA", "OUT"], "expected OUT"),
        (["DATA", "OUT"], "DATA: DATA: no such folder or list"),
        ([".", "OUT", "--part", "Eval"], "give one with -c"),
        ([".", "OUT", "--image-root", "x"], "--image-root is for lists"),
        ([".", "OUT", "--quality", "90"], "--resize-short"),
        ([".", "OUT", "--resize-short", "0"], "at least 1 pixel"),
        (["-c", "x.yaml", "OUT", "--on-error", "skip"], "use -o"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    assert main(["shard", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "size"), [("256MB", 256_000_000), ("1gib", 2**30), ("1.5k", 1500), ("700", 700), ("3B", 3)]
)
def test_sizes(text, size):
    assert _bytes(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1MB", "1XB", "MB"])
def test_no_sizes(text, capsys):
    with pytest.raises(SystemExit):
        main(["shard", "a", "b", f"--size={text}"])
    assert "such as 256MB" in capsys.readouterr().err

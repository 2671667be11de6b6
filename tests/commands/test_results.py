"""`ppcls infer` and `ppcls predict` take the same options and do the same with results."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle
import pytest
import yaml
from support import tiny_recipe

import ppcls
from ppcls.cli import main
from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.weights import write_params

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, weights, recipe and the exported network."""
    folder = tmp_path_factory.mktemp("results")
    (folder / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)
    for number, small in enumerate(pixels):
        cv2.imwrite(str(folder / "images" / f"{number:02}.png"), cv2.resize(small, (32, 32)))
    paddle.seed(5)
    write_params(folder / "w.pdparams", ppcls.create_model("resnet8", class_num=4).state_dict())
    (folder / "names.txt").write_text("0 cat\n1 dog\n2 猫\n3 cow\n")
    recipe = tiny_recipe(folder / "images", folder / "output")
    recipe["Global"] |= {"pretrained_model": str(folder / "w"), "export_format": "paddle"}
    recipe["Infer"]["PostProcess"] = {"name": "Topk", "topk": 2}
    recipe["Infer"]["PostProcess"]["class_id_map_file"] = str(folder / "names.txt")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    Engine(load_config(folder / "recipe.yaml", mode="export"), "export").export()
    return folder


@pytest.fixture
def images(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported / "images", tmp_path / "images"))


@pytest.fixture
def commands(exported: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Run]:
    """``infer`` and ``predict`` of one network; each returns exit code, standard output and error."""
    starts = {
        "infer": ["infer", "-c", str(exported / "recipe.yaml")],
        "predict": ["predict", "--model-dir", str(exported / "output" / "inference"), "--device", "cpu"],
    }

    def run(name: str, *arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([*starts[name], *map(str, arguments)])
        return code, *capsys.readouterr()

    return {name: partial(run, name) for name in starts}


def rounded(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return results with scores that do not depend on how sums are rounded."""
    numbers = ("scores", "probabilities")
    return [
        {key: [round(n, 3) for n in value] if key in numbers else value for key, value in one.items()}
        for one in results
    ]


def test_both_give_the_same(commands: dict[str, Run], images: Path, tmp_path: Path) -> None:
    (images / "zz.jpg").write_bytes(b"no image")
    found = {}
    for name, run in commands.items():
        given = [images, "--on-error", "skip", "--topk", "1", "--all-probabilities"]
        code, out, err = run(*given, "--threshold", "0.32", "--sort-into", tmp_path / name)
        assert code == 0
        assert "1 of 13 images could not be read" in err
        assert f"{tmp_path / name}: 12 sorted, 1 unreadable (copy)" in err
        found[name] = [json.loads(line) for line in out.splitlines()]  # nothing else is on standard output
        files = {str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*.png")}
        answers = [one for one in found[name] if "error" not in one]
        assert files == {f"{one['label_names'][0]}/{Path(one['file_name']).name}" for one in answers}
        assert {one["class_ids"][0] == -1 for one in answers} == {True, False}

        given = [images, "--on-error", "skip", "--output", tmp_path / f"{name}.csv"]
        assert run(*given)[:2] == (0, "")
        with (tmp_path / f"{name}.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 13
        assert rows[0].keys() >= {"class_id", "class_id_2", "error"}
        assert rows[-1]["error"]
        assert run(images / "zz.jpg")[0] == 2
    assert rounded(found["infer"]) == rounded(found["predict"])
    assert len(found["infer"][0]["probabilities"]) == 4
    text = [(tmp_path / f"{name}.csv").read_text().splitlines()[0] for name in commands]
    assert text[0] == text[1]


def test_forms_of_printing(commands: dict[str, Run], images: Path, tmp_path: Path, monkeypatch) -> None:
    image = next(images.glob("*.png"))
    for name, run in commands.items():
        out = run(image, "--print", "log", "--output", tmp_path / "x.json")[1]
        assert "ppcls INFO: [{'class_ids': [" in out
        assert len(json.loads((tmp_path / "x.json").read_text())) == 1
        with monkeypatch.context() as patch:
            patch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
            out = run(image)[1]
        assert ("ppcls INFO: [{'class_ids': [" in out) == (name == "infer")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--output", "x.txt"], "--output x.txt: the suffix decides the format"),
        (["--topk", "0"], "topk: 0; expected"),
        (["--threshold", "2"], "threshold: 2.0; expected"),
        (["--unknown-name", "x"], "unknown_name: x: has no effect without a threshold"),
        (["--threshold", "0.5", "--unknown-name", "dog"], "class 1 is called 'dog'"),
        (["--sort-as", "link"], "--sort-as: has no effect without --sort-into"),
    ],
)
def test_wrong_options(commands: dict[str, Run], images: Path, options: list[str], words: str) -> None:
    for run in commands.values():
        code, out, err = run(images, *options)
        assert (code, out) == (2, "")
        assert words in err

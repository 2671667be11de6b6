"""A network that ``stop_after`` ends gives features when it is exported, and `ppcls predict` writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle
import pytest

import ppcls
from ppcls.cli import main
from ppcls.data import build_transforms
from ppcls.deploy import Predictor
from ppcls.deploy.results import write_features
from ppcls.engine.export import export_network
from ppcls.errors import ConfigError

OPERATIONS: list[Any] = [{"DecodeImage": {}}, {"NormalizeImage": {"order": "hwc"}}, {"ToCHWImage": None}]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("features")
    paddle.seed(1)
    description = {"Global": {"model_name": "resnet8", "class_num": 4}, "PreProcess": {}}
    description["PreProcess"]["transform_ops"] = OPERATIONS
    for layer in ("fc", "avg_pool", "blocks[2]"):
        net = ppcls.create_model("resnet8", class_num=4, stop_after=layer)
        export_network(net, folder / layer, (3, 32, 32), inference_yml=description)
        if layer == "avg_pool":
            pooled = net
    (folder / "images").mkdir()
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), pixels)
    (folder / "images" / "9.png").write_bytes(b"no image")
    return folder, pooled


def test_features_are_those_of_the_layer(exported: tuple[Path, Any]) -> None:
    folder, net = exported
    files = sorted((folder / "images").glob("[0-4].png"))
    chain = build_transforms(OPERATIONS)
    net.eval()
    want = net(paddle.to_tensor(np.stack([chain(file.read_bytes()) for file in files]))).numpy()
    predictor = Predictor(folder / "avg_pool", device="cpu", threads=1, batch_size=2)
    assert predictor.gives_features
    results = predictor.predict(files)
    assert [result["file_name"] for result in results] == [str(file) for file in files]
    np.testing.assert_allclose(np.stack([one["features"] for one in results]), want[:, :, 0, 0], atol=1e-5)
    (maps,) = Predictor(folder / "blocks[2]", device="cpu", threads=1).predict(files[:1])
    assert maps["features"].shape == (64, 8, 8)
    assert not Predictor(folder / "fc", device="cpu", threads=1).gives_features


def test_the_command_writes_them(exported: tuple[Path, Any], tmp_path: Path, capsys: Any) -> None:
    folder, _ = exported
    start = ["predict", "--device", "cpu", "--model-dir", str(folder / "avg_pool"), str(folder / "images")]
    start += ["--features", "--on-error", "skip"]
    assert main([*start, "--output", str(tmp_path / "x.npz"), "--batch-size", "2"]) == 0
    assert capsys.readouterr().out == ""
    assert main(start) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    with np.load(tmp_path / "x.npz") as found:
        assert found["features"].shape == (5, 64)
        assert found["features"].dtype == np.float32
        assert found["file_names"].tolist() == [row["file_name"] for row in rows[:5]]
        assert found["unreadable"].tolist() == [rows[5]["file_name"]]
        assert "cannot be decoded" in found["errors"][0]
        np.testing.assert_allclose(found["features"], [row["features"] for row in rows[:5]], atol=1e-6)
    assert rows[5].keys() == {"file_name", "features", "error"}
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


@pytest.mark.parametrize(
    ("layer", "options", "words"),
    [
        ("avg_pool", [], "gives features: use --features"),
        ("fc", ["--features"], "gives classes; export features with -o Arch.stop_after=LAYER"),
        ("avg_pool", ["--features", "--topk", "3"], "--topk 3: is about classes"),
        ("avg_pool", ["--features", "--sort-into", "x"], "--sort-into x: is about classes"),
        ("avg_pool", ["--features", "--all-probabilities"], "--all-probabilities True: is about classes"),
        ("avg_pool", ["--features", "--output", "x.csv"], r"expected .npz or .jsonl"),
        ("fc", ["--output", "x.npz"], r"expected .json, .jsonl or .csv"),
    ],
)
def test_wrong_options(
    exported: tuple[Path, Any], layer: str, options: list[str], words: str, capsys: Any
) -> None:
    image = str(exported[0] / "images" / "0.png")
    assert main(["predict", "--device", "cpu", "--model-dir", str(exported[0] / layer), image, *options]) == 2
    assert words in capsys.readouterr().err


def test_wishes_about_classes_are_refused(exported: tuple[Path, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gives features"):
        Predictor(exported[0] / "avg_pool", topk=3)
    write_features(tmp_path / "none.npz", iter([]))
    with np.load(tmp_path / "none.npz") as found:
        assert len(found["features"]) == len(found["file_names"]) == 0


def test_features_of_different_shapes_are_no_array(exported: tuple[Path, Any], tmp_path: Path) -> None:
    predictor = Predictor(exported[0] / "blocks[2]", device="cpu", threads=1, engine="paddle_inference")
    images = [np.zeros((side, 32, 3), np.uint8) for side in (32, 48, 32)]
    with pytest.raises(ConfigError, match=r"features of shape \[64, 12, 8\], those before have"):
        write_features(tmp_path / "x.npz", (one for image in images for one in predictor.predict([image])))
    assert not (tmp_path / "x.npz").exists()

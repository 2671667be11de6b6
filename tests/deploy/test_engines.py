"""Engines and precisions of the predictor give the same answers, and say what they cannot do."""

from __future__ import annotations

import logging
import os
import pickle
import threading
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
import yaml
from paddle import nn

from ppcls.cli import main
from ppcls.cpu.processor import computes_bfloat16
from ppcls.deploy import Predictor, engines
from ppcls.deploy.benchmark import latency_table, measure_latency
from ppcls.engine.export import export_network
from ppcls.errors import ConfigError, WeightsError
from ppcls.onnx_program import OnnxProgram

SHAPE = (3, 16, 16)


class Net(nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2D(3, 16, 3, padding=1), nn.BatchNorm2D(16), nn.ReLU(), nn.Conv2D(16, 16, 3, stride=2)
        )
        self.head = nn.Linear(16 * 7 * 7, 4)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.head(self.body(x).flatten(1))


def export(folder: Path, *, onnx: bool) -> Path:
    paddle.seed(3)
    transforms = [{"DecodeImage": None}, {"ResizeImage": {"size": 16}}, {"NormalizeImage": {"order": ""}}]
    description = {
        "Global": {"class_num": 4},
        "PreProcess": {"transform_ops": [*transforms, {"ToCHWImage": None}]},
        "PostProcess": {"Topk": {"topk": 4}},
    }
    export_network(Net(), folder, SHAPE, onnx=onnx, inference_yml=description)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tmp_path_factory.mktemp("plain"), onnx=False)


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("paddle2onnx", reason="needs the extra onnx")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    return export(tmp_path_factory.mktemp("onnx"), onnx=True)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [np.random.default_rng(n).integers(0, 256, (20, 24, 3), dtype=np.uint8) for n in range(7)]


def probabilities(predictor: Predictor, images: list[np.ndarray]) -> np.ndarray:
    rows = [dict(zip(one["class_ids"], one["scores"], strict=True)) for one in predictor.predict(images)]
    return np.array([[row[number] for number in range(4)] for row in rows])


def open_one(folder: Path, **options) -> Predictor:
    return Predictor(folder, **{"device": "cpu", "threads": 1, "batch_size": 3, **options})


@pytest.mark.parametrize("threads", [1, 2])
def test_engines_agree(onnx: Path, images: list[np.ndarray], threads: int) -> None:
    expected = probabilities(open_one(onnx, engine="paddle_inference", threads=threads), images)
    for engine in ("auto", "onnxruntime"):
        predictor = open_one(onnx, engine=engine, threads=threads)
        assert isinstance(predictor._run, OnnxProgram)
        np.testing.assert_allclose(probabilities(predictor, images), expected, atol=1e-5)


@pytest.mark.skipif(not computes_bfloat16(), reason="this processor does not compute in bfloat16")
def test_bfloat16_is_near_float32(plain: Path, images: list[np.ndarray]) -> None:
    expected = probabilities(open_one(plain), images)
    found = probabilities(open_one(plain, precision="bfloat16"), images)
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert (found != expected).any()


def test_a_processor_without_bfloat16_computes_in_float32_and_says_so(
    plain: Path, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engines, "computes_bfloat16", lambda: False)
    monkeypatch.setattr(engines.LOGGER, "propagate", True)
    with caplog.at_level(logging.WARNING, engines.LOGGER.name):
        found = probabilities(open_one(plain, precision="bfloat16"), images)
    assert "does not compute in bfloat16" in caplog.text
    np.testing.assert_array_equal(found, probabilities(open_one(plain), images))


def test_auto_takes_onnx_only_where_it_may(
    onnx: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not isinstance(open_one(plain)._run, OnnxProgram)
    assert not isinstance(open_one(onnx, precision="bfloat16")._run, OnnxProgram)
    assert not isinstance(open_one(onnx, mkldnn=False)._run, OnnxProgram)
    unknown = copy_of(onnx, tmp_path / "unknown")
    change(unknown, lambda described: described.pop("onnx_sha256"))
    assert not isinstance(open_one(unknown)._run, OnnxProgram)
    assert isinstance(open_one(unknown, engine="onnxruntime")._run, OnnxProgram)
    monkeypatch.setattr(engines, "is_installed", lambda: False)
    assert not isinstance(open_one(onnx)._run, OnnxProgram)


def copy_of(folder: Path, target: Path) -> Path:
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def change(folder: Path, how) -> None:
    file = folder / "inference.yml"
    content = yaml.safe_load(file.read_text())
    how(content["Global"])
    file.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("engine", ["auto", "onnxruntime"])
def test_an_onnx_file_of_another_export_is_refused(onnx: Path, tmp_path: Path, engine: str) -> None:
    folder = copy_of(onnx, tmp_path / "other")
    content = bytearray((folder / "inference.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "inference.onnx").write_bytes(content)
    with pytest.raises(WeightsError, match=r"inference\.onnx does not have the SHA-256"):
        open_one(folder, engine=engine)


def test_what_does_not_fit_is_named(plain: Path, tmp_path: Path) -> None:
    for options, error, words in (
        ({"engine": "tensorrt"}, ConfigError, "engine: 'tensorrt'; expected auto, paddle_inference or onnx"),
        ({"precision": "int8"}, ConfigError, "precision: 'int8'; expected float32 or bfloat16"),
        ({"engine": "onnxruntime"}, WeightsError, "inference.onnx is missing; write it with"),
        ({"engine": "onnxruntime", "precision": "bfloat16"}, ConfigError, "computes in float32"),
        ({"precision": "bfloat16", "mkldnn": False}, ConfigError, "oneDNN"),
    ):
        with pytest.raises(error, match=words):
            open_one(plain, **options)


def test_threads_copies_and_forks_share_an_onnx_predictor(onnx: Path, images: list[np.ndarray]) -> None:
    predictor = open_one(onnx, engine="onnxruntime", threads=2)
    expected = probabilities(predictor, images)
    np.testing.assert_array_equal(
        probabilities(pickle.loads(pickle.dumps(predictor)), images),  # noqa: S301
        expected,
    )
    wrong: list[int] = []

    def ask(number: int) -> None:
        for _ in range(5):
            found = probabilities(predictor, images[number:])
            if not np.allclose(found, expected[number:], atol=1e-6):
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    child = os.fork()
    if child == 0:
        same = np.allclose(probabilities(predictor, images), expected, atol=1e-6)
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_benchmark_measures_what_is_there(onnx: Path, plain: Path) -> None:
    found = measure_latency(onnx, [1, 4], device="cpu", threads=1, rounds=3)
    by_name = {(one.engine, one.precision): one for one in found}
    assert set(by_name["onnxruntime", "float32"].milliseconds) == {1, 4}
    assert by_name["onnxruntime", "float32"].difference < 1e-5
    assert by_name["paddle_inference", "float32"].difference == 0
    missing = measure_latency(plain, [1], device="cpu", threads=1, rounds=3)[-1]
    assert not missing.milliseconds
    assert "no inference.onnx in the folder" in missing.reason


def test_predict_has_the_options(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 3), np.uint8))
    start = ["predict", "--model-dir", str(plain), "--device", "cpu", "--threads", "1"]
    assert main([*start, str(tmp_path / "a.png"), "--engine", "paddle_inference"]) == 0
    assert "class_ids" in capsys.readouterr().out
    assert main([*start, "--benchmark", "--batch-size", "2"]) == 0
    table = capsys.readouterr().out
    assert "batch 1" in table
    assert "batch 2" in table
    assert "paddle_inference  float32" in table
    assert "1 thread;" in table
    assert main(start) == 2
    assert main([*start, "--benchmark", str(tmp_path / "a.png")]) == 2
    for option in (["--engine", "onnxruntime"], ["--precision", "bfloat16"], ["--on-error", "skip"]):
        capsys.readouterr()
        assert main([*start, "--benchmark", *option]) == 2
        assert f"{' '.join(option)}: has no effect with --benchmark" in capsys.readouterr().err
    assert main([*start, "--benchmark", "--batch-size", str(10**12)]) == 2
    assert "no memory for so many images" in capsys.readouterr().err
    assert main([*start[:-1], "100000", str(tmp_path / "a.png")]) == 2
    assert "threads: 100000; expected at most 1024" in capsys.readouterr().err


def test_predict_prints_what_was_ready_before_an_error(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 3), np.uint8))
    (tmp_path / "b.png").write_bytes(b"nothing")
    paths = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    start = ["predict", "--model-dir", str(plain), "--device", "cpu", "--threads", "1", "--batch-size", "1"]
    assert main([*start, *paths]) == 2
    out, err = capsys.readouterr()
    assert out.count("class_ids") == 1
    assert "b.png" in err


def test_table_names_what_was_not_measured(plain: Path) -> None:
    table = latency_table(measure_latency(plain, [1], device="cpu", threads=1, rounds=1))
    assert "onnxruntime       float32     not measured: no inference.onnx" in table

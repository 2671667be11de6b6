"""An ONNX file says everything about itself: it predicts without the folder it was exported to."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls.deploy import Predictor
from ppcls.engine.export import export_network
from ppcls.errors import ConfigError, WeightsError
from ppcls.onnx_program import OnnxProgram
from ppcls.runtime import Program

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytest.importorskip("paddle2onnx", reason="needs the extra onnx")

NAMES = ["cat", "dog", "猫"]
OPERATIONS: list[Any] = [
    {"DecodeImage": {"to_rgb": False}},
    {"ResizeImage": {"size": [8, 8]}},
    {"NormalizeImage": {"scale": "1.0/255.0", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.5], "order": ""}},
    {"ToCHWImage": None},
]


class Net(nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 8 * 8, len(NAMES))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.fc(x.flatten(1))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    (folder / "names.txt").write_text("".join(f"{number} {name}\n" for number, name in enumerate(NAMES)))
    paddle.seed(1)
    net = Net()
    for name, batch in (("open", None), ("three", 3)):
        description = {
            "Global": {"model_name": "Net", "class_num": 3},
            "PreProcess": {"transform_ops": OPERATIONS},
            "PostProcess": {"name": "Topk", "topk": 2, "class_id_map_file": str(folder / "names.txt")},
        }
        export_network(
            net, folder / name, (3, 8, 8), onnx=True, onnx_batch_size=batch, inference_yml=description
        )
    return folder


@pytest.mark.parametrize("kind", ["open", "three"])
def test_it_answers_as_the_folder(exported: Path, tmp_path: Path, kind: str) -> None:
    alone = tmp_path / "My Net.ONNX"
    alone.write_bytes((exported / kind / "inference.onnx").read_bytes())
    images = list(np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), dtype=np.uint8))
    want = Predictor(exported / kind, engine="paddle_inference", device="cpu", threads=1).predict(images)
    for size in (1, 2, 5):
        predictor = Predictor(alone, device="cpu", threads=1, batch_size=size)
        for got in (predictor.predict(images), pickle.loads(pickle.dumps(predictor)).predict(images)):
            assert [one["label_names"] for one in got] == [one["label_names"] for one in want]
            scores = [one["scores"] for one in want]
            np.testing.assert_allclose([one["scores"] for one in got], scores, atol=2e-5)


def test_a_fixed_batch_is_not_filled_without_need(exported: Path) -> None:
    kinds = {name: type(Predictor(exported / name, device="cpu")._run) for name in ("open", "three")}
    assert kinds == {"open": OnnxProgram, "three": Program}
    assert type(Predictor(exported / "three", device="cpu", engine="onnxruntime")._run) is OnnxProgram


def test_other_programs_find_names_and_numbers(exported: Path) -> None:
    session = onnxruntime.InferenceSession(str(exported / "three" / "inference.onnx"))
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["names"]) == NAMES
    assert json.loads(about["mean"]) == [0.5, 0.4, 0.3]
    assert json.loads(about["std"]) == [0.2, 0.25, 0.5]
    assert float(about["scale"]) == pytest.approx(1 / 255)
    assert (about["color"], about["output"], about["model_name"]) == ("BGR", "probabilities", "Net")
    assert json.loads(about["input_shape"]) == session.get_inputs()[0].shape == [3, 3, 8, 8]
    assert about["input_name"] == session.get_inputs()[0].name
    assert about["output_name"] == session.get_outputs()[0].name
    session = onnxruntime.InferenceSession(str(exported / "open" / "inference.onnx"))
    assert json.loads(session.get_modelmeta().custom_metadata_map["input_shape"]) == [None, 3, 8, 8]


def changed(exported: Path, file: Path, **texts: str | None) -> Path:
    """Write a copy of an ONNX file with other metadata."""
    model = onnx.load(str(exported / "open" / "inference.onnx"))
    about = {entry.key: entry.value for entry in model.metadata_props} | texts
    onnx.helper.set_model_props(model, {key: value for key, value in about.items() if value is not None})
    onnx.save(model, str(file))
    return file


def test_wrong_files(exported: Path, tmp_path: Path) -> None:
    whole = exported / "open" / "inference.onnx"
    (tmp_path / "cut.onnx").write_bytes(whole.read_bytes()[:200])
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: Predictor(tmp_path / "none.onnx"), WeightsError, r"none\.onnx: no such file"),
        (lambda: Predictor(tmp_path / "cut.onnx"), WeightsError, r"cut\.onnx is not a model"),
        (
            lambda: Predictor(changed(exported, tmp_path / "a.onnx", inference_yml=None)),
            ConfigError,
            "have no",
        ),
        (
            lambda: Predictor(changed(exported, tmp_path / "a.onnx", inference_yml="[")),
            ConfigError,
            "not YAML",
        ),
        (
            lambda: Predictor(changed(exported, tmp_path / "a.onnx", inference_yml="7")),
            ConfigError,
            "expected",
        ),
        (lambda: Predictor(whole.with_name("inference.yml")), ConfigError, "is a file, expected the folder"),
        (lambda: Predictor(whole, engine="paddle_inference"), ConfigError, "runs in onnxruntime"),
        (lambda: Predictor(whole, precision="bfloat16"), ConfigError, "computes in float32"),
        (lambda: Predictor(whole, threads=5000), ConfigError, "threads: 5000"),
    ]
    for call, kind, words in cases:
        with pytest.raises(kind, match=words):
            call()
    with pytest.raises(ConfigError, match="no effect without Global.export_onnx"):
        export_network(Net(), tmp_path / "out", (3, 8, 8), onnx_batch_size=2)
    assert not (tmp_path / "out").exists()

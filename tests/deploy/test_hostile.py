"""An ``inference.yml`` that somebody changed: one clear error, whatever is wrong with it."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
import yaml

from ppcls.deploy import Predictor
from ppcls.engine.export import export_network
from ppcls.errors import ConfigError, DataError, PpclsError

TRANSFORMS: list[Any] = [
    {"DecodeImage": {"to_rgb": True, "channel_first": False}},
    {"ResizeImage": {"resize_short": 10}},
    {"CropImage": {"size": 8}},
    {"NormalizeImage": {"scale": 1 / 255, "mean": [0.5] * 3, "std": [0.2] * 3, "order": ""}},
    {"ToCHWImage": None},
]
IMAGE = np.zeros((16, 12, 3), np.uint8)


class Net(paddle.nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.fc = paddle.nn.Linear(3 * 8 * 8, 4)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.fc(x.flatten(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "export"
    description = {
        "Global": {"model_name": "Net", "class_num": 4},
        "PreProcess": {"transform_ops": TRANSFORMS},
        "PostProcess": {"name": "Topk", "topk": 2},
    }
    export_network(Net(), folder, (3, 8, 8), inference_yml=description)
    return folder


@pytest.fixture
def answer(folder: Path):
    """Return a function that writes a description, plain or as text, and lets a Predictor answer."""
    file = folder / "inference.yml"
    whole = file.read_bytes()

    def run(content: Any) -> list[dict[str, Any]]:
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        file.write_text(text, encoding="utf-8", errors="surrogateescape")
        return Predictor(folder, device="cpu", threads=1).predict(IMAGE)

    run.whole = yaml.safe_load(whole)
    yield run
    file.write_bytes(whole)


def _changed(whole: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    tree = copy.deepcopy(whole)
    node: Any = tree
    *steps, last = path.split(".")
    for step in steps:
        node = node[int(step) if isinstance(node, list) else step]
    node[int(last) if isinstance(node, list) else last] = value
    return tree


ODD = (
    None,
    True,
    "text",
    "",
    -1,
    0,
    10**6,
    1e300,
    float("nan"),
    [],
    {},
    [None],
    [[1]],
    {"a": 1},
    [{"a": {}}],
)


PLACES = (
    "Global",
    "PreProcess",
    "PreProcess.transform_ops",
    "PreProcess.transform_ops.0",
    "PreProcess.transform_ops.2.NormalizeImage",
    "PreProcess.transform_ops.2.NormalizeImage.std",
    "PostProcess",
    "PostProcess.Topk",
    "PostProcess.Topk.topk",
    "ppcls",
    "ppcls.DecodeImage",
)


@pytest.mark.slow
def test_any_value_anywhere(answer: Any) -> None:
    refused = 0
    for path in PLACES:
        for value in ODD:
            try:
                (found,) = answer(_changed(answer.whole, path, value))
            except PpclsError as error:
                refused += len(str(error)) < 1000
            else:
                assert np.isfinite(found["scores"]).all()
    assert refused > 40


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("Global.softmax", "false", "Global.softmax: expected true or false, got 'false'"),
        ("Global.softmax", 0, "Global.softmax: expected true or false, got 0"),
        ("Global.params_size", "120", "Global.params_size: expected a whole number"),
        ("Global.params_size", True, "Global.params_size: expected a whole number"),
        ("Global.params_sha256", 5, "Global.params_sha256: expected 64 hexadecimal digits"),
        ("PostProcess.Topk", {"topk": 0}, "topk must be at least 1"),
        ("PostProcess.Topk", {"topk": 1, "label_list": [0, 1, 2, 3]}, "PostProcess.label_list.0"),
        ("PostProcess.Topk", {"topk": 1, "label_list": ["a"]}, "label_list has 1 names"),
        ("PostProcess.Topk", {"class_id_map_file": "gone.txt"}, "gone.txt: no such file"),
        ("PostProcess.Topk", {"name": ["Topk"]}, "PostProcess.Topk.name: Topk has no such option"),
        ("PostProcess", {"main_indicator": ["Topk"], "Topk": {"topk": 1}}, "PostProcess has no ['Topk']"),
        ("PostProcess", {"ThreshOutput": {"threshold": 0.5}}, "decides between two classes"),
        ("PostProcess", {"MultiLabelThreshOutput": {}}, "unknown post-process"),
        ("PreProcess.transform_ops.0", {"ResizeImage": {"size": [-1, 8]}}, "must be a positive whole number"),
    ],
)
def test_what_is_wrong_is_named_with_the_file_it_stands_in(
    answer: Any, path: str, value: Any, words: str
) -> None:
    with pytest.raises(PpclsError) as caught:
        answer(_changed(answer.whole, path, value))
    assert words in str(caught.value)
    assert "inference.yml: " in str(caught.value)
    assert "Infer." not in str(caught.value)


def test_a_checksum_may_have_capitals(answer: Any) -> None:
    digest = answer.whole["Global"]["params_sha256"]
    assert answer(_changed(answer.whole, "Global.params_sha256", digest.upper()))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected the sections Global, PreProcess"),
        ("null", "expected the sections Global, PreProcess"),
        ("text", "expected the sections Global, PreProcess"),
        ("[1, 2]", "expected the sections Global, PreProcess"),
        ("a: [", "not YAML"),
        ("Global: {epochs: " + "9" * 5000 + "}", "more than 64 bits"),
        ("Global: " + "[" * 5000, "inference.yml:1: not YAML"),
        ("Global: " + "[" * 100 + "]" * 100, "levels deep"),
        ("a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 9}]\n" for n in range(1, 20)), "aliases"),
        ("a: &a [*a]", "stands inside what it means"),
        ("a: !!python/object/apply:os.system [x]", "is not supported"),
        ("Global: {}\nGlobal: {}", "is given twice"),
        ("a: \udcff", "not UTF-8"),
    ],
)
def test_texts_that_are_no_description(answer: Any, text: str, words: str) -> None:
    start = time.process_time()
    with pytest.raises(ConfigError) as caught:
        answer(text)
    assert words in str(caught.value)
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    ("op", "words"),
    [
        ({"ResizeImage": {"size": 1_000_000}}, "has more than 33554432 pixels"),
        ({"ResizeImage": {"size": [10, 10_000_000]}}, "has more than 33554432 pixels"),
        ({"ResizeImage": {"resize_short": 1_000_000}}, "the result would have"),
        ({"ResizeImage": {"resize_short": 2**62}}, "the result would have"),
        ({"Pad": {"padding": 1_000_000}}, "the result would have"),
        ({"CropImage": {"size": 1_000_000}}, "has more than 33554432 pixels"),
        ({"RandCropImage": {"size": 1_000_000}}, "has more than 33554432 pixels"),
        ({"NormalizeImage": {"channel_num": 1_000_000}}, "channel_num 1000000, expected 3"),
        ({"ResizeImage": {"resize_short": [3]}}, "ResizeImage.resize_short: expected a whole number"),
        ({"NormalizeImage": {"mean": ["a", "b", "c"]}}, "NormalizeImage.mean.0: expected a number"),
        ({"NormalizeImage": {"mean": [1e300] * 3}}, "NormalizeImage: scale, mean and std must give numbers"),
        (
            {"NormalizeImage": {"scale": float("nan")}},
            "NormalizeImage: scale, mean and std must give numbers",
        ),
        ({"ResizeImage": {"size": 9}}, "cannot run on images of the shape"),
    ],
)
def test_transforms_of_giants_and_of_wrong_types(answer: Any, op: dict[str, Any], words: str) -> None:
    whole = copy.deepcopy(answer.whole)
    if "size': 9" in str(op):
        whole["PreProcess"]["transform_ops"][1] = op
        whole["PreProcess"]["transform_ops"][2] = {"CropImage": {"size": 9}}
    else:
        whole["PreProcess"]["transform_ops"].insert(0, op)
    with pytest.raises((ConfigError, DataError)) as caught:
        answer(whole)
    assert words in str(caught.value)

"""inference.yml in the layout of the tools that read it, and read back to the same images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ppcls.data import build_transforms
from ppcls.deploy.description import (
    describe_postprocess,
    describe_transforms,
    described_postprocess,
    described_transforms,
)
from ppcls.errors import ConfigError

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
NORMALIZE = {"scale": "1.0/255.0", "mean": MEAN, "std": STD, "order": ""}
DECODE = {"DecodeImage": {"to_rgb": True, "to_np": False, "channel_first": False}}
PHOTO = next((Path(__file__).parents[1] / "data" / "photos").glob("*.jpg")).read_bytes()

CHAINS: dict[str, list[Any]] = {
    "imagenet": [
        DECODE,
        {"ResizeImage": {"resize_short": 64}},
        {"CropImage": {"size": 56}},
        {"NormalizeImage": NORMALIZE},
        {"ToCHWImage": None},
    ],
    "order chw": [
        DECODE,
        {"ResizeImage": {"size": [48, 32], "interpolation": "area"}},
        {"ToCHWImage": None},
        {"NormalizeImage": {**NORMALIZE, "order": "chw"}},
    ],
    "channels first from the start": [
        {"DecodeImage": {"channel_first": True}},
        {"NormalizeImage": {**NORMALIZE, "order": "chw"}},
    ],
    "blue first, pil": [
        {"DecodeImage": {"to_rgb": False, "backend": "pil"}},
        {"ResizeImage": {"resize_short": 40, "backend": "pil"}},
        {"CropImage": {"size": [40, 32]}},
        {"NormalizeImage": {"order": ""}},
    ],
    "gray": [
        {"DecodeImage": {"channels": 1}},
        {"ResizeImage": {"size": 32, "interpolation": "bilinear", "backend": "cv2", "return_numpy": False}},
        {"NormalizeImage": {"scale": None, "mean": [0.5], "std": [0.25], "order": "hwc"}},
    ],
    "one mean for all": [
        DECODE,
        {"ResizeImage": {"size": 32}},
        {"NormalizeImage": {"mean": [0.5], "std": [0.25], "order": ""}},
    ],
    "not normalized": [DECODE, {"ResizeImage": {"size": 32}}],
    "the other spelling": [
        {"name": "DecodeImage"},
        {"name": "ResizeImage", "size": 32},
        {"name": "NormalizeImage", "order": ""},
    ],
    "others": [
        {"DecodeImage": {"channel_first": True}},
        {"NormalizeImage": {"order": "chw", "output_fp16": False}},
        {"Cutout": {"length": 8}},
    ],
    "padded, then channels first": [
        DECODE,
        {"Pad": {"padding": 3}},
        {"ToCHWImage": None},
        {"NormalizeImage": {**NORMALIZE, "order": "chw"}},
    ],
    "padded": [DECODE, {"Pad": {"padding": 3}}, {"NormalizeImage": NORMALIZE}, {"ToCHWImage": None}],
}


def written(operations: list[Any], channels: int = 3) -> dict[str, Any]:
    text = yaml.safe_dump({"Global": {}, **describe_transforms(operations, channels)}, sort_keys=False)
    return yaml.safe_load(text)


@pytest.mark.parametrize("name", CHAINS)
def test_what_is_read_back_gives_the_same_images(name: str) -> None:
    operations = CHAINS[name]
    read = described_transforms(written(operations, 1 if name == "gray" else 3), Path("inference.yml"))
    want, got = (build_transforms(chain).chw(PHOTO) for chain in (operations, read))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", [name for name in CHAINS if name != "others" and "padded" not in name])
def test_the_layout_of_the_tools(name: str) -> None:
    operations = written(CHAINS[name])["PreProcess"]["transform_ops"]
    assert all(len(node) == 1 for node in operations)
    names = [next(iter(node)) for node in operations]
    assert set(names) <= {"ResizeImage", "CropImage", "NormalizeImage", "ToCHWImage"}
    assert names[-1] == "ToCHWImage"
    assert operations[-1] == {"ToCHWImage": None}
    for node in operations:
        if "NormalizeImage" in node:
            options = node["NormalizeImage"]
            assert set(options) == {"scale", "mean", "std", "order"}
            assert options["order"] == ""
            assert type(options["scale"]) is float
            assert len(options["mean"]) == len(options["std"]) == 3
            assert {type(number) for number in (*options["mean"], *options["std"])} == {float}
        if "ResizeImage" in node:
            assert set(node["ResizeImage"]) <= {"resize_short", "size", "interpolation", "backend"}


def test_the_usual_chain_word_for_word() -> None:
    assert written(CHAINS["imagenet"]) == {
        "Global": {},
        "PreProcess": {
            "transform_ops": [
                {"ResizeImage": {"resize_short": 64}},
                {"CropImage": {"size": 56}},
                {"NormalizeImage": {"scale": 1 / 255, "mean": MEAN, "std": STD, "order": ""}},
                {"ToCHWImage": None},
            ]
        },
        "ppcls": {"DecodeImage": {"to_rgb": True, "to_np": False}},
    }


def test_pil_is_named_with_its_interpolation() -> None:
    """The default of the tools is linear for both backends, which pil does not have there."""
    (first, *_) = written(CHAINS["blue first, pil"])["PreProcess"]["transform_ops"]
    assert first == {"ResizeImage": {"resize_short": 40, "backend": "pil", "interpolation": "bicubic"}}


def test_a_chain_without_decoding_is_for_decoded_images() -> None:
    operations = [{"NormalizeImage": NORMALIZE}]  # of datasets that are arrays
    content = written(operations)
    assert "ppcls" not in content
    chain = build_transforms(described_transforms(content, Path("inference.yml")))
    np.testing.assert_array_equal(chain.chw(PHOTO), build_transforms([DECODE, *operations]).chw(PHOTO))


def test_options_that_other_tools_do_not_know_stand_apart() -> None:
    given = {"name": "Topk", "topk": 3, "label_list": ["a"], "threshold": 0.5, "unknown_name": None}
    section, ours = describe_postprocess(given)
    assert section == {"Topk": {"topk": 3, "label_list": ["a"]}}
    assert ours == {"Topk": {"threshold": 0.5}}
    content = {"PostProcess": section, "ppcls": ours}
    read = described_postprocess(content, Path("inference.yml"), lambda name: None)
    assert read == {"name": "Topk", "topk": 3, "label_list": ["a"], "threshold": 0.5}
    assert describe_postprocess({"name": "ThreshOutput", "threshold": 0.3})[1] == {}
    with pytest.raises(ConfigError, match=r"ppcls\.Topk: expected a map of options"):
        described_postprocess(content | {"ppcls": {"Topk": 3}}, Path("inference.yml"), lambda name: None)

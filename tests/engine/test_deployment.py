"""From a recipe to a folder that predicts what `infer` predicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle
import pytest
from support import slow_unless

import ppcls
from ppcls.cli import main
from ppcls.config import load_config
from ppcls.deploy import Predictor
from ppcls.engine import Engine
from ppcls.engine.deployment import deployed_transforms, export_sample
from ppcls.errors import ConfigError
from ppcls.weights import write_params

DECODE: dict[str, Any] = {"DecodeImage": {"to_rgb": True, "channel_first": False}}
NORMALIZE = {"scale": "1.0/255.0", "mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.3], "order": ""}
CHAINS: dict[str, list[Any]] = {
    "plain": [DECODE, {"ResizeImage": {"size": 16}}, {"NormalizeImage": NORMALIZE}, {"ToCHWImage": None}],
    "blue first, pil, short side": [
        {"DecodeImage": {"to_rgb": False, "backend": "pil"}},
        {"ResizeImage": {"resize_short": 18, "backend": "pil", "interpolation": "lanczos"}},
        {"CropImage": {"size": 16}},
        {"NormalizeImage": NORMALIZE},
    ],
    "channels first": [
        DECODE,
        {"ResizeImage": {"size": [16, 16], "interpolation": "area"}},
        {"ToCHWImage": None},
        {"NormalizeImage": {**NORMALIZE, "order": "chw"}},
    ],
    "whole images": [DECODE, {"NormalizeImage": {"mean": [0.5], "std": [0.25], "order": "hwc"}}],
}


@pytest.fixture
def trained(recipe: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A recipe whose network has weights, with photos of a size of their own to predict for."""
    paddle.seed(5)
    net = ppcls.create_model("resnet8", class_num=4)
    write_params(tmp_path / "weights.pdparams", net.state_dict())
    recipe["Global"]["export_format"] = "paddle"
    recipe["Global"]["pretrained_model"] = str(tmp_path / "weights")
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(5):
        pixels = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(pixels, (60, 45)))
    recipe["Infer"] |= {"infer_imgs": str(folder), "batch_size": 1}
    return recipe


@pytest.mark.parametrize("name", CHAINS)
def test_predictions_are_those_of_infer(
    trained: dict[str, Any], write_recipe: Callable[..., Path], name: str
) -> None:
    trained["Infer"]["transforms"] = CHAINS[name]
    path = write_recipe(trained)
    want = Engine(load_config(path, mode="infer"), "infer").infer()
    report = Engine(load_config(path, mode="export"), "export").export()
    got = Predictor(report.folder, threads=1, mkldnn=False).predict(trained["Infer"]["infer_imgs"])
    assert len(want) == 5
    for one, other in zip(got, want, strict=True):
        assert one | {"scores": None} == other | {"scores": None}
        np.testing.assert_allclose(one["scores"], other["scores"], atol=2e-5)
    assert len({tuple(result["scores"]) for result in want}) == 5


@pytest.mark.parametrize(
    "left_out",
    slow_unless(lambda keys: keys == ["Infer"], [["Infer"], ["Infer.transforms"], ["Infer.PostProcess"]]),
)
def test_what_infer_does_not_say_comes_from_evaluation(
    trained: dict[str, Any],
    write_recipe: Callable[..., Path],
    left_out: list[str],
    capsys: pytest.CaptureFixture,
) -> None:
    photos = trained["Infer"]["infer_imgs"]
    chain = CHAINS["plain"][:-1]
    trained["DataLoader"]["Eval"]["dataset"]["transform_ops"] = chain
    trained["Infer"]["transforms"] = CHAINS["plain"]
    want = Engine(load_config(write_recipe(trained), mode="infer"), "infer").infer()
    for place in left_out:
        section, _, key = place.partition(".")
        if key:
            del trained[section][key]
        else:
            del trained[section]
    path = write_recipe(trained)
    assert main(["export", "-c", str(path)]) == 0
    got = Predictor(trained["Global"]["save_inference_dir"], threads=1).predict(photos)
    for one, other in zip(got, want, strict=True):
        assert one["class_ids"][:3] == other["class_ids"]
        np.testing.assert_allclose(one["scores"][:3], other["scores"], atol=1e-4)


@pytest.mark.parametrize("size", [(16, 16), (40, 33)])
def test_an_export_is_checked_on_images_of_its_shape_alone(
    trained: dict[str, Any], write_recipe: Callable[..., Path], size: tuple[int, int]
) -> None:
    """The transforms of evaluation are for arrays, as those of CIFAR, and keep the size of an image."""
    folder = Path(trained["Infer"]["infer_imgs"])
    for place, (width, height) in enumerate(((20, 24), size, size)):
        cv2.imwrite(str(folder / f"{place}.png"), np.full((height, width, 3), 50 * place, np.uint8))
    trained["DataLoader"]["Eval"]["dataset"]["transform_ops"] = [{"NormalizeImage": NORMALIZE}]
    del trained["Infer"]["transforms"]
    config = load_config(write_recipe(trained), mode="export")
    sample = export_sample(config, deployed_transforms(config))
    assert (None if sample is None else sample.shape) == ((2, 3, 16, 16) if size == (16, 16) else None)
    report = Engine(config, "export").export()
    assert len(Predictor(report.folder).predict(folder)) == 5


def test_an_export_that_would_not_say_how_images_are_prepared(
    trained: dict[str, Any], write_recipe: Callable[..., Path], capsys: pytest.CaptureFixture
) -> None:
    del trained["Infer"], trained["DataLoader"]
    assert main(["export", "-c", str(write_recipe(trained))]) == 2
    assert "Infer.transforms: missing; export needs it, or DataLoader.Eval" in capsys.readouterr().err
    assert not Path(trained["Global"]["save_inference_dir"]).exists()


def test_another_shape_is_refused_whatever_the_recipe_was_checked_for(
    trained: dict[str, Any], write_recipe: Callable[..., Path]
) -> None:
    trained["Infer"]["transforms"] = CHAINS["plain"]
    del trained["Global"]["image_shape"]
    path = write_recipe(trained)
    config = load_config(path, mode="train")  # a warning there
    for checked in (lambda: Engine(config, "export").export(), lambda: load_config(path, mode="export")):
        with pytest.raises(ConfigError, match=r"Global\.image_shape: \[3, 224, 224\], but Infer\.transforms"):
            checked()
    assert not Path(trained["Global"]["save_inference_dir"]).exists()


def test_a_network_that_ends_early_is_exported_for_its_features(
    trained: dict[str, Any], write_recipe: Callable[..., Path]
) -> None:
    trained["Infer"]["transforms"] = CHAINS["plain"]
    trained["Arch"]["stop_after"] = "avg_pool"
    report = Engine(load_config(write_recipe(trained), mode="export"), "export").export()
    (one, *_) = Predictor(report.folder, threads=1).predict(trained["Infer"]["infer_imgs"])
    assert one["features"].shape == (64,)
    with pytest.raises(ConfigError, match=r"Arch\.stop_after: ends resnet8 before its logits, and infer"):
        load_config(write_recipe(trained), mode="infer")


def test_a_batch_for_a_file_that_is_not_written(
    trained: dict[str, Any], write_recipe: Callable[..., Path]
) -> None:
    trained["Infer"]["transforms"] = CHAINS["plain"]
    path, batch = write_recipe(trained), "Global.onnx_batch_size=4"
    with pytest.raises(ConfigError, match=r"Global\.onnx_batch_size: has no effect without"):
        load_config(path, [batch], mode="export")
    load_config(path, [batch], mode="train")
    load_config(path, [batch, "Global.export_onnx=True"], mode="export")

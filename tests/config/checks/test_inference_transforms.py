"""``Infer.transforms`` that prepare images otherwise than evaluation get a warning."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ppcls.config import load_config
from ppcls.data.transforms import Transform
from ppcls.registry import TRANSFORMS

EVAL, INFER = "DataLoader.Eval.dataset.transform_ops", "Infer.transforms"


def chain(decode: Any = None, resize: Any = None, crop: Any = 16, **normalize: Any) -> list[dict[str, Any]]:
    """Return a chain as PaddleClas writes it."""
    numbers = {"scale": "1.0/255.0", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "order": ""}
    return [
        {"DecodeImage": {"to_rgb": True, "channel_first": False} | (decode or {})},
        {"ResizeImage": resize or {"resize_short": 20}},
        *([] if crop is None else [{"CropImage": {"size": crop}}]),
        {"NormalizeImage": numbers | normalize},
    ]


@pytest.fixture
def warnings(
    recipe: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Callable[..., list[str]]:
    """Return a function that returns the warnings of a recipe with two chains."""

    def warnings(evaluation: Any, infer: Any, mode: str = "train") -> list[str]:
        recipe["DataLoader"]["Eval"]["dataset"]["transform_ops"] = evaluation
        recipe["Infer"]["transforms"] = infer
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe), "utf-8")
        caplog.clear()
        with caplog.at_level(logging.WARNING, "ppcls"):
            load_config(path, mode=mode)
        return [text for record in caplog.records if "in DataLoader.Eval" in (text := record.getMessage())]

    return warnings


@pytest.mark.parametrize(
    ("infer", "words"),
    [
        (chain({"to_rgb": False}), f"{INFER}.0.DecodeImage.to_rgb: false, but true in {EVAL}"),
        (chain(resize={"size": 20}), f"{INFER}.1.ResizeImage.size: 20, but null"),
        (chain(resize={"resize_short": 24}), f"{INFER}.1.ResizeImage.resize_short: 24, but 20"),
        (chain(resize={"size": 16}, crop=None), f"{INFER}.1.ResizeImage.size: 16, but null"),
        (chain(crop=None), f"{INFER}.2.NormalizeImage: it is CropImage in {EVAL}"),
        (chain()[:-1], f"{INFER}: NormalizeImage is missing, which is in {EVAL}"),
        ([*chain(), {"Pad": {"padding": 0}}, {"CropImage": {"size": 8}}], f"{INFER}.4.Pad: there is no such"),
        (chain(mean=[0.5] * 3), f"{INFER}.3.NormalizeImage.mean: [0.5, 0.5, 0.5], but [0.485, "),
        (chain(scale=1), f'{INFER}.3.NormalizeImage.scale: 1, but "1.0/255.0"'),
        (
            [{"name": "DecodeImage", "to_rgb": False}, *chain()[1:]],
            f"{INFER}.0.DecodeImage.to_rgb: false, but true",
        ),
    ],
)
def test_the_first_difference_is_named_once(
    warnings: Callable[..., list[str]], infer: list[Any], words: str
) -> None:
    (text,) = warnings(chain(), infer)
    assert words in text


@pytest.mark.parametrize(
    "infer",
    [
        None,
        chain(),
        [*chain(), {"ToCHWImage": None}],
        [*chain()[:3], {"ToCHWImage": None}, *chain(order="chw")[3:]],
        chain({"to_np": True, "max_pixels": 10_000_000}, order="hwc"),
        chain(crop=[16, 16], scale=1 / 255),
        chain(scale=0.00392157, mean=None, std=None),
        chain(
            resize={"resize_short": 20, "interpolation": "bilinear", "backend": "cv2", "return_numpy": False}
        ),
        [{"name": "DecodeImage"}, *chain()[1:]],
    ],
)
def test_another_spelling_of_the_same_chain_is_no_difference(
    warnings: Callable[..., list[str]], infer: list[Any] | None
) -> None:
    assert not warnings(chain(), infer)


def test_images_of_evaluation_that_are_arrays_are_compared_as_files_in_rgb(
    warnings: Callable[..., list[str]],
) -> None:
    assert not warnings(chain()[1:], chain())
    assert len(warnings(chain()[1:], chain({"to_rgb": False}))) == 1


@pytest.mark.parametrize(("mode", "count"), [("train", 1), ("infer", 1), ("export", 1), ("eval", 0)])
def test_evaluation_alone_does_not_warn(warnings: Callable[..., list[str]], mode: str, count: int) -> None:
    assert len(warnings(chain(), chain({"to_rgb": False}), mode)) == count


def test_transforms_of_others_are_compared_by_their_options(
    warnings: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sharpen(Transform):
        def __init__(self, strength: float = 1.0) -> None:
            self.strength = strength

        def __call__(self, image: Any, rng: Any) -> Any:
            raise AssertionError("not run")

    monkeypatch.setattr(Sharpen, "__module__", "plugin")
    TRANSFORMS.register("Sharpen")(Sharpen)
    own, strong = ({"Sharpen": options} for options in (None, {"strength": 2.0}))
    assert not warnings([*chain(), own], [*chain(), {"Sharpen": {"strength": 1}}])
    (text,) = warnings([*chain(), own], [*chain(), strong])
    assert f"{INFER}.4.Sharpen.strength: 2.0, but 1.0 in" in text

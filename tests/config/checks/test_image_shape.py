"""Images that the chains give against Global.image_shape and the networks; networks that end early."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ppcls.config import load_config
from ppcls.config.checks.image_shape import chain_shape
from ppcls.config.checks.uses import Use, default_key
from ppcls.errors import ConfigError
from ppcls.registry import LOSSES, METRICS, Registry

DECODE: dict[str, Any] = {"DecodeImage": {"to_rgb": True}}
NORMALIZE = {"NormalizeImage": {"scale": "1.0/255.0", "mean": [0.5] * 3, "std": [0.25] * 3, "order": ""}}
GRAY = [
    {"DecodeImage": {"channels": 1}},
    {"ResizeImage": {"size": 32}},
    {"NormalizeImage": {"mean": [0.5], "std": [0.25], "order": ""}},
]
TRAIN, EVAL = (f"DataLoader.{part}.dataset.transform_ops" for part in ("Train", "Eval"))
INFER = "Infer.transforms"


def resized(*size: int) -> list[dict[str, Any]]:
    """A chain that gives images of width and height `size`."""
    return [DECODE, {"ResizeImage": {"size": list(size)}}, NORMALIZE]


@pytest.mark.parametrize(
    ("operations", "shape"),
    [
        (resized(160, 80), (3, 80, 160)),
        ([DECODE, {"ResizeImage": {"resize_short": 256}}, {"CropImage": {"size": 224}}], (3, 224, 224)),
        ([DECODE, {"ResizeImage": {"resize_short": 64}}, NORMALIZE], (3, None, None)),
        ([DECODE, NORMALIZE, {"ToCHWImage": None}], (3, None, None)),
        ([{"DecodeImage": {"channel_first": True}}], (3, None, None)),
        (GRAY, (1, 32, 32)),
        ([{"name": "DecodeImage"}, {"name": "ResizeImage", "size": 48}], (3, 48, 48)),
        # Arrays of a dataset: how many channels they have is not known.
        ([{"ResizeImage": {"size": 32}}, NORMALIZE], (None, 32, 32)),
        ([NORMALIZE], (None, None, None)),
        # Padding adds to what is not known; a crop afterwards makes it known again.
        ([DECODE, {"Pad": {"padding": 3}}, {"RandomCropImage": {"size": 40}}], (3, 40, 40)),
        # What cannot be tried.
        ([DECODE, {"CropImage": {"size": 400}}], None),
        ([DECODE, {"ResizeImage": {"size": 5000}}], None),
        ([DECODE, {"ResizeImage": {"size": [32, 100_000]}}], None),
        ([DECODE, {"ResizeImage": {}}], None),
        ([{"NoSuch": {}}], None),
        (["text"], None),
        ([DECODE, {"ToCHWImage": None}, {"ResizeImage": {"size": 32}}], None),
    ],
)
def test_what_a_chain_gives(operations: list[Any], shape: tuple[int | None, ...] | None) -> None:
    assert chain_shape(operations) == shape


def test_transforms_of_others_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from ppcls.registry import TRANSFORMS

    launched: list[int] = []
    TRANSFORMS.register("Launch")(lambda: launched.append(1))
    assert chain_shape([DECODE, {"Launch": {}}]) is None
    assert not launched


@pytest.fixture
def write(recipe: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes the tiny recipe with other chains and shape."""

    def write(
        *,
        train: Any = None,
        evaluation: Any = None,
        infer: Any = None,
        shape: list[int] | None = None,
        **arch: Any,
    ) -> Path:
        changed = copy.deepcopy(recipe)
        if train is not None:
            changed["DataLoader"]["Train"]["dataset"]["transform_ops"] = train
        changed["DataLoader"]["Eval"]["dataset"]["transform_ops"] = evaluation or resized(32, 32)
        changed["Infer"]["transforms"] = infer or resized(32, 32)
        if shape is None:
            del changed["Global"]["image_shape"]
        else:
            changed["Global"]["image_shape"] = shape
        changed["Arch"] |= arch
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(changed), "utf-8")
        return path

    return write


def told(path: Path, mode: str, caplog: pytest.LogCaptureFixture) -> tuple[list[str], list[str]]:
    """Return the mistakes and the warnings of a recipe."""
    caplog.clear()
    mistakes: list[str] = []
    with caplog.at_level(logging.WARNING, "ppcls"):
        try:
            load_config(path, mode=mode)
        except ConfigError as error:
            mistakes = [str(mistake) for mistake in error.mistakes]
    return mistakes, [record.getMessage() for record in caplog.records]


LOOKERS = ("Loss.Train.0.CELoss", "Loss.Eval.0.CELoss", "Metric.Train.0.TopkAcc", "Metric.Eval.0.TopkAcc")
MODES = ("train", "eval", "infer", "export")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [[3, 64, 64], [3, 32, 96], [1, 32, 32], [3, 32, 224]])
def test_a_shape_that_was_set_and_fits_nothing(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture, mode: str, shape: list[int]
) -> None:
    mistakes, _ = told(write(shape=shape), mode, caplog)
    assert mistakes
    assert all(text.startswith(f"Global.image_shape: {shape}, but ") for text in mistakes)
    wanted = [INFER] if mode == "export" else [EVAL, INFER]
    assert [place for place in (EVAL, INFER) if any(place in text for text in mistakes)] == wanted
    assert all("[3, 32, 32]" in text for text in mistakes)


@pytest.mark.parametrize("mode", MODES)
def test_a_shape_that_fits(write: Callable[..., Path], caplog: pytest.LogCaptureFixture, mode: str) -> None:
    wide = resized(96, 32)
    assert told(write(evaluation=wide, infer=wide, shape=[3, 32, 96]), mode, caplog) == ([], [])
    dynamic = [DECODE, NORMALIZE]
    assert told(write(evaluation=dynamic, infer=dynamic, shape=[3, 50, 60]), mode, caplog) == ([], [])


@pytest.mark.parametrize(
    ("size", "warned"), [([96, 32], 0), ([32, 96], 1), ([32, 32], 0), ([96, 96], 0), ([64, 96], 0)]
)
@pytest.mark.parametrize("name", ["ResizeImage", "RandCropImage", "RandomCropImage", "RandCropImageV2"])
def test_training_on_images_with_width_and_height_exchanged(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture, name: str, size: list[int], warned: int
) -> None:
    wide = resized(96, 32)
    train = [DECODE, {name: {"size": size}}, NORMALIZE]
    mistakes, warnings = told(
        write(train=train, evaluation=wide, infer=wide, shape=[3, 32, 96]), "train", caplog
    )
    text = f"{TRAIN}: images of 32 x 96 (width x height), but {EVAL} give 96 x 32; a size is [width, height]"
    assert not mistakes
    assert len(warnings) == warned
    assert all(text in warning for warning in warnings)


@pytest.mark.parametrize("mode", MODES)
def test_a_default_that_was_left_is_a_warning_until_the_export(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    """Many public recipes leave 224 where their images are of another size; their training is right."""
    for shape in (None, [3, 224, 224]):
        mistakes, warnings = told(write(shape=shape), mode, caplog)
        found = mistakes if mode == "export" else warnings
        assert (len(mistakes), len(warnings)) == ((1, 0) if mode == "export" else (0, 2))
        assert all("Global.image_shape: [3, 224, 224], but " in text for text in found)


def test_the_chain_that_is_exported_decides(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(evaluation=resized(40, 40), infer=resized(32, 32), shape=[3, 32, 32])
    mistakes, warnings = told(path, "train", caplog)
    assert not mistakes
    assert len(warnings) == 2  # the second one says where the chains differ
    assert all(EVAL in text for text in warnings)
    assert told(path, "export", caplog)[0] == []
    path = write(evaluation=resized(40, 40), infer=resized(32, 32), shape=[3, 40, 40])
    assert told(path, "train", caplog)[0] == []
    assert INFER in told(path, "export", caplog)[0][0]


@pytest.mark.parametrize("mode", MODES)
def test_channels_of_images_and_network(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    mistakes, _ = told(write(shape=[3, 32, 32], input_image_channel=1), mode, caplog)
    place = "Arch.input_image_channel: 1, but "
    assert {text for text in mistakes if text.startswith(place)} == {
        f"{place}{chain} give images with 3 (DecodeImage.channels)" for chain in (TRAIN, EVAL, INFER)
    }
    mistakes, _ = told(write(evaluation=GRAY, infer=GRAY, shape=[1, 32, 32]), mode, caplog)
    assert mistakes == [
        f"Arch.input_image_channel: 3, but {chain} give images with 1 (DecodeImage.channels)"
        for chain in (EVAL, INFER)
    ]


@pytest.mark.parametrize("mode", MODES)
def test_one_class(write: Callable[..., Path], caplog: pytest.LogCaptureFixture, mode: str) -> None:
    mistakes, _ = told(write(shape=[3, 32, 32], class_num=1), mode, caplog)
    assert [text for text in mistakes if text.startswith("Arch.class_num: 1; with one class")]


@pytest.mark.parametrize("mode", MODES)
def test_losses_on_logits_that_are_cut_off(
    write: Callable[..., Path], caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    mistakes, _ = told(write(shape=[3, 32, 32], stop_after="blocks[2]"), mode, caplog)
    words = "looks at the logits of resnet8, but Arch.stop_after ends it before them"
    assert {text.partition(";")[0] for text in mistakes if words in text} == {
        f"{place}: {words}" for place in LOOKERS if mode != "export"
    }
    deployed = [
        text for text in mistakes if text.startswith("Arch.stop_after: ends resnet8 before its logits")
    ]
    assert len(deployed) == (mode == "infer")
    assert told(write(shape=[3, 32, 32], stop_after="fc"), mode, caplog) == ([], [])


@pytest.mark.parametrize(
    ("registry", "name", "options", "key"),
    [
        (LOSSES, "CELoss", {}, "logits"),
        (METRICS, "TopkAcc", {}, "logits"),
        (METRICS, "DistillationTopkAcc", {}, "logits"),
        (LOSSES, "DistillationDMLLoss", {}, "logits"),
        (LOSSES, "DistillationPairLoss", {"base_loss_name": "NoSuch"}, None),
        (LOSSES, "AFDLoss", {}, None),  # features, all of them by default
        (LOSSES, "OFDLoss", {}, None),
    ],
)
def test_which_output_is_looked_at_by_default(
    registry: Registry, name: str, options: dict[str, Any], key: str | None
) -> None:
    assert default_key(Use(name, "here", f"here.{name}", options), registry) == key


def test_features_of_a_network_that_ends_early(
    recipe_tree: dict[str, Any], write_recipe: Callable[..., Path]
) -> None:
    """A teacher may end with the feature that is learned from, unless a loss reads its logits."""
    teacher = "Arch.models.0.Teacher"
    stop = ("set", f"{teacher}.stop_after", "blocks[5]")
    with pytest.raises(ConfigError) as caught:
        load_config(write_recipe(stop))
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["Loss.Train.1.DistillationKLDivLoss"]
    assert f"{teacher}.stop_after" in lines[1]
    load_config(write_recipe(stop, ("drop", "Loss.Train.1")))
    with pytest.raises(ConfigError, match=r"Loss\.Train\.0\.DistillationGTCELoss: looks at the logits"):
        load_config(write_recipe(("set", "Arch.models.1.Student.stop_after", "blocks[2]")))

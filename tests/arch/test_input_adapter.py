"""Networks with preprocessing of their own see the same view as their own pipeline would give it."""

from __future__ import annotations

import copy

import numpy as np
import paddle
import pytest
from PIL import Image

from ppcls.arch import build_model
from ppcls.arch.input_adapter import InputAdapter
from ppcls.data import build_transforms
from ppcls.errors import ConfigError

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
OWN = {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.25, 1.0]}


def model(**options):
    teacher = {"name": "resnet8", "class_num": 5, **options}
    node = {
        "name": "DistillationModel",
        "models": [{"Teacher": teacher}, {"Student": {"name": "resnet8", "class_num": 5}}],
        "freeze_params_list": [True, False],
    }
    paddle.seed(0)
    built = build_model(node, normalize={"mean": MEAN, "std": STD})
    built.eval()
    return built


def pixels(size=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (2, size, size, 3), np.uint8)


def batch(raw, mean, std):
    """What a pipeline with these numbers gives for 8-bit images [N, H, W, C]."""
    chain = build_transforms(
        [
            {"NormalizeImage": {"scale": "1.0/255.0", "mean": mean, "std": std, "order": "hwc"}},
            {"ToCHWImage": None},
        ]
    )
    return paddle.to_tensor(np.stack([chain(image) for image in raw]))


@pytest.mark.parametrize(
    "own", [OWN, {"mean": [0.5], "std": [0.5]}, {"mean": [0.0] * 3, "std": [1 / 255] * 3}]
)
def test_the_teacher_sees_what_its_own_pipeline_gives(own):
    raw = pixels()
    whole, alone = model(**own), model().network("Teacher")
    theirs = batch(raw, *(np.broadcast_to(own[key], 3).tolist() for key in ("mean", "std")))
    adapted = InputAdapter(**own)
    adapted.connect(MEAN, STD)
    seen = adapted.adapt(batch(raw, MEAN, STD)).numpy()
    np.testing.assert_allclose(seen, theirs.numpy(), rtol=1e-5, atol=1e-5)
    expected = alone(theirs).numpy()
    given = batch(raw, MEAN, STD)
    for logits in (
        whole(given)["Teacher"],
        whole.network("Teacher")(given),
        whole.infer_network("Teacher")(given),
    ):
        np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(alone(given).numpy() - expected).max() > 1e-2  # it matters here


def test_others_are_not_affected():
    given = batch(pixels(), MEAN, STD)
    np.testing.assert_array_equal(
        model(**OWN, input_size=16)(given)["Student"].numpy(), model()(given)["Student"].numpy()
    )
    assert set(model(**OWN).state_dict()) == set(model().state_dict())


@pytest.mark.parametrize("size", [16, 20, 48, [24, 40], [48, 16]])
def test_resizing_is_that_of_pillow(size):
    x = np.random.default_rng(1).standard_normal((2, 3, 32, 28)).astype("float32")
    found = InputAdapter(input_size=size).adapt(paddle.to_tensor(x)).numpy()
    height, width = [size, size] if isinstance(size, int) else size
    planes = [
        np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))
        for plane in x.reshape(-1, 32, 28)
    ]
    np.testing.assert_allclose(found, np.reshape(planes, (2, 3, height, width)), atol=3e-5)


def test_the_right_size_is_left_alone():
    x = paddle.randn([1, 3, 20, 24])
    assert InputAdapter(input_size=[20, 24]).adapt(x) is x


def test_resized_and_normalised_in_one():
    raw = np.full((2, 32, 32, 3), 77, np.uint8)  # an image that shrinking leaves as it is
    expected = model().network("Teacher")(batch(raw[:, :16, :16], **OWN)).numpy()
    found = model(**OWN, input_size=16)(batch(raw, MEAN, STD))["Teacher"].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_copy_adapts_too():
    given = batch(pixels(), MEAN, STD)
    whole = model(**OWN)
    twin = copy.deepcopy(whole)
    np.testing.assert_array_equal(twin(given)["Teacher"].numpy(), whole(given)["Teacher"].numpy())


def test_a_chain_with_a_size_of_its_own_finds_shapes_at_that_size():
    backbone = {"name": "resnet8", "class_num": 5, "return_patterns": ["blocks[2]"]}
    teacher, student = (
        {
            "name": "AttentionModel",
            "models": [
                {"Net": dict(backbone)},
                {"Transform": {"name": f"LinearTransform{side}", "qk_dim": 4}},
            ],
        }
        for side in ("Teacher", "Student")
    )
    node = {
        "name": "DistillationModel",
        "models": [{"Teacher": {**teacher, "input_size": 48}}, {"Student": student}],
    }
    built = build_model(node)
    built.prepare([3, 32, 32])
    assert built.network("Teacher").network("Transform").shapes == [(64, 12, 12)]
    assert built.network("Student").network("Transform").shapes == [(64, 8, 8)]
    x = paddle.randn([2, 3, 32, 32])
    out = built(x)
    built.eval()
    assert (built.infer_network("Teacher")(x)["blocks[2]"] == built(x)["Teacher"]["blocks[2]"]).all()
    assert out["Teacher"]["value"][0].shape == [2, 144]
    assert out["Student"]["value"][0].shape == [2, 1, 144]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mean": [0.5] * 3}, r"^Arch\.models\.0\.Teacher: mean is given without std"),
        ({"std": [0.5] * 3}, "std is given without mean"),
        ({"mean": [0.5] * 3, "std": [0.5]}, "mean has 3 values and std has 1"),
        ({"mean": [0.5] * 3, "std": [0.5, 0.5, 0.0]}, "std must be positive"),
        ({"mean": [float("nan")], "std": [1.0]}, "mean: expected one number per channel"),
        ({"input_size": 0}, "input_size: expected a side length"),
        ({"input_size": [32, 32, 3]}, "input_size: expected a side length"),
        ({"input_size": True}, "input_size: expected a side length"),
    ],
)
def test_mistakes_are_named(options, says):
    with pytest.raises(ConfigError, match=says):
        model(**options)


def test_it_does_not_guess_how_images_are_normalised():
    node = {"name": "DistillationModel", "models": [{"T": {"name": "resnet8", "class_num": 5, **OWN}}]}
    with pytest.raises(ConfigError, match="how its images are normalised is not known"):
        build_model(node)(paddle.zeros([1, 3, 32, 32]))

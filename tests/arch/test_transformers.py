"""Transformers on images of other sizes than the one they are built for."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

import ppcls
from ppcls.arch.backbone.swin import SwinBlock
from ppcls.errors import ConfigError


@pytest.fixture(scope="module", params=["DeiT_tiny_patch16_224", "DeiT_tiny_distilled_patch16_224"])
def deit(request):
    paddle.seed(0)
    net = ppcls.create_model(request.param, class_num=3)
    net.eval()
    return net


@pytest.mark.parametrize("shape", [(28, 14), (7, 21), (14, 28)])
def test_positions_keep_their_place_in_the_image(deit, shape):
    """A position embedding that says how far down and how far right a patch is says so at any size."""
    kept = deit.pos_embed.numpy().copy()
    down, right = np.meshgrid(np.arange(14), np.arange(14), indexing="ij")
    places = np.zeros_like(kept)
    places[0, deit.extra_tokens :, 0], places[0, deit.extra_tokens :, 1] = down.ravel(), right.ravel()
    places[0, : deit.extra_tokens] = 5.0
    deit.pos_embed.set_value(paddle.to_tensor(places))
    found = deit._positions(*shape).numpy()[0]
    deit.pos_embed.set_value(paddle.to_tensor(kept))
    assert (found[: deit.extra_tokens] == 5.0).all()
    found = found[deit.extra_tokens :].reshape(*shape, -1)
    centre_down = (np.arange(shape[0]) + 0.5) * 14 / shape[0] - 0.5
    centre_right = (np.arange(shape[1]) + 0.5) * 14 / shape[1] - 0.5
    inner = slice(4, -4) if max(shape) > 14 else slice(2, -2)  # at the border there is nothing to go by
    wanted = np.broadcast_to(centre_down[:, None], shape)
    np.testing.assert_allclose(found[inner, inner, 0], wanted[inner, inner], atol=0.1)
    wanted = np.broadcast_to(centre_right[None], shape)
    np.testing.assert_allclose(found[inner, inner, 1], wanted[inner, inner], atol=0.1)


def test_its_own_size_takes_the_positions_as_they_are(deit):
    assert deit._positions(14, 14) is deit.pos_embed


@pytest.mark.parametrize("size", [(224, 224), (160, 96), (100, 230)])
def test_images_of_other_sizes_have_their_patches_as_tokens(deit, size):
    deit.update_res(["blocks[0]"])
    x = paddle.rand([1, 3, *size])
    with paddle.no_grad():
        out = deit(x)
        again = deit(x[:, :, : size[0] // 16 * 16, : size[1] // 16 * 16])
    deit.update_res([])
    assert out["blocks[0]"].shape[1] == (size[0] // 16) * (size[1] // 16) + deit.extra_tokens
    assert np.isfinite(out["logits"].numpy()).all()
    assert (out["logits"] == again["logits"]).all()  # what does not fill a patch is left out


def test_an_image_smaller_than_a_patch_is_refused(deit):
    with pytest.raises(ConfigError, match="images of 8 x 64 pixels are smaller than a patch"):
        deit(paddle.rand([1, 3, 8, 64]))


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(8, 12), (10, 9), (5, 7)])
def test_attention_stays_inside_its_window(shifted, rows, columns):
    """Also on maps that windows do not fill, and where the shift brings tokens to the other end."""
    window = 4
    paddle.seed(1)
    block = SwinBlock(8, 2, window, shifted, 0.0, shift_single_window=False)
    block.eval()
    x = np.random.default_rng(0).standard_normal((1, rows * columns, 8)).astype("float32")
    shift = window // 2 if shifted else 0

    def home(row, column):
        return (row + window - shift) // window, (column + window - shift) // window

    for row, column in [(0, 0), (rows - 1, columns - 1), (rows // 2, 1), (1, columns - 1)]:
        other = x.copy()
        other[0, row * columns + column, 0] += 1.0
        with paddle.no_grad():
            one, two = (block(paddle.to_tensor(v), rows, columns).numpy() for v in (x, other))
        changed = np.abs(one - two).max(axis=2).reshape(rows, columns) > 1e-6
        wanted = [[home(r, c) == home(row, column) for c in range(columns)] for r in range(rows)]
        np.testing.assert_array_equal(changed, wanted)


def test_swin_takes_any_size():
    paddle.seed(0)
    net = ppcls.create_model("SwinTransformer_tiny_patch4_window7_224", class_num=3, return_stages=0)
    net.eval()
    with paddle.no_grad():
        out = net(paddle.rand([1, 3, 100, 68]))
    assert out["logits"].shape == [1, 3]
    assert np.isfinite(out["logits"].numpy()).all()
    assert out[net.stages_pattern[0]].shape[1:] == [13 * 9, 192]  # 25 x 17 patches, merged two by two

"""Transformers on images of other sizes than the one they are built for."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

import ppcls
from ppcls.arch.backbone.mobilevit import join_patches, resized, split_patches
from ppcls.arch.backbone.swin import Drops, SwinBlock, neighbours, padded
from ppcls.arch.backbone.swin_v2 import CosineAttention, SwinV2Block, log_distances, unit
from ppcls.errors import ConfigError
from ppcls.runtime import Program

V2 = "SwinTransformerV2_tiny_patch4_window8_256"


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


def swin_block(version, window, shifted):
    paddle.seed(1)
    if version == 1:
        return SwinBlock(8, 2, window, shifted, 0.0, shift_single_window=False)
    attn = CosineAttention(8, 2, window, window, Drops())
    attn.logit_scale.set_value(0 * attn.logit_scale)  # so that every token has an influence that can be seen
    attn.proj.weight.set_value(20 * attn.proj.weight)
    return SwinV2Block(8, attn, window, shifted, 0.0, Drops())


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(8, 12), (10, 9), (5, 7)])
def test_attention_stays_inside_its_window(version, shifted, rows, columns):
    """Also on maps that windows do not fill, and where the shift brings tokens to the other end."""
    window = 4
    block = swin_block(version, window, shifted)
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


@pytest.mark.parametrize("name", ["SwinTransformer_tiny_patch4_window7_224", V2])
def test_swin_takes_any_size(name):
    paddle.seed(0)
    net = ppcls.create_model(name, class_num=3, return_stages=0)
    net.eval()
    with paddle.no_grad():
        out = net(paddle.rand([1, 3, 100, 68]))
    assert out["logits"].shape == [1, 3]
    assert np.isfinite(out["logits"].numpy()).all()
    assert out[net.stages_pattern[0]].shape[1:] == [13 * 9, 192]  # 25 x 17 patches, merged two by two


class _Merged(paddle.nn.Layer):
    """A map that is padded to windows, and one whose neighbours are joined."""

    def forward(self, x):
        tokens = neighbours(x.flatten(1, 2), 5, 7)
        return padded(x, 8, 8), tokens


def test_padded_maps_run_in_paddle_inference(tmp_path):
    spec = [paddle.static.InputSpec([None, 5, 7, 4], "float32", "x")]
    paddle.jit.save(paddle.jit.to_static(_Merged(), spec), str(tmp_path / "merged"))
    (tmp_path / "merged.pdiparams").touch()
    program = Program(tmp_path / "merged.json")
    x = np.random.default_rng(0).standard_normal((2, 5, 7, 4)).astype("float32")
    whole, tokens = program.run(x, program.outputs)
    np.testing.assert_array_equal(whole, np.pad(x, ((0, 0), (0, 3), (0, 1), (0, 0))))
    np.testing.assert_array_equal(tokens, neighbours(paddle.to_tensor(x).flatten(1, 2), 5, 7).numpy())


def test_attention_by_cosines_is_that_of_the_paper():
    """Scores are cosines times a scale of at most 100, plus 16 sigmoid(MLP(log distance)); in float64."""
    paddle.seed(2)
    rng = np.random.default_rng(2)
    attn = CosineAttention(6, 2, 2, 3, Drops())
    attn.eval()
    for key, value in attn.named_parameters():
        scale = 3.0 if "logit_scale" in key else 0.5  # exp(3 * 2) is above 100
        value.set_value(rng.normal(0, scale, value.shape).astype("float32"))
    attn.logit_scale.set_value(np.array([5.0, 1.0], "float32").reshape(2, 1, 1))
    p = {key: value.numpy().astype(float) for key, value in attn.named_parameters()}
    x = rng.normal(size=(3, 4, 6)).astype("float32")
    q, k, v = np.split(x @ p["qkv.weight"], 3, axis=2)
    q, v = q + p["q_bias"], v + p["v_bias"]
    heads = []
    for head in range(2):
        part = slice(3 * head, 3 * head + 3)
        a, b = (y[:, :, part] / np.linalg.norm(y[:, :, part], axis=2, keepdims=True) for y in (q, k))
        scores = a @ b.transpose(0, 2, 1) * min(np.exp(p["logit_scale"][head, 0, 0]), 100.0)
        for one in range(4):
            for two in range(4):
                steps = np.array([one // 2 - two // 2, one % 2 - two % 2]) * 8 / 2
                steps = np.sign(steps) * np.log2(1 + np.abs(steps)) / np.log2(8)
                hidden = np.maximum(steps @ p["cpb_mlp.0.weight"] + p["cpb_mlp.0.bias"], 0)
                scores[:, one, two] += 16 / (1 + np.exp(-(hidden @ p["cpb_mlp.2.weight"])[head]))
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        heads.append(weights / weights.sum(axis=2, keepdims=True) @ v[:, :, part])
    wanted = np.concatenate(heads, axis=2) @ p["proj.weight"] + p["proj.bias"]
    np.testing.assert_allclose(attn(paddle.to_tensor(x)).numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_distances_of_a_window_trained_before_reach_beyond_one():
    assert np.abs(log_distances(8, 8)).max() == pytest.approx(np.log2(9) / 3)
    near, far = log_distances(8, 8), log_distances(16, 8)
    inner = far.reshape(31, 31, 2)[8:-8, 8:-8].reshape(-1, 2)
    np.testing.assert_allclose(inner, near, rtol=1e-6)  # equal steps have equal distances
    assert np.abs(far).max() > np.abs(near).max()


def test_padding_has_no_direction_and_a_finite_gradient():
    x = paddle.zeros([2, 3])
    x.stop_gradient = False
    y = unit(x)
    y.sum().backward()
    assert (y == 0).all()
    assert np.isfinite(x.grad.numpy()).all()


def test_the_bias_of_places_and_the_scale_of_cosines_are_not_decayed():
    with paddle.LazyGuard():
        net = ppcls.create_model(V2, class_num=2)
    exempt = {key.split("attn.")[-1] for key, p in net.named_parameters() if p.regularizer is not None}
    assert exempt == {"logit_scale", "cpb_mlp.0.weight", "cpb_mlp.0.bias", "cpb_mlp.2.weight"}


def test_patches_are_split_and_joined_without_loss():
    x = paddle.arange(2 * 3 * 4 * 6, dtype="float32").reshape([2, 3, 4, 6])
    tokens = split_patches(x)
    assert tokens.shape == [2 * 4, 6, 3]
    np.testing.assert_array_equal(tokens[0, :, 0].numpy(), x[0, 0, ::2, ::2].flatten().numpy())
    np.testing.assert_array_equal(join_patches(tokens, [4, 6]).numpy(), x.numpy())


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize(
    ("old", "new"), [([7, 5], [8, 6]), ([8, 6], [7, 5]), ([1, 4], [2, 4]), ([4, 3], [4, 4])]
)
def test_maps_are_resized_as_paddle_interpolates(old, new, corners):
    x = paddle.to_tensor(np.random.default_rng(3).standard_normal((2, 3, *old)).astype("float32"))
    wanted = F.interpolate(x, size=new, mode="bilinear", align_corners=corners)
    np.testing.assert_allclose(resized(x, new, corners).numpy(), wanted.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["MobileViT_XXS", "MobileViTV2_x0_5"])
def test_networks_with_patches_take_any_size(name):
    paddle.seed(0)
    net = ppcls.create_model(name, class_num=3, return_stages=True)
    net.eval()
    with paddle.no_grad():
        out = net(paddle.rand([1, 3, 72, 40]))
    assert np.isfinite(out["logits"].numpy()).all()
    last = out[net.stages_pattern[-1]]
    assert last.shape[2:] == ([3, 2] if name.startswith("MobileViT_") else [4, 2])

"""Files of parameters: what is written is read back, by us and by Paddle; nothing is left half-written."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import paddle
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ppcls.errors import WeightsError
from ppcls.weights import find_file, read_params, read_state, write_atomic, write_params, write_state

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.isprintable)
ARRAYS = hnp.arrays(
    st.sampled_from(["float32", "float64", "float16", "int64", "int32", "uint8", "bool"]),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


@given(state=st.dictionaries(NAMES, ARRAYS, max_size=4))
@settings(max_examples=30, deadline=None)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, state: dict) -> None:
    file = tmp_path_factory.mktemp("p") / "w.pdparams"
    write_params(file, state)
    back = read_params(file)
    assert list(back) == list(state)
    for name, array in state.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        np.testing.assert_array_equal(back[name], array)


def test_paddle_loads_what_we_write(tmp_path: Path) -> None:
    net = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.BatchNorm2D(4))
    write_params(tmp_path / "w.pdparams", net.state_dict())
    other = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.BatchNorm2D(4))
    missing, unexpected = other.set_state_dict(paddle.load(str(tmp_path / "w.pdparams")))
    assert not missing
    assert not unexpected
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name].numpy(), value.numpy())


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_reads_what_paddle_saves(tmp_path: Path, protocol: int) -> None:
    values = {
        "matrix": paddle.arange(6, dtype="float32").reshape([2, 3]),
        "scalar": paddle.to_tensor(3.5),
        "half": paddle.to_tensor([1.5, -2.0]).astype("float16"),
        "brain": paddle.to_tensor([1.0, -0.15625, 3e38]).astype("bfloat16"),
        "whole": paddle.to_tensor([1, 2**40]),
    }
    paddle.save(values, str(tmp_path / "w.pdparams"), protocol=protocol)
    got = read_params(tmp_path / "w.pdparams")
    assert list(got) == list(values), "the table of names that Paddle adds is not a parameter"
    assert got["scalar"].shape == ()
    assert got["brain"].dtype == np.float32
    for name, value in values.items():
        want = value.astype("float32").numpy() if name == "brain" else value.numpy()
        np.testing.assert_array_equal(got[name], want)


def test_reads_nested_state_with_tensors(tmp_path: Path) -> None:
    optimizer = {
        "step": 3,
        "slots": [paddle.ones([2])],
        "LR_Scheduler": OrderedDict(last_lr=0.1),
        "none": None,
    }
    paddle.save(optimizer, str(tmp_path / "o.pdopt"))
    got = read_state(tmp_path / "o.pdopt")
    np.testing.assert_array_equal(got["slots"][0], [1, 1])
    assert (got["step"], got["LR_Scheduler"], got["none"]) == (3, {"last_lr": 0.1}, None)


def test_state_round_trip(tmp_path: Path) -> None:
    state = {"a": [1, 2.5, "x", None, True, (3, b"y")], "t": paddle.ones([2]), "n": np.float32(2)}
    write_state(tmp_path / "s", state)
    got = read_state(tmp_path / "s")
    assert got["a"] == state["a"]
    assert got["n"] == 2
    np.testing.assert_array_equal(got["t"], [1, 1])
    with pytest.raises(TypeError, match="object"):
        write_state(tmp_path / "s2", {"a": object()})
    assert not (tmp_path / "s2").exists()


def test_arrays_keep_their_order_of_axes(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(6).reshape(2, 3).astype(">f4"))
    write_params(tmp_path / "w.pdparams", {"a": array})
    got = read_params(tmp_path / "w")["a"]
    np.testing.assert_array_equal(got, array)
    assert got.dtype.isnative
    got += 1  # an ordinary array, not a view of the file


def test_reads_safetensors(tmp_path: Path) -> None:
    want = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    safetensors.numpy.save_file(want, tmp_path / "w.safetensors")
    np.testing.assert_array_equal(read_params(tmp_path / "w")["a"], want["a"])
    content = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(content[:-3])
    with pytest.raises(WeightsError, match=r"w\.safetensors is not a complete"):
        read_params(tmp_path / "w")


def test_paths_with_and_without_suffix(tmp_path: Path) -> None:
    write_params(tmp_path / "v1.5.pdparams", {"a": np.zeros(1)})
    assert find_file(tmp_path / "v1.5") == find_file(tmp_path / "v1.5.pdparams") == tmp_path / "v1.5.pdparams"
    with pytest.raises(WeightsError, match=r"Global\.pretrained_model: .*Did you mean: v1\.5"):
        find_file(tmp_path / "v1.4", "Global.pretrained_model")
    with pytest.raises(WeightsError, match="folder .*nowhere does not exist"):
        find_file(tmp_path / "nowhere" / "best_model")


@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    file = tmp_path / "w.pdparams"
    write_params(file, {"a": np.ones(2)})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if moment != "write":
        monkeypatch.setattr(os, moment, full)
    with pytest.raises(WeightsError, match=r"w\.pdparams: No space left"):
        write_atomic(file, full if moment == "write" else lambda stream: stream.write(b"new"))
    monkeypatch.undo()
    np.testing.assert_array_equal(read_params(file)["a"], [1, 1])
    assert os.listdir(tmp_path) == ["w.pdparams"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "w.pdparams"
    write_params(file, {"a": np.ones(2)})

    def interrupted(stream: object) -> None:
        stream.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(file, interrupted)
    assert os.listdir(file.parent) == ["w.pdparams"]
    assert list(read_params(file)) == ["a"]

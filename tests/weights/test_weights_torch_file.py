"""PyTorch files are read without PyTorch, and nothing in them is executed.

``data/torch_zip.pth`` and ``torch_old.pth`` were written by PyTorch 2.13 in its two formats, both with the
tensors of `tensors`; ``torch_checkpoint.pth`` is a training checkpoint of a small DataParallel model with
optimizer state and an argparse.Namespace.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppcls.errors import WeightsError
from ppcls.weights import read_params

DATA = Path(__file__).parent / "data"
FORMATS = ("torch_zip.pth", "torch_old.pth")


def tensors() -> dict[str, np.ndarray]:
    """Return what the two files hold."""
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    return {
        "f32": base,
        "t": base.T,  # strides
        "part": base[1:3, 2:5],  # an offset
        "half": base.astype(np.float16),
        "f64": base.astype(np.float64) / 3,
        "i64": np.array(7),
        "u8": np.arange(5, dtype=np.uint8),
        "b": np.array([True, False]),
        "i32": base.astype(np.int32),
        "i16": base.astype(np.int16),
        "i8": base.astype(np.int8),
        "empty": np.zeros((0, 3), np.float32),
        "param": base[0],
    }


@pytest.mark.parametrize("name", FORMATS)
def test_every_type_and_layout(name: str) -> None:
    found = read_params(DATA / name)
    wanted = tensors()
    assert set(found) == {*wanted, "bf"}
    for key, value in wanted.items():
        np.testing.assert_array_equal(found[key], value)
        assert found[key].dtype == value.dtype
    assert found["bf"].dtype == np.float32
    np.testing.assert_allclose(found["bf"], wanted["f32"] / 7, rtol=2**-8)
    assert not (found["bf"].view(np.uint32) & 0xFFFF).any()  # eight bits of a mantissa, no more


def test_both_formats_agree() -> None:
    one, other = (read_params(DATA / name) for name in FORMATS)
    for key, value in one.items():
        np.testing.assert_array_equal(value, other[key])


def test_a_training_checkpoint_gives_its_model() -> None:
    found = read_params(DATA / "torch_checkpoint.pth")
    assert list(found) == [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    ]
    assert found["0.weight"].shape == (4, 3, 3, 3)


# ---------------------------------------------------------------- files made by hand


class _Global:
    """Pickles as a reference to a name, as PyTorch's classes do, without PyTorch."""

    def __init__(self, module: str, name: str) -> None:
        self.place = module, name


class _Call:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments


class _Stored:
    """Pickles as a storage."""

    def __init__(self, kind: str, key: str, count: int) -> None:
        self.pid = ("storage", _Global("torch", kind), key, "cpu", count)


class _Pickler(pickle._Pickler):
    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, _Global):
            self.write(b"c" + "\n".join(obj.place).encode() + b"\n")
        elif isinstance(obj, _Call):
            self.save(obj.call[0])
            self.save(obj.call[1])
            self.write(b"R")
        else:
            super().save(obj, save_persistent_id)

    def persistent_id(self, obj: Any) -> Any:
        return obj.pid if isinstance(obj, _Stored) else None


def _pickled(content: Any) -> bytes:
    stream = io.BytesIO()
    _Pickler(stream, protocol=2).dump(content)
    return stream.getvalue()


def tensor(shape: tuple, stride: tuple, count: int = 6, offset: Any = 0, kind: str = "FloatStorage") -> Any:
    rebuild = _Global("torch._utils", "_rebuild_tensor_v2")
    return _Call(rebuild, _Stored(kind, "0", count), offset, shape, stride, False, OrderedDict())


def write_zip(path: Path, content: Any, storage: bytes = bytes(24), compress: bool = False) -> Path:
    how = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("archive/data.pkl", _pickled(content))
        archive.writestr("archive/data/0", storage)
    return path


def refused(path: Path) -> str:
    with pytest.raises(WeightsError, match=path.name) as caught:
        read_params(path)
    return str(caught.value)


def test_the_hand_made_file_is_right(tmp_path: Path) -> None:
    storage = np.arange(6, dtype="<f4").tobytes()
    path = write_zip(tmp_path / "w.pth", {"a": tensor((2, 3), (3, 1))}, storage)
    np.testing.assert_array_equal(read_params(path)["a"], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("place", [("os", "system"), ("builtins", "eval"), ("builtins", "exec")])
def test_calls_are_refused_by_name_and_not_made(tmp_path: Path, place: tuple[str, str]) -> None:
    mark = tmp_path / "executed"
    command = f"touch {mark}" if place[0] == "os" else f"open({str(mark)!r}, 'w')"
    call = _Call(_Global(*place), command)
    for content in ({"a": call}, {"state_dict": {"a": tensor((6,), (1,))}, "extra": call}):
        text = refused(write_zip(tmp_path / "w.pth", content))
        assert f"refused: it asks for {'.'.join(place)}" in text
    assert not mark.exists()


def test_the_old_format_is_as_strict(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    good = (DATA / "torch_old.pth").read_bytes()
    evil = pickle.dumps(_Reduce(os.system, f"touch {mark}"), protocol=2)
    head = len(good.split(b".", 1)[0]) + 1  # the magic number
    for content in (good[:head] + evil + good[head:], good + evil, good[:head] + evil):
        path = tmp_path / "w.pth"
        path.write_bytes(content)
        if content.startswith(good):  # what follows the last storage is not read
            assert read_params(path)
        else:
            refused(path)
    assert not mark.exists()


class _Reduce:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


def test_whole_models_and_programs_are_refused_with_advice(tmp_path: Path) -> None:
    model = _Call(_Global("torchvision.models.resnet", "ResNet"))
    text = refused(write_zip(tmp_path / "w.pth", model))
    assert "torchvision.models.resnet.ResNet" in text
    assert "model.state_dict()" in text
    with zipfile.ZipFile(tmp_path / "p.pt", "w") as archive:
        archive.writestr("p/data.pkl", _pickled({}))
        archive.writestr("p/constants.pkl", _pickled(()))
    assert "TorchScript" in refused(tmp_path / "p.pt")


def test_tensors_outside_their_storage(tmp_path: Path) -> None:
    for wrong in (
        tensor((7,), (1,)),
        tensor((2, 3), (3, 2)),
        tensor((6,), (1,), offset=1),
        tensor((6,), (-1,), offset=5),
        tensor((2, 3), (1,)),
        tensor((1 << 40,), (0,)),  # one number repeated without end
        tensor((6,), (1,), offset="0"),
        tensor((6,), (1,), count=7),  # the storage is shorter
        tensor((6,), (1,), count=1 << 40),
        tensor((6,), (1,), kind="LongStorage"),
    ):
        assert "not a complete PyTorch file" in refused(write_zip(tmp_path / "w.pth", {"a": wrong}))
    assert "ComplexFloatStorage" in refused(
        write_zip(tmp_path / "w.pth", {"a": tensor((6,), (1,), kind="ComplexFloatStorage")})
    )


def test_bombs_are_refused_before_they_unpack(tmp_path: Path) -> None:
    packed = write_zip(tmp_path / "w.pth", {"a": tensor((1 << 24,), (1,), 1 << 24)}, bytes(1 << 26), True)
    assert packed.stat().st_size < 1 << 18
    assert "larger than the file" in refused(packed)
    many = {f"a{i}": tensor((1 << 16,), (1,), 1 << 16) for i in range(1000)}
    assert "many times the size" in refused(write_zip(tmp_path / "many.pth", many, bytes(1 << 18)))
    head = (DATA / "torch_old.pth").read_bytes()
    huge = head.replace(struct.pack("<q", 24), struct.pack("<q", 1 << 50), 1)
    (tmp_path / "old.pth").write_bytes(huge)
    refused(tmp_path / "old.pth")


def test_not_tensors_by_name(tmp_path: Path) -> None:
    assert "a single tensor" in refused(write_zip(tmp_path / "w.pth", tensor((6,), (1,))))
    assert "a list" in refused(write_zip(tmp_path / "w.pth", [1]))
    assert "'epoch' is a int" in refused(write_zip(tmp_path / "w.pth", {"state_dict": {"epoch": 1}}))
    assert "an empty map" in refused(write_zip(tmp_path / "w.pth", {}))
    mixed = {"a": tensor((6,), (1,)), "b": "text"}
    assert "'b' is a str" in refused(write_zip(tmp_path / "w.pth", mixed))
    (tmp_path / "empty.pth").write_bytes(b"")
    assert "it is empty" in refused(tmp_path / "empty.pth")
    (tmp_path / "page.pth").write_bytes(b"<html>404</html>")
    assert "begins with b'<html>40'" in refused(tmp_path / "page.pth")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"a": np.zeros(3)}))
    assert "a pickle of something else" in refused(tmp_path / "plain.pt")


@pytest.mark.parametrize("wrapped", ["state_dict", "model", "model_state_dict"])
def test_wrappers_and_prefixes_come_off(tmp_path: Path, wrapped: str) -> None:
    content = {wrapped: {"module.a": tensor((6,), (1,)), "module.b.c": tensor((2,), (1,))}, "epoch": 3}
    assert list(read_params(write_zip(tmp_path / "w.pth", content))) == ["a", "b.c"]


def test_the_moving_average_is_preferred(tmp_path: Path) -> None:
    content = {"state_dict": {"a": tensor((6,), (1,))}, "state_dict_ema": {"a": tensor((2,), (1,))}}
    assert read_params(write_zip(tmp_path / "w.pth", content))["a"].shape == (2,)


@pytest.mark.parametrize("name", FORMATS)
def test_truncations_are_errors(tmp_path: Path, name: str) -> None:
    content = (DATA / name).read_bytes()
    for length in range(0, len(content), 17):
        (tmp_path / "w.pth").write_bytes(content[:length])
        refused(tmp_path / "w.pth")


@given(name=st.sampled_from(FORMATS), place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_changed_bytes_never_crash(
    tmp_path_factory: pytest.TempPathFactory, name: str, place: float, byte: int
) -> None:
    content = bytearray((DATA / name).read_bytes())
    content[int(place * len(content))] = byte
    file = tmp_path_factory.getbasetemp() / "changed.pth"
    file.write_bytes(content)
    try:
        found = read_params(file)
    except WeightsError:
        return
    assert all(isinstance(value, np.ndarray) for value in found.values())


def test_command_lines_are_left_unread(tmp_path: Path) -> None:
    args = _Call(_Global("argparse", "Namespace"))
    content = {"args": args, "model": {"a": tensor((6,), (1,))}}
    assert list(read_params(write_zip(tmp_path / "w.pth", content))) == ["a"]

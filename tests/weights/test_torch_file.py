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
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppcls.errors import WeightsError
from ppcls.weights import has_torch_layout, read_params

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
    (tmp_path / "other.pth").write_bytes(b"something else")
    assert "begins with b'somethin'" in refused(tmp_path / "other.pth")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"a": np.zeros(3)}))
    assert "a pickle of something else" in refused(tmp_path / "plain.pt")


@pytest.mark.parametrize("wrapped", ["state_dict", "model", "model_state_dict"])
def test_wrappers_and_prefixes_come_off(tmp_path: Path, wrapped: str) -> None:
    content = {wrapped: {"module.a": tensor((6,), (1,)), "module.b.c": tensor((2,), (1,))}, "epoch": 3}
    assert list(read_params(write_zip(tmp_path / "w.pth", content))) == ["a", "b.c"]


@pytest.mark.parametrize(
    "names", [["module._orig_mod.a"], ["_orig_mod.module.a"], ["module.a", "n_averaged"], ["module.module.a"]]
)
def test_wrappers_inside_one_another_come_off(tmp_path: Path, names: list[str]) -> None:
    content = {
        name: tensor((6,) if name[-1] == "a" else (), (1,) if name[-1] == "a" else ()) for name in names
    }
    # a tensor beside the parameters, and an average that was not kept
    content = {"model_ema": content, "state_dict_ema": {}, "model": {"b": tensor((6,), (1,))}}
    assert list(read_params(write_zip(tmp_path / "w.pth", content))) == ["a"]


def test_tensors_beside_the_parameters_are_left_out(tmp_path: Path) -> None:
    content = {"epoch": 3, "model": {"a": tensor((6,), (1,))}, "accuracy": tensor((), ())}
    assert list(read_params(write_zip(tmp_path / "w.pth", content))) == ["a"]


def test_the_moving_average_is_preferred(tmp_path: Path) -> None:
    content = {"state_dict": {"a": tensor((6,), (1,))}, "state_dict_ema": {"a": tensor((2,), (1,))}}
    assert read_params(write_zip(tmp_path / "w.pth", content))["a"].shape == (2,)


@pytest.mark.parametrize("name", FORMATS)
def test_truncations_are_errors(tmp_path: Path, name: str) -> None:
    content = (DATA / name).read_bytes()
    for length in range(0, len(content), 17):
        (tmp_path / "w.pth").write_bytes(content[:length])
        refused(tmp_path / "w.pth")


@pytest.mark.parametrize("name", FORMATS)
def test_every_suffix_of_pytorch(tmp_path: Path, name: str) -> None:
    for suffix in (".pth", ".pt", ".bin", ".th", ".pth.tar"):
        (tmp_path / f"w{suffix}").write_bytes((DATA / name).read_bytes())
        assert len(read_params(tmp_path / f"w{suffix}")) == 14
        assert has_torch_layout(tmp_path / f"w{suffix}")


def _patched(content: bytes, name: bytes, field: int, value: bytes) -> bytes:
    """Change a field of both headers of a member of a zip archive; `field` counts in the central one."""
    local = content.index(b"PK\x03\x04")
    while content[local + 30 : local + 30 + len(name)] != name:
        local = content.index(b"PK\x03\x04", local + 4)
    central = content.index(b"PK\x01\x02")
    while content[central + 46 : central + 46 + len(name)] != name:
        central = content.index(b"PK\x01\x02", central + 4)
    for place in (local + field - 2, central + field):
        content = content[:place] + value + content[place + len(value) :]
    return content


def test_damaged_and_unusual_archives(tmp_path: Path) -> None:
    def changed(name: str, compress: bool, field: int, value: bytes) -> Path:
        path = write_zip(tmp_path / "whole.pth", {"a": tensor((6,), (1,))}, bytes(24), compress)
        member = f"archive/{name}".encode()
        (tmp_path / "w.pth").write_bytes(_patched(path.read_bytes(), member, field, value))
        return tmp_path / "w.pth"

    for name in ("data.pkl", "data/0"):
        for compress in (False, True):
            assert "encrypted" in refused(changed(name, compress, 8, b"\x01\x00"))
            assert "Bad CRC-32" in refused(changed(name, compress, 16, b"abcd"))
        for method in (9, 12, 14, 93, 99):
            assert "way of compression" in refused(changed(name, False, 10, struct.pack("<H", method)))
        text = refused(changed(name, False, 10, b"\x08\x00"))  # stored, and marked as deflated
        assert "not a complete PyTorch file" in text
    garbage = write_zip(tmp_path / "w.pth", {"a": tensor((6,), (1,))}, os.urandom(24), True).read_bytes()
    start = garbage.index(b"archive/data/0") + len(b"archive/data/0")
    (tmp_path / "w.pth").write_bytes(garbage[:start] + b"\xff" * 8 + garbage[start + 8 :])
    assert "not a complete PyTorch file" in refused(tmp_path / "w.pth")


def test_a_member_that_unpacks_to_more_than_it_says(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "w.pth", {"a": tensor((6,), (1,))}, bytes(1 << 25), True)
    size = struct.pack("<I", 24)
    path.write_bytes(_patched(path.read_bytes(), b"archive/data/0", 24, size))
    tracemalloc.start()
    refused(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


def test_members_of_one_name(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "w.pth", {"a": tensor((6,), (1,))})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/1", bytes(24))
    path.write_bytes(path.read_bytes().replace(b"archive/data/1", b"archive/data/0"))
    assert "two entries of the name 'data/0'" in refused(tmp_path / "w.pth")


def test_names_that_lead_out_of_the_archive_touch_no_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(24))
    stored = _Call(
        _Global("torch._utils", "_rebuild_tensor_v2"),
        _Stored("FloatStorage", "../../secret", 6),
        0,
        (6,),
        (1,),
    )
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("archive/data.pkl", _pickled({"a": stored}))
        archive.writestr("archive/../../secret", bytes(24))
    assert "KeyError" in refused(tmp_path / "w.pth")


def test_hostile_descriptions_of_storages(tmp_path: Path) -> None:
    nested: Any = 1
    for _ in range(64):  # 2**64 pieces of text
        nested = (nested, nested)
    rebuild = _Global("torch._utils", "_rebuild_tensor_v2")
    for wrong in (
        _Call(rebuild, _Stored("FloatStorage", nested, 6), 0, (6,), (1,)),
        _Call(rebuild, _Stored("FloatStorage", "0", nested), 0, (6,), (1,)),
        _Call(rebuild, _Stored("FloatStorage", "0", 6), nested, (6,), (1,)),
        _Call(rebuild, _Stored("FloatStorage", "0", 6), 0, nested, (1,)),
        _Call(rebuild, _Stored("FloatStorage", "0", 6), 0, (6,), nested),
        _Call(rebuild, _Stored("FloatStorage", "0", 6), 0, (1,) * 5_000, (1,) * 5_000),
        _Call(rebuild, _Stored("FloatStorage", "0", 6), 0, (0, 1 << 60), (1, 1)),
        _Call(rebuild, _Stored("FloatStorage", "0", 6), 0, (1 << 200,) * 30, (1,) * 30),
        _Call(rebuild, _Stored("FloatStorage", "0", 6), 0, (1, 6), (1 << 62, 1)),
        nested,
    ):
        for content in ({"a": wrong}, wrong, {"state_dict": wrong}):
            assert len(refused(write_zip(tmp_path / "w.pth", content))) < 1000


def test_command_lines_are_left_unread(tmp_path: Path) -> None:
    args = _Call(_Global("argparse", "Namespace"))
    content = {"args": args, "model": {"a": tensor((6,), (1,))}}
    assert list(read_params(write_zip(tmp_path / "w.pth", content))) == ["a"]

"""Files that are not weights: refused with their name, and nothing of them is executed."""

from __future__ import annotations

import collections
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppcls.errors import WeightsError
from ppcls.weights import read_params, read_state

GOOD = pickle.dumps({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float32(1)}, protocol=4)


class _Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def _refused(tmp_path: Path, content: bytes) -> str:
    file = tmp_path / "w.pdparams"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"w\.pdparams") as caught:
        read_params(file)
    return str(caught.value)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_calls_are_refused_by_name_and_not_made(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "executed"
    for function, arguments, name in (
        (os.system, (f"touch {mark}",), "system"),
        (eval, (f"open({str(mark)!r}, 'w')",), "eval"),
        (exec, (f"open({str(mark)!r}, 'w')",), "exec"),
        (open, (str(mark), "w"), "open"),
        (np.fromfile, (str(mark),), "fromfile"),
    ):
        text = _refused(tmp_path, pickle.dumps({"a": _Call(function, *arguments)}, protocol=protocol))
        assert "refused" in text
        assert name in text
    assert not mark.exists()


def test_classes_are_refused(tmp_path: Path) -> None:
    assert "collections.Counter" in _refused(tmp_path, pickle.dumps({"a": collections.Counter("a")}))
    assert "pathlib" in _refused(tmp_path, pickle.dumps({"a": Path("x")}))
    assert "ndarray" not in _refused(tmp_path, pickle.dumps(np.array([object()], object)))


def test_only_plain_numbers_in_arrays(tmp_path: Path) -> None:
    for array in (np.array(["text"]), np.array([{}], object), np.zeros(1, "f4,i4"), np.zeros(1, "V8")):
        assert "refused" in _refused(tmp_path, pickle.dumps({"a": array}))


def test_a_hostile_state_of_an_allowed_name(tmp_path: Path) -> None:
    # BUILD on the stand-in class itself would let a file change it for every file after
    build = b"\x80\x04cnumpy\nndarray\n}X\x05\x00\x00\x00valueK\x01sb."
    assert "refused" in _refused(tmp_path, build)
    (tmp_path / "good.pdparams").write_bytes(GOOD)
    assert read_params(tmp_path / "good")["a"].shape == (2, 3)


def test_not_parameters(tmp_path: Path) -> None:
    assert "holds a list" in _refused(tmp_path, pickle.dumps([1, 2]))
    assert "'a' is a str" in _refused(tmp_path, pickle.dumps({"a": "text"}))
    assert "1 is a" in _refused(tmp_path, pickle.dumps({1: np.zeros(2)}))


def test_empty_and_foreign_files(tmp_path: Path) -> None:
    assert "is empty" in _refused(tmp_path, b"")
    assert "not a complete weights file" in _refused(tmp_path, b"something else")
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", GOOD)
    assert "PyTorch" in _refused(tmp_path, zipped.getvalue())
    with pytest.raises(WeightsError, match="cannot read"):
        read_state(tmp_path)


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    for length in range(1, len(GOOD)):
        _refused(tmp_path, GOOD[:length])


def test_shared_values_do_not_multiply(tmp_path: Path) -> None:
    value: Any = [np.zeros(1)]
    for _ in range(100):  # 2**100 values if each mention were copied
        value = [value, value]
    (tmp_path / "w").write_bytes(pickle.dumps({"a": value}))
    assert len(read_state(tmp_path / "w")["a"]) == 2

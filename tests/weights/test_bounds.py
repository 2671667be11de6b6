"""Hostile pickles end in an error of ours, quickly, and in memory that the size of the file bounds."""

from __future__ import annotations

import pickle
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ppcls.errors import WeightsError
from ppcls.weights import read_params, read_state
from ppcls.weights.unpickle import MAX_DIMENSIONS, MAX_INSTRUCTIONS, MAX_SIDE, check_shape, shown

GOOD = pickle.dumps({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float32(1)}, protocol=4)
HUGE = struct.pack("<Q", 1 << 50)
TEXT = b"X" + struct.pack("<I", 100_000) + b"x" * 100_000
DTYPE = b"cnumpy\ndtype\nX\x02\x00\x00\x00f4\x89\x88\x87Rq\x09"  # memo 9
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"


def refused(tmp_path: Path, content: bytes, memory: int = 32 << 20, seconds: float = 10.0) -> str:
    """Return the message of a file that is refused quickly and in little memory."""
    file = tmp_path / "w.pdparams"
    file.write_bytes(content)
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(WeightsError, match=r"w\.pdparams") as caught:
            read_params(file)
        assert time.perf_counter() - start < seconds  # most take a millisecond
        assert tracemalloc.get_traced_memory()[1] < memory
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def state(shape: bytes, data: bytes = b"C\x18" + bytes(24)) -> bytes:
    """Return instructions that give an array a shape and its bytes."""
    return ARRAY + b"(K\x01" + shape + b"h\x09\x89" + data + b"tb"


def file_of(*values: bytes) -> bytes:
    """Return a pickle that makes `values` and leaves a map with the last."""
    return b"\x80\x04" + DTYPE + b"0" + b"0".join(values[:-1]) + b"}X\x01\x00\x00\x00a" + values[-1] + b"s."


def test_the_instructions_made_by_hand_are_right(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(file_of(state(b"K\x02K\x03\x86")))
    assert read_params(tmp_path / "w")["a"].tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04\x8e" + HUGE + b"x",  # bytes of a petabyte
        b"\x80\x04\x8d" + HUGE + b"x",  # text
        b"\x80\x04\x95" + HUGE + b"N.",  # a frame
        b"\x80\x05\x96" + HUGE + b"x",  # a bytearray
        b"\x80\x05\x96\x00\x00\x00\x80\x01\x00\x00\x00x",  # of 6 GB, which a machine may have
        b"\x80\x04\x8e\x00\x00\x00\x80\x01\x00\x00\x00x",
        b"\x80\x04\x95\x00\x00\x00\x80\x01\x00\x00\x00x",
        b"\x80\x04B\xff\xff\xff\xffx",
        b"\x80\x04X\xff\xff\xff\xffx",
        b"\x80\x04T\xff\xff\xff\x7fx",
        b"\x80\x04\x8b\xff\xff\xff\x7fx",  # a whole number of 2 GB
        b"\x80\x04\x8b\xff\xff\xff\xffx",
        b"\x80\x04Nr\xff\xff\xff\xff",  # a memo entry of the highest number
        b"\x80\x04Np" + b"9" * 3000 + b"\n.",
        b"\x80\x05\x97.",  # a buffer outside the file
        b"\x80\x05N\x98.",
        GOOD.replace(b"K\x02K\x03\x86", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86"),  # shape
    ],
)
def test_declared_sizes_reserve_nothing(tmp_path: Path, content: bytes) -> None:
    assert content != GOOD
    refused(tmp_path, content, memory=1 << 20)


def _doubled(value: bytes) -> bytes:
    return value + b"2\x86" * 100  # a pair of twice the same, a hundred times


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04}" + _doubled(b"K\x01") + b"Ns.",  # a key
        b"\x80\x04}(" + _doubled(b"K\x01") + b"Nu.",
        b"\x80\x04(" + _doubled(b"K\x01") + b"Nd.",
        b"\x80\x04\x8f(" + _doubled(b"K\x01") + b"\x90.",  # in a set
        b"\x80\x04(" + _doubled(b"K\x01") + b"\x91.",
        b"\x80\x04ccollections\nOrderedDict\n](" + _doubled(b"K\x01") + b"N\x86e\x85R.",
        b"\x80\x04cnumpy\ndtype\n" + _doubled(b"K\x01") + b"\x85R.",  # in messages
        b"\x80\x04cnumpy.core.multiarray\n_reconstruct\n" + _doubled(b"K\x01") + b"\x85R.",
        b"\x80\x04c_codecs\nencode\nX\x01\x00\x00\x00a" + _doubled(b"K\x01") + b"\x86R.",
        b"\x80\x04" + DTYPE + b"(K\x01" + _doubled(b"K\x01") + b"NNNtb.",
        b"\x80\x04" + DTYPE + _doubled(b"K\x01") + b"b.",
        file_of(state(_doubled(b"K\x01"))),
        b"\x80\x04" + _doubled(b"K\x01") + b".",
        b"\x80\x04}X\x01\x00\x00\x00a" + _doubled(b"K\x01") + b"s.",
        b"\x80\x04" + _doubled(b"K\x01") + b"Q.",  # a persistent id
        b"\x80\x04" + _doubled(b"K\x01") + b")R.",
        b"\x80\x04" + _doubled(b"K\x01") + b")\x81.",
        b"\x80\x04" + _doubled(b"K\x01") + b"K\x01a.",
        b"\x80\x04" + _doubled(b"K\x01") + b"X\x01\x00\x00\x00aNs.",
    ],
)
def test_pairs_of_pairs_are_neither_hashed_nor_printed(tmp_path: Path, content: bytes) -> None:
    refused(tmp_path, content, memory=1 << 20)


def test_keys_are_text_or_whole_numbers(tmp_path: Path) -> None:
    for key in ((1, 2), 1.5, None, frozenset({1}), 1 << 70, True):
        assert "refused: it asks for" in refused(tmp_path, pickle.dumps({"a": {key: 1}}, protocol=4))
    (tmp_path / "w").write_bytes(pickle.dumps({"a": {1: 2, "x": 3, b"y": 4, -(1 << 62): 5}}))
    assert read_state(tmp_path / "w")["a"] == {1: 2, "x": 3, b"y": 4, -(1 << 62): 5}


def test_whole_numbers_that_share_a_hash_make_no_keys(tmp_path: Path) -> None:
    alike = {n * (2**61 - 1): None for n in range(3000)}
    assert "a map with the key" in refused(tmp_path, pickle.dumps({"a": alike}, protocol=4))
    puts = b"".join(b"p%d\n" % (n * (2**61 - 1)) for n in range(3000))
    assert "a number of a value that no file has" in refused(tmp_path, b"N" + puts + b".")


def test_numbers_without_end(tmp_path: Path) -> None:
    for content in (
        b"I" + b"9" * 1_000_000 + b"\n.",
        b"L" + b"9" * 1_000_000 + b"L\n.",
        b"g" + b"9" * 1_000_000 + b"\n.",
        b"\x80\x04\x8b" + struct.pack("<i", 1_000_000) + b"\x7f" * 1_000_000 + b".",
    ):
        assert "a whole number of 100000" in refused(tmp_path, content)
    (tmp_path / "w").write_bytes(pickle.dumps([-5, True, False, 10**200], protocol=0))
    assert read_state(tmp_path / "w") == [-5, True, False, 10**200]
    (tmp_path / "w").write_bytes(pickle.dumps([1 << 2000, -5], protocol=2))
    assert read_state(tmp_path / "w") == [1 << 2000, -5]


def test_one_text_built_a_thousand_times(tmp_path: Path) -> None:
    text = b"\x80\x04" + TEXT + b"q\x000]("
    for build in (
        b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R",
        b"cnumpy.core.multiarray\nscalar\nh\x00h\x00\x86R",
        b"cbuiltins\ntuple\n](" + b"h\x00" * 30 + b"e\x85R",
    ):
        refused(tmp_path, text + build * 1000 + b"e.", memory=16 << 20)


def test_how_much_a_file_may_grow(tmp_path: Path) -> None:
    text = b"\x80\x04X" + struct.pack("<I", 1 << 20) + b"x" * (1 << 20) + b"q\x000]("
    build = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
    (tmp_path / "w").write_bytes(text + build * 5 + b"e.")  # four times its size and a megabyte
    assert len(read_state(tmp_path / "w")) == 5
    assert "many times its own size" in refused(tmp_path, text + build * 6 + b"e.")


def test_one_list_copied_a_thousand_times(tmp_path: Path) -> None:
    items = b"\x80\x04](" + b"N" * 20_000 + b"eq\x000]("
    for name in (b"builtins\ntuple", b"collections\nOrderedDict", b"numpy\ndtype"):
        refused(tmp_path, items + (b"c" + name + b"\nh\x00\x85R") * 1000 + b"e.", memory=16 << 20)
    assert "many times its own size" in refused(
        tmp_path, items + b"cbuiltins\ntuple\nh\x00\x85R" * 1000 + b"e.", memory=16 << 20
    )


def test_one_array_copied_a_thousand_times(tmp_path: Path) -> None:
    data = b"\x80\x04" + DTYPE + b"0B" + struct.pack("<I", 400_000) + bytes(400_000) + b"q\x000]("
    one = ARRAY + b"(K\x01J" + struct.pack("<i", 100_000) + b"\x85h\x09\x89h\x00tb"
    assert "many times its own size" in refused(tmp_path, data + one * 1000 + b"e.", memory=16 << 20)


def test_what_real_files_need_is_within_the_bounds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"layer.{n}.weight": rng.standard_normal((5, 7)).astype(np.float32) for n in range(1000)}
    arrays["large"] = rng.standard_normal((300, 1000)).astype(np.float32)
    for protocol in (0, 1, 2, 3, 4):  # before 3, bytes are written as text and twice as long
        (tmp_path / "w").write_bytes(pickle.dumps(arrays, protocol=protocol))
        found = read_params(tmp_path / "w")
        np.testing.assert_array_equal(found["large"], arrays["large"])
        assert len(found) == 1001


def test_instructions_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 20_000
    assert MAX_INSTRUCTIONS < 5_000_000  # a few seconds, and some hundred megabytes
    monkeypatch.setattr("ppcls.weights.unpickle._Counted.left", most)
    for step in (b"]", b"}", b"(", b")", b"N0", b"2"):
        content = b"\x80\x04N" + step * most
        assert "steps to be built" in refused(tmp_path, content, memory=8 << 20)
    (tmp_path / "w").write_bytes(b"\x80\x04" + b"}" * (most - 2) + b".")
    assert read_state(tmp_path / "w") == {}
    refused(tmp_path, b"\x80\x04" + b"}" * (most - 1) + b".")


def test_depth_without_end(tmp_path: Path) -> None:
    for step in (b"]a", b"\x85"):
        for value in (b"]", b"N"):
            open_end = (b"]" * 10_000 + b"a" * 9_999) if step == b"]a" else value + step * 10_000
            refused(tmp_path, b"\x80\x04}X\x01\x00\x00\x00a" + open_end + b"s.", memory=64 << 20)


@pytest.mark.parametrize(
    "shape",
    [
        b"J\xff\xff\xff\xff\x85",  # negative
        b"K\x05\x85",
        b"K\x06",
        b"N",
        b"X\x01\x00\x00\x006",
        b"]K\x06a\x85",
        b"G@\x18\x00\x00\x00\x00\x00\x00\x85",  # 6.0
        b"\x88K\x06\x86",  # true
        b"(" + b"K\x01" * 33 + b"K\x06t",
        b"(" + b"K\x01" * 10_000 + b"t",
        b"(" + b"\x8a\x08" + b"\xff" * 7 + b"\x7ft",
        b"(" + (b"\x8a\x08" + b"\xff" * 7 + b"\x7f") * 5_000 + b"t",
        b"(K\x00" + b"\x8a\x08" + b"\xff" * 7 + b"\x7ft",  # nothing, 2**63 times
    ],
)
def test_shapes_that_no_array_has(tmp_path: Path, shape: bytes) -> None:
    for data in (b"C\x18" + bytes(24), b"C\x00"):
        refused(tmp_path, file_of(state(shape, data)))


def test_arrays_without_numbers(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(file_of(state(b"K\x00K\x03\x86", b"C\x00")))
    assert read_params(tmp_path / "w")["a"].shape == (0, 3)


def test_limits_of_a_shape() -> None:
    assert check_shape([1] * MAX_DIMENSIONS) == (1,) * MAX_DIMENSIONS
    assert check_shape((MAX_SIDE - 1, 0)) == (MAX_SIDE - 1, 0)
    for wrong in ([1] * (MAX_DIMENSIONS + 1), (MAX_SIDE,), (-1,), (1.0,), (True,), "ab", None, {1: 2}):
        with pytest.raises(ValueError, match="an array of the shape"):
            check_shape(wrong)


def test_values_in_messages_are_short() -> None:
    assert shown((2, 3)) == "(2, 3)"
    assert shown(list(range(50))).endswith("31, ...)")
    assert shown(list(range(MAX_DIMENSIONS))).endswith("30, 31)")
    assert shown((1, (2,))) == "a tuple"
    assert shown({"a": 1}) == "a dict"
    assert shown("x" * 100) == f"'{'x' * 60}'..."
    assert shown(b"x") == "b'x'"
    assert shown(1 << 5000) == "a whole number of 5001 bits"
    assert shown((1 << 5000,)) == "(a whole number of 5001 bits)"
    assert shown(object()) == "a object"


@pytest.mark.parametrize(
    "code", ["f16", "c8", "c16", "u4", "u8", "u2x", "V8", "O", "U3", "S3", "M8[s]", "m8"]
)
def test_types_of_which_no_parameter_can_be(tmp_path: Path, code: str) -> None:
    dtype = np.dtype(code) if code != "u2x" else np.dtype(">u4")
    array = np.zeros(2, dtype)
    text = refused(tmp_path, pickle.dumps({"layer": array}, protocol=4))
    if dtype.kind in "fcu":
        assert f"layer is of the type {dtype.newbyteorder('=')}, of which no parameter can be" in text
    else:
        assert "refused" in text
    if dtype.kind in "fcu":
        scalar = array[0]
        assert "of which no parameter can be" in refused(
            tmp_path, pickle.dumps({"layer": scalar}, protocol=4)
        )


def test_names_that_are_no_names(tmp_path: Path) -> None:
    for name in ("a\nb", "a\x1b[2J", "\ud800", "x" * 1001, "\u202e"):
        content = pickle.dumps({name: np.zeros(1)}, protocol=4)
        assert "is not the name of a parameter" in refused(tmp_path, content)
    (tmp_path / "w").write_bytes(pickle.dumps({"x" * 1000: np.zeros(1)}, protocol=4))
    assert list(read_params(tmp_path / "w")) == ["x" * 1000]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\x00\x85C\x01b\x87R.",
            "an array of the class",
        ),
        (b"}K\x01a.", "entries in a dict"),
        (b"}(K\x01K\x02e.", "entries in a dict"),
        (b"]K\x01K\x02s.", "entries in ()"),
        (b"](K\x01K\x02u.", "entries in ()"),
        (b"K\x01}b.", "the state of 1"),
        (b"c_codecs\nencode\n)\x81.", "an object of a function"),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00utf8\x86R.", "_codecs.encode to 'utf8'"),
        (b"c_codecs\nencode\nK\x01X\x06\x00\x00\x00latin1\x86R.", "_codecs.encode"),
        (b"\x8f.", "a set"),
        (b"(K\x01\x91.", "a set"),
        (b"(cnumpy\ndtype\no.", "an object of a class"),
        (b"(icollections\nOrderedDict\n.", "an object of a class"),
        (b"\x82\x01.", "a class by its number"),
        (b"N\x98.", "a buffer outside the file"),
        (b"K\x01Q.", "an object kept outside the file"),
        (b"Pabc\n.", "an object kept outside the file"),
        (b"cnumpy\ndtype\n.", "a type"),
    ],
)
def test_instructions_that_weights_never_need(tmp_path: Path, content: bytes, words: str) -> None:
    text = refused(tmp_path, b"\x80\x04" + content)
    assert "refused: it asks for" in text
    assert words in text

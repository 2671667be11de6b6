"""Shards that other tools wrote; ``webdataset.tar`` was written by webdataset 1.0.2."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from ppcls.data import ShardDataset, shard_scan
from ppcls.errors import DataError

THEIRS = Path(__file__).parent / "webdataset.tar"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tar(path: Path, **members: bytes) -> Path:
    """Write a tar file; ``a__cls`` becomes the member ``a.cls``."""
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name.replace("__", "."))
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_a_shard_of_webdataset_is_read(tmp_path):
    shutil.copy(THEIRS, tmp_path)
    data = ShardDataset(str(tmp_path), transform_ops=[{"DecodeImage": {}}, {"ToCHWImage": {}}])
    assert [data.label(i) for i in range(len(data))] == [0, 1, 2, 0]
    assert list(data.relative_paths()) == [f"train/sample{n}.png" for n in range(4)]
    assert data.path(2) == f"{tmp_path}/webdataset.tar: train/sample2, train/sample2.png"
    with tarfile.open(THEIRS) as archive:
        expected = [archive.extractfile(f"train/sample{n}.png").read() for n in range(4)]
    assert [data.read(i) for i in range(4)] == expected
    pixels = cv2.imdecode(np.frombuffer(expected[1], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(data.sample(1, 1, 0)[0], pixels.transpose(2, 0, 1))
    assert ShardDataset(str(THEIRS), class_names=["x", "y", "z"], class_num=3).class_names == ["x", "y", "z"]


def test_the_index_is_kept_until_a_shard_changes(tmp_path, monkeypatch, cache):
    shard = tar(tmp_path / "a.tar", x__jpg=b"image", x__cls=b"2")
    scans = []
    real = shard_scan.scan_shard
    monkeypatch.setattr(shard_scan, "scan_shard", lambda *a: scans.append(a) or real(*a))
    for _ in range(2):
        assert ShardDataset(str(shard)).label(0) == 2
    assert len(scans) == 1
    tar(shard, x__jpg=b"image", x__cls=b"3")
    assert ShardDataset(str(shard)).label(0) == 3
    for index in cache.rglob("samples.npy"):
        index.write_bytes(b"damaged")
    assert ShardDataset(str(shard)).label(0) == 3
    assert len(scans) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "cache"]  # nothing beside the shard


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(shard_scan.tempfile, "mkdtemp", lambda prefix: str(tmp_path / "temporary"))
    caplog.set_level("INFO", "ppcls")
    assert ShardDataset(str(THEIRS)).label(2) == 2
    assert "using a temporary folder" in caplog.text


def test_several_shards_by_folder_braces_or_pattern(tmp_path):
    for n in range(12):
        tar(tmp_path / f"t-{n:02d}.tar", **{f"k{n}__jpg": b"i", f"k{n}__cls": str(n).encode()})
    for path in ("", "t-{00..11}.tar", "t-*.tar"):
        data = ShardDataset(str(tmp_path / path))
        assert [data.label(i) for i in range(12)] == list(range(12))
    assert len(ShardDataset(str(tmp_path / "t-0{3..5}.tar"))) == 3
    with pytest.raises(DataError, match="t-12.tar: no such shard \\(2 of 14"):
        ShardDataset(str(tmp_path / "t-{00..13}.tar"))


def test_labels_may_have_another_name_or_be_missing(tmp_path):
    shard = str(tar(tmp_path / "a.tar", a__jpg=b"i", a__target=b"5\n", b__JPG=b"j", b__target=b"1"))
    assert ShardDataset(shard, label_key="target").label(0) == 5
    assert ShardDataset(shard, label_key=None).label(0) == 0
    with pytest.raises(DataError, match=r"a has no member \.cls, but jpg, target; name the one"):
        ShardDataset(shard)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a__jpg": b"i", "a__cls": b"cat"}, "a.cls: expected a class as a number in text, got b'cat'"),
        ({"a__jpg": b"i", "a__cls": b"-1"}, "expected a class as a number"),
        ({"a__jpg": b"i", "a__png": b"i", "a__cls": b"1"}, "a has 2 images"),
        ({"a__jpg": b"i", "b__jpg": b"i", "a__cls": b"1"}, r"a has no member \.cls"),
        ({"a__jpg": b"i", "a__cls": b"1", "b__txt": b"", "a__json": b""}, "a do not follow each other"),
        ({"a__txt": b"i"}, "no shard holds an image"),
    ],
)
def test_odd_samples_are_named(tmp_path, members, message):
    with pytest.raises(DataError, match=message):
        ShardDataset(str(tar(tmp_path / "x.tar", **members)))


def test_a_shard_cut_off_anywhere_is_refused(tmp_path):
    content = THEIRS.read_bytes()
    with tarfile.open(THEIRS) as archive:
        end = archive.getmembers()[-1].offset_data + 512
    for size in [*range(0, end, 700), end]:
        (tmp_path / "x.tar").write_bytes(content[:size])
        with pytest.raises(DataError, match=r"x\.tar: (cut off|damaged|the mark at the end|no shard)"):
            ShardDataset(str(tmp_path / "x.tar"))


def test_a_damaged_header_does_not_end_a_shard_silently(tmp_path):
    content = bytearray(THEIRS.read_bytes())
    with tarfile.open(THEIRS) as archive:
        content[archive.getmembers()[6].offset + 3] ^= 1
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.tar: "):
        ShardDataset(str(tmp_path / "x.tar"))


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz"])
def test_compressed_shards_are_refused_with_the_remedy(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match="gunzip"):
        ShardDataset(str(tmp_path))
    with pytest.raises(DataError, match="must not be compressed"):
        ShardDataset(str(tmp_path / name))


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match="no such folder or shard"):
        ShardDataset(str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"neither index.json nor a shard"):
        ShardDataset(str(tmp_path))

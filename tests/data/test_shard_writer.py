"""Shards are complete whatever happens while they are written, and other tools read them."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import pytest
from filelock import FileLock

from ppcls.data import FolderDataset, ImageNetDataset, ShardDataset, shard_writer
from ppcls.data.dataset import Dataset
from ppcls.data.images import ImageError
from ppcls.data.shard_writer import ShardOptions, write_shards
from ppcls.errors import ConfigError, DataError, WeightsError

SMALL = ShardOptions(size=20_000)


@pytest.fixture
def listed(image_folder: Path) -> ImageNetDataset:
    return ImageNetDataset(str(image_folder), str(image_folder / "train_list.txt"))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_layout_is_that_of_webdataset(listed, tmp_path):
    done = write_shards(listed, tmp_path / "out", ShardOptions(size=20_000, json=True), list("abcd"))
    found = []
    shards = sorted((tmp_path / "out").glob("*.tar"))
    for shard in shards:
        assert shard.stat().st_size <= 20_480  # a tar file is padded to 10,240 bytes
        with tarfile.open(shard) as archive:
            found += [(member.name, archive.extractfile(member).read()) for member in archive]
    assert [name for name, _ in found[:3]] == ["000000000.png", "000000000.cls", "000000000.json"]
    assert [body for _, body in found[::3]] == [listed.read(i) for i in range(12)]
    assert [int(body) for _, body in found[1::3]] == [listed.label(i) for i in range(12)]
    assert json.loads(found[-1][1]) == {
        "name": list(listed.relative_paths())[11],
        "label": 3,
        "class_name": "d",
    }
    assert (done.samples, done.shards, done.size) == (12, len(shards), sum(p.stat().st_size for p in shards))


def test_the_webdataset_package_reads_them(listed, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    write_shards(listed, tmp_path / "out", SMALL)
    urls = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["png"] for sample in samples] == [listed.read(i) for i in range(12)]
    assert [int(sample["cls"]) for sample in samples] == [listed.label(i) for i in range(12)]


class Stop(KeyboardInterrupt):
    """Ends the process at once."""


@pytest.mark.parametrize("after", range(0, 12, 2))
def test_a_killed_process_is_continued(listed, tmp_path, monkeypatch, after):
    write_shards(listed, tmp_path / "whole", SMALL)
    reads = []

    def read(index: int) -> bytes:
        reads.append(index)
        if index == after:
            raise Stop
        return ImageNetDataset.read(listed, index)

    monkeypatch.setattr(shard_writer, "_AHEAD", 1)
    monkeypatch.setattr(listed, "read", read)
    with pytest.raises(Stop):
        write_shards(listed, tmp_path / "out", SMALL)
    assert not (tmp_path / "out" / "index.json").exists()
    monkeypatch.undo()
    done = write_shards(listed, tmp_path / "out", SMALL)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert done.written <= done.shards
    assert write_shards(listed, tmp_path / "out", SMALL).written == 0


def test_shards_that_were_lost_meanwhile_are_written_again(listed, tmp_path, monkeypatch):
    write_shards(listed, tmp_path / "whole", SMALL)
    monkeypatch.setattr(shard_writer, "write_index", lambda *a, **k: (_ for _ in ()).throw(Stop()))
    with pytest.raises(Stop):
        write_shards(listed, tmp_path / "out", SMALL)
    monkeypatch.undo()
    with (tmp_path / "out" / "shard-000001.tar").open("r+b") as shard:
        shard.truncate(700)
    done = write_shards(listed, tmp_path / "out", SMALL)
    assert done.written == done.shards - 1
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_other_data_and_other_folders_are_refused(listed, image_folder, tmp_path):
    write_shards(listed, tmp_path / "out", SMALL)
    with pytest.raises(ConfigError, match="size was 20000, and is 30000 now"):
        write_shards(listed, tmp_path / "out", ShardOptions(size=30_000))
    lines = (image_folder / "train_list.txt").read_text().splitlines(keepends=True)
    (image_folder / "other.txt").write_text("".join(reversed(lines)))
    other = ImageNetDataset(str(image_folder), str(image_folder / "other.txt"))
    with pytest.raises(ConfigError, match="names or labels of the images differ"):
        write_shards(other, tmp_path / "out", SMALL)
    before = content(image_folder)
    with pytest.raises(ConfigError, match="holds something else"):
        write_shards(listed, image_folder, SMALL)
    assert content(image_folder) == before


@pytest.mark.parametrize("out", ["", "shards", "cat/shards"])
def test_class_folders_do_not_get_shards_among_them(tmp_path, out):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "photos" / name / "a.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    photos = FolderDataset(str(tmp_path / "photos"))
    for root in ("photos", "link"):
        with pytest.raises(ConfigError, match="each folder is a class|holds something else"):
            write_shards(photos, tmp_path / root / out, SMALL)
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == ["cat", "dog"]
    assert write_shards(photos, tmp_path / "photos-shards", SMALL).samples == 2


def test_labels_and_names_that_an_index_cannot_hold(image_folder, tmp_path):
    for label in (2**31, -1):
        dataset = ImageNetDataset(str(image_folder), str(image_folder / "train_list.txt"))
        dataset.label = lambda index, label=label: label if index == 1 else 0
        with pytest.raises(DataError, match=f"labels from 0 to 2147483647, got {label}"):
            write_shards(dataset, tmp_path / "out", SMALL)
    dataset = ImageNetDataset(str(image_folder), str(image_folder / "train_list.txt"))
    dataset.relative_paths = lambda: ["a\nb.png", *["a.png"] * 11]
    with pytest.raises(DataError, match="no names with a line break; rename the file"):
        write_shards(dataset, tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["a file", "a file/x", "a" * 300])
def test_folders_that_cannot_be_written(listed, tmp_path, place):
    (tmp_path / "a file").write_text("")
    with pytest.raises(ConfigError, match="OUT: cannot write to"):
        write_shards(listed, tmp_path / place, SMALL)


def test_two_processes_do_not_write_into_one_folder(listed, tmp_path):
    (tmp_path / "out" / ".unfinished").mkdir(parents=True)
    with (
        FileLock(tmp_path / "out" / ".unfinished" / "lock"),
        pytest.raises(ConfigError, match="another process writes into"),
    ):
        write_shards(listed, tmp_path / "out", SMALL)
    assert write_shards(listed, tmp_path / "out", SMALL).samples == 12


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(listed, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 0, 20_000))
    with pytest.raises(ConfigError, match=r"about [\d.]+ KB are needed, but 20.0 KB are free"):
        write_shards(listed, tmp_path / "out", SMALL)
    assert not list((tmp_path / "out").glob("*.tar"))
    monkeypatch.undo()
    assert (
        write_shards(listed, tmp_path / "out", ShardOptions(size=30_000)).samples == 12
    )  # nothing was there


def test_a_full_disk_keeps_the_shards_that_are_complete(listed, tmp_path, monkeypatch):
    write_shards(listed, tmp_path / "whole", SMALL)
    real = shard_writer.write_atomic

    def full(path, writer):
        if path.name == "shard-000002.tar":
            raise WeightsError(f"cannot write {path}: No space left on device")
        real(path, writer)

    monkeypatch.setattr(shard_writer, "write_atomic", full)
    with pytest.raises(DataError, match=r"No space left.*the same command continues"):
        write_shards(listed, tmp_path / "out", SMALL)
    monkeypatch.undo()
    done = write_shards(listed, tmp_path / "out", SMALL)
    assert done.written == done.shards - 2
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_images_that_cannot_be_read(listed, image_folder, tmp_path):
    bad = image_folder / list(listed.relative_paths())[3]
    bad.write_bytes(b"")
    with pytest.raises(ImageError, match=f"{bad.name} .*empty"):
        write_shards(listed, tmp_path / "out", SMALL)
    listed.on_error = "skip"
    done = write_shards(listed, tmp_path / "out", SMALL)
    assert (done.samples, len(done.skipped)) == (11, 1)
    shards = ShardDataset(str(tmp_path / "out"))
    assert [shards.read(i) for i in range(11)] == [listed.read(i) for i in range(12) if i != 3]
    assert "000000004, " in shards.path(3)
    assert not shards.fingerprint().same_as(listed.fingerprint())


def test_large_images_are_shrunk_and_small_ones_keep_their_bytes(tmp_path):
    rng = np.random.default_rng(0)
    for name, shape in (("a", (300, 200, 3)), ("b", (64, 90, 3)), ("c", (65, 64, 3))):
        (tmp_path / "data" / name).mkdir(parents=True)
        pixels = cv2.resize(rng.integers(0, 255, (5, 4, 3), dtype=np.uint8), shape[1::-1])
        cv2.imwrite(str(tmp_path / "data" / name / "x.png"), pixels)
    files = FolderDataset(str(tmp_path / "data"))
    write_shards(files, tmp_path / "out", ShardOptions(resize_short=64, quality=95))
    shards = ShardDataset(str(tmp_path / "out"))
    small = cv2.imdecode(np.frombuffer(shards.read(0), np.uint8), cv2.IMREAD_COLOR)
    whole = cv2.imread(files.path(0))
    assert small.shape == (96, 64, 3)
    expected = cv2.resize(whole, (64, 96), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - expected).mean() < 3
    assert [shards.read(i) for i in (1, 2)] == [files.read(i) for i in (1, 2)]
    assert not shards.fingerprint().same_as(files.fingerprint())
    with tarfile.open(tmp_path / "out" / "shard-000000.tar") as archive:
        assert archive.getnames()[::2] == ["000000000.jpg", "000000001.png", "000000002.png"]


def test_the_order_in_the_shards_does_not_change_the_order_of_the_samples(listed, tmp_path):
    write_shards(listed, tmp_path / "out", ShardOptions(size=20_000, shuffle=1))
    shards = ShardDataset(str(tmp_path / "out"))
    assert [shards[i] for i in range(12)] == [listed[i] for i in range(12)]
    keys = []
    for shard in sorted((tmp_path / "out").glob("*.tar")):
        with tarfile.open(shard) as archive:
            keys += archive.getnames()[::2]
    assert len(keys) == 12
    assert keys != sorted(keys)


class Pixels(Dataset):
    """Images that are decoded already, as CIFAR has them."""

    def __len__(self) -> int:
        return 3

    def path(self, index: int) -> str:
        return f"batch#{index}"

    def label(self, index: int) -> int:
        return index

    def read(self, index: int) -> np.ndarray:
        return np.random.default_rng(index).integers(0, 255, (8, 8, 3), dtype=np.uint8)


def test_decoded_images_are_stored_without_loss(tmp_path):
    source = Pixels("pixels")
    write_shards(source, tmp_path / "out", SMALL)
    shards = ShardDataset(str(tmp_path / "out"), transform_ops=[{"DecodeImage": {}}, {"ToCHWImage": {}}])
    for index in range(3):
        np.testing.assert_array_equal(shards.sample(index, 1, 0)[0].transpose(1, 2, 0), source.read(index))
    assert shards.fingerprint().same_as(source.fingerprint())


@pytest.mark.parametrize("options", [{"size": 10}, {"resize_short": 0}, {"quality": 101}, {"shuffle": -1}])
def test_impossible_options(listed, tmp_path, options):
    with pytest.raises(ConfigError, match=next(iter(options)).replace("_", "-")):
        write_shards(listed, tmp_path / "out", ShardOptions(**options))

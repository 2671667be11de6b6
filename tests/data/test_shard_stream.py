"""Shards that are read as a stream: bounded memory, an order of (seed, epoch) alone, and clear refusals."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import KL, distilled, train

from ppcls.cli import main
from ppcls.data import (
    ImageNetDataset,
    Loader,
    ShardDataset,
    ShardStreamDataset,
    Share,
    ShuffleBufferSampler,
    build_loader,
)
from ppcls.data import shard_stream as module
from ppcls.data.division import divide
from ppcls.data.shard_writer import ShardOptions, write_shards
from ppcls.errors import ConfigError, DataError

OPS = [
    {"DecodeImage": None},
    {"RandFlipImage": {"flip_code": 1}},
    {"NormalizeImage": {"order": ""}},
    {"ToCHWImage": None},
]
THEIRS = Path(__file__).parent / "webdataset.tar"
IN_ORDER = {"name": "DistributedBatchSampler", "batch_size": 5}
SHUFFLED = {"name": "ShuffleBufferSampler", "batch_size": 5, "buffer": 4}


@pytest.fixture
def folder(image_folder: Path, tmp_path: Path) -> Path:
    """Shards of 12 images, in the order of four classes."""
    data = ImageNetDataset(str(image_folder), str(image_folder / "train_list.txt"))
    write_shards(data, tmp_path / "shards", ShardOptions(size=10_000))
    assert len(list((tmp_path / "shards").glob("*.tar"))) > 3
    return tmp_path / "shards"


def loader(folder: Path, sampler=SHUFFLED, *, name="ShardStreamDataset", samples=12, workers=0, **options):
    dataset = {"name": name, "path": str(folder), "transform_ops": OPS, **options}
    if name == "ShardStreamDataset":
        dataset["samples"] = samples
    content = {"dataset": dataset, "sampler": sampler, "loader": {"num_workers": workers}}
    return build_loader(content, "Train", seed=3, class_num=4)


def batches(found: Loader, epoch: int, start: int = 0) -> list[tuple[bytes, bytes]]:
    return [(batch.image.tobytes(), batch.label.tobytes()) for batch in found.epoch(epoch, start)]


def images(found: Loader, epoch: int) -> list[bytes]:
    return [image.tobytes() for batch in found.epoch(epoch) for image in batch.image]


def test_a_stream_in_order_has_the_batches_of_the_index(folder):
    for epoch in (1, 2):
        expected = batches(loader(folder, IN_ORDER, name="ShardDataset"), epoch)
        assert batches(loader(folder, IN_ORDER), epoch) == expected


def test_an_order_depends_on_seed_and_epoch_alone():
    sampler = ShuffleBufferSampler(8, buffer=50)
    share = Share(1000, seed=3)
    first = sampler.order(share, 1)
    assert sorted(first) == list(range(1000))
    assert np.abs(first - np.arange(1000)).max() < 50
    assert np.abs(first - np.arange(1000)).mean() > 10
    np.testing.assert_array_equal(ShuffleBufferSampler(3, buffer=50).order(replace(share, rank=0), 1), first)
    for other in (sampler.order(share, 2), sampler.order(replace(share, seed=4), 1)):
        assert (other != first).any()
    np.testing.assert_array_equal(ShuffleBufferSampler(8, buffer=1).order(share, 1), np.arange(1000))
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        ShuffleBufferSampler(8, buffer=0)


def test_an_epoch_has_every_image_once_in_a_new_order(folder):
    plain = [{"DecodeImage": None}, {"NormalizeImage": {"order": ""}}, {"ToCHWImage": None}]
    expected = images(loader(folder, IN_ORDER, name="ShardDataset", transform_ops=plain), 1)
    orders = [images(loader(folder, transform_ops=plain), epoch) for epoch in (1, 2)]
    assert [sorted(order) for order in orders] == [sorted(expected)] * 2
    assert orders[0] != orders[1]
    # The order of the shards is another one, too: a shuffle buffer alone moves no image so far.
    far = [abs(expected.index(image) - place) for order in orders for place, image in enumerate(order)]
    assert max(far) > 4


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_do_not_change_batches(folder, workers):
    found = loader(folder, workers=workers)
    for epoch in (1, 2):
        assert batches(found, epoch) == batches(loader(folder), epoch)
    found.close()


def test_memory_holds_the_buffer_alone(tmp_path, monkeypatch):
    names = [f"{number:04d}" for number in range(200)]
    for start in range(0, 200, 25):
        _tar(tmp_path / f"{start:04d}.tar", names[start : start + 25])
    found = loader(tmp_path, {**SHUFFLED, "buffer": 10}, samples=200)
    held = []
    own = module._Pass.take

    def take(self, position):
        sample = own(self, position)
        held.append(self.held)
        return sample

    monkeypatch.setattr(module._Pass, "take", take)
    assert len(images(found, 1)) == 200
    assert 3 < max(held) <= 10


def test_a_resumed_epoch_goes_on_exactly_and_reads_no_image_again(folder, monkeypatch):
    found = loader(folder)
    whole = batches(found, 2)
    read = []
    own = module.Sample
    monkeypatch.setattr(module, "Sample", lambda *given: read.append(given) or own(*given))
    for start in range(4):
        read.clear()
        assert batches(loader(folder), 2, start) == whole[start:]
        assert len(read) == max(12 - 5 * start, 0)


def test_processes_together_see_what_one_sees(folder):
    content = ShardStreamDataset(str(folder), 12, OPS)
    one = Loader(content, ShuffleBufferSampler(6, buffer=4), Share(12, 3), num_workers=0)
    expected = [set(batch.index.tolist()) for batch in one.epoch(1)]
    parts = [
        [
            batch
            for batch in Loader(
                ShardStreamDataset(str(folder), 12, OPS),
                ShuffleBufferSampler(2, buffer=4),
                Share(12, 3, rank, 3),
                num_workers=0,
            ).epoch(1)
        ]
        for rank in range(3)
    ]
    assert [
        set().union(*(batch.index.tolist() for batch in step)) for step in zip(*parts, strict=True)
    ] == expected
    found = {
        index: image
        for part in parts
        for batch in part
        for index, image in zip(batch.index, batch.image, strict=True)
    }
    for batch in one.epoch(1):
        for index, image in zip(batch.index, batch.image, strict=True):
            np.testing.assert_array_equal(found[index], image)


def test_one_process_goes_on_with_the_batches_of_two(folder):
    """It takes them in turn; its stream has the samples of both."""
    parts = [loader(folder), loader(folder)]
    for rank, part in enumerate(parts):
        part.share = replace(part.share, rank=rank, world_size=2)
    expected = [batch for both in zip(*(batches(part, 2) for part in parts), strict=True) for batch in both]
    alone = loader(folder)
    alone.share = replace(alone.share, world_size=2)
    alone.division = divide(2, 1, 1, [len(draws.index) for draws in alone.sampler.batches(alone.share, 2)])
    assert batches(alone, 2) == expected
    assert batches(alone, 2, 1) == expected[1:]


def test_the_files_of_a_stream_are_its_shards(folder):
    dataset = loader(folder).dataset
    assert list(dataset.paths_with(folder.name)) == sorted(map(str, folder.glob("*.tar")))
    assert list(dataset.paths_with("nowhere to be found")) == []


def test_an_epoch_that_is_left_early_can_be_begun_again(folder):
    found = loader(folder, workers=2)
    expected = batches(loader(folder), 1)
    for _ in range(3):
        next(found.epoch(1))
    assert found.first_image().shape == (3, 16, 16)
    assert batches(found, 1) == expected
    left, other = found.epoch(1), found.epoch(1)
    next(left)
    read = [next(other).image.tobytes()]
    left.close()  # while the other one is read
    assert [*read, *(batch.image.tobytes() for batch in other)] == [image for image, _ in expected]
    found.close()


def test_shards_of_webdataset(tmp_path):
    shutil.copy(THEIRS, tmp_path)
    content = ShardStreamDataset(str(tmp_path / "webdataset.tar"), 4, OPS[:1] + OPS[2:])
    found = Loader(content, ShuffleBufferSampler(4, buffer=2), Share(4, 3), num_workers=0)
    (batch,) = found.epoch(1)
    indexed = ShardDataset(str(tmp_path / "webdataset.tar"), OPS[:1] + OPS[2:])
    for index, image, label in zip(batch.index, batch.image, batch.label[:, 0], strict=True):
        expected = indexed.sample(int(index), 1, 3)
        np.testing.assert_array_equal(image, expected[0])
        assert label == expected[1]


def _tar(path: Path, keys: list[str], label: str = "0", image: bytes | None = None) -> None:
    import io
    import tarfile

    import cv2

    content = image or cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    with tarfile.open(path, "w") as archive:
        for key in keys:
            for suffix, body in ((".png", content), (".cls", label.encode())):
                member = tarfile.TarInfo(key + suffix)
                member.size = len(body)
                archive.addfile(member, io.BytesIO(body))


def test_a_damaged_image_is_named_and_may_be_left_out(tmp_path, caplog):
    _tar(tmp_path / "0.tar", ["a", "b"])
    _tar(tmp_path / "1.tar", ["c"], image=b"no image")
    _tar(tmp_path / "2.tar", ["d", "e"])
    place = re.escape(f"{tmp_path}/1.tar: c, c.png (sample 2)")
    with pytest.raises(DataError, match=place):
        batches(loader(tmp_path, IN_ORDER, samples=5), 1)
    found = loader(tmp_path, IN_ORDER, samples=5, on_error="skip")
    assert [len(batch.index) for batch in found.epoch(1)] == [4]
    assert "1.tar: c, c.png" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: _tar(path, ["c"], label="4"), r"1\.tar: c, c\.png .*must be in 0\.\.3 .*got 4"),
        (lambda path: _tar(path, ["c"], label="cat"), r"1\.tar: c\.cls: expected a class as a number"),
        (lambda path: path.write_bytes(path.read_bytes()[:560]), r"1\.tar: cut off in c\.png"),
        (lambda path: path.write_bytes(b"no tar"), r"1\.tar: damaged or cut off"),
        (lambda path: path.unlink(), r"1\.tar: cannot be read: No such file"),
        (lambda path: _tar(path, ["c", "x", "c"]), r"1\.tar: the members of c do not follow each other"),
        (lambda path: _tar(path, []), "the shards hold 4 images, but samples is 5; set samples: 4"),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_shards_are_named(tmp_path, change, message, workers):
    _tar(tmp_path / "0.tar", ["a", "b"])
    _tar(tmp_path / "1.tar", ["c"])
    _tar(tmp_path / "2.tar", ["d", "e"])
    found = loader(tmp_path, IN_ORDER, samples=5, workers=workers)
    change(tmp_path / "1.tar")
    with pytest.raises(DataError, match=message):
        batches(found, 1)
    found.close()


def test_more_images_than_samples_are_reported_once(folder, caplog):
    found = loader(folder, samples=10)
    for epoch in (1, 2):
        assert len(images(found, epoch)) == 10
    assert caplog.text.count("the shards hold more images than samples: 10") == 1


def test_class_names_are_those_of_the_shards_or_given(image_folder, tmp_path):
    data = ImageNetDataset(str(image_folder), str(image_folder / "train_list.txt"))
    write_shards(data, tmp_path / "shards", ShardOptions(), ["a", "b", "c", "d"])
    own = loader(tmp_path / "shards", IN_ORDER)
    assert own.dataset.class_names == ["a", "b", "c", "d"]
    other = loader(tmp_path / "shards", IN_ORDER, class_names=["d", "c", "b", "a"])
    for one, two in zip(own.epoch(1), other.epoch(1), strict=True):
        np.testing.assert_array_equal(3 - one.label, two.label)
    missing = loader(tmp_path / "shards", IN_ORDER, class_names=["d", "c", "b", "x"])
    with pytest.raises(DataError, match="class_names does not name its class"):
        batches(missing, 1)


@pytest.mark.parametrize(
    ("mode", "sampler", "options", "message"),
    [
        ("Eval", {"name": "DistributedBatchSampler", "batch_size": 4}, {}, "for DataLoader.Train alone"),
        ("UnLabelTrain", SHUFFLED, {}, "for DataLoader.Train alone"),
        ("Train", {**IN_ORDER, "shuffle": True}, {}, "DistributedBatchSampler draws them in any order"),
        ("Train", {"name": "RASampler", "batch_size": 4}, {}, "use ShuffleBufferSampler"),
        ("Train", {"name": "ClassAwareSampler", "batch_size": 4}, {}, "use ShuffleBufferSampler"),
        ("Train", SHUFFLED, {"use_processes": True, "num_workers": 1}, "cannot share the stream"),
    ],
)
def test_what_needs_another_order_is_refused(folder, mode, sampler, options, message):
    dataset = {"name": "ShardStreamDataset", "path": str(folder), "samples": 12, "transform_ops": OPS}
    content = {"dataset": dataset, "sampler": sampler, "loader": {"num_workers": 0, **options}}
    with pytest.raises(ConfigError, match=message):
        build_loader(content, mode, seed=3)


def test_options_are_checked(folder):
    for samples in (0, -3, 10**12):
        with pytest.raises(ConfigError, match=f"expected a number from 1 to 2147483647, got {samples}"):
            ShardStreamDataset(str(folder), samples)
    with pytest.raises(DataError, match="samples is 100000, but 12 shards of .* cannot hold more than"):
        ShardStreamDataset(str(folder), 100_000)
    with pytest.raises(DataError, match="no such folder or shard"):
        ShardStreamDataset(str(folder) + "x", 5)


def test_a_run_trains_from_a_stream_and_a_store_refuses_one(recipe, folder, write_recipe, tmp_path, capsys):
    content = distilled(recipe, **KL)
    part = content["DataLoader"]["Train"]
    part["dataset"] = {
        "name": "ShardStreamDataset",
        "path": str(folder),
        "samples": 12,
        "transform_ops": part["dataset"]["transform_ops"],
    }
    part["sampler"] = SHUFFLED
    path = write_recipe(content)
    assert train(path) == 0
    assert main(["check-data", "-c", str(path)]) == 2
    assert "use ShardDataset here, which makes an index" in capsys.readouterr().err
    content["Arch"]["models"][0]["Teacher"]["pretrained"] = str(tmp_path / "teacher.pdparams")
    (tmp_path / "teacher.pdparams").touch()
    content["TeacherStore"] = {"path": str(tmp_path / "store")}
    assert train(write_recipe(content)) == 2
    assert "a store of outputs needs the list of images" in capsys.readouterr().err

"""Shards give the same samples as the files that they were made from, and say what is wrong with them."""

from __future__ import annotations

import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support import tiny_recipe

from ppcls.data import (
    FolderDataset,
    ImageNetDataset,
    ShardDataset,
    build_dataset,
    build_loader,
    build_train_loader,
)
from ppcls.data import shards as module
from ppcls.data.images import ImageError
from ppcls.data.shard_writer import ShardOptions, write_shards
from ppcls.errors import DataError

SMALL = ShardOptions(size=20_000)


@pytest.fixture
def listed(image_folder: Path) -> ImageNetDataset:
    return ImageNetDataset(str(image_folder), str(image_folder / "train_list.txt"))


@pytest.fixture
def folder(listed: ImageNetDataset, tmp_path: Path) -> Path:
    """Shards of the images of `listed`."""
    write_shards(listed, tmp_path / "shards", SMALL, ["a", "b", "c", "d"])
    return tmp_path / "shards"


@pytest.fixture
def classes(image_folder: Path, tmp_path: Path) -> Path:
    """The images in a folder for each class."""
    for line in (image_folder / "train_list.txt").read_text().splitlines():
        name, label = line.split()
        place = tmp_path / "classes" / ["ox", "cat", "10", "9"][int(label)]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(image_folder / name, place)
    return tmp_path / "classes"


def test_files_are_found_by_a_part_of_their_path(listed, folder):
    """Lists answer it without joining every path; of shards there are few."""
    everything = [listed.path(index) for index in range(len(listed))]
    inside = listed.relative_paths()[2][1:4]
    assert list(listed.paths_with(inside)) == [path for path in everything if inside in path] != []
    assert list(listed.paths_with(Path(listed.image_root).name)) == everything
    shards = ShardDataset(str(folder))
    assert list(shards.paths_with(folder.name)) == sorted(map(str, folder.glob("*.tar")))
    for dataset in (listed, shards):
        assert list(dataset.paths_with("nowhere to be found")) == []


def test_samples_and_fingerprint_are_those_of_the_files(listed, folder):
    shards = ShardDataset(str(folder))
    assert len(list(folder.glob("*.tar"))) > 2
    assert [shards[i] for i in range(len(shards))] == [listed[i] for i in range(len(listed))]
    assert list(shards.relative_paths()) == list(listed.relative_paths())
    assert shards.fingerprint().same_as(listed.fingerprint())
    with pytest.raises(IndexError):
        shards[len(listed)]


def test_a_path_names_shard_key_and_file(folder):
    text = ShardDataset(str(folder)).path(5)
    assert ".tar: 000000005, " in text
    assert text.startswith(str(folder))
    assert text.endswith(".png")


@pytest.mark.parametrize("sampler", ["DistributedBatchSampler", "RASampler", "ClassAwareSampler"])
@pytest.mark.parametrize("workers", [0, 3])
def test_batches_are_the_same_bit_by_bit(image_folder, folder, tmp_path, sampler, workers):
    node = tiny_recipe(image_folder, tmp_path)["DataLoader"]["Train"]
    node["dataset"]["transform_ops"].insert(1, {"RandCropImage": {"size": 24}})
    node["sampler"] = {"name": sampler, "batch_size": 4}
    node["loader"] = {"num_workers": workers}
    sharded = {"name": "ShardDataset", "path": str(folder)} | {
        "transform_ops": node["dataset"]["transform_ops"]
    }
    loaders = [build_loader(part, "Train", 7, 4) for part in (node, node | {"dataset": sharded})]
    for epoch in (1, 2):
        for one, other in zip(*(loader.epoch(epoch) for loader in loaders), strict=True):
            np.testing.assert_array_equal(one.image, other.image)
            np.testing.assert_array_equal(one.label, other.label)
            np.testing.assert_array_equal(one.index, other.index)
    for loader in loaders:
        loader.close()


def test_unlabelled_images_and_processes(image_folder, folder, tmp_path):
    data = tiny_recipe(image_folder, tmp_path)["DataLoader"]
    del data["Eval"]
    data["UnLabelTrain"] = {**data["Train"], "loader": {"num_workers": 1, "use_processes": True}}
    other = pickle.loads(pickle.dumps(data))
    for part in ("Train", "UnLabelTrain"):
        operators = data[part]["dataset"]["transform_ops"]
        other[part]["dataset"] = {
            "name": "ShardDataset",
            "path": str(folder),
            "transform_ops": operators,
        }
    loaders = [build_train_loader(config, 1, 4) for config in (data, other)]
    for one, two in zip(*(loader.epoch(1) for loader in loaders), strict=True):
        np.testing.assert_array_equal(one.image, two.image)
        np.testing.assert_array_equal(one.label, two.label)
    for loader in loaders:
        loader.close()


def test_few_files_are_open_and_threads_share_them(listed, folder, monkeypatch):
    monkeypatch.setattr(module, "_MOST_OPEN", 1)
    shards = ShardDataset(str(folder))
    places = np.random.default_rng(0).integers(0, len(shards), 400)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: shards.read(int(i)), places))
    assert found == [listed.read(int(i)) for i in places]
    assert len(shards._files._opened) == 1


def test_a_copy_for_another_process_reads_the_same(folder):
    shards = ShardDataset(str(folder))
    shards.read(0)
    copied = pickle.loads(pickle.dumps(shards))
    assert len(pickle.dumps(shards)) < 5_000  # neither the index nor images
    assert [copied[i] for i in range(12)] == [shards[i] for i in range(12)]


def test_class_names_travel(classes, tmp_path):
    source = FolderDataset(str(classes))
    write_shards(source, tmp_path / "shards", SMALL)
    path = str(tmp_path / "shards")
    assert ShardDataset.find_class_names({"path": path}) == ["9", "10", "cat", "ox"]
    assert ShardDataset.find_class_names({"path": path, "class_names": ["x"]}) == ["x"]
    assert ShardDataset.find_class_names({"path": str(tmp_path / "none")}) is None
    assert ShardDataset(path).class_names == source.class_names
    assert ShardDataset(path).fingerprint().same_as(source.fingerprint())


def test_classes_are_matched_by_name(classes, tmp_path):
    order = ["ox", "hen", "cat", "10", "9"]
    write_shards(FolderDataset(str(classes)), tmp_path / "shards", SMALL)
    node = {"name": "ShardDataset", "path": str(tmp_path / "shards")}
    shards = build_dataset(node, "Eval", 5, order)
    files = build_dataset({"name": "FolderDataset", "image_root": str(classes)}, "Eval", 5, order)
    found, expected = (
        dict(zip(data.relative_paths(), map(data.label, range(len(data))), strict=True))
        for data in (shards, files)
    )
    assert found == expected
    assert shards.class_names == order
    with pytest.raises(DataError, match="none of the 3 classes: 'cat'"):
        ShardDataset(str(tmp_path / "shards"), class_names=["ox", "10", "9"])
    with pytest.raises(DataError, match="4 classes, but class_num is 7"):
        ShardDataset(str(tmp_path / "shards"), class_num=7)


def test_labels_beyond_the_network_are_refused(listed, tmp_path):
    write_shards(listed, tmp_path / "shards", SMALL)
    assert ShardDataset(str(tmp_path / "shards")).class_names is None
    with pytest.raises(DataError, match=r"in 0\.\.2 \(class_num 3\), got 3; 3 of 12"):
        ShardDataset(str(tmp_path / "shards"), class_num=3)


def _damage(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_one_changed_bit_in_an_image_is_named(folder):
    shards = ShardDataset(str(folder))
    row = shards._index.rows[4]
    _damage(folder / f"shard-{row['shard']:06d}.tar", int(row["offset"]) + 100)
    with pytest.raises(ImageError, match=r"shard-\d+\.tar: 000000004, .*damaged: .*checksum"):
        shards.sample(4, 1, 0)
    assert shards.read(5)


def test_a_damaged_image_is_left_out(image_folder, folder, tmp_path, caplog):
    row = ShardDataset(str(folder))._index.rows[4]
    _damage(folder / f"shard-{row['shard']:06d}.tar", int(row["offset"]) + 100)
    node = tiny_recipe(image_folder, tmp_path)["DataLoader"]["Eval"]
    node["dataset"] = {
        "name": "ShardDataset",
        "path": str(folder),
        "on_error": "skip",
        "transform_ops": node["dataset"]["transform_ops"],
    }
    loader = build_loader(node, "Eval", 0, 4)
    seen = np.concatenate([batch.index for batch in loader.epoch(0)])
    loader.close()
    assert sorted(seen) == [i for i in range(12) if i != 4]
    assert "000000004" in caplog.text


def test_wrong_shards_are_refused_at_the_start(folder):
    first, second, *_ = sorted(folder.glob("*.tar"))
    content = first.read_bytes()
    first.write_bytes(content[:-3000])
    with pytest.raises(DataError, match="shard-000000.tar: .* bytes, but the index says .* was cut off"):
        ShardDataset(str(folder))
    first.write_bytes(content + b"\0")
    with pytest.raises(DataError, match="was changed"):
        ShardDataset(str(folder))
    assert len(content) == second.stat().st_size
    first.write_bytes(second.read_bytes())  # another shard of the same size
    with pytest.raises(DataError, match="shard-000000.tar: the index has the image 000000000 "):
        ShardDataset(str(folder))
    first.unlink()
    with pytest.raises(DataError, match="1 shard is missing: shard-000000.tar"):
        ShardDataset(str(folder))


@pytest.mark.parametrize("name", ["samples.npy", "names.txt", "class_names.txt"])
def test_a_damaged_index_is_refused(folder, name):
    _damage(folder / name, -2)
    with pytest.raises(DataError, match=f"{name}: its checksum"):
        ShardDataset(str(folder))
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name}: a file of the index cannot be read"):
        ShardDataset(str(folder))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 9}', '{"version": 1, "files": {}}'])
def test_another_file_is_no_index(folder, text):
    (folder / "index.json").write_text(text)
    with pytest.raises(DataError, match=r"index\.json"):
        ShardDataset(str(folder))


def test_one_changed_bit_anywhere_never_gives_another_sample(folder):
    expected = list(ShardDataset(str(folder), class_num=4))
    files = sorted(folder.iterdir())
    rng = np.random.default_rng(0)
    for number in range(600):
        path = files[number % len(files)]
        content = path.read_bytes()
        place = int(rng.integers(len(content)))
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            shards = ShardDataset(str(folder), class_num=4)
            for index, sample in enumerate(expected):
                try:
                    assert shards[index] == sample, (path.name, place)
                except ImageError:
                    continue
        except DataError:
            pass
        path.write_bytes(content)
    assert list(ShardDataset(str(folder), class_num=4)) == expected

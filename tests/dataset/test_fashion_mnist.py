"""The embedded data: what is in it, how it is unpacked, and the script that makes it."""

from __future__ import annotations

import importlib.util
import io
import tarfile
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).resolve().parents[2] / "dataset"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


unpacker, prepare = load("unpack"), load("prepare_fashion_mnist")


def read(path: Path) -> list[tuple[str, int]]:
    return [(line.split()[0], int(line.split()[1])) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("embedded") / "fashion_mnist"
    assert unpacker.unpack(unpacker.ARCHIVE, target)
    return target


def test_archive_is_small() -> None:
    assert unpacker.ARCHIVE.stat().st_size <= 8_000_000


@pytest.mark.slow
def test_lists_are_balanced_disjoint_and_complete(data: Path) -> None:
    labelled, unlabelled = read(data / "train_list.txt"), read(data / "train_list_unlabel.txt")
    val = read(data / "val_list.txt")
    assert Counter(label for _, label in labelled) == dict.fromkeys(range(10), 100)
    assert Counter(label for _, label in val) == dict.fromkeys(range(10), 200)
    assert {label for _, label in unlabelled} == {0}
    assert read(data / "train_list_all.txt") == labelled + unlabelled
    names = [name for name, _ in labelled + unlabelled + val]
    assert len(names) == len(set(names)) == 13_000
    assert {str(path.relative_to(data)) for path in data.rglob("*.png")} == set(names)


@pytest.mark.slow
def test_images_and_names(data: Path) -> None:
    for name, _ in read(data / "val_list.txt")[:20]:
        with Image.open(data / name) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "L", (28, 28))
    names = (data / "label_list.txt").read_text().splitlines()
    assert names == [f"{i} {name}" for i, name in enumerate(prepare.CLASSES)]
    assert "Copyright (c) 2017 Zalando SE" in (data / "LICENSE.txt").read_text()


def small_archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:xz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_unpacking_again_does_nothing_and_a_new_archive_replaces(tmp_path: Path) -> None:
    target = tmp_path / "set"
    archive = small_archive(tmp_path / "a.tar.xz", {"top/one.txt": b"1", "top/deep/two.txt": b"2"})
    assert unpacker.unpack(archive, target)
    assert (target / "deep/two.txt").read_bytes() == b"2"
    (target / "one.txt").write_text("mine")
    assert not unpacker.unpack(archive, target)
    assert (target / "one.txt").read_text() == "mine"
    small_archive(archive, {"top/three.txt": b"3"})
    assert unpacker.unpack(archive, target)
    assert {p.name for p in target.iterdir()} == {"three.txt", unpacker.MARK}
    assert {p.name for p in tmp_path.iterdir()} == {"a.tar.xz", "set"}


def test_a_folder_of_the_user_is_left_alone(tmp_path: Path) -> None:
    archive = small_archive(tmp_path / "a.tar.xz", {"top/one.txt": b"1"})
    (tmp_path / "set").mkdir()
    with pytest.raises(FileExistsError, match="move it away"):
        unpacker.unpack(archive, tmp_path / "set")


@pytest.mark.parametrize("bad", ["top/../../evil.txt", "alone.txt"])
def test_a_strange_archive_leaves_nothing(tmp_path: Path, bad: str) -> None:
    archive = small_archive(tmp_path / "a.tar.xz", {"top/one.txt": b"1", bad: b"2"})
    with pytest.raises(ValueError, match="unexpected entry"):
        unpacker.unpack(archive, tmp_path / "set")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar.xz"]


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    path.write_bytes(header + values.tobytes())


def test_the_script_keeps_every_pixel_and_uses_each_image_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "TRAIN_PARTS", {"labelled": 10, "unlabelled": 20, "tune": 10, "teacher": 60})
    monkeypatch.setattr(prepare, "VAL_IMAGES", 20)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (100, 28, 28), dtype=np.uint8)
    labels = rng.permutation(np.repeat(np.arange(10, dtype=np.uint8), 10))
    for part in ("train", "t10k"):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", labels)
    archive, full, target = tmp_path / "a.tar.xz", tmp_path / "full", tmp_path / "set"
    assert prepare.main([str(tmp_path), "--archive", str(archive)]) == 0
    first = archive.read_bytes()
    assert prepare.main([str(tmp_path), "--archive", str(archive)]) == 0
    assert archive.read_bytes() == first
    assert prepare.main([str(tmp_path), "--full", str(full)]) == 0
    unpacker.unpack(archive, target)
    embedded, rest = (
        {p.name for p in (target / "train").iterdir()},
        {p.name for p in (full / "train").iterdir()},
    )
    assert len(embedded) == 30
    assert len(rest) == 70
    assert not embedded & rest
    known = read(target / "train_list.txt") + read(full / "teacher_list.txt") + read(full / "tune_list.txt")
    for name, label in known:
        folder = target if Path(name).name in embedded else full
        number = int(Path(name).stem)
        assert label == labels[number]
        assert np.array_equal(np.asarray(Image.open(folder / name)), images[number])


def test_a_missing_or_cut_source_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main([str(tmp_path), "--archive", str(tmp_path / "a")]) == 2
    assert "train-images-idx3-ubyte" in capsys.readouterr().err
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((3, 28, 28), np.uint8))
    data = (tmp_path / "train-images-idx3-ubyte").read_bytes()
    (tmp_path / "train-images-idx3-ubyte").write_bytes(data[:-1])
    assert prepare.main([str(tmp_path), "--archive", str(tmp_path / "a")]) == 2
    assert "not a complete idx file" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()

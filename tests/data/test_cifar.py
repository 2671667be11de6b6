"""CIFAR files as Python 2 wrote them, in small."""

from __future__ import annotations

import io
import os
import pickle
import tarfile

import numpy as np
import pytest

from ppcls.data import Cifar10, build_dataset
from ppcls.errors import DataError

OPS = [{"RandomCropImage": {"size": 32, "padding": 4}}, {"NormalizeImage": {"order": ""}}]


def python2_pickle(images: np.ndarray, labels: list[int], key: bytes) -> bytes:
    """Protocol 2 with byte strings as Python 2's BINSTRING, the way the official files are."""

    def text(value: bytes) -> bytes:
        return b"T" + len(value).to_bytes(4, "little") + value

    shape = pickle.dumps(images.shape, 2)[2:-1]
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85"
        + text(b"b")
        + b"tR(K\x01"
        + shape
        + b"cnumpy\ndtype\n("
        + text(b"u1")
        + b"K\x00K\x01tR(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xff"
        + b"J\xff\xff\xff\xffK\x00tb\x89"
        + text(images.tobytes())
        + b"tb"
    )
    values = pickle.dumps(labels, 2)[2:-1]
    return b"\x80\x02}(" + text(b"data") + array + text(key) + values + b"u."


@pytest.fixture
def files():
    rng = np.random.default_rng(0)
    names = ["test_batch", *(f"data_batch_{n}" for n in range(1, 6))]
    images = {name: rng.integers(0, 256, (3, 3072), dtype=np.uint8) for name in names}
    return images, {
        name: python2_pickle(x, [n % 10, 1, 9], b"labels") for n, (name, x) in enumerate(images.items())
    }


@pytest.mark.parametrize("packed", [True, False])
def test_images_and_labels(files, tmp_path, packed):
    images, contents = files
    source = tmp_path / ("cifar-10-python.tar.gz" if packed else "cifar-10-batches-py")
    if packed:
        with tarfile.open(source, "w:gz") as archive:
            for name, content in contents.items():
                info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    else:
        source.mkdir()
        for name, content in contents.items():
            (source / name).write_bytes(content)
    node = {"name": "Cifar10", "data_file": str(source), "transform_ops": OPS}
    train = build_dataset(node, "Train", class_num=10)
    assert len(train) == 15
    assert [train.label(i) for i in (0, 2, 3, 14)] == [1, 9, 2, 9]
    assert train.path(4) == f"{source}/data_batch_2#1"
    pixels = images["data_batch_2"][1].reshape(3, 32, 32)
    np.testing.assert_array_equal(train.read(4).transpose(2, 0, 1), pixels)
    assert train.sample(4, 0, 0)[0].shape == (3, 32, 32)
    assert train.fingerprint().count == 15
    moved = source.rename(tmp_path / f"moved{'.tar.gz' if packed else ''}")
    node["data_file"] = str(moved)
    assert build_dataset(node, "Train").fingerprint().same_as(train.fingerprint())
    evaluated = build_dataset(node, "Eval", class_num=10)
    assert not evaluated.fingerprint().same_as(train.fingerprint())
    assert len(evaluated) == 3
    np.testing.assert_array_equal(evaluated.read(0)[..., 0].ravel(), images["test_batch"][0, :1024])


def test_cifar100_takes_the_fine_labels(tmp_path):
    images = np.zeros((2, 3072), np.uint8)
    (tmp_path / "train").write_bytes(python2_pickle(images, [99, 3], b"fine_labels"))
    dataset = build_dataset({"name": "Cifar100", "data_file": str(tmp_path)}, "Train", class_num=100)
    assert [dataset.label(0), dataset.label(1)] == [99, 3]
    with pytest.raises(DataError, match="cannot read test"):
        build_dataset({"name": "Cifar100", "data_file": str(tmp_path)}, "Eval", class_num=100)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (pickle.dumps(print), "refused, the file asks for builtins.print"),
        (b"hello", "not a file of CIFAR"),
        (pickle.dumps({b"data": 3}), "not a file of CIFAR"),
        (
            python2_pickle(np.zeros((2, 10), np.uint8), [1, 2], b"labels"),
            r"expected uint8 images \[2, 3072\]",
        ),
        (python2_pickle(np.zeros((1, 3072), np.uint8), [11], b"labels"), "test_batch#0: the label is 11"),
    ],
)
def test_damaged_and_hostile_files(tmp_path, content, part):
    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(DataError, match=part):
        build_dataset({"name": "Cifar10", "data_file": str(tmp_path)}, "Eval")


def test_mistakes(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        build_dataset({"name": "Cifar10", "data_file": str(tmp_path / "x.tar.gz")}, "Train")
    (tmp_path / "x.tar.gz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot read data_batch_1"):
        build_dataset({"name": "Cifar10", "data_file": str(tmp_path / "x.tar.gz")}, "Train")
    with pytest.raises(DataError, match="10 classes, but class_num is 100"):
        build_dataset({"name": "Cifar10", "data_file": str(tmp_path)}, "Train", class_num=100)


@pytest.mark.parametrize("packed", [True, False])
def test_names_come_from_the_file_beside_the_images(files, tmp_path, packed):
    _, contents = files
    source = tmp_path / ("cifar.tar.gz" if packed else "cifar")
    names = [f"class {number}" for number in range(10)]

    def write(meta: bytes | None) -> None:
        everything = {**contents, **({} if meta is None else {"batches.meta": meta})}
        if packed:
            with tarfile.open(source, "w:gz") as archive:
                for name, content in everything.items():
                    info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        else:
            source.mkdir(exist_ok=True)
            for name, content in everything.items():
                (source / name).write_bytes(content)

    node = {"name": "Cifar10", "data_file": str(source)}
    write(None)
    assert build_dataset(node).class_names is None
    good = pickle.dumps({b"label_names": [name.encode() for name in names]}, 2)
    for meta, expected in (
        (good, names),
        (good[:40], None),
        (pickle.dumps({b"label_names": [b"a"]}, 2), None),
    ):
        write(meta)
        os.utime(source, ns=(len(meta), len(meta)))
        assert build_dataset(node).class_names == expected
        assert Cifar10.find_class_names(node) == expected
    write(good)
    os.utime(source, ns=(7, 7))
    assert build_dataset(node, "Eval", class_names=names).class_names == names
    with pytest.raises(
        DataError, match="DataLoader.Eval.dataset .*: class 0 is class 0, but other in training"
    ):
        build_dataset(node, "Eval", class_names=["other", *names[1:]])
    assert Cifar10.find_class_names({"data_file": str(tmp_path / "none")}) is None

"""Datasets other than lists, and what a sample is."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ppcls.data import FolderDataset, build_dataset
from ppcls.errors import DataError

OPS = [{"DecodeImage": {"channels": 1}}, {"NormalizeImage": {"mean": [0.0], "std": [1.0], "order": ""}}]


@pytest.fixture
def folder(tmp_path):
    for label, name in enumerate(["cat", "dog", "鸟"]):
        (tmp_path / name / "more").mkdir(parents=True)
        for number in range(2):
            cv2.imencode(".png", np.full((4, 5), 10 * label + number, np.uint8))[1].tofile(
                tmp_path / name / ("more" if number else "") / f"{number}.PNG"
            )
    (tmp_path / "readme.txt").write_text("no class")
    return tmp_path


def test_folders_are_classes_in_order_of_their_names(folder):
    dataset = build_dataset(
        {"name": "FolderDataset", "image_root": str(folder), "transform_ops": OPS}, "Train", class_num=3
    )
    assert dataset.class_names == ["cat", "dog", "鸟"]
    assert [dataset.label(i) for i in range(len(dataset))] == [0, 0, 1, 1, 2, 2]
    for index in range(6):
        image, label = dataset.sample(index, 0, 0)
        assert image.shape == (1, 4, 5)
        assert image[0, 0, 0] * 255 == pytest.approx(10 * label + index % 2)


def test_a_missing_class_folder_moves_no_other(folder):
    names = ["bear", "cat", "dog", "鸟"]
    dataset = FolderDataset(str(folder), class_names=names, class_num=4)
    assert [dataset.label(i) for i in range(len(dataset))] == [1, 1, 2, 2, 3, 3]
    with pytest.raises(DataError, match="3 classes, but class_num is 4"):
        FolderDataset(str(folder), class_num=4)
    with pytest.raises(DataError, match="none of the 2 classes: '鸟'. The classes are cat, dog"):
        FolderDataset(str(folder), class_names=["cat", "dog"])


def test_folders_without_images(tmp_path):
    with pytest.raises(DataError, match="is no folder"):
        FolderDataset(str(tmp_path / "none"))
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match="no class folder holds an image"):
        FolderDataset(str(tmp_path))


def test_items_are_files_and_labels_and_end(folder):
    dataset = FolderDataset(str(folder))
    assert dataset[5][1] == 2
    assert dataset[5][0].startswith(b"\x89PNG")
    assert len(list(dataset)) == 6
    with pytest.raises(IndexError, match="has 6 samples, there is no sample 6"):
        dataset[6]


def test_a_sample_is_a_function_of_index_epoch_and_seed(folder):
    ops = [*OPS[:1], {"RandomCropImage": {"size": 4, "padding": 3}}, *OPS[1:]]
    dataset = FolderDataset(str(folder), ops)
    images = {
        dataset.sample(1, epoch, seed)[0].tobytes()
        for epoch in range(4)
        for seed in range(4)
        for _ in range(3)
    }
    assert 4 < len(images) <= 16
    np.testing.assert_array_equal(dataset.sample(1, 2, 3)[0], dataset.sample(1, 2, 3)[0])

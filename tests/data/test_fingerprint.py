"""Fingerprints of lists: the same for the same images and labels, another for anything else."""

import shutil

import numpy as np
import pytest
from support import tiny_recipe

from ppcls.data import Fingerprint, FolderDataset, ImageNetDataset, build_train_loader, datasets_of
from ppcls.data.dataset import Dataset
from ppcls.data.fingerprint import fingerprint_of

NAMES, LABELS = ["a.png", "b.png", "c.png"], np.array([0, 1, 1])


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (NAMES[:2], LABELS[:2]),
        (["b.png", "a.png", "c.png"], LABELS),
        (["a.png", "b.png", "d.png"], LABELS),
        (NAMES, np.array([0, 1, 2])),
        (NAMES, np.array([1, 0, 1])),
        (["a.pngb.png", "c.png"], LABELS[:2]),
    ],
)
def test_another_list_has_another_fingerprint(names, labels):
    assert not fingerprint_of("x", names, labels).same_as(fingerprint_of("x", NAMES, LABELS))


def test_the_kind_of_labels_and_the_name_of_the_list_do_not_count():
    one = fingerprint_of("here/list.txt", NAMES, LABELS)
    assert one.same_as(fingerprint_of("there/list.txt", iter(NAMES), iter([0, 1, 1])))
    assert one.count == 3
    assert Fingerprint(**one.as_dict()) == one


def test_a_name_that_is_no_unicode_has_a_fingerprint():
    assert fingerprint_of("x", [b"\xff.png".decode(errors="surrogateescape")], [0]).count == 1


def test_data_may_be_moved(image_folder, tmp_path):
    moved = shutil.copytree(image_folder, tmp_path / "moved")
    one, other = (
        ImageNetDataset(str(folder), str(folder / "train_list.txt")) for folder in (image_folder, moved)
    )
    assert one.fingerprint().same_as(other.fingerprint())
    assert one.fingerprint().name == str(image_folder / "train_list.txt")
    classes = tmp_path / "classes"
    for line in (image_folder / "train_list.txt").read_text().splitlines():
        name, label = line.split()
        (classes / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(image_folder / name, classes / label)
    first = FolderDataset(str(classes)).fingerprint()
    assert FolderDataset(str(classes.rename(tmp_path / "elsewhere"))).fingerprint().same_as(first)
    next((tmp_path / "elsewhere/2").iterdir()).unlink()
    fewer = FolderDataset(str(tmp_path / "elsewhere")).fingerprint()
    assert (first.count, fewer.count) == (12, 11)


def test_a_dataset_of_a_plug_in_has_one_of_its_paths_and_labels():
    class Own(Dataset):
        def __init__(self, names):
            super().__init__("own", None, None, "raise")
            self.names = names

        def __len__(self):
            return len(self.names)

        def path(self, index):
            return self.names[index]

        def label(self, index):
            return index

    assert Own(["a", "b"]).fingerprint() == fingerprint_of("own", ["a", "b"], [0, 1])
    assert not Own(["a", "c"]).fingerprint().same_as(Own(["a", "b"]).fingerprint())


def test_the_lists_of_a_run_are_named_by_their_config_paths(image_folder, tmp_path):
    nodes = tiny_recipe(image_folder, tmp_path)["DataLoader"]
    nodes["UnLabelTrain"] = nodes["Eval"]
    joined = datasets_of(build_train_loader(nodes, seed=0), build_train_loader({"Train": nodes["Eval"]}, 0))
    assert {name: len(found) for name, found in joined.items()} == {
        "DataLoader.Train.dataset": 12,
        "DataLoader.UnLabelTrain.dataset": 6,
        "DataLoader.Eval.dataset": 6,
    }
    alone = datasets_of(build_train_loader({"Train": nodes["Train"]}, seed=0))
    assert [*alone] == ["DataLoader.Train.dataset"]

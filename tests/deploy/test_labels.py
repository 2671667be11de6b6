"""The class names that come with the package."""

from __future__ import annotations

from ppcls.data.postprocess import read_class_names


def test_names_of_imagenet() -> None:
    names = read_class_names("ppcls/data/labels/imagenet1k_label_list.txt")
    assert list(names) == list(range(1000))
    assert all(name and "_" not in name for name in names.values())
    tutorial = {
        8: "hen",
        7: "cock",
        86: "partridge",
        82: "ruffed grouse, partridge, Bonasa umbellus",
        21: "kite",
    }
    assert {n: names[n] for n in tutorial} == tutorial
    assert names[0] == "tench, Tinca tinca"
    assert names[999] == "toilet tissue, toilet paper, bathroom tissue"

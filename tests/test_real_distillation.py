"""The benchmark with public weights writes a recipe that is valid, whatever the shipped one is made of."""

from argparse import Namespace

import real_distillation
from support import PHOTOS

from ppcls.config import load_config, plain


def test_its_recipe_is_the_shipped_one_with_gentle_crops(tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, photo in enumerate(sorted(PHOTOS.glob("*.jpg"))[:2]):
        (photos / f"imagenet_{number}.jpg").write_bytes(photo.read_bytes())
    monkeypatch.setattr(real_distillation, "weights_file", lambda number, cache: tmp_path / "weights.pth")
    monkeypatch.setattr(real_distillation, "unpacked", lambda archive, cache: photos)
    asked = Namespace(cache=tmp_path, teacher="paddle", epochs=8)
    made = plain(load_config(real_distillation.write_recipe(asked, tmp_path)))
    shipped = plain(load_config(real_distillation.RECIPE))
    assert made["Loss"] == shipped["Loss"]
    train = made["DataLoader"]["Train"]["dataset"]
    assert train["transform_ops"][1] == {"RandCropImage": {"size": 224, "scale": [0.7, 1.0]}}
    operations = shipped["DataLoader"]["Train"]["dataset"]["transform_ops"]
    assert train["transform_ops"][2:] == operations[2:]
    assert (tmp_path / "list.txt").read_text() == "imagenet_0.jpg 0\nimagenet_1.jpg 1\n"

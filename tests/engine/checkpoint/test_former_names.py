"""A run that an earlier version began, when its network had other names, continues as if it had today's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ppcls.arch.backbone.cifar_resnet import CifarResNet
from ppcls.cli import main
from ppcls.engine.checkpoint import Checkpointer
from ppcls.weights import read_params


def train(path, epochs):
    options = ["-o", f"Global.epochs={epochs}", "-o", "EMA.decay=0.9"]
    return main(["train", "-c", str(path), *options, "--resume", "auto"])


def under_former_names(tensors):
    return {name.replace("fc.weight", "classifier.weight"): value for name, value in tensors.items()}


def test_a_run_with_former_names_is_resumed_exactly(recipe, write_recipe, tmp_path, monkeypatch, capsys):
    recipe["Optimizer"]["lr"] = {"name": "ConstLR", "learning_rate": 0.05}
    path, folder = write_recipe(recipe), tmp_path / "output/resnet8"
    assert train(path, 2) == 0
    whole = folder.rename(tmp_path / "whole")
    assert train(path, 1) == 0
    load = Checkpointer.load

    def load_former(self, tag):
        found = load(self, tag)
        parts = {name: under_former_names(getattr(found, name)) for name in ("params", "optimizer", "ema")}
        assert all(any("classifier.weight" in name for name in part) for part in parts.values())
        return replace(found, **parts)

    monkeypatch.setattr(Checkpointer, "load", load_former)
    monkeypatch.setattr(CifarResNet, "former_names", {"classifier.weight": "fc.weight"})
    capsys.readouterr()
    assert train(path, 2) == 0
    printed = capsys.readouterr().out
    for suffix in ("pdparams", "pdopt", "pdema"):
        assert f"latest.{suffix}: 1 names are those of an earlier version of ppcls" in printed
        first, second = (read_params(place / f"latest.{suffix}") for place in (whole, folder))
        assert first.keys() == second.keys()
        for name, value in first.items():
            np.testing.assert_array_equal(value, second[name], err_msg=name)

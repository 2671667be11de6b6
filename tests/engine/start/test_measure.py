"""Measurements of frozen networks before the first step: exact, equal after a resume, or refused."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import paddle
import pytest
from support import distilled, train

from ppcls.arch import create_model
from ppcls.config import load_config
from ppcls.data import Share, build_dataset
from ppcls.engine import Engine
from ppcls.engine.start.measure import _Spread
from ppcls.errors import ConfigError
from ppcls.loss.measured import Moments
from ppcls.teacher.columns import Columns
from ppcls.teacher.store import Store
from ppcls.weights import read_params

NODE = {"model_name_pairs": [["Student", "Teacher"]], "weight": 0.1, "cost": "logits"}


@pytest.fixture
def content(recipe, tmp_path):
    content = distilled(recipe, DistillationWKDLogitLoss=copy.deepcopy(NODE))
    paddle.seed(5)
    path = str(tmp_path / "teacher.pdparams")
    paddle.save(create_model("resnet14", class_num=4).state_dict(), path)
    content["Arch"]["models"][0]["Teacher"] |= {"pretrained": path, "frozen_engine": "eager"}
    content["Global"] |= {"eval_during_train": False, "epochs": 1}
    return content


def folder_of(content):
    return Path(content["Global"]["output_dir"]) / "DistillationModel"


def kept(content):
    """Return the distances in the last checkpoint."""
    return np.asarray(read_params(folder_of(content) / "latest.pdopt")["loss.layers.0.distances_0"])


def plain_images(content):
    """Return the training images without augmentation."""
    data = content["DataLoader"]
    node = {**data["Train"]["dataset"], "transform_ops": data["Eval"]["dataset"]["transform_ops"]}
    dataset = build_dataset(node, "Train", 4)
    return np.stack([dataset.sample(index, 0, 0)[0] for index in range(len(dataset))])


def teacher_of(content, **options):
    """Return the teacher of a recipe with its weights."""
    node = content["Arch"]["models"][0]["Teacher"]
    network = create_model(node["name"], class_num=4, pretrained=node["pretrained"], **options)
    network.eval()
    return network


def logits_of_plain_images(content):
    """Return the teacher's logits for the training images without augmentation, float64."""
    with paddle.no_grad():
        return teacher_of(content)(paddle.to_tensor(plain_images(content))).numpy().astype(np.float64)


def by_definition(logits):
    """1 - CKA from kernel matrices: tr(K H L H), normalised."""
    count, classes = logits.shape
    centring = np.eye(count) - 1 / count
    kernels = [centring @ np.outer(column, column) @ centring for column in logits.T]
    hsic = np.array([[np.trace(kernels[i] @ kernels[j]) for j in range(classes)] for i in range(classes)])
    return 1 - hsic / np.sqrt(np.outer(np.diag(hsic), np.diag(hsic)))


def test_distances_are_those_of_the_definition_and_stay_after_a_resume(content, write_recipe):
    path = write_recipe(content)
    assert train(path) == 0
    first = kept(content)
    np.testing.assert_allclose(first, by_definition(logits_of_plain_images(content)), atol=1e-5)
    folder = folder_of(content)
    line = "distances of 4 classes from the outputs of Teacher for 12 images (the training images without"
    assert line in (folder / "train.log").read_text()
    assert train(path, f"Global.checkpoints={folder}/latest", "Global.epochs=2") == 0
    np.testing.assert_array_equal(kept(content), first)
    assert (folder / "train.log").read_text().count(line) == 1


def test_distances_from_a_store(content, write_recipe, tmp_path):
    content["TeacherStore"] = {"path": str(tmp_path / "store"), "precision": "float32"}
    path = write_recipe(content)
    with pytest.raises(ConfigError, match="not have all of them; fill it with `ppcls teacher store`"):
        Engine(load_config(path, [], "train"), "train").train()
    assert not folder_of(content).exists()
    del content["TeacherStore"]["precision"]
    losses = content["Loss"]["Train"]
    content["Loss"]["Train"] = [{"DistillationKLDivLoss": {"model_name_pairs": [["Student", "Teacher"]]}}]
    assert train(write_recipe(content)) == 0  # fills it
    content["Loss"]["Train"] = losses
    Path(content["Arch"]["models"][0]["Teacher"]["pretrained"]).unlink()  # none of its weights are needed
    assert train(write_recipe(content)) == 0
    store = Store(tmp_path / "store")
    columns = Columns.from_json(store.manifest["networks"])
    logits = columns.decode(store.read(1, 0, store.manifest["rows"]), "Teacher").numpy()
    np.testing.assert_allclose(kept(content), by_definition(logits.astype(np.float64)), atol=1e-6)


def test_what_cannot_be_measured_is_refused_by_validation(content, write_recipe):
    def refused(text):
        with pytest.raises(ConfigError, match=text):
            load_config(write_recipe(content), [], "train")

    content["Arch"]["frozen_mode"] = "train"
    refused("DistillationWKDLogitLoss.cost: the teacher is measured .* Teacher changes while the run")
    del content["Arch"]["frozen_mode"]
    evaluation = content["DataLoader"].pop("Eval")
    refused("cost: the teacher is measured .* DataLoader.Eval.dataset.transform_ops .*missing")
    content["DataLoader"]["Eval"] = evaluation
    content["Arch"]["freeze_params_list"] = [False, False]
    refused("cost: the teacher is measured .* Teacher changes while the run")


def test_features_of_a_teacher_are_standardised_by_their_mean_and_scale(content, write_recipe):
    pair = {"model_name_pairs": [["Student", "Teacher"]], "standardize_teacher": True}
    maps = {"base_loss_name": "MGDLoss", "s_key": "blocks[2]", "t_key": "blocks[5]"}
    content["Loss"]["Train"] = [
        {"DistillationDistanceLoss": {**pair, "key": "flatten"}}, {"DistillationPairLoss": {**pair, **maps}}
    ]  # fmt: skip
    for entry, block in zip(content["Arch"]["models"], ("blocks[5]", "blocks[2]"), strict=True):
        next(iter(entry.values()))["return_patterns"] = [block, "flatten"]
    assert train(write_recipe(content)) == 0
    state = read_params(folder_of(content) / "latest.pdopt")
    network = teacher_of(content, return_patterns=["blocks[5]", "flatten"])
    with paddle.no_grad():
        found = network(paddle.to_tensor(plain_images(content)))
    for place, features in enumerate([found["flatten"].numpy(), found["blocks[5]"].numpy()]):
        channels = np.moveaxis(features, 1, -1).reshape(-1, features.shape[1])
        begin = f"loss.layers.{place}.scales.0.0"
        np.testing.assert_allclose(state[f"{begin}.mean"], channels.mean(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(state[f"{begin}.scale"], np.sqrt(channels.var(0).mean()), rtol=1e-4)
    log = (folder_of(content) / "train.log").read_text()
    assert "mean and scale of blocks[5] from the outputs of Teacher for 12 images" in log


@pytest.mark.parametrize("products", [True, False])
def test_moments_of_parts_far_from_zero(products):
    rows = np.random.default_rng(0).standard_normal((50, 4)) + [1e4, 0, -1e3, 5]
    parts = [Moments(products=products) for _ in range(3)]
    for part, chunks in zip(parts, [[rows[:1], rows[1:20]], [], [rows[20:]]], strict=True):
        for chunk in chunks:
            part.add(chunk)
    whole = parts[1]
    whole.join(parts[0])
    whole.join(parts[2])
    expected = np.cov(rows.T, bias=True) * 50
    np.testing.assert_allclose(whole.mean, rows.mean(0))
    np.testing.assert_allclose(whole.sums, expected if products else np.diag(expected), atol=1e-7)
    assert whole.count == 50


@pytest.mark.parametrize(("length", "most"), [(11, None), (11, 4), (3, 8), (100, 7)])
def test_processes_share_the_images_without_repeating_any(length, most):
    found = [
        draws.index
        for rank in range(3)
        for draws in _Spread(2, most).batches(Share(length, 0, rank, 3, training=False), 0)
    ]
    index = np.concatenate(found)
    assert len(set(index)) == len(index) == min(length, most or length)
    assert index.min() == 0
    assert index.max() == length - 1
    assert np.ptp(np.diff(np.sort(index))) <= 1

"""A detector with two classes in a whole run: hit rate at few false alarms, yes or no by a threshold."""

from __future__ import annotations

import ast

import numpy as np
import paddle
import pytest
from support import distilled

from ppcls.cli import main
from ppcls.config import load_config
from ppcls.data import build_loader
from ppcls.deploy import Predictor
from ppcls.engine import Engine
from ppcls.engine import meters as meters_module
from ppcls.engine.meters import Meters
from ppcls.errors import ConfigError, DataError
from ppcls.metric import build_metric
from ppcls.metric.tpr_at_fpr import best_operating_point

KL = {"model_name_pairs": [["Student", "Teacher"]], "temperature": 4.0}


@pytest.fixture
def detector(recipe, image_folder):
    """A distillation whose images are of class 0 or 1."""
    for name in ("train_list.txt", "val_list.txt"):
        lines = (image_folder / name).read_text().split()
        pairs = zip(lines[::2], lines[1::2], strict=True)
        (image_folder / name).write_text("".join(f"{image} {int(label) % 2}\n" for image, label in pairs))
    recipe["Arch"]["class_num"] = 2
    recipe = distilled(recipe, DistillationKLDivLoss=KL, DistillationGTCELoss={"model_names": ["Student"]})
    recipe["Global"] |= {"check_teacher": False, "eval_agreement": False}
    recipe["Metric"] = {
        "Train": [{"DistillationTopkAcc": {"model_key": "Student", "topk": 1}}],
        "Eval": [{"TprAtFpr": {"max_fpr": 0.3}}, {"TopkAcc": {"topk": [1]}}],
    }
    recipe["Infer"]["PostProcess"] = {
        "name": "DistillationPostProcess",
        "model_name": "Student",
        "func": "ThreshOutput",
        "threshold": 0.7,
        "label_0": "nobody",
        "label_1": "someone",
    }
    return recipe


def test_train_eval_infer_export_predict(detector, write_recipe, tmp_path, capsys):
    path, folder = write_recipe(detector), tmp_path / "output/DistillationModel"
    best = Engine(load_config(path), "train").train()
    assert [name for name in best if name in ("tpr", "fpr", "threshold", "top1")] == [
        *("tpr", "fpr", "threshold"),
        "top1",
    ]
    weights = f"Global.pretrained_model={folder / 'best_model'}"
    found = Engine(load_config(path, [weights], "eval"), "eval").eval()
    config = load_config(path, [weights], "infer")
    network = Engine(config, "infer")._deployed_network()
    rows = []
    for batch in build_loader(config["DataLoader"]["Eval"], "Eval", seed=0, class_num=2).epoch(0):
        output = network(paddle.to_tensor(batch.image))
        logits = (output["logits"] if isinstance(output, dict) else output).numpy().astype(np.float64)
        score = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
        rows.append(np.stack([batch.label[:, 0], score], 1))
    tpr, fpr, threshold = best_operating_point(np.concatenate(rows), 0.3)
    assert (found["tpr"], found["fpr"]) == (tpr, fpr) == (best["tpr"], best["fpr"])
    assert found["threshold"] == pytest.approx(threshold, abs=1e-5)

    results = Engine(config, "infer").infer()
    assert {result["label_names"][0] for result in results} <= {"nobody", "someone"}
    report = Engine(load_config(path, [weights], "export"), "export").export()
    deployed = Predictor(str(report.folder)).predict(detector["Infer"]["infer_imgs"])
    for mine, theirs in zip(results, deployed, strict=True):
        assert (mine["class_ids"], mine["label_names"]) == (theirs["class_ids"], theirs["label_names"])
        assert list(mine) == list(theirs)
        np.testing.assert_allclose(mine["scores"], theirs["scores"], atol=2e-5)
    capsys.readouterr()
    assert main(["predict", "--model-dir", str(report.folder), str(tmp_path / "images")]) == 0
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [ast.literal_eval(line)["class_ids"] for line in printed] == [r["class_ids"] for r in deployed]


def test_an_evaluation_set_of_one_class_is_refused_before_anything_is_trained(
    detector, write_recipe, tmp_path, image_folder
):
    images = [line.split()[0] for line in (image_folder / "val_list.txt").read_text().splitlines()]
    (image_folder / "val_list.txt").write_text("".join(f"{image} 0\n" for image in images))
    path = write_recipe(detector)
    with pytest.raises(DataError, match="TprAtFpr: DataLoader.Eval has no image of class 1"):
        Engine(load_config(path), "train").train()
    assert not list((tmp_path / "output").rglob("*.pdparams"))


def test_the_recipe_says_where_the_metric_may_stand(detector, write_recipe):
    detector["Metric"]["Train"] = [{"TprAtFpr": None}]
    with pytest.raises(ConfigError, match=r"Metric\.Train\.0: TprAtFpr is for evaluations only"):
        load_config(write_recipe(detector))
    detector["Metric"]["Train"] = []
    detector["Arch"]["class_num"] = 3
    detector["Infer"]["PostProcess"] = {"name": "Topk"}
    with pytest.raises(ConfigError, match=r"Metric\.Eval\.0: TprAtFpr is for 2 classes, but resnet8 has 3"):
        load_config(write_recipe(detector))


@pytest.mark.parametrize("shares", [(5, 7), (12, 0), (0, 12)])
def test_several_processes_have_the_value_of_all_images(shares, monkeypatch):
    rng = np.random.default_rng(1)
    label, logits = np.arange(12) % 2, rng.normal(size=(12, 2)).astype("float32")

    def measured(part):
        meters = Meters()
        if len(label[part]):
            metric = build_metric([{"TprAtFpr": {"max_fpr": 0.4}}, {"TopkAcc": {"topk": 1}}])
            values = metric(paddle.to_tensor(logits[part]), paddle.to_tensor(label[part][:, None]))
            meters.add(values, len(label[part]))
        meters.flush()
        return meters

    whole = measured(slice(0, 12)).averages()
    ranks = [measured(slice(0, shares[0])), measured(slice(shares[0], 12))]
    sent = [(list(meter._names), meter.state(), meter._whole()) for meter in ranks]
    monkeypatch.setattr(meters_module, "world_size", lambda: 2)
    monkeypatch.setattr(meters_module, "gather", lambda mine: sent)
    for meter in ranks:
        found = meter.averages(everywhere=True)
        assert list(found) == list(whole)
        assert found == pytest.approx(whole)

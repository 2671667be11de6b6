"""Images without labels: no loss that needs a label and no accuracy sees them; runs continue exactly."""

from __future__ import annotations

import copy
import json

import numpy as np
import paddle
import pytest
from support import distilled, slow_unless

from ppcls.cli import main
from ppcls.config import load_config
from ppcls.data.audit import check_data
from ppcls.engine import Engine
from ppcls.engine.hooks import Hook
from ppcls.engine.train import rows_of
from ppcls.errors import ConfigError, DataError
from ppcls.loss import build_loss
from ppcls.metric import build_metric
from ppcls.report.contact_sheet import contact_sheet
from ppcls.weights import read_params

PAIR = {"model_name_pairs": [["Student", "Teacher"]]}
NEED_LABELS = [
    {"DistillationGTCELoss": {"model_names": ["Student"]}},
    {"CELoss": {}},
    {"DistillationDKDLoss": PAIR},
    {"DistillationWSLLoss": PAIR},
    {"DistillationSKDLoss": PAIR},
]
LABEL_FREE = [
    {"DistillationDMLLoss": PAIR},
    {"DistillationKLDivLoss": PAIR},
    {"DistillationDISTLoss": PAIR},
    {"DistillationDKDLoss": {**PAIR, "use_target_as_gt": True}},
    {"DistillationSKDLoss": {**PAIR, "use_target_as_gt": True}},
    {"DistillationRKDLoss": {**PAIR, "student_keepkeys": ["logits"], "teacher_keepkeys": ["logits"]}},
    {"DistillationPairLoss": {**PAIR, "base_loss_name": "MGDLoss", "s_key": "map", "t_key": "map"}},
]
ROWS = [0, 2, 3]


@pytest.fixture
def outputs():
    rng = np.random.default_rng(0)

    def network():
        logits, feature = rng.normal(size=(7, 4)), rng.normal(size=(7, 3, 2, 2))
        return {
            "logits": paddle.to_tensor(logits.astype(np.float32)),
            "map": paddle.to_tensor(feature.astype(np.float32)),
        }

    return {"Student": network(), "Teacher": network()}


def values(node, outputs, label, known=None):
    loss = build_loss([node], main="Student", outputs=outputs)
    loss.eval()
    paddle.seed(1)
    for parameter in loss.parameters():
        parameter.set_value(paddle.rand(parameter.shape))
    return {name: float(value) for name, value in loss(outputs, label, known).items()}


@pytest.mark.parametrize("node", NEED_LABELS, ids=lambda node: next(iter(node)))
def test_losses_with_labels_see_the_labelled_rows_alone(outputs, node):
    label, rows = paddle.to_tensor([[1], [0], [3]]), paddle.to_tensor(ROWS)
    alone = {name: {k: v[ROWS] for k, v in out.items()} for name, out in outputs.items()}
    expected = values(node, alone, label)
    assert values(node, outputs, label, rows_of(outputs, rows)) == pytest.approx(expected, rel=1e-6)
    assert not build_loss([node], main="Student").uses_unlabelled


@pytest.mark.parametrize("node", LABEL_FREE, ids=lambda node: next(iter(node)))
def test_losses_without_labels_see_all_rows(outputs, node):
    label, rows = paddle.to_tensor([[1], [0], [3]]), paddle.to_tensor(ROWS)
    expected = values(node, outputs, None)
    assert values(node, outputs, label, rows_of(outputs, rows)) == expected
    assert build_loss([node], main="Student").uses_unlabelled


def test_a_class_map_serves_unlabelled_images(outputs, tmp_path):
    (tmp_path / "map.txt").write_text("0 3\n1 0\n")
    outputs["Student"]["logits"] = outputs["Student"]["logits"][:, :2]
    node = {"DistillationDMLLoss": {**PAIR, "class_map": str(tmp_path / "map.txt")}}
    mapped = copy.copy(outputs)
    mapped["Teacher"] = {"logits": outputs["Teacher"]["logits"].numpy()[:, [3, 0]]}
    mapped["Teacher"]["logits"] = paddle.to_tensor(mapped["Teacher"]["logits"])
    known = rows_of(outputs, paddle.to_tensor(ROWS))
    expected = values({"DistillationDMLLoss": PAIR}, mapped, None)
    assert values(node, outputs, paddle.to_tensor([[1], [0], [1]]), known) == pytest.approx(
        expected, rel=1e-6
    )


def test_accuracies_count_labelled_images(outputs):
    metric = build_metric([{"TopkAcc": {"topk": [1]}}], main="Student")
    logits = np.zeros((7, 4), np.float32)
    logits[ROWS, [1, 0, 2]] = 1.0  # two of the three labels are right
    known = rows_of({"Student": {"logits": paddle.to_tensor(logits)}}, paddle.to_tensor(ROWS))
    assert float(metric(known, paddle.to_tensor([[1], [0], [3]]))["top1"]) == pytest.approx(2 / 3)


def test_rows_of_lists_and_bare_logits():
    values = paddle.arange(12).reshape([4, 3])
    rows = paddle.to_tensor([3, 1])
    assert rows_of(values, rows).numpy().tolist() == [[9, 10, 11], [3, 4, 5]]
    nested = rows_of({"value": [values, values]}, rows)
    assert list(nested) == ["value"]
    assert [v.shape for v in nested["value"]] == [[2, 3], [2, 3]]


@pytest.fixture
def joined(recipe, image_folder):
    """A distillation recipe with labels, and with seven further images of which there are no labels."""
    lines = (image_folder / "train_list.txt").read_text().splitlines()
    (image_folder / "unlabelled.txt").write_text("".join(f"{line.split()[0]} 99\n" for line in lines[5:]))
    recipe = distilled(recipe, DistillationKLDivLoss=PAIR, DistillationGTCELoss={"model_names": ["Student"]})
    part = copy.deepcopy(recipe["DataLoader"]["Train"])
    part["dataset"]["cls_label_path"] = str(image_folder / "unlabelled.txt")
    part["sampler"]["batch_size"] = 3
    recipe["DataLoader"]["UnLabelTrain"] = part
    return recipe


class Watch(Hook):
    """Keep the batches; ask for the end of the run after some steps."""

    def __init__(self, stop_at=None):
        self.batches, self.stop_at = [], stop_at

    def after_step(self, run, batch):
        self.batches.append(batch)
        if run.progress.step == self.stop_at:
            run.stop_signal = 2


def train(path, hook, *overrides):
    return Engine(load_config(path, list(overrides)), "train").train(hooks=[hook])


@pytest.mark.parametrize("stop_at", slow_unless(lambda n: n == 3, [2, 3]))
def test_a_stopped_run_goes_on_exactly(joined, write_recipe, tmp_path, stop_at):
    path, whole = write_recipe(joined), Watch()
    train(path, whole, f"Global.output_dir={tmp_path}/whole")
    assert [len(b.index) for b in whole.batches] == [8, 8, 5] * 2
    unlabelled = [i for b in whole.batches for i in np.delete(b.index, b.labelled)]
    assert sorted(unlabelled[:7]) == list(range(12, 19))
    with pytest.raises(SystemExit):
        train(path, Watch(stop_at), f"Global.output_dir={tmp_path}/cut")
    train(
        path,
        Watch(),
        f"Global.output_dir={tmp_path}/cut",
        f"Global.checkpoints={tmp_path}/cut/DistillationModel/latest",
    )
    for suffix in (".pdparams", ".pdopt"):
        one, other = (
            read_params(tmp_path / folder / "DistillationModel" / f"latest{suffix}")
            for folder in ("whole", "cut")
        )
        for name, value in one.items():
            np.testing.assert_array_equal(value, other[name], err_msg=name)
    meters = [
        json.loads((tmp_path / folder / "DistillationModel/latest.pdstates").read_text())["best"]
        for folder in ("whole", "cut")
    ]
    assert meters[0] == meters[1]


def test_labels_of_the_second_list_change_nothing(joined, write_recipe, tmp_path, monkeypatch, image_folder):
    path = write_recipe(joined)
    train(path, Watch(), f"Global.output_dir={tmp_path}/one", "Global.epochs=1")
    text = (image_folder / "unlabelled.txt").read_text()
    (image_folder / "unlabelled.txt").write_text(text.replace(" 99", " 0"))
    train(path, Watch(), f"Global.output_dir={tmp_path}/two", "Global.epochs=1")
    rows = [
        [
            json.loads(line)
            for line in (tmp_path / f / "DistillationModel/metrics.jsonl").read_text().splitlines()
        ]
        for f in ("one", "two")
    ]
    for one, two in zip(*rows, strict=True):
        assert {k: v for k, v in one.items() if "cost" not in k} == {
            k: v for k, v in two.items() if "cost" not in k
        }


def test_a_list_without_effect_is_refused(joined, write_recipe, capsys):
    joined["Loss"]["Train"] = [{"DistillationGTCELoss": {"model_names": ["Student"]}}]
    joined["DataLoader"]["UnLabelTrain"]["sampler"]["drop_last"] = True
    assert main(["validate", "-c", str(write_recipe(joined))]) == 2
    told = capsys.readouterr()
    assert "DataLoader.UnLabelTrain: has no effect: all losses of Loss.Train need labels" in told.err
    assert "UnLabelTrain.sampler.drop_last: has no effect" in told.out


def test_mixing_of_unlabelled_images_goes_with_losses_of_hard_labels(joined, write_recipe):
    joined["Loss"]["Train"].append({"DistillationDKDLoss": PAIR})
    joined["DataLoader"]["UnLabelTrain"]["dataset"]["batch_transform_ops"] = [
        {"MixupOperator": {"alpha": 0.2}}
    ]
    load_config(write_recipe(joined))


@pytest.fixture
def without_labels(recipe, image_folder):
    """A recipe whose training images have no labels: its list has paths alone."""
    lines = (image_folder / "train_list.txt").read_text().splitlines()
    (image_folder / "paths.txt").write_text("".join(f"{line.split()[0]}\n" for line in lines))
    recipe = distilled(recipe, DistillationKLDivLoss=PAIR)
    recipe["Metric"]["Train"] = []
    data = recipe["DataLoader"]
    names = [f"class {number}" for number in range(recipe["Arch"]["class_num"])]
    data["Train"]["dataset"] |= {"cls_label_path": str(image_folder / "paths.txt"), "labelled": False}
    data["Eval"]["dataset"] |= {"class_names": names}
    return recipe


def test_training_needs_no_label_at_all(without_labels, write_recipe, tmp_path, image_folder):
    path = write_recipe(without_labels)
    mixup = 'DataLoader.Train.dataset.batch_transform_ops=[{"MixupOperator": {"alpha": 0.2}}]'
    for name in ("paths", "labels"):
        train(path, Watch(), f"Global.output_dir={tmp_path}/{name}", "Global.epochs=1", mixup)
        lines = (image_folder / "paths.txt").read_text().splitlines()
        (image_folder / "paths.txt").write_text("".join(f"{line} 99\n" for line in lines))
    runs = [tmp_path / name / "DistillationModel" for name in ("paths", "labels")]
    assert (runs[0] / "class_names.txt").read_text().startswith("0 class 0\n1 class 1\n")
    one, other = (read_params(run / "latest.pdparams") for run in runs)
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_what_needs_labels_is_refused_where_there_are_none(without_labels, write_recipe):
    data = without_labels["DataLoader"]
    data["Train"]["sampler"] = {"name": "ClassAwareSampler", "batch_size": 4}
    with pytest.raises(ConfigError, match="ClassAwareSampler chooses images by their labels"):
        train(write_recipe(without_labels), Watch())
    without_labels["Loss"]["Train"].append({"DistillationGTCELoss": {"model_names": ["Student"]}})
    without_labels["Metric"]["Train"] = without_labels["Metric"]["Eval"]
    data["Eval"]["dataset"]["labelled"] = False
    with pytest.raises(ConfigError) as caught:
        load_config(write_recipe(without_labels))
    text = str(caught.value)
    assert "Loss.Train.1: DistillationGTCELoss needs labels, but" in text
    assert "Metric.Train: DistillationTopkAcc needs labels, but" in text
    assert "DataLoader.Eval.dataset.labelled: False, but an evaluation compares" in text
    assert "DistillationKLDivLoss" not in text


@pytest.mark.parametrize(
    ("section", "entries"),
    [
        ("Loss", [{"A": {}, "B": {}}]),
        ("Loss", ["CELoss"]),
        ("Loss", 5),
        ("Metric", [5]),
        ("Metric", "TopkAcc"),
    ],
)
def test_a_list_with_mistakes_is_reported_once(without_labels, write_recipe, section, entries):
    without_labels[section]["Train"] = entries
    with pytest.raises(ConfigError, match=rf"1 mistake in .*\n  {section}\.Train.*: expected"):
        load_config(write_recipe(without_labels))


def test_shards_and_pictures_give_no_class_to_images_without_labels(
    without_labels, write_recipe, tmp_path, capsys
):
    path = write_recipe(without_labels)
    assert main(["shard", "-c", str(path), str(tmp_path / "shards")]) == 2
    assert "DataLoader.Train.dataset.labelled: False, but shards keep a label" in capsys.readouterr().err
    assert not (tmp_path / "shards").exists()
    found = check_data(load_config(path).DataLoader, without_labels["Arch"]["class_num"])
    titles = [block.title for block in contact_sheet(found)]
    assert any(": Eval " in title for title in titles)
    assert not any("Train " in title for title in titles)


def test_a_resumed_run_keeps_its_class_names(without_labels, write_recipe, tmp_path):
    output = f"Global.output_dir={tmp_path}"
    train(write_recipe(without_labels), Watch(), output, "Global.epochs=1")
    without_labels["DataLoader"]["Eval"]["dataset"]["class_names"].reverse()
    resumed = f"Global.checkpoints={tmp_path}/DistillationModel/latest"
    with pytest.raises(DataError, match="class 0 is class .*, but class 0 in training"):
        train(write_recipe(without_labels), Watch(), output, "Global.epochs=2", resumed)

"""What two processes say about a run is what one says: agreement, early stopping, reports."""

import json
from pathlib import Path

import numpy as np
import paddle
import pytest
from launching import together
from support import distilled

import ppcls
from ppcls.cli import main
from ppcls.config import load_config
from ppcls.data import build_loader
from ppcls.report.answers import FILES, read_answers
from ppcls.weights import read_params, write_params

WORKER = str(Path(__file__).parent / "watch_worker.py")
pytestmark = [pytest.mark.dist, pytest.mark.slow]


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def answers(config, network):
    """Return logits of all validation images in order, float64 [N, C], and labels."""
    network.eval()
    found = [
        (network(paddle.to_tensor(batch.image)).numpy().astype(np.float64), batch.label.reshape(-1))
        for batch in build_loader(config["DataLoader"]["Eval"], "Eval", seed=0, class_num=4).epoch(0)
    ]
    return tuple(np.concatenate(column) for column in zip(*found, strict=True))


def test_two_processes_watch_alike(recipe, write_recipe, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    pair = {"model_name_pairs": [["Student", "Teacher"]], "temperature": 4.0}
    recipe = distilled(recipe, DistillationKLDivLoss=pair, DistillationGTCELoss={"model_names": ["Other"]})
    recipe["Arch"]["models"].append({"Other": {"name": "resnet8"}})
    recipe["Arch"]["freeze_params_list"].append(False)
    recipe["Global"] |= {"epochs": 9, "print_batch_step": 2, "report": True}
    recipe["EarlyStopping"] = {"patience": 2, "min_delta": 5}
    recipe["DataLoader"]["Eval"]["dataset"]["cls_label_path"] = str(tmp_path / "odd.txt")
    lines = (tmp_path / "images/train_list.txt").read_text().splitlines()
    (tmp_path / "odd.txt").write_text("\n".join(lines[:11]))  # no two shares alike
    teacher = ppcls.create_model("resnet14", class_num=4)
    write_params(tmp_path / "teacher.pdparams", teacher.state_dict())
    recipe["Arch"]["models"][0]["Teacher"]["pretrained"] = str(tmp_path / "teacher.pdparams")
    path, folder = write_recipe(recipe), tmp_path / "output/DistillationModel"

    done = together(tmp_path, [WORKER, str(path), str(folder / "latest.pdparams"), str(tmp_path / "two")])
    assert done.returncode == 0, done.stdout + done.stderr

    states = json.loads((folder / "latest.pdstates").read_text())
    assert (states["finished"], states["epoch"], states["waited"]) == (True, 4, 2)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    student = ppcls.create_model("resnet8", class_num=4)
    saved = read_params(folder / "latest.pdparams")
    student.set_state_dict({k.removeprefix("Student."): paddle.to_tensor(v) for k, v in saved.items()})
    config = load_config(path)
    (s, label), (t, _) = answers(config, student), answers(config, teacher)
    student.set_state_dict({k.removeprefix("Other."): paddle.to_tensor(v) for k, v in saved.items()})
    other, _ = answers(config, student)
    assert rows[0]["kind"] == "teacher"
    assert rows[0]["top1_Teacher"] == pytest.approx((t.argmax(-1) == label).mean())
    last = rows[-1]
    assert (last["kind"], last["epoch"]) == ("eval", 3)
    assert last["agreement_Teacher"] == pytest.approx((s.argmax(-1) == t.argmax(-1)).mean(), abs=1e-6)
    assert last["kl_Teacher"] == pytest.approx(
        (softmax(t) * np.log(softmax(t) / softmax(s))).sum(-1).mean(), rel=1e-3
    )
    assert last["top1"] == pytest.approx((s.argmax(-1) == label).mean())
    assert last["top1_Other"] == pytest.approx((other.argmax(-1) == label).mean())
    agreement = (other.argmax(-1) == t.argmax(-1)).mean()
    assert last["agreement_Teacher_Other"] == pytest.approx(agreement, abs=1e-6)
    best = states["students"]["Other"]
    assert best["score"] == max(row["top1_Other"] for row in rows if row["kind"] == "eval")
    assert (folder / "best_model.Other.pdparams").exists()

    kept = read_answers(folder / FILES[False])
    assert kept.index.tolist() == list(range(11))
    assert kept.label.tolist() == label.tolist()
    assert kept.accuracy("Student") == pytest.approx(states["best"]["top1"])
    assert kept.agreement("Student", "Teacher") == pytest.approx(states["best"]["agreement_Teacher"])
    assert (folder / "report.html").exists()
    assert " samples/s (2 processes)" in (folder / "train.log").read_text()

    weights = f"Global.pretrained_model={folder / 'latest.pdparams'}"
    assert main(["eval", "-c", str(path), "-o", weights, "--report", str(tmp_path / "one")]) == 0
    for name in ("per_class.csv", "averages.csv", "confusion_matrix.csv", "confused_pairs.csv"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
    wrong = [sorted(x.split(",")[0] for x in (tmp_path / d / "misclassified.csv").read_text().splitlines())
             for d in ("one", "two")]  # fmt: skip
    assert wrong[0] == wrong[1]
    assert len(wrong[0]) == 1 + (s.argmax(-1) != label).sum()

"""Folders of runs as the engine writes them, made without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ppcls.report.answers import FILES, Answer, Answers, write_answers
from ppcls.run_states import Progress, encode_states

LIST = {"name": "val_list.txt", "count": 60, "digest": "abc"}
PAIR = {
    "name": "DistillationModel",
    "class_num": 4,
    "freeze_params_list": [True, False],
    "models": [{"Teacher": {"name": "resnet14", "pretrained": "teacher"}}, {"Student": {"name": "resnet8"}}],
}
KD = [{"DistillationKLDivLoss": {"weight": 1.0, "model_name_pairs": [["Student", "Teacher"]]}}]


def write_run(
    folder: Path,
    *,
    arch: dict[str, Any] | None = None,
    losses: list[Any] | None = None,
    seed: int = 1,
    top1: float = 0.8,
    epochs: int = 4,
    done: int | None = None,
    digest: str = "abc",
    environment: dict[str, Any] | None = None,
    names: list[str] | None = None,
) -> Path:
    """Write the folder of a run of `epochs` epochs of ten steps, of which `done` are finished."""
    folder.mkdir(parents=True)
    arch = PAIR if arch is None else arch
    taught = "models" in arch
    done = epochs if done is None else done
    config = {
        "Global": {
            "epochs": epochs,
            "seed": seed,
            "output_dir": str(folder.parent),
            "eval_during_train": True,
        },
        "Arch": arch,
        "Loss": {"Train": losses or (KD if taught else [{"CELoss": {"weight": 1.0}}])},
        "Optimizer": {"name": "Momentum", "momentum": 0.9, "lr": {"name": "Cosine", "learning_rate": 0.1}},
        "DataLoader": {
            part: {
                "dataset": {"name": "ImageNetDataset", "cls_label_path": f"{part.lower()}_list.txt"},
                "sampler": {"name": "DistributedBatchSampler", "batch_size": 8},
            }
            for part in ("Train", "Eval")
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    (folder / "environment.json").write_text(
        json.dumps(
            {"paddle": "3.3", "device": "cpu", "command": ["/x/ppcls", "train", "-c", "a b.yaml"]}
            | (environment or {})
        ),
        encoding="utf-8",
    )
    if names is not None:
        (folder / "class_names.txt").write_text("".join(f"{i} {n}\n" for i, n in enumerate(names)), "utf-8")
    rows: list[dict[str, Any]] = []
    if taught:
        rows.append({"kind": "teacher", "epoch": 0, "step": 0, "top1_Teacher": 0.9})
    for epoch in range(1, done + 1):
        share = epoch / epochs
        common = {"epoch": epoch, "step": epoch * 10}
        rows.append({"kind": "train", **common, "loss": 2 - share, "lr": 0.1, "batch_cost": 0.5})
        value = {"loss": 1.5 - share, "top1": top1 * share}
        rows.append({"kind": "eval", **common, **value, **({"agreement_Teacher": 0.7} if taught else {})})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    best = {k: v for k, v in rows[-1].items() if k not in ("kind", "epoch", "step")} if done else {}
    progress = Progress(
        epoch=done + 1,
        step=done * 10,
        best=best,
        best_score=best.get("top1"),
        best_epoch=done or None,
        best_by="top1 of Student",
        finished=done == epochs,
        seed=seed,
        lists={
            f"DataLoader.{part}.dataset": LIST | {"digest": digest} for part in ("Train", "Eval") if digest
        },
    )
    files = {suffix: {"size": 0, "crc32": 0} for suffix in (".pdparams", ".pdopt")}
    (folder / "latest.pdstates").write_bytes(encode_states(progress, files))
    return folder


def write_some_answers(
    folder: Path, classes: int = 4, images: int = 60, networks: tuple[str, ...] = ("Teacher", "Student")
) -> Answers:
    """Write answers that are right for two images of three."""
    rng = np.random.default_rng(0)
    label = np.sort(rng.integers(0, classes, images))
    found = {}
    for name in networks:
        predicted = np.where(rng.random(images) < 2 / 3, label, rng.integers(0, classes, images))
        found[name] = Answer(predicted, rng.random(images), rng.random(images))
    answers = Answers(4, classes, np.arange(images), label, found)
    write_answers(folder / FILES[False], answers)
    return answers

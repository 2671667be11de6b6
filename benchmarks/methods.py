"""What each distillation method brings on real images: one teacher, one student, the same data and steps.

Fashion-MNIST as embedded (1,000 labelled images), the shipped teacher, three seeds a method. Hyper-parameters
are those of the method's recipes under configs/cifar; what is given over epochs there is given as the same
share of the run here. Nothing was tuned on the images of the evaluation; `tune` chose alpha_mgd on others.

    python benchmarks/methods.py run [--seeds 0 1 2] [--jobs 2] [--methods kd dkd]   # resumable
    python benchmarks/methods.py tune     # candidates on held-out training images
    python benchmarks/methods.py time     # step times, all methods in turn in one process
    python benchmarks/methods.py table    # writes docs/results_methods.md and .png

Results are appended to docs/results_methods.jsonl, a line a run; the table and the picture are made from it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results_methods.jsonl"
TIMES = ROOT / "docs" / "results_methods_time.json"
BASE = ROOT / "configs" / "quick_start" / "fashion_mnist_kd.yaml"
TUNED = ROOT / "docs" / "results_methods_tuning.jsonl"
EPOCHS = 33
T_STAGES, S_STAGES = [1, 3, 5], [0, 1, 2]  # last blocks of the stages of resnet14 and resnet8
PAIR = [["Student", "Teacher"]]
CE: dict[str, Any] = {"DistillationGTCELoss": {"weight": 1.0, "model_names": ["Student"]}}


def _pair(loss: str, weight: Any = 1.0, **options: Any) -> dict[str, Any]:
    return {loss: {"weight": weight, "model_name_pairs": PAIR, **options}}


def _taps(descriptor: str, stages: list[int]) -> list[str]:
    return [descriptor.format(index) for index in stages]


def _afd() -> dict[str, Any]:
    """The networks of AFD: backbones followed by transforms of their features; shapes are found."""
    t_keys, s_keys = [f"blocks[{i}]" for i in range(6)], [f"blocks[{i}]" for i in range(3)]
    return {
        "freeze_params_list": None,
        "models": {
            "Teacher": {
                "name": "AttentionModel",
                "freeze_params_list": [True, False],
                "models": [
                    {"net": {"return_patterns": t_keys}},
                    {"transform": {"name": "LinearTransformTeacher", "qk_dim": 128, "keys": t_keys}},
                ],
            },
            "Student": {
                "name": "AttentionModel",
                "models": [
                    {"net": {"return_patterns": s_keys}},
                    {"transform": {"name": "LinearTransformStudent", "qk_dim": 128, "keys": s_keys}},
                ],
            },
        },
    }


PEERS: dict[str, Any] = {"DistillationGTCELoss": {"weight": 1.0, "model_names": ["Student", "Teacher"]}}
LAST = f"blocks[{T_STAGES[-1]}]", f"blocks[{S_STAGES[-1]}]"
ADDS = _taps("blocks[{}].add", T_STAGES), _taps("blocks[{}].add", S_STAGES)
KD4 = _pair("DistillationKLDivLoss", 0.9, temperature=4, key="logits")
# For each method its losses, the layers it looks at and what else differs from KD.
METHODS: dict[str, dict[str, Any]] = {
    "baseline": {"losses": [CE]},
    "KD": {
        "losses": [
            {"DistillationGTCELoss": {"weight": 0.1, "model_names": ["Student"]}},
            _pair("DistillationKLDivLoss", 0.9, temperature=4),
        ]
    },
    "SSLD": {"losses": [_pair("DistillationDMLLoss")]},
    "DML": {"losses": [PEERS, _pair("DistillationDMLLoss")], "peer": True},
    "UDML": {
        "losses": [
            {"DistillationGTCELoss": {**PEERS["DistillationGTCELoss"], "key": "logits"}},
            _pair("DistillationDMLLoss", key="logits"),
            _pair("DistillationDistanceLoss", key=LAST[1]),
        ],
        "peer": True,
        "twin": True,
        "taps": ([LAST[1]], [LAST[1]]),
    },
    "AFD": {
        "losses": [
            {"DistillationGTCELoss": {**CE["DistillationGTCELoss"], "key": "logits"}},
            KD4,
            {
                "AFDLoss": {
                    "weight": 200.0,
                    "model_name_pair": PAIR[0],
                    "student_keys": ["bilinear_key", "value"],
                    "teacher_keys": ["query", "value"],
                }
            },
        ],
        "arch": _afd(),
    },
    "DKD": {
        "losses": [
            CE,
            _pair(
                "DistillationDKDLoss",
                {"name": "LinearWarmup", "value": 1.0, "epochs": round(EPOCHS * 20 / 240)},
                temperature=4,
                alpha=1.0,
                beta=2.0,
            ),
        ]
    },
    "DIST": {"losses": [CE, _pair("DistillationDISTLoss", 2.0, tau=4.0)]},
    "MGD": {
        "losses": [
            CE,
            {
                "DistillationPairLoss": {
                    "weight": 1.0,
                    "base_loss_name": "MGDLoss",
                    "model_name_pairs": PAIR,
                    "s_key": LAST[1],
                    "t_key": LAST[0],
                    "name": "loss_mgd",
                    "alpha_mgd": 0.5,  # by `tune`; the authors' 7e-5 * C * H * W would be 0.112
                }
            },
        ],
        "taps": ([LAST[0]], [LAST[1]]),
    },
    "WSL": {"losses": [CE, _pair("DistillationWSLLoss", 2.25, temperature=4)]},
    "SKD": {
        "losses": [_pair("DistillationSKDLoss", temperature=4.0, multiplier=2.0, alpha=0.9)],
    },
    "PEFD": {
        "losses": [
            CE,
            {
                "DistillationPairLoss": {
                    "weight": 25.0,
                    "base_loss_name": "PEFDLoss",
                    "model_name_pairs": PAIR,
                    "s_key": "flatten",
                    "t_key": "flatten",
                    "name": "loss_pefd",
                }
            },
        ],
        "taps": (["flatten"], ["flatten"]),
    },
    "RKD": {
        "losses": [
            CE,
            _pair(
                "DistillationRKDLoss",
                student_keepkeys=["flatten"],
                teacher_keepkeys=["flatten"],
                distance_weight=25.0,
                angle_weight=50.0,
            ),
        ],
        "taps": (["flatten"], ["flatten"]),
    },
    "OverHaul": {
        "losses": [
            CE,
            {
                "OFDLoss": {
                    "weight": 1.0,
                    "model_name_pair": PAIR[0],
                    "student_keys": ADDS[1],
                    "teacher_keys": ADDS[0],
                    "teacher_bns": _taps("blocks[{}].conv1.bn", T_STAGES),
                    "divisor": 1000,
                }
            },
        ],
        "taps": ADDS,
        "train_mode": True,
    },
}


# What is tried for methods that did not help as their recipes are, on held-out training images.
_ALPHA = "Loss.Train.1.DistillationPairLoss.alpha_mgd"
TUNING = {
    "baseline": ["Global.seed=0"],
    "MGD": [f"{_ALPHA}={alpha}" for alpha in (0.01, 0.112, 0.5, 2.0, 8.0)],
}


def recipe(name: str, base: dict[str, Any]) -> dict[str, Any]:
    """Return what the recipe of `name` changes in the KD recipe of the demo, whose networks are kept.

    Args:
        name: a key of :data:`METHODS`.
        base: the resolved KD recipe.
    """
    method = METHODS[name]
    nodes = {key: dict(node) for entry in base["Arch"]["models"] for key, node in entry.items()}
    teacher, student = nodes["Teacher"], nodes["Student"]
    if method.get("peer"):
        teacher = {**(student if method.get("twin") else teacher), "pretrained": False}
    for node, taps in zip((teacher, student), method.get("taps", ([], [])), strict=True):
        if taps:
            node["return_patterns"] = taps
    frozen: Any = [False, False] if method.get("peer") else [True, False]
    models: dict[str, Any] = {"Teacher": teacher, "Student": student}
    if "arch" in method:
        frozen = method["arch"]["freeze_params_list"]
        for key, chain in method["arch"]["models"].items():
            inner = [dict(entry) for entry in chain["models"]]
            inner[0] = {"net": {**models[key], **inner[0]["net"]}}
            models[key] = {**chain, "models": inner}
    arch: dict[str, Any] = {
        "freeze_params_list": frozen,
        "models": [{key: node} for key, node in models.items()],
    }
    if method.get("train_mode"):
        arch["frozen_mode"] = {"Teacher": "train"}
    if name == "baseline":  # the student alone, so that its time is a student's time
        arch = {"freeze_params_list": [False], "models": [{"Student": student}]}
    return {
        "_base_": str(BASE),
        "Global": {"epochs": EPOCHS, "eval_interval": EPOCHS, "print_batch_step": 1000},
        "Arch": arch,
        "Loss": {"Train": method["losses"]},
    }


def _write_recipe(name: str, folder: Path) -> Path:
    from ppcls.config import load_config, plain

    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe(name, plain(load_config(BASE))), sort_keys=False))
    return path


def _done() -> set[tuple[str, int]]:
    if not RESULTS.exists():
        return set()
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    return {(row["method"], row["seed"]) for row in rows}


def _train(path: Path, name: str, seed: int, folder: Path, options: Sequence[str] = ()) -> dict[str, Any]:
    output = Path(tempfile.mkdtemp(dir=folder))
    settings = [f"Global.seed={seed}", f"Global.output_dir={output}", "Global.device=cpu", *options]
    command = [sys.executable, "-m", "ppcls", "train", "-c", str(path)]
    for setting in settings:
        command += ["-o", setting]
    begin = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    rows = [
        json.loads(line) for file in output.rglob("metrics.jsonl") for line in file.read_text().splitlines()
    ]
    last = [row for row in rows if row["kind"] == "eval"][-1]
    return {
        "method": name,
        "seed": seed,
        "top1": last["top1"],
        "steps": last["step"],
        "seconds": round(time.perf_counter() - begin, 1),
    }


def _unpack() -> None:
    subprocess.run([sys.executable, str(ROOT / "dataset" / "unpack.py")], check=True)


def run(names: list[str], seeds: list[int], jobs: int) -> None:
    """Train what is not in the results yet, `jobs` runs at a time."""
    _unpack()
    todo = [(name, seed) for seed in seeds for name in names if (name, seed) not in _done()]
    with (
        tempfile.TemporaryDirectory() as temporary,
        concurrent.futures.ThreadPoolExecutor(jobs) as pool,
    ):
        folder = Path(temporary)
        paths = {name: _write_recipe(name, folder) for name in names}
        futures = [pool.submit(_train, paths[name], name, seed, folder) for name, seed in todo]
        for number, future in enumerate(concurrent.futures.as_completed(futures), 1):
            row = future.result()
            with RESULTS.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            print(f"{number}/{len(todo)}  {row}", flush=True)


def tune(names: list[str], jobs: int) -> None:
    """Train with every candidate of `TUNING`, evaluated on training images that no list of a run holds."""
    full = ROOT / "dataset" / "fashion_mnist_full"
    if not full.is_dir():
        raise SystemExit(f"{full} is missing: run python dataset/prepare_fashion_mnist.py first")
    held_out = [
        f"DataLoader.Eval.dataset.image_root={full}",
        f"DataLoader.Eval.dataset.cls_label_path={full / 'tune_list.txt'}",
    ]
    _unpack()
    jobs_to_do = [(name, value) for name in names for value in TUNING.get(name, [])]
    with (
        tempfile.TemporaryDirectory() as temporary,
        concurrent.futures.ThreadPoolExecutor(jobs) as pool,
    ):
        folder = Path(temporary)
        futures = {
            pool.submit(_train, _write_recipe(name, folder), name, 0, folder, [value, *held_out]): value
            for name, value in jobs_to_do
        }
        for future in concurrent.futures.as_completed(futures):
            row = {**future.result(), "option": futures[future]}
            with TUNED.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            print(row, flush=True)


def measure_times(names: list[str], steps: int) -> None:
    """Time training steps of every method in turn in one process, and the teacher's forward pass alone."""
    import paddle

    from ppcls.config import load_config
    from ppcls.engine import Engine
    from ppcls.engine.train import train_step
    from ppcls.logger import setup_logging

    _unpack()
    setup_logging(quiet=True)
    with tempfile.TemporaryDirectory() as temporary:
        runs: dict[str, Any] = {}
        for name in names:
            options = ["Global.device=cpu", f"Global.output_dir={temporary}/{name}", "Global.seed=0"]
            engine = Engine(load_config(_write_recipe(name, Path(temporary)), options))
            runs[name] = engine.build_run()
            runs[name].parts.model.train()
        batch = next(iter(runs[names[0]].parts.loader.epoch(1)))
        times: dict[str, list[float]] = {name: [] for name in names}
        teacher_times: dict[str, list[float]] = {name: [] for name in names}
        for number in range(steps + 3):
            for name, item in runs.items():
                begin = time.perf_counter()
                train_step(item, batch)
                item.read()
                middle = time.perf_counter()
                model = item.parts.model
                if "Teacher" in model.names and "Teacher" in model.frozen:
                    with paddle.no_grad():
                        model.network("Teacher")(paddle.to_tensor(batch.image))
                end = time.perf_counter()
                if number >= 3:  # the first steps set things up
                    times[name].append((middle - begin) * 1000)
                    teacher_times[name].append((end - middle) * 1000)
    table = {
        name: {
            "step_ms": round(statistics.median(times[name]), 1),
            "teacher_ms": round(statistics.median(teacher_times[name]), 1),
        }
        for name in names
    }
    TIMES.write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(table, indent=1))


def table() -> None:
    """Print the table; write it, its picture and the measured row of every method's page."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    times = json.loads(TIMES.read_text()) if TIMES.exists() else {}
    top1: dict[str, dict[int, float]] = {}
    for row in rows:
        top1.setdefault(row["method"], {})[row["seed"]] = row["top1"] * 100
    base = top1["baseline"]
    lines = [
        "| method | top-1 % (mean ± std) | gain, seed by seed | runs | ms a step | teacher's share |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    values = {name: [top1[name][seed] for seed in sorted(top1[name])] for name in METHODS if name in top1}
    for name, found in values.items():
        gains = [top1[name][seed] - base[seed] for seed in sorted(top1[name]) if seed in base]
        cost = times.get(name, {})
        share = f"{cost['teacher_ms'] / cost['step_ms']:.0%}" if cost.get("teacher_ms", 0) > 0.05 else "-"
        gain = "-" if name == "baseline" else _spread(gains, "+")
        lines.append(
            f"| {name} | {_spread(found)} | {gain} | {len(found)} | {cost.get('step_ms', '-')} | {share} |"
        )
        if name != "baseline":
            _write_page(name, f"{_spread(values['baseline'])} → {_spread(found)}", len(found))
    text = "\n".join(lines)
    print(text)
    (ROOT / "docs" / "results_methods.md").write_text(_HEADER + text + "\n\n![gains](results_methods.png)\n")
    _draw({name: (statistics.mean(found), _std(found)) for name, found in values.items()})


def _write_page(name: str, change: str, seeds: int) -> None:
    """Write the row of the table under "measured" in a method's two pages."""
    stem = {"OverHaul": "ofd"}.get(name, name.lower())
    for suffix, heading, setting in (
        ("", "Measured here", "Fashion-MNIST, 1,000 labels"),
        ("_zh", "本项目实测", "Fashion-MNIST,1,000 张有标签图像"),
    ):
        page = ROOT / "docs" / "methods" / f"{stem}{suffix}.md"
        lines = page.read_text(encoding="utf-8").split("\n")
        place = lines.index(f"## {heading}") + 4  # behind a blank line and the table's two lines of heading
        lines[place] = f"| [{setting}, resnet14 → resnet8](../results_methods.md) | {change} | {seeds} |"
        page.write_text("\n".join(lines), encoding="utf-8")


def _spread(values: list[float], sign: str = "") -> str:
    return f"{statistics.mean(values):{sign}.2f} ± {_std(values):.2f}"


_HEADER = """# Every method on the same real images

Made by `python benchmarks/methods.py run`, then `time`, then `table`; every run is a line of
`results_methods.jsonl`.
"""


def _std(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _draw(summary: dict[str, tuple[float, float]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = sorted(summary, key=lambda name: summary[name][0])
    means, stds = [summary[n][0] for n in names], [summary[n][1] for n in names]
    figure, axes = pyplot.subplots(figsize=(8, 5))
    colours = ["0.6" if name == "baseline" else "tab:blue" for name in names]
    axes.barh(names, means, xerr=stds, color=colours, capsize=3)
    axes.axvline(summary["baseline"][0], color="0.3", linestyle="--", linewidth=1)
    axes.set_xlim(min(means) - 3, max(means) + 1.5)
    axes.set_xlabel("top-1 %, mean and standard deviation over seeds")
    axes.set_title("resnet8 taught by resnet14, 1,000 labelled images of Fashion-MNIST")
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "results_methods.png", dpi=110)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["run", "tune", "time", "table"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30, help="steps to time")
    args = parser.parse_args()
    if args.command == "run":
        run(args.methods, args.seeds, args.jobs)
    elif args.command == "tune":
        tune(args.methods, args.jobs)
    elif args.command == "time":
        measure_times(args.methods, args.steps)
    else:
        table()


if __name__ == "__main__":
    main()

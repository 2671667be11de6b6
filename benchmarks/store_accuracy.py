"""What the student loses if it learns from stored outputs of the teacher instead of the teacher itself.

KD on Fashion-MNIST as embedded (the recipe of the demo, 33 epochs, 1,000 labels): a live teacher, stores of
1 to 30 views, and stores of some of the classes, three seeds each. A store belongs to a seed, so each run
fills its own while it trains.

    python benchmarks/store_accuracy.py run [--seeds 1 2 3] [--jobs 2]   # resumable
    python benchmarks/store_accuracy.py table

Results are appended to docs/results_store.jsonl, one line per run; the table in docs/teacher_store.md is made
from it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from evidence.marks import fill
from evidence.settings import ROOT
from evidence.statistics import deviation, mean

BASE = ROOT / "configs" / "quick_start" / "fashion_mnist_kd.yaml"
RESULTS = ROOT / "docs" / "results_store.jsonl"
PAGE = ROOT / "docs" / "teacher_store.md"
LIVE = "the teacher itself"
_TEMPERATURE = "Loss.Train.1.DistillationKLDivLoss.temperature"
_TOPK = {"views": 30, "logits": "topk", "k": 3}
_SAMPLE = {"views": 30, "logits": "sample", "k": 3}
# The section TeacherStore of each run, by temperature and name.
RUNS: dict[tuple[int, str], dict[str, Any]] = {
    (4, LIVE): {},
    (4, "a store of 1 view"): {"views": 1},
    **{(4, f"a store of {views} views"): {"views": views} for views in (3, 10, 30)},
    (4, "topk, k 3, 30 views"): _TOPK,
    (1, LIVE): {},
    (1, "topk, k 3, 30 views"): _TOPK,
    (1, "sample, k 3, 30 views"): _SAMPLE,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["run", "table"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    if args.action == "run":
        run(args.seeds, args.jobs)
    table()


def run(seeds: list[int], jobs: int) -> None:
    """Train what is not in the results yet, `jobs` runs at a time."""
    subprocess.run([sys.executable, str(ROOT / "dataset" / "unpack.py")], check=True)
    done = {(row["temperature"], row["method"], row["seed"]) for row in _rows()}
    todo = [(*key, seed) for seed in seeds for key in RUNS if (*key, seed) not in done]
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(_train_one, *key, Path(folder)): key[0] for key in todo}
        for number, future in enumerate(concurrent.futures.as_completed(futures), 1):
            row = {"temperature": futures[future], **future.result()}
            with RESULTS.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            print(f"{number}/{len(todo)}  {row}", flush=True)


def _train_one(temperature: int, name: str, seed: int, folder: Path) -> dict[str, Any]:
    options = [f"{_TEMPERATURE}={temperature}", "Global.report=False"]
    store = RUNS[temperature, name]
    if store:
        path = tempfile.mkdtemp(dir=folder)
        options += [f"TeacherStore.{key}={value}" for key, value in {"path": path, **store}.items()]
    return _train(name, seed, folder, options)


def _train(name: str, seed: int, folder: Path, options: list[str]) -> dict[str, Any]:
    output = Path(tempfile.mkdtemp(dir=folder))
    command = [sys.executable, "-m", "ppcls", "train", "-c", str(BASE)]
    for setting in [f"Global.seed={seed}", f"Global.output_dir={output}", "Global.device=cpu", *options]:
        command += ["-o", setting]
    begin = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    (log,) = output.rglob("metrics.jsonl")
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "eval"][-1]
    return {
        "method": name,
        "seed": seed,
        "top1": last["top1"],
        "steps": last["step"],
        "seconds": round(time.perf_counter() - begin, 1),
    }


def _spread(values: list[float], sign: str = "") -> str:
    return f"{mean(values):{sign}.2f} ± {deviation(values):.2f}"


def _rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def table() -> None:
    """Print the table, and write it into the page about stores."""
    top1: dict[tuple[int, str], dict[int, float]] = defaultdict(dict)
    for row in _rows():
        top1[row["temperature"], row["method"]][row["seed"]] = row["top1"] * 100
    lines = [
        "| temperature | the student learns from | top-1 % (mean ± std) | difference, seed by seed | seeds |",
        "| ---: | --- | ---: | ---: | --- |",
    ]
    for temperature, name in RUNS:
        found = dict(sorted(top1[temperature, name].items()))
        live = top1[temperature, LIVE]
        changes = [value - live[seed] for seed, value in found.items() if seed in live]
        change = "" if name == LIVE else _spread(changes, "+")
        values = ", ".join(f"{value:.2f}" for value in found.values())
        lines.append(f"| {temperature} | {name} | {_spread(list(found.values()))} | {change} | {values} |")
    text = "\n".join(lines)
    print(text)
    PAGE.write_text(fill(PAGE.read_text("utf-8"), "store accuracy", text), "utf-8")


if __name__ == "__main__":
    main()

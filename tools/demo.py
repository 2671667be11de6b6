"""Show on real images, on a CPU and in minutes, that a distilled student is the better student.

    python tools/demo.py [--output output/demo] [--seed 1]

A teacher that is shipped with the repository, and one small student trained three times with the same number
of steps: from 1,000 labels alone, from the labels and the teacher (KD), and from the teacher alone with
10,000 more images that have no labels (SSLD). The best one is exported and used. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ["OMP_NUM_THREADS"] = (
    "1"  # two trainings at a time gain more than two threads; read by Paddle on import
)
os.environ.setdefault("GLOG_minloglevel", "2")
warnings.filterwarnings("ignore", message="No ccache found")  # Paddle speaks of compilers to everyone

from PIL import Image, ImageDraw, ImageFont  # noqa: E402

from ppcls.arch import build_model  # noqa: E402
from ppcls.config import load_config  # noqa: E402
from ppcls.deploy import Predictor  # noqa: E402
from ppcls.engine import Engine  # noqa: E402
from ppcls.errors import PpclsError  # noqa: E402
from ppcls.files import write_atomic  # noqa: E402
from ppcls.report import write_comparison, write_report  # noqa: E402

DATA = ROOT / "dataset/fashion_mnist"
TEACHER = ROOT / "dataset/fashion_mnist_teacher.pdparams"
STUDENTS = ("kd", "ssld", "student")  # the longest first, so that two processes finish together
TITLES = {
    "teacher": "teacher",
    "student": "student, 1,000 labels (baseline)",
    "kd": "student, labels + teacher (KD)",
    "ssld": "student, teacher + 10,000 unlabelled (SSLD)",
}
KEYS = {"teacher": "teacher", "student": "baseline", "kd": "kd", "ssld": "ssld"}


def recipe(name: str) -> str:
    """Return the path of one of the four recipes."""
    return str(ROOT / f"configs/quick_start/fashion_mnist_{name}.yaml")


def weights(name: str, folder: Path) -> Path:
    """Return the path, without suffix, of the weights of a network of the demo."""
    if name == "teacher":
        return TEACHER.with_suffix("")
    return folder / name / ("resnet8" if name == "student" else "DistillationModel") / "best_model"


def unpack() -> None:
    """Make ``dataset/fashion_mnist/``, unless it is there."""
    subprocess.run([sys.executable, str(ROOT / "dataset/unpack.py")], check=True)


# ---------------------------------------------------------------------- training


def train(name: str, folder: Path, seed: int, silent: bool = True) -> dict[str, float]:
    """Train one recipe below `folder`; returns the metrics of the evaluation after the last epoch.

    Args:
        name: ``student``, ``kd`` or ``ssld``.
        folder: receives ``<name>/<Arch.name>/`` with checkpoints, ``train.log`` and ``metrics.jsonl``.
        seed: of weights, order and augmentation.
        silent: print nothing, for a process of its own; the log file has it all.
    """
    if silent:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 -- for the rest of the process
    overrides = [f"Global.output_dir={folder / name}", f"Global.seed={seed}", "Global.device=cpu"]
    return Engine(load_config(recipe(name), overrides, "train"), "train").train()


def train_all(jobs: Iterable[tuple[str, Path, int]]) -> list[dict[str, float]]:
    """Run :func:`train` for each (name, folder, seed), two at a time; prints how far they are.

    Returns:
        the metrics, in the order of the jobs.
    """
    listed = list(jobs)
    for name, folder, _ in listed:
        shutil.rmtree(folder / name, ignore_errors=True)  # an earlier demo's
    workers = min(2, os.cpu_count() or 1, len(listed))
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(train, *job) for job in listed]
        try:
            watch(futures, listed)
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def watch(futures: Sequence[Future[Any]], jobs: Sequence[tuple[str, Path, int]], every: float = 15) -> None:
    """Print how far the running jobs are, and what each reached, until all are done or one has failed."""
    labels = {
        future: f"{KEYS[name]} (seed {seed})" for future, (name, _, seed) in zip(futures, jobs, strict=True)
    }
    folders = {future: folder / name for future, (name, folder, _) in zip(futures, jobs, strict=True)}
    pending: set[Future[Any]] = set(futures)
    while pending:
        done, pending = wait(pending, timeout=every, return_when=FIRST_COMPLETED)
        if any(future.exception() for future in done):
            return
        for future in done:
            print(f"   {labels[future]}: {future.result()['top1']:.2%}", flush=True)
        steps = {labels[f]: steps_done(folders[f]) for f in futures if f in pending}
        running = [f"{label} step {step}" for label, step in steps.items() if step]
        if not done and running:
            print("   " + ", ".join(running), flush=True)


def steps_done(folder: Path) -> int:
    """Return the step of the last line of a run's ``metrics.jsonl``; 0 before there is one."""
    file = next(folder.glob("*/metrics.jsonl"), None)
    lines = file.read_text(encoding="utf-8").splitlines() if file else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


# ---------------------------------------------------------------------- after training


def evaluate(name: str, folder: Path) -> float:
    """Return the accuracy of a network on the validation part."""
    overrides = [
        f"Global.pretrained_model={weights(name, folder)}",
        f"Global.output_dir={folder / name}",
        f"DataLoader.Eval.dataset.image_root={DATA}",
        f"DataLoader.Eval.dataset.cls_label_path={DATA / 'val_list.txt'}",
        "Global.device=cpu",
    ]
    return float(Engine(load_config(recipe(name), overrides, "eval"), "eval").eval()["top1"])


def export(name: str, folder: Path) -> Path:
    """Export a network for deployment, which checks what it wrote; returns the folder."""
    target = folder / f"inference_{KEYS[name]}"
    overrides = [
        f"Global.pretrained_model={weights(name, folder)}",
        f"Global.save_inference_dir={target}",
        "Global.export_format=paddle",
        "Global.device=cpu",
    ]
    Engine(load_config(recipe(name), overrides, "export"), "export").export()
    return target


def count_parameters(name: str) -> int:
    """Return how many trained numbers the network of a recipe has (a pair's student)."""
    overrides = [] if name in ("teacher", "student") else ["Arch.models.0.Teacher.pretrained=False"]
    arch = load_config(recipe(name), overrides, "train")["Arch"]
    return sum(p.size for p in build_model(arch).parameters() if not p.stop_gradient)


def print_table(accuracy: Mapping[str, float]) -> None:
    """Print network, parameters, accuracy and gain over the baseline."""
    print(f"{'network':46s} {'parameters':>10s} {'accuracy':>9s} {'gain':>7s}")
    for name, title in TITLES.items():
        gain = (
            "" if name in ("teacher", "student") else f"{(accuracy[name] - accuracy['student']) * 100:+.2f}"
        )
        print(f"{title:46s} {count_parameters(name):>10,d} {accuracy[name] * 100:>8.2f}% {gain:>7s}")


# ---------------------------------------------------------------------- contact sheet


def contact_sheet(
    truths: Mapping[str, int],
    predictions: Mapping[str, Sequence[Mapping[str, Any]]],
    names: Sequence[str],
    path: Path,
) -> None:
    """Draw twenty images with what three networks say about them.

    The upper rows show the first image of each class; the lower ones the first ten images of the list on
    which baseline and student disagree, whoever is right.

    Args:
        truths: class of each file, in the order of `predictions`.
        predictions: results of a :class:`~ppcls.deploy.Predictor` for all files, by network; the baseline is
            the second, the student the third.
        names: names of the classes.
        path: PNG file to write.
    """
    files, labels = list(truths), list(truths.values())
    _, baseline, student = ([row["class_ids"][0] for row in rows] for rows in predictions.values())
    firsts = [labels.index(label) for label in range(len(names))]
    differ = [i for i, (a, b) in enumerate(zip(baseline, student, strict=True)) if a != b]
    won = sum(student[i] == labels[i] for i in differ)
    lost = sum(baseline[i] == labels[i] for i in differ)
    note = (
        f"Of {len(files)} it is {len(differ)}: the student is right on {won}, the baseline on {lost}, "
        f"neither on {len(differ) - won - lost}."
    )
    width, height, margin, head = 236, 196, 16, 40
    sheet = Image.new("RGB", (margin + 5 * width, 4 * height + 2 * head + margin), "white")
    draw = ImageDraw.Draw(sheet)
    blocks = [
        ("The first validation image of each class", firsts),
        (f"The first images on which baseline and distilled student disagree. {note}", differ[:10]),
    ]
    for block, (title, indices) in enumerate(blocks):
        top = block * (2 * height + head)
        draw.text((margin, top + 12), title, fill="black", font=ImageFont.load_default(17))
        for place, index in enumerate(indices):
            corner = (margin + place % 5 * width, top + head + place // 5 * height)
            rows = {who: found[index] for who, found in predictions.items()}
            draw_card(sheet, corner, Path(files[index]), names[labels[index]], rows)
    write_atomic(path, lambda stream: sheet.save(stream, "PNG"))


def draw_card(
    sheet: Image.Image,
    corner: tuple[int, int],
    file: Path,
    truth: str,
    rows: Mapping[str, Mapping[str, Any]],
) -> None:
    """Draw one image, its true class, and each network's first answer: green if right, red if wrong."""
    x, y = corner
    draw, small = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    with Image.open(file) as image:
        sheet.paste(image.convert("RGB").resize((96, 96), Image.Resampling.BICUBIC), (x, y))
    draw.text((x + 104, y + 4), truth.replace(" ", "\n"), fill="black", font=ImageFont.load_default(18))
    for line, (who, row) in enumerate(rows.items()):
        answer = row["label_names"][0]
        colour = "#107c10" if answer == truth else "#c50f1f"
        where = y + 102 + 20 * line
        draw.text((x, where), f"{who}:", fill="#555555", font=small)
        draw.text((x + 66, where), f"{answer} {row['scores'][0]:.0%}", fill=colour, font=small)


def show_images(best: str, folder: Path) -> None:
    """Export the three networks, classify the validation images with them and draw the sheet."""
    lines = (DATA / "val_list.txt").read_text(encoding="utf-8").splitlines()
    truths = {str(DATA / line.split()[0]): int(line.split()[1]) for line in lines}
    names = [
        line.split(" ", 1)[1] for line in (DATA / "label_list.txt").read_text(encoding="utf-8").splitlines()
    ]
    networks = {"teacher": "teacher", "baseline": "student", "student": best}
    predictions = {
        who: Predictor(export(name, folder), batch_size=200, device="cpu", threads=1).predict(list(truths))
        for who, name in networks.items()
    }
    for file, row in list(zip(truths, predictions["student"], strict=True))[:5]:
        print(
            f"   {Path(file).name}: {row['label_names'][0]} {row['scores'][0]:.1%} (is {names[truths[file]]})"
        )
    right = sum(r["class_ids"][0] == t for r, t in zip(predictions["student"], truths.values(), strict=True))
    print(f"   all {len(truths)} with the exported student: {right / len(truths):.2%}")
    contact_sheet(truths, predictions, names, folder / "contact_sheet.png")


def write_pages(best: str, folder: Path) -> tuple[Path, Path]:
    """Write the page of the best student, compared with the baseline, and the page that compares all."""
    runs = [weights(name, folder).parent for name in ("student", "kd", "ssld")]
    page = write_report(weights(best, folder).parent, baseline=runs[0])
    return page, write_comparison(runs, folder / "compare.html")


# ---------------------------------------------------------------------- the whole


def run(folder: Path, seed: int) -> dict[str, float]:
    """Run all steps; returns what goes into ``results.json``."""
    begin = time.perf_counter()

    def say(text: str) -> None:
        print(f"\n== {text}  [{time.perf_counter() - begin:.0f} s]", flush=True)

    folder.mkdir(parents=True, exist_ok=True)
    say("Unpack the embedded part of Fashion-MNIST")
    unpack()
    say("1. Evaluate the teacher")
    accuracy = {"teacher": evaluate("teacher", folder)}
    say("2-4. Train the student: from labels (baseline), with a teacher (KD), with unlabelled images (SSLD)")
    print(f"   two at a time; logs: {folder}/{{student,kd,ssld}}/*/train.log")
    trained = train_all([(name, folder, seed) for name in STUDENTS])
    accuracy |= {name: metrics["top1"] for name, metrics in zip(STUDENTS, trained, strict=True)}
    best = max(("kd", "ssld"), key=lambda name: accuracy[name])
    say(f"5. Evaluate the best student ({best}) from its checkpoint")
    accuracy[best] = evaluate(best, folder)
    say("6. Export, check the exported files, classify images with them")
    show_images(best, folder)
    say("7. Results")
    print_table(accuracy)
    page, comparison = write_pages(best, folder)
    results = {KEYS[name]: round(accuracy[name], 6) for name in TITLES}
    results["seconds"] = round(time.perf_counter() - begin, 1)
    text = json.dumps(results, indent=2) + "\n"
    write_atomic(folder / "results.json", lambda stream: stream.write(text.encode()))
    print(f"\n{folder}/contact_sheet.png  {folder}/results.json  ({results['seconds']:.0f} s)")
    print(f"{page}  the best student on one page\n{comparison}  all three beside each other")
    return results


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("output/demo"), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    options = parser.parse_args()
    os.chdir(ROOT)  # the recipes name their data from here
    try:
        run(options.output, options.seed)
    except PpclsError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

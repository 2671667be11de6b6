"""Kill a training again and again, and show that nothing is lost.

    python tests/soak/soak.py --kills 200

A tiny distillation (EMA, MGD's random mask, dropout, mixup, AMP switched on, loader threads, ``save_steps``)
is trained once without disturbance. Then runs of the same recipe are killed (``SIGKILL``) at random moments
and started again with ``--resume auto`` until they finish. Half of the moments are random times; the other
half are file operations, counted by an audit hook: just before the n-th one, or up to 3 ms after it, when a
file is half written. After every kill each checkpoint in the folder must be whole, and ``latest`` must not be
older than before. A finished run must leave the same files as the undisturbed one: weights, optimizer,
averages, position, and ``metrics.jsonl`` but for measured times.

Paddle is imported once; every life of a run is a fork of this process, which computes nothing itself.
"""

# ruff: noqa: E402 - what is imported first depends on settings and paths
from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fork inherits no threads
sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

import cv2
import numpy as np
import yaml
from paddle import nn
from support import PHOTOS, distilled, tiny_recipe

from ppcls.arch.network import register_network
from ppcls.arch.theseus import TheseusLayer
from ppcls.cli import main as ppcls
from ppcls.engine import Engine  # noqa: F401 - imported here so that no fork has to
from ppcls.engine.checkpoint import Checkpointer
from ppcls.errors import WeightsError
from ppcls.registry import BATCH_OPS
from ppcls.weights import read_params

MEASURED = ("batch_cost", "reader_cost", "ips")
LONGEST = 120.0  # seconds a life may take before it counts as hung


class SoakNet(TheseusLayer):
    """Two convolutions, BatchNorm, dropout and 70 000 parameters, so that a save takes a while."""

    def __init__(self, class_num: int = 1000) -> None:
        super().__init__()
        self.conv = nn.Conv2D(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2D(8)
        self.body = nn.Conv2D(8, 16, 3, stride=2, padding=1)
        self.act = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.flatten = nn.Flatten()
        self.wide = nn.Linear(16, 4096)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(4096, class_num)

    def forward(self, x):
        x = self.flatten(self.pool(self.act(self.body(self.act(self.norm(self.conv(x)))))))
        return self.fc(self.dropout(self.act(self.wide(x))))


register_network(SoakNet, "SoakNet")


def write_images(folder: Path) -> None:
    """Write 24 crops of 16 x 16 pixels of four photos, and lists of them."""
    folder.mkdir(parents=True)
    rng, lines = np.random.default_rng(0), []
    for label, photo in enumerate(sorted(PHOTOS.glob("*.jpg"))):
        pixels = cv2.imread(str(photo))
        for number in range(6):
            y, x = (int(rng.integers(0, side - 48)) for side in pixels.shape[:2])
            name = f"{photo.stem}_{number}.png"
            cv2.imwrite(str(folder / name), cv2.resize(pixels[y : y + 48, x : x + 48], (16, 16)))
            lines.append(f"{name} {label}\n")
    (folder / "train_list.txt").write_text("".join(lines))
    (folder / "val_list.txt").write_text("".join(lines[::3]))


def write_recipe(folder: Path) -> Path:
    """Write images and the recipe; return the path of the recipe."""
    write_images(folder / "images")
    recipe = tiny_recipe(folder / "images", folder / "output")
    pair = {"model_name_pairs": [["Student", "Teacher"]]}
    mask = {**pair, "base_loss_name": "MGDLoss", "s_key": "body", "t_key": "body"}
    recipe = distilled(
        recipe,
        DistillationGTCELoss={"model_names": ["Student"]},
        DistillationKLDivLoss={**pair, "temperature": 4.0},
        DistillationPairLoss={**mask, "alpha_mgd": 0.1, "lambda_mgd": 0.5},
    )
    network = {"name": "SoakNet", "return_patterns": ["body"]}
    recipe["Arch"]["models"] = [{"Teacher": dict(network)}, {"Student": dict(network)}]
    recipe["Global"] |= {"epochs": 4, "save_steps": 2, "keep_last": 2, "image_shape": [3, 16, 16]}
    recipe["EMA"] = {"decay": 0.9}
    recipe["AMP"] = {"use_amp": True}
    if "MixupOperator" in BATCH_OPS:
        train = recipe["DataLoader"]["Train"]["dataset"]
        train["batch_transform_ops"] = [{"MixupOperator": {"alpha": 0.5}}]
        recipe["Metric"].pop("Train")
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


@dataclass
class Life:
    """One process of a run: a fork of this one that trains."""

    recipe: Path
    output: Path
    at_operation: int | None = None
    wait_there: bool = False
    pid: int = 0
    _signals: int = -1

    def start(self) -> None:
        """Fork; the child trains and leaves with the exit code of ``ppcls train``."""
        self._signals, write_end = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(write_end)
            return
        code = 99
        try:
            os.setsid()
            log = os.open(self.output.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            self._count_operations(write_end)
            arguments = ["-c", str(self.recipe), "-o", f"Global.output_dir={self.output}", "--resume", "auto"]
            code = ppcls(["train", *arguments])
            sys.stdout.flush()
        finally:
            if sys.exc_info()[0] is not None:
                traceback.print_exc()
            os._exit(code)

    def _count_operations(self, write_end: int) -> None:
        """Tell the parent when the chosen file operation in the output folder is about to happen."""
        count, folder = 0, str(self.output)

        def watch(event: str, arguments: tuple) -> None:
            nonlocal count
            if event == "open":
                if not isinstance(arguments[2], int) or not arguments[2] & (os.O_WRONLY | os.O_RDWR):
                    return
            elif event not in ("os.rename", "os.link", "os.remove", "os.truncate"):
                return
            if not str(arguments[0]).startswith(folder):
                return
            count += 1
            if self.at_operation is None:
                os.write(write_end, b".")
            elif count == self.at_operation:
                os.write(write_end, b".")
                while self.wait_there:
                    signal.pause()

        sys.addaudithook(watch)

    def reached(self, timeout: float) -> bool:
        """Wait for the chosen operation; tell whether it came before the end of the process."""
        ready, _, _ = select.select([self._signals], [], [], timeout)
        return bool(ready) and os.read(self._signals, 1) == b"."

    def operations(self) -> int:
        """Wait for the end; return how many file operations there were."""
        count = 0
        while block := os.read(self._signals, 4096):
            count += len(block)
        return count

    def kill(self) -> int | None:
        """Kill; return None if that hit a living process, else its exit code."""
        os.kill(self.pid, signal.SIGKILL)
        return self.end()

    def end(self) -> int | None:
        """Wait for the process; return its exit code, None if it was killed."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self._signals)
        return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)

    def wait(self, seconds: float) -> bool:
        """Wait for the end, not longer than `seconds`; tell whether the process has ended."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return True
            time.sleep(min(0.002, seconds / 10))
        return False


@dataclass
class Figures:
    """What is reported."""

    kills: int = 0
    in_saves: int = 0
    corruptions: list[str] = field(default_factory=list)
    finished: int = 0
    different: list[str] = field(default_factory=list)
    after: list[int] = field(default_factory=list)

    def print(self, seconds: float) -> None:
        """Print the summary, one figure a line."""
        print(f"kills survived: {self.kills - len(self.corruptions)} of {self.kills}")
        print(f"kills in the middle of saves: {self.in_saves}")
        print(f"steps done at the kills: {min(self.after)} .. {max(self.after)}")
        print(f"corruptions found: {len(self.corruptions)}")
        print(f"runs bit-identical: {self.finished - len(self.different)} of {self.finished}")
        print(f"seconds: {seconds:.0f}")
        for text in (*self.corruptions, *self.different):
            print(f"  {text}")


def inspect(folder: Path, step: int) -> tuple[int, list[str]]:
    """Look at what a kill left.

    Args:
        folder: of the run.
        step: optimizer steps of ``latest`` at the kill before; 0 if there was none.

    Returns:
        steps of ``latest`` now, and what is wrong.
    """
    checkpointer, wrong, found = Checkpointer(folder), [], {}
    for tag in checkpointer.tags():
        try:
            found[tag] = checkpointer.load(tag).progress.step
        except WeightsError as error:
            wrong.append(str(error))
    for path in folder.glob("*.pdparams"):
        try:
            read_params(path)
        except WeightsError as error:
            wrong.append(str(error))
    if "latest" not in found and step and not wrong:
        wrong.append(f"{folder}: latest is gone")
    if found.get("latest", step) < step:
        wrong.append(f"{folder}: latest went back from step {step} to {found['latest']}")
    return found.get("latest", step), wrong


def is_in_save(folder: Path) -> bool:
    """Tell whether a checkpoint or weights file was being written: its temporary files are there."""
    names = [path.name for path in folder.glob("*.new")] + [path.name for path in folder.glob("*.commit")]
    return bool(names or list(folder.glob(".*.pd*.tmp")))


def metrics(folder: Path) -> list[dict]:
    """Return the rows of ``metrics.jsonl`` without measured times."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]


def difference(folder: Path, expected: Path) -> str | None:
    """Return how a finished run differs from the undisturbed one; None if it does not."""
    names, wanted = ({path.name for path in f.iterdir()} for f in (folder, expected))
    if names != wanted:
        return f"{folder}: files differ: {sorted(names ^ wanted)}"
    for name in sorted(wanted):
        if name.endswith((".pdparams", ".pdopt", ".pdema")):
            mine, theirs = read_params(folder / name), read_params(expected / name)
            if mine.keys() != theirs.keys():
                return f"{folder / name}: other tensors"
            for key, value in theirs.items():
                if mine[key].dtype != value.dtype or mine[key].tobytes() != value.tobytes():
                    return f"{folder / name}: {key} differs"
        elif name.endswith(".pdstates") and (folder / name).read_bytes() != (expected / name).read_bytes():
            return f"{folder / name} differs"
    return None if metrics(folder) == metrics(expected) else f"{folder / 'metrics.jsonl'} differs"


def train_once(recipe: Path, output: Path) -> tuple[int, float]:
    """Train without disturbance; return how many file operations and seconds it took."""
    begin, life = time.monotonic(), Life(recipe, output)
    life.start()
    operations = life.operations()
    if life.end() != 0:
        raise SystemExit(f"the undisturbed run failed:\n{output.with_suffix('.log').read_text()[-3000:]}")
    return operations, time.monotonic() - begin


def live_and_die(life: Life, dice: random.Random, seconds: float, operations: int) -> int | None:
    """Start a life and kill it at a random moment; return its exit code if it ended before."""
    delay = 0.0
    if dice.random() < 0.5:
        life.at_operation = dice.randint(1, max(2, operations // 5))
        life.wait_there = dice.random() < 0.5
        delay = 0.0 if life.wait_there else dice.uniform(0, 0.003)
        life.start()
        if not life.reached(LONGEST):
            return life.end()
    else:
        life.start()
        delay = dice.uniform(0, 0.4 * seconds)
    if delay:
        life.wait(delay)
    return life.kill()


def soak(folder: Path, kills: int, seed: int) -> Figures:
    """Kill runs in `folder` until there were `kills` kills, finish the last one, and return the figures."""
    dice, figures, recipe = random.Random(seed), Figures(), write_recipe(folder)
    expected = folder / "undisturbed"
    operations, seconds = train_once(recipe, expected)
    print(f"undisturbed: {operations} file operations, {seconds:.1f} s", flush=True)
    while figures.kills < kills:
        output = folder / f"run{figures.finished}"
        step, code = 0, None
        while code is None:
            life = Life(recipe, output)
            if figures.kills < kills:
                code = live_and_die(life, dice, seconds, operations)
            else:
                life.start()
                code = life.end() if life.wait(LONGEST) else life.kill()
            if code is None:
                run = output / "DistillationModel"
                step, wrong = inspect(run, step)
                figures.kills += 1
                figures.in_saves += is_in_save(run)
                figures.after.append(step)
                figures.corruptions += wrong[:1]
        figures.finished += 1
        if code != 0:
            log = output.with_suffix(".log").read_text()[-2000:]
            figures.different.append(f"{output}: exit code {code}\n{log}")
        elif found := difference(output / "DistillationModel", expected / "DistillationModel"):
            figures.different.append(found)
        else:
            shutil.rmtree(output)
        print(f"run {figures.finished}: {figures.kills} kills so far", flush=True)
    return figures


def main() -> int:
    """Run the soak; exit code 1 if anything was lost or differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--folder", type=Path, help="where to work, empty or new (default: a temporary one)")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="soak"))
    begin = time.monotonic()
    figures = soak(folder, arguments.kills, arguments.seed)
    figures.print(time.monotonic() - begin)
    failed = bool(figures.corruptions or figures.different)
    if not failed and arguments.folder is None:
        shutil.rmtree(folder)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

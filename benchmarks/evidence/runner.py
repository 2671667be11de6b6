"""Train what is missing, and append each finished run to the results of its setting."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from evidence.methods import METHODS, Method
from evidence.settings import RECIPES, ROOT, Places, Setting, Variant

_RUNS_PER_PROCESS = 12  # then a fresh process goes on


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        setting: where it belongs.
        method: key of :data:`METHODS`.
        seed: ``Global.seed``.
        variant: what differs from the method's recipe, in an ablation.
    """

    setting: Setting
    method: str
    seed: int
    variant: Variant | None = None

    @property
    def name(self) -> str:
        """The name in the results."""
        return self.variant.name if self.variant else self.method

    @property
    def two_teachers(self) -> bool:
        """Whether the mean of both teachers teaches."""
        return self.variant is not None and self.variant.two_teachers

    @property
    def views(self) -> int:
        """Views of the teacher's store."""
        if METHODS[self.method].unlabelled:
            return 1
        return (self.variant.views if self.variant else None) or self.setting.views

    @property
    def store(self) -> str:
        """Name of the folder with the teacher's outputs; empty without a frozen teacher."""
        method = METHODS[self.method]
        if self.method == "baseline" or method.peer:
            return ""
        teacher = {"heads": "last", "mgd": "last"}.get(method.taps, method.taps)  # differ in the student only
        images = "unlabelled" if method.unlabelled else "mean" if self.two_teachers else teacher
        views = "" if self.views == self.setting.views else f"-{self.views}-views"
        return f"{self.setting.stores or self.setting.key}-{images}{views}-{self.seed}"


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Read a file of results."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run(jobs: list[Job], places: Places, processes: int, hours: float = math.inf) -> None:
    """Train what is not in the results yet; can be stopped and started at any time.

    Args:
        jobs: in their order.
        places: where images and weights are, and where runs write.
        processes: number of runs at a time.
        hours: no run starts later than this after the call.

    Raises:
        SystemExit: if a setting needs images or weights that were not given.
    """
    (places.work / "stores").mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    settings = {job.setting.key: job.setting for job in jobs}
    known = {
        (key, row["method"], row["seed"])
        for key, setting in settings.items()
        for row in rows_of(setting.results)
    }
    todo = [job for job in jobs if (job.setting.key, job.name, job.seed) not in known]
    print(f"{len(jobs) - len(todo)} of {len(jobs)} runs are in the results", flush=True)
    for job in todo:  # what is missing is reported before the first run
        job.setting.with_weights(places, job.two_teachers)
        job.setting.data(places, unlabelled=False)
    from ppcls.job import end_with_parent

    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, end_with_parent, maxtasksperchild=_RUNS_PER_PROCESS) as pool:
        one = partial(_one, places=places, until=time.time() + 3600 * hours)
        finished, begun = 0, len(todo)
        for job, row, problem in pool.imap_unordered(one, todo):
            if row or problem:
                finished += 1
                title = f"{finished}/{len(todo)}  {job.setting.key}  {job.name}, seed {job.seed}"
                print(f"{title}: {row or problem}", flush=True)
                if row:
                    with job.setting.results.open("a") as stream:
                        stream.write(json.dumps(row) + "\n")
            else:
                begun = min(begun, todo.index(job))  # those before it; they may still run
            if finished == begun:
                break
    if finished < len(todo):
        late = len(todo) - finished
        print(f"The {hours:g} hours are over. Runs still missing: {late}. To train them, repeat the command.")


def _one(job: Job, places: Places, until: float) -> tuple[Job, dict[str, Any], str]:
    """Return the job with its row, or with what went wrong, or with neither if it is too late to start."""
    from ppcls.errors import PpclsError

    if time.time() > until:
        return job, {}, ""
    try:
        fill(job, places)
        return job, train(job, places), ""
    except (PpclsError, RuntimeError, ValueError, OSError, subprocess.SubprocessError):  # the others go on
        return job, {}, f"failed\n{traceback.format_exc()}"


def fill(job: Job, places: Places) -> None:
    """Store the teacher's outputs that a run needs, unless this is done; one process at a time."""
    if not job.store:
        return
    from ppcls.job import end_with_parent

    done = places.work / "stores" / f"{job.store}.done"
    with FileLock(done.with_suffix(".lock")), tempfile.TemporaryDirectory(dir=places.work) as name:
        if done.exists():
            return
        command = [sys.executable, "-m", "ppcls", "teacher", "store"]
        command += ["-c", str(write_recipe(job, places, Path(name)))]
        for option in _options(job, Path(name)):
            command += ["-o", option]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, preexec_fn=end_with_parent)
        done.touch()


def train(job: Job, places: Places) -> dict[str, Any]:
    """Train one network in this process and return its row of the results."""
    from ppcls.config import load_config
    from ppcls.cpu.processor import processor_name
    from ppcls.engine import Engine
    from ppcls.logger import setup_logging

    os.chdir(ROOT)
    setup_logging(quiet=True)
    begin, used = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory(dir=places.work) as name:
        folder = Path(name)
        Engine(load_config(write_recipe(job, places, folder), _options(job, folder))).train()
        logs = [
            json.loads(line)
            for file in folder.rglob("metrics.jsonl")
            for line in file.read_text().splitlines()
        ]
    last = [row for row in logs if row["kind"] == "eval"][-1]
    return {
        "method": job.name,
        "seed": job.seed,
        "top1": round(last["top1"], 6),
        "steps": last["step"],
        "processor": processor_name(),
        "seconds": round(time.perf_counter() - begin, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
    }


def _options(job: Job, folder: Path) -> list[str]:
    options = [f"Global.seed={job.seed}", f"Global.output_dir={folder / 'run'}", "Global.device=cpu"]
    return [*options, *(job.variant.options if job.variant else ())]


def write_recipe(job: Job, places: Places, folder: Path) -> Path:
    """Write the recipe of a run into `folder`: the method's, with changes of setting and method on top."""
    setting, method = job.setting, METHODS[job.method]
    epochs = setting.epochs_of(method.unlabelled)
    bases = [str(ROOT / "configs" / name) for name in setting.base]
    bases.append(str(folder / "networks.yaml"))  # before the method's recipe, which changes entries of it
    if method.recipe:
        bases.append(str(RECIPES / f"{method.recipe}.yaml"))
    losses = method.losses(setting)
    layers: list[dict[str, Any]] = [
        {"Global": {"epochs": epochs, "eval_interval": epochs, "print_batch_step": 1000, "report": False}},
        setting.changes,
        _shared_outputs(job, method),
        {"Loss": {"Train": losses}} if losses else {},
        setting.data(places, method.unlabelled),
        _store(job, places),
    ]
    networks = folder / "networks.yaml"
    networks.write_text(yaml.safe_dump({"Arch": _arch(job, method, places)}))
    for number, layer in enumerate(filter(None, layers)):
        path = folder / f"layer{number}.yaml"
        path.write_text(yaml.safe_dump(layer, sort_keys=False))
        bases.append(str(path))
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"_base_": bases}))
    return path


def _arch(job: Job, method: Method, places: Places) -> dict[str, Any]:
    networks = job.setting.with_weights(places, job.two_teachers)
    if job.two_teachers:
        return {
            "freeze_params_list": [True, True, False],
            "models": [{name: network} for name, network in networks.items()],
            "ensembles": {"Teacher": {"networks": list(networks)[:-1]}},
        }
    if method.arch:
        return method.arch(job.setting, networks)
    teacher, student = networks["Teacher"], networks["Student"]
    if job.method == "baseline":  # the student alone
        return {"freeze_params_list": [False], "models": [{"Student": student}]}
    frozen = [not method.peer, False]
    if job.method == "UDML":  # two networks of one kind, and the last feature map of both
        student = {**student, "return_patterns": job.setting.taps("last")["Student"][:1]}
        teacher = {**student, "pretrained": False}
    elif method.peer:
        teacher = {**job.setting.peer, "pretrained": False}
    return {"freeze_params_list": frozen, "models": [{"Teacher": teacher}, {"Student": student}]}


def _shared_outputs(job: Job, method: Method) -> dict[str, Any]:
    """Let the teacher return the same for all methods that share a store, and be in eval mode.

    The latter concerns OFD: the outputs of a teacher in train mode cannot be stored.
    """
    if not job.store or method.arch:
        return {}
    if job.two_teachers:  # their mean has logits only
        return {"Arch": {"frozen_mode": "eval"}}
    taps = job.setting.taps(method.taps)
    models = {n: {name: {"return_patterns": taps[name]}} for n, name in enumerate(("Teacher", "Student"))}
    return {"Arch": {"frozen_mode": "eval", "models": models}}


def _store(job: Job, places: Places) -> dict[str, Any]:
    if not job.store:
        return {}
    return {"TeacherStore": {"path": str(places.work / "stores" / job.store), "views": job.views}}

"""The time of a training step of every method, and of the teacher's forward pass in it."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from evidence.comparisons import FASHION
from evidence.methods import METHODS
from evidence.runner import Job, write_recipe
from evidence.settings import DOCS, Places

TIMES = DOCS / "results_methods_time.json"
_WARM_UP = 3  # steps that set things up


def measure(steps: int) -> None:
    """Time steps of all methods in turn in one process, on Fashion-MNIST with the teacher itself."""
    import paddle

    from ppcls.config import load_config
    from ppcls.engine import Engine
    from ppcls.engine.train import train_step
    from ppcls.logger import setup_logging

    setup_logging(quiet=True)
    names = [name for name, method in METHODS.items() if not method.unlabelled]
    with tempfile.TemporaryDirectory() as temporary:
        runs: dict[str, Any] = {}
        for number, name in enumerate(names):
            folder = Path(temporary) / str(number)
            folder.mkdir()
            path = write_recipe(Job(FASHION, name, 0), Places(folder), folder)
            options = ["Global.device=cpu", f"Global.output_dir={folder}", "Global.seed=0"]
            runs[name] = Engine(load_config(path, options)).build_run()
            runs[name].parts.model.train()
        batch = next(iter(runs[names[0]].parts.loader.epoch(1)))
        whole: dict[str, list[float]] = {name: [] for name in names}
        teacher: dict[str, list[float]] = {name: [] for name in names}
        for number in range(steps + _WARM_UP):
            for name, item in runs.items():
                begin = time.perf_counter()
                train_step(item, batch)
                item.read()
                middle = time.perf_counter()
                model = item.parts.model
                if "Teacher" in model.names and "Teacher" in model.frozen:
                    with paddle.no_grad():
                        model.network("Teacher")(paddle.to_tensor(batch.image))
                if number >= _WARM_UP:
                    whole[name].append((middle - begin) * 1000)
                    teacher[name].append((time.perf_counter() - middle) * 1000)
    table = {
        name: {
            "step_ms": round(statistics.median(whole[name]), 1),
            "teacher_ms": round(statistics.median(teacher[name]), 1),
        }
        for name in names
    }
    TIMES.write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(table, indent=1))

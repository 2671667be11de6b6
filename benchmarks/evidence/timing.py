"""The time of a training step of every method."""

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
    from ppcls.config import load_config
    from ppcls.cpu.processor import processor_name
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
        for number in range(steps + _WARM_UP):
            for name, item in runs.items():
                begin = time.perf_counter()
                train_step(item, batch)
                item.read()
                if number >= _WARM_UP:
                    whole[name].append((time.perf_counter() - begin) * 1000)
    table = {
        "processor": processor_name(),
        "step_ms": {name: round(statistics.median(times), 1) for name, times in whole.items()},
    }
    TIMES.write_text(json.dumps(table, indent=1) + "\n")
    print(json.dumps(table, indent=1))

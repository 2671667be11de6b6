"""Train recipes in turn and write down which images each step uses, with which learning rate.

Each argument is a JSON file: the command line of ``ppcls``, the step after which the run stops, and where the
records go.
"""

import json
import sys
from pathlib import Path

from worker import Plain

from ppcls.arch.network import register_network
from ppcls.cli import main
from ppcls.distributed import rank
from ppcls.engine import train
from ppcls.engine.hooks import Hook
from ppcls.registry import HOOKS

STOPPED = 143


class Stop(Hook):
    """Stop the run after a step, as SIGTERM does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def after_step(self, run, batch):
        if run.progress.step == self.step:
            run.stop_signal = STOPPED - 128


def record(file):
    inner = train.forward_and_backward

    def forward_and_backward(run, batch, group=1):
        row = [run.progress.step, run.progress.epoch, batch.index.tolist(), run.learning_rates[0]]
        with file.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        return inner(run, batch, group)

    train.forward_and_backward = forward_and_backward
    return inner


def register():
    register_network(Plain, "Plain")
    HOOKS.register("Stop")(Stop)


def run(paths):
    for path in map(Path, paths):
        job = json.loads(path.read_text())
        before = record(Path(f"{job['records']}.{rank()}"))
        try:
            code = main(["train", *job["arguments"]])
        except SystemExit as end:
            code = end.code
        train.forward_and_backward = before
        if code not in (0, STOPPED):
            return code
    return 0


if __name__ == "__main__":
    register()
    sys.exit(run(sys.argv[1:]))

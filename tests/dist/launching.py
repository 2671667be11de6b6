"""Starting several processes of worker.py, for tests of training in several processes."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import paddle
import worker

from ppcls.arch.network import register_network
from ppcls.cli import main

WORKER = str(Path(__file__).parent / "worker.py")
GRACE = 20  # seconds that the others have to end after one has failed


def train_here(paths, monkeypatch):
    """Train several recipes in turn in this process, with what worker.py adds."""
    register_network(worker.Plain, "Plain")
    monkeypatch.setattr(paddle.nn.BatchNorm1D, "forward", worker.batch_norm)
    monkeypatch.setenv("PPCLS_HOME", str(Path(paths[0]).parent / "home"))
    for path in paths:
        assert main(["train", "-c", str(path)]) == 0


def launch(folder, paths, processes, *options):
    """Run worker.py in processes that Paddle's launcher starts with these options."""
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", str(processes)]
    command += ["--log_dir", str(folder / "log"), *options, WORKER, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env=_environment(folder))


def together(folder, script, processes=2):
    """Run a script in several processes, with the environment variables that Paddle's launcher would set.

    The launcher, a third process with Paddle, would take as much time as one of them. Tests of starts,
    failures and interruptions have it.
    """
    places = [f"127.0.0.1:{port}" for port in _free_ports(processes + 1)]
    common = _environment(folder) | {
        "PADDLE_TRAINERS_NUM": str(processes),
        "PADDLE_MASTER": places.pop(),
        "PADDLE_TRAINER_ENDPOINTS": ",".join(places),
        "PADDLE_DISTRI_BACKEND": "gloo",
    }
    (folder / "log").mkdir(parents=True, exist_ok=True)
    logs = [folder / "log" / f"workerlog.{rank}" for rank in range(processes)]
    started = []
    for rank, log in enumerate(logs):
        own = {"PADDLE_TRAINER_ID": str(rank), "PADDLE_CURRENT_ENDPOINT": places[rank]}
        with log.open("wb") as stream:
            started.append(
                subprocess.Popen(
                    [sys.executable, *script], env=common | own, stdout=stream, stderr=subprocess.STDOUT
                )
            )
    codes = _codes(started, time.monotonic() + 200)
    printed = [log.read_text(errors="replace") for log in logs]
    return subprocess.CompletedProcess(script, next(filter(None, codes), 0), printed[0], "".join(printed[1:]))


def _codes(started, end):
    """Wait for all processes and return their exit codes; they are killed soon after one has failed."""
    try:
        while any(process.poll() is None for process in started) and time.monotonic() < end:
            if any(process.poll() for process in started):
                end = min(end, time.monotonic() + GRACE)
            time.sleep(0.05)
    finally:
        for process in started:
            process.kill()
    return [process.wait() for process in started]


def _free_ports(count):
    listeners = [socket.socket() for _ in range(count)]
    for listener in listeners:
        listener.bind(("127.0.0.1", 0))
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def _environment(folder):
    own = {k: v for k, v in os.environ.items() if not k.startswith(("PADDLE", "CUDA"))}
    return own | {"PPCLS_HOME": str(folder / "home")}

"""Starting several processes of worker.py, for tests of training in several processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

WORKER = str(Path(__file__).parent / "worker.py")


def launch(folder, paths, processes, *options, worker=WORKER):
    command = [sys.executable]
    if processes > 1 or options:
        command += ["-m", "paddle.distributed.launch", "--nproc_per_node", str(processes)]
        command += ["--log_dir", str(folder / "log"), *options]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PADDLE", "CUDA"))}
    environment["PPCLS_HOME"] = str(folder / "home")
    return subprocess.run(
        [*command, worker, *map(str, paths)], capture_output=True, text=True, timeout=200, env=environment
    )

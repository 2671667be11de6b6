"""A distillation that is killed again and again ends with the files of one that was not, bit by bit."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_newcomer import write_shapes

COMMAND = (
    "distill photos --teacher resnet8 --student resnet8 --epochs 4 --baseline --export --seed 1 "
    "-o Global.device=cpu -o Global.save_steps=2 --out"
)
CODE = "import sys; from ppcls.cli import main; sys.exit(main(sys.argv[1:]))"


def start(home: Path, out: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", CODE, *COMMAND.split(), out]
    return subprocess.Popen(
        command, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_change_nothing(tmp_path):
    write_shapes(tmp_path / "photos", 20)
    begin = time.monotonic()
    whole = start(tmp_path, "whole")
    assert whole.communicate()[0] is not None
    assert whole.returncode == 0
    lasted = time.monotonic() - begin
    moments = random.Random(0)
    for _ in range(40):
        run = start(tmp_path, "killed")
        try:
            printed, _ = run.communicate(timeout=moments.uniform(0.2, 0.9) * lasted)
        except subprocess.TimeoutExpired:
            run.kill()
            run.communicate()
        else:
            assert run.returncode == 0, printed.decode()[-2000:]
            break
    else:
        pytest.fail("it never ended")
    for file in (tmp_path / "whole").rglob("*.pd*params"):
        other = tmp_path / "killed" / file.relative_to(tmp_path / "whole")
        assert file.read_bytes() == other.read_bytes(), file
    assert not list((tmp_path / "killed").rglob("*.new"))
    assert not list((tmp_path / "killed").rglob("*.earlier-*"))

"""The soak as a test: a few kills by default, two hundred with ``-m slow``."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "soak.py"


def figures(tmp_path, kills, seed):
    command = [sys.executable, SCRIPT, "--folder", tmp_path / "soak", f"--kills={kills}", f"--seed={seed}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"kills survived: {kills} of {kills}\n" in done.stdout
    assert "corruptions found: 0\n" in done.stdout
    found = re.search(r"runs bit-identical: (\d+) of (\d+)\n", done.stdout)
    assert found
    assert found[1] == found[2]
    assert int(found[2]) > 0
    return int(re.search(r"kills in the middle of saves: (\d+)\n", done.stdout)[1])


@pytest.mark.skipif(sys.platform != "linux", reason="forks and kills")
def test_a_few_kills(tmp_path):
    figures(tmp_path, 5, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1600)
@pytest.mark.skipif(sys.platform != "linux", reason="forks and kills")
def test_two_hundred_kills(tmp_path):
    assert figures(tmp_path, 200, seed=2) >= 50

"""The soak as a test."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "soak.py"
KILLS = 200


@pytest.mark.slow
@pytest.mark.timeout(1600)
@pytest.mark.skipif(sys.platform != "linux", reason="forks and kills")
def test_two_hundred_kills(tmp_path):
    command = [sys.executable, SCRIPT, "--folder", tmp_path / "soak", f"--kills={KILLS}", "--seed=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"kills survived: {KILLS} of {KILLS}\n" in done.stdout
    assert "corruptions found: 0\n" in done.stdout
    found = re.search(r"runs bit-identical: (\d+) of (\d+)\n", done.stdout)
    assert found
    assert found[1] == found[2]
    assert int(found[2]) > 0
    in_saves = re.search(r"kills in the middle of saves: (\d+)\n", done.stdout)
    assert in_saves
    assert int(in_saves[1]) >= 50

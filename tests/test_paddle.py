"""What ppcls changes in Paddle: where it writes code."""

from __future__ import annotations

import copy
import os
import pwd
import subprocess
import sys
from pathlib import Path

import paddle
import pytest
from support import KL, distilled

from ppcls import _paddle

COMMANDS = """
import sys
from ppcls.cli import main
recipe, run = sys.argv[1:]
assert main(["train", "-c", recipe]) == 0
assert main(["export", run]) == 0
assert main(["layers", "-c", recipe]) == 0
"""


@pytest.mark.slow
def test_commands_need_no_home(recipe, write_recipe, tmp_path: Path) -> None:
    """Paddle traces for a program of the teacher, the report, an export and a table of layers."""
    content = distilled(copy.deepcopy(recipe), **KL)
    content["Global"].update(epochs=1, report=True)
    content["Arch"]["models"][0]["Teacher"]["frozen_engine"] = "paddle_inference"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    places = {"HOME": "/proc/nothere", "TMPDIR": str(temporary)}
    result = subprocess.run(
        [sys.executable, "-c", COMMANDS, str(write_recipe(content)), tmp_path / "output/DistillationModel"],
        env=os.environ | places | {"PYTHONPATH": str(Path(_paddle.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "was not written" not in result.stdout  # the data of the report
    assert not list(temporary.glob("ppcls*"))


def test_a_user_without_a_home_has_a_temporary_folder_for_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)
    folder = _paddle._folder_for_code(lambda: pytest.fail("Paddle creates a folder called ~"))
    assert os.path.isabs(folder)
    assert os.path.isdir(folder)


def test_a_paddle_that_writes_no_code_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(paddle.jit.dy2static.utils, "get_temp_dir")
    _paddle._write_code_elsewhere.__wrapped__()
    assert not hasattr(paddle.jit.dy2static.utils, "get_temp_dir")

"""The command line before anything heavy is imported."""

import os
import subprocess
import sys

import pytest

from ppcls.cli import build_parser, main


def test_help_imports_nothing_heavy():
    code = (
        "import sys, ppcls.cli\n"
        "try: ppcls.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('paddle', 'numpy', 'cv2', 'omegaconf') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_every_command_has_a_handler():
    from ppcls.cli import _COMMANDS

    actions = [action for action in build_parser()._actions if action.choices]
    assert set(actions[0].choices) == set(_COMMANDS)


def test_a_usage_mistake_exits_with_2():
    with pytest.raises(SystemExit) as stopped:
        main(["trian"])
    assert stopped.value.code == 2


def test_processes_must_be_at_least_one(recipe, write_recipe, capsys):
    assert main(["train", "-c", str(write_recipe(recipe)), "--nproc", "0"]) == 2
    assert "--nproc" in capsys.readouterr().err


def test_a_reader_that_leaves_ends_a_list_quietly():
    command = [sys.executable, "-c", "from ppcls.cli import main; raise SystemExit(main(['models']))"]
    for unbuffered in ("", "1"):  # the write fails at another place
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        ) as process:
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait() == 141

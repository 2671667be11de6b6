"""The command line before anything heavy is imported."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from ppcls.cli import build_parser, main
from ppcls.commands import COMMANDS


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
    actions = [action for action in build_parser()._actions if action.choices]
    assert set(actions[0].choices) == set(COMMANDS)


def test_a_usage_mistake_exits_with_2():
    with pytest.raises(SystemExit) as stopped:
        main(["trian"])
    assert stopped.value.code == 2


@pytest.mark.parametrize("name", ["PPCLS_BLAS", "PPCLS_MALLOC"])
def test_every_command_refuses_a_switch_with_an_unknown_value(name, monkeypatch, capsys):
    monkeypatch.setenv(name, "OFF")
    assert main(["models", "ResNet18"]) == 2
    assert f"{name}=OFF: expected auto or off" in capsys.readouterr().err


def test_processes_must_be_at_least_one(recipe, write_recipe, capsys):
    assert main(["train", "-c", str(write_recipe(recipe)), "--nproc", "0"]) == 2
    assert "--nproc" in capsys.readouterr().err


def load_while_interrupted(args):
    """What Paddle's library does if Ctrl-C comes while it is loaded."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        raise ImportError("initialization failed") from error


def stop(args):
    raise KeyboardInterrupt


@pytest.mark.parametrize("run", [stop, load_while_interrupted])
def test_ctrl_c_ends_a_command_with_one_line(run, monkeypatch, capsys):
    monkeypatch.setitem(COMMANDS, "models", replace(COMMANDS["models"], run=run))
    assert main(["models"]) == 130
    assert capsys.readouterr().err == "ppcls: interrupted\n"


def test_an_import_that_fails_for_another_reason_shows_its_traceback(monkeypatch):
    def fail(args):
        raise ImportError("libcudart.so: cannot open shared object file", name="paddle")

    monkeypatch.setitem(COMMANDS, "models", replace(COMMANDS["models"], run=fail))
    with pytest.raises(ImportError, match="libcudart"):
        main(["models"])


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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "-c", "x.yaml", "--resum-from", "y"], "usage: ppcls train"),
        (["predict", "--model-dir", "x", "y.jpg", "--batchsize", "3"], "Did you mean: --batch-size?"),
        (["models", "--detail", "--jsn"], "Did you mean: --json?"),
        (["eval", "-c", "x.yaml", "--epochs=3"], "usage: ppcls eval"),
    ],
)
def test_an_unknown_option_shows_the_usage_of_its_command(arguments, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert f"ppcls {arguments[0]}: error: unrecognized arguments: --" in error


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["init", "data", "--out", ""], "--out"),
        (["distill", "data", "--teacher", ""], "--teacher"),
        (["compare", "runs", "--out", ""], "--out"),
        (["compare", "runs", ""], "RUN"),
        (["eval", ""], "RUN_FOLDER"),
        (["infer", "run", "photo.jpg", ""], "IMAGE"),
        (["train", "-c", "x.yaml", "--resume", ""], "--resume"),
        (["validate", "-c", "x.yaml", "-c", ""], "-c/--config"),
    ],
)
def test_an_empty_text_is_no_path(arguments, name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert f"argument {name}: got an empty text" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["shard", "DATA", "--size", "1GB", "OUT", "--part", "Eval"],
        ["shard", "--size", "1GB", "DATA", "--part", "Eval", "OUT"],
        ["shard", "--part", "Eval", "DATA", "OUT", "--size", "1GB"],
    ],
)
def test_options_may_stand_between_the_entries_of_a_list(arguments):
    read = build_parser().parse_args(arguments)
    assert read.paths == ["DATA", "OUT"]
    assert (read.size, read.part) == (10**9, ["Eval"])


def test_an_unknown_option_between_the_entries_of_a_list_is_an_error(capsys):
    with pytest.raises(SystemExit):
        main(["shard", "DATA", "--siz=1GB", "OUT", "--unknown", "x"])
    assert "unrecognized arguments: --unknown" in capsys.readouterr().err


def test_a_command_without_a_list_takes_no_more_than_it_names(capsys):
    with pytest.raises(SystemExit):
        main(["models", "ResNet*", "--json", "PPLCNet*"])
    assert "unrecognized arguments: PPLCNet*" in capsys.readouterr().err


def test_a_missing_paddle_is_one_line_with_what_to_install(tmp_path):
    (tmp_path / "paddle.py").write_text("raise ModuleNotFoundError('no module', name='paddle')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    for command in (["-m", "ppcls", "layers", "resnet8"], ["-c", "import ppcls; ppcls.list_models()"]):
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
        lines = done.stderr.splitlines()
        assert "pip install 'paddlepaddle>=3.3" in lines[-1]
        assert "pip install 'paddlepaddle-gpu>=3.3" in lines[-1]
        if command[0] == "-m":
            assert (done.returncode, len(lines)) == (2, 1)

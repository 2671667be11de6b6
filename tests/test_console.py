"""A console that is full, closed, left by its reader or in another encoding ends no command by itself."""

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ppcls import cli
from ppcls.commands import COMMANDS
from ppcls.console import Console, patient_console
from ppcls.errors import TrainingError
from ppcls.logger import LOGGER, setup_logging

ROOT = Path(__file__).parents[1]
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="a device that is always full is Linux's")
SCRIPT = """
import sys
from ppcls.console import patient_console
from ppcls.logger import LOGGER, setup_logging
old = sys.stdout
with patient_console() as output:
    assert (output.fileno(), output.isatty(), output.writable()) == (1, False, True)
    setup_logging()
    for number in range(2000):
        LOGGER.info("line %d, 猫", number)
        print("printed", number, "猫", file=sys.stderr)
    old.write("by a library that keeps the stream")
    print("no end of line", end="")
    print("lost" if output.error else "kept", file=sys.stderr)
sys.exit(7)
"""


def run(script, stdout, stderr, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    environment.pop("PYTHONUNBUFFERED", None)  # with it nothing is left over for the end
    return subprocess.run(
        [sys.executable, "-c", script], stdout=stdout, stderr=stderr, env=environment, timeout=60
    )


@pytest.fixture
def pipe():
    ours, theirs = os.pipe()
    yield ours, theirs
    for end in (ours, theirs):
        with contextlib.suppress(OSError):
            os.close(end)


@needs_full
def test_a_full_console_changes_no_exit_code(tmp_path):
    with FULL.open("w") as full, (tmp_path / "e").open("w") as errors:
        assert run(SCRIPT, full, errors).returncode == 7
        assert run(SCRIPT, full, full).returncode == 7
        assert run(SCRIPT, subprocess.DEVNULL, full).returncode == 7
    lines = (tmp_path / "e").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2001
    assert lines[-1] == "lost"


def test_a_reader_that_left_changes_no_exit_code(pipe):
    os.close(pipe[0])
    assert run(SCRIPT, pipe[1], subprocess.DEVNULL).returncode == 7


def test_a_closed_console_is_no_file_of_the_run(tmp_path):
    """What is opened next would get the number of a closed stream, and what libraries print would go there.

    Python itself knows of no stream then: ``sys.stdout`` is None.
    """
    script = f"""
import os, sys
from ppcls.console import patient_console
with patient_console() as output:
    stream = open({str(tmp_path / "checkpoint")!r}, "w")
    assert stream.fileno() > 2
    os.write(1, b"printed by a library")
    os.write(2, b"printed by a library")
    print("printed")
    print("printed", file=sys.stderr)
    assert os.get_inheritable(1)
    sys.stdout.flush()
sys.exit(7)
"""
    command = 'exec "$0" -c "$1" <&- >&- 2>&-'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command, sys.executable, script], env=environment, timeout=60)
    assert done.returncode == 7
    assert (tmp_path / "checkpoint").read_bytes() == b""


@pytest.mark.parametrize(
    ("encoding", "written"),
    [("ascii", b"\\u732b\n"), ("gbk:strict", "猫\n".encode("gbk")), ("utf-8", "猫\n".encode())],
)
def test_characters_that_the_console_lacks_are_escaped(encoding, written):
    script = "from ppcls.console import patient_console\nwith patient_console() as out: print(chr(29483))"
    done = run(script, subprocess.PIPE, subprocess.PIPE, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stdout, done.stderr) == (0, written, b"")


def test_what_has_no_end_of_line_is_written_too():
    script = "from ppcls.console import patient_console\nwith patient_console() as out: print('x', end='')"
    assert run(script, subprocess.PIPE, subprocess.PIPE).stdout == b"x"


def test_names_of_files_that_are_no_text_are_escaped(pipe):
    console = Console(pipe[1], "utf-8")
    print("a\udcff", file=console)
    assert os.read(pipe[0], 100) == b"a\\udcff\n"
    assert console.errors == "backslashreplace"


def test_lines_are_written_whole_and_at_once(pipe):
    console = Console(pipe[1], "utf-8")
    os.set_blocking(pipe[0], False)
    console.write("a")
    with pytest.raises(BlockingIOError):
        os.read(pipe[0], 100)
    assert console.write("b\nc") == 3
    assert os.read(pipe[0], 100) == b"ab\nc"
    console.write("d")
    console.flush()
    assert os.read(pipe[0], 100) == b"d"


def test_the_first_error_is_remembered_and_raised_where_it_matters(pipe):
    os.close(pipe[0])
    console = Console(pipe[1], "utf-8")
    print("dropped", file=console)
    first = console.error
    assert isinstance(first, BrokenPipeError)
    console.strict = True
    with pytest.raises(BrokenPipeError):
        print("not dropped", file=console)
    assert console.error is first


def test_what_is_no_file_stays_in_its_place(capsys):
    before = sys.stdout
    with patient_console() as output:
        assert output is None
        assert sys.stdout is before
        print("kept")
    assert capsys.readouterr().out == "kept\n"


class Failing(io.StringIO):
    encoding = "ascii"

    def __init__(self, error):
        super().__init__()
        self.failure = error

    def write(self, text):
        if self.failure is None:
            text.encode("ascii")
            return super().write(text)
        raise self.failure


@pytest.mark.parametrize("stream", [Failing(OSError(28, "full")), Failing(ValueError("closed")), None])
def test_a_script_whose_console_fails_goes_on_too(monkeypatch, stream):
    setup_logging()
    monkeypatch.setattr(sys, "stdout", stream)
    LOGGER.info("lost")


def test_a_script_whose_console_has_another_encoding_gets_every_line(monkeypatch):
    setup_logging()
    stream = Failing(None)
    monkeypatch.setattr(sys, "stdout", stream)
    LOGGER.info("猫")
    assert stream.getvalue().endswith("INFO: \\u732b\n")


def ended(command, error, code):
    output = Console(1, "utf-8")
    output.strict = not COMMANDS[command].writes_files
    output.error = error
    return cli._exit_code(code, output)


def test_lost_output_counts_where_it_is_the_result(capsys):
    full, left = OSError(28, "No space left on device"), BrokenPipeError(32, "Broken pipe")
    assert [ended("train", full, code) for code in (0, 1, 130)] == [0, 1, 130]
    assert [ended("export", left, code) for code in (0, 2)] == [0, 2]
    assert [ended("eval", full, code) for code in (0, 1, 2)] == [1, 1, 2]
    assert "ppcls: standard output could not be written: No space left on device" in capsys.readouterr().err
    assert ended("predict", left, 0) == 141
    assert capsys.readouterr().err == ""
    assert ended("predict", None, 0) == 0
    assert cli._exit_code(2, None) == 2


def test_only_errors_of_the_console_are_its_own(monkeypatch):
    output = Console(1, "utf-8")

    def fails(error):
        def command(args):
            raise error

        monkeypatch.setitem(COMMANDS, "validate", replace(COMMANDS["validate"], run=command))
        args = cli.build_parser().parse_args(["validate", "-c", "x"])
        return cli._run(args, output)

    output.error = OSError(28, "full")
    assert fails(output.error) == 1
    with pytest.raises(OSError, match="another"):
        fails(OSError(28, "another"))
    assert fails(TrainingError("x")) == 1


def test_paths_that_the_system_cannot_write_are_an_error_with_a_remedy(monkeypatch, capsys):
    def encode(args):
        "猫".encode("ascii")

    monkeypatch.setitem(COMMANDS, "validate", replace(COMMANDS["validate"], run=encode))
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    assert cli.main(["validate", "-c", "x"]) == 2
    assert "'猫': names of files are ascii here, which lacks these characters; set PYTHONUTF8=1" in (
        capsys.readouterr().err
    )
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "utf-8")
    with pytest.raises(UnicodeEncodeError):
        cli.main(["validate", "-c", "x"])


@pytest.mark.slow
@needs_full
def test_training_ends_whole_on_a_full_console(recipe, write_recipe, tmp_path):
    recipe["Global"]["epochs"] = 1
    command = [sys.executable, "-m", "ppcls", "train", "-c", str(write_recipe(recipe))]
    with FULL.open("w") as full:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, stdout=full, stderr=full, env=environment, timeout=200)
    assert done.returncode == 0
    folder = tmp_path / "output/resnet8"
    assert json.loads((folder / "latest.pdstates").read_text())["finished"]
    assert "[Eval][Epoch 1]" in (folder / "train.log").read_text()


def test_results_stand_alone_on_standard_output():
    code = (
        "import ctypes, os, sys\n"
        "from ppcls.console import patient_console, results_alone\n"
        "with patient_console():\n"
        "    print('before')\n"
        "    with results_alone():\n"
        "        ctypes.CDLL(None).puts(b'a note')\n"
        "        print('result')\n"
        "        os.write(1, b'another\\n')\n"
        "    print('after')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "before\nresult\nafter\n"
    assert sorted(done.stderr.splitlines()) == ["a note", "another"]

"""Console, progress bar and scalar files."""

import io
import json
import os
import struct
import subprocess
import sys

import pytest

from ppcls.errors import ConfigError
from ppcls.logger import (
    ScalarWriter,
    ShortLine,
    log_values,
    open_log,
    progress_bar,
    require_scalar_packages,
    setup_logging,
)

SCRIPT = """
from ppcls.logger import LOGGER, progress_bar, setup_logging
setup_logging()
bar = progress_bar(3, "epoch 1/1")
for number in range(3):
    bar.update()
    bar.refresh()
    LOGGER.info("line %d", number)
bar.close()
"""


def test_plain_lines_without_a_terminal():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert [line.partition("INFO: ")[2] for line in done.stdout.splitlines()] == [
        "line 0",
        "line 1",
        "line 2",
    ]
    assert done.stderr == ""


def on_terminal(script):
    """Run `script` with a terminal as its three streams; return what the terminal received."""
    pty, termios, fcntl = (pytest.importorskip(name) for name in ("pty", "termios", "fcntl"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", script], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    received = b""
    while True:
        try:
            block = os.read(ours, 4096)
        except OSError:  # Linux ends the reading like this when the other side is closed
            break
        if not block:
            break
        received += block
    os.close(ours)
    assert process.wait(60) == 0
    return received.decode()


def test_a_bar_on_a_terminal_and_whole_lines_above_it():
    screen = on_terminal(SCRIPT)
    assert "epoch 1/1" in screen
    assert "3/3" in screen
    written = [
        part for part in screen.replace("\r\n", "\n").replace("\r", "\n").split("\n") if "INFO" in part
    ]
    assert [line.partition("INFO: ")[2].strip() for line in written] == ["line 0", "line 1", "line 2"]
    assert all(line.startswith("[20") for line in written)  # nothing of the bar before it


def test_no_bar_in_a_process_that_does_not_log():
    assert "epoch" not in on_terminal(SCRIPT.replace("setup_logging()", "setup_logging(quiet=True)"))


def events(folder):
    """Read TensorBoard's files: records of length, checksum, payload, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(folder.iterdir()):
        data, place = file.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            event = Event()
            event.ParseFromString(data[place + 12 : place + 12 + length])
            found.append(event)
            place += length + 16
    return found


def test_scalars_go_to_json_visualdl_and_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    LogReader = pytest.importorskip("visualdl").LogReader
    writer = ScalarWriter(tmp_path, use_visualdl=True, use_tensorboard=True)
    writer.write("train", 7, 2, {"loss": 0.25, "lr": float("nan")})
    writer.close()
    scalars = [
        (value.tag, event.step, value.simple_value)
        for event in events(tmp_path / "tensorboard")
        for value in event.summary.value
    ]
    assert scalars[0] == ("train/loss", 7, 0.25)
    assert [tag for tag, _, _ in scalars] == ["train/loss", "train/lr"]
    (record,) = (tmp_path / "vdl").iterdir()
    tags = LogReader(file_path=str(record)).get_tags()["scalar"]
    assert {tag for tag in tags if tag.startswith("train")} == {"train/loss", "train/lr"}
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert row == {"kind": "train", "epoch": 2, "step": 7, "loss": 0.25, "lr": "nan"}


def test_a_resumed_run_lets_tensorboard_forget_what_came_after_its_checkpoint(tmp_path):
    pytest.importorskip("tensorboardX")
    first = ScalarWriter(tmp_path, use_tensorboard=True)
    for step in (1, 2, 3):
        first.write("train", step, 1, {"loss": step})
    first.close()
    again = ScalarWriter(tmp_path, use_tensorboard=True, start=2)
    again.write("train", 3, 1, {"loss": 3})
    again.close()
    starts = [e.step for e in events(tmp_path / "tensorboard") if e.session_log.status == 1]
    assert starts == [3]  # TensorBoard forgets events of this step and later ones from before


@pytest.mark.parametrize(
    ("setting", "module", "title"),
    [("visualdl", "visualdl", "VisualDL"), ("tensorboard", "tensorboardX", "tensorboardX")],
)
def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch, setting, module, title):
    from ppcls import logger

    errors = {
        f"{title} is not installed": ModuleNotFoundError("no", name=module),
        rf"{title} cannot be imported \(no protobuf\)": ModuleNotFoundError("no protobuf", name="google"),
        rf"{title} cannot be imported \(descriptors\)": TypeError("descriptors"),
    }
    for text, error in errors.items():

        def broken(name, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(logger.importlib, "import_module", broken)
            require_scalar_packages()
            with pytest.raises(ConfigError, match=rf"Global.use_{setting}: {text}; .*'ppcls\[{setting}\]'"):
                ScalarWriter(tmp_path / "new", **{f"use_{setting}": True})
    assert not (tmp_path / "new").exists()


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("columns", [40, 80, 120, 300])
def test_lines_with_values_fit_a_terminal_and_stay_whole_elsewhere(monkeypatch, tmp_path, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    values = [f"value{number} {number / 7:.3f}" for number in range(30)]
    short = ShortLine("train epoch 1/9 batch 4/25", values)
    for output in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stdout", output)
        setup_logging(hold=True)
        log_values("[Train][Epoch 1/9]%s", ", ".join(values), short=short)
        open_log(tmp_path / "train.log")
        (line,) = output.getvalue().splitlines()
        if output.isatty():
            assert len(line) <= columns
            assert "train epoch 1/9 batch 4/25" in line
            assert len(line) + len("  value29 4.143") > columns or line.endswith(values[-1])
        else:
            assert line.endswith(f"[Train][Epoch 1/9]{', '.join(values)}")
        assert f"[Train][Epoch 1/9]{', '.join(values)}" in (tmp_path / "train.log").read_text()


def test_a_notebook_gets_short_lines_and_none_that_its_bar_shows(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", sys)
    output = io.StringIO()
    monkeypatch.setattr(sys, "stdout", output)
    setup_logging()
    log_values("[Train][Iter: 1/9] loss: 1", short=ShortLine("batch 1/9", ["loss 1"], in_bar=True))
    log_values("[Train][Avg] loss: 1", short=ShortLine("epoch 1/9", ["loss 1"]))
    (line,) = output.getvalue().splitlines()
    assert line.endswith("] epoch 1/9  loss 1")
    bar = progress_bar(3, "epoch")
    assert not bar.disable
    bar.close()

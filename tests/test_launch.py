"""What `ppcls train --nproc` makes of a machine and of logs; whole jobs are in tests/dist."""

import os
import signal
import subprocess
import sys
import tempfile
import types

import paddle
import pytest

from ppcls import launch
from ppcls.cli import main
from ppcls.distributed import LOST, STARTED
from ppcls.errors import ConfigError
from ppcls.machines import Machines


def test_the_process_with_the_cause_is_shown(tmp_path):
    logs = {
        0: ["[Train] ...", f"ppcls: process 0 of 3 {LOST} (Connection reset by peer)"],
        1: ["ppcls: an older error", "going on", "ppcls: cat.png: cannot be read", "  look at it"],
        2: ["Traceback (most recent call last):", "  File x", f"ppcls.errors.TrainingError: {LOST}"],
    }
    assert launch._explain(logs, tmp_path).splitlines() == [
        f"ppcls: process 1 of 3 ({tmp_path}/workerlog.1):",
        "  ppcls: cat.png: cannot be read",
        "    look at it",
    ]


def test_without_a_cause_the_last_lines_of_all_are_shown(tmp_path):
    text = launch._explain({0: [f"line {n}" for n in range(9)], 1: []}, tmp_path)
    assert text.startswith("ppcls: no process says why it ended. One was probably killed")
    assert "  line 4\n  line 5\n  line 6\n  line 7\n  line 8\nppcls: process 1 of 2" in text
    assert "line 3" not in text


# What Paddle writes after SIGTERM.
ENDED = ["FatalError: `Termination signal` is detected by the operating system.", "  [TimeInfo: ...]", ""]


@pytest.mark.parametrize(
    ("logs", "announced", "blamed", "shown"),
    [
        ({0: ENDED, 1: ["step 3"]}, {}, "Process 1", [1]),  # the launcher ended process 0
        ({0: ["INFO: SIGTERM: finishing the step, then saving"], 1: ["step 3"]}, {}, "Process 1", [1]),
        ({0: [f"ppcls: process 0 of 2 {LOST}"], 1: []}, {0: 1}, "Process 1", [1]),
        ({0: ["step 3"], 1: ["step 3"], 2: ENDED}, {}, "One", [0, 1]),
        ({0: ENDED, 1: ENDED}, {}, "One", [0, 1]),
    ],
)
def test_a_killed_process_is_named_not_those_that_the_launcher_ended(logs, announced, blamed, shown):
    text = launch._explain(logs, None, announced=announced)
    assert text.startswith(f"ppcls: no process says why it ended. {blamed} was probably killed")
    assert [number for number in logs if f"ppcls: process {number} of" in text] == shown


def test_the_killed_process_may_be_on_another_machine():
    text = launch._explain({0: ENDED, 1: ["step 3"]}, None, 4)
    assert "another machine. One was probably killed" in text


@pytest.mark.parametrize(
    ("code", "causes", "codes", "expected"),
    [
        (241, [1], {1: 2}, 2),  # the launcher ended process 0 by SIGTERM
        (1, [2, 3], {0: 1, 2: 2, 3: 1}, 2),  # process 0 merely lost the connection
        (-15, [0], {}, 1),  # a traceback
        (247, [], {1: 1}, 137),
        (-9, [], {}, 137),
        (241, [], {}, 1),  # process 1 was killed
        (143, [], {}, 143),
        (3, [], {}, 3),
    ],
)
def test_the_exit_code_is_that_of_the_cause(code, causes, codes, expected):
    assert launch._code_of_the_cause(code, causes, codes) == expected


def test_processes_announce_their_exit_codes(tmp_path, monkeypatch, capsys):
    with launch._WorkerLogs(tmp_path, 3) as logs:
        monkeypatch.setenv(STARTED, str(logs.started))
        monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
        monkeypatch.setenv("PADDLE_TRAINERS_NUM", "3")
        assert main(["train", "-c", str(tmp_path / "nowhere.yaml")]) == 2
        assert logs.codes() == {1: 2}
        assert not logs.started.exists()


def test_a_log_that_is_not_kept_is_not_named():
    assert launch._explain({0: ["ppcls: x"]}, None) == "ppcls: process 0 of 1:\n  ppcls: x"


def test_only_what_is_new_is_read(tmp_path):
    file = tmp_path / "workerlog.0"
    assert launch._read_from(file, 0) == b""
    file.write_bytes(b"before\n\xff now\n")
    assert launch._read_from(file, 7) == b"\xff now\n"
    assert launch._read(file) == ["before", "\ufffd now"]


class Launcher:
    """Writes logs like processes do, and ends after as many looks as there are pieces."""

    def __init__(self, logs, pieces, code):
        self.logs, self.pieces, self.code = logs, list(pieces), code

    def wait(self, timeout):
        if not self.pieces:
            return self.code
        for number, text in self.pieces.pop(0).items():
            if text is None:
                self.logs.started.touch()
            else:
                with self.logs.files[number].open("a") as stream:
                    stream.write(text)
        raise subprocess.TimeoutExpired("", timeout)


def test_logs_are_kept_from_the_start_of_the_run_on(tmp_path):
    target = tmp_path / "output/log"
    pieces = [{0: "building\n", 1: "building too\n"}, {0: None}, {1: "step\n"}]
    with launch._WorkerLogs(target, 2) as logs:
        launcher = Launcher(logs, pieces[:1], 3)
        assert logs.follow(launcher) == 3
        assert not (tmp_path / "output").exists()
        launcher.pieces = pieces[1:]
        assert logs.follow(launcher) == 3
        assert logs.folder.is_dir()
    assert not logs.folder.exists()
    assert (target / "workerlog.0").read_text() == "building\n"
    assert (target / "workerlog.1").read_text() == "building too\nstep\n"
    with launch._WorkerLogs(target, 2) as logs:
        logs.follow(Launcher(logs, [{0: None}, {0: "again\n"}], 0))
    assert (target / "workerlog.0").read_text() == "building\nagain\n"
    (tmp_path / "file").write_text("")
    with launch._WorkerLogs(tmp_path / "file/log", 1) as logs:
        assert logs.follow(Launcher(logs, [{0: None}, {0: "lost\n"}], 0)) == 0


def test_no_room_for_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="--nproc: no folder for temporary files .*set TMPDIR"):
        launch._WorkerLogs(tmp_path, 1)


@pytest.mark.parametrize(
    ("gpus", "device", "used"),
    [(4, "auto", True), (4, "cpu", False), (0, "auto", False), (None, "auto", False)],
)
def test_the_launcher_gets_what_the_machine_can_run(monkeypatch, tmp_path, gpus, device, used):
    """`gpus` None stands for a CPU build of Paddle, which crashes on --gpus and on CUDA_VISIBLE_DEVICES."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("PYTHONPATH", "mine")
    monkeypatch.setattr(paddle.device, "is_compiled_with_cuda", lambda: gpus is not None)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: gpus)
    command, environment = launch._command(2, device, tmp_path)
    assert ("--gpus" in command) == used
    if used:
        assert command[command.index("--gpus") + 1] == "0,1"
    assert ("CUDA_VISIBLE_DEVICES" in environment) == (gpus is not None)
    assert environment["PYTHONPATH"].endswith("mine")
    if used:
        with pytest.raises(ConfigError, match="5 processes need a GPU each, and Paddle sees 4"):
            launch._command(5, device, tmp_path)


def test_logs_of_commands_that_were_killed_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    for name in (f"ppcls-log-{ended.pid}-x", f"ppcls-log-{os.getpid()}-y", "ppcls-log-z", "ppcls-log-z-1"):
        (tmp_path / name).mkdir()
    with launch._WorkerLogs(tmp_path, 1):
        left = {path.name for path in tmp_path.iterdir()}
    assert f"ppcls-log-{ended.pid}-x" not in left
    assert {f"ppcls-log-{os.getpid()}-y", "ppcls-log-z", "ppcls-log-z-1"} < left


@pytest.fixture
def started(monkeypatch):
    """Return a function that starts a script in the place of Paddle's launcher and returns the exit code."""

    def start(script, logs, **options):
        def command(processes, device, folder):
            return [sys.executable, "-c", f"folder = {str(folder)!r}\n{script}"], dict(os.environ)

        monkeypatch.setattr(launch, "_command", command)
        return launch.launch(["train"], 2, "cpu", logs, **options)

    return start


FAILING = """
import os, sys
open(folder + "/workerlog.1", "w").write("ppcls: cat.png: cannot be read\\n")
open(folder + "/code.1", "w").write("2")
if {started}:
    open(os.environ["PPCLS_STARTED"], "w")
sys.exit(1)
"""


@pytest.mark.parametrize("past_start", [True, False])
def test_a_failed_job_says_why_and_where_its_logs_are(started, tmp_path, capsys, past_start):
    assert started(FAILING.format(started=past_start), tmp_path / "log") == 2
    place = f" ({tmp_path}/log/workerlog.1)" if past_start else ""
    assert capsys.readouterr().err == f"ppcls: process 1 of 2{place}:\n  ppcls: cat.png: cannot be read\n"
    assert (tmp_path / "log/workerlog.1").exists() == past_start


@pytest.mark.parametrize("code", [0, 130, 143])
def test_a_job_that_ended_in_order_says_nothing(started, tmp_path, capsys, code):
    assert started(f"import sys; sys.exit({code})", tmp_path / "log") == code
    assert capsys.readouterr() == ("", "")


def test_a_wrong_number_of_threads_is_reported_before_the_processes_hide_it(
    started, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(launch.threads, "MISTAKE", "OMP_NUM_THREADS=many: expected a number")
    assert started("", tmp_path / "log") == 0
    assert capsys.readouterr().err == "ppcls: OMP_NUM_THREADS=many: expected a number\n"


# Ends with the next of some exit codes at every start.
IN_TURN = """
import pathlib, sys
file = pathlib.Path({file!r})
codes = file.read_text().split()
file.write_text(" ".join(codes[1:]))
sys.exit(int(codes[0]))
"""


@pytest.mark.parametrize(
    ("codes", "restarts", "expected", "starts"),
    [
        ([1, 247, 0, 0], 5, 0, 3),
        ([1, 1, 1, 1], 2, 1, 3),
        ([1, 0], 0, 1, 1),
        ([2, 0], 5, 2, 1),
        ([143, 0], 5, 143, 1),
        ([1, 130, 0], 5, 130, 2),
        ([0, 0], 5, 0, 1),
    ],
)
def test_what_failed_is_started_again(
    started, tmp_path, capsys, monkeypatch, codes, restarts, expected, starts
):
    """But nothing that a user has to change or has ended."""
    monkeypatch.setattr(launch, "_PAUSE", 0.0)
    file = tmp_path / "codes"
    file.write_text(" ".join(map(str, codes)))
    assert started(IN_TURN.format(file=str(file)), tmp_path / "log", restarts=restarts) == expected
    assert len(file.read_text().split()) == len(codes) - starts
    assert capsys.readouterr().err.count(f" of {restarts} in 0 s, because the processes ended") == starts - 1


def test_processes_are_numbered_over_all_machines(started, tmp_path, capsys):
    machines = Machines(("192.0.2.1", "192.0.2.2"), "192.0.2.2")
    code = started(FAILING.format(started=True), tmp_path / "log", machines=machines)
    assert code == 1  # code.1 would be that of a process on the other machine
    place = f" ({tmp_path}/log/workerlog.3)"
    assert capsys.readouterr().err == f"ppcls: process 3 of 4{place}:\n  ppcls: cat.png: cannot be read\n"
    assert (tmp_path / "log/workerlog.3").exists()


def test_ctrl_c_does_not_reach_the_launcher_itself(started, tmp_path):
    """A terminal sends it to a whole session; the launcher gets what is passed on."""
    assert started("import os, sys; sys.exit(os.getsid(0) != os.getpid())", tmp_path / "log") == 0


def test_a_job_ended_by_a_signal_ends_with_its_number(started, tmp_path, capsys):
    """The signal is repeated: the first ones may come before anything is there to pass them on."""
    script = f"""
import os, signal, time
for _ in range(100):
    os.kill({os.getpid()}, signal.SIGTERM)
    time.sleep(0.05)
"""
    before = signal.signal(signal.SIGTERM, lambda signum, frame: None)
    try:
        assert started(script, tmp_path / "log") == 128 + signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
@pytest.mark.parametrize("nohup", [True, False])
def test_signals_are_passed_on_in_order(monkeypatch, nohup):
    passed = []
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    hangup = signal.SIG_IGN if nohup else signal.SIG_DFL
    signal.signal(signal.SIGHUP, hangup)
    sent = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    try:
        with launch.passing_signals_to(types.SimpleNamespace(send_signal=passed.append)) as received:
            for signum in sent:
                os.kill(os.getpid(), signum)
        assert signal.getsignal(signal.SIGHUP) == hangup
    finally:
        signal.signal(signal.SIGHUP, before[signal.SIGHUP])
    count = 2 if nohup else 3
    assert received == sent[:count]
    assert passed == [signal.SIGINT, signal.SIGTERM, signal.SIGTERM][:count]
    assert {n: signal.getsignal(n) for n in before} == before


INTERRUPTED_IMPORT = """
try:
    raise KeyboardInterrupt
except KeyboardInterrupt as error:
    raise ImportError("initialization failed") from error
"""


@pytest.mark.parametrize("module", ["raise KeyboardInterrupt", INTERRUPTED_IMPORT])
def test_ctrl_c_while_the_launcher_starts_shows_no_traceback(tmp_path, module):
    (tmp_path / "paddle").mkdir()
    (tmp_path / "paddle" / "__init__.py").write_text(module)
    code = "from ppcls.launch import run_launcher; run_launcher()"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code, str(os.getpid())],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "ppcls: interrupted\n")

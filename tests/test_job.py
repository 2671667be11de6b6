"""The environment variables by which a process learns that it is one of several."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ppcls import job
from ppcls.errors import ConfigError

TWO = {
    "PADDLE_TRAINER_ID": "1",
    "PADDLE_TRAINERS_NUM": "2",
    "PADDLE_MASTER": "10.0.0.1:7000",
    "PADDLE_TRAINER_ENDPOINTS": "10.0.0.1:7001,10.0.0.2:7002",
    "PADDLE_CURRENT_ENDPOINT": "10.0.0.2:7002",
}
ROOT = Path(__file__).parents[1]


@pytest.fixture
def given(monkeypatch):
    """Return a function that sets the environment: these variables and none else of several processes."""

    def set_all(variables):
        for name in (*job.PLACE, *job.LAUNCHER, *job.NUMBERS, job.BACKEND):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


def test_what_launchers_say_is_understood(given):
    given({})
    assert job.read_job() == job.Job(0, 1)
    given(TWO)
    found = job.read_job()
    endpoints = ("10.0.0.1:7001", "10.0.0.2:7002")
    assert found == job.Job(1, 2, "10.0.0.1:7000", "PADDLE_MASTER", endpoints)
    assert found.name(0) == "process 0 (10.0.0.1:7001)"
    given(TWO | {"MASTER_ADDR": "host", "MASTER_PORT": "1"})
    assert (job.read_job().master, job.read_job().source) == ("host:1", "MASTER_ADDR:MASTER_PORT")
    given(TWO | {"MASTER_ADDR": "host"})
    assert job.read_job().source == "PADDLE_MASTER"
    given({name: value for name, value in TWO.items() if name != "PADDLE_MASTER"})
    assert job.read_job().master == "10.0.0.1:7001"  # as Paddle does it
    given({name: value for name, value in TWO.items() if name != "PADDLE_CURRENT_ENDPOINT"})
    job.read_job()
    assert os.environ["PADDLE_CURRENT_ENDPOINT"] == "10.0.0.2:7002"
    given({name: value for name, value in TWO.items() if name != "PADDLE_TRAINER_ENDPOINTS"})
    assert job.read_job().name(0) == "process 0"
    given({"PADDLE_TRAINER_ID": "0", "PADDLE_TRAINER_ENDPOINTS": "h:1"})
    assert job.read_job().size == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"PADDLE_TRAINER_ID": "abc"}, "PADDLE_TRAINER_ID='abc': expected a whole number of at least 0"),
        ({"PADDLE_TRAINER_ID": ""}, "PADDLE_TRAINER_ID='': expected a whole number"),
        ({"PADDLE_TRAINER_ID": "-1"}, "PADDLE_TRAINER_ID='-1': expected a whole number"),
        ({"PADDLE_TRAINER_ID": "1" * 5000}, "expected a whole number"),
        ({"PADDLE_TRAINER_ID": "²"}, "expected a whole number"),
        ({"PADDLE_TRAINERS_NUM": "0"}, "PADDLE_TRAINERS_NUM='0': expected a whole number of at least 1"),
        ({"PADDLE_TRAINERS_NUM": "2.0"}, "PADDLE_TRAINERS_NUM='2.0': expected a whole number"),
        ({"PADDLE_TRAINER_ID": "2"}, r"PADDLE_TRAINER_ID=2: .*below that of .*\(PADDLE_TRAINERS_NUM=2\)"),
        (
            {"PADDLE_TRAINERS_NUM": None},
            "PADDLE_TRAINER_ID=1: .*PADDLE_TRAINERS_NUM is not set, which means 1",
        ),
        ({"PADDLE_TRAINERS_NUM": "3"}, "ENDPOINTS=10.*expected one address for each process .*NUM=3"),
        (
            {"PADDLE_TRAINERS_NUM": None, "PADDLE_TRAINER_ID": None},
            "ENDPOINTS=10.*NUM is not set, which means 1",
        ),
        ({"PADDLE_TRAINER_ENDPOINTS": "a,b"}, "ENDPOINTS=a,b: expected host:port, such as .*, got 'a'"),
        ({"PADDLE_TRAINER_ENDPOINTS": "h:1,h:1"}, "ENDPOINTS=h:1,h:1: expected a different address"),
        ({"PADDLE_CURRENT_ENDPOINT": "10.0.0.1:7001"}, "CURRENT_ENDPOINT=.*expected 10.0.0.2:7002, which"),
        ({"PADDLE_CURRENT_ENDPOINT": "x"}, "PADDLE_CURRENT_ENDPOINT=x: expected host:port"),
        ({"PADDLE_CURRENT_ENDPOINT": None, "PADDLE_TRAINER_ENDPOINTS": None}, "are not set, but PADDLE_TR"),
        ({"PADDLE_MASTER": None, "PADDLE_TRAINER_ENDPOINTS": None}, "neither PADDLE_MASTER nor"),
        ({"PADDLE_MASTER": ""}, "PADDLE_MASTER=: expected host:port"),
        ({"PADDLE_MASTER": ":70"}, "PADDLE_MASTER=:70: expected host:port"),
        ({"PADDLE_MASTER": "h:0"}, "PADDLE_MASTER=h:0: expected host:port"),
        ({"PADDLE_MASTER": "h:65536"}, "PADDLE_MASTER=h:65536: expected host:port"),
        ({"PADDLE_MASTER": "h:1:2"}, "PADDLE_MASTER=h:1:2: expected host:port"),
        ({"MASTER_ADDR": "h", "MASTER_PORT": "x"}, "MASTER_ADDR:MASTER_PORT=h:x: expected host:port"),
        ({"PADDLE_DISTRI_BACKEND": "mpi"}, "PADDLE_DISTRI_BACKEND=mpi: expected one of auto, gloo"),
        ({"PADDLE_PG_TIMEOUT": "x"}, "PADDLE_PG_TIMEOUT='x': expected a whole number"),
        ({"FLAGS_stop_check_timeout": "1e9"}, "FLAGS_stop_check_timeout='1e9': expected a whole number"),
    ],
)
def test_what_makes_no_sense_is_named(given, change, message):
    given({name: value for name, value in (TWO | change).items() if value is not None})
    with pytest.raises(ConfigError, match=message):
        job.read_job()


def test_a_port_may_be_the_highest(given):
    given(TWO | {"PADDLE_MASTER": "h:65535"})
    assert job.split_endpoint(job.read_job().master, "x") == ("h", 65535)


def test_a_command_in_one_process_sees_nothing_of_the_others(given):
    given(TWO | {"PADDLE_PG_TIMEOUT": "x"})
    with job.alone():
        assert job.read_job() == job.Job(0, 1)
    assert os.environ["PADDLE_TRAINERS_NUM"] == "2"
    assert os.environ["PADDLE_PG_TIMEOUT"] == "x"


def test_patience_is_limited_while_paddle_connects(given):
    given({})
    with job.limited_patience():
        assert os.environ[job.PATIENCE] == "40"
    assert job.PATIENCE not in os.environ
    given({job.PATIENCE: "300"})
    with job.limited_patience():
        assert job.patience() == 300
    assert os.environ[job.PATIENCE] == "300"


CHILD = """
import os, sys, time
from ppcls import job
{call}
print(os.getpid(), flush=True)
time.sleep(60)
"""
PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {child!r}])
time.sleep(60)
"""


def parents_child(call, **environment):
    """Start a process that starts another one, which calls `call`; return it and the number of the other."""
    script = PARENT.format(child=CHILD.format(call=call))
    environment = {n: v for n, v in os.environ.items() if n != "PADDLE_BACKUP_ENV_PATH"} | environment
    environment["PYTHONPATH"] = str(ROOT)
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    )
    return parent, int(parent.stdout.readline())


def is_there(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")
@pytest.mark.parametrize("started_by_launcher", [True, False])
def test_a_process_of_a_launcher_ends_with_it_and_another_does_not(started_by_launcher):
    """Also while it is stopped. A shell that starts processes by hand may end before them."""
    launcher = {"PADDLE_BACKUP_ENV_PATH": "x"} if started_by_launcher else {}
    parent, child = parents_child("job.end_with_launcher()", **launcher)
    try:
        os.kill(child, signal.SIGSTOP)
        parent.kill()
        parent.wait()
        end = time.monotonic() + (20 if started_by_launcher else 0.5)
        while is_there(child) and time.monotonic() < end:
            time.sleep(0.02)
        assert is_there(child) is not started_by_launcher
    finally:
        if is_there(child):
            os.kill(child, signal.SIGKILL)
        parent.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part is Linux's")
def test_a_process_whose_launcher_is_gone_already_ends_at_once():
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PADDLE_BACKUP_ENV_PATH": "x",
        "PPCLS_LAUNCHER": "1",
    }
    script = "from ppcls import job; job.end_with_launcher(); print('here')"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    child = "import os; from ppcls import job; job.end_with_launcher(); print('PPCLS_LAUNCHER' in os.environ)"
    script = "import subprocess, sys; from ppcls import job; job.announce_launcher(); "
    script += f"sys.exit(subprocess.call([sys.executable, '-c', {child!r}]))"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "False\n")


OWN_HANDLER = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
import ppcls
ppcls.create_model("resnet8", class_num=2)
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_sigterm_does_what_it_did_before_paddle_was_imported():
    """Paddle's own report asks for memory; a process that was just asking for some would wait endlessly."""
    command = [sys.executable, "-W", "ignore", "-c", OWN_HANDLER]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 7, done.stderr

"""How many threads are chosen, and memory that stays with the process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ppcls.cpu.memory import keep_freed_memory
from ppcls.cpu.threads import NOT_CHOSEN, find_mistake, read_choice, suggest_threads


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1), ("8", 8), (" 4 ", 4), ("4,2", 4), ("", None), ("0", None), ("-2", None), ("many", None)],
)
def test_the_choice_of_the_user(text, number):
    assert read_choice({"OMP_NUM_THREADS": text}) == number


def test_no_choice():
    assert read_choice({}) is None
    assert read_choice({"OMP_NUM_THREADS": "1", NOT_CHOSEN: "1"}) is None


@pytest.mark.parametrize(
    ("cores", "processes", "loader", "threads"),
    [
        (1, 1, 4, 1),
        (2, 1, 4, 2),
        (2, 2, 4, 1),
        (2, 4, 4, 1),
        (3, 1, 4, 2),
        (4, 1, 4, 3),
        (4, 1, 0, 4),
        (4, 2, 4, 2),
        (8, 1, 2, 6),
        (8, 1, 8, 5),
        (16, 1, 4, 12),
        (64, 8, 2, 6),
    ],
)
def test_threads_share_the_cores_with_processes_and_loading(cores, processes, loader, threads):
    assert suggest_threads(cores, processes, loader) == threads


def test_a_process_never_gets_more_threads_than_its_share():
    for cores in range(1, 70):
        for processes in range(1, 9):
            for loader in (0, 1, 4, 100):
                threads = suggest_threads(cores, processes, loader)
                assert 1 <= threads <= max(1, cores // processes)


@pytest.mark.parametrize("text", ["many", "0", "-3", "1e3"])
def test_a_choice_that_is_no_number_is_reported(text):
    message = find_mistake({"OMP_NUM_THREADS": text})
    assert f"OMP_NUM_THREADS={text}: expected a whole number above 0" in message


@pytest.mark.parametrize("environment", [{}, {"OMP_NUM_THREADS": ""}, {"OMP_NUM_THREADS": "4,2"}], ids=str)
def test_other_choices_are_not_reported(environment):
    assert find_mistake(environment) is None
    assert find_mistake({"OMP_NUM_THREADS": "0", NOT_CHOSEN: "1"}) is None


SCRIPT = """
import os, ppcls
from ppcls.cpu import threads
import paddle
print(threads.CHOSEN, os.environ["OMP_NUM_THREADS"])
"""


@pytest.mark.parametrize(
    ("given", "printed"),
    [({}, "None 1"), pytest.param({"OMP_NUM_THREADS": "1"}, "1 1", marks=pytest.mark.slow)],
    ids=str,
)
def test_the_choice_is_read_before_paddle_writes_the_variable(given, printed):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    done = subprocess.run(command, env={**environment, **given}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == printed


GIVEN = ({"PPCLS_MALLOC": "off"}, {"MALLOC_TRIM_THRESHOLD_": "1"}, {"GLIBC_TUNABLES": "glibc.malloc.check=1"})


@pytest.mark.parametrize("environment", GIVEN, ids=str)
def test_thresholds_of_the_user_stay(environment, monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("the C library was touched"))
    assert not keep_freed_memory(environment)


class Library:
    """A C library that takes thresholds up to a size, and notes them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken: dict[int, int] = {}

    def gnu_get_libc_version(self) -> bytes:
        return b"2.36"

    def mallopt(self, name: int, size: int) -> int:
        if size <= self.most:
            self.taken[name] = size
        return int(size <= self.most)


@pytest.mark.parametrize(("most", "megabytes"), [(2**30, 256), (2**25, 32)])
def test_the_largest_thresholds_that_the_library_takes(most, megabytes, monkeypatch):
    library = Library(most)
    monkeypatch.setattr("ctypes.CDLL", lambda name: library)
    monkeypatch.setattr("sys.platform", "linux")
    assert keep_freed_memory({})
    assert library.taken == {-1: megabytes * 2**20, -3: megabytes * 2**20}


def test_another_library_is_left_alone(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert not keep_freed_memory({})
    monkeypatch.setattr("sys.platform", "darwin")
    assert not keep_freed_memory({})

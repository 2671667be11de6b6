"""What is read of the processor, from made-up files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ppcls.cpu.processor import available_cores, computes_bfloat16, processor_name, read_processor

CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 9R14
flags\t\t: fpu avx2 fma
power management:

processor\t: 1
vendor_id\t: SomebodyElse
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A file system of a machine with eight processors, of which this process may use the first four."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("avx512f avx512bw avx512dq avx512vl", True),
        ("avx2 avx512f avx512bw avx512dq avx512vl amx_bf16", True),
        ("avx512f avx512bw avx512dq", False),
        ("avx2 fma", False),
        ("", False),
    ],
)
def test_bfloat16_needs_avx512(root, flags, expected):
    write(root, {"proc/cpuinfo": f"processor: 0\nflags: {flags}\n"})
    assert computes_bfloat16(root) is expected


def test_the_first_processor_is_read(root):
    write(root, {"proc/cpuinfo": CPUINFO})
    assert processor_name(root) == "AMD EPYC 9R14"
    found = read_processor(root)
    assert found["vendor_id"] == "AuthenticAMD"
    assert found["power management"] == ""


def test_without_the_file_nothing_is_known(root):
    assert read_processor(root) == {}
    assert processor_name(root) == ""
    assert available_cores(root) == 4


@pytest.mark.parametrize("name", ["core_cpus_list", "thread_siblings_list"])
def test_two_threads_of_a_core_count_once(root, name):
    for number, siblings in enumerate(["0,4", "1,5", "0,4", "3,7"]):
        write(root, {f"sys/devices/system/cpu/cpu{number}/topology/{name}": f"{siblings}\n"})
    assert available_cores(root) == 3


GROUP = {"proc/self/cgroup": "0::/a/b\n"}
OLD = {"proc/self/cgroup": "12:memory:/other\n4:cpu,cpuacct:/docker/x\n"}
OLD_ROOT = "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({**GROUP, "sys/fs/cgroup/a/b/cpu.max": "200000 100000\n"}, 2),
        ({**GROUP, "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 4),
        ({**GROUP, "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 1),
        ({**GROUP, "sys/fs/cgroup/a/b/cpu.max": "20000 100000\n"}, 1),
        ({**GROUP, "sys/fs/cgroup/a/b/cpu.max": "900000 100000\n"}, 4),
        (
            {
                **GROUP,
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
                "sys/fs/cgroup/a/cpu.max": "300000 100000",
            },
            3,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/../..\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        ({**GROUP, "sys/fs/cgroup/a/b/cpu.max": "nonsense\n"}, 4),
        ({**GROUP, "sys/fs/cgroup/a/b/cpu.max": "100000 0\n"}, 4),
        ({**GROUP, "sys/fs/cgroup/a/b/cpu.max": "250000 100000\n"}, 2),
        (
            {
                **OLD,
                f"{OLD_ROOT}/docker/x/cpu.cfs_quota_us": "200000",
                f"{OLD_ROOT}/docker/x/cpu.cfs_period_us": "100000",
            },
            2,
        ),
        (
            {
                **OLD,
                f"{OLD_ROOT}/docker/x/cpu.cfs_quota_us": "-1",
                f"{OLD_ROOT}/docker/x/cpu.cfs_period_us": "100000",
            },
            4,
        ),
        # Inside a container its group is the root of what can be seen.
        ({**OLD, f"{OLD_ROOT}/cpu.cfs_quota_us": "300000", f"{OLD_ROOT}/cpu.cfs_period_us": "100000"}, 3),
    ],
)
def test_a_control_group_limits_the_cores(root, files, cores):
    write(root, files)
    assert available_cores(root) == cores


def test_here_there_is_at_least_one():
    assert 1 <= available_cores() <= (os.cpu_count() or 1)

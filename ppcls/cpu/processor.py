"""What the operating system reports about the processor, and how much of it this process may use."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path("/")


def read_processor(root: Path = ROOT) -> dict[str, str]:
    """Return the entries of ``/proc/cpuinfo`` for the first processor; empty if there is no such file."""
    found: dict[str, str] = {}
    with (
        contextlib.suppress(OSError),
        (root / "proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines,
    ):
        for line in lines:  # the system makes this file while it is read, so stop after the first processor
            name, colon, value = line.partition(":")
            if not colon and found:
                break
            found[name.strip()] = value.strip()
    return found


def processor_name(root: Path = ROOT) -> str:
    """Return the processor's name, such as ``AMD EPYC 9R14``; empty if it is not known."""
    return read_processor(root).get("model name", "")


def computes_bfloat16(root: Path = ROOT) -> bool:
    """Tell whether oneDNN computes in bfloat16 on this processor: it needs AVX-512 (F, BW, DQ and VL).

    With ``avx512_bf16`` or ``amx_bf16`` besides it is faster than float32; otherwise about as fast.
    """
    flags = set(read_processor(root).get("flags", "").split())
    return {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags


def available_cores(root: Path = ROOT) -> int:
    """Return how many cores this process may use, at least 1.

    The number of cores that the process is bound to, with hyper-threads of a core counted once, but not more
    than the quota of its control group, such as a container.
    """
    if hasattr(os, "sched_getaffinity"):
        processors = os.sched_getaffinity(0)
    else:
        processors = set(range(os.cpu_count() or 1))
    cores = len({_siblings(number, root) for number in processors})
    quotas = [int(quota) for quota in _quotas(root)]
    return max(1, min([cores, *quotas]))


def _siblings(processor: int, root: Path) -> str:
    """Return the list of processors that share a core with this one, as the kernel writes it."""
    topology = root / f"sys/devices/system/cpu/cpu{processor}/topology"
    for name in ("core_cpus_list", "thread_siblings_list"):  # the second is the older name
        with contextlib.suppress(OSError):
            return (topology / name).read_text().strip()
    return str(processor)


def _quotas(root: Path) -> Iterator[float]:
    """Yield the cores that each control group above this process may use, where it has a limit."""
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:  # version 2
                yield from _limits(
                    root, ("sys/fs/cgroup", "sys/fs/cgroup/unified"), path, _quota_of_version_2
                )
            elif "cpu" in controllers.split(","):
                mounts = ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/cpuacct,cpu")
                yield from _limits(root, mounts, path, _quota_of_version_1)


def _limits(
    root: Path, mounts: tuple[str, ...], path: str, read: Callable[[Path], float | None]
) -> Iterator[float]:
    """Yield the limits of a group and of its parents; inside a container the path may not exist."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    for mount in mounts:
        for depth in range(len(parts) + 1):
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
                quota = read((root / mount).joinpath(*parts[:depth]))
                if quota is not None:
                    yield quota


def _quota_of_version_2(group: Path) -> float | None:
    quota, period = (group / "cpu.max").read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _quota_of_version_1(group: Path) -> float | None:
    quota = int((group / "cpu.cfs_quota_us").read_text())
    return None if quota <= 0 else quota / int((group / "cpu.cfs_period_us").read_text())

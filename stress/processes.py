"""CPU time and memory of processes, ours and others. Needs Linux."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import Final

CORES: Final = len(os.sched_getaffinity(0))

_TICKS: Final = os.sysconf("SC_CLK_TCK")
#: Fields of /proc/PID/stat behind the program's name: CPU of the children that it has waited for.
_CHILDREN_CPU: Final = slice(13, 15)


def cpu(pid: int) -> float:
    """Return the CPU seconds of all threads of a process and of the children that it has waited for.

    Raises ``OSError`` when it is gone.
    """
    # The clock of another process, as clock_getcpuclockid(3) names it: nanoseconds, where /proc has 10 ms.
    own = time.clock_gettime((~pid << 3) | 2)
    return own + sum(map(int, _stat(pid)[_CHILDREN_CPU])) / _TICKS


def usage(pids: Iterable[int]) -> dict[int, float]:
    """Return pid → CPU seconds so far, of those that live."""
    found = {}
    for pid in pids:
        try:
            found[pid] = cpu(pid)
        except OSError:
            continue
    return found


def used(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """Return the CPU seconds between two `usage` readings; who came in between counts from its start."""
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def busy() -> float:
    """Return the seconds that all cores were busy so far, or taken away by the host of a virtual machine."""
    user, nice, system, _idle, _waiting, *rest = map(int, read("/proc/stat").splitlines()[0].split()[1:9])
    return (user + nice + system + sum(rest)) / _TICKS


def family(pid: int) -> list[int]:
    """Return a process and all its living descendants, parents first."""
    found = [pid]
    for each in found:
        found += children(each)
    return found


def children(pid: int) -> list[int]:
    """Return the direct children of a process; none when it is gone."""
    text = read(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in text.split()]


def name(pid: int) -> str:
    """Return the short name that the kernel knows a process by; empty when it is gone."""
    return read(f"/proc/{pid}/comm").strip()


def peak_memory(pid: int) -> int:
    """Return the most bytes that a process has had resident; 0 when it is gone."""
    for line in read(f"/proc/{pid}/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _stat(pid: int) -> list[str]:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def read(path: str) -> str:
    """Return the text of a file; empty when there is none, or it can not be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""

"""Finding and stopping everything that a test started, whatever the test did.

A test's processes are known by a mark in their environment, which children inherit, supervisors that
detach themselves included; by files that they hold open below the test's state directory, which finds forked
children too; and by being our children. Needs ``/proc``; elsewhere only what a test stops by itself is stopped.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterator
from contextlib import suppress

from tests.helpers.waiting import wait_until

MARK = "REDISLOGKIT_TEST_ID"
#: Pids that outlive a test on purpose.
SHARED: set[int] = set()
# Started once per process by multiprocessing and used by later tests too; they end with us.
_SHARED_HELPERS = (b"resource_tracker", b"forkserver")


def is_running(pid: int) -> bool:
    """True while ``pid`` exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def stop(process: subprocess.Popen[str] | subprocess.Popen[bytes], timeout: float = 5.0) -> int:
    """Terminate, wait, kill, wait; return the exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
    code = process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    return code


def kill(pid: int) -> None:
    """SIGKILL, and wait until it is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid), what=f"process {pid} ends after SIGKILL")


def started(mark: str, directory: str = "", before: Collection[int] = ()) -> list[int]:
    """Return the pids of a test's processes: marked, or with open files below ``directory``, or our children.

    ``before`` are children that were there before the test.
    """
    others = (pid for pid in _pids() if pid != os.getpid() and pid not in SHARED)
    return [pid for pid in others if _belongs(pid, mark, directory, before)]


def children() -> set[int]:
    """Return the pids of our direct children."""
    return {pid for pid in _pids() if _parent(pid) == os.getpid()}


def reap(pids: Collection[int], timeout: float = 3.0) -> None:
    """Terminate, wait, kill, wait: for processes that need not be our children."""
    for pid in pids:
        for number in (signal.SIGTERM, signal.SIGCONT):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
    end = time.monotonic() + timeout
    while any(is_running(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.005)
    for pid in pids:
        kill(pid)


def reap_all(mark: str, directory: str = "", before: Collection[int] = ()) -> None:
    """`reap` all that a test started, and what those start meanwhile."""
    for _ in range(5):
        pids = started(mark, directory, before)
        if not pids:
            return
        reap(pids)
    raise AssertionError(f"processes of test {mark} keep coming back: {started(mark, directory, before)}")


def _pids() -> Iterator[int]:
    with suppress(FileNotFoundError):
        yield from (int(name) for name in os.listdir("/proc") if name.isdigit())


def _belongs(pid: int, mark: str, directory: str, before: Collection[int]) -> bool:
    parent = _parent(pid)
    if parent == os.getpid() and (pid in before or _is_shared_helper(pid)):
        return False
    if not is_running(pid):
        return False
    return parent == os.getpid() or _is_marked(pid, mark) or _uses(pid, directory)


def _is_marked(pid: int, mark: str) -> bool:
    return f"{MARK}={mark}".encode() in _read(pid, "environ").split(b"\0")


def _is_shared_helper(pid: int) -> bool:
    command = _read(pid, "cmdline")
    return any(helper in command for helper in _SHARED_HELPERS)


def _uses(pid: int, directory: str) -> bool:
    """True when ``pid`` has a file below ``directory`` open or mapped."""
    if not directory:
        return False
    if os.fsencode(f" {directory}/") in _read(pid, "maps"):
        return True
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{name}").startswith(f"{directory}/"):
                    return True
    return False


def _parent(pid: int) -> int:
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""

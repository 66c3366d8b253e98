"""Who and where a process is: host, boot and start time. Imports nothing but ``os`` and ``sys``."""

from __future__ import annotations

import os
import sys

_LONGEST_PROGRAM = 200


def host_name() -> str:
    """Return the name of this host, as ``Facts.host`` has it."""
    return os.uname().nodename


def boot_id() -> str:
    """Return what names this run of the kernel; empty where the system does not tell."""
    return _read("/proc/sys/kernel/random/boot_id").decode("ascii", "replace").strip()


def process_start(pid: int) -> str | None:
    """Return when process ``pid`` was started, in clock ticks since the boot.

    Together with the pid and `boot_id` it names one process for ever. None when there is no such process,
    or no ``/proc`` that tells.
    """
    # The second field is the program's name in brackets, and may hold blanks and brackets itself.
    fields = _read(f"/proc/{pid:d}/stat").rpartition(b")")[2].split()
    return fields[19].decode("ascii", "replace") if len(fields) > 19 else None


def owner() -> dict[str, object]:
    """Return what this process writes about itself into the locks it holds."""
    pid = os.getpid()
    return {
        "pid": pid,
        "host": host_name(),
        "boot_id": boot_id(),
        "start": process_start(pid),
        "program": _program(),
    }


def _program() -> str:
    # Only the program, not its arguments: those may hold secrets. A path may hold lone surrogates.
    text = f"{os.path.basename(sys.executable or 'python')} {(sys.argv or [''])[0]}".strip()
    return text.encode("utf-8", "backslashreplace").decode()[:_LONGEST_PROGRAM]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""

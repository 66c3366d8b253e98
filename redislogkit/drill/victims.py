"""Who may be hit: the supervisor that an application has launched, the children of any, and the embedded server.

Nobody is taken for ours by his name alone. The supervisor's lock says who it is, with host, boot and start time; its
children are those that the kernel says are its children. A signal goes to the process that was looked at (by a pidfd),
not to whoever has its number by then. Needs Linux.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Final, NamedTuple

from redislogkit import identity, launch, locking
from redislogkit.config import Config

SUPERVISOR: Final = "supervisor"
SERVER: Final = "server"
SHIPPER: Final = "shipper"
WRITER: Final = "writer"

_PREFIX: Final = "rlk-"
_WRITER_PREFIX: Final = "w-"


class Victim(NamedTuple):
    """A process."""

    kind: str
    pid: int
    start: str
    """When it was started, as the kernel tells it."""
    name: str
    """What it is called in messages."""


class Supervisor(NamedTuple):
    """The supervisor of a stream on this host."""

    victim: Victim
    launched: bool
    """An application has launched it; nobody runs it on purpose."""


def find_supervisor(config: Config) -> Supervisor | None:
    """Return the supervisor that holds the stream's lock, None when there is none on this host."""
    owner = locking.read_owner(launch.lock_path(config))
    pid = owner.get("pid")
    here = (owner.get("host"), owner.get("boot_id")) == (identity.host_name(), identity.boot_id())
    if not here or not isinstance(pid, int) or pid < 2:
        return None
    start = identity.process_start(pid)
    if start is None or start != owner.get("start") or _state(pid) in "ZX":
        return None
    # In its arguments, or at the end of the title that it has given itself.
    launched = b"--launched" in _read(pid, "cmdline").replace(b"\0", b" ").split()
    return Supervisor(Victim(SUPERVISOR, pid, start, "the supervisor"), launched)


def find(config: Config) -> list[Victim]:
    """Return everybody who may be hit now."""
    supervisor = find_supervisor(config)
    if supervisor is None:
        return []
    family = _children()
    victims = [supervisor.victim] if supervisor.launched else []
    for child in family.get(supervisor.victim.pid, ()):
        name = _read(child, "comm").decode("ascii", "replace").strip()
        kind = _kind(name)
        # The server's child is the server itself; what looks after it is left in peace.
        pids = family.get(child, []) if kind == SERVER else [child] if kind else []
        for pid in pids:
            start = identity.process_start(pid)
            if start is not None:
                victims.append(Victim(kind, pid, start, f"{name.removeprefix(_PREFIX)} (pid {pid})"))
    return victims


def _kind(name: str) -> str:
    role = name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else ""
    if role.startswith(_WRITER_PREFIX):
        return WRITER
    return role if role in (SERVER, SHIPPER) else ""


def send(victim: Victim, number: signal.Signals) -> bool:
    """Send a signal; False when the process is not there any more. Raises ``PermissionError``."""
    try:
        handle = os.pidfd_open(victim.pid)
    except ProcessLookupError:
        return False
    try:
        if identity.process_start(victim.pid) != victim.start:
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def _children() -> dict[int, list[int]]:
    """Parent → children, of all living processes."""
    family: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat(int(name))
            if len(fields) > 1 and fields[0] not in "ZX":
                family.setdefault(int(fields[1]), []).append(int(name))
    return family


def _state(pid: int) -> str:
    return next(iter(_stat(pid)), "X")


def _stat(pid: int) -> list[str]:
    # The second field is the program's name in brackets, and may hold blanks and brackets itself.
    return _read(pid, "stat").rpartition(b")")[2].decode("ascii", "replace").split()


def _read(pid: int, name: str) -> bytes:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()
    return b""

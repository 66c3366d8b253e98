"""Locks that last as long as a process, and the identity of their owner.

The lock is the kernel's (flock, by ``filelock``): it is free the moment its owner is dead. The owner
writes who it is into the lock file, for messages only; what it says is never used to decide anything.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from redislogkit import identity
from redislogkit.errors import LockHeldError


class OwnedLock:
    """An exclusive lock on ``path``, a file that exists only for it.

    Args:
        path: The lock file; its folder must exist.
        what: What the lock protects, for the message: ``"log file /var/log/app.log"``.
    """

    def __init__(self, path: str, what: str) -> None:
        self.path = path
        self._what = what
        import filelock  # 30 ms; an application only reads who the owner is

        self._timeout_error = filelock.Timeout
        self._lock = filelock.FileLock(path, mode=0o600, is_singleton=False)

    def acquire(self, timeout: float = 0.0) -> None:
        """Take the lock within ``timeout`` seconds. Raises ``LockHeldError``, which names the owner."""
        try:
            self._lock.acquire(timeout=timeout, poll_interval=0.02)
        except self._timeout_error:
            raise LockHeldError(
                f"{self._what} is in use by {describe(read_owner(self.path))}; "
                f"stop that process or choose another place (lock: {self.path})"
            ) from None
        with contextlib.suppress(OSError), open(self.path, "w", encoding="utf-8") as file:
            json.dump(identity.owner(), file)

    def release(self) -> None:
        """Free the lock; harmless when it is not held."""
        self._lock.release()

    def is_lost(self) -> bool:
        """True when it is not held, or would not be found: its file is gone, or another one stands in its place."""
        fd = self._lock._context.lock_file_fd
        if fd is None:
            return True
        try:
            return not os.path.samestat(os.fstat(fd), os.stat(self.path))
        except FileNotFoundError:
            return True
        except OSError:
            return False

    def abandon(self) -> None:
        """In a forked child: close its copy of the descriptor. The parent's lock stays, and ends with the parent."""
        # Newer releases of filelock have closed it after the fork, and say so here.
        context = self._lock._context
        fd, context.lock_file_fd = context.lock_file_fd, None
        if fd is not None:
            os.close(fd)

    def __enter__(self) -> OwnedLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def read_owner(path: str) -> dict[str, Any]:
    """Return what the present or last owner of a lock file wrote about itself; empty if unreadable."""
    try:
        with open(path, encoding="utf-8") as file:
            owner = json.load(file)
    except (OSError, ValueError, RecursionError):
        return {}
    return owner if isinstance(owner, dict) else {}


def describe(owner: dict[str, Any]) -> str:
    """Name an owner: ``process 4711 on web1 (python -m app)``."""
    if not owner:
        return "another process"
    return f"process {owner.get('pid')} on {owner.get('host')} ({owner.get('program')})"


def beside(path: str) -> str:
    """Lock file for the log file at ``path``: hidden, in the same folder, never renamed with it."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.lock")

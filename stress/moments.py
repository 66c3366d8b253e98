"""Wait for something to happen in a folder, to the fraction of a millisecond (inotify of Linux)."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

MODIFIED: Final = 0x002
RENAMED: Final = 0x040 | 0x080
CREATED: Final = 0x100
DELETED: Final = 0x200

_EVENT: Final = struct.Struct("iIII")
_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC


class Watch:
    """Watches one folder; to be used in ``with``. Raises ``OSError``, also where there is no inotify."""

    def __init__(self, folder: str, events: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "inotify_init1"):
            raise OSError(errno.ENOSYS, "this system has no inotify")
        self._fd = _checked(libc.inotify_init1(_FLAGS), folder)
        try:
            _checked(libc.inotify_add_watch(self._fd, os.fsencode(folder), events), folder)
        except OSError:
            os.close(self._fd)
            raise

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        os.close(self._fd)

    def wait(self, timeout: float, concerns: Callable[[str], bool] = lambda name: True) -> str:
        """Return the name of the first file that ``concerns`` us, empty after ``timeout`` seconds without."""
        deadline = time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            if poll.poll(left * 1000):
                found = next(filter(concerns, self._names()), "")
                if found:
                    return found
        return ""

    def _names(self) -> list[str]:
        data = os.read(self._fd, 65536)
        names, position = [], 0
        while position < len(data):
            *_, length = _EVENT.unpack_from(data, position)
            position += _EVENT.size
            names.append(os.fsdecode(data[position : position + length].rstrip(b"\0")))
            position += length
        return names


def _checked(result: int, path: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result

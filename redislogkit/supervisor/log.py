"""The supervisor's own log: stderr, or a file. It never waits, and never comes near the stream.

The supervisor must not hang because nobody reads what it says. Before each line it asks whether there is room, and
leaves the line out where there is none; how many were left out is said with the next one. A file is opened for each
line, so that it may be moved away at any time.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
import time
from typing import Final

_STDERR: Final = 2
#: Bytes at which the log of a supervisor that an application has launched begins anew.
_LARGEST: Final = 1024 * 1024


class Log:
    """Takes lines; a callable as everybody has it who reports. Never raises ``OSError``.

    Args:
        path: File to append to; None: stderr.
        bounded: Stderr is a file that nobody rotates.
    """

    def __init__(self, path: str | None = None, *, bounded: bool = False) -> None:
        self.path = path
        self._bounded = bounded
        self._left_out = 0
        self._torn = False  # the last line was begun and not ended

    def __call__(self, message: str) -> None:
        """Write one line, with time and pid."""
        head = f"{time.strftime('%Y-%m-%d %H:%M:%S')} redislogkit[{os.getpid()}] "
        if self._left_out:
            message = f"({self._left_out} lines were left out, as nobody read this log) {message}"
        if self._write((head + message + "\n").encode("utf-8", "backslashreplace")):
            self._left_out = 0
        else:
            self._left_out += 1

    def _write(self, line: bytes) -> bool:
        if self.path is not None:
            with contextlib.suppress(OSError):
                fd = os.open(
                    self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640
                )
                try:
                    return os.write(fd, line) == len(line)
                finally:
                    os.close(fd)
        with contextlib.suppress(OSError):
            return self._write_to_stderr(line)
        return False

    def _write_to_stderr(self, line: bytes) -> bool:
        status = os.fstat(_STDERR)
        if self._bounded and status.st_size > _LARGEST:
            os.ftruncate(_STDERR, 0)
        if stat.S_ISREG(status.st_mode):
            os.write(_STDERR, line)
            return True
        poll = select.poll()
        poll.register(_STDERR, select.POLLOUT)
        rest = b"\n" * self._torn + line
        while rest:
            if not any(event & select.POLLOUT for _, event in poll.poll(0)):
                self._torn = self._torn or len(rest) < len(line)
                return False
            # As much as a pipe with any room takes at once.
            rest = rest[os.write(_STDERR, rest[: select.PIPE_BUF]) :]
        self._torn = False
        return True

"""The file of the records that a user's writer has rejected, with the reason: JSON lines, rotated, bounded."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterable
from typing import Final

from redislogkit.json_lines import encode_json, escape_breaks
from redislogkit.logged import LoggedRecord
from redislogkit.record import sanitise
from redislogkit.rendering import timestamp

#: Older files that are kept.
BACKUPS: Final = 5
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class DeadLetters:
    """One such file; it is opened for each write, as there is hardly ever one.

    Args:
        path: The file. Its folder is made.
        max_bytes: Size at which it is renamed to ``path.1``, and that to ``path.2``, up to `BACKUPS`.
        writer: Name of the writer.
        report: Takes a line about what has happened.
    """

    def __init__(self, path: str, max_bytes: int, writer: str, report: Callable[[str], None]) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._writer = writer
        self._report = report

    def add(self, rejected: Iterable[tuple[LoggedRecord, str]]) -> None:
        """Append records with their reasons, and force them onto the disk. Raises ``OSError``; then none is there."""
        data = b"".join(self._line(record, reason) for record, reason in rejected)
        os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            size = os.stat(self.path).st_size
            if size and size + len(data) > self._max_bytes:
                self._rotate()
        fd = os.open(self.path, _FLAGS, 0o600)
        try:
            before = os.fstat(fd).st_size
            try:
                if os.write(fd, data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
                os.fdatasync(fd)
            except OSError:
                os.ftruncate(fd, before)
                raise
        finally:
            os.close(fd)

    def _line(self, record: LoggedRecord, reason: str) -> bytes:
        values = {
            "rejected": timestamp(time.time()),
            "writer": self._writer,
            "reason": reason,
            "record": record.as_dict(),
        }
        try:
            text = encode_json(values).decode()
        except Exception:
            text = encode_json(sanitise(values)).decode()
        return f"{escape_breaks(text)}\n".encode()

    def _rotate(self) -> None:
        oldest = f"{self.path}.{BACKUPS}"
        if os.path.exists(oldest):
            self._report(f"{oldest} is deleted with the records rejected longest ago: that many are not kept")
        names = [self.path, *(f"{self.path}.{number}" for number in range(1, BACKUPS + 1))]
        for older, newer in reversed(list(zip(names[1:], names, strict=False))):
            with contextlib.suppress(FileNotFoundError):
                os.replace(newer, older)

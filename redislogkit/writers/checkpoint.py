"""What a writer has durably written: the memory that makes its file exactly-once.

Theory of operation. The checkpoint is a journal: one frame (length, CRC, msgpack) for each commit, the
first one a full state and the others only what changed, so a commit costs one short ``write`` however
many producers there are. A torn last frame (a kill in mid-write) is cut off when the journal is opened;
the commit it stood for had then not been confirmed to the stream either. When the journal has grown it
is written anew beside the old one and renamed over it.

Producers that have ended are remembered in a bounded list only: nothing of theirs can come again but a
late resend of what the stream had already.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgspec

_HEAD: Final = struct.Struct("<II")
_LARGEST_JOURNAL: Final = 1024 * 1024
_LARGEST_FRAME: Final = 256 * 1024 * 1024
_MAX_ENDED: Final = 10_000


class Mark(NamedTuple):
    """Where in which file writing goes on."""

    device: int
    inode: int
    offset: int


class Checkpoint:
    """The journal of one writer. Raises ``OSError`` when it can not be read or written."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.entry_id = b"0-0"
        self.total = 0
        self.mark: Mark | None = None
        self.highest: dict[str, int] = {}
        """Producer → highest sequence written."""
        self.ended: dict[str, int] = {}
        """The same for producers that have ended, oldest first."""
        self.damage = ""
        """What was wrong with the journal when it was opened; empty if nothing."""
        self._fd = -1
        self._size = 0
        self._rewrite_at = _LARGEST_JOURNAL

    def open(self) -> None:
        """Load the journal, or begin a new one; cut off a torn tail."""
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with open(self._fd, "rb", closefd=False) as file:
            data = file.read()
        position = 0
        while (frame := _read_frame(data, position)) is not None:
            content, position = frame
            self._apply(content)
        if position < len(data):
            self.damage = (
                f"{self.path}: {len(data) - position} bytes behind byte {position} are no whole frame"
            )
            os.ftruncate(self._fd, position)
        self._size = position

    def close(self) -> None:
        """Close the journal."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def seen(self, producer: str) -> int:
        """Highest sequence of ``producer`` that is written; 0 for an unknown one."""
        return self.highest.get(producer) or self.ended.get(producer, 0)

    def commit(
        self, entry_id: bytes, total: int, mark: Mark | None, written: dict[str, int], ended: list[str]
    ) -> None:
        """Remember durably that ``written`` (producer → sequence) and everything before ``mark`` is written."""
        content = [entry_id, total, mark, written, ended]
        self._append(_frame(content))
        self._apply(content)
        if self._size > self._rewrite_at:
            self._rewrite()

    def _apply(self, content: Any) -> None:
        entry_id, total, mark, written, ended = content[:5]
        self.entry_id, self.total = entry_id, total
        self.mark = None if mark is None else Mark(*mark)
        self.highest.update(written)
        if len(content) > 5:
            self.ended.update(content[5])
        for producer in ended:
            self.ended[producer] = self.highest.pop(producer, self.ended.get(producer, 0))
        while len(self.ended) > _MAX_ENDED:
            del self.ended[next(iter(self.ended))]

    def _append(self, frame: bytes) -> None:
        try:
            if os.write(self._fd, frame) != len(frame):
                raise OSError(errno.ENOSPC, "no space left for the checkpoint", self.path)
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(frame)

    def _rewrite(self) -> None:
        """Begin the journal anew with the full state; the old one serves on where that fails."""
        frame = _frame([self.entry_id, self.total, self.mark, self.highest, [], self.ended])
        beside = self.path + ".new"
        try:
            fd = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                if os.write(fd, frame) != len(frame):
                    raise OSError(errno.ENOSPC, "no space left for the checkpoint", beside)
                os.fdatasync(fd)
                os.rename(beside, self.path)
            except OSError:
                os.close(fd)
                raise
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            self._rewrite_at = 2 * self._size
            return
        os.close(self._fd)
        self._fd, self._size = fd, len(frame)
        self._rewrite_at = max(_LARGEST_JOURNAL, 4 * self._size)


def _frame(content: Any) -> bytes:
    data = msgspec.msgpack.encode(content)
    return _HEAD.pack(len(data), crc32(data)) + data


def _read_frame(data: bytes, position: int) -> tuple[Any, int] | None:
    """Return the content of the frame at ``position`` and where the next one begins."""
    if position + _HEAD.size > len(data):
        return None
    length, crc = _HEAD.unpack_from(data, position)
    start = position + _HEAD.size
    body = data[start : start + length]
    if not 0 < length <= _LARGEST_FRAME or len(body) != length or crc32(body) != crc:
        return None
    try:
        content = msgspec.msgpack.decode(body)
    except msgspec.DecodeError:
        return None
    if not isinstance(content, list) or len(content) < 5 or not isinstance(content[3], dict):
        return None
    return content, start + length

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
from typing import Annotated, Final, NamedTuple, TypeAlias

import msgspec

from redislogkit import journal

_LARGEST_JOURNAL: Final = 1024 * 1024
_MAX_ENDED: Final = 10_000


_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class Mark(NamedTuple):
    """Where in which file writing goes on."""

    device: int
    inode: int
    offset: _Count


class _Commit(msgspec.Struct, array_like=True, frozen=True):
    """One frame of the journal; the first one holds a full state, the others what has changed."""

    entry_id: bytes
    total: _Count
    mark: Mark | None
    written: dict[str, _Count]
    ended: list[str]
    known_ended: dict[str, _Count] = {}


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
        self._torn = False  # bytes behind `_size` that could not be cut off
        self._rewrite_at = _LARGEST_JOURNAL

    def open(self) -> None:
        """Load the journal, or begin a new one; cut off a torn tail."""
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with open(self._fd, "rb", closefd=False) as file:
            data = file.read()
        position = 0
        while (frame := _read_commit(data, position)) is not None:
            commit, position = frame
            self._apply(commit)
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
        commit = _Commit(entry_id, total, mark, written, ended)
        self._append(journal.frame(commit))
        self._apply(commit)
        if self._size > self._rewrite_at:
            self._rewrite()

    def _apply(self, commit: _Commit) -> None:
        self.entry_id, self.total, self.mark = commit.entry_id, commit.total, commit.mark
        self.highest.update(commit.written)
        self.ended.update(commit.known_ended)
        for producer in commit.ended:
            self.ended[producer] = self.highest.pop(producer, self.ended.get(producer, 0))
        while len(self.ended) > _MAX_ENDED:
            del self.ended[next(iter(self.ended))]

    def _append(self, frame: bytes) -> None:
        if self._torn:
            os.ftruncate(self._fd, self._size)
            self._torn = False
        try:
            if os.write(self._fd, frame) != len(frame):
                raise OSError(errno.ENOSPC, "no space left for the checkpoint", self.path)
        except OSError:
            self._torn = True
            os.ftruncate(self._fd, self._size)
            self._torn = False
            raise
        self._size += len(frame)

    def _rewrite(self) -> None:
        """Begin the journal anew with the full state; the old one serves on where that fails."""
        state = _Commit(self.entry_id, self.total, self.mark, self.highest, [], self.ended)
        frame = journal.frame(state)
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


def _read_commit(data: bytes, position: int) -> tuple[_Commit, int] | None:
    """Return the commit at ``position`` and where the next one begins; None if there is no whole one."""
    try:
        frame = journal.read_frame(data, position)
        return None if frame is None else (msgspec.convert(frame[0], _Commit), frame[1])
    except (ValueError, RecursionError):  # whole, but nothing that we have written
        return None

"""What a writer has durably written, and what it is about to write: the memory that makes its file exactly-once.

Theory of operation. The checkpoint is a journal of frames (length, CRC, msgpack). A *commit* says what is written;
the first one holds a full state and the others only what changed, so a commit costs one short ``write`` however
many producers there are. An *intent* stands before each write into a file: which bytes will be where, and which
records they are. The commit that follows settles it. Whoever opens the journal after a kill finds the intents
that nothing has settled in `Checkpoint.intents`, and looks into the file whether they were carried out (`repair`).
The bytes themselves lie in a file beside the journal, always the newest in the place of those before: a copy in the
page cache, which costs 0.03 us a record.

A torn last frame (a kill in mid-write) is cut off when the journal is opened; what it stood for had then not been
done yet. When the journal has grown it is written anew beside the old one and renamed over it.

Producers that have ended are remembered in a bounded list only: nothing of theirs can come again but a
late resend of what the stream had already.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Annotated, Any, Final, NamedTuple, TypeAlias
from zlib import crc32

import msgspec

from redislogkit import journal
from redislogkit.writers.chunk import Chunk
from redislogkit.writers.index import Position

_LARGEST_JOURNAL: Final = 1024 * 1024
#: Bytes beyond which the file with the newest announced bytes shrinks again.
_LARGE_DATA: Final = 1024 * 1024
_MAX_ENDED: Final = 10_000


_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


class Mark(NamedTuple):
    """Where in which file writing goes on, and how far its index is."""

    device: int
    inode: int
    offset: _Count
    indexed: Position = Position(0, 0)


class Intent(msgspec.Struct, array_like=True, frozen=True):
    """A write into a file, announced; or producers of which nothing more will come."""

    device: int
    inode: int
    chunk: Chunk
    ended: list[str] = []


class _Commit(msgspec.Struct, array_like=True, frozen=True):
    """One commit; the first one holds a full state, the others what has changed."""

    entry_id: bytes
    total: _Count
    mark: Mark | None
    written: dict[str, _Count]
    ended: list[str]
    known_ended: dict[str, _Count] = {}


class State:
    """What the frames of a journal lead to."""

    def __init__(self) -> None:
        self.entry_id = b"0-0"
        self.total = 0
        self.mark: Mark | None = None
        self.highest: dict[str, int] = {}
        """Producer → highest sequence written."""
        self.ended: dict[str, int] = {}
        """The same for producers that have ended, oldest first."""
        self.intents: list[Intent] = []
        """What was announced since the last commit, oldest first."""
        self.damage = ""
        """What was wrong with the journal when it was read; empty if nothing."""

    def seen(self, producer: str) -> int:
        """Highest sequence of ``producer`` that is written; 0 for an unknown one."""
        return self.highest.get(producer) or self.ended.get(producer, 0)

    def _replay(self, data: bytes, path: str) -> int:
        """Apply the whole frames of ``data``; return where they end."""
        position = 0
        while (found := _read_frame(data, position)) is not None:
            frame, position = found
            if isinstance(frame, Intent):
                self.intents.append(frame)
            else:
                self._apply(frame)
        if position < len(data):
            self.damage = f"{path}: {len(data) - position} bytes behind byte {position} are no whole frame"
        return position

    def _apply(self, commit: _Commit) -> None:
        self.entry_id, self.total, self.mark = commit.entry_id, commit.total, commit.mark
        self.highest.update(commit.written)
        self.ended.update(commit.known_ended)
        for producer in commit.ended:
            self.ended[producer] = self.highest.pop(producer, self.ended.get(producer, 0))
        while len(self.ended) > _MAX_ENDED:
            del self.ended[next(iter(self.ended))]
        self.intents = []


def load(path: str) -> State:
    """Read a journal that perhaps somebody is writing. Raises ``OSError``."""
    with open(path, "rb") as file:
        data = file.read()
    state = State()
    state._replay(data, path)
    return state


class Checkpoint(State):
    """The journal of one writer. Raises ``OSError`` when it can not be read or written."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self._fd = self._data_fd = -1
        self._size = self._data_size = 0
        self._torn = False  # bytes behind `_size` that could not be cut off
        self._rewrite_at = _LARGEST_JOURNAL

    def open(self) -> None:
        """Load the journal, or begin a new one; cut off a torn tail."""
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._data_fd = os.open(self.path + ".data", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with open(self._fd, "rb", closefd=False) as file:
            data = file.read()
        self._data_size = os.fstat(self._data_fd).st_size
        self._size = self._replay(data, self.path)
        if self._size < len(data):
            os.ftruncate(self._fd, self._size)

    def close(self) -> None:
        """Close the journal."""
        for fd in (self._fd, self._data_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._data_fd = -1

    def intend(self, intent: Intent, data: bytes) -> None:
        """Announce a write of ``data``."""
        if data:
            self._keep(data)
        self._append(_frame(intent))
        self.intents.append(intent)

    def _keep(self, data: bytes) -> None:
        position = 0
        while position < len(data):
            position += os.pwrite(self._data_fd, memoryview(data)[position:], position)
        self._data_size = max(self._data_size, len(data))
        # What is cut off was not whole any more since the first byte above.
        if self._data_size > max(_LARGE_DATA, 4 * len(data)):
            os.ftruncate(self._data_fd, len(data))
            self._data_size = len(data)

    def intend_end(self, producers: list[str]) -> None:
        """Announce that these producers have ended: when that is confirmed, the stream tells it no more."""
        self.intend(Intent(0, 0, Chunk(0, 0, 0, [], []), producers), b"")

    def announced(self, intent: Intent) -> bytes | None:
        """Return the bytes of an intent; only those of the newest are kept."""
        chunk = intent.chunk
        data = os.pread(self._data_fd, chunk.end - chunk.start, 0)
        return data if len(data) == chunk.end - chunk.start and crc32(data) == chunk.crc else None

    def commit(
        self, entry_id: bytes, total: int, mark: Mark | None, written: dict[str, int], ended: list[str]
    ) -> None:
        """Remember that ``written`` (producer → sequence) and everything before ``mark`` is written.

        That settles all intents.
        """
        commit = _Commit(entry_id, total, mark, written, ended)
        self._append(_frame(commit))
        self._apply(commit)
        if self._size > self._rewrite_at:
            self._rewrite()

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
        frame = _frame(state)
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


_KINDS: Final[tuple[Any, ...]] = (_Commit, Intent)


def _frame(content: _Commit | Intent) -> bytes:
    return journal.frame((_KINDS.index(type(content)), content))


def _read_frame(data: bytes, position: int) -> tuple[_Commit | Intent, int] | None:
    """Return the content at ``position`` and where the next frame begins; None if there is no whole one."""
    try:
        found = journal.read_frame(data, position)
        if found is None:
            return None
        kind, content = found[0]
        return msgspec.convert(content, _KINDS[kind]), found[1]
    except (ValueError, TypeError, IndexError, RecursionError):  # whole, but nothing that we have written
        return None

"""What lies in the files behind a checkpoint: lines that were perhaps written before a crash already.

Theory of operation. Records that were written but not checkpointed come again. Most often they come in the
same order and the tail is nothing but them; but somebody else may have appended between them, the last one
may be torn, and after a loss in the stream the producers may be mixed in another way. Therefore every
line of the tail is found by its content, each at most once, wherever it stands.

Nobody says how much of a tail is ours. As long as each reading finds something in it, the checkpoint is to
stay before the first line that was not asked for (`Tail.first`); after that the tail is only kept in mind for a
while, and then forgotten.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from redislogkit.writers.checkpoint import Mark

#: More than this is never between two checkpoints; it bounds the memory where an old checkpoint was restored.
_LARGEST: Final = 128 * 1024 * 1024
#: A tail is forgotten after so many records, or seconds, in which nothing more of it came again.
_PATIENCE_RECORDS: Final = 100_000
_PATIENCE_SECONDS: Final = 30.0
_LONGEST_LINE: Final = 1024 * 1024
_NEVER: Final = float("inf")
_NOWHERE: Final[deque[tuple[int, int]]] = deque()


class Piece(NamedTuple):
    """The end of one file."""

    path: str
    begin: Mark
    """Where ``data`` begins."""
    data: bytes


def load(places: Iterable[tuple[str, int]]) -> Tail | None:
    """Read the ``places`` (file, offset from which on), oldest first; None when there is nothing.

    Raises ``OSError``.
    """
    room = _LARGEST
    pieces: list[Piece] = []
    for path, offset in reversed(list(places)):
        piece = _read(path, offset, room)
        room -= len(piece.data)
        if piece.data:
            pieces.insert(0, piece)
    return Tail(pieces) if pieces else None


def last_line(fd: int, size: int) -> int:
    """Return where the last line of a file of ``size`` bytes begins; its end where the line is complete."""
    start = max(0, size - _LONGEST_LINE)
    return start + os.pread(fd, size - start, start).rfind(b"\n") + 1


def _read(path: str, offset: int, room: int) -> Piece:
    with open(path, "rb", buffering=0) as file:
        info = os.fstat(file.fileno())
        start = max(offset, info.st_size - room)
        file.seek(start)
        data = file.readall()
    if start > offset:  # in the middle of a line
        whole = data.find(b"\n") + 1 or len(data)
        start, data = start + whole, data[whole:]
    return Piece(path, Mark(info.st_dev, info.st_ino, start), data)


class Tail:
    """The lines behind a checkpoint that did not come again yet."""

    def __init__(self, pieces: list[Piece]) -> None:
        self._pieces = pieces
        self._open: dict[tuple[int, int], None] = {}  # (piece, position in it) of each line, in order
        self._places: dict[int, deque[tuple[int, int]]] = {}  # the same by the line's hash
        self._unended: list[tuple[int, int]] = []
        self.current = True
        """Whether the last records had to do with it."""
        self._hit = False
        self._misses = 0
        self._ends = _NEVER
        for number, piece in enumerate(pieces):
            self._index(number, piece.data)

    def _index(self, number: int, data: bytes) -> None:
        position = 0
        while position < len(data):
            place = (number, position)
            end = data.find(b"\n", position) + 1
            if not end:
                self._unended.append(place)
                end = len(data)
            self._open[place] = None
            self._places.setdefault(hash(data[position:end]), deque()).append(place)
            position = end

    def missing(self, records: Iterable[bytes]) -> list[bytes]:
        """Return ``records`` with nothing in the place of those that are there already.

        A record is one line or several, with the end of the last. Where only the front of one is there, at the
        end of a file, it is cut off. Raises ``OSError``.
        """
        answer = [b"" if self._take(record) else record for record in records]
        self.current = self._hit
        if self._hit:
            self._misses, self._ends = 0, _NEVER
        else:
            self._misses += len(answer)
            self._ends = min(self._ends, time.monotonic() + _PATIENCE_SECONDS)
        self._hit = False
        return answer

    def is_over(self) -> bool:
        """True when all was found, or nothing more is to be expected."""
        return not self._open or self._misses >= _PATIENCE_RECORDS or time.monotonic() >= self._ends

    def first(self) -> Mark:
        """Where the first line stands that was not found; only while it is not over."""
        number, position = next(iter(self._open))
        begin = self._pieces[number].begin
        return begin._replace(offset=begin.offset + position)

    def _take(self, record: bytes) -> bool:
        end = record.find(b"\n") + 1
        places = self._places.get(hash(record if end == len(record) else record[:end]), _NOWHERE)
        while places and places[0] not in self._open:
            places.popleft()
        for number, position in places:
            data = self._pieces[number].data
            if (number, position) in self._open and data.startswith(record, position):
                self._forget(number, position, position + len(record))
                self._hit = True
                return True
        for number, position in (*self._unended, *places):
            if (number, position) in self._open and self._is_front(number, position, record):
                self._cut(number, position)
                self._hit = True
                break
        return False

    def _is_front(self, number: int, position: int, record: bytes) -> bool:
        data = self._pieces[number].data
        length = len(data) - position
        return length < len(record) and record[:length] == data[position:]

    def _forget(self, number: int, position: int, end: int) -> None:
        data = self._pieces[number].data
        while position < end:
            self._open.pop((number, position), None)
            position = data.find(b"\n", position) + 1 or end

    def _cut(self, number: int, position: int) -> None:
        path, begin, data = self._pieces[number]
        self._forget(number, position, len(data))
        # Without the permission (chattr +a) it stays, and the record goes into a line of its own.
        with contextlib.suppress(PermissionError), open(path, "r+b", buffering=0) as file:
            # Where somebody else has appended since, it is a part of his line, and stays.
            if os.fstat(file.fileno()).st_size == begin.offset + len(data):
                os.ftruncate(file.fileno(), begin.offset + position)

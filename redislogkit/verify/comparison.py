"""One log file against the chunks that were written into it. Reads once, from front to end; writes nothing.

Theory of operation. Where nobody has touched the file, each chunk stands where its index says, and its CRC proves it.
A chunk that does not is looked for nearby, since lines that somebody has put in or taken out move all that is
behind them; from where one is found everything is expected to be moved by as much. What lies between two chunks that
were found belongs to those between them that were not. Where only one is missing and there are more bytes than
it had, the surplus may have been put into it: the chunk is whole if its CRC is right without some of the lines.

Memory is bounded by the largest chunk and the width of the search.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BufferedIOBase
from typing import Final, NamedTuple
from zlib import crc32

from redislogkit.writers.chunk import Chunk

_READ: Final = 256 * 1024
#: A chunk is looked for in so many bytes behind the last one that was found.
_SEARCHED: Final = 4 * 1024 * 1024
#: In a file of which nothing is left, not every chunk is worth a search.
_SEARCHES: Final = 64
#: Bytes of others that are kept, to see what they are.
_KEPT: Final = 1024 * 1024
_NEWLINE: Final = 10


class Found(NamedTuple):
    """A chunk that is there."""

    place: int
    chunk: Chunk
    hole: tuple[int, int] | None = None
    """Bytes of others that were put into it."""


class Foreign(NamedTuple):
    """Bytes that no chunk accounts for."""

    start: int
    end: int
    data: bytes
    """The first of them."""


class Damage(NamedTuple):
    """Chunks that are not there as they were written, and the bytes that stand in their place."""

    start: int
    end: int
    chunks: list[Chunk]


class Comparison(NamedTuple):
    """What of a file's chunks is there."""

    found: list[Found]
    damage: list[Damage]
    foreign: list[Foreign]
    size: int
    error: str
    """Why the file could not be read any further; empty if it could."""


def compare(file: BufferedIOBase, chunks: Sequence[Chunk], *, search: bool = True) -> Comparison:
    """Look for ``chunks``, which are in the order of their places, in ``file``; without ``search`` only there."""
    return _Comparing(file, _SEARCHES if search else 0).compare(
        [chunk for chunk in chunks if chunk.end > chunk.start]
    )


def begins_with(file: BufferedIOBase, chunk: Chunk) -> bool:
    """True when ``chunk`` stands in ``file`` where it was written."""
    window = _Window(file)
    window.forget(chunk.start)
    return _is(window.read(chunk.start, chunk.end), chunk)


class _Comparing:
    def __init__(self, file: BufferedIOBase, searches: int) -> None:
        self._window = _Window(file)
        self._most_searches = searches
        self._position = 0  # everything before is accounted for
        self._shift = 0
        self._pending: list[Chunk] = []
        self._searches = 0
        self._head = b""  # of what was forgotten behind the position
        self._result = Comparison([], [], [], 0, "")

    def compare(self, chunks: Sequence[Chunk]) -> Comparison:
        for chunk in chunks:
            place = self._place_of(chunk)
            if place is None:
                self._pending.append(chunk)
                continue
            self._close_gap(place)
            self._result.found.append(Found(place, chunk))
            self._shift = place - chunk.start
            self._position = place + chunk.end - chunk.start
            self._searches = 0
        longest = max((chunk.end - chunk.start for chunk in self._pending), default=0)
        size = self._window.size(self._position + longest + _SEARCHED)
        self._close_gap(size)
        return self._result._replace(size=size, error=self._window.error)

    def _place_of(self, chunk: Chunk) -> int | None:
        place = chunk.start + self._shift
        self._let_go(place)
        if place >= self._position and _is(self._window.read(place, place + chunk.end - chunk.start), chunk):
            return place
        if self._searches >= self._most_searches:
            return None
        self._searches += 1
        return self._search(chunk)

    def _let_go(self, place: int) -> None:
        """Forget what the search for the chunk that should be at ``place`` will not look at."""
        if not self._pending:
            self._head = self._window.read(self._position, min(place, self._position + _KEPT))
        far = self._searches >= self._most_searches or not self._pending
        self._window.forget(max(self._position, place - _SEARCHED) if far else self._position)

    def _search(self, chunk: Chunk) -> int | None:
        """Look for the chunk at the beginning of each line."""
        length = chunk.end - chunk.start
        base = max(self._position, self._window.begin)
        data = self._window.read(base, max(base, chunk.start + self._shift) + length + _SEARCHED)
        for begin in _line_starts(data):
            end = begin + length
            if end > len(data):
                break
            if data[end - 1] == _NEWLINE and _is(data[begin:end], chunk):
                return base + begin
        return None

    def _close_gap(self, end: int) -> None:
        """Say what stands between the last chunk that was found and ``end``."""
        start, pending = self._position, self._pending
        self._pending = []
        if len(pending) == 1 and (inserted := self._inserted(pending[0], start, end)):
            self._result.found.append(Found(start, pending[0], inserted))
            self._note_foreign(*inserted)
        elif pending:
            self._result.damage.append(Damage(start, max(start, end), pending))
        elif end > start:
            self._note_foreign(start, end)

    def _inserted(self, chunk: Chunk, start: int, end: int) -> tuple[int, int] | None:
        """Return the place of the lines without which ``chunk`` is whole."""
        surplus = end - start - (chunk.end - chunk.start)
        if not 0 < surplus <= _SEARCHED:
            return None
        data = self._window.read(start, end)
        starts = [*_line_starts(data), len(data)]
        ends = set(starts)
        for begin in starts:
            if begin + surplus in ends and crc32(data[begin + surplus :], crc32(data[:begin])) == chunk.crc:
                return start + begin, start + begin + surplus
        return None

    def _note_foreign(self, start: int, end: int) -> None:
        forgotten = start < self._window.begin
        data = self._head if forgotten else self._window.read(start, min(end, start + _KEPT))
        self._result.foreign.append(Foreign(start, end, data))


def _is(data: bytes, chunk: Chunk) -> bool:
    return len(data) == chunk.end - chunk.start and crc32(data) == chunk.crc


def _line_starts(data: bytes) -> Iterator[int]:
    begin = 0
    while begin < len(data):
        yield begin
        begin = data.find(b"\n", begin) + 1 or len(data)


class _Window:
    """The part of a file that is being looked at; moves forward only."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._file = file
        self._data = bytearray()
        self._ended = False
        self.begin = 0
        """Where it begins: everything before is forgotten."""
        self.error = ""

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from ``start`` to ``end``; fewer where the file ends before."""
        while self._filled < end and not self._ended:
            self._data += self._next()
        return bytes(memoryview(self._data)[max(start - self.begin, 0) : max(end - self.begin, 0)])

    def forget(self, before: int) -> None:
        """Nothing before that place will be asked for again."""
        while before > self._filled and not self._ended:
            self.begin = self._filled
            self._data = bytearray(self._next())
        count = min(before - self.begin, len(self._data))
        if count > 0:
            del self._data[:count]
            self.begin += count

    def size(self, kept: int) -> int:
        """Read to the end of the file and return its size; nothing behind ``kept`` will be asked for."""
        self.read(kept, kept)
        size = self._filled
        while not self._ended:
            size += len(self._next())
        return size

    @property
    def _filled(self) -> int:
        return self.begin + len(self._data)

    def _next(self) -> bytes:
        try:
            # Not read(): before a damaged place it would lose what is readable.
            data = self._file.read1(_READ)
        except Exception as error:  # OSError, EOFError, and each codec has an error class of its own
            self.error, data = str(error) or type(error).__name__, b""
        self._ended = not data
        return data

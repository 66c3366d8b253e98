"""Sequences of producers: ranges of them, and what all chunks together account for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from redislogkit.writers.chunk import Chunk, Span

#: Ranges that one text names.
_NAMED: Final = 5


class Range(NamedTuple):
    """Sequences of a producer."""

    producer: str
    first: int
    last: int

    def __str__(self) -> str:
        if self.first == self.last:
            return f"producer {self.producer} sequence {self.first}"
        return f"producer {self.producer} sequences {self.first} to {self.last}"


def ranges_of(chunks: Iterable[Chunk]) -> list[Range]:
    """Name the records of some chunks; those of one producer together, as far as they follow one another."""
    return merged(Range(s.producer, s.first, s.last) for chunk in chunks for s in chunk.spans if s.lines)


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Return the ranges in order, those that touch as one."""
    result: list[Range] = []
    for found in sorted(ranges):
        before = result[-1] if result else None
        if before and before.producer == found.producer and found.first <= before.last + 1:
            result[-1] = before._replace(last=max(before.last, found.last))
        else:
            result.append(found)
    return result


def named(ranges: Sequence[Range]) -> str:
    """Return text for the first few of them."""
    shown = "; ".join(map(str, ranges[:_NAMED]))
    more = len(ranges) - _NAMED
    return f"{shown} and {more} more" if more > 0 else shown


class Accounts:
    """What all chunks together account for, of one producer."""

    def __init__(self) -> None:
        self._pieces: list[tuple[int, int, str]] = []

    def add(self, span: Span, path: str) -> None:
        """Take one span of the file ``path``; they nearly always follow one another."""
        if self._pieces:
            first, last, before = self._pieces[-1]
            if before == path and last + 1 == span.first:
                self._pieces[-1] = (first, span.last, path)
                return
        self._pieces.append((span.first, span.last, path))

    @property
    def last(self) -> int:
        """The highest sequence."""
        return max(last for _, last, _ in self._pieces)

    def faults(self, producer: str) -> Iterator[tuple[str, str, str, Range]]:
        """Yield kind, file, text and sequences for each gap and each overlap."""
        # After a kill in the middle of a write, lines that were found come before those that were not.
        pieces = sorted(self._pieces, key=lambda piece: piece[:2])
        _, reached, before = pieces[0]
        for first, last, path in pieces[1:]:
            if first > reached + 1:
                text = f"no index accounts for them, between {before} and {path}"
                yield "missing", path, text, Range(producer, reached + 1, first - 1)
            elif first <= reached:
                text = f"accounted for twice, in {before} and {path}"
                yield "doubled", path, text, Range(producer, first, min(reached, last))
            if last > reached:
                reached, before = last, path

"""What one write puts into a log file: which bytes, and which records they are. Pure.

Lines look as their user likes them, so nothing in them says to which producer and sequence they belong. A chunk
says it for all lines of one write. It goes into the checkpoint before the bytes go into the file (so that a
restart knows what it may find there), and into the index when they are there (so that `verify` can prove it).
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

import msgspec


class Span(msgspec.Struct, array_like=True, frozen=True):
    """Sequences ``first`` to ``last`` of a producer, which a chunk accounts for."""

    producer: str
    first: int
    last: int
    lines: int
    """Records among them that have a line; the others are not for this writer, or lost."""


class Lost(msgspec.Struct, array_like=True, frozen=True):
    """A loss that the chunk has a line for."""

    producer: str
    first: int
    last: int
    cause: str


class Chunk(msgspec.Struct, array_like=True, frozen=True):
    """Bytes ``start`` to ``end`` of a file. Without bytes: sequences that have no line in this file."""

    start: int
    end: int
    crc: int
    """CRC-32 of the bytes."""
    spans: list[Span]
    losses: list[Lost]


def describe(start: int, data: bytes, spans: list[Span], losses: list[Lost]) -> Chunk:
    """Return the chunk of ``data`` at ``start``."""
    return Chunk(start, start + len(data), crc32(data), spans, losses)


def reached(spans: Iterable[Span]) -> dict[str, int]:
    """Producer → highest sequence accounted for."""
    return {span.producer: span.last for span in spans}

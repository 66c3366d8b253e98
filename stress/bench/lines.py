"""What became of the records of a race: each is numbered, and its line whole, there once and in order, or not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

_RECORD: Final = re.compile(rb"<(\d+) (\d+) ([^<>\n]*)>")
_BLOCK: Final = 16 * 1024 * 1024


@dataclass(frozen=True)
class Check:
    """Counts of lines; all but ``records`` and ``bytes`` should be 0."""

    records: int = 0
    """Different records that are there."""
    bytes: int = 0
    lost: int = 0
    doubled: int = 0
    torn: int = 0
    """Lines that are not exactly one whole record."""
    disordered: int = 0
    """Records behind a later one of the same producer."""

    @property
    def flaw(self) -> str:
        """What is wrong, in words; empty when nothing is."""
        names = ("lost", "doubled", "torn", "disordered")
        return ", ".join(f"{number:,} {name}" for name in names if (number := getattr(self, name)))

    @property
    def ok(self) -> bool:
        """True when every record is there once, whole and in order."""
        return not self.flaw


class Count:
    """Counts the records of ``producers`` that log ``records`` each, with texts of ``length`` characters."""

    def __init__(self, producers: int, records: int, length: int) -> None:
        self._seen = [bytearray(records) for _ in range(producers)]
        self._highest = [-1] * producers
        self._length = length
        self._found = self._bytes = self._doubled = self._torn = self._disordered = 0

    def read(self, path: str) -> None:
        """Count the lines of one file; of rotated ones the oldest comes first."""
        with open(path, "rb") as file:
            for block in _blocks(file):
                self._bytes += len(block)
                self._count(block)

    def _count(self, block: bytes) -> None:
        found = _RECORD.findall(block)
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        self._torn += abs(lines - len(found))
        seen, highest, length = self._seen, self._highest, self._length
        for producer, number, text in found:
            p, n = int(producer), int(number)
            if p >= len(seen) or n >= len(seen[p]) or len(text) != length:
                self._torn += 1
            elif seen[p][n]:
                self._doubled += 1
            else:
                seen[p][n] = 1
                self._found += 1
                if n < highest[p]:
                    self._disordered += 1
                else:
                    highest[p] = n

    def result(self) -> Check:
        """What was counted so far."""
        expected = sum(map(len, self._seen))
        lost = expected - self._found
        return Check(self._found, self._bytes, lost, self._doubled, self._torn, self._disordered)


def check(files: Iterable[str], producers: int, records: int, length: int) -> Check:
    """Count the records over ``files``; those of one producer stand in them in their order."""
    count = Count(producers, records, length)
    for file in files:
        count.read(file)
    return count.result()


def _blocks(file: Iterable[bytes]) -> Iterator[bytes]:
    lines: Sequence[bytes]
    while lines := file.readlines(_BLOCK):  # type: ignore[attr-defined]
        yield b"".join(lines)

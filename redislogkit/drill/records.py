"""Numbered records, and the count of what became of them. Pure; shares no code with what it checks.

Every producer of a drill logs `message` 0, 1, 2, …; a `Count` is given the lines of a writer's files, oldest
first, and says what is lost, doubled, torn and disordered.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MARKER: Final = "drill["
_MARKER: Final = MARKER.encode()
_TOKEN: Final = re.compile(rb"drill\[(\w+) (\d{1,6}) (\d{1,12}) ([0-9a-f]{8})\]")
_EXAMPLES: Final = 5


def message(run: str, producer: int, n: int) -> str:
    """Return record ``n`` of ``producer``, with a checksum.

    >>> message("a1", 0, 7)
    'drill[a1 0 7 474b2769] of redislogkit'
    """
    head = f"{run} {producer} {n}"
    return f"drill[{head} {zlib.crc32(head.encode()):08x}] of redislogkit"


@dataclass
class Report:
    """What a `Count` has found; all but ``records`` should be 0."""

    records: int = 0
    """Different records that are there, whole."""
    lost: int = 0
    doubled: int = 0
    torn: int = 0
    """Lines with a damaged record, with parts of two, or without their end."""
    disordered: int = 0
    """Records behind a later one of the same producer."""
    unexpected: int = 0
    """Records that nobody has logged."""
    examples: list[str] = field(default_factory=list)
    """The first few findings, in words."""

    @property
    def ok(self) -> bool:
        """True when every record is there whole, once and in order."""
        return not (self.lost or self.doubled or self.torn or self.disordered or self.unexpected)


class Count:
    """Counts the records of ``run`` in lines that come in the order in which they stand.

    ``in_line`` is how often the writer's format has the message in a line.
    """

    def __init__(self, run: str, in_line: int = 1) -> None:
        self._run = run.encode()
        self._in_line = in_line
        self._seen: dict[int, set[int]] = {}
        self._highest: dict[int, int] = {}
        self._report = Report()

    def line(self, line: bytes, place: str) -> None:
        """Take one line, with its end."""
        marks = line.count(_MARKER)
        if not marks:
            return
        tokens = [token for token in _TOKEN.findall(line) if _is_whole(*token)]
        if tokens and all(token[0] != self._run for token in tokens):
            return  # another drill's
        whole = len(tokens) == marks == self._in_line and len(set(tokens)) == 1
        if not whole or not line.endswith(b"\n"):
            self._report.torn += 1
            self._example(f"torn at {place}: {line[:120]!r}")
        for _, producer, n, _ in dict.fromkeys(tokens):
            self._record(int(producer), int(n), place)

    def _record(self, producer: int, n: int, place: str) -> None:
        seen = self._seen.setdefault(producer, set())
        if n in seen:
            self._report.doubled += 1
            self._example(f"producer {producer} record {n} again at {place}")
            return
        seen.add(n)
        highest = self._highest.get(producer, -1)
        if n < highest:
            self._report.disordered += 1
            self._example(f"producer {producer} record {n} behind {highest} at {place}")
        self._highest[producer] = max(n, highest)

    def is_complete(self, logged: Mapping[int, int]) -> bool:
        """True when as many records as were logged are there."""
        return all(len(self._seen.get(producer, ())) >= count for producer, count in logged.items())

    def report(self, logged: Mapping[int, int]) -> Report:
        """Compare with what was logged: producer → records, not counting one that it may have been killed in."""
        report = self._report
        for producer, count in logged.items():
            seen = self._seen.get(producer, set())
            missing = [n for n in range(count) if n not in seen]
            report.lost += len(missing)
            if missing:
                self._example(f"producer {producer}: {len(missing)} lost, {missing[0]} to {missing[-1]}")
        for producer, seen in self._seen.items():
            beyond = [n for n in seen if n > logged.get(producer, -1)]
            report.unexpected += len(beyond)
            if beyond:
                self._example(f"producer {producer} has not logged {min(beyond)}")
        report.records = sum(map(len, self._seen.values()))
        return report

    def _example(self, text: str) -> None:
        if len(self._report.examples) < _EXAMPLES:
            self._report.examples.append(text)


def _is_whole(run: bytes, producer: bytes, n: bytes, checksum: bytes) -> bool:
    return zlib.crc32(b"%b %b %b" % (run, producer, n)) == int(checksum, 16)

"""Numbered records, and the count of what became of them.

Every worker logs `message` (its own name, 0, 1, 2, ...); `check` reads all files that the records ended in,
oldest first, and counts what is lost, doubled, torn and disordered. It shares no code with what it checks.

>>> message("r1", "w1", 7, size=30)
'rlk[r1 w1 7 0db426f1]hijklmno.'
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import sys
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

MARKER: Final = b"rlk["
_TOKEN: Final = re.compile(rb"rlk\[([^\s\]]+) ([^\s\]]+) (\d{1,18}(?:/\d{1,4})?) ([0-9a-f]{8})\]([a-z]*)\.")
_REST: Final = re.compile(rb"rlk\+\[([^\s\]]+) (\d{1,18}) (\d{1,4}) ([0-9a-f]{8})\]")
_REST_MARKER: Final = b"rlk+["
_SAME: Final = re.compile(rb"rlk=\[([^\s\]]+) ([^\s\]]+) ([0-9a-f]{8})\]")
_SAME_MARKER: Final = b"rlk=["
_ANY: Final = re.compile(rb"rlk[=+]?\[")
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz"
_NUMBERED: Final = re.compile(r"(\d{1,7})(\.gz|\.zst)?")
_STAMPED: Final = re.compile(r"(\d{4}-\d\d-\d\d[0-9_-]*)(?:\.(\d+))?(\.gz|\.zst)?")
_EXAMPLES: Final = 5
_NOTHING: Final[Mapping[str, Collection[int]]] = {}


def message(run: str, worker: str | int, n: int, size: int = 0, lines: int = 1) -> str:
    """Return record ``n`` of ``worker``: a token with a checksum, and padding up to ``size`` characters.

    Neither ``run`` nor ``worker`` may contain a space or a bracket. With ``lines``, as many lines less one
    follow, each with a token that may stand nowhere else.
    """
    head = f"{run} {worker} {n}" if lines == 1 else f"{run} {worker} {n}/{lines}"
    length = max(0, size - len(head) - 15)
    # Shifted by n, so that the padding of a neighbour does not fit.
    shift = n % len(_ALPHABET)
    padding = (_ALPHABET * (length // len(_ALPHABET) + 2))[shift : shift + length]
    first = f"rlk[{head} {_checksum(head.encode(), padding.encode()):08x}]{padding}."
    return "\n".join([first, *(_rest(f"{worker} {n} {line}") for line in range(1, lines))])


def _rest(head: str) -> str:
    return f"rlk+[{head} {_checksum(head.encode(), b''):08x}]"


def same_message(run: str, worker: str) -> str:
    """Return what ``worker`` logs again and again, the same to the letter; `check` counts how often it is there."""
    head = f"{run} {worker}"
    return f"rlk=[{head} {_checksum(head.encode(), b''):08x}]"


def _checksum(head: bytes, padding: bytes) -> int:
    return zlib.crc32(padding, zlib.crc32(head))


@dataclass(frozen=True)
class Report:
    """What `check` found; all but ``records`` should be 0."""

    records: int
    """Different records that arrived whole."""
    lost: int
    doubled: int
    torn: int
    """Lines with a damaged record, with two records, or without their end."""
    disordered: int
    """Records that came after a later one of the same worker."""
    unexpected: int
    """Records of this run that nobody should have logged."""
    dropped: int = 0
    """Records that are absent and may be."""
    examples: tuple[str, ...] = ()
    """The first few findings, in words."""

    @property
    def ok(self) -> bool:
        """True when every record arrived whole, once and in order."""
        return not (self.lost or self.doubled or self.torn or self.disordered or self.unexpected)

    def __str__(self) -> str:
        counts = (
            f"{self.records} records, {self.lost} lost, {self.doubled} doubled, {self.torn} torn, "
            f"{self.disordered} disordered"
        )
        if self.unexpected:
            counts += f", {self.unexpected} unexpected"
        return f"{counts} ({'; '.join(self.examples)})" if self.examples else counts


def check(
    files: Iterable[str | os.PathLike[str]],
    expected: Mapping[str, int] | Mapping[int, int],
    run: str,
    *,
    in_doubt: int = 0,
    dropped: Mapping[str, Collection[int]] = _NOTHING,
    oldest_removed: bool = False,
) -> Report:
    """Count the records of ``run`` over ``files``, which come oldest first (`rotated_files`).

    ``expected`` tells for each worker how many records it logged. Of a worker that was killed, the record
    in the making may have arrived or not: ``in_doubt`` is how many of those to allow a worker. Records in
    ``dropped`` may be absent. With ``oldest_removed`` a worker's first records may be absent, up to any of
    them, but none behind the first that is there.
    """
    count = _Count({str(worker): number for worker, number in expected.items()}, run, in_doubt)
    count.dropped = {worker.encode(): frozenset(numbers) for worker, numbers in dropped.items()}
    count.oldest_removed = oldest_removed
    for file in files:
        count.read(os.fspath(file))
    return count.report()


def rotated_files(path: str | os.PathLike[str]) -> list[str]:
    """Return the backups of ``path``, oldest first, and ``path`` itself, as far as they exist.

    Backups by number (``app.log.2``, ``app.log.1``), or by time (``app.log.2026-11-22``), which count as older
    than any by number; ``.gz`` and ``.zst`` included.
    """
    folder, base = os.path.split(os.path.abspath(path))
    keys: dict[str, tuple[int, str, int]] = {}
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        tail = name[len(base) + 1 :]
        if name == base:
            keys[name] = (2, "", 0)
        elif name.startswith(base + ".") and (match := _NUMBERED.fullmatch(tail)):
            keys[name] = (1, "", -int(match[1]))
        elif name.startswith(base + ".") and (match := _STAMPED.fullmatch(tail)):
            keys[name] = (0, match[1], int(match[2] or 0))
    return [os.path.join(folder, name) for name in sorted(keys, key=lambda name: (keys[name], name))]


@dataclass
class _Worker:
    """What was seen of one worker."""

    expected: int
    seen: set[int] = field(default_factory=set)
    highest: int = -1
    same: int = 0
    """Times that its only message was seen, of one that logs the same again and again."""


class _Count:
    """The state of one `check`."""

    def __init__(self, expected: Mapping[str, int], run: str, in_doubt: int) -> None:
        self.dropped: Mapping[bytes, Collection[int]] = {}
        self.oldest_removed = False
        self._workers = {worker.encode(): _Worker(number) for worker, number in expected.items()}
        self._run = run.encode()
        self._in_doubt = in_doubt
        self._doubled = self._torn = self._disordered = self._unexpected = 0
        self._examples: list[str] = []
        self._due: list[bytes] = []  # heads of the lines that the record before still has to have

    def read(self, file: str) -> None:
        name = os.path.basename(file)
        try:
            with open_log(file) as lines:
                for number, line in enumerate(lines, 1):
                    self._line(line, f"{name}:{number}")
        except (EOFError, OSError, ValueError, zlib.error) as error:
            self._tear(f"{name} can not be read to its end: {error}")
        self._expect_no_more(f"the end of {name}")

    def _line(self, line: bytes, place: str) -> None:
        if not _ANY.search(line):
            return
        marks = line.count(MARKER)
        tokens = [token for token in _TOKEN.findall(line) if _is_whole(token)]
        if marks > 1 or len(tokens) != marks or not line.endswith(b"\n"):
            self._tear(f"torn at {place}: {line[:120]!r}")
        for token in tokens:
            self._expect_no_more(place)
            n, _, parts = token[2].partition(b"/")
            head = b"%s %s" % (token[1], n)
            self._due = [b"%s %d" % (head, part) for part in range(1, int(parts or 1))]
            if token[0] == self._run:
                self._record(token[1], int(n), place)
        self._rest_of_record(line, place)
        self._same_again(line, place)

    def _rest_of_record(self, line: bytes, place: str) -> None:
        if _REST_MARKER not in line:
            return
        rests = [
            rest for rest in _REST.findall(line) if _checksum(b" ".join(rest[:3]), b"") == int(rest[3], 16)
        ]
        for rest in rests:
            if not self._due or self._due.pop(0) != b" ".join(rest[:3]):
                self._tear(f"a line without those in front of it at {place}: {line[:120]!r}")
                self._due = []
        if len(rests) != line.count(_REST_MARKER) or not line.endswith(b"\n"):
            self._tear(f"torn at {place}: {line[:120]!r}")

    def _expect_no_more(self, place: str) -> None:
        if self._due:
            self._tear(f"line {self._due[0].decode()} is missing at {place}")
            self._due = []

    def _same_again(self, line: bytes, place: str) -> None:
        if _SAME_MARKER not in line:
            return
        self._expect_no_more(place)
        found = [
            same for same in _SAME.findall(line) if _checksum(b" ".join(same[:2]), b"") == int(same[2], 16)
        ]
        if len(found) != 1 or line.count(_SAME_MARKER) != 1 or not line.endswith(b"\n"):
            self._tear(f"torn at {place}: {line[:120]!r}")
        for run, name, _ in found:
            if run == self._run:
                self._count_same(name, place)

    def _count_same(self, name: bytes, place: str) -> None:
        worker = self._workers.get(name)
        if worker is None:
            self._unexpected += 1
            self._example(f"unexpected {name.decode(errors='replace')} at {place}")
            return
        worker.same += 1
        if worker.same > worker.expected + self._in_doubt:
            self._doubled += 1
            self._example(f"{name.decode()} was logged {worker.expected} times, one more at {place}")

    def _record(self, name: bytes, n: int, place: str) -> None:
        worker = self._workers.get(name)
        if worker is None or n >= worker.expected + self._in_doubt:
            self._unexpected += 1
            self._example(f"unexpected {name.decode(errors='replace')} {n} at {place}")
        elif n in worker.seen:
            self._doubled += 1
            self._example(f"doubled {name.decode()} {n} at {place}")
        else:
            worker.seen.add(n)
            if n < worker.highest:
                self._disordered += 1
                self._example(f"{name.decode()} {n} after {worker.highest} at {place}")
            worker.highest = max(worker.highest, n)

    def report(self) -> Report:
        lost = dropped = 0
        for name, worker in self._workers.items():
            missing = self._missing(worker)
            may_miss = self.dropped.get(name, ())
            excused = sum(1 for n in missing if n in may_miss) if not worker.same else len(may_miss)
            dropped += min(excused, len(missing))
            if len(missing) > excused:
                lost += len(missing) - excused
                what = [n for n in missing if n not in may_miss] or missing
                self._example(f"lost {len(what)} of {name.decode()}, {what[0]} to {what[-1]}")
        return Report(
            records=sum(len(worker.seen) + worker.same for worker in self._workers.values()),
            lost=lost,
            doubled=self._doubled,
            torn=self._torn,
            disordered=self._disordered,
            unexpected=self._unexpected,
            dropped=dropped,
            examples=tuple(self._examples),
        )

    def _missing(self, worker: _Worker) -> list[int]:
        if worker.same or (self.oldest_removed and not worker.seen):
            return [] if self.oldest_removed else list(range(worker.same, worker.expected))
        first = min(worker.seen, default=0) if self.oldest_removed else 0
        return [n for n in range(first, worker.expected) if n not in worker.seen]

    def _tear(self, text: str) -> None:
        self._torn += 1
        self._example(text)

    def _example(self, text: str) -> None:
        if len(self._examples) < _EXAMPLES:
            self._examples.append(text)


def _is_whole(token: tuple[bytes, bytes, bytes, bytes, bytes]) -> bool:
    run, worker, n, checksum, padding = token
    return _checksum(b"%s %s %s" % (run, worker, n), padding) == int(checksum, 16)


def open_log(file: str) -> contextlib.AbstractContextManager[Iterable[bytes]]:
    """Open a log file, compressed or not, for reading its lines as bytes."""
    if file.endswith(".gz"):
        return gzip.open(file, "rb")
    if file.endswith(".zst"):
        return _open_zstd(file)
    return open(file, "rb")


def _open_zstd(file: str) -> contextlib.AbstractContextManager[Iterable[bytes]]:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.open(file, "rb")

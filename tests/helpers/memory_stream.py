"""The shipper's side of a stream, in memory: same contract as `StreamClient`, and faults on demand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from redislogkit import record
from redislogkit.errors import ServerAwayError
from redislogkit.levels import Found
from redislogkit.stream import batch
from redislogkit.stream.client import FULL, LOST, Position


class MemoryServer:
    """What a server remembers of one stream. Clients come and go, as `connect` makes them."""

    def __init__(self) -> None:
        self.entries: list[batch.Entry] = []
        self.written: dict[str, dict[str, int]] = {}
        """Writer → producer → highest sequence written."""
        self.connections = 0
        self.appends = 0
        self.away = False
        self.refusing = False
        """It answers, but takes nothing (OOM, READONLY)."""
        self.lose_replies = 0
        """So many appends are done, but not confirmed."""
        self.levels: Found | None = Found(0.0, {})
        """What loggers have for a while, or None where it refuses to tell."""
        self._epoch = ""
        self._stored: dict[str, int] = {}

    def connect(self) -> MemoryClient:
        """A new connection."""
        self.connections += 1
        self.answer()
        return MemoryClient(self)

    def answer(self) -> None:
        """Raise what a server that is away makes of any command."""
        if self.away:
            raise ServerAwayError("connection refused")

    def flush(self) -> None:
        """FLUSHALL."""
        self.entries.clear()
        self._stored.clear()
        self.written.clear()
        self._epoch = ""

    def attach(self, epoch: str, writers: Sequence[str]) -> str:
        self._epoch = self._epoch or epoch
        return self._epoch

    def append(self, entries: Iterable[batch.Entry], epoch: str, max_records: int) -> int:
        self.appends += 1
        if self.refusing:
            raise ServerAwayError("OOM command not allowed")
        if epoch != self._epoch:
            return LOST
        if sum(entry.records for entry in self.entries) >= max_records:
            return FULL
        added = 0
        for entry in entries:
            if not entry.last or any(self._stored.get(name, 0) < last for name, last in entry.last):
                self.entries.append(entry)
                self._stored.update(entry.last)
                added += 1
        if self.lose_replies:
            self.lose_replies -= 1
            raise ServerAwayError("connection lost before the reply came")
        return added

    def positions(self, producers: Sequence[str], writers: Sequence[str]) -> tuple[str, dict[str, Position]]:
        return self._epoch, {
            name: Position(
                self._stored.get(name, 0),
                min((self.written.get(writer, {}).get(name, 0) for writer in writers), default=0),
            )
            for name in producers
        }

    def forget_producers(self, producers: Sequence[str]) -> None:
        for name in producers:
            self._stored.pop(name, None)

    # -- for tests ------------------------------------------------------------------------------

    def items(self) -> list[tuple[str, int, record.Item]]:
        """Producer, sequence and item of everything in the stream, in order."""
        found = []
        for entry in self.entries:
            fields = dict(zip(entry.fields[::2], entry.fields[1::2], strict=True))
            for facts, first, items in batch.decode(fields):
                found += [(facts.producer, n, item) for n, item in enumerate(items, first)]
        return found

    def write(self, writer: str) -> None:
        """What a writer does: publish that it has written all there is."""
        positions = self.written.setdefault(writer, {})
        for producer, sequence, item in self.items():
            if not isinstance(item, record.End):
                positions[producer] = max(sequence, positions.get(producer, 0))


class MemoryClient:
    """One connection to a `MemoryServer`."""

    overflow = 0

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    def attach(self, epoch: str, writers: Sequence[str]) -> str:
        self._server.answer()
        return self._server.attach(epoch, writers)

    def append(self, entries: Iterable[batch.Entry], epoch: str, max_records: int) -> int:
        self._server.answer()
        return self._server.append(entries, epoch, max_records)

    def positions(self, producers: Sequence[str], writers: Sequence[str]) -> tuple[str, dict[str, Position]]:
        self._server.answer()
        return self._server.positions(producers, writers)

    def forget_producers(self, producers: Sequence[str]) -> None:
        self._server.answer()
        self._server.forget_producers(producers)

    def levels(self) -> Found | None:
        self._server.answer()
        return self._server.levels

    def close(self) -> None:
        pass

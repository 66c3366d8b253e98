"""A stream that is only looked at, in memory: the reading methods of `StreamClient` without a group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from redislogkit.errors import ServerAwayError
from redislogkit.record import Facts, Item, Record, build, encode
from redislogkit.stream import batch
from redislogkit.stream.batch import RawRun
from redislogkit.stream.client import RawEntry

FACTS = Facts("p1", "web1", 4711, "MainProcess", 0.0, 0)


def record(message: str, created: float = 1000.0, **values: Any) -> Record:
    given: dict[str, Any] = {
        "levelno": 20,
        "levelname": "INFO",
        "name": "app",
        "pathname": "/srv/app.py",
        "lineno": 7,
        **values,
    }
    return build(created=created, message=message, **given)


def entry(entry_id: str, first: int, items: Sequence[Item], facts: Facts = FACTS) -> RawEntry:
    """One entry of layout ``batches``."""
    payloads = [encode(item) for item in items]
    fields = batch.encode([RawRun(facts, first, payloads)], "none", bytes).fields
    return entry_id.encode(), dict(zip(fields[::2], fields[1::2], strict=True))


class LookedAt:
    """What a server has; is its own client."""

    def __init__(self, *entries: RawEntry) -> None:
        self.entries = list(entries)
        self.away = False
        self.connections = self.closed = 0
        self.published: dict[str, int] = {}
        self.meanwhile: Callable[[], None] = lambda: None
        """What happens with each command."""

    def connect(self) -> LookedAt:
        self.connections += 1
        return self

    def look(self, after: str, count: int, block: float = 0.0) -> list[RawEntry]:
        self._answer()
        return [entry for entry in self.entries if _key(entry[0]) > _key(after)][:count]

    def look_back(self, before: str, count: int) -> list[RawEntry]:
        self._answer()
        found = [entry for entry in self.entries if before == "+" or _key(entry[0]) < _key(before)]
        return found[::-1][:count]

    def newest_id(self) -> str:
        self._answer()
        return self.entries[-1][0].decode() if self.entries else "0-0"

    def written(self, writer: str) -> dict[str, int]:
        self._answer()
        return self.published

    def close(self) -> None:
        self.closed += 1

    def _answer(self) -> None:
        self.meanwhile()
        if self.away:
            raise ServerAwayError("connection refused")


def _key(entry_id: bytes | str) -> tuple[int, int]:
    text = entry_id.decode() if isinstance(entry_id, bytes) else entry_id
    milliseconds, _, number = text.partition("-")
    return int(milliseconds), int(number or 0)

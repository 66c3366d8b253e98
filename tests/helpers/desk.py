"""A writer of a file that writes when it is told to, and the stream that it reads, without a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from redislogkit import config as configuration
from redislogkit.config import FileWriterConfig
from redislogkit.record import Facts, Item
from redislogkit.stream import entries
from redislogkit.view.filter import Filter
from redislogkit.view.whole import Line, Whole
from redislogkit.writers.checkpoint import Checkpoint
from redislogkit.writers.file import FileDestination
from redislogkit.writers.reading import Reading
from tests.helpers.looking import FACTS, LookedAt, entry, record

#: 2026-11-22T18:00:00 UTC
START = 1_795_370_400.0


class Desk:
    """A configuration with a writer ``app``, its file and its stream."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.path = folder / "logs" / "app.log"
        self.tree: dict[str, Any] = {
            "state_dir": str(folder / "state"),
            "redis": {"url": "redis://nowhere"},
            "writers": {"app": {"type": "file", "path": str(self.path), "backup_count": 100, **settings}},
        }
        self.config = configuration.load(self.tree)
        self.server = LookedAt()
        self.moment = START
        self.sequence = 0
        self.unwritten: list[tuple[bytes, dict[bytes, bytes]]] = []
        self.said: list[str] = []
        checkpoints = Path(self.config.stream_dir, "checkpoints")
        checkpoints.mkdir(parents=True)
        self.checkpoint = Checkpoint(str(checkpoints / "app"))
        self.open()

    def open(self) -> None:
        """The writer starts."""
        writer = self.config.writers["app"]
        assert isinstance(writer, FileWriterConfig)
        self.destination = FileDestination(writer, pytest.fail, lambda: self.moment)
        self.checkpoint.open()
        self.commit(self.destination.recover(self.checkpoint))

    def close(self) -> None:
        """The writer is gone."""
        self.destination.close()
        self.checkpoint.close()

    def ship(self, *items: Item | str, facts: Facts = FACTS, **values: Any) -> None:
        """Records get into the stream, each with a second of its own."""
        made: list[Item] = []
        for item in items:
            self.moment += 1
            made.append(record(item, self.moment, **values) if isinstance(item, str) else item)
        one = entry(f"{int(self.moment * 1000)}-{self.sequence}", self.sequence + 1, made, facts)
        self.sequence += len(items)
        one[1][b"t"] = b"%d" % self.sequence
        self.server.entries.append(one)
        self.unwritten.append(one)

    def write(self, *, commit: bool = True, trim: bool = True) -> None:
        """The writer writes what is in the stream; without ``commit`` it is killed before it can say so."""
        reading = Reading(self.checkpoint.seen, None)
        for one in self.unwritten:
            for run in entries.decode(*one):
                reading.add(run)
        if self.unwritten:
            self.destination.write(reading)
            if commit:
                self.commit(reading.highest)
        self.unwritten.clear()
        if trim:
            del self.server.entries[:-1]

    def commit(self, reached: dict[str, int]) -> None:
        self.checkpoint.commit(b"1-0", 0, self.destination.mark(), reached, [])

    def log(self, *messages: str, **values: Any) -> None:
        """`ship` and `write`."""
        self.ship(*messages, **values)
        self.write()

    def whole(self, **wanted: Any) -> Whole:
        """Everything of the writer; `Whole.close` it."""
        found = Whole(
            self.config,
            "app",
            Filter.of(now=self.moment, **wanted),
            self.said.append,
            self.server.connect,  # type: ignore[arg-type]
        )
        found.open()
        return found

    def lines(self, **wanted: Any) -> list[Line]:
        whole = self.whole(**wanted)
        try:
            return list(whole.lines())
        finally:
            whole.close()

    def messages(self, **wanted: Any) -> list[str]:
        return messages(self.lines(**wanted))


def messages(lines: Sequence[Line]) -> list[str]:
    """What the records say; the text, where it is not understood."""
    return [line.seen.record.message if line.seen else line.text for line in lines]

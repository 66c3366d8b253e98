"""A file writer without a server: its real loop, reading a stream that stands in memory."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from redislogkit import record
from redislogkit.config import FileWriterConfig, FormatterConfig
from redislogkit.lines import Numbered
from redislogkit.record import Facts, Record
from redislogkit.stream import batch
from redislogkit.stream.batch import DecodedRun
from redislogkit.stream.client import RawEntry
from redislogkit.writers import archive
from redislogkit.writers.base import Writer
from redislogkit.writers.checkpoint import Checkpoint
from redislogkit.writers.file import FileDestination
from redislogkit.writers.reading import Reading
from stress.memory_stream import MemoryStream

#: 2026-11-22T18:00:00 UTC
START = 1_795_370_400.0


def facts(producer: str = "p1") -> Facts:
    return Facts(producer, "host", 4711, "MainProcess", START, 0)


def a_record(text: str, created: float = START, **fields: Any) -> Record:
    return record.build(created, 20, "INFO", "app", text, "/app.py", 1, "main", 1, "MainThread", **fields)


def numbered(
    texts: Iterable[str], first: int = 1, created: float = START, producer: str = "p1"
) -> list[Numbered]:
    return [(a_record(text, created), facts(producer), first + n) for n, text in enumerate(texts)]


def config(path: Path | str, **settings: Any) -> FileWriterConfig:
    return FileWriterConfig(
        path=str(path), **{"formatter": FormatterConfig(format="%(message)s"), "utc": True, **settings}
    )


def reading(items: Iterable[Numbered], seen: Callable[[str], int] = lambda producer: 0) -> Reading:
    """What the loop makes of ``items`` when they are read."""
    found = Reading(seen, lambda level, name: True)
    for item, its_facts, sequence in items:
        found.add(DecodedRun(its_facts, sequence, [item]))
    return found


def entries(items: Sequence[Numbered], size: int) -> list[RawEntry]:
    """Put ``items`` into stream entries of ``size``; neighbours of one producer with following sequences."""
    found: list[RawEntry] = []
    for begin in range(0, len(items), size):
        runs = [
            batch.RawRun(facts, sequence, [record.encode(item)])
            for item, facts, sequence in items[begin : begin + size]
        ]
        fields = batch.encode(runs, "none", bytes).fields
        found.append((b"%d-0" % (begin + 1), dict(zip(fields[::2], fields[1::2], strict=True))))
    return found


def run_writer(
    settings: FileWriterConfig,
    stream: list[RawEntry],
    checkpoint: Path | str,
    *,
    clock: Callable[[], float] = time.time,
    at_once: int = 3,
) -> list[str]:
    """Run a writer until it has read the stream to its end; return what it reported."""
    reports: list[str] = []
    source = MemoryStream(stream, at_once)
    folder = os.path.join(os.path.dirname(checkpoint), "index")
    destination = FileDestination(settings, reports.append, clock, index_folder=folder)
    writer = Writer(
        "app", source.connect, destination, Checkpoint(str(checkpoint)), lambda level, name: True, reports.append,
        block=0.0,
    )  # fmt: skip
    writer.run(source.is_read)
    return reports


@contextlib.contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder in memory, where there is one: hundreds of runs are not to wait for the disk."""
    folder = tempfile.mkdtemp(prefix="rlk-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder)


def lines(items: Iterable[Numbered]) -> bytes:
    """What a run without any fault makes of ``items`` with `config`."""
    return b"".join(item.message.encode() + b"\n" for item, _, _ in items if isinstance(item, Record))


def texts_of(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def everything(settings: FileWriterConfig, *others: Path) -> bytes:
    """What stands in all files, oldest first."""
    paths = [*others, *(Path(item.path) for item in archive.list_archives(settings)), Path(settings.path)]
    return b"".join(texts_of(path) for path in paths if os.path.exists(path))

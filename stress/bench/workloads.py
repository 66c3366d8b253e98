"""``python -m stress.bench.workloads NAME RECORDS``: small programs that always do the same, for counting what they do.

Nothing in them depends on the time that they take: no server, no second process, one entry of the stream a reading.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import redislogkit
from redislogkit import record
from redislogkit.config import FileWriterConfig, FormatterConfig
from redislogkit.record import Facts, Record
from redislogkit.spool import header
from redislogkit.stream import batch
from redislogkit.stream.client import RawEntry
from redislogkit.writers import index
from redislogkit.writers.base import Writer
from redislogkit.writers.checkpoint import Checkpoint
from redislogkit.writers.file import FileDestination
from stress.bench import deployment
from stress.bench.shapes import FORMAT, LOGGER, PERCENT, TEXTS, Shape, texts
from stress.memory_stream import MemoryStream

#: Records in an entry, as 64 KiB of ordinary ones are.
_BATCH: Final = 400
#: 2026-11-22T18:00:00 UTC
_START: Final = 1_795_370_400.0
_MESSAGES: Final = texts(Shape().text_length)

#: Does the work for so many records in a folder, and returns the seconds without preparation.
Workload = Callable[[str, int], float]


def emit(folder: str, records: int, overrides: Mapping[str, Any] | None = None) -> float:
    """Log into a spool, whose shipper is awake and far away."""
    source = {
        "version": 1,
        "state_dir": folder,
        "redis": {"url": "redis://127.0.0.1:1"},
        "producer": {"shutdown_timeout": 0},
        "supervisor": {"autostart": False},
        "writers": {"app": {"type": "file", "path": os.path.join(folder, "app.log")}},
    }
    handle = redislogkit.configure(source, **dict(overrides or {}))
    root = os.path.join(handle.config.stream_dir, "spool")
    log = logging.getLogger(LOGGER)
    log.warning("the first one")
    (spool,) = os.listdir(root)
    page = header.Header.open(os.path.join(root, spool))
    page.words[header.MARK] = 0
    seconds = _log(log, records)
    page.close()
    handle.close(0)
    return seconds


def emit_fast(folder: str, records: int) -> float:
    """The same with a fast logger."""
    return emit(folder, records, deployment.FAST)


def file_handler(folder: str, records: int) -> float:
    """Log into a file with the standard library: what the others are compared with where nothing can be counted."""
    handler = logging.FileHandler(os.path.join(folder, "app.log"))
    handler.setFormatter(logging.Formatter(FORMAT))
    log = logging.getLogger(LOGGER)
    log.propagate = False
    log.addHandler(handler)
    try:
        return _log(log, records)
    finally:
        log.removeHandler(handler)
        log.propagate = True
        handler.close()


def _log(log: logging.Logger, records: int) -> float:
    log.setLevel(logging.INFO)
    began = time.perf_counter()
    for number in range(records):
        log.info(PERCENT, 0, number, _MESSAGES[number % TEXTS])
    return time.perf_counter() - began


def write(folder: str, records: int) -> float:
    """Run a file writer's own loop over a stream in memory, with checkpoint and index."""
    config = FileWriterConfig(
        path=os.path.join(folder, "app.log"),
        formatter=FormatterConfig(format=FORMAT),
        max_bytes=10 * 1024 * 1024,
    )
    stream = MemoryStream(_entries(records), at_once=1)
    writer = Writer(
        "app",
        stream.connect,
        FileDestination(config, _ignore, index_folder=index.folder(folder, "app")),
        Checkpoint(os.path.join(folder, "checkpoint")),
        lambda level, name: True,
        _ignore,
        block=0.0,
    )
    began = time.perf_counter()
    writer.run(stream.is_read)
    return time.perf_counter() - began


def _ignore(message: str) -> None:
    """Nothing is wrong here."""


def _entries(records: int) -> list[RawEntry]:
    facts = Facts("p1", "host", 4711, "MainProcess", _START, 0)
    found: list[RawEntry] = []
    for begin in range(0, records, _BATCH):
        numbers = range(begin, min(begin + _BATCH, records))
        run = batch.RawRun(facts, begin + 1, [record.encode(_record(number)) for number in numbers])
        fields = batch.encode([run], "none", bytes).fields
        found.append((b"%d-0" % (begin + 1), dict(zip(fields[::2], fields[1::2], strict=True))))
    return found


def _record(number: int) -> Record:
    text = PERCENT % (0, number, _MESSAGES[number % TEXTS])
    moment = _START + number / 10_000
    return record.build(
        moment, 20, "INFO", LOGGER, text, "/srv/shop/orders.py", 117, "accept", 1, "MainThread"
    )


WORKLOADS: Final[Mapping[str, Workload]] = {"emit": emit, "emit-fast": emit_fast, "write": write}


def available() -> list[str]:
    """Names of the workloads that there are in this version."""
    fast = deployment.available(deployment.FAST)
    return [name for name in WORKLOADS if fast or name != "emit-fast"]


@contextlib.contextmanager
def memory_folder() -> Iterator[str]:
    """A folder in memory, where there is one: no disk has a say."""
    folder = tempfile.mkdtemp(prefix="rlk-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    with memory_folder() as place:
        WORKLOADS[sys.argv[1]](place, int(sys.argv[2]))

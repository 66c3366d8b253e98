"""Records that wait in the stream, because the only writer is stopped: what they take there, and how fast it catches up.

The writer is the real one below its supervisor, stopped with SIGSTOP; its supervisor is told to be patient. So the
entries are those that the shipper makes, the spools are still there, and the shipper follows the writer and removes
them while it drains. The catch-up rate is that of the whole, not of a loop that is fed from memory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final

import redis

from redislogkit.stream import address
from stress import processes
from stress.bench import lines
from stress.bench.deployment import FILE_WRITER, Deployment, until
from stress.bench.goals import Figure
from stress.bench.race import WARM_UP
from stress.bench.rows.crew import crew
from stress.bench.shapes import Shape

_PATIENT: Final = """\
[producer]
spool_max_bytes = "8 GiB"
[supervisor]
heartbeat_timeout = 3600
"""
_PRODUCERS: Final = 4
_MEGABYTE: Final = 1_000_000


def backlog(folder: str, size: int, records: int) -> list[Figure]:
    """Let so many records pile up, then see how fast one writer is, and how large it gets."""
    shape = Shape(producers=_PRODUCERS, records=records // _PRODUCERS, size=size, deadline=900)
    deployment = Deployment(folder, shape, more=_PATIENT)
    with crew(deployment, shape) as begin, deployment.stopped(FILE_WRITER) as writer:
        begin.set()
        stream = _Stream(deployment)
        stream.wait_for(_PRODUCERS * (WARM_UP + shape.records), shape.deadline)
        used = stream.memory() / shape.total
    began = time.time()
    if not until(lambda: not deployment.spools(), shape.deadline):
        raise TimeoutError("the backlog is not written in time")
    memory = processes.peak_memory(writer)
    check = _check(deployment, shape)
    rate = shape.total / (_end(deployment) - began)
    note = f"{shape.total:,} records; in redis {used:.0f} bytes each"
    return [
        Figure("backlog-rate", [rate], note, check.flaw),
        Figure("backlog-memory", [memory / _MEGABYTE], flaw=check.flaw),
    ]


def buffered(folder: str, size: int, rate: float, records: int) -> list[Figure]:
    """Let records come at a rate at which batches are of an ordinary size, and see what redis needs for them."""
    shape = Shape(producers=_PRODUCERS, records=records // _PRODUCERS, size=size)
    deployment = Deployment(folder, shape, more=_PATIENT)
    with crew(deployment, shape, rate / _PRODUCERS) as begin, deployment.stopped(FILE_WRITER):
        stream = _Stream(deployment)
        before = stream.memory(), stream.used()
        begin.set()
        stream.wait_for(_PRODUCERS * (WARM_UP + shape.records), shape.deadline)
        memory, used = stream.memory() - before[0], stream.used() - before[1]
        entries = stream.length()
    if not until(lambda: not deployment.spools(), shape.deadline):
        raise TimeoutError("not everything is written in time")
    check = _check(deployment, shape)
    line = check.bytes / check.records
    note = (
        f"{memory / shape.total:.1f} bytes for a line of {line:.0f}, {shape.total / entries:.0f} records an entry, "
        f"{rate:,.0f} records/s; the server as a whole has grown by {used / shape.total:.1f} bytes a record"
    )
    return [Figure("buffered", [memory / shape.total / line], note, check.flaw)]


class _Stream:
    """Looks at the stream as any client may."""

    def __init__(self, deployment: Deployment) -> None:
        url = address.resolve(deployment.config)
        self._execute: Callable[..., Any] = redis.Redis.from_url(url, protocol=2).execute_command
        self._name = deployment.config.stream.name

    def wait_for(self, records: int, timeout: float) -> None:
        """Wait until the stream has had so many. Raises ``TimeoutError``."""
        if not until(lambda: self._total() >= records, timeout):
            raise TimeoutError(f"the stream has {self._total():,} of {records:,} records")

    def _total(self) -> int:
        for _, fields in self._execute("XREVRANGE", self._name, "+", "-", "COUNT", 1):
            return int(fields[b"t"])
        return 0

    def memory(self) -> int:
        """Bytes of the stream with all its entries."""
        return int(self._execute("MEMORY", "USAGE", self._name, "SAMPLES", 0) or 0)

    def used(self) -> int:
        """Bytes of everything in the server."""
        return int(self._execute("INFO", "memory")["used_memory"])

    def length(self) -> int:
        """Entries that are there."""
        return int(self._execute("XLEN", self._name))


def _check(deployment: Deployment, shape: Shape) -> lines.Check:
    return lines.check(deployment.files(), shape.producers, WARM_UP + shape.records, shape.text_length)


def _end(deployment: Deployment) -> float:
    return max(os.stat(file).st_mtime for file in deployment.files())

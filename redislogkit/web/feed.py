"""What the page shows: the newest records of the stream, kept in memory, and how many came when.

Theory of operation. One thread follows the stream and appends to a ring, which is bounded by number and by bytes. Each
record has a number in it, and those who watch ask for what stands behind the last number that they have: nobody has a
queue that could grow, and who is too slow is told how many it has missed. Whoever waits is woken by the thread.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, Protocol

from redislogkit.errors import RedislogkitError, StreamError
from redislogkit.redaction import Redactor
from redislogkit.view.filter import Filter
from redislogkit.view.seen import Seen
from redislogkit.web.rows import row, size, without_secrets

#: Seconds of which it is kept how many records came.
REMEMBERED: Final = 600
#: Bytes of memory, about, that the records take.
MOST_BYTES: Final = 256 * 1024 * 1024
_BLOCK: Final = 1.0
_MOST_PRODUCERS: Final = 500
_MOST_REPORTS: Final = 50
_LEVELS: Final = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO)


class Source(Protocol):
    """What the feed needs of `redislogkit.view.follow.Follower`."""

    def start_with_last(self, count: int) -> list[Seen]:
        """Return the last ``count`` records, and go on behind them."""

    def read(self, block: float) -> list[Seen]:
        """Return what is new; waits up to ``block`` seconds for it."""

    def wait_after(self, error: RedislogkitError, block: float) -> None:
        """Wait a while for a server that is away."""

    def close(self) -> None:
        """Close the connection."""


class Producer:
    """A process that has logged, as far as the feed has seen it."""

    def __init__(self, seen: Seen) -> None:
        self.facts = seen.facts
        self.records = self.errors = 0
        self.last = 0.0
        """When it was heard of last, seconds since the epoch."""

    def as_json(self) -> dict[str, Any]:
        """Return it for the page."""
        facts = self.facts
        return {
            "host": facts.host,
            "pid": facts.pid,
            "name": facts.process_name,
            "producer": facts.producer,
            "records": self.records,
            "errors": self.errors,
            "last": self.last,
        }


class Second:
    """The records that came within one second."""

    def __init__(self, moment: int) -> None:
        self.moment = moment
        self.counts = [0] * (len(_LEVELS) + 1)
        self.oldest = 0.0
        """Seconds from the logging call to here, of the record that took longest."""

    def as_json(self) -> list[Any]:
        """Return the second, the numbers from critical to debug, and the longest way."""
        return [self.moment, *self.counts, round(self.oldest, 3)]


class Batch(NamedTuple):
    """What a watcher gets."""

    rows: list[dict[str, Any]]
    last: int
    """Number to ask with the next time."""
    skipped: int
    """Records between the last time and these, which came too fast, or are no longer kept."""


class Feed:
    """Keeps the newest ``keep`` records. `start` follows ``source`` in a thread, until `close`.

    What ``redactor`` takes out is not kept, and can not be searched for.
    """

    def __init__(
        self,
        source: Callable[[Callable[[str], None]], Source],
        keep: int,
        redactor: Redactor | None = None,
    ) -> None:
        self.name = os.urandom(8).hex()
        """Another one after a restart: its numbers begin anew."""
        self.reports: deque[tuple[float, str]] = deque(maxlen=_MOST_REPORTS)
        """What there was to say about the server and about entries, and when."""
        self.failure = ""
        """Why it follows the stream no more."""
        self._source = source(self._report)
        self._keep = keep
        self._redactor = redactor
        self._lock = threading.Lock()
        self._ring: deque[Seen] = deque()
        self._bytes = 0
        self._last = 0
        self._seconds: deque[Second] = deque(maxlen=REMEMBERED)
        self._producers: dict[str, Producer] = {}
        self._wakers: set[Callable[[], None]] = set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    # -- following ------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with what the stream still has."""
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._closing.set()
        self._wake()
        if self._thread.ident is not None:
            self._thread.join(_BLOCK + 5.0)

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                try:
                    self.add(self._source.start_with_last(self._keep), old=True)
                    break
                except StreamError as error:
                    self._source.wait_after(error, _BLOCK)
            while not self._closing.is_set():
                self.add(self._source.read(_BLOCK))
        except RedislogkitError as error:  # a url that is none, entries that nobody here can read
            self.failure = str(error)
            self._wake()
        finally:
            self._source.close()

    def _report(self, line: str) -> None:
        self.reports.append((time.time(), line))
        self._wake()

    def add(self, found: Iterable[Seen], *, old: bool = False) -> None:
        """Take records; ``old`` ones have come before anybody looked, and count when they were logged."""
        now = time.time()
        clean = [without_secrets(seen, self._redactor) for seen in found]
        with self._lock:
            before = self._last
            for seen in clean:
                self._last += 1
                self._ring.append(seen)
                self._bytes += size(seen)
                self._count(seen, min(seen.record.created, now) if old else now, now)
                while len(self._ring) > self._keep or self._bytes > MOST_BYTES:
                    self._bytes -= size(self._ring.popleft())
        if self._last > before:
            self._wake()

    def _count(self, seen: Seen, moment: float, now: float) -> None:
        level, second = seen.record.levelno, int(moment)
        if now - moment < REMEMBERED:
            if not self._seconds or self._seconds[-1].moment < second:
                self._seconds.append(Second(second))
            current = self._seconds[-1]
            current.counts[next((i for i, least in enumerate(_LEVELS) if level >= least), len(_LEVELS))] += 1
            current.oldest = max(current.oldest, moment - seen.record.created)
        name = seen.facts.producer or f"{seen.facts.host} {seen.facts.pid}"
        producer = self._producers.pop(name, None) or Producer(seen)
        self._producers[name] = producer  # the one that was heard of last is the last one
        producer.records += 1
        producer.errors += level >= logging.ERROR
        producer.last = moment
        if len(self._producers) > _MOST_PRODUCERS:
            del self._producers[next(iter(self._producers))]

    # -- watching -------------------------------------------------------------------------------

    def watch(self, waker: Callable[[], None]) -> Callable[[], None]:
        """Have ``waker`` called, in whatever thread, when there is something new; the result ends that."""
        self._wakers.add(waker)
        return lambda: self._wakers.discard(waker)

    def _wake(self) -> None:
        for waker in tuple(self._wakers):
            waker()

    @property
    def last(self) -> int:
        """Number of the newest record."""
        return self._last

    def behind(self, last: int, most: int, patience: int) -> Batch:
        """Return up to ``most`` rows behind number ``last``; only the newest of more than ``patience``."""
        with self._lock:
            missing = self._last - max(last, 0)
            if missing <= 0:
                return Batch([], self._last, 0)
            there = min(missing, len(self._ring))
            first = self._last - there + 1
            if there > patience:
                first = self._last - most + 1
            begin = len(self._ring) - (self._last - first + 1)
            found = list(itertools.islice(self._ring, begin, begin + most))
        rows = [row(number, seen) for number, seen in enumerate(found, first)]
        return Batch(rows, first + len(rows) - 1, first - max(last, 0) - 1)

    def before(self, number: int, wanted: Filter, most: int) -> tuple[list[dict[str, Any]], bool]:
        """Return the newest ``most`` rows before ``number`` that are wanted, oldest first, and if there may be more."""
        with self._lock:
            oldest = self._last - len(self._ring) + 1
            kept = list(itertools.islice(self._ring, max(number - oldest, 0)))
        found: list[dict[str, Any]] = []
        for index in range(len(kept) - 1, -1, -1):
            if wanted.matches(kept[index]):
                found.append(row(oldest + index, kept[index]))
                if len(found) == most:
                    return found[::-1], index > 0
        return found[::-1], False

    def seconds(self, since: int = 0) -> list[list[Any]]:
        """Return the seconds from ``since`` on in which something came."""
        with self._lock:
            return [second.as_json() for second in self._seconds if second.moment >= since]

    def producers(self) -> list[dict[str, Any]]:
        """Return who has logged, who was heard of last first."""
        with self._lock:
            return [producer.as_json() for producer in reversed(self._producers.values())]

    def levels(self) -> Counter[str]:
        """Return how many records of each level are kept."""
        with self._lock:
            return Counter(seen.record.levelname for seen in self._ring)

"""Following a stream: without a group, read-only, from any machine.

Theory of operation. Every record has a producer and a sequence, so what comes again (a resend, a server that was
restored from an older state, entries read again after a reconnect) is known by them and dropped. Where the stream has
been made anew, the ids of its entries begin anew as well: a `Follower` whose place lies behind the newest entry begins
at the oldest one, and sequences tell what it has had.

The stream is trimmed behind the slowest writer, whoever else reads it. Who is slower than that misses records; that
is noticed by their sequences, and said. To be quick, a thread may fetch entries ahead (`Follower.fetch_ahead`): what is
fetched is packed as it was in the stream, and unpacked, filtered and shown when there is time for it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from redislogkit.errors import CorruptDataError, GroupMissingError, RedislogkitError, ServerAwayError
from redislogkit.record import Loss
from redislogkit.stream import entries
from redislogkit.stream.client import RawEntry, StreamClient
from redislogkit.view.filter import Filter
from redislogkit.view.seen import Seen, seen

#: Entries in one reading. One may hold thousands of records.
_AT_ONCE: Final = 64
#: Bytes of entries, packed, that are fetched ahead.
AHEAD: Final = 64 * 1024 * 1024
#: Seconds; the connection's own time-out is twice as long.
LONGEST_BLOCK: Final = 2.0
_LONGEST_PAUSE: Final = 1.0
#: Clocks of producers and of the server differ by less, as a rule. Entries carry the server's time.
_SKEW: Final = 60.0
#: Producers of which it is known how far they have come.
_MOST_PRODUCERS: Final = 100_000


class Decoder:
    """Entries → what is new in them. ``report`` takes one line about what can not be shown."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._highest: dict[str, int] = {}

    def decode(self, found: Sequence[RawEntry]) -> Iterator[Seen]:
        """Yield what has not been seen yet."""
        for entry_id, fields in found:
            try:
                runs = entries.decode(entry_id, fields)
            except CorruptDataError as error:
                self._report(f"entry {entry_id.decode()} can not be shown: {error}")
                continue
            for run in runs:
                yield from self._new_of(run, entry_id.decode())

    def _new_of(self, run: entries.DecodedRun, entry_id: str) -> Iterator[Seen]:
        facts, first, items = run
        known = self._highest.pop(facts.producer, 0)
        last = first + len(items) - 1
        self._highest[facts.producer] = max(known, last)
        if len(self._highest) > _MOST_PRODUCERS:
            del self._highest[next(iter(self._highest))]
        if last <= known:
            return
        old = max(known + 1 - first, 0)
        # The notice of a loss stands under the last sequence that it names.
        begins = items[0].first if isinstance(items[0], Loss) else first
        if begins > known + 1 and known and facts.producer:
            self._report(
                f"records {known + 1} to {begins - 1} of producer {facts.producer} ({facts.host}, pid {facts.pid}) "
                "are no longer in the stream; the log files have them"
            )
        for sequence, item in enumerate(items[old:], first + old):
            if one := seen(item, facts, sequence, entry_id):
                yield one


class Follower:
    """Follows one stream.

    Args:
        connect: Makes a client; it may fail like the client does.
        report: Takes one line: the server is away, or back; something can not be shown.
        wanted: What to return; None: everything.

    It begins at the oldest entry, unless one of the ``start_`` methods is called first. These raise
    ``ServerAwayError``, or ``ConfigError`` for a url that is none; `read` waits for a server that is away.

    >>> follower = Follower(lambda: StreamClient("redis://localhost", "app"), print)  # doctest: +SKIP
    >>> shown = follower.start_with_last(10)                                          # doctest: +SKIP
    >>> while True: shown = follower.read(1.0)                                        # doctest: +SKIP
    """

    def __init__(
        self,
        connect: Callable[[], StreamClient],
        report: Callable[[str], None],
        wanted: Filter | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connect = connect
        self._report = report
        self._wanted = wanted
        self._sleep = sleep
        self._decoder = Decoder(report)
        self._client: StreamClient | None = None
        self._after = "0-0"
        self._newest = "0-0"  # of the entries that the stream has been seen to have
        self._failures = 0
        self._ahead: _Ahead | None = None

    # -- where to begin -------------------------------------------------------------------------

    def start_at_end(self) -> None:
        """Begin behind the newest entry."""
        self._after = self.newest_id()

    def start_since(self, moment: float) -> None:
        """Begin with the entries of ``moment`` (seconds since the epoch), and some before: clocks differ."""
        self._after = f"{max(int((moment - _SKEW) * 1000), 0)}-0"

    def start_with_last(self, count: int) -> list[Seen]:
        """Return the last ``count`` that are wanted, oldest first, and go on behind them.

        After `start_since` they are the last ones since then.
        """
        end = self.newest_id()
        if count > 0:
            self._after = self._place_of_last(count)
        last: deque[Seen] = deque(maxlen=count)
        if count > 0:
            last.extend(self.read_to(end))
        self._after = end
        return list(last)

    def _place_of_last(self, count: int) -> str:
        """Return the id of an entry behind which there are at least so many that are wanted, if there are."""
        client, floor = self._ready(), _key(self._after)
        number, before = 0, "+"
        while found := client.look_back(before, _AT_ONCE):
            for entry in found:
                before = entry[0].decode()
                if _key(before) <= floor:
                    return self._after
                number += sum(1 for _ in self._select(Decoder(_say_nothing).decode([entry])))
                if number >= count:
                    return _before(before)
        return self._after

    # -- reading --------------------------------------------------------------------------------

    def fetch_ahead(self, max_bytes: int = AHEAD) -> None:
        """From now on have a thread fetch entries, up to ``max_bytes`` ahead of `read`; it ends with `close`."""
        self._ahead = _Ahead(self._fetch, self._disconnect, max_bytes)
        self._ahead.start()

    def read(self, block: float = LONGEST_BLOCK) -> list[Seen]:
        """Return what is new and wanted; waits up to ``block`` seconds for it, also for a server that is away.

        Empty when there was nothing. Raises ``ConfigError`` where an entry can not be read by this installation.
        """
        found = self._fetch(block) if self._ahead is None else self._ahead.take(block)
        return list(self._select(self._decoder.decode(found)))

    def _fetch(self, block: float) -> list[RawEntry]:
        """Return the next entries; none when there was nothing within ``block`` seconds."""
        try:
            client = self._ready()
            found = client.look(self._after, _AT_ONCE, min(block, LONGEST_BLOCK))
            if not found:
                self._check_place(client)
        except (ServerAwayError, GroupMissingError) as error:
            self.wait_after(error, block)
            return []
        if self._failures:
            self._failures = 0
            self._report("the server is back")
        self._come_to(found)
        return found

    def read_to(self, last_id: str) -> Iterator[Seen]:
        """Yield what is wanted up to the entry ``last_id``. Raises ``ServerAwayError``."""
        end = _key(last_id)
        while _key(self._after) < end and (found := self._ready().look(self._after, _AT_ONCE)):
            self._come_to(found)
            upto = [entry for entry in found if _key(entry[0].decode()) <= end]
            yield from self._select(self._decoder.decode(upto))

    def newest_id(self) -> str:
        """Return the id of the newest entry, for `read_to`. Raises ``ServerAwayError``."""
        self._newest = self._ready().newest_id()
        return self._newest

    def cut_until(self) -> float | None:
        """Return when the oldest entry was added, seconds since the epoch, where older ones are gone; None: none are.

        Raises ``ServerAwayError``.
        """
        for entry_id, fields in self._ready().look("0-0", 1):
            with contextlib.suppress(CorruptDataError):
                there = sum(len(items) for _, _, items in entries.decode(entry_id, fields))
                return _key(entry_id.decode())[0] / 1000 if entries.total(fields) > there else None
        return None

    def close(self) -> None:
        """Close the connection."""
        if self._ahead is not None:
            self._ahead.stop()  # it ends with what it waits for, and uses the connection until then
            return
        self._disconnect()

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _come_to(self, found: Sequence[RawEntry]) -> None:
        if found:
            self._after = self._newest = found[-1][0].decode()

    def _select(self, found: Iterator[Seen]) -> Iterator[Seen]:
        return found if self._wanted is None else filter(self._wanted.matches, found)

    def _ready(self) -> StreamClient:
        if self._client is None:
            client = self._connect()
            try:
                self._check_place(client)
            except RedislogkitError:
                client.close()
                raise
            self._client = client
        return self._client

    def _check_place(self, client: StreamClient) -> None:
        """Begin anew in a stream that has not come as far as it had: it is another one, or an earlier state."""
        newest = client.newest_id()
        if _key(newest) < _key(self._newest):
            self._after = "0-0"
        self._newest = newest

    def wait_after(self, error: RedislogkitError, block: float = _LONGEST_PAUSE) -> None:
        """Wait a while for a server that is away, at most ``block`` seconds; it is said once."""
        self._disconnect()
        if not self._failures:
            self._report(f"the server is away, waiting for it: {error}")
        self._failures += 1
        self._sleep(min(block, 0.05 * 2 ** min(self._failures, 6), _LONGEST_PAUSE))


class _Ahead(threading.Thread):
    """Fetches entries and keeps up to ``max_bytes`` of them until they are taken."""

    def __init__(
        self, fetch: Callable[[float], list[RawEntry]], disconnect: Callable[[], None], max_bytes: int
    ) -> None:
        super().__init__(name="redislogkit-follower", daemon=True)
        self._fetch = fetch
        self._disconnect = disconnect
        self._room = max_bytes
        self._changed = threading.Condition()
        self._readings: deque[list[RawEntry]] = deque()
        self._stopped = False
        self._error: Exception | None = None

    def run(self) -> None:
        """Fetch until it is stopped."""
        try:
            while not self._stopped:
                found = self._fetch(LONGEST_BLOCK)
                with self._changed:
                    if found:
                        self._readings.append(found)
                        self._room -= _size(found)
                        self._changed.notify_all()
                    self._changed.wait_for(lambda: self._room > 0 or self._stopped)
        except Exception as error:  # for whoever reads
            with self._changed:
                self._error = error
                self._changed.notify_all()
        finally:
            self._disconnect()

    def take(self, block: float) -> list[RawEntry]:
        """Return the oldest reading; none where there is none within ``block`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._readings or self._error, block)
            if not self._readings:
                if self._error is not None:
                    raise self._error
                return []
            found = self._readings.popleft()
            self._room += _size(found)
            self._changed.notify_all()
            return found

    def stop(self) -> None:
        """End soon."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


def _size(found: Sequence[RawEntry]) -> int:
    return sum(len(value) for _, fields in found for value in fields.values())


def _say_nothing(_: str) -> None:
    pass


def _key(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)


def _before(entry_id: str) -> str:
    milliseconds, number = _key(entry_id)
    return f"{milliseconds}-{number - 1}" if number else f"{max(milliseconds - 1, 0)}-{2**64 - 1}"

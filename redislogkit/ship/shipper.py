"""The shipper: everything that producers have put into their spools goes into the stream, once, in order.

Theory of operation. One loop over all spools of the host (or, in a thread of the application, over its
own):

* *collect* whole frames into a pending batch; it leaves when it is large enough or `flush_interval` old;
* *send* it with one idempotent script call. After a failure nothing is known about what the server has, so it
  is asked, and the spools are read again from there, for as long as it takes; they are the buffer;
* *follow* the positions that the writers publish, put them into the spools' headers, and release what
  every writer has durably written (``ack = "writer"``) or the stream has confirmed (``ack = "stream"``);
* *bring* the levels that somebody has changed for a while to the producers of the host (``levels.py``);
* *look after* dead producers: a spool whose lock is free is retired, drained, confirmed and removed.

The server's memory of a stream has an epoch. Whenever it may have changed (each new connection, an
append that says so, a position answer that says so) the shipper asks how far each producer has come in
the stream and reads the retained segments again from there. Writers drop what they have written, so
sending too much is harmless, and sending too little is impossible while the segments are kept.

*Draining* reads each spool until it has caught up with it once, and waits until that much is safe. A producer
that goes on logging can therefore not keep a stopping shipper busy; what comes later stays in the spool.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from redislogkit import levels, record
from redislogkit.config import Config
from redislogkit.errors import RedislogkitError, ServerAwayError
from redislogkit.levels import Found
from redislogkit.ship.levels import LevelsFile
from redislogkit.ship.spools import SpoolSet
from redislogkit.spool import doorbell as doorbells
from redislogkit.spool.shipper_end import ShipperEnd
from redislogkit.stream import address, batch
from redislogkit.stream.client import FULL, LOST, Position
from redislogkit.trouble import Trouble

#: Raw bytes that end the wait for company, and that one entry has at most (but for one large record).
FULL_BATCH: Final = 64 * 1024
LARGE_BATCH: Final = 512 * 1024
#: Raw bytes that are read of one spool at a time; where there are so many, there are more.
_AT_ONCE: Final = 128 * 1024
_HOUSEKEEPING: Final = 1.0
#: It comes as much later as it takes longer than this (with a thousand producers, 0.04 s), but not later than so long.
_CHEAP: Final = 0.02
_LONGEST_HOUSEKEEPING: Final = 10.0
_SOON: Final = 0.1
#: Seconds between two looks whether somebody has changed a level: with producers, and where none is known. (One that
#: has not logged yet is not known.)
_LEVELS_PAUSE: Final = 0.9
_LONGEST_LEVELS_PAUSE: Final = 5.0
#: Seconds that may be spent on burying the dead before anything else is done.
_LONGEST_BURIAL: Final = 0.25
_BEAT: Final = 0.5
#: A server that is away for less than this (it is just starting) is not worth a line.
_PATIENCE: Final = 1.0
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 2.0
_FULL_PAUSE: Final = 0.1
#: Seconds between two lines about what the stream has no room for.
_OVERFLOW_PAUSE: Final = 60.0
_POSITIONS_PAUSE: Final = 0.004
_LONGEST_POSITIONS_PAUSE: Final = 0.25
#: With many producers, following takes time, and at most one part in so many of it.
_POSITIONS_SHARE: Final = 50
_PRODUCERS_AT_ONCE: Final = 1000
_LONGEST_SLEEP: Final = 1.0
#: Looks at all producers take at most one part in so many of the time, but come at least after so many intervals: with a
#: thousand quiet ones (0.6 ms), records wait for 60 ms instead of 20, and all processes together need half as much.
_LOOKS_SHARE: Final = 100
_LONGEST_REST: Final = 5
_DRAIN_PAUSE: Final = 0.002
_DRAIN_HOUSEKEEPING: Final = 0.02

Encode = Callable[[Sequence[batch.RawRun]], list[batch.Entry]]


class StreamEnd(Protocol):
    """What the shipper needs of the stream, as `StreamClient` has it."""

    overflow: int
    """Records that were ever dropped from the stream, for want of a writer; as of the last `append`."""

    def attach(self, epoch: str, writers: Sequence[str]) -> str:
        """Make sure that the stream exists and keeps all for ``writers``; return its epoch."""

    def append(self, entries: Iterable[batch.Entry], epoch: str, max_records: int) -> int:
        """Append entries in order, once. Return how many were new, or `LOST` or `FULL`."""

    def positions(self, producers: Sequence[str], writers: Sequence[str]) -> tuple[str, dict[str, Position]]:
        """Return the epoch ("" when the stream is gone) and the position of each producer."""

    def forget_producers(self, producers: Sequence[str]) -> None:
        """Drop what the server remembers of producers whose spools are gone."""

    def levels(self) -> Found | None:
        """Return the levels that loggers have for a while; None when the server refuses to tell."""

    def close(self) -> None:
        """Close the connection."""


class ShipperSettings(NamedTuple):
    """What the loop needs to know; times in seconds."""

    root: str
    """Folder of the spools."""
    flush_interval: float
    buffer_size: int
    max_records: int
    writers: tuple[str, ...]
    """Writers whose positions release a spool; empty: the stream's confirmation does (``ack = "stream"``)."""
    registered: tuple[str, ...] = ()
    """Writers that will read the stream: nothing is trimmed before they have."""
    levels: str = ""
    """File of the levels that producers are to look at; empty: there is none."""
    own: str = ""
    """Producer whose spools alone are shipped while alive (thread mode); empty: all but those."""

    @classmethod
    def of(cls, config: Config, own: str = "") -> ShipperSettings:
        """Return what a configuration says."""
        groups = address.groups(config)
        return cls(
            root=config.spool_root,
            flush_interval=config.producer.flush_interval,
            buffer_size=config.producer.buffer_size,
            max_records=config.stream.max_records,
            writers=groups if config.producer.ack == "writer" else (),
            registered=groups,
            levels=os.path.join(config.stream_dir, levels.NAME),
            own=own,
        )


class Status(NamedTuple):
    """What the supervisor wants to know about a shipper."""

    producers: int
    """Spools of living producers."""
    outstanding: int
    """Spools with records that are not safe yet."""
    spools: int
    error: str
    """Why the stream can not be reached, empty when it can."""
    rings: int
    """How often the doorbell has been heard: somebody is there, with or without a spool."""
    shipped: int
    """Records shipped since the start; those that are sent again count again."""
    spool_bytes: int
    """What the spools take on the disk."""
    dropped: tuple[tuple[str, int], ...]
    """Records that were dropped before they could be written: cause and number, as far as it is known since the start."""


class Shipper:
    """Ships until told to stop. Owns its connection; the doorbell is the caller's."""

    def __init__(
        self,
        settings: ShipperSettings,
        connect: Callable[[], StreamEnd],
        encode: Encode,
        bell: doorbells.Doorbell,
        report: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._encode = encode
        self._bell = bell
        self._report = report
        self._client: StreamEnd | None = None
        self._epoch = ""
        self._spools = SpoolSet(settings.root, settings.own, report)
        self._turn = 0
        self._collected = 0  # bytes, ever
        self._thorough = False
        self._looks = deque([0.0], maxlen=4)  # what looks at all spools took
        self._backlog = self._busy = False
        self._caught_up: set[str] = set()  # directories; while draining
        self._pending: list[batch.RawRun] = []
        self._pending_bytes = 0
        self._pending_records = 0
        self._pending_spools: set[ShipperEnd] = set()
        self._pending_since = 0.0
        self._sent_bytes = 0
        self._looked = 0.0
        self._next_collect = 0.0
        self._entries: list[batch.Entry] = []
        self._refused = False
        self._next_try = 0.0
        self._next_positions = 0.0
        self._positions_pause = _POSITIONS_PAUSE
        self._positions_rest = 0.0
        self._perhaps_unwritten: set[ShipperEnd] = set()
        self._behind = False
        self._next_beat = 0.0
        self._next_housekeeping = 0.0
        self._houses = deque(
            [0.0], maxlen=4
        )  # what it took; the least counts: opening and burying many does not
        self._levels = LevelsFile(settings.levels) if settings.levels else None
        self._next_levels = 0.0
        self._last_active = 0.0
        self._sleeping = False
        self._collected_before = -1
        self._rings = 0
        self._trouble = Trouble(report)
        self.shipped_records = 0
        self._overflow = -1  # as it was told last
        self._overflowed = 0  # what was told so far
        self._next_overflow = 0.0

    # -- the loop -------------------------------------------------------------------------------

    def run(
        self,
        stopping: Callable[[], bool],
        beat: Callable[[Status], None] = lambda status: None,
        wake: Sequence[int] = (),
        *,
        drain_timeout: float = 10.0,
        abandoned: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Ship until ``stopping()``, then drain for at most ``drain_timeout`` seconds; True if that was enough.

        ``wake`` are descriptors that end a sleep; ``beat`` gets a status at least every second;
        ``abandoned`` says that there is no time to drain.
        """
        try:
            while not stopping():
                self.step()
                self._give_beat(beat)
                self._wait(wake)
            self._next_housekeeping = 0.0
            deadline = time.monotonic() + drain_timeout
            while not abandoned() and time.monotonic() < deadline:
                self.step(draining=True)
                self._give_beat(beat)
                if self.is_drained():
                    return True
                time.sleep(_DRAIN_PAUSE)
            return False
        finally:
            self.close()

    def _give_beat(self, beat: Callable[[Status], None]) -> None:
        now = time.monotonic()
        if now >= self._next_beat:
            self._next_beat = now + _BEAT
            beat(self.status())

    def step(self, *, draining: bool = False) -> None:
        """Do what is to be done now, without waiting."""
        now = time.monotonic()
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + (_DRAIN_HOUSEKEEPING if draining else _HOUSEKEEPING)
            self._thorough = True
            dead = self._keep_house()
            if not (dead or draining):
                rest = _HOUSEKEEPING * min(self._houses) / _CHEAP
                self._next_housekeeping = max(self._next_housekeeping, now + min(rest, _LONGEST_HOUSEKEEPING))
            self._houses.append(time.monotonic() - now)
        if not self._entries and self._connected() and (draining or now >= self._next_collect):
            thorough, began = self._thorough, time.monotonic()
            self._collect(now, draining)
            if thorough:
                self._houses[-1] += time.monotonic() - began
        if self._due(now, draining):
            self._send()
        if now >= self._next_positions and self._client is not None:
            self._follow()

    def status(self) -> Status:
        """Counts for the supervisor."""
        waiting = self._spools.waiting
        outstanding = waiting + sum(not self._is_safe(spool) for spool in self._spools.values())
        spools = waiting + len(self._spools)
        census = self._spools.census
        dropped = census.dropped
        if self._overflowed:
            dropped = (*dropped, ("stream_full", self._overflowed))
        return Status(
            self._spools.living,
            outstanding,
            spools,
            self._trouble.reason,
            self._rings,
            self.shipped_records,
            census.size,
            dropped,
        )

    def is_drained(self) -> bool:
        """True when all that was there at the beginning of draining is safe, and the dead are buried."""
        if self._pending or self._spools.waiting:
            return False
        return all(self._is_drained(spool) for spool in self._spools.values())

    def _is_drained(self, spool: ShipperEnd) -> bool:
        if spool.owner_dead and self._client is not None:
            return False  # its burial is near
        return self._is_safe(spool) or (spool.directory in self._caught_up and self._is_safe_so_far(spool))

    def close(self) -> None:
        """Let go of spools and connection; whatever is not confirmed stays in the spools."""
        self._spools.close()
        self._disconnect()

    # -- waiting --------------------------------------------------------------------------------

    def _wait(self, wake: Sequence[int]) -> None:
        now = time.monotonic()
        if self._client is None or self._entries:
            self._rest(min(max(self._next_try - now, 0.001), _LONGEST_SLEEP), wake)
        elif self._backlog:
            return
        elif self._busy:
            # Appending a little at a time would cost 0.2 us a record of 4.5, of all processes.
            self._rest(min(self._settings.flush_interval / 8, 0.005), wake)
        elif self._pending:
            self._pause(self._pending_since + self._settings.flush_interval - now, wake)
        elif now - self._last_active < 5 * self._settings.flush_interval:
            self._pause(self._settings.flush_interval, wake)
        else:
            self._sleep(wake)

    def _pause(self, seconds: float, wake: Sequence[int]) -> None:
        """Rest until the spools are looked at again, at most ``seconds`` from now, or positions are to be followed.

        With little to ship, looking again early would only be work; a thousand quiet producers make a lot of it. So
        with very many, the time between two looks is longer, by what a look at all of them takes.
        """
        now = time.monotonic()
        until = now + seconds if self._pending else math.inf
        if now >= self._next_collect:
            if max(self._pending_bytes, self._sent_bytes) >= FULL_BATCH // 8:
                seconds = min(seconds, max(self._settings.flush_interval / 4, 0.002), 0.05)
            # The least of some: whatever else the machine does, a look at few is short.
            least = min(_LOOKS_SHARE * min(self._looks), _LONGEST_REST * self._settings.flush_interval)
            self._next_collect = now + max(seconds, least)
        until = min(until, self._next_collect, self._next_positions if self._behind else math.inf)
        self._rest(max(until - now, 0.0), wake)

    def _rest(self, seconds: float, wake: Sequence[int]) -> None:
        """A short pause; known producers do not ring now, one that has just come does."""
        self._be_sleeping(False)
        if self._bell.wait(seconds, *wake):
            self._answer_bell()

    def _sleep(self, wake: Sequence[int]) -> None:
        """Ask producers to ring, look once more, then sleep."""
        self._be_sleeping(True)
        # A frame that never becomes whole is news for ever: what collecting did not move keeps nobody awake.
        stuck = self._collected == self._collected_before
        self._collected_before = self._collected
        if not self._spools.has_news() or stuck:
            pause = self._positions_pause if self._unwritten() else _LONGEST_SLEEP
            pause = min(pause, max(self._next_housekeeping - time.monotonic(), 0.0))
            if self._bell.wait(pause, *wake):
                self._collected_before = -1
                self._answer_bell()

    def _be_sleeping(self, sleeping: bool) -> None:
        if sleeping != self._sleeping:
            self._sleeping = sleeping
            self._spools.set_sleeping(sleeping)

    def _answer_bell(self) -> None:
        self._rings += 1
        self._next_collect = 0.0
        self._last_active = time.monotonic()
        self._discover()

    # -- spools ---------------------------------------------------------------------------------

    def _discover(self, *, again: bool = False) -> None:
        opened = self._spools.discover(again=again)
        if opened and self._client is not None:
            try:
                self._resume(opened)
            except RedislogkitError as error:
                self._away(error)

    def _keep_house(self) -> bool:
        """Look after all spools; True where some are of the dead, or wait to be opened."""
        self._discover(again=True)
        began = time.monotonic()
        again = began + _SOON if self._spools.waiting else self._next_housekeeping
        dead = self._spools.look_after()
        for spool in dead:
            now = time.monotonic()
            if now - began > _LONGEST_BURIAL:  # a sign of life first, and records of the living
                again = now
                break
            self._bury(spool)
            if not spool.finished:  # it has just been retired: read it to its end, then come back
                again = min(again, now + _SOON)
        self._next_housekeeping = min(self._next_housekeeping, again)
        self._spools.count()
        if self._levels is not None and self._client is not None and began >= self._next_levels:
            self._next_levels = began + (_LEVELS_PAUSE if self._spools.living else _LONGEST_LEVELS_PAUSE)
            self._bring_levels(self._client, self._levels)
        return bool(dead or self._spools.waiting)

    def _bring_levels(self, client: StreamEnd, file: LevelsFile) -> None:
        """Tell the producers of this host whose level somebody has changed for a while."""
        try:
            found = client.levels()
        except RedislogkitError as error:
            self._away(error)
            return
        if found is not None:
            with contextlib.suppress(OSError):  # a full disk, say: it is tried again
                file.put(found)

    def _bury(self, spool: ShipperEnd) -> None:
        """Remove the spool of a dead producer when all of it is read, confirmed and written."""
        if not spool.finished or self._client is None or not self._is_safe(spool):
            return
        if any(run.facts.producer == spool.facts.producer for run in self._pending):
            return
        if self._spools.others_of(spool) or self._say_goodbye(spool):
            self._spools.remove(spool)
            self._next_beat = 0.0  # a launched supervisor may be waiting for the last one

    def _say_goodbye(self, spool: ShipperEnd) -> bool:
        """Tell the writers that a producer is complete, so that they need not remember it for ever."""
        assert self._client is not None
        # By what was read and not by the header, where another shipper may have put what stands in another spool.
        sequence = spool.read_sequence + 1
        goodbye = batch.RawRun(spool.facts, sequence, [record.encode(record.End())])
        # Not counted as a sequence: a daemon that logs on in another spool will take that number.
        entries = [entry._replace(last=[]) for entry in self._encode([goodbye])]
        try:
            answer = self._client.append(entries, self._epoch, self._settings.max_records)
            if answer == LOST:
                self._start_over()
            if answer < 0:
                return False
            self._client.forget_producers([spool.facts.producer])
        except RedislogkitError as error:
            self._away(error)
            return False
        return True

    # -- collecting and sending -----------------------------------------------------------------

    def _collect(self, now: float, draining: bool) -> None:
        spools = self._spools.readable()
        # Where one round ends for size the next begins: no producer waits for a busier one.
        turn = self._turn % len(spools) if spools else 0
        self._backlog = self._busy = False
        # Where no frame has come, only damage could be found: once a second is soon enough for a thousand folders.
        thorough, self._thorough = self._thorough or draining, False
        # What is found now may have come right after the last look. Whoever has rung has waited for company already.
        since, self._looked = self._looked or now, now
        if self._sleeping:
            since = now - self._settings.flush_interval
        turns = [*enumerate(spools[turn:], turn), *enumerate(spools[:turn])]
        if not thorough:
            began = time.monotonic()
            turns = [(index, spool) for index, spool in turns if spool.has_news()]
            self._looks.append(time.monotonic() - began)
        for index, spool in turns:
            if self._pending_bytes >= LARGE_BATCH:
                self._turn, self._backlog = index, True
                break
            # What a dead producer has left has an end: it is read to it, whenever he has died.
            if not draining or spool.directory not in self._caught_up or spool.owner_dead:
                self._collect_from(spool, now, since)
            if draining and not spool.has_news():
                self._caught_up.add(spool.directory)

    def _collect_from(self, spool: ShipperEnd, now: float, since: float) -> None:
        size = 0
        for run in self._spools.read(spool, _AT_ONCE):
            self._pending_spools.add(spool)
            if not self._pending:
                self._pending_since = since
            self._pending.append(batch.RawRun(*run))
            size += sum(map(len, run.payloads))
            self._pending_records += len(run.payloads)
            self._last_active = now
        self._pending_bytes += size
        self._collected += size
        self._backlog = self._backlog or size >= _AT_ONCE
        self._busy = self._busy or size >= FULL_BATCH // 2

    def _due(self, now: float, draining: bool) -> bool:
        if self._client is None:
            return False
        if self._entries:
            return now >= self._next_try
        return bool(self._pending) and (
            draining
            or self._pending_bytes >= FULL_BATCH
            or self._pending_records >= self._settings.buffer_size
            or now - self._pending_since >= self._settings.flush_interval
        )

    def _send(self) -> None:
        assert self._client is not None
        if not self._entries:
            self._entries = self._encoded()
        try:
            answer = self._client.append(self._entries, self._epoch, self._settings.max_records)
            if answer == LOST:
                self._start_over()
                return
        except RedislogkitError as error:
            self._refused = True
            self._away(error)
            return
        if answer == FULL:
            self._refused = True
            self._hold_back(
                f"the stream holds stream.max_records = {self._settings.max_records} records", _FULL_PAUSE
            )
            return
        self._refused = False
        self._recovered()
        self._tell_overflow(self._client.overflow)
        self._shipped()

    def _tell_overflow(self, overflow: int) -> None:
        """The stream is kept within its bound at the cost of its oldest records: say so, once in a while."""
        now = time.monotonic()
        if self._overflow < 0 or overflow < self._overflow:
            self._overflow = overflow
        elif overflow > self._overflow and now >= self._next_overflow:
            self._report(
                f"{overflow - self._overflow} records were dropped from the stream: it holds stream.max_records = "
                f"{self._settings.max_records}, and no writer is registered to read them"
            )
            self._overflowed += overflow - self._overflow
            self._overflow, self._next_overflow = overflow, now + _OVERFLOW_PAUSE

    def _encoded(self) -> list[batch.Entry]:
        """The pending runs as entries; what can not be encoded is replaced by a note of its loss."""
        try:
            return self._encode(self._pending)
        except MemoryError:
            raise  # nothing is wrong with the records: a shipper that is started again has more
        except Exception as error:  # bytes that no producer of ours has made
            self._report(f"a record can not be encoded: {error!r}; a note of its loss takes its place")
            return [
                entry
                for facts, first, payloads in self._pending
                for sequence, payload in enumerate(payloads, first)
                for entry in self._encoded_one(facts, sequence, payload)
            ]

    def _encoded_one(self, facts: record.Facts, sequence: int, payload: bytes) -> list[batch.Entry]:
        try:
            return self._encode([batch.RawRun(facts, sequence, [payload])])
        except MemoryError:
            raise
        except Exception:
            loss = record.encode(record.Loss(sequence, sequence, "damaged", time.time()))
            return self._encode([batch.RawRun(facts, sequence, [loss])])

    def _shipped(self) -> None:
        self.shipped_records += self._pending_records
        self._sent_bytes = self._pending_bytes
        last = {run.facts.producer: run.first + len(run.payloads) - 1 for run in self._pending}
        self._perhaps_unwritten |= self._pending_spools
        for spool in self._pending_spools:
            sequence = last[spool.facts.producer]
            if not spool.closed and sequence > spool.shipped:
                spool.set_shipped(min(sequence, max(spool.read_sequence, spool.shipped)))
                if not self._settings.writers:
                    spool.set_written(spool.shipped)
                    spool.release(spool.shipped)
        self._forget_pending()
        self._positions_pause = _POSITIONS_PAUSE
        self._next_positions = max(time.monotonic() + _POSITIONS_PAUSE, self._positions_rest)
        self._behind = True

    def _forget_pending(self) -> None:
        self._pending, self._entries = [], []
        self._pending_spools.clear()
        self._pending_bytes = self._pending_records = 0

    # -- positions ------------------------------------------------------------------------------

    def _is_safe_so_far(self, spool: ShipperEnd) -> bool:
        reached = spool.written if self._settings.writers else spool.shipped
        return reached >= spool.read_sequence

    def _is_safe(self, spool: ShipperEnd) -> bool:
        return self._is_safe_so_far(spool) and not spool.has_news()

    def _unwritten(self) -> list[ShipperEnd]:
        if not self._settings.writers:
            return []
        self._perhaps_unwritten = {
            spool for spool in self._perhaps_unwritten if not spool.closed and spool.is_unwritten()
        }
        return list(self._perhaps_unwritten)

    def _follow(self) -> None:
        """Put what the writers have published into the headers; release what is safe."""
        began = time.monotonic()
        behind = self._unwritten()
        self._behind = bool(behind)
        self._next_positions = began + self._positions_pause
        if not behind or self._client is None:
            return
        try:
            epoch, positions = self._positions(behind)
            took = time.monotonic() - began
            self._positions_rest = began + min(_POSITIONS_SHARE * took, _LONGEST_POSITIONS_PAUSE)
            self._next_positions = max(self._next_positions, self._positions_rest)
            if epoch != self._epoch:
                self._start_over()
                return
        except RedislogkitError as error:
            self._away(error)
            return
        moved = False
        for spool in behind:
            written = positions[spool.facts.producer].written
            if written > spool.written:
                moved = True
                spool.set_written(written)
                spool.release(written)
        longer = min(self._positions_pause * 1.5, _LONGEST_POSITIONS_PAUSE)
        self._positions_pause = _POSITIONS_PAUSE if moved else longer

    def _positions(self, spools: Sequence[ShipperEnd]) -> tuple[str, dict[str, Position]]:
        """Epoch, and position of each producer: asked for in parts, since a script's stack is limited."""
        assert self._client is not None
        producers = list({spool.facts.producer for spool in spools})
        epoch, found = self._epoch, dict[str, Position]()
        for start in range(0, len(producers), _PRODUCERS_AT_ONCE):
            part = producers[start : start + _PRODUCERS_AT_ONCE]
            epoch, positions = self._client.positions(part, self._settings.writers)
            found |= positions
        return epoch, found

    # -- the connection -------------------------------------------------------------------------

    def _connected(self) -> bool:
        if self._client is not None:
            return True
        if time.monotonic() < self._next_try:
            return False
        try:
            self._client = self._connect()
            self._start_over(quiet=True)
        except RedislogkitError as error:
            self._away(error)
        return self._client is not None

    def _start_over(self, *, quiet: bool = False) -> None:
        """Ask the server where each producer is, and read on from there."""
        assert self._client is not None
        epoch = self._client.attach(os.urandom(8).hex(), self._settings.registered)
        if self._epoch and epoch != self._epoch:
            self._report(
                "redis has lost its memory of the stream; everything that is not written yet is sent again"
                if self._settings.writers
                else "redis has lost its memory of the stream; what was confirmed by it and not read is lost"
            )
        elif not quiet:
            self._report("redis no longer knows the stream; it is made again")
        self._epoch = epoch
        self._forget_pending()
        self._resume(self._spools.values())
        if not self._refused:  # a server that answers may still take no records (OOM, READONLY)
            self._recovered()

    def _resume(self, spools: list[ShipperEnd]) -> None:
        _, positions = self._positions(spools)
        self._perhaps_unwritten.update(spools)
        for spool in spools:
            stored, written = positions[spool.facts.producer]
            if written > spool.written:
                spool.set_written(written)
            spool.set_shipped(max(stored, spool.written))
            if not self._settings.writers:
                # The server forgets a producer when he is buried; that may come before his spool is gone.
                spool.set_written(spool.shipped)
            spool.rewind(spool.shipped)
            if stored < spool.written and not self._settings.writers:
                # Writers that have them pass over it. The others know of no gap in front of somebody's first record.
                spool.tell_forgotten(stored + 1, spool.written)
            self._caught_up.discard(spool.directory)

    def _away(self, error: Exception) -> None:
        if not isinstance(error, ServerAwayError):
            self._report(f"unexpected answer of the server: {error}")
        self._disconnect()
        # After a failure nothing is known about what the server has: `_start_over` asks.
        self._forget_pending()
        self._hold_back(str(error), _LONGEST_PAUSE)

    def _hold_back(self, reason: str, longest: float) -> None:
        if self._trouble.add(reason, _PATIENCE):
            pause = _FIRST_PAUSE  # while a server is just starting, each pause is one that a user waits for
        else:
            pause = min(_FIRST_PAUSE * 2 ** min(self._trouble.failures, 10), longest)
        self._next_try = time.monotonic() + pause * random.uniform(0.5, 1.0)

    def _recovered(self) -> None:
        self._trouble.is_over("the stream takes records again")
        self._next_try = 0.0

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

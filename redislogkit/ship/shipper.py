"""The shipper: everything that producers have put into their spools goes into the stream, once, in order.

Theory of operation. One loop over all spools of the host (or, in a thread of the application, over its
own):

* *collect* whole frames into a pending batch; it leaves when it is large enough or `flush_interval` old;
* *send* it with one idempotent script call. On failure the very same entries are sent again, for as long
  as it takes; meanwhile nothing more is collected and the spools are the buffer;
* *follow* the positions that the writers publish, put them into the spools' headers, and release what
  every writer has durably written (``ack = "writer"``) or the stream has confirmed (``ack = "stream"``);
* *look after* dead producers: a spool whose lock is free is retired, drained, confirmed and removed.

The server's memory of a stream has an epoch. Whenever it may have changed (each new connection, an
append that says so, a position answer that says so) the shipper asks how far each producer has come in
the stream and reads the retained segments again from there. Writers drop what they have written, so
sending too much is harmless, and sending too little is impossible while the segments are kept.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from redislogkit import record
from redislogkit.errors import CorruptDataError, RedislogkitError, ServerAwayError
from redislogkit.spool import doorbell as doorbells
from redislogkit.spool.shipper_end import ShipperEnd, spool_names, sweep_hidden
from redislogkit.stream import batch
from redislogkit.stream.client import FULL, LOST, StreamClient

#: Raw bytes that end the wait for company, and that one entry has at most (but for one large record).
FULL_BATCH: Final = 64 * 1024
LARGE_BATCH: Final = 256 * 1024
_HOUSEKEEPING: Final = 1.0
_BEAT: Final = 0.25
#: A server that is away for less than this (it is just starting) is not worth a line.
_PATIENCE: Final = 1.0
_POSITIONS_PAUSE: Final = 0.01
_LONGEST_POSITIONS_PAUSE: Final = 0.25
_LONGEST_SLEEP: Final = 1.0
_LONGEST_PAUSE: Final = 2.0

Encode = Callable[[Sequence[batch.RawRun]], list[batch.Entry]]


class ShipperSettings(NamedTuple):
    """What the loop needs to know; times in seconds."""

    root: str
    """Folder of the spools."""
    flush_interval: float
    buffer_size: int
    max_records: int
    writers: tuple[str, ...]
    """Writers whose positions release a spool; empty: the stream's confirmation does (``ack = "stream"``)."""
    own: str = ""
    """Producer whose spools alone are shipped while alive (thread mode); empty: all but those."""


class Status(NamedTuple):
    """What the supervisor wants to know about a shipper."""

    producers: int
    """Spools of living producers."""
    outstanding: int
    """Spools with records that are not safe yet."""
    spools: int
    error: str
    """Why the stream can not be reached, empty when it can."""


class Shipper:
    """Ships until told to stop. Owns its connection; the doorbell is the caller's."""

    def __init__(
        self,
        settings: ShipperSettings,
        connect: Callable[[], StreamClient],
        encode: Encode,
        bell: doorbells.Doorbell,
        report: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._encode = encode
        self._bell = bell
        self._report = report
        self._client: StreamClient | None = None
        self._epoch = ""
        self._spools: dict[str, ShipperEnd] = {}
        self._passed_over: set[str] = set()  # unreadable, or somebody else's; looked at again now and then
        self._reported: set[str] = set()
        self._pending: list[batch.RawRun] = []
        self._pending_bytes = 0
        self._pending_records = 0
        self._pending_since = 0.0
        self._entries: list[batch.Entry] = []
        self._failures = 0
        self._away_since = 0.0
        self._next_try = 0.0
        self._next_positions = 0.0
        self._positions_pause = _POSITIONS_PAUSE
        self._next_beat = 0.0
        self._next_housekeeping = 0.0
        self._last_active = 0.0
        self._sleeping = False
        self._error = ""
        self.shipped_records = 0

    # -- the loop -------------------------------------------------------------------------------

    def run(
        self,
        stopping: Callable[[], bool],
        beat: Callable[[Status], None] = lambda status: None,
        wake: Sequence[int] = (),
        *,
        drain_timeout: float = 10.0,
        abandoned: Callable[[], bool] = lambda: False,
    ) -> None:
        """Ship until ``stopping()``, then drain for at most ``drain_timeout`` seconds.

        ``wake`` are descriptors that end a sleep; ``beat`` gets a status at least every second;
        ``abandoned`` says that there is no time to drain.
        """
        deadline: float | None = None
        try:
            while True:
                if deadline is None and stopping():
                    deadline = time.monotonic() + drain_timeout
                    self._next_housekeeping = 0.0
                self.step(draining=deadline is not None)
                now = time.monotonic()
                if now >= self._next_beat:
                    self._next_beat = now + _BEAT
                    beat(self.status())
                if deadline is None:
                    self._wait(wake)
                elif now >= deadline or abandoned() or (not self._news() and not self.status().outstanding):
                    return
                else:
                    time.sleep(0.002)
        finally:
            self.close()

    def step(self, *, draining: bool = False) -> None:
        """Do what is to be done now, without waiting."""
        now = time.monotonic()
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + _HOUSEKEEPING
            self._keep_house()
        if not self._entries and self._connected():
            self._collect(now)
        if self._due(now, draining):
            self._send()
        if now >= self._next_positions and self._client is not None:
            self._follow()

    def status(self) -> Status:
        """Counts for the supervisor."""
        living = sum(not spool.owner_dead for spool in self._spools.values())
        outstanding = sum(not self._is_safe(spool) for spool in self._spools.values())
        return Status(living, outstanding, len(self._spools), self._error)

    def close(self) -> None:
        """Let go of spools and connection; whatever is not confirmed stays in the spools."""
        for spool in self._spools.values():
            spool.set_sleeping(True)
            spool.close()
        self._spools.clear()
        self._disconnect()

    # -- waiting --------------------------------------------------------------------------------

    def _wait(self, wake: Sequence[int]) -> None:
        now = time.monotonic()
        if self._client is None or self._entries:
            self._rest(max(self._next_try - now, 0.001), wake)
        elif self._pending_bytes >= FULL_BATCH:
            return
        elif self._pending:
            left = self._pending_since + self._settings.flush_interval - now
            self._rest(min(max(left, 0.0), self._slice()), wake)
        elif now - self._last_active < 5 * self._settings.flush_interval:
            self._rest(self._slice(), wake)
        else:
            self._sleep(wake)

    def _slice(self) -> float:
        return min(max(self._settings.flush_interval / 4, 0.002), 0.05)

    def _rest(self, seconds: float, wake: Sequence[int]) -> None:
        """A short pause; known producers do not ring now, one that has just come does."""
        if self._bell.wait(seconds, *wake):
            self._discover()

    def _sleep(self, wake: Sequence[int]) -> None:
        """Ask producers to ring, look once more, then sleep."""
        if not self._sleeping:
            for spool in self._spools.values():
                spool.set_sleeping(True)
            self._sleeping = True
        rung = False
        if not self._news():
            pause = self._positions_pause if self._unwritten() else _LONGEST_SLEEP
            rung = self._bell.wait(pause, *wake)
        if rung:
            self._discover()
        if rung or self._news():
            self._sleeping = False
            self._last_active = time.monotonic()
            for spool in self._spools.values():
                spool.set_sleeping(False)

    def _news(self) -> bool:
        return any(spool.has_news() for spool in self._mine())

    # -- spools ---------------------------------------------------------------------------------

    def _mine(self) -> list[ShipperEnd]:
        """Spools to read now: of one producer's several spools only the oldest, for the order's sake."""
        seen: set[str] = set()
        mine = []
        for spool in self._spools.values():
            if spool.facts.producer not in seen:
                mine.append(spool)
                if not (spool.finished and spool.owner_dead):
                    seen.add(spool.facts.producer)
        return mine

    def _discover(self) -> None:
        """Open the spools that have come, forget those that are gone."""
        names = spool_names(self._settings.root)
        new = [name for name in names if name not in self._spools and name not in self._passed_over]
        opened = [spool for name in new if (spool := self._open(name)) is not None]
        if opened and self._client is not None:
            try:
                self._resume(opened)
            except RedislogkitError as error:
                self._away(error)
        self._spools = {name: self._spools[name] for name in names if name in self._spools}

    def _open(self, name: str) -> ShipperEnd | None:
        path = os.path.join(self._settings.root, name)
        try:
            spool = ShipperEnd(path, self._report)
        except FileNotFoundError:
            return None
        except (OSError, CorruptDataError) as error:
            self._passed_over.add(name)
            if name not in self._reported:
                self._reported.add(name)
                self._report(f"spool {path} can not be read and is left alone: {error}")
            return None
        if not self._is_ours(spool):
            self._passed_over.add(name)
            spool.close()
            return None
        spool.set_sleeping(self._sleeping)
        self._spools[name] = spool
        return spool

    def _is_ours(self, spool: ShipperEnd) -> bool:
        if self._settings.own and spool.facts.producer == self._settings.own:
            return True
        if self._settings.own or spool.facts.ships_itself:
            return spool.check_owner()  # alive, somebody else ships it; dead, its lock is ours now
        return True

    def _keep_house(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            sweep_hidden(self._settings.root)
        self._passed_over.clear()
        self._discover()
        for name, spool in list(self._spools.items()):
            if spool.facts.producer != self._settings.own and spool.check_owner():
                self._bury(name, spool)

    def _bury(self, name: str, spool: ShipperEnd) -> None:
        """Remove the spool of a dead producer when all of it is read, confirmed and written."""
        if not spool.finished or self._client is None or not self._is_safe(spool):
            return
        if any(run.facts.producer == spool.facts.producer for run in self._pending):
            return
        others = [
            o for n, o in self._spools.items() if n != name and o.facts.producer == spool.facts.producer
        ]
        if not others and not self._say_goodbye(spool):
            return
        spool.remove()
        del self._spools[name]

    def _say_goodbye(self, spool: ShipperEnd) -> bool:
        """Tell the writers that a producer is complete, so that they need not remember it for ever."""
        assert self._client is not None
        sequence = max(spool.read_sequence, spool.shipped) + 1
        goodbye = batch.RawRun(spool.facts, sequence, [record.encode(record.End())])
        # Not counted as a sequence: a daemon that logs on in another spool will take that number.
        entries = [entry._replace(last=[]) for entry in self._encode([goodbye])]
        try:
            answer = self._client.append(entries, self._epoch, self._settings.max_records)
            if answer < 0:
                return False
            self._client.forget_producers([spool.facts.producer])
        except RedislogkitError as error:
            self._away(error)
            return False
        return True

    # -- collecting and sending -----------------------------------------------------------------

    def _collect(self, now: float) -> None:
        for spool in self._mine():
            if self._pending_bytes >= LARGE_BATCH:
                break
            for run in spool.read(FULL_BATCH):
                if not self._pending:
                    self._pending_since = now
                self._pending.append(batch.RawRun(*run))
                self._pending_bytes += sum(map(len, run.payloads))
                self._pending_records += len(run.payloads)
                self._last_active = now

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
            self._entries = self._encode(self._pending)
        try:
            answer = self._client.append(self._entries, self._epoch, self._settings.max_records)
            if answer == LOST:
                self._start_over()
                return
        except RedislogkitError as error:
            self._away(error)
            return
        if answer == FULL:
            self._hold_back(f"the stream holds stream.max_records = {self._settings.max_records} records")
            return
        self._recovered()
        self._shipped()

    def _shipped(self) -> None:
        self.shipped_records += self._pending_records
        last = {run.facts.producer: run.first + len(run.payloads) - 1 for run in self._pending}
        for spool in self._spools.values():
            sequence = last.get(spool.facts.producer)
            if sequence is not None and sequence > spool.shipped:
                spool.set_shipped(min(sequence, max(spool.read_sequence, spool.shipped)))
                if not self._settings.writers:
                    spool.set_written(spool.shipped)
                    spool.release(spool.shipped)
        self._forget_pending()
        self._next_positions = 0.0
        self._positions_pause = _POSITIONS_PAUSE

    def _forget_pending(self) -> None:
        self._pending, self._entries = [], []
        self._pending_bytes = self._pending_records = 0

    # -- positions ------------------------------------------------------------------------------

    def _is_safe(self, spool: ShipperEnd) -> bool:
        reached = spool.written if self._settings.writers else spool.shipped
        return reached >= spool.read_sequence and not spool.has_news()

    def _unwritten(self) -> list[ShipperEnd]:
        if not self._settings.writers:
            return []
        return [s for s in self._spools.values() if s.written < max(s.read_sequence, s.shipped)]

    def _follow(self) -> None:
        """Put what the writers have published into the headers; release what is safe."""
        behind = self._unwritten()
        self._next_positions = time.monotonic() + self._positions_pause
        if not behind or self._client is None:
            return
        producers = list({spool.facts.producer for spool in behind})
        try:
            epoch, positions = self._client.positions(producers, self._settings.writers)
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
        epoch = self._client.attach(os.urandom(8).hex())
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
        self._resume(list(self._spools.values()))
        self._recovered()

    def _resume(self, spools: list[ShipperEnd]) -> None:
        assert self._client is not None
        if not spools:
            return
        producers = list({spool.facts.producer for spool in spools})
        _, positions = self._client.positions(producers, self._settings.writers)
        for spool in spools:
            stored, written = positions[spool.facts.producer]
            if written > spool.written:
                spool.set_written(written)
            spool.set_shipped(max(stored, spool.written))
            spool.rewind(spool.shipped)

    def _away(self, error: RedislogkitError) -> None:
        if not isinstance(error, ServerAwayError):
            self._report(f"unexpected answer of the server: {error}")
        self._disconnect()
        # After a failure nothing is known about what the server has: `_start_over` asks.
        self._forget_pending()
        self._hold_back(str(error))

    def _hold_back(self, reason: str) -> None:
        now = time.monotonic()
        if not self._failures:
            self._away_since = now
        if reason != self._error and now - self._away_since > _PATIENCE:
            self._report(f"waiting: {reason}")
            self._error = reason
        self._failures += 1
        pause = min(0.02 * 2 ** min(self._failures, 10), _LONGEST_PAUSE)
        self._next_try = now + pause * random.uniform(0.5, 1.0)

    def _recovered(self) -> None:
        if self._error:
            self._report("the stream takes records again")
        self._error, self._failures, self._next_try = "", 0, 0.0

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

"""The loop that every writer runs: read, drop what is known, write, confirm, checkpoint.

Theory of operation. The order of the steps is what makes a file exactly-once:

1. the checkpoint is told which bytes are about to be written, and which records they are (an *intent*);
2. the destination has the bytes;
3. the stream is told, if the writer's lease still is its own: the entries are acknowledged, the positions published;
4. the checkpoint says that all of it is written.

Killed between 1 and 2 or in mid-write, the restart finds that the bytes are not there, or cuts off the part that is; the
entries were not acknowledged and come again. Killed later, it finds them there, and drops the entries by their
sequences if they should come again. The group's own pending entries are read first after every connect, so nothing is skipped.

One host at a time runs a writer: the one that holds its lease in redis. Whoever was stopped for longer than the
lease lasts finds another token there in step 3, takes back what it has just written, and stands by: it can neither
acknowledge nor keep a doubled line. Who takes over begins with the positions that its predecessor has published.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from redislogkit.errors import (
    CorruptDataError,
    DestinationClosedError,
    GroupMissingError,
    LeaseLostError,
    LockHeldError,
    RedislogkitError,
    TargetAwayError,
)
from redislogkit.lines import Numbered
from redislogkit.stream import entries
from redislogkit.stream.client import Confirmation, RawEntry, StreamClient, WokenError
from redislogkit.trouble import Trouble
from redislogkit.writers.checkpoint import Checkpoint, Mark
from redislogkit.writers.counts import Counts
from redislogkit.writers.latency import Ages
from redislogkit.writers.reading import Reading, Selects

#: Seconds that a lease lasts without being kept.
LEASE: Final = 10.0

#: Most entries in one reading, where they are small.
_MOST_ENTRIES: Final = 1024
#: Seconds; a reading that takes longer is too large: what is in an entry is only known when it is unpacked.
_LONG_READING: Final = 0.1
_BLOCK: Final = 2.0
_LONGEST_PAUSE: Final = 0.5
#: What is over sooner than this (a server that is just starting) is not worth a line.
_PATIENCE: Final = 1.0


class Destination(Protocol):
    """Where a writer's records go."""

    counts: Counts

    def recover(self, checkpoint: Checkpoint, *, retract: bool = False) -> dict[str, int]:
        """Open it if it is not, and find out what of the checkpoint's intents is written.

        With ``retract``, take that back instead, as far as it can be done. Returns producer → sequence up to
        which everything is written. May raise ``LockHeldError`` or ``OSError``.
        """

    def write(self, reading: Reading) -> None:
        """Write what a reading brings. After ``OSError``, `recover` is called before anything else."""

    def mark(self) -> Mark | None:
        """Say where writing goes on, for the checkpoint; None where there is no such place."""

    def service(self) -> float | None:
        """Do what is pending.

        Returns the seconds until it wants to be called again, None if never.
        """

    def close(self) -> None:
        """Let go of everything."""


class WriterStatus(NamedTuple):
    """What the supervisor wants to know about a writer."""

    written: int
    """Records written since the start."""
    position: str
    """Newest entry written."""
    error: str
    """Why it waits, empty when it does not."""
    bytes: int
    last_write: float | None
    """When it has written last, in seconds since the epoch."""
    rotations: int
    rejected: int
    skipped: tuple[tuple[str, int], ...]
    """Records that had no place to be written to: cause and number."""
    latency: Ages
    """How old the newest record of each reading was when it was written."""


class Writer:
    """One writer: its group in the stream, its checkpoint, its destination.

    A writer without a checkpoint begins behind the entry ``start_after``. One reading waits for up to
    ``block`` seconds; ``owner`` names the place whose processes may follow one another without waiting for
    the lease's end, which lasts ``lease`` seconds without being kept; a descriptor of ``wake`` that can be read ends the
    waiting for records. A destination that somebody else has locked is waited for ``lock_timeout`` seconds. ``filter`` is
    asked for each record besides ``selects``.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], StreamClient],
        destination: Destination,
        checkpoint: Checkpoint,
        selects: Selects | None,
        report: Callable[[str], None],
        *,
        start_after: str = "0",
        block: float = _BLOCK,
        lock_timeout: float = 0.0,
        owner: str = "",
        wake: Sequence[int] = (),
        lease: float = LEASE,
        filter: Callable[[Numbered], bool] | None = None,  # noqa: A002 - it is the key of the configuration
    ) -> None:
        self._wake = wake
        self._lease = lease
        self._filter = filter
        self._beat: Callable[[WriterStatus], None] = lambda status: None
        self._settled = 0  # records of the present reading
        self._not_before = 0.0
        self._wants_company = False
        self._owner = owner
        self._token = 0
        self._kept = 0.0
        self._name = name
        self._start_after = start_after
        self._block = block
        self._lock_timeout = lock_timeout
        self._connect = connect
        self._destination = destination
        self._checkpoint = checkpoint
        self._selects = selects
        self._report = report
        self._client: StreamClient | None = None
        self._after = "0"
        self._count = _MOST_ENTRIES
        self._trouble = Trouble(report)
        # In doubt, the destination may have what the checkpoint has not, or has lost what it had.
        self._in_doubt = False
        self._retracting = False  # what it has is for another host to write
        self._standing_by = False
        self._written = 0
        self._last_write: float | None = None
        self._ages = Ages()

    # -- the loop -------------------------------------------------------------------------------

    def run(
        self,
        stopping: Callable[[], bool],
        beat: Callable[[WriterStatus], None] = lambda status: None,
        *,
        drain_timeout: float = 10.0,
        abandoned: Callable[[], bool] = lambda: False,
        retiring: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Write until ``stopping()`` and the stream is read to its end, at most ``drain_timeout`` later.

        ``beat`` gets a status in each round; ``abandoned`` says that there is no time to read to the end, and
        ``retiring`` that this writer is no longer wanted: once it has read to the end the stream is not kept
        for it any more. Returns True when it has done what it was told to.
        """
        self._beat = beat
        self._checkpoint.open()
        if self._checkpoint.damage:
            self._report(self._checkpoint.damage)
        deadline: float | None = None
        try:
            if not self._open_destination(stopping, beat):
                return False
            while True:
                if deadline is None and stopping():
                    deadline = time.monotonic() + drain_timeout
                beat(self.status())
                moved = self._step(0.0 if deadline is not None else self._block)
                if deadline is None:
                    continue
                # A server that is away for a moment is no reason to leave records unread.
                read_to_the_end = not moved and (self._standing_by or not self._trouble.failures)
                if read_to_the_end or abandoned() or time.monotonic() >= deadline:
                    return self._leave(finished=read_to_the_end) if retiring() else not self._trouble.reason
        finally:
            self.close()

    def status(self) -> WriterStatus:
        """Counts for the supervisor."""
        counts = self._destination.counts
        return WriterStatus(
            self._written,
            self._checkpoint.entry_id.decode(),
            self._trouble.reason,
            counts.bytes,
            self._last_write,
            counts.rotations,
            counts.rejected,
            tuple(counts.skipped.items()),
            self._ages,
        )

    def settle(self, reached: dict[str, int], count: int) -> None:
        """Take note that the destination has ``count`` records more, each producer's up to ``reached``.

        They do not come again, whatever happens to the rest of the reading.
        """
        checkpoint = self._checkpoint
        checkpoint.commit(checkpoint.entry_id, checkpoint.total, self._destination.mark(), reached, [])
        self._written += count
        self._settled += count

    def stay_alive(self) -> None:
        """Beat, and keep the lease, within a reading that takes long. Raises ``LeaseLostError``."""
        self._beat(self.status())
        if self._client is not None:
            self._keep_lease(self._client)

    def _leave(self, *, finished: bool) -> bool:
        """Have the stream kept for this writer no longer, if it has read it to its end; True when that is done.

        Who only stands by keeps still: the host that has the lease goes on with this writer.
        """
        if not finished or self._client is None:
            return self._standing_by
        try:
            return self._client.leave(self._name)
        except RedislogkitError as error:
            self._report(f"its place in the stream can not be given up: {error}")
            return False

    def close(self) -> None:
        """Let go of destination, checkpoint and connection."""
        self._destination.close()
        self._checkpoint.close()
        self._disconnect()

    def _open_destination(self, stopping: Callable[[], bool], beat: Callable[[WriterStatus], None]) -> bool:
        """Open the destination and settle what the last run left; False when told to stop before that was possible."""
        deadline = time.monotonic() + self._lock_timeout
        while True:
            try:
                self._recover()
            except LockHeldError as error:
                if time.monotonic() >= deadline:
                    raise
                self._trouble.add(str(error), _PATIENCE)
                beat(self.status())
                time.sleep(0.05)
            except OSError as error:
                beat(self.status())
                self._wait_after(f"can not open its destination: {error}")
            else:
                return True
            if stopping():
                return False

    def _recover(self) -> None:
        """Bring checkpoint and destination together; before the first byte, and after whatever went wrong."""
        checkpoint = self._checkpoint
        written = self._destination.recover(checkpoint, retract=self._retracting)
        mark = self._destination.mark()
        # Where an end was not confirmed yet, it comes again.
        ended = [producer for intent in checkpoint.intents for producer in intent.ended]
        if written or checkpoint.intents or mark != checkpoint.mark:
            checkpoint.commit(checkpoint.entry_id, checkpoint.total, mark, written, ended)
        self._in_doubt = self._retracting = False

    def _step(self, block: float) -> bool:
        """Read and write once; False when there was nothing to do."""
        try:
            if self._not_before and self._pauses(block):
                return False
            pause = self._destination.service()
            client = self._ready()
            if self._wants_company:
                self._wants_company = False
                client.read(self._name, ">", 1, 0.0)  # it is pending from here on, and comes with the others
            wait = block if pause is None else min(block, pause)
            wait = wait if self._after == ">" else 0.0
            found = client.read(self._name, self._after, self._count, wait, self._wake)
            if not found and self._after != ">":
                self._after = ">"
                return True
            self._keep_lease(client)
            if found:
                began = time.monotonic()
                self._handle(client, found)
                self._count = _next_count(self._count, len(found), time.monotonic() - began)
            self._recovered()
            return bool(found)
        except WokenError:
            self._disconnect()
            return True
        except GroupMissingError as error:
            self._report(f"its group is gone ({error}); it is made again and positions are published anew")
            self._disconnect()
            self._trouble.failures += 1
            time.sleep(min(0.02 * self._trouble.failures, _LONGEST_PAUSE))
            return True
        except LeaseLostError as error:
            self._disconnect()
            self._standing_by = True
            if self._in_doubt:
                with contextlib.suppress(OSError):
                    self._recover()
            self._wait_after(str(error))
            return False
        except DestinationClosedError:
            raise
        except TargetAwayError as error:
            self._after = "0"
            self._not_before = time.monotonic() + error.pause
            self._wants_company = error.alone
            self._trouble.add(str(error), _PATIENCE)
            return False
        except (RedislogkitError, OSError) as error:
            self._disconnect()
            self._in_doubt = self._in_doubt or isinstance(error, OSError)
            self._wait_after(str(error))
            return False

    def _pauses(self, block: float) -> bool:
        """Wait for up to ``block`` seconds, where the destination has asked for a pause; False when that is over.

        When it is to end, what is left to do is tried more often.
        """
        left = self._not_before - time.monotonic()
        if left <= 0:
            self._not_before = 0.0
            return False
        if self._client is not None:
            self._keep_lease(self._client)
        time.sleep(min(left, block or _LONGEST_PAUSE))
        return bool(block)

    def _ready(self) -> StreamClient:
        """Return a connection with the lease, with everything before settled."""
        client = self._client
        fresh = client is None
        if client is None:
            client = self._connect()
            try:
                # A stream made anew has ids of its own: read all of it, sequences tell what is known.
                client.join(self._name, self._start_after if self._checkpoint.entry_id == b"0-0" else "0")
                self._take_lease(client)
            except BaseException:
                client.close()
                raise
            self._client, self._after = client, "0"
        if self._in_doubt:
            self._recover()
        if fresh:
            self._compare_positions(client)
        return client

    def _take_lease(self, client: StreamClient) -> None:
        """Become the one that writes."""
        token, holder = client.claim(self._name, self._owner, self._lease)
        if not token:
            raise LeaseLostError(f"{holder} runs this writer; it stands by until that one is gone")
        self._token, self._kept = token, time.monotonic()

    def _compare_positions(self, client: StreamClient) -> None:
        """Take over what a predecessor on another host has published; publish what a new server does not know."""
        checkpoint = self._checkpoint
        reading = Reading(checkpoint.seen, self._selects, self._filter)
        for producer, sequence in client.written(self._name).items():
            if sequence > checkpoint.seen(producer):
                reading.skip(producer, sequence)
        if reading.highest:
            self._in_doubt = True
            self._destination.write(reading)
            self._commit(checkpoint.entry_id, checkpoint.total, reading)
        client.confirm(self._name, Confirmation(b"", 0, dict(checkpoint.highest), (), self._token))

    def _keep_lease(self, client: StreamClient) -> None:
        """Make sure that we are still the one. Raises ``LeaseLostError``."""
        now = time.monotonic()
        if now - self._kept < LEASE / 3:
            return
        token, holder = client.claim(self._name, self._owner, self._lease, self._token)
        if token != self._token:
            raise LeaseLostError(f"the lease has run out; {holder} has it now")
        self._kept = now

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _wait_after(self, reason: str) -> None:
        self._trouble.add(reason, _PATIENCE)
        time.sleep(min(0.02 * 2 ** min(self._trouble.failures, 7), _LONGEST_PAUSE))

    def _recovered(self) -> None:
        self._trouble.is_over("goes on")
        self._standing_by = False

    # -- one reading ----------------------------------------------------------------------------

    def _handle(self, client: StreamClient, found: list[RawEntry]) -> None:
        checkpoint = self._checkpoint
        reading = Reading(checkpoint.seen, self._selects, self._filter)
        total = checkpoint.total
        for entry_id, fields in found:
            total = max(total, entries.total(fields))
            try:
                for run in entries.decode(entry_id, fields):
                    reading.add(run)
            except CorruptDataError as error:
                self._set_aside(entry_id, fields, error)
        last_id = found[-1][0]
        self._in_doubt = True
        self._settled = 0
        self._destination.write(reading)
        if reading.ended:
            checkpoint.intend_end(reading.ended)
        # Of a producer that was taken for ended a spool may still wait for its position to be told.
        published = reading.again | reading.highest | dict.fromkeys(reading.ended, -1)
        ids = [entry_id for entry_id, _ in found]
        try:
            client.confirm(self._name, Confirmation(last_id, total, published, ids, self._token))
        except LeaseLostError:
            # Only this answer says that nothing of it counts. After any other failure it may have been carried out,
            # and what was taken back then would be missing for good.
            self._retracting = True
            raise
        self._commit(last_id, total, reading)
        if reading.items:
            self._written += len(reading.items) - self._settled
            self._last_write = time.time()
            self._ages = self._ages.add(self._last_write - reading.items[-1][0].created)

    def _commit(self, last_id: bytes, total: int, reading: Reading) -> None:
        mark = self._destination.mark()
        self._checkpoint.commit(last_id, total, mark, reading.highest, reading.ended)
        self._in_doubt = False

    def _set_aside(self, entry_id: bytes, fields: dict[bytes, bytes], error: CorruptDataError) -> None:
        folder = os.path.join(os.path.dirname(os.path.dirname(self._checkpoint.path)), "damaged")
        path = os.path.join(folder, f"entry-{entry_id.decode()}")
        try:
            os.makedirs(folder, 0o700, exist_ok=True)
            with open(path, "wb") as file:
                file.write(b"\n".join(b"%b %b" % pair for pair in fields.items()))
            kept = f"; its bytes are kept as {path}"
        except OSError as failure:
            kept = f"; its bytes can not be kept: {failure}"
        self._report(f"entry {entry_id.decode()} is passed over: {error}{kept}")


def _next_count(count: int, found: int, seconds: float) -> int:
    """How many entries to read at most next, after ``found`` of ``count`` have taken so many seconds."""
    if seconds > _LONG_READING:
        return max(found // 2, 1)
    return count if seconds > _LONG_READING / 2 else min(count * 2, _MOST_ENTRIES)

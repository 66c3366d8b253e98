"""The loop that every writer runs: read, drop what is known, write, checkpoint, confirm.

Theory of operation. The order of the last three steps is what makes a destination exactly-once:

1. the destination has the bytes;
2. the checkpoint says so (and where in the file);
3. the stream is told: the entries are acknowledged and the positions published.

Killed between 1 and 2, the entries are read again, produce the same bytes, and the destination finds
them there already. Killed between 2 and 3, they are read again and dropped by their sequences. The
group's own pending entries are read first after every connect, so nothing is skipped.

One host at a time runs a writer: the one that holds its lease in redis. The lease is kept before and after
each write; whoever was stopped for longer than it lasts finds another token there, takes back what it has
just written, and stands by. Its acknowledgements are refused by the same token. Who takes over begins with the
positions that its predecessor has published.

A destination may change files in mid-batch (rotation). It yields before it does, and everything up to
there is checkpointed first: a file that is rotated away is always complete.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

from redislogkit.errors import (
    CorruptDataError,
    GroupMissingError,
    LeaseLostError,
    LockHeldError,
    RedislogkitError,
)
from redislogkit.record import End, Facts, Loss, Record
from redislogkit.stream import entries
from redislogkit.stream.client import Confirmation, RawEntry, StreamClient
from redislogkit.writers.checkpoint import Checkpoint, Mark

#: One record or loss with the facts of its producer and its sequence.
Numbered: TypeAlias = tuple[Record | Loss, Facts, int]
#: Says whether a record of this level and logger name belongs to the writer.
Selects: TypeAlias = Callable[[int, str], bool]

#: Cause of a loss that only a gap in the sequences tells of: the server has lost what it had confirmed.
NOT_IN_STREAM: Final = "not in the stream"

#: Seconds that a lease lasts without being kept.
LEASE: Final = 10.0

#: Entries in one reading: few large ones, or many that hold one record each.
_FEWEST_ENTRIES: Final = 16
_MOST_ENTRIES: Final = 1024
_ENOUGH_BYTES: Final = 256 * 1024
_BLOCK: Final = 0.25
_LONGEST_PAUSE: Final = 0.5
#: What is over sooner than this (a server that is just starting) is not worth a line.
_PATIENCE: Final = 1.0


class Destination(Protocol):
    """Where a writer's records go."""

    def open(self, mark: Mark | None) -> None:
        """Open it; ``mark`` is where the checkpoint ends, None for a new writer. May raise ``OSError``."""

    def write(self, items: Sequence[Numbered]) -> Iterator[int]:
        """Write ``items``; yield how many are safe, last of all their number. May raise ``OSError``."""

    def mark(self) -> Mark | None:
        """Where writing goes on, for the checkpoint; None where there is no such place."""

    def recover(self, mark: Mark | None) -> None:
        """A write or a checkpoint has failed: what lies behind ``mark`` will be written again."""

    def retract(self, mark: Mark | None) -> None:
        """What lies behind ``mark`` is another host's to write: take back what of it is ours."""

    def checkpointed(self) -> None:
        """Everything up to `mark` is checkpointed now."""

    def service(self) -> float | None:
        """Do what is pending; return the seconds until it wants to be called again, None if never."""

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


class Writer:
    """One writer: its group in the stream, its checkpoint, its destination.

    A writer without a checkpoint begins behind the entry ``start_after``. One reading waits for up to
    ``block`` seconds; ``owner`` names the place whose processes may follow one another without waiting for
    the lease's end. A destination that somebody else has locked is waited for ``lock_timeout`` seconds.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], StreamClient],
        destination: Destination,
        checkpoint: Checkpoint,
        selects: Selects,
        report: Callable[[str], None],
        *,
        start_after: str = "0",
        block: float = _BLOCK,
        lock_timeout: float = 0.0,
        owner: str = "",
    ) -> None:
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
        self._count = _FEWEST_ENTRIES
        self._error = ""
        self._failures = 0
        self._uncommitted = False  # the destination has bytes that the checkpoint does not know of
        self._standing_by = False
        self._away_since = 0.0
        self._written = 0

    # -- the loop -------------------------------------------------------------------------------

    def run(
        self,
        stopping: Callable[[], bool],
        beat: Callable[[WriterStatus], None] = lambda status: None,
        *,
        drain_timeout: float = 10.0,
        abandoned: Callable[[], bool] = lambda: False,
    ) -> None:
        """Write until ``stopping()`` and the stream is read to its end, at most ``drain_timeout`` later.

        ``beat`` gets a status in each round; ``abandoned`` says that there is no time to read to the end.
        """
        self._checkpoint.open()
        if self._checkpoint.damage:
            self._report(self._checkpoint.damage)
        self._open_destination(stopping, beat)
        deadline: float | None = None
        try:
            while True:
                if deadline is None and stopping():
                    deadline = time.monotonic() + drain_timeout
                beat(self.status())
                moved = self._step(0.0 if deadline is not None else self._block)
                if deadline is None:
                    continue
                # A server that is away for a moment is no reason to leave records unread.
                read_to_the_end = not moved and (self._standing_by or not self._failures)
                if read_to_the_end or abandoned() or time.monotonic() >= deadline:
                    return
        finally:
            self.close()

    def status(self) -> WriterStatus:
        """Counts for the supervisor."""
        return WriterStatus(self._written, self._checkpoint.entry_id.decode(), self._error)

    def close(self) -> None:
        """Let go of destination, checkpoint and connection."""
        self._destination.close()
        self._checkpoint.close()
        self._disconnect()

    def _open_destination(self, stopping: Callable[[], bool], beat: Callable[[WriterStatus], None]) -> None:
        deadline = time.monotonic() + self._lock_timeout
        while not stopping():
            try:
                self._destination.open(self._checkpoint.mark)
            except LockHeldError:
                if time.monotonic() >= deadline:
                    raise
                beat(self.status())
                time.sleep(0.05)
            except OSError as error:
                beat(self.status())
                self._wait_after(f"can not open its destination: {error}")
            else:
                self._commit_mark()
                return

    def _commit_mark(self) -> None:
        """Note where writing begins before the first byte, so that a crash right after it can be judged."""
        checkpoint = self._checkpoint
        mark = self._destination.mark()
        if mark is not None and mark != checkpoint.mark:
            checkpoint.commit(checkpoint.entry_id, checkpoint.total, mark, {}, [])

    def _step(self, block: float) -> bool:
        """Read and write once; False when there was nothing to do."""
        try:
            pause = self._destination.service()
            client = self._joined()
            wait = block if pause is None else min(block, pause)
            found = client.read(self._name, self._after, self._count, wait if self._after == ">" else 0.0)
            if not found and self._after != ">":
                self._after = ">"
                return True
            self._keep_lease(client)
            if found:
                self._handle(client, found)
                self._count = _next_count(self._count, found)
            self._recovered()
            return bool(found)
        except GroupMissingError as error:
            self._report(f"its group is gone ({error}); it is made again and positions are published anew")
            self._disconnect()
            self._failures += 1
            time.sleep(min(0.02 * self._failures, _LONGEST_PAUSE))
            return True
        except LeaseLostError as error:
            self._disconnect()
            with contextlib.suppress(OSError):
                self._destination.retract(self._checkpoint.mark)
            self._standing_by = True
            self._wait_after(str(error))
            return False
        except (RedislogkitError, OSError) as error:
            self._disconnect()
            self._wait_after(str(error))
            if isinstance(error, OSError) or self._uncommitted:
                self._uncommitted = False
                with contextlib.suppress(OSError):
                    self._destination.recover(self._checkpoint.mark)
            return False

    def _joined(self) -> StreamClient:
        if self._client is None:
            client = self._connect()
            try:
                # A stream made anew has ids of its own: read all of it, sequences tell what is known.
                client.join(self._name, self._start_after if self._checkpoint.entry_id == b"0-0" else "0")
                self._take_lease(client)
            except BaseException:
                client.close()
                raise
            self._client, self._after = client, "0"
        return self._client

    def _take_lease(self, client: StreamClient) -> None:
        """Become the one that writes; take over what a predecessor on another host has published."""
        token, holder = client.claim(self._name, self._owner, LEASE)
        if not token:
            raise LeaseLostError(f"{holder} runs this writer; it stands by until that one is gone")
        self._token, self._kept = token, time.monotonic()
        checkpoint = self._checkpoint
        ahead = {
            producer: sequence
            for producer, sequence in client.written(self._name).items()
            if sequence > checkpoint.seen(producer)
        }
        if ahead:
            checkpoint.commit(checkpoint.entry_id, checkpoint.total, checkpoint.mark, ahead, [])
        client.confirm(self._name, Confirmation(b"", 0, dict(checkpoint.highest), (), token))

    def _keep_lease(self, client: StreamClient) -> None:
        """Make sure that we are still the one. Raises ``LeaseLostError``."""
        now = time.monotonic()
        if now - self._kept < LEASE / 3:
            return
        token, holder = client.claim(self._name, self._owner, LEASE, self._token)
        if token != self._token:
            raise LeaseLostError(f"the lease has run out; {holder} has it now")
        self._kept = now

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _wait_after(self, reason: str) -> None:
        now = time.monotonic()
        if not self._failures:
            self._away_since = now
        if reason != self._error and now - self._away_since > _PATIENCE:
            self._report(f"waiting: {reason}")
            self._error = reason
        self._failures += 1
        time.sleep(min(0.02 * 2 ** min(self._failures, 7), _LONGEST_PAUSE))

    def _recovered(self) -> None:
        if self._error:
            self._report("goes on")
        self._error, self._failures, self._standing_by = "", 0, False

    # -- one reading ----------------------------------------------------------------------------

    def _handle(self, client: StreamClient, found: list[RawEntry]) -> None:
        news = _News(self._checkpoint, self._selects)
        total = self._checkpoint.total
        for entry_id, fields in found:
            total = max(total, entries.total(fields))
            try:
                for run in entries.decode(entry_id, fields):
                    news.add(run)
            except CorruptDataError as error:
                self._set_aside(entry_id, fields, error)
        last_id = found[-1][0]
        self._uncommitted = True
        for done in self._destination.write(news.items):
            self._keep_lease(client)
            if done < len(news.items):
                checkpoint = self._checkpoint
                checkpoint.commit(
                    checkpoint.entry_id, checkpoint.total, self._destination.mark(), news.positions(done), []
                )
        self._checkpoint.commit(last_id, total, self._destination.mark(), news.highest, news.ended)
        self._uncommitted = False
        self._destination.checkpointed()
        self._written += len(news.items)
        published = news.highest | dict.fromkeys(news.ended, -1)
        ids = [entry_id for entry_id, _ in found]
        client.confirm(self._name, Confirmation(last_id, total, published, ids, self._token))

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


def _next_count(count: int, found: list[RawEntry]) -> int:
    """How many entries to read next: more while they are small, so that a commit is worth its price."""
    size = sum(len(value) for _, fields in found for value in fields.values())
    if size > _ENOUGH_BYTES:
        return max(count // 2, _FEWEST_ENTRIES)
    return min(count * 2, _MOST_ENTRIES) if len(found) == count else count


def _explains(item: object, first: int) -> bool:
    """True for the producer's own notice that it has dropped records from ``first`` on."""
    return isinstance(item, Loss) and item.first <= first


class _News:
    """What of the entries read is not written yet, in order, with the positions it leads to."""

    def __init__(self, checkpoint: Checkpoint, selects: Selects) -> None:
        self._checkpoint = checkpoint
        self._selects = selects
        self.items: list[Numbered] = []
        self.highest: dict[str, int] = {}
        self.ended: list[str] = []
        self._steps: list[tuple[int, str, int]] = []  # items before it, producer, sequence reached

    def add(self, run: entries.DecodedRun) -> None:
        """Take what is new of one producer's run."""
        facts, first, items = run
        producer = facts.producer
        if items and isinstance(items[-1], End):
            self.ended.append(producer)
            items = items[:-1]
            if not items:
                return
        known = self.highest.get(producer) or self._checkpoint.seen(producer)
        last = first + len(items) - 1
        if last <= known:
            return
        if first > known + 1 and known and producer and not _explains(items[0], known + 1):
            # Place and time are those of its neighbours: read again after a kill, it is the same line.
            created = getattr(items[0], "created", 0.0)
            self.items.append((Loss(known + 1, first - 1, NOT_IN_STREAM, created), facts, first - 1))
        selects = self._selects
        for sequence, item in enumerate(items, first):
            if sequence <= known:
                continue
            if isinstance(item, Record):
                if selects(item.levelno, item.name):
                    self.items.append((item, facts, sequence))
            elif isinstance(item, Loss):
                self.items.append((item, facts, sequence))
        self.highest[producer] = last
        self._steps.append((len(self.items), producer, last))

    def positions(self, done: int) -> dict[str, int]:
        """Producer → sequence reached when the first ``done`` items are written."""
        reached = {producer: last for end, producer, last in self._steps if end <= done}
        if done:
            _, facts, sequence = self.items[done - 1]
            if sequence > max(reached.get(facts.producer, 0), 0):
                reached[facts.producer] = sequence
        return reached

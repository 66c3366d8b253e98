"""Spools → a file, without redis: for records that no stream will ever take.

Theory of operation. Whoever drains is shipper and writer in one. As shipper, the lock of the supervisor is held, so
that nobody else reads the spools; as writer, the file has a checkpoint like every log file of ours: each write
is announced with its bytes, and committed. So a drain may be killed at any moment and begun again, and the file has
each record once. Spools are marked and removed only behind what is committed.

What the file writers of this host have written already is known from their checkpoints, and not written again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from redislogkit import launch, locking
from redislogkit.config import Config, FileWriterConfig, FormatterConfig
from redislogkit.errors import LockHeldError, RedislogkitError
from redislogkit.ship.spools import SpoolSet
from redislogkit.spool.shipper_end import Run, ShipperEnd
from redislogkit.stream.batch import DecodedRun
from redislogkit.view.files import Files
from redislogkit.view.seen import item_of
from redislogkit.writers.checkpoint import Checkpoint
from redislogkit.writers.file import FileDestination
from redislogkit.writers.reading import Reading

_AT_ONCE: Final = 1024 * 1024
_FOLDER: Final = "drain"


class Drained(NamedTuple):
    """What was done."""

    records: int
    """Lines that the file has got."""
    spools: int
    """That are empty now, and removed."""
    unsure: int
    """Records among them that the stream had had: a writer on another host may have written them as well."""
    living: int
    """Spools that were left alone, as their producers live."""


class Drain:
    """One drain into the file ``path``.

    Args:
        config: Whose spools.
        path: The file; what is in it stays.
        formatter: How records look in it.
        report: Takes one line about what can not be read.
        all_spools: Also what waits in the spools of producers that live; they log on.

    Raises ``LockHeldError`` while a supervisor runs, ``RedislogkitError`` where another drain is to be finished first,
    and ``OSError`` where the file can not be written; what is in the spools stays there then.
    """

    def __init__(
        self,
        config: Config,
        path: str,
        formatter: FormatterConfig,
        report: Callable[[str], None],
        *,
        all_spools: bool = False,
    ) -> None:
        self._config = config
        self._path = os.path.abspath(path)
        self._folder = os.path.join(config.stream_dir, _FOLDER)
        self._report = report
        self._all = all_spools
        self._destination = FileDestination(
            FileWriterConfig(path=self._path, formatter=formatter, fsync="always"), report
        )
        self._checkpoint = Checkpoint(os.path.join(self._folder, "checkpoint"))
        self._written: list[Files] = []
        self._begun: set[str] = set()
        self._caught_up: set[str] = set()  # of those that live: what comes from now on is for later
        self._records = self._spools = self._unsure = 0

    def run(self) -> Drained:
        """Drain."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(_alone(self._config))
            self._begin()
            stack.callback(self._checkpoint.close)
            self._checkpoint.open()
            stack.callback(self._destination.close)
            reached = self._destination.recover(self._checkpoint)
            self._checkpoint.commit(b"0-0", 0, self._destination.mark(), reached, [])
            for name, writer in self._config.writers.items():
                if isinstance(writer, FileWriterConfig):
                    files = Files(writer, self._journal(name), self._report, since=float("inf"))
                    stack.callback(files.close)
                    self._written.append(files)
            spools = SpoolSet(self._config.spool_root, "", self._report)
            stack.callback(spools.close)
            while self._round(spools):
                pass
            here = sum(not spool.owner_dead for spool in spools.values())
            living = spools.living - here if self._all else spools.living
        self._end()
        return Drained(self._records, self._spools, self._unsure, living)

    def _journal(self, writer: str) -> str:
        return self._config.checkpoint_path(writer)

    # -- which file -----------------------------------------------------------------------------

    def _begin(self) -> None:
        """Go on with a drain that was killed, if there is one. Raises ``RedislogkitError`` where it has another file."""
        os.makedirs(self._folder, 0o700, exist_ok=True)
        note = os.path.join(self._folder, "target")
        try:
            with open(note, encoding="utf-8", errors="surrogateescape") as file:
                target = file.read()
        except FileNotFoundError:
            target = ""
        if target and target != self._path:
            raise RedislogkitError(
                f"--to must be {target}, got {self._path}: a drain into that file was not finished, and only there it can "
                "be told what it has; finish it first"
            )
        with open(f"{note}.new", "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(self._path)
        os.replace(f"{note}.new", note)

    def _end(self) -> None:
        """All is marked in the spools: the file's checkpoint is not needed any more."""
        for name in os.listdir(self._folder):
            os.unlink(os.path.join(self._folder, name))
        os.rmdir(self._folder)

    # -- spools ---------------------------------------------------------------------------------

    def _round(self, spools: SpoolSet) -> bool:
        """Read each spool once; False when nothing is left in them."""
        moved = bool(spools.discover())
        for spool in spools.readable():
            if spool.check_owner() or (self._all and spool.directory not in self._caught_up):
                moved |= self._read(spools, spool)
        return moved

    def _read(self, spools: SpoolSet, spool: ShipperEnd) -> bool:
        producer = spool.facts.producer
        if spool.directory not in self._begun:
            self._begun.add(spool.directory)
            spool.set_written(max(spool.written, self._safe(spool)))
            spool.rewind(spool.written)
        runs = spools.read(spool, _AT_ONCE)
        shipped = spool.shipped
        if runs:
            self._write(runs, spool.written, shipped)
        reached = max(self._checkpoint.seen(producer), spool.written)
        spool.set_shipped(max(shipped, reached))
        spool.set_written(reached)
        spool.release(reached)
        if sum(len(payload) for run in runs for payload in run.payloads) < _AT_ONCE // 2:
            self._caught_up.add(spool.directory)
        if spool.finished and spool.owner_dead:
            spools.remove(spool)
            self._spools += 1
            return True
        return bool(runs)

    def _safe(self, spool: ShipperEnd) -> int:
        """Highest sequence that is not to be written: it is in the log files, or was the stream's to keep."""
        producer = spool.facts.producer
        known = min((files.seen(producer) for files in self._written), default=0)
        shipped = spool.shipped if self._config.producer.ack == "stream" else 0
        return max(known, shipped, self._checkpoint.seen(producer))

    def _write(self, runs: list[Run], written: int, shipped: int) -> None:
        checkpoint = self._checkpoint
        reading = Reading(lambda producer: checkpoint.seen(producer) or written, None)
        for facts, first, payloads in runs:
            reading.add(DecodedRun(facts, first, [item_of(payload) for payload in payloads]))
        self._destination.write(reading)
        checkpoint.commit(b"0-0", 0, self._destination.mark(), reading.highest, [])
        self._records += len(reading.items)
        self._unsure += sum(sequence <= shipped for _, _, sequence in reading.items)


@contextlib.contextmanager
def _alone(config: Config) -> Iterator[None]:
    """Hold the supervisor's lock. Raises ``LockHeldError``, which names who has it."""
    path = launch.lock_path(config)
    lock = locking.OwnedLock(path, "the spools")
    try:
        lock.acquire()
    except LockHeldError:
        owner = locking.describe(locking.read_owner(path))
        raise LockHeldError(
            f"a supervisor is at work on these spools ({owner}): what waits in them is on its way to the log files; "
            "'redislogkit spool show' shows it; to drain it nevertheless, stop that supervisor first"
        ) from None
    try:
        yield
    finally:
        lock.release()

"""Writers without a supervisor: ``AsyncRedisFileWriter`` and ``AsyncRedisTTYWriter`` on an existing stream.

Each starts a thread when it is made, and ends with its ``stop_event`` or by `close`. They keep a checkpoint
like every writer, so a restart goes on where it stopped. A second one for the same destination is refused where
that is a file, and stands by where it is the terminals, which one writer serves for all processes.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from typing import Protocol

import msgspec

from redislogkit import config as configuration
from redislogkit import identity, locking
from redislogkit.errors import LockHeldError
from redislogkit.lines import Numbered
from redislogkit.producer import seed
from redislogkit.record import Facts
from redislogkit.stream.client import StreamClient
from redislogkit.writers import index
from redislogkit.writers.base import Destination, Writer
from redislogkit.writers.checkpoint import Checkpoint
from redislogkit.writers.file import FileDestination
from redislogkit.writers.tty import TtyDestination

#: A server that is away when the writer is to end is not waited for longer.
_DRAIN_TIMEOUT = 2.0
#: A thread in the middle of a command to a stalled server ends a little later.
_JOIN_SLACK = 5.0
_STAND_BY = 0.25


class StopEvent(Protocol):
    """``threading.Event`` or ``multiprocessing.Event``."""

    def is_set(self) -> bool:
        """True when the writer is to end."""


class _StandaloneWriter:
    """A writer loop in a thread of its own."""

    def __init__(
        self,
        url: str,
        stream_name: str | None,
        name: str,
        destination: Destination,
        last_id: str,
        stop_event: StopEvent | None,
        block: float | None,
        lock_timeout: float = 0.0,
    ) -> None:
        if not stream_name:
            raise ValueError("stream_name must name the stream to read, got nothing")
        self.stream_name = stream_name
        self.reports: list[str] = []
        """What the writer had to say, newest last."""
        self.error: Exception | None = None
        """Why the writer has ended by itself, if it has."""
        self._stop_event = stop_event
        self._closing = threading.Event()
        self._deadline = float("inf")
        folder = os.path.join(seed.state_dir(url, stream_name), "checkpoints")
        os.makedirs(folder, 0o700, exist_ok=True)
        checkpoint = os.path.join(folder, name)
        self._lock = locking.OwnedLock(f"{checkpoint}.lock", f"writer {name!r} of stream {stream_name!r}")
        self._writer = Writer(
            name,
            lambda: StreamClient(url, stream_name),
            destination,
            Checkpoint(checkpoint),
            lambda _level, _name: True,
            self._report,
            start_after=last_id,
            block=0.25 if block is None else min(block / 1000, 1.0),
            lock_timeout=lock_timeout,
            owner=f"{identity.host_name()}:{folder}",
        )
        self._thread = threading.Thread(target=self._run, name=f"redislogkit-{name}")
        self._thread.start()

    def _report(self, message: str) -> None:
        self.reports = [*self.reports[-99:], message]

    def _stopping(self) -> bool:
        return self._closing.is_set() or (self._stop_event is not None and self._stop_event.is_set())

    def _run(self) -> None:
        try:
            if self._stand_by():
                self._writer.run(
                    self._stopping,
                    drain_timeout=_DRAIN_TIMEOUT,
                    abandoned=lambda: time.monotonic() > self._deadline,
                )
        except Exception as error:  # kept for the owner to see; a thread has nobody to raise to
            self.error = error
            self._report(str(error))
        finally:
            self._lock.release()

    def _stand_by(self) -> bool:
        """Wait until no other process runs this writer; False when it is to end before."""
        reported = False
        while not self._stopping():
            try:
                self._lock.acquire(_STAND_BY)
            except LockHeldError as error:
                if not reported:
                    self._report(f"standing by: {error}")
                reported = True
            else:
                return True
        return False

    def close(self, timeout: float = _DRAIN_TIMEOUT) -> None:
        """Write what the stream still has and end, within about ``timeout`` seconds.

        What is not written by then is written by the next writer of this stream and destination.
        """
        self._deadline = time.monotonic() + timeout
        self._closing.set()
        with contextlib.suppress(RuntimeError):  # closed from the thread itself
            self._thread.join(timeout + _JOIN_SLACK)

    def is_alive(self) -> bool:
        """True while it writes."""
        return self._thread.is_alive()


class AsyncRedisFileWriter(_StandaloneWriter):
    """Writes a stream into a file with rotation by size.

    Args:
        redis_host: Host of the server.
        redis_port: Its port.
        redis_db: Number of the database.
        stream_name: Stream to read, of either layout.
        filename: The file.
        stop_event: Ends the writer when it is set.
        max_bytes: Size at which the file is rotated; 0 is never.
        backup_count: Backups to keep.
        last_id: Entries up to this one are passed over by a writer that has no checkpoint yet.
        block: Milliseconds that one reading waits for news.
        lock_timeout: Seconds to wait for another writer to let go of the file.

    Raises:
        ValueError: ``stream_name`` or ``filename`` is missing.
        OSError: ``filename`` can not be a file.
        LockHeldError: Another writer has the file; the message names its process.
    """

    def __init__(
        self,
        redis_host: str = "localhost",
        redis_port: int = 6379,
        redis_db: int = 0,
        stream_name: str | None = None,
        filename: str | os.PathLike[str] | None = None,
        stop_event: StopEvent | None = None,
        max_bytes: int = 10 * seed.MIB,
        backup_count: int = 5,
        last_id: str = "0-0",
        block: float | None = None,
        lock_timeout: float = 1,
    ) -> None:
        if not filename:
            raise ValueError("filename must name the file to write, got nothing")
        settings = seed.file_writer(filename, max_bytes, backup_count, lock_timeout)
        self.filename = settings["path"]
        _refuse_second_writer(self.filename, lock_timeout)
        config = configuration.load({"formatters": {"plain": {}}, "writers": {"file": settings}})
        section = config.writers["file"]
        assert isinstance(section, configuration.FileWriterConfig)
        url = seed.url(redis_host, redis_port, redis_db)
        name = f"file-{seed.digest(self.filename)}"
        folder = index.folder(seed.state_dir(url, stream_name or ""), name)
        super().__init__(
            url,
            stream_name,
            name,
            FileDestination(section, self._report, index_folder=folder),
            last_id,
            stop_event,
            block,
            lock_timeout,
        )


class AsyncRedisTTYWriter(_StandaloneWriter):
    """Writes each record of a stream to the terminal of the process that logged it.

    The arguments are those of `AsyncRedisFileWriter` that do not concern a file. An entry of another program
    names its terminal in the field ``tty``; it gets there only if that is a terminal of this process's user.

    Raises:
        ValueError: ``stream_name`` is missing.
    """

    def __init__(
        self,
        redis_host: str = "localhost",
        redis_port: int = 6379,
        redis_db: int = 0,
        stream_name: str | None = None,
        last_id: str = "0-0",
        stop_event: StopEvent | None = None,
        block: float | None = None,
    ) -> None:
        config = configuration.load({"writers": {"tty": {"type": "tty"}}})
        section = config.writers["tty"]
        assert isinstance(section, configuration.TtyWriterConfig)
        super().__init__(
            seed.url(redis_host, redis_port, redis_db),
            stream_name,
            f"tty@{identity.host_name()}",  # as in `address.group`: each host serves its own terminals
            _Terminals(section),
            last_id,
            stop_event,
            block,
        )


class _Terminals(TtyDestination):
    """Terminals also for entries of programs that say no more than the name of theirs.

    Such a name is taken for one of this host. As everybody who can write to the stream can choose it, the
    terminal has to belong to the user of this process.
    """

    def _placed(self, items: Sequence[Numbered]) -> Sequence[Numbered]:
        return [(item, _of_this_host(facts), sequence) for item, facts, sequence in items]


def _of_this_host(facts: Facts) -> Facts:
    if facts.host or not facts.tty:
        return facts
    try:
        device = os.lstat(facts.tty).st_rdev
    except (OSError, ValueError):
        return facts
    return msgspec.structs.replace(
        facts, host=identity.host_name(), boot_id=identity.boot_id(), uid=os.geteuid(), tty_device=device
    )


def _refuse_second_writer(path: str, timeout: float) -> None:
    """Raise ``LockHeldError`` here and not in the writer's thread, where nobody would see it."""
    lock = locking.OwnedLock(locking.beside(path), f"log file {path}")
    lock.acquire(timeout)
    lock.release()

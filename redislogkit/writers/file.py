"""The file: append, rotate, and after a crash find out what is there already.

Theory of operation. Everything of one reading that belongs into one file goes out in one ``write``. The
checkpoint names file (device, inode) and offset. At `open` whatever lies behind that offset is the
*tail*: bytes that were written before the crash but not checkpointed, perhaps torn, perhaps followed by
somebody else's. The stream gives the same entries again; what they format to is compared with the
tail. Equal bytes are there already, a torn line is completed, and where the tail is not ours it stays
untouched and writing goes on behind it, on a new line.

A rotation happens between two checkpoints: everything before it is checkpointed (the loop does that when
`write` yields), then the file is renamed and a new one is begun. If the file of the checkpoint is found
under an archive's name with the checkpoint's size, the rotation had just happened, and the whole live file
is tail. When a write fails (disk full), the torn end is cut off again, so the file ends with a whole line
while it waits.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from redislogkit import escaping, formatting, locking, rotation
from redislogkit.config import FileWriterConfig
from redislogkit.record import Loss
from redislogkit.writers.archive import Archivist, Identity, locate
from redislogkit.writers.base import Numbered
from redislogkit.writers.checkpoint import Mark

_FSYNC_INTERVAL: Final = 1.0
_LOOK_INTERVAL: Final = 1.0
_ROTATION_PAUSE: Final = 1.0
_NEVER: Final = float("inf")


class FileDestination:
    """One file with its rotation. ``clock`` returns seconds since the epoch."""

    def __init__(
        self, config: FileWriterConfig, report: Callable[[str], None], clock: Callable[[], float] = time.time
    ) -> None:
        self._config = config
        self._report = report
        self._clock = clock
        self._format = formatting.build(config.formatter)
        self._archivist = Archivist(config, report, clock=clock)
        self._lock = locking.OwnedLock(locking.beside(config.path), f"log file {config.path}")
        self._limit = rotation.size_limit(config.max_bytes, config.backup_count, config.naming)
        self._fd = -1
        self._identity = Identity(0, 0)
        self._offset = 0
        self._tail_end = 0  # bytes up to here were there before; beyond `_offset` they are compared
        self._began = 0.0
        self._rollover = _NEVER
        self._next_fsync = _NEVER
        self._next_look = 0.0
        self._rotated = False
        self._rotate_not_before = 0.0

    # -- opening --------------------------------------------------------------------------------

    def open(self, mark: Mark | None) -> None:
        """Lock and open the file. Raises ``LockHeldError`` or ``OSError``."""
        path = self._config.path
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self._lock.acquire()
        self._archivist.open()
        found = None if mark is None else locate(path, Identity(mark.device, mark.inode))
        if mark is not None and found is not None and found != path:
            self._finish_archive(found, mark)
            mark = None
            self._open_live(known=True)
        else:
            self._open_live(known=False)
        if mark is not None and self._identity == (mark.device, mark.inode):
            self._resume_at(mark.offset)
        self._archivist.submit()

    def _open_live(self, *, known: bool) -> None:
        """Open the live file; ``known`` means that all bytes in it were written behind the checkpoint."""
        path, mode = self._config.path, self._config.mode
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o666 if mode is None else mode)
        status = os.fstat(self._fd)
        if mode is not None and status.st_mode & 0o7777 != mode:
            with contextlib.suppress(PermissionError):
                os.fchmod(self._fd, mode)
        self._identity = Identity(status.st_dev, status.st_ino)
        self._tail_end = status.st_size
        self._offset = 0 if known else status.st_size
        self._began = status.st_mtime if status.st_size else self._clock()
        self._plan_rollover()

    def _resume_at(self, offset: int) -> None:
        if offset > self._tail_end:
            self._report(
                f"{self._config.path} has {self._tail_end} bytes, {offset} were written: somebody has cut it"
            )
            return
        self._offset = offset

    def _finish_archive(self, path: str, mark: Mark) -> None:
        """The file of the checkpoint was renamed: by our own rotation, or by somebody from outside."""
        size = os.stat(path).st_size
        if size != mark.offset:
            self._report(f"{path} has {size} bytes, the checkpoint says {mark.offset}")

    def _plan_rollover(self) -> None:
        when = self._config.when
        if when is not None:
            self._rollover = rotation.next_rollover(
                self._began, when, self._config.interval, utc=self._config.utc
            )

    # -- writing --------------------------------------------------------------------------------

    def write(self, items: Sequence[Numbered]) -> Iterator[int]:
        """Write ``items``; yields where the file changes, and their number at the end."""
        self._look_for_outside_changes()
        chunk: list[bytes] = []
        size = self._offset
        limit, rollover = self._limits()
        for done, (item, facts, sequence) in enumerate(items):
            line = self._line(item, facts, sequence)
            if (limit and rotation.exceeds_size(size, len(line), limit)) or item.created >= rollover:
                self._put(b"".join(chunk))
                chunk.clear()
                yield done
                self._rotate()
                size = self._offset
                limit, rollover = self._limits()
            chunk.append(line)
            size += len(line)
        self._put(b"".join(chunk))
        if self._config.fsync == "always":
            os.fdatasync(self._fd)
        yield len(items)

    def _line(self, item: object, facts: object, sequence: int) -> bytes:
        if isinstance(item, Loss):
            item = formatting.loss_record(item, facts)  # type: ignore[arg-type]
        text = self._format(item, facts, sequence)  # type: ignore[arg-type]
        if self._config.multiline != "keep":
            text = escaping.apply_multiline(text, self._config.multiline)
        return text.encode("utf-8", "backslashreplace") + b"\n"

    def _limits(self) -> tuple[int, float]:
        """Size in bytes and creation time from which on a record belongs into the next file.

        Records of the old interval that come late still go into its file; a record whose producer's
        clock runs ahead does not rotate before the time has come here too.
        """
        if time.monotonic() < self._rotate_not_before:
            return 0, _NEVER
        return self._limit, self._rollover if self._clock() >= self._rollover else _NEVER

    def _put(self, data: bytes) -> None:
        """Bring ``data`` into the file behind the offset, unless it is there already."""
        if data and self._offset < self._tail_end:
            data = self._without_what_is_there(data)
        if not data:
            return
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            self._cut_torn_end(len(data) - len(view))
            raise
        self._offset += len(data)
        self._tail_end = self._offset
        if self._config.fsync == "interval" and self._next_fsync == _NEVER:
            self._next_fsync = time.monotonic() + _FSYNC_INTERVAL

    def _without_what_is_there(self, data: bytes) -> bytes:
        """Compare with the tail; return what is missing."""
        there = os.pread(self._fd, min(len(data), self._tail_end - self._offset), self._offset)
        if data.startswith(there):
            self._offset += len(there)
            return data[len(there) :]
        common = next(
            (i for i, (ours, found) in enumerate(zip(data, there, strict=False)) if ours != found), len(there)
        )
        whole = data.rfind(b"\n", 0, common) + 1
        self._offset += whole
        self._report(
            f"{self._config.path}: bytes {self._offset} to {self._tail_end} are not ours; they stay, writing "
            "goes on behind them"
        )
        ends_line = os.pread(self._fd, 1, self._tail_end - 1) == b"\n"
        self._offset = self._tail_end
        return (b"" if ends_line else b"\n") + data[whole:]

    def _cut_torn_end(self, written: int) -> None:
        """After a failed write: the file ends with the last whole line again, if nobody else wrote."""
        if written and os.fstat(self._fd).st_size == self._offset + written:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._offset)
        elif written:
            self._tail_end = os.fstat(self._fd).st_size

    # -- rotation -------------------------------------------------------------------------------

    def _rotate(self) -> None:
        """Make the live file an archive and begin a new one; a failure is reported and tried again."""
        if self._config.fsync != "never":
            os.fdatasync(self._fd)
        if self._archivist.rotate(self._interval_start()) is not None:
            os.close(self._fd)
            self._fd = -1
            self._open_live(known=False)
            self._rotated = True
        elif self._offset == 0:
            self._began = self._clock()  # nothing to rotate: the empty file serves the next interval too
            self._plan_rollover()
        else:
            self._rotate_not_before = time.monotonic() + _ROTATION_PAUSE

    def _interval_start(self) -> float:
        if self._config.when is None or self._rollover == _NEVER:
            return self._began
        return rotation.interval_start(
            self._rollover, self._config.when, self._config.interval, utc=self._config.utc
        )

    def _look_for_outside_changes(self) -> None:
        """Reopen after an outside logrotate; notice when somebody has cut the file or written to it."""
        now = time.monotonic()
        if now < self._next_look and self._fd >= 0:
            return
        self._next_look = now + _LOOK_INTERVAL
        try:
            status = os.stat(self._config.path)
            same = (status.st_dev, status.st_ino) == self._identity
        except FileNotFoundError:
            same = False
        if not same or self._fd < 0:
            if self._fd >= 0:
                self._report(f"{self._config.path} was moved or removed from outside; a new one is begun")
                os.close(self._fd)
                self._fd = -1
            os.makedirs(os.path.dirname(self._config.path), exist_ok=True)
            self._open_live(known=False)
        elif status.st_size < self._offset:
            self._report(f"{self._config.path} was cut to {status.st_size} bytes from outside")
            self._offset = self._tail_end = status.st_size
        elif self._offset == self._tail_end < status.st_size:
            self._offset = self._tail_end = status.st_size  # somebody else appended; his bytes stay

    # -- the rest of the seam -------------------------------------------------------------------

    def mark(self) -> Mark | None:
        """File and offset up to which everything is ours and written."""
        return Mark(*self._identity, self._offset)

    def recover(self, mark: Mark | None) -> None:
        """Compare again what lies behind ``mark`` with what will be written next."""
        if mark is not None and self._identity == (mark.device, mark.inode):
            self._tail_end = os.fstat(self._fd).st_size
            self._resume_at(mark.offset)
        self._next_look = 0.0

    def checkpointed(self) -> None:
        """A checkpoint names the present file: older ones may be compressed and expire."""
        if self._rotated:
            self._rotated = False
            self._archivist.submit()

    def service(self) -> float | None:
        """Force the file onto the disk when that is due."""
        if self._next_fsync == _NEVER:
            return None
        left = self._next_fsync - time.monotonic()
        if left > 0:
            return left
        self._next_fsync = _NEVER
        os.fdatasync(self._fd)
        return None

    def close(self) -> None:
        """Force out, close and unlock the file."""
        self._archivist.close()
        if self._fd >= 0:
            if self._config.fsync != "never":
                with contextlib.suppress(OSError):
                    os.fdatasync(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._lock.release()

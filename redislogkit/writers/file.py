"""The file: append, rotate, and after a crash find out what is there already.

Theory of operation. Everything of one reading that belongs into one file goes out in one ``write``. The
checkpoint names file (device, inode) and offset. Whatever lies behind that place when the file is opened, or
after a write or a checkpoint has failed, is the *tail*: lines that were written but not checkpointed, the
last one perhaps torn, and perhaps somebody else's. The stream gives the same records again; a record that
is found in the tail is not written again, a torn line of ours is cut off and written anew, and what is not
ours stays untouched: writing goes on behind it, on a new line. As long as records are being found, the
checkpoint stays before the first line that was not.

The tail begins in the file of the checkpoint, whatever that is called now (a rotation of ours was killed,
somebody renamed it), and goes on through all that is newer. Where another file is written to from now on (our
rotation, an outside logrotate, a file that was cut or removed), `write` yields first, and the loop
checkpoints: nothing that is not checkpointed is ever left behind in a file that the checkpoint does not lead to.

Sizes are in bytes of UTF-8, so a file stays below ``max_bytes``; the stdlib counts the characters of the
record that it is about to write. With ``when``, a record's own time decides into which file it belongs, as
far as that time has come here, so a backlog is divided as if it had been written at once. After a restart an
interval is reckoned from the file's last change, as in the stdlib.

A path that is a symbolic link, or leads through one, is resolved once: the file that it names is the log
file, and archives and lock lie beside that one. So one file is one lock, whatever name is used for it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from redislogkit import escaping, formatting, locking, rotation
from redislogkit.config import FileWriterConfig
from redislogkit.record import Facts, Loss, Record
from redislogkit.writers import archive, tail
from redislogkit.writers.archive import Archivist, Identity
from redislogkit.writers.base import Numbered
from redislogkit.writers.checkpoint import Mark

_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
_FSYNC_INTERVAL: Final = 1.0
_ROTATION_PAUSE: Final = 1.0
#: A clock that goes back by less is only being adjusted.
_SET_BACK: Final = 60.0
#: A record that claims to be older did not come with a clock that one could go by.
_OLDEST: Final = 366 * 86_400.0
_NEVER: Final = float("inf")


class FileDestination:
    """One file with its rotation. ``clock`` returns seconds since the epoch."""

    def __init__(
        self, config: FileWriterConfig, report: Callable[[str], None], clock: Callable[[], float] = time.time
    ) -> None:
        path = os.path.realpath(config.path)
        self._config = msgspec.structs.replace(config, path=path)
        self._path = path
        self._report = report
        self._clock = clock
        self._render = _renderer(config)
        self._archivist = Archivist(self._config, report, clock=clock)
        self._lock = locking.OwnedLock(locking.beside(path), f"log file {config.path}")
        self._locked: Identity | None = None
        self._limit = rotation.size_limit(config.max_bytes, config.backup_count, config.naming)
        self._fd = -1
        self._identity = Identity(0, 0)
        self._offset = 0  # the end of the file, as far as known
        self._ours = 0  # from here to there all bytes were written by this object
        self._in_line = False  # somebody else's last line has no end
        self._resume: Mark | None = None  # where writing goes on while the file is not open
        self._tail: tail.Tail | None = None
        self._began = 0.0
        self._rollover = _NEVER
        self._rotate_not_before = 0.0
        self._next_fsync = _NEVER
        self._rotated = False
        self._opened = False

    # -- opening --------------------------------------------------------------------------------

    def open(self, mark: Mark | None) -> None:
        """Lock and open the file. Raises ``LockHeldError`` or ``OSError``."""
        self._resume = mark
        self._own()
        self._archivist.open()
        self._attach()
        self._opened = self._rotated = True

    def _own(self) -> None:
        """Have the folder and the lock; both may have been removed since."""
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        if self._locked and self._locked != archive.identity_of(self._lock.path):
            self._lock.release()
            self._locked = None
        if not self._locked:
            self._lock.acquire()
            self._locked = archive.identity_of(self._lock.path)

    def _attach(self) -> None:
        """Open the live file and read what lies behind the place at which writing should go on."""
        self._own()
        before, mark = self._identity, self._resume
        files = [] if mark is None else archive.behind(self._config, Identity(mark.device, mark.inode))
        modified = self._open_live().st_mtime
        if mark is not None and files == [self._path] and mark.offset > self._offset:
            self._report(f"{self._path} was cut to {self._offset} bytes, {mark.offset} were written")
            files = []
        if mark is None or not files:
            places = [(self._path, tail.last_line(self._fd, self._offset))]
        else:
            places = [(files[0], mark.offset), *((name, 0) for name in files[1:])]
        try:
            self._tail = tail.load(places)
        except OSError:
            self._detach()
            raise
        if self._identity != before:
            now = self._clock()
            self._begin(min(modified, now) if self._offset else now)

    def _open_live(self, like: os.stat_result | None = None) -> os.stat_result:
        """Open the live file, or make it, then with mode and owner of ``like``, its predecessor."""
        mode = self._config.mode
        if mode is None and like is not None:
            mode = stat.S_IMODE(like.st_mode)
        fd = os.open(self._path, _FLAGS, 0o666 if mode is None else mode)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "a log file must be a regular file", self._path)
            with contextlib.suppress(PermissionError):
                if like is not None and (like.st_uid, like.st_gid) != (status.st_uid, status.st_gid):
                    os.fchown(fd, like.st_uid, like.st_gid)
            with contextlib.suppress(PermissionError):
                if mode is not None and stat.S_IMODE(status.st_mode) != mode:
                    os.fchmod(fd, mode)
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._identity = fd, Identity(status.st_dev, status.st_ino)
        self._end_is(status.st_size)
        if not status.st_size and self._config.fsync == "always":
            archive.sync_folder(self._path)
        return status

    def _end_is(self, size: int) -> None:
        self._offset = self._ours = size
        self._in_line = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"

    def _detach(self) -> None:
        self._resume = self.mark()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _settle(self) -> bool:
        """Have the right file open; True when writing goes on elsewhere than the checkpoint may say."""
        if self._fd < 0:
            self._attach()
            return True
        try:
            status = os.stat(self._path)
            same = (status.st_dev, status.st_ino) == self._identity
        except FileNotFoundError:
            same = False
        if not same:
            self._report(f"{self._path} was moved or removed from outside; writing goes on in a new one")
            self._sync()
            self._detach()
            self._attach()
            return True
        if status.st_size == self._offset:
            return False
        if status.st_size < self._offset:
            self._report(f"{self._path} was cut to {status.st_size} bytes from outside")
        self._end_is(status.st_size)  # what somebody else appended stays
        return True

    # -- writing --------------------------------------------------------------------------------

    def write(self, items: Sequence[Numbered]) -> Iterator[int]:
        """Write ``items``; yields where the file changes, and their number at the end."""
        if not items:  # entries that were read again: they say nothing about the tail
            yield 0
            return
        if self._settle():
            yield 0
        if not self._offset:
            self._begin_with(items[0][0].created)
        render = self._render
        texts = [render(item, facts, sequence) for item, facts, sequence in items]
        limit, rollover = self._limits()
        if self._tail is None and rollover == _NEVER:
            # The usual case, in one go: 0.3 us a record less than line by line.
            data = _encode("".join(texts))
            if not limit or self._offset + len(data) < limit:
                self._put(data)
                yield len(items)
                return
        yield from self._write_lines(items, [_encode(text) for text in texts])

    def _write_lines(self, items: Sequence[Numbered], lines: list[bytes]) -> Iterator[int]:
        if self._tail is not None:
            lines = self._without_tail(self._tail, lines)
        limit, rollover = self._limits()
        chunk: list[bytes] = []
        size = self._offset
        for done, line in enumerate(lines):
            if not line:  # it is there already, in whichever file
                continue
            created = items[done][0].created
            if created >= rollover or rotation.exceeds_size(size, len(line), limit):
                if size:
                    self._put(b"".join(chunk))
                    chunk.clear()
                    yield done
                self._rotate(created)
                size = self._offset
                limit, rollover = self._limits()
            chunk.append(line)
            size += len(line)
        self._put(b"".join(chunk))
        yield len(items)

    def _put(self, data: bytes) -> None:
        """Append ``data``; after a failure none of it is left, unless somebody else has appended meanwhile."""
        if not data:
            return
        if self._in_line:
            data = b"\n" + data
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, memoryview(data)[written:] if written else data)
            if self._config.fsync == "always":
                os.fdatasync(self._fd)
        except OSError:
            self._take_back(written)
            raise
        # Others may have appended before us; the descriptor tells where our own bytes end.
        end = os.lseek(self._fd, 0, os.SEEK_CUR)
        if end - len(data) != self._offset:
            self._ours = end - len(data)
        self._offset = end
        self._in_line = False
        if self._config.fsync == "interval" and self._next_fsync == _NEVER:
            self._next_fsync = time.monotonic() + _FSYNC_INTERVAL

    def _take_back(self, written: int) -> None:
        with contextlib.suppress(OSError):
            end = os.lseek(self._fd, 0, os.SEEK_CUR)
            if written and os.fstat(self._fd).st_size == end:
                os.ftruncate(self._fd, end - written)

    def _without_tail(self, there: tail.Tail, lines: list[bytes]) -> list[bytes]:
        """Return ``lines``, empty in the place of those that stand in the tail already."""
        was_current = there.current
        missing = there.missing(lines)
        self._end_is(os.fstat(self._fd).st_size)  # a torn line may have been cut off
        if there.is_over():
            self._tail = None
        elif was_current and not there.current:
            self._report(f"{self._path}: not all behind the last checkpoint is ours; it stays where it is")
        return missing

    # -- rotation -------------------------------------------------------------------------------

    def _begin(self, moment: float) -> None:
        self._began = moment
        config = self._config
        if config.when is not None:
            self._rollover = rotation.next_rollover(moment, config.when, config.interval, utc=config.utc)

    def _begin_with(self, created: float) -> None:
        """Begin an empty file; the interval of a backlog is that of its first record."""
        if created < self._began and self._clock() - created < _OLDEST:
            self._begin(created)

    def _limits(self) -> tuple[int, float]:
        """Size in bytes and creation time from which on a record belongs into the next file.

        Records of the old interval that come late still go into its file; a record whose producer's
        clock runs ahead does not rotate before the time has come here too.
        """
        if time.monotonic() < self._rotate_not_before:
            return 0, _NEVER
        if self._config.when is None:
            return self._limit, _NEVER
        now = self._clock()
        if now < self._began - _SET_BACK:
            self._begin(now)
        return self._limit, self._rollover if now >= self._rollover else _NEVER

    def _rotate(self, created: float) -> None:
        """Make the live file, unless it is empty, an archive and begin a new one for a record of ``created``.

        A failure is reported and tried again.
        """
        too_late = created >= self._rollover
        if self._offset:
            self._sync()
            status = os.fstat(self._fd)
            if self._archivist.rotate(self._interval_start()) is None:
                self._rotate_not_before = time.monotonic() + _ROTATION_PAUSE
                return
            self._rotated = True
            self._detach()
            self._open_live(status)
        if too_late:
            self._begin(min(created, self._clock()))
        elif self._config.when is None:
            self._began = self._clock()

    def _interval_start(self) -> float:
        config = self._config
        if config.when is None:
            return self._began
        return rotation.interval_start(self._rollover, config.when, config.interval, utc=config.utc)

    # -- the rest of the seam -------------------------------------------------------------------

    def mark(self) -> Mark | None:
        """File and offset up to which everything is written, and nothing of ours stands behind it."""
        if self._fd < 0:
            return self._resume
        if self._tail is not None and self._tail.current:
            return self._tail.first()
        return Mark(*self._identity, self._offset)

    def recover(self, mark: Mark | None) -> None:
        """Begin anew behind ``mark``, with the next `write`: what stands there will come again."""
        self._detach()
        self._resume = mark
        self._tail = None

    def retract(self, mark: Mark | None) -> None:
        """Take back what was written behind ``mark``, as far as nobody else has appended; go on as `recover` does."""
        if self._fd >= 0:
            keep = max(self._ours, mark.offset if mark and mark[:2] == self._identity else 0)
            if keep < self._offset == os.fstat(self._fd).st_size:
                os.ftruncate(self._fd, keep)
        self.recover(mark)

    def checkpointed(self) -> None:
        """A checkpoint names the present `mark`: older files may be compressed and expire."""
        mark = self.mark()
        if self._rotated and self._fd >= 0 and mark and mark[:2] == self._identity:
            self._rotated = False
            self._archivist.submit()

    def service(self) -> float | None:
        """Do what is left from the last run; force the file onto the disk when that is due."""
        if self._opened:
            self._opened = False
            self.checkpointed()
        if self._next_fsync == _NEVER:
            return None
        left = self._next_fsync - time.monotonic()
        if left > 0:
            return left
        self._sync()
        self._next_fsync = _NEVER
        return None

    def _sync(self) -> None:
        if self._fd >= 0 and self._config.fsync != "never":
            os.fdatasync(self._fd)

    def close(self) -> None:
        """Force out, close and unlock the file."""
        self._archivist.close()
        with contextlib.suppress(OSError):
            self._sync()
        self._detach()
        self._lock.release()
        self._locked = None


def _renderer(config: FileWriterConfig) -> Callable[[Record | Loss, Facts, int], str]:
    """Return what makes the text of a record or loss, with the end of its line."""
    formatter = formatting.build(config.formatter)
    mode = config.multiline

    def render(item: Record | Loss, facts: Facts, sequence: int) -> str:
        record = formatting.loss_record(item, facts) if item.__class__ is Loss else item
        text = formatter(record, facts, sequence)  # type: ignore[arg-type]
        return (text if mode == "keep" else escaping.apply_multiline(text, mode)) + "\n"

    return render


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")

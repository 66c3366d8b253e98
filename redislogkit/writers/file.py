"""The file: append, rotate, and after a crash find out what is there already.

Theory of operation. Everything of one reading that belongs into one file goes out in one ``write``. Before it, the
checkpoint gets an intent: which bytes will be where, and which records they are. A restart, or whoever goes on after
a write has failed, looks at the intents that no commit has settled (`recover`): bytes that stand there as announced
are written, a torn part of them is cut off. Everything else behind the checkpoint is not ours and stays untouched:
writing goes on behind it, on a new line.

Intents name their file by identity, so it may have been renamed meanwhile, by our own rotation or by somebody else.
Archives are compressed and deleted by retention only when everything in them is settled.

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
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from redislogkit import lines, locking, rotation
from redislogkit.config import FileWriterConfig
from redislogkit.escaping import encode_text
from redislogkit.writers import archive, chunk, repair
from redislogkit.writers.archive import Archivist, Identity
from redislogkit.writers.checkpoint import Checkpoint, Intent, Mark
from redislogkit.writers.chunk import Chunk
from redislogkit.writers.counts import Counts
from redislogkit.writers.index import Index, Position
from redislogkit.writers.reading import Reading

_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
_FSYNC_INTERVAL: Final = 1.0
_ROTATION_PAUSE: Final = 1.0
#: A clock that goes back by less is only being adjusted.
_SET_BACK: Final = 60.0
#: A record that claims to be older did not come with a clock that one could go by.
_OLDEST: Final = 366 * 86_400.0
_NEVER: Final = float("inf")
#: Index files beyond one for each log file: of files that somebody else has moved away.
_INDEXES_TO_SPARE: Final = 8


class FileDestination:
    """One file with its rotation.

    Args:
        config: The writer's section.
        report: Takes one line about what went wrong.
        clock: Seconds since the epoch.
        index_folder: Where the index is kept; empty: nowhere.

    `rotate_soon` and `reopen_soon` are carried out by the next `service` that finds everything settled.
    """

    def __init__(
        self,
        config: FileWriterConfig,
        report: Callable[[str], None],
        clock: Callable[[], float] = time.time,
        *,
        index_folder: str = "",
    ) -> None:
        path = os.path.realpath(config.path)
        self._config = replace(config, path=path)
        self._path = path
        self._report = report
        self._clock = clock
        self._render = lines.build(config.formatter, config.multiline)
        self._archivist = Archivist(self._config, report, clock=clock)
        self._lock = locking.OwnedLock(locking.beside(path), f"log file {config.path}")
        self._limit = rotation.size_limit(config.max_bytes, config.backup_count, config.naming)
        self._index = Index(index_folder, report) if index_folder else None
        self._checkpoint: Checkpoint | None = None
        self._fd = -1
        self._identity = Identity(0, 0)
        self._offset = 0  # the end of the file, as far as known
        self._in_line = False  # somebody else's last line has no end
        self._began = 0.0
        self._rollover = _NEVER
        self._rotate_not_before = 0.0
        self._next_fsync = _NEVER
        self._rotated = True  # archives may wait for compression since before we began
        self._opened = False
        self._rotation_wanted = self._reopening_wanted = False
        self.counts = Counts()

    # -- opening, recovering --------------------------------------------------------------------

    def recover(self, checkpoint: Checkpoint, *, retract: bool = False) -> dict[str, int]:
        """Lock and open the file; find out which of the announced writes it has.

        With ``retract`` they are another host's to make, and are taken back as far as nobody has appended.
        Returns producer → sequence up to which everything is written. Raises ``LockHeldError`` or ``OSError``.
        """
        self._own()
        if not self._opened:
            self._archivist.open()
            self._opened = True
        self._checkpoint = checkpoint
        mark = checkpoint.mark
        self._detach()
        self._attach()
        if mark is not None and mark[:2] == self._identity and mark.offset > self._offset:
            self._report(f"{self._path} was cut to {self._offset} bytes, {mark.offset} were written")
        told = self._index.take_up(mark.indexed if mark else Position(0, 0)) if self._index else []
        if self._index:
            self._index.note_path(self._path)
        indexed = [Intent(*one) for one in told]
        announced = [intent for intent in checkpoint.intents if intent.chunk.spans]
        if retract:
            # Only now that the index knows nothing of them any more: it would vouch for what can not be found.
            self._take_back(announced)
            indexed = [intent for intent in indexed if intent not in announced]
        reached = self._settle_intents(indexed, announced)
        self._begin_index()
        return reached

    def _take_back(self, announced: list[Intent]) -> None:
        for intent in reversed(announced):
            if path := self._locate(intent):
                repair.take_back(path, intent.chunk)
                self._remove_if_empty(path)

    def _settle_intents(self, indexed: list[Intent], announced: list[Intent]) -> dict[str, int]:
        """Look what is there. What the index had noted was there once, also where its file can not be found now."""
        assert self._checkpoint is not None
        reached: dict[str, int] = {}
        for intent in [*indexed, *(intent for intent in announced if intent not in indexed)]:
            data = self._checkpoint.announced(intent)
            path = self._locate(intent)
            found = repair.settle(path, intent.chunk, data) if path else None
            if path and found is None:
                self._remove_if_empty(path)
            if found is None and path is None and intent in indexed:
                found = intent.chunk
            if found is not None:
                reached |= chunk.reached(found.spans)
                if self._index:
                    self._index.begin(intent.device, intent.inode)
                    self._index.add(found)
        if announced:
            self._end_is(os.fstat(self._fd).st_size)  # a torn part may have been cut off
        return reached

    def _remove_if_empty(self, path: str) -> None:
        """Remove an archive of which nothing is left: it takes the place of another one."""
        if path != self._path and not os.path.getsize(path):
            os.unlink(path)

    def _locate(self, intent: Intent) -> str | None:
        identity = Identity(intent.device, intent.inode)
        found = archive.locate(self._path, identity)
        for path in self._former_paths() if found is None else ():
            with contextlib.suppress(OSError):
                found = found or archive.locate(path, identity)
        return found

    def _former_paths(self) -> list[str]:
        """Paths that the configuration named before."""
        if self._index is None:
            return []
        with contextlib.suppress(OSError):
            return [path for path in self._index.known_paths() if path != self._path]
        return []

    def _own(self) -> None:
        """Have the folder and the lock; both may have been removed since."""
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        if self._lock.is_lost():
            self._lock.release()
            self._lock.acquire()

    def _attach(self) -> None:
        """Open the live file."""
        self._own()
        before = self._identity
        modified = self._open_live().st_mtime
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
        self._fd, self._identity = fd, Identity.of(status)
        self._end_is(status.st_size)
        if not status.st_size and self._config.fsync == "always":
            archive.sync_folder(self._path)
        return status

    def _end_is(self, size: int) -> None:
        self._offset = size
        self._in_line = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"

    def _detach(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _settle(self) -> None:
        """Have the right file open."""
        try:
            status = os.stat(self._path)
            same = Identity.of(status) == self._identity
        except FileNotFoundError:
            same = False
        if not same:
            self._report(f"{self._path} was moved or removed from outside; writing goes on in a new one")
            self._sync()
            self._detach()
            self._attach()
            self._begin_index()
            self._rotated = True  # by somebody else, and old files have indexes of ours
            return
        if status.st_size < self._offset:
            self._report(f"{self._path} was cut to {status.st_size} bytes from outside")
            if self._index:
                self._index.begin_anew()
            self._rotated = True
        if status.st_size != self._offset:
            self._end_is(status.st_size)  # what somebody else appended stays

    # -- writing --------------------------------------------------------------------------------

    def write(self, reading: Reading) -> None:
        """Write what the reading brings. Raises ``OSError``: `recover` then tells how much of it is there."""
        items = reading.items
        if not items:
            self._note(chunk.describe(self._offset, b"", reading.spans(0, 0), []))
            return
        self._settle()
        if not self._offset:
            self._begin_with(items[0][0].created)
        texts = self._render(items)
        limit, rollover = self._limits()
        if rollover == _NEVER:
            # The usual case, in one go: 0.3 us a record less than line by line.
            data = encode_text("".join(texts))
            if not limit or self._offset + len(data) < limit:
                self._put(data, reading, 0, len(items))
                return
        self._write_lines(reading, [encode_text(text) for text in texts])

    def _write_lines(self, reading: Reading, texts: list[bytes]) -> None:
        items = reading.items
        limit, rollover = self._limits()
        waiting: list[bytes] = []
        size, begin = self._offset, 0
        for place, line in enumerate(texts):
            created = items[place][0].created
            if created >= rollover or rotation.exceeds_size(size, len(line), limit):
                if size:
                    self._put(b"".join(waiting), reading, begin, place)
                    waiting.clear()
                    begin = place
                self._rotate(created)
                size = self._offset
                limit, rollover = self._limits()
            waiting.append(line)
            size += len(line)
        self._put(b"".join(waiting), reading, begin, len(items))

    def _put(self, data: bytes, reading: Reading, begin: int, end: int) -> None:
        """Append ``data``, the lines of ``items[begin:end]``.

        After a failure none of it is left, unless somebody else has appended meanwhile.
        """
        assert self._checkpoint is not None
        if data and self._in_line:
            data = b"\n" + data
        announced = chunk.describe(self._offset, data, reading.spans(begin, end), reading.losses(begin, end))
        if data:
            self._checkpoint.intend(Intent(*self._identity, announced), data)
            self._append(data)
            self.counts.bytes += len(data)
        if self._offset != announced.end:  # others have appended before us
            moved = self._offset - announced.end
            announced = replace(announced, start=announced.start + moved, end=announced.end + moved)
        self._note(announced)

    def _append(self, data: bytes) -> None:
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, memoryview(data)[written:] if written else data)
            if self._config.fsync == "always":
                os.fdatasync(self._fd)
        except OSError:
            self._undo(written)
            raise
        # Others may have appended before us; the descriptor tells where our own bytes end.
        self._offset = os.lseek(self._fd, 0, os.SEEK_CUR)
        self._in_line = False
        if self._config.fsync == "interval" and self._next_fsync == _NEVER:
            self._next_fsync = time.monotonic() + _FSYNC_INTERVAL

    def _undo(self, written: int) -> None:
        with contextlib.suppress(OSError):
            end = os.lseek(self._fd, 0, os.SEEK_CUR)
            if written and os.fstat(self._fd).st_size == end:
                os.ftruncate(self._fd, end - written)

    def _note(self, written: Chunk) -> None:
        if self._index:
            self._index.add(written)

    def _begin_index(self) -> None:
        if self._index:
            self._index.begin(*self._identity)

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
            self.counts.rotations += 1
            self._detach()
            self._open_live(status)
            self._begin_index()
        if too_late:
            self._begin(min(created, self._clock()))
        elif self._config.when is None:
            self._began = self._clock()

    def _interval_start(self) -> float:
        config = self._config
        if config.when is None:
            return self._began
        return rotation.interval_start(self._rollover, config.when, config.interval, utc=config.utc)

    def rotate_soon(self) -> None:
        """Make the live file, unless it is empty, an archive, whatever its size and age."""
        self._rotation_wanted = True

    def reopen_soon(self) -> None:
        """Go on in the file that has the name now, as after an outside ``logrotate``, and not only with the next record."""
        self._reopening_wanted = True

    def _obey(self, checkpoint: Checkpoint) -> None:
        """Do what is wanted; nothing is in the air now."""
        self._settle()
        if self._rotation_wanted:
            self._rotate(self._clock())
        self._rotation_wanted = self._reopening_wanted = False
        # No record may come for long, and what the checkpoint names can not be compressed.
        checkpoint.commit(checkpoint.entry_id, checkpoint.total, self.mark(), {}, [])

    def _forget_old_indexes(self) -> None:
        if self._index:
            with contextlib.suppress(OSError):
                files = archive.similar(self._path)
                for path in self._former_paths():
                    with contextlib.suppress(FileNotFoundError):
                        files |= archive.similar(path)
                self._index.keep(len(files) + _INDEXES_TO_SPARE)

    # -- the rest of the seam -------------------------------------------------------------------

    def mark(self) -> Mark:
        """Where writing goes on, and how far the index is."""
        return Mark(*self._identity, self._offset, self._index.position if self._index else Position(0, 0))

    def service(self) -> float | None:
        """Do what is pending: old files may be compressed and expire; force the file onto the disk when that is due."""
        checkpoint = self._checkpoint
        settled = checkpoint is not None and not checkpoint.intents and self._fd >= 0
        if settled and (self._rotation_wanted or self._reopening_wanted):
            assert checkpoint is not None
            self._obey(checkpoint)
        if self._rotated and settled:
            self._rotated = False
            self._archivist.submit()
            self._forget_old_indexes()
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
        if self._index:
            self._index.close()
        self._lock.release()

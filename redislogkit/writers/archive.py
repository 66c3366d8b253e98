"""The file work of rotation: rename, compress, delete. The rules are those of `redislogkit.rotation`.

Theory of operation
-------------------

Invariant: whatever is killed whenever, every byte that was in the live file is in exactly one complete file:
the live one, an archive, or a compressed archive that has taken its original's place. After a crash this may
be untrue for two kinds of leftovers only, and `Archivist.open` removes both before anything else happens.

*Rotation* is a row of renames to free names; the live file goes last. Killed between two of them, the live
file is still there and still due, and the next rotation moves the backups into the hole that was left.
Nothing is ever renamed over a file.

*Compression* runs in a thread and reads a file that nobody writes any more. Its crash points:

1. while ``.app.log.<inode>.gz.tmp`` is written: the original is whole. Leftover: the temporary file.
2. after it is complete, forced to the disk, and read back and compared: the same.
3. after its rename to ``app.log.1.gz``: both are whole. Leftover: the original, removed at the next start
   once both have been found to hold the same bytes. Two files that differ are two archives; both are kept.
4. after the original is unlinked: done. The folder is forced to the disk between 3 and 4, so that a power
   loss finds one of the two at least; an original that comes back is a leftover as in 3.

*The two together*: backups change their numbers while one of them is compressed. The compressor therefore
knows its file by identity (device and inode), never by name. One lock is held for every rename and unlink,
not while bytes are read or written, so rotation waits for two renames at most; the compressor looks up the
file's present name under the lock and puts the compressed one beside it. A file that retention removed
meanwhile is simply not found, and the temporary file is dropped.

*Checkpoints*: a writer that recovers looks for the file of its checkpoint by identity (`locate`) and compares
its end with what it would write again. So no file may be compressed or deleted by retention that a
checkpoint still names. `Archivist.release`, called after a checkpoint, releases the archives that exist at that
moment; only released ones are touched. (Numbered backups beyond ``backup_count`` go at the rotation itself:
checkpoint before each rotation.)
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import re
import stat
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import tzinfo
from typing import BinaryIO, Final, Literal, NamedTuple, TypeAlias, cast

from redislogkit import rotation, zstd
from redislogkit.config import FileWriterConfig
from redislogkit.errors import ConfigError
from redislogkit.rotation import COMPRESSED_SUFFIXES, Archive, ArchiveName, Rename, Step

Method: TypeAlias = Literal["gzip", "zstd"]

_CHUNK: Final = 256 * 1024
#: zcat and lnav are quick with any level; these are the usual ones.
_GZIP_LEVEL: Final = 6
_ZSTD_LEVEL: Final = 3
#: Archives expire by age also while nothing is rotated.
_AGE_CHECK_SECONDS: Final = 3_600.0
#: Seconds between attempts at a rotation that failed.
_ROTATION_PAUSE: Final = 1.0


class Identity(NamedTuple):
    """Names a file whatever it is called."""

    device: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """Return that of the file with this status."""
        return cls(status.st_dev, status.st_ino)


class _Sum(NamedTuple):
    size: int
    crc: int


class _StoppedError(Exception):
    """The archivist is being closed; the work is done again later."""


# --- looking -----------------------------------------------------------------------------------------------


def list_archives(config: FileWriterConfig) -> list[Archive]:
    """Return the archives of a writer's file, oldest first; only regular files. Raises ``OSError``."""
    return [archive for archive, _, _ in _archives(config)]


def locate(path: str, identity: Identity) -> str | None:
    """Return the present path of the file that was ``path`` once: itself, or whatever it was renamed to beside it.

    Only the inode counts: the number of a device may be another one after a reboot. None when the file is
    gone. Raises ``OSError`` when the folder can not be read.
    """
    info = _stat_file(path)
    if info and info.st_ino == identity.inode:
        return path
    with os.scandir(os.path.dirname(path)) as entries:
        for entry in entries:
            if entry.inode() == identity.inode and entry.is_file(follow_symlinks=False):
                return entry.path
    return None


def behind(config: FileWriterConfig, identity: Identity) -> list[str]:
    """Return the files that may hold what was written since the live file was ``identity``, oldest first.

    The first one is that file under its present name, the last one the live file; compressed ones, which no
    recent checkpoint names, are left out. Empty when that file is gone. Raises ``OSError``.
    """
    found = locate(config.path, identity)
    if found is None or found == config.path:
        return [found] if found else []
    archives = [archive.path for archive in list_archives(config)]
    newer = archives[archives.index(found) + 1 :] if found in archives else []
    packed = tuple(COMPRESSED_SUFFIXES.values())
    return [found, *(name for name in newer if not name.endswith(packed)), config.path]


def identity_of(path: str) -> Identity | None:
    """Return what names the regular file ``path``; None when there is none. Raises ``OSError``."""
    info = _stat_file(path)
    return Identity.of(info) if info else None


def similar(path: str) -> set[str]:
    """Return the paths in the folder of ``path`` that begin like it: its archives, and what others made of it."""
    folder, base = os.path.split(path)
    return {os.path.join(folder, name) for name in os.listdir(folder) if name.startswith(base)}


def _archives(config: FileWriterConfig) -> list[tuple[Archive, Identity, ArchiveName]]:
    owned = rotation.owned(config.path, similar(config.path), config.naming, config.backup_count)
    found = ((name, _stat_file(name.path)) for name in owned)
    return [
        (Archive(name.path, info.st_mtime, info.st_size), Identity.of(info), name)
        for name, info in found
        if info
    ]


def _stat_file(path: str) -> os.stat_result | None:
    """Return the status of a regular file; None for anything else, also for a link."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return None
    return info if stat.S_ISREG(info.st_mode) else None


# --- compressing -------------------------------------------------------------------------------------------


def check_method(method: Literal["none", "gzip", "zstd"]) -> None:
    """Raise ``ConfigError`` when this Python can not compress by ``method``."""
    if method == "zstd" and not zstd.is_installed():
        problem = (
            'compress must be "none" or "gzip" where zstd is not installed, got "zstd"; '
            f"install it with: {zstd.HOW_TO_INSTALL}"
        )
        raise ConfigError([problem])


def _packer(raw: BinaryIO, suffix: str) -> BinaryIO:
    if suffix == ".gz":
        # Without name and time in the head: the number in the name changes, the time stands in the file's own.
        return cast("BinaryIO", gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0))
    return cast("BinaryIO", zstd.module().ZstdFile(raw, "wb", level=_ZSTD_LEVEL))


def unpacker(raw: BinaryIO, suffix: str) -> BinaryIO:
    """Return what reads the text of a compressed archive with this ``suffix``; zstd has to be installed for ``.zst``."""
    if suffix == ".gz":
        return cast("BinaryIO", gzip.GzipFile(fileobj=raw, mode="rb"))
    return cast("BinaryIO", zstd.module().ZstdFile(raw, "rb"))


def _chunks(stream: BinaryIO, stopped: Callable[[], bool]) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        if stopped():
            raise _StoppedError
        yield chunk


def _sum(stream: BinaryIO, stopped: Callable[[], bool]) -> _Sum:
    size = crc = 0
    for chunk in _chunks(stream, stopped):
        size += len(chunk)
        crc = zlib.crc32(chunk, crc)
    return _Sum(size, crc)


def _pack(source: BinaryIO, target: str, suffix: str, stopped: Callable[[], bool]) -> None:
    """Compress ``source`` into the new file ``target`` with its mode, owner and times, and force it to disk.

    What was written is read back and compared. Raises ``OSError``, also when it does not compare.
    """
    info = os.fstat(source.fileno())
    size = crc = 0
    with open(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w+b") as raw:
        with _packer(raw, suffix) as packer:
            for chunk in _chunks(source, stopped):
                packer.write(chunk)
                size += len(chunk)
                crc = zlib.crc32(chunk, crc)
        raw.flush()
        _copy_facts(raw.fileno(), info)
        os.fsync(raw.fileno())
        raw.seek(0)
        with unpacker(raw, suffix) as packed:
            if _sum(packed, stopped) != (size, crc):
                raise OSError(errno.EIO, "what was read back differs from what was written", target)


def _copy_facts(fd: int, info: os.stat_result) -> None:
    mode = stat.S_IMODE(info.st_mode)
    own = os.fstat(fd)
    if (own.st_uid, own.st_gid) != (info.st_uid, info.st_gid):
        try:
            os.fchown(fd, info.st_uid, info.st_gid)
        except PermissionError:
            mode &= ~0o070  # what the old group could read is not for another group to read
    os.fchmod(fd, mode)
    os.utime(fd, ns=(info.st_atime_ns, info.st_mtime_ns))


def _same_content(original: str, compressed: str, suffix: str) -> bool:
    """True when ``compressed`` is whole and holds the bytes of ``original``."""
    try:
        with open(original, "rb") as plain, open(compressed, "rb") as raw, unpacker(raw, suffix) as packed:
            return _sum(plain, lambda: False) == _sum(packed, lambda: False)
    except Exception:  # not compressed at all, cut off, or no zstd to read it: then it is no twin
        return False


def sync_folder(path: str) -> None:
    """Force the folder of ``path`` onto the disk, so that the names in it last. Raises ``OSError``."""
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _rename(source: str, target: str) -> None:
    """Rename to a free name; ``os.rename`` would replace a file that somebody put there."""
    _check_free(target)
    os.rename(source, target)


def _check_free(path: str) -> None:
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, "the name is taken", path)


# --- the owner ---------------------------------------------------------------------------------------------


class Archivist:
    """Rotates one live file and looks after its archives.

    The writer that holds the file's lock calls `open`, then `rotate` whenever the rules say so (the file is
    closed or left behind by then, and checkpointed), `submit` after a checkpoint and once after its
    recovery, and `close`. Failures of the disk go to ``report`` (one text; called from the writer's thread
    and from the archivist's own) and the work is tried again later.

    ``clock`` returns seconds since the epoch; ``zone`` None is the system's local time. Raises
    ``ConfigError`` when the configured compression is not installed.
    """

    def __init__(
        self,
        config: FileWriterConfig,
        report: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.time,
        zone: tzinfo | None = None,
        retry_after: float = 60.0,
    ) -> None:
        check_method(config.compress)
        self._config = config
        self._path = config.path
        self._suffix = COMPRESSED_SUFFIXES.get(config.compress, "")
        self._report = report
        self._clock = clock
        self._zone = zone
        self._retry_after = retry_after
        self._lock = threading.Lock()  # held for renames and unlinks, see above
        self._working = threading.Lock()  # one compression at a time
        self._released: set[Identity] = set()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._complaints: dict[str, str] = {}
        self._next_rotation = float("-inf")

    def open(self) -> None:
        """Remove what a crash left: temporary files, originals whose compressed twin is complete."""
        self._closing.clear()
        try:
            self._remove_temporary_files()
            self._remove_twins()
        except FileNotFoundError:
            pass  # no folder, no leftovers
        except OSError as error:
            self._complain("leftovers", f"leftovers beside {self._path} could not be removed: {error}")

    def rotate(self, start: float) -> str | None:
        """Make the live file an archive and return its path; the writer then opens a new live file.

        ``start`` is the time at which the file's interval began (seconds since the epoch), for naming by
        time. None means that the live file stays what it is: it is missing, empty or no regular file,
        or the rotation failed, which is reported. Asking again for every record is cheap: after a failure
        the next attempt is made a second later.
        """
        if time.monotonic() < self._next_rotation:
            return None
        try:
            with self._lock:
                target = self._rotate(start)
        except OSError as error:
            self._next_rotation = time.monotonic() + min(_ROTATION_PAUSE, self._retry_after)
            self._complain("rotation", f"{self._path} can not be rotated and goes on growing: {error}")
            return None
        self._complaints.pop("rotation", None)
        return target

    def submit(self) -> None:
        """`release` what exists now, and let a thread do the `work`; returns at once."""
        self.release()
        if self._has_work() and not self._closing.is_set():
            self._start()
            self._wake.set()

    def release(self) -> None:
        """Allow the archives that exist now to be compressed and deleted: no checkpoint names them any more."""
        try:
            with self._lock:
                self._released = {identity for _, identity, _ in _archives(self._config)}
        except OSError as error:
            self._complain("listing", f"the archives of {self._path} can not be listed: {error}")

    def close(self, timeout: float = 5.0) -> None:
        """Stop the thread; unfinished compression is dropped and done anew after the next start.

        Waits at most ``timeout`` seconds.
        """
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)
            self._thread = None

    def work(self) -> bool:
        """Compress and delete what is released, in the caller's thread; False when something must be retried.

        Raises ``OSError`` when the folder can not be read.
        """
        with self._working:
            done = self._compress_released() if self._suffix else True
            done = self._expire() and done
        if done:
            self._complaints.clear()
        return done

    # --- rotation ---

    def _rotate(self, start: float) -> str | None:
        live = _stat_file(self._path)
        if live is None or live.st_size == 0:
            return None
        names = similar(self._path)
        # The inode may be that of an archive that was released, and is deleted since.
        self._released.discard(Identity.of(live))
        steps = self._steps(start, names)
        for step in steps:
            _execute(step)
        self._sync()
        last = steps[-1]
        return last.target if isinstance(last, Rename) else None

    def _sync(self) -> None:
        if self._config.fsync == "never":
            return
        try:
            sync_folder(self._path)
        except OSError as error:  # the renames are done; whoever asked must not go on writing to an archive
            self._complain("sync", f"the folder of {self._path} could not be forced to the disk: {error}")

    def _steps(self, start: float, names: set[str]) -> list[Step]:
        config = self._config
        if config.naming == "number":
            return rotation.shift_plan(self._path, config.backup_count, names)
        wanted = rotation.archive_name(self._path, start, config.when, utc=config.utc, zone=self._zone)
        return [Rename(self._path, rotation.unique_name(self._path, wanted, names))]

    # --- compression ---

    def _compress_released(self) -> bool:
        done = True
        with self._lock:
            waiting = [
                identity
                for _, identity, name in _archives(self._config)
                if not name.suffix and identity in self._released
            ]
        for identity in waiting:
            try:
                self._compress_one(identity)
            except _StoppedError:
                return False
            except Exception as error:  # OSError, and whatever a codec raises
                self._complain("compress", f"an archive of {self._path} stays uncompressed for now: {error}")
                done = False
        return done

    def _compress_one(self, identity: Identity) -> None:
        temporary = self._temporary_path(identity)
        with self._lock:
            path = self._find(identity) if identity in self._released else None
            if path is None:
                return
            _check_free(path + self._suffix)
            source = open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")  # noqa: SIM115
        with source:
            before = os.fstat(source.fileno())
            try:
                _pack(source, temporary, self._suffix, self._closing.is_set)
                with self._lock:
                    self._commit(identity, before, temporary)
            except Exception:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
                raise

    def _commit(self, identity: Identity, before: os.stat_result, temporary: str) -> None:
        """Put the compressed file in its original's place. The lock is held."""
        path = self._find(identity)
        if path is None:
            os.unlink(temporary)
            return
        info = os.lstat(path)
        if (info.st_size, info.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
            raise OSError(errno.EBUSY, "it was changed while it was compressed", path)
        target = path + self._suffix
        _rename(temporary, target)
        try:
            sync_folder(target)
            os.unlink(path)
        except OSError:
            os.unlink(target)  # or its records would be there twice
            raise
        self._released.add(Identity.of(os.lstat(target)))

    def _find(self, identity: Identity) -> str | None:
        return next((archive.path for archive, own, _ in _archives(self._config) if own == identity), None)

    def _temporary_path(self, identity: Identity) -> str:
        folder, base = os.path.split(self._path)
        return os.path.join(folder, f".{base}.{identity.inode}{self._suffix}.tmp")

    # --- retention ---

    def _expire(self) -> bool:
        config = self._config
        with self._lock:
            archives = _archives(config)
            paths = rotation.expired(
                [archive for archive, _, _ in archives],
                backup_count=config.backup_count,
                max_age=config.max_age,
                max_total_bytes=config.max_total_bytes,
                now=self._clock(),
            )
            released = {archive.path for archive, identity, _ in archives if identity in self._released}
            try:
                for path in paths:
                    if path in released:
                        os.unlink(path)
            except OSError as error:
                self._complain("retention", f"an archive of {self._path} can not be deleted: {error}")
                return False
        return True

    # --- leftovers ---

    def _remove_temporary_files(self) -> None:
        folder, base = os.path.split(self._path)
        ours = re.compile(rf"\.{re.escape(base)}\.[0-9]+(?:\.gz|\.zst)\.tmp")
        for name in os.listdir(folder):
            if ours.fullmatch(name):
                os.unlink(os.path.join(folder, name))

    def _remove_twins(self) -> None:
        archives = {name.path: name for _, _, name in _archives(self._config)}
        for name in archives.values():
            if not name.suffix or name.stem not in archives:
                continue
            if _same_content(name.stem, name.path, name.suffix):
                os.unlink(name.stem)
            else:
                text = f"{name.stem} and {name.path} were not found to hold the same records; both are kept"
                self._complain(name.stem, text)

    # --- the thread ---

    def _has_work(self) -> bool:
        config = self._config
        bounded = config.naming == "timestamp" and config.backup_count > 0
        return bool(self._suffix or bounded or config.max_age or config.max_total_bytes)

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="redislogkit-archivist", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        pause = 0.0
        while True:
            self._wake.wait(pause)
            self._wake.clear()
            if self._closing.is_set():
                return
            try:
                done = self.work()
            except Exception as error:  # the folder is gone, ...: a dead thread helps nobody
                self._complain("listing", f"the archives of {self._path} could not be looked after: {error}")
                done = False
            pause = _AGE_CHECK_SECONDS if done else self._retry_after

    def _complain(self, about: str, text: str) -> None:
        """Report a failure once, not at every attempt."""
        if self._complaints.get(about) != text:
            self._complaints[about] = text
            self._report(text)


def _execute(step: Step) -> None:
    if isinstance(step, Rename):
        _rename(step.source, step.target)
    else:
        os.unlink(step.path)

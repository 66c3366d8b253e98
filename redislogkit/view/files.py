"""The files of one writer, held still while they are read.

Theory of operation. A writer renames, compresses and deletes its archives whenever it likes, and nothing is locked
here. So all files are opened first, and looked at again afterwards: once the folder has been the same before and after,
the open files are all of them, in order, whatever becomes of their names.

Where the live file ends is told by the writer's checkpoint: an entry of its journal names a file, an offset, and the
highest sequence of each producer that stands before it. What was announced behind it and is there to the last byte
counts as well (a writer may be killed before it can say so). What lies behind that is left to the stream, or,
where the checkpoint stays as it is and announces nothing, somebody else's and part of the file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, NamedTuple
from zlib import crc32

from redislogkit import rotation
from redislogkit import zstd as zstandard
from redislogkit.config import FileWriterConfig
from redislogkit.errors import ConfigError, RedislogkitError
from redislogkit.view.parsing import Parser
from redislogkit.writers import archive, checkpoint, chunk
from redislogkit.writers.archive import Identity
from redislogkit.writers.checkpoint import Intent, State

#: How often the folder may change while it is being looked at.
_ATTEMPTS: Final = 50
_PAUSE: Final = 0.02
#: Seconds by which the clocks of two hosts may differ: a file that was last changed so much before a moment has none of it.
_SKEW: Final = 60.0
#: A record is not longer than this; what goes on behind it is not understood.
_MOST_LINES: Final = 10_000
_MOST_CHARACTERS: Final = 8 * 1024 * 1024
_LONGEST_LINE: Final = 8 * 1024 * 1024


class Part(NamedTuple):
    """One file, open."""

    path: str
    """Its name when it was opened."""
    file: BinaryIO
    identity: Identity
    suffix: str
    """Of its compression; empty where it has none."""
    end: int
    """Bytes that count."""


class Files:
    """All files of a writer, oldest first, as they were at one moment, and what stands in them.

    Args:
        config: The writer's section.
        journal: Path of its checkpoint.
        report: Takes one line about what can not be read.
        since: Files that were last changed before this moment (seconds since the epoch) are left out.

    Raises ``OSError``, ``ConfigError`` for a compression that is not installed, and ``RedislogkitError`` where files
    change faster than they can be opened. `close` it.
    """

    def __init__(
        self,
        config: FileWriterConfig,
        journal: str,
        report: Callable[[str], None],
        since: float | None = None,
    ) -> None:
        self._config = config
        self._journal = journal
        self._report = report
        self._since = since
        self.parts: list[Part] = []
        self.state: State | None = None
        """What the checkpoint says; None where there is none."""
        self._announced: dict[str, int] = {}
        for attempt in range(_ATTEMPTS):
            time.sleep(_PAUSE * min(attempt, 10))
            self.close()
            if self._open(last=attempt == _ATTEMPTS - 1):
                return
        raise RedislogkitError(f"the files of {config.path} change faster than they can be opened; try again")

    def seen(self, producer: str) -> int:
        """Highest sequence of a producer that stands in the files; 0 where nothing is known of it."""
        known = self.state.seen(producer) if self.state else 0
        return max(known, self._announced.get(producer, 0))

    def close(self) -> None:
        """Close the files."""
        for part in self.parts:
            part.file.close()
        self.parts = []

    # -- opening --------------------------------------------------------------------------------

    def _open(self, *, last: bool) -> bool:
        """Open everything as it is; False where it has changed meanwhile."""
        stamp = _stamp(self._journal)
        self.state = _load(self._journal)
        before = self._list()
        try:
            self.parts = [self._part(path, identity) for path, identity in before]
        except FileNotFoundError:
            return False
        same = all(Identity.of(os.fstat(part.file.fileno())) == part.identity for part in self.parts)
        if not same or self._list() != before:
            return False
        self._leave_out_twins()
        mark = self.state.mark if self.state else None
        if self.state is None or mark is None:
            return True
        place = self._place(mark.inode)
        if place is None:
            # Compressed since, then the checkpoint is newer by now; or somebody has taken the file away.
            return last or _stamp(self._journal) == stamp
        if self.state.intents or _stamp(self._journal) != stamp:
            self._cut(place, mark.offset)
            self._add_announced(self.state.intents)
        return True

    def _list(self) -> list[tuple[str, Identity]]:
        """Return the files that are wanted, oldest first."""
        found: list[tuple[str, Identity]] = []
        with contextlib.suppress(FileNotFoundError):
            oldest = float("-inf") if self._since is None else self._since - _SKEW
            recent = (item.path for item in archive.list_archives(self._config) if item.time >= oldest)
            found += [(path, identity) for path in recent if (identity := archive.identity_of(path))]
            mark = self.state.mark if self.state else None
            if mark and mark.inode not in {identity.inode for _, identity in found}:
                # By another name than ours: somebody else rotates.
                path = archive.locate(self._config.path, Identity(mark.device, mark.inode))
                if path and path != self._config.path and (identity := archive.identity_of(path)):
                    found.append((path, identity))
        if identity := archive.identity_of(self._config.path):
            found.append((self._config.path, identity))
        return found

    def _part(self, path: str, identity: Identity) -> Part:
        suffix = os.path.splitext(path)[1]
        suffix = suffix if suffix in rotation.COMPRESSED_SUFFIXES.values() else ""
        if suffix == ".zst" and not zstandard.is_installed():
            raise ConfigError(
                [f"{path} is compressed with zstd; install it with: {zstandard.HOW_TO_INSTALL}"]
            )
        file = _open_file(path)
        return Part(path, file, identity, suffix, os.fstat(file.fileno()).st_size)

    def _leave_out_twins(self) -> None:
        """Leave out originals whose compressed twin is complete, which has their times: they are about to be removed."""
        stems = {part.path: part for part in self.parts}
        for packed in self.parts:
            plain = stems.get(packed.path.removesuffix(packed.suffix)) if packed.suffix else None
            if plain is not None and _modified(plain) == _modified(packed):
                plain.file.close()
                self.parts.remove(plain)

    def _place(self, inode: int) -> int | None:
        return next((at for at, part in enumerate(self.parts) if part.identity.inode == inode), None)

    def _cut(self, place: int, end: int) -> None:
        """Nothing behind byte ``end`` of that part counts."""
        for part in self.parts[place + 1 :]:
            part.file.close()
        part = self.parts[place]
        self.parts[place:] = [part._replace(end=min(end, part.end))]

    def _add_announced(self, intents: list[Intent]) -> None:
        """Count what was announced behind the mark, as far as it is there."""
        for intent in intents:
            if intent.chunk.end == intent.chunk.start:
                continue
            place = self._place(intent.inode)
            part = self._open_new(intent.inode) if place is None else self.parts[place]
            if part is None:
                return
            if not _has(part, intent.chunk):
                if place is None:
                    part.file.close()
                return
            part = part._replace(end=intent.chunk.end)
            self.parts[len(self.parts) if place is None else place :] = [part]
            self._announced |= chunk.reached(intent.chunk.spans)

    def _open_new(self, inode: int) -> Part | None:
        """Open the file that a rotation has begun since the mark."""
        with contextlib.suppress(FileNotFoundError):
            for path, identity in self._list():
                if identity.inode == inode:
                    return self._part(path, identity)
        return None

    # -- reading --------------------------------------------------------------------------------

    def texts(self, part: Part, parser: Parser) -> Iterator[str]:
        """Yield the text of each record in a file, without the end of its last line."""
        lines: list[str] = []
        size = 0
        for line in self._lines(part):
            if parser.begins(line):
                if lines:
                    yield "\n".join(lines)
                lines, size = [line], len(line)
            elif lines and len(lines) < _MOST_LINES and size < _MOST_CHARACTERS:
                lines.append(line)
                size += len(line)
            else:  # nothing that a record could go on with
                if lines:
                    yield "\n".join(lines)
                lines = []
                yield line
        if lines:
            yield "\n".join(lines)

    def _lines(self, part: Part) -> Iterator[str]:
        try:
            part.file.seek(0)
            with contextlib.ExitStack() as stack:
                file, left = part.file, part.end
                if part.suffix:
                    file = stack.enter_context(archive.unpacker(part.file, part.suffix))
                while line := file.readline(_LONGEST_LINE if part.suffix else min(left, _LONGEST_LINE)):
                    left -= len(line)
                    yield line.removesuffix(b"\n").decode("utf-8", "backslashreplace")
        except Exception as error:  # OSError, EOFError, and each codec has an error class of its own
            self._report(f"{part.path} can not be read to its end: {error}")


def _has(part: Part, announced: chunk.Chunk) -> bool:
    """True where the bytes of a chunk are in the file."""
    data = os.pread(part.file.fileno(), announced.end - announced.start, announced.start)
    return len(data) == announced.end - announced.start and crc32(data) == announced.crc


def _open_file(path: str) -> BinaryIO:
    """Open a file for reading, with more descriptors where there are many files."""
    try:
        return open(path, "rb")
    except OSError as error:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if error.errno != errno.EMFILE or soft >= hard:
            raise
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return open(path, "rb")


def _modified(part: Part) -> int:
    return os.fstat(part.file.fileno()).st_mtime_ns


def _load(journal: str) -> State | None:
    try:
        return checkpoint.load(journal)
    except FileNotFoundError:
        return None


def _stamp(journal: str) -> tuple[int, ...]:
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(journal)
        return status.st_ino, status.st_size, status.st_mtime_ns
    return ()

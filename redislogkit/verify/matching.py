"""Which log file is the one that a part of the index is about. Reads only.

A file keeps its identity when it is renamed; compressed or copied it has another one, and is known by what is in it.
An identity alone proves nothing: the number of a file that was deleted is given to a new one.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Final, cast

from redislogkit import zstd
from redislogkit.errors import ConfigError
from redislogkit.rotation import COMPRESSED_SUFFIXES
from redislogkit.verify.comparison import Comparison, begins_with, compare
from redislogkit.writers import archive
from redislogkit.writers.archive import Identity
from redislogkit.writers.chunk import Chunk

#: Bytes of a file of somebody else that are looked at.
_HEAD: Final = 1024 * 1024
#: How often files may be compressed or deleted while they are looked at.
_ROUNDS: Final = 100
_NOTHING: Final = Comparison([], [], [], 0, "")


class ChangedError(Exception):
    """A file is not there any more: it was compressed, or deleted, since it was listed."""


@dataclass
class LogFile:
    """A file that may be one of the writer's."""

    path: str
    identity: Identity
    size: int
    """Bytes on the disk when it was listed."""

    @contextlib.contextmanager
    def open(self) -> Iterator[BufferedIOBase]:
        """Open it for reading its text, whatever it is called by now.

        Raises:
            ChangedError: It is gone.
            ConfigError: It can not be read without zstd.
            OSError: It can not be read.
        """
        with open(self._descriptor(), "rb") as raw:
            suffix = os.path.splitext(self.path)[1]
            if suffix not in COMPRESSED_SUFFIXES.values():
                yield raw
                return
            if suffix == ".zst" and zstd.module() is None:
                problem = f"{self.path} can not be read without zstd; install it with: {zstd.HOW_TO_INSTALL}"
                raise ConfigError([problem])
            yield cast("BufferedIOBase", archive.unpacker(raw, suffix))

    def head(self) -> bytes:
        """Return the beginning of its text; what can be read of it. Raises what `open` does."""
        with self.open() as text:
            try:
                return text.read(_HEAD)
            except Exception:  # cut off or damaged; each codec has an error class of its own
                return b""

    def _descriptor(self) -> int:
        for path in (self.path, archive.locate(self.path, self.identity)):
            if path is None:
                break
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                status = os.fstat(fd)
                if Identity.of(status) == self.identity:
                    self.path = path
                    return fd
                os.close(fd)
        raise ChangedError(self.path)


def list_files(paths: Iterable[str]) -> list[LogFile]:
    """Return those of ``paths`` that are regular files."""
    found = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode):
                found.append(LogFile(path, Identity.of(status), status.st_size))
    return found


@dataclass
class Part:
    """What the index says about one file; about what was written into it between two outside truncations."""

    identity: Identity
    chunks: list[Chunk]
    changed: float
    """When its index was last written to, seconds since the epoch."""
    label: str
    """Index file, for messages."""
    file: LogFile | None = None
    comparison: Comparison = _NOTHING

    @property
    def first(self) -> Chunk | None:
        """The first chunk that has bytes."""
        return next((chunk for chunk in self.chunks if chunk.end > chunk.start), None)

    @property
    def size(self) -> int:
        """Where its last chunk ended."""
        return max((chunk.end for chunk in self.chunks), default=0)

    def texts(self) -> Iterator[tuple[Chunk, bytes]]:
        """Yield the chunks that are in the file, with their bytes. Raises what `LogFile.open` does."""
        if self.file is None:
            return
        with self.file.open() as text:
            for place, chunk, hole in self.comparison.found:
                text.seek(place)
                length = chunk.end - chunk.start
                if hole is None:
                    yield chunk, text.read(length)
                    continue
                before = text.read(hole[0] - place)
                text.seek(hole[1])
                yield chunk, before + text.read(length - len(before))

    @property
    def name(self) -> str:
        """The file, or its index where that is not known."""
        return self.file.path if self.file else self.label


def match(parts: Sequence[Part], listed: Callable[[], list[LogFile]]) -> tuple[list[LogFile], list[LogFile]]:
    """Find the file of each part, both oldest first, and compare them.

    Where a file is compressed or deleted meanwhile, ``listed`` is asked again. Returns what it said last, and those
    of it that are nobody's. Raises what `LogFile.open` does, `ChangedError` when there is no end of it.
    """
    for _ in range(_ROUNDS):
        files = listed()
        there = {file.identity for file in files}
        for part in parts:
            if part.file is not None and part.file.identity not in there:
                part.file, part.comparison = None, _NOTHING
        taken = {part.file.identity for part in parts if part.file is not None}
        left = [file for file in files if file.identity not in taken]
        with contextlib.suppress(ChangedError):
            for step in (_by_identity, _by_content, _by_remains, _by_identity_alone):
                step([part for part in parts if part.file is None], left)
            return files, left
    raise ChangedError


def match_by_place(parts: Sequence[Part], files: Sequence[LogFile], left: list[LogFile]) -> None:
    """Give those ``parts`` that have no file one of ``left`` that stands between their neighbours' in ``files``.

    Nothing in it is as it was written, but it has about the size, or can not be read. Raises what `LogFile.open` does.
    """
    places = {file.path: place for place, file in enumerate(files)}
    bounds = [places.get(part.file.path, -1) if part.file else -1 for part in parts]
    for number, part in enumerate(parts):
        if part.file is not None or part.first is None:
            continue
        low = max(bounds[:number], default=-1)
        high = min((bound for bound in bounds[number:] if bound >= 0), default=len(files))
        for file in [file for file in left if low < places.get(file.path, -1) < high]:
            comparison = _compare(file, part)
            written = part.size
            if comparison.error or written / 2 <= comparison.size <= written * 2:
                _take(part, file, comparison, left)
                bounds[number] = places[file.path]
                break


def is_twin(file: LogFile, part: Part) -> bool:
    """True when ``file`` is the file of ``part`` once more, compressed or not: a writer was killed between the two."""
    if part.file is None:
        return False
    pair = sorted((file.path, part.file.path))
    if not any(pair[1] == pair[0] + suffix for suffix in COMPRESSED_SUFFIXES.values()):
        return False
    found = _compare(file, part, search=False)
    return not found.damage and not found.error and found.size == part.comparison.size


def _by_identity(parts: Sequence[Part], left: list[LogFile]) -> None:
    # Newest first: of two with one number, the older file is gone.
    for part in reversed(parts):
        for file in [file for file in left if file.identity == part.identity]:
            comparison = _compare(file, part, search=False)
            if part.first is None or comparison.found:
                _take(part, file, _compare(file, part) if comparison.damage else comparison, left)
                break


def _by_content(parts: Sequence[Part], left: list[LogFile]) -> None:
    """Files that begin as they should, in the order in which they most likely come."""
    waiting = [part for part in parts if part.first is not None]
    for file in list(left):
        for part in list(waiting):
            if part.first is None or not _begins_with(file, part.first):
                continue
            comparison = _compare(file, part, search=False)
            if not comparison.damage:
                _take(part, file, comparison, left)
                # Both are in order, so the next file's part is most likely the next one.
                at = waiting.index(part)
                waiting = waiting[at + 1 :] + waiting[:at]
                break


def _by_remains(parts: Sequence[Part], left: list[LogFile]) -> None:
    """Files in which something at least is as it was written."""
    for part in parts:
        found = [(file, _compare(file, part)) for file in left if part.first is not None]
        best = max(found, key=lambda pair: len(pair[1].found), default=None)
        if best is not None and best[1].found:
            _take(part, *best, left)


def _by_identity_alone(parts: Sequence[Part], left: list[LogFile]) -> None:
    """Files in which nothing is as it was written, that still have the identity."""
    for part in reversed(parts):
        for file in [file for file in left if file.identity == part.identity and part.first is not None]:
            _take(part, file, _compare(file, part), left)
            break


def _take(part: Part, file: LogFile, comparison: Comparison, left: list[LogFile]) -> None:
    part.file, part.comparison = file, comparison
    left.remove(file)


def _compare(file: LogFile, part: Part, *, search: bool = True) -> Comparison:
    with file.open() as text:
        return compare(text, part.chunks, search=search)


def _begins_with(file: LogFile, chunk: Chunk) -> bool:
    with file.open() as text:
        return begins_with(text, chunk)

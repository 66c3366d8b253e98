"""What a writer put where: a compact index of each log file, so that `verify` can prove that it is still there.

Theory of operation. Beside the checkpoint the writer keeps one journal for each log file that it has begun: which
file, then one `Chunk` for each write, with its producers numbered (about 40 bytes for hundreds of lines). A chunk is
noted when its bytes are in the file, and the checkpoint says how far the index was then (`Position`): what stands
behind that is cut off at the next start, and noted again from the checkpoint's own announcements. A full disk is
waited for, as the checkpoint would have to wait, too. Otherwise the index is for proof only: where it can not be kept,
that is reported once and writing goes on.

A writer that is given another path leaves its files where they are. The paths that it has had are kept beside the index,
so that these files are found.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from redislogkit import journal
from redislogkit.writers.chunk import Chunk, Span

_NAME: Final = re.compile(r"(\d{8})\.index")
_PATHS: Final = "paths"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
#: Producers that have a number at a time; beyond that the numbers begin anew.
_MOST_NUMBERED: Final = 4096
#: Paths that are remembered; one may have the name of a host or a day in it.
_MOST_PATHS: Final = 32
#: Most bytes that the first frame of an index file takes.
LONGEST_HEAD: Final = 27


class Position(NamedTuple):
    """How far the index is."""

    number: Annotated[int, msgspec.Meta(ge=0)]
    """Of the newest index file; 0 when there is none."""
    size: Annotated[int, msgspec.Meta(ge=0)]
    """Of that file, in bytes."""


class FileIndex(NamedTuple):
    """What one index file says: which log file it is about, and its chunks in the order of the writes."""

    device: int
    inode: int
    chunks: list[Chunk]


class _Frame(msgspec.Struct, array_like=True, frozen=True):
    """A chunk with the producers numbered in the order in which they come up in this index file.

    A file that is never rotated may see any number of them, so the numbers begin anew from time to time.
    """

    names: list[str]
    """Producers that have no number yet."""
    numbers: list[int]
    """The producer's number, for each of the chunk's spans."""
    chunk: Chunk
    anew: bool = False
    """No number given before counts any more."""


class Index:
    """The index files of one writer, below ``folder``; ``report`` takes one line when it can not be kept.

    Raises ``OSError`` when the disk is full, and only then.
    """

    def __init__(self, folder: str, report: Callable[[str], None]) -> None:
        self._folder = folder
        self._report = report
        self._fd = -1
        self._position = Position(0, 0)
        self._about = (0, 0)
        self._producers: dict[str, int] = {}
        self._failed = False

    @property
    def position(self) -> Position:
        """How far it is, for the checkpoint."""
        return self._position

    def take_up(self, position: Position) -> list[tuple[int, int, Chunk]]:
        """Go on at ``position``; number 0: with what there is.

        What stands behind it is cut off, and returned: device, inode and chunk.
        """
        behind: list[tuple[int, int, Chunk]] = []
        with self._failures_reported():
            self.close()
            os.makedirs(self._folder, 0o700, exist_ok=True)
            paths = [path for path in index_files(self._folder) if not _remove_unfinished(path)]
            for path in paths if position.number else ():
                if _number(path) >= position.number:
                    size = position.size if _number(path) == position.number else 0
                    behind += _chunks_behind(path, size)
            for path in reversed(paths):
                number = _number(path)
                if number > position.number > 0:
                    os.unlink(path)
                    continue
                self._open(path, position.size if number == position.number else os.path.getsize(path))
                break
        return behind

    def _open(self, path: str, size: int) -> None:
        whole, about = 0, (0, 0)
        for chunk, end in _chunks(path):
            if end > size:
                break
            whole = end
            if not isinstance(chunk, Chunk):
                about = chunk
        self._about, self._producers = about, {}
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        os.ftruncate(self._fd, whole)
        self._position = Position(_number(path), whole)

    def known_paths(self) -> list[str]:
        """Return what `known_paths` does."""
        return known_paths(self._folder)

    def note_path(self, path: str) -> None:
        """Remember the path of the live file, before anything is written there."""
        with self._failures_reported():
            before = known_paths(self._folder)
            if before[-1:] == [path]:
                return
            os.makedirs(self._folder, 0o700, exist_ok=True)
            paths = [*(other for other in before if other != path), path][-_MOST_PATHS:]
            target = os.path.join(self._folder, _PATHS)
            with open(target + ".new", "wb", opener=_private) as file:
                file.write(journal.frame([os.fsencode(each) for each in paths]))
            os.rename(target + ".new", target)

    def begin(self, device: int, inode: int) -> None:
        """Note that writing goes on in another log file; nothing changes where it is the same."""
        if self._about != (device, inode):
            self._begin(device, inode)

    def begin_anew(self) -> None:
        """Note that the log file begins anew: what was in it is cut away, or copied elsewhere."""
        if self._about != (0, 0):
            self._begin(*self._about)

    def _begin(self, device: int, inode: int) -> None:
        with self._failures_reported():
            self.close()
            os.makedirs(self._folder, 0o700, exist_ok=True)
            newest = max(map(_number, index_files(self._folder)), default=0)
            number = max(newest, self._position.number) + 1
            path = os.path.join(self._folder, f"{number:08d}.index")
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._position = Position(number, 0)
            self._append(journal.frame([device, inode]))
            self._about = (device, inode)

    def add(self, chunk: Chunk) -> None:
        """Note a chunk of the present log file."""
        if self._fd < 0 or not chunk.spans:
            return
        with self._failures_reported():
            known, new = self._producers, dict[str, int]()
            if len(known) >= _MOST_NUMBERED:
                known = {}
            for span in chunk.spans:
                if span.producer not in known:
                    new.setdefault(span.producer, len(known) + len(new))
            numbers = [known[p] if (p := span.producer) in known else new[p] for span in chunk.spans]
            spans = [Span("", span.first, span.last, span.lines) for span in chunk.spans]
            frame = _Frame(list(new), numbers, msgspec.structs.replace(chunk, spans=spans), anew=not known)
            self._append(journal.frame(frame))
            known.update(new)
            self._producers = known
            self._failed = False

    def _append(self, frame: bytes) -> None:
        number, size = self._position
        if os.write(self._fd, frame) != len(frame):
            os.ftruncate(self._fd, size)
            raise OSError(errno.ENOSPC, "no space left for the index", self._folder)
        self._position = Position(number, size + len(frame))

    def keep(self, newest: int) -> None:
        """Remove all but the ``newest`` index files: what they were about has been deleted."""
        with self._failures_reported():
            for path in index_files(self._folder)[: -newest or None]:
                os.unlink(path)

    def close(self) -> None:
        """Close the present index file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._about = (0, 0)
        self._producers = {}

    @contextlib.contextmanager
    def _failures_reported(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _FULL:
                raise
            if not self._failed:
                self._report(f"the index in {self._folder} can not be kept, verify will miss it: {error}")
            self._failed = True


def folder(stream_dir: str, writer: str) -> str:
    """Return where the index of a writer is kept."""
    return os.path.join(stream_dir, "index", writer)


def known_paths(path: str) -> list[str]:
    """Return the paths of the live file of the writer with the index folder ``path``, the present one last.

    Empty where they are not known. Raises ``OSError``.
    """
    try:
        with open(os.path.join(path, _PATHS), "rb") as file:
            found = journal.read_frame(file.read(), 0)
    except FileNotFoundError:
        return []
    with contextlib.suppress(msgspec.ValidationError):
        return [os.fsdecode(each) for each in msgspec.convert(found[0] if found else [], list[bytes])]
    return []


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def index_files(path: str) -> list[str]:
    """Return the paths of the index files in the folder ``path``, oldest first. Raises ``OSError`` when they can not be listed."""
    try:
        return sorted(os.path.join(path, name) for name in os.listdir(path) if _NAME.fullmatch(name))
    except FileNotFoundError:
        return []


def read(path: str) -> FileIndex:
    """Read an index file; what is not whole at its end is left out.

    Raises:
        OSError: It can not be read.
        ValueError: It is no index file of ours.
    """
    device, inode, chunks = 0, 0, []
    for chunk, _ in _chunks(path):
        if isinstance(chunk, Chunk):
            chunks.append(chunk)
        else:
            device, inode = chunk
    return FileIndex(device, inode, chunks)


def _remove_unfinished(path: str) -> bool:
    """Remove an index file that was being begun when its writer was killed; True when it was that."""
    if os.path.getsize(path) > LONGEST_HEAD or next(_frames(path), None):
        return False
    os.unlink(path)
    return True


def _chunks_behind(path: str, size: int) -> list[tuple[int, int, Chunk]]:
    device, inode, found = 0, 0, []
    try:
        for chunk, end in _chunks(path):
            if not isinstance(chunk, Chunk):
                device, inode = chunk
            elif end > size:
                found.append((device, inode, chunk))
    except ValueError:
        return []
    return found


def _chunks(path: str) -> Iterator[tuple[tuple[int, int] | Chunk, int]]:
    """Yield the file that an index is about, then its chunks, each with where its frame ends.

    Raises ``OSError`` or ``ValueError``.
    """
    frames = _frames(path)
    content, end = next(frames, (None, 0))
    yield msgspec.convert(content, tuple[int, int]), end
    names: list[str] = []
    for content, end in frames:
        frame = msgspec.convert(content, _Frame)
        if frame.anew:
            names = []
        names += frame.names
        if not all(0 <= number < len(names) for number in frame.numbers):
            raise ValueError(f"{path} names a producer that it does not have")
        spans = [
            Span(names[number], span.first, span.last, span.lines)
            for number, span in zip(frame.numbers, frame.chunk.spans, strict=True)
        ]
        yield msgspec.structs.replace(frame.chunk, spans=spans), end


def _number(path: str) -> int:
    return int(os.path.basename(path)[:8])


def _frames(path: str) -> Iterator[tuple[Any, int]]:
    """Yield the content of each whole frame, and where it ends."""
    with open(path, "rb") as file:
        data = file.read()
    position = 0
    while (found := journal.read_frame(data, position)) is not None:
        yield found
        position = found[1]

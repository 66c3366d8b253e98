"""What a kill in mid-write, or a disk that filled up, has left of an announced write: whole, nothing, or a torn part.

Theory of operation. The checkpoint keeps the bytes of the last announced write (`Checkpoint.announced`), so whatever
stands in the file is compared with them byte by byte, and nothing has to be guessed:

* all of them at their place, or behind bytes that somebody else has appended at the same moment: it is written;
* a front part at the file's end: torn. It is cut off; its records come again, for they were never confirmed;
* a front part with somebody else's bytes behind it, or in a file that can not be cut (``chattr +a``): what is missing is
  appended, on a new line from the beginning of the torn one on;
* nothing of them: the records come again.

Of an earlier announcement only the CRC is kept: its write was complete before the next one was announced.
"""

from __future__ import annotations

import errno
import os
from typing import Final
from zlib import crc32

from msgspec.structs import replace

from redislogkit.writers.chunk import Chunk

#: Bytes of others that may stand in front of ours.
_ROOM: Final = 16 * 1024 * 1024
#: Enough of a front to look for it.
_NEEDLE: Final = 64


def settle(path: str, chunk: Chunk, data: bytes | None) -> Chunk | None:
    """Return the chunk with its place in the file, None when nothing of it is there; a torn one is mended.

    ``data`` are its bytes, if they are known. Raises ``OSError``.
    """
    there = _read(path, chunk.start, chunk.end)
    if len(there) == chunk.end - chunk.start and crc32(there) == chunk.crc:
        return chunk
    if not data:
        return None
    there = _read(path, chunk.start, chunk.end + _ROOM)
    at = _beginning(there, data)
    if at is not None:
        part = _common(there, at, data)
        start = chunk.start + at
        at_end = at + part == len(there)
        if part == len(data):
            return replace(chunk, start=start, end=start + part)
        if at_end and _cut(path, start, start + part):
            return None
        if at_end:
            _append(path, data[part:])
            return replace(chunk, start=start, end=start + len(data))
        return _append_anew(path, chunk, data[data.rfind(b"\n", 0, part) + 1 :])
    return None


def take_back(path: str, chunk: Chunk) -> None:
    """Cut off the bytes of a chunk where they are the last of the file. Raises ``OSError``."""
    if settle(path, chunk, None):
        _cut(path, chunk.start, chunk.end)


def _read(path: str, start: int, end: int) -> bytes:
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        parts = []
        while start < end and (part := file.read(end - start)):
            parts.append(part)
            start += len(part)
    return b"".join(parts)


def _beginning(there: bytes, data: bytes) -> int | None:
    """Return where ``data`` may begin: wherever there is enough of its front to know it, or at its place at the end."""
    needle = data[:_NEEDLE]
    at = there.find(needle)
    if at >= 0:
        return at
    return 0 if there and data.startswith(there) else None


def _common(there: bytes, at: int, data: bytes) -> int:
    """Return how many bytes of ``data`` stand at ``at``."""
    low, high = 0, min(len(data), len(there) - at)
    if there.startswith(data[:high], at):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if there.startswith(data[:middle], at) else (low, middle)
    return low


def _cut(path: str, start: int, end: int) -> bool:
    """Cut the file at ``start``, if it ends at ``end``; False where that is not so, or not permitted (chattr +a)."""
    try:
        with open(path, "r+b", buffering=0) as file:
            if os.fstat(file.fileno()).st_size != end:
                return False
            os.ftruncate(file.fileno(), start)
    except PermissionError:
        return False
    return True


def _append_anew(path: str, chunk: Chunk, rest: bytes) -> Chunk:
    """Append the ``rest`` of a chunk on a line of its own; return the chunk of that."""
    size = os.path.getsize(path)
    if _read(path, size - 1, size) != b"\n":
        rest = b"\n" + rest
    end = _append(path, rest)
    return replace(chunk, start=end - len(rest), end=end, crc=crc32(rest))


def _append(path: str, data: bytes) -> int:
    with open(path, "ab", buffering=0) as file:
        if file.write(data) != len(data):
            raise OSError(errno.ENOSPC, "no space for the rest of a torn write", path)
        return file.tell()

"""The first page of a spool: positions, counters and marks, shared by producer and shipper.

The page is a file of 4096 bytes that both map. Every word has one writer, is eight bytes at an
aligned place and is stored at once (native ``Q``), so neither side needs a lock to read the other's.
The producer holds an flock on the file for as long as it lives; that tells the living from the dead.

==========  ==========  =====================================================================
word        written by  meaning
==========  ==========  =====================================================================
MARK        shipper     bits SLEEPING (ring the doorbell) and RETIRED (open another spool)
SHIPPED     shipper     highest sequence that the stream has confirmed
WRITTEN     shipper     highest sequence that every configured writer has checkpointed
RELEASED    shipper     lowest segment number that still exists
DISCARDED   producer    segments below this number were given up (``on_full = "drop_old"``)
EMITTED     producer    highest sequence taken, stored when a segment is left, at losses and at close
FIRST       producer    first sequence that this spool accounts for
LEFT        producer    1 once the producer stores nothing more here, though its lock may be held on
CAUSE       producer    number in `CAUSES` of the newest loss
COUNTED     shipper     highest sequence of the losses counted below, not in the table
TOLD        shipper     highest sequence told as lost behind the last frame
LOST...     both        records lost, one word for each of `CAUSES`; the shipper counts `FOUND_BY_SHIPPER`,
                        and there only what has left its table
GAPS...     shipper     table of what it has found to be lost: version (odd while it is being changed),
                        number of entries, and for each its first and last sequence and its cause
==========  ==========  =====================================================================

The shipper may read a gap again (the server has lost its memory, another shipper comes), and it may have grown
by then. So gaps are kept by their places: each sequence counts once, however often it is told.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import sys
import zlib
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from redislogkit import record
from redislogkit.errors import CorruptDataError

SIZE: Final = 4096
NAME: Final = "header"
MAGIC: Final = b"RLKSPL01"

MARK: Final = 1
SHIPPED: Final = 2
WRITTEN: Final = 3
RELEASED: Final = 4
DISCARDED: Final = 5
EMITTED: Final = 6
FIRST: Final = 7
LEFT: Final = 8
CAUSE: Final = 9
COUNTED: Final = 10
TOLD: Final = 11
LOST: Final = 16
#: Words that hold sequences or numbers of segments.
POSITIONS: Final = (SHIPPED, WRITTEN, RELEASED, DISCARDED, EMITTED, FIRST, COUNTED, TOLD)
GAPS: Final = 24
_MOST_GAPS: Final = 32

SLEEPING: Final = 1
RETIRED: Final = 2

#: Why a record is lost before the stream; the order is that of the words in the page.
CAUSES: Final = ("spool_full", "shed", "drop_old", "spool_error", "damaged")
#: Only who reads knows exactly which records a segment that was given up, or damaged, takes with it.
FOUND_BY_SHIPPER: Final = frozenset(["drop_old", "damaged"])

_FACTS_AT: Final = 1024
_FACTS_HEAD: Final = struct.Struct("<II")
_LONGEST_NAME: Final = 256


class Header:
    """A mapped header page and the descriptor that carries its lock."""

    fd = -1
    _identity: tuple[int, ...] = ()
    _map: mmap.mmap | None = None

    def __init__(self, path: str, flags: int) -> None:
        # From here on the object owns the descriptor: whatever interrupts what follows, it is closed once.
        self.fd = os.open(path, flags | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self._identity = _identity(self.fd)

    def _load(self) -> None:
        mapped = mmap.mmap(self.fd, SIZE)
        self.words = memoryview(mapped).cast("Q")
        self._map = mapped

    @classmethod
    def create(cls, directory: str, facts: record.Facts) -> Header:
        """Write a new page into ``directory`` and lock it as the producer. Raises ``OSError``."""
        encoded = _encoded(facts)
        content = bytearray(SIZE)
        content[: len(MAGIC)] = MAGIC
        struct.pack_into("=Q", content, MARK * 8, SLEEPING)
        _FACTS_HEAD.pack_into(content, _FACTS_AT, len(encoded), zlib.crc32(encoded))
        start = _FACTS_AT + _FACTS_HEAD.size
        content[start : start + len(encoded)] = encoded
        page = cls(os.path.join(directory, NAME), os.O_CREAT | os.O_EXCL)
        try:
            fcntl.flock(page.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.posix_fallocate(page.fd, 0, SIZE)
            os.pwrite(page.fd, content, 0)
            page._load()
        except BaseException:
            page.close()
            raise
        return page

    @classmethod
    def open(cls, directory: str) -> Header:
        """Map the page of an existing spool. Raises ``OSError`` or ``CorruptDataError``."""
        path = os.path.join(directory, NAME)
        page = cls(path, 0)
        try:
            if os.fstat(page.fd).st_size != SIZE or os.pread(page.fd, len(MAGIC), 0) != MAGIC:
                raise CorruptDataError(f"{path} is not the header of a spool")
            page._load()
        except BaseException:
            page.close()
            raise
        return page

    def facts(self) -> record.Facts:
        """Read the producer's facts. Raises ``CorruptDataError``."""
        assert self._map is not None
        return facts_in(self._map)

    def try_lock(self) -> bool:
        """Take the producer's lock; True means that the producer is dead (or has closed its descriptors)."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def descriptor_is_ours(self) -> bool:
        """False when somebody has closed our descriptors (a daemon does); the number may be theirs by now."""
        try:
            return _identity(self.fd) == self._identity
        except OSError:
            return False

    def unlock(self) -> None:
        """Free the lock and keep the page in sight. Only while `descriptor_is_ours`."""
        with contextlib.suppress(OSError):
            fcntl.flock(self.fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Unmap and free the lock. Only while `descriptor_is_ours`: the map has a descriptor of its own."""
        if self.fd >= 0:
            if self._map is not None:
                self.words.release()
                self._map.close()
            os.close(self.fd)
            self.fd = -1

    def __del__(self, *, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # An exception that arrives between two steps of opening must not leave a lock held for ever.
        # At the end of the interpreter the lock goes with the process, and this module's names are gone.
        if self.fd >= 0 and not _is_finalizing():
            if self.descriptor_is_ours():
                self.close()
            else:
                leaked.append(self)


def facts_in(page: bytes | mmap.mmap) -> record.Facts:
    """Return the facts in the bytes of a page. Raises ``CorruptDataError``."""
    length, crc = _FACTS_HEAD.unpack_from(page, _FACTS_AT)
    start = _FACTS_AT + _FACTS_HEAD.size
    encoded = page[start : start + length]
    if len(encoded) != length or zlib.crc32(encoded) != crc:
        raise CorruptDataError("the facts in the header of a spool are damaged")
    try:
        return record.decode_facts(encoded)
    except ValueError as error:
        raise CorruptDataError(f"the facts in the header of a spool are damaged: {error}") from error


#: Pages and maps whose descriptors somebody else closed: closing them could close a stranger's file.
leaked: Final[list[object]] = []


class Gap(NamedTuple):
    """Sequences of one producer that the shipper has found to be lost; ``cause`` is a number in `CAUSES`."""

    first: int
    last: int
    cause: int

    @property
    def size(self) -> int:
        """How many they are."""
        return self.last - self.first + 1


def gaps(words: memoryview) -> list[Gap]:
    """Return the table of a page, as it is between two changes."""
    found: list[Gap] = []
    for _ in range(100):
        version = words[GAPS]
        found = _read_gaps(words)
        if not version % 2 and version == words[GAPS]:
            break
    return found


def _read_gaps(words: memoryview) -> list[Gap]:
    count = min(words[GAPS + 1], _MOST_GAPS)
    numbers = words[GAPS + 2 : GAPS + 2 + 3 * count].tolist()
    found = [Gap(*numbers[at : at + 3]) for at in range(0, 3 * count, 3)]
    return [gap for gap in found if gap.first <= gap.last < 2**63 and gap.cause < len(CAUSES)]


def found_by_shipper(words: memoryview, table: Sequence[Gap] | None = None) -> list[int]:
    """Return how much the shipper has found to be lost in one spool, by cause; ``table`` is that of `gaps`."""
    counts = [0] * len(CAUSES)
    for cause, name in enumerate(CAUSES):
        if name in FOUND_BY_SHIPPER:
            counts[cause] = words[LOST + cause]
    for gap in gaps(words) if table is None else table:
        counts[gap.cause] += gap.size
    return counts


def note_gap(words: memoryview, first: int, last: int, cause: int) -> None:
    """Put a gap into the table, as the shipper; what is known of it already becomes part of it."""
    first = max(first, words[COUNTED] + 1)
    if first > last:
        return
    kept = []
    for gap in _read_gaps(words):
        if gap.last < first or gap.first > last:
            kept.append(gap)
        else:
            first, last = min(first, gap.first), max(last, gap.last)
    kept = sorted([*kept, Gap(first, last, cause)])
    words[GAPS] |= 1
    for gap in kept[:-_MOST_GAPS]:
        at = LOST + gap.cause
        words[at] = (words[at] + gap.size) % 2**64  # a damaged page may hold any number
        words[COUNTED] = gap.last
    kept = kept[-_MOST_GAPS:]
    for index, gap in enumerate(kept):
        for offset, number in enumerate(gap):
            words[GAPS + 2 + 3 * index + offset] = number
    words[GAPS + 1] = len(kept)
    words[GAPS] = (words[GAPS] + 1) % 2**63


def remove_folder(directory: str) -> None:
    """Delete a spool's folder; one that is gone already is fine."""
    with contextlib.suppress(FileNotFoundError):
        # The header goes last: of a spool that was never finished it tells whether somebody is at work on it.
        for name in sorted(os.listdir(directory), key=lambda name: name == NAME):
            os.unlink(os.path.join(directory, name))
        os.rmdir(directory)


def close_copies(directory: str) -> None:
    """In a forked child: close what another thread of the parent had of a header when it was forked.

    That thread is not here, nor is anything that knows of its descriptor, whose copy would keep the lock.
    """
    with contextlib.suppress(OSError):
        # In this order: the parent may be renaming the one to the other.
        names = [os.path.join(os.path.dirname(directory), "." + os.path.basename(directory)), directory]
        pages = set()
        for name in names:
            with contextlib.suppress(OSError):
                status = os.stat(os.path.join(name, NAME))
                pages.add((status.st_dev, status.st_ino))
        for name in os.listdir("/dev/fd") if pages else ():
            with contextlib.suppress(OSError, ValueError):
                status = os.fstat(int(name))
                if (status.st_dev, status.st_ino) in pages:
                    os.close(int(name))


def _encoded(facts: record.Facts) -> bytes:
    encoded = record.encode_facts(facts)
    if _FACTS_AT + _FACTS_HEAD.size + len(encoded) > SIZE:
        # Any text may be long, a process's name is the application's: none of them is worth the spool.
        cut = {
            name: value[:_LONGEST_NAME]
            for name, value in msgspec.structs.asdict(facts).items()
            if isinstance(value, str)
        }
        encoded = record.encode_facts(msgspec.structs.replace(facts, **cut))
    return encoded


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino

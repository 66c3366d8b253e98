"""Spools, looked at without touching them: no mapping for writing, no mark, and a shared lock for a moment only."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from redislogkit.errors import CorruptDataError
from redislogkit.record import Facts
from redislogkit.spool import header, segment
from redislogkit.spool.shipper_end import spool_names
from redislogkit.view.seen import Seen, decode

#: Second byte of the payload of a record: its tag, behind the head of the array.
_RECORDS: Final = frozenset([b"\x01", b"\x04"])


class Spool(NamedTuple):
    """One spool, as it is at one moment."""

    name: str
    directory: str
    facts: Facts
    alive: bool
    """The producer lives, and may store more in it."""
    size: int
    """Bytes on the disk."""
    written: int
    """Highest sequence that every writer has written, as far as the spool has been told."""
    shipped: int
    """Highest sequence that the stream has."""
    lost: dict[str, int]
    """Records that were dropped, by cause."""


class Waiting(NamedTuple):
    """What waits in a spool."""

    records: int
    oldest: float | None
    """When the oldest was logged, seconds since the epoch; None where none waits."""


def look(root: str, report: Callable[[str], None]) -> list[Spool]:
    """Return the spools below ``root``. ``report`` takes a line about each that can not be read. Raises ``OSError``."""
    found = []
    for name in spool_names(root):
        directory = os.path.join(root, name)
        try:
            found.append(_look_at(name, directory))
        except FileNotFoundError as error:
            if os.path.isdir(directory):  # not removed a moment ago
                report(f"spool {directory} can not be read: {error}")
        except (OSError, CorruptDataError) as error:
            report(f"spool {directory} can not be read: {error}")
    return found


def _look_at(name: str, directory: str) -> Spool:
    path = os.path.join(directory, header.NAME)
    fd = segment.open_regular(path)
    try:
        page = os.pread(fd, header.SIZE, 0)
        if len(page) != header.SIZE or not page.startswith(header.MAGIC):
            raise CorruptDataError(f"{path} is not the header of a spool")
        locked = _is_locked(fd)
    finally:
        os.close(fd)
    words = memoryview(bytearray(page)).cast("Q")
    lost = {cause: words[header.LOST + at] for at, cause in enumerate(header.CAUSES)}
    for gap in header.gaps(words):
        lost[header.CAUSES[gap.cause]] += gap.size
    # The lock of a dead producer's spool is the shipper's, which says so in the mark.
    alive = locked and not words[header.MARK] & header.RETIRED and not words[header.LEFT]
    return Spool(
        name,
        directory,
        header.facts_in(page),
        alive,
        _size(directory),
        words[header.WRITTEN],
        words[header.SHIPPED],
        {cause: number for cause, number in lost.items() if number},
    )


def _is_locked(fd: int) -> bool:
    """True when somebody holds the lock. Whoever tries to take it in this very moment tries again a second later."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def _size(directory: str) -> int:
    size = 0
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(directory):
            with contextlib.suppress(FileNotFoundError):
                size += os.stat(os.path.join(directory, name)).st_size
    return size


def waiting(spool: Spool, after: int, report: Callable[[str], None]) -> Waiting:
    """Count the records behind the sequence ``after``; ``report`` takes a line about each place that is damaged."""
    number, oldest = 0, None
    for sequence, payload in frames(spool, after, report):
        if payload[1:2] in _RECORDS:
            number += 1
            if oldest is None:
                oldest = next((one.record.created for one in decode(payload, spool.facts, sequence)), None)
    return Waiting(number, oldest)


def records(
    spools: Iterable[Spool], after: Callable[[Spool], int], report: Callable[[str], None]
) -> Iterator[Seen]:
    """Yield what stands in the spools of one producer, oldest first, notices of losses included.

    ``after`` says behind which sequence; a record that is in two of them is yielded once.
    """
    last = 0
    for spool in spools:
        for sequence, payload in frames(spool, max(last, after(spool)), report):
            last = sequence
            yield from decode(payload, spool.facts, sequence)


def frames(spool: Spool, after: int, report: Callable[[str], None]) -> Iterator[tuple[int, bytes]]:
    """Yield sequence and payload of each whole frame behind the sequence ``after``."""
    try:
        numbers = segment.numbers(spool.directory)
    except FileNotFoundError:  # all of it is written by now
        return
    last = after
    for number in numbers:
        path = os.path.join(spool.directory, segment.file_name(number))
        try:
            mapped, _ = segment.open_for_reading(spool.directory, number)
        except FileNotFoundError:  # released a moment ago
            continue
        except CorruptDataError as error:
            if not (spool.alive and number == numbers[-1]):  # being created
                report(f"{path} can not be read: {error}")
            continue
        position: int | None = segment.FIRST_FRAME
        newest = number == numbers[-1]
        while position is not None:
            frame = segment.read_frame(mapped, position)
            if frame is None:
                position = _behind(mapped, position, last, path, report, storing=newest and spool.alive)
                continue
            if frame.sequence > last:
                last = frame.sequence
                yield frame.sequence, frame.payload
            position = frame.end
        mapped.close()


def _behind(
    mapped: mmap.mmap,
    position: int,
    last: int,
    path: str,
    report: Callable[[str], None],
    *,
    storing: bool,
) -> int | None:
    """Return where the next whole frame begins; None where none follows. Damage is named."""
    if segment.continues(mapped, position) or not mapped[position:].strip(b"\0"):
        return None
    behind = segment.find_frame(mapped, position, last)
    if behind is not None:
        report(f"{path} is damaged at byte {position}; it goes on at byte {behind}")
    elif not storing:
        report(
            f"{path}: what stands at byte {position} is no whole record; it was being stored when its program died"
        )
    return behind

"""The spools of this host as they lie on the disk: whose they are, and how much waits in them.

Reads headers and the newest segment of each, and takes a producer's lock for a moment to see whether it is free, as
every shipper does. A spool that comes or goes meanwhile is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from redislogkit.config import Config
from redislogkit.errors import CorruptDataError
from redislogkit.record import Facts
from redislogkit.spool import header, segment
from redislogkit.spool.shipper_end import spool_names


class SpoolState(NamedTuple):
    """One spool."""

    name: str
    facts: Facts
    alive: bool
    """The producer's process lives."""
    stored: int
    """Highest sequence in it."""
    shipped: int
    written: int
    """Highest sequence that is safe: written by every writer (``ack = "stream"``: in the stream)."""
    bytes: int
    """What it takes on the disk."""

    @property
    def waiting(self) -> int:
        """Records that are not safe yet."""
        return max(self.stored - self.written, 0)


class Spools(NamedTuple):
    """All spools of a host's stream."""

    states: list[SpoolState]
    unreadable: dict[str, str]
    """Name → why it can not be read."""


def look(config: Config) -> Spools:
    """Look at every spool of this host. Raises ``OSError`` where the folder can not be listed."""
    root = config.spool_root
    states, unreadable = [], {}
    for name in spool_names(root):
        try:
            states.append(_look_at(os.path.join(root, name), name))
        except FileNotFoundError:
            continue  # its shipper has just removed it
        except (CorruptDataError, OSError) as error:
            unreadable[name] = str(error)
    return Spools(states, unreadable)


def _look_at(directory: str, name: str) -> SpoolState:
    page = header.Header.open(directory)
    try:
        alive = not page.words[header.MARK] & header.RETIRED and not page.try_lock()
        written, first = page.words[header.WRITTEN], page.words[header.FIRST]
        facts, shipped, emitted = page.facts(), page.words[header.SHIPPED], page.words[header.EMITTED]
    finally:
        page.close()
    stored = max(_last_sequence(directory), emitted, written)
    return SpoolState(name, facts, alive, stored, shipped, max(written, first - 1, 0), _size(directory))


def _last_sequence(directory: str) -> int:
    """Return the highest sequence in the newest segment; 0 where nothing is in it."""
    numbers = segment.numbers(directory)
    if not numbers:
        return 0
    mapped, first = segment.open_for_reading(directory, numbers[-1])
    with mapped:
        return max((frame.sequence for frame in _frames(mapped)), default=first - 1)


def _frames(mapped: object) -> Iterator[segment.Frame]:
    position = segment.FIRST_FRAME
    while frame := segment.read_frame(mapped, position):  # type: ignore[arg-type]
        yield frame
        position = frame.end


def _size(directory: str) -> int:
    return sum(os.stat(os.path.join(directory, name)).st_blocks * 512 for name in os.listdir(directory))

"""The spools that one shipper ships: found, opened, read in order, let go.

A spool belongs to the supervisor's shipper, unless its producer ships itself (thread mode) and lives. One that can
not be read is reported once and passed over, and tried again while it is there: it never stops the others.

Each opened spool takes three descriptors, and there may be any number: processes that came and went while nobody
shipped. So only as many are open as leave descriptors for the rest, and the others wait until some are removed; and only
so many are opened at a time that nobody takes the shipper for dead meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from redislogkit.errors import CorruptDataError
from redislogkit.spool.shipper_end import Run, ShipperEnd, spool_names, sweep_hidden

#: Spools that are opened at a time, half a second's work.
_AT_ONCE: Final = 1000
#: What the rest of the process needs of its descriptors.
_RESERVE: Final = 64
#: Descriptors that an open spool takes: header, its map, and that of a segment.
_EACH: Final = 3
#: Spools that are open at most, with two maps each: Linux lets a process have 65,530 of them.
_MOST: Final = 20_000
#: Spools that a thread of the application has open at most: descriptors are the application's.
_MOST_IN_A_THREAD: Final = 16
#: Counting takes at most this part of the time.
_COUNTING: Final = 0.02


class Census(NamedTuple):
    """What was found when all spools were looked at last."""

    size: int = 0
    """Bytes that they take on the disk."""
    dropped: tuple[tuple[str, int], ...] = ()
    """Records of their producers that were dropped: cause and number."""


class SpoolSet:
    """Opened spools by name.

    Args:
        root: Folder of the spools.
        own: Producer whose spools are shipped while it lives (thread mode); empty: all but such producers'.
        report: Takes one line for each spool that can not be read.
    """

    def __init__(self, root: str, own: str, report: Callable[[str], None]) -> None:
        self._root = root
        self._own = own
        self._report = report
        self._spools: dict[str, ShipperEnd] = {}
        self._passed_over: set[str] = set()  # until they are tried again
        self._elsewhere: set[str] = set()  # of producers that live and are shipped by somebody else
        self._reported: set[str] = set()
        self._spools_of: Counter[str] = Counter()  # producer → its spools here, whoever ships them
        self._most = _MOST_IN_A_THREAD if own else _most_open()
        self._told_most = False
        self.waiting = 0
        """Spools that are to be shipped here, and not open yet, as there are so many."""
        self.census = Census()
        self._next_census = 0.0
        self._buried: Counter[str] = Counter()  # what the spools that were removed had counted as dropped
        self._several = False  # some producer has more than one
        self._unlisted = False
        self._sleeping = False

    # -- which there are ------------------------------------------------------------------------

    def values(self) -> list[ShipperEnd]:
        """Every opened spool."""
        return list(self._spools.values())

    def __len__(self) -> int:
        return len(self._spools)

    @property
    def living(self) -> int:
        """Producers that live, also those whose spools somebody else ships."""
        return len(self._elsewhere) + sum(not spool.owner_dead for spool in self._spools.values())

    def discover(self, *, again: bool = False) -> list[ShipperEnd]:
        """Open the spools that have come and return them; let go of those that are gone.

        With ``again``, those that were passed over are tried once more.
        """
        if again:
            self._passed_over.clear()
        try:
            names = spool_names(self._root)
        except OSError as error:
            # No descriptor is free, or the disk does not answer: those that are open go on.
            _check_memory(error)
            if not self._unlisted:
                self._report(f"spools below {self._root} can not be listed for now: {error}")
            self._unlisted = True
            return []
        self._unlisted = False
        self._spools_of = Counter(map(_producer, names))
        self._several = len(self._spools_of) < len(names)
        here = set(names)
        for name in [name for name in self._spools if name not in here]:
            self._spools.pop(name).close()
        self._elsewhere &= here
        self._reported &= here
        new = [name for name in names if name not in self._spools and name not in self._passed_over]
        opened = self._open_some(new)
        # The listing's order is that of each producer's spools.
        self._spools = {name: self._spools[name] for name in names if name in self._spools}
        return opened

    def _open_some(self, names: list[str]) -> list[ShipperEnd]:
        """Open as many as there is room for, one's own in any case; the others wait."""
        opened: list[ShipperEnd] = []
        waiting = 0
        for name in sorted(names, key=self._is_not_own):
            full = len(opened) >= _AT_ONCE or len(self._spools) >= self._most
            if full and self._is_not_own(name):
                waiting += 1
            elif (spool := self._open(name)) is not None:
                opened.append(spool)
        if not self._own:
            self._wait_for_room(waiting)
        return opened

    def _wait_for_room(self, waiting: int) -> None:
        self.waiting = waiting
        if waiting and len(self._spools) >= self._most and not self._told_most:
            self._told_most = True
            self._report(
                f"{waiting} spools below {self._root} wait: not more than {self._most} can be open at a time, as "
                "the bound of descriptors (RLIMIT_NOFILE) is so low"
            )
        self._told_most = self._told_most and waiting > 0

    def _is_not_own(self, name: str) -> bool:
        return not (self._own and name.startswith(f"{self._own}-"))

    def _open(self, name: str) -> ShipperEnd | None:
        path = os.path.join(self._root, name)
        try:
            spool = ShipperEnd(path, self._report)
        except FileNotFoundError as error:
            if os.path.isdir(path):  # its header is gone, not the spool
                self._pass_over(name, error)
            return None
        except (OSError, CorruptDataError) as error:
            _check_memory(error)
            self._pass_over(name, error)
            return None
        if not self._is_ours(spool):
            self._elsewhere.add(name)
            self._passed_over.add(name)
            spool.close()
            return None
        self._elsewhere.discard(name)
        spool.set_sleeping(self._sleeping)
        self._spools[name] = spool
        return spool

    def _is_ours(self, spool: ShipperEnd) -> bool:
        if self._own and spool.facts.producer == self._own:
            return True
        if self._own or spool.facts.ships_itself:
            return spool.check_owner()  # alive, somebody else ships it; dead, its lock is ours now
        return True

    def _pass_over(self, name: str, error: Exception) -> None:
        self._passed_over.add(name)
        if name not in self._reported:
            self._reported.add(name)
            self._report(
                f"spool {os.path.join(self._root, name)} can not be read and is left alone for now: {error}"
            )

    def look_after(self) -> list[ShipperEnd]:
        """Retire the spools of dead producers; return them."""
        with contextlib.suppress(OSError):
            sweep_hidden(self._root)
        return [spool for spool in self.values() if spool.check_owner()]

    # -- reading --------------------------------------------------------------------------------

    def readable(self) -> list[ShipperEnd]:
        """Spools to read now: of one producer's several spools only the oldest, for the order's sake."""
        if not self._several:
            return self.values()
        seen: set[str] = set()
        found = []
        for spool in self._spools.values():
            if spool.facts.producer not in seen:
                found.append(spool)
                if not (spool.finished and spool.owner_dead):
                    seen.add(spool.facts.producer)
        return found

    def has_news(self) -> bool:
        """True when a producer has stored something since its spool was read."""
        return any(spool.has_news() for spool in self.readable())

    def read(self, spool: ShipperEnd, max_bytes: int) -> list[Run]:
        """Read whole frames; a spool that can not be read is passed over until it is opened again."""
        try:
            return spool.read(max_bytes)
        except (OSError, CorruptDataError) as error:
            _check_memory(error)
            name = os.path.basename(spool.directory)
            self._spools.pop(name, None)
            spool.close()
            if os.path.isdir(spool.directory):  # else another shipper has just finished with it
                self._pass_over(name, error)
            return []

    def set_sleeping(self, sleeping: bool) -> None:
        """Ask all producers, also those that come, to ring the doorbell, or not to."""
        self._sleeping = sleeping
        for spool in self._spools.values():
            spool.set_sleeping(sleeping)

    # -- counting -------------------------------------------------------------------------------

    def count(self) -> None:
        """Take the `census`, unless nobody asks for it or it would take too much of the time."""
        began = time.monotonic()
        if self._own or began < self._next_census:
            return
        size = 0
        dropped = Counter(self._buried)
        # What a producer has dropped stands in each of its spools, what the shipper has found only in one.
        own: dict[str, dict[str, int]] = {}
        for spool in self._spools.values():
            size += spool.size()
            by_producer, by_shipper = spool.dropped()
            dropped.update(by_shipper)
            if by_producer:
                before = own.setdefault(spool.facts.producer, {})
                before.update({cause: max(n, before.get(cause, 0)) for cause, n in by_producer.items()})
        for counts in own.values():
            dropped.update(counts)
        self.census = Census(size, tuple(sorted(dropped.items())))
        now = time.monotonic()
        self._next_census = now + (now - began) / _COUNTING

    # -- letting go -----------------------------------------------------------------------------

    def others_of(self, spool: ShipperEnd) -> bool:
        """True when the producer has another spool, also one that another shipper has in its hands."""
        return self._spools_of[_producer(os.path.basename(spool.directory))] > 1

    def remove(self, spool: ShipperEnd) -> None:
        """Delete the spool of a dead producer; everything in it is safe."""
        name = os.path.basename(spool.directory)
        self._spools.pop(name, None)
        by_producer, by_shipper = spool.dropped()
        try:
            spool.remove()
            self._spools_of[_producer(name)] -= 1
            self._buried.update(by_shipper)
            if not self._spools_of[_producer(name)]:
                self._buried.update(by_producer)
        except OSError as error:
            self._pass_over(name, error)

    def close(self) -> None:
        """Let go of all; what is not confirmed stays in them."""
        self.set_sleeping(True)
        for spool in self._spools.values():
            spool.close()
        self._spools.clear()


def _producer(name: str) -> str:
    return name.rpartition("-")[0]


def _check_memory(error: Exception) -> None:
    """Nothing is wrong with a spool for which there is no memory: a shipper that is started again has more."""
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        raise MemoryError(str(error)) from error


def _most_open() -> int:
    """How many spools this process can have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST
    return min(max((soft - _RESERVE) // _EACH, 1), _MOST)

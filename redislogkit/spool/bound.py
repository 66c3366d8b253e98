"""How much of the disk a spool may take: its segments, and what happens at the bound.

A segment counts from its creation until the shipper has released it. At the bound the caller waits (``block``), the
oldest segments are given up (``drop_old``), or the record is dropped. What `Bound` gives up is not counted here: the
shipper finds the gap.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from redislogkit.spool import header, segment
from redislogkit.spool.account import Ledger

#: Share of ``spool_max_bytes`` above which records up to ``shed_level`` are dropped.
SHED_ABOVE: Final = 0.8
_BLOCK_POLL: Final = 0.002


class _Segment(NamedTuple):
    number: int
    first: int
    """First sequence that stands in it, or that a notice in it names."""
    size: int


class Bound:
    """Keeps the segments of one spool within ``limits``: ``max_bytes``, ``on_full`` and ``block_timeout``."""

    def __init__(
        self, limits: tuple[int, str, float], ledger: Ledger, page: memoryview, directory: str, doubted: int
    ) -> None:
        self._max_bytes, self._on_full, self._block_timeout = limits
        self._ledger = ledger
        self._words = page
        self._directory = directory
        self._doubted = doubted  # the first segment may be all there is of the records up to here
        self._blocked_at = -1
        self._unread: list[
            int
        ] = []  # where segments begin that were given up before the shipper reached them
        self.segments: deque[_Segment] = deque()
        """Those that the shipper may still need."""

    def add(self, number: int, first: int, size: int) -> None:
        """Count a segment; one that is known already counts once."""
        if not self.segments or self.segments[-1].number != number:
            self.segments.append(_Segment(number, first, size))

    def used_bytes(self) -> int:
        """Bytes of the segments that the shipper has not released yet."""
        released = self._words[header.RELEASED]
        while len(self.segments) > 1 and self.segments[0].number < released:
            self.segments.popleft()
        return sum(kept.size for kept in self.segments)

    def is_near(self) -> bool:
        """True when low levels are to be shed."""
        return self.used_bytes() > SHED_ABOVE * self._max_bytes

    def admits(self, wanted: int, wake: Callable[[], None]) -> bool:
        """True when there is room for ``wanted`` bytes more, or room could be made; ``wake`` rouses the shipper."""
        if self._has_room(wanted):
            return True
        if self._on_full == "drop_old":
            return self._give_up_oldest(wanted)
        return self._on_full == "block" and self._wait_for_room(wanted, wake)

    def _has_room(self, wanted: int) -> bool:
        return self.used_bytes() + wanted <= self._max_bytes

    def _wait_for_room(self, wanted: int, wake: Callable[[], None]) -> bool:
        released = self._words[header.RELEASED]
        if released == self._blocked_at:
            return False  # this bound has cost a caller its time already; wait again after progress
        deadline = time.monotonic() + self._block_timeout
        while time.monotonic() < deadline:
            wake()
            if self._has_room(wanted):
                return True
            time.sleep(_BLOCK_POLL)
        self._blocked_at = self._words[header.RELEASED]
        return False

    def _give_up_oldest(self, wanted: int) -> bool:
        # What was put here in doubt may be nowhere else, and nobody could tell whether it is lost.
        spared = 1 if self.segments[0].number == 1 and self._words[header.WRITTEN] < self._doubted else 0
        while not self._has_room(wanted) and len(self.segments) > spared + 1:
            number, first, _ = self.segments[spared]
            self._words[header.DISCARDED] = number + 1
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._directory, segment.file_name(number)))
            del self.segments[spared]
            self._forget_notices(first, self.segments[spared].first - 1)
        return self._has_room(wanted)

    def _forget_notices(self, first: int, last: int) -> None:
        """Of a segment that was given up; but the shipper may have the one mapped that it is reading, or the next."""
        read = self._words[header.SHIPPED] + 1
        self._unread = [begin for begin in (*self._unread, first) if begin > read][:2]
        if len(self._unread) == 2:
            self._ledger.give_up(self._unread[1], last)

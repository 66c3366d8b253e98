"""The producer's end of a spool.

Theory of operation. ``append`` copies one payload into the mapped segment; when it returns, a
``kill -9`` can no longer lose it. It is called with the handler's lock held, so there is one appender
at a time; a signal handler that logs while the same thread appends is parked in ``_parked`` and
appended when the interrupted call goes on. An exception that arrives between two stores (Ctrl-C) leaves
either a whole frame, which `_settle` then counts, or none.

Sequences are taken by every record, also by those that are dropped. What was dropped stands in
``_losses`` and is written as a `Loss` item in front of the next record that fits, so the place of the
gap, its size and its cause travel with the records.

A spool is made in a folder with a leading dot and renamed when it is complete: the shipper never sees
half a spool. If the shipper finds the lock free although we live (a daemon closed the descriptor), it
marks the spool RETIRED before it takes what is there. We see the mark after the append, open the
producer's next spool and put the same record there under the same sequence; whoever reads both drops
the second.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from types import CodeType
from typing import Any, Final, NamedTuple
from zlib import crc32

from redislogkit import record
from redislogkit.spool import doorbell, header, segment

#: Share of ``spool_max_bytes`` above which records up to ``shed_level`` are dropped.
SHED_ABOVE: Final = 0.8
_NOBODY_PAUSE: Final = 0.5
_BLOCK_POLL: Final = 0.002
_RETRY_OPEN: Final = 1.0
_MAX_LOSSES: Final = 64


class SpoolSettings(NamedTuple):
    """What a producer's spool obeys; sizes in bytes, times in seconds."""

    root: str
    """Folder that holds the spools of all producers of the stream."""
    doorbell: str
    max_bytes: int
    on_full: str
    block_timeout: float
    shed_level: int

    @property
    def max_payload(self) -> int:
        """Largest payload that one frame may have."""
        return min(self.max_bytes // 4, 64 * 1024 * 1024)


class ProducerEnd:
    """Appends payloads to this process's own spool. Opened by the first record, never by a fork."""

    def __init__(
        self,
        settings: SpoolSettings,
        make_facts: Callable[[str], record.Facts],
        on_nobody: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        self._make_facts = make_facts
        self._on_nobody = on_nobody
        self.producer = os.urandom(8).hex()
        self.sequence = 0
        self.notices = 0
        """Sequences that were taken by notices of losses, not by records."""
        self.lost = [0] * len(header.CAUSES)
        self._incarnation = 0
        self._header: header.Header | None = None
        self._words = memoryview(bytearray(header.SIZE)).cast("Q")
        self._directory = ""
        self._map: Any = None  # a map where there is room; the hot path does not ask
        self._position = 0
        self._limit = 0  # 0 sends every append the slow way
        self._number = 0
        self._segments: deque[tuple[int, int, int]] = deque()  # number, size, first sequence
        self._losses: list[tuple[int, int, int]] = []  # cause, first, last
        self._shedding = False
        self._next_ring = 0.0
        self._next_open = 0.0
        self._blocked_at = -1
        self._busy = False
        self._parked: list[tuple[bytes, int]] = []

    # -- appending -----------------------------------------------------------------------------

    def append(self, payload: bytes, levelno: int) -> None:
        """Store one record; with the handler's (reentrant) lock held. Never raises ``Exception``."""
        if self._busy and _is_running(ProducerEnd.append.__code__):
            self._parked.append((payload, levelno))
            return
        try:
            self._busy = True
            self._append(payload, levelno)
            while self._parked:
                self._append(*self._parked.pop(0))
        except BaseException:
            self._settle()
            raise
        finally:
            self._busy = False

    def _append(self, payload: bytes, levelno: int) -> None:
        start = self._position + 16
        end = start + len(payload)
        if end > self._limit:
            if not self._make_room(len(payload), levelno):
                return
            start = self._position + 16
            end = start + len(payload)
        sequence = self.sequence + 1
        mapped = self._map
        mapped[start:end] = payload
        segment.FRAME.pack_into(
            mapped, self._position, len(payload), crc32(payload, sequence & 0xFFFFFFFF), sequence
        )
        self.sequence = sequence
        self._position = end
        if self._words[header.MARK]:
            self._obey_mark(payload, levelno)

    def _settle(self) -> None:
        """After an exception in mid-append: count the frame if it is whole, else it never was."""
        if self._map:
            frame = segment.read_frame(self._map, self._position)
            if frame is not None and frame.sequence in (self.sequence, self.sequence + 1):
                self.sequence = frame.sequence
                self._position = frame.end

    # -- the slow way: opening, changing segments, the bound ------------------------------------

    def _make_room(self, size: int, levelno: int) -> bool:
        """Make sure that a frame of ``size`` fits at the position; False when the record is dropped."""
        try:
            if self._header is None and not self._open(size):
                return self._lose("spool_error")
            if self._shedding and self._weigh() and levelno <= self._settings.shed_level:
                return self._lose("shed")
            if not self._fits(size) and not self._next_segment(size):
                return self._lose("spool_full")
            if self._losses:
                self._write_losses()
                return self._fits(size) or self._next_segment(size) or self._lose("spool_full")
        except OSError:
            return self._lose("spool_error")
        return True

    def _fits(self, size: int) -> bool:
        if self._map is None:
            return False
        return self._position + size + 2 * segment.FRAME_SIZE <= len(self._map)

    def _lose(self, cause: str) -> bool:
        index = header.CAUSES.index(cause)
        self.sequence += 1
        self.lost[index] += 1
        self._words[header.LOST + index] = self.lost[index]
        self._words[header.EMITTED] = self.sequence
        self._limit = 0
        last = self._losses[-1] if self._losses else None
        if last and last[2] == self.sequence - 1 and (last[0] == index or len(self._losses) >= _MAX_LOSSES):
            self._losses[-1] = (last[0], last[1], self.sequence)
        else:
            self._losses.append((index, self.sequence, self.sequence))
        return False

    def _write_losses(self) -> None:
        """Tell the reader what is missing, in front of the record that follows."""
        losses, self._losses = self._losses, []
        for cause, first, last in losses:
            item = record.Loss(first, last, header.CAUSES[cause], time.time())
            payload = record.encode(item)
            if not self._fits(len(payload)) and not self._next_segment(len(payload)):
                self._losses.append((cause, first, last))
                continue
            self.sequence += 1
            self.notices += 1
            self._position = segment.put_frame(self._map, self._position, payload, self.sequence)
        self._set_limit()

    def _open(self, size: int) -> bool:
        """Make this process's spool; tried again after a pause when the disk refuses."""
        now = time.monotonic()
        if now < self._next_open:
            return False
        self._next_open = now + _RETRY_OPEN
        name = f"{self.producer}-{self._incarnation}"
        hidden = os.path.join(self._settings.root, "." + name)
        directory = os.path.join(self._settings.root, name)
        facts = self._make_facts(self.producer)
        try:
            os.makedirs(hidden, 0o700)
            page = header.Header.create(hidden, facts)
            page.words[header.RELEASED] = 1
            mapped = segment.create(hidden, 1, self.sequence + 1, self._size_for(size, segment.SMALLEST))
            os.rename(hidden, directory)
        except OSError:
            _remove_tree(hidden)
            raise
        self._header, self._words, self._directory = page, page.words, directory
        self._segments.clear()
        self._adopt(1, mapped)
        return True

    def _adopt(self, number: int, mapped: mmap.mmap) -> None:
        self._number, self._map = number, mapped
        self._position = segment.FIRST_FRAME
        self._segments.append((number, len(mapped), self.sequence + 1))
        self._weigh()

    def _set_limit(self) -> None:
        # A frame must leave room for the head that says where the producer goes on.
        slow = self._map is None or self._shedding or self._losses
        self._limit = 0 if slow else len(self._map) - segment.FRAME_SIZE

    def _next_segment(self, size: int) -> bool:
        """Go on in a new segment; False when the bound of the spool forbids it."""
        assert self._header is not None and self._map is not None
        if not self._header.descriptor_is_ours():
            return self._continue_elsewhere(size)
        wanted = self._size_for(size, min(2 * len(self._map), segment.LARGEST))
        if not self._within_bound(wanted):
            return False
        mapped = segment.create(self._directory, self._number + 1, self.sequence + 1, wanted)
        segment.put_continues(self._map, self._position, self._number + 1)
        self._words[header.EMITTED] = self.sequence
        left, self._map = self._map, None
        left.close()
        self._adopt(self._number + 1, mapped)
        return True

    def _size_for(self, payload: int, usual: int) -> int:
        usual = max(min(usual, self._settings.max_bytes // 8), segment.SMALLEST)
        return max(usual, payload + segment.FIRST_FRAME + 2 * segment.FRAME_SIZE)

    # -- the bound ------------------------------------------------------------------------------

    def used_bytes(self) -> int:
        """Bytes of the segments that the shipper has not released yet."""
        released = self._words[header.RELEASED]
        while len(self._segments) > 1 and self._segments[0][0] < released:
            self._segments.popleft()
        return sum(size for _, size, _ in self._segments)

    def _weigh(self) -> bool:
        """Look at the bound; True when low levels are to be shed."""
        self._shedding = self.used_bytes() > SHED_ABOVE * self._settings.max_bytes
        self._set_limit()
        return self._shedding

    def _within_bound(self, wanted: int) -> bool:
        if self.used_bytes() + wanted <= self._settings.max_bytes:
            return True
        if self._settings.on_full == "drop_old":
            return self._give_up_oldest(wanted)
        return self._settings.on_full == "block" and self._wait_for_room(wanted)

    def _wait_for_room(self, wanted: int) -> bool:
        released = self._words[header.RELEASED]
        if released == self._blocked_at:
            return False  # this bound has cost a caller its time already; wait again after progress
        deadline = time.monotonic() + self._settings.block_timeout
        while time.monotonic() < deadline:
            self._ring()
            if self.used_bytes() + wanted <= self._settings.max_bytes:
                return True
            time.sleep(_BLOCK_POLL)
        self._blocked_at = self._words[header.RELEASED]
        return False

    def _give_up_oldest(self, wanted: int) -> bool:
        while self.used_bytes() + wanted > self._settings.max_bytes and len(self._segments) > 1:
            number, _, first = self._segments.popleft()
            last = self._segments[0][2] - 1
            first = max(first, self._words[header.SHIPPED] + 1)
            self._words[header.DISCARDED] = number + 1
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._directory, segment.file_name(number)))
            if first <= last:
                cause = header.CAUSES.index("drop_old")
                self.lost[cause] += last - first + 1
                self._words[header.LOST + cause] = self.lost[cause]
                self._losses.append((cause, first, last))
        return self.used_bytes() + wanted <= self._settings.max_bytes

    # -- marks: a sleeping shipper, a retired spool ---------------------------------------------

    def _obey_mark(self, payload: bytes, levelno: int) -> None:
        if self._words[header.MARK] & header.RETIRED:
            self.sequence -= 1  # the same record again under the same sequence: it may have been missed
            try:
                self._continue_elsewhere(len(payload))
            except OSError:
                self._lose("spool_error")
            else:
                self._append(payload, levelno)
        else:
            self._ring()

    def _ring(self) -> None:
        now = time.monotonic()
        if now < self._next_ring:
            return
        if not doorbell.ring(self._settings.doorbell):
            self._next_ring = now + _NOBODY_PAUSE
            if self._on_nobody is not None:
                self._on_nobody()

    def _continue_elsewhere(self, size: int) -> bool:
        """Open the producer's next spool; the old one is left to the shipper."""
        self._abandon()
        self._incarnation += 1
        self._next_open = 0.0
        return self._open(size)

    def _abandon(self) -> None:
        page, mapped = self._header, self._map
        self._header = self._map = None
        self._limit = 0
        if page is None:
            return
        self._words = memoryview(bytearray(page.words)).cast("Q")
        self._words[header.MARK] = 0
        if page.descriptor_is_ours():
            page.close()
            if mapped is not None:
                mapped.close()
        else:
            _leaked.append((page, mapped))

    # -- life ------------------------------------------------------------------------------------

    def forget(self) -> None:
        """In a forked child: close its copies of the lock and the maps; the parent's stay what they are."""
        self._abandon()

    def position(self, acknowledged_by_writers: bool) -> int:
        """Highest sequence written (or shipped), as the shipper has put it into the header."""
        return self._words[header.WRITTEN if acknowledged_by_writers else header.SHIPPED]

    def nudge(self) -> bool:
        """Wake a sleeping shipper, have one started where there is none; False when nobody listens."""
        if self._words[header.MARK]:
            self._ring()
        if doorbell.is_heard(self._settings.doorbell):
            return True
        if self._on_nobody is not None:
            self._on_nobody()
        return False

    def close(self) -> None:
        """Leave the spool to the shipper. A later record opens a new one under the same producer."""
        if self._header is None:
            return
        while self._parked:
            self._append(*self._parked.pop(0))
        with contextlib.suppress(OSError):
            if self._losses:
                self._write_losses()
        self._words[header.EMITTED] = self.sequence
        self._abandon()
        self._incarnation += 1
        self._next_open = 0.0
        doorbell.ring(self._settings.doorbell)


#: Maps whose descriptors somebody else closed: closing them could close a stranger's file.
_leaked: list[tuple[header.Header, mmap.mmap | None]] = []


def _is_running(code: CodeType) -> bool:
    """True when this thread is inside ``code`` further up its stack (behind the present call)."""
    frame = sys._getframe(1)
    found = frame.f_back
    while found is not None:
        if found.f_code is code:
            return True
        found = found.f_back
    return False


def _remove_tree(directory: str) -> None:
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            os.unlink(os.path.join(directory, name))
        os.rmdir(directory)

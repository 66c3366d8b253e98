"""The producer's end of a spool.

Theory of operation. ``append`` copies one payload into the mapped segment; when it returns, a
``kill -9`` can no longer lose it. It is called with the handler's lock held, so there is one appender
at a time; a signal handler that logs while the same thread appends is parked in ``_parked`` and
appended when the interrupted call goes on.

An exception may arrive between any two stores (Ctrl-C, a time limit). A frame is then whole or not there:
`_settle` counts it or wipes it away. Every step that takes more than one store (a spool is opened, a segment
left, a notice written) is first described in one attribute (``_opening``, ``_moving``, ``_noting``), from
which `_complete` does it again; until that is done ``_limit`` is 0, which sends every append there.

Sequences are taken by every record, also by those that are dropped, and by nothing else. What was dropped stands
in ``_losses`` and is written as a `Loss` item in front of the next record that fits, so the place of the gap, its
size and its cause travel with the records. Such a notice stands under the sequence of the last record that it
names: told twice, by us and by the shipper or in two spools, it is the same item, and is taken once. Each segment
keeps room for notices, so that a producer that closes a full spool can still say what is missing. Only what
``drop_old`` gives up is not ours to tell: the shipper may have read it already, so it is the shipper that sees the
gap and names it.

`account` says what has become of every record up to now. Of what is behind the written position it has to know
how much is lost. We keep for each segment how many losses its notices tell of, and look into the one
segment that the position lies in. What the shipper has found stands in the pages of our spools, also of those that we
have left: they stay mapped until their folders are gone.

A spool is made in a folder with a leading dot and renamed when it is complete: the shipper never sees
half a spool. If the shipper finds the lock free although we live (a daemon closed the descriptor), it
marks the spool RETIRED before it takes what is there. We see the mark after the append, open the
producer's next spool and put the same record there under the same sequence; whoever reads both drops
the second.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any, Final, NamedTuple
from zlib import crc32

from redislogkit import record
from redislogkit.errors import CorruptDataError
from redislogkit.spool import doorbell, header, segment

#: Share of ``spool_max_bytes`` above which records up to ``shed_level`` are dropped.
SHED_ABOVE: Final = 0.8
_NOBODY_PAUSE: Final = 0.5
_BLOCK_POLL: Final = 0.002
_RETRY_OPEN: Final = 1.0
_RETRY_SEGMENT: Final = 0.05
_MAX_LOSSES: Final = 64
#: Bytes at the end of a segment for notices: those in front of its last record, and those at the close.
_NOTICE_ROOM: Final = 2 * 64 * _MAX_LOSSES
#: Spools that were left whose pages are kept in sight, and segments with notices that were given up.
_MOST_LEFT: Final = 8
_MOST_SPANS: Final = 512
#: Notices of one segment that are remembered one by one.
_MOST_NAMED: Final = 32
#: Second byte of an encoded `record.Loss`.
_LOSS_TAG: Final = 2
_NO_LOSSES: Final = (0,) * len(header.CAUSES)


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


class _Opening(NamedTuple):
    """A spool that is complete on disk and about to be ours."""

    page: header.Header
    mapped: mmap.mmap
    directory: str
    position: int
    """Behind what could not be told, or put, into the spool before it."""
    told: list[int]


class _Moving(NamedTuple):
    """A segment that is complete on disk and about to follow the present one."""

    left: mmap.mmap
    end: int
    number: int
    mapped: mmap.mmap


class _Noting(NamedTuple):
    """A notice about to be stored, and what will be true when it is."""

    position: int
    end: int
    cause: int
    first: int
    sequence: int
    told: list[int]
    losses: list[tuple[int, int, int]]


class _Named(NamedTuple):
    """What one notice names, or several, where there are too many to remember each."""

    first: int
    last: int
    cause: int
    size: int


class _Span(NamedTuple):
    """A segment that was left, and what its notices tell of."""

    named: tuple[_Named, ...]
    path: str
    """Empty when it was given up."""

    @property
    def first(self) -> int:
        """First sequence that is named."""
        return self.named[0].first

    @property
    def last(self) -> int:
        """Last sequence that is named."""
        return self.named[-1].last

    def found(self, gaps: list[header.Gap], written: int) -> list[int]:
        """How many of those named behind ``written`` the shipper has found to be lost, by cause."""
        counts = list(_NO_LOSSES)
        for first, last, cause, size in self.named:
            begin = max(first, written + 1)
            common = sum(max(min(gap.last, last) - max(gap.first, begin) + 1, 0) for gap in gaps)
            counts[cause] += min(common, size)
        return counts


class _Ledger(NamedTuple):
    """What is known of the losses told in segments; replaced as a whole."""

    told: tuple[int, ...]
    """Records told as lost before the present segment."""
    spans: tuple[_Span, ...] = ()
    """Segments with notices, the oldest first; those that are written go."""
    covered: tuple[int, ...] = _NO_LOSSES
    """Records that notices named which were given up themselves: the shipper's word counts."""


class _Left:
    """A spool that was left to the shipper, up to sequence ``last``.

    Its page is read again by its name, as a mapped one would cost a descriptor. But where segments were given up,
    what the shipper finds to be missing is to be seen for certain, also when it removes the spool right after: that
    page stays mapped.
    """

    def __init__(self, page: header.Header, directory: str, last: int) -> None:
        self.directory = directory
        self.last = last
        self.page = page if page.words[header.DISCARDED] else None
        self.words = page.words if self.page else _copy(page.words)

    def look(self) -> bool:
        """See what has become of it; False when it is gone."""
        try:
            if self.page is not None:
                os.stat(self.directory)
                return True
            page = header.Header.open(self.directory)
        except FileNotFoundError:
            return False
        except (OSError, CorruptDataError):
            return True
        self.words = _copy(page.words)
        page.close()
        return True

    def close(self) -> None:
        """Let go of the page."""
        if self.page is not None:
            self.words = _copy(self.words)
            if self.page.descriptor_is_ours():
                self.page.close()
            self.page = None


class Account(NamedTuple):
    """What has become of the records of one producer: ``emitted = written + sum(lost) + spooled``."""

    emitted: int
    """Records taken so far."""
    written: int
    """Those that are written (``ack = "stream"``: in the stream)."""
    lost: dict[str, int]
    """Those that were dropped, by cause."""
    spooled: int
    """Those on their way, in the spool and in the stream."""


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
        """Records taken so far; the last one's number."""
        self._lost = [0] * len(header.CAUSES)
        self._told = [0] * len(header.CAUSES)  # of them, what notices have been stored for
        self._incarnation = 0
        self._header: header.Header | None = None
        self._words = memoryview(bytearray(header.SIZE)).cast("Q")
        self._directory = ""
        self._map: Any = None  # a map where there is room; the hot path does not ask
        self._position = 0
        self._limit = 0  # 0 sends every append the slow way
        self._number = 0
        self._segments: deque[tuple[int, int]] = deque()  # number, size
        self._losses: list[tuple[int, int, int]] = []  # cause, first, last; not told yet
        self._sealed = 0  # so many of them are an earlier spool's to tell as well, and stay as they are
        self._ledger = _Ledger(_NO_LOSSES)
        self._named: list[_Named] = []  # by notices in the present segment
        self._left: list[_Left] = []
        self._reached = {header.SHIPPED: 0, header.WRITTEN: 0}  # in spools that are gone
        self._found = [0] * len(header.CAUSES)  # what the shipper has found in spools that are gone
        self._settling = ""  # a folder with whose lock we are busy
        self._opening: _Opening | None = None
        self._moving: _Moving | None = None
        self._noting: _Noting | None = None
        self._doubt: tuple[bytes, int] | None = None  # payload and sequence, for the next spool
        self._doubted = 0  # sequence up to which the first segment holds what another spool may, too
        self._shedding = False
        self._next_ring = 0.0
        self._next_open = 0.0
        self._next_segment_try = 0.0
        self._blocked_at = -1
        self._busy = False
        self._parked: list[tuple[bytes, int]] = []

    # -- appending -----------------------------------------------------------------------------

    def append(self, payload: bytes, levelno: int) -> None:
        """Store one record; with the handler's (reentrant) lock held. Never raises ``Exception``."""
        if self._busy:
            if _is_running(_APPENDING):
                self._parked.append((payload, levelno))
                return
            self._busy = False  # an exception has come just where this would have been done
        if (
            self._parked
        ):  # we are a signal handler between the end of an append and its look at what is parked
            self._parked.append((payload, levelno))
            self._append_parked()
            return
        try:
            self._busy = True
            self._append(payload, levelno)
        except BaseException:
            self._settle(payload)
            self._busy = False
            self._append_parked()
            raise
        finally:
            self._busy = False
        if self._parked:
            self._append_parked()

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
            mapped, self._position, len(payload), crc32(payload, sequence % 0xFFFFFFFF), sequence
        )
        self.sequence = sequence
        self._position = end
        if self._words[header.MARK]:
            self._obey_mark(payload)

    def _append_parked(self) -> None:
        """Append what came while this thread was inside `append`, and what comes meanwhile."""
        while self._parked and not self._busy:
            self._busy = True
            try:
                while self._parked:
                    self._append_first_parked()
            finally:
                self._busy = False

    def _append_first_parked(self) -> None:
        payload, levelno = self._parked[0]
        before = self.sequence
        try:
            self._append(payload, levelno)
        except BaseException:
            self._settle(payload)
            if self.sequence > before and self._ends_with(payload):
                del self._parked[0]
            raise
        del self._parked[0]

    def _ends_with(self, payload: bytes) -> bool:
        start = self._position - len(payload)
        return self._map is not None and bool(self._map[start : self._position] == payload)

    def _settle(self, payload: bytes) -> None:
        """After an exception in mid-append: count the frame if it is whole, else it never was."""
        self._limit = 0
        self._complete()
        if self._losses:
            self.sequence = max(self.sequence, self._losses[-1][2])
        self._lost = list(self._told)
        for cause, first, last in self._losses:
            self._lost[cause] += last - first + 1
        if self._map is not None:
            frame = segment.read_frame(self._map, self._position)
            if frame is not None and frame.sequence in (self.sequence, self.sequence + 1):
                self.sequence = frame.sequence
                self._position = frame.end
            else:
                self._wipe()
        self._set_limit()
        if self._words[header.MARK] & header.RETIRED and self._ends_with(payload):
            self._doubt = (payload, self.sequence)
            self._give_over()

    def _wipe(self) -> None:
        """Remove what a frame without a head has left: a reader would take it for the next head."""
        left = len(self._map[self._position :].rstrip(b"\0"))
        self._map[self._position : self._position + left] = bytes(left)

    # -- the slow way: opening, changing segments, the bound ------------------------------------

    def _make_room(self, size: int, levelno: int) -> bool:
        """Make sure that a frame of ``size`` fits at the position; False when the record is dropped."""
        try:
            self._complete()
            if self._header is not None and self._is_taken(self._header, size):
                self._give_over()
            if self._header is None and not self._open(size):
                return self._lose("spool_error")
            if self._shedding and self._weigh() and levelno <= self._settings.shed_level:
                return self._lose("shed")
            if not self._fits(size) and not self._next_segment(size):
                return self._lose("spool_full")
            self._write_losses()
        except OSError:
            return self._lose("spool_error")
        self._set_limit()
        return True

    def _is_taken(self, page: header.Header, size: int) -> bool:
        """True when the spool is the shipper's now, or will be, as somebody has closed our descriptors."""
        if self._words[header.MARK] & header.RETIRED:
            return True
        return not self._fits(size) and not page.descriptor_is_ours()

    def _give_over(self) -> None:
        self._abandon(left=True)
        self._next_open = 0.0

    def _complete(self) -> None:
        """Do the rest of what an exception has interrupted."""
        if self._opening is not None:
            self._take_spool(self._opening)
        if self._moving is not None:
            self._take_segment(self._moving)
        if self._header is not None and self._words[header.LEFT]:
            self._give_over()
        if self._noting is not None:
            frame = segment.read_frame(self._map, self._noting.position)
            if frame is not None and frame.sequence == self._noting.sequence:
                self._count_notice(self._noting)
            self._noting = None

    def _fits(self, size: int) -> bool:
        if self._map is None:
            return False
        return self._position + size + 2 * segment.FRAME_SIZE + _NOTICE_ROOM <= len(self._map)

    def _set_limit(self) -> None:
        # A frame must leave room for the head that says where the producer goes on.
        slow = self._map is None or self._shedding or self._losses
        self._limit = 0 if slow else len(self._map) - segment.FRAME_SIZE - _NOTICE_ROOM

    def _lose(self, cause: str) -> bool:
        self._limit = 0
        index = header.CAUSES.index(cause)
        sequence = self.sequence + 1
        last = self._losses[-1] if len(self._losses) > self._sealed else None
        if last and (last[0] == index or len(self._losses) >= _MAX_LOSSES):
            self._losses[-1] = (last[0], last[1], sequence)
            index = last[0]
        else:
            self._losses.append((index, sequence, sequence))
        self.sequence = sequence
        self._lost[index] += 1
        self._words[header.LOST + index] = self._lost[index]
        self._words[header.CAUSE] = index
        self._words[header.EMITTED] = sequence
        return False

    def _write_losses(self) -> None:
        """Tell the reader what is missing, in front of the record that follows."""
        while self._losses:
            cause, first, last = self._losses[0]
            payload = record.encode(record.Loss(first, last, header.CAUSES[cause], time.time()))
            told = list(self._told)
            told[cause] += last - first + 1
            end = self._position + segment.FRAME_SIZE + len(payload)
            self._noting = _Noting(self._position, end, cause, first, last, told, self._losses[1:])
            segment.put_frame(self._map, self._position, payload, last)
            self._count_notice(self._noting)
            self._noting = None
        self._sealed = 0

    def _count_notice(self, noting: _Noting) -> None:
        self._name([(noting.cause, noting.first, noting.sequence)])
        self._losses, self._told = noting.losses, noting.told
        self._position = noting.end

    def _name(self, losses: list[tuple[int, int, int]]) -> None:
        """Remember what notices in the present segment name, but not each of very many."""
        named = self._named
        for cause, first, last in losses:
            if named and named[-1].last >= last:
                continue  # an interrupted step is done again
            one = _Named(first, last, cause, last - first + 1)
            if len(named) < _MOST_NAMED or (named[-1].cause != cause and len(named) < 2 * _MOST_NAMED):
                named.append(one)
            else:
                named[-1] = named[-1]._replace(last=last, size=named[-1].size + one.size)

    def _open(self, size: int) -> bool:
        """Make this process's spool; tried again after a pause when the disk refuses."""
        now = time.monotonic()
        if now < self._next_open:
            return False
        # A name is used once, whatever interrupts us: under a second one would be no spool to rename.
        name = f"{self.producer}-{self._incarnation}"
        self._incarnation += 1
        hidden = os.path.join(self._settings.root, "." + name)
        directory = os.path.join(self._settings.root, name)
        first = self._losses[0][1] if self._losses else self.sequence + 1
        if self._doubt is not None:
            size, first = size + len(self._doubt[0]) + segment.FRAME_SIZE, self._doubt[1]
        facts = self._make_facts(self.producer)
        page = None
        self._settling = directory
        try:
            os.makedirs(hidden, 0o700)
            page = header.Header.create(hidden, facts)
            self._begin_page(page.words, first)
            mapped = segment.create(hidden, 1, first, self._size_for(size, segment.SMALLEST))
            self._opening = self._begin_segment(page, mapped, directory)
            os.rename(hidden, directory)
        except BaseException as error:
            self._opening = None
            if page is not None:
                page.close()
            _remove_tree(hidden)
            self._settling = ""
            if isinstance(error, OSError):
                self._next_open = now + _RETRY_OPEN
            raise
        self._take_spool(self._opening)
        self._settling = ""
        return True

    def _begin_page(self, words: memoryview, first: int) -> None:
        words[header.RELEASED] = 1
        words[header.FIRST] = first
        for index, cause in enumerate(header.CAUSES):
            if cause not in header.FOUND_BY_SHIPPER:
                words[header.LOST + index] = self._lost[index]

    def _begin_segment(self, page: header.Header, mapped: mmap.mmap, directory: str) -> _Opening:
        """Put what the spool before this one may lack at the front, before anybody can see the new one."""
        position, told = segment.FIRST_FRAME, list(self._told)
        if self._doubt is not None:
            position = segment.put_frame(mapped, position, *self._doubt)
        for cause, first, last in self._losses:
            payload = record.encode(record.Loss(first, last, header.CAUSES[cause], time.time()))
            position = segment.put_frame(mapped, position, payload, last)
            told[cause] += last - first + 1
        return _Opening(page, mapped, directory, position, told)

    def _take_spool(self, opening: _Opening) -> None:
        self._header, self._words, self._directory = opening.page, opening.page.words, opening.directory
        self._number, self._map, self._position = 1, opening.mapped, opening.position
        self._segments = deque([(1, len(opening.mapped))])
        self._doubted = 0 if self._doubt is None else self._doubt[1]
        if self._losses:
            self._name(self._losses)
            self._doubted = self._losses[-1][2]
        self._losses, self._told = [], opening.told
        self._sealed, self._blocked_at = 0, -1
        self._opening = None
        self._doubt = None
        self._weigh()

    def _next_segment(self, size: int) -> bool:
        """Go on in a new segment; False when the bound of the spool forbids it."""
        wanted = self._size_for(size, min(2 * len(self._map), segment.LARGEST))
        if not self._within_bound(wanted):
            return False
        now = time.monotonic()
        if now < self._next_segment_try:
            raise OSError(errno.ENOSPC, "the disk had no room a moment ago", self._directory)
        self._limit = 0
        number = self._number + 1
        try:
            mapped = self._create_segment(number, wanted, self._size_for(size, segment.SMALLEST))
        except FileNotFoundError:  # somebody has removed the whole spool
            self._give_over()
            return self._open(size)
        except OSError:
            self._next_segment_try = now + _RETRY_SEGMENT
            raise
        self._moving = _Moving(self._map, self._position, number, mapped)
        self._take_segment(self._moving)
        return True

    def _create_segment(self, number: int, wanted: int, least: int) -> mmap.mmap:
        first = self.sequence + 1
        try:
            return segment.create(self._directory, number, first, wanted)
        except OSError as error:
            if least == wanted or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            return segment.create(self._directory, number, first, least)

    def _take_segment(self, moving: _Moving) -> None:
        self._close_span()
        segment.put_continues(moving.left, moving.end, moving.number)
        self._words[header.EMITTED] = self.sequence
        self._number, self._map, self._position = moving.number, moving.mapped, segment.FIRST_FRAME
        if self._segments[-1][0] != moving.number:
            self._segments.append((moving.number, len(moving.mapped)))
        self._moving = None
        moving.left.close()
        self._weigh()

    def _size_for(self, payload: int, usual: int) -> int:
        usual = max(min(usual, self._settings.max_bytes // 8), segment.SMALLEST)
        return max(usual, payload + segment.FIRST_FRAME + 2 * segment.FRAME_SIZE + _NOTICE_ROOM)

    # -- the bound ------------------------------------------------------------------------------

    def used_bytes(self) -> int:
        """Bytes of the segments that the shipper has not released yet."""
        released = self._words[header.RELEASED]
        while len(self._segments) > 1 and self._segments[0][0] < released:
            self._segments.popleft()
        return sum(size for _, size in self._segments)

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
        # What was put here in doubt may be nowhere else, and nobody could tell whether it is lost.
        spared = 1 if self._segments[0][0] == 1 and self._words[header.SHIPPED] < self._doubted else 0
        while self.used_bytes() + wanted > self._settings.max_bytes and len(self._segments) > spared + 1:
            number, _ = self._segments[spared]
            self._give_up_span(self._segment_path(number))
            self._words[header.DISCARDED] = number + 1
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._segment_path(number))
            del self._segments[spared]
        return self.used_bytes() + wanted <= self._settings.max_bytes

    # -- marks: a sleeping shipper, a retired spool ---------------------------------------------

    def _obey_mark(self, payload: bytes) -> None:
        if self._words[header.MARK] & header.RETIRED:
            # The same record again under the same sequence: it may have been missed. Until there is a spool
            # to put it into, memory holds it.
            self._doubt = (payload, self.sequence)
            self._give_over()
            with contextlib.suppress(OSError):
                self._open(len(payload))
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

    def _abandon(self, *, left: bool) -> None:
        """Let go of the spool; ``left`` tells the shipper that nothing more will come in it."""
        self._limit = 0
        page, mapped = self._header, self._map
        if page is None:
            return
        ours = page.descriptor_is_ours()
        if not ours:
            header.leaked.append((page, mapped))
        if left:
            self._drop_told(page.words[header.TOLD])
            # What is left to tell stands in the page as well, where the shipper finds it should we be killed
            # before it stands in the next spool.
            self._sealed = len(self._losses)
            self._close_span()
            page.words[header.LEFT] = 1
            if all(other.directory != self._directory for other in self._left):
                last = self.stored if self._doubt is None else self._doubt[1] - 1
                self._left.append(_Left(page, self._directory, last))
        kept = bool(self._left) and self._left[-1].page is page
        self._settling = self._directory
        self._words = _copy(page.words)
        self._words[header.MARK] = 0
        self._segments = deque()
        self._map = None
        self._header = None
        self._opening = self._moving = self._noting = None
        if ours:
            if kept:
                page.unlock()
            else:
                page.close()
            if mapped is not None:
                mapped.close()
        self._settling = ""

    def _drop_told(self, told: int) -> None:
        """Forget the losses that the shipper has told already, as it took us for dead."""
        gone = [(cause, first, min(last, told)) for cause, first, last in self._losses if first <= told]
        if not gone:
            return
        left = [(cause, max(first, told + 1), last) for cause, first, last in self._losses if last > told]
        named = tuple(_Named(first, last, cause, last - first + 1) for cause, first, last in gone)
        counts, before = list(self._told), list(self._ledger.told)
        for one in named:
            counts[one.cause] += one.size
            before[one.cause] += one.size
        spans = _merged((*self._ledger.spans, _Span(named, "")))  # no segment has a notice of them
        ledger = _Ledger(tuple(before), spans, self._ledger.covered)
        self._losses, self._told, self._ledger = left, counts, ledger

    @property
    def stored(self) -> int:
        """Highest sequence that a record or a notice has; what was dropped since is told with the next record."""
        return self._losses[0][1] - 1 if self._losses else self.sequence

    # -- the account ----------------------------------------------------------------------------

    def account(self, acknowledged_by_writers: bool) -> Account:
        """Say what has become of every record up to now. With the handler's lock held."""
        self._forget_left()
        self._close_written_spans()
        emitted = self.sequence
        written = min(self.position(acknowledged_by_writers), emitted)
        lost, found_behind = self._all_found(written)
        covered = self._covered(0, self._ledger.spans)
        covered_behind = sum(self._covered(written, self._ledger.spans))
        lost = [
            count + own - one - other
            for count, own, one, other in zip(lost, self._lost, covered, self._ledger.covered, strict=True)
        ]
        spooled = emitted - written - self._told_behind(written) - found_behind + covered_behind
        spooled = max(spooled, 0)
        by_cause = dict(zip(header.CAUSES, lost, strict=True))
        return Account(emitted, emitted - sum(lost) - spooled, by_cause, spooled)

    @property
    def lost(self) -> list[int]:
        """Records lost so far, one number for each of `header.CAUSES`."""
        return list(self.account(True).lost.values())

    def _pages(self) -> list[memoryview]:
        present = [] if self._header is None else [self._words]
        return [left.words for left in self._left] + present

    def _all_found(self, written: int) -> tuple[list[int], int]:
        """What the shipper has found to be lost, by cause, and how much of it behind the written position."""
        lost, behind = list(self._found), 0
        for words in self._pages():
            counts, gaps = _found_in(words)
            lost = [count + more for count, more in zip(lost, counts, strict=True)]
            behind += sum(max(gap.last - max(gap.first - 1, written), 0) for gap in gaps)
        return lost, behind

    def _told_behind(self, written: int) -> int:
        """How many records behind the written position we have dropped."""
        ledger = self._ledger
        behind = sum(max(last - max(first - 1, written), 0) for _, first, last in self._losses)
        here = sum(self._told) - sum(ledger.told)
        if here and self._named and self._named[0].first <= written:
            here = 0 if self._map is None else _told_in(self._map, self._position, written)
        return behind + here + sum(_told_behind(span, written) for span in ledger.spans)

    def _covered(self, written: int, spans: Sequence[_Span]) -> list[int]:
        """What notices behind ``written`` named that were given up before the shipper had read them.

        The shipper has found these to be lost, with them. Its word counts, not ours.
        """
        given_up = [span for span in spans if not span.path]
        gaps = [gap for words in self._pages() for gap in header.gaps(words)] if given_up else []
        counts = list(_NO_LOSSES)
        for span in given_up:
            counts = [count + more for count, more in zip(counts, span.found(gaps, written), strict=True)]
        return counts

    def _close_span(self) -> None:
        """The present segment is left."""
        ledger, spans = self._ledger, self._ledger.spans
        told = tuple(self._told)
        if told == ledger.told:
            self._named = []
            return
        if self._named:
            spans = _merged((*spans, _Span(tuple(self._named), self._segment_path(self._number))))
        self._ledger = _Ledger(told, spans, ledger.covered)
        self._named = []

    def _give_up_span(self, path: str) -> None:
        if not self._ledger.spans:
            return
        self._close_written_spans()
        spans = tuple(span._replace(path="") if span.path == path else span for span in self._ledger.spans)
        self._ledger = self._ledger._replace(spans=spans)

    def _close_written_spans(self) -> None:
        """Forget what notices in segments told of that is written, and keep whose word counted there."""
        ledger = self._ledger
        if not ledger.spans:
            return
        position = self._position_of(header.WRITTEN)
        written = [span for span in ledger.spans if span.last <= position]
        if written:
            more = self._covered(0, written)
            covered = tuple(map(sum, zip(ledger.covered, more, strict=True)))
            left = tuple(span for span in ledger.spans if span.last > position)
            self._ledger = ledger._replace(spans=left, covered=covered)

    def _forget_left(self) -> None:
        """See what has become of the spools that were left; let go of those that are gone, and of too many."""
        for left in list(self._left):
            here = left.look()
            if here and len(self._left) <= _MOST_LEFT:
                continue
            self._close_written_spans()
            counts, _ = _found_in(left.words)
            for word, position in self._reached.items():
                # It is removed when all of it is safe.
                self._reached[word] = max(position, left.words[word], 0 if here else left.last)
            self._close_written_spans()
            self._found = [count + more for count, more in zip(self._found, counts, strict=True)]
            self._left.remove(left)
            left.close()

    def _segment_path(self, number: int) -> str:
        return os.path.join(self._directory, segment.file_name(number))

    # -- life ------------------------------------------------------------------------------------

    def forget(self) -> None:
        """In a forked child: close its copies of the lock and the maps; the parent's stay what they are."""
        settling = self._settling
        opening = self._opening
        self._abandon(left=False)
        for left in self._left:
            left.close()
        if opening is not None:
            opening.page.close()
        if settling:
            _close_copies(settling)

    def position(self, acknowledged_by_writers: bool) -> int:
        """Highest sequence written (or shipped), as the shipper has put it into the headers."""
        if self._header is None:
            self._forget_left()
        return self._position_of(header.WRITTEN if acknowledged_by_writers else header.SHIPPED)

    def _position_of(self, word: int) -> int:
        position = max(self._words[word], self._reached[word])
        for left in self._left:
            position = max(position, left.words[word])
        return position

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
        if self._busy and _is_running(_APPENDING):
            return  # a signal handler inside `append`: the spool is left when the process ends
        self._busy = False
        self._append_parked()
        try:
            self._busy = True
            self._leave()
        except OSError:
            pass  # what could not be told stands in the header
        finally:
            self._busy = False
        self._append_parked()

    def _leave(self) -> None:
        self._complete()
        if self._header is None and (self._doubt or self._losses):
            self._next_open = 0.0
            self._open(0)
        if self._header is not None:
            self._write_losses()
            self._words[header.EMITTED] = self.sequence
            self._give_over()
            doorbell.ring(self._settings.doorbell)


_APPENDING: Final = frozenset([ProducerEnd.append.__code__, ProducerEnd.close.__code__])


def _is_running(codes: frozenset[CodeType]) -> bool:
    """True when this thread is inside one of ``codes`` further up its stack (behind the present call)."""
    frame = sys._getframe(1)
    found = frame.f_back
    while found is not None:
        if found.f_code in codes:
            return True
        found = found.f_back
    return False


def _copy(words: memoryview) -> memoryview:
    return memoryview(bytearray(words)).cast("Q")


def _found_in(words: memoryview) -> tuple[list[int], list[header.Gap]]:
    """What the shipper has found to be lost in one spool: how much, by cause, and where."""
    gaps = header.gaps(words)
    counts = [
        words[header.LOST + index] if cause in header.FOUND_BY_SHIPPER else 0
        for index, cause in enumerate(header.CAUSES)
    ]
    for gap in gaps:
        counts[gap.cause] += gap.size
    return counts, gaps


def _notice(payload: bytes) -> record.Loss | None:
    with contextlib.suppress(ValueError, RecursionError):
        item = record.decode_items(b"\x91" + payload)[0]
        return item if isinstance(item, record.Loss) else None
    return None


def _told_in(mapped: mmap.mmap, stop: int, written: int) -> int:
    """How many records behind ``written`` the notices in a segment name."""
    told, position = 0, segment.FIRST_FRAME
    unpack = segment.FRAME.unpack_from
    while position + segment.FRAME_SIZE <= min(stop, len(mapped)):
        length, _, sequence = unpack(mapped, position)
        end = position + segment.FRAME_SIZE + length
        if length == 0 or end > len(mapped):
            break
        if sequence > written and mapped[position + segment.FRAME_SIZE + 1] == _LOSS_TAG:
            loss = _notice(mapped[position + segment.FRAME_SIZE : end])
            if loss is not None:
                told += loss.last - max(loss.first - 1, written)
        position = end
    return told


def _told_behind(span: _Span, written: int) -> int:
    """How many records behind ``written`` the notices of a segment name that was left."""
    if span.last <= written:
        return 0
    if span.first > written:
        return sum(named.size for named in span.named)
    if span.path:
        with contextlib.suppress(OSError, CorruptDataError):
            folder, name = os.path.split(span.path)
            mapped, _ = segment.open_for_reading(folder, int(name.partition(".")[0]))
            told = _told_in(mapped, len(mapped), written)
            mapped.close()
            return told
    return sum(
        min(named.size, named.last - max(named.first - 1, written))
        for named in span.named
        if named.last > written
    )


def _merged(spans: tuple[_Span, ...]) -> tuple[_Span, ...]:
    """Keep the number of spans bounded: of neighbours that were given up, one is enough.

    Not among the oldest: there may be the one that the shipper has read half of.
    """
    if len(spans) <= _MOST_SPANS:
        return spans
    for index in range(8, len(spans) - 1):
        one, other = spans[index], spans[index + 1]
        if not one.path and not other.path:
            named = list(one.named[: len(header.CAUSES)])
            for more in (*one.named[len(named) :], *other.named):
                named[-1] = named[-1]._replace(last=more.last, size=named[-1].size + more.size)
            return (*spans[:index], _Span(tuple(named), ""), *spans[index + 2 :])
    return spans


def _close_copies(directory: str) -> None:
    """In a forked child: close what another thread of the parent had of a header when it was forked.

    That thread is not here, nor is anything that knows of its descriptor, whose copy would keep the lock.
    """
    with contextlib.suppress(OSError):
        # In this order: the parent may be renaming the one to the other.
        names = [os.path.join(os.path.dirname(directory), "." + os.path.basename(directory)), directory]
        pages = set()
        for name in names:
            with contextlib.suppress(OSError):
                status = os.stat(os.path.join(name, header.NAME))
                pages.add((status.st_dev, status.st_ino))
        for name in os.listdir("/dev/fd") if pages else ():
            with contextlib.suppress(OSError, ValueError):
                status = os.fstat(int(name))
                if (status.st_dev, status.st_ino) in pages:
                    os.close(int(name))


def _remove_tree(directory: str) -> None:
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            os.unlink(os.path.join(directory, name))
        os.rmdir(directory)

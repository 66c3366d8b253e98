"""The producer's end of a spool.

Theory of operation. ``append`` copies one payload into the mapped segment; when it returns, a
``kill -9`` can no longer lose it. There is one appender at a time: it has the *turn*, an item that it takes out of a list
and puts back. Taking it is one instruction, between which and the ``try`` behind it no exception can come (from Python
3.11 on), and putting it back needs no memory; a lock's ``with`` takes 0.15 us longer, can fail to be left where
there is no memory, and would be left locked. Who finds no turn waits, unless he is inside himself: a signal handler that
logs while its thread appends is parked in ``_parked`` and appended when the interrupted call goes on.

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

What has become of all these records up to now is kept in a `Ledger`, which is told of each such step.

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
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, NamedTuple, TypeVar
from zlib import adler32

from redislogkit import record
from redislogkit.spool import doorbell, header, segment
from redislogkit.spool.account import Account, Ledger, Loss, no_page
from redislogkit.spool.bound import Bound

_pack: Final = segment.FRAME.pack_into
_MARK: Final = header.MARK
_T = TypeVar("_T")
#: Attempts to get the turn before it is waited for more slowly.
_IMPATIENCE: Final = 100
_NOBODY_PAUSE: Final = 0.5
_RETRY_OPEN: Final = 1.0
_RETRY_SEGMENT: Final = 0.05
_MAX_LOSSES: Final = 64
#: Bytes at the end of a segment for notices: those in front of its last record, and those at the close.
_NOTICE_ROOM: Final = 2 * 64 * _MAX_LOSSES


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
    losses: list[Loss]
    """Those that could not be told there."""
    doubted: int
    """Sequence up to which it begins with what another spool may hold, too."""


class _Moving(NamedTuple):
    """A segment that is complete on disk and about to follow the present one."""

    left: mmap.mmap
    end: int
    number: int
    mapped: mmap.mmap


class ProducerEnd:
    """Appends payloads to this process's own spool. Opened by the first record, never by a fork."""

    __slots__ = (
        "_bound",
        "_directory",
        "_doubt",
        "_header",
        "_incarnation",
        "_ledger",
        "_limit",
        "_losses",
        "_lost",
        "_make_facts",
        "_map",
        "_moving",
        "_next_open",
        "_next_ring",
        "_next_segment_try",
        "_noting",
        "_number",
        "_on_nobody",
        "_opening",
        "_parked",
        "_position",
        "_sealed",
        "_settings",
        "_settling",
        "_shedding",
        "_turn",
        "_words",
        "producer",
        "sequence",
    )  # loaded in half the time of attributes in a dictionary: 0.1 us of an append

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
        self._incarnation = 0
        self._header: header.Header | None = None
        self._words = no_page()
        self._directory = ""
        self._map: Any = None  # a map where there is room; the hot path does not ask
        self._position = 0
        self._limit = 0  # 0 sends every append the slow way
        self._number = 0
        self._ledger = Ledger()
        self._bound = self._new_bound(0)
        self._losses: list[Loss] = []  # not told yet
        self._sealed = 0  # so many of them are an earlier spool's to tell as well, and stay as they are
        self._settling = ""  # a folder with whose lock we are busy
        self._opening: _Opening | None = None
        self._moving: _Moving | None = None
        self._noting: tuple[int, Loss] | None = None  # a notice about to be stored, and where
        self._doubt: tuple[bytes, int] | None = None  # payload and sequence, for the next spool
        self._shedding = False
        self._next_ring = 0.0
        self._next_open = 0.0
        self._next_segment_try = 0.0
        self._turn = [None, None]  # the second one is the turn to append: gone while somebody has it
        self._parked: list[tuple[bytes, object]] = []

    # -- appending -----------------------------------------------------------------------------

    def append(self, payload: bytes, levelno: object) -> None:  # noqa: PLR0912 - each call more would cost 60 ns
        """Store one record. Raises ``Exception`` only where nothing of it is stored: there was no memory for it."""
        if self._parked:
            # We are a signal handler between the end of an append and its look at what is parked, or another thread.
            self._parked.append((payload, levelno))
            self._append_parked()
            return
        turn, attempt = self._turn, 0
        while True:
            try:
                del turn[1]
                break
            except IndexError:
                if not self._may_wait(attempt):
                    self._parked.append((payload, levelno))
                    return
                attempt += 1
        try:
            before = self.sequence
            try:
                position = self._position
                start = position + 16
                size = len(payload)
                end = start + size
                if end > self._limit:
                    self._append(payload, levelno)
                else:  # the same as there, without the call
                    sequence = before + 1
                    mapped = self._map
                    mapped[start:end] = payload
                    check = adler32(payload, ~(sequence + 362 * size) % 65521)  # as `segment.checksum`
                    _pack(mapped, position, size, check, sequence)
                    self.sequence = sequence
                    self._position = end
                    if self._words[_MARK]:
                        self._obey_mark(payload)
            except BaseException as error:
                try:  # noqa: SIM105 - suppress() would be a call too many
                    self._settle(payload)
                except RecursionError:  # no room for it, and nothing is half done but what describes itself
                    pass
                # Where it is stored, an ordinary failure came behind that, and is nobody's concern.
                if self.sequence == before or not isinstance(error, Exception):
                    raise
            finally:
                turn.append(None)
        finally:
            if self._parked:
                self._append_parked()

    def _append(self, payload: bytes, levelno: object) -> None:
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
        _pack(mapped, self._position, end - start, segment.checksum(payload, sequence), sequence)
        self.sequence = sequence
        self._position = end
        if self._words[header.MARK]:
            self._obey_mark(payload)

    def _append_parked(self) -> None:
        """Append what came while a thread was inside `append`, and what comes meanwhile."""
        turn, attempt = self._turn, 0
        while self._parked:
            try:
                del turn[1]
            except IndexError:
                if not self._may_wait(attempt, 2):
                    return  # whoever is inside does it at his end
                attempt += 1
                continue
            try:
                while self._parked:
                    self._append_first_parked()
            finally:
                turn.append(None)

    def alone(self, do: Callable[[], _T], inside: Callable[[], _T]) -> _T:
        """Call ``do`` while nobody appends; where this thread is inside an append itself, call ``inside``."""
        turn, attempt = self._turn, 0
        while True:
            try:
                del turn[1]
                break
            except IndexError:
                if not self._may_wait(attempt):
                    return inside()
                attempt += 1
        try:
            try:
                return do()
            finally:
                turn.append(None)
        finally:
            if self._parked:
                self._append_parked()

    def _may_wait(self, attempt: int, depth: int = 1) -> bool:
        """Wait a moment for the turn; False where this thread has it itself, as it is a signal handler inside.

        ``depth`` says how many frames up the operation stands that wants the turn.
        """
        if _is_inside(sys._getframe(depth).f_back):
            return False
        time.sleep(0 if attempt < _IMPATIENCE else 0.001)
        if attempt > 3 * _IMPATIENCE and attempt % _IMPATIENCE == 0:
            self._restore_turn()
        return True

    def _restore_turn(self) -> None:
        """Python 3.10 lets an exception in between the taking of a turn and what gives it back: see whether it is lost."""
        own = threading.get_ident()
        with _restoring:
            others = [frame for ident, frame in sys._current_frames().items() if ident != own]
            if len(self._turn) == 1 and not any(map(_has_turn, others)):
                self._turn.append(None)

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
        self._tell([])
        if self._losses:
            self.sequence = max(self.sequence, self._losses[-1][2])
        lost = self._ledger.told()
        for cause, first, last in self._losses:
            lost[cause] += last - first + 1
        self._lost = lost
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

    def _make_room(self, size: int, levelno: object) -> bool:
        """Make sure that a frame of ``size`` fits at the position; False when the record is dropped."""
        try:
            self._complete()
            if self._header is not None and self._is_taken(self._header, size):
                self._give_over()
            if self._header is None and not self._open(size):
                return self._lose("spool_error")
            low = isinstance(levelno, int) and levelno <= self._settings.shed_level
            if self._shedding and self._weigh() and low:
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
        if self._header is not None and self._header.words[header.LEFT]:
            self._give_over()
        self._count_notice()

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
            loss = self._losses[0]
            self._noting = (self._position, loss)
            segment.put_frame(self._map, self._position, _notice(loss), loss[2])
            self._count_notice()
        self._sealed = 0

    def _count_notice(self) -> None:
        """Count the notice that is being stored, if it is whole."""
        if self._noting is not None:
            position, loss = self._noting
            frame = segment.read_frame(self._map, position)
            if frame is not None and frame.sequence == loss[2]:
                self._tell([loss])
                self._position = frame.end
            self._noting = None

    def _tell(self, losses: list[Loss]) -> None:
        """Notices name these: the ledger knows, and they are ours to tell no more. May be done again."""
        self._ledger.tell(losses)
        told = self._ledger.told_to
        self._losses = [
            (cause, max(first, told + 1), last) for cause, first, last in self._losses if last > told
        ]

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
        first = self.stored + 1
        if self._doubt is not None:
            size, first = size + len(self._doubt[0]) + segment.FRAME_SIZE, self._doubt[1]
        facts = self._make_facts(self.producer)
        page = None
        self._settling = directory
        try:
            os.makedirs(hidden, 0o700)
            page = header.Header.create(hidden, facts)
            page.words[header.FIRST] = first
            mapped = segment.create(hidden, 1, first, self._size_for(size, segment.SMALLEST))
            self._opening = self._begin(page, mapped, directory)
            os.rename(hidden, directory)
        except BaseException as error:
            self._opening = None
            if page is not None:
                page.close()
            with contextlib.suppress(OSError):
                header.remove_folder(hidden)
            self._settling = ""
            if isinstance(error, OSError):
                self._next_open = now + _RETRY_OPEN
            raise
        self._take_spool(self._opening)
        self._settling = ""
        return True

    def _begin(self, page: header.Header, mapped: mmap.mmap, directory: str) -> _Opening:
        """Put what the spool before this one may lack at the front, before anybody can see the new one."""
        page.words[header.RELEASED] = 1
        for index, cause in enumerate(header.CAUSES):
            if cause not in header.FOUND_BY_SHIPPER:
                page.words[header.LOST + index] = self._lost[index]
        position = segment.FIRST_FRAME
        if self._doubt is not None:
            position = segment.put_frame(mapped, position, *self._doubt)
        for loss in self._losses:
            position = segment.put_frame(mapped, position, _notice(loss), loss[2])
        doubted = self._losses[-1][2] if self._losses else self._doubt[1] if self._doubt else 0
        return _Opening(page, mapped, directory, position, list(self._losses), doubted)

    def _take_spool(self, opening: _Opening) -> None:
        self._header, self._words, self._directory = opening.page, opening.page.words, opening.directory
        self._number, self._map, self._position = 1, opening.mapped, opening.position
        self._bound = self._new_bound(opening.doubted)
        self._bound.add(1, self._words[header.FIRST], len(opening.mapped))
        self._ledger.enter(self._words)
        self._tell(opening.losses)
        self._sealed = 0
        self._opening = None
        self._doubt = None
        self._weigh()

    def _next_segment(self, size: int) -> bool:
        """Go on in a new segment; False when the bound of the spool forbids it."""
        wanted = self._size_for(size, min(2 * len(self._map), segment.LARGEST))
        if not self._bound.admits(wanted, self._ring):
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
        segment.put_continues(moving.left, moving.end, moving.number)
        self._words[header.EMITTED] = self.sequence
        self._number, self._map, self._position = moving.number, moving.mapped, segment.FIRST_FRAME
        self._bound.add(moving.number, self.stored + 1, len(moving.mapped))
        self._moving = None
        moving.left.close()
        self._ledger.go_on()
        self._weigh()

    def _size_for(self, payload: int, usual: int) -> int:
        usual = max(min(usual, self._settings.max_bytes // 8), segment.SMALLEST)
        return max(usual, payload + segment.FIRST_FRAME + 2 * segment.FRAME_SIZE + _NOTICE_ROOM)

    def _new_bound(self, doubted: int) -> Bound:
        limits = (self._settings.max_bytes, self._settings.on_full, self._settings.block_timeout)
        return Bound(limits, self._ledger, self._words, self._directory, doubted)

    def _weigh(self) -> bool:
        """Look at the bound; True when low levels are to be shed."""
        self._shedding = self._bound.is_near()
        self._set_limit()
        return self._shedding

    def used_bytes(self) -> int:
        """Bytes of the segments that the shipper has not released yet."""
        return self.alone(self._bound.used_bytes, self._bound.used_bytes)

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

    def _after_mark(self, size: int) -> None:
        """Obey a mark that was set while a frame of ``size`` bytes was stored. Whoever calls has the turn."""
        payload = self._map[self._position - size : self._position]
        try:
            self._obey_mark(payload)
        except BaseException as error:
            with contextlib.suppress(RecursionError):
                self._settle(payload)
            if not isinstance(error, Exception):
                raise

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
        ours, kept = page.descriptor_is_ours(), False
        if not ours:
            header.leaked.append((page, mapped))
        if left:
            # The shipper has told of some, as it took us for dead.
            told = page.words[header.TOLD]
            self._tell([(cause, first, min(last, told)) for cause, first, last in self._losses])
            # What is left to tell stands in the page as well, where the shipper finds it should we be killed
            # before it stands in the next spool.
            self._sealed = len(self._losses)
            page.words[header.LEFT] = 1
            last = self.stored if self._doubt is None else self._doubt[1] - 1
            kept = self._ledger.leave(page, self._directory, last)
        self._settling = self._directory
        self._words = no_page()
        self._bound = self._new_bound(0)
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

    @property
    def stored(self) -> int:
        """Highest sequence that a record or a notice has; what was dropped since is told with the next record."""
        return self._losses[0][1] - 1 if self._losses else self.sequence

    # -- the account ----------------------------------------------------------------------------

    def account(self, acknowledged_by_writers: bool) -> Account:
        """Say what has become of every record up to now."""
        word = header.WRITTEN if acknowledged_by_writers else header.SHIPPED

        def look() -> Account:
            return self._ledger.account(self.sequence, self._lost, self._losses, word)

        return self.alone(look, look)

    @property
    def lost(self) -> list[int]:
        """Records lost so far, one number for each of `header.CAUSES`."""
        return list(self.account(True).lost.values())

    def position(self, acknowledged_by_writers: bool) -> int:
        """Highest sequence written (or shipped), as the shipper has put it into the headers."""
        return self._ledger.position(header.WRITTEN if acknowledged_by_writers else header.SHIPPED)

    # -- life ------------------------------------------------------------------------------------

    def forget(self) -> None:
        """In a forked child: close its copies of the lock and the maps; the parent's stay what they are."""
        settling = self._settling
        opening = self._opening
        self._abandon(left=False)
        self._ledger.close()
        if opening is not None:
            opening.page.close()
        if settling:
            header.close_copies(settling)

    def nudge(self) -> bool:
        """Wake a sleeping shipper, have one started where there is none; False when nobody listens."""
        if self._words[header.MARK]:
            self._ring()
        if doorbell.is_heard(self._settings.doorbell):
            return True
        if self._on_nobody is not None:
            self._on_nobody()
        return False

    def close(self) -> int:
        """Leave the spool to the shipper; return the last sequence in it. A later record opens a new one.

        A signal handler inside `append` leaves nothing: the spool is left when the process ends.
        """
        return self.alone(self._leave_quietly, lambda: self.sequence)

    def _leave_quietly(self) -> int:
        with contextlib.suppress(OSError):  # what could not be told stands in the header
            self._leave()
        return self.sequence

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


_restoring: Final = threading.Lock()
_WAITING: Final = ProducerEnd._may_wait.__code__
#: What has the turn, at least in some part of it.
_INSIDE: Final = frozenset(
    function.__code__
    for function in (
        ProducerEnd.append,
        ProducerEnd.alone,
        ProducerEnd._append_parked,
        ProducerEnd._after_mark,
    )
)


def _is_inside(frame: FrameType | None) -> bool:
    """True when one of `_INSIDE` is running in ``frame`` or further up its stack."""
    while frame is not None:
        if frame.f_code in _INSIDE:
            return True
        frame = frame.f_back
    return False


def _has_turn(frame: FrameType | None) -> bool:
    """True when a thread, whose innermost frame this is, may have the turn: it is inside, and does not wait for it."""
    while frame is not None and frame.f_code is not _WAITING:
        if frame.f_code in _INSIDE:
            return True
        frame = frame.f_back
    return False


def _notice(loss: Loss) -> bytes:
    cause, first, last = loss
    return record.encode(record.Loss(first, last, header.CAUSES[cause], time.time()))

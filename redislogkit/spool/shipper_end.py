"""The shipper's end of a spool: reads frames, puts positions back, releases segments.

Theory of operation. The reader never writes into segments. It goes forward frame by frame; a frame that
is not whole is "nothing yet" while the owner lives, and the end once the owner is dead and the spool is
retired. Segments stay on disk until `release` is told that their last sequence is safe, so `rewind` can
read again everything behind a position, for instance after the server has lost its memory.

A frame that is not whole in a segment which the producer has already left can never become whole: it is
damaged. The segment is copied to the folder for damaged segments, reported, and reading goes on at the
next whole frame, of this segment or another. One bad segment never stops the others.

Sequences have no gaps. Where one is missing, the producer's notices of what it dropped follow at once; what
they do not explain was given up (``drop_old``) or damaged. The reader puts a `Loss` there that names
exactly this, under the sequence of the last missing record: read again, the same gap gives the same
notice at the same place.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import shutil
import time
from collections.abc import Callable
from typing import Final, NamedTuple
from zlib import adler32

from redislogkit import compiled, record
from redislogkit.errors import CorruptDataError
from redislogkit.record import Facts
from redislogkit.spool import header, segment

_compiled: Final = compiled.load("redislogkit.spool._compiled")
_read_run: Final = None if _compiled is None else _compiled.read_run

Report = Callable[[str], None]
#: No sequence or segment number is as large.
_IMPOSSIBLE: Final = 2**62


class Run(NamedTuple):
    """Payloads of one producer whose sequences follow one another from ``first`` on."""

    facts: Facts
    first: int
    payloads: list[bytes]

    @property
    def last(self) -> int:
        """Sequence of the last payload."""
        return self.first + len(self.payloads) - 1


class _Segment:
    def __init__(self, number: int, mapped: mmap.mmap, last: int) -> None:
        self.number = number
        self.mapped = mapped
        self.position = segment.FIRST_FRAME
        self.last = last  # highest sequence read from it, or from those before it
        self.waits = False  # at a gap, for the notices that explain it


class ShipperEnd:
    """One producer's spool, as the shipper sees it. Raises ``OSError`` or ``CorruptDataError`` when opened."""

    def __init__(self, directory: str, report: Report) -> None:
        self.directory = directory
        self._report = report
        self._header = header.Header.open(directory)
        try:
            self.facts = self._header.facts()
        except CorruptDataError:
            self._header.close()
            raise
        self._words = self._header.words
        if any(self._words[word] >= _IMPOSSIBLE for word in header.POSITIONS):
            report(f"{directory}: the positions in its header are damaged, and are found out anew")
            for word in header.POSITIONS:
                self._words[word] = 0
        self._current: _Segment | None = None
        # Number → highest sequence in it and before, of segments read to the end.
        self._read_segments: dict[int, int] = {}
        self._skip_to = 0  # frames up to this sequence are passed over
        # Highest sequence that has been read, told as lost, or was safe before this reader began.
        self._accounted = max(self._words[header.FIRST] - 1, self._words[header.WRITTEN], 0)
        self._forgotten: Run | None = None  # a notice of what the server has lost, told before all else
        self._suspect = (0, 0)  # segment and position of what may be damage, seen once
        self._set_aside_already: set[int] = set()
        self.owner_dead = False
        self.finished = False
        """True when the owner is dead and every frame has been read."""
        self.read_sequence = 0
        """Highest sequence read so far."""
        self.closed = False
        """True once `close` was called."""

    # -- reading --------------------------------------------------------------------------------

    def read(self, max_bytes: int) -> list[Run]:
        """Return the next whole frames, about ``max_bytes`` of them."""
        runs: list[Run] = [] if self._forgotten is None else [self._forgotten]
        self._forgotten = None
        size = 0
        while size < max_bytes:
            current = self._current or self._open_next(runs)
            if current is None:
                break
            read = self._read_frames(current, runs, max_bytes - size)
            size += read
            if current.waits or (not read and not self._go_on(current)):
                break
            if read and not self.has_news():
                break  # whether another segment follows without an end mark is for a reading that finds nothing
        return runs

    def _read_frames(self, current: _Segment, runs: list[Run], limit: int) -> int:
        """Append the whole frames of one segment to ``runs``; return their size in bytes."""
        mapped = current.mapped
        position = start = current.position
        unpack = segment.FRAME.unpack_from
        size = len(mapped)
        stop = min(size - segment.FRAME_SIZE, start + limit - 1)
        skip_to = self._skip_to
        expected = runs[-1].last + 1 if runs else -1
        payloads = runs[-1].payloads if runs else []
        last = current.last
        current.waits = False
        while position <= stop:
            if _read_run is not None and expected > 0:  # 0.1 us a record instead of 0.3
                position, expected = _read_run(mapped, position, stop, expected, payloads)
                if position > stop:
                    break
            length, check, sequence = unpack(mapped, position)
            begin = position + 16
            end = begin + length
            if not length or end > size:
                break
            payload = mapped[begin:end]
            if adler32(payload, ~(sequence + 362 * length) % 65521) != check:
                break
            if sequence == expected:  # and so, above what is to be skipped
                payloads.append(payload)
                expected += 1
                position = end
                continue
            if sequence > skip_to:
                accounted = max(self._accounted, expected - 1)
                if sequence > accounted + 1 and not self._explain(current, position, accounted, runs):
                    current.waits = True
                    break
                payloads = [payload]
                runs.append(Run(self.facts, sequence, payloads))
                expected = sequence + 1
            position = end
            last = max(last, sequence)
        last = max(last, expected - 1)
        current.position = position
        current.last = last
        self._accounted = max(self._accounted, last)
        self.read_sequence = max(self.read_sequence, last if position > start else 0)
        return position - start

    def _open_next(self, runs: list[Run]) -> _Segment | None:
        wanted = max(self._read_segments, default=0) + 1
        present = [number for number in segment.numbers(self.directory) if number >= wanted]
        for number in present:
            last = max(self._read_segments.values(), default=0)
            try:
                mapped, _ = segment.open_for_reading(self.directory, number)
            except FileNotFoundError:
                continue  # given up by the producer a moment ago (drop_old)
            except CorruptDataError as error:
                if number == present[-1] and not self.owner_dead and self._is_blank(number):
                    return None  # being created
                self._set_aside(number, str(error))
                self._read_segments[number] = last
                continue
            self._current = _Segment(number, mapped, last)
            return self._current
        if self.owner_dead and not self.finished:
            self._tell_rest(runs)
            self.finished = True
        return None

    def _is_blank(self, number: int) -> bool:
        try:
            fd = segment.open_regular(self._name(number))
        except CorruptDataError:
            return False
        except OSError:
            return True
        with open(fd, "rb") as file:
            return not file.read(segment.FIRST_FRAME).strip(b"\0")

    # -- the end of a segment -------------------------------------------------------------------

    def _go_on(self, current: _Segment) -> bool:
        """Nothing whole was found at the position: go on where more is to come; False to wait for it."""
        if segment.continues(current.mapped, current.position):
            self._leave(current)
            return True
        if not self.owner_dead and not self._followed(current):
            return False
        if segment.read_frame(current.mapped, current.position) is not None:
            return True  # it has come a moment ago
        rest = current.mapped[current.position :]
        if rest.strip(b"\0"):
            if not self.owner_dead and not self._is_confirmed(current):
                return False
            if self._pass_damage(current):
                return True
        self._leave(current)
        return True

    def _leave(self, current: _Segment) -> None:
        self._read_segments[current.number] = current.last
        current.mapped.close()
        self._current = None

    def _followed(self, current: _Segment) -> bool:
        """True when a later segment holds frames although this one has no end mark."""
        later = [number for number in segment.numbers(self.directory) if number > current.number]
        for number in later:
            with contextlib.suppress(OSError, CorruptDataError):
                mapped, _ = segment.open_for_reading(self.directory, number)
                frame = segment.read_frame(mapped, segment.FIRST_FRAME)
                mapped.close()
                if frame is not None:
                    # The producer may have left a moment after we looked: look again.
                    return not segment.continues(current.mapped, current.position)
        return False

    def _is_confirmed(self, current: _Segment) -> bool:
        """Damage in a living producer's segment counts when it is seen twice: stores may be on their way."""
        place = (current.number, current.position)
        seen, self._suspect = self._suspect == place, place
        return seen

    def _pass_damage(self, current: _Segment) -> bool:
        """A frame that will never be whole: the record being stored at death, or damage.

        Returns True with the position at the next whole frame, False when there is none in this segment.
        """
        at = current.position
        behind = segment.find_frame(current.mapped, at, max(current.last, self._skip_to))
        newest = current.number == max(segment.numbers(self.directory), default=0)
        if behind is None and newest and self.owner_dead:
            if current.number not in self._set_aside_already:
                self._set_aside_already.add(current.number)
                self._report(
                    f"{self._name(current.number)}: the record that producer {self.facts.pid} was storing when "
                    f"it died is cut off at byte {at}; its logging call had not returned"
                )
            return False
        goes_on = f"byte {behind}" if behind else "the next segment"
        self._set_aside(current.number, f"damaged at byte {at}, reading goes on at {goes_on}")
        if behind is not None:
            current.position = behind
        return behind is not None

    def _set_aside(self, number: int, reason: str) -> None:
        if number in self._set_aside_already:
            return
        self._set_aside_already.add(number)
        folder = os.path.join(os.path.dirname(os.path.dirname(self.directory)), "damaged")
        copy = os.path.join(folder, f"{os.path.basename(self.directory)}-{segment.file_name(number)}")
        kept = f"kept as {copy}"
        try:
            os.makedirs(folder, 0o700, exist_ok=True)
            with open(segment.open_regular(self._name(number)), "rb") as source, open(copy, "wb") as target:
                shutil.copyfileobj(source, target)
        except (OSError, CorruptDataError) as error:
            kept = f"could not be kept: {error}"
        self._report(f"{self._name(number)}: {reason}; {kept}")

    def _name(self, number: int) -> str:
        return os.path.join(self.directory, segment.file_name(number))

    # -- gaps -----------------------------------------------------------------------------------

    def _explain(self, current: _Segment, position: int, accounted: int, runs: list[Run]) -> bool:
        """Tell what is missing between ``accounted`` and the frame at ``position``, but for what notices tell.

        Returns False while the producer may still be storing notices.
        """
        mapped = current.mapped
        frame = segment.read_frame(mapped, position)
        assert frame is not None
        missing = [(accounted + 1, frame.sequence - 1)]
        while missing and frame is not None and (loss := _notice(frame.payload)) is not None:
            missing = _without(missing, loss)
            position = frame.end
            frame = segment.read_frame(mapped, position)
        if missing and frame is None and not (self.owner_dead or segment.continues(mapped, position)):
            return False
        cause = "drop_old" if current.number <= self._words[header.DISCARDED] else "damaged"
        for first, last in missing:
            self._tell(runs, first, last, cause)
        return True

    def _tell(self, runs: list[Run], first: int, last: int, cause: str) -> None:
        loss = record.Loss(first, last, cause, time.time())
        runs.append(Run(self.facts, last, [record.encode(loss)]))
        if cause in header.FOUND_BY_SHIPPER:
            header.note_gap(self._words, first, last, header.CAUSES.index(cause))

    def _tell_rest(self, runs: list[Run]) -> None:
        """What the producer has counted behind the last frame: dropped and not told, or damaged."""
        emitted = self._words[header.EMITTED]
        if not self._accounted < emitted < 2**63:
            return
        cause = header.CAUSES[self._words[header.CAUSE] % len(header.CAUSES)]
        dropped = any(
            self._words[header.LOST + index]
            for index, name in enumerate(header.CAUSES)
            if name not in header.FOUND_BY_SHIPPER
        )
        self._words[header.TOLD] = emitted
        self._tell(runs, self._accounted + 1, emitted, cause if dropped else "damaged")
        self._accounted = self.read_sequence = emitted

    def rewind(self, sequence: int) -> None:
        """Read again from the first retained frame behind ``sequence``."""
        if self._current is not None:
            self._current.mapped.close()
            self._current = None
        self._read_segments = {
            number: last for number, last in self._read_segments.items() if last <= sequence
        }
        first_needed = max(self._read_segments, default=0)
        self._read_segments = {first_needed: self._read_segments[first_needed]} if first_needed else {}
        self._skip_to = sequence
        self._accounted = max(self._words[header.FIRST] - 1, sequence)
        self.read_sequence = sequence
        self.finished = False
        self._forgotten = None

    def tell_forgotten(self, first: int, last: int) -> None:
        """Have the next `read` begin with a notice: the server had confirmed these, and has lost them."""
        loss = record.Loss(first, last, record.NOT_IN_STREAM, time.time())
        self._forgotten = Run(self.facts, last, [record.encode(loss)])

    # -- positions, marks -----------------------------------------------------------------------

    @property
    def shipped(self) -> int:
        """Highest sequence that the stream has confirmed."""
        return self._words[header.SHIPPED]

    @property
    def written(self) -> int:
        """Highest sequence that every configured writer has checkpointed."""
        return self._words[header.WRITTEN]

    def is_unwritten(self) -> bool:
        """True when something that was read or shipped is not written yet."""
        written = self._words[header.WRITTEN]
        return written < self.read_sequence or written < self._words[header.SHIPPED]

    def set_shipped(self, sequence: int) -> None:
        """Put the shipped position into the header."""
        self._words[header.SHIPPED] = sequence

    def set_written(self, sequence: int) -> None:
        """Put the written position into the header."""
        self._words[header.WRITTEN] = sequence

    def set_sleeping(self, sleeping: bool) -> None:
        """Ask the producer to ring the doorbell, or not to."""
        mark = self._words[header.MARK] & ~header.SLEEPING
        self._words[header.MARK] = mark | (header.SLEEPING if sleeping else 0)

    def has_news(self) -> bool:
        """True when a frame, whole or not, or a new segment stands behind what has been read."""
        current = self._current
        if self._forgotten is not None:
            return True
        if current is None or self.owner_dead:
            return not self.finished
        return current.mapped[current.position : current.position + 4] != b"\0\0\0\0"

    def check_owner(self) -> bool:
        """True when the owner is dead, or has left the spool; it is then retired and ours alone."""
        if not self.owner_dead and (self._header.try_lock() or self._words[header.LEFT]):
            self._words[header.MARK] |= header.RETIRED
            self.owner_dead = True
        return self.owner_dead

    def release(self, sequence: int) -> None:
        """Remove the segments that hold nothing behind ``sequence``."""
        newest = max(self._read_segments, default=0)
        for number, last in sorted(self._read_segments.items()):
            if last > sequence:
                break
            # One that can not be removed now (a disk that is read-only) goes with its spool.
            with contextlib.suppress(OSError):
                os.unlink(self._name(number))
            self._words[header.RELEASED] = number + 1
            if number != newest:  # the newest stays, as a mark of where to go on
                del self._read_segments[number]

    # -- counting -------------------------------------------------------------------------------

    def size(self) -> int:
        """Bytes that it takes on the disk."""
        total = 0
        with contextlib.suppress(OSError), os.scandir(self.directory) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    total += entry.stat(follow_symlinks=False).st_size
        return total

    def dropped(self) -> tuple[dict[str, int], dict[str, int]]:
        """Records that were dropped, by cause: those of the producer, also in its other spools; those of this spool."""
        found = header.found_by_shipper(self._words)
        own = {
            cause: self._words[header.LOST + number]
            for number, cause in enumerate(header.CAUSES)
            if cause not in header.FOUND_BY_SHIPPER and self._words[header.LOST + number]
        }
        return own, {header.CAUSES[number]: count for number, count in enumerate(found) if count}

    # -- letting go -----------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the spool; it stays on disk."""
        self.closed = True
        if self._current is not None:
            self._current.mapped.close()
            self._current = None
        self._header.close()

    def remove(self) -> None:
        """Delete the spool of a dead producer; everything in it is safe."""
        directory = self.directory
        self.close()
        gone = os.path.join(
            os.path.dirname(directory), f"{HIDDEN_PREFIX}{os.path.basename(directory)}{_GONE_SUFFIX}"
        )
        with contextlib.suppress(OSError):
            os.rename(directory, gone)  # nobody finds half a spool when we are killed here
        header.remove_folder(gone)


HIDDEN_PREFIX: Final = "."
#: Of a folder that is being removed: whoever finds it finishes that, header or not.
_GONE_SUFFIX: Final = ".gone"
_NAME: Final = re.compile(r"([^.].*)-(\d{1,18})")
#: Seconds after which a hidden folder without a header is nobody's who is about to fill it.
_LONGEST_CREATION: Final = 3600.0


def spool_names(root: str) -> list[str]:
    """Names of the complete spools below ``root``; of one producer's spools the oldest first."""
    try:
        found = [match for name in os.listdir(root) if (match := _NAME.fullmatch(name))]
    except FileNotFoundError:
        return []
    return [match[0] for match in sorted(found, key=lambda match: (match[1], int(match[2])))]


def sweep_hidden(root: str) -> None:
    """Remove spools that were never finished, or never quite removed, by processes now dead."""
    for name in os.listdir(root):
        if not name.startswith(HIDDEN_PREFIX):
            continue
        directory = os.path.join(root, name)
        if _is_abandoned(directory):
            header.remove_folder(directory)


def _is_abandoned(directory: str) -> bool:
    if directory.endswith(_GONE_SUFFIX):
        return True
    try:
        page = header.Header.open(directory)
    except (OSError, CorruptDataError):
        # Being made this moment, or what a death in that moment has left.
        with contextlib.suppress(OSError):
            return time.time() - os.stat(directory).st_mtime > _LONGEST_CREATION
        return False
    dead = page.try_lock()
    page.close()
    return dead


def _notice(payload: bytes) -> record.Loss | None:
    """Return the notice of dropped records that ``payload`` is, if it is one."""
    if payload[1:2] != b"\x02":  # its tag
        return None
    with contextlib.suppress(ValueError, RecursionError):
        item = record.decode_items(b"\x91" + payload)[0]
        if isinstance(item, record.Loss):
            return item
    return None


def _without(ranges: list[tuple[int, int]], loss: record.Loss) -> list[tuple[int, int]]:
    """Return ``ranges`` without the sequences that ``loss`` names."""
    return [
        part
        for first, last in ranges
        for part in ((first, min(last, loss.first - 1)), (max(first, loss.last + 1), last))
        if part[0] <= part[1]
    ]

"""The shipper's end of a spool: reads frames, puts positions back, releases segments.

Theory of operation. The reader never writes into segments. It goes forward frame by frame; a frame that
is not whole is "nothing yet" while the owner lives, and the end once the owner is dead and the spool is
retired. Segments stay on disk until `release` is told that their last sequence is safe, so `rewind` can
read again everything behind a position, for instance after the server has lost its memory.

A frame that is not whole in a segment which the producer has already left can never become whole: the
rest of that segment is damaged. It is copied to the folder for damaged segments, reported, and reading
goes on in the next one. One bad segment never stops the others.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
from collections.abc import Callable
from typing import Final, NamedTuple
from zlib import crc32

from redislogkit.errors import CorruptDataError
from redislogkit.record import Facts
from redislogkit.spool import header, segment

Report = Callable[[str], None]


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
    def __init__(self, number: int, mapped: mmap.mmap) -> None:
        self.number = number
        self.mapped = mapped
        self.position = segment.FIRST_FRAME
        self.last: int = 0  # highest sequence read from it so far


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
        self._current: _Segment | None = None
        self._read_segments: dict[int, int] = {}  # number → highest sequence, of segments read to the end
        self._skip_to = 0  # frames up to this sequence are passed over
        self.owner_dead = False
        self.finished = False
        """True when the owner is dead and every frame has been read."""
        self.read_sequence = 0
        """Highest sequence read so far."""

    # -- reading --------------------------------------------------------------------------------

    def read(self, max_bytes: int) -> list[Run]:
        """Return the next whole frames, about ``max_bytes`` of them."""
        runs: list[Run] = []
        size = 0
        while size < max_bytes:
            current = self._current or self._open_next()
            if current is None:
                break
            read = self._read_frames(current, runs, max_bytes - size)
            size += read
            if size < max_bytes and not self._leave(current):
                break
        return runs

    def _read_frames(self, current: _Segment, runs: list[Run], limit: int) -> int:
        """Append the whole frames of one segment to ``runs``; return their size in bytes."""
        mapped = current.mapped
        position = start = current.position
        unpack = segment.FRAME.unpack_from
        stop = len(mapped) - segment.FRAME_SIZE
        skip_to = self._skip_to
        expected = runs[-1].last + 1 if runs else -1
        payloads = runs[-1].payloads if runs else []
        while position <= stop and position - start < limit:
            length, crc, sequence = unpack(mapped, position)
            end = position + 16 + length
            if length == 0 or end > len(mapped):
                break
            payload = mapped[position + 16 : end]
            if crc32(payload, sequence & 0xFFFFFFFF) != crc:
                break
            position = end
            current.last = max(current.last, sequence)
            if sequence <= skip_to:
                continue
            if sequence != expected:
                payloads = []
                runs.append(Run(self.facts, sequence, payloads))
            payloads.append(payload)
            expected = sequence + 1
        current.position = position
        self.read_sequence = max(self.read_sequence, current.last)
        return position - start

    def _open_next(self) -> _Segment | None:
        wanted = max(self._read_segments, default=0) + 1
        present = [number for number in segment.numbers(self.directory) if number >= wanted]
        for number in present:
            try:
                mapped, _ = segment.open_for_reading(self.directory, number)
            except FileNotFoundError:
                continue  # given up by the producer a moment ago (drop_old)
            except CorruptDataError as error:
                if number == present[-1] and not self.owner_dead:
                    return None  # being created
                self._set_aside(number, str(error))
                self._read_segments[number] = self.read_sequence
                continue
            self._current = _Segment(number, mapped)
            return self._current
        self.finished = self.owner_dead
        return None

    def _leave(self, current: _Segment) -> bool:
        """Go on behind ``current`` where nothing more will come in it; False while it may still grow."""
        gone_on = segment.continues(current.mapped, current.position)
        if not gone_on:
            if self._followed(current) or self.owner_dead:
                self._judge_rest(current)
            else:
                return False
        self._read_segments[current.number] = current.last
        current.mapped.close()
        self._current = None
        return True

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

    def _judge_rest(self, current: _Segment) -> None:
        """A frame that will never be whole: the record being stored at death, or damage."""
        rest = current.mapped[current.position :]
        if segment.read_frame(current.mapped, current.position) is not None or not rest.strip(b"\0"):
            return
        torn_at_death = self.owner_dead and current.number == max(segment.numbers(self.directory))
        if torn_at_death and not self._frames_behind(current):
            self._report(
                f"{self._name(current.number)}: the record that producer {self.facts.pid} was storing when "
                f"it died is cut off at byte {current.position}; its logging call had not returned"
            )
        else:
            self._set_aside(current.number, f"damaged at byte {current.position}")

    def _frames_behind(self, current: _Segment) -> bool:
        """True when a whole frame can still be found behind the damage."""
        mapped = current.mapped
        length, _, _ = segment.FRAME.unpack_from(mapped, current.position)
        following = current.position + segment.FRAME_SIZE + length
        return segment.read_frame(mapped, following) is not None

    def _set_aside(self, number: int, reason: str) -> None:
        folder = os.path.join(os.path.dirname(os.path.dirname(self.directory)), "damaged")
        copy = os.path.join(folder, f"{os.path.basename(self.directory)}-{segment.file_name(number)}")
        with contextlib.suppress(OSError):
            os.makedirs(folder, 0o700, exist_ok=True)
            shutil.copyfile(os.path.join(self.directory, segment.file_name(number)), copy)
        self._report(f"{self._name(number)}: {reason}; kept as {copy}, reading goes on behind it")

    def _name(self, number: int) -> str:
        return os.path.join(self.directory, segment.file_name(number))

    def rewind(self, sequence: int) -> None:
        """Read again from the first retained frame behind ``sequence``."""
        if self._current is not None:
            self._current.mapped.close()
            self._current = None
        self._read_segments = {
            number: last for number, last in self._read_segments.items() if last <= sequence
        }
        first_needed = max(self._read_segments, default=0)
        self._read_segments = {first_needed: sequence} if first_needed else {}
        self._skip_to = sequence
        self.read_sequence = sequence
        self.finished = False

    # -- positions, marks -----------------------------------------------------------------------

    @property
    def shipped(self) -> int:
        """Highest sequence that the stream has confirmed."""
        return self._words[header.SHIPPED]

    @property
    def written(self) -> int:
        """Highest sequence that every configured writer has checkpointed."""
        return self._words[header.WRITTEN]

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
        if current is None or current.position + 4 > len(current.mapped):
            return not self.finished
        return current.mapped[current.position : current.position + 4] != b"\0\0\0\0"

    def check_owner(self) -> bool:
        """True when the owner is dead; the spool is then retired and its lock is ours."""
        if not self.owner_dead and self._header.try_lock():
            self._words[header.MARK] |= header.RETIRED
            self.owner_dead = True
        return self.owner_dead

    def release(self, sequence: int) -> None:
        """Remove the segments that hold nothing behind ``sequence``."""
        keep = self._current.number if self._current else max(self._read_segments, default=0) + 1
        released = self._words[header.RELEASED]
        for number in range(released, keep):
            if self._read_segments.get(number, 0) > sequence:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._name(number))
            released = number + 1
            # The newest stays, as a mark of where to go on.
            if number != max(self._read_segments, default=0):
                self._read_segments.pop(number, None)
        self._words[header.RELEASED] = released

    def close(self) -> None:
        """Let go of the spool; it stays on disk."""
        if self._current is not None:
            self._current.mapped.close()
            self._current = None
        self._header.close()

    def remove(self) -> None:
        """Delete the spool of a dead producer; everything in it is safe."""
        directory = self.directory
        self.close()
        hidden = os.path.join(os.path.dirname(directory), "." + os.path.basename(directory))
        with contextlib.suppress(OSError):
            os.rename(directory, hidden)  # nobody finds half a spool when we are killed here
        remove_folder(hidden)


def remove_folder(directory: str) -> None:
    """Delete a spool's folder; one that is gone already is fine."""
    with contextlib.suppress(FileNotFoundError):
        # The header goes last: as long as it is there, `sweep_hidden` can finish what was begun.
        for name in sorted(os.listdir(directory), key=lambda name: name == header.NAME):
            os.unlink(os.path.join(directory, name))
        os.rmdir(directory)


HIDDEN_PREFIX: Final = "."


def spool_names(root: str) -> list[str]:
    """Names of the complete spools below ``root``; of one producer's spools the oldest first."""
    try:
        names = [name for name in os.listdir(root) if not name.startswith(HIDDEN_PREFIX)]
    except FileNotFoundError:
        return []
    return sorted(names, key=lambda name: (name.partition("-")[0], int(name.partition("-")[2] or 0)))


def sweep_hidden(root: str) -> None:
    """Remove spools that were never finished, or never quite removed, by processes now dead."""
    for name in os.listdir(root):
        if not name.startswith(HIDDEN_PREFIX):
            continue
        directory = os.path.join(root, name)
        try:
            page = header.Header.open(directory)
        except (OSError, CorruptDataError):
            continue  # being made this moment, or without a header: left alone
        dead = page.try_lock()
        page.close()
        if dead:
            remove_folder(directory)

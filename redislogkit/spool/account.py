"""What has become of each record of one producer: written, lost, or on its way.

Theory of operation. The written position stands in the pages of our spools. All records up to it are written or lost,
all behind it are spooled or lost; so an account needs to know of what is lost how much lies behind that position.
There are three places where losses stand, and the same sequence may stand in two of them:

* those that the producer has not told yet: it hands them in;
* those that notices in segments name: we keep the three numbers of each notice until it is written;
* those that the shipper has found to be missing: the tables of gaps in the pages of our spools. Where a segment was
  given up (``drop_old``) or damaged with notices in it, gap and notices overlap. Then the gap's word counts.

The pages of the spools that were left stay in sight until their folders are gone.

What is known is one value, `_Known`, that is replaced as a whole; a notice is one store as well. So an exception, or
a signal handler that asks for an account, finds each step done or not begun, and steps may be done again. Only
the side that appends changes anything: asking does not.

Of notices that were given up unread we keep how many records they name for each cause, not which: one gap will
cover them all.

``emitted = written + lost + spooled`` holds always. How much of that is lost, and by which cause, may be off where there
are more gaps at once than a page has room for, where a gap is found in a spool that was left `_MOST_LEFT` spools ago,
or where segments with more than `_MOST_TOLD` notices were given up that were shipped and not written.
"""

from __future__ import annotations

import os
import struct
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, NamedTuple

from redislogkit.errors import CorruptDataError
from redislogkit.spool import header

#: Spools that were left whose pages are kept in sight.
_MOST_LEFT: Final = 8
#: Notices that are not written yet, of which each is remembered even where they were given up.
_MOST_TOLD: Final = 65536
#: What is kept of a notice: its first and last sequence, and the number of its cause.
_TOLD: Final = struct.Struct("=QQQ")
_CAUSES: Final = range(len(header.CAUSES))

#: What was dropped: the number of the cause in `header.CAUSES`, first and last sequence.
Loss = tuple[int, int, int]


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


def no_page() -> memoryview:
    """Words of a page where there is none."""
    return memoryview(bytearray(header.SIZE)).cast("Q")


class _Left:
    """A spool that was left to the shipper, up to sequence ``last``.

    Its page is read again by its name, as a mapped one would cost a descriptor. But where segments were given up,
    what the shipper finds to be missing is to be seen for certain, also when it removes the spool right after: that
    page stays mapped.
    """

    def __init__(self, page: header.Header, directory: str, last: int) -> None:
        self.page = page if page.words[header.DISCARDED] else None
        self.words = page.words if self.page else memoryview(bytearray(page.words)).cast("Q")
        self.gone = False
        self._directory = directory
        self._last = last

    def look(self) -> None:
        """See what has become of it."""
        try:
            if self.page is not None:
                os.stat(self._directory)
                return
            page = header.Header.open(self._directory)
        except FileNotFoundError:
            self.gone = True
        except (OSError, CorruptDataError):
            pass
        else:
            self.words = memoryview(bytearray(page.words)).cast("Q")
            page.close()

    def position(self, word: int) -> int:
        """Highest sequence written (or shipped): all, when it is gone, as it is removed when all of it is safe."""
        return max(self.words[word], self._last if self.gone else 0)


class _Known(NamedTuple):
    """What the ledger knows at one moment."""

    present: memoryview
    """Words of the page of the present spool."""
    told: array[int]
    """First sequence, last sequence and cause of each notice that is not known to be written, in this order."""
    reached: dict[int, int]
    """Positions (`header.WRITTEN`, `header.SHIPPED`) in spools that are out of sight."""
    left: tuple[_Left, ...] = ()
    told_to: int = 0
    """Last sequence that any notice has named which is known to be written."""
    told_before: tuple[int, ...] = (0,) * len(_CAUSES)
    """What those notices named, by cause."""
    found_before: tuple[int, ...] = (0,) * len(_CAUSES)
    """What the shipper has found in spools that are out of sight, less what written notices had named of any gap."""


def _nothing() -> _Known:
    return _Known(no_page(), array("Q"), {header.WRITTEN: 0, header.SHIPPED: 0})


class Ledger:
    """Keeps what is needed for the account of one producer, which tells it what happens."""

    def __init__(self) -> None:
        self._known = _nothing()

    # -- what happens: while the producer appends, or leaves its spool ----------------------------

    def enter(self, words: memoryview) -> None:
        """A spool with this page is the present one."""
        self._known = self._known._replace(present=words)

    def tell(self, losses: Sequence[Loss]) -> None:
        """Notices name these. What was told already is not told again."""
        for cause, first, last in losses:
            begin = max(first, self.told_to + 1)
            if begin <= last:
                self._known.told.frombytes(_TOLD.pack(begin, last, cause))

    def go_on(self) -> None:
        """A segment is left: forget what needs not be known one by one any more."""
        known = self._known
        if not known.told and not known.left:
            return
        _look_at(known.left)
        out = [left for left in known.left if left.gone or left not in known.left[-_MOST_LEFT:]]
        written = _position(known, header.WRITTEN)
        end = 3 * _count_up_to(known.told, written)
        counts = list(known.found_before)
        for words in _pages(known):
            for gap in header.gaps(words):
                _add(counts, _named_within(known.told[:end], gap.first, gap.last), -1)
        for left in out:
            _add(counts, header.found_by_shipper(left.words, header.gaps(left.words)))
        told = list(known.told_before)
        _add(told, _named_within(known.told[:end], 0, written))
        # A page that is out of sight is closed when nobody looks at it any more; another thread may.
        self._known = known._replace(
            told=known.told[end:],
            told_to=known.told[end - 2] if end else known.told_to,
            told_before=tuple(told),
            found_before=tuple(counts),
            left=tuple(left for left in known.left if left not in out),
            reached={
                word: max(reached, *(left.position(word) for left in out), 0)
                for word, reached in known.reached.items()
            },
        )

    def give_up(self, first: int, end: int) -> None:
        """Nobody can read ``first`` to ``end`` any more: of the notices there few numbers stay."""
        told = self._known.told
        begin, stop = 3 * min(_count_up_to(told, first - 1), _MOST_TOLD), 3 * _count_up_to(told, end)
        if stop - begin <= 3 * len(_CAUSES):
            return
        sequence, few = told[begin], array("Q")
        for cause, count in enumerate(_named_within(told[begin:stop], 0, end)):
            if count:
                few.frombytes(_TOLD.pack(sequence, sequence + count - 1, cause))
                sequence += count
        told[begin:stop] = few

    def leave(self, page: header.Header, directory: str, last: int) -> bool:
        """The present spool is left, with everything up to ``last``; True when its page stays mapped."""
        if self._known.present is page.words:
            left = (*self._known.left, _Left(page, directory, last))
            self._known = self._known._replace(present=no_page(), left=left)
            self.go_on()
        return bool(page.words[header.DISCARDED])

    def close(self) -> None:
        """Let go of all pages, in a forked child."""
        known, self._known = self._known, _nothing()
        for left in known.left:
            if left.page is not None and left.page.descriptor_is_ours():
                left.page.close()

    # -- what is asked ----------------------------------------------------------------------------

    @property
    def told_to(self) -> int:
        """Last sequence that any notice has named."""
        known = self._known
        return known.told[-2] if known.told else known.told_to

    def told(self) -> list[int]:
        """How many records notices have named, by cause."""
        known = self._known
        counts = list(known.told_before)
        _add(counts, _named_within(known.told, 0, self.told_to))
        return counts

    def position(self, word: int) -> int:
        """Highest sequence that is written (`header.WRITTEN`) or shipped, as the shipper has put it into the pages."""
        known = self._known
        _look_at(known.left)
        return _position(known, word)

    def account(self, emitted: int, lost: Sequence[int], losses: Sequence[Loss], word: int) -> Account:
        """Say what has become of the records up to ``emitted``.

        ``lost`` is what the producer has dropped, by cause, and ``losses`` what of it no notice names yet.
        """
        known, told_to = self._known, self.told_to
        written = min(self.position(word), emitted)
        counts = list(lost)
        _add(counts, known.found_before)
        behind = sum(_named_within(known.told, written + 1, emitted))
        behind += sum(max(last - max(first - 1, written, told_to), 0) for _, first, last in losses)
        for words in _pages(known):
            gaps = header.gaps(words)
            _add(counts, header.found_by_shipper(words, gaps))
            for gap in gaps:
                _add(counts, _named_within(known.told, gap.first, gap.last), -1)
                first = max(gap.first, written + 1)
                behind += max(gap.last - first + 1, 0) - sum(_named_within(known.told, first, gap.last))
        spooled = max(emitted - written - behind, 0)
        by_cause = dict(zip(header.CAUSES, counts, strict=True))
        return Account(emitted, emitted - sum(counts) - spooled, by_cause, spooled)


def _look_at(spools: Sequence[_Left]) -> None:
    for left in spools:
        if not left.gone:
            left.look()


def _pages(known: _Known) -> list[memoryview]:
    return [*(left.words for left in known.left), known.present]


def _position(known: _Known, word: int) -> int:
    return max(known.reached[word], known.present[word], *(left.position(word) for left in known.left))


def _count_up_to(told: array[int], sequence: int) -> int:
    """How many notices name nothing behind ``sequence``."""
    return bisect_left(range(len(told) // 3), sequence + 1, key=lambda index: told[3 * index + 1])


def _named_within(told: array[int], first: int, last: int) -> list[int]:
    """How many of the sequences ``first`` to ``last`` notices name, by cause."""
    counts = [0] * len(_CAUSES)
    for index in range(3 * _count_up_to(told, first - 1), len(told), 3):
        begin, end, cause = told[index : index + 3]
        if begin > last:
            break
        counts[cause] += min(end, last) - max(begin, first) + 1
    return counts


def _add(counts: list[int], more: Sequence[int], sign: int = 1) -> None:
    for cause in _CAUSES:
        counts[cause] += sign * more[cause]

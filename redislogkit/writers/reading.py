"""What of the entries read is not written yet, in order, and which sequences that accounts for. Pure.

A reading leads each producer from the sequence that is known to be written to the highest one read. Between them
are items (records and losses that get a line) and sequences that the writer's filters leave out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count, repeat
from typing import Final, NamedTuple, TypeAlias

from msgspec.structs import replace

from redislogkit.lines import Numbered
from redislogkit.record import NOT_IN_STREAM, End, Facts, Item, Loss, Record, RichRecord
from redislogkit.stream import entries
from redislogkit.writers.chunk import Lost, Span

#: Says whether a record of this level and logger name belongs to the writer.
Selects: TypeAlias = Callable[[int, str], bool]

_RECORDS: Final = frozenset([Record, RichRecord])


class _Step(NamedTuple):
    """One producer's part of ``items[begin:end]``, and the sequences that it accounts for."""

    begin: int
    end: int
    producer: str
    first: int
    last: int


class Reading:
    """The news of one reading.

    Args:
        seen: Returns the highest sequence of a producer that is written, 0 for an unknown one.
        selects: Says which records belong to the writer; None: all of them.
        filter: Is asked for each of these; None: all of them.
    """

    def __init__(
        self,
        seen: Callable[[str], int],
        selects: Selects | None,
        filter: Callable[[Numbered], bool] | None = None,  # noqa: A002 - it is the key of the configuration
    ) -> None:
        self._seen = seen
        self._selects = selects
        self._filter = filter
        self._wanted: dict[bytes, bool] = {}
        self.items: list[Numbered] = []
        self.highest: dict[str, int] = {}
        """Producer → highest sequence read."""
        self.again: dict[str, int] = {}
        """Producer → sequence known to be written, where records have come again: somebody does not know it."""
        self.ended: list[str] = []
        self._steps: list[_Step] = []
        self._losses: list[int] = []  # their places among the items

    def add(self, run: entries.DecodedRun) -> None:
        """Take what is new of one producer's run."""
        facts, first, items = run
        producer = facts.producer
        known = self.highest.get(producer) or self._seen(producer)
        last = first + len(items) - 1
        if last <= known:
            if items and not isinstance(items[-1], End):
                self.again[producer] = known
            return
        # One that was taken for dead may log on in another spool: an end counts while nothing stands behind it.
        if producer in self.ended:
            self.ended.remove(producer)
        if items and isinstance(items[-1], End):
            self.ended.append(producer)
            items = items[:-1]
            last -= 1
            if not items:
                return
        begin = len(self.items)
        if first > known + 1 and known and producer and not _explains(items[0], known + 1):
            # Place and time are those of its neighbours: read again after a kill, it is the same line.
            created = getattr(items[0], "created", 0.0)
            self._add_loss(Loss(known + 1, first - 1, NOT_IN_STREAM, created), facts, first - 1)
        old = max(known + 1 - first, 0)
        self._take(items[old:] if old else items, facts, first + old, known)
        self._step(begin, producer, known + 1 if known else _accounts_from(items[0], first), last)

    def _take(self, items: Sequence[Item], facts: Facts, first: int, known: int) -> None:
        """Take the items that belong to the writer."""
        if self._selects is None and self._filter is None and _RECORDS.issuperset(map(type, items)):
            self.items.extend(zip(items, repeat(facts), count(first)))  # type: ignore[arg-type]
            return
        for sequence, item in enumerate(items, first):
            if isinstance(item, Record):
                if (self._selects is None or self._is_wanted(item)) and (
                    self._filter is None or self._filter((item, facts, sequence))
                ):
                    self.items.append((item, facts, sequence))
            elif isinstance(item, Loss):
                # The server may have lost more than we have missed.
                self._add_loss(replace(item, first=max(item.first, known + 1)), facts, sequence)

    def _is_wanted(self, record: Record) -> bool:
        """Ask once a reading for each logging call in the code: 0.2 us a record less."""
        wanted = self._wanted.get(record.site)
        if wanted is None:
            assert self._selects is not None
            wanted = self._wanted[record.site] = self._selects(record.levelno, record.name)
        return wanted

    def skip(self, producer: str, last: int) -> None:
        """Account for the sequences up to ``last``: another host's writer has written them."""
        self._step(len(self.items), producer, self._seen(producer) + 1, last)

    def _add_loss(self, loss: Loss, facts: Facts, sequence: int) -> None:
        self._losses.append(len(self.items))
        self.items.append((loss, facts, sequence))

    def _step(self, begin: int, producer: str, first: int, last: int) -> None:
        self.highest[producer] = last
        self._steps.append(_Step(begin, len(self.items), producer, first, last))

    # -- what a part of it accounts for ---------------------------------------------------------

    def spans(self, begin: int, end: int) -> list[Span]:
        """Return what ``items[begin:end]`` account for. The spans of parts that follow one another leave no gap."""
        found: dict[str, Span] = {}
        for step in self._steps:
            if self._touches(step, begin, end):
                span = self._part(step, max(begin, step.begin), min(end, step.end))
                before = found.get(span.producer)
                if before:
                    span = Span(span.producer, before.first, span.last, before.lines + span.lines)
                found[span.producer] = span
        return list(found.values())

    def losses(self, begin: int, end: int) -> list[Lost]:
        """Return the losses among ``items[begin:end]``."""
        found = []
        for index in self._losses:
            item, facts, _ = self.items[index]
            if begin <= index < end and isinstance(item, Loss):
                found.append(Lost(facts.producer, item.first, item.last, item.cause))
        return found

    def _touches(self, step: _Step, begin: int, end: int) -> bool:
        if step.begin == step.end:  # nothing of it has a line
            return begin <= step.begin < end or step.begin == end == len(self.items)
        return step.begin < end and step.end > begin

    def _part(self, step: _Step, begin: int, end: int) -> Span:
        first = step.first if begin == step.begin else self.items[begin - 1][2] + 1
        last = step.last if end == step.end else self.items[end - 1][2]
        lines = end - begin - sum(begin <= index < end for index in self._losses)
        return Span(step.producer, first, last, lines)


def _accounts_from(item: object, first: int) -> int:
    return min(item.first, first) if isinstance(item, Loss) else first


def _explains(item: object, first: int) -> bool:
    """True for the producer's own notice that it has dropped records from ``first`` on."""
    return isinstance(item, Loss) and item.first <= first

"""What has to be reached: each figure with its target, and the floor below which it is not good enough. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from stress.bench.figures import Spread

PASS: Final = "pass"  # noqa: S105 - it opens nothing
FLOOR: Final = "floor"
FAIL: Final = "fail"
#: Behind a verdict that not every round gives.
UNSURE: Final = " ?"
#: What was not measured has no verdict.
NONE: Final = "-"


@dataclass(frozen=True)
class Goal:
    """One row of the table."""

    title: str
    unit: str
    target: float
    floor: float
    more: bool = False
    """The more, the better."""

    def verdict(self, value: float) -> str:
        """Return `PASS` at the target or beyond, `FLOOR` between it and the floor, else `FAIL`."""
        sign = 1 if self.more else -1
        if sign * value >= sign * self.target:
            return PASS
        return FLOOR if sign * value >= sign * self.floor else FAIL


GOALS: Final[Mapping[str, Goal]] = {
    "caller-stock": Goal("one call, stock logger, over NullHandler", "us", 1.5, 2.5),
    "caller-fast": Goal("one call, fast logger, against NullHandler", "x", 0.45, 0.6),
    "rate-stock": Goal("end to end, stock logger, against FileHandlers", "x", 2.0, 1.6, more=True),
    "rate-fast": Goal("end to end, fast logger, against FileHandlers", "x", 3.0, 2.2, more=True),
    "cpu-stock": Goal("CPU of all, stock logger, against FileHandlers", "x", 0.4, 0.6),
    "cpu-fast": Goal("CPU of all, fast logger, against FileHandlers", "x", 0.4, 0.6),
    "many-stock": Goal("64 producers against 4, stock logger", "x", 0.9, 0.75, more=True),
    "many-fast": Goal("64 producers against 4, fast logger", "x", 0.9, 0.75, more=True),
    "backlog-rate": Goal("backlog drained by one writer", "records/s", 300_000, 200_000, more=True),
    "backlog-memory": Goal("most memory of that writer", "MB", 150, 150),
    "latency": Goal("call to readable line, 100/s, p99", "ms", 25, 40),
    "buffered": Goal("redis memory of a record, against its line", "x", 0.2, 0.3),
    "stall-server": Goal("p99.9 of a call over the ordinary, redis stopped", "us", 50, 200),
    "stall-writer": Goal("p99.9 of a call over the ordinary, writer stopped", "us", 50, 200),
    "startup": Goal("import and configure(), CPU over import logging", "ms", 40, 80),
    "crowd": Goal("1,000 producers, a record a second each: CPU", "% of a core", 5, 15),
    "idle-producer": Goal("idle producer: CPU", "% of a core", 0.1, 0.3),
    "idle-supervisor": Goal("idle supervisor with two writers: CPU", "% of a core", 0.5, 1.0),
}


@dataclass(frozen=True)
class Figure:
    """A measured row."""

    goal: str
    """Key in `GOALS`."""
    values: Sequence[float]
    """One for each round; none where it could not be measured."""
    note: str = ""
    """What else was seen, or why there is no value."""
    flaw: str = ""
    """What is wrong with the lines that were measured: no speed makes up for that."""

    @property
    def spread(self) -> Spread | None:
        """Median and spread."""
        return Spread.of(self.values) if self.values else None

    @property
    def verdict(self) -> str:
        """The goal's verdict on the median; with a question mark where not every round agrees."""
        if self.spread is None:
            return NONE
        if self.flaw:
            return FAIL
        goal = GOALS[self.goal]
        agreed = len({goal.verdict(value) for value in self.values}) == 1
        return goal.verdict(self.spread.median) + ("" if agreed else UNSURE)

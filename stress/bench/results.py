"""Everything that a run of the benchmark has found, as it is stored and shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from stress.bench.contenders.entry import FAST, OWN, YARDSTICK
from stress.bench.figures import Spread, ratios
from stress.bench.goals import GOALS, Figure
from stress.bench.lines import Check
from stress.bench.race import Run
from stress.bench.shapes import Shape

#: How the reason of something begins that was tried and did not work.
FAILED: Final = "failed: "


@dataclass(frozen=True)
class Standing:
    """One contender's rounds."""

    name: str
    title: str
    runs: Sequence[Run] = ()
    reason: str = ""
    """Why it has none, or not all."""

    def spread(self, of: Callable[[Run], float]) -> Spread:
        """Return the spread of a figure over the rounds."""
        return Spread.of(map(of, self.runs))

    def against(self, yardstick: Standing, of: Callable[[Run], float]) -> Spread:
        """Return the spread of the ratios to the yardstick's figure in the same round."""
        return ratios([of(run) for run in self.runs], [of(run) for run in yardstick.runs])

    def findings(self) -> Check:
        """Return what is wrong with the lines of all rounds."""
        names = ("records", "bytes", "lost", "doubled", "torn", "disordered")
        return Check(*(sum(getattr(run.check, name) for run in self.runs) for name in names))


@dataclass(frozen=True)
class Results:
    """One run of the benchmark."""

    machine: Mapping[str, str]
    shape: Shape
    rounds: int
    standings: Sequence[Standing] = ()
    figures: Sequence[Figure] = field(default_factory=list)

    @property
    def yardstick(self) -> Standing | None:
        """What all ratios refer to, where it was measured."""
        found = self.find(YARDSTICK)
        return found if found and found.runs else None

    @property
    def complete(self) -> bool:
        """False when something that could have been measured was not."""
        reasons = [standing.reason for standing in self.standings]
        reasons += [figure.note for figure in self.figures if not figure.values]
        return not any(reason.startswith(FAILED) for reason in reasons)

    @property
    def others(self) -> float:
        """The largest share of the machine that somebody else had during a race."""
        return max((run.others for standing in self.standings for run in standing.runs), default=0.0)

    def find(self, name: str) -> Standing | None:
        """Return a contender."""
        return next((standing for standing in self.standings if standing.name == name), None)


def compared(standings: Sequence[Standing]) -> list[Figure]:
    """Return the rows that the comparison answers."""
    by_name = {standing.name: standing for standing in standings}
    yardstick = by_name.get(YARDSTICK)
    figures = []
    for name, suffix in ((OWN, "stock"), (FAST, "fast")):
        if (standing := by_name.get(name)) is None or yardstick is None:
            continue
        whole = len(standing.runs) == len(yardstick.runs) > 0
        for goal, of in (("rate", _rate), ("cpu", _cpu)):
            pairs = zip(standing.runs, yardstick.runs, strict=True) if whole else ()
            values = [of(run) / of(base) for run, base in pairs]
            figures.append(Figure(f"{goal}-{suffix}", values, standing.reason, standing.findings().flaw))
    return figures


def in_order(figures: Sequence[Figure]) -> list[Figure]:
    """Return the figures in the order of the goals."""
    return sorted(figures, key=lambda figure: list(GOALS).index(figure.goal))


def _rate(run: Run) -> float:
    return run.rate


def _cpu(run: Run) -> float:
    return run.cpu_per_record


def encode(results: Results) -> bytes:
    """Return the results as JSON, for people too."""
    return msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n"


def decode(data: bytes) -> Results:
    """Undo `encode`. Raises ``msgspec.DecodeError``."""
    return msgspec.json.decode(data, type=Results)

"""The rows by the names that ``--only`` knows: which goals each one answers, and how it is measured."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from stress.bench import apart, race
from stress.bench.contenders.entry import ENTRIES, FAST, OWN
from stress.bench.goals import Figure
from stress.bench.results import FAILED
from stress.bench.rows import caller, crowd, idle, latency, stall, startup, waiting_stream
from stress.bench.shapes import Shape

_TIMEOUT: Final = 300.0
_LONG: Final = 1800.0
_FEW: Final = 4
_MANY: Final = 64
_MOST_ROUNDS: Final = 3


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    shape: Shape
    rounds: int
    backlog: int
    """Records of the backlog."""


@dataclass(frozen=True)
class Measurement:
    """One measurement, which answers one or more goals."""

    title: str
    goals: tuple[str, ...]
    take: Callable[[Size], list[Figure]]


def take(name: str, size: Size) -> list[Figure]:
    """Return its figures; where it fails they say why."""
    measurement = MEASUREMENTS[name]
    try:
        return measurement.take(size)
    except apart.FailedError as failure:
        reason = str(failure)
    except Exception as error:  # not worth the figures of all the others
        traceback.print_exc()
        reason = repr(error)
    return [Figure(goal, [], f"{FAILED}{reason}") for goal in measurement.goals]


def _many(size: Size) -> list[Figure]:
    """As many records in all, logged by few and by many processes, in turns."""
    figures = []
    total = size.shape.records * _FEW
    for name, goal in ((OWN, "many-stock"), (FAST, "many-fast")):
        if reason := ENTRIES[name].missing():
            figures.append(Figure(goal, [], reason))
            continue
        rates: dict[int, list[float]] = {_FEW: [], _MANY: []}
        wrong = []
        for _ in range(min(size.rounds, _MOST_ROUNDS)):
            for producers, found in rates.items():
                run = _race(name, size.shape, producers, total // producers)
                found.append(run.rate)
                wrong += [f"{producers} producers: {run.check.flaw}"] if run.check.flaw else []
        pairs = zip(rates[_MANY], rates[_FEW], strict=True)
        figures.append(Figure(goal, [many / few for many, few in pairs], flaw="; ".join(wrong)))
    return figures


def _race(name: str, shape: Shape, producers: int, records: int) -> race.Run:
    kind = Shape(producers, records, shape.size, shape.format, shape.max_bytes)
    return apart.call(race.run, name, kind, timeout=_TIMEOUT)


def _in_one_process(
    function: Callable[..., list[Figure]], *more: float, timeout: float = _TIMEOUT
) -> Callable[[Size], list[Figure]]:
    return lambda size: apart.call(function, size.shape.size, *more, timeout=timeout)


MEASUREMENTS: Final[Mapping[str, Measurement]] = {
    "caller": Measurement(
        "what a call costs", ("caller-stock", "caller-fast"), _in_one_process(caller.measure, 15)
    ),
    "many": Measurement("64 producers against 4", ("many-stock", "many-fast"), _many),
    "backlog": Measurement(
        "a backlog is drained",
        ("backlog-rate", "backlog-memory"),
        lambda size: apart.call(waiting_stream.backlog, size.shape.size, size.backlog, timeout=_LONG),
    ),
    "latency": Measurement(
        "from the call to the file", ("latency",), _in_one_process(latency.measure, 100.0, 700, 3)
    ),
    "buffered": Measurement(
        "memory of redis", ("buffered",), _in_one_process(waiting_stream.buffered, 10_000.0, 50_000)
    ),
    "stall": Measurement(
        "a call while something is stopped",
        ("stall-server", "stall-writer"),
        _in_one_process(stall.measure, 1.5, 5),
    ),
    "startup": Measurement(
        "import and configure()", ("startup",), lambda size: apart.call(startup.measure, 15, timeout=_TIMEOUT)
    ),
    "crowd": Measurement("1,000 producers", ("crowd",), _in_one_process(crowd.measure, 1000, 20)),
    "idle": Measurement(
        "nothing happens",
        ("idle-producer", "idle-supervisor"),
        lambda size: apart.call(idle.measure, 20.0, timeout=_TIMEOUT),
    ),
}

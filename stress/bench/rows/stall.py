"""A logging call while redis is stopped, and while the writer is, as it is when the log file's disk does not answer.

Calls come in groups, as many a second as a busy program makes. In each round there is an ordinary time in front of each
stop, and the 99.9th percentiles of the two are compared.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from stress.bench.deployment import FILE_WRITER, SERVER, Deployment
from stress.bench.figures import Spread, quantile
from stress.bench.goals import Figure
from stress.bench.shapes import LOGGER, PERCENT, TEXTS, Shape, texts

_GROUP: Final = 100
_TICK: Final = 0.01
_TIMEOUT: Final = 60.0
_STOPPED: Final = {"stall-server": SERVER, "stall-writer": FILE_WRITER}


def measure(folder: str, size: int, seconds: float, rounds: int) -> list[Figure]:
    """Return both rows; each phase lasts ``seconds``."""
    deployment = Deployment(folder, Shape(producers=1, size=size))
    handle = deployment.configure()
    log = logging.getLogger(LOGGER)
    log.setLevel(logging.INFO)
    messages = texts(Shape(size=size).text_length)
    _worst(log.info, messages, seconds)  # everything runs and is warm
    pairs: dict[str, list[tuple[float, float]]] = {goal: [] for goal in _STOPPED}
    for _ in range(rounds):
        for goal, part in _STOPPED.items():
            if not handle.flush(_TIMEOUT):
                raise TimeoutError("not everything is written in time")
            ordinary = _worst(log.info, messages, seconds)
            with deployment.stopped(part):
                pairs[goal].append((ordinary, _worst(log.info, messages, seconds)))
    handle.flush(_TIMEOUT)
    if lost := sum(handle.stats()["lost"].values()):
        raise RuntimeError(f"{lost:,} records were dropped, which is quicker than keeping them")
    return [_figure(goal, found) for goal, found in pairs.items()]


def _figure(goal: str, found: list[tuple[float, float]]) -> Figure:
    ordinary, stalled = (Spread.of(values) for values in zip(*found, strict=True))
    note = f"p99.9 {ordinary.median:.0f} us ordinary, {stalled.median:.0f} us meanwhile"
    return Figure(goal, [meanwhile - before for before, meanwhile in found], note)


def _worst(log: Callable[..., object], messages: list[str], seconds: float) -> float:
    """Return the 99.9th percentile of a call in microseconds."""
    found = []
    clock = time.perf_counter_ns
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        for number in range(number, number + _GROUP):  # noqa: B020 - it counts on
            text = messages[number % TEXTS]
            began = clock()
            log(PERCENT, 0, number, text)
            found.append((clock() - began) / 1000)
        time.sleep(_TICK)
    return quantile(found, 0.999)

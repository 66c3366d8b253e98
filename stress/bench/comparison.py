"""All contenders, round by round: in each round every one of them races once, in an order of its own."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from stress.bench import apart, race
from stress.bench.contenders.entry import ENTRIES, YARDSTICK
from stress.bench.race import Run
from stress.bench.results import FAILED, Standing
from stress.bench.shapes import Shape

#: Seconds beyond the race's own deadline: starting, ending, counting.
_SLACK: Final = 120.0

Race = Callable[[str, Shape], Run]


def run(
    names: Sequence[str],
    shape: Shape,
    rounds: int,
    progress: Callable[[str], None],
    race_once: Race | None = None,
) -> list[Standing]:
    """Return the standings in the order of ``names``. Who fails once is out, and says why.

    Raises ``apart.FailedError`` for the yardstick: there is nothing to compare with then.
    """
    race_once = race_once or _race
    standings = {name: Standing(name, ENTRIES[name].title, (), ENTRIES[name].missing()) for name in names}
    for number in range(1, rounds + 1):
        order = [name for name in names if not standings[name].reason]
        random.Random(number).shuffle(order)
        for name in order:
            progress(f"round {number} of {rounds}: {ENTRIES[name].title}")
            standings[name] = _after(standings[name], shape, race_once)
    return list(standings.values())


def _after(standing: Standing, shape: Shape, race_once: Race) -> Standing:
    try:
        found = race_once(standing.name, shape.scaled(ENTRIES[standing.name].share))
    except apart.FailedError as failure:
        if standing.name == YARDSTICK:
            raise
        return replace(standing, reason=f"{FAILED}{failure}")
    except Exception as error:  # not worth the figures of all the others
        if standing.name == YARDSTICK:
            raise
        traceback.print_exc()
        return replace(standing, reason=f"{FAILED}{error!r}")
    if standing.name == YARDSTICK and not found.check.ok:
        raise apart.FailedError(f"their lines are not as they should be: {found.check.flaw}")
    return replace(standing, runs=[*standing.runs, found])


def _race(name: str, shape: Shape) -> Run:
    return apart.call(race.run, name, shape, timeout=shape.deadline + _SLACK)

"""What a child has counted over all its lives. Pure.

A child that is started again begins to count anew. For whoever reads the figures that must not show: a counter that went
back would look like a new supervisor, and make a rate of what was counted long ago.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from redislogkit.writers.latency import Ages

#: Numbers that begin at 0 with each life of a child.
_NUMBERS: Final = ("shipped", "written", "bytes", "rotations", "rejected")
#: Pairs of cause and number. What is counted in files is there in the next life as well, as far as these still are.
_BY_CAUSE: Final = ("skipped", "dropped")
_KEPT_IN_FILES: Final = "dropped"


class Totals:
    """The counters of one child, since the supervisor was started."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, str], int] = {}
        """What earlier lives had counted in the end."""
        self._now: dict[tuple[str, str], int] = {}
        self._ages_before = self._ages = Ages()

    def begin(self) -> None:
        """A new life begins."""
        for key, number in self._now.items():
            if key[0] != _KEPT_IN_FILES:
                self._before[key] = self._before.get(key, 0) + number
        self._now = {key: number for key, number in self._now.items() if key[0] == _KEPT_IN_FILES}
        self._ages_before, self._ages = self._ages_before.plus(self._ages), Ages()

    def note(self, status: Mapping[str, Any]) -> None:
        """Take what the child says now."""
        found = {(name, ""): status[name] for name in _NUMBERS if name in status}
        found |= {(name, cause): number for name in _BY_CAUSE for cause, number in status.get(name, ())}
        for key, number in found.items():
            if number < (last := self._now.get(key, 0)):  # a spool that was counted is gone
                self._before[key] = self._before.get(key, 0) + last - number
        self._now |= found
        self._ages = Ages(*status.get("latency", ()))

    def number(self, name: str) -> int:
        """Return one of the numbers."""
        return self._before.get((name, ""), 0) + self._now.get((name, ""), 0)

    def by_cause(self, name: str) -> dict[str, int]:
        """Return numbers by cause."""
        keys = sorted({key for key in (*self._before, *self._now) if key[0] == name})
        return {key[1]: self._before.get(key, 0) + self._now.get(key, 0) for key in keys}

    def ages(self) -> Ages:
        """Return the histogram of a writer."""
        return self._ages_before.plus(self._ages)

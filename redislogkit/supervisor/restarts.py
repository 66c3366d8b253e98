"""When a child that has ended is started again. Pure: times and jitter are passed in.

A child that fails is started again after a pause that grows with each failure in a row. One that needs more
than ``max_restarts`` restarts within ``restart_window``, or that says it can not work as configured, is *set
aside*: tried again at a slow pace for ever, since what is wrong may be mended from outside.
"""

from __future__ import annotations

from collections import deque
from typing import Final

#: A child that has run for so many seconds has not failed in a row.
STABLE_AFTER: Final = 10.0
SET_ASIDE_PAUSE: Final = 15.0
_FIRST_PAUSE: Final = 0.1
_FIRST_REFUSED_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 10.0


class Restarts:
    """The history of one child's ends. Times in seconds, from any clock that never goes back."""

    def __init__(self) -> None:
        self._ends: deque[float] = deque()
        self._in_a_row = 0
        self.set_aside = False

    def pause(
        self,
        now: float,
        ran: float,
        max_restarts: int,
        restart_window: float,
        *,
        refused: bool,
        jitter: float = 1.0,
    ) -> float:
        """Take note of an end after ``ran`` seconds of work; return the seconds until the next start.

        ``refused`` means that the child can not work as configured; ``jitter`` in 0.5 to 1 shortens the pause.
        """
        if ran > STABLE_AFTER:
            self.runs_again()
        self._in_a_row += 1
        self._ends.append(now)
        while self._ends[0] <= now - restart_window:
            self._ends.popleft()
        if refused or len(self._ends) > max_restarts:
            self.set_aside = True
        doubled = 2.0 ** min(self._in_a_row - 1, 10)
        if not self.set_aside:
            return jitter * min(_FIRST_PAUSE * doubled, _LONGEST_PAUSE)
        return jitter * (min(_FIRST_REFUSED_PAUSE * doubled, SET_ASIDE_PAUSE) if refused else SET_ASIDE_PAUSE)

    @property
    def recent(self) -> int:
        """Ends within the window up to the last one."""
        return len(self._ends)

    def runs_again(self) -> None:
        """The child works: what was before does not count any more."""
        self._in_a_row = 0
        self.set_aside = False

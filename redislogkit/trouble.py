"""Why somebody has to wait: said once for each reason, and not at all where it is over soon."""

from __future__ import annotations

import time
from collections.abc import Callable


class Trouble:
    """What has failed since the last success; ``report`` takes one line."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._since = 0.0
        self._told: set[str] = set()
        self.reason = ""
        """The newest one; empty as long as it is not worth a line."""
        self.failures = 0

    def add(self, reason: str, patience: float) -> bool:
        """Count a failure; True while that is not worth a line, for the first ``patience`` seconds."""
        now = time.monotonic()
        if not self.failures:
            self._since = now
        patient = now - self._since <= patience
        if not patient:
            self.reason = reason
            if reason not in self._told:
                self._told.add(reason)
                self._report(f"waiting: {reason}")
        self.failures += 1
        return patient

    def is_over(self, line: str) -> None:
        """It works again; ``line`` says so to who was told that it did not."""
        if self.reason:
            self._report(line)
        self._told.clear()
        self.reason, self.failures = "", 0

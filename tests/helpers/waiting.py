"""Waiting for a fact instead of guessing a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], *, deadline: float = 20.0, what: str = "") -> T:
    """Call ``condition`` until it returns something true, and return that.

    ``deadline`` (seconds) only bounds a hang; it is no measure of speed. Raises ``AssertionError`` naming
    ``what`` and the last value.
    """
    end = time.monotonic() + deadline
    pause = 0.002
    while not (value := condition()):
        if time.monotonic() >= end:
            wanted = what or getattr(condition, "__name__", "the condition")
            raise AssertionError(f"{wanted}: not within {deadline:g} s, last value {value!r}")
        time.sleep(pause)
        pause = min(0.05, pause * 1.5)
    return value

"""Where the records of a producer are: the sum that holds at any moment."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Mapping
from typing import Any


def check(stats: Mapping[str, Any]) -> None:
    """``emitted = written + dropped, by cause + still spooled``, as `stats()` tells them."""
    parts = [stats["written"], *stats["lost"].values(), stats["spooled"]]
    assert all(type(part) is int and part >= 0 for part in [stats["emitted"], *parts]), stats
    assert stats["emitted"] == sum(parts), stats


def check_at_exit(handler: Any) -> None:
    """Check a handler's counts when the program ends; what is wrong stands on its stderr."""
    reference = weakref.ref(handler)

    def look() -> None:
        if (still := reference()) is not None:
            check(still.stats())

    atexit.register(look)

"""Medians with their spread, and quantiles. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """A figure from several rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Raises ``ValueError`` without any value."""
        found = sorted(values)
        if not found:
            raise ValueError("a spread needs at least one value, got none")
        return cls(statistics.median(found), found[0], found[-1])

    def scaled(self, factor: float) -> Spread:
        """Return the same in another unit."""
        return Spread(*(value * factor for value in self))


def ratios(values: Sequence[float], references: Sequence[float]) -> Spread:
    """Return the spread of each round's value over the reference of the same round."""
    return Spread.of(value / reference for value, reference in zip(values, references, strict=True))


def quantile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of all values do not exceed. Raises ``ValueError``."""
    found = sorted(values)
    if not found or not 0 < share <= 1:
        raise ValueError(f"a quantile needs values and a share above 0 up to 1, got {len(found)} and {share}")
    return found[math.ceil(share * len(found)) - 1]

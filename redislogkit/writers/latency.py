"""How old records are when they are written: a histogram of few numbers. Pure."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Final, NamedTuple

#: Upper bounds in seconds; what is older counts in the sum and the count only.
BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)


class Ages(NamedTuple):
    """What a histogram holds: how many in each bucket, the last one without a bound, and the sum of all in seconds."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    sum: float = 0.0

    def add(self, seconds: float) -> Ages:
        """Return these and one more. A clock that was set back makes no age negative."""
        seconds = max(seconds, 0.0)
        place = bisect_left(BOUNDS, seconds)
        counts = self.counts
        return Ages((*counts[:place], counts[place] + 1, *counts[place + 1 :]), self.sum + seconds)

    def plus(self, other: Ages) -> Ages:
        """Return these and those of ``other``."""
        counts = tuple(mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True))
        return Ages(counts, self.sum + other.sum)

    def as_json(self) -> dict[str, Any]:
        """``{"buckets": [[bound in seconds, cumulative count], ...], "sum": seconds, "count": all}``."""
        buckets, total = [], 0
        for bound, count in zip(BOUNDS, self.counts, strict=False):
            total += count
            buckets.append([bound, total])
        return {"buckets": buckets, "sum": round(self.sum, 6), "count": sum(self.counts)}

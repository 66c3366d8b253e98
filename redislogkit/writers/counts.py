"""What every destination counts, for whoever wants to know how its writer is doing."""

from __future__ import annotations

from collections import Counter


class Counts:
    """Since the destination was made."""

    __slots__ = ("bytes", "rejected", "rotations", "skipped")

    def __init__(self) -> None:
        self.bytes = 0
        """Bytes written."""
        self.rotations = 0
        self.rejected = 0
        """Records that it can never write."""
        self.skipped: Counter[str] = Counter()
        """Records that have no place to be written to, by cause."""

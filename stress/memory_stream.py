"""A stream that stands in memory, as a writer sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from redislogkit.stream.client import Claim, Confirmation, RawEntry, StreamClient


class MemoryStream:
    """Gives its entries to each new connection from the beginning, as a stream that has lost its group does."""

    def __init__(self, stream: list[RawEntry], at_once: int = 3) -> None:
        self._entries = stream
        self._at_once = at_once
        self._next = 0

    def connect(self) -> StreamClient:
        """Return a new connection."""
        self._next = 0
        return cast("StreamClient", self)

    def is_read(self) -> bool:
        """True when all entries have been read."""
        return self._next >= len(self._entries)

    def join(self, writer: str, after: str = "0") -> None:
        """Nothing is to be made."""

    def claim(self, writer: str, owner: str, seconds: float, token: int = 0) -> Claim:
        """Give the lease to whoever asks."""
        return Claim(1, owner)

    def written(self, writer: str) -> dict[str, int]:
        """Nothing is remembered."""
        return {}

    def read(
        self, writer: str, after: str, count: int, block: float, wake: Sequence[int] = ()
    ) -> list[RawEntry]:
        """Return the next entries, ``at_once`` at most; none is ever pending."""
        if after != ">":
            return []
        begin = self._next
        self._next += min(count, self._at_once)
        return self._entries[begin : self._next]

    def confirm(self, writer: str, confirmation: Confirmation) -> None:
        """Nothing is remembered."""

    def close(self) -> None:
        """Nothing is open."""

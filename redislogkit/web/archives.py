"""Searching the log files of this host from the page: what was logged before the stream's records, and long ago."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from redislogkit.config import Config, FileWriterConfig
from redislogkit.redaction import Redactor
from redislogkit.stream.client import StreamClient
from redislogkit.view import parsing
from redislogkit.view.filter import Filter
from redislogkit.view.whole import Line, Whole
from redislogkit.web.rows import row, without_secrets

#: Rows of one search.
MOST: Final = 5_000


class Found(NamedTuple):
    """What a search has found."""

    rows: list[dict[str, Any]]
    """Oldest first. Numbers end just below the one that was asked for."""
    full: bool
    """There may be more, further back."""
    reports: list[str]
    """What could not be read."""


class Archives:
    """The file writers of ``config``; ``connect`` makes a client of the stream. ``redactor`` as that of the feed."""

    def __init__(
        self, config: Config, connect: Callable[[], StreamClient], redactor: Redactor | None = None
    ) -> None:
        self._config, self._connect, self._redactor = config, connect, redactor
        files = [
            (writer.level, len(writer.loggers), name)
            for name, writer in config.writers.items()
            if isinstance(writer, FileWriterConfig)
        ]
        self.writers = [name for *_, name in sorted(files)]
        """Names, those that leave out least first."""

    def search(self, name: str, wanted: Filter, number: int, before: float) -> Found:
        """Return the newest rows of a writer's files that are wanted, from before a moment; they get numbers below ``number``.

        Raises ``ConfigError`` for a filter by something that the writer's format does not show, and what `Whole` raises.
        """
        # A time in a file has milliseconds at best: what is in the page already must not come again.
        wanted = wanted._replace(until=math.floor(before * 1000) / 1000)
        reports: list[str] = []
        whole = Whole(self._config, name, wanted, reports.append, self._connect)
        parsing.check(whole.parser, wanted, f"the format of writer {name!r}")
        try:
            whole.open()
            lines = whole.last(MOST)
        finally:
            whole.close()
        if whole.not_understood:
            reports.append(f"{whole.not_understood} lines are left out: they are none of this format")
        shown = [one for one in map(self._clean, lines) if one.seen is None or wanted.matches(one.seen)]
        first = number - len(shown)
        return Found(
            [_row(first + index, line) for index, line in enumerate(shown)], len(lines) == MOST, reports
        )

    def _clean(self, line: Line) -> Line:
        if self._redactor is None:
            return line
        seen = None if line.seen is None else without_secrets(line.seen, self._redactor)
        return line._replace(text=self._redactor.text(line.text), seen=seen)


def _row(number: int, line: Line) -> dict[str, Any]:
    if line.seen is not None:
        return row(number, line.seen)
    return {"n": number, "t": 0.0, "l": 0, "m": line.text}

"""``LoguruSink``: takes the messages of loguru as records, with what its own hand-over to a handler would bury in text."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from redislogkit.producer.handler import SpoolHandler


class LoguruSink:
    """A sink for loguru: level names, extras and exceptions become those of the record.

    ``logger.add(SpoolHandler(...))`` works as well, but loguru then puts the traceback into the message, and what was
    bound into one extra of the name ``extra``.

    Args:
        target: As for `redislogkit.configure`: a path, a mapping, or None; or a handler that is there already,
            such as ``redislogkit.configure("log.toml").handler``.

    Raises:
        ConfigError, SpoolError, LockHeldError: As `SpoolHandler` does.

    Example::

        from loguru import logger
        logger.add(redislogkit.LoguruSink("log.toml"), format="{message}")
    """

    def __init__(
        self, target: SpoolHandler | str | os.PathLike[str] | Mapping[str, Any] | None = None
    ) -> None:
        self._owned = not isinstance(target, SpoolHandler)
        self.handler = target if isinstance(target, SpoolHandler) else SpoolHandler(target)

    def write(self, message: Any) -> None:
        """Take one message; loguru calls this."""
        raw = message.record
        level = raw["level"]
        if level.no < self.handler.level:
            return
        error = raw["exception"]
        record = logging.LogRecord(
            raw["name"] or "",
            level.no,
            raw["file"].path,
            raw["line"],
            raw["message"],
            None,
            (error.type, error.value, error.traceback) if error else None,
            raw["function"],
        )
        record.levelname = level.name
        for name, value in raw["extra"].items():
            record.__dict__.setdefault(name, value)
        self.handler.handle(record)

    def stop(self) -> None:
        """Close the handler, if it was made here; ``logger.remove()`` calls this."""
        if self._owned:
            self.handler.close()

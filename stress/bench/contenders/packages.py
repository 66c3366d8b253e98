"""Packages that write one file from several processes without a server: concurrent-log-handler, loguru.

They are loaded by name, as they need not be installed.
"""

from __future__ import annotations

import glob
import importlib
import logging
import os
import re
from typing import ClassVar, Final

from stress.bench.contenders.base import Producer, use
from stress.bench.contenders.stdlib import OneFile
from stress.bench.shapes import BRACES

_FIELD: Final = re.compile(r"%\((\w+)\)[-#0-9.]*[a-z]")
_LOGURU_FIELDS: Final = {
    "asctime": "{time:YYYY-MM-DD HH:mm:ss,SSS}",
    "levelname": "{level}",
    "name": "{name}",
    "process": "{process}",
    "processName": "{process.name}",
    "thread": "{thread}",
    "threadName": "{thread.name}",
    "message": "{message}",
    "funcName": "{function}",
    "lineno": "{line}",
    "filename": "{file}",
    "pathname": "{file.path}",
    "module": "{module}",
}


class ConcurrentLogHandler(OneFile):
    """``ConcurrentRotatingFileHandler``: a lock file around each record."""

    def attach(self, index: int) -> Producer:
        """Open the file."""
        module = importlib.import_module("concurrent_log_handler")
        handler: logging.Handler = module.ConcurrentRotatingFileHandler(
            self.path, maxBytes=self.shape.max_bytes, backupCount=self.shape.backups
        )
        handler.setFormatter(logging.Formatter(self.shape.format))
        return use(handler)


class Loguru(OneFile):
    """loguru with ``enqueue=True``: a queue to a thread of the process that was there first, which is ours."""

    template: ClassVar[str] = BRACES

    def open(self) -> None:
        """Add the file as the only sink, as the documentation does for processes that are forked."""
        self._logger = importlib.import_module("loguru").logger
        self._logger.remove()
        self._logger.add(
            self.path,
            format=loguru_format(self.shape.format),
            level="INFO",
            enqueue=True,
            rotation=self.shape.max_bytes,
            retention=self.shape.backups,
        )

    def attach(self, index: int) -> Producer:
        """Use the logger that was inherited."""
        return Producer(self._logger.info, finish=self._logger.complete)

    def settle(self) -> None:
        """Wait until the thread has written everything."""
        self._logger.complete()

    def helpers(self) -> list[int]:
        """The thread that writes is here."""
        return [os.getpid()]

    def files(self) -> list[str]:
        """Rotated files have their time in front of the suffix."""
        return [*sorted(glob.glob(os.path.join(self.folder, "app.*.log"))), self.path]


def loguru_format(fmt: str) -> str:
    """Translate a format of ``logging``. Raises ``ValueError`` for fields that loguru does not have."""

    def field(match: re.Match[str]) -> str:
        name = match[1]
        if name not in _LOGURU_FIELDS:
            raise ValueError(f"loguru has no field like {name!r}")
        return _LOGURU_FIELDS[name]

    return _FIELD.sub(field, fmt).replace("%%", "%")

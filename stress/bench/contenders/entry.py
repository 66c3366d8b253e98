"""The list of contenders."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from stress.bench import deployment
from stress.bench.contenders.base import Contender
from stress.bench.contenders.own import Redislogkit, RedislogkitFast
from stress.bench.contenders.packages import ConcurrentLogHandler, Loguru
from stress.bench.contenders.stdlib import Null, PrivateFiles, Queue, SharedFile
from stress.bench.contenders.streams import OneEntryEach, RedisLogs, RedisLogsInBatches

#: What slow ones log of the records: a rate is a rate, and nobody waits for minutes.
_SLOW: Final = 0.2


@dataclass(frozen=True)
class Entry:
    """A contender as it stands in the list."""

    title: str
    kind: type[Contender]
    share: float = 1.0
    """Share of the records that it logs."""
    package: str = ""
    """Distribution that it needs, and the module that it has."""
    module: str = ""

    def missing(self) -> str:
        """Say why it can not take part, empty when it can."""
        if self.module and importlib.util.find_spec(self.module) is None:
            return "not installed"
        if issubclass(self.kind, Redislogkit) and not deployment.available(self.kind.overrides):
            return "not available"
        return ""


YARDSTICK: Final = "files"
LIMIT: Final = "null"
OWN: Final = "redislogkit"
FAST: Final = "redislogkit-fast"

ENTRIES: Final[Mapping[str, Entry]] = {
    YARDSTICK: Entry("FileHandler, a file each", PrivateFiles),
    LIMIT: Entry("NullHandler, keeps nothing", Null),
    "rotating": Entry("RotatingFileHandler, shared", SharedFile),
    "queue": Entry("QueueHandler + multiprocessing.Queue", Queue, _SLOW),
    "concurrent": Entry(
        "concurrent-log-handler",
        ConcurrentLogHandler,
        _SLOW,
        "concurrent-log-handler",
        "concurrent_log_handler",
    ),
    "loguru": Entry("loguru, enqueue=True", Loguru, _SLOW, "loguru", "loguru"),
    "redis-logs": Entry("redis-logs + bare reader", RedisLogs, _SLOW, "redis-logs", "rlh"),
    "redis-logs-100": Entry("redis-logs, batches of 100", RedisLogsInBatches, 1.0, "redis-logs", "rlh"),
    "entry-each": Entry("queue thread, one XADD per record", OneEntryEach, _SLOW),
    OWN: Entry("redislogkit", Redislogkit),
    FAST: Entry("redislogkit, fast_logger", RedislogkitFast),
}


def versions() -> dict[str, str]:
    """Return distribution → version of the packages that contenders need, as far as they are installed."""
    found = {}
    for package in sorted({entry.package for entry in ENTRIES.values() if entry.package}):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

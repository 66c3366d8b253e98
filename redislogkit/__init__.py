"""Log records of many processes, through a Redis or Valkey stream, into the right file and terminal.

The public face: everything here is imported from where it lives, what needs redis only when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from redislogkit.bootstrap import Handle, configure, flush, look_at_levels, shutdown
from redislogkit.errors import ConfigError, LockHeldError, RedislogkitError, Reject, SpoolError
from redislogkit.producer.conditional import ConditionalFormatter
from redislogkit.producer.handler import SpoolHandler
from redislogkit.producer.seed import AsyncBufferedRedisHandler

if TYPE_CHECKING:
    from redislogkit.logged import LoggedRecord
    from redislogkit.standalone import AsyncRedisFileWriter, AsyncRedisTTYWriter

__version__ = "0.1.0"

__all__ = [
    "AsyncBufferedRedisHandler",
    "AsyncRedisFileWriter",
    "AsyncRedisTTYWriter",
    "ConditionalFormatter",
    "ConfigError",
    "Handle",
    "LockHeldError",
    "LoggedRecord",
    "RedislogkitError",
    "Reject",
    "SpoolError",
    "SpoolHandler",
    "configure",
    "flush",
    "look_at_levels",
    "shutdown",
]


def __getattr__(name: str) -> Any:
    if name in ("AsyncRedisFileWriter", "AsyncRedisTTYWriter"):
        return getattr(importlib.import_module("redislogkit.standalone"), name)
    if name == "LoggedRecord":
        return importlib.import_module("redislogkit.logged").LoggedRecord
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

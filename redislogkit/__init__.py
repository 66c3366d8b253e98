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
    from redislogkit.capture import capture_exceptions
    from redislogkit.logged import LoggedRecord
    from redislogkit.producer.loguru_sink import LoguruSink
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
    "LoguruSink",
    "RedislogkitError",
    "Reject",
    "SpoolError",
    "SpoolHandler",
    "capture_exceptions",
    "configure",
    "flush",
    "look_at_levels",
    "shutdown",
]


#: What few programs need is loaded when it is asked for.
_LATER = {
    "AsyncRedisFileWriter": "redislogkit.standalone",
    "AsyncRedisTTYWriter": "redislogkit.standalone",
    "LoggedRecord": "redislogkit.logged",
    "LoguruSink": "redislogkit.producer.loguru_sink",
    "capture_exceptions": "redislogkit.capture",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

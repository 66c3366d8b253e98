"""What a program of a user's does with the public interface, for a type checker: ``make smoke`` has it checked."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from typing_extensions import assert_type

import redislogkit
from redislogkit import (
    AsyncBufferedRedisHandler,
    AsyncRedisFileWriter,
    AsyncRedisTTYWriter,
    ConditionalFormatter,
    ConfigError,
    Handle,
    LockHeldError,
    LoggedRecord,
    LoguruSink,
    RedislogkitError,
    Reject,
    SpoolError,
    SpoolHandler,
)


def set_up(config: Path) -> Handle:
    """From a path, a text, a mapping or nothing; with values of the program over it."""
    assert_type(redislogkit.configure(), Handle)
    assert_type(redislogkit.configure(str(config), producer={"level": "INFO"}), Handle)
    with redislogkit.configure({"writers": {"app": {"type": "file", "path": "app.log"}}}) as handle:
        assert_type(handle, Handle)
        assert_type(handle.flush(timeout=1.5), bool)
        assert_type(handle.stats(), dict[str, Any])
        assert_type(handle.handler, SpoolHandler)
        assert_type(handle.config.stream.name, str)
    assert_type(redislogkit.look_at_levels(), None)
    assert_type(redislogkit.flush(), bool)
    assert_type(redislogkit.shutdown(1), bool)
    return redislogkit.configure(config)


def handlers() -> list[logging.Handler]:
    """Handlers are those of logging."""
    spool = SpoolHandler("log.toml", level="INFO")
    spool.setFormatter(ConditionalFormatter("%(message)s", optional_fields=["shelf"]))
    sink = LoguruSink(spool)
    sink.stop()
    undo = redislogkit.capture_exceptions()
    assert_type(undo(), None)
    return [spool, AsyncBufferedRedisHandler(redis_host="localhost", filename=Path("app.log"))]


def post(records: list[LoggedRecord], url: str) -> None:
    """A target of a user's."""
    for record in records:
        assert_type(record.as_dict(), dict[str, Any])
        if record.level > logging.ERROR or not url:
            raise Reject(f"{record.message}: {record.extra.get('shelf')}", [record], rest_written=True)


def without_health_checks(record: LoggedRecord) -> bool:
    """A filter of a user's."""
    return "/healthz" not in record.message


def writers() -> None:
    """Writers of one's own, and some on a stream that is there."""
    redislogkit.configure(
        writers={"hook": {"type": "custom", "target": post, "filter": without_health_checks}, "short": print}
    )
    AsyncRedisFileWriter(stream_name="app", filename="app.log").close()
    AsyncRedisTTYWriter(stream_name="app").close()


def errors(error: Exception) -> str:
    """Errors are caught by what they are."""
    try:
        raise error
    except ConfigError as wrong:
        assert_type(wrong.problems, list[str])
        return wrong.problems[0]
    except (LockHeldError, SpoolError) as other:
        return str(other)
    except RedislogkitError:
        return redislogkit.__version__

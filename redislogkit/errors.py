"""Every error that redislogkit raises.

::

    RedislogkitError
    ├── ConfigError (also ValueError)   the configuration is wrong; lists every problem found
    ├── LockHeldError                   somebody else owns the file, spool or supervisor; names the owner
    ├── SpoolError                      the spool can not be opened or written
    ├── CorruptDataError                bytes of a segment, entry or checkpoint that are not what they claim
    ├── EmbeddedServerError             the embedded server can not be found or does not start
    ├── SocketFolderError               the folder of a socket can not be made, or is not ours alone
    ├── DestinationClosedError          nobody will ever read what a writer writes
    ├── NotSupervisedError              no supervisor listens where one was asked something
    ├── Reject                          raised by a user's writer: these records can not be written, ever
    ├── TargetAwayError                 a user's writer has failed; the same records are tried again
    └── StreamError                     redis or valkey answered with an error
        ├── ServerAwayError             try again later: no connection, time-out, LOADING, OOM, READONLY, NOAUTH …
        ├── GroupMissingError           the stream or the writer's group is gone; make it again
        └── LeaseLostError              another host writes for this writer by now; step back

Whether to try again is the type, not a flag: ``ServerAwayError`` is retried for as long as it takes,
everything else is reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class RedislogkitError(Exception):
    """Base of every error raised by redislogkit."""


class ConfigError(RedislogkitError, ValueError):
    """The configuration is wrong. ``problems`` holds one explained line for each fault found."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[list[str]]]:
        return type(self), (self.problems,)


class LockHeldError(RedislogkitError):
    """Another living process holds the lock; the message names it."""


class SpoolError(RedislogkitError):
    """The spool can not be opened or written (permissions, full disk, ...)."""


class CorruptDataError(RedislogkitError):
    """Stored bytes are not what they claim to be; they are reported and set aside, never executed."""


class EmbeddedServerError(RedislogkitError):
    """The embedded server can not be found or does not start."""


class SocketFolderError(RedislogkitError):
    """The private folder of a socket can not be made, or belongs to somebody else."""


class DestinationClosedError(RedislogkitError):
    """The stream that a writer writes to is closed, and waiting does not help."""


class NotSupervisedError(RedislogkitError):
    """No supervisor answers for this stream on this host; the message says how to start one."""


class Reject(RedislogkitError):  # noqa: N818 - it reads as what it does: ``raise Reject(...)``
    """Raised by a user's writer: these records can not be written, now or later; they go to the dead-letter file.

    Args:
        reason: Why, for the dead-letter file.
        records: Which ones of the batch, or which one. None of them named: the batch as a whole is refused; it is divided until
            it is known which ones are refused on their own.
        rest_written: The other records of the batch are written; by default they are tried again.

    Example::

        raise Reject("HTTP 400: no such field", [record])
    """

    def __init__(self, reason: str, records: Any = (), *, rest_written: bool = False) -> None:
        self.reason = reason
        self.records = tuple(records) if isinstance(records, Iterable) else (records,)
        self.rest_written = rest_written
        super().__init__(reason)


class TargetAwayError(RedislogkitError):
    """A user's writer has failed. ``pause`` says in how many seconds to try again.

    ``alone`` says that whether it is the record's fault could be told if there were others.
    """

    def __init__(self, reason: str, pause: float, *, alone: bool = False) -> None:
        self.pause = pause
        self.alone = alone
        super().__init__(reason)


class StreamError(RedislogkitError):
    """The server refused a command."""


class ServerAwayError(StreamError):
    """The server can not serve now; trying again later is right."""


class LeaseLostError(StreamError):
    """Another host holds the writer's lease by now; what was not confirmed is not ours to write."""


class GroupMissingError(StreamError):
    """The stream, or the writer's consumer group on it, does not exist (any more)."""

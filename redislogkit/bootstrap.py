"""``configure()``: everything that an application process needs, from one file."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from typing import Any

from redislogkit import config as configuration
from redislogkit.config import Config
from redislogkit.producer.handler import SpoolHandler

_lock = threading.Lock()
_current: Handle | None = None


class Handle:
    """What `configure` returns: the handler in place, and the ways to wait for it and to take it down.

    Usable in ``with``; leaving the block is `close`.
    """

    def __init__(self, config: Config, handler: SpoolHandler) -> None:
        self.config = config
        self.handler = handler

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything logged so far by this process is written.

        With ``ack = "stream"`` it waits until the stream has it. ``timeout`` is in seconds, by default
        ``producer.shutdown_timeout``. Returns False when the time has not been enough; nothing is lost then.
        """
        return self.handler.wait_until_written(_seconds(timeout, self.config))

    def close(self, timeout: float | None = None) -> bool:
        """Flush, take the handler off the root logger and leave the spool to the shipper."""
        global _current
        logging.getLogger().removeHandler(self.handler)
        done = self.flush(timeout)
        self.handler.close()
        with _lock:
            if _current is self:
                _current = None
        return done

    def stats(self) -> dict[str, Any]:
        """Counts of this process: ``emitted``, ``written``, ``lost`` by cause, ``spooled``, ``spool_bytes``."""
        return self.handler.stats()

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def configure(source: str | os.PathLike[str] | Mapping[str, Any] | None = None, **overrides: Any) -> Handle:
    """Log from this process as a configuration says.

    Puts one handler on the root logger and sets the levels of ``[loggers]``. Calling it again with the
    same content changes nothing; with another content the old handler is taken down first. Children that
    are forked later need no call of their own.

    Args:
        source: Path of a TOML file, a mapping of the same shape, or None for the file that
            ``$REDISLOGKIT_CONFIG`` names, else ``log.toml``.
        overrides: Sections or dotted keys that win: ``configure("log.toml", producer={"level": "INFO"})``.

    Raises:
        ConfigError: The configuration is wrong; nothing has been changed.
        SpoolError: ``state_dir`` can not be used; nothing has been changed.

    Example::

        import logging, redislogkit
        redislogkit.configure("log.toml")
        logging.getLogger("shop").info("ready")
    """
    global _current
    config = configuration.load(source, overrides)
    with _lock:
        previous = _current
        if previous is not None and configuration.digest(previous.config) == configuration.digest(config):
            _install(config, previous.handler)
            return previous
    handle = Handle(config, SpoolHandler(config))
    if previous is not None:
        logging.getLogger().removeHandler(previous.handler)
        previous.handler.close()
    _install(config, handle.handler)
    with _lock:
        _current = handle
    return handle


def flush(timeout: float | None = None) -> bool:
    """Wait as `Handle.flush` does for the present configuration; True when there is none."""
    return _current is None or _current.flush(timeout)


def shutdown(timeout: float | None = None) -> bool:
    """Close the present configuration as `Handle.close` does; True when there is none."""
    return _current is None or _current.close(timeout)


def _install(config: Config, handler: SpoolHandler) -> None:
    root = logging.getLogger()
    if handler not in root.handlers:
        root.addHandler(handler)
    for name, level in config.loggers.items():
        logging.getLogger(None if name == "root" else name).setLevel(level)


def _seconds(timeout: float | None, config: Config) -> float:
    return config.producer.shutdown_timeout if timeout is None else timeout


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)

"""``configure()``: everything that an application process needs, from one file."""

from __future__ import annotations

import copy
import importlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from redislogkit import config as configuration
from redislogkit.config import Config
from redislogkit.producer import levels
from redislogkit.producer.handler import SpoolHandler
from redislogkit.record import render_exception, render_message

_configuring = threading.RLock()
_holding = threading.RLock()
_current: Handle | None = None
_captures: dict[str, Callable[[], None]] = {}
"""What undoes each capture that is on because the configuration says so."""


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
        with _configuring:
            if _current is self:
                _current = None
                _capture(set())
        done = self.flush(timeout)
        self.handler.close()
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

    Puts one handler on the root logger, sets the levels of ``[loggers]``, and captures what ``[producer]`` says is
    to be captured. Calling it again with the same content changes nothing; with another content the old handler is
    taken down first. Children that are forked later need no call of their own.

    Args:
        source: Path of a TOML file, a mapping of the same shape, or None for the file that
            ``$REDISLOGKIT_CONFIG`` names, else ``log.toml``.
        overrides: Sections or dotted keys that win: ``configure("log.toml", producer={"level": "INFO"})``.

    Raises:
        ConfigError: The configuration is wrong; nothing has been changed.
        SpoolError: ``state_dir`` can not be used; nothing has been changed.
        LockHeldError: The stream is supervised for another configuration (the sections redis, stream and
            writers differ) that others still use, and not for an older content of the same file; nothing has been
            changed.

    Example::

        import logging, redislogkit
        redislogkit.configure("log.toml")
        logging.getLogger("shop").info("ready")
    """
    global _current
    config = configuration.load(source, overrides)
    with _configuring:
        previous = _current
        if previous is not None and configuration.digest(previous.config) == configuration.digest(config):
            _install(config, previous.handler)
            return previous
        handler = SpoolHandler(config) if previous is None else _follow(previous, config)
        _install(config, handler)
        _current = Handle(config, handler)
        return _current


def flush(timeout: float | None = None) -> bool:
    """Wait as `Handle.flush` does for the present configuration; True when there is none."""
    return _current is None or _current.flush(timeout)


def shutdown(timeout: float | None = None) -> bool:
    """Close the present configuration as `Handle.close` does; True when there is none."""
    return _current is None or _current.close(timeout)


def look_at_levels() -> None:
    """Obey at once what ``redislogkit level`` has changed in the meantime.

    A process that logs looks once a second by itself. One whose calls are all below its levels has no records to
    look with: it can call this now and then, with each request, say. Costs 2 us, and never raises.
    """
    levels.look()


def _follow(previous: Handle, config: Config) -> SpoolHandler:
    """Replace a handler by one for other content. Where that fails the old one is put back."""
    old = previous.handler
    holder = _Holder()
    _put_in_place_of(old, holder)
    try:
        previous.flush()  # into the old files, while their writers are there; and for the order
        old.close()  # so that nobody needs the old supervisor, which has to make way for another one
        successor = SpoolHandler(config, follows=old)
    except BaseException:
        holder.hand_over(old)
        raise
    holder.hand_over(successor)
    return successor


class _Holder(logging.Handler):
    """Stands on the root logger while one handler makes way for another, and keeps what other threads log."""

    def __init__(self) -> None:
        super().__init__()
        self._records: list[logging.LogRecord] = []
        self._target: SpoolHandler | None = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Keep a copy with the message as it is now, or pass on when the successor is there."""
        with _holding:
            if self._target is not None:
                return self._target.handle(record)
            kept = copy.copy(record)
            kept.msg, kept.args = render_message(record), None
            kept.exc_text, kept.exc_info = render_exception(record), None
            self._records.append(kept)
        return True

    def hand_over(self, target: SpoolHandler) -> None:
        """Put ``target`` in place and give it what was kept."""
        with _holding:
            for record in self._records:
                target.handle(record)
            self._target = target
            _put_in_place_of(self, target)


def _put_in_place_of(old: logging.Handler, new: logging.Handler) -> None:
    # One assignment: a thread that goes through the handlers this moment finds the one or the other.
    handlers = logging.getLogger().handlers
    if old in handlers:
        handlers[handlers.index(old)] = new


def _install(config: Config, handler: SpoolHandler) -> None:
    root = logging.getLogger()
    if handler not in root.handlers:
        root.addHandler(handler)
    for name, level in config.loggers.items():
        levels.configured(name, level)
    levels.follow(handler.levels_path)
    levels.look()
    producer = config.producer
    wanted = {"capture_exceptions": producer.capture_uncaught, "capture_warnings": producer.capture_warnings}
    _capture({name for name, on in wanted.items() if on})


def _capture(wanted: set[str]) -> None:
    for name in _captures.keys() - wanted:
        _captures.pop(name)()
    for name in wanted - _captures.keys():
        _captures[name] = getattr(importlib.import_module("redislogkit.capture"), name)()


def _seconds(timeout: float | None, config: Config) -> float:
    return config.producer.shutdown_timeout if timeout is None else timeout


def _renew_lock() -> None:
    global _configuring, _holding
    _configuring, _holding = threading.RLock(), threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)

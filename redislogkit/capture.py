"""Exceptions that nobody catches, as records: hooks that log, and then do what happens without them.

Each hook calls the one that was there before it, so tracebacks still appear on stderr and other tools still see the
exception. Undone, a hook that somebody has wrapped meanwhile can not be taken out of the middle: it stays, and only
passes on.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

LOGGER: Final = "redislogkit.uncaught"
#: They end a program or a thread on purpose.
_MEANT: Final = (KeyboardInterrupt, SystemExit)


def capture_exceptions() -> Callable[[], None]:
    """Log exceptions that nobody catches, with the logger ``redislogkit.uncaught``; return what undoes it.

    ``CRITICAL`` for the one that ends the program, ``ERROR`` for one that ends a thread or that Python can only print
    (of a ``__del__``, say). What happens without it happens afterwards. ``KeyboardInterrupt`` and ``SystemExit`` are
    left out. asyncio logs exceptions of tasks by itself.

    ``producer.capture_uncaught = true`` has `configure` call it, and `Handle.close` undo it.

    Example::

        undo = redislogkit.capture_exceptions()
        ...
        undo()
    """
    undo = [
        _hook(sys, "excepthook", lambda kind, error, trace: (logging.CRITICAL, "uncaught exception", kind, error, trace)),
        _hook(threading, "excepthook", _of_thread),
        _hook(sys, "unraisablehook", _unraisable),
    ]  # fmt: skip

    def undo_all() -> None:
        for each in undo:
            each()

    return undo_all


def capture_warnings() -> Callable[[], None]:
    """Log what `warnings` shows, as ``logging.captureWarnings`` does; return what undoes it."""
    if getattr(logging, "_warnings_showwarning", None) is not None:
        return lambda: None  # somebody else's doing, and his to undo
    logging.captureWarnings(True)
    return lambda: logging.captureWarnings(False)


def _of_thread(args: threading.ExceptHookArgs) -> tuple[Any, ...]:
    name = "?" if args.thread is None else args.thread.name
    return (
        logging.ERROR,
        f"uncaught exception in thread {name}",
        args.exc_type,
        args.exc_value,
        args.exc_traceback,
    )


def _unraisable(args: sys.UnraisableHookArgs) -> tuple[Any, ...]:
    text = f"{args.err_msg or 'exception ignored in'}: {args.object!r}"
    return logging.ERROR, text, args.exc_type, args.exc_value, args.exc_traceback


def _hook(place: Any, name: str, read: Callable[..., tuple[Any, ...]]) -> Callable[[], None]:
    """Put a hook in front of ``place.name``; return what takes it away."""
    before = getattr(place, name)
    active = True

    def hook(*args: Any) -> Any:
        if active:
            with contextlib.suppress(Exception):  # a filter of the user's, or a repr
                level, text, kind, error, trace = read(*args)
                if not issubclass(kind, _MEANT):
                    logging.getLogger(LOGGER).log(level, "%s", text, exc_info=(kind, error, trace))
        return before(*args)

    def undo() -> None:
        nonlocal active
        active = False
        if getattr(place, name) is hook:
            setattr(place, name, before)

    setattr(place, name, hook)
    return undo

"""Levels of loggers that are others for a while, in a process that logs.

Nothing runs for this but what runs anyway: the look that a handler takes once a second, by the clock of the records. A
process whose calls are all below its levels has no records; it can ask for a look (`look_at_levels`).

The garbage collector could look for such a process (``gc.callbacks``). But where a signal arrives during a collection, its
handler would run in that callback, and what it raises would be lost: of 250 exceptions in a busy loop, 55 to 115 were. No
Ctrl-C of an application is worth that.

A level that is raised would silence a process for good where all its calls are below it: nothing would be left to notice
the end. So the loggers that it holds for remember what is enabled in a mapping that looks once a second when it is asked.
Calls that are not enabled cost some tenths of a microsecond more meanwhile.

Setting a level takes the lock of ``logging``. It is never waited for, and never entered a second time by a thread that
is inside already (a signal handler, an object's ``__del__``): the next look tries again.

A level is put back where it is still the one that was set here: whoever has changed it meanwhile keeps his own.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from redislogkit import levels
from redislogkit.levels import Change

#: Seconds between two looks of a logger whose level is raised.
_WATCH: Final = 1.0
_NOBODY: Final = (0, 0, 0)


class _File(NamedTuple):
    """What was read of a file of levels."""

    identity: tuple[int, int, int]
    changes: Mapping[str, Change]
    next_end: float
    """When the first of them is over."""


class _Set(NamedTuple):
    """A level that was set here, and the one that was there before."""

    before: int
    level: int


class _Watched(dict[int, bool]):
    """What a logger remembers of levels, as ``Logger._cache``, while one is raised: who asks it looks now and then."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self._logger = logger
        self._next_look = time.monotonic() + _WATCH

    def __getitem__(self, level: int) -> bool:
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _WATCH
            look()
        enabled = self.get(level)
        if enabled is None:  # as ``Logger.isEnabledFor`` finds out
            logger = self._logger
            enabled = self[level] = logger.manager.disable < level >= logger.getEffectiveLevel()
        return enabled


_UNREAD: Final = _File(_NOBODY, {}, float("inf"))

_files: Final[dict[str, _File]] = {}
_in_force: dict[str, Change] = {}
_set: Final[dict[str, _Set]] = {}


def follow(path: str) -> None:
    """From now on obey the file ``path``, with the next look."""
    _files.setdefault(path, _UNREAD)


def look() -> None:
    """Obey the files that are followed. Costs a ``stat`` of each where nothing has changed. Never raises."""
    with contextlib.suppress(
        Exception
    ):  # of a machine that has run out of something; there will be another look
        _look()


def leave(path: str) -> None:
    """Follow the file ``path`` no longer."""
    _files.pop(path, None)
    look()


def configured(name: str, level: int) -> None:
    """Set a level that the configuration says; while it is another one for a while, that is what to put back."""
    logger = logging.getLogger(name)
    known = _set.get(name)
    if known is not None and logger.level == known.level:
        _set[name] = known._replace(before=level)
    else:
        logger.setLevel(level)


def _look() -> None:
    now = time.time()
    for path, known in list(_files.items()):
        found = _look_at(path, known, now)
        if found is not known:
            _files[path] = found
    wanted = {name: change for file in _files.values() for name, change in file.changes.items()}
    if wanted != _in_force:
        _obey(wanted)


def _look_at(path: str, known: _File, now: float) -> _File:
    """Return what the file says now: ``known`` itself where that is nothing new."""
    try:
        status = os.stat(path)
        identity = (status.st_ino, status.st_mtime_ns, status.st_size)
    except FileNotFoundError:
        identity = _NOBODY
    if identity == known.identity and now < known.next_end:
        return known
    changes: dict[str, Change] = {}
    if identity != _NOBODY:
        with contextlib.suppress(FileNotFoundError):
            changes = {name: change for name, change in levels.read(path).items() if change.until > now}
    return _File(identity, changes, min((change.until for change in changes.values()), default=float("inf")))


def _obey(wanted: dict[str, Change]) -> None:
    """Set and put back, unless somebody is inside of ``logging`` just now."""
    global _in_force
    lock: Any = logging._lock  # type: ignore[attr-defined]
    if lock._is_owned() or not lock.acquire(blocking=False):
        return
    try:
        before, _in_force = _in_force, wanted
        for name in [name for name in _set if name not in wanted]:
            _put_back(name)
        for name, change in wanted.items():
            if before.get(name) != change:
                _put_on(name, change.level)
    finally:
        lock.release()


def _put_on(name: str, level: int) -> None:
    logger = logging.getLogger(name)
    known = _set.get(name)
    before = known.before if known is not None and logger.level == known.level else logger.level
    _set[name] = _Set(before, level)
    raised = level > logger.getEffectiveLevel()
    logger.setLevel(level)
    if raised:
        for each in _and_below(logger):
            each._cache = _Watched(each)  # type: ignore[attr-defined]


def _put_back(name: str) -> None:
    before, level = _set.pop(name)
    logger = logging.getLogger(name)
    if logger.level == level:
        logger.setLevel(before)
    for each in _and_below(logger):
        if isinstance(each._cache, _Watched):  # type: ignore[attr-defined]
            each._cache = {}  # type: ignore[attr-defined]


def _and_below(logger: logging.Logger) -> list[logging.Logger]:
    """Return a logger and those below it; of ``logging``'s lock."""
    known = [each for each in logger.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    if logger is logger.root:
        return [logger, *known]
    return [logger, *(each for each in known if each.name.startswith(f"{logger.name}."))]

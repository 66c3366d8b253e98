"""The fast logger: ``debug()`` to ``critical()`` without a ``LogRecord``, where nothing could tell the difference.

Theory of operation. `install` makes every plain logger of this process, and those that come, one of ours, which differs
in these five methods only. A call looks whether anything could notice that no record is made: a filter, another
handler on the way, ``extra`` or another keyword, a replaced record factory, a patched method of ``logging.Logger``, a
message that is no ``str``. Then, and whenever anything is out of the ordinary, it takes the way of the stdlib, as if
it were its method: its code claims the stdlib's file name, so that whoever looks for the caller in the stack (as
``Logger.findCaller`` does) passes over it. Otherwise it encodes what a writer needs straight from the call.

Where a call stands in the code (file, line, function, level, logger: its `record.Site`) is found out once for each
place and kept with the logger, by code object and instruction. A subclass of ``logging.Logger`` that somebody else has
made stays as it is.

Each look costs about 20 ns, all of them together 0.4 us of 1.6, where ``logging`` alone takes 3.2.
"""

from __future__ import annotations

import functools
import gc
import logging
import mmap
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, FunctionType
from typing import Any, Final

from redislogkit import record
from redislogkit.producer.handler import SpoolHandler

_Logger: Final = logging.Logger
_LogRecord: Final = logging.LogRecord
_SOURCE: Final = logging.addLevelName.__code__.co_filename
_HAS_TASKS: Final = sys.version_info >= (3, 12)

#: Methods of a logger that a call passes through; where one is set on an instance, that logger becomes an ordinary one.
_ON_THE_WAY: Final = ("_log", "callHandlers", "filter", "findCaller", "handle", "isEnabledFor", "makeRecord")
#: Where a call has stood so often, with code made at run time, they are found out anew.
_MOST_SITES: Final = 1024
#: What a single argument may be; a mapping would be the dictionary of a ``%(name)s``.
_SIMPLE: Final = frozenset([str, int, float, bool, type(None)])


def _stock(owner: type, name: str) -> Any:
    """Return the function if it is the stdlib's own, else what nothing is equal to: it was patched before."""
    function = getattr(owner, name)
    own = isinstance(function, FunctionType) and function.__code__.co_filename == _SOURCE
    return function if own and function.__qualname__ == f"{owner.__name__}.{name}" else object()


def _look_into(owner: type, names: tuple[str, ...]) -> Callable[[], bool]:
    """Return a function that tells whether methods of a class are still the stdlib's own.

    The names are global variables to it: its globals are the dictionary of the class. There the interpreter looks them up
    in 3 ns each, as attributes of a class in 30.
    """
    (attributes,) = gc.get_referents(owner.__dict__)
    looks = " and ".join(f"{name} is own_{number}" for number, name in enumerate(names))
    own = ", ".join(f"own_{number}=None" for number in range(len(names)))
    made: dict[str, Any] = {}
    exec(f"def look({own}): return {looks}", made)  # noqa: S102 - names of ours
    return FunctionType(
        made["look"].__code__, attributes, "look", tuple(_stock(owner, name) for name in names)
    )


#: What a call of a method passes through.
_SKIPPED: Final = ("_log", "makeRecord", "handle", "callHandlers", "findCaller")
_is_enabled: Final = _stock(_Logger, "isEnabledFor")
_record_is_stock: Final = _look_into(_LogRecord, ("getMessage", "__init__"))

_encode_into: Final = record.encode_into
_get_frame: Final = sys._getframe
_get_ident: Final = threading.get_ident
_modules: Final = sys.modules


def _fork_guard() -> mmap.mmap:
    """Return a byte that is 1, and 0 in a child, also of a fork that ran no Python code.

    Where the kernel can not do that, it is 0 at once, and every call takes the ordinary way.
    """
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        page.madvise(18)  # MADV_WIPEONFORK, since Linux 4.14
        page[0] = 1
    except (OSError, ValueError):
        pass
    return page


_same_process: Final = _fork_guard()


class _Nobody:
    _name = None


class _Mine(threading.local):
    """What a record says about its thread."""

    me: tuple[Any, Any, bytes] = (_Nobody, "", b"")
    """The thread, its name as it was, and identifier and name encoded."""

    def renew(self) -> tuple[Any, Any, bytes]:
        thread = threading.current_thread()
        self.me = (thread, thread.name, record.encode_fields((_get_ident(), thread.name)))
        return self.me


_mine: Final = _Mine()


def _in_task() -> bool:
    """True where a record would name a task."""
    asyncio = _modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


def _learn(logger: Any, level: int, frame: FrameType) -> None:
    """Remember where a call stands: code, instruction, names of level and logger, and the encoded `record.Site`."""
    try:
        code, at = frame.f_code, frame.f_lasti
        level_name = logging._levelToName.get(level)
        fields = (level, level_name, logger.name, code.co_filename, frame.f_lineno, code.co_name)
        internal = code.co_filename == _SOURCE or "importlib" in code.co_filename
        known: Any = None if internal else code  # the caller is further up: never a call that we know
        sites = logger.__dict__.setdefault("_sites", {})
        if len(sites) >= _MOST_SITES:
            sites.clear()
        sites[id(code) + at] = (known, at, level_name, logger.name, record.encode_fields(fields))
    except MemoryError:  # the next call learns it; suppress() would need memory, too
        pass


def _method(level: int, stock: Any) -> Any:  # noqa: C901 - see the docstring
    """Return the method for ``level``. Everything stands in it, as each function more would cost 60 ns."""
    methods_are_stock = _look_into(_Logger, (stock.__name__, *_SKIPPED))

    def method(self: Any, msg: Any, *args: Any, **kwargs: Any) -> None:
        known_enabled = self._cache.get(level) and not self.disabled and _Logger.isEnabledFor is _is_enabled
        if not known_enabled and not self.isEnabledFor(level):
            return
        frame = _get_frame(1)
        try:
            logger, handlers = self, self.handlers
            while not handlers and logger.propagate:
                logger = logger.parent
                handlers = logger.handlers
            (handler,) = handlers
            code, at = frame.f_code, frame.f_lasti
            known, known_at, level_name, name, site = self._sites[id(code) + at]
            multiprocessing = _modules.get("multiprocessing.process")
            ordinary = (
                kwargs
                or self.filters
                or msg.__class__ is not str
                or (len(args) == 1 and args[0].__class__ not in _SIMPLE)
                or (logger.propagate and logger.parent is not None)
                or (self.__class__ is not _FastLogger and self.__class__ is not _FastRootLogger)
                or handler.__class__ is not SpoolHandler
                or level < handler.level
                or handler.filters
                or handler.formatter is not None
                or handler._own_shipper is not None
                or not handler._pid
                or not _same_process[0]
                or code is not known
                or at != known_at
                or level_name is not logging._levelToName.get(level)
                or name is not self.name
                or (
                    multiprocessing is not None
                    and multiprocessing._current_process._name != handler._process_name
                )
                or not _record_is_stock()
                or logging._logRecordFactory is not _LogRecord  # type: ignore[attr-defined]
                or not (logging.logThreads and logging.logProcesses and logging.logMultiprocessing)
                or not logging._srcfile
                or threading.get_ident is not _get_ident
                or not methods_are_stock()
                or (_HAS_TASKS and _in_task())
            )
        except Exception:
            ordinary = True
            _learn(self, level, frame)
        if ordinary:
            self._log(level, msg, args, **kwargs)
            return
        created = time.time()
        if args:
            try:
                msg = msg % args
            except Exception as error:
                msg = record.misfit(msg, args, error)
        try:
            me = _mine.me
            if me[0]._name is not me[1]:
                me = _mine.renew()
            fields = (1, created, msg, site, me[2])
            payload: Any = bytearray()  # as in `record.encode_fields`
            try:
                _encode_into(fields, payload)
            except Exception:
                payload = record.encode_fields(fields)
            if len(payload) > handler._max_payload:
                payload = handler.cut_down(fields)
            handler._end.append(payload, level)
        except Exception:  # nothing of it is stored; there the handler says what went wrong
            self._log(level, msg, ())
            return
        if not handler._looked_at <= created < handler._look_at:
            handler.look_for_shipper()

    name = stock.__name__
    as_stock = {"co_filename": _SOURCE, "co_name": name}
    if sys.version_info >= (3, 11):
        as_stock["co_qualname"] = stock.__qualname__
    method.__code__ = method.__code__.replace(**as_stock)
    return functools.wraps(stock)(method)


class _FastMethods(logging.Logger):
    debug = _method(logging.DEBUG, _Logger.debug)
    info = _method(logging.INFO, _Logger.info)
    warning = _method(logging.WARNING, _Logger.warning)
    error = _method(logging.ERROR, _Logger.error)
    critical = _method(logging.CRITICAL, _Logger.critical)


class _FastLogger(_FastMethods):
    def __setattr__(self, name: str, value: object) -> None:
        if name in _ON_THE_WAY:
            object.__setattr__(self, "__class__", logging.Logger)
        object.__setattr__(self, name, value)


class _FastRootLogger(_FastMethods, logging.RootLogger):
    def __setattr__(self, name: str, value: object) -> None:
        if name in _ON_THE_WAY:
            object.__setattr__(self, "__class__", logging.RootLogger)
        object.__setattr__(self, name, value)


for _made, _like in ((_FastLogger, logging.Logger), (_FastRootLogger, logging.RootLogger)):
    _made.__name__, _made.__qualname__, _made.__module__ = _like.__name__, _like.__qualname__, "logging"


def install() -> None:
    """Make the plain loggers of this process, and those that will be made, fast ones. May be done again."""
    if logging.getLoggerClass() is logging.Logger:
        logging.setLoggerClass(_FastLogger)
    kinds: dict[type, type] = {logging.Logger: _FastLogger, logging.RootLogger: _FastRootLogger}
    for logger in [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]:
        kind = kinds.get(type(logger))
        if kind is not None and not any(name in logger.__dict__ for name in _ON_THE_WAY):
            object.__setattr__(logger, "__class__", kind)

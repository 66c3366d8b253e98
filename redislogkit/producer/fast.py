"""The fast logger: ``debug()`` to ``critical()`` without a ``LogRecord``, where nothing could tell the difference.

Theory of operation. `install` makes every plain logger of this process, and those that come, one of ours, which differs
in these five methods only. A call looks whether anything could notice that no record is made: a filter, another
handler on the way, ``extra`` or another keyword, a replaced record factory, a patched method of the logger, its class
or the handler, a message that is no ``str``, a span of OpenTelemetry around it. Then, and whenever anything is out of the ordinary, it takes the way of
the stdlib, as if it were its method: its code claims the stdlib's file name and line, so that whoever looks for the
caller in the stack (as ``Logger.findCaller`` does) passes over it, and a traceback reads the same. Otherwise it encodes
what a writer needs straight from the call.

Where a call stands in the code (file, line, function, level, logger: its `record.Site`) is found out once for each
place and kept with the logger, by code object and instruction. A subclass of ``logging.Logger`` that somebody else has
made stays as it is.

Each look costs about 20 ns, all of them together 0.4 us of 1.6, where ``logging`` alone takes 3.2.
"""

from __future__ import annotations

import builtins
import functools
import gc
import logging
import mmap
import operator
import os
import sys
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType, FunctionType
from typing import Any, Final, cast

from redislogkit import record
from redislogkit.producer import compiled, tracing
from redislogkit.producer.handler import SpoolHandler

_Logger: Final = logging.Logger
_LogRecord: Final = logging.LogRecord
_SOURCE: Final = logging.addLevelName.__code__.co_filename
_HAS_TASKS: Final = sys.version_info >= (3, 12)
_IN_NANOSECONDS: Final = sys.version_info >= (3, 13)
#: By which `logging` passes over its own frames; another one, or none, is somebody's setting.
_srcfile: Final = logging._srcfile if logging._srcfile == _SOURCE else object()

#: Methods of a logger that a call passes through; where one is set on an instance, that logger becomes an ordinary one.
_SKIPPED: Final = ("_log", "callHandlers", "findCaller", "handle", "isEnabledFor", "makeRecord")
_INHERITED: Final = ("filter",)
_ON_THE_WAY: Final = (*_SKIPPED, *_INHERITED)
#: Where a call has stood so often, with code made at run time, they are found out anew.
_MOST_SITES: Final = 1024
#: What a single argument may be; a mapping would be the dictionary of a ``%(name)s``.
_SIMPLE: Final = frozenset([str, int, float, bool, type(None)])


def _stock(owner: type, name: str) -> Any:
    """Return the function if it is the stdlib's own, else what nothing is equal to: it was patched before."""
    function = getattr(owner, name)
    own = isinstance(function, FunctionType) and function.__code__.co_filename == _SOURCE
    return function if own and function.__name__ == name else object()


def _attributes(owner: type) -> dict[str, Any]:
    """Return the dictionary of a class itself, which is as quick as any."""
    (attributes,) = gc.get_referents(owner.__dict__)
    return cast("dict[str, Any]", attributes)


def _look_into(owner: type, names: tuple[str, ...], absent: tuple[str, ...] = ()) -> Callable[[], bool]:
    """Return a function that tells whether methods of a class are still the stdlib's own, and others still inherited.

    The names are global variables to it: its globals are the dictionary of the class. There the interpreter looks them up
    in 3 ns each, as attributes of a class in 30. A name that is ``absent`` is found among the builtins.
    """
    every = (*names, *absent)
    looks = " and ".join(f"{name} is own_{number}" for number, name in enumerate(every))
    own = ", ".join(f"own_{number}=None" for number in range(len(every)))
    made: dict[str, Any] = {}
    exec(f"def look({own}): return {looks}", made)  # noqa: S102 - names of ours
    expected = [_stock(owner, name) for name in names] + [getattr(builtins, name) for name in absent]
    return FunctionType(made["look"].__code__, _attributes(owner), "look", tuple(expected))


_record_is_stock: Final = _look_into(_LogRecord, ("getMessage", "__init__"))
_filter: Final = _stock(logging.Filterer, "filter")
_of_filterer: Final = _attributes(logging.Filterer)

_encode_into: Final = record.encode_into
_get_frame: Final = sys._getframe
_get_ident: Final = threading.get_ident
_modules: Final = sys.modules
_TRACING: Final = tracing.API
_is_traced: Final = tracing.is_traced


def _fork_guard() -> mmap.mmap:
    """Return a byte that is 1, and 0 in a child, also of a fork that ran no Python code.

    Where the kernel can not do that, it is 0 for ever, and every call takes the ordinary way.
    """
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        page.madvise(18)  # MADV_WIPEONFORK, since Linux 4.14
    except (OSError, ValueError):
        return page
    page[0] = 1
    # The handlers' own hook was there first: they have begun anew.
    os.register_at_fork(after_in_child=functools.partial(operator.setitem, page, 0, 1))
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
        known = thread if hasattr(thread, "_name") else _Nobody
        self.me = (known, thread.name, record.encode_thread(_get_ident(), thread.name))
        return self.me


_mine: Final = _Mine()


def _in_task() -> bool:
    """True where a record would name a task."""
    asyncio = _modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


def _shift(level: int) -> int:
    """What is added to an instruction, as one may call methods of several levels, and of levels of the same name."""
    return level << 20


def _learn(logger: Any, level: int, frame: FrameType) -> None:
    """Remember where a call stands: code, instruction, names of level and logger, and the encoded `record.Site`."""
    try:
        code, at = frame.f_code, frame.f_lasti + _shift(level)
        level_name = logging._levelToName.get(level)
        where = (logger.name, code.co_filename, frame.f_lineno, code.co_name)
        site = record.encode_site(level, logging.getLevelName(level), *where)
        internal = code.co_filename == _SOURCE or "importlib" in code.co_filename
        known: Any = None if internal else code  # the caller is further up: never a call that we know
        # Not by its ``__dict__``: an object that was asked for that is slower ever after.
        if not hasattr(logger, "_sites"):
            logger._sites = {}
        sites = logger._sites
        if len(sites) >= _MOST_SITES:
            sites.clear()
        sites[id(code) + at] = (known, at, level_name, logger.name, site)
    except MemoryError:  # the next call learns it; suppress() would need memory, too
        pass


#: For each method, whether all that its calls pass through is the stdlib's own.
_are_stock: Final[list[Callable[[], bool]]] = []


def _method(level: int, name: str) -> Any:  # noqa: C901, PLR0915 - see the docstring
    """Return the method for ``level``. Everything stands in it, as each function more would cost 60 ns."""
    like: Any = getattr(_Logger, name)
    stock = _stock(_Logger, name)
    shift = _shift(level)
    methods_are_stock = _look_into(_Logger, (name, *_SKIPPED), _INHERITED)
    _are_stock.append(methods_are_stock)
    quick: Any = compiled.MODULE and compiled.MODULE.for_level(level)

    def method(self: Any, msg: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: C901, PLR0912, PLR0915
        rest: Any = False if quick is None else quick(self, msg, args, kwargs)
        if rest is None:
            return None
        if rest.__class__ is SpoolHandler:  # stored
            try:  # noqa: SIM105 - as in `SpoolHandler.emit`
                rest.look_for_shipper()
            except (RecursionError, MemoryError):
                pass
            return None
        if rest:  # merged, and not stored
            msg, created, site, handler = rest
        else:
            stocked = methods_are_stock()
            if not stocked and _Logger.debug is not stock:  # "debug" stands for the method's own name
                return super(_FastMethods, self).debug(msg, *args, **kwargs)
            kind = self.__class__
            plain = (
                stocked
                and (kind is _FastLogger or kind is _FastRootLogger)
                and len(_of_logger) + len(_of_root) == _UNTOUCHED
            )
            if plain and level in self._cache and not self.disabled:
                enabled = self._cache[level]
            else:
                enabled = self.isEnabledFor(level)
            if not enabled:
                return None
            frame = None
            try:
                frame = _get_frame(1)
                logger, handlers = self, self.handlers
                while not handlers and logger.propagate:
                    logger = logger.parent
                    handlers = logger.handlers
                (handler,) = handlers
                code, at = frame.f_code, frame.f_lasti + shift
                known, known_at, level_name, logger_name, site = self._sites[id(code) + at]
                multiprocessing = _modules.get("multiprocessing.process")
                stale = (
                    code is not known
                    or at != known_at
                    or level_name is not logging._levelToName.get(level)
                    or logger_name is not self.name
                )
                ordinary = (
                    kwargs
                    or stale
                    or not plain
                    or self.filters
                    or type(msg) is not str
                    or (len(args) == 1 and type(args[0]) not in _SIMPLE)
                    or (logger.propagate and logger.parent is not None)
                    or handler.__class__ is not SpoolHandler
                    or not handler.takes_fields
                    or level < handler.level
                    or handler.filters
                    or not _same_process[0]
                    or (
                        multiprocessing is not None
                        and multiprocessing._current_process._name != handler._process_name
                    )
                    or logging._logRecordFactory is not _LogRecord  # type: ignore[attr-defined]
                    or not (logging.logThreads and logging.logProcesses and logging.logMultiprocessing)
                    or logging._srcfile is not _srcfile
                    or threading.get_ident is not _get_ident
                    or _of_filterer["filter"] is not _filter
                    or not _record_is_stock()
                    or (_HAS_TASKS and _in_task())
                    or (_TRACING in _modules and _is_traced())
                )
            except (AttributeError, KeyError):
                ordinary = stale = known = True
            except Exception:
                ordinary, stale = True, False
            if ordinary:
                if stale and known and plain and frame:
                    _learn(self, level, frame)
                self._log(level, msg, args, **kwargs)
                return None
            if _IN_NANOSECONDS:
                now = time.time_ns()
                if not 250 < now % 1_000_000 < 999_750:
                    # As a float it may be in the next millisecond, and a record tells both. (Until 2106; 0.1 us cheaper
                    # than to find out.)
                    self._log(level, msg, args)
                    return None
                created = now / 1e9
            else:
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
            payload = bytearray()  # as in `record.encode_fields`
            _encode_into((1, created, msg, site, me[2]), payload)
            ordinary = len(payload) > handler._max_payload
            if not ordinary:
                handler._end.append(payload, level)
        except Exception:  # nothing of it is stored
            ordinary = True
        if ordinary:  # the handler cuts it, makes it encodable, or says what went wrong
            self._log(level, msg, ())
        elif not handler._looked_at <= created < handler._look_at:
            try:  # noqa: SIM105 - as in `SpoolHandler.emit`
                handler.look_for_shipper()
            except (RecursionError, MemoryError):
                pass
        return None

    method.__code__ = _as_if_in_logging(method.__code__, like)
    return functools.wraps(like)(method)


def _as_if_in_logging(code: CodeType, like: Any) -> CodeType:
    """Return ``code`` under the name of the stdlib's method ``like``, and in a traceback at that one's last line."""
    changes: dict[str, Any] = {
        "co_filename": _SOURCE,
        "co_name": like.__name__,
        "co_names": tuple(like.__name__ if name == "debug" else name for name in code.co_names),
    }
    if isinstance(like, FunctionType) and like.__code__.co_filename == _SOURCE:
        last = max(line or 0 for _, _, line in like.__code__.co_lines())
        changes |= {"co_firstlineno": last, "co_linetable": _one_line(len(code.co_code), like.__code__, last)}
    if sys.version_info >= (3, 11):
        changes["co_qualname"] = like.__qualname__
    return code.replace(**changes)


def _one_line(size: int, like: CodeType, line: int) -> bytes:
    """Return the table of lines for code of ``size`` bytes that all stands where the call in ``line`` of ``like`` does."""
    if not hasattr(like, "co_positions"):  # Python 3.10
        return b"".join(bytes([min(size - at, 254), 0]) for at in range(0, size, 254))
    columns = [place[2:] for place in like.co_positions() if place[0] == place[1] == line and place[3]]
    begin, end = max(columns, key=lambda place: place[1] - place[0], default=(0, 63))
    # An entry for each 8 units: its kind and their number, by how many lines it is further down, and the columns.
    kind, where = (0xF0, bytes([0, 0, begin + 1, end + 1])) if end < 63 else (0xE8, b"\0")
    units = size // 2
    return b"".join(bytes([kind | min(units - at, 8) - 1]) + where for at in range(0, units, 8))


class _FastMethods(logging.Logger):
    debug = _method(logging.DEBUG, "debug")
    info = _method(logging.INFO, "info")
    warning = _method(logging.WARNING, "warning")
    error = _method(logging.ERROR, "error")
    critical = _method(logging.CRITICAL, "critical")

    def __setattr__(self, name: str, value: object) -> None:
        ordinary = _ORDINARY.get(type(self))
        if ordinary is not None and name in _ON_THE_WAY:
            object.__setattr__(self, "__class__", ordinary)
        object.__setattr__(self, name, value)


class _FastLogger(_FastMethods): ...


class _FastRootLogger(_FastMethods, logging.RootLogger): ...


_ORDINARY: Final[dict[type, type]] = {_FastLogger: logging.Logger, _FastRootLogger: logging.RootLogger}
for _made, _like in _ORDINARY.items():
    _made.__name__, _made.__qualname__, _made.__module__ = _like.__name__, _like.__qualname__, "logging"
_of_logger: Final = _attributes(_FastLogger)
_of_root: Final = _attributes(_FastRootLogger)
_UNTOUCHED: Final = len(_of_logger) + len(
    _of_root
)  # something set on one of these classes would hide a method


def _is_stock() -> bool:
    """True while nothing was patched that is a class's. Loads what gives each of these classes a tag: see ``_compiled.c``."""
    return (
        all(is_stock() for is_stock in _are_stock)
        and len(_of_logger) + len(_of_root) == _UNTOUCHED
        and _of_filterer["filter"] is _filter
        and _record_is_stock()
        and all(hasattr(kind, "__init__") for kind in (_FastLogger, _FastRootLogger, _LogRecord))
    )


if compiled.MODULE is not None:
    compiled.MODULE.bind_calls(
        logger=_FastLogger,
        root=_FastRootLogger,
        handler=SpoolHandler,
        logging=vars(logging),
        threading=vars(threading),
        time=vars(time),
        modules=_modules,
        are_stock=_is_stock,
        get_frame=_get_frame,
        get_ident=_get_ident,
        in_task=_in_task if _HAS_TASKS else None,
        is_traced=_is_traced,
        mine=_mine,
        same_process=_same_process,
        source=_srcfile,
    )


def install() -> None:
    """Make the plain loggers of this process, and those that will be made, fast ones. May be done again."""
    if logging.getLoggerClass() is logging.Logger:
        logging.setLoggerClass(_FastLogger)
    kinds = {ordinary: fast for fast, ordinary in _ORDINARY.items()}
    for logger in [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]:
        kind = kinds.get(type(logger))
        if kind is not None and all(_is_method(logger, name) for name in _ON_THE_WAY):
            object.__setattr__(logger, "__class__", kind)


def _is_method(logger: object, name: str) -> bool:
    """False where something else is set on the instance. Without a look at its ``__dict__``, see `_learn`."""
    return getattr(getattr(logger, name), "__func__", None) is getattr(type(logger), name)

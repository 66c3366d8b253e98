# ruff: noqa: G101, N802, PLC3002, PLE1205, PLE1206, PT008, TRY400 - calls as one should not write them are what is tested
# mypy: disable-error-code="assignment, attr-defined, func-returns-value, misc, no-any-return, union-attr, unreachable"
# mypy: disable-error-code="method-assign, type-arg, arg-type, override, var-annotated, dict-item"
"""The fast logger is invisible but for its speed: stock and fast loggers get the same calls, and all is compared."""

from __future__ import annotations

import _thread
import asyncio
import collections
import contextlib
import copy
import ctypes
import functools
import inspect
import logging
import logging.handlers
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast
from unittest import mock

import pytest
import time_machine
from hypothesis import example, given, settings
from hypothesis import strategies as st

from redislogkit.producer import compiled, fast
from redislogkit.producer import handler as handlers
from redislogkit.producer.handler import SpoolHandler
from tests.helpers.spools import at_step
from tests.helpers.twins import INSIDE, NAME, Side, Twins, attribute, seen
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.usefixtures("untraced")

METHODS = ("debug", "info", "warning", "error", "critical")
PASSES = 3


@pytest.fixture(params=[True, False], ids=["compiled", "python"], autouse=True)
def is_compiled(request) -> Iterator[bool]:
    """Every test runs both ways."""
    if request.param and compiled.MODULE is None:
        pytest.skip("there was no compiler")
    if compiled.MODULE is not None:
        compiled.MODULE.switch(request.param)
    yield request.param
    if compiled.MODULE is not None:
        compiled.MODULE.switch(True)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Iterator[Twins]:
    made = Twins(str(tmp_path_factory.mktemp("twins")))
    yield made
    made.close()


@pytest.fixture
def twins(pair) -> Twins:
    pair.renew()
    return pair


@pytest.fixture
def own_twins(tmp_path) -> Iterator[Twins]:
    """Twins whose handlers no other test has."""
    made = Twins(str(tmp_path))
    yield made
    made.close()


# --- what calls look like ------------------------------------------------------------------------


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another text"


class Broken:
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class Chatty:
    """Logs while it becomes text."""

    def __init__(self, log: Any) -> None:
        self.log = log

    def __str__(self) -> str:
        self.log.info("said by %s", "an argument")
        return "chatty"


class Values(collections.UserDict):
    pass


class Liar:
    """Says that it is a string, as lazy texts and proxies do."""

    @property
    def __class__(self) -> Any:
        return str

    def __str__(self) -> str:
        return "what it stands for"

    def __repr__(self) -> str:
        return "<liar>"


class Looking:
    """Looks for who calls, as `warnings` and others do: the first frame that is neither logging's nor a handler's."""

    def __str__(self) -> str:
        frame: Any = sys._getframe(1)
        while frame.f_code.co_filename.startswith(INSIDE) or frame.f_code.co_name == "emit":
            frame = frame.f_back
        return f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"


class Interrupting:
    def __str__(self) -> str:
        raise KeyboardInterrupt


def by_decorator(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **kwargs)

    return wrapped


@by_decorator
def decorated(log: Any) -> Any:
    return log.info("decorated")


def helper(log: Any, **kwargs: Any) -> Any:
    return log.warning("by a helper of %s", "mine", **kwargs)


def outer_helper(log: Any, **kwargs: Any) -> Any:
    return helper(log, **kwargs)


def in_generator(log: Any) -> Iterator[Any]:
    yield log.info("in a generator")


def in_class_body(log: Any) -> None:
    class Body:
        log.info("in a class body")


def with_exception(log: Any, **kwargs: Any) -> Any:
    try:
        raise LookupError("lost")
    except LookupError as error:
        kwargs = {key: error if value is LookupError else value for key, value in kwargs.items()}
        return log.error("with an exception", **kwargs)


def exceptional(log: Any) -> Any:
    try:
        return 1 / 0
    except ZeroDivisionError:
        return log.exception("divided %s", "badly")


def chained(log: Any) -> Any:
    try:
        return 1 / 0
    except ZeroDivisionError:
        return log.info("an exception is being handled, and not logged")


def plainly(log: Any) -> Any:
    return log.info("plain")


def several_on_a_line(log: Any) -> Any:
    return [log.info("one"), log.info("two %d", 2), log.debug("three")]


EXECUTED = compile("result = log.info('executed')", "<generated>", "exec")
BOOTSTRAP = compile("result = log.info('bootstrap')", "<frozen importlib._bootstrap>", "exec")
IN_LOGGING = compile("result = log.info('from logging')", logging.__file__, "exec")


def executed(code: Any) -> Callable[[Any], Any]:
    def run(log: Any) -> Any:
        names = {"log": log}
        exec(code, names)
        return names["result"]

    return run


def in_async_function(log: Any) -> Any:
    """An await that no event loop drives."""

    async def function() -> Any:
        return log.info("in a coroutine")

    with contextlib.suppress(StopIteration):
        function().send(None)


def in_event_loop(log: Any) -> Any:
    async def function(number: int) -> Any:
        log.info("in a task: %d", number)
        await asyncio.sleep(0)
        return log.warning("and again")

    async def main() -> Any:
        asyncio.current_task().set_name("main")
        tasks = [asyncio.create_task(function(i), name=f"task {i}") for i in range(2)]
        return await asyncio.gather(*tasks)

    return asyncio.run(main())


def in_thread(name: str, *, rename: str = "") -> Callable[[Any], Any]:
    def run(log: Any) -> Any:
        def work() -> None:
            with contextlib.suppress(ValueError, KeyError):
                for _ in range(2):
                    log.info("in a thread")
                if rename:
                    threading.current_thread().name = rename
                    log.info("renamed")

        thread = threading.Thread(target=work, name=name)
        thread.start()
        thread.join()

    return run


#: Name → one call, or a few, that takes the fast way where the world is plain.
QUICK: dict[str, Callable[[Any], Any]] = {
    "plain": plainly,
    "each method": lambda log: [getattr(log, method)("a text") for method in METHODS],
    "one argument": lambda log: log.info("%s", "one"),
    "many arguments": lambda log: log.info("%s %d %.2f %r %%", "a", 2, 3.0, None),
    "odd arguments": lambda log: log.info("%s %r", (1, 2), {"a": [1]}),
    "no arguments for a placeholder": lambda log: log.info("100%s"),
    "too many": lambda log: log.info("%s", 1, 2),
    "too few": lambda log: log.info("%s %s", 1),
    "wrong type": lambda log: log.info("%d", "x"),
    "None": lambda log: log.info("%s", None),
    "bool": lambda log: log.info("%d", True),
    "huge int": lambda log: log.info("%d and %s", 10**400, -(2**70)),
    "int without text": lambda log: log.info("%s", 10**5000),
    "nul": lambda log: log.info("a\0b %s", "c\0"),
    "empty": lambda log: log.info(""),
    "unicode": lambda log: log.info("żółć 🎉 %s", "ß"),
    "lines": lambda log: log.info("one\ntwo\r\n%s", "three\n"),
    "large": lambda log: log.info("%s", "x" * 500_000),
    "broken among others": lambda log: log.info("%s %s", Broken(), 1),
    "chatty among others": lambda log: log.info("%s %s", Chatty(log), 1),
    "looking among others": lambda log: log.info("%s %s", Looking(), 1),
    "bool of an object": lambda log: log.info("%s %s", [], {}),
    "decorated": decorated,
    "helper": outer_helper,
    "partial": lambda log: functools.partial(log.info, "by partial %d", 3)(),
    "map": lambda log: list(map(log.info, ["by", "map"])),
    "bound before": lambda log: (lambda info: [info("bound"), info("bound %s", 2)])(log.info),
    "generator": lambda log: list(in_generator(log)),
    "comprehension": lambda log: [log.info("number %d", i) for i in range(3)],
    "class body": in_class_body,
    "executed": executed(EXECUTED),
    "several on a line": several_on_a_line,
    "chained": chained,
    "coroutine": in_async_function,
    "thread": in_thread("Worker"),
    "renamed thread": in_thread("before", rename="after"),
    "surrogate as a thread's name": in_thread("\ud812"),
    "msg by keyword": lambda log: log.info(msg="by keyword"),
}

#: Name → calls that take the ordinary way.
ORDINARY: dict[str, Callable[[Any], Any]] = {
    "log": lambda log: log.log(logging.INFO, "by log %s", 1),
    "log of an odd level": lambda log: [
        log.log(level, "level %d", level) for level in (1, 15, 20, 33, 77, True)
    ],
    "log without a level": lambda log: log.log("INFO", "x"),
    "exception": exceptional,
    "exception outside": lambda log: log.exception("nothing is handled"),
    "fatal": lambda log: log.fatal("fatal"),
    "exc_info": lambda log: with_exception(log, exc_info=True),
    "exc_info of an exception": lambda log: with_exception(log, exc_info=LookupError),
    "exc_info of a stray exception": lambda log: log.info("stray", exc_info=ValueError("never raised")),
    "exc_info of a tuple": lambda log: log.info("x", exc_info=(ValueError, ValueError("v"), None)),
    "exc_info of no exception": lambda log: log.info("x", exc_info=True),
    "exc_info of nothing": lambda log: log.info("x", exc_info=None),
    "exc_info of nonsense": lambda log: log.info("x", exc_info=(1,)),
    "stack_info": lambda log: outer_helper(log, stack_info=True),
    "stacklevels": lambda log: [outer_helper(log, stacklevel=level) for level in (1, 2, 3, 4, 99)],
    "stack and level": lambda log: outer_helper(log, stacklevel=2, stack_info=True),
    "extra": lambda log: log.info("x", extra={"a": 1, "b": [2, object]}),
    "extra of nothing": lambda log: log.info("x", extra={}),
    "extra that overwrites": lambda log: log.info("x", extra={"message": 1}),
    "extra that overwrites a name": lambda log: log.info("x", extra={"name": 1}),
    "unknown keyword": lambda log: log.info("x", nonsense=1),
    "a keyword of _log": lambda log: log.info("x", level=1),
    "no msg": lambda log: log.info(),
    "one dict": lambda log: log.info("%(a)s", {"a": 1}),
    "one dict that lacks": lambda log: log.info("%(b)s", {"a": 1}),
    "empty dict": lambda log: log.info("%s", {}),
    "a mapping": lambda log: log.info("%(a)s", Values(a=1)),
    "empty mapping": lambda log: log.info("%s", Values()),
    "ordered dict": lambda log: log.info("%(a)s", collections.OrderedDict(a=1)),
    "mapping proxy": lambda log: log.info("%(a)s", types.MappingProxyType({"a": 1})),
    "one tuple": lambda log: log.info("%s", (1, 2)),
    "one list": lambda log: log.info("%s", [1, 2]),
    "str subclass": lambda log: [log.info(Text("text %s"), 1), log.info(Text("text"))],
    "str subclass as argument": lambda log: log.info("%s", Text("x")),
    "lone surrogate": lambda log: log.info("bad \ud800 %s", "\udfff"),
    "bytes": lambda log: log.info(b"bytes %s", b"x"),
    "number": lambda log: [log.info(7), log.info(7, 8)],
    "None as msg": lambda log: log.info(None),
    "exception as msg": lambda log: log.info(ValueError("x")),
    "broken msg": lambda log: log.info(Broken()),
    "broken argument": lambda log: log.info("%s", Broken()),
    "chatty argument": lambda log: log.info("%s", Chatty(log)),
    "chatty msg": lambda log: log.info(Chatty(log)),
    "interrupting argument": lambda log: log.info("%s", Interrupting()),
    "interrupting among others": lambda log: log.info("%s %s", Interrupting(), 1),
    "liar": lambda log: [log.info(Liar()), log.info(Liar(), 1)],
    "lying argument": lambda log: log.info("%s", Liar()),
    "too large": lambda log: log.info("%s", "x" * 2_000_000),
    "adapter": lambda log: logging.LoggerAdapter(log, {"a": 1}).info("adapted %s", 1),
    "adapter with a stacklevel": lambda log: logging.LoggerAdapter(log, {}).info("adapted", stacklevel=2),
    "from importlib": executed(BOOTSTRAP),
    "from logging": executed(IN_LOGGING),
    "_log": lambda log: log._log(logging.INFO, "by hand", ()),
    "handle": lambda log: log.handle(logging.makeLogRecord({"msg": "made", "levelno": 20})),
    "call of the class": lambda log: logging.Logger.info(log, "by class"),
    "event loop": in_event_loop,
}
if sys.version_info < (3, 12):  # without names of tasks these are plain
    QUICK["event loop"] = ORDINARY.pop("event loop")
if hasattr(logging.Logger, "warn"):
    ORDINARY["warn"] = lambda log: getattr(log, "warn")("old")  # noqa: B009 - the linter would mend it
CALLS = QUICK | ORDINARY


def on_log(call: Callable[[Any], Any]) -> Callable[[Side], Any]:
    return lambda side: call(side.log)


def battery(twins: Twins, calls: Mapping[str, Callable[[Any], Any]] = CALLS, passes: int = PASSES) -> int:
    """Make all these calls; return how many records went the fast way."""
    return sum(twins.compare(on_log(call), passes) for call in calls.values())


def test_calls_in_a_plain_world_take_the_fast_way_and_look_the_same(twins):
    for name, call in QUICK.items():
        twins.compare(on_log(call), passes=1)
        # On Python 3.13 one call of two thousand is not: its milliseconds may not be those of its time as a float.
        assert twins.compare(on_log(call), passes=3) >= 2, name


def test_calls_that_are_not_plain_look_the_same(twins):
    for name, call in ORDINARY.items():
        fast_ways = twins.compare(on_log(call))
        assert (fast_ways > 0) == name.startswith("chatty"), name


# --- worlds in which they are made ---------------------------------------------------------------


class Reject(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return "one" not in str(record.msg)


class Fail:
    def filter(self, record: logging.LogRecord) -> bool:
        raise ValueError("a filter that fails")


def replace_record(record: logging.LogRecord) -> Any:
    record = copy.copy(record)
    record.msg, record.args = f"replaced {record.msg}", ()
    return record


def enrich(record: logging.LogRecord) -> bool:
    record.request = "r1"
    return True


class OwnRecord(logging.LogRecord):
    def getMessage(self) -> str:
        return f"own {super().getMessage()}"


def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = logging.LogRecord(*args, **kwargs)
    record.made_by = "factory"
    return record


World = Callable[[Twins], "contextlib.AbstractContextManager[Any]"]


def on_each(change: Callable[[Side], Any], undo: Callable[[Side], Any] | None = None) -> World:
    """A world that is changed on either side, and put back."""

    @contextlib.contextmanager
    def world(twins: Twins) -> Iterator[None]:
        for side in twins.sides:
            change(side)
        try:
            yield
        finally:
            for side in twins.sides:
                if undo is None:
                    restore(side)
                else:
                    undo(side)

    return world


def restore(side: Side) -> None:
    """Undo whatever was set on loggers and handler."""
    handler = side.handler
    handler.setFormatter(None)
    handler.setLevel(0)
    handler.filters.clear()
    side.manager.disable = 0
    for logger in (side.root, side.app, side.log):
        logger.filters.clear()
        logger.handlers[:] = [handler] if logger is side.root else []
        logger.propagate, logger.disabled = True, False
        logger.setLevel(logging.DEBUG if logger is side.root else logging.NOTSET)
    side.log.name = NAME
    side.keepers.clear()


def in_general(make: Callable[[], Any]) -> World:
    return lambda twins: make()


def wrapping(name: str, owner: type = logging.Logger) -> Any:
    """Somebody's wrapper around a method of a class, as tracing libraries have them."""
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        sys.stderr.write(f"{name} is called\n")
        return inner(self, *args, **kwargs)

    return mock.patch.object(owner, name, wrapper)


def mocked(name: str) -> Any:
    """A double that is no function, on the class, with calls told."""
    double = mock.MagicMock(return_value=None, side_effect=lambda *a, **k: sys.stderr.write(f"{a!r} {k!r}\n"))
    return mock.patch.object(logging.Logger, name, double)


def wrapped_on_instance(name: str) -> World:
    def change(side: Side) -> None:
        inner = getattr(side.log, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            sys.stderr.write(f"{name} is called\n")
            return inner(*args, **kwargs)

        setattr(side.log, name, wrapper)

    return on_each(change, lambda side: delattr(side.log, name))


def doubled_on_instance(name: str) -> World:
    @contextlib.contextmanager
    def world(twins: Twins) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for side in twins.sides:
                stack.enter_context(mock.patch.object(side.log, name))
            yield

    return world


@contextlib.contextmanager
def level_names() -> Iterator[None]:
    with mock.patch.dict(logging._levelToName), mock.patch.dict(logging._nameToLevel):
        logging.addLevelName(10, "\ud800")
        logging.addLevelName(20, "NOTICE")
        logging.addLevelName(30, 7)  # which is the level of what is called 7 from now on
        yield


@contextlib.contextmanager
def nameless_level() -> Iterator[None]:
    name = logging._levelToName.pop(20)
    yield
    logging._levelToName[20] = name


@contextlib.contextmanager
def record_factory(made: Any) -> Iterator[None]:
    logging.setLogRecordFactory(made)
    yield
    logging.setLogRecordFactory(logging.LogRecord)


class FakeThread:
    """What other thread libraries put in a thread's place."""

    name = "fake"


def no_filter(self: Any, record: logging.LogRecord) -> bool:
    return False


def on_the_kind(name: str) -> World:
    """A patch on the class that a logger says it has."""

    @contextlib.contextmanager
    def world(twins: Twins) -> Iterator[None]:
        inner = getattr(logging.Logger, name)

        def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
            sys.stderr.write(f"{name} is called\n")
            return inner(self, *args, **kwargs)

        with contextlib.ExitStack() as stack:
            for side in twins.sides:
                stack.enter_context(mock.patch.object(type(side.log), name, wrapper))
            stack.enter_context(mock.patch.object(twins.fast, "log", twins.fast.log))
            yield

    return world


#: Name → a world; those with a star leave the fast way open.
WORLDS: dict[str, World] = {
    "filter that rejects": on_each(lambda side: side.log.addFilter(Reject())),
    "filter that fails": on_each(lambda side: side.log.addFilter(Fail())),
    "filter that replaces": on_each(lambda side: side.log.addFilter(replace_record)),
    "filter that enriches": on_each(lambda side: side.log.addFilter(enrich)),
    "filter by name": on_each(lambda side: side.log.addFilter(logging.Filter("other"))),
    "filter put into the list": on_each(lambda side: side.log.filters.append(enrich)),
    "filter of the handler that rejects": on_each(lambda side: side.handler.addFilter(Reject())),
    "filter of the handler that fails": on_each(lambda side: side.handler.addFilter(Fail())),
    "filter of the handler that replaces": on_each(lambda side: side.handler.addFilter(replace_record)),
    "filter of a parent *": on_each(lambda side: side.root.addFilter(Reject())),
    "level of the handler": on_each(lambda side: side.handler.setLevel(logging.WARNING)),
    "level *": on_each(lambda side: side.log.setLevel(logging.WARNING)),
    "level of a parent *": on_each(lambda side: side.root.setLevel(35)),
    "level of one below *": on_each(lambda side: side.app.setLevel(logging.ERROR)),
    "disabled": on_each(lambda side: setattr(side.log, "disabled", True)),
    "disabled parent *": on_each(lambda side: setattr(side.root, "disabled", True)),
    "disabled levels *": on_each(lambda side: [setattr(side.manager, "disable", 20), side.manager._clear_cache()]),
    "disabled levels, told late *": on_each(lambda side: setattr(side.manager, "disable", 20)),
    "no propagation": on_each(lambda side: setattr(side.log, "propagate", False)),
    "no propagation of a parent": on_each(lambda side: setattr(side.app, "propagate", 0)),
    "no propagation, and a handler *": on_each(
        lambda side: [setattr(side.log, "propagate", False), side.log.addHandler(side.handler)]
    ),
    "no handler": on_each(lambda side: side.root.handlers.clear()),
    "handler twice": on_each(lambda side: side.root.handlers.append(side.handler)),
    "handler below as well": on_each(lambda side: side.log.addHandler(side.handler)),
    "handler in between only": on_each(
        lambda side: [side.root.removeHandler(side.handler), side.app.addHandler(side.handler)]
    ),
    "another handler": on_each(lambda side: side.keep(side.root)),
    "another handler first": on_each(lambda side: [side.keep(side.root), side.root.handlers.reverse()]),
    "another handler below": on_each(lambda side: side.keep(side.log)),
    "another handler in between, of a high level": on_each(lambda side: side.keep(side.app, 40)),
    "another handler in its place": on_each(lambda side: side.root.handlers.__setitem__(slice(1), [side.keep(side.app)])),
    "null handler below": on_each(lambda side: side.log.addHandler(logging.NullHandler())),
    "stderr below": on_each(lambda side: side.log.addHandler(logging.StreamHandler())),
    "handlers in a tuple *": on_each(
        lambda side: setattr(side.root, "handlers", (side.handler,)),
        lambda side: setattr(side.root, "handlers", [side.handler]),
    ),
    "formatter": on_each(lambda side: side.handler.setFormatter(logging.Formatter("%(levelname)s|%(message)s"))),
    "bad formatter": on_each(lambda side: side.handler.setFormatter(logging.Formatter("%(nobody)s"))),
    "another name *": on_each(lambda side: setattr(side.log, "name", "renamed \ud800")),
    "another kind of logger": on_each(
        lambda side: setattr(side.log, "__class__", logging.getLoggerClass()),
        lambda side: setattr(side.log, "__class__", side.kinds[0]),
    ),
    **{f"wrapped {name}": in_general(functools.partial(wrapping, name)) for name in (
        "_log", "callHandlers", "findCaller", "handle", "makeRecord", "info")},
    "wrapped isEnabledFor": in_general(lambda: wrapping("isEnabledFor")),
    "wrapped error *": in_general(lambda: wrapping("error")),
    **{f"mocked {name}": in_general(functools.partial(mocked, name)) for name in ("_log", "handle", "info")},
    **{f"wrapped {name} of the instance": wrapped_on_instance(name) for name in (
        "_log", "callHandlers", "filter", "findCaller", "handle", "isEnabledFor", "makeRecord")},
    "wrapped info of the instance *": wrapped_on_instance("info"),
    **{f"double for {name} of the instance": doubled_on_instance(name) for name in ("_log", "info", "handle")},
    **{f"wrapped {name} of the kind": on_the_kind(name) for name in (
        "_log", "callHandlers", "findCaller", "handle", "makeRecord")},
    "Filterer.filter": in_general(lambda: mock.patch.object(logging.Filterer, "filter", no_filter)),
    "Logger.filter": in_general(lambda: mock.patch.object(logging.Logger, "filter", no_filter)),
    "getMessage": in_general(lambda: mock.patch.object(logging.LogRecord, "getMessage", lambda self: "patched")),
    "LogRecord.__init__": in_general(lambda: wrapping("__init__", logging.LogRecord)),
    "class of records": in_general(lambda: record_factory(OwnRecord)),
    "factory of records": in_general(lambda: record_factory(factory)),
    "names of levels *": in_general(level_names),
    "a level without a name *": in_general(nameless_level),
    **{f"without {name}": in_general(functools.partial(mock.patch.object, logging, name, value)) for name, value in (
        ("logThreads", False), ("logProcesses", False), ("logMultiprocessing", False), ("_srcfile", None))},
    "another _srcfile": in_general(lambda: mock.patch.object(logging, "_srcfile", __file__)),
    "no printed errors *": in_general(lambda: mock.patch.object(logging, "raiseExceptions", False)),
    "name of the process": in_general(lambda: attribute(multiprocessing.current_process(), "name", "Worker-7")),
    "get_ident": in_general(lambda: mock.patch.object(threading, "get_ident", lambda get=threading.get_ident: get())),
    "name of the thread *": in_general(lambda: attribute(threading.current_thread(), "name", "renamed")),
    "patched time *": in_general(lambda: mock.patch.object(time, "time", lambda: 1_700_000_000.25)),
    "patched time in whole seconds *": in_general(lambda: mock.patch.object(time, "time", lambda: 1_700_000_000)),
    "patched time in nanoseconds *": in_general(lambda: mock.patch.object(time, "time_ns", lambda: 17 * 10**17 + 500_001)),
    "time without end *": in_general(lambda: mock.patch.object(time, "time", lambda: 1e15)),
    "frozen time *": in_general(lambda: time_machine.travel(1_700_000_000.9995, tick=False)),
    "time long ago *": in_general(lambda: time_machine.travel(1.5005, tick=False)),
}  # fmt: skip
if sys.version_info >= (3, 12):
    WORLDS["without names of tasks *"] = in_general(
        lambda: mock.patch.object(logging, "logAsyncioTasks", False)
    )


@pytest.mark.parametrize(
    ("name", "is_compiled"),
    [*((name, True) for name in WORLDS), *((name, False) for name in sorted(WORLDS)[::3])],
    indirect=["is_compiled"],
)
def test_calls_look_the_same(name, twins):
    calls = {key: call for key, call in CALLS.items() if "large" not in key}
    if "info" in name:  # a double for it is called as our own method may be, with a positional message
        calls = {key: call for key, call in calls.items() if "msg" not in key}
    battery(twins, QUICK, passes=1)
    with WORLDS[name](twins):
        inside = battery(twins, calls, passes=2)
    assert (inside > 50) == name.endswith("*") or "level" in name, inside
    few = {key: QUICK[key] for key in ("plain", "one argument", "helper", "msg by keyword")}
    assert battery(twins, few, passes=3) >= len(few) or "instance" in name


# --- generated calls -----------------------------------------------------------------------------

_values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=4),
    st.sampled_from([(), (1, 2), [], [1], {}, {"a": 1}, Values(a=2), Broken(), Text("t"), Liar(), 10**5000]),
)  # fmt: skip
_texts = st.one_of(
    st.sampled_from(
        ["%s", "%d", "%s %s", "%r and %d", "%(a)s", "%", "%%", "plain", "%s %s %s", "\ud800", ""]
    ),
    st.text(max_size=10),
    st.sampled_from([Text("%s"), None, 5, b"%s", Liar(), ValueError("v"), Broken(), ("%s",)]),
)
_keywords = st.one_of(
    st.just({}),
    st.just({}),
    st.fixed_dictionaries(
        {},
        optional={
            "exc_info": st.sampled_from([True, False, None, ValueError("given"), 0, (None, None, None)]),
            "stack_info": st.booleans(),
            "stacklevel": st.integers(-1, 6),
            "extra": st.sampled_from([None, {}, {"a": 1}, {"name": 1}, {"b": [1, {2: 3}]}, {"process": 1}]),
            "unknown": st.just(1),
        },
    ),
)
_calls = st.one_of(
    st.tuples(
        st.sampled_from([*METHODS, "exception", "fatal"]),
        st.tuples(),
        _texts,
        st.lists(_values, max_size=3),
        _keywords,
    ),
    st.tuples(
        st.just("log"), st.tuples(st.integers(0, 60)), _texts, st.lists(_values, max_size=3), _keywords
    ),
)


def dispatch(side: Side, call: Any) -> Any:
    method, first, msg, args, keywords = call
    return getattr(side.log, method)(*first, msg, *args, **keywords)


@settings(max_examples=120)  # both ways
@given(
    worlds=st.lists(
        st.sampled_from(sorted(WORLDS.keys() - {"handlers in a tuple *"})), max_size=2, unique=True
    ),
    calls=st.lists(_calls, min_size=1, max_size=4),
)
@example(["no handler", "another handler in its place"], [("debug", (), "%s", [], {})])
@example(["wrapped error *"], [("error", (), "%s", [], {"stack_info": True})])
def test_generated_calls_look_the_same_while_worlds_come_and_go(pair, worlds, calls):
    twins = pair
    twins.renew()
    for call in calls:
        twins.compare(lambda side, call=call: dispatch(side, call))
    with contextlib.ExitStack() as stack:
        for world in worlds:
            stack.enter_context(WORLDS[world](twins))
            for call in calls:
                twins.compare(lambda side, call=call: dispatch(side, call), passes=2)
    for call in calls:
        twins.compare(lambda side, call=call: dispatch(side, call), passes=2)


def test_enough_calls_were_compared_and_enough_of_them_were_fast(pair):
    if pair.calls:  # not where this test runs alone
        assert pair.calls > 1000
        assert pair.fast_ways > 1000


# --- kinds of loggers ----------------------------------------------------------------------------


def own_kind(base: Any, name: str) -> Any:
    """A class of somebody's, with one method that differs."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        sys.stderr.write(f"own {name}\n")
        result = getattr(super(kind, self), name)(*args, **kwargs)
        return False if name in ("isEnabledFor", "filter") else result

    kind = type("Own", (base,), {name: method, "__module__": "somebody"})
    return kind


@pytest.mark.parametrize("name", ["_log", "callHandlers", "filter", "findCaller", "handle", "isEnabledFor",
                                  "makeRecord", "info", "nothing"])  # fmt: skip
def test_a_class_made_from_the_class_of_loggers_keeps_its_own_ways(name, twins):
    for side in twins.sides:
        side.manager.loggerClass = own_kind(type(side.log), name)
        side.log = side.manager.getLogger("own")
    assert battery(twins) == 0
    assert "_sites" not in vars(twins.fast.log)
    with mock.patch.object(twins.stock.log, "handle"), mock.patch.object(twins.fast.log, "handle"):
        assert [type(side.log).__name__ for side in twins.sides] == ["Own", "Own"]
        battery(twins)


def test_a_method_that_was_patched_before_is_called(twins):
    with wrapping("info"):
        kind = type("Early", (fast._FastMethods,), {"info": fast._method(logging.INFO, "info")})
    for side, made in zip(twins.sides, (logging.Logger, kind), strict=True):
        side.manager.loggerClass = made
        side.log = side.manager.getLogger("early")
    battery(twins, QUICK)


@pytest.mark.parametrize("name", ["emit", "handle", "filter", "format"])
def test_a_method_set_on_the_handler_is_called(name, own_twins):
    battery(own_twins, QUICK)
    with contextlib.ExitStack() as stack:
        for side in own_twins.sides:
            double = mock.Mock(side_effect=lambda record: print(record.msg, file=sys.stderr))
            stack.enter_context(mock.patch.object(side.handler, name, double))
        assert battery(own_twins, {"plain": plainly}) == 0
    battery(own_twins, {"plain": plainly})


def test_two_levels_of_one_name_are_two_levels(twins):
    same = "the same"
    with mock.patch.dict(logging._levelToName), mock.patch.dict(logging._nameToLevel):
        for level in (10, 20):
            logging.addLevelName(level, same)
        call = QUICK["each method"]
        twins.compare(on_log(call))
        assert twins.compare(on_log(call)) >= 14


def test_the_root_is_fast_and_looks_the_same(twins):
    for side in twins.sides:
        side.log = side.root
    assert battery(twins) > 50
    for side in twins.sides:
        side.root.filter = lambda record: False
    assert battery(twins) == 0


def test_code_made_at_run_time_is_not_kept_for_ever(twins):
    codes = [compile(f"log.info('number {i}'); log.info('again')", f"<{i}>", "exec") for i in range(1500)]
    for code in codes[:3] + codes[-3:]:
        twins.compare(lambda side, code=code: exec(code, {"log": side.log}))
    for code in codes:
        exec(code, {"log": twins.fast.log})
    assert len(twins.fast.log._sites) <= fast._MOST_SITES
    records = twins.fast.read()
    assert [r.pathname for r in records] == [f"<{i}>" for i in range(1500) for _ in range(2)]
    assert [r.message for r in records[::2]] == [f"number {i}" for i in range(1500)]


# --- time, threads, processes --------------------------------------------------------------------


def test_milliseconds_are_those_of_the_stdlib(twins):
    twins.compare(on_log(plainly))
    for fraction in range(0, 1000, 7):
        with time_machine.travel(1_700_000_000 + fraction / 1000, tick=False):
            twins.compare(on_log(plainly), passes=1)
            moments = [side.handler._look_at for side in twins.sides]
        assert moments[0] == moments[1]


def test_created_is_the_time_of_the_stdlib(twins):
    for now in (0.25, 1.999, 1_700_000_000.9999999, 1_700_000_000.123, 10**10 + 0.5):
        with time_machine.travel(now, tick=False):
            times = []
            for side in twins.sides:
                for _ in range(3):
                    side.log.info("now")
                times.append([(r.created, r.overrides) for r in side.read()])
            assert times[0] == times[1]


def test_threads_are_told_apart_though_their_identifiers_are_used_again(twins):
    log, idents = twins.fast.log, []

    def work() -> None:
        for _ in range(2):
            log.info("%s", threading.current_thread().name)
            idents.append(threading.get_ident())

    for i in range(20):
        thread = threading.Thread(target=work, name=f"thread {i}")
        thread.start()
        thread.join()
    records = twins.fast.read()
    assert [r.thread for r in records] == idents
    assert (
        [r.thread_name for r in records]
        == [r.message for r in records]
        == [f"thread {i // 2}" for i in range(40)]
    )


def test_a_thread_of_another_library_has_its_name(twins):
    def call(side: Side) -> None:
        def work() -> None:
            with mock.patch.dict(threading._active, {threading.get_ident(): FakeThread()}):
                for _ in range(3):
                    side.log.info("from elsewhere")

        thread = threading.Thread(target=work, name="Worker")
        thread.start()
        thread.join()

    twins.compare(call)


def test_a_call_from_no_code_at_all_looks_the_same(twins):
    def call(side: Side) -> None:
        before = side.handler._end.sequence
        _thread.start_new_thread(side.log.info, ("from no code",))
        wait_until(lambda: side.handler._end.sequence > before, what="it is logged")

    found = []
    for side in twins.sides:
        for _ in range(3):
            call(side)
        found.append([seen(record) for record in side.read()])
    for record in found[0] + found[1]:
        assert record.pop("thread_name").startswith("Dummy")
        del record["thread"]
    assert found[0] == found[1]


def emitting(counts: collections.Counter[str]) -> Any:
    """Count what handlers emit, by the side's folder."""
    emit = SpoolHandler.emit

    def counted(handler: SpoolHandler, record: logging.LogRecord) -> None:
        counts[os.path.basename(handler.config.state_dir)] += 1
        emit(handler, record)

    return mock.patch.object(SpoolHandler, "emit", counted)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a fork beside threads
@pytest.mark.usefixtures("uncovered")
@pytest.mark.parametrize("fork", ["os.fork", "the fork of the C library"])
def test_a_child_is_another_producer_and_has_the_fast_way_where_it_knows_of_the_fork(fork, own_twins):
    battery(own_twins, {"plain": plainly})
    counts: collections.Counter[str] = collections.Counter()
    pid = os.fork() if fork == "os.fork" else ctypes.PyDLL(None).fork()
    if not pid:
        try:
            with emitting(counts):
                for side in own_twins.sides:
                    for _ in range(3):
                        side.log.info("of the child")
            os._exit(counts["fast"] + 10 * counts["stock"])
        finally:
            os._exit(99)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in ((31, 32) if fork == "os.fork" else (33,))
    stock, quick = ([seen(record) for record in side.read_others()] for side in own_twins.sides)
    assert len(stock) == 3
    assert quick == stock
    assert {facts.pid for side in own_twins.sides for facts in side.other_facts()} == {pid}
    battery(own_twins, {"plain": plainly})
    assert own_twins.fast_ways > 3


# --- what comes in between -----------------------------------------------------------------------


def at_limit(call: Callable[[], Any], room: int) -> bool | None:
    """Call with about so many frames left; False when it has raised RecursionError, None where there is no room."""
    depth, frame = 0, cast("types.FrameType | None", sys._getframe())
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(depth + room)
    except RecursionError:  # one that is exceeded already
        return None
    try:
        call()
    except RecursionError:
        return False
    finally:
        sys.setrecursionlimit(limit)
    return True


@pytest.mark.parametrize("args", [(), ("x",), (Broken(), 1), ("too", "many")])
def test_near_the_recursion_limit_a_record_is_there_or_the_call_has_raised(args, own_twins):
    came: list[list[bool | None]] = []
    for side in own_twins.sides:
        log = functools.partial(plain_with, side.log, args)
        for _ in range(3):
            log()
        side.read()
        came.append([])
        for room in range(1, 80):
            side.handler._look_at = 0.0
            returned = at_limit(log, room)
            records = side.read()
            assert len(records) == bool(returned), room
            came[-1].append(returned)
        assert came[-1][-1]
        assert False in came[-1]
    stock, quick = came
    assert all(b or not a for a, b in zip(stock, quick, strict=True)), "the stock one holds longer"


def plain_with(log: Any, args: Any) -> None:
    log.info("near the limit", *args)


def _in_our_way(frame: types.FrameType) -> bool:
    code = frame.f_code
    return code is fast._FastLogger.info.__code__ or os.sep + "redislogkit" + os.sep in code.co_filename


@contextlib.contextmanager
def at_our_step(log: Any, step: int, action: Callable[[], None]) -> Iterator[None]:
    if sys.version_info >= (3, 13):  # there single instructions are traced from the second traced call on
        with at_step(10**9, action, inside=_in_our_way):
            number(log, 0)
    with at_step(step, action, inside=_in_our_way):
        yield


def interrupt() -> None:
    raise KeyboardInterrupt


def test_interrupted_at_any_instruction_no_returned_record_is_lost_or_doubled(own_twins, is_compiled):
    side = own_twins.fast
    log, returned, doubtful, step, over = side.log, [], set(), 0, 0
    for _ in range(3):
        number(log, -1)
    side.read()
    while over < 3:
        step += 1
        try:
            with at_our_step(log, step, interrupt):
                number(log, step)
            returned.append(f"number {step}")
            over += 1
        except KeyboardInterrupt:
            doubtful.add(f"number {step}")
            number(log, -step)
            returned.append(f"number {-step}")
    assert step > (8 if is_compiled else 100)
    found = [record.message for record in side.read() if record.message != "number 0"]
    assert len(set(found)) == len(found)
    assert [message for message in found if message not in doubtful] == returned
    assert own_twins.compare(on_log(plainly)) > 1


def number(log: Any, value: int) -> None:
    log.info("number %d", value)


def test_a_signal_handler_may_log_at_any_instruction(own_twins):
    side, step, fired = own_twins.fast, 0, True
    log = side.log
    for _ in range(3):
        number(log, -1)
        log.warning("of the handler")
    side.read()
    while fired:
        step += 1
        fired = False

        def handle() -> None:
            nonlocal fired
            fired = True
            log.warning("of the handler")

        with at_our_step(log, step, handle):
            number(log, step)
        found = sorted(record.message for record in side.read() if record.message != "number 0")
        assert found == [f"number {step}"] + ["of the handler"] * fired
    assert step > 100


def test_a_handler_of_a_real_signal_logs_in_between(twins):
    def call(side: Side) -> None:
        def handle(signum: int, frame: Any) -> None:
            side.log.info("signal %d", signum)

        before = signal.signal(signal.SIGUSR1, handle)
        try:
            side.log.info("%s %s", Raising(), 1)
        finally:
            signal.signal(signal.SIGUSR1, before)

    twins.compare(call, passes=1)
    assert twins.compare(call) > 3


class Raising:
    def __str__(self) -> str:
        signal.raise_signal(signal.SIGUSR1)
        return "raised"


def test_a_record_without_memory_leaves_a_note(twins):
    def encode(fields: object, into: object = None) -> bytes:
        raise MemoryError

    battery(twins, {"plain": plainly})
    with mock.patch.object(fast, "_encode_into", encode), mock.patch.object(handlers, "_encode_into", encode):
        battery(twins, {"plain": plainly})
        with mock.patch.object(handlers, "_encode_anything", encode):
            battery(twins, {"plain": plainly})
    assert battery(twins, {"plain": plainly}) >= 2


# --- what others see of it -----------------------------------------------------------------------


@pytest.fixture
def installed(own_twins) -> Iterator[Twins]:
    """The loggers of this process are fast ones, and its root has the fast side's handler."""
    level = logging.root.level
    fast.install()
    logging.root.addHandler(own_twins.fast.handler)
    logging.root.setLevel(logging.DEBUG)
    yield own_twins
    logging.root.removeHandler(own_twins.fast.handler)
    logging.root.setLevel(level)
    logging.setLoggerClass(logging.Logger)
    plain = {fast._FastLogger: logging.Logger, fast._FastRootLogger: logging.RootLogger}
    for logger in [logging.root, *logging.Logger.manager.loggerDict.values()]:
        if type(logger) in plain:
            object.__setattr__(logger, "__class__", plain[type(logger)])


def test_pytest_sees_the_records(installed, caplog):
    for _ in range(3):
        logging.getLogger("seen").info("by caplog %d", 1)
    assert [record.getMessage() for record in caplog.records] == ["by caplog 1"] * 3
    with caplog.at_level(logging.ERROR):
        logging.getLogger("seen").info("too low")
    assert len(caplog.records) == 3
    assert len(installed.fast.read()) == 3


def test_a_logger_looks_like_one_of_the_stdlib(installed):
    stock, log = logging.Logger("looks.alike"), logging.getLogger("looks.alike")
    assert type(log) is fast._FastLogger
    assert repr(type(log)) == repr(logging.Logger)
    assert repr(logging.root).startswith("<RootLogger root (")
    stock.setLevel(logging.DEBUG)
    assert repr(log) == repr(stock)
    assert isinstance(logging.root, logging.RootLogger)
    assert pickle.loads(pickle.dumps(log)) is log
    assert copy.copy(log) is copy.deepcopy(log) is log
    assert pickle.loads(pickle.dumps(logging.root)) is logging.root
    for method in METHODS:
        ours, theirs = getattr(log, method), getattr(stock, method)
        assert inspect.signature(ours) == inspect.signature(theirs)
        assert inspect.getdoc(ours) == inspect.getdoc(theirs)
        assert inspect.getsource(ours) == inspect.getsource(theirs)
        assert (ours.__name__, ours.__qualname__) == (theirs.__name__, theirs.__qualname__)


def test_functions_of_the_module_and_warnings_look_the_same(installed):
    def call(side: Side) -> None:
        with mock.patch.object(logging, "root", side.root):
            logging.info("by the module")
            logging.log(30, "by %s", "log")
            logging.exception("by the module")

    installed.compare(call)
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            for _ in range(3):
                warnings.warn("a warning", stacklevel=1)
    finally:
        logging.captureWarnings(False)
    records = installed.fast.read()
    assert [record.name for record in records] == ["py.warnings"] * 3
    assert [seen(record) for record in records[1:]] == [seen(records[0])] * 2


def test_installed_again_it_makes_those_fast_that_were_patched(installed):
    log = logging.getLogger("patched.once")
    with mock.patch.object(log, "handle"):
        assert type(log) is logging.Logger
        fast.install()
        assert type(log) is logging.Logger
    fast.install()
    assert type(log) is fast._FastLogger


def test_an_object_that_says_it_is_a_text_is_logged_as_the_text_it_stands_for(twins):
    for side in twins.sides:
        for _ in range(3):
            side.log.info(Liar())
        assert [record.message for record in side.read()] == ["what it stands for"] * 3


def test_an_interrupt_inside_of_a_look_reaches_the_caller(own_twins):
    log = own_twins.fast.log
    for _ in range(3):
        number(log, 1)
    span = mock.Mock(get_current_span=mock.Mock(side_effect=KeyboardInterrupt))
    with mock.patch.dict(sys.modules, {"opentelemetry.trace": span}), pytest.raises(KeyboardInterrupt):
        number(log, 2)
    number(log, 3)
    assert [each.message for each in own_twins.fast.read()] == ["number 1"] * 3 + ["number 3"]

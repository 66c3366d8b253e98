"""The record codec: whatever is logged can be encoded, and whatever was encoded can be decoded."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import enum
import logging
import math
import os
import pickle
import sys
import time
import uuid
from collections import OrderedDict, UserDict, deque
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from redislogkit import record
from redislogkit.record import Facts, Record

PID = os.getpid()
STARTED = getattr(logging, "_startTime")  # noqa: B009 - private, and in nanoseconds since Python 3.13
FACTS = Facts("f00d", "web1", PID, "MainProcess", STARTED / 1e9 if STARTED > 1e12 else STARTED, 0)


def log_record(message: object = "hello", args: Any = (), **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("my.app", 20, "/srv/app/views.py", 7, message, args, None, "handle", None)
    made.__dict__.update(extra)
    return made


def carried(made: logging.LogRecord) -> Record:
    """``made`` as it arrives at a writer."""
    fields = record.record_fields(made, PID, "MainProcess")
    (item,) = record.decode_items(b"\x91" + record.encode_fields(fields))
    assert isinstance(item, Record)
    return item


# --- whatever is logged ------------------------------------------------------------------------------------


class FailingRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


class LyingRepr:
    def __repr__(self) -> Any:
        return 5


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Number(int):
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __index__ = __repr__  # type: ignore[assignment]


class Real(float):
    def __float__(self) -> float:
        raise RuntimeError("no")

    def __bool__(self) -> bool:
        raise RuntimeError("no")


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class FailingDict(dict[Any, Any]):
    def items(self) -> Any:
        raise RuntimeError("no")


class EndlessList(list[Any]):
    def __iter__(self) -> Any:
        while True:
            yield 1


class Proxy:
    """What a lazy object of a web framework does outside of a request."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("outside of a request")

    @__class__.setter
    def __class__(self, value: Any) -> None: ...


class Nameless(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no")


class OfNameless(metaclass=Nameless):
    __repr__ = FailingRepr.__repr__


@dataclasses.dataclass
class Point:
    x: Any


class Struct(msgspec.Struct):
    x: Any


def nested(depth: int, kind: type) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"k": value} if kind is dict else kind([value])
    return value


def cyclic(width: int) -> Any:
    value: list[Any] = []
    value.extend([value] * width)
    return value


def shared(depth: int) -> Any:
    """A small graph that is huge as a tree."""
    value: Any = [1] * 100
    for _ in range(depth):
        value = [value] * 100
    return value


ODD: list[Any] = [
    FailingRepr(), LyingRepr(), Text("text"), Number(5), Real(1.5), Colour.RED, Level.LOW, FailingDict(a=1),
    EndlessList(), Proxy(), OfNameless(), Point(FailingRepr()), Struct({1, 2}), object(), len, int, math,
    Decimal("1.50"), Decimal("NaN"), uuid.UUID(int=1), dt.datetime.fromisoformat("2024-01-02"), dt.date(2024, 1, 2),
    dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-23))), dt.time(1), dt.timedelta(1),
    float("nan"), float("-inf"), 10**30, -(10**5000), 2**64 - 1, 2**64, -(2**63), "\ud800", "a\0b", "é" * 9000,
    b"\xff", bytearray(b"x"), memoryview(b"abcd")[::2], {1, 2}, frozenset("a"), range(3), deque([1]),
    OrderedDict(a=1), UserDict(a=1), {b"k": 1}, {("t", 1): 2}, {None: 1, 1: 2, 1.5: 3}, {FailingRepr(): 1},
    {Text("k"): 1}, msgspec.Raw(b"\xc1"), msgspec.Raw(b"\x91"), msgspec.msgpack.Ext(5, b"x"), msgspec.UNSET,
    ValueError("x"), nested(8, list), nested(100, dict), nested(50_000, list), nested(500, tuple), cyclic(1),
    cyclic(1000), list(range(20_000)), {str(n): n for n in range(3_000)}, iter([1]), lambda: 1,
]  # fmt: skip

# By number: the tools would look into the objects themselves.
odd = st.integers(0, len(ODD) - 1).map(lambda number: ODD[number])
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.binary(max_size=20), odd,
    st.text(st.characters(exclude_categories=()), max_size=20), st.decimals(allow_nan=False), st.datetimes(),
    st.datetimes(timezones=st.timezones()), st.uuids(), st.fractions(), st.complex_numbers(),
)  # fmt: skip
# Without what would take the age of the universe to print: the application asks for that itself.
bounded = scalars.filter(lambda value: type(value) is not list or len(value) < 100)
keys = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=5), st.integers(), st.binary(max_size=3)
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(keys, inner, max_size=4),
        st.builds(Point, inner),
        st.builds(Struct, inner),
        st.builds(lambda x: (x,), inner),
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("number", range(len(ODD)))
def test_no_odd_object_costs_more_than_its_own_place(number):
    item = carried(log_record("told %s", ("all",), before="b", odd=ODD[number], after={"a": 1}))
    assert item.message == "told all"
    assert item.extra is not None
    assert list(item.extra) == ["before", "odd", "after"]
    assert (item.extra["before"], item.extra["after"]) == ("b", {"a": 1})
    msgspec.json.encode(item.extra)


@settings(max_examples=150)
@given(value=anything)
def test_anything_in_extra_arrives_as_plain_data(value):
    item = carried(log_record(x=value))
    assert item.extra is not None
    assert is_plain(item.extra["x"])


@settings(max_examples=150)
@given(value=anything)
def test_sanitised_values_always_encode_and_decode(value):
    safe = record.sanitise(value)
    decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(safe))
    assert is_plain(decoded)
    assert repr(decoded) == repr(safe)


def is_plain(value: Any) -> bool:
    if type(value) is dict:
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    if type(value) is list:
        return all(map(is_plain, value))
    return type(value) in (str, int, float, bool, bytes, type(None))


@settings(max_examples=100)
@given(message=bounded, args=bounded)
def test_any_message_and_arguments_become_text(message, args):
    made = log_record(message)
    made.args = args
    assert type(carried(made).message) is str


@settings(max_examples=150)
@given(
    name=st.sampled_from(
        ["created", "msecs", "levelno", "levelname", "name", "pathname", "lineno", "funcName", "thread",
         "threadName", "process", "processName", "exc_info", "exc_text", "stack_info", "msg", "args", "taskName"]
    ),
    value=bounded.filter(lambda value: type(value) is not msgspec.Raw),
)  # fmt: skip
@example("created", float("nan"))
@example("created", 1e300)
@example("created", "now")
@example("exc_info", (None, None, None))
@example("exc_info", KeyError)
def test_any_value_of_a_standard_attribute_is_survived(name, value):
    made = log_record()
    made.__dict__[name] = value
    item = carried(made)
    shown = record.attributes(item, FACTS, 1)
    assert isinstance(shown["created"], float)
    time.localtime(shown["created"])
    assert isinstance(shown["msecs"], (int, float))


def test_a_missing_attribute_is_survived():
    for name in list(log_record().__dict__):
        made = log_record("still %s", ("here",))
        del made.__dict__[name]
        assert carried(made).function in ("handle", "")


def test_plain_data_in_extra_stays_as_it_is():
    value = {"a": [1, 2.5, None, True, "x", {"b": []}], "n": -(2**63), "m": 2**64 - 1}
    item = carried(log_record(x=value))
    assert item.extra == {"x": value}
    assert carried(log_record(x=list(range(5000)))).extra == {"x": list(range(5000))}


def test_values_that_are_no_data_become_readable_text():
    item = carried(
        log_record(
            when=dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc), price=Decimal("1.50"), who=uuid.UUID(int=1), big=2**70,
            fails=FailingRepr(), error=ValueError("x"), surrogate="a\ud800",
        )
    )  # fmt: skip
    assert item.extra == {
        "when": "2024-01-02T03:04:05+00:00",
        "price": "1.50",
        "who": "00000000-0000-0000-0000-000000000001",
        "big": hex(2**70),
        "fails": "<unrepresentable FailingRepr>",
        "error": "ValueError('x')",
        "surrogate": "a\\ud800",
    }


def test_a_small_graph_that_is_huge_as_a_tree_takes_no_time():
    for value in (shared(8), cyclic(1000), nested(100_000, list)):
        begin = time.process_time()
        assert len(record.encode_fields(record.record_fields(log_record(x=value), PID, ""))) < 200_000
        assert time.process_time() - begin < 1.0


# --- what was logged arrives -------------------------------------------------------------------------------

plain_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
plain_data = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | plain_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_text, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150)
@given(
    message=plain_text,
    name=plain_text,
    level=st.integers(0, 60),
    path=plain_text,
    function=plain_text,
    extra=st.dictionaries(
        plain_text.filter(
            lambda key: key not in record.STANDARD_ATTRIBUTES | {"host", "producer", "sequence"}
        ),
        plain_data,
        max_size=4,
    ),
    fails=st.booleans(),
    stack=st.none() | plain_text,
)
def test_an_ordinary_record_arrives_with_the_attributes_that_it_had(
    message, name, level, path, function, extra, fails, stack
):
    try:
        raise ValueError(message) if fails else KeyError
    except (ValueError, KeyError):
        exc_info = sys.exc_info() if fails else None
    made = logging.LogRecord(name, level, path, 5, message, None, exc_info, function, stack)
    made.__dict__.update(extra)
    shown = record.attributes(carried(made), FACTS, 9)
    made.message = made.getMessage()
    made.exc_text = logging.Formatter().formatException(exc_info) if exc_info else None
    expected = {**made.__dict__, "msg": made.message, "args": None, "exc_info": None}
    for key in ("host", "producer", "sequence"):
        shown.pop(key)
    shown.setdefault("taskName", None)
    expected.setdefault("taskName", None)
    assert shown.pop("relativeCreated") == pytest.approx(expected.pop("relativeCreated"), abs=0.01)
    assert shown == expected


def test_a_record_of_another_process_keeps_its_origin():
    made = log_record(process=1, processName="Worker-3")
    made.msecs = 7.0
    shown = record.attributes(carried(made), FACTS, 1)
    assert (shown["process"], shown["processName"], shown["msecs"]) == (1, "Worker-3", 7.0)


def test_extras_of_a_record_from_an_older_python_are_found():
    newest = next(reversed(log_record().__dict__))
    made = log_record(request_id="r1")
    del made.__dict__[newest]
    assert len(made.__dict__) == record.PLAIN_LENGTH
    assert carried(made).extra == {"request_id": "r1"}


def test_extras_that_a_subclass_sets_first_are_found_too():
    class Early(logging.LogRecord):
        def __init__(self, *args: Any) -> None:
            self.early = 1
            super().__init__(*args)

    made = Early("n", 20, "p", 1, "m", None, None, "f")
    made.late = 2
    assert carried(made).extra == {"early": 1, "late": 2}
    assert carried(pickle.loads(pickle.dumps(log_record(a=1)))).extra == {"a": 1}


def test_an_item_that_can_not_be_read_costs_no_neighbour():
    fields = record.record_fields(log_record("good"), PID, "")
    odd_site = record.encode(("x", 5, None, {}, "7", []))
    strange: Any = (1, "not a time", b"bytes", odd_site, record.encode(["t"]))
    data = b"\x94" + b"".join(map(record.encode, [fields, strange, (9, "no such tag"), fields]))
    first, second, third, fourth = record.decode_items(data)
    assert isinstance(first, Record) and isinstance(fourth, Record)
    assert (first.message, fourth.message) == ("good", "good")
    assert isinstance(second, Record)
    assert (second.created, second.levelno, second.levelname, second.message) == (0.0, 0, "5", "b'bytes'")
    assert (second.name, second.function, second.thread, second.thread_name) == ("", "[]", None, None)
    assert isinstance(third, Record)
    assert third.message.startswith("[redislogkit: this record can not be decoded")


@settings(max_examples=300)
@given(
    data=st.binary(max_size=60),
    begin=st.sampled_from([b"", b"\x91", b"\x91\x95\x01", b"\x91\x9b\x04", b"\x91\x95\x02"]),
)
def test_bytes_that_are_no_items_are_refused_with_a_value_error(data, begin):
    for decode in (record.decode_items, record.decode_facts):
        with contextlib.suppress(ValueError, RecursionError):
            decode(begin + data)


def test_facts_survive_odd_texts():
    facts = record.decode_facts(record.encode_facts(Facts("p", "h\ud800", 1, "n\udfff", 0.0, 0, "\udc80")))
    assert (facts.host, facts.process_name, facts.tty) == ("h\\ud800", "n\\udfff", "\\udc80")


def test_a_notice_of_lost_records_and_an_end_arrive():
    items = [record.Loss(1, 5, "shed", 1.5), record.End()]
    assert record.decode_items(b"\x92" + b"".join(map(record.encode, items))) == items

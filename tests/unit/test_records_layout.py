"""Layout ``records``: plain fields for any consumer, and everything back for our own writers."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redislogkit import record
from redislogkit.errors import CorruptDataError
from redislogkit.record import End, Facts, Loss, Record
from redislogkit.stream import batch, entries, records
from tests.helpers.records import changed

FACTS = Facts("f00d", "web1", 4711, "MainProcess", 100.0, 0, "/dev/pts/3", 34819, "boot", False)

encode = records.encoder(lambda item, facts, sequence: f"{item.levelname} {item.message}")


def a_record(**changes: Any) -> Record:
    plain = record.build(
        1700000000.25, 30, "WARNING", "my.app", "hello", "/srv/views.py", 7, "handle", 99, "MainThread"
    )
    return changed(plain, **changes)


def fields_of(item: Any, sequence: int = 5) -> dict[bytes, bytes]:
    (entry,) = encode([batch.RawRun(FACTS, sequence, [record.encode(item)])])
    assert (entry.last, entry.records) == ([("f00d", sequence)], 1)
    return dict(zip(entry.fields[::2], entry.fields[1::2], strict=True))


def through(item: Any, sequence: int = 5) -> Any:
    (run,) = entries.decode(b"1700000000250-0", fields_of(item, sequence))
    assert (run.facts, run.first) == (FACTS, sequence)
    return run.items[0]


SEED_FIELDS = (
    "formatted_message level levelno name pathname filename module lineno funcName created asctime msecs thread "
    "threadName process processName message tty exc_info"
).split()


def test_the_fields_are_those_that_other_programs_know():
    fields = {name.decode(): value.decode() for name, value in fields_of(a_record(extra={"user": 5})).items()}
    assert set(SEED_FIELDS) <= fields.keys()
    assert {name: fields[name] for name in SEED_FIELDS if name != "asctime"} == {
        "formatted_message": "WARNING hello", "level": "WARNING", "levelno": "30", "name": "my.app",
        "pathname": "/srv/views.py", "filename": "views.py", "module": "views", "lineno": "7",
        "funcName": "handle", "created": "1700000000.25", "msecs": "250.0", "thread": "99",
        "threadName": "MainThread", "process": "4711", "processName": "MainProcess", "message": "hello",
        "tty": "/dev/pts/3", "exc_info": "",
    }  # fmt: skip
    assert fields["asctime"] == time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1700000000))
    assert fields["user"] == "5"


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150)
@given(
    message=text,
    name=text,
    function=text,
    created=st.floats(0, 4e9),
    levelno=st.integers(-(2**63), 2**63 - 1),
    thread=st.none() | st.integers(0, 2**62),
    optional=st.lists(st.none() | text.filter(bool), min_size=4, max_size=4),
    extra=st.none() | st.dictionaries(text, values, min_size=1, max_size=5),
    overrides=st.none() | st.fixed_dictionaries({"process": st.integers(0, 9), "processName": text}),
    own_text=st.none() | text,
)
def test_a_record_comes_out_as_it_went_in(
    message, name, function, created, levelno, thread, optional, extra, overrides, own_text
):
    item = a_record(
        message=message, name=name, function=function, created=created, levelno=levelno, thread=thread,
        thread_name=optional[0], task_name=optional[1], exc_text=optional[2], stack_info=optional[3],
        extra=extra, overrides=overrides, text=own_text,
    )  # fmt: skip
    assert through(item) == item


@pytest.mark.parametrize(
    "name", ["d", "v", "t", "redislogkit", "message", "level", "tty", "c", "p", "", "\0", "é"]
)
def test_an_extra_may_have_any_name(name):
    item = a_record(extra={name: "text", "v": 1, "d": [1]})
    assert through(item) == item


def test_extras_of_types_that_json_lacks_become_text():
    item = through(
        a_record(extra={"raw": b"\xffx", "nan": math.nan, "deep": [{"inf": -math.inf}], "keys": {"a": b"b"}})
    )
    assert item.extra == {"raw": "\\xffx", "nan": "nan", "deep": [{"inf": "-inf"}], "keys": {"a": "b"}}


def test_containers_in_extras_can_be_read_by_others_as_json():
    fields = fields_of(a_record(extra={"deep": {"a": [1, None, "é"]}}))
    assert json.loads(fields[b"deep"]) == {"a": [1, None, "é"]}


def test_thousands_of_extras_do_not_make_thousands_of_fields():
    item = a_record(extra={f"k{number}": "v" for number in range(5000)})
    assert len(fields_of(item)) < 1100
    assert through(item) == item


def test_notices_and_ends_come_out_as_they_went_in():
    loss = Loss(3, 9, "spool_full", 1700000000.5)
    assert through(loss, 10) == loss
    assert fields_of(loss)[b"message"] == b"7 records lost (spool_full), sequences 3 to 9"
    assert through(End(), 11) == End()


def test_the_record_of_another_program_is_read_as_well_as_it_can_be():
    fields = {
        b"message": b"hi \xff", b"level": b"ERROR", b"levelno": b"40", b"name": b"other", b"created": b"1700000000.5",
        b"process": b"12", b"processName": b"W", b"tty": b"no_tty", b"request": b"r1", b"formatted_message": b"E hi",
        b"lineno": b"x", b"thread": b"9" * 400,
    }  # fmt: skip
    (run,) = entries.decode(b"1700000000500-3", fields)
    (item,) = run.items
    assert isinstance(item, Record)
    assert (run.facts.producer, run.facts.pid, run.facts.tty) == ("", 12, "")
    assert run.first == (1700000000500 << 20) + 3
    assert (item.message, item.text, item.levelno, item.lineno, item.thread) == (
        "hi \\xff",
        "E hi",
        40,
        0,
        None,
    )
    assert item.extra == {"request": "r1"}
    later = entries.decode(b"1700000000501-0", fields)[0].first
    assert later > run.first


@pytest.mark.parametrize("created", [b"nan", b"inf", b"-1e300", b"x", b"", b"1e400"])
def test_a_time_that_is_none_is_no_time(created):
    (run,) = entries.decode(b"1700000000500-0", {b"message": b"m", b"created": created})
    assert isinstance(run.items[0], Record)
    assert run.items[0].created in (0.0, 1700000000.5)


@settings(max_examples=200)
@given(
    fields=st.dictionaries(
        st.sampled_from([name.encode() for name in SEED_FIELDS]) | st.binary(max_size=4),
        st.binary(max_size=10) | st.sampled_from([b"nan", b"9" * 30, b"-5"]),
        max_size=6,
    ),
    own=st.none() | st.binary(max_size=20) | st.sampled_from(
        [
            b'{"sequence": -1}', b'{"sequence": 99999999999999999999}', b'{"loss": [1, 99999999999999999999, "x"]}',
            b"[" * 5000, b'{"facts": [1]}', b'{"extra": {"a": 1e999}}', b'{"end": true}', b"null", b"{}",
        ]
    ),
    entry_id=st.sampled_from([b"1-1", b"", b"x", b"99999999999999999999-99999999999999999999", b"-5"]),
)  # fmt: skip
def test_hostile_fields_are_refused_or_harmless(fields, own, entry_id):
    if own is not None:
        fields = fields | {b"redislogkit": own}
    try:
        decoded = entries.decode(entry_id, fields)
    except CorruptDataError:
        return
    for run in decoded:
        assert 0 <= run.first < 2**63
        for item in run.items:
            if isinstance(item, Record):
                time.localtime(record.attributes(item, run.facts, run.first)["created"])
                msgspec.json.encode(item.extra)

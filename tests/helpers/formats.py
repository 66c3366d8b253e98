"""Formats and records, drawn at random; the records as `logging` makes them and as a writer gets them."""

from __future__ import annotations

import logging
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from redislogkit.record import Facts, Record, decode_items, encode_fields, record_fields

FACTS = Facts(
    producer="f00d",
    host="web1",
    pid=4711,
    process_name="MainProcess",
    started=1_700_000_000.0,
    uid=1000,
)
CREATED = 1_795_370_400.123456  # 2026-11-22T18:00:00.123456 UTC
OWN_ATTRIBUTES = {"host", "producer", "sequence"}


def make_log_record(message: str = "hello", **attributes: Any) -> logging.LogRecord:
    record = logging.LogRecord("my.app", logging.INFO, "/srv/app/views.py", 12, message, None, None, "view")
    record.process = FACTS.pid
    record.processName = FACTS.process_name
    set_created(record, CREATED)
    record.__dict__.update(attributes)
    return record


def set_created(record: logging.LogRecord, created: float) -> None:
    record.created = created
    record.msecs = int((created - int(created)) * 1000) + 0.0
    record.relativeCreated = (created - FACTS.started) * 1000


def through_the_stream(record: logging.LogRecord, text: str | None = None) -> Record:
    """Return what a writer gets of ``record``."""
    fields = record_fields(record, pid=FACTS.pid, process_name=FACTS.process_name, text=text)
    item = decode_items(b"\x91" + encode_fields(fields))[0]
    assert isinstance(item, Record)
    return item


ATTRIBUTES = [
    "asctime", "created", "filename", "funcName", "levelname", "levelno", "lineno", "message", "module", "msecs",
    "name", "pathname", "process", "processName", "relativeCreated", "thread", "threadName", "exc_text", "stack_info",
]  # fmt: skip
EXTRAS = ["request_id", "user", "ratio", "größe"]
NUMBERS = ["levelno", "lineno", "process", "created", "msecs", "relativeCreated"]
BRACE_NAMES = [name for name in ATTRIBUTES if name != "größe"]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
literals = st.text(alphabet="ab %{}$[]'\"\\\n-é", max_size=5)
values = st.one_of(
    texts, st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans(), st.none(), st.lists(texts)
)
alignments = st.sampled_from(["", "8", "-8", "08", ".3", "-12.4", "+", " ", "#"])


@st.composite
def percent_formats(draw: st.DrawFn) -> str:
    parts = ["%(message)s"]
    for _ in range(draw(st.integers(0, 5))):
        parts.append(draw(literals).replace("%", "%%"))
        if draw(st.booleans()):
            name, conversion = draw(st.sampled_from(ATTRIBUTES + EXTRAS)), draw(st.sampled_from("sra"))
        else:
            name, conversion = draw(st.sampled_from(NUMBERS)), draw(st.sampled_from("dsfgeixX"))
            assume(conversion not in "xX" or name in {"levelno", "lineno", "process"})
        parts.append(f"%({name}){draw(alignments)}{conversion}")
    return "".join(parts)


@st.composite
def brace_formats(draw: st.DrawFn) -> str:
    parts = ["{message}"]
    for _ in range(draw(st.integers(0, 5))):
        parts.append(draw(literals).replace("{", "{{").replace("}", "}}"))
        name = draw(st.sampled_from(ATTRIBUTES + EXTRAS))
        parts.append(
            draw(st.sampled_from([f"{{{name}!s:<12}}", f"{{{name}!r}}", f"{{{name}}}", f"{{{name}!a:^9.4}}"]))
        )
        parts.append(
            draw(
                st.sampled_from(
                    ["", "{lineno:05d}", "{msecs:.1f}", "{name.__class__}", "{message:>{lineno}}"]
                )
            )
        )
    return "".join(parts)


@st.composite
def dollar_formats(draw: st.DrawFn) -> str:
    parts = ["$message "]
    for _ in range(draw(st.integers(0, 5))):
        parts.append(draw(literals).replace("$", "$$"))
        name = draw(st.sampled_from(ATTRIBUTES + EXTRAS[:3]))
        parts.append(draw(st.sampled_from([f"${{{name}}}", f"${name} "])))
    return "".join(parts)


@st.composite
def log_records(draw: st.DrawFn, *, plain: bool = False) -> logging.LogRecord:
    record = make_log_record(draw(texts), **({} if plain else {name: draw(values) for name in EXTRAS}))
    set_created(record, draw(st.floats(-1e9, 4e9) | st.sampled_from([0.0, 0.9999999, CREATED])))
    record.levelno = draw(st.integers(0, 60))
    record.levelname = draw(texts)
    if plain:
        return record
    if draw(st.booleans()):
        record.exc_text = draw(texts.filter(str.strip))
    if draw(st.booleans()):
        record.stack_info = draw(texts)
    if draw(st.booleans()):
        record.process = draw(st.none() | st.integers(0, 99_999))
        record.processName = draw(st.none() | texts)
        record.msecs = draw(st.floats(0, 999.9999))
    return record


styles_and_formats = st.one_of(
    st.tuples(st.just("%"), percent_formats()),
    st.tuples(st.just("{"), brace_formats()),
    st.tuples(st.just("$"), dollar_formats()),
)
datefmts = st.sampled_from([None, None, "", "%H:%M:%S", "%Y %j %%", "%c"])

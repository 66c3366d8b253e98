"""Lines: equal to those of ``logging.Formatter``, never lost, never dangerous."""

from __future__ import annotations

import builtins
import io
import json
import logging
import sys
import time
from datetime import datetime, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from redislogkit import escaping, formatting, json_lines, lines, rendering
from redislogkit.config import FormatterConfig
from redislogkit.errors import ConfigError
from redislogkit.record import Loss, Record
from tests.helpers.formats import (
    CREATED,
    EXTRAS,
    FACTS,
    datefmts,
    log_records,
    make_log_record,
    set_created,
    styles_and_formats,
    texts,
    through_the_stream,
    values,
)
from tests.helpers.records import changed


def make_record(message: str = "hello", **attributes: Any) -> Record:
    return through_the_stream(make_log_record(message, **attributes))


def text_formatter(fmt: str, style: formatting.Style = "%", **options: Any) -> rendering.Formatter:
    return formatting.build(FormatterConfig(format=fmt, style=style, **options))


def line(fmt: str, record: Record, style: formatting.Style = "%", **options: Any) -> str:
    return text_formatter(fmt, style, **options)(record, FACTS, 7)


# --- equal to the stdlib -----------------------------------------------------------------------------------


def stdlib_line(fmt: str, datefmt: str | None, style: formatting.Style, record: logging.LogRecord) -> str:
    try:
        formatter = logging.Formatter(fmt, datefmt, style)
    except ValueError:
        assume(False)
    try:
        return formatter.format(record)
    except (TypeError, ValueError, OverflowError):  # %d of None
        assume(False)
    raise AssertionError


@pytest.mark.usefixtures("untraced")
@settings(max_examples=250, deadline=None)
@given(
    style_and_format=styles_and_formats,
    datefmt=datefmts,
    record=log_records(),
)
def test_a_line_equals_that_of_the_stdlib(style_and_format, datefmt, record):
    style, fmt = style_and_format
    carried = through_the_stream(record)
    expected = stdlib_line(fmt, datefmt, style, record)
    formatter = text_formatter(fmt, style, datefmt=datefmt)
    assert formatter(carried, FACTS, 7) == expected
    assert formatter(carried, FACTS, 7) == expected  # the second time from the cache of seconds


@settings(max_examples=80, deadline=None)
@given(record=log_records(), fields=st.lists(st.sampled_from([*EXTRAS, "lineno", "missing"]), max_size=4))
def test_optional_fields_stand_before_the_traceback_as_if_the_format_named_them(record, fields):
    present = [name for name in fields if hasattr(record, name)]
    brackets: list[tuple[formatting.Style, str, str]] = [("%", "%(", ")s"), ("{", "{", "}"), ("$", "${", "}")]
    for style, opening, closing in brackets:
        fmt = f"{opening}levelname{closing} {opening}message{closing}"
        if style == "$" and "größe" in fields:
            continue
        longer = fmt + "".join(f" - {name}: {opening}{name}{closing}" for name in present)
        expected = logging.Formatter(longer, None, style).format(record)
        assert line(fmt, through_the_stream(record), style, optional_fields=tuple(fields)) == expected


def test_exceptions_and_stacks_follow_as_the_stdlib_renders_them():
    try:
        raise ValueError("broken\nin two")
    except ValueError:
        record = make_log_record(
            "it failed", exc_info=sys.exc_info(), stack_info="Stack (most recent call last):\n  x"
        )
    carried = through_the_stream(record)
    for fmt in ("%(levelname)s %(message)s", "%(message)s\n", "%(message)s %(created)c"):
        formatter = text_formatter(fmt)
        if fmt.endswith("c"):
            assert "Traceback" in formatter(carried, FACTS, 1)
        else:
            assert formatter(carried, FACTS, 1) == logging.Formatter(fmt).format(record)


def test_the_second_is_rendered_once_and_never_mixed_up():
    formatter = text_formatter("%(asctime)s %(message)s")
    for created in [10.5, 11.25, 10.75, *(float(n) for n in range(200)), 10.999]:
        record = make_log_record()
        set_created(record, created)
        expected = logging.Formatter("%(asctime)s %(message)s").format(record)
        assert formatter(through_the_stream(record), FACTS, 1) == expected


def test_a_format_that_is_not_given_says_when_how_bad_and_who():
    record = make_log_record()
    for style in ("%", "{", "$"):
        rendered = formatting.build(FormatterConfig(style=style))(through_the_stream(record), FACTS, 1)
        assert rendered == logging.Formatter(formatting.DEFAULT_FORMATS[style], style=style).format(record)
    assert formatting.build(FormatterConfig())(make_record(), FACTS, 1).endswith(
        ",123 INFO     my.app: hello"
    )


def test_text_of_the_application_is_written_verbatim_but_not_as_json():
    carried = through_the_stream(make_log_record(), text="mine\n  all mine")
    assert line("%(message)s", carried) == "mine\n  all mine"
    assert line("%(message)*d", carried) == "mine\n  all mine"
    assert json.loads(json_lines.compile_layout("plain")(carried, FACTS, 1))["message"] == "hello"


def test_our_own_attributes_can_be_named_and_extras_win():
    assert line("%(host)s %(producer)s %(sequence)05d", make_record()) == "web1 f00d 00007"
    assert line("{host} {producer} {sequence}", make_record(host="h", sequence=[1]), "{") == "h f00d [1]"
    assert line("%(message)s", make_record(), optional_fields=("host",)) == "hello - host: web1"


def test_overrides_that_generated_code_does_not_know_still_count():
    carried = changed(make_record(), overrides={"module": "elsewhere", "process": 1})
    assert line("%(module)s %(process)d %(message)s", carried) == "elsewhere 1 hello"


# --- nothing is lost over its looks ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("style", "fmt", "expected"),
    [
        ("%", "%(levelname)s [%(request_id)s] %(message)s", "INFO [] hello"),
        ("%", "[%(request_id)-5s] %(message)s", "[     ] hello"),
        ("%", "%(request_id)d|%(lineno)d|%(message)s", "|12|hello"),
        ("%", "%(message)d", "hello"),
        ("%", "%(host)05d %(message)s", "web1 hello"),
        ("{", "{request_id} {message}", " hello"),
        ("{", "{request_id:d} {message} {lineno:4d}", " hello   12"),
        ("{", "{request_id.x[0]} {message}", " hello"),
        ("{", "{message:d}", "hello"),
        ("$", "$request_id $message", " hello"),
    ],
)
def test_a_field_that_is_missing_or_does_not_fit_costs_no_record(style, fmt, expected):
    assert line(fmt, make_record(), style) == expected


@pytest.mark.parametrize(
    ("style", "fmt"),
    [
        ("%", "%(message)s %s %d"),
        ("%", "%(message)*d"),
        ("{", "{message} {lineno:{name}}"),
    ],
)
def test_a_format_that_never_fits_leaves_level_name_and_message(style, fmt):
    rendered = line(fmt, make_record(exc_text="Traceback: x"), style)
    assert rendered.startswith("INFO my.app hello [redislogkit: the format does not fit: ")
    assert rendered.endswith("]\nTraceback: x")


@pytest.mark.parametrize("created", [float("nan"), float("inf"), 1e300, -1e300])
def test_a_time_that_is_none_costs_no_record(created):
    carried = changed(make_record(), created=created)
    assert "INFO my.app hello" in line("%(asctime)s %(message)s", carried)
    for layout, key in json_lines.TIME_KEYS.items():
        config = FormatterConfig(type="json", layout=layout)  # type: ignore[arg-type]
        (text,) = lines.build(config, "keep")([(carried, FACTS, 1)])
        assert layout == "otel" or json.loads(text)[key] is None
        assert json.loads(text)["Body" if layout == "otel" else "message"] == "hello"


def test_a_line_can_always_be_encoded():
    carried = make_record(code=0xD800)
    assert line("%(code)c %(message)s", carried).encode() == b"\\ud800 hello"
    assert line("{code:c} {message}", carried, "{").encode() == b"\\ud800 hello"


@pytest.mark.parametrize(
    ("style", "fmt"),
    [("%", "no field"), ("%", "%(open"), ("{", "{message"), ("{", "{!x}"), ("$", "$"), ("$", "none")],
)
def test_what_is_no_format_is_refused_when_it_is_built(style, fmt):
    with pytest.raises(ConfigError, match="format must be a logging format in style"):
        text_formatter(fmt, style)


def test_text_of_a_format_stays_data():
    odd_name: dict[str, Any] = {"a'b": 1}
    fmt = "'\"\\'''{x} {{ %% \" + __import__('os') + \" %(message)s %(it's)s \\n"
    assert line(fmt, make_record()) == logging.Formatter(fmt).format(make_log_record(**{"it's": ""}))
    assert (
        line("%(message)s", make_record("hello", **odd_name), optional_fields=("a'b", "{", "%s"))
        == "hello - a'b: 1"
    )


# --- JSON --------------------------------------------------------------------------------------------------


def as_json(record: Record) -> dict[str, Any]:
    rendered = formatting.build(FormatterConfig(type="json"))(record, FACTS, 7)
    assert len(rendered.splitlines()) == 1
    decoded = json.loads(rendered, object_pairs_hook=no_doubles)
    assert isinstance(decoded, dict)
    return decoded


def no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


TRACEBACK = """\
Traceback (most recent call last):
  File "/srv/a.py", line 1, in f
    raise KeyError(1)
KeyError: 1

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/srv/a.py", line 3, in g
    raise Refused from error
shop.Refused: no
money"""


def test_json_has_everything_a_record_has():
    record = make_log_record(exc_text=TRACEBACK, stack_info="Stack", user="ülf", thread=5, threadName="T")
    assert as_json(through_the_stream(record)) == {
        "timestamp": datetime.fromtimestamp(CREATED, timezone.utc).isoformat(),
        "level": "INFO",
        "logger": "my.app",
        "message": "hello",
        "process": 4711,
        "process_name": "MainProcess",
        "thread": 5,
        "thread_name": "T",
        "host": "web1",
        "file": "/srv/app/views.py",
        "line": 12,
        "function": "view",
        "exception": TRACEBACK,
        "exception_type": "shop.Refused",
        "exception_message": "no\nmoney",
        "stack": "Stack",
        "user": "ülf",
    }
    assert "ülf" in json_lines.compile_layout("plain")(through_the_stream(record), FACTS, 1)
    assert {"exception", "stack", "task"}.isdisjoint(as_json(make_record()))
    assert as_json(changed(make_record(), task_name="Task-1"))["task"] == "Task-1"


def test_json_names_the_process_that_logged():
    record = through_the_stream(make_log_record(process=1, processName="other"))
    assert (as_json(record)["process"], as_json(record)["process_name"]) == (1, "other")


def test_an_extra_never_hides_a_key_of_ours():
    extra = {"level": "mine", "level_": "too", "exception": 1, "host": "h"}
    values = as_json(changed(make_record(), extra=extra))
    assert (values["level"], values["level_"], values["level__"]) == ("INFO", "mine", "too")
    assert (values["exception_"], values["host"], values["host_"]) == (1, "web1", "h")


def test_json_takes_what_json_has_no_word_for():
    extra = {
        "nan": float("nan"),
        "inf": [float("inf")],
        "raw": b"ab\xff",
        "map": {1: b"x", b"k": {2.5: None}},
    }
    values = as_json(changed(make_record(), extra=extra))
    assert values["nan"] is None
    assert values["inf"] == [None]
    assert values["raw"] == "ab\\xff"
    assert values["map"] == {"1": "x", "k": {"2.5": None}}


def test_json_of_a_record_made_by_hand_never_fails():
    extra = {"big": 2**70, "text": "\udc80", "thing": object}
    values = as_json(changed(make_record(), extra=extra, message="\ud800"))
    assert values["message"] == "\\ud800"
    assert "class" in values["thing"]


json_extras = st.dictionaries(
    texts,
    st.recursive(
        values | st.binary(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner),
    ),
    max_size=4,
)


@pytest.mark.usefixtures("untraced")
@settings(max_examples=60, deadline=None)
@given(
    message=texts | st.text(alphabet='\n\r\v\f\x1c\x85\u2028\u2029"\\\x00é', max_size=6), extra=json_extras
)
def test_json_is_one_line_and_brings_the_message_back(message, extra):
    record = changed(make_record(message), extra=extra)
    assert as_json(record)["message"] == message
    escaped = escaping.apply_multiline(json_lines.compile_layout("plain")(record, FACTS, 1), "escape")
    assert json.loads(escaped)["message"] == message


@settings(max_examples=300, deadline=None)
@given(st.floats(0, 2e11))
@example(0.9999999)
@example(1.0000005)
@example(253_402_300_799.9999)
def test_timestamps_are_those_of_datetime(created):
    try:
        expected = datetime.fromtimestamp(created, timezone.utc).isoformat(timespec="microseconds")
    except ValueError:
        expected = None
    assert rendering.timestamp(created) == expected
    # Whatever a float rounds to: each layout has the same microsecond.
    assert (
        expected is None
        or f"{rendering.nanoseconds(created):>19}"[-9:-3].replace(" ", "0") == expected[20:26]
    )


# --- the loss ledger ---------------------------------------------------------------------------------------


def test_a_loss_says_who_which_how_many_and_why():
    loss = Loss(5, 16, "the spool is full", CREATED)
    assert formatting.render_loss(loss, FACTS) == (
        "2026-11-22T18:00:00.123456+00:00 WARNING redislogkit: 12 records dropped, sequences 5 to 16 of producer f00d "
        "(host web1, pid 4711, MainProcess): the spool is full"
    )
    assert "1 record dropped, sequence 5 of producer" in formatting.render_loss(
        Loss(5, 5, "x", CREATED), FACTS
    )


def test_a_loss_is_one_line_whatever_a_process_calls_itself():
    hostile = msgspec.structs.replace(FACTS, process_name="x\nINFO root: all is well\x1b[2J")
    rendered = formatting.render_loss(Loss(1, 2, "a\r\nb", CREATED), hostile)
    assert len(rendered.splitlines()) == 1
    assert "\x1b" not in rendered


def test_a_loss_can_be_rendered_by_any_formatter():
    loss = Loss(5, 16, "the spool is full", CREATED)
    values = as_json(formatting.loss_record(loss, FACTS))
    assert values["level"] == "WARNING"
    assert values["message"].startswith("12 records dropped, sequences 5 to 16")
    assert line("%(name)s %(message)s", formatting.loss_record(loss, FACTS)).startswith(
        "redislogkit 12 records"
    )


# --- line breaks and control characters --------------------------------------------------------------------

nasty = st.text(
    alphabet=st.sampled_from(
        "ab \t\n\r\v\f\x00\x07\x08\x1b\x1c\x7f\x85\x9b\u2028\u2029\u202e\u200b\ufeffé漢\\"
    )
    | st.characters(),
    max_size=20,
)


@settings(max_examples=300)
@given(nasty)
@example("a\r\nINFO root: forged")
def test_an_escaped_record_is_one_line_for_every_reader(text):
    escaped = escaping.apply_multiline(text, "escape")
    assert len(escaped.splitlines()) <= 1
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in escaped if char != "\t")
    assert escaping.apply_multiline(escaped, "escape") == escaped


def test_escapes_are_readable():
    text = "a\nb\r\tc\x1b[0m\x00\x7f\x85\u2028é漢"
    assert escaping.apply_multiline(text, "escape") == "a\\nb\\r\tc\\x1b[0m\\x00\\u007f\\u0085\\u2028é漢"


@settings(max_examples=200)
@given(nasty)
def test_an_indented_record_has_one_line_that_starts_at_the_margin(text):
    shown = escaping.apply_multiline(text, "indent").splitlines()
    assert all(later.startswith("    ") for later in shown[1:])
    assert [entry.removeprefix("    ") for entry in shown[1:]] == text.splitlines()[1:]
    assert (shown or [""])[0] == (text.splitlines() or [""])[0]


@given(nasty)
def test_a_kept_record_is_kept(text):
    assert escaping.apply_multiline(text, "keep") is text


@settings(max_examples=300)
@given(nasty)
@example("\x1b]0;owned\x07")
@example("good\rbad")
@example("abc\x08\x08\x08xyz")
@example("\x9b2J\u202egnp.exe\u200b\u2066")
def test_nothing_that_a_terminal_obeys_gets_through(text):
    safe = escaping.sanitise_terminal(text)
    assert all(char.isprintable() or char in "\n\t" or char.isspace() for char in safe)
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in safe if char not in "\n\t")
    assert not set("\u2028\u2029\u202e\u200b\ufeff\xad") & set(safe)
    assert escaping.sanitise_terminal(safe) == safe


def test_what_is_printable_stays_as_it_is():
    for text in ("plain", "two\n\tlines", "naïve 漢字\u3000かな 😀 ×\u00a0½", ""):
        assert escaping.sanitise_terminal(text) == text
    assert escaping.sanitise_terminal("a\x1b[31mé\u202eb\rc\ud800\U000e0001") == (
        "a\\x1b[31mé\\u202eb\\rc\\ud800\\U000e0001"
    )


# --- colours -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levelno", "start"),
    [(5, "34"), (10, "34"), (20, "32"), (25, "32"), (30, "33"), (40, "31"), (50, "1;37;41"), (99, "1;37;41")],
)
def test_each_level_has_its_colour(levelno, start):
    assert escaping.colour(levelno) == (f"\x1b[{start}m", "\x1b[0m")


def test_the_level_is_coloured_where_the_line_names_it():
    assert escaping.colourise("12:00 INFO x INFO", 20, "INFO") == "12:00 \x1b[32mINFO\x1b[0m x INFO"
    assert escaping.colourise("12:00 x\nINFO", 20, "INFO") == "\x1b[32m12:00 x\x1b[0m\nINFO"
    assert escaping.colourise("x\ntrace", 40, "") == "\x1b[31mx\x1b[0m\ntrace"


@settings(max_examples=100)
@given(nasty, st.integers(0, 60))
def test_colour_is_always_switched_off_again(text, levelno):
    coloured = escaping.colourise(escaping.sanitise_terminal(text), levelno, "INFO")
    start, stop = escaping.colour(levelno)
    assert coloured.count(start) == coloured.count(stop) == 1
    assert coloured.index(start) < coloured.index(stop)


# --- what it costs -----------------------------------------------------------------------------------------


def test_only_the_values_that_a_format_names_are_built(monkeypatch):
    def refuse(*_: object) -> dict[str, Any]:
        raise AssertionError("the generic way was taken")

    monkeypatch.setattr(formatting, "attributes", refuse)
    stream = io.StringIO()
    for style, fmt in formatting.DEFAULT_FORMATS.items():
        stream.write(
            line(fmt, make_record(request_id=1, process=1, msecs=1.5), style, optional_fields=("request_id",))
        )
    assert stream.getvalue().count("request_id: 1") == 3


# -- layouts of JSON ----------------------------------------------------------------------------------------


def laid_out(layout: Any, record: logging.LogRecord, **settings: Any) -> Any:
    formatter = formatting.build(FormatterConfig(type="json", layout=layout, **settings))
    return json.loads(formatter(through_the_stream(record), FACTS, 7))


@pytest.mark.parametrize("layout", ["plain", "ecs", "otel"])
def test_what_each_object_has_besides_never_hides_what_the_record_says(layout):
    constant = {"service.name": "shop", "host.name": "fake", "level": "fake", "log.level": "fake", "order": 1}
    record = make_log_record(order=4)
    before = laid_out(layout, record)
    found = laid_out(layout, record, fields=constant)
    place, known = (found["Resource"], before["Resource"]) if layout == "otel" else (found, before)
    assert place["service.name"] == "shop"
    assert place.items() >= known.items()
    assert place.keys() - known.keys() == constant.keys() - known.keys()


def full_record() -> logging.LogRecord:
    dotted: dict[str, Any] = {"http.request.method": "GET", "process.pid": "fake", "labels": 1}
    return make_log_record(
        levelname="ERROR",
        levelno=42,
        exc_text=TRACEBACK,
        user="ülf",
        order={"id": 4},
        otelTraceID="0af7651916cd43dd8448eb211c80319c",
        otelSpanID="b7ad6b7169203331",
        otelServiceName="shop",
        thread=5,
        threadName="T",
        **dotted,
    )


def test_ecs_names_the_fields_as_the_schema_does():
    assert laid_out("ecs", full_record()) == {
        "@timestamp": "2026-11-22T18:00:00.123456+00:00",
        "log.level": "error",
        "message": "hello",
        "ecs.version": "8.11.0",
        "log.logger": "my.app",
        "log.origin.file.name": "views.py",
        "log.origin.file.line": 12,
        "log.origin.function": "view",
        "process.pid": 4711,
        "process.name": "MainProcess",
        "process.thread.id": 5,
        "process.thread.name": "T",
        "host.name": "web1",
        "trace.id": "0af7651916cd43dd8448eb211c80319c",
        "span.id": "b7ad6b7169203331",
        "service.name": "shop",
        "error.type": "shop.Refused",
        "error.message": "no\nmoney",
        "error.stack_trace": TRACEBACK,
        "http.request.method": "GET",
        "labels": {"user": "ülf", "order": '{"id":4}', "process_pid": "fake", "labels": 1},
    }


def test_opentelemetry_names_the_fields_as_the_data_model_does():
    assert laid_out("otel", full_record()) == {
        "Timestamp": "1795370400123456000",
        "SeverityText": "ERROR",
        "SeverityNumber": 19,
        "Body": "hello",
        "TraceId": "0af7651916cd43dd8448eb211c80319c",
        "SpanId": "b7ad6b7169203331",
        "InstrumentationScope": {"Name": "my.app"},
        "Attributes": {
            "code.file.path": "/srv/app/views.py",
            "code.line.number": 12,
            "code.function.name": "view",
            "thread.id": 5,
            "thread.name": "T",
            "exception.type": "shop.Refused",
            "exception.message": "no\nmoney",
            "exception.stacktrace": TRACEBACK,
            "user": "ülf",
            "order": {"id": 4},
            "http.request.method": "GET",
            "process.pid": "fake",
            "labels": 1,
        },
        "Resource": {
            "host.name": "web1",
            "process.pid": 4711,
            "process.name": "MainProcess",
            "service.instance.id": "f00d",
            "service.name": "shop",
        },
    }


@pytest.mark.parametrize(
    ("levelno", "number"),
    [(0, 0), (5, 4), (10, 5), (12, 7), (20, 9), (29, 12), (30, 13), (40, 17), (50, 21), (99, 24)],
)
def test_a_level_has_the_severity_of_opentelemetry(levelno, number):
    assert json_lines.severity_number(levelno) == number


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"trace_id": "ab", "span_id": "cd"}, ("ab", "cd")),
        ({"otelTraceID": "0", "otelSpanID": "0"}, ("", "")),
        ({"trace_id": 0xAB, "span_id": 1}, (f"{0xAB:032x}", f"{1:016x}")),
        ({"trace_id": True, "span_id": ["x"]}, ("", "")),
        (None, ("", "")),
    ],
)
def test_the_ids_of_a_trace_are_found_among_the_extras(extra, expected):
    assert rendering.trace_of(extra) == expected


def raised(action):
    try:
        action()
    except BaseException:
        return logging.Formatter().formatException(sys.exc_info())


def _fail(error, cause=None):
    raise error from cause


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (lambda: _fail(ValueError("a: b\n  c\nd")), ("ValueError", "a: b\n  c\nd")),
        (lambda: _fail(KeyError()), ("KeyError", "")),
        (lambda: _fail(ConfigError(["x"]), ValueError("y")), ("redislogkit.errors.ConfigError", "x")),
        (lambda: compile("a b", "f", "exec"), ("SyntaxError", "invalid syntax")),
    ],
)
def test_type_and_message_of_an_exception_are_those_of_the_one_that_was_logged(action, expected):
    assert rendering.exception_of(raised(action)) == expected


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups came with Python 3.11")
def test_type_and_message_of_a_group_are_its_own():
    text = raised(lambda: _fail(getattr(builtins, "ExceptionGroup")("two", [ValueError("a"), KeyError("b")])))  # noqa: B009
    assert rendering.exception_of(text) == ("ExceptionGroup", "two (2 sub-exceptions)")


def test_a_time_of_rfc_3339_has_its_zone(monkeypatch):
    monkeypatch.setenv("TZ", "America/St_Johns")
    time.tzset()
    rendering.timestamps_of.cache_clear()
    try:
        config = FormatterConfig(format="%(asctime)s", datefmt="rfc3339")
        record = through_the_stream(make_log_record())
        assert formatting.build(config)(record, FACTS, 1) == "2026-11-22T14:30:00.123456-03:30"
        assert (
            formatting.build(replace(config, utc=True))(record, FACTS, 1)
            == "2026-11-22T18:00:00.123456+00:00"
        )
        assert (
            laid_out("plain", make_log_record(), utc=False)["timestamp"] == "2026-11-22T14:30:00.123456-03:30"
        )
        usual = formatting.build(FormatterConfig(format="%(asctime)s", utc=True))
        assert usual(record, FACTS, 1) == "2026-11-22 18:00:00,123"
    finally:
        monkeypatch.undo()
        time.tzset()
        rendering.timestamps_of.cache_clear()


# -- colours ------------------------------------------------------------------------------------------------


def test_colours_of_levels_are_what_the_configuration_says():
    colour_of = escaping.palette({"INFO": "dim cyan", "30": "none", "CRITICAL": "bright-white on 160"})
    assert colour_of(20) == ("\x1b[2;36m", "\x1b[0m")
    assert colour_of(25) == ("\x1b[2;36m", "\x1b[0m")
    assert colour_of(30) == ("", "")
    assert colour_of(40) == ("\x1b[31m", "\x1b[0m")
    assert colour_of(50) == ("\x1b[97;48;5;160m", "\x1b[0m")
    assert escaping.colourise("WARNING x", 30, "WARNING", colour_of) == "WARNING x"
    assert escaping.colourise("INFO x", 20, "INFO", colour_of) == "\x1b[2;36mINFO\x1b[0m x"

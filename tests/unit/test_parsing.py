"""Lines of log files are read back as far as their format shows them."""

from __future__ import annotations

import json
import time

import pytest

from redislogkit import formatting, lines, rendering
from redislogkit.config import FormatterConfig
from redislogkit.errors import ConfigError
from redislogkit.record import Loss
from redislogkit.view import parsing
from redislogkit.view.filter import Filter
from tests.helpers.looking import FACTS, record

CREATED = 1_780_000_000.125
TRACE = "Traceback (most recent call last):\n  File x\nKeyError: 'id'"
RECORD = record(
    "it went: wrong", CREATED, levelno=40, levelname="ERROR", name="shop.db", function="run", thread=5, thread_name="T 1",
    exc_text=TRACE, extra={"request_id": "r7", "n": 3},
)  # fmt: skip
FULL = "%(asctime)s [%(levelname)8s] %(process)d/%(threadName)s %(name)s %(filename)s:%(lineno)d %(funcName)s: %(message)s"


def rendered(config: FormatterConfig, item=RECORD, multiline="keep"):
    (text,) = lines.build(config, multiline)([(item, FACTS, 9)])
    return text.removesuffix("\n")


def parsed(config: FormatterConfig, item=RECORD, multiline="keep"):
    """What is read back of ``item``."""
    return parsing.parser(config, multiline).parse(rendered(config, item, multiline))


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("%", FULL),
        (
            "{",
            "{asctime} [{levelname:>8}] {process}/{threadName} {name} {filename}:{lineno:d} {funcName}: {message}",
        ),
        ("$", "$asctime [$levelname] $process/$threadName $name ${filename}:$lineno $funcName: $message"),
    ],
)
def test_a_text_format_is_read_back(style, text):
    values = parsed(FormatterConfig(format=text, style=style))
    assert values == {
        "created": CREATED, "levelname": "ERROR", "process": 4711, "threadName": "T 1", "name": "shop.db",
        "filename": "app.py", "lineno": 7, "funcName": "run", "message": "it went: wrong", "exc_text": TRACE,
    }  # fmt: skip


def test_what_is_read_back_of_the_usual_format_is_a_record_with_its_facts():
    one = parsing.seen(parsed(FormatterConfig(format=FULL)))
    assert (one.record.levelno, one.record.name, one.record.created) == (40, "shop.db", CREATED)
    assert (one.facts.pid, one.record.exc_text, one.record.message) == (4711, TRACE, "it went: wrong")


@pytest.mark.parametrize(
    "datefmt",
    [
        "%Y-%m-%d %H:%M:%S",
        "%d.%m.%Y %H:%M:%S",
        "%d/%b/%Y:%H:%M:%S %z",
        "%F %T",
        "%Y%m%d-%H%M%S",
        "%s",
        "%H:%M:%S",
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_times_are_read_back_where_they_tell_the_moment(datefmt, zone, monkeypatch):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        config = FormatterConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt=datefmt)
        parser = parsing.parser(config, "keep")
        values = parsed(config)
        assert values["message"] == "it went: wrong"
        tells = datefmt not in ("%s", "%H:%M:%S")
        assert parser.shows("created") == tells
        assert values.get("created") == (float(int(CREATED)) if tells else None)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_milliseconds_beside_a_time_belong_to_it():
    config = FormatterConfig(format="%(asctime)s.%(msecs)03.0f %(message)s", datefmt="%Y-%m-%dT%H:%M:%S")
    assert parsed(config)["created"] == CREATED


def test_optional_fields_are_read_back_where_a_record_has_them():
    config = FormatterConfig(optional_fields=("request_id", "user"))
    assert parsed(config)["request_id"] == "r7"
    assert parsed(config)["message"] == "it went: wrong"
    assert "request_id" not in parsed(config, record("plain", CREATED))


def test_a_message_of_several_lines_is_told_from_the_exception_behind_it():
    both = record("one\ntwo", CREATED, exc_text=TRACE)
    assert parsed(FormatterConfig(), both)["message"] == "one\ntwo"
    assert parsed(FormatterConfig(), both)["exc_text"] == TRACE
    escaped = parsed(FormatterConfig(), both, "escape")
    assert escaped["message"].startswith("one\\ntwo\\nTraceback")


def test_lines_of_a_traceback_begin_no_record():
    for config in (FormatterConfig(), FormatterConfig(format="%(levelname)s: %(message)s")):
        parser = parsing.parser(config, "keep")
        first, *others = rendered(config).split("\n")
        assert parser.begins(first)
        assert not any(map(parser.begins, others))


def test_without_anything_before_the_message_each_line_is_a_record_unless_it_is_indented():
    config = FormatterConfig(format="%(message)s")
    assert parsing.parser(config, "keep").begins("anything")
    assert not parsing.parser(config, "indent").begins("    anything")
    assert parsing.parser(config, "escape").begins("    anything")


def test_a_custom_level_is_hidden_by_no_filter():
    one = parsing.seen(parsed(FormatterConfig(), record("x", CREATED, levelno=25, levelname="LOUD")))
    assert one.record.levelname == "LOUD"
    assert Filter.of(now=0, level="CRITICAL").matches(one)


def test_a_notice_of_a_loss_is_read_back_as_one():
    config = FormatterConfig()
    one = parsing.seen(parsed(config, Loss(1, 3, "spool_full", CREATED)))
    assert one.is_notice
    assert "3 records dropped" in one.record.message


@pytest.mark.parametrize("text", ["", "no time here", "2026-13-45 99:00:00,000 INFO     app: x", "{]"])
def test_what_does_not_look_like_the_format_is_not_understood(text):
    assert parsing.parser(FormatterConfig(), "keep").parse(text) is None
    assert parsing.parser(FormatterConfig(type="json"), "keep").parse(text) is None


@pytest.mark.parametrize(
    "text", ["[1]", '"x"', "{}", '{"message": "of somebody else"}', '{"message": 1, "timestamp": 5}']
)
def test_json_that_is_no_record_of_ours_is_not_understood(text):
    assert parsing.parser(FormatterConfig(type="json"), "keep").parse(text) is None


def test_a_format_with_changed_values_is_read_as_far_as_they_are_as_they_were():
    config = FormatterConfig(format="%(asctime)s %(levelname).3s %(name)r %(message)s")
    parser = parsing.parser(config, "keep")
    assert parsed(config)["message"] == "it went: wrong"
    assert not parser.shows("levelname")
    assert not parser.shows("name")
    assert parser.shows("created")


def test_json_is_read_back_with_extras_and_their_types():
    values = parsed(FormatterConfig(type="json"))
    assert values["created"] == pytest.approx(CREATED, abs=1e-6)
    wanted = {
        "levelname": "ERROR", "name": "shop.db", "message": "it went: wrong", "exc_text": TRACE, "process": 4711,
        "host": "web1", "pathname": "/srv/app.py", "lineno": 7, "thread": 5, "request_id": "r7", "n": 3,
    }  # fmt: skip
    assert {name: values[name] for name in wanted} == wanted
    assert not {"timestamp", "level", "logger", "file"} & set(values)


@pytest.mark.parametrize("layout", ["plain", "ecs", "otel"])
def test_each_layout_of_json_is_read_back(layout):
    values = parsed(FormatterConfig(type="json", layout=layout))
    assert values is not None
    wanted = {
        "created": CREATED, "levelname": "ERROR", "name": "shop.db", "message": "it went: wrong", "exc_text": TRACE,
        "host": FACTS.host, "process": FACTS.pid, "thread": 5, "request_id": "r7", "n": 3,
    }  # fmt: skip
    assert {name: values.get(name) for name in wanted} == wanted
    assert not [name for name in values if "exception" in name or "error" in name]


@pytest.mark.parametrize(
    "render",
    [
        lambda r, f, q: {
            "@timestamp": "2026-05-28T20:26:40.125Z"
            if r.created == CREATED
            else rendering.timestamp(r.created),
            "log.level": r.levelname.lower(),
            "message": r.message,
            "log": {"logger": r.name, "origin": {"file": {"line": r.lineno}}},
            "labels": dict(r.extra or {}),
            **({"error": {"stack_trace": r.exc_text}} if r.exc_text else {}),
        },
        lambda r, f, q: {
            "Timestamp": str(int(r.created * 1_000_000_000)),
            "SeverityText": "WARN" if r.levelname == "WARNING" else r.levelname,
            "SeverityNumber": 13,
            "Body": r.message,
            "InstrumentationScope": {"Name": r.name},
            "Attributes": {
                "code.line.number": r.lineno,
                **({"exception.stacktrace": r.exc_text} if r.exc_text else {}),
                **(r.extra or {}),
            },
        },
    ],
    ids=["nested", "nanoseconds"],
)
def test_any_layout_of_json_is_read_back(render, monkeypatch):
    monkeypatch.setattr(formatting, "build", lambda config: lambda r, f, q: json.dumps(render(r, f, q)))
    parser = parsing.parser(FormatterConfig(type="json"), "keep")
    values = parser.parse(json.dumps(render(RECORD, FACTS, 9)))
    assert values is not None
    assert values.pop("created") == pytest.approx(CREATED, abs=1e-3)
    assert values == {
        "levelname": "ERROR", "message": "it went: wrong", "name": "shop.db", "lineno": 7, "exc_text": TRACE,
        "request_id": "r7", "n": 3,
    }  # fmt: skip


def test_what_each_line_has_besides_can_be_asked_for_like_an_extra():
    values = parsed(FormatterConfig(type="json", fields={"service": "shop", "n": 9}))
    assert (values["service"], values["n"]) == ("shop", 3)


@pytest.mark.parametrize("layout", ["plain", "ecs", "otel"])
def test_every_layout_of_ours_is_read_back(layout):
    values = parsed(FormatterConfig(type="json", layout=layout))
    wanted = {
        "created": CREATED, "levelname": "ERROR", "name": "shop.db", "message": "it went: wrong", "exc_text": TRACE,
        "process": 4711, "host": "web1", "lineno": 7, "thread": 5, "threadName": "T 1", "request_id": "r7", "n": 3,
    }  # fmt: skip
    assert {name: values[name] for name in wanted} == wanted
    assert values.get("filename", "app.py") == "app.py"
    assert values.get("pathname", "/srv/app.py") == "/srv/app.py"


@pytest.mark.parametrize(
    "settings", [{"datefmt": "rfc3339"}, {"datefmt": "rfc3339", "utc": True}, {"utc": True}]
)
def test_times_of_other_zones_are_read_back(settings, monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert parsed(FormatterConfig(**settings))["created"] == CREATED
    finally:
        monkeypatch.undo()
        time.tzset()


def test_asking_for_what_a_format_does_not_show_is_an_error_that_names_it():
    parser = parsing.parser(FormatterConfig(format="%(levelname)s %(message)s"), "keep")
    parsing.check(parser, Filter.of(now=0, level="ERROR", grep="x"), "writer app")
    wanted = Filter.of(now=9e9, loggers=["a"], since="1h ago", fields=["request_id=1"])
    with pytest.raises(ConfigError) as raised:
        parsing.check(parser, wanted, "the format '%(message)s' of writer 'app'")
    told = raised.value.problems
    assert [line.split(" asks")[0] for line in told] == ["--logger", "--since", "--field request_id"]
    assert "the format '%(message)s' of writer 'app' does not show" in told[0]
    parsing.check(parsing.parser(FormatterConfig(type="json"), "keep"), wanted, "")

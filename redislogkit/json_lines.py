"""Record → one object of JSON on one line. Pure.

A layout gives the fields their names: ``plain``, our own; ``ecs``, those of the Elastic Common Schema; ``otel``, those of
the log data model of OpenTelemetry. Each is a function from a record to a dictionary, with the time left out: that is
put in by the caller, since no rule of ``redact`` may touch it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from redislogkit.record import Facts, Record, safe_repr, sanitise
from redislogkit.redaction import Redactor
from redislogkit.rendering import Formatter, exception_of, nanoseconds, timestamp, trace_of

#: Record, facts, attributes that differ → fields of the object; the time is in its place, and None.
Layout: TypeAlias = Callable[[Record, Facts, Mapping[str, Any]], dict[str, Any]]

ECS_VERSION: Final = "8.11.0"

_NOTHING: Final[Mapping[str, Any]] = {}
#: Value → JSON; what msgspec does not know becomes its ``repr``.
encode_json: Final = msgspec.json.Encoder(enc_hook=safe_repr).encode
# What str.splitlines() takes for the end of a line and JSON allows in a text.
_BREAKS: Final = re.compile("[\x80-\x9f\u2028\u2029]")
#: Extras of the instrumentation of OpenTelemetry that have a place of their own.
_OF_TRACES: Final = frozenset(
    ["otelTraceID", "otelSpanID", "otelServiceName", "otelTraceSampled", "trace_id", "span_id"]
)


def compile_layout(
    layout: str,
    *,
    utc: bool = True,
    redactor: Redactor | None = None,
    constant: Mapping[str, Any] = _NOTHING,
) -> Formatter:
    """Return the formatter of a layout, one of ``plain``, ``ecs``, ``otel``; ``constant`` are fields that each object has.

    Keys without a value are left out. NaN and infinity become null, bytes text.
    """
    fields = LAYOUTS[layout]
    time_key = TIME_KEYS[layout]
    show_time: Callable[[float], Any] = (
        nanoseconds if layout == "otel" else lambda created: timestamp(created, utc=utc)
    )

    def render(record: Record, facts: Facts, sequence: int) -> str:  # noqa: ARG001 - it is a Formatter
        values = fields(record, facts, record.overrides or _NOTHING)
        if constant:
            _add_missing(values["Resource"] if layout == "otel" else values, constant)
        if redactor is not None:
            values = redactor.value(values)
        values[time_key] = show_time(record.created)
        try:
            text = encode_json(values).decode()
        except Exception:  # a record that was made by hand, with what no decoder returns
            text = encode_json(sanitise(values)).decode()
        return escape_breaks(text)

    return render


def _add_missing(values: dict[str, Any], constant: Mapping[str, Any]) -> None:
    for name, value in constant.items():
        values.setdefault(name, value)


def escape_breaks(text: str) -> str:
    """Escape what JSON allows in a text and others take for the end of a line."""
    return text if text.isascii() else _BREAKS.sub(_json_escape, text)


def _json_escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def json_value(value: Any) -> Any:
    """Return what JSON can take for ``value``, which came out of msgpack."""
    if type(value) in _SCALARS:
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, Mapping):
        return {str(json_value(key)): json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    return value


_SCALARS: Final = frozenset([str, int, float, bool, type(None)])

# --- layouts -----------------------------------------------------------------------------------------------


_PLAIN_KEYS: Final = frozenset(
    {
        "timestamp", "level", "logger", "message", "process", "process_name", "thread", "thread_name", "task",
        "host", "file", "line", "function", "exception", "exception_type", "exception_message", "stack",
    }
)  # fmt: skip


def _plain(record: Record, facts: Facts, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Our own names. An extra named like one of them gets ``_`` appended."""
    values: dict[str, Any] = {
        "timestamp": None,
        "level": record.levelname,
        "logger": record.name,
        "message": record.message,
        "process": overrides.get("process", facts.pid),
        "process_name": overrides.get("processName", facts.process_name),
        "thread": record.thread,
        "thread_name": record.thread_name,
        "task": record.task_name,
        "host": facts.host,
        "file": record.pathname,
        "line": record.lineno,
        "function": record.function,
    }
    if values["task"] is None:
        del values["task"]
    if text := record.exc_text:
        values["exception"] = text
        kind, message = exception_of(text)
        if kind:
            values |= {"exception_type": kind, "exception_message": message}
    if record.stack_info:
        values["stack"] = record.stack_info
    for key, value in (record.extra or _NOTHING).items():
        name = key
        while name in _PLAIN_KEYS or name in values:
            name += "_"
        values[name] = json_value(value)
    return values


def _free(name: str, taken: Container[str]) -> str:
    """Return ``name``, with ``_`` appended as often as it is taken."""
    while name in taken:
        name += "_"
    return name


def _ecs(record: Record, facts: Facts, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Elastic Common Schema. Extras become labels; one with a dot in its name is taken for a field of the schema."""
    extra = record.extra or _NOTHING
    values: dict[str, Any] = {
        "@timestamp": None,
        "log.level": record.levelname.lower(),
        "message": record.message,
        "ecs.version": ECS_VERSION,
        "log.logger": record.name,
        "log.origin.file.name": os.path.basename(record.pathname),
        "log.origin.file.line": record.lineno,
        "log.origin.function": record.function,
        "process.pid": overrides.get("process", facts.pid),
        "process.name": overrides.get("processName", facts.process_name),
        "process.thread.id": record.thread,
        "process.thread.name": record.thread_name,
        "host.name": facts.host,
    }
    traces = zip(("trace.id", "span.id"), trace_of(extra), strict=True)
    values |= {name: value for name, value in traces if value}
    if service := extra.get("otelServiceName"):
        values["service.name"] = service
    labels = {} if record.task_name is None else {"task_name": record.task_name}
    if record.exc_text:
        kind, message = exception_of(record.exc_text)
        values |= {"error.type": kind, "error.message": message} if kind else {}
        values["error.stack_trace"] = record.exc_text
        if record.stack_info:
            labels["stack"] = record.stack_info
    elif record.stack_info:
        values["error.stack_trace"] = record.stack_info
    for key, value in extra.items():
        if key in _OF_TRACES:
            continue
        if "." in key and key not in values:
            values[key] = json_value(value)
        else:
            labels[_free(key.replace(".", "_"), labels)] = _label(value)
    if labels:
        values["labels"] = labels
    return values


def _label(value: Any) -> Any:
    """Labels are scalars."""
    plain = json_value(value)
    return encode_json(plain).decode() if isinstance(plain, (dict, list)) else plain


def _otel(record: Record, facts: Facts, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Log data model of OpenTelemetry."""
    extra = record.extra or _NOTHING
    values: dict[str, Any] = {
        "Timestamp": None,
        "SeverityText": record.levelname,
        "SeverityNumber": severity_number(record.levelno),
        "Body": record.message,
    }
    traces = zip(("TraceId", "SpanId"), trace_of(extra), strict=True)
    values |= {name: value for name, value in traces if value}
    attributes: dict[str, Any] = {
        "code.file.path": record.pathname,
        "code.line.number": record.lineno,
        "code.function.name": record.function,
        "thread.id": record.thread,
        "thread.name": record.thread_name,
    }
    if record.task_name is not None:
        attributes["task.name"] = record.task_name
    if record.exc_text:
        kind, message = exception_of(record.exc_text)
        attributes |= {"exception.type": kind, "exception.message": message} if kind else {}
        attributes["exception.stacktrace"] = record.exc_text
    if record.stack_info:
        attributes["code.stacktrace"] = record.stack_info
    for key, value in extra.items():
        if key not in _OF_TRACES:
            attributes[_free(key, attributes)] = json_value(value)
    resource: dict[str, Any] = {
        "host.name": facts.host,
        "process.pid": overrides.get("process", facts.pid),
        "process.name": overrides.get("processName", facts.process_name),
        "service.instance.id": facts.producer,
    }
    if service := extra.get("otelServiceName"):
        resource["service.name"] = service
    return values | {
        "InstrumentationScope": {"Name": record.name},
        "Attributes": attributes,
        "Resource": resource,
    }


def severity_number(levelno: int) -> int:
    """Return the SeverityNumber of OpenTelemetry: DEBUG 5, INFO 9, WARN 13, ERROR 17, FATAL 21; 0 where there is no level."""
    if levelno <= 0:
        return 0
    tens, ones = divmod(min(levelno, 59), 10)
    return tens * 4 + 1 + min(ones, 3)


LAYOUTS: Final[Mapping[str, Layout]] = {"plain": _plain, "ecs": _ecs, "otel": _otel}
TIME_KEYS: Final[Mapping[str, str]] = {"plain": "timestamp", "ecs": "@timestamp", "otel": "Timestamp"}

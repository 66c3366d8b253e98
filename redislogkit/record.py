"""``LogRecord`` → record → bytes and back. Pure: no file, no clock, no socket.

A record is stored as one msgpack array. What does not change within a process stands once in its
`Facts`; a `Record` carries an attribute of its own only where it differs (``overrides``), so that
a record passed on from another process (``QueueListener``) keeps its origin.

Encoding must never fail and never hurt the caller: objects that msgpack does not know become their
``repr``; whatever still fails (lone surrogates, huge integers, cycles, failing ``repr``) goes through
`sanitise`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

_PLAIN_RECORD: Final = logging.makeLogRecord({})

#: Attributes of every ``LogRecord``; anything else in its ``__dict__`` is an extra.
STANDARD_ATTRIBUTES: Final[frozenset[str]] = frozenset(_PLAIN_RECORD.__dict__) | {
    "message",
    "asctime",
    "taskName",
}
#: Length of a ``LogRecord.__dict__`` without extras that no formatter has touched yet.
PLAIN_LENGTH: Final = len(_PLAIN_RECORD.__dict__)

MAX_DEPTH: Final = 6
MAX_ITEMS: Final = 1_000
MAX_REPR: Final = 8_192


class Facts(msgspec.Struct, array_like=True, frozen=True):
    """What does not change within one producer; stands once in its spool's header."""

    producer: str
    host: str
    pid: int
    process_name: str
    started: float
    """Seconds since the epoch at which ``logging`` was loaded; base of ``relativeCreated``."""
    uid: int
    tty: str = ""
    """Path of the producer's terminal, empty when it has none."""
    tty_device: int = 0
    """``st_rdev`` of that terminal, so that a reused path is noticed."""
    boot_id: str = ""
    ships_itself: bool = False
    """True where a thread of the producer ships the spool (``ship = "thread"``)."""


class Record(msgspec.Struct, array_like=True, tag=1, frozen=True, gc=False):
    """One log event, independent of ``logging.LogRecord``."""

    created: float
    levelno: int
    levelname: str
    name: str
    message: str
    pathname: str
    lineno: int
    function: str
    thread: int | None
    thread_name: str | None
    task_name: str | None = None
    exc_text: str | None = None
    stack_info: str | None = None
    extra: dict[str, Any] | None = None
    overrides: dict[str, Any] | None = None
    """``LogRecord`` attributes that differ from the producer's facts or from what derives from ``created``."""
    text: str | None = None
    """The line as the application's own formatter made it; text formatters write it verbatim."""


class Loss(msgspec.Struct, array_like=True, tag=2, frozen=True):
    """Stands where records were dropped: how many of one producer's sequence, and why."""

    first: int
    last: int
    cause: str
    created: float


class End(msgspec.Struct, array_like=True, tag=3, frozen=True):
    """The last item of a producer: all it ever logged lies before it."""


Item: TypeAlias = Record | Loss | End

_encoder: Final = msgspec.msgpack.Encoder(enc_hook=lambda obj: safe_repr(obj))
encode: Final[Callable[[Any], bytes]] = _encoder.encode
_items_decoder: Final = msgspec.msgpack.Decoder(list[Record | Loss | End])
_facts_decoder: Final = msgspec.msgpack.Decoder(Facts)


def encode_fields(fields: tuple[Any, ...]) -> bytes:
    """Encode the fields of a record (its tag first); sanitise them when msgpack refuses them."""
    try:
        return encode(fields)
    except Exception:  # lone surrogate, > 64 bit, cycle, a container changed by another thread
        return encode(tuple(sanitise(field) for field in fields))


def decode_items(data: bytes | memoryview) -> list[Item]:
    """Decode a msgpack array of items.

    A record whose fields have odd types (a replaced record factory can do that) is coerced field by
    field; it does not cost its neighbours. Raises ``msgspec.DecodeError`` when the bytes are no items.
    """
    try:
        return _items_decoder.decode(data)
    except msgspec.ValidationError:
        return [_coerce_item(item) for item in msgspec.msgpack.decode(data)]


def encode_facts(facts: Facts) -> bytes:
    """Encode the facts; their strings are made safe first."""
    return encode(tuple(sanitise(value) for value in msgspec.structs.astuple(facts)))


def decode_facts(data: bytes | memoryview) -> Facts:
    """Decode facts; raises ``msgspec.DecodeError``."""
    return _facts_decoder.decode(data)


def record_fields(
    record: logging.LogRecord, pid: int, process_name: str, text: str | None = None
) -> tuple[Any, ...]:
    """Return the fields of ``record``, tag first, ready for `encode_fields`.

    Merges the message and renders the exception. Never raises ``Exception``: what can not be rendered
    is replaced by a text that says so.
    """
    attributes = record.__dict__
    created = attributes.get("created") or 0.0
    extra = None
    if len(attributes) != PLAIN_LENGTH:
        extra = {
            str(key): value for key, value in attributes.items() if key not in STANDARD_ATTRIBUTES
        } or None
    exc_text = None
    if attributes.get("exc_info") or attributes.get("exc_text"):
        exc_text = render_exception(record)
    overrides = None
    if (
        attributes.get("process") != pid
        or attributes.get("processName") != process_name
        or attributes.get("msecs") != int((created - int(created)) * 1000)
    ):
        overrides = {
            "process": attributes.get("process"),
            "processName": attributes.get("processName"),
            "msecs": attributes.get("msecs"),
        }
    stack_info = attributes.get("stack_info")
    return (
        1,
        created,
        attributes.get("levelno", 0),
        attributes.get("levelname", ""),
        attributes.get("name", ""),
        render_message(record),
        attributes.get("pathname", ""),
        attributes.get("lineno", 0),
        attributes.get("funcName") or "",
        attributes.get("thread"),
        attributes.get("threadName"),
        attributes.get("taskName"),
        exc_text,
        None if stack_info is None else safe_str(stack_info),
        extra,
        overrides,
        text,
    )


def render_message(record: logging.LogRecord) -> str:
    """Merge message and arguments; a failure becomes part of the text instead of an exception."""
    try:
        message = record.getMessage()
        return message if type(message) is str else safe_str(message)
    except Exception as error:
        return (
            f"{safe_str(record.msg)} "
            f"[redislogkit: arguments {safe_repr(record.args)} do not fit: {safe_repr(error)}]"
        )


_exception_formatter: Final = logging.Formatter()


def render_exception(record: logging.LogRecord) -> str | None:
    """Render ``exc_info``, or return the ``exc_text`` that another handler has rendered already."""
    if record.exc_text:
        return safe_str(record.exc_text)
    exc_info: Any = record.exc_info
    try:
        if isinstance(exc_info, BaseException):
            exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
        if not isinstance(exc_info, tuple):
            return None
        return _exception_formatter.formatException(exc_info)
    except Exception as error:
        return f"[redislogkit: exception can not be rendered: {safe_repr(error)}]"


def safe_repr(obj: object) -> str:
    """``repr`` that never raises ``Exception``, is a plain ``str``, and is at most `MAX_REPR` characters."""
    try:
        text = str.__str__(repr(obj))
    except Exception:
        text = f"<unrepresentable {type(obj).__name__}>"
    return text if len(text) <= MAX_REPR else text[:MAX_REPR] + "…"


def safe_str(obj: object) -> str:
    """``str`` that never raises ``Exception``."""
    try:
        return str.__str__(str(obj))
    except Exception:
        return safe_repr(obj)


def sanitise(value: object, depth: int = 0) -> Any:
    """Return ``value`` as something that msgpack encodes for certain.

    Plain values stay what they are; lone surrogates become ``\\udcXX``, integers beyond 64 bits and
    unknown objects text, containers are cut at `MAX_DEPTH` levels and `MAX_ITEMS` items.
    """
    if value is None or isinstance(value, (bool, float)):
        return value if type(value) in (type(None), bool, float) else float(value or 0.0)
    if isinstance(value, int):
        number = int.__int__(value)
        return number if -(2**63) <= number < 2**64 else _big_int(number)
    if isinstance(value, str):
        return _encodable(str.__str__(value))
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if depth >= MAX_DEPTH:
        return _encodable(safe_repr(value))
    try:
        if isinstance(value, Mapping):
            return {
                _encodable(safe_str(key)): sanitise(item, depth + 1)
                for key, item in list(value.items())[:MAX_ITEMS]
            }
        if isinstance(value, (list, tuple, set, frozenset)):
            return [sanitise(item, depth + 1) for item in list(value)[:MAX_ITEMS]]
    except Exception:  # a container of the user's that does not behave, or changes meanwhile
        return f"<unrepresentable {type(value).__name__}>"
    return _encodable(safe_repr(value))


def _big_int(number: int) -> str:
    # str() of a huge int raises beyond sys.get_int_max_str_digits(); hex() has no such bound.
    text = hex(number)
    return text if len(text) <= MAX_REPR else text[:MAX_REPR] + "…"


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def _coerce_item(item: Any) -> Item:
    """Make an item of whatever a producer sent; the types of a record's fields are forced."""
    if isinstance(item, list) and len(item) > 10 and item[0] == 1:
        f = item[1:] + [None] * (16 - len(item[1:]))
        return Record(
            created=f[0] if isinstance(f[0], float) else float(f[0]) if isinstance(f[0], int) else 0.0,
            levelno=f[1] if isinstance(f[1], int) else 0,
            levelname=safe_str(f[2]),
            name=safe_str(f[3]),
            message=safe_str(f[4]),
            pathname=safe_str(f[5]),
            lineno=f[6] if isinstance(f[6], int) else 0,
            function=safe_str(f[7]),
            thread=f[8] if isinstance(f[8], int) else None,
            thread_name=_text_or_none(f[9]),
            task_name=_text_or_none(f[10]),
            exc_text=_text_or_none(f[11]),
            stack_info=_text_or_none(f[12]),
            extra={safe_str(k): v for k, v in f[13].items()} if isinstance(f[13], dict) else None,
            overrides={safe_str(k): v for k, v in f[14].items()} if isinstance(f[14], dict) else None,
            text=_text_or_none(f[15]),
        )
    return msgspec.convert(item, Record | Loss | End)


def _text_or_none(value: object) -> str | None:
    return None if value is None else safe_str(value)


def attributes(record: Record, facts: Facts, sequence: int) -> dict[str, Any]:
    """Return every attribute that a format may name: those of ``LogRecord``, extras, and our own.

    Our own are ``host``, ``producer`` and ``sequence``. ``asctime`` is left to the formatter.
    """
    created = record.created
    basename = os.path.basename(record.pathname)
    values: dict[str, Any] = {
        "host": facts.host,
        "producer": facts.producer,
        "sequence": sequence,
        **(record.extra or {}),
        "name": record.name,
        "msg": record.message,
        "args": None,
        "levelname": record.levelname,
        "levelno": record.levelno,
        "pathname": record.pathname,
        "filename": basename,
        "module": os.path.splitext(basename)[0],
        "exc_info": None,
        "exc_text": record.exc_text,
        "stack_info": record.stack_info,
        "lineno": record.lineno,
        "funcName": record.function,
        "created": created,
        "msecs": int((created - int(created)) * 1000) + 0.0,
        "relativeCreated": (created - facts.started) * 1000,
        "thread": record.thread,
        "threadName": record.thread_name,
        "taskName": record.task_name,
        "processName": facts.process_name,
        "process": facts.pid,
        "message": record.message,
    }
    if record.overrides:
        values.update(record.overrides)
    return values

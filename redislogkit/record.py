"""``LogRecord`` → record → bytes and back. Pure: no file, no clock, no socket.

A record is stored as one msgpack array. What does not change within a process stands once in its
`Facts`; a `Record` carries an attribute of its own only where it differs (``overrides``), so that
a record passed on from another process (``QueueListener``) keeps its origin.

Encoding must never fail and never hurt the caller, and what was encoded must decode in any other process:
extras that are not plain data, and records that msgpack refuses (lone surrogates, huge integers), go through
`sanitise`.
"""

from __future__ import annotations

import datetime as dt
import decimal
import logging
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Annotated, Any, Final, TypeAlias

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
# A record unpickled from an older Python lacks an attribute, and may be as long with an extra.
_NEWEST_ATTRIBUTE: Final = next(reversed(_PLAIN_RECORD.__dict__))

#: What an extra may be: levels of containers, values in all; and what `sanitise` leaves of each container.
MAX_DEPTH: Final = 16
MAX_VALUES: Final = 10_000
MAX_ITEMS: Final = 1_000
MAX_REPR: Final = 8_192

#: Times that every formatter can show, seconds since the epoch: years 5 to 9987.
EARLIEST: Final = -62_000_000_000.0
LATEST: Final = 253_000_000_000.0

Time: TypeAlias = Annotated[float, msgspec.Meta(ge=EARLIEST, lt=LATEST)]
#: A sequence; above 63 bits neither redis nor a checkpoint could count on.
Sequence: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Facts(msgspec.Struct, array_like=True, frozen=True):
    """What does not change within one producer; stands once in its spool's header."""

    producer: str
    host: str
    pid: int
    process_name: str
    started: Time
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

    created: Time
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

    first: Sequence
    last: Sequence
    cause: str
    created: Time


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
    field; it does not cost its neighbours. Raises ``ValueError`` or ``RecursionError`` when the bytes are
    no array of anything.
    """
    try:
        return _items_decoder.decode(data)
    except msgspec.ValidationError:
        return [_coerce_item(item) for item in msgspec.msgpack.decode(data, type=list[Any])]


def encode_facts(facts: Facts) -> bytes:
    """Encode the facts; their strings are made safe first."""
    return encode(tuple(sanitise(value) for value in msgspec.structs.astuple(facts)))


def decode_facts(data: bytes | memoryview) -> Facts:
    """Decode facts; raises ``ValueError``."""
    return _facts_decoder.decode(data)


def record_fields(
    record: logging.LogRecord, pid: int, process_name: str, text: str | None = None
) -> tuple[Any, ...]:
    """Return the fields of ``record``, tag first, ready for `encode_fields`.

    Merges the message and renders the exception. Never raises ``Exception``: what can not be rendered
    is replaced by a text that says so.
    """
    attributes = record.__dict__
    created = attributes.get("created")
    if type(created) is not float or not EARLIEST <= created < LATEST:
        created = _time_of(created)
    extra = None
    if len(attributes) != PLAIN_LENGTH or _NEWEST_ATTRIBUTE not in attributes:
        extra = _extras(attributes)
    exc_text = None
    if attributes.get("exc_info") or attributes.get("exc_text"):
        exc_text = render_exception(record)
    overrides = None
    if (
        attributes.get("process") != pid
        or attributes.get("processName") != process_name
        or attributes.get("msecs") != int((created - int(created)) * 1000)
    ):
        overrides = _overrides(attributes)
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


def _time_of(created: object) -> float:
    """Seconds since the epoch of whatever a record factory has put there; 0.0 where it is no time."""
    if isinstance(created, (int, float)) and EARLIEST <= created < LATEST:
        return float(created)
    return 0.0


def _extras(attributes: dict[str, Any]) -> dict[str, Any] | None:
    extra: dict[str, Any] = {}
    for key in _extra_names(attributes):
        if key in STANDARD_ATTRIBUTES:
            continue
        value = attributes.get(key)
        if type(key) is not str:
            key = safe_str(key)  # noqa: PLW2901
        plain = type(value) in _SCALARS or _is_plain(value, 1, [MAX_VALUES])
        extra[key] = value if plain else sanitise(value)
    return extra or None


def _extra_names(attributes: dict[str, Any]) -> list[Any]:
    """Return the keys that may be extras: those behind what ``logging`` itself has set, as a rule."""
    names: list[Any] = []
    for key in reversed(tuple(attributes)):
        if key == _NEWEST_ATTRIBUTE:
            break
        names.append(key)
    if len(names) != len(attributes) - PLAIN_LENGTH:
        return list(attributes)
    names.reverse()
    return names


def _overrides(attributes: dict[str, Any]) -> dict[str, Any]:
    overrides = {name: sanitise(attributes.get(name)) for name in ("process", "processName")}
    if isinstance(msecs := attributes.get("msecs"), (int, float)) and 0 <= msecs < 1000:
        overrides["msecs"] = sanitise(msecs)
    return overrides


def render_message(record: logging.LogRecord) -> str:
    """Merge message and arguments; a failure becomes part of the text instead of an exception."""
    try:
        message = record.getMessage()
        return message if type(message) is str else safe_str(message)
    except Exception as error:
        attributes = record.__dict__
        return (
            f"{safe_str(attributes.get('msg'))} "
            f"[redislogkit: arguments {safe_repr(attributes.get('args'))} do not fit: {safe_repr(error)}]"
        )


_exception_formatter: Final = logging.Formatter()


def render_exception(record: logging.LogRecord) -> str | None:
    """Render ``exc_info``, or return the ``exc_text`` that another handler has rendered already."""
    attributes = record.__dict__
    if attributes.get("exc_text"):
        return safe_str(attributes["exc_text"])
    exc_info: Any = attributes.get("exc_info")
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
        text = _unrepresentable(obj)
    return text if len(text) <= MAX_REPR else text[:MAX_REPR] + "…"


def safe_str(obj: object) -> str:
    """``str`` that never raises ``Exception``."""
    try:
        return str.__str__(str(obj))
    except Exception:
        return safe_repr(obj)


def _unrepresentable(obj: object) -> str:
    try:
        return f"<unrepresentable {type(obj).__name__}>"
    except Exception:  # a metaclass can do that
        return "<unrepresentable object>"


_SCALARS: Final = frozenset([str, int, float, bool, bytes, type(None)])


def _is_plain(value: Any, depth: int, budget: list[int]) -> bool:
    """True for lists and string-keyed dictionaries of scalars, of exactly these types, within the limits."""
    kind = type(value)
    budget[0] -= 1
    if kind in _SCALARS:
        return True
    if depth >= MAX_DEPTH or len(value if kind in (dict, list, tuple) else ()) > budget[0]:
        return False
    try:
        if kind is dict:
            return all(type(key) is str for key in value) and all(
                _is_plain(item, depth + 1, budget) for item in value.values()
            )
        return kind in (list, tuple) and all(_is_plain(item, depth + 1, budget) for item in value)
    except RuntimeError:  # changed by another thread
        return False


def sanitise(value: object) -> Any:
    """Return ``value`` as something that msgpack encodes, and decodes, for certain. Never raises ``Exception``.

    Plain values stay what they are; lone surrogates become ``\\udcXX``, dates ISO text, integers beyond 64
    bits and unknown objects text. Containers are cut at `MAX_DEPTH` levels, `MAX_ITEMS` items each and
    `MAX_VALUES` values in all, whatever they refer to.
    """
    return _sanitised(value, 0, [MAX_VALUES])


def _sanitised(value: Any, depth: int, budget: list[int]) -> Any:
    budget[0] -= 1
    try:
        # ``isinstance`` asks a proxy object for its class, and that may fail.
        if value is None or isinstance(value, bool):
            return value
        for kind, convert in _CONVERSIONS:
            if isinstance(value, kind):
                return convert(value)
        if isinstance(value, Mapping):
            return _sanitised_mapping(value, depth, budget)
        if isinstance(value, (list, tuple, set, frozenset)):
            return _sanitised_items(value, depth, budget)
    except Exception:  # a container of the user's that does not behave, or changes meanwhile
        return _encodable(_unrepresentable(value))
    return _encodable(safe_repr(value))


def _sanitised_mapping(value: Mapping[Any, Any], depth: int, budget: list[int]) -> Any:
    if depth >= MAX_DEPTH:
        return _CUT
    return {
        _encodable(safe_str(key)): _sanitised(item, depth + 1, budget)
        for key, item in _first(value.items(), budget)
    }


def _sanitised_items(value: Iterable[Any], depth: int, budget: list[int]) -> Any:
    if depth >= MAX_DEPTH:
        return _CUT
    return [_sanitised(item, depth + 1, budget) for item in _first(value, budget)]


def _first(items: Iterable[Any], budget: list[int]) -> list[Any]:
    # A list at once: what converts the items may run user code, and that may change the container.
    return list(islice(items, max(0, min(MAX_ITEMS, budget[0]))))


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


def _int(value: int) -> Any:
    number = int.__int__(value)
    return number if -(2**63) <= number < 2**64 else _big_int(number)


_CUT: Final = "…"
#: Types whose subclasses become the plain type, or text; the first that fits counts.
_CONVERSIONS: Final[tuple[tuple[Any, Callable[[Any], Any]], ...]] = (
    (str, lambda value: _encodable(str.__str__(value))),
    (int, _int),
    (float, float.__float__),
    ((bytes, bytearray), lambda value: bytes(memoryview(value))),
    ((dt.date, dt.time), lambda value: _encodable(safe_str(value.isoformat()))),
    ((decimal.Decimal, uuid.UUID), lambda value: _encodable(safe_str(value))),
)


def _coerce_item(item: Any) -> Item:
    """Make an item of whatever a producer sent; the types of a record's fields are forced."""
    if isinstance(item, list) and len(item) > 10 and item[0] == 1:
        f = item[1:] + [None] * (16 - len(item[1:]))
        return Record(
            created=_time_of(f[0]),
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
    try:
        return msgspec.convert(item, Record | Loss | End)
    except (ValueError, RecursionError) as error:
        return unreadable(str(error))


def unreadable(reason: str) -> Record:
    """Return what takes the place of an item that can not be decoded, so that its sequence is accounted for."""
    message = f"[redislogkit: this record can not be decoded: {reason}]"
    return Record(0.0, logging.ERROR, "ERROR", "redislogkit", message, "", 0, "", None, None)


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

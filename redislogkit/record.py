"""``LogRecord`` → record → bytes and back. Pure: no file, no clock, no socket.

A record is stored as one msgpack array. What does not change within a process stands once in its
`Facts`; a record carries an attribute of its own only where it differs (``overrides``), so that
a record passed on from another process (``QueueListener``) keeps its origin. What is the same for all records of one
line of code, its `Site`, stands in each record, but as bytes that are encoded once and decoded once; the same goes for
the thread. Most records have nothing else, and are a plain `Record`; others are a `RichRecord`.

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
from functools import lru_cache
from itertools import islice
from typing import Annotated, Any, Final, TypeAlias, TypeVar

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


class Site(msgspec.Struct, array_like=True, frozen=True):
    """Where a record was logged: the same for all records of one logging call in the code."""

    levelno: int
    levelname: str
    name: str
    """Of the logger."""
    pathname: str
    lineno: int
    function: str


class Record(msgspec.Struct, array_like=True, tag=1, frozen=True, gc=False):
    """One log event, independent of ``logging.LogRecord``: one without anything special."""

    created: Time
    message: str
    site: bytes
    """Its `Site`, encoded."""
    by: bytes
    """Identifier and name of its thread, encoded."""

    @property
    def levelno(self) -> int:
        """Number of its level."""
        return site_of(self.site).levelno

    @property
    def levelname(self) -> str:
        """Name of its level."""
        return site_of(self.site).levelname

    @property
    def name(self) -> str:
        """Name of its logger."""
        return site_of(self.site).name

    @property
    def pathname(self) -> str:
        """File of the logging call."""
        return site_of(self.site).pathname

    @property
    def lineno(self) -> int:
        """Line of the logging call."""
        return site_of(self.site).lineno

    @property
    def function(self) -> str:
        """Function of the logging call."""
        return site_of(self.site).function

    @property
    def thread(self) -> int | None:
        """Identifier of its thread."""
        return thread_of(self.by)[0]

    @property
    def thread_name(self) -> str | None:
        """Name of its thread."""
        return thread_of(self.by)[1]

    # What only a `RichRecord` has.

    @property
    def task_name(self) -> str | None:
        """Name of its asyncio task."""
        return None

    @property
    def exc_text(self) -> str | None:
        """The rendered exception."""
        return None

    @property
    def stack_info(self) -> str | None:
        """The rendered stack."""
        return None

    @property
    def extra(self) -> dict[str, Any] | None:
        """What the caller has added."""
        return None

    @property
    def overrides(self) -> dict[str, Any] | None:
        """``LogRecord`` attributes that differ from the producer's facts or from what derives from ``created``."""
        return None

    @property
    def text(self) -> str | None:
        """The line as the application's own formatter made it; text formatters write it verbatim."""
        return None


class RichRecord(Record, array_like=True, tag=4, frozen=True, gc=False):
    """A record with at least one of these."""

    task_name: str | None = None
    exc_text: str | None = None
    stack_info: str | None = None
    extra: dict[str, Any] | None = None
    overrides: dict[str, Any] | None = None
    text: str | None = None


class Loss(msgspec.Struct, array_like=True, tag=2, frozen=True):
    """Stands where records were dropped: how many of one producer's sequence, and why."""

    first: Sequence
    last: Sequence
    cause: str
    created: Time


#: Cause of a loss behind the producer: the server no longer has what it had confirmed.
NOT_IN_STREAM: Final = "not in the stream"


class End(msgspec.Struct, array_like=True, tag=3, frozen=True):
    """The last item of a producer: all it ever logged lies before it."""


Item: TypeAlias = Record | RichRecord | Loss | End

_encoder: Final = msgspec.msgpack.Encoder(enc_hook=lambda obj: safe_repr(obj))
encode: Final[Callable[[Any], bytes]] = _encoder.encode
encode_into: Final[Callable[[Any, bytearray], None]] = _encoder.encode_into
_items_decoder: Final = msgspec.msgpack.Decoder(list[Item])
_facts_decoder: Final = msgspec.msgpack.Decoder(Facts)


def encode_fields(fields: tuple[Any, ...]) -> bytes:
    """Encode the fields of a record (its tag first); sanitise them when msgpack refuses them."""
    # Not `encode`, although it is 0.07 us quicker: where there is no memory for its result, msgspec crashes the process.
    encoded = bytearray()
    try:
        encode_into(fields, encoded)
    except Exception:  # lone surrogate, > 64 bit, cycle, a container changed by another thread
        encoded = bytearray()
        encode_into(tuple(sanitise(field) for field in fields), encoded)
    return bytes(encoded)


def encode_site(levelno: Any, levelname: Any, name: Any, pathname: Any, lineno: Any, function: Any) -> bytes:
    """Encode a `Site`, whatever its values are."""
    return encode_fields((levelno, levelname, name, pathname, lineno, function))


def encode_thread(ident: Any, name: Any) -> bytes:
    """Encode identifier and name of a thread, whatever they are."""
    return encode_fields((ident, name))


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


@lru_cache(2048)
def encode_facts(facts: Facts) -> bytes:
    """Encode the facts; their strings are made safe first."""
    return encode(tuple(sanitise(value) for value in msgspec.structs.astuple(facts)))


def decode_facts(data: bytes | memoryview) -> Facts:
    """Decode facts; raises ``ValueError``."""
    return _facts_decoder.decode(data)


# --- LogRecord → fields ------------------------------------------------------------------------------------

_LogRecord: Final = logging.LogRecord
get_message: Final = logging.LogRecord.getMessage
_HAS_TASKS: Final = "taskName" in _PLAIN_RECORD.__dict__


def plain_fields(record: logging.LogRecord, pid: int, process_name: str) -> tuple[Any, ...] | None:
    """Return the fields of a record that has nothing special, None for any other: in a quarter of `record_fields`' time.

    Attributes are loaded before the dictionary is: it is made by the first look at it, and then slows down all others.
    """
    try:
        created, msg, args = record.created, record.msg, record.args
        if (
            record.__class__ is not _LogRecord
            or type(msg) is not str  # a proxy says that its class is another's
            or record.exc_info
            or record.exc_text
            or record.stack_info is not None
            or record.process != pid
            or record.processName != process_name
            or created.__class__ is not float
            or not 0.0 <= created < LATEST
            or created % 1.0 * 1000 // 1 != record.msecs
            or (_HAS_TASKS and record.taskName is not None)  # type: ignore[attr-defined,unused-ignore]
            or _LogRecord.getMessage is not get_message
        ):
            return None
        where = (
            record.pathname,
            record.lineno,
            record.name,
            record.levelno,
            record.levelname,
            record.funcName,
        )
        known = threads.get(record.thread)
        if known is not None and known[0] is record.threadName:
            by = known[1]
        else:
            by = _new_thread(record.thread, record.threadName)
        if len(record.__dict__) != PLAIN_LENGTH:
            return None
        site = sites.get(where) or _new_site(where)
    except (AttributeError, TypeError):  # left out, or not hashable
        return None
    if args:
        try:
            msg = msg % args
        except Exception as error:
            msg = misfit(msg, args, error)
    return 1, created, msg, site, by


#: Pathname, lineno, name, levelno, levelname, funcName → encoded `Site`.
sites: Final[dict[tuple[Any, ...], bytes]] = {}
_MOST_SITES: Final = 4096


def _new_site(where: tuple[Any, ...]) -> bytes:
    pathname, lineno, name, levelno, levelname, function = where
    data = encode_site(levelno, levelname, name, pathname, lineno, function or "")
    if levelno.__class__ is lineno.__class__ is int:  # True is equal to 1, and not the same
        if len(sites) >= _MOST_SITES:  # names made up at run time must not fill the memory
            sites.clear()
        sites[where] = data
    return data


#: Identifier → name and encoded pair.
threads: Final[dict[Any, tuple[Any, bytes]]] = {}
_MOST_THREADS: Final = 1024


def _new_thread(ident: Any, name: Any) -> bytes:
    data = encode_thread(ident, name)
    if len(threads) >= _MOST_THREADS:
        threads.clear()
    threads[ident] = (name, data)
    return data


def record_fields(
    record: logging.LogRecord,
    pid: int,
    process_name: str,
    text: str | None = None,
    more: dict[str, Any] | None = None,
) -> tuple[Any, ...]:
    """Return the fields of ``record``, tag first, ready for `encode_fields`; with ``more`` behind its extras.

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
    if more:
        extra = {**(extra or {}), **more}
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
    site = encode_site(
        attributes.get("levelno", 0),
        attributes.get("levelname", ""),
        attributes.get("name", ""),
        attributes.get("pathname", ""),
        attributes.get("lineno", 0),
        attributes.get("funcName") or "",
    )
    by = encode_thread(attributes.get("thread"), attributes.get("threadName"))
    plain = (created, render_message(record), site, by)
    rich = (
        attributes.get("taskName"),
        exc_text,
        None if stack_info is None else safe_str(stack_info),
        extra,
        overrides,
        text,
    )
    return (1, *plain) if rich == _NOT_RICH else (4, *plain, *rich)


_NOT_RICH: Final = (None,) * 6


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
        return misfit(attributes.get("msg"), attributes.get("args"), error)


def misfit(msg: object, args: object, error: Exception) -> str:
    """Return the text of a message that its arguments do not fit."""
    return f"{safe_str(msg)} [redislogkit: arguments {safe_repr(args)} do not fit: {safe_repr(error)}]"


_exception_formatter: Final = logging.Formatter()


def render_exception(record: logging.LogRecord) -> str | None:
    """Render ``exc_info``, or return the ``exc_text`` that another handler has rendered already."""
    attributes = record.__dict__
    if done := attributes.get("exc_text"):
        text = safe_str(done)
        return None if text.isspace() else text  # loguru's: it has put the traceback into the message
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


# --- bytes → record ----------------------------------------------------------------------------------------


def build(
    created: float,
    levelno: int,
    levelname: str,
    name: str,
    message: str,
    pathname: str = "",
    lineno: int = 0,
    function: str = "",
    thread: int | None = None,
    thread_name: str | None = None,
    **rich: Any,
) -> Record:
    """Return a record that was not logged here, or that nobody has logged; ``rich`` as in `RichRecord`."""
    site = encode_site(levelno, levelname, name, pathname, lineno, function)
    by = encode_thread(thread, thread_name)
    if all(value is None for value in rich.values()):
        return Record(created, message, site, by)
    return RichRecord(created, message, site, by, **rich)


_site_decoder: Final = msgspec.msgpack.Decoder(Site)
_thread_decoder: Final = msgspec.msgpack.Decoder(tuple[int | None, str | None])
_MOST_KNOWN: Final = 10_000


@lru_cache(_MOST_KNOWN)
def site_of(data: bytes) -> Site:
    """Decode a site; its fields are forced to their types. Never raises ``Exception``."""
    try:
        return _site_decoder.decode(data)
    except (ValueError, RecursionError):
        f = [*_values(data), *[None] * 6]
        return Site(_int_or(f[0], 0), _str(f[1]), _str(f[2]), _str(f[3]), _int_or(f[4], 0), _str(f[5]))


@lru_cache(_MOST_KNOWN)
def thread_of(data: bytes) -> tuple[int | None, str | None]:
    """Decode identifier and name of a thread; they are forced to their types. Never raises ``Exception``."""
    try:
        return _thread_decoder.decode(data)
    except (ValueError, RecursionError):
        f = [*_values(data), None, None]
        return _int_or(f[0], None), _text_or_none(f[1])


def _values(data: bytes) -> list[Any]:
    try:
        return msgspec.msgpack.decode(data, type=list[Any])
    except (ValueError, RecursionError):
        return []


_Default = TypeVar("_Default")


def _int_or(value: object, default: _Default) -> int | _Default:
    return value if isinstance(value, int) else default


def _str(value: object) -> str:
    return "" if value is None else safe_str(value)


def _coerce_item(item: Any) -> Item:
    """Make an item of whatever a producer sent; the types of a record's fields are forced."""
    if isinstance(item, list) and len(item) > 4 and item[0] in (1, 4):
        f = item[1:] + [None] * (10 - len(item[1:]))
        return RichRecord(
            created=_time_of(f[0]),
            message=safe_str(f[1]),
            site=f[2] if isinstance(f[2], bytes) else b"",
            by=f[3] if isinstance(f[3], bytes) else b"",
            task_name=_text_or_none(f[4]),
            exc_text=_text_or_none(f[5]),
            stack_info=_text_or_none(f[6]),
            extra={safe_str(k): v for k, v in f[7].items()} if isinstance(f[7], dict) else None,
            overrides={safe_str(k): v for k, v in f[8].items()} if isinstance(f[8], dict) else None,
            text=_text_or_none(f[9]),
        )
    try:
        converted: Item = msgspec.convert(item, Item)
        return converted
    except (ValueError, RecursionError) as error:
        return unreadable(str(error))


def unreadable(reason: str) -> Record:
    """Return what takes the place of an item that can not be decoded, so that its sequence is accounted for."""
    message = f"[redislogkit: this record can not be decoded: {reason}]"
    return build(0.0, logging.ERROR, "ERROR", "redislogkit", message)


def _text_or_none(value: object) -> str | None:
    return None if value is None else safe_str(value)


def attributes(record: Record, facts: Facts, sequence: int) -> dict[str, Any]:
    """Return every attribute that a format may name: those of ``LogRecord``, extras, and our own.

    Our own are ``host``, ``producer`` and ``sequence``. ``asctime`` is left to the formatter.
    """
    created = record.created
    site = site_of(record.site)
    basename = os.path.basename(site.pathname)
    values: dict[str, Any] = {
        "host": facts.host,
        "producer": facts.producer,
        "sequence": sequence,
        **(record.extra or {}),
        "name": site.name,
        "msg": record.message,
        "args": None,
        "levelname": site.levelname,
        "levelno": site.levelno,
        "pathname": site.pathname,
        "filename": basename,
        "module": os.path.splitext(basename)[0],
        "exc_info": None,
        "exc_text": record.exc_text,
        "stack_info": record.stack_info,
        "lineno": site.lineno,
        "funcName": site.function,
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

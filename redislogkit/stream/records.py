"""Layout ``records``: one entry for each record, with plain fields that any consumer can read. Pure.

The field names are those that programs around ``AsyncBufferedRedisHandler`` know: ``formatted_message``,
``level``, ``levelno``, ``name`` … and one field for each extra. Redis values are text, so what plain
fields can not carry (sequence, producer, the types of extras) stands as JSON in the one field more,
``redislogkit``; an entry without it, from another program, is read as well as it can be.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from redislogkit import record
from redislogkit.errors import CorruptDataError
from redislogkit.record import End, Facts, Item, Loss, Record
from redislogkit.stream.batch import DecodedRun, Entry, RawRun

Format = Callable[[Record, Facts, int], str]

_OWN: Final = b"redislogkit"
#: Extras beyond this number have no field of their own: a script can not pass on any number of arguments.
_MAX_FIELDS: Final = 1_000
_PLAIN: Final = frozenset(
    [
        "formatted_message",
        "level",
        "levelno",
        "name",
        "pathname",
        "filename",
        "module",
        "lineno",
        "funcName",
        "created",
        "asctime",
        "msecs",
        "relativeCreated",
        "thread",
        "threadName",
        "process",
        "processName",
        "taskName",
        "message",
        "tty",
        "exc_info",
        "stack_info",
        "redislogkit",
        "t",
    ]
)


class _Own(msgspec.Struct, omit_defaults=True):
    """The field ``redislogkit``."""

    facts: Facts | None = None
    sequence: record.Sequence = 0
    text: bool = False
    """The formatted message was made by the application's own formatter."""
    task_name: str | None = None
    extra: dict[str, Any] | None = None
    """Extras that are not text, with their types; the others are read from their own fields."""
    overrides: dict[str, Any] | None = None
    loss: tuple[record.Sequence, record.Sequence, str] | None = None
    end: bool = False


_own_decoder: Final = msgspec.json.Decoder(_Own)


def encoder(format_text: Format) -> Callable[[Sequence[RawRun]], list[Entry]]:
    """Return the encoder of this layout; ``format_text`` makes ``formatted_message``."""

    def encode(runs: Sequence[RawRun]) -> list[Entry]:
        return [
            Entry(_fields(item, run.facts, sequence, format_text), [(run.facts.producer, sequence)], 1)
            for run in runs
            for sequence, item in enumerate(map(_decode_one, run.payloads), run.first)
        ]

    return encode


def _decode_one(payload: bytes) -> Item:
    return record.decode_items(b"\x91" + payload)[0]


def _fields(item: Item, facts: Facts, sequence: int, format_text: Format) -> list[bytes]:
    own = _Own(facts=facts, sequence=sequence)
    if isinstance(item, Record):
        fields = _record_fields(item, facts, sequence, format_text, own)
    elif isinstance(item, Loss):
        own.loss = (item.first, item.last, item.cause)
        count = item.last - item.first + 1
        fields = {
            "created": repr(item.created),
            "message": f"{count} records lost ({item.cause}), sequences {item.first} to {item.last}",
        }
    else:
        own.end, fields = True, {}
    fields["redislogkit"] = msgspec.json.encode(own).decode()
    return [part for pair in fields.items() for part in (_bytes(pair[0]), _bytes(pair[1]))]


def _record_fields(
    item: Record, facts: Facts, sequence: int, format_text: Format, own: _Own
) -> dict[str, str]:
    values = record.attributes(item, facts, sequence)
    own.text = item.text is not None
    own.task_name = item.task_name
    own.overrides = item.overrides
    fields = {
        "formatted_message": item.text if item.text is not None else format_text(item, facts, sequence),
        "level": item.levelname,
        "asctime": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(item.created)),
        "tty": facts.tty or "no_tty",
        "exc_info": item.exc_text or "",
    }
    for name in (
        "levelno", "name", "pathname", "filename", "module", "lineno", "funcName", "created", "msecs",
        "relativeCreated", "thread", "threadName", "process", "processName", "message", "stack_info",
    ):  # fmt: skip
        fields[name] = _plain(values[name])
    typed = {}
    for name, value in (item.extra or {}).items():
        if name in _PLAIN or len(fields) >= _MAX_FIELDS:
            typed[name] = value  # its name is taken by a standard field, or there are too many
            continue
        fields[name] = _plain(value)
        if not isinstance(value, str):
            typed[name] = value
    own.extra = _jsonable(typed) or None
    return fields


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (dict, list)):
        return msgspec.json.encode(_jsonable(value)).decode()
    return str(value)


def _jsonable(value: Any) -> Any:
    """Replace what JSON has no word for: bytes, floats that are not finite, keys that are no text."""
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def decode(entry_id: bytes, fields: dict[bytes, bytes]) -> list[DecodedRun]:
    """Return the record of an entry of this layout. Raises ``CorruptDataError``."""
    values = {_text(name): _text(value) for name, value in fields.items()}
    try:
        own = _own_decoder.decode(fields.get(_OWN, b"{}"))
    except (ValueError, RecursionError) as error:
        raise CorruptDataError(f"its field redislogkit can not be decoded: {error}") from error
    facts = own.facts
    if facts is None:
        facts, own.sequence = _foreign_facts(values), _sequence_of(entry_id)
        own.text = True
    created = _time(values.get("created"), _milliseconds(entry_id) / 1000)
    if own.end:
        return [DecodedRun(facts, own.sequence, [End()])]
    if own.loss is not None:
        return [DecodedRun(facts, own.sequence, [Loss(*own.loss, created)])]
    return [DecodedRun(facts, own.sequence, [_record(values, own, created)])]


def _record(values: dict[str, str], own: _Own, created: float) -> Record:
    extra: dict[str, Any] = {name: value for name, value in values.items() if name not in _PLAIN}
    extra.update(own.extra or {})
    return record.build(
        created=created,
        levelno=_int(values.get("levelno")) or 0,
        levelname=values.get("level", ""),
        name=values.get("name", ""),
        message=values.get("message", ""),
        pathname=values.get("pathname", ""),
        lineno=_int(values.get("lineno")) or 0,
        function=values.get("funcName", ""),
        thread=_int(values.get("thread")),
        thread_name=values.get("threadName") or None,
        task_name=own.task_name,
        exc_text=values.get("exc_info") or None,
        stack_info=values.get("stack_info") or None,
        extra=extra or None,
        overrides=own.overrides,
        text=values.get("formatted_message") if own.text else None,
    )


def _foreign_facts(values: dict[str, str]) -> Facts:
    """Facts of a program that does not state them."""
    tty = values.get("tty", "")
    return Facts(
        producer="",
        host="",
        pid=_int(values.get("process")) or 0,
        process_name=values.get("processName", ""),
        started=0.0,
        uid=-1,
        tty="" if tty == "no_tty" else tty,
    )


def _milliseconds(entry_id: bytes) -> int:
    return _int(_text(entry_id.partition(b"-")[0])) or 0


def _sequence_of(entry_id: bytes) -> int:
    """A program that does not number its records: the stream's own order does."""
    sequence = (_milliseconds(entry_id) << 20) + (_int(_text(entry_id.partition(b"-")[2])) or 0)
    return min(sequence, 2**63 - 1)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _int(value: str | None) -> int | None:
    """Return a number that any formatter and any encoding can take."""
    try:
        number = int(value) if value else None
    except ValueError:
        return None
    return number if number is None or -(2**63) <= number < 2**63 else None


def _time(value: str | None, default: float) -> float:
    try:
        seconds = float(value) if value else default
    except ValueError:
        seconds = default
    return seconds if record.EARLIEST <= seconds < record.LATEST else 0.0

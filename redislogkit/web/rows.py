"""A record as the page gets it. Pure.

Keys are short, since there are many rows: ``n`` number in the feed, ``t`` seconds since the epoch, ``l`` and ``L`` number
and name of the level, ``g`` logger, ``m`` message, ``x`` exception, ``k`` stack, ``e`` extras, ``h`` host, ``p`` pid,
``P`` name of the process, ``T`` and ``r`` name and number of the thread, ``a`` of the task, ``f`` file, ``i`` line, ``u`` function, ``d``
producer, ``s`` sequence, ``o`` 1 for a notice of redislogkit's own. What is empty is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from redislogkit.record import site_of, thread_of
from redislogkit.redaction import Redactor
from redislogkit.view.seen import Seen

#: Characters of a text that go into the page; the log files have the rest.
LONGEST: Final = 64 * 1024
#: Beyond this, a browser would round an integer.
_EXACT: Final = 2**53


def row(number: int, seen: Seen) -> dict[str, Any]:
    """Return the row of one record, ready for JSON."""
    record, facts = seen.record, seen.facts
    site, (thread, thread_name) = site_of(record.site), thread_of(record.by)
    overrides = record.overrides or {}
    made = {
        "n": number,
        "t": record.created,
        "l": site.levelno,
        "L": site.levelname,
        "g": site.name,
        "m": _cut(record.message),
        "x": _cut(record.exc_text),
        "k": _cut(record.stack_info),
        "e": {_cut(key): plain(value) for key, value in record.extra.items()} if record.extra else None,
        "h": facts.host,
        "p": plain(overrides.get("process", facts.pid)),
        "P": plain(overrides.get("processName", facts.process_name)),
        "T": thread_name,
        "r": plain(thread),
        "a": record.task_name,
        "f": site.pathname,
        "i": site.lineno,
        "u": site.function,
        "d": facts.producer,
        "s": seen.sequence,
        "o": int(seen.is_notice),
    }
    return {key: value for key, value in made.items() if value or key in ("n", "t", "l", "m")}


def plain(value: Any) -> Any:
    """Return a value of an extra as JSON can tell it without loss."""
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if -_EXACT <= value <= _EXACT else str(value)
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)  # nor is NaN
    if isinstance(value, Mapping):
        return {_cut(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return _cut(repr(value))


def without_secrets(seen: Seen, redactor: Redactor | None) -> Seen:
    """Return the record without what the rules find in its texts and extras."""
    if redactor is None:
        return seen
    record = seen.record
    changed: dict[str, Any] = {"message": redactor.text(record.message)}
    for name in ("exc_text", "stack_info", "text"):
        if value := getattr(record, name):
            changed[name] = redactor.text(value)
    if record.extra:
        changed["extra"] = redactor.value(record.extra)
    return seen._replace(record=msgspec.structs.replace(record, **changed))


def size(seen: Seen) -> int:
    """Return about how many bytes of memory a record takes."""
    record = seen.record
    texts = (record.message, record.exc_text, record.stack_info, record.text)
    extras = sum(100 + len(str(value)) for value in record.extra.values()) if record.extra else 0
    return 400 + extras + sum(len(text) for text in texts if text)


def _cut(text: Any) -> Any:
    if isinstance(text, str) and len(text) > LONGEST:
        return f"{text[:LONGEST]} … [{len(text) - LONGEST} characters more]"
    return text

"""Parts of a record that several formatters show: times, ids of traces, type and message of an exception. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, Final, TypeAlias

from redislogkit.record import Facts, Record

#: Renders a record; the third argument is its sequence. Never raises ``Exception``.
Formatter: TypeAlias = Callable[[Record, Facts, int], str]

_CACHED_SECONDS: Final = 64


def timestamp(created: float, *, utc: bool = True) -> str | None:
    """Render seconds since the epoch as RFC 3339, with microseconds and zone; None when it is no time."""
    try:
        second, micros = _microseconds(created)
        return timestamps_of(second, utc=utc) % micros
    except (ValueError, OverflowError, OSError):
        return None


def nanoseconds(created: float) -> str | None:
    """Render seconds since the epoch in nanoseconds, of the microsecond that `timestamp` shows; None when it is no time.

    It is text, as JSON has no whole numbers beyond 53 bits for many.
    """
    try:
        second, micros = _microseconds(created)
        return f"{int(second) * 1_000_000 + micros}000"
    except (ValueError, OverflowError):
        return None


def _microseconds(created: float) -> tuple[float, int]:
    second = created // 1
    micros = round((created - second) * 1_000_000)
    return (second + 1, 0) if micros == 1_000_000 else (second, micros)


@lru_cache(_CACHED_SECONDS)
def timestamps_of(second: float, *, utc: bool) -> str:
    """Return the format of all RFC 3339 times of a whole second; its argument is the microseconds."""
    moment = datetime.fromtimestamp(second, timezone.utc)
    if not utc:
        moment = moment.astimezone()
    date, zone = moment.strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0"), moment.isoformat()[19:]
    return f"{date}.%06d{zone}"


def trace_of(extra: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return the ids of trace and span that a record has among its extras; empty where it has none."""
    if not extra:
        return "", ""
    return _trace_id(extra, ("trace_id", "otelTraceID"), 32), _trace_id(extra, ("span_id", "otelSpanID"), 16)


def _trace_id(extra: Mapping[str, Any], names: tuple[str, str], digits: int) -> str:
    for name in names:
        value = extra.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return f"{value:0{digits}x}"
        if isinstance(value, str) and value.strip("0"):  # outside of any span it is "0"
            return value
    return ""


_TRACEBACK: Final = "Traceback (most recent call last):"
_EXCEPTION: Final = re.compile(r"(?P<type>[^\W\d][\w.]*)(?:: (?P<message>.*))?", re.DOTALL)


def exception_of(text: str) -> tuple[str, str]:
    """Return type and message of a rendered exception: of the one that was logged, which stands last.

    Both are empty where the text does not look like that of an exception.
    """
    newest = text.rpartition(f"{_TRACEBACK}\n")[2] if _TRACEBACK in text else text
    lines = newest.split("\n")
    # In a group everything stands behind a bar.
    bar = "  | " if newest.startswith("  |") else ""
    for number, line in enumerate(lines):
        if line.startswith(bar) and line[len(bar) : len(bar) + 1].strip():
            rest = [each.removeprefix(bar) for each in lines[number:] if not bar or each.startswith(bar)]
            match = _EXCEPTION.fullmatch("\n".join(rest))
            return (match["type"], match["message"] or "") if match else ("", "")
    return "", ""

"""Moments as people write them → seconds since the epoch. Pure."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta, tzinfo
from typing import Final

from redislogkit.config_values import DURATION, RefusedError

RULE: Final = (
    "must be a moment: 2026-11-28T22:00:00Z (RFC 3339), 2026-11-28 22:00, 2026-11-28, 22:00 (the latest one), "
    "10m ago, yesterday, yesterday 22:00, today, now or @1795816800 (seconds since the epoch)"
)

_AGO: Final = re.compile(r"(.+?)\s*(?:\bago)?", re.IGNORECASE)
_DAYS: Final = {"today": 0, "yesterday": 1}
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")
_TIME: Final = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?")
_ZONED: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,9}))?\s?([Zz]|[+-]\d\d:?\d\d)"
)


def parse(text: str, now: float, zone: tzinfo | None = None) -> float:
    """Return the moment that ``text`` means, in seconds since the epoch.

    Without a zone it is in ``zone`` (None: the system's local time). A time of day is the latest such moment
    before ``now``; a duration ("10m", "10m ago", "2 hours ago") counts back from ``now``.

    Raises ``RefusedError`` with the rule.
    """
    words = text.strip()
    try:
        found = _absolute(words, now, zone)
    except (ValueError, OverflowError, OSError):  # the 31st of February
        raise RefusedError(RULE) from None
    if found is not None:
        return found
    match = _AGO.fullmatch(words)
    if match is None or not match[1][-1:].isalpha():  # a bare number would be a guess
        raise RefusedError(RULE)
    try:
        return now - float(
            sum(map(DURATION.parse, re.findall(r"[^A-Za-z]+[A-Za-z]+", match[1]) or [match[1]]))
        )
    except RefusedError:
        raise RefusedError(RULE) from None


def _absolute(text: str, now: float, zone: tzinfo | None) -> float | None:
    """Return a moment that is not reckoned from now; None where ``text`` is none. Raises ``ValueError`` and others."""
    if text.casefold() == "now":
        return now
    if text.startswith("@"):
        return float(text[1:])
    if match := _ZONED.fullmatch(text):
        day, clock, fraction, offset = match.groups()
        offset = "+00:00" if offset in "Zz" else offset
        return datetime.strptime(f"{day} {_seconds(clock)} {offset}", "%Y-%m-%d %H:%M:%S %z").timestamp() + (
            _fraction(fraction)
        )
    day, _, clock = text.replace("T", " ", 1).partition(" ") if text[:4].isdigit() else text.partition(" ")
    today = datetime.fromtimestamp(now, zone).date()
    if day.casefold() in _DAYS:
        return _local(today - timedelta(days=_DAYS[day.casefold()]), clock.strip(), zone)
    if _DATE.fullmatch(day):
        return _local(date.fromisoformat(day), clock.strip(), zone)
    if _TIME.fullmatch(text):
        moment = _local(today, text, zone)
        return moment if moment <= now else _local(today - timedelta(days=1), text, zone)
    return None


def _local(day: date, clock: str, zone: tzinfo | None) -> float:
    match = _TIME.fullmatch(clock or "00:00")
    if match is None:
        raise ValueError(clock)
    moment = datetime(
        day.year, day.month, day.day, int(match[1]), int(match[2]), int(match[3] or 0), tzinfo=zone
    )
    return moment.timestamp() + _fraction(match[4])


def _seconds(clock: str) -> str:
    return clock if clock.count(":") == 2 else f"{clock}:00"


def _fraction(digits: str | None) -> float:
    return float(f"0.{digits}") if digits else 0.0

"""How a format shows times, and back. Pure.

Nobody is told which of the ways below a formatter goes: it is found out by what it makes of a known moment.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timezone, tzinfo
from functools import lru_cache
from typing import Any, Final, NamedTuple

#: A moment whose year, month, day, hour, minute and second differ from one another and from those of all else.
MOMENT: Final = 1_789_052_399.25

_DEFAULT: Final = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
_ISO: Final = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:[Zz]|[+-]\d\d:?\d\d)"
_ISO_PARTS: Final = re.compile(r"(.{19})(?:[.,](\d+))?(.*)")
#: What each directive of ``time.strftime`` makes.
_DIRECTIVES: Final = {
    "Y": r"\d{4}",
    "m": r"\d\d",
    "d": r"\d\d",
    "e": r"[ \d]\d",
    "H": r"\d\d",
    "I": r"\d\d",
    "M": r"\d\d",
    "S": r"\d\d",
    "y": r"\d\d",
    "j": r"\d{3}",
    "f": r"\d{6}",
    "z": r"[+-]\d{4}",
    "p": r"\w+",
    "a": r"\w+",
    "A": r"\w+",
    "b": r"\w+",
    "B": r"\w+",
    "Z": r"\w*",
    "%": "%",
}
#: Directives that stand for others, which ``strptime`` knows.
_COMPOUND: Final = {"%F": "%Y-%m-%d", "%T": "%H:%M:%S", "%R": "%H:%M", "%D": "%m/%d/%y", "%e": "%d"}


class Times(NamedTuple):
    """One way to show times."""

    pattern: str
    """A regular expression for such a text, without groups."""
    read: Callable[[str], float]
    """Text → seconds since the epoch; raises ``ValueError``."""


def find(text: str, datefmt: str | None) -> Times | None:
    """Return the way in which `MOMENT` was shown as ``text``; None where it does not tell the moment to the second."""
    for candidate in _candidates(datefmt):
        try:
            if re.fullmatch(candidate.pattern, text) and abs(candidate.read(text) - MOMENT) <= 1.0:
                return candidate
        except (ValueError, OverflowError, re.error):
            continue
    return None


def pattern_of(datefmt: str | None) -> str:
    """Return a regular expression for a text of that format, also where the moment can not be told from it."""
    if datefmt is None:
        return _DEFAULT
    for short, written in _COMPOUND.items():
        datefmt = datefmt.replace(short, written)
    parts = re.split(r"%[-_0^#]?([A-Za-z%])", datefmt)
    return "".join(
        _DIRECTIVES.get(part, r"[^\n]+?") if index % 2 else re.escape(part)
        for index, part in enumerate(parts)
    )


def _candidates(datefmt: str | None) -> list[Times]:
    zones = (None, timezone.utc)
    found = [Times(_ISO, read_iso)]
    if datefmt is None:
        return [*found, *(Times(_DEFAULT, _default_reader(zone)) for zone in zones)]
    spelled = datefmt
    for short, written in _COMPOUND.items():
        spelled = spelled.replace(short, written)
    return [*found, *(Times(pattern_of(datefmt), _reader(spelled, zone)) for zone in zones)]


def read_iso(text: str) -> float:
    """Return the moment of a text of RFC 3339, in seconds since the epoch. Raises ``ValueError``."""
    match = _ISO_PARTS.fullmatch(text)
    if match is None:
        raise ValueError(text)
    fraction = float(f"0.{match[2]}") if match[2] else 0.0
    return _iso_second(f"{match[1]}{'+00:00' if match[3] in 'Zz' else match[3]}") + fraction


@lru_cache(64)
def _iso_second(text: str) -> float:
    return datetime.strptime(text.replace(" ", "T", 1), "%Y-%m-%dT%H:%M:%S%z").timestamp()


def _default_reader(zone: tzinfo | None) -> Callable[[str], float]:
    @lru_cache(64)
    def second(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()

    return lambda text: second(text[:-4]) + int(text[-3:]) / 1000


def _reader(datefmt: str, zone: tzinfo | None) -> Callable[[str], float]:
    @lru_cache(64)
    def read(text: str) -> float:
        found = datetime.strptime(text, datefmt)  # noqa: DTZ007 - the zone follows
        return (found if found.tzinfo else found.replace(tzinfo=zone)).timestamp()

    return read


def number_reader(value: Any) -> Callable[[Any], float] | None:
    """Return what reads a JSON value that stands for `MOMENT`: text, or seconds and parts of them as a number."""
    if isinstance(value, str) and re.fullmatch(_ISO, value) and abs(read_iso(value) - MOMENT) <= 1.0:
        return read_iso
    for unit in (1, 1_000, 1_000_000, 1_000_000_000):
        try:
            if abs(float(value) / unit - MOMENT) <= 1.0:
                return lambda number, unit=unit: float(number) / unit  # type: ignore[misc]
        except (TypeError, ValueError):
            return None
    return None

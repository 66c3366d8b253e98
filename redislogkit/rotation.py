"""The rules of rotation and retention: when, under which names, and what has to go. Pure.

Nothing here touches a file or reads the clock: names, sizes and times come in, names and steps go out.
`redislogkit.writers.archive` carries the steps out.

Names of archives
    ``app.log.1`` is the newest by number; ``app.log.2026-11-22`` the interval that began then, with
    ``.1``, ``.2``, ... behind it where a name was taken already (rotation by size and time together, the hour
    that a clock change repeats, a clock that was set back). Either may end in ``.gz`` or ``.zst``. Names by
    time sort in the order in which the archives were made.

Numbers shift, and the shift may be killed after any step. The rule that makes this harmless: a step only
ever moves a file to a free number or removes the oldest one beyond the bound, and a plan made anew starts
from what is there. A half-finished shift leaves a hole in the numbers; the next plan moves files into the
hole and no further, so the order is kept and nothing is removed twice.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Collection, Iterable, Sequence
from datetime import date, datetime, timedelta, timezone, tzinfo
from typing import Final, Literal, NamedTuple, TypeAlias

Naming: TypeAlias = Literal["number", "timestamp"]

#: What a compressed archive's name ends in, by method.
COMPRESSED_SUFFIXES: Final = {"gzip": ".gz", "zstd": ".zst"}

_SECONDS: Final = {"S": 1, "M": 60, "H": 3_600, "D": 86_400}
_STAMPS: Final = {"S": "%Y-%m-%d_%H-%M-%S", "M": "%Y-%m-%d_%H-%M", "H": "%Y-%m-%d_%H"}
_DAY_STAMP: Final = "%Y-%m-%d"
_STAMP_BY_LENGTH: Final = {10: _DAY_STAMP, 13: _STAMPS["H"], 16: _STAMPS["M"], 19: _STAMPS["S"]}

# At most six digits: app.log.20261122 is somebody else's date, not a number of ours.
_TAIL: Final = re.compile(
    r"(?:(?P<number>[1-9][0-9]{0,5})"
    r"|(?P<stamp>[0-9]{4}-[0-9]{2}-[0-9]{2}(?:_[0-9]{2}(?:-[0-9]{2}){0,2})?)(?:\.(?P<copy>[1-9][0-9]{0,5}))?)"
    r"(?P<suffix>\.gz|\.zst)?"
)


# --- when to rotate ----------------------------------------------------------------------------------------


def size_limit(max_bytes: int, backup_count: int, naming: Naming) -> int:
    """Return the size in bytes from which a file rotates; 0 means never by size.

    As in ``RotatingFileHandler`` numbered backups without a ``backup_count`` switch rotation by size off:
    there would be no place for the old records.
    """
    return 0 if naming == "number" and backup_count < 1 else max_bytes


def exceeds_size(size: int, length: int, limit: int) -> bool:
    """True when ``length`` more bytes belong into a new file; ``limit`` is that of `size_limit`.

    As in ``RotatingFileHandler`` a record that would make the file reach the limit goes to the next file.
    An empty file takes any record, however long.
    """
    return 0 < limit <= size + length and size > 0


def normal_when(when: str) -> str:
    """Return ``when`` in capitals; raises ``ValueError`` when it is none that rotation knows."""
    name = when.upper()
    if name in _SECONDS or name == "MIDNIGHT" or re.fullmatch("W[0-6]", name):
        return name
    raise ValueError(f"when must be one of S, M, H, D, midnight or W0 to W6, got {when!r}")


def next_rollover(
    start: float, when: str, interval: int = 1, *, utc: bool = False, zone: tzinfo | None = None
) -> float:
    """Return the time (seconds since the epoch) at which an interval that began at ``start`` is over.

    ``S``, ``M``, ``H`` and ``D`` last ``interval`` times that long. ``midnight`` ends with the day,
    ``W0`` (Monday) to ``W6`` with that day of the week, or ``interval - 1`` days or weeks later. Midnight is
    that of ``zone`` (None: the system's local time), whatever the clock change of that night is.
    """
    name = normal_when(when)
    if name in _SECONDS:
        return start + interval * _SECONDS[name]
    today = _local(start, utc, zone).date()
    # As in the stdlib W0 is over when Monday is.
    days = interval if name == "MIDNIGHT" else (int(name[1]) - today.weekday()) % 7 + 7 * interval - 6
    return _midnight(today + timedelta(days=days), start, utc, zone)


def interval_start(
    rollover: float, when: str, interval: int = 1, *, utc: bool = False, zone: tzinfo | None = None
) -> float:
    """Return when the interval that ends at ``rollover`` began; the archive is named after it."""
    name = normal_when(when)
    if name in _SECONDS:
        return rollover - interval * _SECONDS[name]
    last_day = _local(rollover - 1, utc, zone).date()
    days = interval if name == "MIDNIGHT" else 7 * interval
    return _midnight(last_day - timedelta(days=days - 1), float("-inf"), utc, zone)


def _local(epoch: float, utc: bool, zone: tzinfo | None) -> datetime:
    return datetime.fromtimestamp(epoch, timezone.utc if utc else zone)


def _midnight(day: date, after: float, utc: bool, zone: tzinfo | None) -> float:
    """Return the first moment of ``day``, or of the next day where that lies not behind ``after``.

    Where clocks go back across midnight a day begins twice; where they go forward across it, its first
    moment is that of the change.
    """
    tz = timezone.utc if utc else zone
    while True:
        for fold in (0, 1):
            moment = datetime(day.year, day.month, day.day, tzinfo=tz, fold=fold).timestamp()
            if moment > after:
                return moment
        day += timedelta(days=1)


# --- names -------------------------------------------------------------------------------------------------


class ArchiveName(NamedTuple):
    """The parts of an archive's name."""

    path: str
    stem: str
    """The path without the suffix of its compression."""
    number: int
    """0 when it is named by time."""
    stamp: str
    """Empty when it is named by number."""
    copy: int
    suffix: str


def parse_archive(path: str, candidate: str) -> ArchiveName | None:
    """Take the name of an archive of ``path`` apart; None when it is none of ours.

    ``candidate`` is a path, or a bare name in the same folder. The match is strict, because what matches may
    be moved and deleted: ``app.log.bak``, ``app.log.1.old``, ``app.log.01`` and ``app.log.2026-13-01`` are not
    ours.
    """
    folder, base = os.path.split(path)
    place, name = os.path.split(candidate)
    if place not in ("", folder) or not name.startswith(base + "."):
        return None
    match = _TAIL.fullmatch(name, len(base) + 1)
    if match is None or not _is_stamp(match["stamp"]):
        return None
    suffix = match["suffix"] or ""
    full = os.path.join(folder, name)
    return ArchiveName(
        path=full,
        stem=full.removesuffix(suffix),
        number=int(match["number"] or 0),
        stamp=match["stamp"] or "",
        copy=int(match["copy"] or 0),
        suffix=suffix,
    )


@functools.lru_cache(maxsize=4096)  # a folder is listed at each rotation, and strptime takes 10 us
def _is_stamp(stamp: str | None) -> bool:
    if stamp is None:
        return True
    try:
        datetime.strptime(stamp, _STAMP_BY_LENGTH[len(stamp)]).replace(tzinfo=timezone.utc)
    except ValueError:
        return False
    return True


def is_archive_of(path: str, candidate: str) -> bool:
    """True when ``candidate`` (a path or a bare name) is named as an archive of the live file ``path``."""
    return parse_archive(path, candidate) is not None


def archive_name(
    path: str, start: float, when: str | None, *, utc: bool = False, zone: tzinfo | None = None
) -> str:
    """Return the archive's path for the interval that began at ``start``, named as the stdlib does.

    Without ``when`` (rotation by size only) the name goes down to the second.
    """
    name = "S" if when is None else normal_when(when)
    return f"{path}.{_local(start, utc, zone).strftime(_STAMPS.get(name, _DAY_STAMP))}"


def unique_name(path: str, wanted: str, existing: Iterable[str]) -> str:
    """Return the name of a new archive: ``wanted``, a name by time, where that sorts behind all ``existing``.

    Otherwise (the name is taken, clocks went back at the end of summer time, somebody set the clock back) it
    is the newest archive's time and the next number: names sort as the records were written, and retention,
    which goes by names, never takes a new archive for the oldest one.
    """
    archives = (parse_archive(path, name) for name in existing)
    stamp, copy = max(((a.stamp, a.copy) for a in archives if a and a.stamp), default=("", 0))
    return wanted if wanted > f"{path}.{stamp}" else f"{path}.{stamp}.{copy + 1}"


def owned(path: str, existing: Iterable[str], naming: Naming, backup_count: int) -> list[ArchiveName]:
    """Return the archives of ``path`` among ``existing``, oldest first.

    Numbers count as ours as far as they run on from ``backup_count`` with no more than one missing at a
    time (a shift that was killed leaves one): a lonely ``app.log.12345`` next to ``app.log.1`` is rather some
    process id. Archives in another naming than today's are from before it was changed, thus older.
    """
    archives = [a for a in (parse_archive(path, name) for name in existing) if a]
    last = _last_number({a.number for a in archives}, backup_count)
    # Of two with one number or time the compressed one is taken for the older.
    numbered = sorted((a for a in archives if 0 < a.number <= last), key=lambda a: (-a.number, not a.suffix))
    stamped = sorted((a for a in archives if a.stamp), key=lambda a: (a.stamp, a.copy, not a.suffix))
    return stamped + numbered if naming == "number" else numbered + stamped


def _last_number(numbers: Collection[int], backup_count: int) -> int:
    last = max(backup_count, 1)
    while following := [n for n in (last + 1, last + 2) if n in numbers]:
        last = following[-1]
    return last


# --- what to do --------------------------------------------------------------------------------------------


class Rename(NamedTuple):
    """Move ``source`` to the free name ``target``."""

    source: str
    target: str


class Remove(NamedTuple):
    """Delete ``path``, the oldest backup beyond the bound."""

    path: str


Step: TypeAlias = Rename | Remove


def shift_plan(path: str, backup_count: int, existing: Collection[str]) -> list[Step]:
    """Return the steps, in order, that make the live file ``path`` number 1 and its backups one older.

    ``existing`` are the paths in the folder, the live one among them; without it there is nothing to do.
    Backups move up to the first hole in the numbers; those that would be more than ``backup_count`` (0:
    no bound) are removed, oldest first. Every step moves to a free name, so that a plan that was
    killed after any step is finished by a plan made from what it left.
    """
    if path not in existing:
        return []
    numbered = [a for a in owned(path, existing, "number", backup_count) if a.number]
    surplus = max(0, len(numbered) + 1 - backup_count) if backup_count else 0
    steps: list[Step] = [Remove(a.path) for a in numbered[:surplus]]
    kept = numbered[surplus:]
    hole = 1
    while any(a.number == hole for a in kept):
        hole += 1
    steps += [Rename(a.path, f"{path}.{a.number + 1}{a.suffix}") for a in kept if a.number < hole]
    return [*steps, Rename(path, f"{path}.1")]


class Archive(NamedTuple):
    """An archive as it lies on disk."""

    path: str
    time: float
    """Of its last change, seconds since the epoch."""
    size: int
    """Bytes, as stored."""


def expired(
    archives: Sequence[Archive],
    *,
    backup_count: int,
    max_age: float | None,
    max_total_bytes: int | None,
    now: float,
) -> list[str]:
    """Return the paths that retention removes, oldest first. ``archives`` are given oldest first.

    Kept are the newest ``backup_count`` (0: all) of those that are at most ``max_age`` seconds old, as far as
    they together fit ``max_total_bytes`` (None: no such bound). The live file does not count.
    """
    surplus = len(archives) - backup_count if backup_count else 0
    total = sum(archive.size for archive in archives)
    paths = []
    for index, archive in enumerate(archives):
        too_old = max_age is not None and archive.time < now - max_age
        too_much = max_total_bytes is not None and total > max_total_bytes
        if index < surplus or too_old or too_much:
            paths.append(archive.path)
            total -= archive.size
    return paths

"""The rules of rotation, against the stdlib, against tables, and under a kill after any step."""

from __future__ import annotations

import contextlib
import logging.handlers
import os
import time
from collections.abc import Iterator
from datetime import datetime, timezone, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redislogkit import rotation
from redislogkit.rotation import Archive, Remove, Rename, Step

PATH = "/logs/app.log"
DAY = 86_400
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]


def zone_of(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError:
        pytest.skip(f"no time zone data for {name} on this machine")


@contextlib.contextmanager
def system_zone(name: str) -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = name
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()


def epoch(text: str, zone: tzinfo, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def local(moment: float, zone: tzinfo) -> str:
    return datetime.fromtimestamp(moment, zone).isoformat()


# --- size --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "length", "limit", "expected"),
    [
        (0, 10, 10, False),  # an empty file takes any record
        (0, 10_000, 10, False),
        (5, 4, 10, False),
        (5, 5, 10, True),  # the limit itself is reached, not only passed
        (5, 6, 10, True),
        (10, 1, 0, False),  # switched off
    ],
)
def test_a_record_that_reaches_the_limit_belongs_into_a_new_file(size, length, limit, expected):
    assert rotation.exceeds_size(size, length, limit) is expected


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    limit=st.integers(0, 80),
    backups=st.integers(0, 3),
)
def test_size_rotation_decides_as_the_stdlib_does(tmp_path_factory, lengths, limit, backups):
    # The stdlib of some versions rotates an empty file, therefore every file begins with one short record.
    path = tmp_path_factory.mktemp("size") / "app.log"
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=limit, backupCount=backups)
    size, bound = 0, rotation.size_limit(limit, backups, "number")
    for length in lengths:
        record = logging.makeLogRecord({"msg": "x" * (length - 1)})
        if size:
            decision = bool(handler.shouldRollover(record)) and backups > 0
            assert rotation.exceeds_size(size, length, bound) is decision
            if decision:
                handler.doRollover()
                size = 0
        logging.FileHandler.emit(handler, record)
        size += length
    handler.close()


def test_numbered_backups_without_a_count_never_rotate_by_size():
    assert rotation.size_limit(100, 0, "number") == 0
    assert rotation.size_limit(100, 3, "number") == 100
    assert rotation.size_limit(100, 0, "timestamp") == 100
    assert rotation.size_limit(0, 3, "timestamp") == 0


# --- time --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("utc", [False, True])
@pytest.mark.parametrize("name", ZONES)
def test_time_rotation_comes_when_the_stdlib_says_so(tmp_path, name, utc):
    zone = timezone.utc if utc else zone_of(name)
    begin = int(epoch("2026-01-01", timezone.utc))
    whens = ["S", "m", "H", "D", "midnight", *(f"W{day}" for day in range(7))]
    with system_zone(name):
        handlers = {
            when: logging.handlers.TimedRotatingFileHandler(tmp_path / "app.log", when, utc=utc, delay=True)
            for when in whens
        }
        for start in range(begin, begin + 366 * DAY, 8 * 3600 + 1_234):
            for when, handler in handlers.items():
                end = rotation.next_rollover(start, when, utc=utc)
                assert end == rotation.next_rollover(start, when, utc=utc, zone=zone)
                # Over a clock change the stdlib is off by an hour in some versions; the tables below judge that.
                offsets = {datetime.fromtimestamp(t, zone).utcoffset() for t in (start, end)}
                if len(offsets) == 1:
                    assert end == handler.computeRollover(start), (when, start)


@pytest.mark.parametrize(
    ("zone_name", "start", "when", "expected"),
    [
        # Clocks go forward, the day has 23 hours.
        ("Europe/Berlin", "2026-03-28T23:59:59", "midnight", "2026-03-29T00:00:00+01:00"),
        ("Europe/Berlin", "2026-03-29T00:00:00", "midnight", "2026-03-30T00:00:00+02:00"),
        ("Europe/Berlin", "2026-03-29T01:59:59", "midnight", "2026-03-30T00:00:00+02:00"),
        ("Europe/Berlin", "2026-03-29T03:00:00", "midnight", "2026-03-30T00:00:00+02:00"),
        ("America/New_York", "2026-03-08T01:30:00", "midnight", "2026-03-09T00:00:00-04:00"),
        ("Australia/Lord_Howe", "2026-10-04T01:30:00", "midnight", "2026-10-05T00:00:00+11:00"),
        # Clocks go back, the day has 25 hours (24.5 on Lord Howe).
        ("Europe/Berlin", "2026-10-25T00:00:00", "midnight", "2026-10-26T00:00:00+01:00"),
        ("Europe/Berlin", "2026-10-25T02:30:00", "midnight", "2026-10-26T00:00:00+01:00"),
        ("America/New_York", "2026-11-01T00:30:00", "midnight", "2026-11-02T00:00:00-05:00"),
        ("Australia/Lord_Howe", "2026-04-05T00:30:00", "midnight", "2026-04-06T00:00:00+10:30"),
        # Weeks across the change; 2026-03-29 and 2026-10-25 are Sundays.
        ("Europe/Berlin", "2026-03-25T12:00:00", "W6", "2026-03-30T00:00:00+02:00"),
        ("Europe/Berlin", "2026-10-19T00:00:00", "W6", "2026-10-26T00:00:00+01:00"),
        ("Europe/Berlin", "2026-10-25T23:59:59", "w6", "2026-10-26T00:00:00+01:00"),
        ("Europe/Berlin", "2026-10-26T00:00:00", "W6", "2026-11-02T00:00:00+01:00"),
        ("Australia/Lord_Howe", "2026-10-01T00:00:00", "W0", "2026-10-06T00:00:00+11:00"),
        # There is no midnight: the clock goes from 23:59:59 to 01:00; a whole day is left out.
        ("America/Havana", "2026-03-07T12:00:00", "midnight", "2026-03-08T01:00:00-04:00"),
        ("Pacific/Apia", "2011-12-29T12:00:00", "midnight", "2011-12-31T00:00:00+14:00"),
        ("Pacific/Apia", "2011-12-31T00:00:00", "midnight", "2012-01-01T00:00:00+14:00"),
        # Midnight comes twice: 00:01 becomes 23:01 of the day before.
        ("America/St_Johns", "2010-11-06T12:00:00", "midnight", "2010-11-07T00:00:00-02:30"),
        # Hours and days of a fixed length are that long, whatever the clock does.
        ("Europe/Berlin", "2026-03-29T01:30:00", "H", "2026-03-29T03:30:00+02:00"),
        ("Europe/Berlin", "2026-10-25T02:30:00", "H", "2026-10-25T02:30:00+01:00"),
        ("Europe/Berlin", "2026-10-24T12:00:00", "D", "2026-10-25T11:00:00+01:00"),
    ],
)
def test_a_clock_change_moves_no_rotation(zone_name, start, when, expected):
    zone = zone_of(zone_name)
    assert local(rotation.next_rollover(epoch(start, zone), when, zone=zone), zone) == expected
    with system_zone(zone_name):
        assert local(rotation.next_rollover(epoch(start, zone), when), zone) == expected


def test_a_midnight_that_comes_twice_is_an_end_twice():
    zone = zone_of("America/St_Johns")
    first = epoch("2010-11-07T00:00:00", zone, fold=0)
    again = epoch("2010-11-06T23:30:00", zone, fold=1)
    second = rotation.next_rollover(again, "midnight", zone=zone)
    assert second == first + 3_600
    assert local(rotation.next_rollover(first, "midnight", zone=zone), zone) == "2010-11-08T00:00:00-03:30"


@pytest.mark.parametrize(
    ("when", "interval", "expected"),
    [
        ("S", 30, "2026-11-22T10:00:30+01:00"),
        ("M", 90, "2026-11-22T11:30:00+01:00"),
        ("H", 5, "2026-11-22T15:00:00+01:00"),
        ("D", 2, "2026-11-24T10:00:00+01:00"),
        ("midnight", 1, "2026-11-23T00:00:00+01:00"),
        ("MIDNIGHT", 3, "2026-11-25T00:00:00+01:00"),
        ("W6", 1, "2026-11-23T00:00:00+01:00"),  # it is a Sunday
        ("W0", 1, "2026-11-24T00:00:00+01:00"),
        ("W5", 2, "2026-12-06T00:00:00+01:00"),
    ],
)
def test_an_interval_is_a_multiple(when, interval, expected):
    zone = zone_of("Europe/Berlin")
    end = rotation.next_rollover(epoch("2026-11-22T10:00:00", zone), when, interval, zone=zone)
    assert local(end, zone) == expected


@pytest.mark.parametrize("when", ["", "X", "W7", "W", "MIDNIGHTS", "h ", "W10"])
def test_an_unknown_when_is_refused(when):
    with pytest.raises(ValueError, match="when must be one of S, M, H, D, midnight or W0 to W6, got"):
        rotation.next_rollover(0, when)


@settings(max_examples=300, deadline=None)
@given(
    start=st.integers(0, 2**32),
    when=st.sampled_from(["S", "M", "H", "D", "MIDNIGHT", "W0", "W3", "W6"]),
    interval=st.integers(1, 5),
    zone_name=st.sampled_from([*ZONES, "America/Havana", "America/St_Johns", "Pacific/Apia", "Africa/Cairo"]),
)
def test_intervals_follow_each_other_and_their_names_never_go_back(start, when, interval, zone_name):
    zone = zone_of(zone_name)
    first = rotation.next_rollover(start, when, interval, zone=zone)
    second = rotation.next_rollover(first, when, interval, zone=zone)
    assert start < first < second
    begin = rotation.interval_start(first, when, interval, zone=zone)
    next_begin = rotation.interval_start(second, when, interval, zone=zone)
    assert begin <= start or when in "SMHD"
    assert begin < next_begin <= first


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("S", "app.log.2026-11-22_23-59-58"),
        ("M", "app.log.2026-11-22_23-59"),
        ("h", "app.log.2026-11-22_23"),
        ("D", "app.log.2026-11-22"),
        ("midnight", "app.log.2026-11-22"),
        ("W3", "app.log.2026-11-22"),
        (None, "app.log.2026-11-22_23-59-58"),
    ],
)
def test_an_archive_is_named_after_the_start_of_its_interval(when, expected):
    zone = zone_of("Europe/Berlin")
    start = epoch("2026-11-22T23:59:58", zone)
    assert rotation.archive_name(PATH, start, when, zone=zone) == f"/logs/{expected}"
    in_utc = rotation.archive_name(PATH, start + 3_600, when, utc=True, zone=zone)
    assert in_utc == f"/logs/{expected}"


@pytest.mark.parametrize("when", ["S", "M", "H", "midnight", "W2"])
def test_names_equal_those_that_the_stdlib_gives(tmp_path, when):
    path = tmp_path / "app.log"
    path.write_text("x\n")
    os.utime(path, (1_790_000_000, 1_790_000_000))
    with system_zone("UTC"):
        handler = logging.handlers.TimedRotatingFileHandler(path, when, delay=True)
        end = rotation.next_rollover(1_790_000_000, when)
        assert handler.rolloverAt == end
        handler.doRollover()
        handler.close()
        start = rotation.interval_start(end, when)
        wanted = rotation.archive_name(str(path), start, when)
    assert Path(wanted).exists()
    assert rotation.is_archive_of(str(path), wanted)


def test_the_start_of_a_midnight_interval_is_the_day_even_where_it_has_no_midnight():
    havana, apia = zone_of("America/Havana"), zone_of("Pacific/Apia")
    end = epoch("2026-03-09T00:00:00", havana)
    start = rotation.interval_start(end, "midnight", zone=havana)
    assert rotation.archive_name(PATH, start, "midnight", zone=havana).endswith(".2026-03-08")
    end = epoch("2011-12-31T00:00:00", apia)
    start = rotation.interval_start(end, "midnight", zone=apia)
    assert rotation.archive_name(PATH, start, "midnight", zone=apia).endswith(".2011-12-29")
    start = rotation.interval_start(epoch("2026-11-30", havana), "W6", 2, zone=havana)
    assert local(start, havana) == "2026-11-16T00:00:00-05:00"


def test_the_hour_that_comes_twice_gets_two_names():
    zone = zone_of("Europe/Berlin")
    first = rotation.archive_name(PATH, epoch("2026-10-25T02:00:00", zone, 0), "H", zone=zone)
    second = rotation.archive_name(PATH, epoch("2026-10-25T02:00:00", zone, 1), "H", zone=zone)
    assert first == second == f"{PATH}.2026-10-25_02"
    assert rotation.unique_name(PATH, second, [first]) == f"{PATH}.2026-10-25_02.1"


def test_a_new_name_sorts_behind_all_others():
    wanted = f"{PATH}.2026-11-22"
    assert rotation.unique_name(PATH, wanted, []) == wanted
    assert (
        rotation.unique_name(PATH, wanted, [PATH, f"{PATH}.2026-11-21.7", f"{PATH}.1", f"{wanted}.old"])
        == wanted
    )
    assert rotation.unique_name(PATH, wanted, [f"{wanted}.gz"]) == f"{wanted}.1"
    assert rotation.unique_name(PATH, wanted, [wanted, f"{wanted}.2.zst"]) == f"{wanted}.3"
    # Retention has removed the lower ones: a free name below would sort as the oldest.
    assert rotation.unique_name(PATH, wanted, [f"{wanted}.9", f"{wanted}.10"]) == f"{wanted}.11"
    # The clock was set back, or ``when`` was changed from hours to days.
    assert rotation.unique_name(PATH, wanted, [f"{PATH}.2026-11-23"]) == f"{PATH}.2026-11-23.1"
    assert rotation.unique_name(PATH, wanted, [f"{wanted}_10"]) == f"{wanted}_10.1"


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(st.integers(-90_000, 90_000), min_size=1, max_size=15),
    when=st.sampled_from(["S", "M", "H", "midnight", None]),
)
def test_names_follow_the_order_of_rotations_whatever_the_clock_does(steps, when):
    zone = zone_of("Europe/Berlin")
    now = epoch("2026-10-25T01:00:00", zone)
    made: list[str] = []
    for step in steps:
        now += step
        wanted = rotation.archive_name(PATH, now, when, zone=zone)
        made.append(rotation.unique_name(PATH, wanted, made))
    assert [a.path for a in rotation.owned(PATH, reversed(made), "timestamp", 0)] == made
    assert len(set(made)) == len(made)


# --- what is ours ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "app.log.1", "app.log.10", "app.log.1.gz", "app.log.7.zst", "app.log.2026-11-22", "app.log.2026-11-22.gz",
        "app.log.2026-11-22.1", "app.log.2026-11-22.12.zst", "app.log.2026-11-22_18", "app.log.2026-11-22_18-30",
        "app.log.2026-11-22_18-30-59", "app.log.2026-11-22_18-30-59.3.gz", "app.log.2028-02-29",
    ],
)  # fmt: skip
def test_our_own_archives_are_known(name):
    assert rotation.is_archive_of(PATH, name)
    assert rotation.is_archive_of(PATH, f"/logs/{name}")
    assert not rotation.is_archive_of(PATH, f"/other/{name}")
    assert not rotation.is_archive_of("/logs/other.log", name)


@pytest.mark.parametrize(
    "name",
    [
        "app.log", "app.log.", "app.log.bak", "app.log.2026-backup", "app.log.1.old", "app.log.0", "app.log.01",
        "app.log.-1", "app.log.1.1", "app.log.1.gz.gz", "app.log.1.bz2", "app.log.1.gz.tmp", "app.log.gz",
        "app.log.20261122", "app.log.2026-13-01", "app.log.2026-02-29", "app.log.2026-11-22_24", "app.log.2026-11-22.0",
        "app.log.2026-11-22_18-30-59-10", "app.log.2026-11-22T18", "app.log.2026-11-22.old", "app.log.1\n", "app_log.1",
        "xapp.log.1", "app.log.1.GZ", "app.log.\u0661", "app.log.2026-11-22.gz.1", "app.log.1~", ".app.log.1",
        "app.log.0000-01-01", "app.log.1 ", "app.log.lock", "",
    ],
)  # fmt: skip
def test_what_is_not_ours_is_never_taken_for_ours(name):
    assert not rotation.is_archive_of(PATH, name)
    assert rotation.owned(PATH, [f"/logs/{name}"], "number", 5) == []


@settings(max_examples=300)
@given(st.text(alphabet="0123456789-_.gzstd appol", max_size=24))
def test_a_name_that_is_ours_is_rebuilt_from_its_parts(tail):
    name = rotation.parse_archive(PATH, f"app.log.{tail}")
    if name is None:
        return
    assert bool(name.number) != bool(name.stamp)
    middle = str(name.number) if name.number else name.stamp + (f".{name.copy}" if name.copy else "")
    assert name.path == f"{PATH}.{middle}{name.suffix}" == f"{name.stem}{name.suffix}"


def test_odd_characters_in_the_path_are_taken_literally():
    assert rotation.is_archive_of("/logs/a+b.[1].log", "a+b.[1].log.2")
    assert not rotation.is_archive_of("/logs/a+b.[1].log", "aab.1.log.2")


def paths(*tails: str) -> list[str]:
    return [f"{PATH}.{tail}" for tail in tails]


def owned(naming: rotation.Naming, backups: int, *tails: str) -> list[str]:
    return [a.path.removeprefix(f"{PATH}.") for a in rotation.owned(PATH, paths(*tails), naming, backups)]


def test_archives_are_listed_oldest_first():
    assert owned("number", 5, "1", "10", "2.gz", "3", "9", "8", "7", "6", "5", "4") == [
        "10", "9", "8", "7", "6", "5", "4", "3", "2.gz", "1",
    ]  # fmt: skip
    assert owned("timestamp", 0, "2026-11-22.10", "2026-11-22.9.gz", "2026-11-22", "2026-11-21.3") == [
        "2026-11-21.3", "2026-11-22", "2026-11-22.9.gz", "2026-11-22.10",
    ]  # fmt: skip


def test_archives_of_a_naming_given_up_are_the_oldest():
    assert owned("number", 5, "1", "2", "2026-11-22") == ["2026-11-22", "2", "1"]
    assert owned("timestamp", 5, "1", "2", "2026-11-22") == ["2", "1", "2026-11-22"]


def test_a_lonely_number_is_not_ours():
    assert owned("number", 3, "1", "2", "3", "12345") == ["3", "2", "1"]
    assert owned("number", 3, "1", "2", "3", "4", "6", "7", "12345") == ["7", "6", "4", "3", "2", "1"]
    assert owned("number", 0, "12345") == []
    assert owned("number", 9, "8") == ["8"]


# --- shifting numbers --------------------------------------------------------------------------------------


def test_a_shift_is_that_of_the_stdlib():
    assert rotation.shift_plan(PATH, 3, [PATH, *paths("1", "2", "3")]) == [
        Remove(f"{PATH}.3"),
        Rename(f"{PATH}.2", f"{PATH}.3"),
        Rename(f"{PATH}.1", f"{PATH}.2"),
        Rename(PATH, f"{PATH}.1"),
    ]
    assert rotation.shift_plan(PATH, 3, [PATH]) == [Rename(PATH, f"{PATH}.1")]
    assert rotation.shift_plan(PATH, 1, [PATH, f"{PATH}.1"]) == [
        Remove(f"{PATH}.1"),
        Rename(PATH, f"{PATH}.1"),
    ]


def test_without_a_live_file_nothing_is_shifted():
    assert rotation.shift_plan(PATH, 3, paths("1", "2")) == []


def test_compressed_backups_keep_their_suffix():
    assert rotation.shift_plan(PATH, 3, [PATH, *paths("1", "2.gz", "3.zst")]) == [
        Remove(f"{PATH}.3.zst"),
        Rename(f"{PATH}.2.gz", f"{PATH}.3.gz"),
        Rename(f"{PATH}.1", f"{PATH}.2"),
        Rename(PATH, f"{PATH}.1"),
    ]


def test_a_hole_ends_the_shift():
    assert rotation.shift_plan(PATH, 3, [PATH, *paths("1", "3")]) == [
        Rename(f"{PATH}.1", f"{PATH}.2"),
        Rename(PATH, f"{PATH}.1"),
    ]
    assert rotation.shift_plan(PATH, 3, [PATH, *paths("2", "3")]) == [Rename(PATH, f"{PATH}.1")]


def test_a_smaller_count_removes_the_backups_beyond_it_oldest_first():
    steps = rotation.shift_plan(PATH, 2, [PATH, *paths("1", "2", "3", "4", "999")])
    assert [step.path for step in steps if isinstance(step, Remove)] == paths("4", "3", "2")


def test_without_a_bound_nothing_is_removed():
    steps = rotation.shift_plan(PATH, 0, [PATH, *paths("1", "2", "3")])
    assert steps[0] == Rename(f"{PATH}.3", f"{PATH}.4")
    assert not [step for step in steps if isinstance(step, Remove)]


def test_names_of_others_are_left_alone():
    others = paths("bak", "1.old", "2026-11-22", "12345")
    assert rotation.shift_plan(PATH, 1, [PATH, *others]) == [Rename(PATH, f"{PATH}.1")]


class Disk:
    """Files by path, with the rule that nothing may be renamed over."""

    def __init__(self) -> None:
        self.files: dict[str, int] = {}
        self.removed: list[int] = []

    def execute(self, step: Step) -> None:
        if isinstance(step, Remove):
            self.removed.append(self.files.pop(step.path))
            return
        assert step.target not in self.files
        self.files[step.target] = self.files.pop(step.source)

    def backups(self) -> list[int]:
        """Return the contents, newest first."""
        return [self.files[a.path] for a in reversed(rotation.owned(PATH, self.files, "number", 0))]


@settings(max_examples=300, deadline=None)
@given(
    backups=st.integers(1, 5),
    kills=st.lists(st.integers(0, 7), min_size=1, max_size=20),
    compressed=st.sets(st.integers(0, 20)),
)
def test_a_shift_killed_after_any_step_loses_nothing(backups, kills, compressed):
    """Each rotation is killed after so many steps; the next plan is made from what is on disk."""
    disk = Disk()
    content = 0
    for kill in kills:
        if PATH not in disk.files:
            disk.files[PATH] = content
            content += 1
        for step in rotation.shift_plan(PATH, backups, disk.files)[:kill]:
            disk.execute(step)
        newest = f"{PATH}.1"
        if newest in disk.files and disk.files[newest] in compressed:
            disk.files[f"{newest}.gz"] = disk.files.pop(newest)
    if PATH in disk.files:
        for step in rotation.shift_plan(PATH, backups, disk.files):
            disk.execute(step)
    kept = disk.backups()
    assert kept == list(range(content - 1, content - 1 - len(kept), -1))
    assert len(kept) == min(content, backups)
    assert disk.removed == list(range(content - len(kept)))
    assert len(disk.files) == len(kept)


@settings(max_examples=150, deadline=None)
@given(rotations=st.integers(0, 8), backups=st.integers(1, 4))
def test_uninterrupted_shifts_leave_the_names_that_the_stdlib_leaves(tmp_path_factory, rotations, backups):
    folder = tmp_path_factory.mktemp("shift")
    handler = logging.handlers.RotatingFileHandler(folder / "app.log", maxBytes=1, backupCount=backups)
    disk = Disk()
    for number in range(rotations):
        (folder / "app.log").write_text(str(number))
        handler.doRollover()
        disk.files[PATH] = number
        for step in rotation.shift_plan(PATH, backups, disk.files):
            disk.execute(step)
    handler.close()
    files = {p.name: int(p.read_text()) for p in folder.iterdir() if p.name != "app.log"}
    assert {os.path.basename(path): number for path, number in disk.files.items()} == files


# --- retention ---------------------------------------------------------------------------------------------


def archives(*sizes: int) -> list[Archive]:
    return [Archive(f"a{index}", time=float(index * DAY), size=size) for index, size in enumerate(sizes)]


def expired(
    given_archives: list[Archive], count: int = 0, age: float | None = None, total: int | None = None
) -> list[str]:
    return rotation.expired(
        given_archives, backup_count=count, max_age=age, max_total_bytes=total, now=len(given_archives) * DAY
    )


def test_retention_removes_the_oldest_by_count_age_and_size():
    four = archives(10, 20, 30, 40)
    assert expired(four) == []
    assert expired(four, count=3) == ["a0"]
    assert expired(four, count=9) == []
    assert expired(four, age=2 * DAY) == ["a0", "a1"]
    assert expired(four, age=2 * DAY + 1) == ["a0", "a1"]
    assert expired(four, total=100) == []
    assert expired(four, total=99) == ["a0"]
    assert expired(four, total=69) == ["a0", "a1", "a2"]
    assert expired(four, total=39) == ["a0", "a1", "a2", "a3"]
    assert expired(four, count=3, age=3 * DAY, total=75) == ["a0", "a1"]
    assert expired([], count=1, age=1.0, total=1) == []


def test_an_archive_with_an_old_clock_among_newer_ones_expires_alone():
    odd = [Archive("a", 900.0, 1), Archive("b", 0.0, 1), Archive("c", 1_000.0, 1)]
    assert rotation.expired(odd, backup_count=0, max_age=500.0, max_total_bytes=None, now=1_000.0) == ["b"]


@settings(max_examples=200)
@given(
    sizes=st.lists(st.integers(0, 50), max_size=10),
    count=st.integers(0, 10),
    age=st.none() | st.integers(1, 10),
    total=st.none() | st.integers(1, 200),
)
def test_what_is_left_obeys_every_bound_and_is_the_newest(sizes, count, age, total):
    all_archives = archives(*sizes)
    gone = expired(all_archives, count, None if age is None else age * DAY, total)
    assert gone == [a.path for a in all_archives[: len(gone)]]
    left = all_archives[len(gone) :]
    assert not count or len(left) <= count
    assert total is None or sum(a.size for a in left) <= total
    assert age is None or all(a.time >= (len(sizes) - age) * DAY for a in left)
    if gone:  # one more would break a bound
        one_more = all_archives[len(gone) - 1 :]
        assert (
            (count and len(one_more) > count)
            or (total is not None and sum(a.size for a in one_more) > total)
            or (age is not None and one_more[0].time < (len(sizes) - age) * DAY)
        )

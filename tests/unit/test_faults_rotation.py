"""Rotation in any order of events: every block in exactly one place, in order, strangers untouched, nothing overwritten."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from redislogkit import rotation
from redislogkit.config import FileWriterConfig, FormatterConfig
from redislogkit.writers import archive
from redislogkit.writers.archive import Archivist
from tests.helpers import filewriter
from tests.helpers.filewriter import entries, everything, numbered, run_writer

DAY = 86_400.0
START = filewriter.START


class KilledError(BaseException):
    """Stands for SIGKILL: no ``except Exception`` catches it."""


#: Everything by which the archivist changes what is on the disk.
STEPS = ("rename", "unlink", "fsync", "open", "utime")


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """The ``step``-th change to the disk does not happen any more, nor does anything behind it."""
    left = step
    real = {name: getattr(os, name) for name in STEPS}

    def patched(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KilledError
            return real[name](*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in STEPS:
            patch.setattr(os, name, patched(name))
        yield


class RotationMachine(RuleBasedStateMachine):
    """One live file with its archives, kills, restarts, clocks that jump, and somebody else in the folder."""

    folder: Path | None = None

    @initialize(
        naming=st.sampled_from(["number", "timestamp"]),
        backup_count=st.sampled_from([1, 2, 5]),
        compress=st.sampled_from(["none", "gzip"]),
    )
    def begin(self, naming: Any, backup_count: int, compress: Any) -> None:
        self.folder = Path(
            tempfile.mkdtemp(prefix="rlk-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        )
        self.live = self.folder / "app.log"
        self.config = FileWriterConfig(
            path=str(self.live), formatter=FormatterConfig(), naming=naming, backup_count=backup_count,
            compress=compress, when="S" if naming == "timestamp" else None, utc=True, fsync="never",
        )  # fmt: skip
        self.now = START
        self.blocks = 0
        self.rotations = 0
        self.strangers: dict[Path, bytes] = {}
        self.reports: list[str] = []
        self.restart()

    @rule()
    def restart(self) -> None:
        self.archivist = Archivist(
            self.config, self.reports.append, clock=lambda: self.now, zone=timezone.utc, retry_after=0.0
        )
        self.archivist.open()
        self.check(after_start=True)

    @rule(count=st.integers(1, 3))
    def write(self, count: int) -> None:
        with open(self.live, "ab") as file:
            for _ in range(count):
                file.write(b"%d %s\n" % (self.blocks, b"x" * 50))
                self.blocks += 1

    @rule()
    def rotate(self) -> None:
        self.archivist._next_rotation = float("-inf")
        self.rotations += self.archivist.rotate(self.now) is not None

    @rule()
    def release_and_work(self) -> None:
        self.archivist.release()
        self.archivist.work()

    @rule(step=st.integers(0, 12), what=st.sampled_from(["rotate", "work", "open"]))
    def killed(self, step: int, what: str) -> None:
        try:
            with killed_at(step):
                if what == "rotate":
                    self.rotate()
                elif what == "work":
                    self.release_and_work()
                else:
                    self.archivist.open()
        except KilledError:
            self.restart()

    @rule(seconds=st.sampled_from([1.0, 3_600.0, DAY, -1.0, -3_600.0, -DAY]))
    def clock_jumps(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        name=st.sampled_from([
            "app.log.old", "app.log.1.old", "app.log.01", "app.log.12345", "app.log.20261122", "app.log.1.gz.tmp",
            "app.log.2026-11-22.bak", "app.log.2026-13-01", "app.log.1.zip", "app.log2", "app.log.", "xapp.log.1",
            ".app.log.x", ".app.log.tmp", ".app.log.7.tmp.gz", ".app.log.gz.tmp", ".app.logs.7.gz.tmp",
        ]),
    )  # fmt: skip
    def somebody_else_makes_a_file(self, name: str) -> None:
        path = self.live.with_name(name)
        path.write_text("of somebody else")
        self.strangers[path] = path.read_bytes()

    # -- what must hold -------------------------------------------------------------------------

    @precondition(lambda self: self.folder is not None)
    @invariant()
    def holds(self) -> None:
        self.check()

    def check(self, *, after_start: bool = False) -> None:
        assert self.folder is not None
        for path, content in self.strangers.items():
            assert path.read_bytes() == content
        archives = [Path(item.path) for item in archive.list_archives(self.config)]
        held = [self.content(path) for path in archives]
        if self.live.exists():
            held.append(self.content(self.live))
        found = [number for part in held for number in part]
        assert found == list(range(self.blocks - len(found), self.blocks))
        assert len(found) == self.blocks or self.rotations >= self.config.backup_count
        ours = {*archives, self.live, *self.strangers}
        others = [path for path in self.folder.iterdir() if path not in ours]
        assert not after_start or not others

    def content(self, path: Path) -> list[int]:
        data = path.read_bytes()
        text = gzip.decompress(data) if path.suffix == ".gz" else data
        return [int(line.split()[0]) for line in text.splitlines()]

    def teardown(self) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder)


TestRotationAtRandom = RotationMachine.TestCase
TestRotationAtRandom.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


# --- time --------------------------------------------------------------------------------------------------


def at(now: float) -> Callable[[], float]:
    """A clock that stands still."""
    return lambda: now


def zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError:
        pytest.skip("no time zone data")


def moment(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


#: Zone, when, interval, start and end of the interval (both UTC).
TABLE = [
    # Clocks go forward at 01:00 UTC: a day of 23 hours.
    ("Europe/Berlin", "midnight", 1, "2026-03-28T11:00", "2026-03-28T23:00"),
    ("Europe/Berlin", "midnight", 1, "2026-03-28T23:00", "2026-03-29T22:00"),
    ("Europe/Berlin", "midnight", 1, "2026-03-29T00:59", "2026-03-29T22:00"),
    ("Europe/Berlin", "midnight", 1, "2026-03-29T01:00", "2026-03-29T22:00"),
    ("Europe/Berlin", "midnight", 2, "2026-03-28T11:00", "2026-03-29T22:00"),
    ("Europe/Berlin", "W5", 1, "2026-03-27T11:00", "2026-03-28T23:00"),
    ("Europe/Berlin", "W6", 1, "2026-03-28T11:00", "2026-03-29T22:00"),
    ("Europe/Berlin", "W6", 1, "2026-03-29T11:00", "2026-03-29T22:00"),
    ("Europe/Berlin", "W6", 2, "2026-03-29T11:00", "2026-04-05T22:00"),
    ("Europe/Berlin", "H", 1, "2026-03-29T00:30", "2026-03-29T01:30"),
    ("Europe/Berlin", "D", 1, "2026-03-28T12:00", "2026-03-29T12:00"),
    # Clocks go back at 01:00 UTC: a day of 25 hours, an hour that comes twice.
    ("Europe/Berlin", "midnight", 1, "2026-10-24T22:00", "2026-10-25T23:00"),
    ("Europe/Berlin", "midnight", 1, "2026-10-25T00:30", "2026-10-25T23:00"),
    ("Europe/Berlin", "midnight", 1, "2026-10-25T01:30", "2026-10-25T23:00"),
    ("Europe/Berlin", "midnight", 1, "2026-10-25T22:59", "2026-10-25T23:00"),
    ("Europe/Berlin", "W6", 1, "2026-10-25T00:30", "2026-10-25T23:00"),
    ("Europe/Berlin", "H", 1, "2026-10-25T00:30", "2026-10-25T01:30"),
    ("Europe/Berlin", "H", 3, "2026-10-25T00:30", "2026-10-25T03:30"),
    # Half an hour, and a change at midnight: the 6th of September begins at 01:00 there.
    ("Australia/Lord_Howe", "midnight", 1, "2026-04-04T13:30", "2026-04-05T13:30"),
    ("America/Santiago", "midnight", 1, "2026-09-05T12:00", "2026-09-06T04:00"),
    # No change of clocks at all.
    ("Asia/Kolkata", "midnight", 1, "2026-03-28T18:29", "2026-03-28T18:30"),
    ("Asia/Kolkata", "midnight", 1, "2026-03-28T18:30", "2026-03-29T18:30"),
]


@pytest.mark.parametrize(("name", "when", "interval", "start", "end"), TABLE)
def test_intervals_end_at_these_moments(name: str, when: str, interval: int, start: str, end: str) -> None:
    found = rotation.next_rollover(moment(start), when, interval, zone=zone(name))
    assert datetime.fromtimestamp(found, timezone.utc).strftime("%Y-%m-%dT%H:%M") == end
    assert rotation.interval_start(found, when, interval, zone=zone(name)) <= moment(start)


@contextmanager
def system_zone(name: str) -> Iterator[None]:
    zone(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", name)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize("when", ["H", "midnight"])
@pytest.mark.parametrize("edge", ["2026-03-28T20:00", "2026-10-24T20:00"])
def test_a_writer_that_restarts_all_the_time_overwrites_nothing_over_both_edges(
    tmp_path: Path, edge: str, when: str
) -> None:
    with system_zone("Europe/Berlin"):
        settings = filewriter.config(
            tmp_path / "app.log", when=when, naming="timestamp", backup_count=0, utc=False
        )
        items: list[Any] = []
        for half_hour in range(2 * 30):
            now = moment(edge) + 1_800 * half_hour
            items += numbered([f"{half_hour}"], first=half_hour + 1, created=now)
            run_writer(settings, entries(items, 1), tmp_path / "checkpoint", clock=at(now))
            os.utime(tmp_path / "app.log", (now, now))
        assert everything(settings).split() == [b"%d" % number for number in range(60)]
        if when == "midnight":  # an hour is reckoned from the file's last change: it is never over here
            assert len(archive.list_archives(settings)) == 2


def test_a_time_zone_that_changes_between_two_runs_overwrites_nothing(tmp_path: Path) -> None:
    settings = filewriter.config(
        tmp_path / "app.log", when="midnight", naming="timestamp", backup_count=0, utc=False
    )
    items: list[Any] = []
    now = moment("2026-06-10T12:00")
    names = ["Europe/Berlin", "Pacific/Auckland", "America/Los_Angeles", "Pacific/Kiritimati", "UTC"] * 4
    for number, name in enumerate(names):
        with system_zone(name):
            now += 7 * 3_600
            items += numbered([f"{number}"], first=number + 1, created=now)
            run_writer(settings, entries(items, 1), tmp_path / "checkpoint", clock=at(now))
            os.utime(tmp_path / "app.log", (now, now))
    assert everything(settings).split() == [b"%d" % number for number in range(len(names))]


@pytest.mark.parametrize("naming", ["number", "timestamp"])
@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_a_clock_that_jumps_by_a_day_between_two_runs_overwrites_nothing(
    tmp_path: Path, jump: float, naming: str
) -> None:
    settings = filewriter.config(
        tmp_path / "app.log", when="midnight", max_bytes=30, naming=naming, backup_count=100
    )
    items: list[Any] = []
    now = START
    for number in range(24):
        now += jump if number % 5 == 4 else 600.0
        items += numbered([f"{number} xxxxxxxx"], first=number + 1, created=now)
        run_writer(settings, entries(items, 1), tmp_path / "checkpoint", clock=at(now))
        os.utime(tmp_path / "app.log", (now, now))
    assert everything(settings).split()[::2] == [b"%d" % number for number in range(24)]


@pytest.mark.parametrize("umask", [0o077, 0o000, 0o777])
@pytest.mark.parametrize("compress", ["none", "gzip"])
@pytest.mark.parametrize("mode", [0o640, 0o666])
def test_mode_and_owner_hold_for_every_backup(tmp_path: Path, umask: int, compress: str, mode: int) -> None:
    settings = filewriter.config(
        tmp_path / "app.log", max_bytes=30, backup_count=100, compress=compress, mode=mode
    )
    items = numbered(f"{number} xxxxxxxxxxxx" for number in range(10))
    before = os.umask(umask)
    try:
        for end in (4, 8, 10):
            run_writer(settings, entries(items[:end], 1), tmp_path / "checkpoint")
            if end == 4 and os.geteuid() == 0:
                os.chown(tmp_path / "app.log", 4_711, 4_712)
    finally:
        os.umask(before)
    files = [Path(item.path) for item in archive.list_archives(settings)]
    assert len(files) > 3
    assert {path.stat().st_mode & 0o7777 for path in (*files, tmp_path / "app.log")} == {mode}
    if os.geteuid() == 0:
        owners = [(path.stat().st_uid, path.stat().st_gid) for path in (*files, tmp_path / "app.log")]
        assert owners == sorted(owners)
        assert owners[-3:] == [(4_711, 4_712)] * 3

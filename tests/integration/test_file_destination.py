"""The file of a writer: rotation as in the stdlib, modes, locks, and what others do to it."""

from __future__ import annotations

import contextlib
import errno
import logging
import logging.handlers
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest

from redislogkit.config import FormatterConfig
from redislogkit.errors import LockHeldError
from redislogkit.lines import Numbered
from redislogkit.record import Loss
from redislogkit.writers import chunk, index
from redislogkit.writers import file as file_module
from redislogkit.writers.checkpoint import Checkpoint, Intent
from redislogkit.writers.file import FileDestination
from tests.helpers import filewriter
from tests.helpers.filewriter import START, a_record, entries, everything, facts, numbered, run_writer
from tests.helpers.waiting import wait_until

DAY = 86_400
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Log:
    """One file with its destination and checkpoint, and what the loop does with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "app.log"
        self.state = folder.with_name(f"{folder.name}-state")
        self.state.mkdir()
        self.reports: list[str] = []
        self.now = START
        self.sequence = 0
        self._in_doubt = False
        self.destination: FileDestination
        self.checkpoint: Checkpoint

    def open(self, **settings: Any) -> FileDestination:
        self.config = filewriter.config(self.path, **settings)
        self._begin()
        return self.destination

    def again(self) -> None:
        """Close it and open it anew, as after a restart."""
        self.close()
        self._begin()

    def _begin(self) -> None:
        self.checkpoint = Checkpoint(str(self.state / "checkpoint"))
        self.checkpoint.open()
        self.destination = FileDestination(
            self.config, self.reports.append, lambda: self.now, index_folder=str(self.state / "index")
        )
        self.recover()

    def close(self) -> None:
        self.destination.close()
        self.checkpoint.close()

    def recover(self, *, retract: bool = False) -> None:
        self._commit(self.destination.recover(self.checkpoint, retract=retract))

    def _commit(self, written: dict[str, int]) -> None:
        self.checkpoint.commit(b"1-0", 0, self.destination.mark(), written, [])
        self._in_doubt = False

    def items(self, *texts: str, created: float | None = None) -> list[Numbered]:
        found = numbered(texts, self.sequence + 1, self.now if created is None else created)
        self.sequence += len(texts)
        return found

    def write(self, items: list[Numbered]) -> None:
        """Write and checkpoint; what a failure leaves in doubt is recovered by the next one."""
        if self._in_doubt:
            self.recover()
        reading = filewriter.reading(items, self.checkpoint.seen)
        self._in_doubt = True
        self.destination.write(reading)
        self._commit(reading.highest)
        self.destination.service()

    def log(self, *texts: str) -> None:
        self.write(self.items(*texts))

    def lost_checkpoint(self, items: list[Numbered]) -> None:
        """Write, but fail to checkpoint."""
        self.destination.write(filewriter.reading(items))

    def text(self) -> str:
        return self.path.read_text()

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.name.startswith("app"))


@pytest.fixture
def log(tmp_path):
    found = Log(tmp_path)
    yield found
    if hasattr(found, "destination"):
        found.close()


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


# --- rotation as in the stdlib -----------------------------------------------------------------------------


class CountsBytes(logging.handlers.RotatingFileHandler):
    """The stdlib's handler, but for what it takes for the length of a record: it counts characters."""

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802
        text = self.format(record)
        record.msg, record.args = text.encode().decode("latin-1"), None
        try:
            return bool(super().shouldRollover(record))
        finally:
            record.msg = text


@pytest.mark.parametrize(
    ("letters", "stdlib"),
    [("x", logging.handlers.RotatingFileHandler), ("aäö€😀", CountsBytes)],
    ids=["ascii", "utf-8"],
)
@pytest.mark.parametrize(("limit", "backups"), [(100, 3), (333, 50), (40, 2), (100, 0), (0, 3)])
@pytest.mark.parametrize("at_once", [1, 7])
def test_files_are_byte_for_byte_those_of_the_rotating_file_handler(
    tmp_path, log, letters, stdlib, limit, backups, at_once
):
    texts = [
        f"{n} " + "".join(letters[(n + i) % len(letters)] for i in range(n * 13 % 31)) for n in range(120)
    ]
    theirs = tmp_path / "stdlib"
    theirs.mkdir()
    handler = stdlib(theirs / "app.log", maxBytes=limit, backupCount=backups, encoding="utf-8")
    for text in texts:
        handler.emit(logging.makeLogRecord({"msg": text}))
    handler.close()
    log.open(max_bytes=limit, backup_count=backups)
    for begin in range(0, len(texts), at_once):
        log.log(*texts[begin : begin + at_once])
    wanted = {path.name: path.read_bytes() for path in theirs.iterdir()}
    assert {name: (tmp_path / name).read_bytes() for name in log.names()} == wanted


class Clock:
    """Stands in the place of ``time`` in ``logging.handlers``."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata"])
@pytest.mark.parametrize(
    ("when", "interval", "steps"),
    [
        ("S", 1, [0, 0.5, 1, 3, 3, 7]),
        ("S", 5, [0, 2, 5, 6, 4, 5, 11, 1]),
        ("M", 1, [0, 30, 29, 1, 60, 200]),
        ("H", 2, [0, 3600, 3599, 1, 7200, 30_000]),
        ("midnight", 1, [0, 20_000, 60_000, 5_000, DAY, 3 * DAY, 100]),
        ("W0", 1, [0, DAY, 3 * DAY, 2 * DAY, 6 * DAY, DAY]),
        ("W6", 1, [0, DAY, 3 * DAY, 2 * DAY, 6 * DAY, 15 * DAY]),
    ],
)
def test_archives_are_those_of_the_timed_rotating_file_handler(  # which ignores midnight's interval until 3.13
    tmp_path, log, monkeypatch, when, interval, steps, zone, restart
):
    theirs = tmp_path / "stdlib"
    theirs.mkdir()
    clock = Clock()
    monkeypatch.setattr(logging.handlers, "time", clock)

    def start_theirs() -> logging.handlers.TimedRotatingFileHandler:
        return logging.handlers.TimedRotatingFileHandler(theirs / "app.log", when, interval)

    with system_zone(zone):
        clock.now = log.now = START
        (theirs / "app.log").touch()
        os.utime(theirs / "app.log", (START, START))
        handler = start_theirs()
        log.open(when=when, interval=interval, naming="timestamp", backup_count=0, utc=False)
        for number, step in enumerate(steps):
            clock.now = log.now = log.now + step
            if restart and number % 3 == 2:  # both go by the file's last change
                handler.close()
                handler = start_theirs()
                log.again()
            handler.emit(logging.makeLogRecord({"msg": f"line {number}"}))
            log.log(f"line {number}")
            for path in (theirs / "app.log", log.path):
                os.utime(path, (log.now, log.now))
        handler.close()
    assert {name: (tmp_path / name).read_text() for name in log.names()} == {
        path.name: path.read_text() for path in theirs.iterdir()
    }


def test_a_restart_over_midnight_rotates_with_the_first_record(log):
    log.open(when="midnight", naming="timestamp")
    log.log("yesterday")
    os.utime(log.path, (START, START))
    log.now += DAY
    log.again()
    log.log("today")
    assert log.names() == ["app.log", "app.log.2026-11-22"]
    assert log.text() == "today\n"


def test_a_backlog_is_divided_by_the_time_of_its_records(log):
    log.now = START + 3 * DAY
    log.open(when="midnight", naming="timestamp")
    items = [
        item for day in range(4) for item in log.items(f"day {day}", f"more {day}", created=START + day * DAY)
    ]
    log.write(items)
    assert log.names() == ["app.log", *(f"app.log.2026-11-{22 + day}" for day in range(3))]
    assert log.text() == "day 3\nmore 3\n"
    assert (log.folder / "app.log.2026-11-23").read_text() == "day 1\nmore 1\n"


def test_a_late_record_stays_in_the_present_file_and_an_early_one_waits_for_the_clock(log):
    log.open(when="midnight", naming="timestamp")
    log.write(log.items("from tomorrow", created=START + DAY))
    assert log.names() == ["app.log"]
    log.now = START + DAY
    log.write(log.items("today", created=log.now))
    log.write(log.items("late", created=START))
    assert log.text() == "today\nlate\n"


def test_size_and_time_rotate_together_and_the_interval_stays(log):
    log.open(when="midnight", max_bytes=30, naming="timestamp", backup_count=0)
    log.log(*(f"{n} aaaaaaaaaa" for n in range(5)))  # two lines fit
    log.now += DAY
    log.log("tomorrow")
    assert log.names() == ["app.log", "app.log.2026-11-22", "app.log.2026-11-22.1", "app.log.2026-11-22.2"]
    assert log.text() == "tomorrow\n"


def test_time_rotation_can_number_its_archives(log):
    log.open(when="S", naming="number", backup_count=2)
    for number in range(5):
        log.log(f"line {number}")
        log.now += 1
    assert log.names() == ["app.log", "app.log.1", "app.log.2"]
    assert (log.folder / "app.log.2").read_text() == "line 2\n"


def test_an_empty_file_is_never_rotated(log):
    log.open(max_bytes=10, when="S", backup_count=5)
    for _ in range(3):
        log.now += 10
        log.log("a record that is longer than the limit")
    assert log.names() == ["app.log", "app.log.1", "app.log.2"]
    log.again()
    log.now += 100
    log.write([])
    assert log.names() == ["app.log", "app.log.1", "app.log.2"]


def test_retention_by_age_and_total_size_leaves_what_is_not_ours(log):
    others = ["app.log.bak", "app.log.20261122", "app.log.1.old", "app.log.1x", "apps.log.1"]
    for name in others:
        (log.folder / name).write_text("not ours")
    log.open(max_bytes=50, naming="timestamp", backup_count=0, max_total_bytes=120)
    for number in range(12):
        log.now += 1
        log.log(f"{number:02d} " + "x" * 40)
    ours = [f"app.log.2026-11-22_18-00-{second:02d}" for second in (10, 11)]
    wait_until(lambda: sorted(set(log.names()) - {*others}) == ["app.log", *ours], what="two archives stay")
    log.destination.close()
    log.now += 5 * DAY
    os.utime(log.folder / ours[0], (START, START))
    log.open(max_bytes=50, naming="timestamp", backup_count=0, max_age=3_600.0 * 24 * 400)
    log.log("y" * 45)
    assert all((log.folder / name).read_text() == "not ours" for name in others)


@pytest.mark.parametrize(("compress", "suffix"), [("gzip", ".gz"), ("zstd", ".zst")])
def test_quick_rotation_and_compression_lose_nothing(log, compress, suffix):
    log.open(max_bytes=200, backup_count=200, compress=compress)
    for begin in range(0, 500, 20):
        log.log(*(f"record {n}" for n in range(begin, begin + 20)))
    log.destination.service()
    wait_until(
        lambda: all(name.endswith(suffix) for name in log.names() if name != "app.log"),
        what="all is compressed",
    )
    log.destination.close()
    if compress == "gzip":
        assert everything(log.config) == b"".join(b"record %d\n" % n for n in range(500))
    assert log.reports == []


def test_a_file_is_rotated_when_it_is_wanted_and_compressed_without_another_record(log):
    log.open(max_bytes=10_000, compress="gzip")
    log.destination.rotate_soon()
    log.destination.service()  # nothing is in it
    assert log.names() == ["app.log"]
    log.log("one")
    log.destination.rotate_soon()
    log.destination.service()
    wait_until(lambda: log.names() == ["app.log", "app.log.1.gz"], what="it is compressed")
    assert log.checkpoint.mark == log.destination.mark()
    log.log("two")
    log.again()
    assert everything(log.config) == b"one\ntwo\n"
    assert log.destination.counts.rotations == 0  # since it was made
    assert log.reports == []


def test_a_file_that_never_rotates_by_itself_is_rotated_when_it_is_wanted(log):
    log.open(backup_count=0)
    for text in ("one", "two"):
        log.log(text)
        log.destination.rotate_soon()
        log.destination.service()
    assert log.names() == ["app.log", "app.log.1", "app.log.2"]
    assert everything(log.config) == b"one\ntwo\n"
    assert log.destination.counts.rotations == 2
    assert log.destination.counts.bytes == 8


def test_with_a_time_of_its_own_the_archive_has_the_name_of_the_interval(log):
    log.open(when="H", naming="timestamp")
    log.log("one")
    log.now += 60
    log.destination.rotate_soon()
    log.destination.service()
    log.log("two")
    log.now += 2 * 3600
    log.log("three")
    assert everything(log.config) == b"one\ntwo\nthree\n"
    assert len(log.names()) == 3


def test_a_file_that_was_moved_is_let_go_of_before_a_record_comes(log):
    log.open()
    log.log("one")
    os.rename(log.path, log.folder / "app.log.moved")
    log.destination.reopen_soon()
    log.destination.service()
    assert (log.folder / "app.log").read_bytes() == b""
    log.log("two")
    assert (log.folder / "app.log.moved").read_bytes() == b"one\n"
    assert (log.folder / "app.log").read_bytes() == b"two\n"


def test_nothing_is_rotated_while_a_write_is_in_doubt(log, monkeypatch):
    log.open()
    log.log("one")

    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(FileDestination, "_append", fail)
        with pytest.raises(OSError, match="no space"):
            log.write(log.items("two"))
    assert log.checkpoint.intents
    log.destination.rotate_soon()
    log.destination.service()
    assert log.names() == ["app.log"]
    log.recover()
    log.destination.service()
    assert log.names() == ["app.log", "app.log.1"]


# --- mode and owner ----------------------------------------------------------------------------------------


def modes(log: Log) -> set[int]:
    return {stat.S_IMODE((log.folder / name).stat().st_mode) for name in log.names()}


@pytest.fixture(params=[0o077, 0o000])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("compress", ["none", "gzip"])
def test_the_mode_holds_for_every_file_under_any_umask(log, umask, compress):
    log.open(mode=0o640, max_bytes=40, backup_count=9, compress=compress)
    for number in range(8):
        log.log(f"{number} " + "x" * 20)
    if compress == "gzip":
        wait_until(
            lambda: all(name.endswith(".gz") for name in log.names()[1:]), what="all backups are compressed"
        )
    assert len(log.names()) == 8
    assert modes(log) == {0o640}


def test_without_a_mode_the_umask_rules_and_later_files_are_like_the_first(log, umask):
    log.open(max_bytes=40, backup_count=9)
    log.log("x" * 30)
    assert modes(log) == {0o666 & ~umask}
    log.path.chmod(0o604)
    log.log("x" * 30, "x" * 30)
    assert len(log.names()) == 3
    assert modes(log) == {0o604}


@needs_root
def test_a_new_file_has_the_owner_of_its_predecessor(log):
    log.open(max_bytes=40, backup_count=9)
    log.log("x" * 30)
    os.chown(log.path, 12_345, 54_321)
    log.log("x" * 30)
    assert {(p.stat().st_uid, p.stat().st_gid) for p in log.folder.glob("app.log*")} == {(12_345, 54_321)}


# --- one writer for a file ---------------------------------------------------------------------------------

HOLDER = """
import sys, time
from tests.helpers import filewriter
from redislogkit.writers.file import FileDestination
from redislogkit.writers.checkpoint import Checkpoint
destination = FileDestination(filewriter.config(sys.argv[1]), print)
destination.recover(Checkpoint(""))
print("open", flush=True)
time.sleep(60)
"""


def test_a_second_writer_is_refused_by_any_name_until_the_first_is_dead(tmp_path, scripts):
    folder = tmp_path / "real"
    folder.mkdir()
    (tmp_path / "linked").symlink_to(folder)
    (tmp_path / "other.log").symlink_to(folder / "app.log")
    holder = scripts.start(HOLDER, folder / "app.log")
    assert holder.stdout.readline() == "open\n"
    for path in (folder / "app.log", tmp_path / "linked" / "app.log", tmp_path / "other.log"):
        destination = FileDestination(filewriter.config(path), print)
        with pytest.raises(LockHeldError, match=rf"log file {path} is in use by process {holder.pid} on "):
            destination.recover(Checkpoint(""))
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    destination = FileDestination(filewriter.config(tmp_path / "linked" / "app.log"), print)
    destination.recover(Checkpoint(""))
    destination.close()


def test_a_link_is_followed_and_archives_lie_beside_the_file_that_it_names(tmp_path, log):
    real = tmp_path / "data"
    real.mkdir()
    log.path.symlink_to(real / "real.log")
    log.open(max_bytes=20, backup_count=5)
    log.log("x" * 15, "y" * 15)
    assert log.path.is_symlink()
    assert sorted(path.name for path in real.iterdir()) == [".real.log.lock", "real.log", "real.log.1"]


def test_a_lock_is_free_after_failed_attempts_and_a_close(tmp_path, log):
    log.path.mkdir()
    for _ in range(3):
        with pytest.raises(IsADirectoryError):
            log.open()
    log.destination.close()
    log.path.rmdir()
    log.open()
    log.destination.close()
    log.open()


# --- what others do to the file ----------------------------------------------------------------------------


def test_a_file_that_was_renamed_is_left_with_the_next_record(log):
    log.open()
    log.log("one")
    os.rename(log.path, log.folder / "app.log-20261122")
    log.log("two")
    assert (log.folder / "app.log-20261122").read_text() == "one\n"
    assert log.text() == "two\n"
    assert len(log.reports) == 1


@pytest.mark.parametrize("created", [False, True])
def test_a_torn_write_is_cut_off_also_where_the_file_was_renamed_meanwhile(log, created):
    log.open()
    log.log("one")
    items = log.items("two", "three")
    log.lost_checkpoint(items)
    log.close()
    moved = log.folder / "app.log-20261122"
    os.rename(log.path, moved)
    with moved.open("r+b") as file:
        file.truncate(len("one\ntwo\nthr"))
    if created:
        log.path.touch()
    log.again()
    log.write([*items, *log.items("four")])
    assert moved.read_text() == "one\n"
    assert log.text() == "two\nthree\nfour\n"
    assert log.checkpoint.mark.inode == log.path.stat().st_ino


@pytest.mark.parametrize("length", [len("one\ntwo\nthr"), len("one\ntwo\nthree\n")])
def test_a_write_in_doubt_is_settled_in_its_file_when_the_path_is_another_one(log, length):
    log.open()
    log.log("one")
    items = log.items("two", "three")
    log.lost_checkpoint(items)
    log.close()
    old, whole = log.path, length == log.path.stat().st_size
    with old.open("r+b") as file:
        file.truncate(length)
    log.path = log.folder / "new/app.log"
    log.config = filewriter.config(log.path)
    log.again()
    log.write([*items, *log.items("four")])
    assert old.read_text() == ("one\ntwo\nthree\n" if whole else "one\n")
    assert log.text() == ("four\n" if whole else "two\nthree\nfour\n")


def test_a_file_that_was_copied_and_cut_goes_on_from_its_beginning(log):
    log.open()
    log.log("one", "two")
    shutil.copy(log.path, log.folder / "copy")
    os.truncate(log.path, 0)
    log.log("three")
    items = log.items("four")
    log.lost_checkpoint(items)
    log.again()
    log.write(items)
    assert log.path.read_bytes() == b"three\nfour\n"
    assert "was cut to 0 bytes" in log.reports[0]


@pytest.mark.parametrize("copytruncate", [False, True])
def test_indexes_of_files_that_somebody_else_has_rotated_go_with_them(log, copytruncate):
    log.open()
    kept = []
    for number in range(40):
        log.log(f"line {number}")
        kept.append(log.folder / f"app.log-{number:02d}")
        if copytruncate:
            shutil.copy(log.path, kept[-1])
            os.truncate(log.path, 0)
        else:
            os.rename(log.path, kept[-1])
        if number >= 20:
            kept.pop(0).unlink()
    log.log("last")
    found = index.index_files(str(log.state / "index"))
    assert 20 < len(found) <= 21 + 10  # those of the files that are there, and some to spare
    lines = sum(
        span.lines for path in found[-21:] for chunk in index.read(path).chunks for span in chunk.spans
    )
    assert lines == 21


def test_a_file_that_was_cut_while_the_writer_was_away_is_gone_on_with(log):
    log.open()
    log.log("one", "two")
    os.truncate(log.path, 2)
    log.again()
    log.log("three")
    assert log.text() == "on\nthree\n"
    assert "was cut to 2 bytes, 8 were written" in log.reports[0]


def test_a_file_that_was_removed_is_made_again(log):
    log.open()
    log.log("one")
    log.path.unlink()
    log.log("two")
    log.path.unlink()
    log.again()
    log.log("three")
    assert log.text() == "three\n"


def test_a_folder_that_was_removed_is_made_again_with_its_lock(tmp_path, scripts):
    log = Log(tmp_path / "logs")
    log.folder.mkdir()
    log.open()
    log.log("one")
    shutil.rmtree(log.folder)
    log.log("two")
    assert log.text() == "two\n"
    with pytest.raises(LockHeldError):
        FileDestination(log.config, print).recover(log.checkpoint)
    shutil.rmtree(log.folder)
    log.folder.mkdir()
    other = FileDestination(log.config, print)
    other.recover(log.checkpoint)  # somebody was quicker
    items = log.items("three")
    with pytest.raises(LockHeldError):
        log.write(items)
    other.close()
    log.write(items)
    assert log.text() == "three\n"
    log.destination.close()


def test_a_directory_in_the_place_of_the_file_is_waited_for(log):
    log.open()
    log.log("one")
    log.path.unlink()
    log.path.mkdir()
    items = log.items("two")
    for _ in range(3):
        with pytest.raises(IsADirectoryError):
            log.write(items)
    assert len(log.reports) == 1
    log.path.rmdir()
    log.write(items)
    assert log.text() == "two\n"


def test_what_is_no_regular_file_is_refused(log):
    os.mkfifo(log.path)
    with pytest.raises(OSError, match="a log file must be a regular file"):
        log.open()


def test_lines_of_others_stay_where_they_are(log):
    log.open()
    log.log("one")
    with log.path.open("a") as file:
        file.write("foreign\nhalf a foreign line")
    log.log("two")
    items = log.items("three", "four")
    log.lost_checkpoint(items[:1])
    with log.path.open("a") as file:
        file.write("foreign two\n")
    log.lost_checkpoint(items[1:])
    with log.path.open("a") as file:
        file.write("half again")
    log.again()
    log.write(items)
    log.log("five")
    assert log.text() == (
        "one\nforeign\nhalf a foreign line\ntwo\nthree\nforeign two\nfour\nhalf again\nfive\n"
    )


def test_a_torn_write_is_completed_wherever_it_was_torn(tmp_path):
    whole = "one\ntwo\n  traceback\n  end\nthree\n"
    for length in range(len(whole) + 1):
        folder = tmp_path / str(length)
        folder.mkdir()
        log = Log(folder)
        log.open()
        items = log.items("one", "two\n  traceback\n  end", "three")
        log.lost_checkpoint(items)
        os.truncate(log.path, length)
        log.again()
        log.write(items)
        assert log.text() == whole, length
        log.close()


@pytest.mark.parametrize("length", [0, 3, 4, 10, 12])
def test_after_a_torn_write_records_may_come_in_another_order(log, length):
    log.open()
    items = log.items("one", "two", "three")
    log.lost_checkpoint(items)
    os.truncate(log.path, length)
    log.again()
    log.again()
    log.write(numbered(["other"], producer="p2"))
    log.write(items)
    assert log.text() == "other\none\ntwo\nthree\n"


def test_a_new_record_is_not_taken_for_an_equal_line_of_a_torn_write(log):
    log.open()
    items = log.items("tick", "tock")
    log.lost_checkpoint(items)
    os.truncate(log.path, len("tick\nto"))
    log.again()
    log.write(numbered(["tick"], producer="p2"))
    log.write(items)
    assert log.text() == "tick\ntick\ntock\n"


def test_a_whole_write_counts_also_when_nothing_comes_again_in_that_form(log):
    log.open()
    log.lost_checkpoint(log.items("one", "two"))
    log.config = filewriter.config(log.path, formatter=FormatterConfig(format="changed: %(message)s"))
    log.again()
    log.write(numbered(["one", "two", "three"]))
    assert log.text() == "one\ntwo\nchanged: three\n"


def test_equal_lines_are_counted_not_only_found(log):
    log.open()
    items = log.items(*["tick"] * 5)
    log.lost_checkpoint(items[:3])
    log.again()
    log.write(items)
    assert log.text() == "tick\n" * 5


def test_another_file_with_the_inode_of_an_intent_keeps_its_bytes(log):
    log.path.write_text("somebody's\nfile with more lines\n")
    status = log.path.stat()
    checkpoint = Checkpoint(str(log.state / "checkpoint"))
    checkpoint.open()
    announced = chunk.describe(7, b"one\n", [chunk.Span("p1", 1, 1, 1)], [])
    checkpoint.intend(Intent(status.st_dev, status.st_ino, announced), b"one\n")
    checkpoint.close()
    log.open()
    log.log("one")
    log.log("two")
    log.again()
    log.log("three")
    assert log.text() == "somebody's\nfile with more lines\none\ntwo\nthree\n"


def test_an_older_checkpoint_that_was_restored_loses_and_doubles_nothing(log):
    log.open(max_bytes=60, backup_count=9)
    log.log("early")
    old = (log.state / "checkpoint").read_bytes()
    log.log(*(f"record {n}" for n in range(20)))
    pending = log.items("pending 1", "pending 2")
    log.lost_checkpoint(pending)
    log.close()
    (log.state / "checkpoint").write_bytes(old)
    log.again()
    log.write(pending)
    log.log("new")
    expected = ["early", *(f"record {n}" for n in range(20)), "pending 1", "pending 2", "new"]
    assert everything(log.config).decode().split("\n")[:-1] == expected


def test_without_a_checkpoint_writing_begins_behind_what_is_there(log):
    log.path.write_text("start\n")
    log.open()
    log.log("start")
    assert log.text() == "start\nstart\n"


def test_a_writer_that_has_lost_its_lease_takes_back_what_it_wrote(log):
    log.open(max_bytes=60, backup_count=9)
    log.log("one")
    log.lost_checkpoint(log.items("two"))
    log.recover(retract=True)
    log.checkpoint.highest["p1"] = log.sequence  # as the other host has published it
    assert log.text() == "one\n"
    log.log("three")
    with log.path.open("a") as file:
        file.write("foreign\n")
    log.lost_checkpoint(log.items("four"))
    with log.path.open("a") as file:
        file.write("foreign\n")
    log.recover(retract=True)
    log.checkpoint.highest["p1"] = log.sequence  # as the other host has published it
    assert log.text() == "one\nthree\nforeign\nfour\nforeign\n"
    log.log("five")
    log.lost_checkpoint(log.items("six" * 20, "seven"))  # in two new files
    assert len(log.names()) == 3
    log.recover(retract=True)
    log.checkpoint.highest["p1"] = log.sequence  # as the other host has published it
    assert everything(log.config) == b"one\nthree\nforeign\nfour\nforeign\nfive\n"
    assert all(path.stat().st_size for path in log.folder.glob("app.log.*"))


@pytest.mark.parametrize("again", [False, True])
def test_what_was_taken_back_is_written_when_it_comes_again(log, again):
    log.open(max_bytes=30, backup_count=9)
    log.log("one")
    items = log.items(*(f"record {n} xxxxxx" for n in range(7)))  # in several files
    log.lost_checkpoint(items)
    assert len(log.names()) > 3
    log.recover(retract=True)
    assert everything(log.config) == b"one\n"
    if again:
        log.again()
    log.write(items)
    assert everything(log.config) == b"one\n" + b"".join(b"record %d xxxxxx\n" % n for n in range(7))
    assert all(path.stat().st_size for path in log.folder.glob("app.log.*"))


# --- failures ----------------------------------------------------------------------------------------------


def full_after(monkeypatch: pytest.MonkeyPatch, path: Path, room: int) -> list[int]:
    """Let the disk take ``room`` bytes more for ``path``; return a list whose item is the room left."""
    real = os.write
    left = [room]

    def write(fd: int, data: Any) -> int:
        if os.readlink(f"/proc/self/fd/{fd}") != str(path):
            return real(fd, data)
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = real(fd, bytes(data)[: left[0]])
        left[0] -= count
        return count

    monkeypatch.setattr(os, "write", write)
    return left


def test_a_full_disk_leaves_whole_lines_rotates_nothing_and_goes_on(log, monkeypatch):
    log.open(max_bytes=60, backup_count=5)
    log.log("one")
    left = full_after(monkeypatch, log.path, 10)
    items = log.items("two is long enough", "three is long enough", "four is long enough too")
    for _ in range(5):
        with pytest.raises(OSError, match="No space left"):
            log.write(items)
        assert log.text() == "one\n"
    assert log.checkpoint.mark.offset == len("one\n")
    assert log.names() == ["app.log"]
    left[0] = 10**6
    log.write(items)
    assert (
        everything(log.config) == b"one\ntwo is long enough\nthree is long enough\nfour is long enough too\n"
    )


def test_a_disk_full_in_the_file_that_follows_a_rotation_doubles_nothing(log, monkeypatch):
    log.open(max_bytes=30, backup_count=5)
    items = log.items(*(f"record {n} xxxxxx" for n in range(4)))
    left = full_after(monkeypatch, log.path, 40)
    with pytest.raises(OSError, match="No space left"):
        log.write(items)
    left[0] = 10**6
    assert log.names() == ["app.log", "app.log.1", "app.log.2"]
    log.write(items)
    log.log("end")
    assert everything(log.config).count(b"record") == 4


@pytest.mark.root
@needs_root
def test_a_real_disk_that_is_full_is_waited_for(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        log = Log(disk)
        log.open(max_bytes=20_000, backup_count=99)
        (disk / "filler").write_bytes(b"x" * 150_000)
        texts = [f"{n:06d} " + "x" * 92 for n in range(2_000)]
        items = log.items(*texts)
        failures = 0
        for begin in range(0, len(items), 100):
            while True:
                try:
                    log.write(items[begin : begin + 100])
                    break
                except OSError:
                    failures += 1
                    assert all(path.read_bytes().endswith(b"\n") for path in disk.glob("app.log.*"))
                    assert log.path.read_bytes()[-1:] in (b"\n", b"")
                    (disk / "filler").unlink(missing_ok=True)
                    if failures > 1:
                        break
            if failures > 1:
                break
        assert failures
        lines = everything(log.config).decode().splitlines()
        assert lines == texts[: len(lines)]
        assert len(lines) >= begin
        assert all(path.stat().st_size for path in disk.glob("app.log.*"))
    finally:
        log.close()
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.EDQUOT])
def test_a_file_that_can_not_be_opened_or_written_is_waited_for(log, monkeypatch, code):
    log.open()
    log.log("one")
    items = log.items("two")
    for name in ("write", "open"):
        with monkeypatch.context() as patch:
            real = getattr(os, name)

            def failing(target: Any, *args: Any, real: Any = real) -> Any:
                if target == str(log.path) or target == log.destination._fd:
                    raise OSError(code, os.strerror(code))
                return real(target, *args)

            patch.setattr(os, name, failing)
            with pytest.raises(OSError, match=os.strerror(code).replace("(", r"\(")):
                log.write(items)
    log.write(items)
    assert log.text() == "one\ntwo\n"


def test_a_checkpoint_that_fails_after_a_rotation_doubles_nothing(log):
    log.open(max_bytes=40, backup_count=9)
    log.log("one")
    items = log.items(*(f"record {n} xxxxxx" for n in range(6)))
    log.lost_checkpoint(items)
    assert len(log.names()) > 2
    log.recover()
    log.write(items)
    assert everything(log.config) == b"one\n" + b"".join(b"record %d xxxxxx\n" % n for n in range(6))


def test_a_full_disk_of_the_state_directory_doubles_nothing(tmp_path, monkeypatch):
    items = numbered(f"record {n}" for n in range(200))
    settings = filewriter.config(tmp_path / "app.log", max_bytes=300, backup_count=99)
    real = Checkpoint.commit
    calls = [0]

    def commit(self: Checkpoint, *args: Any) -> None:
        calls[0] += 1
        if calls[0] % 3 == 0 and calls[0] < 60:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, *args)

    monkeypatch.setattr(Checkpoint, "commit", commit)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    run_writer(settings, entries(items, 10), tmp_path / "checkpoint")
    assert calls[0] > 60
    assert everything(settings) == b"".join(b"record %d\n" % n for n in range(200))


# --- forcing to the disk -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "in_use", "at_close"),
    [("never", 0, 0), ("rotation", 3, 1), ("interval", 3 + 1, 1), ("always", 7 + 3, 1)],
)
def test_the_file_is_forced_to_the_disk_as_the_policy_says(log, monkeypatch, policy, in_use, at_close):
    monkeypatch.setattr(file_module, "_FSYNC_INTERVAL", 1_000.0)
    log.open(fsync=policy, max_bytes=20, backup_count=9)
    calls = [0]
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        calls[0] += 1
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    for _ in range(7):
        log.log("12345678")
    wait = log.destination.service()
    if policy == "interval":
        assert 900 < wait <= 1_000
        later = time.monotonic() + 1_001
        monkeypatch.setattr(time, "monotonic", lambda: later)
    else:
        assert wait is None
    assert log.destination.service() is None
    assert log.destination.service() is None
    assert calls[0] == in_use
    log.destination.close()
    assert calls[0] == in_use + at_close


def test_what_could_not_be_forced_to_the_disk_is_written_again(log, monkeypatch):
    log.open(fsync="always")
    log.log("one")
    items = log.items("two")
    with monkeypatch.context() as patch:

        def fdatasync(fd: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        patch.setattr(os, "fdatasync", fdatasync)
        with pytest.raises(OSError, match="Input/output error"):
            log.write(items)
        assert log.text() == "one\n"
    log.write(items)
    assert log.text() == "one\ntwo\n"


# --- clocks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("naming", ["number", "timestamp"])
@pytest.mark.parametrize("when", ["S", "H", "midnight"])
def test_a_clock_that_jumps_overwrites_nothing_and_rotates_no_more_than_it_must(log, when, naming):
    log.open(when=when, naming=naming, backup_count=0)
    texts: list[str] = []
    for jump in [0, 10, DAY, 10, -DAY, 10, 10, -DAY, DAY, 10, DAY, -2 * DAY, 10]:
        log.now += jump
        for number in range(3):
            texts.append(f"{len(texts)} {jump} {number}")
            log.log(texts[-1])
    assert everything(log.config).decode().splitlines() == texts
    assert len(log.names()) <= 14
    log.now += 2 * DAY
    log.log("rotates again")
    assert log.text() == "rotates again\n"


@pytest.mark.parametrize("edge", ["2026-03-29T00:30:00", "2026-10-25T00:30:00"])
@pytest.mark.parametrize("when", ["H", "midnight"])
def test_both_clock_changes_are_gone_through(log, when, edge):
    try:
        ZoneInfo("Europe/Berlin")
    except ZoneInfoNotFoundError:
        pytest.skip("no time zone data")
    start = datetime.fromisoformat(edge).replace(tzinfo=timezone.utc).timestamp() - 1_800
    with system_zone("Europe/Berlin"):
        log.now = start
        log.open(when=when, naming="timestamp", backup_count=0, utc=False)
        for quarter in range(4 * 30):
            log.now = start + quarter * 900
            log.log(f"{quarter}")
        files = {name: (log.folder / name).read_text().split() for name in log.names()}
    assert sorted(int(text) for texts in files.values() for text in texts) == list(range(120))
    assert everything(log.config).split() == [b"%d" % quarter for quarter in range(120)]
    if when == "H":
        assert {len(texts) for texts in files.values()} == {4}
    else:
        assert len(files) == 2


@pytest.mark.parametrize("created", [float("nan"), float("inf"), -1e300, 0.0, 1e300])
def test_a_record_with_an_odd_time_is_a_line_like_any_other(log, created):
    log.open(when="midnight", max_bytes=20, naming="timestamp")
    log.write(log.items("odd 1 xxxxxxxx", "odd 2 xxxxxxxx", created=created))
    log.log("even xxxxxxxxxxx")
    assert everything(log.config) == b"odd 1 xxxxxxxx\nodd 2 xxxxxxxx\neven xxxxxxxxxxx\n"
    assert all("2026-11-22" in name for name in log.names()[1:])


# --- lines -------------------------------------------------------------------------------------------------


def test_losses_and_odd_characters_become_lines(log):
    log.open(multiline="escape")
    log.write([
        (Loss(3, 5, "the spool was full", START), facts(), 5),
        (a_record("a\nb\ud800"), facts(), 6),
    ])  # fmt: skip
    first, second = log.path.read_bytes().splitlines()
    assert b"3 records dropped, sequences 3 to 5 of producer p1" in first
    assert second == rb"a\nb\ud800"

"""Rotation, compression and retention on a real folder, also when they are killed at any step."""

from __future__ import annotations

import errno
import gzip
import itertools
import os
import re
import stat
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redislogkit import zstd
from redislogkit.config import FileWriterConfig
from redislogkit.errors import ConfigError
from redislogkit.writers import archive
from redislogkit.writers.archive import Archivist, Identity
from tests.helpers.filewriter import memory_folder

START = 1_795_370_400.0  # 2026-11-22T18:00:00 UTC


class KilledError(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class Logs:
    """A folder with one live file, its archivist, and what the archivist reported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.live = folder / "app.log"
        self.reports: list[str] = []
        self.count = 0
        self.archivist: Archivist
        self.now = START

    def start(self, **settings: Any) -> Archivist:
        settings = {"utc": True, "backup_count": 3, **settings}
        config = FileWriterConfig(path=str(self.live), **settings)
        self.archivist = Archivist(config, self.reports.append, clock=lambda: self.now, retry_after=0.0)
        self.archivist.open()
        return self.archivist

    def write(self, size: int = 400) -> None:
        """Append one more numbered block to the live file."""
        with self.live.open("a") as file:
            file.write(f"{self.count} ".ljust(size - 1, "x") + "\n")
        self.count += 1

    def rotate(self, start: float = START) -> str | None:
        self.write()
        return self.archivist.rotate(start)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def blocks(self, path: Path) -> list[int]:
        return [int(line.split()[0]) for line in read(path).splitlines()]

    def in_order(self) -> list[int]:
        """Return the numbers of all blocks, oldest file first, the live file last."""
        found = archive.list_archives(self.archivist._config)
        files = [Path(item.path) for item in found] + ([self.live] if self.live.exists() else [])
        return [number for path in files for number in self.blocks(path)]


def read(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    elif path.suffix == ".zst":
        data = zstd.module().decompress(data)
    return data.decode()


@pytest.fixture
def memory():
    with memory_folder() as folder:
        yield folder


@pytest.fixture
def logs(tmp_path):
    folder = Logs(tmp_path)
    yield folder
    if hasattr(folder, "archivist"):
        folder.archivist.close()


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


def fail(monkeypatch: pytest.MonkeyPatch, name: str, code: int, when: Callable[[str], bool]) -> None:
    """Make a function of ``os`` fail for the paths that ``when`` picks."""
    real = getattr(os, name)

    def failing(path: Any, *args: Any, **options: Any) -> Any:
        if when(os.fspath(path) if not isinstance(path, int) else ""):
            raise OSError(code, os.strerror(code), path)
        return real(path, *args, **options)

    monkeypatch.setattr(os, name, failing)


# --- rotation ----------------------------------------------------------------------------------------------


def test_numbers_shift_and_the_oldest_goes(logs):
    logs.start(backup_count=2)
    for _ in range(4):
        assert logs.rotate() == str(logs.live) + ".1"
    logs.write()
    assert logs.names() == ["app.log", "app.log.1", "app.log.2"]
    assert logs.in_order() == [2, 3, 4]
    assert logs.reports == []


def test_names_by_time_are_never_overwritten(logs):
    logs.start(naming="timestamp", when="midnight", backup_count=0)
    assert logs.rotate() == str(logs.live) + ".2026-11-22"
    logs.rotate()
    logs.rotate(START + 86_400)
    logs.rotate(START)  # the clock was set back
    assert logs.names() == [
        "app.log.2026-11-22", "app.log.2026-11-22.1", "app.log.2026-11-23", "app.log.2026-11-23.1",
    ]  # fmt: skip
    assert logs.in_order() == [0, 1, 2, 3]


@pytest.mark.parametrize("naming", ["number", "timestamp"])
def test_what_is_missing_empty_or_no_file_is_not_rotated(logs, naming):
    archivist = logs.start(naming=naming)
    assert archivist.rotate(START) is None
    logs.live.touch()
    assert archivist.rotate(START) is None
    logs.live.unlink()
    logs.live.mkdir()
    assert archivist.rotate(START) is None
    logs.live.rmdir()
    (logs.folder / "real").write_text("x")
    logs.live.symlink_to("real")
    assert archivist.rotate(START) is None
    assert logs.names() == ["app.log", "real"]
    assert logs.reports == []


def test_files_of_others_are_left_alone(logs):
    others = [
        "app.log.bak",
        "app.log.1.old",
        "app.log.2026-backup",
        "app.log.12345",
        "app.logs.1",
        "other.log.1",
    ]
    for name in others:
        (logs.folder / name).write_text(name)
    logs.start(backup_count=1, max_total_bytes=1, max_age=1.0, compress="gzip")
    for _ in range(3):
        logs.rotate()
        logs.archivist.release()
        logs.archivist.work()
    for name in others:
        assert (logs.folder / name).read_text() == name


def test_the_archive_keeps_mode_and_time(logs):
    logs.start(compress="gzip")
    logs.write()
    logs.live.chmod(0o640)
    os.utime(logs.live, ns=(1, 1_700_000_000_123_456_789))
    for umask in (0o077, 0o000):
        before = os.umask(umask)
        try:
            logs.archivist.rotate(START)
            logs.archivist.release()
            assert logs.archivist.work()
        finally:
            os.umask(before)
    info = (logs.folder / "app.log.1.gz").stat()
    assert stat.S_IMODE(info.st_mode) == 0o640
    assert info.st_mtime_ns == 1_700_000_000_123_456_789


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_archive_keeps_its_owner(logs, monkeypatch):
    logs.start(compress="gzip")
    logs.write()
    logs.live.chmod(0o660)
    os.chown(logs.live, 1234, 2345)
    logs.archivist.rotate(START)
    logs.archivist.release()
    assert logs.archivist.work()
    info = (logs.folder / "app.log.1.gz").stat()
    assert (info.st_uid, info.st_gid) == (1234, 2345)

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refuse)
    logs.write()
    logs.live.chmod(0o660)
    os.chown(logs.live, 1234, 2345)
    logs.archivist.rotate(START)
    logs.archivist.release()
    assert logs.archivist.work()
    mode = (logs.folder / "app.log.1.gz").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600  # what its group could read is not for another group


def test_a_rotation_that_fails_is_reported_once_and_done_later(logs, monkeypatch):
    logs.start()
    logs.rotate()
    with monkeypatch.context() as patch:
        fail(patch, "rename", errno.EACCES, lambda path: path.endswith("app.log"))
        for _ in range(3):
            assert logs.rotate() is None
    assert len(logs.reports) == 1
    assert re.search(r"app\.log can not be rotated and goes on growing: .*Permission denied", logs.reports[0])
    assert logs.names() == ["app.log", "app.log.2"]
    assert logs.rotate() == str(logs.live) + ".1"
    assert logs.in_order() == [0, 1, 2, 3, 4]


def test_a_failed_rotation_is_not_tried_for_every_record(logs, monkeypatch):
    config = FileWriterConfig(path=str(logs.live))
    archivist = Archivist(config, logs.reports.append)
    logs.write()
    tries: list[str] = []

    def refuse(source: str, _: str) -> None:
        tries.append(source)
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), source)

    monkeypatch.setattr(os, "rename", refuse)
    for _ in range(50):
        archivist.rotate(START)
    assert len(tries) < 10


def test_a_file_that_appears_under_the_target_name_is_not_overwritten(logs, monkeypatch):
    logs.start()
    names = archive.similar

    def late(path: str) -> set[str]:
        found = names(path)
        Path(path + ".1").write_text("a stranger's")
        return found

    logs.write()
    with monkeypatch.context() as patch:
        patch.setattr(archive, "similar", late)
        assert logs.archivist.rotate(START) is None
    assert (logs.folder / "app.log.1").read_text() == "a stranger's"
    assert "the name is taken" in logs.reports[0]
    assert logs.blocks(logs.live) == [0]


def test_a_folder_that_is_gone_hurts_nobody(logs, tmp_path):
    logs.live = tmp_path / "gone" / "app.log"
    archivist = logs.start(compress="gzip")
    assert archivist.rotate(START) is None
    archivist.submit()
    assert "can not be listed" in logs.reports[0]


def test_a_file_is_found_by_its_identity(logs):
    logs.start()
    logs.write()
    info = logs.live.stat()
    identity = Identity(info.st_dev, info.st_ino)
    path = str(logs.live)
    assert archive.locate(path, identity) == path
    logs.archivist.rotate(START)
    logs.rotate()
    assert archive.locate(path, identity) == path + ".2"
    os.rename(path + ".2", path + "-20261122")  # by an outside logrotate
    assert archive.locate(path, identity) == path + "-20261122"
    assert (
        archive.locate(path, identity._replace(device=0)) == path + "-20261122"
    )  # numbered anew by a reboot
    os.unlink(path + "-20261122")
    assert archive.locate(path, identity) is None


def test_what_is_newer_than_a_file_is_listed_behind_it(logs):
    logs.start(backup_count=5)
    logs.write()
    info = logs.live.stat()
    identity = Identity(info.st_dev, info.st_ino)
    path = str(logs.live)
    assert archive.behind(logs.archivist._config, identity) == [path]
    logs.archivist.rotate(START)
    assert archive.behind(logs.archivist._config, identity) == [path + ".1", path]
    logs.rotate()
    logs.write()
    assert archive.behind(logs.archivist._config, identity) == [path + ".2", path + ".1", path]
    os.rename(path + ".2", path + "-old")
    assert archive.behind(logs.archivist._config, identity) == [path + "-old", path]
    os.unlink(path + "-old")
    assert archive.behind(logs.archivist._config, identity) == []


# --- compression -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "suffix"), [("gzip", ".gz"), ("zstd", ".zst")])
def test_released_archives_are_compressed(logs, method, suffix):
    if method == "zstd" and not zstd.is_installed():
        pytest.skip("zstd is not installed")
    logs.start(compress=method, backup_count=5)
    for _ in range(3):
        logs.rotate()
    logs.write(1_000_000)
    logs.archivist.rotate(START)
    assert logs.archivist.work()
    assert logs.names() == ["app.log.1", "app.log.2", "app.log.3", "app.log.4"]  # none is released yet
    logs.archivist.submit()
    wait_for(lambda: logs.names() == [f"app.log.{n}{suffix}" for n in (1, 2, 3, 4)])
    assert logs.in_order() == [0, 1, 2, 3]
    logs.rotate()
    assert logs.names() == ["app.log.1", *(f"app.log.{n}{suffix}" for n in (2, 3, 4, 5))]
    assert logs.in_order() == [0, 1, 2, 3, 4]
    assert logs.reports == []


def test_an_archive_made_after_the_release_waits_for_the_next(logs):
    logs.start(compress="gzip")
    logs.rotate()
    logs.archivist.release()
    logs.rotate()
    assert logs.archivist.work()
    assert logs.names() == ["app.log.1", "app.log.2.gz"]


def test_a_reused_inode_is_not_taken_for_the_released_file(logs):
    logs.start(compress="gzip")
    logs.write()
    info = logs.live.stat()
    logs.archivist._released.add(Identity(info.st_dev, info.st_ino))
    logs.archivist.rotate(START)
    assert logs.archivist.work()
    assert logs.names() == ["app.log.1"]


def test_an_archive_that_moves_while_it_is_compressed_is_found_again(logs, monkeypatch):
    logs.start(compress="gzip", backup_count=3)
    logs.rotate()
    pack, inside, go_on = archive._pack, threading.Event(), threading.Event()

    def slow(*args: Any) -> None:
        pack(*args)
        inside.set()
        assert go_on.wait(10)

    monkeypatch.setattr(archive, "_pack", slow)
    logs.archivist.submit()
    assert inside.wait(10)
    logs.rotate()  # not held up by the compressor
    logs.rotate()
    go_on.set()
    wait_for(lambda: "app.log.3.gz" in logs.names() and "app.log.3" not in logs.names())
    assert logs.names() == ["app.log.1", "app.log.2", "app.log.3.gz"]
    assert logs.in_order() == [0, 1, 2]


def test_an_archive_that_is_removed_while_it_is_compressed_stays_removed(logs, monkeypatch):
    logs.start(compress="gzip", backup_count=1)
    logs.rotate()
    pack = archive._pack

    def meanwhile(*args: Any) -> None:
        pack(*args)
        logs.rotate()

    logs.archivist.release()
    monkeypatch.setattr(archive, "_pack", meanwhile)
    assert logs.archivist.work()
    assert logs.names() == ["app.log.1"]
    assert logs.in_order() == [1]


def test_an_archive_that_changes_while_it_is_compressed_is_kept(logs, monkeypatch):
    logs.start(compress="gzip")
    pack = archive._pack

    def meanwhile(*args: Any) -> None:
        pack(*args)
        with (logs.folder / "app.log.1").open("a") as file:
            file.write("9 late\n")

    logs.rotate()
    logs.archivist.release()
    with monkeypatch.context() as patch:
        patch.setattr(archive, "_pack", meanwhile)
        assert not logs.archivist.work()
    assert "changed while it was compressed" in logs.reports[-1]
    assert (logs.folder / "app.log.1").read_text().endswith("9 late\n")
    assert logs.archivist.work()
    assert read(logs.folder / "app.log.1.gz").endswith("9 late\n")


def test_a_full_disk_keeps_the_archive_and_compresses_it_later(logs, monkeypatch):
    logs.start(compress="gzip")
    logs.rotate()
    full = threading.Event()
    full.set()
    packer = archive._packer

    def refuse(*args: Any) -> Any:
        if full.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return packer(*args)

    monkeypatch.setattr(archive, "_packer", refuse)
    logs.archivist._retry_after = 0.01
    logs.archivist.submit()
    wait_for(lambda: bool(logs.reports))
    assert logs.names() == ["app.log.1"]
    assert "stays uncompressed for now" in logs.reports[0]
    full.clear()
    wait_for(lambda: logs.names() == ["app.log.1.gz"])
    assert len(logs.reports) == 1


def test_a_compressed_file_that_reads_back_wrong_is_thrown_away(logs, monkeypatch):
    logs.start(compress="gzip")
    logs.rotate()
    counter = itertools.count()
    monkeypatch.setattr(zlib, "crc32", lambda *_: next(counter))
    logs.archivist.release()
    assert not logs.archivist.work()
    assert logs.names() == ["app.log.1"]


def test_an_original_that_can_not_be_removed_is_not_there_twice(logs, monkeypatch):
    logs.start(compress="gzip")
    logs.rotate()
    logs.archivist.release()
    with monkeypatch.context() as patch:
        fail(patch, "unlink", errno.EPERM, lambda path: path.endswith("app.log.1"))
        assert not logs.archivist.work()
    assert logs.names() == ["app.log.1"]
    assert logs.archivist.work()
    assert logs.names() == ["app.log.1.gz"]


def refuse_to_sync(_: str) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_folder_that_can_not_be_synced_does_not_undo_a_rotation(logs, monkeypatch):
    logs.start()
    monkeypatch.setattr(archive, "sync_folder", refuse_to_sync)
    assert logs.rotate() == str(logs.live) + ".1"
    assert "could not be forced to the disk" in logs.reports[0]


def test_an_archive_is_not_there_twice_when_its_folder_can_not_be_synced(logs, monkeypatch):
    logs.start(compress="gzip")
    logs.rotate()
    logs.archivist.release()
    with monkeypatch.context() as patch:
        patch.setattr(archive, "sync_folder", refuse_to_sync)
        assert not logs.archivist.work()
    assert logs.names() == ["app.log.1"]
    assert logs.archivist.work()
    assert logs.names() == ["app.log.1.gz"]


def test_a_name_that_is_taken_costs_no_work_and_no_file(logs):
    logs.start(compress="gzip")
    logs.rotate()
    (logs.folder / "app.log.1.gz").write_bytes(gzip.compress(b"7 other\n"))
    logs.archivist.release()
    for _ in range(3):
        assert not logs.archivist.work()
    assert len(logs.reports) == 1
    assert "the name is taken" in logs.reports[0]
    assert logs.in_order() == [7, 0]
    logs.rotate()
    assert logs.in_order() == [7, 0, 1]


def test_closing_drops_half_finished_work(logs, monkeypatch):
    logs.start(compress="gzip")
    logs.rotate()
    monkeypatch.setattr(archive, "_CHUNK", 10)
    inside = threading.Event()
    chunks = archive._chunks

    def endless(stream: Any, stopped: Callable[[], bool]) -> Any:
        inside.set()
        wait_for(stopped)
        return chunks(stream, stopped)

    monkeypatch.setattr(archive, "_chunks", endless)
    logs.archivist.submit()
    assert inside.wait(10)
    logs.archivist.close()
    wait_for(lambda: logs.names() == ["app.log.1"])
    assert not [thread for thread in threading.enumerate() if thread.name == "redislogkit-archivist"]
    assert logs.reports == []


def test_without_work_there_is_no_thread(logs):
    logs.start()
    logs.rotate()
    logs.archivist.submit()
    assert logs.archivist._thread is None


def test_zstd_that_is_missing_is_a_clear_error(logs, monkeypatch):
    monkeypatch.setattr(zstd, "is_installed", lambda: False)
    with pytest.raises(ConfigError, match=r'compress must be .* got "zstd"; install it with: pip install'):
        logs.start(compress="zstd")


# --- retention ---------------------------------------------------------------------------------------------


def test_retention_goes_by_count_with_names_by_time(logs):
    logs.start(naming="timestamp", when="S", backup_count=2)
    for second in range(5):
        logs.rotate(START + second)
    logs.archivist.submit()
    wait_for(lambda: len(logs.names()) == 2)
    assert logs.in_order() == [3, 4]


def test_copies_of_one_time_expire_in_their_order(logs):
    """The name that retention has freed is not given to a newer archive."""
    logs.start(naming="timestamp", when="midnight", backup_count=2)
    for number in range(6):
        logs.rotate()
        logs.archivist.release()
        assert logs.archivist.work()
        assert logs.in_order() == list(range(max(0, number - 1), number + 1))


def test_retention_goes_by_age_and_size(logs):
    logs.start(max_age=1_000.0, max_total_bytes=900, backup_count=9)
    for age in (5_000, 500, 400, 300):
        logs.write()
        os.utime(logs.live, (START - age, START - age))
        logs.archivist.rotate(START)
    assert logs.archivist.work()
    assert logs.in_order() == [0, 1, 2, 3]  # nothing is released
    logs.archivist.submit()
    wait_for(lambda: len(logs.names()) == 2)
    assert logs.in_order() == [2, 3]
    logs.now += 1_000
    assert logs.archivist.work()
    assert logs.names() == []


def test_an_archive_that_can_not_be_deleted_is_reported(logs, monkeypatch):
    logs.start(max_total_bytes=1)
    logs.rotate()
    logs.archivist.release()
    with monkeypatch.context() as patch:
        fail(patch, "unlink", errno.EACCES, lambda _: True)
        assert not logs.archivist.work()
        assert not logs.archivist.work()
    assert len(logs.reports) == 1
    assert "can not be deleted" in logs.reports[0]
    assert logs.archivist.work()
    assert logs.names() == []


# --- leftovers ---------------------------------------------------------------------------------------------


def test_temporary_files_of_ours_are_removed_and_those_of_others_are_not(logs):
    ours = [".app.log.123.gz.tmp", ".app.log.5.zst.tmp"]
    others = [
        ".app.log.tmp",
        ".app.log.x.gz.tmp",
        "app.log.1.gz.tmp",
        ".app.log.2.1.gz.tmp",
        ".other.log.1.gz.tmp",
    ]
    for name in ours + others:
        (logs.folder / name).touch()
    logs.start()
    assert logs.names() == sorted(others)


def test_the_original_of_a_complete_twin_is_removed(logs):
    (logs.folder / "app.log.1").write_text("0 x\n")
    (logs.folder / "app.log.1.gz").write_bytes(gzip.compress(b"0 x\n"))
    logs.start()
    assert logs.names() == ["app.log.1.gz"]


@pytest.mark.parametrize(
    "packed",
    [gzip.compress(b"0 y\n"), gzip.compress(b"0 x\n")[:-5], gzip.compress(b"0 x\n")[:-1], b"", b"0 x\n"],
    ids=[
        "another content",
        "cut off",
        "one byte short",
        "empty",
        "not compressed",
    ],  # the bytes hold the time
)
def test_an_original_without_a_complete_twin_is_kept(logs, packed):
    (logs.folder / "app.log.1").write_text("0 x\n")
    (logs.folder / "app.log.1.gz").write_bytes(packed)
    logs.start()
    assert logs.names() == ["app.log.1", "app.log.1.gz"]
    assert "both are kept" in logs.reports[0]


# --- killed at every step ----------------------------------------------------------------------------------

STEPS = ["rename", "unlink", "fsync", "open", "utime", "fchmod", "close", "listdir"]


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Raise `KilledError` instead of the ``number``-th call of the functions in `STEPS`; returns a counter."""
    counter = [0]

    def patched(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            counter[0] += 1
            if counter[0] == number:
                raise KilledError
            return real(*args, **options)

        return step

    for name in STEPS:
        monkeypatch.setattr(os, name, patched(getattr(os, name)))
    return counter


def scenario(logs: Logs, **settings: Any) -> None:
    """Three rotations with compression between them, in this thread."""
    archivist = logs.start(**settings)
    for second in range(3):
        if not logs.live.exists():
            logs.write()
        archivist.rotate(START + second)
        archivist.release()
        archivist.work()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "settings",
    [
        {"backup_count": 9, "compress": "gzip"},
        {"backup_count": 2, "compress": "gzip"},
        {"backup_count": 0, "compress": "gzip", "naming": "timestamp", "when": "midnight"},
        {"backup_count": 2, "compress": "gzip", "naming": "timestamp", "when": "S"},
        {"backup_count": 2},
    ],
    ids=lambda value: "-".join(str(part) for part in value.values()),
)
def test_a_kill_at_any_step_leaves_every_block_in_exactly_one_place(memory, monkeypatch, settings):
    number = 0
    while True:
        number += 1
        folder = memory / str(number)
        folder.mkdir()
        logs = Logs(folder)
        with monkeypatch.context() as patch:
            counter = kill_at(patch, number)
            try:
                scenario(logs, **settings)
            except KilledError:
                killed = True
            else:
                killed = counter[0] >= number
        if not killed:
            break
        logs.start(**settings)
        kept = logs.in_order()
        assert kept == list(range(logs.count - len(kept), logs.count)), number
        scenario(logs, **settings)
        kept = logs.in_order()
        assert kept == list(range(logs.count - len(kept), logs.count)), number
        bound = settings["backup_count"]
        assert len(kept) == (min(bound, logs.count) if bound else logs.count), number
        assert not [name for name in logs.names() if name.startswith(".")]
        if "compress" in settings:
            assert all(name.endswith(".gz") for name in logs.names())
    assert number > 10


def test_rotations_and_compression_at_once_lose_nothing(logs):
    logs.start(compress="gzip", backup_count=60, fsync="never")
    for _ in range(50):
        assert logs.rotate()
        logs.archivist.submit()
    wait_for(lambda: all(name.endswith(".gz") for name in logs.names()))
    assert logs.in_order() == list(range(50))
    assert logs.reports == []


def test_checksums_are_those_of_the_stream(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc" * 100_000)
    with path.open("rb") as file:
        assert archive._sum(file, lambda: False) == (300_000, zlib.crc32(b"abc" * 100_000))

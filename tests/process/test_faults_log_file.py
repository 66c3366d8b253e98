"""The log file and its disk, broken under a running writer: exactly once, others' bytes untouched, goes on by itself."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stress.checker import rotated_files
from tests.helpers import flowing
from tests.helpers.flowing import Flow
from tests.helpers.waiting import wait_until

ROTATED: dict[str, Any] = {"max_bytes": "4 KiB", "backup_count": 10_000}
WRITERS: dict[str, dict[str, Any]] = {
    "renamed": {},
    "recreated": {},
    "deleted": {},
    "cut": {},
    "folder": {},
    "removed": {},
    "joined": {},
    "torn": {},
    "full": ROTATED,
    "closed": ROTATED,
    "slow": {"fsync": "always"},
    "failing": {"fsync": "always"},
}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    with flowing.flowing(tmp_path_factory.mktemp("flow"), WRITERS) as running:
        yield running


def begun(flow: Flow, writer: str) -> Path:
    """Wait for the writer's first records; return its file."""
    flow.wait_flowing(writer)
    return flow.path(writer)


def grown(path: Path, size: int) -> bool:
    return path.stat().st_size > size


@contextlib.contextmanager
def held(path: Path, copy: Path) -> Iterator[None]:
    """What is in ``path``, and is written to it meanwhile, is in ``copy`` at the end, though the file may be gone."""
    with open(path, "rb") as file:
        yield
        copy.write_bytes(file.read())


def test_a_file_that_is_renamed_is_left_and_a_new_one_begun(flow: Flow) -> None:
    path = begun(flow, "renamed")
    older = [path.with_name("older"), path.with_name("old")]
    path.rename(older[0])
    flow.wait_flowing("renamed")
    path.rename(older[1])
    flow.wait_flowing("renamed")
    flow.check("renamed", *older)
    # Reports come by way of the supervisor, a moment after the records.
    wait_until(
        lambda: sum("was moved or removed" in line for line in flow.said("renamed")) >= 2,
        what="both are told",
    )
    assert sum("was moved or removed" in line for line in flow.said("renamed")) == 2


def test_a_file_that_an_outside_rotation_made_is_written_to_as_it_is(flow: Flow) -> None:
    path = begun(flow, "recreated")
    old = path.with_name("old")
    with flow.stopped("recreated"):
        path.rename(old)
        path.touch()
        path.chmod(0o604)
    flow.wait_flowing("recreated")
    flow.check("recreated", old)
    assert path.stat().st_mode & 0o777 == 0o604


def test_a_file_that_is_deleted_is_made_again_and_takes_only_what_was_in_it(
    flow: Flow, tmp_path: Path
) -> None:
    path = begun(flow, "deleted")
    with held(path, tmp_path / "gone"):
        path.unlink()
        flow.wait_flowing("deleted")
    flow.check("deleted", tmp_path / "gone")


def test_a_file_that_is_copied_and_cut_goes_on_from_its_beginning(flow: Flow) -> None:
    path = begun(flow, "cut")
    old = path.with_name("old")
    with flow.stopped("cut"):
        shutil.copy(path, old)
        os.truncate(path, 0)
    flow.wait_flowing("cut")
    assert b"\0" not in path.read_bytes()
    flow.check("cut", old)


def test_a_directory_in_the_place_of_the_file_is_waited_for(flow: Flow) -> None:
    path = begun(flow, "folder")
    old = path.with_name("old")
    with flow.stopped("folder"):
        path.rename(old)
        path.mkdir()
        (path / "stranger").touch()
    flow.wait_said("folder", "Is a directory")
    assert os.listdir(path) == ["stranger"]
    shutil.rmtree(path)
    flow.wait_flowing("folder")
    flow.check("folder", old)
    assert len([line for line in flow.said("folder") if "Is a directory" in line]) == 1


def test_a_folder_that_is_removed_is_made_again(flow: Flow, tmp_path: Path) -> None:
    path = begun(flow, "removed")
    with held(path, tmp_path / "gone"):
        with flow.stopped("removed"):
            shutil.rmtree(path.parent)
        flow.wait_flowing("removed")
    flow.check("removed", tmp_path / "gone")


def test_lines_that_others_append_stay_and_tear_nothing(flow: Flow) -> None:
    path = begun(flow, "joined")
    with open(path, "ab", buffering=0) as file:
        for number in range(200):
            file.write(b"stranger %d\n" % number)
            if number % 40 == 0:
                flow.wait_flowing("joined", more=1)
    flow.wait_flowing("joined")
    flow.check("joined")
    assert re.findall(rb"^stranger (\d+)$", path.read_bytes(), re.MULTILINE) == [
        b"%d" % n for n in range(200)
    ]


def test_a_line_that_somebody_else_has_not_ended_is_ended_before_ours(flow: Flow) -> None:
    path = begun(flow, "torn")
    with flow.stopped("torn") as pid:
        with open(path, "ab") as file:
            file.write(b"unended")
        os.kill(pid, signal.SIGKILL)
    flow.wait_flowing("torn")
    flow.check("torn")
    assert b"\nunended\n" in path.read_bytes()


@pytest.mark.root
@needs_root
def test_a_full_disk_is_waited_for_and_rotates_nothing_away(flow: Flow) -> None:
    path = begun(flow, "full")
    kept = path.parent.with_name("full-before")
    with contextlib.ExitStack() as disk:
        with flow.stopped("full"):
            path.parent.rename(kept)
            disk.enter_context(flowing.small_disk(path.parent, "256k"))
        before = [Path(name) for name in rotated_files(kept / "app.log")]
        wait_until(lambda: len(flow.files("full")) > 2, what="rotations on the small disk")
        flowing.fill(path.parent / "filler")
        flow.wait_said("full", "No space left on device")
        with flow.stopped("full"):
            assert all(file.stat().st_size for file in flow.files("full") if file != path)
            assert all(file.read_bytes()[-1:] in (b"", b"\n") for file in flow.files("full"))
        (path.parent / "filler").unlink()
        flowing.mount("-o", "remount,size=64m", str(path.parent))
        flow.wait_flowing("full")
        flow.check("full", *before)


@pytest.mark.root
@needs_root
def test_a_disk_that_goes_away_and_comes_back_read_only_is_waited_for(flow: Flow, tmp_path: Path) -> None:
    path = begun(flow, "closed")
    real = flow.folder / "closed-disk"
    with flow.stopped("closed"):
        path.parent.rename(real)
        path.parent.mkdir()
        flowing.mount("--bind", str(real), str(path.parent))
    try:
        flow.wait_flowing("closed")
        with flow.stopped("closed") as pid:
            os.kill(pid, signal.SIGKILL)
            subprocess.run(["umount", "-l", str(path.parent)], check=True)
            flowing.mount("--bind", str(real), str(path.parent))
            flowing.mount("-o", "remount,bind,ro", str(path.parent))
        flow.wait_said("closed", "Read-only file system")
        flowing.mount("-o", "remount,bind,rw", str(path.parent))
        flow.wait_flowing("closed")
        flow.check("closed")
    finally:
        subprocess.run(["umount", "-l", str(path.parent)], check=False)


@needs_strace
def test_a_slow_disk_holds_up_its_own_file_only(flow: Flow) -> None:
    path = begun(flow, "slow")
    pid = flow.supervision.child("w-slow")
    with flowing.traced(pid, "fdatasync:delay_enter=400000", path=path):
        began = time.monotonic()
        for _ in range(3):
            wait_until(partial(grown, path, path.stat().st_size), what="the slow file grows")
        assert time.monotonic() - began > 0.4
        flow.wait_flowing("joined")
    flow.wait_flowing("slow")
    flow.check("slow")
    assert flow.supervision.child("w-slow") == pid


@needs_strace
@pytest.mark.usefixtures("uncovered")
def test_what_a_disk_did_not_take_is_written_again(flow: Flow) -> None:
    path = begun(flow, "failing")
    pid = flow.supervision.child("w-failing")
    with flowing.traced(pid, "fdatasync:error=EIO:when=2..4", "write:error=EIO:when=3..5", path=path):
        flow.wait_said("failing", "Input/output error")
        flow.wait_flowing("failing", more=5)
    flow.wait_flowing("failing")
    flow.check("failing")

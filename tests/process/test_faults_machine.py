"""The machine runs out of something, or does something odd: the application lives, and all goes on by itself."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from redislogkit import config as configuration
from redislogkit import identity, launch
from redislogkit.errors import SpoolError
from stress import checker
from tests.helpers import flowing
from tests.helpers.flowing import Flow
from tests.helpers.processes import is_running
from tests.helpers.scripts import Finished, Scripts
from tests.helpers.settings import CONFIGURED, arrived, messages, read, settings
from tests.helpers.supervision import PRODUCER, Supervision
from tests.helpers.waiting import wait_until

Run = Callable[..., Finished]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")


@pytest.fixture
def tree(state_dir: str, stream_name: str, server_url: str) -> dict[str, Any]:
    return settings(state_dir, stream_name, server_url)


# --- the disk of the state directory -----------------------------------------------------------------------


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("what", ["room", "inodes"])
def test_a_disk_that_is_full_at_the_start_costs_records_but_neither_application_nor_supervisor(
    what: str, run_python: Run, tree: dict[str, Any], tmp_path: Path
) -> None:
    disk = Path(tree["state_dir"], "disk")
    tree["state_dir"] = str(disk)
    tree["writers"]["app"]["path"] = str(tmp_path / "app.log")
    with flowing.small_disk(disk, "8m,nr_inodes=50"):
        launch.prepare(configuration.load(tree))
        if what == "room":
            flowing.fill(disk / "filler")
        else:
            _take_inodes(disk)
        done = run_python(
            CONFIGURED
            + """
from redislogkit import launch
for n in range(100): log.info("early %d", n)
early = handle.stats()["lost"]["spool_error"]
print(early, len(os.listdir("/proc/self/fd")), flush=True)
for name in os.listdir(handle.config.state_dir):
    if name.startswith("filler"): os.unlink(os.path.join(handle.config.state_dir, name))
end = handle.handler._end
end._next_open = 0.0
log.info("late")
assert launch.ensure_supervisor(handle.config)
print(handle.stats()["lost"]["spool_error"] - early, handle.flush(15))
""",
            json.dumps(tree),
        )
        first, second = done.out.splitlines()
        assert first.startswith("100 ")
        assert second == "0 True"
        (named,) = [text for text in messages(str(tmp_path / "app.log")) if text != "late"]
        assert "100 records dropped" in named
        assert "spool_error" in named
        assert read(str(tmp_path / "app.log"))[-1]["message"] == "late"


def _take_inodes(disk: Path) -> None:
    with suppress(OSError):
        for number in range(1000):
            (disk / f"filler{number}").touch()
    assert os.statvfs(disk).f_ffree == 0


@pytest.mark.root
@needs_root
def test_a_disk_of_the_state_directory_that_fills_up_in_the_middle_is_gone_on_with(
    scripts: Scripts, state_dir: str, tmp_path: Path
) -> None:
    disk = Path(state_dir, "disk")
    with flowing.small_disk(disk, "16m"):
        supervision = Supervision(str(disk), producer={"spool_max_bytes": "1 MiB", "shutdown_timeout": 10})
        supervision.path = str(tmp_path / "app.log")
        supervision.sections["formatters"] = {"bare": {"format": "%(message)s"}}
        supervision.sections["writers"]["app"] |= {"path": supervision.path, "formatter": "bare"}
        programs = {w: scripts.start(PRODUCER, supervision.argument, w, 0, 0.0002) for w in ("w0", "w1")}
        wait_until(lambda: _size(supervision.path) > 5_000, what="records flow")
        flowing.fill(disk / "filler")
        size = [0]

        def stands_still() -> bool:
            before, size[0] = size[0], _size(supervision.path)
            flowing.pause(0.3)
            return before == size[0]

        wait_until(stands_still, what="nothing is written any more")
        (disk / "filler").unlink()
        wait_until(lambda: _size(supervision.path) > size[0] + 5_000, what="it goes on")
        counts = {worker: int(program.communicate(timeout=30)[0]) for worker, program in programs.items()}
        wait_until(lambda: not supervision.spools(), what="the spools are empty")
        report = supervision.check(counts)
        told = re.findall(r"(\d+) records? dropped", Path(supervision.path).read_text())
        assert report.lost == sum(map(int, told))
        assert (report.doubled, report.torn, report.disordered, report.unexpected) == (0, 0, 0, 0), str(
            report
        )


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


@pytest.mark.root
@needs_root
def test_a_state_directory_that_is_read_only_is_a_clear_error(state_dir: str) -> None:
    disk = Path(state_dir, "disk")
    tree = {"state_dir": str(disk), "writers": {"app": {"type": "tty"}}}
    with flowing.small_disk(disk, "1m"):
        launch.prepare(configuration.load(tree))
        flowing.mount("-o", "remount,ro", str(disk))
        with pytest.raises(OSError, match="no permission to write to"):
            launch.prepare(configuration.load(tree))
        with pytest.raises(SpoolError, match="state_dir must be a folder that this process can use"):
            launch.check(configuration.load(tree))


def test_a_state_directory_below_a_file_is_a_clear_error(run_python: Run, tree: dict[str, Any]) -> None:
    blocked = Path(tree["state_dir"], "file")
    blocked.touch()
    tree["state_dir"] = str(blocked / "state")
    done = run_python(CONFIGURED, json.dumps(tree), check=False)
    assert done.code == 1
    last = done.err.strip().splitlines()[-1]
    assert f"state_dir must be a folder that this process can write to, got {blocked}/state" in last


def test_a_supervisor_that_can_not_be_started_leaves_no_descriptor_and_no_lock(
    state_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configuration.load({"state_dir": state_dir, "writers": {"app": {"type": "tty"}}})
    launch.prepare(config)
    before = os.listdir("/proc/self/fd")
    for name in ("posix_spawn", "write", "unlink"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, _fails)
            with pytest.raises(OSError, match="No space left"):
                launch.ensure_supervisor(config)
    assert os.listdir("/proc/self/fd") == before
    assert not launch._is_starting(config)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_spawn", lambda *args, **options: os.getpid())
        patch.setattr(os, "waitpid", lambda *args: None)
        assert launch.ensure_supervisor(config)  # nothing keeps the next attempt from it


def _fails(*args: object, **options: object) -> None:
    raise OSError(28, "No space left on device")


# --- descriptors, memory -----------------------------------------------------------------------------------


def test_an_application_without_descriptors_lives_and_goes_on_when_there_are_some(
    run_python: Run, tree: dict[str, Any]
) -> None:
    done = run_python(
        """
import json, logging, os, resource, sys
import redislogkit
log = logging.getLogger("app")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
def take():
    try:
        while True: held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError: pass
take()
handle = redislogkit.configure(json.loads(sys.argv[1]))
for n in range(10): log.info("early %d", n)
early = handle.stats()["lost"]["spool_error"]
while held: os.close(held.pop())
handle.handler._end._next_open = 0.0
handle.handler._next_start = 0.0
log.info("between")
take()
for n in range(100): log.info("within %d", n)
while held: os.close(held.pop())
print(early, handle.stats()["lost"]["spool_error"], handle.flush(15))
""",
        json.dumps(tree),
    )
    assert (done.out, done.err) == ("10 10 True\n", "")
    assert messages(tree["writers"]["app"]["path"])[1:] == ["between", *(f"within {n}" for n in range(100))]


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    sections = {"app": {"max_bytes": "4 KiB", "backup_count": 10_000, "compress": "gzip"}}
    with flowing.flowing(tmp_path_factory.mktemp("flow"), sections) as running:
        running.wait_flowing("app")
        yield running


@contextmanager
def no_descriptors(pid: int, said: Callable[[], object]) -> Iterator[None]:
    """No number is free for another one until ``said`` is true, and in the block."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)

    def limited() -> object:
        # Again and again: just now a thread may have had more of them open than usual.
        taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        lowest = next(number for number in range(1024) if number not in taken)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest, before[1]))
        return said()

    try:
        wait_until(limited, what="the process says that it has no descriptors")
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_a_writer_without_descriptors_goes_on_when_there_are_some(flow: Flow) -> None:
    pid = flow.supervision.child("w-app")
    with no_descriptors(pid, lambda: any("Too many open files" in line for line in flow.said("app"))):
        pass
    flow.wait_flowing("app")
    flow.check("app")
    assert flow.supervision.child("w-app") == pid


def test_a_shipper_without_descriptors_reads_new_spools_when_there_are_some(
    flow: Flow, scripts: Scripts
) -> None:
    pid = flow.supervision.child("shipper")
    source = CONFIGURED + "for n in range(50): log.warning('late %d', n)"
    refused = re.compile("shipper: spools? .* for now: .*Too many open files")
    with no_descriptors(pid, lambda: True):
        late = scripts.start(source, flow.supervision.argument)
        with no_descriptors(pid, lambda: refused.search(flow.log())):
            assert late.poll() is None  # its exit waits for its records
    assert late.communicate(timeout=20) == ("", "")
    wait_until(lambda: _numbers(flow, rb"late (\d+)$") == list(range(50)), what="the late records")
    assert flow.supervision.child("shipper") == pid


def _numbers(flow: Flow, pattern: bytes) -> list[int]:
    """What the group of ``pattern`` is in the lines that it fits, in their order."""
    found: list[int] = []
    with flow.stopped("app"):
        for path in flow.files("app"):
            with checker.open_log(str(path)) as lines:
                found += [int(n) for line in lines for n in re.findall(pattern, line.rstrip(b"\n"))]
    return found


def test_a_supervisor_without_descriptors_starts_a_killed_child_when_there_are_some(flow: Flow) -> None:
    supervisor = flow.supervision.pid
    writer = flow.supervision.child("w-app")
    refusal = "can not be started ([Errno 24] Too many open files), starting it again"
    with no_descriptors(supervisor, lambda: True):
        os.kill(writer, signal.SIGKILL)
        with no_descriptors(supervisor, lambda: any(refusal in line for line in flow.said("app"))):
            pass
    flow.wait_flowing("app")
    flow.check("app")
    assert flow.supervision.pid == supervisor


def test_a_writer_without_memory_is_started_again_and_loses_nothing(flow: Flow, scripts: Scripts) -> None:
    writer = flow.supervision.child("w-app")
    pages = int(Path(f"/proc/{writer}/statm").read_text().split()[0])
    resource.prlimit(writer, resource.RLIMIT_AS, (pages * resource.getpagesize(), -1))
    large = scripts.run(
        CONFIGURED + "for n in range(3): log.warning('large %d %s', n, 'x' * 5_000_000)",
        flow.supervision.argument,
    )
    assert large.err == ""
    flow.supervision.child("w-app", other_than=writer)
    flow.wait_flowing("app")
    wait_until(lambda: _numbers(flow, rb"large (\d) x{5000000}$") == [0, 1, 2], what="the large records")
    flow.check("app")
    assert "passed over" not in flow.log()


def test_a_producer_that_is_killed_for_its_memory_or_by_a_segfault_loses_nothing(
    run_python: Run, tree: dict[str, Any]
) -> None:
    for number, end in enumerate(
        ["import ctypes; ctypes.string_at(0)", "os.abort()", "os.kill(os.getpid(), 9)"]
    ):
        source = f"for n in range(300): log.info('%d %d', {number}, n)\n{end}"
        done = run_python(CONFIGURED + source, json.dumps(tree), check=False)
        assert done.code in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGKILL)
    path = tree["writers"]["app"]["path"]
    arrived(path, *(f"{number} 299" for number in range(3)))
    assert sorted(messages(path)) == sorted(f"{number} {n}" for number in range(3) for n in range(300))


# --- pids --------------------------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.skipif(not os.access("/proc/sys/kernel/ns_last_pid", os.W_OK), reason="pids can not be chosen")
def test_a_process_that_gets_the_pid_of_a_dead_producer_is_another_one(
    scripts: Scripts, tree: dict[str, Any]
) -> None:
    tree["supervisor"] = {"autostart": False}
    tree["producer"]["shutdown_timeout"] = 0
    source = CONFIGURED + "for n in range(20): log.info('%s %d', sys.argv[2], n)\nos.kill(os.getpid(), 9)"
    first = scripts.start(source, json.dumps(tree), "first")
    first.communicate()
    for name in ("second", "third"):
        for _ in range(50):  # others fork, too
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(first.pid - 1))
            again = scripts.start(source, json.dumps(tree), name)
            if again.pid == first.pid:
                break
            again.kill()
            again.communicate()
        else:
            pytest.skip("the pid was not to be had")
        again.communicate()
    del tree["supervisor"]
    scripts.run(CONFIGURED, json.dumps(tree))
    path = tree["writers"]["app"]["path"]
    arrived(path, *(f"{name} 19" for name in ("first", "second", "third")))
    counts = {
        name: [m for m in messages(path) if m.startswith(name)] for name in ("first", "second", "third")
    }
    assert counts["first"] == [f"first {n}" for n in range(20)]
    assert counts["third"] == [f"third {n}" for n in range(20)]
    assert len(messages(path)) == len(set(messages(path)))


@pytest.mark.root
@pytest.mark.skipif(not os.access("/proc/sys/kernel/ns_last_pid", os.W_OK), reason="pids can not be chosen")
def test_a_stranger_with_the_pid_of_a_dead_supervisor_is_left_alone(state_dir: str) -> None:
    config = configuration.load({"state_dir": state_dir, "writers": {"app": {"type": "tty"}}})
    launch.prepare(config)
    dead = subprocess.Popen(["sleep", "100"])
    owner = {**identity.owner(), "pid": dead.pid, "start": identity.process_start(dead.pid)}
    Path(launch.lock_path(config)).write_text(json.dumps(owner))
    dead.kill()
    dead.wait()
    for _ in range(50):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(dead.pid - 1))
        stranger = subprocess.Popen(["sleep", "100"])
        if stranger.pid == dead.pid and identity.process_start(stranger.pid) != owner["start"]:
            break  # a start is only known to the hundredth of a second
        stranger.kill()
        stranger.wait()
    try:
        if stranger.pid != dead.pid or stranger.poll() is not None:
            pytest.skip("the pid was not to be had")
        assert not launch._tell(config, signal.SIGTERM)
        assert is_running(stranger.pid)
    finally:
        stranger.kill()
        stranger.wait()

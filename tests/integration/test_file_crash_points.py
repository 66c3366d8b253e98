"""The file writer is killed at every call that changes something, and every record is in the files once."""

from __future__ import annotations

import gc
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from redislogkit.config import FileWriterConfig
from redislogkit.lines import Numbered
from redislogkit.writers.archive import Archivist
from tests.helpers import filewriter
from tests.helpers.filewriter import START, entries, everything, facts
from tests.helpers.scripts import ROOT

# Children are forked from a process that may have threads (the test's own time limit); they only write files.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.usefixtures("untraced"),
]

#: Everything by which writer, rotation, compression and checkpoint change the disk.
CALLS = ("write", "fdatasync", "fsync", "rename", "open", "ftruncate", "unlink", "fchmod")


def records() -> list[Numbered]:
    """Thirty records of three producers, mixed, some of several lines, two a second."""
    found: list[Numbered] = []
    for number in range(30):
        producer, sequence = f"p{number % 3}", number // 3 + 1
        text = f"{producer} {sequence} " + "x" * (number * 7 % 23)
        if number % 7 == 3:
            text += f"\n  traceback of {number}\n  ends"
        found.append((filewriter.a_record(text, START + number // 2), facts(producer), sequence))
    return found


RECORDS = records()
LINES = filewriter.lines(RECORDS)
STREAM = entries(RECORDS, 2)

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "size": {"max_bytes": 150, "backup_count": 60},
    "size-stamps-gzip": {"max_bytes": 150, "backup_count": 60, "naming": "timestamp", "compress": "gzip"},
    "size-gzip-always": {"max_bytes": 250, "backup_count": 60, "compress": "gzip", "fsync": "always"},
    "time": {"when": "S", "interval": 3, "backup_count": 60, "naming": "timestamp", "mode": 0o640},
    "time-numbers": {"when": "S", "interval": 4, "backup_count": 60, "compress": "gzip"},
    "both": {"when": "S", "interval": 6, "max_bytes": 200, "backup_count": 60, "naming": "timestamp"},
}


@pytest.fixture
def disk() -> Iterator[Path]:
    with filewriter.memory_folder() as folder:
        yield folder


class Plan:
    """Kills this process at the ``number``-th call of `CALLS`, before it or in the middle of a write."""

    def __init__(self, number: int, how: str) -> None:
        self.left = number
        self.how = how
        for name in CALLS:
            setattr(os, name, self._patched(name, getattr(os, name)))

    def _patched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                if name == "write" and self.how == "half":
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        return call


def in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked process; return the signal that ended it, 0 if none."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            gc.freeze()  # what came from the parent is neither looked through nor copied
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the child failed, see its traceback"
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def work_at_once(archivist: Archivist) -> None:
    archivist.release()
    archivist.work()


def write(folder: Path, settings: FileWriterConfig, stream: list[Any] = STREAM) -> list[str]:
    """Run a writer to its end, its archivist in the same thread, so that calls come in the same order."""
    # As in the time of the records; the files' own times are those of today, and not looked at.
    return filewriter.run_writer(settings, stream, folder / "checkpoint", clock=lambda: START + 60)


def killed(folder: Path, settings: FileWriterConfig, number: int, how: str) -> bool:
    def work() -> None:
        Archivist.submit = work_at_once  # type: ignore[method-assign, assignment]
        Plan(number, how)
        write(folder, settings)

    return in_child(work) != 0


def prepared(disk: Path, name: str, **settings: Any) -> tuple[Path, FileWriterConfig]:
    folder = disk / name
    folder.mkdir()
    return folder, filewriter.config(folder / "app.log", **settings)


#: Every so many calls; REDISLOGKIT_CRASH_POINTS=all takes each one. The plain and the most complex setting always do.
STEP = 1 if os.environ.get("REDISLOGKIT_CRASH_POINTS") == "all" else 4


@pytest.mark.parametrize(
    ("name", "how", "step"),
    [
        ("plain", "half", 1),
        ("both", "half", 1),
        ("plain", "before", STEP),
        ("both", "before", STEP),
        *((name, "half", STEP) for name in SETTINGS if name not in ("plain", "both")),
    ],
)
def test_a_kill_at_any_call_leaves_every_record_once_and_in_order(disk, monkeypatch, name, how, step):
    monkeypatch.setattr(Archivist, "submit", work_at_once)
    number = 1 - step
    while True:
        number += step
        folder, settings = prepared(disk, str(number), **SETTINGS[name])
        went_through = not killed(folder, settings, number, how)
        write(folder, settings)
        assert everything(settings) == LINES, f"killed at call {number}"
        assert not [entry for entry in os.listdir(folder) if entry.endswith(".tmp")]
        if "size" in name:
            bound = settings.max_bytes
            sizes = [len(filewriter.texts_of(path)) for path in folder.glob("app.log*")]
            assert all(size < bound for size in sizes), f"killed at call {number}: {sizes}"
        shutil.rmtree(folder)
        if went_through:
            break
    assert number > 10


def test_files_after_a_kill_are_those_of_a_run_without_one(disk):
    name = "size"
    folder, settings = prepared(disk, "whole", **SETTINGS[name])
    write(folder, settings)
    wanted = {path.name: path.read_bytes() for path in folder.glob("app.log*")}
    assert len(wanted) > 4
    for number in range(3, 90, 4):
        folder, settings = prepared(disk, str(number), **SETTINGS[name])
        killed(folder, settings, number, "half")
        write(folder, settings)
        assert {path.name: path.read_bytes() for path in folder.glob("app.log*")} == wanted, number


def test_kills_while_it_recovers_from_kills_change_nothing(disk):
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for turn in range(25):
        name = chance.choice(list(SETTINGS))
        folder, settings = prepared(disk, str(turn), **SETTINGS[name])
        plans = [(chance.randrange(5, 60), chance.choice(["before", "half"])) for _ in range(4)]
        for number, how in plans:
            killed(folder, settings, number, how)
        write(folder, settings)
        assert everything(settings) == LINES, f"seed {seed}: {name}, {plans}"


@pytest.mark.parametrize("how", ["before", "half"])
def test_records_that_come_again_in_another_order_are_not_doubled(disk, how):
    """After a loss in the stream the producers are mixed in another way; each one's own order stays."""
    by_producer = sorted(RECORDS, key=lambda item: item[1].producer)
    again = entries(by_producer, 4)
    for number in range(4, 60, 4):
        for name in ("plain", "size"):
            folder, settings = prepared(disk, f"{name}{number}", **SETTINGS[name])
            killed(folder, settings, number, how)
            killed(folder, settings, number // 2, how)
            write(folder, settings, again)
            found = everything(settings)
            assert sorted(found.splitlines()) == sorted(LINES.splitlines()), (name, number)
            heads = [line for line in found.splitlines() if line.startswith(b"p")]
            for producer in (b"p0", b"p1", b"p2"):
                own = [int(line.split()[1]) for line in heads if line.startswith(producer)]
                assert own == list(range(1, 11)), (name, number)


def test_a_kill_at_a_random_moment_changes_nothing(disk):
    items = filewriter.numbered(f"{number:05d} " + "y" * (number % 90) for number in range(3_000))
    stream = entries(items, 100)
    wanted = filewriter.lines(items)
    folder, settings = prepared(disk, "random", max_bytes=8_000, backup_count=99, compress="gzip")
    kills = 0
    for turn in range(60):
        pid = os.fork()
        if pid == 0:
            try:
                write(folder, settings, stream)
            finally:
                os._exit(0)
        time.sleep(0.004 + turn % 10 * 0.003)  # the moment does not matter, it only has to differ
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        kills += os.WIFSIGNALED(status)
        if kills >= 20:
            break
    write(folder, settings, stream)
    assert everything(settings) == wanted
    assert kills > 0


SCRIPT = """
import sys
from tests.integration.test_file_crash_points import prepared_script
prepared_script(sys.argv[1])
"""


def prepared_script(folder: str) -> None:
    """What the traced program runs."""
    write(Path(folder), filewriter.config(Path(folder, "app.log"), **SETTINGS["size"]))


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("when", [1, 4, 9])
def test_a_kill_by_the_kernel_in_a_write_changes_nothing(disk, when):
    folder, settings = prepared(disk, "traced", **SETTINGS["size"])
    command = ["strace", "-f", "-qq", "-o", os.devnull, "-P", settings.path, "-e", "trace=write"]
    command += ["-e", f"inject=write:signal=SIGKILL:when={when}", sys.executable, "-c", SCRIPT, str(folder)]
    traced = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False
    )
    if b"ptrace" in traced.stderr.lower():
        pytest.skip("tracing is not allowed here")
    assert traced.returncode != 0, "the writer was not killed"
    write(folder, settings)
    assert everything(settings) == LINES

"""``python -m stress.bench`` measures what it says, and leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stress.bench import apart, results, workloads
from stress.bench.contenders.entry import OWN, YARDSTICK
from tests.helpers import processes
from tests.helpers.scripts import ROOT
from tests.helpers.waiting import wait_until


def test_a_quick_race_is_clean_and_leaves_nothing(reaped, tmp_path):
    before = set(Path("/tmp").glob("rlk-bench-*"))
    stored, drawing = tmp_path / "results.json", tmp_path / "rates.svg"
    command = [sys.executable, "-m", "stress.bench", "--quick", "--json", str(stored), "--svg", str(drawing)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    found = results.decode(stored.read_bytes())
    assert [standing.name for standing in found.standings] == [YARDSTICK, OWN]
    for standing in found.standings:
        (run,) = standing.runs
        assert run.check.ok
        assert (run.records, run.check.records) == (600, 620)
        assert run.seconds >= run.calling > 0
        assert run.cpu > run.helpers_cpu
    assert found.standings[0].runs[0].helpers_cpu == 0
    assert found.standings[1].runs[0].helpers_cpu > 0
    assert "end to end, stock logger" in done.stdout
    assert drawing.read_text().startswith("<svg")
    wait_until(lambda: not processes.started(reaped), deadline=5, what="everything has ended")
    assert set(Path("/tmp").glob("rlk-bench-*")) <= before


def test_the_workloads_of_the_guard_do_what_they_count(reaped):
    for name in workloads.available():
        command = [sys.executable, "-m", "stress.bench.workloads", name, "500"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), name
    with workloads.memory_folder() as folder:
        workloads.write(folder, 500)
        assert len((Path(folder) / "app.log").read_bytes().splitlines()) == 500


def pid_of_a_sleeper(folder: str, seconds: int) -> int:
    """Leave a child behind that sleeps, and return its pid."""
    (Path(folder) / "a file").touch()
    return subprocess.Popen(["sleep", str(seconds)]).pid


def failure(folder: str, name: str) -> int:
    raise LookupError(f"{name} is not in {Path(folder).name[:9]}")


def endless(folder: str) -> int:
    (Path(folder) / "a file").touch()
    signal.pause()
    return 0


def test_what_a_measurement_leaves_behind_is_ended(reaped):
    pid = apart.call(pid_of_a_sleeper, 1000, timeout=60)
    assert pid > 1
    wait_until(lambda: not processes.started(reaped), deadline=5, what="everything has ended")


def test_a_measurement_that_fails_says_why():
    with pytest.raises(apart.FailedError, match=r"^LookupError: x is not in rlk-bench$"):
        apart.call(failure, "x", timeout=60)


def test_a_measurement_that_does_not_end_is_ended(reaped):
    with pytest.raises(apart.FailedError, match=r"not done within 0\.5 s"):
        apart.call(endless, timeout=0.5)
    wait_until(lambda: not processes.started(reaped), deadline=5, what="everything has ended")

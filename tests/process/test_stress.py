"""``python -m stress`` tells the truth in its one line and in its exit code, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stress.checker import rotated_files
from stress.load import Plan
from tests.helpers import processes
from tests.helpers.scripts import ROOT
from tests.helpers.waiting import wait_until

#: What they go through is covered elsewhere; without it they take two thirds of the time.
pytestmark = pytest.mark.usefixtures("uncovered")

FIGURES = [
    "producers", "records", "seconds", "records/s", "lost", "doubled", "torn", "disordered", "files", "seed"
]  # fmt: skip


def stress(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run it to its end, and see that it leaves no file and no process."""
    command = [sys.executable, "-m", "stress", "--deadline", "30", *map(str, arguments)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    out, err = process.communicate(timeout=60)
    assert not list(Path("/tmp").glob(f"rlk-stress-{process.pid}-*"))
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def assert_nothing_runs(mark: str) -> None:
    # What multiprocessing has started notices the end of its program by itself.
    wait_until(lambda: not processes.started(mark), deadline=2, what="everything has ended")


def figures(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    (line,) = done.stdout.splitlines()
    return dict(figure.split("=") for figure in line.split())


def test_a_short_run_on_an_embedded_server_is_clean_and_leaves_nothing(reaped):
    done = stress("--producers", 4, "--records", 500, "--max-bytes", "20 kB")
    assert done.returncode == 0, done.stderr
    found = figures(done)
    assert list(found) == FIGURES
    assert found["producers"] == "4"
    assert found["records"] == "2000"
    assert [found[name] for name in ("lost", "doubled", "torn", "disordered")] == ["0"] * 4
    assert int(found["files"]) > 5
    assert done.stderr == ""
    assert_nothing_runs(reaped)


@pytest.mark.parametrize(
    ("method", "layout"), [("fork", "batches"), ("spawn", "records"), ("forkserver", "batches")]
)
def test_killed_producers_lose_nothing(server_url, reaped, method, layout):
    done = stress(
        "--url", server_url, "--producers", 4, "--records", 900, "--kill", 0.5, "--threads", 3, "--seed", 7,
        "--start-method", method, "--layout", layout, "--max-bytes", "20 kB",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 2 * 900 <= int(figures(done)["records"]) <= 4 * 900
    assert figures(done)["seed"] == "7"
    assert_nothing_runs(reaped)


def test_findings_of_the_checker_are_the_exit_code(server_url, state_dir, stream_name, tmp_path):
    config = tmp_path / "log.toml"
    config.write_text(
        f'version = 1\nstate_dir = "{state_dir}"\nredis.url = "{server_url}"\nstream.name = "{stream_name}"\n'
        f'[writers.app]\ntype = "file"\npath = "{tmp_path}/app.log"\nmax_bytes = 10_000\nbackup_count = 1\n'
    )
    done = stress("--config", config, "--producers", 2, "--records", 500)
    assert done.returncode == 1
    lost = int(figures(done)["lost"])
    assert 0 < lost < 1000
    assert int(figures(done)["records"]) == 1000 - lost
    assert "stress: lost" in done.stderr
    assert len(rotated_files(tmp_path / "app.log")) == 2


def test_a_configuration_without_a_file_is_wrong_usage(tmp_path):
    config = tmp_path / "log.toml"
    config.write_text('version = 1\n[writers.console]\ntype = "tty"\n')
    done = stress("--config", config)
    assert done.returncode == 2
    assert done.stdout == ""
    assert 'stress: writers: a stress run checks the files of a writer with type = "file"' in done.stderr


def test_the_same_seed_kills_the_same_producers_at_the_same_records():
    def plan(seed: int) -> Plan:
        return Plan(
            producers=20, records=1000, threads=1, size=0, start_method="fork", kill=0.4, seed=seed,
            deadline=1, source="", overrides={}, own=True,
        )  # fmt: skip

    assert plan(1).victims() == plan(1).victims()
    assert plan(1).victims() != plan(2).victims()
    assert len(plan(1).victims()) == 8
    assert all(0 <= moment <= 1000 for moment in plan(1).victims().values())


@pytest.mark.timeout(120)
def test_redis_away_for_seconds_grows_no_process_and_loses_nothing(reaped, uncovered):
    command = [
        sys.executable,
        "-m",
        "stress",
        "outage",
        "--minutes",
        "0.03",
        "--rate",
        "2000",
        "--limit",
        "24",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = figures(done)
    assert int(found["records"]) >= 2 * 2000
    assert [found[name] for name in ("lost", "doubled", "torn", "disordered")] == ["0"] * 4
    assert float(found["away"].rstrip("s")) >= 1.8
    assert int(found["rate"].removesuffix("/s")) > 1000, "nothing has stopped the programs meanwhile"
    for role in ("application", "shipper", "supervisor", "w-app", "w-json"):
        assert float(found[f"{role}[MiB]"].split("/")[0]) > 1
    assert_nothing_runs(reaped)


@pytest.mark.timeout(120)
def test_a_process_that_grows_during_an_outage_is_a_finding(reaped, uncovered):
    command = [
        sys.executable,
        "-m",
        "stress",
        "outage",
        "--minutes",
        "0.01",
        "--rate",
        "500",
        "--limit",
        "-1",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "outage: application has grown by" in done.stderr

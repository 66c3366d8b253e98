"""A short run of the harness that breaks everything: nothing is lost, doubled, torn or out of order."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from stress import breaking, faults, moments
from tests.helpers.scripts import ROOT

#: Longer runs: REDISLOGKIT_CHAOS_MINUTES=10 pytest tests/process/test_chaos.py
MINUTES = float(os.environ.get("REDISLOGKIT_CHAOS_MINUTES", "1"))
SEED = os.environ.get("REDISLOGKIT_CHAOS_SEED", "20")


@pytest.mark.timeout(420 + 180 * MINUTES)
def test_four_zeros_after_a_seeded_run_of_faults(reaped, uncovered):
    # Slower than by default: the other tests run beside it.
    options = ["--faults-per-minute", "50", "--rate", "60", "--drain", "120"]
    command = ["-m", "stress", "chaos", "--seed", SEED, "--minutes", str(MINUTES), *options]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert f"seed={SEED} " in done.stdout
    assert "lost=0 doubled=0 torn=0 disordered=0" in done.stdout
    assert figure(done.stdout, r"faults=(\d+)\(") >= 25 * MINUTES, done.stdout
    assert figure(done.stdout, r"records=(\d+)") >= 10_000 * MINUTES, done.stdout


def figure(line: str, pattern: str) -> int:
    found = re.search(pattern, line)
    assert found, line
    return int(found[1])


@pytest.mark.timeout(300)
def test_a_double_that_slips_through_is_a_finding(reaped, uncovered, tmp_path):
    """What the checker counts comes from the files: a copied line makes the run fail."""
    arena_files = tmp_path / "spoilt.py"
    arena_files.write_text(SPOILT)
    done = subprocess.run(
        [sys.executable, str(arena_files)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 1, f"{done.stdout}\n{done.stderr}"
    assert figure(done.stdout, r"doubled=(\d+)") == 1
    assert figure(done.stdout, r"lost=(\d+)") == 0


#: A run of some seconds without faults whose first file gets one of its lines twice.
SPOILT = """
import sys
sys.path.insert(0, ".")
from stress import chaos

class Run(chaos.Run):
    def check(self):
        path = self.arena.path(self.arena.writer_names[0])
        with open(path, "r+b") as file:
            line = next(line for line in file if b"rlk[" in line and line.endswith(b".\\n"))
            file.seek(0, 2)
            file.write(line)
        super().check()

chaos.Run = Run
options = ["--minutes", "0.03", "--faults-per-minute", "0", "--writers", "", "--rate", "50", "--supervisor", "harness"]
sys.exit(chaos.main(["--seed", "1", "--server", "embedded", *options]))
"""


def test_a_seed_gives_the_same_plan_again():
    kinds = faults.possible((), faults.PROXY, disk=True)
    plan = faults.plan(7, 60, 30, kinds)
    assert plan == faults.plan(7, 60, 30, kinds)
    assert plan != faults.plan(8, 60, 30, kinds)
    assert len(plan) == 30


def test_a_plan_of_two_minutes_has_every_kind():
    kinds = faults.possible((), faults.PROXY, disk=True)
    assert {fault.kind for fault in faults.plan(1, 120, 55, kinds)} == set(faults.NAMES)


def test_every_kind_of_fault_can_be_performed():
    assert set(breaking.PERFORM) == set(faults.NAMES)


def test_a_family_of_kinds_can_be_chosen():
    names = {kind.name for kind in faults.possible(("net", "kill.writer"), faults.PROXY, disk=True)}
    assert "kill.writer" in names
    assert "kill.server" not in names
    assert all(name.startswith("net.") for name in names - {"kill.writer"})


def test_faults_of_the_network_need_the_proxy():
    names = {kind.name for kind in faults.possible((), faults.EMBEDDED, disk=False)}
    assert not any(name.startswith("net.") for name in names)
    assert not names & {"disk.full", "disk.state-full", "twice.disk"}


def test_a_moment_is_the_name_of_the_file_that_something_has_happened_to(tmp_path):
    with moments.Watch(str(tmp_path), moments.MODIFIED) as watch:
        (tmp_path / "other").write_text("x")
        (tmp_path / "app.log").write_text("x")
        assert watch.wait(5, lambda name: name == "app.log") == "app.log"
        assert watch.wait(0.001) in ("", "app.log")

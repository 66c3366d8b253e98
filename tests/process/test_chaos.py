"""A short run of the harness that breaks everything: nothing is lost, doubled, torn or out of order."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from stress import faults
from tests.helpers.scripts import ROOT

#: Longer runs: REDISLOGKIT_CHAOS_MINUTES=10 pytest tests/process/test_chaos.py
MINUTES = float(os.environ.get("REDISLOGKIT_CHAOS_MINUTES", "0.35"))


@pytest.mark.timeout(150 + 120 * MINUTES)
def test_four_zeros_after_a_seeded_run_of_faults(reaped):
    command = ["-m", "stress.chaos", "--seed", "20", "--minutes", str(MINUTES), "--faults-per-minute", "60"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "lost=0 doubled=0 torn=0 disordered=0" in done.stdout
    counted = re.search(r"faults=(\d+)\(", done.stdout)
    assert counted and int(counted[1]) >= 10, done.stdout


def test_a_seed_gives_the_same_plan_again():
    kinds = faults.possible((), faults.PROXY, disk=True)
    plan = faults.plan(7, 60, 30, kinds)
    assert plan == faults.plan(7, 60, 30, kinds)
    assert plan != faults.plan(8, 60, 30, kinds)
    assert len(plan) == 30


def test_a_plan_of_two_minutes_has_every_kind():
    kinds = faults.possible((), faults.PROXY, disk=True)
    assert {fault.kind for fault in faults.plan(1, 120, 30, kinds)} == set(faults.NAMES)


def test_a_family_of_kinds_can_be_chosen():
    names = {kind.name for kind in faults.possible(("net", "kill.writer"), faults.PROXY, disk=True)}
    assert "kill.writer" in names
    assert "kill.server" not in names
    assert all(name.startswith("net.") for name in names - {"kill.writer"})


def test_faults_of_the_network_need_the_proxy():
    names = {kind.name for kind in faults.possible((), faults.EMBEDDED, disk=False)}
    assert not any(name.startswith("net.") for name in names)
    assert "disk.full" not in names

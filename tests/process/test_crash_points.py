"""Producer, shipper, writer, supervisor and application are killed at their calls and stores, and the files are right.

A selection of points; all of them are tried by ``python -m tests.programs.crash_points``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.helpers.scripts import ROOT

_LINE = re.compile(r"^(\S+) (\w+).*: \d+ plans, (\d+) kills, 0 failed", re.MULTILINE)

#: Scene, how it dies, how manieth point, and the first of them; see the program.
SELECTION = {
    "a logging call": "logging:before:5:1 logging:half:4:2 logging-retired:before:8:2 logging-retired:half:6:1",
    "a spool that is full": "logging-losses:before:14:7 logging-losses:half:8:3 logging-old:before:25:5",
    "the shipper": "shipping:before:9:3 shipping:late:8:2:6 shipping-records:before:16:5 shipping-only:before:14:6 racing:before:7:4",
    "a rotation": "writing-numbers:before:16:4 writing-stamps:before:19:9 writing-times:half:7:2",
    "a write": "writing:before:12:2 writing:half:7:2 writing:late:5:6:6 writing-always:before:16:6 writing-journal:half:6",
    "a recovery": "writing-again:twice:14:7 writing-again-plain:twice:8:7 writing-stamps:twice:4:7",
    "everything at once": "everything:before:21:6 everything:half:11:4 everything:late:15:3:8",
    "a supervisor and its start": "supervising:before:10:5 launching:before:30:20",
}


@pytest.mark.parametrize("what", SELECTION)
def test_a_kill_anywhere_in_it_loses_doubles_tears_and_leaves_nothing(uncovered, reaped, server_url, what):
    wishes = SELECTION[what].split()
    finished = subprocess.run(
        [sys.executable, "-m", "tests.programs.crash_points", "--url", server_url, *wishes],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr
    rows = _LINE.findall(finished.stdout)
    assert [f"{scene}:{how}" for scene, how, *_ in rows] == [":".join(wish.split(":")[:2]) for wish in wishes]
    for scene, how, kills in rows:
        assert int(kills) >= 1, f"{scene} was not killed {how}"

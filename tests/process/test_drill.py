"""``python -m redislogkit drill`` on a set-up that is at work."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from tests.helpers import processes
from tests.helpers.scripts import ROOT
from tests.helpers.supervision import Producers, Supervision
from tests.helpers.waiting import wait_until

#: What they go through is covered elsewhere; without it they take two thirds of the time.
pytestmark = pytest.mark.usefixtures("uncovered")


def _drill(supervision: Supervision, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "redislogkit", "drill", supervision.file(), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _figures(out: str) -> dict[str, str]:
    return dict(figure.split("=", 1) for figure in out.splitlines()[-1].split(" "))


def test_a_drill_kills_what_was_launched_and_loses_nothing_and_leaves_nothing_behind(
    state_dir, reaped, scripts
):
    supervision = Supervision(
        state_dir,
        writers={
            "json": {"type": "file", "path": f"{state_dir}/out/json.log", "formatter": "json"},
            "errors": {"type": "file", "path": f"{state_dir}/out/errors.log", "level": "CRITICAL"},
        },
    )
    # Its faults: the supervisor, a producer, a writer and the server are killed.
    drill = _drill(supervision, "--seconds", "2", "--faults", "4", "--seed", "0", "--rate", "200")
    out, err = drill.communicate(timeout=60)
    assert (drill.returncode, err) == (0, ""), out + err
    figures = _figures(out)
    assert re.fullmatch(r"4\(.*kill\.supervisor:1.*\)", figures["faults"]), figures
    assert [figures[name] for name in ("lost", "doubled", "torn", "disordered", "unexpected")] == ["0"] * 5
    assert int(figures["records"]) > 2 * 3 * 100
    assert figures["unchecked"] == "errors"
    assert supervision.spools() == []
    wait_until(lambda: not processes.started(reaped, state_dir), what="no process is left")


def test_a_drill_leaves_the_supervisor_of_somebody_and_his_records_alone(state_dir, reaped, scripts):
    supervision = Supervision(state_dir, supervisor={"autostart": False})
    supervisor = supervision.start()
    others = Producers(scripts, supervision, 1, pause=0.01)
    others.wait_flowing(5)
    before = supervision.children()
    drill = _drill(supervision, "--seconds", "1.5", "--faults", "5", "--seed", "6")
    out, err = drill.communicate(timeout=60)
    assert (drill.returncode, err) == (0, ""), out + err
    assert "the supervisor itself is left in peace" in out
    assert "supervisor" not in _figures(out)["faults"]
    assert supervisor.poll() is None
    assert supervision.children() != before  # some were killed
    supervision.wait_complete(others.finish())
    processes.stop(supervisor)


def test_a_drill_that_is_interrupted_leaves_nobody_stopped_and_no_process(state_dir, reaped):
    supervision = Supervision(state_dir, supervisor={"autostart": False})
    supervisor = supervision.start()
    drill = _drill(supervision, "--seconds", "60", "--faults", "0")
    wait_until(lambda: os.path.exists(supervision.path) and os.path.getsize(supervision.path), what="it logs")
    drill.send_signal(signal.SIGTERM)
    _, err = drill.communicate(timeout=30)
    assert drill.returncode == 130
    assert "interrupted" in err
    wait_until(lambda: supervision.spools() == [], what="what was logged is written")
    processes.stop(supervisor)
    wait_until(lambda: not processes.started(reaped, state_dir), what="no process is left")

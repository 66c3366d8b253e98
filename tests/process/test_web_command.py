"""``redislogkit web`` on a real stream: what it prints, what it serves, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.helpers.scripts import ROOT
from tests.helpers.supervision import PRODUCER, Supervision
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.usefixtures("uncovered")


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "redislogkit", "web", *arguments]


def _get(address: str, path: str, token: str) -> bytes:
    request = urllib.request.Request(address + path, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: bytes = answer.read()
    return found


def test_records_of_the_stream_and_the_state_are_served_to_who_has_the_token(state_dir, reaped, scripts):
    supervision = Supervision(state_dir)
    supervisor = supervision.start()
    with subprocess.Popen(
        _command(supervision.file(), "--listen", "127.0.0.1:0", "--token"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as web:
        assert web.stdout is not None
        said = web.stdout.readline()
        assert said.endswith(" (Ctrl-C ends it)\n")
        address, _, token = said.split()[4].partition("?token=")
        assert address.startswith("http://127.0.0.1:")
        assert len(token) > 20
        scripts.run(PRODUCER, supervision.argument, "w", "20", "0")
        rows = wait_until(
            lambda: json.loads(_get(address, "api/history", token))["rows"], what="the records are served"
        )
        assert rows[0]["m"].startswith("rlk[r w 0 ")
        files = f"api/files?writer=app&time={time.time() + 60}&grep=w+1"
        wait_until(
            lambda: len(json.loads(_get(address, files, token))["rows"]) == 11,
            what="the records of the file are found",
        )
        found = json.loads(_get(address, files, token))
        assert [row["n"] for row in found["rows"]] == list(range(-11, 0))
        assert (found["full"], found["reports"]) == (False, [])
        state = json.loads(_get(address, "api/state", token))
        assert state["supervisor"]["pid"] == supervision.pid
        assert "app" in state["stream"]["writers"]
        with pytest.raises(OSError, match="401"):
            _get(address, "api/state", "wrong")
        web.send_signal(signal.SIGINT)
        _, errors = web.communicate(timeout=15)
    assert errors == ""
    assert web.returncode in (0, 130)
    supervisor.send_signal(signal.SIGTERM)
    supervisor.communicate(timeout=20)

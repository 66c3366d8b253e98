"""``status``, ``doctor`` and ``rotate`` on a set-up that runs."""

from __future__ import annotations

import json
import os
import signal

import pytest

from redislogkit import __main__ as command
from tests.helpers.supervision import PRODUCER, Supervision
from tests.helpers.waiting import wait_until


@pytest.fixture
def running(state_dir, server_url, stream_name, scripts, uncovered):
    setup = Supervision(
        state_dir,
        redis={"url": server_url},
        stream={"name": stream_name},
        supervisor={"autostart": False},
    )
    supervisor = setup.start()
    producer = scripts.start(PRODUCER, setup.argument, "a", 0, 0.01)
    wait_until(lambda: os.path.exists(setup.path) and os.path.getsize(setup.path), what="the first line")
    yield setup, supervisor
    producer.communicate("", timeout=20)


def _json(capsys, *arguments):
    code = command.main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_set_up_that_runs_is_shown_examined_and_rotated(running, capsys):
    setup, supervisor = running
    config = setup.file()

    code, told = _json(capsys, "status", config)
    assert (code, told["health"]) == (0, "ok")
    assert told["supervisor"]["pid"] == supervisor.pid
    (writer,) = told["writers"]
    assert (writer["name"], writer["type"], writer["state"]) == ("app", "file", "running")
    assert writer["rate"] > 0
    (producer,) = told["producers"]
    assert producer["alive"]
    assert producer["stored"] >= producer["written"] > 0

    assert command.main(["status", config]) == 0
    page = capsys.readouterr().out
    assert f"supervisor {supervisor.pid}" in page
    assert "producers: 1 alive" in page
    assert "\x1b" not in page

    code, told = _json(capsys, "doctor", config)
    assert code == 0
    assert {finding["part"] for finding in told["findings"]} == {
        "installation",
        "configuration",
        "server",
        "disk",
        "processes",
    }
    assert [finding for finding in told["findings"] if finding["severity"] == "problem"] == []

    assert command.main(["rotate", "-c", config]) == 0
    assert capsys.readouterr().out == "app: rotated\n"
    assert os.path.getsize(f"{setup.path}.1") > 0
    assert command.main(["rotate", "aap", "-c", config]) == 2
    assert "WRITER must be one of app, got 'aap'" in capsys.readouterr().err

    supervisor.send_signal(signal.SIGTERM)
    supervisor.communicate(timeout=20)
    assert command.main(["doctor", config, "--quiet"]) == 1
    page = capsys.readouterr().out
    assert "none runs on this host" in page
    assert "1 problem, " in page
    code, told = _json(capsys, "status", config)
    assert (code, told["supervisor"], told["health"]) == (1, None, "problem")
    assert "redislogkit supervise" in told["supervisor_error"]
    assert command.main(["rotate", "-c", config]) == 2
    assert "no supervisor runs" in capsys.readouterr().err


def test_watching_shows_it_again_until_it_is_interrupted(state_dir, capsys, monkeypatch):
    setup = Supervision(state_dir)
    looks = iter(range(3))
    monkeypatch.setattr("time.sleep", lambda seconds: next(looks, None) is None and _interrupt())
    assert command.main(["status", setup.file(), "--watch", "--json"]) == 130
    assert [json.loads(line)["health"] for line in capsys.readouterr().out.splitlines()] == ["ok"] * 4


def _interrupt():
    raise KeyboardInterrupt

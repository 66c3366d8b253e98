"""A supervisor that serves its figures: a real scrape, and counters that go on when a child is killed."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from typing import Any

import pytest

from redislogkit import config as configuration
from redislogkit import control
from tests.helpers.scripts import ROOT
from tests.helpers.supervision import PRODUCER, Supervision
from tests.helpers.waiting import wait_until
from tests.unit.test_metrics import samples

pytestmark = pytest.mark.usefixtures("uncovered")


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"figures are at (http://127.0.0.1:\d+/metrics)", line):
            return found[1]
    raise AssertionError("it did not say where the figures are")


def _scrape(address: str) -> dict[tuple[str, ...], float]:
    with urllib.request.urlopen(address, timeout=10) as answer:
        text: bytes = answer.read()
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples(text.decode())}


def test_counters_go_on_when_a_child_is_killed(state_dir, reaped, scripts):
    supervision = Supervision(state_dir, metrics={"listen": "127.0.0.1:0"})
    process = supervision.start()
    address = _address(process)
    written = ("redislogkit_records_written_total", "app")

    def log(count: int) -> None:
        assert scripts.run(PRODUCER, supervision.argument, f"w{count}", str(count), "0").out.strip() == str(
            count
        )

    log(100)
    first = wait_until(lambda: _at_least(_scrape(address), written, 100), what="100 are counted")
    assert first["redislogkit_up",] == first["redislogkit_redis_up",] == 1
    assert first["redislogkit_lag_records", "app"] == 0
    writer = supervision.child("w-app")
    os.kill(writer, signal.SIGKILL)
    supervision.child("w-app", other_than=writer)
    assert _scrape(address)[written] >= first[written]
    log(50)
    shipped = ("redislogkit_records_shipped_total",)
    wait_until(lambda: _at_least(_scrape(address), shipped, 150), what="all are shipped")
    second = wait_until(lambda: _at_least(_scrape(address), written, 150), what="50 more are counted")
    assert (second[shipped], second[written]) == (150, 150)
    assert second["redislogkit_child_restarts_total", "app", "writer"] == 1
    assert second["redislogkit_latency_seconds_count", "app"] >= 2

    config = configuration.load(supervision.sections)
    supervision.sections["metrics"] = {}
    supervision.file()
    assert control.ask(config, {"do": "reload"})["changes"] == ["metrics: no longer served"]
    wait_until(lambda: "metrics" not in supervision.children(), what="nobody serves the figures")
    with pytest.raises(OSError):
        _scrape(address)
    supervision.sections["metrics"] = {"listen": "127.0.0.1:0"}
    supervision.file()
    wait_until(lambda: control.ask(config, {"do": "reload"})["ok"], what="the first reload is carried out")
    assert _scrape(_address(process))[written] == 150
    wait_until(lambda: _state(config, "metrics") == "running", what="its state is known")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0


def _at_least(values: dict[tuple[str, ...], float], name: tuple[str, ...], least: float) -> Any:
    return values if values.get(name, 0) >= least else None


def test_an_address_that_is_taken_hinders_no_record(state_dir, reaped, scripts):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        supervision = Supervision(state_dir)
        supervision.sections["metrics"] = {"listen": listen}
        with subprocess.Popen(
            [sys.executable, "-m", "redislogkit.supervise", supervision.file()],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            said = ""
            while "metrics: set aside" not in said:
                said += process.stdout.readline()
            scripts.run(PRODUCER, supervision.argument, "w", "10", "0")
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
    assert process.returncode == 0  # everything is written
    supervision.wait_complete({"w": 10})
    assert f"metrics.listen must be an address where this host can listen, got {listen}" in said


def _state(config: configuration.Config, kind: str) -> str:
    children = control.ask(config, {"do": "status"})["children"]
    return next(str(child["state"]) for child in children if child["kind"] == kind)

"""Configurations that are broken, or that meet: the old one stays or there is a clear error, never half of each."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from redislogkit.__main__ import main as command_line
from tests.helpers.processes import is_running
from tests.helpers.scripts import Scripts
from tests.helpers.supervision import PRODUCER, Producers, Supervision
from tests.helpers.waiting import wait_until


def said(process: Any, pattern: str) -> str:
    """Read lines of the supervisor until one has ``pattern``."""
    while line := process.stdout.readline():
        if re.search(pattern, line):
            return str(line)
    raise AssertionError(f"never said: {pattern}")


def test_a_configuration_that_is_broken_at_sighup_is_reported_and_the_old_one_stays(
    state_dir: str, scripts: Scripts, capsys: pytest.CaptureFixture[str]
) -> None:
    supervision = Supervision(state_dir)
    process = supervision.start()
    file = Path(state_dir, "log.toml")
    right = file.read_text()
    producers = Producers(scripts, supervision)
    producers.wait_flowing()
    children = supervision.children()
    for content, answer in [
        (right + "[writers.app\n", "not taken, the old one stays in force: .*log.toml"),
        (right.replace("writers", "wirters"), "not taken, the old one stays in force: .*wirters"),
        (right, "loaded again: nothing here has changed"),
    ]:
        file.write_text(content)
        process.send_signal(signal.SIGHUP)
        said(process, answer)
    file.write_text(right.replace('"file"', '"fiel"') + "[writers.app\n")
    for command in ("status", "doctor"):  # what runs is to be seen all the same
        assert command_line([command, str(file)]) == 2
        told = capsys.readouterr().out
        assert "problem  configuration: " in told and "is not TOML" in told
        assert re.search(r"app +file +running|ok +writer app: running", told)
    file.unlink()
    process.send_signal(signal.SIGHUP)
    said(process, "not taken, the old one stays in force")
    process.send_signal(signal.SIGUSR1)
    producers.wait_flowing()
    assert supervision.children() == children
    supervision.wait_complete(producers.finish())
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_two_streams_can_not_have_one_file_and_the_second_takes_over_when_the_first_is_gone(
    state_dir: str, scripts: Scripts
) -> None:
    first = Supervision(state_dir, stream={"name": "first"}, producer={"shutdown_timeout": 10})
    second = Supervision(state_dir, stream={"name": "second"}, producer={"shutdown_timeout": 0})
    second.sections["writers"]["app"]["lock_timeout"] = 0
    running = first.start()
    owner = first.child("w-app")
    scripts.start(PRODUCER, first.argument, "w0", 50, 0).communicate(timeout=20)
    scripts.start(PRODUCER, second.argument, "w1", 50, 0).communicate(timeout=20)
    wait_until(lambda: "is in use by" in second.log(), what="the second supervisor's report")
    assert f"log file {first.path} is in use by process {owner} on {os.uname().nodename}" in second.log()
    assert first.check({"w0": 50}).ok  # and nothing of the second one
    running.terminate()
    running.communicate(timeout=20)
    assert not is_running(owner)
    first.wait_complete({"w0": 50, "w1": 50})

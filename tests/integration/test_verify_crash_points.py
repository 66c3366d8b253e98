"""``verify`` after a writer was killed at each call that changes the disk: before its restart, and after it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from redislogkit import config as configuration
from redislogkit.config import Config
from redislogkit.verify.verdict import Result
from redislogkit.verify.verification import verify
from redislogkit.writers.archive import Archivist
from tests.helpers import filewriter
from tests.integration.test_file_crash_points import STREAM, Plan, disk, in_child, work_at_once

__all__ = ["disk"]

# Children are forked from a process that may have threads (the test's own time limit); they only write files.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.usefixtures("untraced"),
]

SETTINGS: dict[str, dict[str, Any]] = {
    "gzip": {"max_bytes": 150, "backup_count": 60, "compress": "gzip"},
    "few": {"max_bytes": 150, "backup_count": 1},
    "stamps": {"max_bytes": 150, "backup_count": 2, "naming": "timestamp"},
}

FEWER = STREAM[:8]
RECORDS = 16


class Scene:
    """A writer ``app`` with its state in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir()
        writer = {"type": "file", "path": str(folder / "app.log"), **SETTINGS[name]}
        self.config: Config = configuration.load(
            {"state_dir": str(folder / "state"), "writers": {"app": writer}}
        )
        self.settings = filewriter.config(folder / "app.log", **SETTINGS[name])
        stream_dir = Path(self.config.stream_dir)
        for place in ("checkpoints", "index/app"):
            (stream_dir / place).mkdir(parents=True)
        (stream_dir / "checkpoints/index").symlink_to("../index/app")  # where the helper puts it
        self._checkpoint = stream_dir / "checkpoints/app"

    def write(self) -> None:
        filewriter.run_writer(self.settings, FEWER, self._checkpoint, clock=lambda: filewriter.START + 60)

    def killed(self, number: int, how: str) -> bool:
        def work() -> None:
            Archivist.submit = work_at_once  # type: ignore[method-assign, assignment]
            Plan(number, how)
            self.write()

        return in_child(work) != 0

    def verify(self) -> Result:
        (result,) = verify(self.config)
        return result


@pytest.mark.parametrize(("name", "how"), [("gzip", "half"), ("few", "before"), ("stamps", "half")])
def test_files_are_complete_after_a_kill_at_any_call_and_after_the_next_start(disk, monkeypatch, name, how):
    monkeypatch.setattr(Archivist, "submit", work_at_once)
    number = 0
    while True:
        number += 1 if number < 20 else 2
        scene = Scene(disk / str(number), name)
        was_killed = scene.killed(number, how)
        assert scene.verify().faults == [], f"killed at call {number}"
        scene.write()
        result = scene.verify()
        assert result.faults == [], f"killed at call {number}, and started again"
        assert result.foreign_bytes == 0
        assert result.expired or name != "few"
        assert result.expired or result.records == RECORDS
        if not was_killed:
            break
        shutil.rmtree(disk / str(number))
    assert number > 10
    os.unlink(result.files[-1])
    assert not scene.verify().complete

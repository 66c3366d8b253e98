"""Clocks of writers, supervisor and producers that jump by a day while records flow: as without."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

from tests.helpers import flowing
from tests.helpers.scripts import ROOT

DAY = 86_400.0


def test_clocks_that_jump_by_a_day_lose_double_and_overwrite_nothing(tmp_path: Path) -> None:
    path = tmp_path / "clock"
    path.write_bytes(bytes(8))
    with open(path, "r+b") as file:
        offset: Any = memoryview(mmap.mmap(file.fileno(), 8)).cast("d")
    env = {
        "REDISLOGKIT_CHAOS_CLOCK": str(path),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "stress" / "clock")]),
    }
    sections: dict[str, dict[str, Any]] = {
        "numbered": {"when": "midnight", "naming": "number", "backup_count": 100, "max_bytes": "8 KiB"},
        "stamped": {"when": "midnight", "backup_count": 0, "max_age": "3650 days"},
    }
    (tmp_path / "scripts").mkdir()
    with flowing.flowing(tmp_path / "scripts", sections, env) as flow:
        for name in sections:
            flow.wait_flowing(name)
        children = flow.supervision.children()
        for jump in (DAY, -DAY, -DAY, 2 * DAY, 3_600.0, -3_600.0):
            offset[0] += jump
            for name in sections:
                flow.wait_flowing(name, more=10)
        for name in sections:
            flow.check(name)
            assert len(flow.files(name)) > 1
        assert flow.supervision.children() == children
        assert "killed" not in flow.log()

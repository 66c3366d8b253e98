"""A supervisor's answer to ``status``, and a stream's overview, as they are on a busy day."""

from __future__ import annotations

import copy
from typing import Any, Final

from redislogkit.stream.client import Overview, WriterState

_STATUS: Final[dict[str, Any]] = {
    "ok": True,
    "host": "web1",
    "stream": "app",
    "pid": 4711,
    "since": 1_700_000_000.0,
    "version": "0.1.0",
    "config": "/etc/app/log.toml",
    "config_loaded": 1_700_000_100.0,
    "config_error": "",
    "launched": False,
    "dropped": {"spool_full": 7, "shed": 3},
    "children": [
        {
            "name": "server", "kind": "server", "pid": 4712, "state": "running", "since": 1_700_000_000.0,
            "restarts": 0, "next_start": None, "last_exit": "", "error": "",
        },
        {
            "name": "shipper", "kind": "shipper", "pid": 4713, "state": "running", "since": 1_700_000_000.0,
            "restarts": 1, "next_start": None, "last_exit": "", "error": "", "producers": 4, "spools": 5,
            "outstanding": 1, "shipped": 90_000, "spool_bytes": 1_048_576,
        },
        {
            "name": "app", "kind": "writer", "pid": 4714, "state": "running", "since": 1_700_000_000.0,
            "restarts": 2, "next_start": None, "last_exit": "signal SIGKILL", "error": "", "type": "file",
            "written": 89_000, "bytes": 12_345_678, "position": "1700000500000-0", "last_write": 1_700_000_500.0,
            "rotations": 6, "rejected": 2,
            "latency": {"buckets": [[0.01, 5], [0.1, 60], [1.0, 70]], "sum": 12.5, "count": 71},
        },
        {
            "name": "console", "kind": "writer", "pid": None, "state": "set aside", "since": 1_700_000_400.0,
            "restarts": 11, "next_start": 1_700_000_600.0, "last_exit": "exit code 78", "error": "no terminal",
            "type": "tty", "skipped": {"gone": 5},
        },
    ],
}  # fmt: skip


def status() -> dict[str, Any]:
    """Return an answer that may be changed."""
    return copy.deepcopy(_STATUS)


def stream() -> Overview:
    """Return an overview: one writer has written all, the other has not."""
    writers = {
        "app": WriterState("1700000500000-0", 90_000, "web1", 1_700_000_510.0, None),
        "console@web1": WriterState("1700000400000-0", 89_000, "web1", 1_700_000_410.0, 1_700_000_400.5),
    }
    return Overview(1_700_000_500.0, 12, 90_000, 0, writers, 1_700_000_500.0)

"""A clock that the chaos run can set: Python loads this file by itself where its folder is on PYTHONPATH.

``time.time()`` of such a process is off by the seconds in a mapped file, which the harness changes at will.
The product knows nothing of it.
"""

from __future__ import annotations

import mmap
import os
import time


def _bend(path: str) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    offset = memoryview(mmap.mmap(fd, 8)).cast("d")
    os.close(fd)
    real = time.time

    def bent_time() -> float:
        return real() + offset[0]

    time.time = bent_time


if _path := os.environ.get("REDISLOGKIT_CHAOS_CLOCK"):
    _bend(_path)

"""Threads that log, and fork while the other threads log; the children log, from a new thread too."""

from __future__ import annotations

import os
import threading

import redislogkit
from tests.programs.numbered import log

THREADS = 6
FORKS = 8


def child() -> None:
    """Log and end. Never returns."""
    try:
        log(10)
        thread = threading.Thread(target=log, args=(10,))
        thread.start()
        log(10)
        thread.join()
    finally:
        os._exit(0)


def storm() -> None:
    """Log and fork, again and again."""
    pids = []
    for _ in range(FORKS):
        log(20)
        pid = os.fork()
        if not pid:
            child()
        pids.append(pid)
        log(20)
    for pid in pids:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    redislogkit.configure()
    threads = [threading.Thread(target=storm) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

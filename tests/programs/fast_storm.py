"""Fast loggers in threads that fork while the others log: neither parent nor child makes more than a few `LogRecord`."""

from __future__ import annotations

import logging
import os
import threading

import redislogkit
from redislogkit.producer.handler import SpoolHandler
from tests.programs.numbered import log

THREADS = 4
FORKS = 6
FEW = 40

_emit = SpoolHandler.emit
emitted = 0


def counting(handler: SpoolHandler, record: logging.LogRecord) -> None:
    """Emit, and count it."""
    global emitted
    emitted += 1
    _emit(handler, record)


def child() -> None:
    """Log, from a new thread too, and end. Never returns."""
    global emitted
    emitted, code = 0, 9
    try:
        log(50)
        thread = threading.Thread(target=log, args=(50,))
        thread.start()
        log(50)
        thread.join()
        code = int(emitted > FEW)
    finally:
        os._exit(code)


def storm() -> None:
    """Log and fork, again and again."""
    pids = []
    for _ in range(FORKS):
        log(100)
        pid = os.fork()
        if not pid:
            child()
        pids.append(pid)
        log(100)
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        if status:
            print(f"a child has ended with {status}")


if __name__ == "__main__":
    redislogkit.configure()
    SpoolHandler.emit = counting  # type: ignore[method-assign, assignment]
    threads = [threading.Thread(target=storm) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if emitted > FEW:
        print(f"{emitted} records were not logged the fast way")

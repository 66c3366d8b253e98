"""A daemon in the old manner: forks twice, closes every descriptor, and goes on logging.

Arguments: a file of its own, opened with the numbers that it has closed; a file that appears when it is to end.
"""

from __future__ import annotations

import os
import sys
import time

import redislogkit
from tests.programs.numbered import log

LINE = b"only the daemon writes here\n"


def detach() -> None:
    """Become a daemon, which logs on the way."""
    if os.fork():
        os._exit(0)
    os.setsid()
    log(10)
    if os.fork():
        os._exit(0)
    log(10)
    os.closerange(0, 1024)


if __name__ == "__main__":
    own_file, stop = sys.argv[1:]
    redislogkit.configure()
    log(100)
    detach()
    # As many as there may have been of ours: bytes for a descriptor that was closed would land here.
    fds = [os.open(own_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) for _ in range(16)]
    while not os.path.exists(stop):
        log(2)
        os.write(fds[0], LINE)
        time.sleep(0.001)
    log(100)

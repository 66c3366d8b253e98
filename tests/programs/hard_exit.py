"""Ends without any clean-up: by ``os._exit``, or by SIGKILL after, or in the middle of, its logging."""

from __future__ import annotations

import os
import signal
import sys

import redislogkit
from tests.programs.numbered import log

if __name__ == "__main__":
    redislogkit.configure()
    if sys.argv[1] == "endless":
        while True:
            log()
    log(2000)
    if sys.argv[1] == "exit":
        os._exit(7)
    os.kill(os.getpid(), signal.SIGKILL)

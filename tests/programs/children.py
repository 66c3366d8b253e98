"""A program that runs itself several times at once; all of them call ``configure()``."""

from __future__ import annotations

import subprocess
import sys

import redislogkit
from tests.programs.numbered import log

if __name__ == "__main__":
    redislogkit.configure()
    log(200)
    if len(sys.argv) == 1:
        children = [subprocess.Popen([sys.executable, __file__, "child"]) for _ in range(6)]
        log(200)
        codes = [child.wait() for child in children]
        log(200)
        sys.exit(max(map(abs, codes)))

"""A ``ProcessPoolExecutor`` under the start method that is given."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import redislogkit
from tests.programs.numbered import log

if __name__ == "__main__":
    method = sys.argv[1]
    redislogkit.configure()
    log(100)
    # A forked worker is configured already; the others start with nothing.
    initializer = None if method == "fork" else redislogkit.configure
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(4, mp_context=context, initializer=initializer) as executor:
        for _ in executor.map(log, [25] * 80):
            log()

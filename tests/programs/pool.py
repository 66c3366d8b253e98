"""A ``multiprocessing.Pool`` that replaces its workers all the time and terminates them at the end."""

from __future__ import annotations

import multiprocessing

import redislogkit
from tests.programs.numbered import log

if __name__ == "__main__":
    redislogkit.configure()
    with multiprocessing.get_context("fork").Pool(4, maxtasksperchild=3) as pool:
        for _ in pool.imap_unordered(log, [40] * 60):
            log()

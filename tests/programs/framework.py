"""A framework sets up logging for itself, after us: without a word about the root logger, or taking it over."""

from __future__ import annotations

import logging.config
import sys

import redislogkit
from tests.programs.numbered import log

if __name__ == "__main__":
    redislogkit.configure()
    log(500)
    settings = {"version": 1, "disable_existing_loggers": False}
    if sys.argv[1] == "takes over":
        logging.config.dictConfig({**settings, "root": {"handlers": [], "level": "WARNING"}})
        redislogkit.configure()
    else:
        logging.config.dictConfig(settings)
    log(500)

"""The shortest way of a record into the spool, where it could be compiled: see ``_compiled.c``.

What there is else, and what does all that it leaves alone, is written in Python.
"""

from __future__ import annotations

import logging
from typing import Any

from redislogkit import compiled, record
from redislogkit.spool.producer_end import ProducerEnd


def _load() -> Any:
    module = compiled.load("redislogkit.producer._compiled")
    if module is None:
        return None
    try:
        module.bind_records(
            end=ProducerEnd,
            record=logging.LogRecord,
            names=tuple(logging.makeLogRecord({}).__dict__),
            get_message=record.get_message,
            sites=record.sites,
            threads=record.threads,
            misfit=record.misfit,
            latest=record.LATEST,
        )
    except TypeError:  # a Python whose records are others
        return None
    return module


#: What was compiled; None where nothing was.
MODULE: Any = _load()

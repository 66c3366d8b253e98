"""What the programs log: the numbered records of the present thread, counted where the test finds the counts."""

from __future__ import annotations

import logging
import os
import threading

from stress.tally import Tally

SIZE = 80
_own = threading.local()


def log(records: int = 1) -> None:
    """Log the next records of this thread of this process."""
    if getattr(_own, "pid", 0) != os.getpid():
        _own.pid, _own.tally = os.getpid(), new_tally()
    _own.tally.log(logging.getLogger("program"), records, size=SIZE)


def new_tally() -> Tally:
    """Begin the count of a worker of its own, for what is no thread."""
    return Tally(os.environ["TALLIES"], os.environ["RUN"])

"""What a producer and a supervisor with two writers need while nothing happens."""

from __future__ import annotations

import logging
import time
from typing import Final

from stress import processes
from stress.bench.deployment import Deployment
from stress.bench.goals import Figure
from stress.bench.shapes import LOGGER, Shape

_CONSOLE: Final = """\
[writers.console]
type = "tty"
"""
_TIMEOUT: Final = 30.0
_SETTLE: Final = 3.0


def measure(folder: str, seconds: float) -> list[Figure]:
    """Log once, then do nothing for so long."""
    deployment = Deployment(folder, Shape(producers=1), more=_CONSOLE)
    handle = deployment.configure()
    logging.getLogger(LOGGER).warning("the only one")
    if not handle.flush(_TIMEOUT):
        raise TimeoutError("the record is not written in time")
    time.sleep(_SETTLE)
    before, own, began = processes.usage(deployment.family()), time.process_time(), time.monotonic()
    time.sleep(seconds)
    elapsed, own = time.monotonic() - began, time.process_time() - own
    after = processes.usage(deployment.family())
    shares = {
        processes.name(pid).removeprefix("rlk-"): 100 * (cpu - before.get(pid, 0.0)) / elapsed
        for pid, cpu in after.items()
    }
    note = "of all processes: " + ", ".join(f"{name} {share:.2f} %" for name, share in shares.items())
    return [
        Figure("idle-producer", [100 * own / elapsed]),
        Figure("idle-supervisor", [100 * processes.used(before, after) / elapsed], note),
    ]

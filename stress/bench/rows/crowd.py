"""A thousand producers with a record a second each: what shipper, server and writer need for them."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import time
from typing import Final

from stress import processes
from stress.bench import lines
from stress.bench.deployment import FILE_WRITER, SERVER, SHIPPER, Deployment, until
from stress.bench.goals import Figure
from stress.bench.shapes import LOGGER, PERCENT, TEXTS, Shape, texts

_TIMEOUT: Final = 60.0
_SETTLE: Final = 3.0


def measure(folder: str, size: int, producers: int, seconds: int) -> list[Figure]:
    """Fork so many from one that is configured, as a prefork server does, and measure for so long."""
    records = seconds + 2 * int(_SETTLE)
    shape = Shape(producers=producers, records=records, size=size)
    deployment = Deployment(folder, shape)
    handle = deployment.configure()
    log = logging.getLogger(LOGGER)
    log.setLevel(logging.INFO)
    messages = texts(shape.text_length)
    gc.collect()
    gc.freeze()  # what is not collected is not copied either
    begin, gate = os.pipe()
    pids = [_fork(log, index, shape, messages, begin, gate) for index in range(producers)]
    try:
        os.close(gate)
        time.sleep(_SETTLE)
        cpu, parts = _measure(deployment, seconds)
        _reap(pids)
    finally:
        _kill(pids)
    handle.close(_TIMEOUT)
    if not until(lambda: not deployment.spools(), _TIMEOUT):
        raise TimeoutError("not everything is written in time")
    check = lines.check(deployment.files(), producers, records, shape.text_length)
    return [Figure("crowd", [100 * cpu], parts, check.flaw)]


def _measure(deployment: Deployment, seconds: float) -> tuple[float, str]:
    """Return the share of a core, and that of each part in words."""
    names = {deployment.part(name): name.removeprefix("rlk-") for name in (SHIPPER, SERVER, FILE_WRITER)}
    before, began = processes.usage(deployment.family()), time.monotonic()
    time.sleep(seconds)
    after, elapsed = processes.usage(deployment.family()), time.monotonic() - began
    parts = {name: 100 * (after[pid] - before[pid]) / elapsed for pid, name in names.items()}
    words = ", ".join(f"{name} {share:.1f} %" for name, share in parts.items())
    return processes.used(before, after) / elapsed, words


def _fork(log: logging.Logger, index: int, shape: Shape, messages: list[str], begin: int, gate: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.close(gate)
        os.read(begin, 1)  # until nobody holds the gate any more
        _produce(log, index, shape, messages)
    finally:
        os._exit(0)


def _produce(log: logging.Logger, index: int, shape: Shape, messages: list[str]) -> None:
    start = time.monotonic() + random.Random(index).random()
    for number in range(shape.records):
        time.sleep(max(0.0, start + number - time.monotonic()))
        log.info(PERCENT, index, number, messages[(number * 31 + index) % TEXTS])


def _reap(pids: list[int]) -> None:
    while pids:
        os.waitpid(pids[-1], 0)
        pids.pop()


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    with contextlib.suppress(ChildProcessError):
        _reap(pids)

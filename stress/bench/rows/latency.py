"""How long it takes from a logging call until somebody who follows the file has the line."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import re
import time
from collections.abc import Callable
from typing import Any, Final

from stress.bench.deployment import Deployment
from stress.bench.figures import Spread, quantile
from stress.bench.goals import Figure
from stress.bench.shapes import LOGGER, TEXTS, Shape, texts
from stress.moments import MODIFIED, Watch

_STAMP: Final = re.compile(rb"<at (\d+)> ")
_TIMEOUT: Final = 30.0
_PATIENCE: Final = 5.0


def measure(folder: str, size: int, rate: float, records: int, rounds: int) -> list[Figure]:
    """Log so many records in each round, at random moments; each carries the clock of its call."""
    shape = Shape(producers=1, records=records, size=size)
    deployment = Deployment(folder, shape)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    producer = context.Process(target=_produce, args=(deployment, theirs, shape, rate), daemon=True)
    producer.start()
    if not ours.poll(_TIMEOUT):
        raise TimeoutError("the producer is not ready")
    follow = _follower(deployment.path)
    follow(0)
    found = []
    for _ in range(rounds):
        ours.send(True)
        found.append(follow(records))
    ours.send(False)
    producer.join()
    p50, most = (Spread.of(quantile(each, share) for each in found) for share in (0.5, 1.0))
    note = f"p50 {p50.median:.1f} ms, most {most.high:.1f} ms; flush_interval is 20 ms"
    return [Figure("latency", [quantile(each, 0.99) for each in found], note)]


def _produce(deployment: Deployment, link: Any, shape: Shape, rate: float) -> None:
    handle = deployment.configure()
    log = logging.getLogger(LOGGER)
    log.setLevel(logging.INFO)
    log.info("the first one")
    handle.flush(_TIMEOUT)
    link.send(True)
    messages, generator = texts(shape.text_length), random.Random(1)
    while link.recv():
        for number in range(shape.records):
            # Not in step with anything that has a period of its own.
            time.sleep(generator.uniform(0.5, 1.5) / rate)
            log.info("<at %d> %s", time.monotonic_ns(), messages[number % TEXTS])


def _follower(path: str) -> Callable[[int], list[float]]:
    """Return what follows the file for so many lines and returns their ages in milliseconds."""
    file = open(path, "rb", buffering=0)  # noqa: SIM115 - it is followed until the process ends

    def follow(lines: int) -> list[float]:
        found: list[float] = []
        rest = b""
        file.seek(0, os.SEEK_END)
        with Watch(os.path.dirname(path), MODIFIED) as watch:
            while len(found) < lines:
                if not watch.wait(_PATIENCE):
                    raise TimeoutError(f"no line for {_PATIENCE:g} s")
                data = rest + file.read()
                now = time.monotonic_ns()
                whole, end, rest = data.rpartition(b"\n")
                found += [(now - int(stamp)) / 1e6 for stamp in _STAMP.findall(whole + end)]
        return found

    return follow

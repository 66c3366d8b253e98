"""Producers of a row: forked, configured, and told together when to begin. The records are those of a race."""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import time
from collections.abc import Iterator
from typing import Any, Final

from stress.bench.deployment import Deployment
from stress.bench.race import WARM_UP
from stress.bench.shapes import LOGGER, PERCENT, TEXTS, Shape, texts

_TICK: Final = 0.01


@contextlib.contextmanager
def crew(deployment: Deployment, shape: Shape, rate: float = 0.0) -> Iterator[Any]:
    """Yield an event that lets them begin, once everything runs and their first records are written.

    Each logs its records, ``rate`` a second or as fast as it can, and ends without waiting for anything.
    """
    context = multiprocessing.get_context("fork")
    begin, ready = context.Event(), context.Semaphore(0)
    messages = texts(shape.text_length)
    gc.collect()
    gc.freeze()

    def produce(index: int) -> None:
        handle = deployment.configure()
        log = logging.getLogger(LOGGER)
        log.setLevel(logging.INFO)
        for number in range(WARM_UP):
            log.info(PERCENT, index, number, messages[number])
        handle.flush(shape.deadline)
        ready.release()
        begin.wait()
        if rate:
            _paced(log, shape, index, messages, rate)
            return
        for number in range(WARM_UP, WARM_UP + shape.records):
            log.info(PERCENT, index, number, messages[number % TEXTS])

    started = [
        context.Process(target=produce, args=(index,), daemon=True) for index in range(shape.producers)
    ]
    try:
        for process in started:
            process.start()
        for _ in started:
            if not ready.acquire(timeout=shape.deadline):
                raise TimeoutError("not all producers are ready")
        yield begin
        for process in started:
            process.join(shape.deadline)
    finally:
        for process in started:
            process.kill()
            process.join()


def _paced(log: logging.Logger, shape: Shape, index: int, messages: list[str], rate: float) -> None:
    began = time.monotonic()
    logged = 0
    while logged < shape.records:
        due = min(int((time.monotonic() - began) * rate) + 1, shape.records)
        for number in range(WARM_UP + logged, WARM_UP + due):
            log.info(PERCENT, index, number, messages[number % TEXTS])
        logged = due
        time.sleep(_TICK)

"""A Celery application. Run as a program it hands out the tasks and waits."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from celery import Celery, signals
from celery.concurrency.asynpool import AsynPool

import redislogkit
from tests.programs.numbered import log

app = Celery("program", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.update(
    task_default_queue=os.environ["RUN"],
    broker_transport_options={"global_keyprefix": os.environ["RUN"]},
    result_backend_transport_options={"global_keyprefix": os.environ["RUN"]},
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
)


# Celery often misses the end of a recycled process until it looks for it, five seconds later.
AsynPool.timers = property(lambda pool: {pool.maintain_pool: 0.1})


@signals.setup_logging.connect  # type: ignore[untyped-decorator]
def set_up_logging(**_: Any) -> None:
    """Take the place of Celery's own set-up of logging, in the worker's main process, before it forks."""
    redislogkit.configure()
    log(10)


@app.task(name="work")  # type: ignore[untyped-decorator]
def work(records: int) -> int:
    """Log; answer with the pid of the pool's process."""
    log(records)
    logging.getLogger(__name__).debug("below the level")
    return os.getpid()


if __name__ == "__main__":
    results = [work.delay(60) for _ in range(int(sys.argv[1]))]
    print(len({result.get(timeout=30) for result in results}))

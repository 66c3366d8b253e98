"""The programs that log while everything around them breaks.

``python -m stress.programs nest CONFIG FOLDER RUN HARNESS SEED RATE`` logs from two threads and forks children
that log and end in every way there is, until a file ``stop`` appears in FOLDER. ``short`` is one of them
that comes as a program of its own. Each worker counts in FOLDER/tallies what it has logged.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import redislogkit
from stress.tally import Tally

#: Loggers; one of the writers may take records of the second one only. Workers are named after theirs.
ALL: Final = "all"
SOME: Final = "some"
_PREFIX: Final = "chaos"


class Place(NamedTuple):
    """Where a program belongs."""

    config: str
    folder: str
    run: str
    harness: str
    """Pid of the harness: nobody logs on without it."""

    def stopping(self) -> bool:
        """True when the harness wants no more records, or is gone."""
        return os.path.exists(os.path.join(self.folder, "stop")) or not os.path.exists(
            f"/proc/{self.harness}"
        )


class Worker:
    """One thread that logs."""

    def __init__(self, place: Place, kind: str, generator: random.Random) -> None:
        which = generator.choice((ALL, SOME))
        name = f"{which}-{kind}-{os.getpid()}-{os.urandom(3).hex()}"
        self._place = place
        self._random = generator
        self._tally = Tally(os.path.join(place.folder, "tallies"), place.run, name)
        self._logger = logging.getLogger(f"{_PREFIX}.{which}")

    def log(self, records: int) -> None:
        """Log so many records at once."""
        for _ in range(records):
            self._tally.log(self._logger, 1, size=self._size())

    def log_steadily(self, rate: float, seconds: float = float("inf")) -> None:
        """Log in bursts, ``rate`` records a second on the whole, until told to stop."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self._place.stopping():
            burst = self._random.randint(1, 60)
            self.log(burst)
            time.sleep(burst / rate)

    def _size(self) -> int:
        drawn = self._random.random()
        if drawn < 0.0003:
            return self._random.randint(50_000, 400_000)
        return self._random.randint(1_000, 9_000) if drawn < 0.005 else self._random.randint(40, 200)


# -- the ways in which a child lives and ends: each returns, or does not ------------------------------


def _returns(worker: Worker, generator: random.Random) -> None:
    worker.log(generator.randint(1, 300))


def _exits_hard(worker: Worker, generator: random.Random) -> None:
    worker.log(generator.randint(1, 300))
    os._exit(0)


def _raises(worker: Worker, generator: random.Random) -> None:
    worker.log(generator.randint(1, 50))
    raise RuntimeError("this child ends with an exception")


def _crashes(worker: Worker, generator: random.Random) -> None:
    worker.log(generator.randint(1, 200))
    os.kill(os.getpid(), signal.SIGKILL)


def _lingers(worker: Worker, generator: random.Random) -> None:
    worker.log_steadily(generator.uniform(20, 200), generator.uniform(1, 8))


def _closes_descriptors(worker: Worker, generator: random.Random) -> None:
    """As a daemon does: the lock of its spool is free, and it logs on."""
    worker.log(generator.randint(1, 100))
    os.closerange(3, 256)
    worker.log_steadily(100, generator.uniform(0.5, 4))


_ENDS: Final[dict[str, Callable[[Worker, random.Random], None]]] = {
    "returns": _returns,
    "exits": _exits_hard,
    "raises": _raises,
    "crashes": _crashes,
    "lingers": _lingers,
    "closes": _closes_descriptors,
}
_KINDS: Final = (*_ENDS, "returns", "exits", "lingers", "threads", "forks", "execs")


def child(place: Place, kind: str, generator: random.Random) -> None:
    """Live and end as a child of this kind does."""
    worker = Worker(place, kind, generator)
    if kind == "threads":
        _log_in_threads(place, kind, generator)
        worker.log(10)
    elif kind == "forks":
        worker.log(generator.randint(1, 100))
        if os.fork() == 0:
            worker = Worker(place, "forked", generator)
        worker.log(generator.randint(1, 100))
    elif kind == "execs":
        worker.log(generator.randint(1, 100))
        command = [sys.executable, "-m", "stress.programs", "short", *place, "1", "0"]
        os.execv(sys.executable, command)  # noqa: S606 - an exec without a shell is what is tried out
    else:
        _ENDS[kind](worker, generator)


def _log_in_threads(place: Place, kind: str, generator: random.Random) -> None:
    threads = [
        threading.Thread(target=Worker(place, kind, random.Random(generator.random())).log, args=(100,))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# -- the programs -------------------------------------------------------------------------------------


def nest(place: Place, generator: random.Random, rate: float) -> None:
    """Log from threads, and fork children, until told to stop. In a child this returns, too."""
    for _ in range(2):
        worker = Worker(place, "nest", random.Random(generator.random()))
        threading.Thread(target=worker.log_steadily, args=(rate,)).start()
    while not place.stopping():
        time.sleep(generator.uniform(0.05, 0.7))
        kind, seed = generator.choice(_KINDS), generator.random()
        if os.fork() == 0:
            child(place, kind, random.Random(seed))
            return
        _reap()


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def main(arguments: list[str]) -> int:
    """Run the program that the arguments name."""
    program, config, folder, run, harness, seed, rate = arguments
    place = Place(config, folder, run, harness)
    generator = random.Random(f"{program} {seed}")
    redislogkit.configure(config)
    if program == "nest":
        nest(place, generator, float(rate))
    else:
        Worker(place, program, generator).log(generator.randint(1, 200))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

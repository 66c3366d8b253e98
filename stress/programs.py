"""The programs that log while everything around them breaks.

``python -m stress.programs nest CONFIG FOLDER RUN HARNESS SEED RATE`` logs from two threads and forks children
that log and end in every way there is, until a file ``stop`` appears in FOLDER. ``thread-nest`` is one in which a
thread ships, ``short`` one of the children that comes as a program of its own, ``steady`` does nothing but log.
Each worker counts in FOLDER/tallies what it has logged; a nest that reaches its end leaves its own ``stats()`` in
FOLDER/stats.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import redislogkit
from stress.tally import Tally

#: Loggers; one of the writers may take records of the second one only. Workers are named after theirs.
ALL: Final = "all"
SOME: Final = "some"
_PREFIX: Final = "chaos"
NEST: Final = "nest"
THREAD_NEST: Final = "thread-nest"
_FLUSH_TIMEOUT: Final = 60.0
_PACE: Final = 0.02
#: Below it nests fork less often, too.
_USUAL_RATE: Final = 350.0


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
        self.tally = Tally(os.path.join(place.folder, "tallies"), place.run, name, _losses)
        self.logger = logging.getLogger(f"{_PREFIX}.{which}")

    def log(self, records: int) -> None:
        """Log so many records at once."""
        for _ in range(records):
            lines = self._random.randint(2, 6) if self._random.random() < 0.02 else 1
            self.tally.log(self.logger, 1, size=self._size(), lines=lines)

    def log_the_same(self, records: int) -> None:
        """Log so many records that are equal to the letter; the only ones of this worker."""
        self.tally.log(self.logger, records, same=True)

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


_handle: redislogkit.Handle | None = None


def _losses() -> int:
    return 0 if _handle is None else sum(_handle.stats()["lost"].values())


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


def _repeats(worker: Worker, generator: random.Random) -> None:
    """Lines that nobody can tell from one another."""
    for _ in range(generator.randint(1, 20)):
        worker.log_the_same(generator.randint(1, 40))
        time.sleep(generator.uniform(0, 0.1))


def _floods(worker: Worker, generator: random.Random) -> None:
    """More at once than a segment holds."""
    worker.log(generator.randint(800, 3000))
    if generator.random() < 0.5:
        os.kill(os.getpid(), signal.SIGKILL)


_ENDS: Final[dict[str, Callable[[Worker, random.Random], None]]] = {
    "returns": _returns,
    "exits": _exits_hard,
    "raises": _raises,
    "crashes": _crashes,
    "lingers": _lingers,
    "closes": _closes_descriptors,
    "repeats": _repeats,
    "floods": _floods,
}


# -- children that have threads, tasks or children of their own ---------------------------------------


def _threads(place: Place, generator: random.Random) -> None:
    threads = [
        threading.Thread(target=Worker(place, "threads", random.Random(generator.random())).log, args=(100,))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    Worker(place, "threads", generator).log(10)


def _forks(place: Place, generator: random.Random) -> None:
    worker = Worker(place, "forks", generator)
    worker.log(generator.randint(1, 100))
    if os.fork() == 0:
        worker = Worker(place, "forked", generator)
    worker.log(generator.randint(1, 100))


def _execs(place: Place, generator: random.Random) -> None:
    Worker(place, "execs", generator).log(generator.randint(1, 100))
    command = [sys.executable, "-m", "stress.programs", "short", *place, "1", "0"]
    os.execv(sys.executable, command)  # noqa: S606 - an exec without a shell is what is tried out


def _tasks(place: Place, generator: random.Random) -> None:
    """An event loop whose tasks, and threads, log in turns."""

    async def task(worker: Worker) -> None:
        for _ in range(20):
            worker.log(generator.randint(1, 5))
            await asyncio.sleep(generator.uniform(0, 0.02))

    async def main() -> None:
        workers = [Worker(place, "tasks", random.Random(generator.random())) for _ in range(4)]
        inside = [task(worker) for worker in workers[:3]]
        await asyncio.gather(*inside, asyncio.to_thread(workers[3].log, 50))

    asyncio.run(main())


def _recycles(place: Place, generator: random.Random) -> None:
    """A master as those of prefork servers: workers that serve a few requests and are replaced."""
    master = Worker(place, "master", generator)
    for _ in range(generator.randint(3, 8)):
        master.log(2)
        if os.fork() == 0:
            Worker(place, "recycled", generator).log(generator.randint(1, 40))
            if generator.random() < 0.3:
                os._exit(0)
            return
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def _storms(place: Place, generator: random.Random) -> None:
    """Children forked while other threads are in the middle of logging calls."""
    stop = threading.Event()

    def log(worker: Worker) -> None:
        while not stop.is_set():
            worker.log(1)
            time.sleep(0.001)

    threads = [
        threading.Thread(target=log, args=(Worker(place, "storm", random.Random(generator.random())),))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for number in range(generator.randint(4, 12)):
        if os.fork() == 0:
            generator.seed(f"{number} {generator.random()}")
            Worker(place, "stormed", generator).log(generator.randint(1, 10))
            os._exit(0)  # the threads are not here
    stop.set()
    for thread in threads:
        thread.join()
    _reap()


def _daemonises(place: Place, generator: random.Random) -> None:
    """Twice forked, in a session of its own, without the descriptors that it does not know."""
    Worker(place, "parent", generator).log(generator.randint(0, 20))
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            worker = Worker(place, "daemon", generator)
            worker.log(generator.randint(0, 20))
            os.closerange(3, 256)
            worker.log_steadily(100, generator.uniform(0.5, 4))
            return
        os._exit(0)


def _reconfigures(place: Place, generator: random.Random) -> None:
    """Closes everything, and comes again under another name."""
    global _handle
    Worker(place, "before", generator).log(generator.randint(1, 50))
    redislogkit.shutdown(0)
    _handle = redislogkit.configure(place.config)
    Worker(place, "after", generator).log(generator.randint(1, 50))


_FAMILIES: Final[dict[str, Callable[[Place, random.Random], None]]] = {
    "threads": _threads,
    "forks": _forks,
    "execs": _execs,
    "tasks": _tasks,
    "recycles": _recycles,
    "storms": _storms,
    "daemonises": _daemonises,
    "reconfigures": _reconfigures,
}
_KINDS: Final = (*_ENDS, *_FAMILIES, "returns", "exits", "crashes", "lingers", "lingers", "repeats")
#: Who takes the socket of a thread away can not expect it to ship.
_CLOSING: Final = ("closes", "daemonises")


def child(place: Place, kind: str, generator: random.Random) -> None:
    """Live and end as a child of this kind does."""
    if kind in _FAMILIES:
        _FAMILIES[kind](place, generator)
    else:
        _ENDS[kind](Worker(place, kind, generator), generator)


# -- the programs -------------------------------------------------------------------------------------


def nest(place: Place, generator: random.Random, rate: float, kinds: Sequence[str]) -> None:
    """Log from threads, and fork children, until told to stop. In a child this returns, too."""
    workers = [Worker(place, "nest", random.Random(generator.random())) for _ in range(2)]
    threads = [threading.Thread(target=worker.log_steadily, args=(rate,)) for worker in workers]
    for thread in threads:
        thread.start()
    while not place.stopping():
        time.sleep(generator.uniform(0.05, 0.7) * max(1.0, _USUAL_RATE / (2 * rate)))
        kind, seed = generator.choice(kinds), generator.random()
        if os.fork() == 0:
            child(place, kind, random.Random(seed))
            return
        _reap()
    for thread in threads:
        thread.join()
    _leave_stats(place, sum(worker.tally.count for worker in workers))


def steady(place: Place, rate: float) -> None:
    """Log ``rate`` records a second until told to stop, whatever the calls take."""
    worker = Worker(place, "steady", random.Random(0))
    began, logged = time.monotonic(), 0
    while not place.stopping():
        due = int((time.monotonic() - began) * rate) - logged
        worker.tally.log(worker.logger, max(due, 0), size=100)
        logged += max(due, 0)
        time.sleep(_PACE)


def _leave_stats(place: Place, logged: int) -> None:
    """What this process says of itself once everything is written, beside what it has really logged."""
    assert _handle is not None
    flushed, deadline = False, time.monotonic() + _FLUSH_TIMEOUT
    while not flushed and time.monotonic() < deadline:
        flushed = _handle.flush(_FLUSH_TIMEOUT)  # False at once where no supervisor runs for the moment
        time.sleep(_PACE)
    path = os.path.join(place.folder, "stats", str(os.getpid()))
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump({**_handle.stats(), "logged": logged, "flushed": flushed}, file)
    os.rename(f"{path}.new", path)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _overrides(program: str) -> dict[str, str]:
    return {"producer.ship": "thread"} if program == THREAD_NEST else {}


def main(arguments: list[str]) -> int:
    """Run the program that the arguments name."""
    global _handle
    program, config, folder, run, harness, seed, rate = arguments
    place = Place(config, folder, run, harness)
    generator = random.Random(f"{program} {seed}")
    _handle = redislogkit.configure(config, **_overrides(program))
    if program.endswith("nest"):
        kinds = [kind for kind in _KINDS if program == NEST or kind not in _CLOSING]
        nest(place, generator, float(rate), kinds)
    elif program == "steady":
        steady(place, float(rate))
    else:
        Worker(place, program, generator).log(generator.randint(1, 200))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The load: many producers against one stream, some of them killed, and what became of their records."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import redislogkit
from redislogkit import config as configuration
from redislogkit import locking
from redislogkit.config import Config, FileWriterConfig
from redislogkit.errors import ConfigError, LockHeldError
from redislogkit.stream import address
from redislogkit.stream.client import StreamClient
from stress.checker import Report, check, rotated_files
from stress.tally import Tally, counts

LOGGER = "stress"
_POLL = 0.001
_SLOW_POLL = 0.02
#: Seconds that a supervisor has for ending after SIGTERM.
_STOP_TIMEOUT = 30.0


@dataclass(frozen=True)
class Plan:
    """One run. Times are in seconds."""

    producers: int
    records: int
    """Records of each producer, in all its threads together."""
    threads: int
    size: int
    """Characters of a message."""
    start_method: str
    kill: float
    """Share of the producers that get SIGKILL."""
    seed: int
    deadline: float
    source: str | Mapping[str, Any]
    """Configuration, as for ``redislogkit.configure``."""
    overrides: Mapping[str, Any]
    own: bool
    """The configuration is ours alone: stop its supervisor at the end, delete its stream."""

    def shares(self) -> list[int]:
        """Records of each thread of a producer."""
        share, rest = divmod(self.records, self.threads)
        return [share + (thread < rest) for thread in range(self.threads)]

    def victims(self) -> dict[int, int]:
        """Producers to kill, with the number of records after which each one dies."""
        generator = random.Random(self.seed)
        chosen = generator.sample(range(self.producers), round(self.kill * self.producers))
        return {index: generator.randrange(self.records + 1) for index in sorted(chosen)}


@dataclass(frozen=True)
class Result:
    """What came out of a run."""

    report: Report
    seconds: float
    """From the start of all producers until the last record was in the file."""
    files: int
    failures: tuple[str, ...]
    """What else went wrong, in words."""


def destination(config: Config) -> FileWriterConfig:
    """Return the file writer whose files are checked: the first. Raises ``ConfigError``."""
    for writer in config.writers.values():
        if isinstance(writer, FileWriterConfig):
            return writer
    raise ConfigError(['writers: a stress run checks the files of a writer with type = "file", got none'])


def run(plan: Plan, folder: str) -> Result:
    """Start the producers, kill some, wait until everything is written, and check.

    ``folder`` is for the counts. Raises ``ConfigError``.
    """
    config = configuration.load(plan.source, plan.overrides)
    writer = destination(config)
    name = f"s{os.urandom(4).hex()}"
    failures: list[str] = []
    try:
        gate = _drive(plan, folder, name, config, failures)
    finally:
        if plan.own:
            _clean_up(config)
    files = rotated_files(writer.path)
    report = check(files, _expected(plan, folder), name, in_doubt=1 if plan.kill else 0)
    end = max((os.stat(file).st_mtime for file in files), default=gate)
    return Result(report, max(end - gate, 0.001), len(files), tuple(failures))


def _drive(plan: Plan, folder: str, name: str, config: Config, failures: list[str]) -> float:
    """Return when the producers began, in seconds since the epoch, once everything is written."""
    strangers = _spools(config)
    # The parent only configures: forked producers inherit that, and the supervisor starts early.
    redislogkit.configure(plan.source, **plan.overrides)
    with _producers(plan, folder, name) as processes:
        gate = time.time()
        _kill_and_join(plan, folder, processes, failures)
    redislogkit.shutdown(0)
    if not _wait(lambda: _spools(config) <= strangers, plan.deadline):
        failures.append(f"not everything was written within {plan.deadline:g} s; see {config.stream_dir}")
    return gate


def _clean_up(config: Config) -> None:
    """End the supervisor of a stream that is ours alone, wait until it is gone, delete the stream.

    Raises ``LockHeldError`` when it does not end in time.
    """
    path = os.path.join(config.stream_dir, "supervisor.lock")
    lock = locking.OwnedLock(path, f"stream {config.stream.name!r} of this run")
    try:
        lock.acquire()
    except LockHeldError:
        os.kill(int(locking.read_owner(path)["pid"]), signal.SIGTERM)
        lock.acquire(_STOP_TIMEOUT)
    lock.release()
    if not address.is_embedded(config):
        client = StreamClient(address.resolve(config), config.stream.name)
        client.delete_stream()
        client.close()


# -- the producers ------------------------------------------------------------------------------


@contextlib.contextmanager
def _producers(plan: Plan, folder: str, run_name: str) -> Iterator[list[Any]]:
    """Start the producers; when all are ready they begin at once. None of them is left behind."""
    context = multiprocessing.get_context(plan.start_method)
    barrier = context.Barrier(plan.producers + 1)
    victims = plan.victims()
    processes = [
        context.Process(  # type: ignore[attr-defined]  # not every context has it, those that we choose from do
            target=_produce, args=(plan, folder, run_name, index, barrier, index in victims), daemon=True
        )
        for index in range(plan.producers)
    ]
    try:
        for process in processes:
            process.start()
        barrier.wait(plan.deadline)
        yield processes
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()


def _produce(plan: Plan, folder: str, run_name: str, index: int, barrier: Any, victim: bool) -> None:
    handle = redislogkit.configure(plan.source, **plan.overrides)
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.INFO)
    level = max(logging.INFO, handle.config.producer.level, destination(handle.config).level)
    tallies = [Tally(folder, run_name, _worker(index, thread)) for thread in range(plan.threads)]
    threads = [
        threading.Thread(
            target=tally.log, args=(logger, share), kwargs={"size": plan.size, "level": level}, daemon=True
        )
        for tally, share in zip(tallies, plan.shares(), strict=True)
    ]
    barrier.wait(plan.deadline)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while victim:
        signal.pause()  # it was faster than its killer, who is on his way


def _worker(index: int, thread: int) -> str:
    return f"p{index}t{thread}"


def _kill_and_join(plan: Plan, folder: str, processes: list[Any], failures: list[str]) -> None:
    victims = plan.victims()
    end = time.monotonic() + plan.deadline
    while victims and time.monotonic() < end:
        logged = counts(folder)
        for index, moment in list(victims.items()):
            if sum(logged.get(_worker(index, thread), 0) for thread in range(plan.threads)) >= moment:
                processes[index].kill()
                del victims[index]
        time.sleep(_POLL)
    for index, process in enumerate(processes):
        process.join(max(0.0, end - time.monotonic()))
        wanted = -signal.SIGKILL if index in plan.victims() else 0
        if process.exitcode != wanted:
            failures.append(f"producer {index} ended with {process.exitcode}, not with {wanted}")


def _expected(plan: Plan, folder: str) -> dict[str, int]:
    """Of the killed, what they had counted; of the others, what they had to log."""
    logged = counts(folder)
    killed = plan.victims()
    return {
        worker: logged.get(worker, 0) if index in killed else share
        for index in range(plan.producers)
        for thread, share in enumerate(plan.shares())
        for worker in [_worker(index, thread)]
    }


# -- waiting ------------------------------------------------------------------------------------


def _spools(config: Config) -> frozenset[str]:
    """Spools that are not written and removed yet."""
    try:
        names = os.listdir(os.path.join(config.stream_dir, "spool"))
    except FileNotFoundError:
        return frozenset()
    return frozenset(names)


def _wait(condition: Callable[[], bool], deadline: float) -> bool:
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(_SLOW_POLL)
    return True

"""One race: producers that begin at the same moment, and the clock until every line can be read in the files.

That moment is the last change of the files: it is known to a few milliseconds, and nobody has to look at the files
meanwhile. CPU is counted from the gate until everything is written: of the producers by themselves, of all others
by the kernel.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

from stress import processes
from stress.bench import lines
from stress.bench.contenders.base import Contender
from stress.bench.contenders.entry import ENTRIES
from stress.bench.lines import Check
from stress.bench.shapes import TEXTS, Shape, texts

#: Records of each producer before the gate: files are open and everything runs then.
WARM_UP: Final = 10


@dataclass(frozen=True)
class Run:
    """What came out of one race."""

    records: int
    """Records that were raced, all producers together."""
    seconds: float
    """From the gate until the last line could be read."""
    calling: float
    """From the gate until the last logging call had returned."""
    cpu: float
    """CPU seconds of all processes."""
    helpers_cpu: float
    """Those of them that are not the producers'."""
    others: float
    """Share of the machine that somebody else had meanwhile, the host of a virtual one included."""
    check: Check

    @property
    def rate(self) -> float:
        """Records a second into the files."""
        return self.records / self.seconds

    @property
    def calls(self) -> float:
        """Logging calls a second, while they lasted."""
        return self.records / self.calling

    @property
    def cpu_per_record(self) -> float:
        """CPU seconds."""
        return self.cpu / self.records


def run(folder: str, name: str, shape: Shape) -> Run:
    """Race one contender; needs a process of its own. Raises ``TimeoutError`` and what the contender raises."""
    contender = ENTRIES[name].kind(folder, shape)
    contender.open()
    try:
        with _producers(contender, shape) as links:
            for link in links:
                _expect(link, shape.deadline)
            before = processes.usage(contender.helpers())
            machine, gate = processes.busy(), time.time()
            for link in links:
                link.send(None)
            reports = [_expect(link, shape.deadline) for link in links]
            contender.settle()
            helpers = processes.used(before, processes.usage(contender.helpers()))
            busy, elapsed = processes.busy() - machine, time.time() - gate
    finally:
        contender.close()
    files = contender.files()
    # The kernel notes changes with its coarse clock: no line can be read before it was logged.
    called = max(called for _, called in reports)
    end = max([called, *(os.stat(file).st_mtime for file in files)])
    cpu = helpers + sum(used for used, _ in reports)
    return Run(
        records=shape.total,
        seconds=end - gate,
        calling=called - gate,
        cpu=cpu,
        helpers_cpu=helpers,
        others=max(0.0, busy - cpu) / (elapsed * processes.CORES),
        check=_check(files, shape),
    )


def _check(files: list[str], shape: Shape) -> Check:
    if not files:  # nothing is kept, and nothing is claimed
        return Check()
    return lines.check(files, shape.producers, WARM_UP + shape.records, shape.text_length)


@contextlib.contextmanager
def _producers(contender: Contender, shape: Shape) -> Iterator[list[Connection]]:
    context = multiprocessing.get_context("fork")
    messages = texts(shape.text_length)
    gc.collect()
    gc.freeze()
    pairs = [context.Pipe() for _ in range(shape.producers)]
    started = [
        context.Process(target=_produce, args=(contender, shape, index, theirs, messages), daemon=True)
        for index, (_, theirs) in enumerate(pairs)
    ]
    try:
        for process in started:
            process.start()
        for _, theirs in pairs:
            theirs.close()
        yield [ours for ours, _ in pairs]
        for process in started:
            process.join(shape.deadline)
    finally:
        for process in started:
            if process.pid is not None:
                process.kill()
                process.join()


def _produce(contender: Contender, shape: Shape, index: int, link: Any, messages: list[str]) -> None:
    log, ready, finish = contender.attach(index)
    template = contender.template
    for number in range(WARM_UP):
        log(template, index, number, messages[number])
    ready()
    link.send(None)
    link.recv()
    began = time.process_time()
    for number in range(WARM_UP, WARM_UP + shape.records):
        log(template, index, number, messages[number % TEXTS])
    called = time.time()
    finish()
    link.send((time.process_time() - began, called))


def _expect(link: Connection, timeout: float) -> Any:
    if not link.poll(timeout):
        raise TimeoutError(f"a producer has said nothing for {timeout:g} s")
    return link.recv()

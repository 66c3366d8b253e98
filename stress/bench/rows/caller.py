"""What a logging call costs its thread.

For each kind of logging a process of its own, since a fast logger would be one for all. They take turns of a fraction of
a second; while one calls, the others wait. The supervisor runs and drains what is logged, as it would anywhere.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, Final

from stress.bench.contenders.base import Contender
from stress.bench.contenders.entry import ENTRIES, FAST, LIMIT, OWN, YARDSTICK
from stress.bench.figures import Spread, quantile
from stress.bench.goals import Figure
from stress.bench.shapes import PERCENT, TEXTS, Shape, texts

#: So short that most blocks are not interrupted by whoever else wants the core; singles are for the tail.
_BLOCK: Final = 100
_BLOCKS: Final = 200
_TIMEOUT: Final = 60.0


def measure(folder: str, size: int, rounds: int) -> list[Figure]:
    """Return both rows, with what else a call costs in the notes."""
    shape = Shape(producers=1, size=size, records=2 * rounds * _BLOCK * _BLOCKS)
    names = [name for name in (LIMIT, YARDSTICK, OWN, FAST) if not ENTRIES[name].missing()]
    contenders = {name: ENTRIES[name].kind(folder, shape) for name in names}
    for contender in contenders.values():
        contender.open()  # here, as two of them write the same file
    links = {name: _start(contender, size) for name, contender in contenders.items()}
    for link in links.values():
        _turn(link)  # the first one warms everything
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in links}
    for _ in range(rounds):
        for name, link in links.items():
            found[name].append(_turn(link))
    for link in links.values():
        link.send(False)
        link.recv()
    for contender in contenders.values():
        contender.close()
    return _figures(found)


def _start(contender: Contender, size: int) -> Connection:
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    context.Process(target=_serve, args=(contender, theirs, size), daemon=True).start()
    theirs.close()
    return ours


def _turn(link: Connection) -> tuple[float, float]:
    link.send(True)
    if not link.poll(_TIMEOUT):
        raise TimeoutError(f"a caller has said nothing for {_TIMEOUT:g} s")
    found: tuple[float, float] = link.recv()
    return found


def _serve(contender: Contender, link: Any, size: int) -> None:
    """Measure whenever told to: microseconds of a call, and its 99.9th percentile."""
    producer = contender.attach(0)
    messages = texts(Shape(size=size).text_length)
    while link.recv():
        blocks = [_block(producer.log, messages) for _ in range(_BLOCKS)]
        singles = _singles(producer.log, messages)
        producer.ready()  # nothing is left to be drained while others have their turn
        link.send((statistics.median(blocks), quantile(singles, 0.999)))
    link.send(None)


def _block(log: Callable[..., object], messages: list[str]) -> float:
    numbers = range(_BLOCK)
    began = time.perf_counter_ns()
    for number in numbers:
        log(PERCENT, 0, number, messages[number])
    return (time.perf_counter_ns() - began) / _BLOCK / 1000


def _singles(log: Callable[..., object], messages: list[str]) -> list[float]:
    found = []
    clock = time.perf_counter_ns
    for number in range(_BLOCK * _BLOCKS):
        text = messages[number % TEXTS]
        began = clock()
        log(PERCENT, 0, number, text)
        found.append((clock() - began) / 1000)
    return found


def _figures(found: Mapping[str, list[tuple[float, float]]]) -> list[Figure]:
    null = [cost for cost, _ in found[LIMIT]]
    stock = [cost - base for (cost, _), base in zip(found[OWN], null, strict=True)]
    figures = [Figure("caller-stock", stock, _note(found))]
    if FAST in found:
        fast = [cost / base for (cost, _), base in zip(found[FAST], null, strict=True)]
        figures.append(Figure("caller-fast", fast))
    else:
        figures.append(Figure("caller-fast", [], ENTRIES[FAST].missing()))
    return figures


_TITLES: Final = {LIMIT: "NullHandler", OWN: "stock", FAST: "fast", YARDSTICK: "FileHandler"}


def _note(found: Mapping[str, list[tuple[float, float]]]) -> str:
    parts = []
    for name, turns in found.items():
        cost, worst = map(Spread.of, zip(*turns, strict=True))
        parts.append(f"{_TITLES[name]} {cost.median:.2f} us, p99.9 {worst.median:.0f} us")
    return "; ".join(parts)

"""What a drill will do: who logs how much, into which files it can be checked, and which faults there will be. Pure."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import Final, NamedTuple

from redislogkit import escaping, formatting, selection
from redislogkit.config import Config, FileWriterConfig
from redislogkit.drill.producers import LOGGER
from redislogkit.drill.records import MARKER, message
from redislogkit.drill.victims import SERVER, SHIPPER, SUPERVISOR, WRITER
from redislogkit.record import Facts, build

KILL: Final = "kill"
STOP: Final = "stop"
PRODUCER: Final = "producer"

_USUAL_RATE: Final = 50.0
_LOWEST_RATE: Final = 1.0
#: A drill must not push the user's own lines out of their backups.
_SHARE: Final = 8
_LONGEST_STOP: Final = 1.5
_SHORTEST_STOP: Final = 0.2


class Fault(NamedTuple):
    """One thing that is done on purpose."""

    at: float
    """Seconds after the beginning."""
    what: str
    """``kill`` or ``stop``."""
    whom: str
    seconds: float
    """How long somebody is stopped."""
    choice: float
    """Which of several: from 0 to 1."""

    @property
    def kind(self) -> str:
        """As it is called in the result."""
        return f"{self.what}.{self.whom}"


class Target(NamedTuple):
    """A file writer, and how the drill's records look in its file."""

    name: str
    config: FileWriterConfig
    in_line: int
    """How often the message stands in a line."""
    size: int
    """Bytes of a record."""
    why_not: str
    """Why nothing can be counted there; empty if it can."""


def targets(config: Config, level: int) -> list[Target]:
    """Return all file writers, with what records of ``level`` look like there."""
    return [
        _target(name, writer, level)
        for name, writer in config.writers.items()
        if isinstance(writer, FileWriterConfig)
    ]


def _target(name: str, writer: FileWriterConfig, level: int) -> Target:
    if not selection.selects(writer.loggers, LOGGER):
        return Target(name, writer, 0, 0, f"it does not take the logger {LOGGER}")
    if level < writer.level:
        return Target(name, writer, 0, 0, f"it takes no {logging.getLevelName(level)}")
    if writer.filter is not None:
        return Target(name, writer, 0, 0, "it has a filter, which may leave out what the drill logs")
    token = message("0" * 6, 999_999, 10**9).partition("]")[0] + "]"
    line = _line(writer, token, level)
    in_line = line.count(token)
    broken = (
        line.count(MARKER) != in_line or not in_line or any(token not in part for part in line.split("\n"))
    )
    why_not = "its format does not have the whole message in one line" if broken else ""
    return Target(name, writer, in_line, len(line.encode()) + 1, why_not)


def _line(writer: FileWriterConfig, text: str, level: int) -> str:
    """Return what the writer makes of such a record."""
    record = build(
        created=0.0,
        levelno=level,
        levelname=str(logging.getLevelName(level)),
        name=LOGGER,
        message=text,
        pathname=__file__,
        lineno=1,
        function="_log",
        thread=1,
        thread_name="MainThread",
    )
    facts = Facts("0" * 12, "host", 10**6, "MainProcess", 0.0, 0)
    line = formatting.build(writer.formatter)(record, facts, 1)
    return line if writer.multiline == "keep" else escaping.apply_multiline(line, writer.multiline)


def usual_level(config: Config) -> int:
    """INFO, or what the producers take at least."""
    return max(logging.INFO, config.producer.level)


def usual_rate(those: Sequence[Target], producers: int, seconds: float) -> float:
    """Records a second of each producer, so that what is in the backups stays there."""
    rate = _USUAL_RATE
    for target in those:
        kept = room(target.config)
        if kept and target.size:
            rate = min(rate, kept / _SHARE / target.size / producers / seconds)
    return max(rate, _LOWEST_RATE)


def room(writer: FileWriterConfig) -> int:
    """Bytes that a writer keeps in all; 0 where nothing bounds them."""
    bounds = [writer.max_total_bytes or 0]
    if writer.max_bytes and writer.backup_count:
        bounds.append(writer.max_bytes * writer.backup_count)
    return min(filter(None, bounds), default=0)


def faults(
    config: Config, seed: int, seconds: float, number: int, *, embedded: bool, supervisor: bool
) -> list[Fault]:
    """Return so many faults, spread over the time.

    ``embedded`` says that there is a server of ours, ``supervisor`` that the supervisor may be hit. No child is
    killed so often that it would be given up, or stopped for so long that it would be killed.
    """
    generator = random.Random(seed)
    whom = [WRITER, SHIPPER, *([SERVER] if embedded else []), *([SUPERVISOR] if supervisor else [])]
    kinds = [(KILL, PRODUCER), *((what, name) for name in whom for what in (KILL, STOP))]
    left = dict.fromkeys((WRITER, SHIPPER, SERVER), config.supervisor.max_restarts // 2)
    longest = min(_LONGEST_STOP, config.supervisor.heartbeat_timeout / 3)
    found: list[Fault] = []
    round_of: list[tuple[str, str]] = []
    for n in range(number):
        if not round_of:
            round_of = generator.sample(kinds, len(kinds))
        what, name = round_of.pop()
        if what == KILL and name in left:
            left[name] -= 1
            if left[name] < 0:
                what = STOP
        at = (n + generator.uniform(0.1, 0.9)) * seconds / number
        found.append(Fault(at, what, name, generator.uniform(_SHORTEST_STOP, longest), generator.random()))
    return found

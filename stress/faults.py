"""What is broken when: the seeded plan of a chaos run. Pure: the same seed gives the same plan."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

PROXY: Final = "proxy"
EMBEDDED: Final = "embedded"
HARNESS: Final = "harness"
AUTOSTART: Final = "autostart"


class Kind(NamedTuple):
    """A kind of fault."""

    name: str
    weight: int
    """How many cards of it are in the deck that the plan is dealt from."""
    longest: float
    """Seconds that it lasts at most; for a kill, that the victim stays dead where the harness restarts it."""
    server: str = ""
    """Only with this kind of server; empty: with any."""


KINDS: Final = (
    Kind("kill.producer", 4, 0),
    Kind("kill.nest", 1, 0.5),
    Kind("kill.writer", 3, 0),
    Kind("kill.shipper", 2, 0),
    Kind("kill.server", 2, 2),
    Kind("kill.supervisor", 2, 2),
    Kind("kill.tree", 1, 2),
    Kind("kill.all", 1, 2),
    # SIGKILL in the moment in which something has happened on the disk.
    Kind("at.write", 4, 0),
    Kind("at.checkpoint", 2, 0),
    Kind("at.rotation", 3, 0),
    Kind("at.spool", 1, 0),
    Kind("at.burial", 1, 0),
    # Faults that follow one another within a few hundred milliseconds.
    Kind("twice.writer-flush", 3, 0.4),
    Kind("twice.recovery", 2, 0.4),
    Kind("twice.rotation", 2, 0.4),
    Kind("twice.drain", 2, 1),
    Kind("twice.stall", 1, 4),
    Kind("twice.tree-flush", 1, 1),
    Kind("twice.disk", 2, 2),
    Kind("twice.network", 2, 1, PROXY),
    Kind("term.supervisor", 1, 1),
    Kind("term.child", 1, 0),
    Kind("second.supervisor", 1, 0),
    Kind("stop.producer", 1, 3),
    Kind("stop.producers", 1, 4),
    Kind("stop.writer", 2, 6),
    Kind("stop.shipper", 2, 6),
    Kind("stop.server", 2, 6),
    Kind("stop.supervisor", 1, 6),
    Kind("net.cut", 2, 0, PROXY),
    Kind("net.down", 1, 3, PROXY),
    Kind("net.stall", 1, 5, PROXY),
    Kind("net.slow", 1, 4, PROXY),
    Kind("net.lost-reply", 2, 0, PROXY),
    Kind("net.mid-reply", 2, 0, PROXY),
    Kind("net.mid-request", 1, 0, PROXY),
    Kind("redis.flush", 1, 0),
    Kind("redis.delete", 1, 0),
    Kind("redis.delete-part", 2, 0),
    Kind("redis.evict", 1, 2),
    Kind("redis.oom", 1, 3),
    Kind("redis.readonly", 1, 3),
    Kind("redis.wrong-type", 1, 2),
    Kind("redis.drop-group", 1, 0),
    Kind("redis.kick", 1, 0),
    Kind("redis.empty", 1, 2, PROXY),
    Kind("redis.rollback", 2, 5, PROXY),
    Kind("disk.full", 2, 4),
    Kind("disk.state-full", 2, 3),
    Kind("file.rename", 2, 0),
    Kind("file.append", 1, 0),
    Kind("clock.jump", 1, 5),
)
NAMES: Final = tuple(kind.name for kind in KINDS)

_ON_SMALL_DISK: Final = frozenset(["disk.full", "disk.state-full", "twice.disk"])

#: Lines of JSON; messages without anything else; few backups that come and go.
JSON: Final = "json"
PLAIN: Final = "plain"
BOUNDED: Final = "bounded"
MORE_WRITERS: Final = (JSON, PLAIN, BOUNDED)

_FIRST_FAULT: Final = 1.0
_SHORTEST: Final = 0.05


class Fault(NamedTuple):
    """One fault of a plan."""

    at: float
    """Seconds after the start."""
    kind: str
    seconds: float
    """How long it lasts."""
    choice: float
    """0 to 1: which of the possible victims."""

    def __str__(self) -> str:
        return f"{self.at:8.3f} {self.kind:<16} {self.seconds:6.3f} s, choice {self.choice:.3f}"


class SetUp(NamedTuple):
    """What stands there to be broken."""

    server: str
    """`PROXY`: a TCP server of the harness behind a proxy; `EMBEDDED`: the supervisor's own."""
    supervisor: str
    """`HARNESS`: a child of the harness, restarted by it; `AUTOSTART`: started by whoever logs."""
    layout: str
    fsync: str
    selective: bool
    """One of the writers takes only part of the records."""
    writers: tuple[str, ...]
    """Those beside the usual two."""
    fast: bool
    """The programs have fast loggers."""

    def __str__(self) -> str:
        which = ("selective" if self.selective else "all", "fast" if self.fast else "stock")
        return ",".join([*self[:4], *which, *self.writers])


def set_up(seed: int, server: str = "", supervisor: str = "") -> SetUp:
    """Return the set-up of a seed; ``server`` and ``supervisor`` may be given."""
    generator = random.Random(f"set-up {seed}")
    drawn = SetUp(
        server=generator.choice((PROXY, PROXY, EMBEDDED)),
        supervisor=generator.choice((HARNESS, HARNESS, AUTOSTART)),
        layout=generator.choice(("batches", "batches", "records")),
        fsync=generator.choice(("never", "rotation", "interval", "always")),
        selective=generator.random() < 0.5,
        writers=tuple(sorted(generator.sample(MORE_WRITERS, generator.choice((1, 1, 2, 3))))),
        fast=generator.random() < 0.7,
    )
    return drawn._replace(server=server or drawn.server, supervisor=supervisor or drawn.supervisor)


def possible(chosen: Collection[str], server: str, *, disk: bool) -> list[Kind]:
    """Return the kinds that can happen, of the ``chosen`` ones: a name, or a family (``kill``)."""
    return [
        kind
        for kind in KINDS
        if (not chosen or kind.name in chosen or kind.name.partition(".")[0] in chosen)
        and kind.server in ("", server)
        and (disk or kind.name not in _ON_SMALL_DISK)
    ]


def plan(seed: int, seconds: float, per_minute: float, kinds: Sequence[Kind]) -> list[Fault]:
    """Return the faults in the order of their times."""
    generator = random.Random(f"plan {seed}")
    number = round(per_minute * seconds / 60) if kinds else 0
    moments = sorted(generator.uniform(_FIRST_FAULT, max(seconds, _FIRST_FAULT)) for _ in range(number))
    names = _deal(generator, kinds, number)
    return [
        Fault(moment, kind.name, _duration(generator, kind.longest), generator.random())
        for moment, kind in zip(moments, names, strict=True)
    ]


def _deal(generator: random.Random, kinds: Sequence[Kind], number: int) -> list[Kind]:
    """Deal from a shuffled deck again and again, so that a short run sees most kinds, too."""
    deck = [kind for kind in kinds for _ in range(kind.weight)]
    dealt: list[Kind] = []
    while len(dealt) < number:
        generator.shuffle(deck)
        dealt += deck
    return dealt[:number]


def _duration(generator: random.Random, longest: float) -> float:
    """Short ones more often than long ones."""
    drawn = generator.random()
    if longest <= _SHORTEST:
        return 0.0
    return float(_SHORTEST * (longest / _SHORTEST) ** drawn)

"""Kills a process at each of its calls and stores in turn.

What a SIGKILL leaves behind is decided by what the process had done to the world until then: files, shared pages,
commands sent to the server. So a run has as many different ends as it makes such steps, and a point is "before
step N", N = 1, 2, 3 … until the run ends without the fault (after a step is before the next one). Some steps
can be cut in the middle, and a command may reach the server long after its sender has died. Hence these ways:

``before``  dies before its Nth step;
``half``    dies in the middle of its Nth write or store;
``late``    dies at its Nth command, which the server gets while the successor is at work already.

``instruction`` dies before the Nth instruction of the spool's modules: more points, and no other ends.

The product knows nothing of all this: a child that has been forked for one run replaces ``os``'s functions,
``open``, maps, header words and the client's one way to the server with counting ones.
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import importlib
import io
import mmap
import os
import pickle
import random
import shutil
import signal
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NamedTuple, NoReturn

import redis

from redislogkit import zstd
from redislogkit.ship import shipper as shipping
from redislogkit.spool import header, segment
from redislogkit.stream.client import StreamClient, _scripts
from redislogkit.writers import base
from tests.helpers.server import client
from tests.helpers.spools import at_step, memory_folder

#: Functions of ``os`` that change something outside of the process. ``open`` counts where it may create.
CALLS: Final = (
    "write", "pwrite", "fsync", "fdatasync", "ftruncate", "truncate", "posix_fallocate", "open", "rename", "replace",
    "link", "unlink", "remove", "mkdir", "rmdir", "mkfifo", "fchmod", "fchown", "utime", "posix_spawn", "fork", "kill",
)  # fmt: skip
#: Of these, what writes its second argument and may stop in the middle.
_HALVED: Final = frozenset(["write", "pwrite"])
_CREATING: Final = os.O_CREAT | os.O_TRUNC
LATE: Final = "late-command"
#: So many failures tell enough.
_ENOUGH: Final = 5
#: A run that takes longer hangs.
_LONGEST_RUN: Final = 20.0


class Point(NamedTuple):
    """Where a run dies."""

    number: int
    how: str = "before"

    def __str__(self) -> str:
        return f"{self.how} {self.number}"


@dataclass
class Place:
    """Where one run and those that follow it happen: a folder and a stream of their own."""

    folder: str
    url: str
    stream: str = field(default_factory=lambda: f"crash{uuid.uuid4().hex[:12]}")

    def path(self, *parts: str) -> str:
        """A path in the folder."""
        return os.path.join(self.folder, *parts)

    @property
    def state(self) -> str:
        """Folder of everything that belongs to the stream."""
        return self.path(self.stream)

    @property
    def spool(self) -> str:
        """Folder of the spools, where a configuration with this state directory and stream has it."""
        return os.path.join(self.state, "spool")

    def connect(self) -> StreamClient:
        """The product's own client of the stream."""
        return StreamClient(self.url, self.stream)

    def flush(self, *, only_stream: bool = False) -> None:
        """The server loses what it knows of this stream, and only of this one; or just the entries."""
        with client(self.url) as connection:
            pattern = f"*{self.stream}*"
            keys = [self.stream] if only_stream else list(connection.scan_iter(match=pattern, count=1000))
            if keys:
                connection.delete(*keys)


class Faults:
    """Counts the steps of this process and ends it at one of them."""

    def __init__(self, point: Point | None, place: Place, delayed: int = 0) -> None:
        self._point = point
        self._left = point.number if point else 0
        self._place = place
        self._delayed = delayed  # a late command is carried out before this many of our own
        self._off = 0

    def install(self) -> None:
        """Replace everything by which this process changes something."""
        for name in CALLS:
            if hasattr(os, name):  # not every system has all of them
                setattr(os, name, self._counted(name, getattr(os, name)))
        # Its own children are other processes, each of which is a scene's own affair.
        os.register_at_fork(after_in_child=self._disarm)
        self._install_open()
        self._install_maps()
        self._install_stream()

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """What is done here is somebody else's, and no step of this run."""
        self._off += 1
        try:
            yield
        finally:
            self._off -= 1

    def _disarm(self) -> None:
        self._point, self._delayed = None, 0

    def at_instruction(self) -> contextlib.AbstractContextManager[None]:
        """While this lasts, instructions are counted where the point is one of them."""
        if self._point is None or self._point.how != "instruction":
            return contextlib.nullcontext()
        return at_step(self._point.number, die)

    # -- one step -------------------------------------------------------------------------------

    def step(self, half: Callable[[], object] | None = None) -> None:
        """The next step is about to be done; ``half`` does the first half of it, where there is one."""
        if self._off or self._point is None or self._point.how in ("late", "instruction"):
            return
        if self._point.how == "half" and half is None:
            return
        self._left -= 1
        if self._left == 0:
            self._off += 1
            if self._point.how == "half" and half is not None:
                half()
            die()

    def command(self, command: tuple[Any, ...]) -> None:
        """The next command is about to be sent."""
        if self._off:
            return
        if self._delayed:
            self._delayed -= 1
            if self._delayed == 0:
                self._carry_out_late()
        if self._point is not None and self._point.how == "late":
            self._left -= 1
            if self._left == 0:
                self._off += 1
                with open(self._place.path(LATE), "wb") as file:
                    pickle.dump(command, file)
                die()
        self.step()

    def _carry_out_late(self) -> None:
        """What the predecessor had sent arrives at last; nobody sees the answer."""
        with self.suspended(), contextlib.suppress(FileNotFoundError, redis.RedisError):
            with open(self._place.path(LATE), "rb") as file:
                command = pickle.load(file)
            with client(self._place.url) as connection:
                connection.execute_command(*command)

    # -- what is counted ------------------------------------------------------------------------

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if name != "open" or args[1] & _CREATING:
                self.step((lambda: real(args[0], _front(args[1]), *args[2:])) if name in _HALVED else None)
            return real(*args, **options)

        return call

    def _install_open(self) -> None:
        faults = self
        real = builtins.open

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                faults.step(lambda: super(File, self).write(_front(data)))
                return super().write(data)

        def opened(file: Any, mode: str = "r", buffering: int = -1, *args: Any, **options: Any) -> Any:
            kinds = set(mode) - set("bt")
            if kinds == {"r"} or args or options.get("opener"):
                return real(file, mode, buffering, *args, **options)
            if isinstance(file, (str, bytes, os.PathLike)) and kinds & set("wxa"):
                faults.step()
            raw = File(file, "".join(sorted(kinds)), options.pop("closefd", True))
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in kinds else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, **options)

        setattr(builtins, "open", opened)  # noqa: B010 - mypy would refuse the plain assignment

    def _install_maps(self) -> None:
        faults = self

        class Map(mmap.mmap):
            def __setitem__(self, place: Any, data: Any) -> None:
                def half() -> None:
                    front = _front(data)
                    super(Map, self).__setitem__(slice(place.start, place.start + len(front)), front)

                faults.step(half)
                super().__setitem__(place, data)

        class Frame:
            size = segment.FRAME.size
            pack = segment.FRAME.pack
            unpack_from = segment.FRAME.unpack_from

            @staticmethod
            def pack_into(buffer: Any, position: int, *values: Any) -> None:
                with faults.suspended():
                    content = Frame.pack(*values)
                buffer[position : position + Frame.size] = content

        class Words:
            def __init__(self, view: Any) -> None:
                self._view = view

            def __getitem__(self, number: int) -> Any:
                return self._view[number]

            def __setitem__(self, number: int, value: int) -> None:
                faults.step()
                self._view[number] = value

            def __iter__(self) -> Iterator[int]:
                return iter(self._view.tobytes())  # as what copies the page's bytes sees it

            def release(self) -> None:
                self._view.release()

        real = header.Header._load

        def load(page: header.Header) -> None:
            real(page)
            page.words = Words(page.words)  # type: ignore[assignment]

        setattr(mmap, "mmap", Map)  # noqa: B010 - see above
        setattr(segment, "FRAME", Frame)  # noqa: B010
        setattr(header.Header, "_load", load)  # noqa: B010

    def _install_stream(self) -> None:
        faults = self
        real = StreamClient._execute

        def execute(connection: StreamClient, *command: Any) -> Any:
            faults.command(command)
            return real(connection, *command)

        setattr(StreamClient, "_execute", execute)  # noqa: B010


def _front(data: Any) -> bytes:
    whole = bytes(data)
    return whole[: (len(whole) + 1) // 2]


_kill: Final = os.kill


def die() -> NoReturn:
    """What ``kill -9`` does."""
    _kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


class Clock:
    """In the place of ``time``: goes on only when somebody looks, so that each run makes the same steps."""

    def __init__(self) -> None:
        self._now = time.monotonic()
        self.time = time.time

    def monotonic(self) -> float:
        self._now += 0.002
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


# -- processes --------------------------------------------------------------------------------------------------

Work = Callable[[Faults], object]


def in_child(work: Work, faults: Faults, *, deterministic: bool = True) -> bool:
    """Do ``work`` in a forked process; True if the fault killed it. Raises ``AssertionError`` if it failed."""
    pid = start(work, faults, deterministic=deterministic)
    return finish(pid)


def start(work: Work, faults: Faults, *, deterministic: bool = True) -> tuple[int, int]:
    """Begin `in_child`; `finish` waits for its end."""
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    real_write, leave = os.write, os._exit
    code = 1
    try:
        os.close(read)
        signal.alarm(int(_LONGEST_RUN))
        if deterministic:
            clock = Clock()
            for module in (shipping, base):
                setattr(module, "time", clock)  # noqa: B010 - see above
        faults.install()
        with faults.at_instruction():
            work(faults)
        code = 0
    except BaseException:
        real_write(write, traceback.format_exc().encode()[-60_000:])
    finally:
        leave(code)


def finish(child: tuple[int, int]) -> bool:
    """Wait for the end of a child; True if it was killed."""
    pid, read = child
    with open(read, "rb") as file:
        said = file.read().decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, said or f"a run has ended with status {status} (14: it hangs)"
    return killed


# -- scenes -----------------------------------------------------------------------------------------------------


class Scene:
    """One program to be killed, and how to see that nothing is lost: to be made anew for each point."""

    name: str = ""
    #: Whether time stands still in it while nobody looks; not where two processes wait for each other.
    deterministic = True
    #: How it can die, see above; ``twice`` is at two points, one in each of two runs.
    ways: ClassVar[tuple[str, ...]] = ("before", "half", "late", "twice")
    #: Where the second of two kills may be.
    steps = 100
    #: Points behind this one are not tried, where runs differ.
    longest = 10_000

    def __init__(self, place: Place) -> None:
        self.place = place
        self.turn = 0
        """How many runs there were before this one."""

    def prepare(self) -> None:
        """What is there before; in the forking process."""

    def run(self, faults: Faults) -> None:
        """What is killed; in a process of its own."""
        raise NotImplementedError

    def companion(self, faults: Faults) -> None:
        """What happens at the same time as the first `run`, in another process that is not killed."""

    def between(self, turn: int) -> None:
        """What happens after the ``turn``-th kill; in the forking process."""

    def again(self, faults: Faults) -> None:
        """What comes after a kill, and may be killed too: by default the same once more."""
        self.run(faults)

    def before_check(self) -> None:
        """The last thing before `check`; in the forking process."""

    def check(self, faults: Faults) -> None:
        """Finish the work where the last run has not; raise ``AssertionError`` for whatever is wrong."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what `prepare` has made."""


class Outcome(NamedTuple):
    """What became of one plan."""

    kills: int
    failure: str


def play(make: type[Scene], url: str, root: str, plan: list[Point], delayed: int = 0) -> Outcome:
    """Kill a scene at each point of ``plan`` one after the other, let it finish, and check.

    A command that is late reaches the server before command number ``delayed`` of the next run.
    """
    place = Place(os.path.join(root, uuid.uuid4().hex[:12]), url)
    os.mkdir(place.folder)
    scene = make(place)
    kept = scene.deterministic
    kills = 0
    try:
        scene.prepare()
        for turn, point in enumerate(plan):
            work = scene.again if turn else scene.run
            accompanied = type(scene).companion is not Scene.companion and not turn
            other = start(scene.companion, Faults(None, place), deterministic=kept) if accompanied else None
            killed = in_child(work, Faults(point, place, delayed if turn else 0), deterministic=kept)
            kills += killed
            scene.turn += 1
            if other is not None:
                finish(other)
            if not killed:
                break
            scene.between(turn)
        in_child(scene.again, Faults(None, place, delayed), deterministic=kept)
        scene.before_check()
        in_child(scene.check, Faults(None, place))
    except Exception:
        points = ", ".join(map(str, plan)) + (f", late before {delayed}" if delayed else "")
        return Outcome(kills, f"{scene.name} killed {points}:\n{traceback.format_exc()}")
    finally:
        scene.close()
        place.flush()
        shutil.rmtree(place.folder, ignore_errors=True)
    return Outcome(kills, "")


@dataclass
class Count:
    """What many plans have led to."""

    plans: int = 0
    kills: int = 0
    failures: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one more."""
        self.plans += 1
        self.kills += outcome.kills
        if outcome.failure:
            self.failures.append(outcome.failure)


def every_point(
    make: type[Scene], url: str, root: str, how: str, *, first: int = 1, step: int = 1, delayed: int = 3
) -> Count:
    """Kill at point ``first`` and every ``step``-th one behind it, until a run ends without a kill."""
    count = Count()
    number = first
    while True:
        outcome = play(make, url, root, [Point(number, how)], delayed if how == "late" else 0)
        count.add(outcome)
        over = number >= make.longest or (not outcome.kills and not outcome.failure)
        if len(count.failures) >= _ENOUGH or over:
            return count
        number += step


def warm_up() -> None:
    """Load what a run would load, for all children to share."""
    for module in ("filelock", "gzip", "shutil"):
        importlib.import_module(module)
    zstd.module()
    _scripts("append")  # and with it all others
    gc.collect()
    gc.freeze()
    gc.disable()  # it would touch, and so copy, what children share
    sys.stdout.flush()


def sampled(scene: type[Scene], url: str, root: str, *, seed: int, plans: int) -> Count:
    """Kill two runs in a row, before and in the middle of steps that ``seed`` decides."""
    chance = random.Random(seed)
    count = Count()
    most = {(turn, how): scene.steps for turn in (0, 1) for how in ("before", "half")}
    for _ in range(plans):
        hows = [
            chance.choice(["before", "before", "half"][: 3 if "half" in scene.ways else 1]) for _ in range(2)
        ]
        plan = [Point(chance.randint(1, most[turn, how]), how) for turn, how in enumerate(hows)]
        outcome = play(scene, url, root, plan)
        count.add(outcome)
        if outcome.kills < 2:  # that run has not so many points
            place = outcome.kills, hows[outcome.kills]
            most[place] = max(most[place] * 4 // 5, 3)
        if len(count.failures) >= _ENOUGH:
            break
    return count


__all__ = [
    "LATE",
    "Count",
    "Faults",
    "Place",
    "Point",
    "Scene",
    "every_point",
    "memory_folder",
    "sampled",
    "warm_up",
]

"""The drill itself: say what will be done, do it, let everything be written, count."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from redislogkit import launch
from redislogkit.config import Config
from redislogkit.drill import plan, victims
from redislogkit.drill.followed import Followed
from redislogkit.drill.plan import KILL, PRODUCER, Fault, Target
from redislogkit.drill.producers import LOGGER, Producer
from redislogkit.drill.records import Count, Report
from redislogkit.errors import ConfigError
from redislogkit.spool.shipper_end import spool_names
from redislogkit.stream import address

_TICK: Final = 0.02
#: Seconds for the first records to arrive: an embedded server has to start.
_FIRST: Final = 30.0
_END: Final = 10.0
#: A fault waits for its victim, which may just be starting.
_VICTIM: Final = 7.0
#: A supervisor that nobody needs any more drains and ends by itself.
_SUPERVISOR_END: Final = 30.0


class Options(NamedTuple):
    """What can be chosen. Times in seconds."""

    seconds: float = 15.0
    faults: int | None = None
    """How many; by default one every two seconds."""
    processes: int = 3
    rate: float | None = None
    """Records a second of each process; by default few enough not to push others out of the backups."""
    seed: int | None = None
    drain: float = 60.0
    """How long everything may take to be written at the end."""


@dataclass
class Result:
    """What came out of a drill."""

    seed: int
    seconds: float
    done: Counter[str] = field(default_factory=Counter)
    """Faults by kind."""
    reports: dict[str, Report] = field(default_factory=dict)
    """For each writer whose file was counted."""
    unchecked: dict[str, str] = field(default_factory=dict)
    """Writer → why its file was not."""
    drain: float = 0.0
    failures: list[str] = field(default_factory=list)
    """What else went wrong, in words."""

    @property
    def ok(self) -> bool:
        """True when every record is in every file that was counted, once, whole and in order."""
        return not self.failures and all(report.ok for report in self.reports.values())

    def __str__(self) -> str:
        kinds = ",".join(f"{kind}:{number}" for kind, number in sorted(self.done.items()))
        names = ("records", "lost", "doubled", "torn", "disordered", "unexpected")
        figures: dict[str, object] = {
            "seed": self.seed,
            "seconds": f"{self.seconds:g}",
            "faults": f"{sum(self.done.values())}({kinds})",
            **{name: sum(getattr(report, name) for report in self.reports.values()) for name in names},
            "drain": f"{self.drain:.1f}s",
        }
        if self.unchecked:
            figures["unchecked"] = ",".join(self.unchecked)
        return " ".join(f"{name}={value}" for name, value in figures.items())


class Drill:
    """One drill.

    Args:
        config: The user's configuration.
        options: What was chosen.
        say: Takes a line for the person who runs it.

    Raises:
        ConfigError: Nothing could be learnt with this configuration: no file takes the records, or nobody ships.
    """

    def __init__(self, config: Config, options: Options, say: Callable[[str], None]) -> None:
        self._config = config
        self._options = options
        self._say = say
        self._seed = random.randrange(1_000_000) if options.seed is None else options.seed
        self._level = plan.usual_level(config)
        self._before = victims.find_supervisor(config)
        targets = plan.targets(config, self._level)
        self._targets = [target for target in targets if not target.why_not]
        self._rate = options.rate or plan.usual_rate(targets, options.processes, options.seconds)
        self._result = Result(self._seed, options.seconds)
        self._result.unchecked = {target.name: target.why_not for target in targets if target.why_not}
        self._check(targets)
        number = round(options.seconds / 2) if options.faults is None else options.faults
        self._plan = plan.faults(
            config, self._seed, options.seconds, number,
            embedded=address.is_embedded(config), supervisor=self._supervisor_is_ours(),
        )  # fmt: skip
        self._run = os.urandom(3).hex()
        self._producers: list[Producer] = []
        self._names: set[str] = set()
        self._stopped: list[tuple[victims.Victim, subprocess.Popen[bytes]]] = []

    def _check(self, targets: Sequence[Target]) -> None:
        if not self._targets:
            reasons = (
                "; ".join(f"{target.name}: {target.why_not}" for target in targets)
                or "there is no file writer"
            )
            raise ConfigError(
                [f"a drill needs a file writer in whose file its records can be counted: {reasons}"]
            )
        if self._before is None and not self._config.supervisor.autostart:
            raise ConfigError(
                [
                    "a drill needs a supervisor: with supervisor.autostart = false, start it before, on this host"
                ]
            )

        for target in self._targets:
            room = plan.room(target.config)
            size = int(self._rate * self._options.processes * self._options.seconds * target.size)
            if 0 < room < size:
                problem = f"a drill must not push others out of the backups: {_size(size)} into {target.config.path}, "
                raise ConfigError(
                    [f"{problem}which keeps {_size(room)}; choose a lower --rate or fewer --seconds"]
                )

    def _supervisor_is_ours(self) -> bool:
        return self._config.supervisor.autostart and (self._before is None or self._before.launched)

    # -- saying ---------------------------------------------------------------------------------

    def introduce(self) -> None:
        """Say what will be done."""
        options, config = self._options, self._config
        self._say(
            f"drill: {options.processes} processes log about {self._rate:.0f} records a second each for "
            f"{options.seconds:g} s, logger {LOGGER}, with {config.source or 'a mapping'}"
        )
        for target in self._targets:
            size = int(self._rate * options.processes * options.seconds * target.size)
            self._say(f"  into {target.config.path}, about {_size(size)}; they stay there, and are counted")
        for name, why in self._result.unchecked.items():
            self._say(f"  not counted: writer {name}, for {why}")
        kinds = Counter(fault.kind for fault in self._plan)
        self._say(
            f"  faults: {len(self._plan)} ({', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items())) or 'none'}); "
            f"producers are those of the drill only"
        )
        if not self._supervisor_is_ours():
            self._say("  the supervisor itself is left in peace: somebody runs it on purpose")
        if not address.is_embedded(config):
            self._say(f"  the server {config.redis.safe_url} is left in peace: it is not ours")
        self._say(
            "  records of other programs go through the same writers meanwhile, and are none the worse for it"
        )

    # -- doing ----------------------------------------------------------------------------------

    def run(self) -> Result:
        """Do it, and return what came out."""
        folder = tempfile.mkdtemp(prefix="redislogkit-drill-")
        files = {target.name: Followed(target.config) for target in self._targets}
        try:
            self._start(folder)
            if self._wait_for_first_records(files):
                self._perform(files)
            self._drain(files)
            self._count(files)
            self._wait_for_supervisor()
        finally:
            self._clean_up()
            for followed in files.values():
                followed.close()
            shutil.rmtree(folder, ignore_errors=True)
        return self._result

    def _start(self, folder: str) -> None:
        for number in range(self._options.processes):
            self._start_one(folder, number)
        self._folder = folder

    def _start_one(self, folder: str, number: int) -> None:
        producer = Producer(self._config, folder, self._run, number, self._level, self._rate)
        self._producers.append(producer)
        name = producer.identity()
        self._names.add(name)
        if not name:
            self._fail("a process that should log could not begin")

    def _wait_for_first_records(self, files: dict[str, Followed]) -> bool:
        deadline = time.monotonic() + _FIRST
        waiting = dict(files)
        while waiting and time.monotonic() < deadline:
            for name, followed in list(waiting.items()):
                followed.look()
                if any(self._run.encode() in line for line, _ in followed.lines()):
                    del waiting[name]
            time.sleep(_TICK)
        for name in waiting:
            path = self._config.writers[name].path  # type: ignore[union-attr]
            self._fail(
                f"no record has come to {path} within {_FIRST:g} s, so nothing is broken; does another host write it?"
            )
        return not waiting

    def _perform(self, files: dict[str, Followed]) -> None:
        start = time.monotonic()
        left = list(self._plan)
        while (now := time.monotonic()) < start + self._options.seconds or left:
            for followed in files.values():
                followed.look()
            if left and now >= start + left[0].at:
                done = self._break(left[0])
                if done:
                    self._result.done[left[0].kind] += 1
                if done or now >= start + left[0].at + _VICTIM:
                    left.pop(0)
            time.sleep(_TICK)

    def _break(self, fault: Fault) -> bool:
        """Do what is planned; False while there is nobody to do it to."""
        if fault.whom == PRODUCER:
            return self._kill_producer(fault)
        there = [victim for victim in victims.find(self._config) if victim.kind == fault.whom]
        if not there:
            return False
        victim = there[min(int(fault.choice * len(there)), len(there) - 1)]
        try:
            if fault.what == KILL:
                return victims.send(victim, signal.SIGKILL)
            return self._stop(victim, fault.seconds)
        except PermissionError:
            self._fail(f"no permission to {fault.what} {victim.name}: run the drill as its user")
            return True

    def _kill_producer(self, fault: Fault) -> bool:
        living = [producer for producer in self._producers if producer.pid]
        if not living:
            return False
        living[min(int(fault.choice * len(living)), len(living) - 1)].kill()
        self._start_one(self._folder, len(self._producers))
        return True

    def _stop(self, victim: victims.Victim, seconds: float) -> bool:
        # Somebody else sees to it that it goes on, should the drill be killed meanwhile.
        waker = subprocess.Popen(
            ["/bin/sh", "-c", f"sleep {seconds:.2f}; kill -CONT {victim.pid}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._stopped.append((victim, waker))
        return victims.send(victim, signal.SIGSTOP)

    # -- the end --------------------------------------------------------------------------------

    def _drain(self, files: dict[str, Followed]) -> None:
        """Let the processes end and everything be written."""
        for _, waker in self._stopped:
            waker.wait()
        for producer in self._producers:
            producer.stop()
        for producer in self._producers:
            producer.end(_END)
        start = time.monotonic()
        while time.monotonic() < start + self._options.drain:
            for followed in files.values():
                followed.look()
            if not self._spools() and self._is_complete(files):
                break
            if self._config.supervisor.autostart:
                with contextlib.suppress(OSError):
                    launch.ensure_supervisor(self._config)
            time.sleep(5 * _TICK)
        else:
            waiting = f"; spools that wait: {', '.join(self._spools())}" if self._spools() else ""
            self._fail(f"not everything was written {self._options.drain:g} s after the last record{waiting}")
        self._result.drain = time.monotonic() - start

    def _spools(self) -> list[str]:
        """Spools of the drill's processes that are not written and removed yet."""
        names = spool_names(self._config.spool_root)
        return [name for name in names if name.rpartition("-")[0] in self._names]

    def _logged(self) -> dict[int, int]:
        return {producer.number: producer.logged for producer in self._producers}

    def _counted(self, name: str, followed: Followed) -> Count:
        target = next(target for target in self._targets if target.name == name)
        count = Count(self._run, target.in_line)
        for line, place in followed.lines():
            count.line(line, place)
        return count

    def _is_complete(self, files: dict[str, Followed]) -> bool:
        logged = self._logged()
        return all(self._counted(name, followed).is_complete(logged) for name, followed in files.items())

    def _count(self, files: dict[str, Followed]) -> None:
        for name, followed in files.items():
            self._result.reports[name] = self._counted(name, followed).report(self._logged())

    def _wait_for_supervisor(self) -> None:
        """Where there was none before, the one that was launched ends when nobody needs it."""
        if self._before is not None:
            return
        deadline = time.monotonic() + _SUPERVISOR_END
        while victims.find_supervisor(self._config) is not None:
            if time.monotonic() > deadline:
                self._say("drill: the supervisor still runs, somebody else needs it by now")
                return
            time.sleep(_TICK)

    def _clean_up(self) -> None:
        """However it ends: nobody stays stopped, and nobody of ours stays."""
        for victim, waker in self._stopped:
            with contextlib.suppress(PermissionError):
                victims.send(victim, signal.SIGCONT)
            waker.kill()
            waker.wait()
        for producer in self._producers:
            producer.stop()
        for producer in self._producers:
            producer.end(_END)

    def _fail(self, text: str) -> None:
        self._result.failures.append(text)


def tell(result: Result) -> Iterator[str]:
    """Yield what went wrong, for a person."""
    yield from result.failures
    for name, report in result.reports.items():
        yield from (f"writer {name}: {example}" for example in report.examples)


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 10_000:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.0f} GiB"

"""``python -m stress.chaos --seed N --minutes M``: break everything by a seeded plan, then count the records.

Real programs log all the time, while processes are killed and stopped, the network and the disk fail, redis
forgets and clocks jump. Then everything may drain, and every file is checked. Prints one line; exit code 0
only when nothing is lost, doubled, torn or disordered. Needs Linux; the full disk needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from stress import faults
from stress.arena import SIZED, STAMPED, Arena
from stress.checker import Report, check, open_log, rotated_files
from stress.faults import Fault
from stress.tally import counts

EXIT_OK: Final = 0
EXIT_FINDINGS: Final = 1
EXIT_USAGE: Final = 2

_TICK: Final = 0.02
_START_TIMEOUT: Final = 20.0
_PROGRAMS_TIMEOUT: Final = 20.0
_STOP_TIMEOUT: Final = 40.0
_RESTART_TIME: Final = 0.8
_MOVED: Final = "moved"
_NOTICE: Final = re.compile(rb"redislogkit: \d+ records? dropped, ")
_CLOCK_JUMPS: Final = (-86_400.0, -3_600.0, -90.0, 90.0, 3_600.0, 86_400.0)

T = TypeVar("T")
Perform = Callable[["Run", Fault], str]


@dataclass
class Result:
    """What came out of a run."""

    reports: dict[str, Report] = field(default_factory=dict)
    """For each writer."""
    done: Counter[str] = field(default_factory=Counter)
    """Faults that hit something, by kind."""
    missed: int = 0
    """Faults that found no victim."""
    drain: float = 0.0
    """Seconds from the last record until all was written."""
    notices: int = 0
    """Lines in the files that speak of losses."""
    failures: list[str] = field(default_factory=list)
    """What else went wrong, in words."""

    @property
    def ok(self) -> bool:
        """True when every file is complete and nothing else went wrong."""
        return not self.failures and all(report.ok for report in self.reports.values())

    def total(self, name: str) -> int:
        """Sum of one of the counts over all reports."""
        return sum(getattr(report, name) for report in self.reports.values())


class Run:
    """One run: performs a plan, then drains and checks."""

    def __init__(self, arena: Arena, log: Callable[[str], None]) -> None:
        self.arena = arena
        self.result = Result()
        self._log = log
        self._later: list[tuple[float, Callable[[], object]]] = []
        self._moved = 0

    # -- the plan -------------------------------------------------------------------------------

    def perform(self, plan: list[Fault], seconds: float) -> None:
        """Let the programs log for so many seconds, and break things as planned."""
        self._wait_for_first_records()
        start = time.monotonic()
        waiting = list(plan)
        while (now := time.monotonic()) < start + seconds or waiting:
            self.arena.tend()
            self._do_what_is_due(now)
            if waiting and now >= start + waiting[0].at:
                self._break(waiting.pop(0))
            else:
                time.sleep(_TICK)
        while self._later:
            self._do_what_is_due(float("inf"))

    def _wait_for_first_records(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while not any(counts(self.arena.tallies).values()):
            self.arena.tend()
            if time.monotonic() > deadline:
                raise TimeoutError(f"no program has logged within {_START_TIMEOUT:g} s")
            time.sleep(_TICK)

    def _break(self, fault: Fault) -> None:
        hit = _PERFORM[fault.kind](self, fault)
        self._log(f"fault {fault}: {hit or 'no victim'}")
        if hit:
            self.result.done[fault.kind] += 1
        else:
            self.result.missed += 1

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        """Do that so many seconds from now, and at the end of the plan at the latest."""
        self._later.append((time.monotonic() + seconds, act))

    def _do_what_is_due(self, now: float) -> None:
        due = [act for moment, act in self._later if moment <= now]
        self._later = [each for each in self._later if each[0] > now]
        for act in due:
            act()

    # -- draining -------------------------------------------------------------------------------

    def drain(self, timeout: float) -> None:
        """End the programs, let everything be written, stop the supervisor; note what does not go well."""
        if self.arena.proxy is not None:
            self.arena.proxy.heal()
        self.arena.stop_programs()
        self._log("the programs are to end")
        if not self._until(lambda: not self.arena.producers(), _PROGRAMS_TIMEOUT):
            self._fail(f"programs do not end: pids {self.arena.producers()}")
            _signal_all(self.arena.producers(), signal.SIGKILL)
        start = time.monotonic()
        if not self._until(lambda: not self.arena.spools(), timeout):
            self._fail(f"not written within {timeout:g} s: spools {self.arena.spools()[:5]}")
        self.result.drain = time.monotonic() - start
        self._log(f"drained after {self.result.drain:.2f} s")
        self._stop_supervisor()
        self.arena.server.end(10)

    def _until(self, condition: Callable[[], bool], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.arena.tend_without_programs()
            time.sleep(5 * _TICK)
        return True

    def _stop_supervisor(self) -> None:
        pids = self.arena.supervisors()
        _signal_all(pids, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_TIMEOUT
        while self.arena.supervision() and time.monotonic() < deadline:
            time.sleep(5 * _TICK)
        if self.arena.supervision():
            self._fail(f"not ended {_STOP_TIMEOUT:g} s after SIGTERM: {self.arena.supervision()}")
        for code in filter(None, map(self.arena.exit_code, pids)):
            self._fail(f"the supervisor ended with exit code {code}")
        if self.arena.proxy is None and self.arena.servers():
            self._fail("the supervisor has left its server behind")

    def _fail(self, text: str) -> None:
        self._log(text)
        self.result.failures.append(text)

    # -- checking -------------------------------------------------------------------------------

    def check(self) -> None:
        """Count the records of every file."""
        logged = counts(self.arena.tallies)
        for writer in (SIZED, STAMPED):
            part = self.arena.set_up.selective and writer == STAMPED
            expected = {w: n for w, n in logged.items() if not part or w.startswith("some-")}
            files = files_of(self.arena.path(writer))
            self.result.reports[writer] = check(files, expected, self.arena.run, in_doubt=1)
            self.result.notices += sum(map(_notices, files))

    # -- what can be broken ---------------------------------------------------------------------

    def kill(self, pids: list[int], fault: Fault) -> str:
        """SIGKILL one of them."""
        return self._signal(pids, fault, signal.SIGKILL)

    def stop(self, pids: list[int], fault: Fault) -> str:
        """SIGSTOP one of them, SIGCONT later."""
        return self._signal(pids, fault, signal.SIGSTOP)

    def _signal(self, pids: list[int], fault: Fault, number: signal.Signals) -> str:
        if not pids:
            return ""
        pid = _chosen(pids, fault)
        _signal_all([pid], number)
        if number == signal.SIGSTOP:
            self.later(fault.seconds, lambda: _signal_all([pid], signal.SIGCONT))
        return f"pid {pid}"

    def stop_producers(self, fault: Fault) -> str:
        """Silence: whatever happens meanwhile happens while nobody logs."""
        pids = self.arena.producers()
        _signal_all(pids, signal.SIGSTOP)
        self.later(fault.seconds, lambda: _signal_all(pids, signal.SIGCONT))
        return f"{len(pids)} programs" if pids else ""

    def kill_tree(self, fault: Fault) -> str:
        """SIGKILL of the supervisor and all that it has started."""
        self.arena.supervisor.delay(fault.seconds)
        pids = [*self.arena.supervision()]
        if self.arena.proxy is None:
            pids += self.arena.servers()
        _signal_all(pids, signal.SIGKILL)
        return f"pids {pids}" if pids else ""

    def kill_all(self, fault: Fault) -> str:
        """SIGKILL of everything, as when the machine stops."""
        for kept in (self.arena.supervisor, self.arena.server, *self.arena.nests):
            kept.delay(fault.seconds)
        pids = [each.pid for each in self.arena.processes()]
        _signal_all(pids, signal.SIGKILL)
        return f"{len(pids)} processes"

    def kill_nest(self, fault: Fault) -> str:
        """SIGKILL of a program whose children live on."""
        nest = _chosen(self.arena.nests, fault)
        nest.delay(fault.seconds)
        return "" if nest.process is None else self.kill([nest.process.pid], fault)

    def kill_server(self, fault: Fault) -> str:
        """SIGKILL of the server; it comes back with its append-only file."""
        self.arena.server.delay(fault.seconds)
        return self.kill(self.arena.servers(), fault)

    def kill_supervisor(self, fault: Fault) -> str:
        """SIGKILL of the supervisor alone."""
        self.arena.supervisor.delay(fault.seconds)
        return self.kill(self.arena.supervisors(), fault)

    def end_supervisor(self, fault: Fault) -> str:
        """SIGTERM of the supervisor: it drains, while everybody logs on."""
        self.arena.supervisor.delay(fault.seconds)
        return self._signal(self.arena.supervisors(), fault, signal.SIGTERM)

    def end_child(self, fault: Fault) -> str:
        """SIGTERM of a child of the supervisor, which did not ask for it."""
        return self._signal([*self.arena.shippers(), *self.arena.writers()], fault, signal.SIGTERM)

    def second_supervisor(self, _: Fault) -> str:
        """Somebody starts another supervisor for the same stream; it has to step back."""
        return f"pid {self.arena.start_second_supervisor()}" if self.arena.supervisors() else ""

    def network(self, fault: Fault) -> str:
        """What the proxy can do."""
        proxy = self.arena.proxy
        if proxy is None or not proxy.connections:
            return ""
        share = 1.0 if fault.choice < 0.5 else fault.choice
        acts: dict[str, Callable[[], None]] = {
            "net.cut": lambda: proxy.cut(share),
            "net.down": lambda: proxy.down(fault.seconds),
            "net.stall": lambda: proxy.stall(fault.seconds),
            "net.slow": lambda: proxy.slow(fault.seconds, 0.1),
            "net.lost-reply": lambda: proxy.deafen(share),
            "net.mid-reply": lambda: proxy.break_replies(share),
            "net.mid-request": lambda: proxy.break_requests(share),
        }
        acts[fault.kind]()
        return f"{proxy.connections} connections"

    def redis_command(self, *words: str) -> str:
        """A command that an administrator gives."""
        answer = self.arena.command(*words)
        return "" if not answer or answer.startswith(b"-") else f"{' '.join(words)}: {answer!r}"

    def redis_empty(self, fault: Fault) -> str:
        """A restart without data."""
        hit = self.kill_server(fault)
        if hit:
            self._wait_for_dead_server()
            self.arena.replace_data(None)
        return hit

    def redis_rollback(self, fault: Fault) -> str:
        """A restart from a copy that is some seconds old."""
        copy = os.path.join(self.arena.folder, f"copy-{time.monotonic_ns()}")
        if not self.arena.servers():
            return ""
        with contextlib.suppress(shutil.Error):  # files come and go while the server runs
            shutil.copytree(self.arena.server_folder, copy)

        def restore() -> None:
            # Nobody is in the middle of a command meanwhile: only the connections tell of the restart.
            if fault.choice < 0.5:
                pids = [*self.arena.shippers(), *self.arena.writers()]
                _signal_all(pids, signal.SIGSTOP)
                self.later(_RESTART_TIME, lambda: _signal_all(pids, signal.SIGCONT))
            _signal_all(self.arena.servers(), signal.SIGKILL)
            self._wait_for_dead_server()
            self.arena.replace_data(copy)
            self._log("the copy is put in place")

        self.later(fault.seconds, restore)
        return "a copy is taken"

    def _wait_for_dead_server(self) -> None:
        self.arena.server.delay(0.05)
        if self.arena.server.process is not None:
            self.arena.server.process.wait(5)

    def fill_disk(self, fault: Fault) -> str:
        """No room for log files, but for a few pages."""
        if not self.arena.disk_is_small:
            return ""
        pages = int(fault.choice * 8)
        self.arena.fill_disk(pages)
        self.later(fault.seconds, self.arena.free_disk)
        return f"{pages} pages left"

    def move_file(self, fault: Fault) -> str:
        """What logrotate does, with a name as of its ``dateext``."""
        path = self.arena.path(_chosen((SIZED, STAMPED), fault))
        self._moved += 1
        target = f"{path}-{_MOVED}-{self._moved:05d}"
        try:
            os.rename(path, target)
        except FileNotFoundError:
            return ""
        return os.path.basename(target)

    def jump(self, fault: Fault) -> str:
        """The clock of writers and supervisor is wrong, and later right again."""
        offset = _chosen(_CLOCK_JUMPS, fault)
        self.arena.set_clock(offset)
        self.later(fault.seconds, lambda: self.arena.set_clock(0.0))
        return f"{offset:+g} s"


_PERFORM: Final[Mapping[str, Perform]] = {
    "kill.producer": lambda run, fault: run.kill(run.arena.producers(), fault),
    "kill.nest": Run.kill_nest,
    "kill.writer": lambda run, fault: run.kill(run.arena.writers(), fault),
    "kill.shipper": lambda run, fault: run.kill(run.arena.shippers(), fault),
    "kill.server": Run.kill_server,
    "kill.supervisor": Run.kill_supervisor,
    "kill.tree": Run.kill_tree,
    "kill.all": Run.kill_all,
    "term.supervisor": Run.end_supervisor,
    "term.child": Run.end_child,
    "second.supervisor": Run.second_supervisor,
    "stop.producer": lambda run, fault: run.stop(run.arena.producers(), fault),
    "stop.producers": Run.stop_producers,
    "stop.writer": lambda run, fault: run.stop(run.arena.writers(), fault),
    "stop.shipper": lambda run, fault: run.stop(run.arena.shippers(), fault),
    "stop.server": lambda run, fault: run.stop(run.arena.servers(), fault),
    "stop.supervisor": lambda run, fault: run.stop(run.arena.supervisors(), fault),
    **{kind.name: Run.network for kind in faults.KINDS if kind.name.startswith("net.")},
    "redis.flush": lambda run, _: run.redis_command("FLUSHALL"),
    "redis.delete": lambda run, _: run.redis_command("DEL", "chaos"),
    "redis.empty": Run.redis_empty,
    "redis.rollback": Run.redis_rollback,
    "disk.full": Run.fill_disk,
    "file.rename": Run.move_file,
    "clock.jump": Run.jump,
}


def files_of(path: str) -> list[str]:
    """Return the archives of a log file, those that were moved away from outside, and itself, oldest first.

    A name from outside says nothing about the order: such a file goes in front of the first one of ours
    that was written to later.
    """
    files = rotated_files(path)
    for moved in sorted(glob.glob(f"{glob.escape(path)}-{_MOVED}-*")):
        changed = os.stat(moved).st_mtime_ns
        later = (i for i, file in enumerate(files) if f"-{_MOVED}-" not in file and _changed(file) >= changed)
        files.insert(next(later, len(files)), moved)
    return files


def _changed(file: str) -> int:
    return os.stat(file).st_mtime_ns


def _notices(file: str) -> int:
    with open_log(file) as lines:
        return sum(1 for line in lines if _NOTICE.search(line))


def _chosen(things: Sequence[T], fault: Fault) -> T:
    return things[min(int(fault.choice * len(things)), len(things) - 1)]


def _signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


# -- the program ----------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run; return the exit code."""
    options = _parser().parse_args(arguments)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _place(options) as folder:
            return _run(options, folder)
    except KeyboardInterrupt:
        print("chaos: interrupted", file=sys.stderr)
        return EXIT_USAGE
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stress chaos", description=(__doc__ or "").partition(": ")[2]
    )
    parser.add_argument("--seed", type=int, default=None, help="of the plan (default: a new one, printed)")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default: %(default)s)")
    parser.add_argument(
        "--faults-per-minute", type=float, default=30.0, metavar="R", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--only",
        type=_kinds,
        default=(),
        metavar="KIND,...",
        help=f"kinds of faults, or families of them (kill); there are {', '.join(faults.NAMES)}",
    )
    parser.add_argument(
        "--server", choices=(faults.PROXY, faults.EMBEDDED), default="", help="(default: as the seed says)"
    )
    parser.add_argument(
        "--supervisor",
        choices=(faults.HARNESS, faults.AUTOSTART),
        default="",
        help="who starts it (default: as the seed says)",
    )
    parser.add_argument("--drain", type=float, default=60.0, help="seconds for writing it all (%(default)g)")
    parser.add_argument("--keep", action="store_true", help="keep the files also when all is well")
    parser.add_argument("--state-dir", metavar="DIR", help="new folder for everything; a short path")
    return parser


def _kinds(text: str) -> tuple[str, ...]:
    chosen = tuple(text.split(","))
    known = {*faults.NAMES, *(name.partition(".")[0] for name in faults.NAMES)}
    for name in chosen:
        if name not in known:
            raise argparse.ArgumentTypeError(
                f"{name!r} is no kind of fault; there are {', '.join(faults.NAMES)}"
            )
    return chosen


@contextlib.contextmanager
def _place(options: argparse.Namespace) -> Iterator[str]:
    """A folder of our own; short, since unix sockets lie below it."""
    if options.state_dir:
        os.makedirs(options.state_dir)
        yield os.path.abspath(options.state_dir)
    else:
        yield tempfile.mkdtemp(prefix="rlk-chaos-", dir="/tmp")


def _run(options: argparse.Namespace, folder: str) -> int:
    seed = int.from_bytes(os.urandom(3), "little") if options.seed is None else options.seed
    set_up = faults.set_up(seed, options.server, options.supervisor)
    keep = True
    with open(os.path.join(folder, "faults.log"), "w", encoding="utf-8", buffering=1) as log:

        def note(text: str) -> None:
            now = time.time()
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
            print(f"{stamp} .{int(now % 1 * 1000):03d} {text}", file=log)

        arena = Arena(folder, set_up, seed, options.minutes)
        try:
            kinds = faults.possible(options.only, set_up.server, disk=arena.disk_is_small)
            plan = faults.plan(seed, options.minutes * 60, options.faults_per_minute, kinds)
            note(f"seed {seed}, {set_up}, python -m stress chaos {vars(options)}")
            for fault in plan:
                print(f"planned {fault}", file=log)
            run = Run(arena, note)
            run.perform(plan, options.minutes * 60)
            run.drain(options.drain)
            run.check()
            keep = options.keep or not run.result.ok
        finally:
            arena.close()
            if not keep:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                print(f"chaos: kept {folder}: faults.log, supervisor's log, log files", file=sys.stderr)
    _print(seed, set_up, options, run.result)
    return EXIT_OK if run.result.ok else EXIT_FINDINGS


def _print(seed: int, set_up: faults.SetUp, options: argparse.Namespace, result: Result) -> None:
    for failure in result.failures:
        print(f"chaos: {failure}", file=sys.stderr)
    for writer, report in result.reports.items():
        for example in report.examples:
            print(f"chaos: {writer}: {example}", file=sys.stderr)
    by_kind = ",".join(f"{kind}:{number}" for kind, number in sorted(result.done.items()))
    figures = {
        "seed": seed,
        "minutes": f"{options.minutes:g}",
        "setup": set_up,
        "faults": f"{sum(result.done.values())}({by_kind})",
        **{name: result.total(name) for name in ("records", "lost", "doubled", "torn", "disordered")},
        "unexpected": result.total("unexpected"),
        "notices": result.notices,
        "drain": f"{result.drain:.1f}s",
    }
    print(" ".join(f"{name}={value}" for name, value in figures.items()), flush=True)


if __name__ == "__main__":
    sys.exit(main())

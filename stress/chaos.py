"""``python -m stress.chaos --seed N --minutes M``: break everything by a seeded plan, then count the records.

Real programs log all the time, while processes are killed and stopped, the network and the disk fail, redis
forgets and clocks jump. Then everything may drain, and every file is checked. Prints one line; exit code 0
only when nothing is lost, doubled, torn or disordered. Needs Linux; the full disk needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from redislogkit.verify import verification
from redislogkit.verify.verdict import tell
from stress import faults, tally
from stress.arena import BACKUPS, STAMPED, Arena
from stress.breaking import MOVED, Breaker, signal_all
from stress.checker import Report, check, open_log, rotated_files
from stress.faults import BOUNDED, Fault

EXIT_OK: Final = 0
EXIT_FINDINGS: Final = 1
EXIT_USAGE: Final = 2

_TICK: Final = 0.02
_START_TIMEOUT: Final = 60.0
_STOP_TIMEOUT: Final = 40.0
#: Records a second of each of the two threads of a nest.
_RATE: Final = 350.0
_NOTICE: Final = re.compile(rb": (\d+) records? dropped, .* pid (\d+), ")
#: Findings of verify that are printed for each writer.
_SHOWN: Final = 5
_FOREIGN: Final = re.compile(rb"foreign\[(\d+)\]")


@dataclass
class Result:
    """What came out of a run."""

    reports: dict[str, Report] = field(default_factory=dict)
    """For each writer."""
    faults: Counter[str] = field(default_factory=Counter)
    """Faults that hit something, by kind."""
    drain: float = 0.0
    """Seconds from the last record until all was written."""
    notices: int = 0
    """Records of which the first writer's files say that they were dropped."""
    verified: int = 0
    """Writers whose files ``redislogkit verify`` finds complete."""
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
        self.breaker = Breaker(arena, log)
        self.result = Result(faults=self.breaker.done)
        self._log = log

    # -- the plan -------------------------------------------------------------------------------

    def perform(self, plan: list[Fault], seconds: float) -> None:
        """Let the programs log for so many seconds, and break things as planned."""
        self._wait_for_first_records()
        start = time.monotonic()
        waiting = list(plan)
        while (now := time.monotonic()) < start + seconds or waiting:
            self.arena.tend()
            self.breaker.tend(now)
            if waiting and now >= start + waiting[0].at:
                self.breaker.perform(waiting.pop(0))
            else:
                time.sleep(_TICK)
        self.breaker.end()

    def _wait_for_first_records(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while not any(tally.counts(self.arena.tallies).values()):
            self.arena.tend()
            if time.monotonic() > deadline:
                raise TimeoutError(f"no program has logged within {_START_TIMEOUT:g} s")
            time.sleep(_TICK)

    # -- draining -------------------------------------------------------------------------------

    def drain(self, timeout: float) -> None:
        """End the programs, let everything be written, stop the supervisor; note what does not go well."""
        self.arena.stop_programs()
        self._log("the programs are to end")
        start = time.monotonic()
        if not self._until(lambda: not self.arena.producers(), timeout):
            self._fail(f"programs do not end: pids {self.arena.producers()}")
            signal_all(self.arena.producers(), signal.SIGKILL)
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
            self.breaker.tend(time.monotonic())
            self.arena.tend_without_programs()
            time.sleep(5 * _TICK)
        return True

    def _stop_supervisor(self) -> None:
        pids = self.arena.supervisors()
        signal_all(pids, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_TIMEOUT
        while self.arena.supervision() and time.monotonic() < deadline:
            self.breaker.tend(time.monotonic())
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
        """Count the records of every file, and hear what the programs say of themselves."""
        logged = tally.counts(self.arena.tallies)
        dropped = tally.dropped(self.arena.tallies)
        for writer in self.arena.writer_names:
            part = self.arena.set_up.selective and writer == STAMPED
            expected = {w: n for w, n in logged.items() if not part or w.startswith("some-")}
            files = files_of(self.arena.path(writer))
            self.result.reports[writer] = check(
                files, expected, self.arena.run, in_doubt=1, dropped=dropped, oldest_removed=writer == BOUNDED
            )
            self._check_others(writer, files)
        told = _told(files_of(self.arena.path(self.arena.writer_names[0])))
        self.result.notices = sum(told.values())
        self._check_bounded()
        self._check_stats(told)
        self._verify()

    def _check_others(self, writer: str, files: list[str]) -> None:
        """What others have appended is there, once."""
        found = sorted(number for file in files for number in _foreign(file))
        if writer != BOUNDED and found != list(range(self.breaker.foreign.get(writer, 0))):
            self._fail(
                f"{writer}: of {self.breaker.foreign.get(writer, 0)} lines of others there are {found[:20]}"
            )

    def _verify(self) -> None:
        """The product's own proof, from its index and checkpoints, comes to the same verdict."""
        paths = [file for writer in self.arena.writer_names for file in files_of(self.arena.path(writer))]
        for result in verification.verify(self.arena.config, paths):
            self._log(f"verify: {'; '.join(tell(result))}")
            self.result.verified += result.complete
            findings = [fault for fault in result.faults if fault.kind not in self._excused()]
            if len(findings) > _SHOWN:
                self._fail(f"verify {result.writer}: {len(findings)} faults, the first of them:")
            for fault in findings[:_SHOWN]:
                self._fail(
                    f"verify {result.writer}: {fault.kind} {fault.path}: {fault.text} {fault.records[:5]}"
                )

    def _excused(self) -> set[str]:
        """Faults that verify has to name: what was dropped, and what a full disk has left no proof of."""
        excused = {"dropped"} if any(report.dropped for report in self.result.reports.values()) else set()
        return excused | ({"unproven"} if self.result.faults["disk.state-full"] else set())

    def _check_bounded(self) -> None:
        files = rotated_files(self.arena.path(BOUNDED))
        if len(files) > BACKUPS + 1:
            self._fail(f"{BOUNDED}: {len(files)} files, at most {BACKUPS} backups are to be kept")

    def _check_stats(self, told: Counter[int]) -> None:
        """Of processes that have lived to the end: emitted = logged = written + dropped, all of these are told."""
        folder = os.path.join(self.arena.folder, "stats")
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                stats = json.load(file)
            dropped = sum(stats["lost"].values())
            if not stats["flushed"] or stats["spooled"]:
                self._fail(f"pid {name} could not flush: {stats}")
            elif not stats["logged"] == stats["emitted"] == stats["written"] + dropped:
                self._fail(f"the counts of pid {name} do not fit: {stats}")
            elif dropped != told[int(name)]:
                self._fail(f"pid {name}: the files tell of {told[int(name)]} dropped records, not of {stats}")


def files_of(path: str) -> list[str]:
    """Return the archives of a log file, those that were moved away from outside, and itself, oldest first.

    A name from outside says nothing about the order, and one with a time little where clocks jump: those files
    go by the time of their last change, in front of the first one of ours that was written to later.
    """
    files = rotated_files(path)
    numbered = [file for file in files if _NUMBER.fullmatch(file.removeprefix(path)) or file == path]
    others = [file for file in files if file not in numbered]
    for other in sorted([*others, *glob.glob(f"{glob.escape(path)}-{MOVED}-*")], key=_changed):
        changed = _changed(other)
        later = (i for i, file in enumerate(numbered) if file == path or _changed(file) > changed)
        numbered.insert(next(later, len(numbered)), other)
    return numbered


_NUMBER: Final = re.compile(r"\.\d{1,7}(\.gz|\.zst)?")


def _changed(file: str) -> int:
    return os.stat(file).st_mtime_ns


def _told(files: list[str]) -> Counter[int]:
    """Pid → number of its records of which the files say that they were dropped."""
    told: Counter[int] = Counter()
    for file in files:
        with open_log(file) as lines:
            for line in lines:
                if found := _NOTICE.search(line):
                    told[int(found[2])] += int(found[1])
    return told


def _foreign(file: str) -> list[int]:
    with open_log(file) as lines:
        return [int(number) for line in lines for number in _FOREIGN.findall(line)]


# -- the program ----------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run; return the exit code."""
    options = _parser().parse_args(arguments)
    before = [(number, signal.signal(number, _interrupt)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        with _place(options) as folder:
            return _run(options, folder)
    except KeyboardInterrupt:
        print("chaos: interrupted", file=sys.stderr)
        return EXIT_USAGE
    finally:
        for number, handler in before:
            signal.signal(number, handler)


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
    parser.add_argument(
        "--writers",
        type=lambda text: tuple(text.split(",")),
        default=None,
        metavar="NAME,...",
        help=f"writers beside the usual two, of {', '.join(faults.MORE_WRITERS)} (default: as the seed says)",
    )
    parser.add_argument(
        "--rate", type=float, default=_RATE, help="records a second of each thread (default: %(default)g)"
    )
    parser.add_argument("--drain", type=float, default=90.0, help="seconds for writing it all (%(default)g)")
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
    if options.writers is not None:
        set_up = set_up._replace(writers=tuple(name for name in options.writers if name))
    keep = True
    with open(os.path.join(folder, "faults.log"), "w", encoding="utf-8", buffering=1) as log:

        def note(text: str) -> None:
            now = time.time()
            stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
            print(f"{stamp} .{int(now % 1 * 1000):03d} {text}", file=log)

        arena = Arena(folder, set_up, seed, options.minutes, options.rate)
        try:
            kinds = faults.possible(options.only, set_up.server, disk=arena.log_disk.small)
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
            for number in (
                signal.SIGTERM,
                signal.SIGINT,
            ):  # whoever is impatient must not leave processes behind
                signal.signal(number, signal.SIG_IGN)
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
    by_kind = ",".join(f"{kind}:{number}" for kind, number in sorted(result.faults.items()))
    figures = {
        "seed": seed,
        "minutes": f"{options.minutes:g}",
        "setup": set_up,
        "faults": f"{sum(result.faults.values())}({by_kind})",
        **{name: result.total(name) for name in ("records", "lost", "doubled", "torn", "disordered")},
        "unexpected": result.total("unexpected"),
        "dropped": result.total("dropped"),
        "notices": result.notices,
        "verified": f"{result.verified}/{len(result.reports)}",
        "drain": f"{result.drain:.1f}s",
    }
    print(" ".join(f"{name}={value}" for name, value in figures.items()), flush=True)


if __name__ == "__main__":
    sys.exit(main())

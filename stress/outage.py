"""``python -m stress outage --minutes 10 --rate 5000``: redis is away while records flow; who grows meanwhile?

Programs log at a steady rate, the server is killed, and started again after so many minutes. Memory of programs,
shipper, writers and supervisor, and the size of the spools, are measured all the time. Then everything must arrive
exactly once. Prints one line, with each size as begin/away/back/end: the most while redis was away, and the most since.
Exit code 0 only when nothing is lost, doubled, torn or disordered and no process has grown by more than ``--limit``
while redis was away, and ``--catch-up`` afterwards. Needs Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from redislogkit.spool.shipper_end import spool_names
from redislogkit.stream.server_binary import find_server
from stress import processes, tally
from stress.arena import free_port
from stress.checker import Report, check, rotated_files

EXIT_OK: Final = 0
EXIT_FINDINGS: Final = 1

_ROOT: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_PROGRAMS: Final = 4
_WRITERS: Final = ("app", "json")
_RUN: Final = "outage"
_MIB: Final = 1024 * 1024
_START_TIMEOUT: Final = 60.0
_STOP_TIMEOUT: Final = 30.0
_WARM_UP: Final = 3.0
_AFTERWARDS: Final = 1.0
_TICK: Final = 0.25

_CONFIGURATION: Final = """
version = 1
state_dir = "{folder}/state"
redis.url = "redis://127.0.0.1:{port}"
[stream]
name = "outage"
[producer]
spool_max_bytes = "4 GiB"
[writers.app]
type = "file"
path = "{folder}/logs/app.log"
max_bytes = "32 MiB"
backup_count = 100_000
[writers.json]
type = "file"
path = "{folder}/logs/json.log"
max_bytes = "64 MiB"
backup_count = 100_000
formatter = "json"
[formatters.json]
type = "json"
[supervisor]
autostart = false
"""


@dataclass
class Size:
    """Bytes at the begin of the outage, the most while it lasted, the most afterwards, and at the end."""

    begin: int = 0
    away: int = 0
    back: int = 0
    end: int = 0

    def __str__(self) -> str:
        return "/".join(f"{size / _MIB:.1f}" for size in (self.begin, self.away, self.back, self.end))


@dataclass
class Result:
    """What came out of a run."""

    sizes: dict[str, Size] = field(default_factory=dict)
    """Memory of each role (of several processes the largest), and ``spools``."""
    reports: dict[str, Report] = field(default_factory=dict)
    away: float = 0.0
    """Seconds that the server was away."""
    logged: int = 0
    """Records logged meanwhile."""
    catch_up: float = 0.0
    """Seconds from its return until everything was written."""
    failures: list[str] = field(default_factory=list)

    def total(self, name: str) -> int:
        """Sum of one of the counts over all reports."""
        return sum(getattr(report, name) for report in self.reports.values())


class Outage:
    """Everything that runs below ``folder``, which is empty."""

    def __init__(self, folder: str, rate: float) -> None:
        self.folder = folder
        self.result = Result()
        self._rate = rate
        self._port = free_port()
        self._config = os.path.join(folder, "log.toml")
        for name in ("server", "tallies", "stats"):
            os.mkdir(os.path.join(folder, name))
        with open(self._config, "w", encoding="utf-8") as file:
            file.write(_CONFIGURATION.format(folder=folder, port=self._port))
        self._errors = open(os.path.join(folder, "errors"), "ab")  # noqa: SIM115 - for as long as they run
        self._server: subprocess.Popen[bytes] | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._programs: list[subprocess.Popen[bytes]] = []
        self._is_back = False

    # -- processes ------------------------------------------------------------------------------

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": _ROOT}
        return subprocess.Popen(
            command, stdout=self._errors, stderr=self._errors, env=environment, start_new_session=True
        )

    def start_server(self) -> None:
        """Start it, with the data that it has."""
        options = {
            "port": str(self._port), "bind": "127.0.0.1", "dir": os.path.join(self.folder, "server"),
            "save": "", "appendonly": "yes", "logfile": os.path.join(self.folder, "server.log"),
        }  # fmt: skip
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._server = self._spawn(find_server(), *words)

    def start(self) -> None:
        """Start everything; return when records are being written."""
        self.start_server()
        self._supervisor = self._spawn(sys.executable, "-m", "redislogkit.supervise", self._config)
        place = (self._config, self.folder, _RUN, str(os.getpid()))
        for number in range(_PROGRAMS):
            words = ("steady", *place, str(number), str(self._rate / _PROGRAMS))
            self._programs.append(self._spawn(sys.executable, "-m", "stress.programs", *words))
        live = os.path.join(self.folder, "logs", "app.log")
        written = wait_until(lambda: os.path.exists(live) and os.path.getsize(live) > 0, _START_TIMEOUT)
        if not written:
            raise TimeoutError(f"nothing is written after {_START_TIMEOUT:g} s; see {self.folder}/errors")

    def close(self) -> None:
        """End what still runs."""
        started = [*self._programs, *(p for p in (self._supervisor, self._server) if p is not None)]
        for process in started:
            process.kill()
            process.wait()
        self._errors.close()

    # -- the run --------------------------------------------------------------------------------

    def run(self, seconds: float, drain: float) -> None:
        """Let the server be away for so long; then wait for everything, at most ``drain`` seconds."""
        self._measure_for(_WARM_UP, self._begin_sizes)
        before, began = self._count(), time.monotonic()
        assert self._server is not None
        self._server.kill()
        self._server.wait()
        self._measure_for(seconds)
        self.start_server()
        back, self._is_back = time.monotonic(), True
        self.result.away, self.result.logged = back - began, self._count() - before
        self._measure_for(_AFTERWARDS)
        with open(os.path.join(self.folder, "stop"), "wb"):
            pass
        self._measure_until(lambda: not self._spools(), drain)
        self.result.catch_up = time.monotonic() - back
        self._stop()
        expected = tally.counts(os.path.join(self.folder, "tallies"))
        for writer in _WRITERS:
            files = rotated_files(os.path.join(self.folder, "logs", f"{writer}.log"))
            self.result.reports[writer] = check(files, expected, _RUN)

    def _count(self) -> int:
        return sum(tally.counts(os.path.join(self.folder, "tallies")).values())

    def _spools(self) -> list[str]:
        return spool_names(os.path.join(self.folder, "state", "outage", "spool"))

    def _measure_until(self, condition: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                self.result.failures.append(f"not written within {timeout:g} s: {self._spools()}")
                return
            self._measure()
            time.sleep(_TICK)

    def _measure_for(self, seconds: float, act: Callable[[], None] | None = None) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            (act or self._measure)()
            time.sleep(min(_TICK, max(end - time.monotonic(), 0.0)))

    def _stop(self) -> None:
        for process in self._programs:
            if process.wait(_STOP_TIMEOUT):
                self.result.failures.append(f"a program has ended with {process.returncode}")
        assert self._supervisor is not None
        assert self._server is not None
        self._supervisor.send_signal(signal.SIGTERM)
        if self._supervisor.wait(_STOP_TIMEOUT):
            self.result.failures.append(f"the supervisor has ended with {self._supervisor.returncode}")
        self._server.terminate()
        self._server.wait(_STOP_TIMEOUT)

    # -- sizes ----------------------------------------------------------------------------------

    def _begin_sizes(self) -> None:
        self.result.sizes = {role: Size(*[size] * 4) for role, size in self._sizes().items()}

    def _measure(self) -> None:
        for role, bytes_ in self._sizes().items():
            size = self.result.sizes.setdefault(role, Size(bytes_))
            if self._is_back:
                size.back = max(size.back, bytes_)
            else:
                size.away = max(size.away, bytes_)
            size.end = bytes_

    def _sizes(self) -> dict[str, int]:
        assert self._supervisor is not None
        sizes = {
            "application": max((memory(process.pid) for process in self._programs), default=0),
            "supervisor": memory(self._supervisor.pid),
            "spools": _size_of(os.path.join(self.folder, "state", "outage", "spool")),
        }
        for pid in processes.children(self._supervisor.pid):
            if name := processes.name(pid).removeprefix("rlk-"):
                sizes[name] = memory(pid)
        return {role: size for role, size in sizes.items() if size or role == "spools"}


def memory(pid: int) -> int:
    """Return the bytes that a process has in memory for itself alone: not what it maps of files; 0 when it is gone."""
    for line in processes.read(f"/proc/{pid}/status").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Return whether it has come true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_TICK / 10)
    return True


def _size_of(folder: str) -> int:
    size = 0
    for name, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(OSError):
                size += os.stat(os.path.join(name, file)).st_blocks * 512
    return size


# -- the program ----------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run; return the exit code."""
    options = _parser().parse_args(arguments)
    with _place(options) as folder:
        outage = Outage(folder, options.rate)
        try:
            outage.start()
            outage.run(options.minutes * 60, options.drain)
        finally:
            outage.close()
    result = outage.result
    for role, size in result.sizes.items():
        limits = {
            "while redis was away": (size.away, options.limit),
            "afterwards": (size.back, options.catch_up),
        }
        for when, (bytes_, limit) in limits.items() if role != "spools" else ():
            if bytes_ - size.begin > limit * _MIB:
                result.failures.append(f"{role} has grown by {(bytes_ - size.begin) / _MIB:.1f} MiB {when}")
    _print(options, result)
    clean = all(report.ok for report in result.reports.values())
    return EXIT_OK if clean and not result.failures else EXIT_FINDINGS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stress outage", description=(__doc__ or "").partition(": ")[2]
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: %(default)g)")
    parser.add_argument(
        "--rate", type=float, default=5000.0, help="records a second of all programs (default: %(default)g)"
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=16.0,
        metavar="MIB",
        help="growth to allow a process meanwhile (%(default)g)",
    )
    parser.add_argument(
        "--catch-up",
        type=float,
        default=128.0,
        metavar="MIB",
        help="growth to allow a process afterwards, when there is much to read at once (%(default)g)",
    )
    parser.add_argument("--drain", type=float, default=600.0, help="seconds for writing it all (%(default)g)")
    parser.add_argument("--keep", action="store_true", help="keep the files")
    return parser


@contextlib.contextmanager
def _place(options: argparse.Namespace) -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="rlk-outage-", dir="/tmp")
    try:
        yield folder
    finally:
        if options.keep:
            print(f"kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _print(options: argparse.Namespace, result: Result) -> None:
    for failure in result.failures:
        print(f"outage: {failure}", file=sys.stderr)
    for writer, report in result.reports.items():
        for example in report.examples:
            print(f"outage: {writer}: {example}", file=sys.stderr)
    figures = {
        "minutes": f"{options.minutes:g}",
        "away": f"{result.away:.1f}s",
        "rate": f"{result.logged / max(result.away, 0.001):.0f}/s",
        **{name: result.total(name) for name in ("records", "lost", "doubled", "torn", "disordered")},
        "catch-up": f"{result.catch_up:.1f}s",
        **{f"{role}[MiB]": size for role, size in sorted(result.sizes.items())},
    }
    print(" ".join(f"{name}={value}" for name, value in figures.items()), flush=True)


if __name__ == "__main__":
    sys.exit(main())

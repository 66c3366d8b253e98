"""``python -m redislogkit demo``: several processes, one configuration, one rotated file, one terminal.

It writes a small program and its ``log.toml`` into a fresh folder, runs the program several times at once,
waits until everything is written and the supervisor has ended by itself, and then reads the files: is every
record there exactly once, and in the order of its process? The program numbers its records itself, so the
count relies on nothing of redislogkit.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeAlias

from redislogkit import config as configuration
from redislogkit import launch, locking, terminal
from redislogkit.config import Config
from redislogkit.errors import EmbeddedServerError, LockHeldError
from redislogkit.stream.embedded import find_server

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130

COUNTERS: Final = 4
ORDERS: Final = 5_000
STEPS: Final = 5
_WORK_TIMEOUT: Final = 120.0
_END_TIMEOUT: Final = 30.0

CONFIGURATION: Final = """\
version = 1
state_dir = "state"                # spools, checkpoints, locks, embedded server

[producer]
shutdown_timeout = 30              # the demo wants to see the end; the default is 2 seconds

[loggers]
root = "WARNING"
shop = "DEBUG"

[formatters.file]
format = "%(asctime)s %(levelname)-8s %(name)s[%(process)d]: %(message)s"
optional_fields = ["customer", "amount"]

[formatters.short]
format = "%(asctime)s %(levelname)-8s %(message)s"
datefmt = "%H:%M:%S"
optional_fields = ["customer"]

[writers.console]                  # the terminal of the process that logs
type = "tty"
level = "INFO"
formatter = "short"
loggers = ["shop.front"]

[writers.file]                     # everything
type = "file"
path = "shop.log"
formatter = "file"
max_bytes = {max_bytes}
backup_count = 20
"""

PROGRAM: Final = '''\
"""One counter of a small shop: python shop.py COUNTER ORDERS.

Several of these run at once. They share log.toml, and nothing else.
"""

import logging
import random
import sys

import redislogkit

redislogkit.configure("log.toml")
orders = logging.getLogger("shop.orders")
front = logging.getLogger("shop.front")  # log.toml sends this one to the terminal, too

GOODS = ["bolts", "nuts", "springs", "washers"]
CUSTOMERS = ["Ada", "Barbara", "Grace", "Radia"]


class Declined(Exception):
    """The bank does not pay."""


def pay(customer):
    if customer == "Smith":
        raise Declined("the card has expired")


def serve(order, customer, goods, pieces):
    """Handle one order; five records, each with its number."""
    orders.debug("%s 1/5 received: %d %s", order, pieces, goods, extra={"customer": customer})
    orders.debug("%s 2/5 taken from the shelf", order)
    if pieces == 1000:
        front.warning("%s 3/5 packed, but that was the last box of %s", order, goods)
    else:
        orders.debug("%s 3/5 packed", order)
    try:
        pay(customer)
        orders.debug("%s 4/5 paid: %.2f", order, pieces * 1.25)
    except Declined:
        front.exception("%s 4/5 not paid", order, extra={"customer": customer})
    orders.debug("%s 5/5 done", order)


def main(counter, of_all):
    front.info("counter %s opens", counter)
    for number in range(1, of_all + 1):
        pieces = 1000 if random.random() < 2 / of_all else random.randint(1, 9)
        customer = "Smith" if counter == "3" and number == of_all // 2 else random.choice(CUSTOMERS)
        serve(f"order {counter}-{number:05d}", customer, random.choice(GOODS), pieces)
        if number % (of_all // 5) == 0:
            front.info("counter %s has served %d of %d", counter, number, of_all)
    front.info("counter %s closes", counter)


main(sys.argv[1], int(sys.argv[2]))
'''

_RECORD: Final = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) (?P<level>[A-Z]+) +shop\.(?P<logger>\w+)\[\d+\]: "
    r"(?:counter (?P<counter>\d+) (?P<what>opens|closes|has served (?P<served>\d+) of \d+)"
    r"|order (?P<at>\d+)-(?P<order>\d{5}) (?P<step>\d)/5 .+)"
)
#: A record of one counter: number of the order and step; the steps 0 and 6 are what is logged before and after.
Place: TypeAlias = "tuple[int, int]"


@dataclass
class Findings:
    """What `read_files` has found in the files."""

    expected: list[Place]
    """The records that each counter logs, in order."""
    seen: dict[str, list[Place]] = field(default_factory=dict)
    """Counter → its records, in the order in which they stand in the files."""
    levels: Counter[str] = field(default_factory=Counter)
    front: int = 0
    """Records of the logger ``shop.front``."""
    first: float = float("inf")
    last: float = 0.0
    """When the first and the last record were logged."""

    @property
    def records(self) -> int:
        """Records found."""
        return sum(map(len, self.seen.values()))

    def faults(self, counters: Iterable[str]) -> list[str]:
        """What is wrong, in words: nothing, where every record is there exactly once and in order."""
        faults = []
        for counter in counters:
            places = self.seen.get(counter, [])
            if places == self.expected:
                continue
            lost = len(set(self.expected) - set(places))
            doubled = len(places) - len(set(places))
            order = "in order" if places == sorted(places) else "out of order"
            faults.append(
                f"counter {counter}: {lost} of {len(self.expected)} lost, {doubled} doubled, {order}"
            )
        return faults


def run(orders: int = ORDERS) -> int:
    """Run the demo with ``orders`` orders at each counter, at least 5; return the exit code."""
    try:
        find_server()
    except EmbeddedServerError as error:
        print(f"redislogkit demo: {error}", file=sys.stderr)
        return EXIT_USAGE
    folder = tempfile.mkdtemp(prefix="redislogkit-demo-")
    _write_files(folder, orders)
    config = configuration.load(os.path.join(folder, "log.toml"))
    _introduce(folder, orders)
    try:
        faults = _work(folder, orders)
        _say("\nall counters are closed; the supervisor ends when it finds that nobody needs it any more ...")
        faults += _wait_for_supervisor(config)
    except KeyboardInterrupt:
        _say("\ninterrupted; the supervisor writes what is left, and ends")
        _wait_for_supervisor(config)
        return EXIT_INTERRUPTED
    files = log_files(os.path.join(folder, "shop.log"))
    findings = read_files(files, expected_places(orders))
    faults += findings.faults(map(str, range(1, COUNTERS + 1)))
    _tell(folder, files, findings, faults)
    if faults:
        _tell_log(launch.log_path(config))
    return EXIT_FAILED if faults else EXIT_OK


# --- running -----------------------------------------------------------------------------------------------


def _write_files(folder: str, orders: int) -> None:
    # About five files, however many orders there are.
    texts = {"log.toml": CONFIGURATION.replace("{max_bytes}", f"{orders * 400:_}"), "shop.py": PROGRAM}
    for name, text in texts.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)


def _work(folder: str, orders: int) -> list[str]:
    """Run all counters at once, to their end; return what went wrong."""
    package_parent = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), package_parent]))
    counters: dict[str, subprocess.Popen[bytes]] = {}
    deadline = time.monotonic() + _WORK_TIMEOUT
    try:
        for counter in map(str, range(1, COUNTERS + 1)):
            counters[counter] = subprocess.Popen(
                [sys.executable, "shop.py", counter, str(orders)],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us; we stop them
            )
        for process in counters.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 0.0))
    finally:
        for process in counters.values():
            process.kill()
            process.wait()
    return [
        f"counter {counter} ended with exit code {process.returncode}"
        for counter, process in counters.items()
        if process.returncode
    ]


def _wait_for_supervisor(config: Config) -> list[str]:
    """Wait until the supervisor has ended; stop one that does not, and say so."""
    with _lock(config, "start.lock"):  # one that is just starting is waited for as well
        pass
    faults = []
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            with _lock(config, "supervisor.lock"):
                break
        except LockHeldError as error:
            faults.append(f"the supervisor has not ended, it gets a {number.name}: {error}")
            owner = locking.read_owner(os.path.join(config.stream_dir, "supervisor.lock"))
            with contextlib.suppress(ProcessLookupError, KeyError):
                os.kill(owner["pid"], number)
    return faults


@contextlib.contextmanager
def _lock(config: Config, name: str) -> Iterator[None]:
    """Hold a lock of the supervisor's, once it is free. Raises ``LockHeldError``."""
    lock = locking.OwnedLock(os.path.join(config.stream_dir, name), f"the demo's {name}")
    lock.acquire(_END_TIMEOUT)
    try:
        yield
    finally:
        lock.release()


# --- looking -----------------------------------------------------------------------------------------------


def log_files(path: str) -> list[str]:
    """Return the backups of ``path`` by number, oldest first, and ``path`` itself."""
    folder, base = os.path.split(path)
    found = (re.fullmatch(re.escape(base) + r"\.(\d+)", name) for name in os.listdir(folder))
    numbers = sorted((int(match[1]) for match in found if match), reverse=True)
    return [f"{path}.{number}" for number in numbers] + ([path] if os.path.exists(path) else [])


def expected_places(orders: int) -> list[Place]:
    """Return the records that each counter logs when it serves ``orders`` orders."""
    places = [(0, 0)]
    for order in range(1, orders + 1):
        places += [(order, step) for step in range(1, STEPS + 1)]
        if order % (orders // 5) == 0:
            places.append((order, STEPS + 1))
    return [*places, (orders + 1, 0)]


def read_files(files: Iterable[str], expected: list[Place]) -> Findings:
    """Find every record in ``files``, oldest first; each counter should have logged ``expected``."""
    findings = Findings(expected)
    for match in filter(None, map(_RECORD.fullmatch, _lines(files))):
        findings.seen.setdefault(match["counter"] or match["at"], []).append(_place(match, expected))
        findings.levels[match["level"]] += 1
        findings.front += match["logger"] == "front"
        if match["what"]:  # nothing of a counter comes before it opens or after it closes
            findings.first = min(findings.first, _seconds(match["time"]))
            findings.last = max(findings.last, _seconds(match["time"]))
    return findings


def _lines(files: Iterable[str]) -> Iterator[str]:
    for name in files:
        with open(name, encoding="utf-8", errors="replace", newline="\n") as file:
            for line in file:
                yield line.removesuffix("\n")


def _place(match: re.Match[str], expected: list[Place]) -> Place:
    if match["order"]:
        return int(match["order"]), int(match["step"])
    if match["served"]:
        return int(match["served"]), STEPS + 1
    return expected[0] if match["what"] == "opens" else expected[-1]


def _seconds(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S,%f").timestamp()  # noqa: DTZ007 - it is local time


# --- telling -----------------------------------------------------------------------------------------------


def _say(text: str) -> None:
    print(text, flush=True)  # the terminal is shared with the writer


def _introduce(folder: str, orders: int) -> None:
    where = "one file and this terminal" if _has_terminal() else "one file"
    _say(
        f"redislogkit demo: {COUNTERS} processes serve {orders:,} orders each and log to {where}\n"
        f"\n"
        f"  configuration  {folder}/log.toml\n"
        f"  program        {folder}/shop.py\n"
    )


def _tell(folder: str, files: Sequence[str], findings: Findings, faults: Sequence[str]) -> None:
    lines = {
        "expected"
        if faults
        else "logged": f"{COUNTERS * len(findings.expected):,} records by {COUNTERS} processes"
    }
    lines |= _figures(files, findings) if findings.records else {"written": "nothing"}
    lines["checked"] = (
        "NOT PASSED: " + "; ".join(faults)
        if faults
        else "every record is in the files exactly once, and in the order of its process"
    )
    lines["files"] = f"{folder}  (yours to look at and to delete)"
    _say("\n" + "\n".join(f"  {name:<13}  {text}" for name, text in lines.items()))


def _figures(files: Sequence[str], findings: Findings) -> dict[str, str]:
    names = [os.path.basename(name) for name in files]
    levels = ", ".join(f"{count:,} {level}" for level, count in findings.levels.most_common())
    size = sum(map(os.path.getsize, files)) / 1e6
    writing = max(0.001, *(os.path.getmtime(name) - findings.first for name in files))
    return {
        "terminal": _terminal_line(findings.front),
        "written": f"{findings.records:,} records, {size:.1f} MB: {levels}",
        "rotated": f"{len(files) - 1} times: {', '.join(names)} (the newest)",
        "speed": f"{findings.records / writing:,.0f} records a second: called within "
        f"{findings.last - findings.first:.1f} s, all in the file {writing:.1f} s after the first call",
    }


def _terminal_line(front: int) -> str:
    if _has_terminal():
        return f"{front} records: INFO and above of the logger shop.front"
    return "no line: neither stdout nor stderr is a terminal, so the lines for it went nowhere"


def _has_terminal() -> bool:
    return bool(terminal.find_terminal()[0])


def _tell_log(path: str) -> None:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        _say(f"\n{path} ends with:\n{''.join(file.readlines()[-20:])}")

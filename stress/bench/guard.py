"""``python -m stress.bench guard``: has a record become more expensive than what is recorded in the repository?

Counts the instructions of the emit path and of a file writer's loop, in a process whose hashes are not random: with
``perf stat`` where the machine lets it, else with valgrind. Two runs of different length tell what one record costs,
without the start of Python. Where nothing can be counted, the time of a record is compared with that of a
``FileHandler``, which is a far coarser measure. Figures of other Pythons, machines and counters are not compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from redislogkit.producer import compiled
from stress.bench import workloads
from stress.bench.table import aligned

RECORDED: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "recorded.json")
EXIT_OK: Final = 0
EXIT_SLOWER: Final = 1

#: Share by which a record may cost more. Counts hardly differ from run to run, times do.
TOLERANCES: Final[Mapping[str, float]] = {"perf": 0.03, "valgrind": 0.03, "ratio": 0.4}
_SHORT: Final = 400
_LONG: Final = 2400
_REPEATS: Final = 15
_HEAD: Final = ("", "counted", "recorded", "change", "")

Counts = Mapping[str, float]
Records = dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True)
class Verdict:
    """What became of one workload."""

    name: str
    counted: float
    recorded: float | None
    tolerance: float

    @property
    def change(self) -> float:
        """Share by which it costs more than recorded."""
        return self.counted / self.recorded - 1 if self.recorded else 0.0

    @property
    def slower(self) -> bool:
        """True when that is more than it may be."""
        return self.change > self.tolerance

    def row(self) -> Sequence[str]:
        """Cells for people."""
        if self.recorded is None:
            return (self.name, _shown(self.counted), "-", "-", "not recorded, see --record")
        better = -self.change > self.tolerance
        remark = "TOO MUCH" if self.slower else "less: record it with --record" if better else "ok"
        return (self.name, _shown(self.counted), _shown(self.recorded), f"{self.change:+.1%}", remark)


def main(arguments: Sequence[str]) -> int:
    """Parse the command line and compare or record; return the exit code."""
    given = _parser().parse_args(arguments)
    counter = given.counter or best_counter()
    counts = COUNTERS[counter]()
    with open(RECORDED, encoding="utf-8") as file:
        records: Records = json.load(file)
    if given.record:
        records.setdefault(_platform(), {})[counter] = {
            name: round(count, 3) for name, count in counts.items()
        }
        with open(RECORDED, "w", encoding="utf-8") as file:
            file.write(json.dumps(records, indent=2, sort_keys=True) + "\n")
    tolerance = TOLERANCES[counter] if given.tolerance is None else given.tolerance
    verdicts = compare(counts, records.get(_platform(), {}).get(counter, {}), tolerance)
    print(f"per record, {_platform()}, counted by {counter}, tolerance {tolerance:.0%}")
    print(aligned([_HEAD, *(verdict.row() for verdict in verdicts)], numbers=(1, 2, 3)))
    return EXIT_SLOWER if any(verdict.slower for verdict in verdicts) else EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stress.bench guard", description=(__doc__ or "").partition(": ")[2].partition("\n")[0]
    )
    parser.add_argument("--record", action="store_true", help="put what is counted now into the repository")
    parser.add_argument(
        "--tolerance", type=float, metavar="SHARE", help=f"of each counter: {dict(TOLERANCES)}"
    )
    parser.add_argument("--counter", choices=tuple(COUNTERS), help="by default the first that works here")
    return parser


def compare(counts: Counts, recorded: Counts, tolerance: float) -> list[Verdict]:
    """Return a verdict on each workload."""
    return [Verdict(name, count, recorded.get(name), tolerance) for name, count in counts.items()]


def _platform() -> str:
    version = ".".join(platform.python_version_tuple()[:2])
    name = f"{platform.python_implementation().lower()}-{version}-{platform.machine()}"
    return name if compiled.MODULE is not None else f"{name}-pure"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


# -- counting ---------------------------------------------------------------------------------------


def best_counter() -> str:
    """Return the first counter that works here."""
    if _perf(["true"]) is not None:
        return "perf"
    return "valgrind" if shutil.which("valgrind") else "ratio"


def _perf(command: Sequence[str]) -> int | None:
    """Return the instructions of a program in user space; None where the machine does not count them."""
    if shutil.which("perf") is None:
        return None
    done = _run(["perf", "stat", "-x", ",", "-e", "instructions:u", *command])
    match = re.search(r"^(\d+),[^,]*,instructions", done, re.MULTILINE)
    return int(match[1]) if match else None


def _valgrind(command: Sequence[str]) -> int | None:
    options = ["--tool=cachegrind", "--cache-sim=no", f"--cachegrind-out-file={os.devnull}"]
    match = re.search(r"I\s+refs:\s+([\d,]+)", _run(["valgrind", *options, *command]))
    return int(match[1].replace(",", "")) if match else None


def _run(command: Sequence[str]) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": "0", "LC_ALL": "C"}
    root = os.path.dirname(os.path.dirname(os.path.dirname(RECORDED)))
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    return done.stderr


def _counted(count: Callable[[Sequence[str]], int | None]) -> Counts:
    return {name: _per_record(count, name) for name in workloads.available()}


def _per_record(count: Callable[[Sequence[str]], int | None], name: str) -> float:
    found = []
    for records in (_SHORT, _LONG):
        instructions = count([sys.executable, "-m", workloads.__name__, name, str(records)])
        if instructions is None:
            raise RuntimeError(f"the instructions of the workload {name!r} can not be counted")
        found.append(instructions)
    return (found[1] - found[0]) / (_LONG - _SHORT)


def _ratios() -> Counts:
    """Return what a record takes in units of one through a ``FileHandler``: the best of several turns."""
    every = {"": workloads.file_handler} | {name: workloads.WORKLOADS[name] for name in workloads.available()}
    best = dict.fromkeys(every, float("inf"))
    for _ in range(_REPEATS):
        for name, workload in every.items():
            with workloads.memory_folder() as folder:
                best[name] = min(best[name], workload(folder, _LONG))
    yardstick = best.pop("")
    return {name: seconds / yardstick for name, seconds in best.items()}


COUNTERS: Final[Mapping[str, Callable[[], Counts]]] = {
    "perf": lambda: _counted(_perf),
    "valgrind": lambda: _counted(_valgrind),
    "ratio": _ratios,
}

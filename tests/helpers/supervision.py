"""One configuration with its supervisor: who runs, what has been written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from redislogkit import locking
from stress import checker, processes
from tests.helpers.processes import is_running
from tests.helpers.scripts import ROOT, Scripts
from tests.helpers.waiting import wait_until

#: Logs numbered records until its stdin ends (or ``count`` of them) and prints how many. Paced, so that what is
#: done to the processes meanwhile falls between records.
PRODUCER = """
    import json, logging, select, sys, time
    import redislogkit
    from stress.checker import message

    config, worker, count, pause = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    redislogkit.configure(config)
    log = logging.getLogger("test")
    n = 0
    while n < count if count else not select.select([sys.stdin], [], [], 0)[0]:
        log.warning(message("r", worker, n))
        n += 1
        if pause:
            time.sleep(pause)
    print(n, flush=True)
"""


class Supervision:
    """A configuration below ``state_dir`` with a file writer ``app`` and, as asked for, others."""

    def __init__(self, state_dir: str, **sections: Any) -> None:
        self.state_dir = state_dir
        self.path = os.path.join(state_dir, "out", "app.log")
        self.sections: dict[str, Any] = {
            "state_dir": state_dir,
            "writers": {"app": {"type": "file", "path": self.path}},
        }
        for name, section in sections.items():
            if isinstance(section, Mapping):
                self.sections[name] = {**self.sections.get(name, {}), **section}
            else:
                self.sections[name] = section
        self.stream_dir = os.path.join(state_dir, self.sections.get("stream", {}).get("name", "app"))

    @property
    def argument(self) -> str:
        """The configuration for `PRODUCER`."""
        return json.dumps(self.sections)

    def file(self) -> str:
        """Write the configuration as a TOML file and return its path."""
        path = os.path.join(self.state_dir, "log.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{key} = {_toml(value)}\n" for key, value in self.sections.items())
        return path

    # -- processes ------------------------------------------------------------------------------

    def start(self, **options: Any) -> subprocess.Popen[str]:
        """Run ``python -m redislogkit.supervise`` in the foreground; returns when its children run."""
        process = subprocess.Popen(
            [sys.executable, "-m", "redislogkit.supervise", self.file()],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )
        wait_until(
            lambda: process.poll() is not None or len(self.children()) == self.roles,
            what="the supervisor's children run",
        )
        return process

    @property
    def roles(self) -> int:
        """How many children there are when all is well."""
        embedded = bool(self.sections.get("redis", {}).get("url", "embedded://") == "embedded://")
        return 1 + embedded + len(self.sections["writers"]) + ("metrics" in self.sections)

    @property
    def pid(self) -> int:
        """The living supervisor, 0 when there is none."""
        pid = locking.read_owner(os.path.join(self.stream_dir, "supervisor.lock")).get("pid")
        return pid if isinstance(pid, int) and is_running(pid) else 0

    def children(self) -> dict[str, int]:
        """Role (``server``, ``shipper``, ``w-app``) → pid of the running children that are at their work."""
        found = {}
        for pid in processes.children(self.pid):
            name = processes.name(pid)
            if name.startswith("rlk-") and is_running(pid):
                found[name[4:]] = pid
        return found

    def child(self, role: str, other_than: int = 0) -> int:
        """Wait until a child with this role runs, and return its pid."""
        return wait_until(
            lambda: pid if (pid := self.children().get(role, 0)) != other_than else 0,
            what=f"child {role} runs",
        )

    def lacks(self, pid: int) -> bool:
        """True when ``pid`` is none of the children."""
        return pid not in processes.children(self.pid)

    def everybody(self) -> dict[str, int]:
        """The supervisor, its children and the server itself."""
        children = self.children()
        below = {f"below {role}": pid for role in children for pid in processes.children(children[role])}
        return {"supervisor": self.pid, **children, **below}

    # -- results --------------------------------------------------------------------------------

    def log(self) -> str:
        """What a launched supervisor had to say."""
        return processes.read(os.path.join(self.stream_dir, "supervisor.log"))

    def spools(self) -> list[str]:
        """What is left in the spool folder."""
        return os.listdir(os.path.join(self.stream_dir, "spool"))

    def check(self, expected: Mapping[str, int], **options: Any) -> checker.Report:
        """Count what is in the file and its backups."""
        return checker.check(checker.rotated_files(self.path), expected, "r", **options)

    def wait_complete(self, expected: Mapping[str, int]) -> None:
        """Wait until nothing is lost any more; all of it must be there once and in order."""
        wait_until(lambda: not self.check(expected).lost, what="everything is written", deadline=30)
        report = self.check(expected)
        assert report.ok, f"{report}\n{self.log()}"


class Producers:
    """Running `PRODUCER` programs."""

    def __init__(
        self, scripts: Scripts, supervision: Supervision, number: int = 2, pause: float = 0.001
    ) -> None:
        self._supervision = supervision
        self._running = {
            f"w{i}": scripts.start(PRODUCER, supervision.argument, f"w{i}", 0, pause) for i in range(number)
        }

    def wait_flowing(self, more: int = 20) -> None:
        """Wait until ``more`` records of every producer than now are in the file."""
        now = self._written()
        for worker in self._running:
            self._wait_for(worker, now.get(worker, 0) + more)

    def _wait_for(self, worker: str, number: int) -> None:
        wait_until(lambda: self._written().get(worker, 0) >= number, what=f"{worker} is written on")

    def _written(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for path in checker.rotated_files(self._supervision.path):
            for line in processes.read(path).splitlines():
                worker = line.partition("rlk[r ")[2].partition(" ")[0]
                counts[worker] = counts.get(worker, 0) + 1
        return counts

    def finish(self) -> dict[str, int]:
        """End them; return how many records each has logged."""
        counts = {}
        for worker, process in self._running.items():
            out, err = process.communicate(timeout=30)
            assert not err, err
            counts[worker] = int(out)
        return counts


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)

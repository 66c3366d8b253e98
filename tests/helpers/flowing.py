"""Records that flow all the time into many files, each of which a test may break."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stress import checker
from tests.helpers import processes
from tests.helpers.scripts import Scripts
from tests.helpers.supervision import PRODUCER, Supervision
from tests.helpers.waiting import wait_until

WORKERS = ("w0", "w1")


class Flow:
    """A supervisor with a writer for each of ``sections``, and two programs that log until the end."""

    def __init__(self, folder: str, scripts: Scripts, sections: dict[str, dict[str, Any]]) -> None:
        self.folder = Path(folder)
        self.supervision = Supervision(folder, supervisor={"max_restarts": 1000, "heartbeat_timeout": 5})
        self.supervision.sections["writers"] = {
            name: {"type": "file", "path": str(self.path(name)), **section}
            for name, section in sections.items()
        }
        self._scripts = scripts
        self._programs: list[subprocess.Popen[str]] = []

    def start(self, env: Mapping[str, str] | None = None) -> None:
        """The programs begin; the first of them starts the supervisor. ``env`` is added to the environment."""
        for worker in WORKERS:
            self._programs.append(
                self._scripts.start(PRODUCER, self.supervision.argument, worker, 0, 0.002, env=env)
            )

    def path(self, writer: str) -> Path:
        """Log file of a writer, in a folder of its own."""
        return self.folder / writer / "app.log"

    def files(self, writer: str) -> list[Path]:
        """The writer's file and its backups, oldest first."""
        return [Path(path) for path in checker.rotated_files(self.path(writer))]

    def newest(self, files: Iterable[Path]) -> dict[str, int]:
        """Worker → number of its newest record in ``files``."""
        found = dict.fromkeys(WORKERS, -1)
        for path in files:
            with contextlib.suppress(OSError):
                for line in path.read_bytes().split(b"\n"):
                    _, _, token = line.partition(b"rlk[r ")
                    worker, _, rest = token.partition(b" ")
                    number = rest.partition(b" ")[0]
                    if worker.decode() in found and number.isdigit():
                        found[worker.decode()] = max(found[worker.decode()], int(number))
        return found

    def wait_flowing(self, writer: str, more: int = 20) -> None:
        """Wait until ``more`` records of each program than the file and its backups have now are there."""
        now = self.newest(self.files(writer))
        wait_until(
            lambda: all(self.newest(self.files(writer))[w] >= n + more for w, n in now.items()),
            what=f"records flow into {self.path(writer)}; {self.log()}",
        )

    @contextlib.contextmanager
    def stopped(self, writer: str) -> Iterator[int]:
        """The writer stands still meanwhile, wherever it is just now. Gives its pid."""
        pid = self.supervision.child(f"w-{writer}")
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: _state(pid) == "T", what="the writer is stopped")
            yield pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def check(self, writer: str, *before: Path) -> checker.Report:
        """Nothing up to the newest record is missing, doubled, torn or in another order; ``before`` are older files."""
        with self.stopped(writer):
            files = [*before, *(path for path in self.files(writer) if not _has_twin(path))]
            expected = {worker: number + 1 for worker, number in self.newest(files).items()}
            report = checker.check(files, expected, "r")
        assert report.ok, f"{report}\n{self.log()}"
        assert report.records > 0
        return report

    def log(self) -> str:
        """What the supervisor had to say."""
        return self.supervision.log()

    def wait_said(self, writer: str, text: str) -> None:
        """Wait until the writer has reported ``text``."""
        wait_until(
            lambda: any(f"writer {writer}: " in line and text in line for line in self.log().splitlines()),
            what=f"writer {writer} says {text!r}",
        )

    def said(self, writer: str) -> list[str]:
        """The lines of a writer in the supervisor's log."""
        return [line for line in self.log().splitlines() if f"writer {writer}: " in line]


@contextlib.contextmanager
def flowing(
    scripts_folder: Path, sections: dict[str, dict[str, Any]], env: Mapping[str, str] | None = None
) -> Iterator[Flow]:
    """A `Flow` of its own that is cleared away at the end, whatever was done to it."""
    folder = tempfile.mkdtemp(prefix="rlk-", dir="/tmp")
    mark = uuid.uuid4().hex
    before = os.environ.get(processes.MARK)
    os.environ[processes.MARK] = mark
    scripts = Scripts(scripts_folder)
    try:
        flow = Flow(folder, scripts, sections)
        flow.start(env)
        yield flow
    finally:
        scripts.close()
        processes.reap_all(mark, folder, processes.children())
        if before is None:
            del os.environ[processes.MARK]
        else:
            os.environ[processes.MARK] = before
        shutil.rmtree(folder, ignore_errors=True)


def _has_twin(path: Path) -> bool:
    """True where the writer stands still between the last two steps of a compression: the original goes next."""
    twin = path.with_name(f"{path.name}.gz")
    return twin.exists() and gzip.decompress(twin.read_bytes()) == path.read_bytes()


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of ``size`` is mounted at ``folder``. Raises ``CalledProcessError`` where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={size}", "none", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def mount(*arguments: str) -> None:
    """Run ``mount``."""
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def fill(path: Path) -> None:
    """Take all the room that the disk of ``path`` has, in that file."""
    with open(path, "ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


@contextlib.contextmanager
def traced(pid: int, *injections: str, path: Path) -> Iterator[None]:
    """System calls of a process on ``path`` fail, or take long, as the ``injections`` of strace say."""
    names = sorted({injection.partition(":")[0] for injection in injections})
    command = ["strace", "-qq", "-o", os.devnull, "-P", str(path), "-e", f"trace={','.join(names)}"]
    for injection in injections:
        command += ["-e", f"inject={injection}"]
    tracer = subprocess.Popen([*command, "-p", str(pid)], stderr=subprocess.PIPE, text=True)
    try:
        wait_until(
            lambda: tracer.poll() is not None or _tracer(pid) == tracer.pid, what="strace has attached"
        )
        assert tracer.poll() is None, tracer.stderr
        yield
    finally:
        tracer.terminate()
        tracer.communicate()


def _tracer(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("TracerPid:"):
                return int(line.split()[1])
    return 0


def pause(seconds: float) -> None:
    """For what has to last a while by itself (a disk that stays full); never to wait for something."""
    time.sleep(seconds)

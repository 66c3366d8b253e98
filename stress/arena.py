"""What a chaos run breaks: server, supervisor, programs that log, log disk and clock, and where they are.

Every process that is started here carries a mark in its environment, which its children inherit,
supervisors that detach themselves included: so all can be found and, at the end, none is left. Needs Linux.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import IO, Any, Final, NamedTuple

from redislogkit import config as configuration
from redislogkit import launch
from redislogkit.config import Config
from redislogkit.spool.shipper_end import spool_names
from redislogkit.stream import address
from redislogkit.stream.server_binary import find_server
from stress.disks import Disk, own_mounts
from stress.faults import AUTOSTART, BOUNDED, EMBEDDED, JSON, PLAIN, SetUp
from stress.programs import NEST, THREAD_NEST
from stress.proxy import Proxy

_MARK: Final = "REDISLOGKIT_CHAOS_ID"
_CLOCK: Final = "REDISLOGKIT_CHAOS_CLOCK"
_ROOT: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_NESTS: Final = 3
_SHORT: Final = 0.5
_STREAM: Final = "chaos"

SIZED: Final = "sized"
STAMPED: Final = "stamped"
#: Backups of the writer that removes its oldest ones.
BACKUPS: Final = 4

Start = Callable[[], "subprocess.Popen[bytes]"]


class Process(NamedTuple):
    """A process that carries the mark of the run."""

    pid: int
    command: bytes


class Kept:
    """A process that is started again a while after it has ended, ``unless`` somebody else does its work."""

    def __init__(self, start: Start, unless: Callable[[], object] = lambda: None) -> None:
        self._start = start
        self._unless = unless
        self.process: subprocess.Popen[bytes] | None = None
        self.next_start = 0.0
        self.starts = 0

    def tend(self) -> None:
        """Reap it and start it again where that is due."""
        now = time.monotonic()
        if self.process is not None and self.process.poll() is not None:
            self.process = None
            self.next_start = max(self.next_start, now + 0.1)
        if self.process is None and now >= self.next_start and not self._unless():
            self.process = self._start()
            self.starts += 1

    def delay(self, seconds: float) -> None:
        """Do not start it again before so many seconds from now."""
        self.next_start = time.monotonic() + seconds

    def end(self, timeout: float) -> int | None:
        """SIGTERM; its exit code, or None when it had to be killed or was not there."""
        if self.process is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None


class Arena:
    """One run's place with everything in it; ``folder`` is empty and has a short path."""

    def __init__(self, folder: str, set_up: SetUp, seed: int, minutes: float, rate: float) -> None:
        self.folder = folder
        self.set_up = set_up
        self._seed = seed
        self._rate = rate
        self.run = f"c{seed}"
        self._id = os.urandom(8).hex()
        self.logs = os.path.join(folder, "logs")
        self.tallies = os.path.join(folder, "tallies")
        self.server_folder = os.path.join(folder, "server")
        for path in (self.tallies, self.server_folder, os.path.join(folder, "stats")):
            os.mkdir(path)
        mounts = own_mounts()
        self.log_disk = Disk(self.logs, mounts=mounts)
        self.state_disk = Disk(os.path.join(folder, "state"), mounts=mounts)
        self._clock = _mapped_number(os.path.join(folder, "clock"))
        self.server_port = free_port()
        self.proxy = None if set_up.server == EMBEDDED else Proxy(self.server_port)
        self.config_path = os.path.join(folder, "log.toml")
        with open(self.config_path, "w", encoding="utf-8") as file:
            file.write(self._configuration(minutes))
        self.config: Config = configuration.load(self.config_path)
        self.server = Kept(self._start_server)
        self.supervisor = Kept(self._start_supervisor, unless=self.supervisors)
        self.nests = [Kept(self._nest_starter(seed, number)) for number in range(_NESTS)]
        self._others: list[subprocess.Popen[bytes]] = []
        self._errors = self._open("programs.err")
        self._supervisor_log = self._open("supervisor.log")

    def _configuration(self, minutes: float) -> str:
        set_up = self.set_up
        url = "embedded://" if self.proxy is None else f"redis://127.0.0.1:{self.proxy.port}"
        # Enough rotations for a short run, and not too many archives to shift in a long one.
        size = int(min(max(192 * minutes, 96), 4096))
        part = 'loggers = ["chaos.some"]' if set_up.selective else ""
        more = "".join(self._section(name, size) for name in set_up.writers)
        return f"""
version = 1
state_dir = "{self.state_disk.folder}"
redis.url = "{url}"
[stream]
name = "{_STREAM}"
layout = "{set_up.layout}"
[producer]
ack = "writer"
shutdown_timeout = 1.0
fast_logger = {str(set_up.fast).lower()}
[loggers]
root = "INFO"
[writers.{SIZED}]
type = "file"
path = "{self.path(SIZED)}"
max_bytes = "{size} KiB"
backup_count = 100_000
compress = "gzip"
fsync = "{set_up.fsync}"
[writers.{STAMPED}]
type = "file"
path = "{self.path(STAMPED)}"
when = "S"
interval = {max(4, int(4 * minutes))}
max_bytes = "{4 * size} KiB"
backup_count = 0
compress = "zstd"
{part}
{more}
[supervisor]
autostart = {"true" if set_up.supervisor == AUTOSTART else "false"}
max_restarts = 1000
heartbeat_timeout = 3
"""

    def _section(self, name: str, size: int) -> str:
        naming = ("number", "timestamp")[self._seed % 2]
        rest = {
            JSON: f"when = 'S'\ninterval = {max(3, size // 64)}\nbackup_count = 0\ncompress = 'gzip'",
            PLAIN: f"max_bytes = '{size // 2} KiB'\nbackup_count = 100_000",
            BOUNDED: f"max_bytes = '{size // 2} KiB'\nbackup_count = {BACKUPS}\nnaming = '{naming}'\n"
            "compress = 'gzip'",
        }[name]
        formatter = {JSON: "type = 'json'", PLAIN: "format = '%(message)s'"}.get(name, "")
        chosen = f"formatter = 'of-{name}'" if formatter else ""
        formatters = f"[formatters.of-{name}]\n{formatter}\n" if formatter else ""
        return f"[writers.{name}]\ntype = 'file'\npath = '{self.path(name)}'\n{rest}\n{chosen}\n{formatters}"

    @property
    def writer_names(self) -> tuple[str, ...]:
        """Names of the writers, all of which write files."""
        return tuple(self.config.writers)

    def path(self, writer: str) -> str:
        """Live file of a writer."""
        return os.path.join(self.logs, f"{writer}.log")

    def _open(self, name: str) -> IO[bytes]:
        return open(os.path.join(self.folder, name), "ab")

    # -- starting -------------------------------------------------------------------------------

    def tend(self) -> None:
        """Start again what has ended and is due."""
        for kept in self._kept():
            kept.tend()
        self._others = [process for process in self._others if process.poll() is None]

    def _kept(self) -> list[Kept]:
        kept = [*self.nests]
        if self.set_up.supervisor != AUTOSTART:
            kept.insert(0, self.supervisor)
        if self.proxy is not None:
            kept.insert(0, self.server)
        return kept

    def tend_without_programs(self) -> None:
        """As `tend`, while no program logs any more; then nobody but us starts the supervisor."""
        for kept in self._kept():
            if kept not in self.nests:
                kept.tend()
        if self.set_up.supervisor == AUTOSTART:
            with self._environment():
                launch.ensure_supervisor(self.config)

    @contextlib.contextmanager
    def _environment(self) -> Iterator[None]:
        """Our own environment is what a launched supervisor gets."""
        before = dict(os.environ)
        os.environ.update(self._marked())
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def _marked(self) -> dict[str, str]:
        clock = os.path.join(self.folder, "clock")
        paths = [_ROOT, os.path.join(_ROOT, "stress", "clock")]
        return {_MARK: self._id, _CLOCK: clock, "PYTHONPATH": os.pathsep.join(paths)}

    def _spawn(self, command: list[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, **self._marked()},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C reaches the harness alone, which then cleans up
        )

    def _start_server(self) -> subprocess.Popen[bytes]:
        options = {
            "port": self.server_port, "bind": "127.0.0.1", "dir": self.server_folder, "save": "",
            "appendonly": "yes", "appendfsync": "everysec", "logfile": f"{self.folder}/server.log",
        }  # fmt: skip
        command = [find_server()]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        return self._spawn(command, self._errors)

    def _start_supervisor(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "redislogkit.supervise", self.config_path]
        return self._spawn(command, self._supervisor_log)

    def start_second_supervisor(self) -> int:
        """Start a supervisor beside the one that runs; return its pid."""
        self._others.append(self._start_supervisor())
        return self._others[-1].pid

    def exit_code(self, pid: int) -> int | None:
        """Return the exit code of a supervisor that we have started; None of others, and while it runs."""
        started = [process for process in (self.supervisor.process, *self._others) if process is not None]
        return next((process.poll() for process in started if process.pid == pid), None)

    def _nest_starter(self, seed: int, number: int) -> Start:
        def start() -> subprocess.Popen[bytes]:
            starts = self.nests[number].starts
            place = [self.config_path, self.folder, self.run, str(os.getpid())]
            # In the last of them a thread ships.
            program = THREAD_NEST if number == _NESTS - 1 else NEST
            arguments = [program, *place, f"{seed}-{number}-{starts}", str(self._rate)]
            return self._spawn([sys.executable, "-m", "stress.programs", *arguments], self._errors)

        return start

    # -- finding --------------------------------------------------------------------------------

    def processes(self) -> list[Process]:
        """Return all processes of the run, in the order of their pids."""
        pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
        return [
            Process(pid, command)
            for pid in pids
            if (command := _read(pid, "cmdline")) and self._is_ours(pid, command)
        ]

    def _is_ours(self, pid: int, command: bytes) -> bool:
        # A server writes its title over its environment.
        if _is_server(command):
            return any(file.startswith(self.folder + "/") for file in _open_files(pid))
        return f"{_MARK}={self._id}".encode() in _read(pid, "environ").split(b"\0")

    def producers(self) -> list[int]:
        """Return the pids of the programs that log."""
        return [p.pid for p in self.processes() if b"stress.programs" in p.command]

    def servers(self) -> list[int]:
        """Return the pid of the server, where one runs."""
        return [p.pid for p in self.processes() if _is_server(p.command)]

    def supervision(self) -> dict[int, list[str]]:
        """Return the supervisors and their children with the files that tell what they are."""
        # By their title, where they can give themselves one.
        known = (b"redislogkit: ", b"redislogkit.supervise", b"spawn_main")
        ours = (p for p in self.processes() if any(name in p.command for name in known))
        return {p.pid: _open_files(p.pid) for p in ours}

    def supervisors(self) -> list[int]:
        """Return the pid of the supervisor, known by its lock."""
        lock = os.path.join(self.config.stream_dir, "supervisor.lock")
        return [pid for pid, files in self.supervision().items() if lock in files]

    def shippers(self) -> list[int]:
        """Return the pid of the shipper, known by the doorbell that it has open."""
        bell = launch.doorbell_path(self.config)
        supervisors = self.supervisors()
        return [pid for pid, files in self.supervision().items() if bell in files and pid not in supervisors]

    def writers(self) -> list[int]:
        """Return the pids of the writers."""
        return list(self.writer_pids().values())

    def writer_pids(self) -> dict[str, int]:
        """Return name → pid of the writers, known by the checkpoint that they have open."""
        folder = os.path.join(self.config.stream_dir, "checkpoints")
        found = {}
        for pid, files in self.supervision().items():
            for name in self.writer_names:
                if os.path.join(folder, name) in files:
                    found[name] = pid
        return found

    def owner_of_spool(self, name: str) -> int:
        """Return the pid of the producer that has a spool open, 0 where there is none."""
        folder = os.path.join(self.config.stream_dir, "spool", name) + "/"
        hidden = os.path.join(self.config.stream_dir, "spool", "." + name.lstrip(".")) + "/"
        found = (
            pid for pid in self.producers() if any(f.startswith((folder, hidden)) for f in _open_files(pid))
        )
        return next(found, 0)

    # -- the server's data ----------------------------------------------------------------------

    def command(self, *words: str) -> bytes:
        """Send one command to the server, past the proxy; the beginning of its answer, empty without one."""
        request = b"*%d\r\n" % len(words)
        for word in words:
            request += b"$%d\r\n%b\r\n" % (len(word), word.encode())
        try:
            with self._connection() as connection:
                connection.settimeout(_SHORT)
                connection.sendall(request)
                return connection.recv(256)
        except OSError:
            return b""

    def _connection(self) -> socket.socket:
        if self.proxy is not None:
            return socket.create_connection(("127.0.0.1", self.server_port), _SHORT)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_SHORT)
        connection.connect(address.resolve(self.config).removeprefix("unix://").partition("?")[0])
        return connection

    def replace_data(self, copy: str | None) -> None:
        """Put an older copy of the server's data in place, or none; the server is dead."""
        shutil.rmtree(self.server_folder, ignore_errors=True)
        if copy is None:
            os.mkdir(self.server_folder)
        else:
            shutil.move(copy, self.server_folder)

    def keys(self) -> list[str]:
        """Names of the keys that the stream has on the server."""
        names = ["sequences", "writers", "leases", *(f"written:{name}" for name in self.writer_names)]
        return [_STREAM, *(f"{{{_STREAM}}}:redislogkit:{name}" for name in names)]

    # -- clock, spools --------------------------------------------------------------------------

    def set_clock(self, offset: float) -> None:
        """Let the clock of supervisors and writers be off by so many seconds."""
        self._clock[0] = offset

    def spools(self) -> list[str]:
        """Names of the spools that are not written and removed yet."""
        return spool_names(os.path.join(self.config.stream_dir, "spool"))

    # -- the end --------------------------------------------------------------------------------

    def stop_programs(self) -> None:
        """Ask the programs to log no more."""
        with open(os.path.join(self.folder, "stop"), "wb"):
            pass

    def kill_all(self) -> list[Process]:
        """SIGKILL whatever is left; return what that was."""
        first = self.processes()
        for _ in range(50):
            left = self.processes()
            if not left:
                break
            for each in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each.pid, signal.SIGKILL)
            self._reap()
            time.sleep(0.02)
        return first

    def _reap(self) -> None:
        kept = (each.process for each in (*self.nests, self.server, self.supervisor))
        for process in (*kept, *self._others):
            if process is not None:
                process.poll()

    def close(self) -> None:
        """Kill what is left, keep the log files when their disk goes away, let go of everything."""
        self.kill_all()
        if self.proxy is not None:
            self.proxy.close()
        for disk in (self.log_disk, self.state_disk):
            disk.take_off()
        self._errors.close()
        self._supervisor_log.close()


def _is_server(command: bytes) -> bool:
    return command.partition(b"\0")[0].partition(b" ")[0].endswith(b"-server")


def _open_files(pid: int) -> list[str]:
    files = []
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                files.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return files


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _mapped_number(path: str) -> Any:
    with open(path, "w+b") as file:
        file.truncate(8)
        return memoryview(mmap.mmap(file.fileno(), 8)).cast("d")

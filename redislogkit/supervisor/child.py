"""What runs in a child of the supervisor: the server, the shipper, one writer, or who serves the figures.

A child is forked from the supervisor, which has one thread, no connection, and all modules loaded already; it
first closes what it has inherited. It beats over its pipe with its status and does what it is told there. Signals
that reach the whole group or control group (Ctrl-C, systemd) are left to the supervisor, which stops its
children in order. When the supervisor is killed, the kernel kills the child (Linux); elsewhere, and for
the server, the end of the pipe tells.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from multiprocess.connection import Connection

from redislogkit.config import Config
from redislogkit.errors import RedislogkitError
from redislogkit.supervisor import title

SERVER: Final = "server"
SHIPPER: Final = "shipper"
WRITER: Final = "writer"
METRICS: Final = "metrics"

#: Exit code of a child that can not do its work as configured; starting it again soon is no use.
EXIT_REFUSED: Final = 78
#: Exit code of a child that was told to drain and could not finish its work in time.
EXIT_UNFINISHED: Final = 75

#: What a child is told: finish the work that is there and end; end after the step that it is at; finish the work, have
#: the stream kept for this writer no longer, and end; make the live file an archive; open the file again.
DRAIN: Final = "drain"
END: Final = "end"
RETIRE: Final = "retire"
ROTATE: Final = "rotate"
REOPEN: Final = "reopen"

#: Seconds between two signs of life, unless there is news, or the supervisor loses its patience earlier.
_BEAT: Final = 2.0
_NEWS: Final = 0.2
_PR_SET_PDEATHSIG: Final = 1


class ChildSpec(NamedTuple):
    """Which part of the configuration a child runs."""

    kind: str
    name: str

    @property
    def title(self) -> str:
        """How it is called in the log; of whom there is only one, by its kind."""
        return self.kind if self.kind == self.name else f"{self.kind} {self.name}"


THE_SERVER: Final = ChildSpec(SERVER, SERVER)
THE_SHIPPER: Final = ChildSpec(SHIPPER, SHIPPER)
THE_METRICS: Final = ChildSpec(METRICS, METRICS)


def writer(name: str) -> ChildSpec:
    """Return the spec of the writer ``name``."""
    return ChildSpec(WRITER, name)


class ServerStatus(NamedTuple):
    """What the supervisor wants to know about the embedded server."""

    error: str


class MetricsStatus(NamedTuple):
    """What the supervisor wants to know about who serves the figures: only that it lives."""

    error: str = ""


class Link:
    """The child's end of the pipe to its supervisor."""

    def __init__(self, connection: Connection, heartbeat_timeout: float) -> None:
        self._connection = connection
        self._period = min(_BEAT, heartbeat_timeout / 4)
        self._next_beat = self._next_news = 0.0
        self._status: Any = None
        self._told = ""
        self._errands: list[str] = []
        self.orphaned = False
        """The supervisor is gone."""

    def fileno(self) -> int:
        """Descriptor that becomes readable when the supervisor says something or is gone."""
        return int(self._connection.fileno())

    def stopping(self) -> bool:
        """True once the supervisor has said that this child is to end, or is gone."""
        self._listen()
        return bool(self._told)

    def hurried(self) -> bool:
        """True when what is left to do is not to be waited for."""
        self._listen()
        return self.orphaned or self._told == END

    def retiring(self) -> bool:
        """True when this writer is not configured any more."""
        return self._told == RETIRE

    def errands(self) -> list[str]:
        """Return what `stopping` has heard that is to be done beside the work, once."""
        errands, self._errands = self._errands, []
        return errands

    def _listen(self) -> None:
        while not self.orphaned and self._connection.poll(0):
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                self.orphaned = True
                self._told = self._told or END
                return
            if message in (ROTATE, REOPEN):
                self._errands.append(message)
            else:
                self._told = message

    def beat(self, status: Any) -> None:
        """Send a sign of life where it is time, and somewhat earlier when ``status`` is news; never blocks."""
        now = time.monotonic()
        if now >= self._next_beat or (status != self._status and now >= self._next_news):
            self._next_beat, self._next_news = now + self._period, now + _NEWS
            self._status = status
            self._send("beat", status._asdict())

    def report(self, message: str) -> None:
        """Send one line for the supervisor's log; never blocks."""
        self._send("report", message)

    def fail(self, reason: str) -> None:
        """Say why this child ends now, for the log and for whoever asks; never blocks."""
        self._send("failure", reason)

    def _send(self, kind: str, content: Any) -> None:
        poll = select.poll()
        poll.register(self._connection, select.POLLOUT)
        if poll.poll(0):
            try:
                self._connection.send((kind, content))
            except OSError:
                self.orphaned = True


def load_modules() -> None:
    """Load what the children need, so that each of them finds it loaded. Takes 0.1 s of CPU: it imports redis."""
    importlib.import_module("redislogkit.supervisor.parts")


def main(
    spec: ChildSpec,
    config: Config,
    connection: Connection,
    drain_timeout: float,
    supervisor: int,
    leave_behind: Callable[[], None],
) -> None:
    """Run the part that ``spec`` names; the entry point of every child, just forked from ``supervisor``."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        # Not SIG_IGN: the server would inherit that, and not hear us while it starts.
        signal.signal(number, lambda *_: None)
    leave_behind()
    if sys.platform == "linux":
        _end_with(supervisor)
    title.give(
        f"rlk-w-{spec.name}" if spec.kind == WRITER else f"rlk-{spec.name}",
        f"redislogkit: {spec.title} ({config.stream.name})",
    )
    # Everything loaded stays. What comes and goes is freed by its count; looking for cycles among the records of a
    # reading, again and again, took a fifth of a writer's time.
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    link = Link(connection, config.supervisor.heartbeat_timeout)
    try:
        code = _part(spec.kind)(config, spec.name, link, drain_timeout)
    except RedislogkitError as error:
        link.fail(str(error))
        code = EXIT_REFUSED
    except Exception as error:
        link.fail(f"has failed: {error!r}")
        raise
    # Nothing of ours is left to do; the interpreter's own shutdown would only cost time.
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed when the supervisor was started
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    os._exit(code)


def _part(kind: str) -> Callable[[Config, str, Link, float], int]:
    if kind == SERVER:
        return _serve
    from redislogkit.supervisor import parts

    return {SHIPPER: parts.ship, WRITER: parts.write, METRICS: parts.serve_metrics}[kind]


def _serve(config: Config, _name: str, link: Link, _drain_timeout: float) -> int:
    from redislogkit.stream import address, embedded

    code = embedded.serve(
        address.server_directory(config), link.fileno(), lambda: link.beat(ServerStatus(""))
    )
    if link.stopping():
        return 0  # however it has ended: nothing of ours waits in it
    return code if code >= 0 else 128 - code  # as a shell says that a signal has ended it


def _end_with(supervisor: int) -> None:
    """Have the kernel end this process with the supervisor, also while it waits."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != supervisor:  # it was gone before the call
        os._exit(0)

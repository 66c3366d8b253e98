"""The supervisor: what should run against what does.

Theory of operation. One loop waits for children's pipes and ends and for signals, then reconciles: a child
that has ended is started again after a pause that grows with each failure; one that is silent for longer
than ``heartbeat_timeout`` is killed first; one that fails more than ``max_restarts`` times within
``restart_window``, or says that it can not work as configured, is set aside and tried again at a slow pace
while the others go on.

Stopping goes along the path of a record: the shipper first (it drains the spools and waits for the writers),
then the writers (they read the stream to its end), the server last.

A supervisor that an application has launched ends when no producer is left and everything is written.
It stops listening before it looks a last time, so a producer that comes meanwhile either is seen, or
finds nobody at the doorbell and launches the next supervisor.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import multiprocess
from multiprocess.connection import Connection, wait

from redislogkit import config as configuration
from redislogkit import launch, locking
from redislogkit.config import Config
from redislogkit.spool.doorbell import Doorbell
from redislogkit.spool.shipper_end import spool_names
from redislogkit.stream import address
from redislogkit.supervisor import child
from redislogkit.supervisor.child import ChildSpec

EXIT_OK: Final = 0
#: A child was set aside when the supervisor ended: not everything is written.
EXIT_SET_ASIDE: Final = 3

DRAIN_TIMEOUT: Final = 10.0
_KILL_AFTER: Final = 3.0
_STABLE_AFTER: Final = 10.0
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 10.0
_SET_ASIDE_PAUSE: Final = 15.0
_LINGER: Final = 2.0
_TICK: Final = 0.5

Report = Callable[[str], None]


class Child:
    """One child: its process, its pipe, and its history."""

    def __init__(self, spec: ChildSpec, config: Config, report: Report) -> None:
        self.spec = spec
        self.title = spec.kind if spec.kind == spec.name else f"{spec.kind} {spec.name}"
        self.process: Any = None
        self.connection: Connection | None = None
        self.status: tuple[Any, ...] = ()
        self.set_aside = False
        self.failures = 0
        self.next_start = 0.0
        self._config = config
        self._report = report
        self._restarts: deque[float] = deque()
        self._started = 0.0
        self._last_beat = 0.0

    def spawn(self) -> None:
        """Start the process fresh."""
        ours, theirs = multiprocess.Pipe()
        self.process = multiprocess.get_context("spawn").Process(
            target=child.main,
            args=(self.spec, configuration.to_bytes(self._config), theirs, DRAIN_TIMEOUT),
            name=f"redislogkit-{self.title}",
            daemon=True,
        )
        self.process.start()
        theirs.close()
        self.connection = ours
        self._started = self._last_beat = time.monotonic()
        self.status = ()

    @property
    def alive(self) -> bool:
        """True while there is a process that has not been reaped."""
        return self.process is not None

    def listen(self) -> None:
        """Take what the child has sent."""
        try:
            while self.connection is not None and self.connection.poll(0):
                kind, content = self.connection.recv()
                if kind == "beat":
                    self._last_beat, self.status = time.monotonic(), content
                else:
                    self._report(f"{self.title}: {content}")
        except (EOFError, OSError):
            self._hang_up()

    def is_silent(self) -> bool:
        """True when no sign of life has come for too long."""
        return time.monotonic() - self._last_beat > self._config.supervisor.heartbeat_timeout

    def reap(self) -> int | None:
        """Return the exit code of a child that has ended, once; None while it runs."""
        code: int | None = self.process.exitcode
        if code is not None:
            self.listen()
            self._hang_up()
            self.process.close()
            self.process = None
        return code

    def plan_restart(self, code: int) -> None:
        """Decide when to start again after an end with ``code``."""
        now = time.monotonic()
        settings = self._config.supervisor
        if now - self._started > _STABLE_AFTER:
            self.failures = 0
        self.failures += 1
        self._restarts.append(now)
        while self._restarts and self._restarts[0] < now - settings.restart_window:
            self._restarts.popleft()
        refused = code == child.EXIT_REFUSED
        was_aside, self.set_aside = self.set_aside, refused or len(self._restarts) > settings.max_restarts
        pause = min(_FIRST_PAUSE * 2 ** min(self.failures - 1, 10), _LONGEST_PAUSE)
        if self.set_aside:
            pause = _SET_ASIDE_PAUSE
        self.next_start = now + pause * random.uniform(0.5, 1.0)
        if self.set_aside and not was_aside:
            why = "can not work as configured" if refused else f"has failed {len(self._restarts)} times"
            self._report(f"{self.title}: set aside, it {why}; tried again every {_SET_ASIDE_PAUSE:g} s")
        elif not self.set_aside:
            self._report(f"{self.title}: ended with {_describe(code)}, starting it again")

    def drain(self) -> None:
        """Tell the child to finish its work."""
        if self.connection is None:
            return
        try:
            if self.spec.kind == child.SERVER:
                self._hang_up()  # the server's end is the end of its pipe
            else:
                self.connection.send("drain")
        except OSError:
            self._hang_up()

    def kill(self) -> None:
        """End the child now."""
        if self.process is not None:
            self.process.kill()

    def _hang_up(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class Manager:
    """Runs the children of one configuration until it is told to stop.

    Args:
        config: The configuration.
        report: Takes one line for the supervisor's own log.
        launched: Started by an application: end when nobody needs it any more.
    """

    def __init__(self, config: Config, report: Report, *, launched: bool = False) -> None:
        self._config = config
        self._report = report
        self._launched = launched
        self._lock = locking.OwnedLock(
            os.path.join(config.stream_dir, "supervisor.lock"),
            f"stream {config.stream.name!r} in state_dir {config.state_dir}",
        )
        specs = [ChildSpec(child.SHIPPER, child.SHIPPER)]
        specs += [ChildSpec(child.WRITER, name) for name in config.writers]
        if address.is_embedded(config):
            specs.insert(0, ChildSpec(child.SERVER, child.SERVER))
        self._children = [Child(spec, config, report) for spec in specs]
        self._bell: Doorbell | None = None
        self._stop_signals = 0
        self._quiet_since: float | None = None
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    # -- life -----------------------------------------------------------------------------------

    def acquire(self, timeout: float) -> None:
        """Become the one supervisor of the stream on this host. Raises ``LockHeldError``."""
        self._lock.acquire(timeout)
        self._listen()

    def run(self) -> int:
        """Supervise until a signal, or until nobody needs it; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop_signal)
        try:
            while True:
                self._reconcile()
                self._wait()
                if self._stop_signals:
                    self._stop()
                    break
                if self._is_idle() and self._end_idle():
                    break
            return EXIT_SET_ASIDE if any(c.set_aside for c in self._children) else EXIT_OK
        finally:
            for each in self._children:
                each.kill()
            self._deafen()
            self._lock.release()

    def _on_stop_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler
        self._stop_signals += 1
        os.write(self._wake_write, b"\0")

    def _listen(self) -> None:
        if self._bell is None:
            self._bell = Doorbell(launch.doorbell_path(self._config))

    def _deafen(self) -> None:
        if self._bell is not None:
            self._bell.close()
            self._bell = None

    # -- the loop -------------------------------------------------------------------------------

    def _reconcile(self) -> None:
        now = time.monotonic()
        for each in self._children:
            if each.alive:
                each.listen()
                if each.is_silent():
                    timeout = self._config.supervisor.heartbeat_timeout
                    self._report(f"{each.title}: silent for more than {timeout:g} s, killed")
                    each.kill()
                    each.process.join(_KILL_AFTER)
                code = each.reap()
                if code is not None:
                    each.plan_restart(code)
            if not each.alive and now >= each.next_start:
                each.spawn()

    def _wait(self) -> None:
        running = [each for each in self._children if each.alive]
        things: list[Any] = [self._wake_read]
        things += [each.process.sentinel for each in running]
        things += [each.connection for each in running if each.connection is not None]
        wait(things, timeout=_TICK)

    # -- stopping -------------------------------------------------------------------------------

    def _stop(self) -> None:
        self._report("draining")
        for kind in (child.SHIPPER, child.WRITER, child.SERVER):
            self._stop_children(kind)

    def _stop_children(self, kind: str) -> None:
        those = [each for each in self._children if each.spec.kind == kind and each.alive]
        for each in those:
            each.drain()
        deadline = time.monotonic() + DRAIN_TIMEOUT + _KILL_AFTER
        while any(each.alive for each in those):
            if self._stop_signals > 1 or time.monotonic() > deadline:
                for each in those:
                    each.kill()
            wait([self._wake_read, *(each.process.sentinel for each in those if each.alive)], timeout=_TICK)
            for each in those:
                if each.alive:
                    each.listen()
                    each.reap()

    # -- a launched supervisor ends by itself ---------------------------------------------------

    def _is_idle(self) -> bool:
        """True when no producer has been there, and nothing unwritten, for a while."""
        if not self._launched:
            return False
        shipper = next(each for each in self._children if each.spec.kind == child.SHIPPER)
        needed = not shipper.status or any(shipper.status[:3])
        now = time.monotonic()
        if needed:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now
        return self._quiet_since is not None and now - self._quiet_since >= _LINGER

    def _end_idle(self) -> bool:
        """Stop everything; False when a producer has come meanwhile and everything must go on."""
        root = os.path.join(self._config.stream_dir, "spool")
        self._stop_children(child.SHIPPER)
        if spool_names(root):
            self._quiet_since = None
            return False
        self._stop_children(child.WRITER)
        self._stop_children(child.SERVER)
        self._deafen()
        if spool_names(root):
            self._listen()
            self._quiet_since = None
            return False
        return True


def _describe(code: int) -> str:
    if code < 0:
        try:
            return f"signal {signal.Signals(-code).name}"
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"

"""The supervisor: what should run against what does.

Theory of operation. One loop waits for children's pipes and ends and for signals, then reconciles: a child
that has ended is started again (`restarts` says when); one that is silent for longer than
``heartbeat_timeout`` is killed first; one that keeps failing, or says that it can not work as configured,
is set aside and tried again at a slow pace while the others go on.

Stopping goes along the path of a record: the shipper first (it drains the spools and waits for the writers),
then the writers (they read the stream to its end), the server last. What comes later on the path is kept
running meanwhile. A second signal stops now; nothing is lost by that, it waits in the spools.

A supervisor that an application has launched ends when no producer is left and everything is written.
It stops listening before it looks a last time, so a producer that comes meanwhile is seen, or finds
nobody at the doorbell and launches the next supervisor.

The lock and the doorbell must be free the moment the supervisor is dead, however it dies. Children are forked
and close their copies of both, and of each other's pipes, first of all.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

import multiprocess
from multiprocess.connection import Connection, wait

from redislogkit import config as configuration
from redislogkit import launch, locking
from redislogkit.config import Config
from redislogkit.errors import RedislogkitError
from redislogkit.spool.doorbell import Doorbell
from redislogkit.spool.shipper_end import spool_names
from redislogkit.stream import address
from redislogkit.supervisor import child
from redislogkit.supervisor.child import ChildSpec
from redislogkit.supervisor.restarts import SET_ASIDE_PAUSE, STABLE_AFTER, Restarts

EXIT_OK: Final = 0
#: A child was set aside or had not finished when the supervisor ended: not everything is written.
EXIT_UNWRITTEN: Final = 3

DRAIN_TIMEOUT: Final = 10.0
#: The same where one of those that are needed says that it can not work now.
_HINDERED_DRAIN_TIMEOUT: Final = 2.0
#: Seconds in which a child must give its first sign of life.
_START_GRACE: Final = 10.0
_KILL_AFTER: Final = 3.0
_LINGER: Final = 2.0
_TICK: Final = 0.5
#: Seconds between two looks whether its folder is still there.
_LOOK_INTERVAL: Final = 1.0

#: Where in the status of a child of each kind stands why it waits.
_ERROR_AT: Final = {child.SERVER: 0, child.SHIPPER: 3, child.WRITER: 2}

Report = Callable[[str], None]


class Child:
    """One child: its process, its pipe, and its history."""

    def __init__(self, spec: ChildSpec, config: Config, report: Report) -> None:
        self.spec = spec
        self.title = spec.kind if spec.kind == spec.name else f"{spec.kind} {spec.name}"
        self.process: Any = None
        self.connection: Connection | None = None
        self.status: tuple[Any, ...] = ()
        self.unfinished = False
        """It was told to drain and could not finish."""
        self.restarts = Restarts(config.supervisor.max_restarts, config.supervisor.restart_window)
        self.next_start = 0.0
        self._config = config
        self._report = report
        self._said: set[str] = set()
        self._started = 0.0
        self._last_beat = 0.0

    @property
    def alive(self) -> bool:
        """True while there is a process that has not been reaped."""
        return self.process is not None

    @property
    def hindered(self) -> bool:
        """True when it can not work now, by its own word or by experience."""
        error = self.status[_ERROR_AT[self.spec.kind] :][:1]
        return self.restarts.set_aside or any(error)

    def start(self, leave_behind: Callable[[], None]) -> None:
        """Fork the process, which calls ``leave_behind`` first. A system without room counts as a failure."""
        self.status = ()
        self._started = time.monotonic()
        self._last_beat = self._started + _START_GRACE - self._config.supervisor.heartbeat_timeout
        try:
            self.connection, theirs = multiprocess.Pipe()
            with theirs:
                process = multiprocess.get_context("fork").Process(
                    target=child.main,
                    args=(self.spec, self._config, theirs, DRAIN_TIMEOUT, os.getpid(), leave_behind),
                    name=f"redislogkit-{self.title}",
                    daemon=True,
                )
                process.start()
        except OSError as error:
            self.hang_up()
            self._plan_restart(child.EXIT_UNFINISHED, f"can not be started ({error})")
        else:
            self.process = process

    def listen(self) -> None:
        """Take what the child has sent."""
        try:
            while self.connection is not None and self.connection.poll(0):
                kind, content = self.connection.recv()
                if kind == "beat":
                    self._last_beat, self.status = time.monotonic(), content
                else:
                    self._pass_on(content)
        except (EOFError, OSError):
            self.hang_up()

    def _pass_on(self, message: str) -> None:
        if not self.restarts.set_aside:
            self._said.clear()
        elif message in self._said:  # one line is enough, not one for each slow retry
            return
        self._said.add(message)
        self._report(f"{self.title}: {message}")

    def tend(self) -> None:
        """Judge a running child by its signs of life and its end; plan the next start where it has ended."""
        self.listen()
        now = time.monotonic()
        timeout = self._longest_silence()
        if now - self._last_beat > timeout:
            self._report(f"{self.title}: silent for more than {timeout:g} s, killed")
            self.kill()
        if self.restarts.set_aside and now - self._started > STABLE_AFTER + self._patience():
            self.restarts.runs_again()
            self._report(f"{self.title}: works again")
        code = self.reap()
        if code is not None:
            self._plan_restart(code, f"has ended with {_describe(code)}")

    def _longest_silence(self) -> float:
        """How long it may be silent: a user's code may not return before, and is silent meanwhile."""
        in_a_call = float(getattr(self._config.writers.get(self.spec.name), "timeout", 0.0))
        return self._config.supervisor.heartbeat_timeout + in_a_call

    def _patience(self) -> float:
        """How long it may wait before it can know that it can not work."""
        return float(getattr(self._config.writers.get(self.spec.name), "lock_timeout", 0.0))

    def reap(self) -> int | None:
        """Return the exit code of a child that has ended, once; None while it runs."""
        code: int | None = self.process.exitcode
        if code is not None:
            self.listen()
            self.hang_up()
            self.process.close()
            self.process = None
        return code

    def _plan_restart(self, code: int, what: str) -> None:
        now = time.monotonic()
        refused = code == child.EXIT_REFUSED
        was_aside = self.restarts.set_aside
        pause = self.restarts.pause(
            now, now - self._started, refused=refused, jitter=random.uniform(0.5, 1.0)
        )
        self.next_start = now + pause
        if not self.restarts.set_aside:
            self._report(f"{self.title}: {what}, starting it again")
        elif not was_aside:
            why = "can not work as configured" if refused else f"has failed {self.restarts.recent} times"
            if not refused:
                self._report(f"{self.title}: {what}")
            self._report(f"{self.title}: set aside, it {why}; tried again every {SET_ASIDE_PAUSE:g} s")

    def finish(self, code: int) -> None:
        """Take note of how it has ended after it was told to."""
        self.unfinished = code != 0
        if self.unfinished:
            self._report(f"{self.title}: has ended with {_describe(code)} before it had finished")
        else:
            self.restarts.runs_again()  # it could work after all

    def drain(self) -> None:
        """Tell the child to finish its work."""
        if self.connection is None:
            return
        if self.spec.kind == child.SERVER:
            self.hang_up()  # the server's end is the end of its pipe
            return
        try:
            self.connection.send("drain")
        except OSError:
            self.hang_up()

    def kill(self) -> None:
        """End the child now."""
        if self.process is not None:
            self.process.kill()
            self.process.join(_KILL_AFTER)

    def hang_up(self) -> None:
        """Close our end of the pipe."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class Manager:
    """Runs the children of one configuration until it is told to stop.

    Args:
        config: The configuration.
        report: Takes one line for the supervisor's own log.
        launched: Started by an application: end when nobody needs it any more.
        reload: Gives the configuration as it is now, for SIGHUP; None where there is nothing to load it from.
    """

    def __init__(
        self,
        config: Config,
        report: Report,
        *,
        launched: bool = False,
        reload: Callable[[], Config] | None = None,
    ) -> None:
        self._reload = reload
        self._hangups = 0
        self._config = config
        self._report = report
        self._launched = launched
        self._root = os.path.join(config.stream_dir, "spool")
        self._lock = locking.OwnedLock(
            os.path.join(config.stream_dir, "supervisor.lock"),
            f"stream {config.stream.name!r} in state_dir {config.state_dir}",
        )
        specs = [ChildSpec(child.SHIPPER, child.SHIPPER)]
        specs += [ChildSpec(child.WRITER, name) for name in config.writers]
        if address.is_embedded(config):
            specs.insert(0, ChildSpec(child.SERVER, child.SERVER))
        self._children = [Child(spec, config, report) for spec in specs]
        self._shipper = next(each for each in self._children if each.spec.kind == child.SHIPPER)
        self._bell: Doorbell | None = None
        self._stop_signals = 0
        self._announced = False
        self._next_look = 0.0
        self._quiet_since: float | None = None
        self._quiet_state: tuple[Any, ...] = ()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    # -- life -----------------------------------------------------------------------------------

    def acquire(self, timeout: float) -> None:
        """Become the one supervisor of the stream on this host. Raises ``LockHeldError``."""
        self._lock.acquire(timeout)
        self._announce()
        self._listen()

    def _announce(self) -> None:
        self._announced = launch.announce(self._config, launched=self._launched, supervising=True)

    def run(self) -> int:
        """Supervise until a signal, or until nobody needs it; return the exit code."""
        stops = (signal.SIGTERM, signal.SIGINT)
        for number in stops:
            signal.signal(number, self._on_stop_signal)
        signal.signal(signal.SIGHUP, self._on_hangup)
        # "Reopen": writers look at their files with every record. Not SIG_IGN, which the server would inherit.
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)  # whatever the program that launched us had blocked
        try:
            while True:
                self._tend(self._children)
                self._wait()
                if not self._announced:
                    self._announce()
                if self._hangups:
                    self._look_at_configuration()
                if self._stop_signals:
                    self._stop()
                    break
                if self._is_idle() and self._end_idle():
                    break
                if self._is_replaced():
                    return EXIT_UNWRITTEN
            unwritten = any(each.unfinished or each.restarts.set_aside for each in self._children)
            return EXIT_UNWRITTEN if unwritten else EXIT_OK
        finally:
            for each in self._children:
                each.kill()
            self._deafen()
            self._lock.release()

    def _on_stop_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler
        self._stop_signals += 1
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler
        self._hangups += 1
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def _look_at_configuration(self) -> None:
        """SIGHUP: say what is to be thought of the configuration as it is now; the old one stays in force."""
        self._hangups = 0
        if self._reload is None:
            return
        try:
            changed = configuration.digest(self._reload()) != configuration.digest(self._config)
        except (RedislogkitError, OSError) as error:
            self._report(f"the configuration is not taken, the old one stays in force: {error}")
            return
        if changed:
            self._report(
                "the configuration has changed; it is right, and taken when the supervisor is started again"
            )
        else:
            self._report("the configuration has not changed")

    def _listen(self) -> None:
        if self._bell is None:
            self._bell = Doorbell(launch.doorbell_path(self._config))

    def _deafen(self) -> None:
        if self._bell is not None:
            self._bell.close()
            self._bell = None

    def _is_replaced(self) -> bool:
        """True when somebody has removed our folder: the next supervisor finds nothing locked, and one is enough."""
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + _LOOK_INTERVAL
        if self._lock.is_lost():
            self._report(
                f"{self._lock.path} was removed or replaced: it ends, as another one may be at work by now"
            )
            return True
        return False

    # -- the loop -------------------------------------------------------------------------------

    def _tend(self, children: list[Child]) -> None:
        """Reconcile: judge those that run, start those whose time has come."""
        for each in children:
            if each.alive:
                each.tend()
            if not each.alive and time.monotonic() >= each.next_start:
                if each.spec.kind != child.SERVER:
                    child.load_modules()  # once; the server starts meanwhile
                    gc.freeze()  # leaves the pages that children share untouched
                each.start(self._leave_behind)

    def _leave_behind(self) -> None:
        """In a child: close what only the supervisor may hold."""
        for each in self._children:
            each.hang_up()
        self._deafen()
        self._lock.abandon()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _wait(self) -> None:
        running = [each for each in self._children if each.alive]
        things: list[Any] = [self._wake_read]
        things += [each.process.sentinel for each in running]
        things += [each.connection for each in running if each.connection is not None]
        wait(things, timeout=_TICK)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    # -- stopping -------------------------------------------------------------------------------

    def _stop(self) -> None:
        self._report("draining")
        for kind in (child.SHIPPER, child.WRITER, child.SERVER):
            self._stop_children(kind)

    def _stop_children(self, kind: str) -> None:
        """Stop those of one kind; the kinds behind it on the path go on."""
        those = [each for each in self._children if each.spec.kind == kind and each.alive]
        others = [each for each in self._children if each.spec.kind in _BEHIND[kind]]
        for each in those:
            each.drain()
        began = time.monotonic()
        while running := [each for each in those if each.alive]:
            now = kind != child.SERVER and self._stop_signals > 1
            hindered = any(each.hindered for each in (*those, *others))
            timeout = _HINDERED_DRAIN_TIMEOUT if hindered else DRAIN_TIMEOUT + _KILL_AFTER
            if now or time.monotonic() - began > timeout:
                for each in running:
                    each.kill()
            else:
                self._tend(others)
                self._wait()
            for each in running:
                each.listen()
                code = each.reap()
                if code is not None:
                    each.finish(code)

    # -- a launched supervisor ends by itself ---------------------------------------------------

    def _is_idle(self) -> bool:
        """True when no producer has been there, and nothing unwritten, for a while."""
        if not self._launched:
            return False
        status = self._shipper.status
        now = time.monotonic()
        if not status or any(status[:3]):
            self._quiet_since = None
        elif self._quiet_since is None or status != self._quiet_state[0]:
            # Spools that nobody can read are there already, and do not keep anybody waiting.
            self._quiet_since, self._quiet_state = now, (status, *spool_names(self._root))
        return self._quiet_since is not None and now - self._quiet_since >= _LINGER

    def _end_idle(self) -> bool:
        """Stop everything; False when a producer has come meanwhile and everything must go on."""
        for each in self._stages():
            each()
            if self._somebody_came():
                self._listen()
                self._quiet_since = None
                for stopped in self._children:
                    stopped.unfinished = False
                return False
        return True

    def _stages(self) -> Iterator[Callable[[], None]]:
        for kind in (child.SHIPPER, child.WRITER, child.SERVER):
            yield lambda kind=kind: self._stop_children(kind)  # type: ignore[misc]
        yield self._deafen

    def _somebody_came(self) -> bool:
        """True when a producer has rung, or made a spool, since everything was quiet."""
        rung = self._bell is not None and self._bell.clear()
        return rung or not set(spool_names(self._root)) <= set(self._quiet_state[1:])


#: What a record still has to pass behind each kind of child.
_BEHIND: Final = {
    child.SHIPPER: (child.WRITER, child.SERVER),
    child.WRITER: (child.SERVER,),
    child.SERVER: (),
}


def _describe(code: int) -> str:
    if code < 0:
        try:
            return f"signal {signal.Signals(-code).name}"
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"

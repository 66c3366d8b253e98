"""One child as its supervisor sees it: process, pipe, signs of life, history.

A child is in one of these states; ``since`` is when it came into it.

=============  ==================================================================================
starting       it has a process, and has not given a sign of life yet
running        it works
waiting        it lives, and says that it can not work now (``error`` has the reason)
restarting     it has ended, and is started again at ``next_start``
set aside      it has failed too often or can not work as configured; it is tried again at a slow pace
draining       it was told to finish its work
ended          it has ended and is not started again
=============  ==================================================================================
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import multiprocess
from multiprocess.connection import Connection

from redislogkit.config import Config
from redislogkit.supervisor import child
from redislogkit.supervisor.child import ChildSpec
from redislogkit.supervisor.restarts import SET_ASIDE_PAUSE, STABLE_AFTER, Restarts
from redislogkit.supervisor.totals import Totals

#: Seconds that a child may take to finish its work.
DRAIN_TIMEOUT: Final = 10.0
#: Seconds beyond that until it is killed.
KILL_AFTER: Final = 3.0
#: Seconds in which a child must give its first sign of life.
_START_GRACE: Final = 10.0

STARTING: Final = "starting"
RUNNING: Final = "running"
WAITING: Final = "waiting"
RESTARTING: Final = "restarting"
SET_ASIDE: Final = "set aside"
DRAINING: Final = "draining"
ENDED: Final = "ended"

#: How `Child.last_exit` tells of one that has done all it was told to.
FINISHED: Final = "ended with exit code 0"

Report: TypeAlias = Callable[[str], None]


class Child:
    """One child: its process, its pipe, and its history."""

    def __init__(self, spec: ChildSpec, config: Config, report: Report) -> None:
        self.spec = spec
        self.title = spec.title
        self.config = config
        """What it is started with the next time."""
        self.process: Any = None
        self.connection: Connection | None = None
        self.status: Mapping[str, Any] = {}
        """What it has said with its last sign of life."""
        self.totals = Totals()
        self.unfinished = False
        """It was told to drain and could not finish."""
        self.gone = False
        """It is not wanted any more, and is not started again."""
        self.restarts = Restarts()
        self.total_restarts = 0
        self.last_exit = ""
        self.failure = ""
        """Why it has ended the last time, by its own word; empty when it works again."""
        self.next_start = 0.0
        self.state = STARTING
        self.since = time.time()
        self._report = report
        self._said: set[str] = set()
        self._last_word = ""
        self._started = 0.0
        self._last_beat = 0.0
        self._told = ""
        self._stopped = False
        self._deadline: float | None = None

    @property
    def alive(self) -> bool:
        """True while there is a process that has not been reaped."""
        return self.process is not None

    @property
    def to_be_started(self) -> bool:
        """True when it has no process, and is wanted."""
        return not self.alive and not self.gone and not self._stopped

    @property
    def leaving(self) -> bool:
        """True while it is to end by `leave` and has not."""
        return self._deadline is not None

    @property
    def hindered(self) -> bool:
        """True when it can not work now, by its own word or by experience."""
        return self.restarts.set_aside or bool(self.status.get("error"))

    @property
    def settled(self) -> bool:
        """True when it has given a sign of life, or is known to fail."""
        return bool(self.status) or self.restarts.set_aside or bool(self.last_exit)

    def start(self, leave_behind: Callable[[], None]) -> None:
        """Fork the process, which calls ``leave_behind`` first. A system without room counts as a failure."""
        self.status = {}
        self.totals.begin()
        self.total_restarts += bool(self._started)
        self._told = ""
        self._started = time.monotonic()
        self._last_beat = self._started + _START_GRACE - self.config.supervisor.heartbeat_timeout
        try:
            self.connection, theirs = multiprocess.Pipe()
            with theirs:
                process = multiprocess.get_context("fork").Process(
                    target=child.main,
                    args=(self.spec, self.config, theirs, DRAIN_TIMEOUT, os.getpid(), leave_behind),
                    name=f"redislogkit-{self.title}",
                    daemon=True,
                )
                process.start()
        except OSError as error:
            self.hang_up()
            self.last_exit = f"can not be started ({error})"
            self._plan_restart(child.EXIT_UNFINISHED, self.last_exit)
        else:
            self.process = process
        self.look()

    def listen(self) -> None:
        """Take what the child has sent."""
        try:
            while self.connection is not None and self.connection.poll(0):
                kind, content = self.connection.recv()
                if kind == "beat":
                    self._last_beat, self.status = time.monotonic(), content
                    self.totals.note(content)
                    self.failure = ""
                else:
                    self._last_word = content if kind == "failure" else self._last_word
                    self._pass_on(content)
        except (EOFError, OSError):
            self.hang_up()
        self.look()

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
        elif self._deadline is not None and now > self._deadline:
            self.kill()
        if self.restarts.set_aside and now - self._started > STABLE_AFTER + self._patience():
            self.restarts.runs_again()
            self._report(f"{self.title}: works again")
        code = self.reap()
        if code is None:
            return
        if self._deadline is not None:
            self._deadline = None
            self.next_start = now
            self.unfinished = code != 0
        else:
            early = "" if self.status else " before its first sign of life"
            self._plan_restart(code, f"has {self.last_exit}{early}")
        self.look()

    def _longest_silence(self) -> float:
        """How long it may be silent: a user's code may not return before, and is silent meanwhile."""
        in_a_call = float(getattr(self.config.writers.get(self.spec.name), "timeout", 0.0))
        return self.config.supervisor.heartbeat_timeout + in_a_call

    def _patience(self) -> float:
        """How long it may wait before it can know that it can not work."""
        return float(getattr(self.config.writers.get(self.spec.name), "lock_timeout", 0.0))

    def reap(self) -> int | None:
        """Return the exit code of a child that has ended, once; None while it runs."""
        code: int | None = self.process.exitcode
        if code is not None:
            self.listen()
            self.hang_up()
            self.process.close()
            self.process = None
            self.last_exit = f"ended with {_describe(code)}"
            self.failure, self._last_word = self._last_word, ""
            self.look()
        return code

    def _plan_restart(self, code: int, what: str) -> None:
        now = time.monotonic()
        refused = code == child.EXIT_REFUSED
        was_aside = self.restarts.set_aside
        settings = self.config.supervisor
        pause = self.restarts.pause(
            now,
            now - self._started,
            settings.max_restarts,
            settings.restart_window,
            refused=refused,
            jitter=random.uniform(0.5, 1.0),
        )
        self.next_start = now + pause
        if not self.restarts.set_aside:
            self._report(f"{self.title}: {what}, starting it again")
        elif not was_aside:
            why = "can not work as configured" if refused else f"has failed {self.restarts.recent} times"
            if not refused:
                self._report(f"{self.title}: {what}")
            self._report(f"{self.title}: set aside, it {why}; tried again every {SET_ASIDE_PAUSE:g} s")

    # -- ending ---------------------------------------------------------------------------------

    def finish(self, code: int) -> None:
        """Take note of how it has ended after it was told to."""
        self.unfinished = code != 0
        if self.unfinished:
            self._report(f"{self.title}: has ended with {_describe(code)} before it had finished")
        else:
            self.restarts.runs_again()  # it could work after all
        self.look()

    def tell(self, message: str) -> None:
        """Say one of the words that `child` knows."""
        if self.connection is None:
            return
        if self.spec.kind == child.SERVER:
            self.hang_up()  # the server's end is the end of its pipe
            return
        try:
            self.connection.send(message)
        except OSError:
            self.hang_up()

    def drain(self) -> None:
        """Tell the child to finish its work; it is not started again before `go_on`."""
        self._stopped = True
        self._told = child.DRAIN
        # One that has just failed can not finish anything.
        self.unfinished = not self.alive and bool(self._started) and self.spec.kind != child.SERVER
        self.tell(child.DRAIN)
        self.look()

    def go_on(self) -> None:
        """It is wanted again after `drain`."""
        self._stopped = self.unfinished = False
        if self.last_exit == FINISHED:
            self.last_exit = ""  # nothing that somebody should look at
        self.look()

    def leave(self, message: str, timeout: float) -> None:
        """Tell it to end within ``timeout`` seconds, as ``message`` says; `leaving` until it has. Then it starts anew."""
        if not self.alive:
            self.next_start = 0.0
            return
        self._told = message
        self._deadline = time.monotonic() + timeout
        self.tell(message)
        self.look()

    def forget(self) -> None:
        """What was before does not count any more: it has other settings now."""
        self.restarts = Restarts()
        self._said.clear()
        self.last_exit = self.failure = ""

    def forget_leaving(self) -> None:
        """It has left as it was told; how is nothing that somebody should look at."""
        self.unfinished = False
        self.last_exit = self.failure = ""

    def kill(self) -> None:
        """End the child now."""
        if self.process is not None:
            self.process.kill()
            self.process.join(KILL_AFTER)

    def hang_up(self) -> None:
        """Close our end of the pipe."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    # -- what it looks like ---------------------------------------------------------------------

    def look(self) -> None:
        """Note the state that it is in now, and when it came into it."""
        state = self._present_state()
        if state != self.state:
            self.state, self.since = state, time.time()

    def _present_state(self) -> str:
        if self._told and self.alive:
            return DRAINING
        if self._stopped or self.gone:
            return ENDED
        if self.restarts.set_aside:
            return SET_ASIDE
        if not self.alive:
            return RESTARTING if self._started else STARTING
        if not self.status:
            return STARTING
        return WAITING if self.status.get("error") else RUNNING

    def facts(self) -> dict[str, Any]:
        """Return what an answer to ``status`` says of it."""
        status = dict(self.status)
        waits = not self.alive and self.state in (RESTARTING, SET_ASIDE)
        found: dict[str, Any] = {
            "name": self.spec.name,
            "kind": self.spec.kind,
            "pid": self.process.pid if self.alive else None,
            "state": self.state,
            "since": self.since,
            "restarts": self.total_restarts,
            "next_start": time.time() + max(self.next_start - time.monotonic(), 0.0) if waits else None,
            "last_exit": self.last_exit,
            "error": status.pop("error", "") or self.failure,
        }
        if self.spec.kind == child.SHIPPER:
            names = ("producers", "spools", "outstanding", "spool_bytes")
            found |= {name: status.get(name, 0) for name in names}
            found["shipped"] = self.totals.number("shipped")
        elif self.spec.kind == child.WRITER:
            found |= self._writer_facts(status)
        return found

    def _writer_facts(self, status: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "type": writer_type(self.config, self.spec.name),
            **{name: self.totals.number(name) for name in ("written", "bytes", "rotations", "rejected")},
            "position": status.get("position", ""),
            "last_write": status.get("last_write"),
            "skipped": self.totals.by_cause("skipped"),
            "latency": self.totals.ages().as_json(),
        }


def writer_type(config: Config, name: str) -> str:
    """Return the ``type`` of a writer as its section has it."""
    return str(type(config.writers[name]).__struct_config__.tag)


def _describe(code: int) -> str:
    if code < 0:
        try:
            return f"signal {signal.Signals(-code).name}"
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"

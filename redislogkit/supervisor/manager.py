"""The supervisor: what should run against what does.

Theory of operation. One loop waits for children's pipes and ends, for signals, and for whoever asks something, then
reconciles: a child that has ended is started again (`restarts` says when); one that is silent for longer than
``heartbeat_timeout`` is killed first; one that keeps failing, or says that it can not work as configured,
is set aside and tried again at a slow pace while the others go on.

Stopping goes along the path of a record: the shipper first (it drains the spools and waits for the writers),
then the writers (they read the stream to its end), the server last. What comes later on the path is kept
running meanwhile. A second signal stops now; nothing is lost by that, it waits in the spools.

Another configuration (SIGHUP) goes the same way: the shipper first, so that all that was logged for a writer
which is removed is in the stream before that one reads it to its end and leaves; then the writers that are
removed or changed; then those that come. Whoever goes by nothing that has changed does not notice.

A supervisor that an application has launched ends when no producer is left and everything is written.
It stops listening before it looks a last time, so a producer that comes meanwhile is seen, or finds
nobody at the doorbell and launches the next supervisor.

The lock and the doorbell must be free the moment the supervisor is dead, however it dies. Children are forked
and close their copies of both, and of each other's pipes, first of all.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from multiprocess.connection import wait

from redislogkit import config as configuration
from redislogkit import control, identity, launch, locking
from redislogkit.config import Config
from redislogkit.errors import RedislogkitError
from redislogkit.spool.doorbell import Doorbell
from redislogkit.spool.shipper_end import spool_names
from redislogkit.stream import address
from redislogkit.supervisor import child, title
from redislogkit.supervisor.answering import ControlSocket, refusal
from redislogkit.supervisor.children import DRAIN_TIMEOUT, FINISHED, KILL_AFTER, Child, Report, writer_type
from redislogkit.supervisor.notify import Notifier

if TYPE_CHECKING:
    from redislogkit.supervisor.reloading import Changes

EXIT_OK: Final = 0
#: A child was set aside or had not finished when the supervisor ended: not everything is written.
EXIT_UNWRITTEN: Final = 3

#: Seconds to drain where one of those that are needed says that it can not work now, or where nobody waits for it.
_SHORT_DRAIN_TIMEOUT: Final = 2.0
_LINGER: Final = 2.0
_TICK: Final = 1.0
#: Seconds between two looks whether its folder is still there.
_LOOK_INTERVAL: Final = 1.0

#: What a record still has to pass behind each kind of child.
_BEHIND: Final = {
    child.SHIPPER: (child.WRITER, child.SERVER),
    child.WRITER: (child.SERVER,),
    child.SERVER: (),
    child.METRICS: (),
}
#: In which order they stop. Who waits for a long drain can see it in the figures.
_ORDER: Final = (child.SHIPPER, child.WRITER, child.SERVER, child.METRICS)


class Manager:
    """Runs the children of one configuration until it is told to stop.

    Args:
        config: The configuration.
        report: Takes one line for the supervisor's own log.
        launched: Started by an application: end when nobody needs it any more.
        notifier: Hears when the work begins, changes and ends.
        reload: Gives the configuration as it is now, for SIGHUP; None where there is nothing to load it from.
    """

    def __init__(
        self,
        config: Config,
        report: Report,
        *,
        launched: bool = False,
        notifier: Notifier | None = None,
        reload: Callable[[], Config] | None = None,
    ) -> None:
        self._reload = reload
        self._notifier = Notifier({}) if notifier is None else notifier
        self._hangups = 0
        self._reopening = False
        self._config = config
        self._since = self._loaded = time.time()
        self._config_error = ""
        self._kept = ""
        self._report = report
        self._launched = launched
        self._root = config.spool_root
        self._lock = locking.OwnedLock(
            os.path.join(config.stream_dir, "supervisor.lock"),
            f"stream {config.stream.name!r} in state_dir {config.state_dir}",
        )
        specs = [child.THE_SHIPPER]
        specs += map(child.writer, config.writers)
        if address.is_embedded(config):
            specs.insert(0, child.THE_SERVER)
        if config.metrics.listen is not None:
            specs.append(child.THE_METRICS)
        self._children = [Child(spec, config, report) for spec in specs]
        self._shipper = next(each for each in self._children if each.spec.kind == child.SHIPPER)
        self._changing: Iterator[None] | None = None
        self._bell: Doorbell | None = None
        self._control: ControlSocket | None = None
        self._deaf = False  # and that was told
        self._stop_signals = 0
        self._announced = self._loaded_modules = False
        self._is_init = os.getpid() == 1
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
        self._open_control()

    def _announce(self, instead_of: Config | None = None) -> None:
        self._announced = launch.announce(
            self._config,
            launched=self._launched,
            supervising=True,
            loads=self._reload is not None,
            instead_of=instead_of,
            error=self._config_error or self._kept,
        )

    def run(self) -> int:
        """Supervise until a signal, or until nobody needs it; return the exit code."""
        stops = (signal.SIGTERM, signal.SIGINT)
        for number in stops:
            signal.signal(number, self._on_stop_signal)
        signal.signal(signal.SIGHUP, self._on_hangup)
        signal.signal(signal.SIGUSR1, self._on_reopen_signal)
        ours = (*stops, signal.SIGHUP, signal.SIGUSR1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ours)  # whatever the program that launched us had blocked
        try:
            while True:
                self._tend(self._children)
                self._wait()
                if self._is_init:
                    _reap_orphans({each.process.pid for each in self._children if each.alive})
                self._do_what_is_asked()
                if self._stop_signals:
                    self._stop()
                    break
                if self._is_idle() and self._end_idle():
                    break
                if self._is_replaced():
                    return EXIT_UNWRITTEN
            writing = [each for each in self._children if each.spec.kind != child.METRICS]
            unwritten = any(each.unfinished or each.restarts.set_aside for each in writing)
            return EXIT_UNWRITTEN if unwritten else EXIT_OK
        finally:
            for each in self._children:
                each.kill()
            self._deafen()
            self._close_control()
            self._lock.release()

    def _on_stop_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler
        self._stop_signals += 1
        self._wake()

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler
        self._hangups += 1
        self._wake()

    def _on_reopen_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler
        self._reopening = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def _do_what_is_asked(self) -> None:
        if not self._announced:
            self._announce()
        if self._reopening:
            self._reopening = False
            self._report(
                f"files are opened again by: {', '.join(self._tell_files(child.REOPEN)) or 'nobody'}"
            )
        if self._changing is not None and next(self._changing, self) is self:
            self._changing = None
        if self._hangups and self._changing is None:
            self._hangups = 0
            self._load_again()
        if self._notifier.active:
            self._notify()

    def _notify(self) -> None:
        if self._changing is None and all(each.settled for each in self._children):
            self._notifier.ready()
        self._notifier.status(", ".join(f"{each.title} {each.state}" for each in self._children))

    def _listen(self) -> None:
        if self._bell is None:
            self._bell = Doorbell(launch.doorbell_path(self._config))

    def _deafen(self) -> None:
        if self._bell is not None:
            self._bell.close()
            self._bell = None

    def _open_control(self) -> None:
        """Take requests; where that can not be now (a full disk, say) it is tried again, and told once."""
        try:
            self._control = ControlSocket(control.path(self._config), self._answer)
        except (OSError, RedislogkitError) as error:
            if not self._deaf:
                self._report(f"status, rotate and reload can not be asked for: {error}")
            self._deaf = True

    def _close_control(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None

    def _is_replaced(self) -> bool:
        """True when somebody has removed our folder: the next supervisor finds nothing locked, and one is enough."""
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + _LOOK_INTERVAL
        if self._control is None:
            self._open_control()
        if self._lock.is_lost():
            self._report(
                f"{self._lock.path} was removed or replaced: it ends, as another one may be at work by now"
            )
            return True
        return False

    # -- what is asked for ----------------------------------------------------------------------

    def _answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one request, as `redislogkit.control` describes it."""
        answers: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            control.STATUS: self._answer_status,
            control.ROTATE: self._answer_rotate,
            control.REOPEN: self._answer_reopen,
            control.RELOAD: self._answer_reload,
            control.CONFIGURATION: self._answer_configuration,
        }
        wanted = request.get("do")
        answer = answers.get(wanted) if isinstance(wanted, str) else None
        if answer is None:
            return refusal(f"do must be one of {', '.join(answers)}, got {wanted!r:.100}")
        return answer(request)

    def _answer_status(self, request: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - as all of them
        return {
            "ok": True,
            "host": identity.host_name(),
            "stream": self._config.stream.name,
            "pid": os.getpid(),
            "since": self._since,
            # Nothing in the package may import its root, which is there whoever runs this.
            "version": sys.modules["redislogkit"].__version__,
            "config": self._config.source,
            "config_loaded": self._loaded,
            "config_error": self._config_error,
            "reloading": self._changing is not None,
            "launched": self._launched,
            "dropped": self._shipper.totals.by_cause("dropped"),
            "children": [each.facts() for each in self._children],
        }

    def _answer_rotate(self, request: Mapping[str, Any]) -> dict[str, Any]:
        names = request.get("writers")
        files = [each.spec.name for each in self._files()]
        if names is None and (not files or any(each.alive for each in self._files())):
            return {"ok": True, "writers": self._tell_files(child.ROTATE)}
        if names is None:
            names = files
        if not isinstance(names, list) or any(name not in files for name in names):
            return refusal(
                f"writers must be a list of {', '.join(files) or 'nothing, as no file is written'}, got {names!r:.200}"
            )
        idle = [each for each in self._files() if each.spec.name in names and not each.alive]
        if idle:
            return refusal(
                f"writer {idle[0].spec.name} does not run now, it is {idle[0].state}: "
                f"{idle[0].failure or idle[0].last_exit}"
            )
        return {"ok": True, "writers": self._tell_files(child.ROTATE, names)}

    def _answer_reopen(self, request: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - as all of them
        return {"ok": True, "writers": self._tell_files(child.REOPEN)}

    def _answer_reload(self, request: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - as all of them
        if self._stop_signals:
            return refusal("the supervisor is stopping")
        if self._changing is not None:
            return refusal(
                "what the last reload has changed is still being carried out; ask again in a moment"
            )
        return self._load_again()

    def _answer_configuration(self, request: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - as all of them
        content = base64.b64encode(configuration.to_bytes(self._config))
        return {"ok": True, "configuration": content.decode("ascii")}

    def _files(self) -> list[Child]:
        return [
            each
            for each in self._children
            if each.spec.kind == child.WRITER and writer_type(each.config, each.spec.name) == "file"
        ]

    def _tell_files(self, message: str, names: Sequence[str] | None = None) -> list[str]:
        """Tell the running writers of files, or those of ``names``, something; return who was told."""
        told = [each for each in self._files() if each.alive and (names is None or each.spec.name in names)]
        for each in told:
            each.tell(message)
        return [each.spec.name for each in told]

    # -- another configuration ------------------------------------------------------------------

    def _load_again(self) -> dict[str, Any]:
        """Load the configuration again and begin to carry out what is different; a broken one changes nothing."""
        from redislogkit.supervisor import reloading

        if self._reload is None:
            error = (
                "an application has launched this supervisor with values that are in no file, so there is nothing to load; "
                "end the programs that log, all of them, and start them again: docs/operations.md says more"
            )
            self._report(f"nothing is loaded again: {error}")
            return refusal(error)
        try:
            config = self._reload()
        except (RedislogkitError, OSError) as error:
            self._config_error = str(error)
            self._report(f"the configuration is not taken, the old one stays in force: {error}")
            self._announce()
            return refusal(self._config_error)
        self._config_error = ""
        self._loaded = time.time()
        changes = reloading.compare(self._config, config)
        lines = changes.lines()
        kept = ", ".join(changes.kept)
        self._kept = f"{kept} can not be changed while a supervisor runs" if kept else ""
        self._report(f"the configuration is loaded again: {'; '.join(lines) or 'nothing here has changed'}")
        self._changing = self._carry_out(changes)
        self._notifier.reloading()
        return {"ok": True, "changes": lines}

    def _carry_out(self, changes: Changes) -> Iterator[None]:
        """Make the children as they should be; goes on once in each round of the loop."""
        writers = {each.spec.name: each for each in self._children if each.spec.kind == child.WRITER}
        before, self._config = self._config, changes.config
        self._announce(instead_of=before)
        for each in self._children:
            if each.spec.name not in changes.removed or each.spec.kind != child.WRITER:
                each.config = changes.config
        if changes.shipper:
            # Whoever leaves the stream for good has all of it first.
            thorough = changes.removed or changes.moved or changes.regrouped
            self._shipper.forget()
            self._shipper.leave(child.DRAIN if thorough else child.END, self._time_to_leave(self._shipper))
            while self._shipper.leaving:
                yield
            self._shipper.forget_leaving()
        removed = [writers[name] for name in changes.removed]
        for each in removed:
            each.gone = True
            each.leave(child.RETIRE, self._time_to_leave(each))
        for name in changes.changed:
            word = child.DRAIN if changes.moved else child.END
            writers[name].forget()
            writers[name].leave(
                child.RETIRE if name in changes.regrouped else word, self._time_to_leave(writers[name])
            )
        leaving = [*removed, *(writers[name] for name in changes.changed)]
        while any(each.leaving for each in leaving):
            yield
        for each in leaving:
            retired = each.gone or each.spec.name in changes.regrouped
            if retired and (each.unfinished or each.last_exit != FINISHED):
                self._report(
                    f"{each.title}: not all was written before it was removed, so the stream is kept for it: configure "
                    f"it again, or let go of it by: redislogkit writers --drop {address.group(before, each.spec.name)}"
                )
            each.forget_leaving()
        self._children = [each for each in self._children if not each.gone]
        for name in changes.added:
            self._children.append(Child(child.writer(name), self._config, self._report))

        if changes.metrics:
            yield from self._renew_metrics()

    def _renew_metrics(self) -> Iterator[None]:
        """Serve the figures where they are to be served now, if anywhere."""
        wanted = self._config.metrics.listen is not None
        there = [each for each in self._children if each.spec.kind == child.METRICS]
        for each in there:
            each.gone = not wanted
            each.forget()
            each.leave(child.END, KILL_AFTER)
        while any(each.leaving for each in there):
            yield
        self._children = [each for each in self._children if not each.gone]
        if wanted and not there:
            self._children.append(Child(child.THE_METRICS, self._config, self._report))

    def _time_to_leave(self, each: Child) -> float:
        others = [other for other in self._children if other.spec.kind in _BEHIND[each.spec.kind]]
        hindered = any(other.hindered for other in (each, *others))
        return _SHORT_DRAIN_TIMEOUT if hindered else DRAIN_TIMEOUT + KILL_AFTER

    # -- the loop -------------------------------------------------------------------------------

    def _tend(self, children: list[Child]) -> None:
        """Reconcile: judge those that run, start those whose time has come."""
        for each in children:
            if each.alive:
                each.tend()
            if each.to_be_started and time.monotonic() >= each.next_start:
                if each.spec.kind != child.SERVER:
                    self._load_modules()  # once; the server starts meanwhile
                    gc.freeze()  # leaves the pages that children share untouched
                each.start(self._leave_behind)

    def _load_modules(self) -> None:
        if not self._loaded_modules:
            self._loaded_modules = True
            child.load_modules()
            # By the last word our tools know one that may be ended.
            launched = " --launched" if self._launched else ""
            title.give("redislogkit", f"redislogkit: supervisor ({self._config.stream.name}){launched}")

    def _leave_behind(self) -> None:
        """In a child: close what only the supervisor may hold."""
        for each in self._children:
            each.hang_up()
        self._deafen()
        if self._control is not None:
            self._control.abandon()
        self._notifier.close()
        self._lock.abandon()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _wait(self) -> None:
        running = [each for each in self._children if each.alive]
        things: list[Any] = [self._wake_read]
        things += [each.process.sentinel for each in running]
        things += [each.connection for each in running if each.connection is not None]
        callers = self._control.sources() if self._control is not None else []
        ready = wait([*things, *callers], timeout=self._time_to_wait())
        if self._control is not None and any(caller in ready for caller in callers):
            self._control.serve()
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _time_to_wait(self) -> float:
        now = time.monotonic()
        starts = [each.next_start - now for each in self._children if each.to_be_started]
        return max(min(_TICK, self._notifier.sign_of_life(), *starts), 0.0)

    # -- stopping -------------------------------------------------------------------------------

    def _stop(self) -> None:
        self._report("draining")
        self._notifier.stopping()
        self._changing = None
        for kind in _ORDER:
            self._stop_children(kind)

    def _stop_children(self, kind: str) -> None:
        """Stop those of one kind; the kinds behind it on the path go on."""
        those = [each for each in self._children if each.spec.kind == kind]
        others = [each for each in self._children if each.spec.kind in _BEHIND[kind]]
        for each in those:
            each.drain()
        began = time.monotonic()
        while running := [each for each in those if each.alive]:
            now = kind != child.SERVER and self._stop_signals > 1
            hindered = any(each.hindered for each in (*running, *others))
            timeout = _SHORT_DRAIN_TIMEOUT if hindered else DRAIN_TIMEOUT + KILL_AFTER
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
        busy = self._changing is not None or not status
        if busy or status["producers"] or status["outstanding"] or status["spools"]:
            self._quiet_since = None
        elif self._quiet_since is None or (status["rings"], status["shipped"]) != self._quiet_state[0]:
            # Spools that nobody can read are there already, and do not keep anybody waiting.
            rung = (status["rings"], status["shipped"])
            self._quiet_since, self._quiet_state = now, (rung, *spool_names(self._root))
        return self._quiet_since is not None and now - self._quiet_since >= _LINGER

    def _end_idle(self) -> bool:
        """Stop everything; False when a producer has come meanwhile and everything must go on."""
        for each in self._stages():
            each()
            if self._somebody_came():
                self._listen()
                self._quiet_since = None
                for stopped in self._children:
                    stopped.go_on()
                return False
        return True

    def _stages(self) -> Iterator[Callable[[], None]]:
        for kind in _ORDER:
            yield lambda kind=kind: self._stop_children(kind)  # type: ignore[misc]
        yield self._deafen

    def _somebody_came(self) -> bool:
        """True when a producer has rung, or made a spool, since everything was quiet."""
        rung = self._bell is not None and self._bell.clear()
        return rung or not set(spool_names(self._root)) <= set(self._quiet_state[1:])


def _reap_orphans(ours: set[int]) -> None:
    """As the first process of a container: bury those that have lost their parents, and leave ours to who tends them."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in ours:
                return  # it hides those behind it until it is buried
            os.waitpid(ended.si_pid, os.WNOHANG)

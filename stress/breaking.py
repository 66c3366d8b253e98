"""What a chaos run does to the things in its arena: one function for each kind of fault.

Each returns in words what it has hit, nothing where there was no victim. What lasts is ended by `Breaker.later`;
what has to wait for its moment, or for its second half, runs beside the plan in a thread of its own.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from stress import faults, moments
from stress.arena import SIZED, STAMPED, Arena
from stress.faults import BOUNDED, Fault

MOVED: Final = "moved"
FOREIGN: Final = "foreign[%d]"

_RESTART_TIME: Final = 0.8
_HEAL_PAUSE: Final = 0.5
#: Seconds to wait for the moment of a fault that needs one.
_PATIENCE: Final = 3.0
_CLOCK_JUMPS: Final = (-86_400.0, -3_600.0, -90.0, 90.0, 3_600.0, 86_400.0)

T = TypeVar("T")
Perform = Callable[["Breaker", Fault], str]


class Breaker:
    """Breaks things in an arena, and mends what is to last for a while only."""

    def __init__(self, arena: Arena, log: Callable[[str], None]) -> None:
        self.arena = arena
        self.done: Counter[str] = Counter()
        """Faults that hit something, by kind."""
        self.missed = 0
        """Faults that found no victim."""
        self.foreign: dict[str, int] = {}
        """Lines of others that were appended to the file of each writer."""
        self._log = log
        self._lock = threading.Lock()
        self._later: list[tuple[float, Callable[[], object]]] = []
        self._threads: list[threading.Thread] = []
        self._moved = 0

    # -- one fault ------------------------------------------------------------------------------

    def perform(self, fault: Fault) -> None:
        """Do it, or begin to."""
        act = PERFORM[fault.kind]
        if fault.kind.startswith(("at.", "twice.")):
            thread = threading.Thread(target=self._perform_beside, args=(act, fault), daemon=True)
            self._threads.append(thread)
            thread.start()
        else:
            self._note(fault, act(self, fault))

    def _perform_beside(self, act: Perform, fault: Fault) -> None:
        try:
            hit = act(self, fault)
        except OSError as error:  # the folder to be watched is not there
            hit = ""
            self._log(f"fault {fault}: {error}")
        self._note(fault, hit)

    def _note(self, fault: Fault, hit: str) -> None:
        self._log(f"fault {fault}: {hit or 'no victim'}")
        with self._lock:
            if hit:
                self.done[fault.kind] += 1
            else:
                self.missed += 1

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        """Do that so many seconds from now, and at the end of the plan at the latest."""
        with self._lock:
            self._later.append((time.monotonic() + seconds, act))

    def tend(self, now: float) -> None:
        """Do what is due."""
        with self._lock:
            due = [act for moment, act in self._later if moment <= now]
            self._later = [each for each in self._later if each[0] > now]
        for act in due:
            act()

    def end(self) -> None:
        """Wait for what runs beside, then end whatever lasts."""
        for thread in self._threads:
            thread.join(4 * _PATIENCE)
        self.tend(float("inf"))
        if self.arena.proxy is not None:
            self.arena.proxy.heal()

    # -- processes ------------------------------------------------------------------------------

    def kill(self, pids: list[int], fault: Fault) -> str:
        """SIGKILL one of them."""
        return self.signal(pids, fault, signal.SIGKILL)

    def stop(self, pids: list[int], fault: Fault) -> str:
        """SIGSTOP one of them, SIGCONT later."""
        return self.signal(pids, fault, signal.SIGSTOP)

    def signal(self, pids: list[int], fault: Fault, number: signal.Signals) -> str:
        """Send a signal to one of them; what is stopped goes on later."""
        if not pids:
            return ""
        pid = chosen(pids, fault)
        signal_all([pid], number)
        if number == signal.SIGSTOP:
            self.later(fault.seconds, lambda: signal_all([pid], signal.SIGCONT))
        return f"pid {pid}"

    def stop_producers(self, fault: Fault) -> str:
        """Silence: whatever happens meanwhile happens while nobody logs."""
        pids = self.arena.producers()
        signal_all(pids, signal.SIGSTOP)
        self.later(fault.seconds, lambda: signal_all(pids, signal.SIGCONT))
        return f"{len(pids)} programs" if pids else ""

    def kill_tree(self, fault: Fault) -> str:
        """SIGKILL of the supervisor and all that it has started."""
        self.arena.supervisor.delay(fault.seconds)
        pids = [*self.arena.supervision()]
        if self.arena.proxy is None:
            pids += self.arena.servers()
        signal_all(pids, signal.SIGKILL)
        return f"{len(pids)} processes" if pids else ""

    def kill_all(self, fault: Fault) -> str:
        """SIGKILL of every process that there is, as when the machine goes down."""
        for kept in (*self.arena.nests, self.arena.server, self.arena.supervisor):
            kept.delay(fault.seconds)
        pids = [process.pid for process in self.arena.processes()]
        signal_all(pids, signal.SIGKILL)
        return f"{len(pids)} processes"

    def kill_nest(self, fault: Fault) -> str:
        """SIGKILL of a program whose children live on."""
        nest = chosen(self.arena.nests, fault)
        nest.delay(fault.seconds)
        return "" if nest.process is None else self.kill([nest.process.pid], fault)

    def kill_server(self, fault: Fault) -> str:
        """SIGKILL of the server; it comes back with its append-only file."""
        self.arena.server.delay(fault.seconds)
        return self.kill(self.arena.servers(), fault)

    def kill_supervisor(self, fault: Fault) -> str:
        """SIGKILL of the supervisor alone."""
        self.arena.supervisor.delay(fault.seconds)
        return self.kill(self.arena.supervisors(), fault)

    def end_supervisor(self, fault: Fault) -> str:
        """SIGTERM of the supervisor: it drains, while everybody logs on."""
        self.arena.supervisor.delay(fault.seconds)
        return self.signal(self.arena.supervisors(), fault, signal.SIGTERM)

    def end_child(self, fault: Fault) -> str:
        """SIGTERM of a child of the supervisor, which did not ask for it."""
        return self.signal([*self.arena.shippers(), *self.arena.writers()], fault, signal.SIGTERM)

    def second_supervisor(self, _: Fault) -> str:
        """Somebody starts another supervisor for the same stream; it has to step back."""
        return f"pid {self.arena.start_second_supervisor()}" if self.arena.supervisors() else ""

    # -- in a certain moment --------------------------------------------------------------------

    def at_write(self, fault: Fault) -> str:
        """Kill a writer as soon as its file has grown."""
        return self._kill_writer_at(fault, self.arena.logs, moments.MODIFIED, self._live_name)

    def at_checkpoint(self, fault: Fault) -> str:
        """Kill a writer as soon as its checkpoint has grown."""
        folder = os.path.join(self.arena.config.stream_dir, "checkpoints")
        return self._kill_writer_at(fault, folder, moments.MODIFIED, lambda name: (name,))

    def at_rotation(self, fault: Fault) -> str:
        """Kill a writer in the middle of a rotation or compression: at one of its renames, say."""
        # One that happens to be rotated often enough.
        events = moments.RENAMED | moments.CREATED | moments.DELETED
        skip = random.Random(fault.at).randrange(6)
        return self._kill_writer_at(fault, self.arena.logs, events, lambda name: (), skip=skip)

    def _live_name(self, writer: str) -> tuple[str, ...]:
        return (os.path.basename(self.arena.path(writer)),)

    def _kill_writer_at(
        self,
        fault: Fault,
        folder: str,
        events: int,
        names: Callable[[str], tuple[str, ...]],
        *,
        skip: int = 0,
        writer: str = "",
    ) -> str:
        """Kill the writer when something happens to one of its ``names``; without any, to any file like its own."""
        pids = self.arena.writer_pids()
        if not pids:
            return ""
        writer = writer or chosen(sorted(pids), fault)
        pid = pids.get(writer, 0)
        wanted, like = names(writer), f"{writer}.log"
        with moments.Watch(folder, events) as watch:
            for _ in range(skip + 1):
                found = watch.wait(_PATIENCE, lambda name: name in wanted if wanted else like in name)
        if not found or not pid or not signal_all([pid], signal.SIGKILL):
            return ""
        return f"{writer}, pid {pid}, at {found}"

    def at_spool(self, _: Fault) -> str:
        """Kill a producer as soon as its spool is being made."""
        return self._kill_at_spool(moments.CREATED | moments.RENAMED, self.arena.owner_of_spool)

    def at_burial(self, _: Fault) -> str:
        """Kill the shipper when it removes a spool."""
        shippers = self.arena.shippers()
        return self._kill_at_spool(
            moments.DELETED | moments.RENAMED, lambda _: shippers[0] if shippers else 0
        )

    def _kill_at_spool(self, events: int, whom: Callable[[str], int]) -> str:
        with moments.Watch(os.path.join(self.arena.config.stream_dir, "spool"), events) as watch:
            found = watch.wait(_PATIENCE, bool)
        pid = whom(found) if found else 0
        if pid:
            signal_all([pid], signal.SIGKILL)
        return f"pid {pid} at {found}" if pid else ""

    # -- one after the other --------------------------------------------------------------------

    def _again(self, writer: str, killed: int, fault: Fault) -> str:
        """Kill a writer again, a while after it has come back: while it recovers."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            pid = self.arena.writer_pids().get(writer, killed)
            if pid != killed:
                time.sleep(random.Random(fault.choice).uniform(0, fault.seconds))
                signal_all([pid], signal.SIGKILL)
                return f"pid {pid} again"
            time.sleep(0.005)
        return "not again"

    def writer_flush_writer(self, fault: Fault) -> str:
        """Kill a writer behind its bytes, take redis' memory, kill it again behind its next bytes."""
        writer = self._some_writer(fault)
        first = self._kill_writer_at(fault, self.arena.logs, moments.MODIFIED, self._live_name, writer=writer)
        if not first:
            return ""
        time.sleep(fault.seconds)
        flushed = self.redis_command("FLUSHALL")
        second = self._kill_writer_at(
            fault, self.arena.logs, moments.MODIFIED, self._live_name, writer=writer
        ) or self._again(writer, 0, fault)
        return f"{first}; {flushed or 'no answer'}; {second}"

    def _some_writer(self, fault: Fault) -> str:
        names = self.arena.writer_names
        return names[int(fault.choice * 7919) % len(names)]

    def recovery(self, fault: Fault) -> str:
        """Kill a writer behind its bytes, and twice again while it recovers."""
        writer = self._some_writer(fault)
        killed = self.arena.writer_pids().get(writer, 0)
        hit = self._kill_writer_at(fault, self.arena.logs, moments.MODIFIED, self._live_name, writer=writer)
        for _ in range(2 if hit else 0):
            hit += "; " + self._again(writer, killed, fault)
            killed = self.arena.writer_pids().get(writer, killed)
        return hit

    def rotation(self, fault: Fault) -> str:
        """Kill a writer in the middle of a rotation, and again while it recovers."""
        writer = self._some_writer(fault)
        killed = self.arena.writer_pids().get(writer, 0)
        events = moments.RENAMED | moments.CREATED | moments.DELETED
        hit = self._kill_writer_at(fault, self.arena.logs, events, lambda name: (), writer=writer)
        return f"{hit}; {self._again(writer, killed, fault)}" if hit else ""

    def drain(self, fault: Fault) -> str:
        """Kill somebody while the supervisor drains."""
        hit = self.end_supervisor(fault)
        if not hit:
            return ""
        time.sleep(fault.seconds * random.Random(fault.choice).random())
        arena = self.arena
        groups = (arena.supervisors, arena.shippers, arena.writers, arena.servers, arena.supervision)
        victims = [*chosen(groups, fault)()]
        signal_all(victims, signal.SIGKILL)
        return f"{hit}; killed {victims}"

    def stall(self, fault: Fault) -> str:
        """Kill the supervisor while the server is stalled."""
        if not self.stop(self.arena.servers(), fault):
            return ""
        time.sleep(fault.seconds * random.Random(fault.choice).random())
        return "the server stalls; " + (self.kill_supervisor(fault) or "no supervisor")

    def tree_flush(self, fault: Fault) -> str:
        """Redis loses its memory while nobody of ours is there."""
        hit = self.kill_tree(fault)
        return f"{hit}; {self.redis_command('FLUSHALL') or 'no answer'}" if hit else ""

    def disk(self, fault: Fault) -> str:
        """Kill a writer in front of a full disk, while a line is torn there."""
        disk = self.arena.log_disk
        if not disk.fill(int(fault.choice * 4)):
            return ""
        self.later(fault.seconds, disk.free)
        time.sleep(0.2 * fault.choice)
        pids = self.arena.writers()
        signal_all(pids, signal.SIGKILL)
        return f"full; killed {pids}"

    def network_kill(self, fault: Fault) -> str:
        """Lose a reply, and kill the one who waits for it, or the other."""
        self.network(fault._replace(kind=chosen(("net.lost-reply", "net.mid-reply", "net.cut"), fault)))
        time.sleep(fault.seconds * random.Random(fault.choice).random() / 4)
        pids = [*self.arena.shippers(), *self.arena.writers()]
        return self.kill(pids, fault._replace(choice=random.Random(fault.at).random()))

    # -- network and redis ----------------------------------------------------------------------

    def network(self, fault: Fault) -> str:
        """What the proxy can do."""
        proxy = self.arena.proxy
        if proxy is None or not proxy.connections:
            return ""
        share = 1.0 if fault.choice < 0.5 else fault.choice
        acts: dict[str, Callable[[], None]] = {
            "net.cut": lambda: proxy.cut(share),
            "net.down": lambda: proxy.down(fault.seconds),
            "net.stall": lambda: proxy.stall(fault.seconds),
            "net.slow": lambda: proxy.slow(fault.seconds, 0.1),
            "net.lost-reply": lambda: proxy.deafen(share),
            "net.mid-reply": lambda: proxy.break_replies(share),
            "net.mid-request": lambda: proxy.break_requests(share),
        }
        acts[fault.kind]()
        return f"{proxy.connections} connections"

    def redis_command(self, *words: str) -> str:
        """A command that an administrator gives."""
        answer = self.arena.command(*words)
        return "" if not answer or answer.startswith(b"-") else f"{' '.join(words)}: {answer[:40]!r}"

    def delete_part(self, fault: Fault) -> str:
        """One of the keys is gone, the others are not."""
        return self.redis_command("DEL", chosen(self.arena.keys(), fault))

    def wrong_type(self, fault: Fault) -> str:
        """Somebody else uses one of the keys for something else, for a while."""
        key = chosen(self.arena.keys(), fault)
        self.later(fault.seconds, lambda: self._until_answered("DEL", key))
        return self.redis_command("SET", key, "not ours")

    def drop_group(self, fault: Fault) -> str:
        """A group is removed; its name is that of its writer."""
        return self.redis_command("XGROUP", "DESTROY", self.arena.keys()[0], self._some_writer(fault))

    def evict(self, fault: Fault) -> str:
        """Redis removes keys of its own accord."""
        used = self.arena.command("INFO", "memory").partition(b"used_memory:")[2].split(b"\r")[0]
        if not used.isdigit():
            return ""
        self.later(fault.seconds, self.heal_server)
        limit = str(int(int(used) * (0.7 + 0.3 * fault.choice)))
        policy = self.redis_command("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
        return policy and self.redis_command("CONFIG", "SET", "maxmemory", limit)

    def out_of_memory(self, fault: Fault) -> str:
        """Redis refuses whatever takes memory."""
        self.later(fault.seconds, self.heal_server)
        return self.redis_command("CONFIG", "SET", "maxmemory", "1")

    def read_only(self, fault: Fault) -> str:
        """Redis is a replica, for a while."""
        self.later(fault.seconds, self.heal_server)
        return self.redis_command("REPLICAOF", "127.0.0.1", "1")

    def heal_server(self) -> None:
        """Put the settings of the server back."""
        self._until_answered("CONFIG", "SET", "maxmemory", "0")
        self._until_answered("CONFIG", "SET", "maxmemory-policy", "noeviction")
        self._until_answered("REPLICAOF", "NO", "ONE")

    def _until_answered(self, *words: str, attempts: int = 40) -> None:
        # A server that is stopped has to be asked again; one that is gone comes back as it was configured.
        if not self.arena.command(*words) and attempts:
            self.later(_HEAL_PAUSE, lambda: self._until_answered(*words, attempts=attempts - 1))

    def redis_empty(self, fault: Fault) -> str:
        """A restart without data."""
        hit = self.kill_server(fault)
        if hit:
            self._wait_for_dead_server()
            self.arena.replace_data(None)
        return hit

    def redis_rollback(self, fault: Fault) -> str:
        """A restart from a copy that is some seconds old."""
        copy = os.path.join(self.arena.folder, f"copy-{time.monotonic_ns()}")
        if not self.arena.servers():
            return ""
        with contextlib.suppress(shutil.Error):  # files come and go while the server runs
            shutil.copytree(self.arena.server_folder, copy)

        def restore() -> None:
            # Nobody is in the middle of a command meanwhile: only the connections tell of the restart.
            if fault.choice < 0.5:
                pids = [*self.arena.shippers(), *self.arena.writers()]
                signal_all(pids, signal.SIGSTOP)
                self.later(_RESTART_TIME, lambda: signal_all(pids, signal.SIGCONT))
            signal_all(self.arena.servers(), signal.SIGKILL)
            self._wait_for_dead_server()
            self.arena.replace_data(copy)
            self._log("the copy is put in place")

        self.later(fault.seconds, restore)
        return "a copy is taken"

    def _wait_for_dead_server(self) -> None:
        self.arena.server.delay(0.05)
        if self.arena.server.process is not None:
            self.arena.server.process.wait(5)

    # -- disks, files, clock --------------------------------------------------------------------

    def fill_disk(self, fault: Fault) -> str:
        """No room for log files, or for spools and checkpoints, but for a few pages."""
        disk = self.arena.log_disk if fault.kind == "disk.full" else self.arena.state_disk
        pages = int(fault.choice * 8)
        if not disk.fill(pages):
            return ""
        self.later(fault.seconds, disk.free)
        return f"{pages} pages left"

    def move_file(self, fault: Fault) -> str:
        """What logrotate does, with a name as of its ``dateext``."""
        path = self.arena.path(chosen((SIZED, STAMPED), fault))
        self._moved += 1
        target = f"{path}-{MOVED}-{self._moved:05d}"
        try:
            os.rename(path, target)
        except FileNotFoundError:
            return ""
        return os.path.basename(target)

    def append_to_file(self, fault: Fault) -> str:
        """Somebody else writes to a log file, with or without the end of a line."""
        names = [name for name in self.arena.writer_names if name != BOUNDED]
        name = chosen(names, fault)
        line = FOREIGN % self.foreign.get(name, 0) + "\n" * (random.Random(fault.at).random() < 0.7)
        try:
            fd = os.open(self.arena.path(name), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            return ""
        try:
            if os.write(fd, line.encode()) == len(line):
                self.foreign[name] = self.foreign.get(name, 0) + 1
                return f"{line!r} to {name}"
        except OSError:  # its disk is full
            pass
        finally:
            os.close(fd)
        return ""

    def jump(self, fault: Fault) -> str:
        """The clock of writers and supervisor is wrong, and later right again."""
        offset = chosen(_CLOCK_JUMPS, fault)
        self.arena.set_clock(offset)
        self.later(fault.seconds, lambda: self.arena.set_clock(0.0))
        return f"{offset:+g} s"


PERFORM: Final[Mapping[str, Perform]] = {
    "kill.producer": lambda breaker, fault: breaker.kill(breaker.arena.producers(), fault),
    "kill.nest": Breaker.kill_nest,
    "kill.writer": lambda breaker, fault: breaker.kill(breaker.arena.writers(), fault),
    "kill.shipper": lambda breaker, fault: breaker.kill(breaker.arena.shippers(), fault),
    "kill.server": Breaker.kill_server,
    "kill.supervisor": Breaker.kill_supervisor,
    "kill.tree": Breaker.kill_tree,
    "kill.all": Breaker.kill_all,
    "at.write": Breaker.at_write,
    "at.checkpoint": Breaker.at_checkpoint,
    "at.rotation": Breaker.at_rotation,
    "at.spool": Breaker.at_spool,
    "at.burial": Breaker.at_burial,
    "twice.writer-flush": Breaker.writer_flush_writer,
    "twice.recovery": Breaker.recovery,
    "twice.rotation": Breaker.rotation,
    "twice.drain": Breaker.drain,
    "twice.stall": Breaker.stall,
    "twice.tree-flush": Breaker.tree_flush,
    "twice.disk": Breaker.disk,
    "twice.network": Breaker.network_kill,
    "term.supervisor": Breaker.end_supervisor,
    "term.child": Breaker.end_child,
    "second.supervisor": Breaker.second_supervisor,
    "stop.producer": lambda breaker, fault: breaker.stop(breaker.arena.producers(), fault),
    "stop.producers": Breaker.stop_producers,
    "stop.writer": lambda breaker, fault: breaker.stop(breaker.arena.writers(), fault),
    "stop.shipper": lambda breaker, fault: breaker.stop(breaker.arena.shippers(), fault),
    "stop.server": lambda breaker, fault: breaker.stop(breaker.arena.servers(), fault),
    "stop.supervisor": lambda breaker, fault: breaker.stop(breaker.arena.supervisors(), fault),
    **{kind.name: Breaker.network for kind in faults.KINDS if kind.name.startswith("net.")},
    "redis.flush": lambda breaker, _: breaker.redis_command("FLUSHALL"),
    "redis.delete": lambda breaker, _: breaker.redis_command("DEL", breaker.arena.keys()[0]),
    "redis.delete-part": Breaker.delete_part,
    "redis.evict": Breaker.evict,
    "redis.oom": Breaker.out_of_memory,
    "redis.readonly": Breaker.read_only,
    "redis.wrong-type": Breaker.wrong_type,
    "redis.drop-group": Breaker.drop_group,
    "redis.kick": lambda breaker, _: breaker.redis_command("CLIENT", "KILL", "TYPE", "normal"),
    "redis.empty": Breaker.redis_empty,
    "redis.rollback": Breaker.redis_rollback,
    "disk.full": Breaker.fill_disk,
    "disk.state-full": Breaker.fill_disk,
    "file.rename": Breaker.move_file,
    "file.append": Breaker.append_to_file,
    "clock.jump": Breaker.jump,
}


def chosen(things: Sequence[T], fault: Fault) -> T:
    """Return the one that the fault has chosen."""
    return things[min(int(fault.choice * len(things)), len(things) - 1)]


def signal_all(pids: Iterable[int], number: signal.Signals) -> int:
    """Send a signal to those that are still there; return how many those are."""
    sent = 0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            sent += 1
    return sent

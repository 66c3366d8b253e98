"""A spool with both its ends in one process, and a model of what must come out of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from redislogkit.record import Facts, Loss, decode_items
from redislogkit.spool import header, producer_end, segment
from redislogkit.spool.producer_end import ProducerEnd, SpoolSettings
from redislogkit.spool.shipper_end import ShipperEnd, spool_names, sweep_hidden
from tests.helpers import accounts

MIB = 1024 * 1024
INFO, DEBUG = 20, 10
_FOLDER = os.path.dirname(producer_end.__file__)


def memory_folder() -> str:
    """A new folder, in memory where there is such a place."""
    return tempfile.mkdtemp(prefix="rlk-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)


def facts(producer: str) -> Facts:
    return Facts(producer, "web1", os.getpid(), "MainProcess", 0.0, os.getuid())


def loss_in(payload: bytes) -> Loss | None:
    """The notice that ``payload`` is; None for a record of these tests."""
    if payload[:1] == b"r":
        return None
    (item,) = decode_items(b"\x91" + payload)
    assert isinstance(item, Loss)
    return item


class Rig:
    """Producers that append into spools below one folder, and a shipper's end that reads them.

    ``file`` is what a writer would have: it drops what it has, keeps the order of coming, and may lose what is
    not confirmed yet, which is then read again.
    """

    def __init__(
        self, *, on_full: str = "drop_new", max_bytes: int = MIB, block_timeout: float = 0.0
    ) -> None:
        self.folder = memory_folder()
        self.root = os.path.join(self.folder, "spool")
        os.mkdir(self.root)
        self.settings = SpoolSettings(
            self.root, os.path.join(self.folder, "nobody"), max_bytes, on_full, block_timeout, DEBUG
        )
        self.reports: list[str] = []
        self.returned: dict[tuple[str, int], bytes] = {}  # of every append that returned
        self.interrupted: set[bytes] = set()
        self.arrived: dict[tuple[str, int], bytes] = {}  # in the order of coming
        self.stored: dict[str, int] = {}  # producer → highest sequence of these
        self.written: dict[str, int] = {}
        self.last: dict[str, int] = {}  # highest sequence taken by each producer that is gone
        self.spools: dict[str, ShipperEnd] = {}
        self.count = 0
        self.end = self.start()

    # -- the producer's side --------------------------------------------------------------------

    def start(self) -> ProducerEnd:
        """Another process begins."""
        self.end = ProducerEnd(self.settings, facts)
        return self.end

    def payload(self, size: int = 150) -> bytes:
        """A payload that no other append has."""
        self.count += 1
        begin = b"r%08d " % self.count
        return begin + b"x" * (size - len(begin))

    def append(self, size: int = 150, levelno: int = INFO) -> None:
        """Append one record."""
        payload = self.payload(size)
        self.end.append(payload, levelno)
        self.note(payload)

    def note(self, payload: bytes) -> None:
        """Its append, which took the newest sequence, has returned."""
        self.returned[self.end.producer, self.end.sequence] = payload

    def interrupted_append(self, size: int, step: int) -> bool:
        """Append with a Ctrl-C before the ``step``-th instruction; False when it was over before."""
        payload = self.payload(size)
        if interrupted(step, lambda: self.end.append(payload, INFO)):
            self.interrupted.add(payload)
            return True
        self.note(payload)
        return False

    def die(self) -> None:
        """What a ``kill -9`` leaves: descriptors are closed, nothing else."""
        self.last[self.end.producer] = self.end.sequence
        page, mapped = self.end._header, self.end._map
        self.end._header = self.end._map = None
        if page is not None:
            page.close()
        if mapped is not None:
            mapped.close()
        self.start()

    def close(self) -> None:
        """The application closes its handler, and may log on."""
        self.end.close()

    def lose_lock(self, *, reuse: bool) -> None:
        """A daemon closes the descriptors; with ``reuse`` their numbers become another file's."""
        page = self.end._header
        if page is None:
            return
        fcntl.flock(page.fd, fcntl.LOCK_UN)
        if reuse:
            with open(os.devnull, "rb") as stranger:
                os.dup2(stranger.fileno(), page.fd)

    # -- the shipper's side ---------------------------------------------------------------------

    def look(self) -> None:
        """What the shipper does every second: find spools, retire those of dead producers."""
        sweep_hidden(self.root)
        for name in spool_names(self.root):
            if name not in self.spools:
                spool = ShipperEnd(os.path.join(self.root, name), self.reports.append)
                stored = self.stored.get(spool.facts.producer, 0)
                spool.set_written(max(spool.written, self.written.get(spool.facts.producer, 0)))
                spool.rewind(max(stored, spool.written))
                self.spools[name] = spool
        self.spools = {name: self.spools[name] for name in spool_names(self.root) if name in self.spools}
        for spool in self.spools.values():
            spool.check_owner()

    def read(self, max_bytes: int = 64 * 1024) -> int:
        """Read once from each producer's oldest spool; return the payloads that were new."""
        fresh = 0
        busy: set[str] = set()
        for spool in list(self.spools.values()):
            producer = spool.facts.producer
            if producer in busy:
                continue
            for run in spool.read(max_bytes):
                for sequence, payload in enumerate(run.payloads, run.first):
                    fresh += self._take(producer, sequence, payload)
            spool.set_shipped(self.stored.get(producer, 0))
            if not spool.finished:
                busy.add(producer)
        return fresh

    def _take(self, producer: str, sequence: int, payload: bytes) -> bool:
        if sequence <= self.stored.get(producer, 0):
            known = self.arrived.get((producer, sequence))
            if not known or loss_in(known) is None:  # of a gap that is told again the first telling counts
                assert known is None or known == payload, f"two records are {producer}:{sequence}"
            return False
        self.arrived[producer, sequence] = payload
        self.stored[producer] = sequence
        return True

    def write(self) -> None:
        """The writers have written all that has come: segments are released."""
        self.written |= self.stored
        for name, spool in list(self.spools.items()):
            safe = self.written.get(spool.facts.producer, 0)
            spool.set_written(safe)
            spool.release(safe)
            if spool.finished and spool.owner_dead and safe >= spool.read_sequence:
                spool.remove()
                del self.spools[name]

    def lose_memory(self) -> None:
        """Redis forgets what is not written; it is read again."""
        self.arrived = {
            (producer, sequence): payload
            for (producer, sequence), payload in self.arrived.items()
            if sequence <= self.written.get(producer, 0)
        }
        self.stored = dict(self.written)
        for spool in self.spools.values():
            spool.rewind(self.written.get(spool.facts.producer, 0))

    def restart_shipper(self) -> None:
        """Another shipper comes, which knows what is on disk and in redis."""
        for spool in self.spools.values():
            spool.close()
        self.spools.clear()
        self.look()

    # -- the end --------------------------------------------------------------------------------

    def drain(self, *, dead: bool = True) -> None:
        """Read and write everything, with the producer gone."""
        if dead:
            self.die()
        for _ in range(10_000):
            self.look()
            fresh = self.read(MIB)
            self.write()
            if not fresh and (not self.spools or not dead):
                return
        raise AssertionError(f"spools are left: {list(self.spools)}")

    def losses(self) -> dict[tuple[str, int], str]:
        """Producer and sequence of everything that notices name, with the cause."""
        named: dict[tuple[str, int], str] = {}
        for (producer, _), payload in self.arrived.items():
            if (loss := loss_in(payload)) is not None:
                for sequence in range(loss.first, loss.last + 1):
                    assert (producer, sequence) not in named, f"{producer}:{sequence} is named twice"
                    named[producer, sequence] = loss.cause
        return named

    def check_account(self) -> None:
        """What the producer knows of its records is true at this moment, and adds up."""
        end = self.end
        account = end.account(True)
        accounts.check(account._asdict())
        # It learns of a position when a spool of its own tells it: late, but never wrong.
        written = end.position(True)
        assert written <= self.written.get(end.producer, 0)
        lines = [
            s for (p, s), payload in self.arrived.items() if p == end.producer and loss_in(payload) is None
        ]
        assert account.written == sum(sequence <= written for sequence in lines), account
        assert account.emitted == end.sequence
        if written == end.sequence:
            causes = Counter(cause for (p, _), cause in self.losses().items() if p == end.producer)
            assert sum(account.lost.values()) == causes.total(), (account, causes)

    def check(self) -> dict[tuple[str, int], str]:
        """Every returned append has come exactly once and in order, or a notice names it. Returns the losses."""
        self.check_account()
        losses = self.losses()
        records = {key: payload for key, payload in self.arrived.items() if loss_in(payload) is None}
        for producer in {producer for producer, _ in self.arrived}:
            sequences = [sequence for p, sequence in self.arrived if p == producer]
            assert sequences == sorted(set(sequences))
            accounted = {*sequences, *(sequence for p, sequence in losses if p == producer)}
            assert accounted >= set(range(1, max(accounted) + 1)), "a gap that nobody explains"
        # A record may have a notice for a name only where that notice stands under the sequence of the last one.
        assert not records.keys() & losses.keys(), "what has come is said to be lost"
        for key, payload in self.returned.items():
            assert (records.get(key) == payload) != (key in losses), (
                f"{key} {payload[:10]!r} is gone in silence"
            )
        strange = set(records.values()) - set(self.returned.values())
        assert strange <= self.interrupted, "something has come that nobody logged"
        assert len(set(records.values())) == len(records), "a record has come twice"
        return losses

    def remove(self) -> None:
        """Everything goes."""
        for spool in self.spools.values():
            spool.close()
        for leaked in header.leaked:
            _let_go(leaked)
        header.leaked.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


def _let_go(leaked: Any) -> None:
    """Close what the product must not: in a test the numbers are known to be ours."""
    for part in leaked if isinstance(leaked, tuple) else (leaked,):
        with contextlib.suppress(BufferError, OSError):
            part.close() if part is not None else None


# -- interruptions ----------------------------------------------------------------------------------------------


def interrupted(step: int, call: Callable[[], None]) -> bool:
    """Make the call, with a Ctrl-C before its ``step``-th instruction; False when it was over before.

    Raises ``AssertionError`` when the call keeps the exception to itself.
    """
    times: list[int] = []

    def interrupt() -> None:
        times.append(step)
        raise KeyboardInterrupt

    try:
        with at_step(step, interrupt):
            call()
    except KeyboardInterrupt:
        return True
    assert not times, "the interrupt was swallowed"
    return False


#: In Python 3.13 the first frame of all that asks for instructions alone gets nothing.
_LINES_AS_WELL = sys.version_info >= (3, 13)


@contextlib.contextmanager
def at_step(
    step: int,
    action: Callable[[], None],
    *,
    lines: bool = False,
    inside: Callable[[FrameType], bool] = lambda frame: frame.f_code.co_filename.startswith(_FOLDER),
) -> Iterator[None]:
    """Call ``action`` once, before the ``step``-th instruction (or line) inside of the spool's modules, or elsewhere."""
    left = step

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal left
        if left < 0 or not inside(frame):
            return None
        frame.f_trace_opcodes = not lines
        frame.f_trace_lines = lines or _LINES_AS_WELL
        if event == ("line" if lines else "opcode") and not _is_finaliser(frame):
            left -= 1
            if left < 0:
                sys.settrace(None)
                action()
        return trace if left >= 0 else None

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(previous)


def _is_finaliser(frame: FrameType | None) -> bool:
    # The interpreter swallows what is raised there.
    while frame is not None and frame.f_code.co_filename.startswith(_FOLDER):
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def segment_files(rig: Rig) -> list[str]:
    """Paths of all segments."""
    return sorted(
        os.path.join(folder, name)
        for folder, _, names in os.walk(rig.root)
        for name in names
        if name.endswith(".seg") and "damaged" not in folder
    )


def used_on_disk(rig: Rig) -> int:
    """Bytes that the segments take."""
    return sum(os.stat(path).st_blocks * 512 for path in segment_files(rig))


__all__ = [
    "DEBUG", "INFO", "MIB", "Rig", "at_step", "facts", "interrupted", "loss_in", "memory_folder", "segment",
    "segment_files", "used_on_disk",
]  # fmt: skip

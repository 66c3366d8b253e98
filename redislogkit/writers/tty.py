"""Writes each record to the terminal of the process that logged it.

Theory of operation.

*Whose terminal is it?* A path like ``/dev/pts/3`` is reused, and what a record says about it may be wrong or
hostile. So only names that terminals have are opened at all, without following a link, without blocking and
without becoming our controlling terminal; then the *opened* device is judged (no race with the path): a
terminal, of the recorded number and owner, and not newer than the record. A terminal is newer when its inode
was changed after both the start of the producer and the record. Such a number has been given out again.

*Why is it not kept open?* While we hold a terminal, whoever reads its other end sees no end of file when the
last program on it ends: a tmux pane would stay open, ``pexpect`` would hang. Opening and judging takes 3 us,
so a terminal is open during one `TtyDestination.write` only, unless lines wait for it. As long as lines wait,
the held descriptor keeps the number from being given out again: they can reach no other terminal.

*What may a slow terminal cost?* Nothing is ever written in blocking mode. First every terminal gets what it
takes at once. Then the ones that took only a part are waited for, as long as they move at a fair pace, so
that the records of a short program are on its terminal when they are reported as written. A terminal that
does not move (Ctrl-S) is marked slow and not waited for again before it has taken everything; its lines wait
up to a bound, and beyond it the newest are skipped, counted, and named in one line at that place.
"""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import stat
import termios
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from redislogkit import escaping, formatting, identity, terminal
from redislogkit.config import TtyWriterConfig
from redislogkit.lines import Numbered
from redislogkit.record import Facts, Loss, Record
from redislogkit.writers.checkpoint import Checkpoint
from redislogkit.writers.counts import Counts
from redislogkit.writers.reading import Reading

#: What lines may wait for one terminal, in bytes.
PENDING_BYTES: Final = 1 << 20
#: Terminals that are open for one round of writing, and those for which lines may wait at the same time.
TERMINALS: Final = 64

_CHUNK: Final = 1 << 16
# A terminal is waited for at most _GRACE seconds plus what it took at this pace in bytes a second, and all
# of them together _LONGEST_WAIT seconds, because a writer that is silent for too long counts as dead.
_GRACE: Final = 0.1
_FAIR_PACE: Final = 256 * 1024
_LONGEST_WAIT: Final = 2.0
_CLOSE_TIMEOUT: Final = 1.0
_SHORTEST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.25

_OPEN_FLAGS: Final = os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
#: Names that terminals have. Opening another device can have effects (a watchdog, a tape).
_TERMINAL_PATH: Final = re.compile(r"/dev/(?:pts/[0-9]+|tty\w*[0-9]|console|hvc[0-9]+|sclp_line0)", re.ASCII)
_OPEN_CAUSES: Final[Mapping[int | None, str]] = {
    errno.EACCES: "denied",
    errno.EPERM: "denied",
    errno.EBUSY: "denied",
    errno.ELOOP: "not_a_terminal",
    errno.EMFILE: "no_descriptor",
    errno.ENFILE: "no_descriptor",
}

_Key: TypeAlias = tuple[str, int, int]


class _RefusedError(Exception):
    """Nothing may be written there; the argument is the cause that is counted."""


class _Line(NamedTuple):
    data: bytes
    items: int = 1
    """Records and losses in it: none in the line that tells how many were skipped."""


class TtyDestination:
    """The terminals of the producers of this host. Not thread-safe, as no destination is.

    Args:
        config: the writer's section.
        environ: where ``NO_COLOR``, ``FORCE_COLOR`` and ``TERM`` are looked up.
        clock: the time of day, to tell whether a terminal is newer than a record.

    Attributes:
        written: records and losses that a terminal has taken entirely.
        skipped: the others by cause: ``no_terminal``, ``other_host``, ``gone`` (closed), ``denied``,
            ``not_a_terminal``, ``other_device``, ``other_owner``, ``reused``, ``no_descriptor``, ``stopped``.
    """

    def __init__(
        self,
        config: TtyWriterConfig,
        *,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.written = 0
        self.counts = Counts()
        self.skipped = self.counts.skipped
        self._format = formatting.build(config.formatter)
        self._coloured = wants_colour(config.color, environ)
        self._colour_of = escaping.palette(config.formatter.colors)
        self._clock = clock
        self._here = ("", "")
        self._waiting: dict[_Key, _Terminal] = {}
        self._pause = _SHORTEST_PAUSE
        self._unblocked: set[signal.Signals] = set()
        self._checkpoint: Checkpoint | None = None
        self._last: Sequence[Numbered] = ()
        """What the last reading brought; perhaps not checkpointed yet."""
        self._known: set[tuple[str, int]] = set()
        """Producer and sequence of what was handled, but will come again."""

    def recover(self, checkpoint: Checkpoint, *, retract: bool = False) -> dict[str, int]:  # noqa: ARG002
        """Get ready; remember what was shown and comes again. Nothing can be taken back from a terminal."""
        self._checkpoint = checkpoint
        self._here = (identity.host_name(), identity.boot_id())
        # A terminal in "tostop" mode stops background processes that write to it; with the signal
        # blocked the write just happens.
        self._unblocked |= {signal.SIGTTOU} - signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        self._known.update(_names(self._last))
        self._last = ()
        return {}

    def write(self, reading: Reading) -> None:
        """Write each item to its own terminal; what can not be written is counted.

        When it returns, every terminal that moves has all its lines. Never raises ``OSError``.
        """
        self._forget_checkpointed()
        items = self._last = self._placed(reading.items)
        rest, deadline = self._news(items), time.monotonic() + _LONGEST_WAIT
        while rest:
            touched, rest = self._queue(rest)
            for target in touched:
                self._push(target)
            self._wait([target for target in touched if not target.slow], _GRACE, deadline)
            for target in touched:
                self._count_stopped(target.trim())
            self._settle(touched)

    def _placed(self, items: Sequence[Numbered]) -> Sequence[Numbered]:
        """Return ``items`` with facts that say where their terminals are."""
        return items

    def _forget_checkpointed(self) -> None:
        """Forget what was shown and does not come again."""
        if self._known and self._checkpoint is not None:
            seen = self._checkpoint.seen
            self._known = {name for name in self._known if name[1] > seen(name[0])}
        self._last = ()

    def mark(self) -> None:
        """Return None: a terminal has no place to go on from."""
        return

    def service(self) -> float | None:
        """Push what waits; return the seconds until it wants to be called again, None when nothing waits."""
        if not self._waiting:
            return None
        terminals = list(self._waiting.values())
        moved = [self._push(target) for target in terminals]
        self._settle(terminals)
        self._pause = _SHORTEST_PAUSE if any(moved) else min(self._pause * 2, _LONGEST_PAUSE)
        return self._pause if self._waiting else None

    def close(self) -> None:
        """Give the lines that wait one more second, count the rest as ``stopped``, close the terminals."""
        if self._waiting:
            deadline = time.monotonic() + _CLOSE_TIMEOUT
            self._wait(list(self._waiting.values()), _CLOSE_TIMEOUT, deadline)
        for target in self._waiting.values():
            self._count_stopped(target.abandon())
        self._waiting.clear()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._unblocked)
        self._unblocked = set()

    # -- from items to lines --------------------------------------------------------------------

    def _news(self, items: Sequence[Numbered]) -> Sequence[Numbered]:
        if not self._known:
            return items
        return [item for item in items if (item[1].producer, item[2]) not in self._known]

    def _queue(self, items: Sequence[Numbered]) -> tuple[list[_Terminal], Sequence[Numbered]]:
        """Append the line of each item to its terminal; return these terminals and the items left.

        Items are left when they go to more terminals than may be open.
        """
        found: dict[_Key, _Terminal | str] = {}
        rest: Sequence[Numbered] = ()
        for index, (item, facts, sequence) in enumerate(items):
            cause = self._elsewhere(facts)
            if cause:
                self.skipped[cause] += 1
                continue
            key = (facts.tty, facts.tty_device, facts.uid)
            target = found.get(key)
            if target is None:
                if len(found) == TERMINALS:
                    rest = items[index:]
                    break
                target = found[key] = self._find(key)
            if isinstance(target, str):
                self.skipped[target] += 1
            else:
                self._add(target, item, facts, sequence)
        return [target for target in found.values() if not isinstance(target, str)], rest

    def _add(self, target: _Terminal, item: Record | Loss, facts: Facts, sequence: int) -> None:
        if target.is_newer(item, facts):
            self.skipped["reused"] += 1
        elif target.has_room():
            target.add(self._line(item, facts, sequence, target.newline))
        else:
            target.omitted += 1
            self._count_stopped(1)

    def _count_stopped(self, items: int) -> None:
        if items:
            self.skipped["stopped"] += items

    def _elsewhere(self, facts: Facts) -> str:
        if not facts.tty:
            return "no_terminal"
        return "" if (facts.host, facts.boot_id) == self._here else "other_host"

    def _find(self, key: _Key) -> _Terminal | str:
        """Return the terminal, open and judged, or the cause why nothing may be written to it."""
        target = self._waiting.get(key)
        if target is not None:
            if target.refresh():
                return target
            self._drop(target)
        try:
            return _Terminal(key, self._clock())
        except _RefusedError as refused:
            return str(refused)

    def _line(self, item: Record | Loss, facts: Facts, sequence: int, newline: str) -> bytes:
        record = formatting.loss_record(item, facts) if isinstance(item, Loss) else item
        text = escaping.sanitise_terminal(self._format(record, facts, sequence))
        if self._coloured:
            text = escaping.colourise(text, record.levelno, record.levelname, self._colour_of)
        text += "\n"
        if newline != "\n":
            text = text.replace("\n", newline)
        return text.encode("utf-8", "backslashreplace")

    # -- from lines to terminals ----------------------------------------------------------------

    def _push(self, target: _Terminal) -> int:
        """Hand over what the terminal takes at once; return the bytes taken."""
        taken, before = 0, target.written
        try:
            taken = target.push()
        except OSError:
            self._drop(target)
        self.written += target.written - before
        self.counts.bytes += taken
        return taken

    def _wait(self, terminals: Collection[_Terminal], grace: float, deadline: float) -> None:
        """Push until the terminals have everything, or are too slow, or the deadline is reached."""
        behind = {target.fd: target for target in terminals if target.lines}
        patience = dict.fromkeys(behind, min(time.monotonic() + grace, deadline))
        poll = select.poll()
        for fd in behind:
            poll.register(fd, select.POLLOUT)
        while behind:
            for fd, _ in poll.poll(_GRACE * 250):
                pushed = self._push(behind[fd])
                patience[fd] = min(patience[fd] + pushed / _FAIR_PACE, deadline)
                if (
                    not pushed and behind[fd].lines
                ):  # it said that it has room, but not even for one character
                    time.sleep(_SHORTEST_PAUSE / 10)
            now = time.monotonic()
            for fd, target in list(behind.items()):
                if not target.lines or now >= patience[fd]:
                    target.slow = bool(target.lines)
                    poll.unregister(fd)
                    del behind[fd]

    def _settle(self, terminals: Collection[_Terminal]) -> None:
        """Keep the terminals for which lines wait, let go of the others."""
        for target in terminals:
            if target.lines:
                if target.key not in self._waiting:
                    self._pause = _SHORTEST_PAUSE
                self._waiting[target.key] = target
            else:
                self._waiting.pop(target.key, None)
                target.abandon()
        while len(self._waiting) > TERMINALS:
            self._count_stopped(self._waiting.pop(next(iter(self._waiting))).abandon())

    def _drop(self, target: _Terminal) -> None:
        self._waiting.pop(target.key, None)
        items = target.abandon()
        if items:
            self.skipped["gone"] += items


class _Terminal:
    """One open terminal and the lines that wait for it. Raises ``_RefusedError`` when it must not be used."""

    def __init__(self, key: _Key, now: float) -> None:
        self.key = key
        self.lines: deque[_Line] = deque()
        self.written = 0
        """Items that it has taken entirely."""
        self.omitted = 0
        """Lines skipped since the last one in ``lines``."""
        self.slow = False
        self.newline = "\n"
        self._size = 0  # of all lines, in bytes
        self._sent = 0  # of the first line, in bytes
        self.fd = _open(key[0])
        try:
            status = os.fstat(self.fd)
            cause = refusal(status, device=key[1], uid=key[2])
            if not cause and not self.refresh():
                cause = "gone" if os.isatty(self.fd) else "not_a_terminal"
            if cause:
                raise _RefusedError(cause)
        except BaseException:
            self.abandon()
            raise
        # A change that lies in the future says nothing: the clock has been set back since.
        self._changed = status.st_ctime if status.st_ctime <= now else 0.0

    def refresh(self) -> bool:
        """Learn how lines end here; False when the terminal is gone."""
        try:
            flags = termios.tcgetattr(self.fd)[1]
        except (termios.error, OSError):
            return False
        # A program in raw mode has switched off that the terminal returns the carriage at "\n".
        translated = flags & termios.OPOST and flags & termios.ONLCR
        self.newline = "\n" if translated else "\r\n"
        return True

    def is_newer(self, item: Record | Loss, facts: Facts) -> bool:
        """Whether the terminal was given out after the item was logged, to somebody else therefore."""
        return item.created < self._changed and facts.started < self._changed

    def has_room(self) -> bool:
        """Whether one more line may wait; after lines were skipped, only once half of the room is free."""
        if not self.slow:
            return True
        return self._size < (PENDING_BYTES // 2 if self.omitted else PENDING_BYTES)

    def add(self, data: bytes) -> None:
        """Let a line wait, after the line that says what was skipped before it."""
        self._tell_omitted()
        self._append(_Line(data))

    def trim(self) -> int:
        """Skip the newest lines beyond the bound; never one that the terminal has begun. Return the items."""
        items = 0
        while self._size > PENDING_BYTES and len(self.lines) > (1 if self._sent else 0):
            line = self.lines.pop()
            self._size -= len(line.data)
            items += line.items
            self.omitted += line.items
        return items

    def push(self) -> int:
        """Hand over what the terminal takes now; return the bytes taken. May raise ``OSError``."""
        taken = 0
        while self._next():
            chunk = self._chunk()
            try:
                count = os.write(self.fd, chunk)
            except BlockingIOError:
                break
            taken += count
            self._forget(count)
            if count < len(chunk):
                break
        if not self.lines:
            self.slow = False
        return taken

    def abandon(self) -> int:
        """Close it; return the items that were still waiting."""
        items = sum(line.items for line in self.lines)
        self.lines.clear()
        self._size = self._sent = self.omitted = 0
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)
        return items

    def _next(self) -> bool:
        if not self.lines:
            self._tell_omitted()
        return bool(self.lines)

    def _tell_omitted(self) -> None:
        if self.omitted:
            lines = "line" if self.omitted == 1 else "lines"
            text = f"… skipped {self.omitted} {lines}{self.newline}"
            self._append(_Line(text.encode(), 0))
            self.omitted = 0

    def _append(self, line: _Line) -> None:
        self.lines.append(line)
        self._size += len(line.data)

    def _chunk(self) -> bytes:
        parts: list[bytes] = []
        room = _CHUNK + self._sent
        for line in self.lines:
            parts.append(line.data)
            room -= len(line.data)
            if room <= 0:
                break
        return b"".join(parts)[self._sent : self._sent + _CHUNK]

    def _forget(self, count: int) -> None:
        """Forget ``count`` bytes that the terminal has taken."""
        self._sent += count
        while self.lines and self._sent >= len(self.lines[0].data):
            line = self.lines.popleft()
            self._sent -= len(line.data)
            self._size -= len(line.data)
            self.written += line.items


def _names(items: Sequence[Numbered]) -> Iterator[tuple[str, int]]:
    return ((facts.producer, sequence) for _, facts, sequence in items)


def _open(path: str) -> int:
    if _TERMINAL_PATH.fullmatch(path) is None:
        raise _RefusedError("not_a_terminal")
    try:
        return os.open(path, _OPEN_FLAGS)
    except OSError as error:
        raise _RefusedError(_OPEN_CAUSES.get(error.errno, "gone")) from None


def refusal(status: os.stat_result, *, device: int, uid: int) -> str:
    """Return why an opened file with this status is not the terminal ``device`` of user ``uid``, or ``""``."""
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev == terminal.ALIAS_DEVICE:
        return "not_a_terminal"
    if status.st_rdev != device:
        return "other_device"
    return "" if status.st_uid == uid else "other_owner"


def wants_colour(color: str, environ: Mapping[str, str]) -> bool:
    """Whether to colour: as ``color`` says; with ``auto`` by ``NO_COLOR``, then ``FORCE_COLOR``, then ``TERM``."""
    if color != "auto":
        return color == "always"
    if environ.get("NO_COLOR"):
        return False
    return bool(environ.get("FORCE_COLOR")) or environ.get("TERM") != "dumb"

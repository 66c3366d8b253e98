"""Writes records to the supervisor's own stdout or stderr, where a container's logs are collected.

Theory of operation. The stream is somebody else's, too: the supervisor's own log, another writer, and whoever has
started it may write to the same pipe. So it is never switched to non-blocking, which would be so for all of them:
a pipe and a terminal are opened once more for that, a socket is asked for each message, and a file never blocks.

Into a pipe goes as much at a time as the kernel takes as a whole (`select.PIPE_BUF`), and only whole lines: a line
of up to 4 KiB is never torn, nor mixed with those of others, by a kill neither.

Who reads slowly is waited for, for ever if need be: nothing is skipped, records wait in stream and spools. A write that
does not move for `_PATIENCE` fails, so that the writer gives a sign of life, says that it waits, and tries again;
what the stream has taken by then is remembered here, and not written twice. After a kill the records of the last
reading come again, as far as they were not confirmed: at least once, as on a terminal.

A pipe that nobody reads any more will not be read again. The writer ends then, is set aside, and tried again at a slow
pace: only a named pipe can get another reader.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
import socket
import stat
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Final

from redislogkit import escaping, lines
from redislogkit.config import StderrWriterConfig, StdoutWriterConfig
from redislogkit.errors import DestinationClosedError
from redislogkit.escaping import encode_text
from redislogkit.lines import Numbered
from redislogkit.record import Loss
from redislogkit.writers.checkpoint import Checkpoint
from redislogkit.writers.counts import Counts
from redislogkit.writers.reading import Reading
from redislogkit.writers.tty import wants_colour

#: Seconds that a write waits for a stream that takes nothing.
_PATIENCE: Final = 1.0
#: Seconds after which a write ends that moves, but slowly: a writer that gives no sign of life counts as dead.
_LONGEST_WRITE: Final = 2.0
#: What goes into a stream that is no pipe at a time, in bytes.
_CHUNK: Final = 1 << 16


class StandardDestination:
    """Descriptor 1 or 2 of this process, which it has inherited from the supervisor. Not thread-safe.

    Args:
        config: The writer's section.
        fd: Another descriptor to write to.
        environ: Where ``NO_COLOR``, ``FORCE_COLOR`` and ``TERM`` are looked up.
    """

    def __init__(
        self,
        config: StdoutWriterConfig | StderrWriterConfig,
        *,
        fd: int | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.counts = Counts()
        self._name = "stdout" if isinstance(config, StdoutWriterConfig) else "stderr"
        self._inherited = (1 if self._name == "stdout" else 2) if fd is None else fd
        self._render = lines.build(config.formatter, config.multiline)
        coloured = config.formatter.type == "text" and _is_coloured(config.color, self._inherited, environ)
        self._finish = _colouring(config.formatter.colors) if coloured else _plain
        self._fd = -1
        self._write: Callable[[bytes], int] = self._write_to_file
        self._most = _CHUNK
        self._pending: deque[bytes] = deque()
        """What the stream has not taken yet of the lines of the last reading."""
        self._begun = False  # the first of them has been written in part
        self._handled: frozenset[tuple[str, int]] = frozenset()
        """Producer and sequence of the lines that are written or pending, and may come again."""

    # -- the seam -------------------------------------------------------------------------------

    def recover(self, checkpoint: Checkpoint, *, retract: bool = False) -> dict[str, int]:  # noqa: ARG002 - as all of them
        """Open the stream; with ``retract`` forget what is pending, which another host writes.

        Nothing can be taken back. Raises ``DestinationClosedError`` or ``OSError``.
        """
        if retract:
            self._pending = deque(islice(self._pending, int(self._begun)))
            self._handled = frozenset()
        if self._fd < 0:
            self._open()
        self._refuse_closed()
        return {}

    def write(self, reading: Reading) -> None:
        """Write what the reading brings. Raises ``OSError`` when the stream takes nothing for a while."""
        items: Sequence[Numbered] = reading.items
        names = frozenset((facts.producer, sequence) for _, facts, sequence in items)
        if self._handled:
            items = [item for item in items if (item[1].producer, item[2]) not in self._handled]
        if items:
            self._pending += self._finish(self._render(items), items)
        self._handled |= names
        self._push()
        self._handled = frozenset()

    def mark(self) -> None:
        """Return None: a stream has no place to go on from."""
        return

    def service(self) -> float | None:
        """Return None: nothing is pending between two readings."""
        return None

    def close(self) -> None:
        """Let go of what was opened here."""
        if self._fd not in (-1, self._inherited):
            os.close(self._fd)
        self._fd = -1

    # -- the stream -----------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            mode = os.fstat(self._inherited).st_mode
        except OSError as error:
            raise DestinationClosedError(f"{self._name} of the supervisor is closed: {error}") from error
        self._fd = self._inherited
        if stat.S_ISSOCK(mode):
            self._write = self._write_to_socket
        elif stat.S_ISFIFO(mode) or os.isatty(self._inherited):
            self._most = select.PIPE_BUF
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
            try:
                self._fd = os.open(f"/dev/fd/{self._inherited}", flags)
            except OSError as error:
                if error.errno == errno.ENXIO:  # a named pipe without a reader
                    raise self._closed() from None
                # Of another user, or of another mount namespace: what `poll` says it takes does not block for long.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})  # "tostop" would stop us

    def _closed(self) -> DestinationClosedError:
        return DestinationClosedError(f"nobody reads the supervisor's {self._name} any more")

    def _refuse_closed(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        if any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0)):
            raise self._closed()

    def _push(self) -> None:
        """Hand over what is pending. Raises ``OSError`` once nothing has moved for a while."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        now = time.monotonic()
        patience, end = now + _PATIENCE, now + _LONGEST_WRITE
        while self._pending:
            if poll.poll(max(patience - now, 0.0) * 1000):
                data = self._chunk()
                if taken := self._take(data):
                    self._forget(taken)
                    patience = time.monotonic() + _PATIENCE
                else:
                    time.sleep(0.005)  # it said that it has room, but not enough for a line
            now = time.monotonic()
            if self._pending and now >= min(patience, end):
                raise OSError(errno.EAGAIN, f"whoever reads {self._name} is too slow")

    def _take(self, data: bytes) -> int:
        try:
            return self._write(data)
        except BlockingIOError:
            return 0
        except (BrokenPipeError, ConnectionResetError):
            raise self._closed() from None

    def _chunk(self) -> bytes:
        """Return what goes out next: as many lines as fit, or a part of one that is too long."""
        size = count = 0
        for line in self._pending:
            if count and size + len(line) > self._most:
                break
            size += len(line)
            count += 1
        return b"".join(islice(self._pending, count))[: self._most]

    def _forget(self, taken: int) -> None:
        self.counts.bytes += taken
        while taken and taken >= len(self._pending[0]):
            taken -= len(self._pending.popleft())
            self._begun = False
        if taken:
            self._pending[0] = self._pending[0][taken:]
            self._begun = True

    def _write_to_file(self, data: bytes) -> int:
        return os.write(self._fd, data)

    def _write_to_socket(self, data: bytes) -> int:
        with socket.socket(fileno=os.dup(self._fd)) as connection:
            return connection.send(data, socket.MSG_DONTWAIT)


def _is_coloured(color: str, fd: int, environ: Mapping[str, str]) -> bool:
    if color == "auto" and not environ.get("FORCE_COLOR") and not os.isatty(fd):
        return False
    return wants_colour(color, environ)


def _plain(texts: list[str], items: Sequence[Numbered]) -> list[bytes]:  # noqa: ARG001 - as those with colours
    # It ends on somebody's terminal, by `docker logs` or `journalctl`.
    return [encode_text(escaping.sanitise_terminal(text)) for text in texts]


def _colouring(colours: Mapping[str, str]) -> Callable[[list[str], Sequence[Numbered]], list[bytes]]:
    colour_of = escaping.palette(colours)

    def coloured(texts: list[str], items: Sequence[Numbered]) -> list[bytes]:
        found = []
        for text, (item, _, _) in zip(texts, items, strict=True):
            clean = escaping.sanitise_terminal(text)
            level = (logging.WARNING, "WARNING") if isinstance(item, Loss) else (item.levelno, item.levelname)
            found.append(encode_text(escaping.colourise(clean, *level, colour_of)))
        return found

    return coloured

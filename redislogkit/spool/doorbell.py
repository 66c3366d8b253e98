"""The wake-up of a sleeping shipper: a FIFO that it reads and producers write a byte to.

A producer opens, writes and closes it for each ring. A kept descriptor would be cheaper, but an
application that closes descriptors it does not know (a daemon) could reuse the number, and our byte
would land in its file. Rings happen only while the shipper sleeps, so the price does not matter.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select

NAME = "doorbell"


def ring(path: str) -> bool:
    """Wake whoever listens; False when nobody does. Never blocks, never raises ``OSError``."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, b"\0")
    except OSError as error:
        return error.errno == errno.EAGAIN  # full of rings already
    finally:
        os.close(fd)
    return True


def is_heard(path: str) -> bool:
    """True when somebody listens; does not wake him."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class Doorbell:
    """The listener's end. Raises ``OSError`` when the FIFO can not be made."""

    def __init__(self, path: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        # Our own writing end keeps the FIFO from reporting end-of-file between rings.
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._keep = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """Descriptor to wait on."""
        return self._fd

    def wait(self, timeout: float, *others: int) -> bool:
        """Wait for a ring, for one of the descriptors ``others``, or for ``timeout`` seconds; True if rung."""
        poll = select.poll()  # select() refuses descriptors beyond 1023
        for fd in (self._fd, *others):
            poll.register(fd, select.POLLIN)
        poll.poll(max(timeout, 0.0) * 1000)
        return self.clear()

    def clear(self) -> bool:
        """Forget the rings heard so far; True if there were any."""
        rung = False
        with contextlib.suppress(BlockingIOError):
            while os.read(self._fd, 4096):
                rung = True
        return rung

    def close(self) -> None:
        """Stop listening; a producer that rings from now on learns that nobody is there."""
        os.close(self._fd)
        os.close(self._keep)

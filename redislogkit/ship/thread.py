"""The shipper as a thread of the application, for ``ship = "thread"``.

It never touches ``logging``; what it has to report is kept for `OwnThread.reports`. The client library does log,
a line of DEBUG for each failed command: its loggers are deaf to this thread. It is a daemon thread
that nobody joins: an exit waits for positions in the spool's header, and what is not shipped by then waits
in the spool for the next shipper.

Each thread has a doorbell of its own beside the supervisor's. A thread may follow one that is still
draining (``dictConfig`` closes a handler that goes on to be used), so a doorbell is made under another name
and renamed into place, and its owner removes it only where it is still his.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
from collections import deque
from typing import Final

from redislogkit import encoding
from redislogkit.config import Config
from redislogkit.ship.shipper import Shipper, ShipperSettings
from redislogkit.spool import doorbell
from redislogkit.spool.doorbell import Doorbell
from redislogkit.stream import address
from redislogkit.stream.client import StreamClient

_OWN_BELL: Final = re.compile(rf"{doorbell.NAME}-(\d+)-[0-9a-f]+(\.new)?")


class OwnThread:
    """A running shipper thread for one producer, and for the spools of dead ones."""

    def __init__(self, config: Config, bell_path: str, producer: str) -> None:
        self._bell_path = bell_path
        self._closing = False
        self.reports: deque[str] = deque(maxlen=100)
        """What the shipper had to say, newest last."""
        url = address.resolve(config)
        settings = ShipperSettings.of(config, own=producer)
        encode = encoding.encoder(config)
        self._bell = Doorbell(f"{bell_path}.new")
        self._bell_identity = _identity(self._bell.fileno())
        self._shipper = Shipper(
            settings,
            lambda: StreamClient(url, config.stream.name),
            encode,
            self._bell,
            self.reports.append,
        )
        self._drain_timeout = config.producer.shutdown_timeout
        self._thread = threading.Thread(target=self._run, name="redislogkit-shipper", daemon=True)
        try:
            os.rename(f"{bell_path}.new", bell_path)
            self._thread.start()
        except BaseException:
            self._bell.close()
            self.silence()
            raise
        self.ident: int | None = self._thread.ident
        """The thread's identifier; None as soon as it has ended, since another thread may get it then."""

    def _run(self) -> None:
        _thread.ships = True
        try:
            self._shipper.run(lambda: self._closing, drain_timeout=self._drain_timeout)
        except Exception as error:  # nobody above us to report to; the spool keeps everything
            self.reports.append(f"the shipper thread has ended: {error!r}")
        finally:
            self.silence()
            self._bell.close()
            self.ident = None

    def close(self, timeout: float) -> None:
        """Ship what is left within ``timeout`` seconds and end; returns at once."""
        self._drain_timeout = timeout
        self._closing = True
        doorbell.ring(self._bell_path)

    def silence(self) -> None:
        """Remove the doorbell, unless a thread that followed has put its own in its place."""
        for path in (self._bell_path, f"{self._bell_path}.new"):
            with contextlib.suppress(OSError):
                status = os.lstat(path)
                if (status.st_dev, status.st_ino) == self._bell_identity:
                    os.unlink(path)

    def forget(self) -> None:
        """In a forked child: close what was the parent's. The thread itself has not come along."""
        with contextlib.suppress(Exception):
            if _identity(self._bell.fileno()) == self._bell_identity:
                # With our copy open, the parent would never learn that his thread is gone.
                self._bell.close()
            for spool in self._shipper._spools.values():
                spool.close()


def start(config: Config, bell_path: str, producer: str) -> OwnThread:
    """Start the thread. Raises ``RuntimeError`` at interpreter shutdown, ``OSError`` without a doorbell."""
    _sweep(os.path.dirname(bell_path))
    return OwnThread(config, bell_path, producer)


def _sweep(folder: str) -> None:
    """Remove the doorbells of threads whose processes were killed."""
    for name in os.listdir(folder):
        match = _OWN_BELL.fullmatch(name)
        path = os.path.join(folder, name)
        if match and not _lives(int(match[1])) and not doorbell.is_heard(path):
            with contextlib.suppress(OSError):
                os.unlink(path)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


#: ``ships`` is set in our threads.
_thread = threading.local()


def _is_from_the_application(record: logging.LogRecord) -> bool:  # noqa: ARG001 - it is a filter
    return not getattr(_thread, "ships", False)


def _deafen(package: str) -> None:
    """Keep what ``package`` logs in our threads from the application's handlers.

    At import, and not when a thread starts: looking for a logger takes the lock of ``logging``, and an
    emitting thread may hold one of ours. Some loggers are made by the package later; they are these then.
    """
    for name in list(sys.modules):
        if name == package or name.startswith(f"{package}."):
            logging.getLogger(name).addFilter(_is_from_the_application)


_deafen("redis")

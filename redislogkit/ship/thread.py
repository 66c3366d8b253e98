"""The shipper as a thread of the application, for ``ship = "thread"``.

It never touches ``logging``; what it has to report is kept for `OwnThread.reports`. It is a daemon thread
that nobody joins: an exit waits for positions in the spool's header, and what is not shipped by then waits
in the spool for the next shipper.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque

from redislogkit import encoding
from redislogkit.config import Config
from redislogkit.ship.shipper import Shipper, ShipperSettings
from redislogkit.spool.doorbell import Doorbell, ring
from redislogkit.stream import address
from redislogkit.stream.client import StreamClient


class OwnThread:
    """A running shipper thread for one producer, and for the spools of dead ones."""

    def __init__(self, config: Config, bell_path: str, producer: str) -> None:
        self._bell_path = bell_path
        self._closing = False
        self.reports: deque[str] = deque(maxlen=100)
        url = address.resolve(config)
        self._bell = Doorbell(bell_path)
        self._shipper = Shipper(
            ShipperSettings(
                root=os.path.join(config.stream_dir, "spool"),
                flush_interval=config.producer.flush_interval,
                buffer_size=config.producer.buffer_size,
                max_records=config.stream.max_records,
                writers=tuple(config.writers) if config.producer.ack == "writer" else (),
                own=producer,
            ),
            lambda: StreamClient(url, config.stream.name),
            encoding.encoder(config),
            self._bell,
            self.reports.append,
        )
        self._drain_timeout = config.producer.shutdown_timeout
        self._thread = threading.Thread(target=self._run, name="redislogkit-shipper", daemon=True)
        self._thread.start()
        self.ident = self._thread.ident

    def _run(self) -> None:
        try:
            self._shipper.run(lambda: self._closing, drain_timeout=self._drain_timeout)
        except Exception as error:  # nobody above us to report to; the spool keeps everything
            self.reports.append(f"the shipper thread has ended: {error!r}")
        finally:
            self._bell.close()
            with contextlib.suppress(OSError):
                os.unlink(self._bell_path)

    def close(self, timeout: float) -> None:
        """Ship what is left within ``timeout`` seconds and end; returns at once."""
        self._drain_timeout = timeout
        self._closing = True
        ring(self._bell_path)


def start(config: Config, bell_path: str, producer: str) -> OwnThread:
    """Start the thread. Raises ``RuntimeError`` at interpreter shutdown, ``OSError`` without a doorbell."""
    return OwnThread(config, bell_path, producer)

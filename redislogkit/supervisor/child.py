"""What runs in a child of the supervisor: the server, the shipper, or one writer.

Started fresh (spawn). A child beats over its pipe with its status, ends when told to drain, and ends at once
when the pipe reports that the supervisor is gone. Ctrl-C reaches the whole foreground group, so a child
ignores it: the supervisor decides.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from multiprocess.connection import Connection

from redislogkit import config as configuration
from redislogkit.errors import RedislogkitError

SERVER: Final = "server"
SHIPPER: Final = "shipper"
WRITER: Final = "writer"

#: Exit code of a child that can not do its work as configured; starting it again soon is no use.
EXIT_REFUSED: Final = 78
_BEAT: Final = 0.5


class ChildSpec(NamedTuple):
    """Which part of the configuration a child runs."""

    kind: str
    name: str


class Link:
    """The child's end of the pipe to its supervisor."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._next_beat = 0.0
        self._told = False
        self.orphaned = False
        """The supervisor is gone."""

    def fileno(self) -> int:
        """Descriptor that becomes readable when the supervisor says something or is gone."""
        return int(self._connection.fileno())

    def stopping(self) -> bool:
        """True once the supervisor has said drain, or is gone."""
        if not self._told and self._connection.poll(0):
            try:
                self._connection.recv()
            except (EOFError, OSError):
                self.orphaned = True
            self._told = True
        return self._told

    def beat(self, status: Any) -> None:
        """Send a sign of life, at most twice a second; never blocks."""
        now = time.monotonic()
        if now >= self._next_beat:
            self._next_beat = now + _BEAT
            self._send("beat", tuple(status))

    def report(self, message: str) -> None:
        """Send one line for the supervisor's log; never blocks."""
        self._send("report", message)

    def _send(self, kind: str, content: Any) -> None:
        poll = select.poll()
        poll.register(self._connection, select.POLLOUT)
        if poll.poll(0):
            try:
                self._connection.send((kind, content))
            except OSError:
                self.orphaned = True


def main(spec: ChildSpec, config: bytes, connection: Connection, drain_timeout: float) -> None:
    """Run the part that ``spec`` names; the entry point of every child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    link = Link(connection)
    run: dict[str, Callable[..., int]] = {SERVER: _serve, SHIPPER: _ship, WRITER: _write}
    try:
        code = run[spec.kind](configuration.from_bytes(config), spec.name, link, drain_timeout)
    except RedislogkitError as error:
        link.report(str(error))
        code = EXIT_REFUSED
    # Nothing of ours is left to do; the interpreter's own shutdown would only cost time.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _serve(config: configuration.Config, _name: str, link: Link, _drain_timeout: float) -> int:
    from redislogkit.stream import address, embedded

    return embedded.serve(address.server_directory(config), link.fileno(), lambda: link.beat(("",)))


def _ship(config: configuration.Config, _name: str, link: Link, drain_timeout: float) -> int:
    from redislogkit import encoding, launch
    from redislogkit.ship.shipper import Shipper, ShipperSettings
    from redislogkit.spool.doorbell import Doorbell

    _allow_many_files()
    settings = ShipperSettings(
        root=os.path.join(config.stream_dir, "spool"),
        flush_interval=config.producer.flush_interval,
        buffer_size=config.producer.buffer_size,
        max_records=config.stream.max_records,
        writers=tuple(config.writers) if config.producer.ack == "writer" else (),
    )
    bell = Doorbell(launch.doorbell_path(config))
    shipper = Shipper(settings, _connector(config), encoding.encoder(config), bell, link.report)
    shipper.run(
        link.stopping,
        link.beat,
        wake=(link.fileno(),),
        drain_timeout=drain_timeout,
        abandoned=lambda: link.orphaned,
    )
    return 0


def _write(config: configuration.Config, name: str, link: Link, drain_timeout: float) -> int:
    from redislogkit import selection
    from redislogkit.writers.base import Destination, Writer
    from redislogkit.writers.checkpoint import Checkpoint
    from redislogkit.writers.file import FileDestination
    from redislogkit.writers.tty import TtyDestination

    settings = config.writers[name]
    destination: Destination
    lock_timeout = 0.0
    if isinstance(settings, configuration.FileWriterConfig):
        destination = FileDestination(settings, link.report)
        lock_timeout = settings.lock_timeout
    else:
        destination = TtyDestination(settings)
    writer = Writer(
        name,
        _connector(config),
        destination,
        Checkpoint(os.path.join(config.stream_dir, "checkpoints", name)),
        selection.selector(settings.level, settings.loggers),
        link.report,
        lock_timeout=lock_timeout,
    )
    writer.run(link.stopping, link.beat, drain_timeout=drain_timeout, abandoned=lambda: link.orphaned)
    return 0


def _connector(config: configuration.Config) -> Callable[[], Any]:
    from redislogkit.stream import address
    from redislogkit.stream.client import TIMEOUT, StreamClient

    timeout = min(TIMEOUT, config.supervisor.heartbeat_timeout / 4)
    return lambda: StreamClient(address.resolve(config), config.stream.name, timeout=timeout)


def _allow_many_files() -> None:
    """Two or three descriptors for each producer of the host: as many as the system lets us have."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

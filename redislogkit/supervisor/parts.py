"""The parts that need redis: shipper, writers and who serves the figures, as children run them."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from typing import Final

from redislogkit import encoding, identity, launch, locking, selection
from redislogkit.config import Config, CustomWriterConfig, FileWriterConfig, TtyWriterConfig
from redislogkit.ship.shipper import Shipper, ShipperSettings
from redislogkit.spool.doorbell import Doorbell
from redislogkit.stream import address
from redislogkit.stream.client import StreamClient
from redislogkit.supervisor import code
from redislogkit.supervisor.child import EXIT_UNFINISHED, ROTATE, Link, MetricsStatus
from redislogkit.supervisor.reloading import client_timeout
from redislogkit.writers import index
from redislogkit.writers.base import LEASE, Destination, Writer
from redislogkit.writers.checkpoint import Checkpoint
from redislogkit.writers.file import FileDestination
from redislogkit.writers.standard import StandardDestination
from redislogkit.writers.tty import TtyDestination

_PREDECESSOR_TIMEOUT: Final = 5.0


def ship(config: Config, _name: str, link: Link, drain_timeout: float) -> int:
    """Run the shipper; return the exit code."""
    _allow_many_files()
    settings = ShipperSettings.of(config)
    bell = Doorbell(launch.doorbell_path(config))
    shipper = Shipper(settings, _connector(config), encoding.encoder(config), bell, link.report)
    drained = shipper.run(
        link.stopping,
        link.beat,
        wake=(link.fileno(),),
        drain_timeout=drain_timeout,
        abandoned=link.hurried,
    )
    return 0 if drained else EXIT_UNFINISHED


def write(config: Config, name: str, link: Link, drain_timeout: float) -> int:
    """Run the writer ``name``; return the exit code. Raises ``LockHeldError``."""
    settings = config.writers[name]
    checkpoint = config.checkpoint_path(name)
    # Its predecessor, whose supervisor has just been killed, may still be at work on both.
    lock = locking.OwnedLock(f"{checkpoint}.lock", f"the checkpoint of writer {name!r}")
    lock.acquire(_PREDECESSOR_TIMEOUT)
    if settings.filter or isinstance(settings, CustomWriterConfig):
        code.prepare(config)
    destination: Destination
    lock_timeout, lease = 0.0, LEASE
    if isinstance(settings, FileWriterConfig):
        folder = index.folder(config.stream_dir, name)
        destination = FileDestination(settings, link.report, index_folder=folder)
        lock_timeout = settings.lock_timeout
    elif isinstance(settings, CustomWriterConfig):
        lease += settings.timeout
        destination = code.destination(
            config, name, link.report, lambda *done: writer.settle(*done), lambda: writer.stay_alive()
        )
        os.dup2(2, 1)  # what it prints goes where the supervisor's own log does
    elif isinstance(settings, TtyWriterConfig):
        destination = TtyDestination(settings)
    else:
        destination = StandardDestination(settings)
    writer = Writer(
        address.group(config, name),
        _connector(config),
        destination,
        Checkpoint(checkpoint),
        selection.selector(settings.level, settings.loggers),
        link.report,
        lock_timeout=lock_timeout,
        owner=f"{identity.host_name()}:{config.stream_dir}",
        wake=(link.fileno(),),
        lease=lease,
        filter=code.record_filter(config, name, link.report) if settings.filter else None,
    )
    done = writer.run(
        lambda: _is_stopping(link, destination),
        link.beat,
        drain_timeout=drain_timeout,
        abandoned=link.hurried,
        retiring=link.retiring,
    )
    return 0 if done else EXIT_UNFINISHED


def _is_stopping(link: Link, destination: Destination) -> bool:
    """Ask in each round whether the writer is to end; pass on what its file is to do."""
    stopping = link.stopping()
    for errand in link.errands():
        if isinstance(destination, FileDestination):
            destination.rotate_soon() if errand == ROTATE else destination.reopen_soon()
    return stopping


def serve_metrics(config: Config, _name: str, link: Link, _drain_timeout: float) -> int:
    """Serve the figures; return the exit code. Raises ``ConfigError`` where that can not be done."""
    from redislogkit.metrics import server as metrics  # http.server, which nobody else needs

    assert config.metrics.listen is not None
    server = metrics.Server(config.metrics.listen, metrics.collector(config))
    link.report(f"figures are at {server.url}")
    server.run(link.stopping, lambda: link.beat(MetricsStatus()), link.fileno())
    return 0


def _connector(config: Config) -> Callable[[], StreamClient]:
    timeout = client_timeout(config)
    return lambda: StreamClient(address.resolve(config), config.stream.name, timeout=timeout)


def _allow_many_files() -> None:
    """Two or three descriptors for each producer of the host: as many as the system lets us have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

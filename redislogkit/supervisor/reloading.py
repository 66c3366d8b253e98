"""What becomes of the children when the configuration is another one. Pure.

A child is started anew when, and only when, something that it goes by is different. A few settings say what the
supervisor itself is, and stay as they are for as long as it lives.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec.structs import replace

from redislogkit.config import Config
from redislogkit.stream import address
from redislogkit.stream.client import TIMEOUT
from redislogkit.supervisor import child
from redislogkit.supervisor.child import ChildSpec


class Changes(NamedTuple):
    """From one configuration to another."""

    config: Config
    """What is in force from now on."""
    kept: tuple[str, ...]
    """Settings that are different and can not be changed while the supervisor runs; they stay as they were."""
    added: tuple[str, ...]
    """Names of writers."""
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    regrouped: tuple[str, ...]
    """Those of the changed ones that read the stream under another name now."""
    shipper: bool
    """The shipper goes by other settings."""
    metrics: bool
    """The figures are served elsewhere, or no longer, or for the first time."""
    moved: bool
    """The stream is reached by another url."""

    def lines(self) -> list[str]:
        """Say it, a line for each change."""
        said = [
            f"{name} can not be changed while the supervisor runs; restart it for that" for name in self.kept
        ]
        said += [f"writer {name}: added" for name in self.added]
        said += [f"writer {name}: removed" for name in self.removed]
        said += [f"writer {name}: started anew" for name in self.changed]
        said += ["shipper: started anew"] if self.shipper else []
        listen = self.config.metrics.listen
        said += (
            [f"metrics: served at {listen}" if listen else "metrics: no longer served"]
            if self.metrics
            else []
        )
        return said


def compare(old: Config, new: Config) -> Changes:
    """Return what has to be done for ``new`` to be in force instead of ``old``."""
    config, kept = _possible(old, new)
    both = [name for name in config.writers if name in old.writers]
    return Changes(
        config,
        kept,
        added=tuple(name for name in config.writers if name not in old.writers),
        removed=tuple(name for name in old.writers if name not in config.writers),
        changed=tuple(n for n in both if _goes_by(old, child.writer(n)) != _goes_by(config, child.writer(n))),
        regrouped=tuple(n for n in both if address.group(old, n) != address.group(config, n)),
        shipper=_goes_by(old, child.THE_SHIPPER) != _goes_by(config, child.THE_SHIPPER),
        metrics=_goes_by(old, child.THE_METRICS) != _goes_by(config, child.THE_METRICS),
        moved=old.redis != config.redis,
    )


def _possible(old: Config, new: Config) -> tuple[Config, tuple[str, ...]]:
    """Return ``new`` with what can not be changed as it is in ``old``, and the names of those settings."""
    kept = []
    if new.state_dir != old.state_dir:
        kept.append("state_dir")
        new = replace(new, state_dir=old.state_dir)
    if new.stream.name != old.stream.name:
        kept.append("stream.name")
        new = replace(new, stream=replace(new.stream, name=old.stream.name))
    if new.redis != old.redis and (address.is_embedded(new) or address.is_embedded(old)):
        kept.append("redis.url")
        new = replace(new, redis=old.redis)
    return new, tuple(kept)


def client_timeout(config: Config) -> float:
    """Return how long a command of a child may take, in seconds: a server that stalls must not look like a child that hangs."""
    return min(TIMEOUT, config.supervisor.heartbeat_timeout / 4)


def _goes_by(config: Config, spec: ChildSpec) -> tuple[Any, ...]:
    """Return what a child of ``config`` goes by."""
    patience = client_timeout(config)
    if spec.kind == child.WRITER:
        return (config.redis, patience, config.writers[spec.name])
    if spec.kind == child.METRICS:
        return (config.redis, config.metrics) if config.metrics.listen else ()
    producer = config.producer
    return (
        config.redis,
        patience,
        config.stream,
        address.groups(config),
        (producer.flush_interval, producer.buffer_size, producer.ack),
    )

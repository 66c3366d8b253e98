"""Where the server of a configuration is."""

from __future__ import annotations

import os

from redislogkit import identity
from redislogkit.config import Config, TtyWriterConfig
from redislogkit.stream import embedded

EMBEDDED = "embedded://"


def is_embedded(config: Config) -> bool:
    """True where the supervisor runs a server of its own."""
    return config.redis.url.startswith("embedded:")


def server_directory(config: Config) -> str:
    """Folder of the embedded server's data."""
    return os.path.join(config.stream_dir, "server")


def resolve(config: Config) -> str:
    """Return a url that a client can connect to. Raises ``EmbeddedServerError``."""
    return embedded.url(server_directory(config)) if is_embedded(config) else config.redis.url


def group(config: Config, writer: str) -> str:
    """Name under which ``writer`` reads the stream, and holds its lease.

    A file is written by one host at a time, terminals by each host for its own.
    """
    if isinstance(config.writers[writer], TtyWriterConfig):
        return f"{writer}@{identity.host_name()}"
    return writer


def groups(config: Config) -> tuple[str, ...]:
    """The groups of all writers, as they are on this host."""
    return tuple(group(config, writer) for writer in config.writers)

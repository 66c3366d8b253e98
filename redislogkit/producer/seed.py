"""``AsyncBufferedRedisHandler``: the drop-in with the constructor that programs around it know.

The arguments become a configuration; everything else is the ordinary path. With a terminal writer or a file
a supervisor is started that runs them; without either a thread of this process ships, and nobody here reads.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

from redislogkit.producer.handler import SpoolHandler

STATE_DIR = "~/.local/state/redislogkit/handlers"
MIB = 1024 * 1024


class AsyncBufferedRedisHandler(SpoolHandler):
    """Sends records into a redis stream, and from there to the terminal and into a rotated file.

    With a formatter set on it, the text is made in the calling process and written as it is.

    Args:
        redis_host: Host of the server.
        redis_port: Its port.
        redis_db: Number of the database.
        stream_name: Name of the stream; by default one that all processes with the same arguments share.
            Hosts that share a server need a name each.
        buffer_size: Records that end the wait for company.
        flush_interval: Seconds that a record may wait for company.
        start_tty_writer: Write to the terminal of the process that logs.
        filename: File to write to, rotated by size; its folder must exist.
        max_bytes: Size at which the file is rotated; 0 is never.
        backup_count: Backups to keep.
        lock_timeout: Seconds that the file's writer waits for another one to let go of the file.
        retry_attempts: With ``retry_delay``: how long the exit of the process may wait for a server that is
            away. What has not been delivered by then waits in the spool, it is not lost.
        retry_delay: Seconds; see ``retry_attempts``.

    Raises:
        ConfigError: An argument is wrong.
        LockHeldError: Living processes use the same stream and file with other arguments for the rotation.
        FileNotFoundError, IsADirectoryError: ``filename`` can not be a file.
    """

    def __init__(
        self,
        redis_host: str = "localhost",
        redis_port: int = 6379,
        redis_db: int = 0,
        stream_name: str | None = None,
        buffer_size: int = 1,
        flush_interval: float = 0.01,
        start_tty_writer: bool = True,
        filename: str | os.PathLike[str] | None = None,
        max_bytes: int = 10 * MIB,
        backup_count: int = 5,
        lock_timeout: float = 10,
        retry_attempts: int = 5,
        retry_delay: float = 1,
    ) -> None:
        writers: dict[str, Any] = {}
        if start_tty_writer:
            writers["tty"] = {"type": "tty", "formatter": "plain"}
        path = None
        if filename is not None:
            section = file_writer(filename, max_bytes, backup_count, lock_timeout)
            path = section["path"]
            # Named after the file: two files of one stream are two readers of it.
            writers[f"file-{digest(path)}"] = section
        place = (redis_host, redis_port, redis_db, path, start_tty_writer)
        mapping = {
            "state_dir": state_dir(*place),
            "redis": {"url": url(redis_host, redis_port, redis_db)},
            "stream": {"name": stream_name or f"{type(self).__name__}-{digest(*place)}", "layout": "records"},
            "producer": {
                "buffer_size": buffer_size,
                "flush_interval": flush_interval,
                "shutdown_timeout": retry_attempts * retry_delay,
                "ship": "supervisor" if writers else "thread",
            },
            "formatters": {"plain": {"format": "%(message)s"}},
            "writers": writers,
        }
        super().__init__(mapping)
        self.redis_host = redis_host
        self.redis_port = redis_port
        self.redis_db = redis_db
        self.stream_name = self.config.stream.name
        self.filename = path


def file_writer(
    filename: str | os.PathLike[str], max_bytes: int, backup_count: int, lock_timeout: float
) -> dict[str, Any]:
    """Return the configuration of a file writer with these arguments. Raises ``OSError`` for a bad path."""
    path = os.path.abspath(filename)
    if os.path.isdir(path):
        raise IsADirectoryError(f"filename must be a file, {path} is a folder")
    if not os.path.isdir(os.path.dirname(path)):
        raise FileNotFoundError(f"the folder of filename must exist: {os.path.dirname(path)}")
    rotation = {"max_bytes": max_bytes, "backup_count": backup_count} if max_bytes and backup_count else {}
    return {"type": "file", "path": path, "formatter": "plain", "lock_timeout": lock_timeout, **rotation}


def url(host: str, port: int, db: int) -> str:
    """Return the url of the server."""
    name = f"[{host}]" if ":" in host else host
    return f"redis://{name}:{port}/{db}"


def digest(*place: object) -> str:
    """Return a short name for what these arguments describe, the same in every process."""
    return hashlib.sha256(repr(place).encode("utf-8", "backslashreplace")).hexdigest()[:12]


def state_dir(*place: object) -> str:
    """Return a folder of its own for each such place, so that two of them never share a supervisor."""
    return os.path.join(os.path.expanduser(STATE_DIR), digest(*place))

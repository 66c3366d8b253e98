"""A server on a TCP port of the loopback, for programs that take host and port."""

from __future__ import annotations

import socket
import subprocess

import redis

from redislogkit.stream.embedded import find_server
from tests.helpers.server import client
from tests.helpers.waiting import wait_until


def free_port() -> int:
    """Return a port of the loopback that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class TcpServer:
    """An empty server that keeps nothing on disk; ``extra`` options have ``_`` for each ``-``."""

    def __init__(self, folder: str, **extra: str) -> None:
        self.port = free_port()
        password = f":{extra['requirepass']}@" if "requirepass" in extra else ""
        self.url = f"redis://{password}127.0.0.1:{self.port}/0"
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", "dir": folder, "appendonly": "no"}
        options |= {name.replace("_", "-"): value for name, value in extra.items()}
        command = [find_server()] + [
            text for name, value in options.items() for text in (f"--{name}", str(value))
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.connection = client(self.url)
        wait_until(self._answers, what="the server answers")

    def _answers(self) -> bool:
        try:
            return bool(self.connection.ping())
        except redis.RedisError:
            return False

    def stop(self) -> None:
        """End it at once."""
        self.connection.close()
        self.process.kill()
        self.process.wait()

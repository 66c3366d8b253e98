"""A server of a test's own, which it may kill, stop and empty."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from redislogkit.stream import embedded
from tests.helpers.waiting import wait_until


def client(url: str) -> redis.Redis:
    """A client without retries, for looking at what the product has done."""
    return redis.Redis.from_url(url, socket_timeout=20, retry=Retry(NoBackoff(), 0))


class Server:
    """The embedded server, below ``directory``."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return embedded.url(self.directory)

    @property
    def pid(self) -> int:
        """The pid of the running server."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> Server:
        """Start (again) with the data that is there, and wait until it answers."""
        self.process = embedded.start(self.directory)
        embedded.wait_ready(self.directory, self.process, timeout=30)
        return self

    def stop(self) -> None:
        """Shut it down in good order, also when it is paused."""
        if self.process is not None:
            self.resume()
            embedded.stop(self.process)

    def settle(self) -> None:
        """Wait until all that was acknowledged is in the append-only file.

        While an fsync takes long, the server (``everysec``) answers before it writes.
        """
        wait_until(lambda: self._unwritten() == 0, what="the server has written its append-only file")

    def _unwritten(self) -> int:
        with client(self.url) as connection:
            return int(connection.info("persistence")["aof_buffer_length"])

    def kill(self) -> None:
        """SIGKILL. What it had not written yet is lost (`settle`)."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """SIGSTOP: connections stay, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """End a pause."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        """Remove all data, as FLUSHALL does."""
        self.command("FLUSHALL")

    def command(self, *args: Any) -> Any:
        """Run one command on a connection of its own."""
        with client(self.url) as connection:
            return connection.execute_command(*args)

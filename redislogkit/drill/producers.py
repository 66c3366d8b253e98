"""The processes that log while a drill goes on.

Each is a program of its own with the drill's configuration and one handler on the logger `LOGGER`. It logs until its
stdin ends, which also the end of the drill does, whatever that is; so nobody logs on without it. How many calls
have returned it counts in a file, not in its output: that count is right however it is killed.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import select
import subprocess
import sys
import time
from typing import Final

from redislogkit import config as configuration
from redislogkit.config import Config
from redislogkit.drill.records import message
from redislogkit.producer.handler import SpoolHandler

LOGGER: Final = "redislogkit.drill"
_CODE: Final = (
    "import sys; sys.argv[1] in sys.path or sys.path.append(sys.argv[1]); "
    "from redislogkit.drill.producers import main; main(sys.argv[2:])"
)
_COUNT_SIZE: Final = 8


class Producer:
    """One of those processes.

    Args:
        config: What it logs with.
        folder: Where it counts.
        run: Name of the drill.
        number: Its own; no two of a drill have the same.
        level: Of its records.
        rate: Records a second.
    """

    def __init__(self, config: Config, folder: str, run: str, number: int, level: int, rate: float) -> None:
        self.number = number
        self._path = os.path.join(folder, f"count-{number}")
        with open(self._path, "wb") as file:
            file.truncate(_COUNT_SIZE)
        package_parent = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _CODE,
                package_parent,
                self._path,
                run,
                str(number),
                str(level),
                str(rate),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the drill, which then stops it
        )
        content = configuration.to_bytes(config)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(len(content).to_bytes(_COUNT_SIZE, "little") + content)
            self._process.stdin.flush()

    @property
    def pid(self) -> int:
        """Its pid; 0 when it has ended."""
        return 0 if self._process.poll() is not None else self._process.pid

    @property
    def logged(self) -> int:
        """Calls that have returned."""
        with open(self._path, "rb") as file:
            return int.from_bytes(file.read(), "little")

    def identity(self) -> str:
        """Wait until it is ready; its producer's name, which its spool has; empty where it could not begin."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().strip()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Have it log no more and end; does not wait."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def end(self, timeout: float) -> None:
        """Wait for its end, at most so many seconds; SIGKILL after that."""
        self.stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()


def main(arguments: list[str]) -> None:
    """Log until stdin ends: the program."""
    path, run, number, level, rate = arguments
    size = int.from_bytes(_read(_COUNT_SIZE), "little")
    config = configuration.from_bytes(_read(size))
    handler = SpoolHandler(config)
    logger = logging.getLogger(LOGGER)
    logger.setLevel(1)
    logger.propagate = False
    logger.addHandler(handler)
    print(handler.stats()["producer"], flush=True)  # noqa: T201 - it is what the drill waits for
    with open(path, "r+b") as file:
        count = memoryview(mmap.mmap(file.fileno(), _COUNT_SIZE)).cast("Q")
    _log(logger, count, run, int(number), int(level), 1 / float(rate))


def _log(
    logger: logging.Logger, count: memoryview[int], run: str, number: int, level: int, pause: float
) -> None:
    due = time.monotonic()
    while not select.select([0], [], [], max(due - time.monotonic(), 0.0))[0]:
        n = count[0]
        logger.log(level, "%s", message(run, number, n))
        count[0] = n + 1
        due = max(due + pause, time.monotonic() - 1.0)  # stopped for long, it does not catch up at full speed


def _read(size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = os.read(0, size - len(data))
        if not piece:
            sys.exit(1)
        data += piece
    return data

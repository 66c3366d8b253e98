"""Others that use a stream: redis-logs with a bare reader, and a program as this package's ancestor was.

The server is the same binary with the same settings as the embedded one of redislogkit, on a unix socket, too.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import queue
import re
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Final

import redis

from redislogkit.stream import embedded
from stress import processes
from stress.bench.contenders.base import Producer, use
from stress.bench.contenders.stdlib import OneFile

_STREAM: Final = "logs"
_READ_COUNT: Final = 1000
_BLOCK_MS: Final = 100
_FIELD: Final = re.compile(r"%\((\w+)\)")

#: Fields of an entry → the line.
Render = Callable[[dict[bytes, bytes]], str]


class Stream(OneFile):
    """A server, and one process that reads the stream and writes a rotated file."""

    def render(self) -> Render:
        """Return what makes the line of an entry."""
        raise NotImplementedError

    def open(self) -> None:
        """Start the server and the process that reads."""
        directory = os.path.join(self.folder, "server")
        self._server = embedded.start(directory)
        embedded.wait_ready(directory, self._server)
        self._socket = embedded.socket_path(directory)
        context = multiprocessing.get_context("fork")
        self._stop, self._done, self._gone = context.Event(), context.Event(), context.Event()
        self._reader = context.Process(target=self._read, daemon=True)
        self._reader.start()

    def client(self) -> redis.Redis:
        """Return a new connection."""
        return redis.Redis(unix_socket_path=self._socket)

    def _read(self) -> None:
        execute: Callable[..., Any] = self.client().execute_command
        render, file, last = self.render(), _RotatedFile(self.path, self.shape.max_bytes), b"0"
        while True:
            stopping = self._stop.is_set()
            command = ("XREAD", "COUNT", _READ_COUNT, "BLOCK", _BLOCK_MS, "STREAMS", _STREAM, last)
            answer = execute(*command)
            if answer:
                entries = _entries(answer)
                file.write("".join([render(fields) + "\n" for _, fields in entries]))
                last = entries[-1][0]
            elif stopping:
                break
        self._done.set()
        self._gone.wait()  # until nobody reads its CPU any more

    def settle(self) -> None:
        """Wait until the reader has come to the end of the stream."""
        self._stop.set()
        if not self._done.wait(self.shape.deadline):
            raise TimeoutError("the reader has not come to the end of the stream")

    def helpers(self) -> list[int]:
        """The server and the reader."""
        return [*processes.family(self._server.pid), self._reader.pid or 0]

    def close(self) -> None:
        """End both."""
        self._reader.kill()
        self._reader.join()
        embedded.stop(self._server)


def _entries(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Entries of an answer to XREAD of one stream, in either version of the protocol."""
    if isinstance(answer, dict):
        ((found,),) = answer.values()
        return list(found)
    ((_, found),) = answer
    return list(found)


class _RotatedFile:
    """A file that is rotated before it grows beyond ``limit`` bytes; backups are numbered from the newest on."""

    def __init__(self, path: str, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._backups = 0
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - for as long as the process lives

    def write(self, lines: str) -> None:
        """Append whole lines."""
        data = lines.encode()
        if self._file.tell() + len(data) > self._limit and self._file.tell():
            self._rotate()
        self._file.write(data)

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._backups, 0, -1):
            os.rename(f"{self._path}.{number}", f"{self._path}.{number + 1}")
        os.rename(self._path, f"{self._path}.1")
        self._backups += 1
        self._file = open(self._path, "wb", buffering=0)  # noqa: SIM115


class RedisLogs(Stream):
    """``RedisStreamLogHandler`` of the package redis-logs: each record an entry with the fields of the format."""

    batch_size: ClassVar[int] = 1

    def attach(self, index: int) -> Producer:
        """Connect."""
        module = importlib.import_module("rlh")
        handler: logging.Handler = module.RedisStreamLogHandler(
            redis_client=self.client(),
            batch_size=self.batch_size,
            stream_name=_STREAM,
            fields=[_SOURCES.get(name, name) for name in _names(self.shape.format)],
        )
        return use(handler, handler.close)

    def render(self) -> Render:
        """Put the fields into the format."""
        return partial(_from_fields, _as_texts(self.shape.format), _names(self.shape.format))


class RedisLogsInBatches(RedisLogs):
    """The same with a pipeline of a hundred records at a time."""

    batch_size: ClassVar[int] = 100


#: What the handler is asked for where the format has another name.
_SOURCES: Final = {"asctime": "created", "message": "msg"}


def _names(fmt: str) -> list[str]:
    return list(dict.fromkeys(_FIELD.findall(fmt)))


def _as_texts(fmt: str) -> str:
    """Everything in an entry is text by now."""
    return re.sub(r"(%\(\w+\)[-0-9]*)(?:\.\d+)?[a-z]", r"\1s", fmt)


def _from_fields(fmt: str, names: list[str], fields: dict[bytes, bytes]) -> str:
    values = {name: fields[_SOURCES.get(name, name).encode()].decode() for name in names}
    if "asctime" in values:
        values["asctime"] = _asctime(float(values["asctime"]))
    return fmt % values


def _asctime(created: float) -> str:
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(created))},{int(created % 1 * 1000):03d}"


class OneEntryEach(Stream):
    """A thread behind a queue in each process, which adds one entry for each record, with all its fields."""

    def attach(self, index: int) -> Producer:
        """Start the thread."""
        handler = _QueueThread(self.client())
        handler.setFormatter(logging.Formatter(self.shape.format))
        return use(handler, handler.finish)

    def render(self) -> Render:
        """The producer has made the line."""
        return lambda fields: fields[b"formatted_message"].decode()


class _QueueThread(logging.Handler):
    """Puts records into a queue, from which a thread adds them to the stream one by one."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__()
        self._client = client
        self._queue: queue.Queue[dict[str, str] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._ship, daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Format in the caller."""
        fields = {"formatted_message": self.format(record), "level": record.levelname}
        fields |= {name: str(getattr(record, name, "")) for name in _FIELDS}
        self._queue.put(fields)

    def _ship(self) -> None:
        execute: Callable[..., Any] = self._client.execute_command
        while (fields := self._queue.get()) is not None:
            execute("XADD", _STREAM, "*", *[word for pair in fields.items() for word in pair])

    def finish(self) -> None:
        """Wait until the stream has everything."""
        self._queue.put(None)
        self._thread.join()


_FIELDS: Final = (
    "levelno name pathname filename module lineno funcName created asctime msecs thread threadName process "
    "processName message exc_info"
).split()

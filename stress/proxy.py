"""A TCP proxy that does to a connection what networks do: cut it, stall it, delay or lose its replies.

It runs in a thread of its own; every method may be called from any thread and returns at once. TCP loses no
bytes in the middle of a connection, so a connection that has lost one reply answers no more (`deafen`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable
from typing import Final

_CHUNK: Final = 64 * 1024
_TICK: Final = 0.01


class _Connection:
    """One client's connection and its way to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.deaf = False
        self.break_reply = False
        self.break_request = False

    def cut(self) -> None:
        """Reset both sides, whatever is on its way."""
        for side in (self.client, self.server):
            with contextlib.suppress(Exception):
                side.transport.abort()


class Proxy:
    """Listens on a free port of 127.0.0.1 and passes on to ``target_port``. Times are in seconds."""

    def __init__(self, target_port: int) -> None:
        self._target = target_port
        self._loop = asyncio.new_event_loop()
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._down_until = self._stalled_until = self._slow_until = 0.0
        self._delay = 0.0
        self.port = 0
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="proxy", daemon=True)
        self._thread.start()
        ready.wait()

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._connections)

    # -- faults ---------------------------------------------------------------------------------

    def cut(self, share: float = 1.0) -> None:
        """Reset open connections: each with the probability ``share``."""
        self._each(_Connection.cut, share)

    def down(self, seconds: float) -> None:
        """Reset all connections, and every new one for a while."""
        self._down_until = time.monotonic() + seconds
        self.cut()

    def stall(self, seconds: float) -> None:
        """Pass on nothing for a while, in either direction."""
        self._stalled_until = time.monotonic() + seconds

    def slow(self, seconds: float, delay: float) -> None:
        """Hold back each reply for ``delay``, for a while."""
        self._delay, self._slow_until = delay, time.monotonic() + seconds

    def deafen(self, share: float = 1.0) -> None:
        """Let open connections pass requests on, but no reply ever again."""
        self._each(lambda connection: setattr(connection, "deaf", True), share)

    def break_replies(self, share: float = 1.0) -> None:
        """Reset open connections in the middle of their next reply."""
        self._each(lambda connection: setattr(connection, "break_reply", True), share)

    def break_requests(self, share: float = 1.0) -> None:
        """Reset open connections in the middle of their next request."""
        self._each(lambda connection: setattr(connection, "break_request", True), share)

    def heal(self) -> None:
        """End what lasts."""
        self._down_until = self._stalled_until = self._slow_until = 0.0

    def close(self) -> None:
        """Reset everything and stop."""
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _each(self, act: Callable[[_Connection], None], share: float) -> None:
        def apply() -> None:
            for connection in list(self._connections):
                if random.random() < share:
                    act(connection)

        self._loop.call_soon_threadsafe(apply)

    # -- the thread -----------------------------------------------------------------------------

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        listener = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = listener.sockets[0].getsockname()[1]
        ready.set()
        try:
            self._loop.run_forever()
        finally:
            listener.close()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
            self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if time.monotonic() < self._down_until:
            client.transport.abort()
            return
        try:
            upstream, server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            client.transport.abort()
            return
        connection = _Connection(client, server)
        self._connections.add(connection)
        try:
            await asyncio.gather(self._requests(connection, reader), self._replies(connection, upstream))
        finally:
            self._connections.discard(connection)
            connection.cut()

    async def _requests(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._wait_for_road()
                if connection.break_request:
                    connection.server.write(data[: len(data) // 2])
                    await connection.server.drain()
                    break
                connection.server.write(data)
                await connection.server.drain()
        await _end(connection.server)
        connection.cut()

    async def _replies(self, connection: _Connection, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                if time.monotonic() < self._slow_until:
                    await asyncio.sleep(self._delay)
                await self._wait_for_road()
                if connection.deaf:
                    continue
                if connection.break_reply:
                    connection.client.write(data[: len(data) // 2])
                    await connection.client.drain()
                    break
                connection.client.write(data)
                await connection.client.drain()
        await _end(connection.client)
        connection.cut()

    async def _wait_for_road(self) -> None:
        while time.monotonic() < self._stalled_until:  # noqa: ASYNC110 - the end may be moved by another thread
            await asyncio.sleep(_TICK)


async def _end(side: asyncio.StreamWriter) -> None:
    """Let what was written arrive before the connection is reset."""
    with contextlib.suppress(OSError, RuntimeError):
        side.close()
        await side.wait_closed()

"""The application of the page behind a real server, with records that a test gives it."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn

from redislogkit import record
from redislogkit.errors import RedislogkitError
from redislogkit.record import Facts
from redislogkit.view.seen import Seen
from redislogkit.web import app
from redislogkit.web.feed import Feed
from redislogkit.web.state import as_json
from tests.helpers import status
from tests.helpers.waiting import wait_until

_LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


def facts(pid: int = 4711, host: str = "web1") -> Facts:
    """Return a producer."""
    return Facts(f"p{pid}", host, pid, "MainProcess", 0.0, 0)


def seen(
    number: int, message: str, level: int = 20, logger: str = "shop", *, pid: int = 4711, **rich: Any
) -> Seen:
    """Return a record; ``created``, ``extra`` and ``exc_text`` as those of a record."""
    created = rich.pop("created", time.time())
    made = record.build(
        created,
        level,
        _LEVELS[level],
        logger,
        message,
        "/srv/shop/cart.py",
        42,
        "checkout",
        1,
        "MainThread",
        **rich,
    )
    return Seen(made, facts(pid), number, f"{number}-0")


class FakeSource:
    """What a stream gives: ``old`` records, then what is put in."""

    def __init__(self, old: list[Seen]) -> None:
        self.old = old
        self.coming: queue.Queue[list[Seen]] = queue.Queue()

    def start_with_last(self, count: int) -> list[Seen]:
        return self.old[-count:]

    def read(self, block: float) -> list[Seen]:
        try:
            return self.coming.get(timeout=min(block, 0.2))
        except queue.Empty:
            return []

    def wait_after(self, error: RedislogkitError, block: float) -> None:
        raise error

    def close(self) -> None:
        pass


class ServedPage:
    """The page at ``address``, until `close`."""

    def __init__(
        self,
        old: list[Seen] | None = None,
        *,
        keep: int = 200_000,
        token: str = "",
        state: Callable[[], dict[str, Any]] | None = None,
        archives: Any = None,
    ) -> None:
        self.source = FakeSource(old or [])
        self.feed = Feed(self._source, keep)
        self._number = len(self.source.old)
        about = {"stream": "app", "host": "web1", "version": "0.1.0"}
        made = app.application(
            self.feed,
            state or busy_state,
            about,
            archives,
            token=token,
            closing=lambda: self._server.should_exit,
        )
        self._server = uvicorn.Server(
            uvicorn.Config(made, log_level="warning", access_log=False, lifespan="on")
        )
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})
        self._thread.start()
        wait_until(lambda: self._server.started, what="the page is served")

    def _source(self, report: Callable[[str], None]) -> FakeSource:
        self.report = report
        return self.source

    def log(self, message: str, level: int = 20, logger: str = "shop", **rich: Any) -> None:
        """Have a record come."""
        self._number += 1
        self.source.coming.put([seen(self._number, message, level, logger, **rich)])

    def close(self) -> None:
        """End it."""
        self._server.should_exit = True
        self.report("the page is closed")  # which wakes whoever waits
        self._thread.join(10)
        self._listener.close()
        assert not self._thread.is_alive()


def busy_state() -> dict[str, Any]:
    """Return what supervisor and stream say of themselves on a busy day, as `redislogkit.web.state` has it."""
    return {
        "supervisor": status.status(),
        "supervisor_error": "",
        "stream": as_json(status.stream()),
        "stream_error": "",
    }

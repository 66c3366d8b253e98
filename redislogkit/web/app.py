"""The application behind the page: files, history, and one stream of events for each page that is open."""

from __future__ import annotations

import asyncio
import importlib.resources
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from redislogkit.errors import ConfigError, RedislogkitError
from redislogkit.record import LATEST
from redislogkit.view.filter import Filter
from redislogkit.web.archives import Archives
from redislogkit.web.feed import Feed
from redislogkit.web.guard import Guard

#: Rows in one event; a page that is more than this many behind gets the newest only.
MOST_ROWS: Final = 2_000
PATIENCE: Final = 20_000
MOST_HISTORY: Final = 20_000
#: Seconds between two events with rows, and between two looks at the state.
_PACE: Final = 0.1
#: Seconds after which a stream of events looks whether the server wants to end.
_IDLE: Final = 1.0
STATE_PAUSE: Final = 2.0
_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.css": ("app.css", "text/css; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_NUMBER: Final = re.compile(r"-?[0-9]{1,17}")
_PRIVATE: Final = {"cache-control": "no-store"}

State = Callable[[], dict[str, Any]]


class Looker:
    """Asks for the state of supervisor and stream while somebody looks, once for all of them."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._asked = 0.0
        self._lock = asyncio.Lock()
        self.newest: dict[str, Any] = {}

    async def look(self) -> dict[str, Any]:
        """Return the state, at most `STATE_PAUSE` seconds old."""
        async with self._lock:
            if time.monotonic() - self._asked >= STATE_PAUSE or not self.newest:
                self.newest = await asyncio.to_thread(self._state)
                self._asked = time.monotonic()
        return self.newest


def application(
    feed: Feed,
    state: State,
    about: dict[str, Any],
    archives: Archives | None = None,
    *,
    hosts: Iterable[str] = (),
    token: str = "",
    closing: Callable[[], bool] = lambda: False,
) -> Starlette:
    """Return the ASGI application.

    Args:
        feed: The records; followed while the application runs.
        state: Asks supervisor and stream; called in a thread.
        about: What the page says of itself: ``stream``, ``version``, ``host``.
        archives: The log files of this host, to be searched; None: there are none.
        hosts: Names by which it may be called, beside addresses.
        token: What a browser has to show; empty: nothing.
        closing: True once the server wants to end: then streams of events end, too.
    """
    looker = Looker(state)
    writers = archives.writers if archives is not None else []
    about = {**about, "files": writers}
    searching = asyncio.Lock()

    async def file(request: Request) -> Response:
        name, kind = _FILES[request.url.path]
        content = importlib.resources.files(__package__).joinpath("static").joinpath(name).read_bytes()
        return Response(content, media_type=kind, headers={"cache-control": "no-cache"})

    async def history(request: Request) -> Response:
        asked = request.query_params
        try:
            wanted = _filter(asked)
            before, most = _number(asked, "before", 2**53), max(_number(asked, "limit", 1_000), 1)
        except ConfigError as error:
            return _json({"error": str(error)}, 400)
        rows, more = await asyncio.to_thread(feed.before, before, wanted, min(most, MOST_HISTORY))
        return _json({"feed": feed.name, "rows": rows, "more": more})

    async def files(request: Request) -> Response:
        asked = request.query_params
        name = asked.get("writer", "")
        try:
            if archives is None or name not in writers:
                raise ConfigError([f"writer must be one of {', '.join(writers) or 'none'}, got {name!r}"])
            wanted, number, before = _filter(asked), _number(asked, "before", 0), _moment(asked, "time")
            async with searching:  # it may read a lot; one at a time
                found = await asyncio.to_thread(archives.search, name, wanted, number, before)
        except (RedislogkitError, OSError) as error:
            return _json({"error": str(error)}, 400)
        return _json({"feed": feed.name, **found._asdict()})

    async def events(request: Request) -> Response:
        last = _resumed(request, feed)
        return StreamingResponse(
            _events(feed, looker, about, last, closing),
            media_type="text/event-stream",
            headers={**_PRIVATE, "x-accel-buffering": "no"},
        )

    async def now(_: Request) -> Response:
        return _json(await looker.look())

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        feed.start()
        yield
        await asyncio.to_thread(feed.close)

    routes = [
        *(Route(path, file) for path in _FILES),
        Route("/api/events", events),
        Route("/api/history", history),
        Route("/api/files", files),
        Route("/api/state", now),
    ]
    guard = Middleware(Guard, hosts=tuple(hosts), token=token)
    return Starlette(routes=routes, middleware=[guard], lifespan=lifespan)


def _resumed(request: Request, feed: Feed) -> int:
    """Return the number behind which the page wants to go on: its last event, else the newest few."""
    name, _, number = request.headers.get("last-event-id", "").partition(":")
    if name == feed.name and number.isdecimal():
        return int(number)
    return max(feed.last - MOST_ROWS, 0)


async def _events(
    feed: Feed, looker: Looker, about: dict[str, Any], last: int, closing: Callable[[], bool]
) -> AsyncIterator[bytes]:
    loop, news = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop has just been closed
            loop.call_soon_threadsafe(news.set)

    unwatch = feed.watch(wake)
    told, next_state, since = 0.0, 0.0, 0
    try:
        yield _event("hello", {"feed": feed.name, "now": time.time(), **about})
        while not closing():
            news.clear()
            batch = feed.behind(last, MOST_ROWS, PATIENCE)
            last = batch.last
            if batch.rows or batch.skipped:
                yield _event("rows", {"rows": batch.rows, "skipped": batch.skipped}, f"{feed.name}:{last}")
            for moment, line in tuple(feed.reports):
                if moment > told:
                    told = moment
                    yield _event("report", {"at": moment, "text": line})
            if time.monotonic() >= next_state:
                next_state = time.monotonic() + STATE_PAUSE
                yield _event("state", {**await looker.look(), "now": time.time(), "failure": feed.failure})
                yield _event("producers", feed.producers())
                seconds, since = feed.seconds(since), int(time.time()) - 2
                yield _event("seconds", {"now": time.time(), "seconds": seconds})
            if feed.last == last:
                await _wait(news, max(next_state - time.monotonic(), 0.0))
            await asyncio.sleep(_PACE)
    finally:
        unwatch()


async def _wait(news: asyncio.Event, seconds: float) -> None:
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(news.wait(), min(seconds, _IDLE))


def _filter(asked: Any) -> Filter:
    return Filter.of(
        now=time.time(),
        level=asked.get("level") or None,
        loggers=tuple(name for name in asked.get("logger", "").replace(",", " ").split() if name),
        grep=asked.get("grep") or None,
        ignore_case=asked.get("ignore_case") == "1",
        fields=tuple(asked.getlist("field")),
    )


def _number(asked: Any, name: str, default: int) -> int:
    text = asked.get(name) or str(default)
    if not _NUMBER.fullmatch(text):
        raise ConfigError([f"{name} must be a whole number, got {text!r}"])
    return int(text)


def _moment(asked: Any, name: str) -> float:
    text = asked.get(name, "")
    try:
        moment = float(text)
    except ValueError:
        moment = math.nan
    if not 0 <= moment < LATEST:
        raise ConfigError([f"{name} must be seconds since the epoch, got {text!r}"])
    return moment


def _json(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json", headers=_PRIVATE)


def _event(kind: str, content: Any, number: str = "") -> bytes:
    head = f"event: {kind}\n" + (f"id: {number}\n" if number else "")
    return head.encode() + b"data: " + msgspec.json.encode(content) + b"\n\n"

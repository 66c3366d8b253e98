"""The child that serves the figures: ``GET /metrics``, for Prometheus.

Theory of operation. One loop waits for connections and for the supervisor, and beats; it never asks anybody anything.
Each request is answered by a thread of its own, which asks the supervisor and redis for what they know *now*, so that
nothing is done between two scrapes. There are only so many threads, and each has a deadline, so a client that sends
nothing, or reads nothing, holds up nobody but itself.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import HTTPServer
from typing import Any, Final

from redislogkit import control
from redislogkit.config import Config
from redislogkit.config_values import split_listen
from redislogkit.errors import ConfigError, RedislogkitError
from redislogkit.stream import address
from redislogkit.stream.client import Overview, StreamClient

#: Seconds that a client may be silent, and that supervisor and redis may take for their answers.
CLIENT_TIMEOUT: Final = 5.0
ANSWER_TIMEOUT: Final = 3.0
#: Requests at a time.
_MOST: Final = 8
_MISSING: Final = (
    "metrics.listen needs prometheus-client, which is not installed; pip install 'redislogkit[metrics]'"
)
#: Seconds between two signs of life.
_BEAT: Final = 1.0


class Collector:
    """What a scrape asks: the supervisor for its status, redis for an overview of the stream.

    Either may raise a ``RedislogkitError``: what it knows is missing then, and a gauge says why.
    """

    def __init__(
        self, status: Callable[[], dict[str, Any]], stream: Callable[[], Overview], version: str
    ) -> None:
        self._status, self._stream, self._version = status, stream, version

    def collect(self) -> Iterator[Any]:
        """Yield the families of metrics, as prometheus_client wants them."""
        from redislogkit.metrics.families import families

        status: dict[str, Any] | None = None
        stream: Overview | None = None
        with contextlib.suppress(RedislogkitError, OSError):
            status = self._status()
        with contextlib.suppress(RedislogkitError, OSError):
            stream = self._stream()
        yield from families(status, stream, self._version)


def collector(config: Config) -> Collector:
    """Return what asks the supervisor and the stream of ``config``."""

    def status() -> dict[str, Any]:
        return control.ask(config, {"do": control.STATUS}, ANSWER_TIMEOUT)

    def stream() -> Overview:
        client = StreamClient(address.resolve(config), config.stream.name, timeout=ANSWER_TIMEOUT)
        with contextlib.closing(client):
            return client.overview()

    # Nothing in the package may import its root, which is there whoever runs this.
    return Collector(status, stream, sys.modules["redislogkit"].__version__)


class Server(HTTPServer):
    """Listens at ``listen``. Raises ``ConfigError`` where that can not be done."""

    request_queue_size = 16

    def __init__(self, listen: str, collector: Collector) -> None:
        try:
            from prometheus_client import CollectorRegistry, MetricsHandler
        except ImportError:
            raise ConfigError([_MISSING]) from None

        class Handler(MetricsHandler):
            timeout = CLIENT_TIMEOUT

            def do_GET(self) -> None:  # noqa: N802 - what http.server calls
                if self.path.partition("?")[0] in ("/metrics", "/"):
                    super().do_GET()
                else:
                    self.send_error(404, "The figures are at /metrics")

        registry = CollectorRegistry()
        registry.register(collector)
        Handler.registry = registry
        host, port = split_listen(listen)
        self._slots = threading.BoundedSemaphore(_MOST)
        try:
            family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self.address_family = family
            super().__init__(address[:2], Handler)  # type: ignore[arg-type]
        except OSError as error:
            rule = "metrics.listen must be an address where this host can listen"
            raise ConfigError([f"{rule}, got {listen}: {error.strerror}"]) from None
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self.server_port}/metrics"

    def server_bind(self) -> None:
        """Bind, without the look-up of the host's name that ``HTTPServer`` makes."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = self.socket.getsockname()[:2]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread; turn away whoever comes while there are too many."""
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        thread = threading.Thread(target=self._answer, args=(request, client_address), daemon=True)
        thread.start()

    def _answer(self, request: Any, client_address: Any) -> None:
        try:
            with contextlib.suppress(OSError):  # the client is gone, or silent
                self.finish_request(request, client_address)
        finally:
            self.shutdown_request(request)
            self._slots.release()

    def run(self, stopping: Callable[[], bool], beat: Callable[[], None], wake: int) -> None:
        """Serve until ``stopping()``; ``wake`` is a descriptor that ends a wait."""
        self.timeout = 0
        sources: list[Any] = [self.socket, wake]
        self.socket.setblocking(False)
        while not stopping():
            beat()
            ready, _, _ = select.select(sources, [], [], _BEAT)
            if self.socket in ready:
                self.handle_request()

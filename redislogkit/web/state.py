"""What supervisor and stream say of themselves, for the page."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from redislogkit.config import Config
from redislogkit.errors import RedislogkitError
from redislogkit.stream.client import Overview, StreamClient


class State:
    """Asks both. What does not answer is ``None``, and why stands beside it.

    Args:
        config: Whose supervisor and stream are asked.
        connect: Makes a client of the stream.
        ask: Asks the supervisor, as `redislogkit.control.ask` does.
    """

    def __init__(
        self,
        config: Config,
        connect: Callable[[], StreamClient],
        ask: Callable[..., dict[str, Any]],
    ) -> None:
        self._config, self._connect, self._ask = config, connect, ask
        self._client: StreamClient | None = None
        self._lock = threading.Lock()

    def __call__(self) -> dict[str, Any]:
        """Return ``supervisor`` and ``stream``, and ``supervisor_error`` and ``stream_error``."""
        with self._lock:
            return {**self._supervisor(), **self._stream()}

    def _supervisor(self) -> dict[str, Any]:
        try:
            answer = self._ask(self._config, {"do": "status"}, timeout=2.0)
        except RedislogkitError as error:
            return {"supervisor": None, "supervisor_error": str(error)}
        ok = answer.get("ok")
        return {"supervisor": answer if ok else None, "supervisor_error": answer.get("error", "")}

    def _stream(self) -> dict[str, Any]:
        try:
            if self._client is None:
                self._client = self._connect()
            found = self._client.overview()
        except RedislogkitError as error:
            self.close()
            return {"stream": None, "stream_error": str(error)}
        return {"stream": as_json(found), "stream_error": ""}

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None


def as_json(stream: Overview) -> dict[str, Any]:
    """Return what the page wants to know of a stream."""
    writers = {
        name: {"records": stream.behind(name), "oldest_unread": stream.oldest_unread(name)}
        for name in stream.writers
    }
    return {"entries": stream.entries, "writers": writers}

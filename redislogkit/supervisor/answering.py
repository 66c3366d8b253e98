"""The supervisor's end of the control socket. Never waits for anybody: the loop of the supervisor says when to look."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from redislogkit.control import LARGEST_REQUEST

#: Seconds that one who has connected has for his request, and for taking an answer that fills the socket's buffer.
_PATIENCE: Final = 5.0
_SENDING: Final = 0.2
_MOST: Final = 16

Answer: TypeAlias = Callable[[Mapping[str, Any]], dict[str, Any]]


class _Caller:
    """One who has connected."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.request = b""
        self.deadline = time.monotonic() + _PATIENCE

    def listen(self) -> bool:
        """Take what has come; True when the request is complete, or nothing more comes."""
        try:
            part = self.connection.recv(LARGEST_REQUEST)
        except BlockingIOError:
            return False
        except OSError:
            part = b""
        self.request += part
        return not part or b"\n" in part or len(self.request) > LARGEST_REQUEST


class ControlSocket:
    """Listens at ``path``, where nobody else may be listening any more. Raises ``OSError`` when that can not be.

    ``answer`` gets each request, and may raise nothing.
    """

    def __init__(self, path: str, answer: Answer) -> None:
        self._path = path
        self._answer = answer
        self._callers: list[_Caller] = []
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            self._listener.bind(path)
            self._listener.listen(_MOST)
            self._listener.setblocking(False)
            status = os.stat(path)
        except OSError:
            self._listener.close()
            raise
        finally:
            os.umask(before)
        self._identity = (status.st_dev, status.st_ino)

    def sources(self) -> list[socket.socket]:
        """What to wait for."""
        return [self._listener, *(caller.connection for caller in self._callers)]

    def serve(self) -> None:
        """Answer whoever has asked something."""
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                self._callers.append(_Caller(connection))
        for caller in list(self._callers):
            if caller.listen():
                self._reply(caller)
            elif time.monotonic() < caller.deadline and len(self._callers) <= _MOST:
                continue
            caller.connection.close()
            self._callers.remove(caller)

    def _reply(self, caller: _Caller) -> None:
        if not caller.request:
            return
        answer = self._answer_to(caller.request)
        with contextlib.suppress(OSError):
            caller.connection.settimeout(_SENDING)
            caller.connection.sendall(json.dumps(answer).encode() + b"\n")

    def _answer_to(self, text: bytes) -> dict[str, Any]:
        try:
            request = json.loads(text)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            return refusal(
                f"a request must be one line with a JSON object of at most {LARGEST_REQUEST} bytes"
            )
        return self._answer(request)

    def close(self) -> None:
        """Stop listening, and remove the socket where it is still ours."""
        self.abandon()
        with contextlib.suppress(OSError):
            status = os.stat(self._path)
            if (status.st_dev, status.st_ino) == self._identity:
                os.unlink(self._path)

    def abandon(self) -> None:
        """In a forked child: close our copies."""
        self._listener.close()
        for caller in self._callers:
            caller.connection.close()
        self._callers.clear()


def refusal(error: str) -> dict[str, Any]:
    """Return the answer that says why something can not be done."""
    return {"ok": False, "error": error}

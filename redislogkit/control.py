"""Asking a running supervisor: a unix socket in the stream folder, one line of JSON each way.

Requests (the key ``do`` says which) and what is in an answer beside ``"ok": true``:

``status``
    ``host``, ``stream``, ``pid``, ``since``, ``version``, ``config`` (path or null), ``config_loaded``,
    ``config_error``, ``reloading`` (what is different is still being carried out), ``launched``, ``dropped`` (cause → records), and ``children``, a list of ``name``, ``kind``,
    ``pid``, ``state``, ``since``, ``restarts``, ``next_start``, ``last_exit``, ``error`` (why it waits, or
    why it has ended, by its own word), and what a child of this kind counts. Times are seconds since the epoch.
``rotate``
    has the file writers named in ``writers`` (absent or null: all) make their live files archives. ``writers``
    in the answer are those that were told; ``rotations`` in their status counts what they have done.
``reopen``
    has all file writers open their files again, as SIGUSR1 does. ``writers``: those that were told.
``reload``
    loads the configuration again, as SIGHUP does. ``changes`` says what becomes of it, a line for each.
``configuration``
    tells what is in force, secrets included: ``configuration``, as `redislogkit.config.to_bytes` makes it, in base64.

What can not be done is answered by ``{"ok": false, "error": "..."}``. The socket has mode 0600: who can connect
is the supervisor's user, or root.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from typing import Any, Final

from redislogkit import sockets
from redislogkit.config import Config
from redislogkit.errors import NotSupervisedError

STATUS: Final = "status"
ROTATE: Final = "rotate"
REOPEN: Final = "reopen"
RELOAD: Final = "reload"
CONFIGURATION: Final = "configuration"

#: Bytes that a request may have.
LARGEST_REQUEST: Final = 64 * 1024

_NAME: Final = "control"


def path(config: Config) -> str:
    """Return the path of the control socket of the stream's supervisor. Raises ``SocketFolderError``."""
    return sockets.path_of(config.stream_dir, _NAME)


def ask(config: Config, request: Mapping[str, Any], timeout: float = 5.0) -> dict[str, Any]:
    """Send a request to the supervisor of ``config`` on this host and return its answer.

    ``timeout`` is in seconds, for all of it. Raises ``NotSupervisedError`` where nobody listens or nobody answers
    in time.

    Example::

        answer = control.ask(config, {"do": "rotate", "writers": ["app"]})
        if not answer["ok"]:
            print(answer["error"])
    """
    deadline = time.monotonic() + timeout
    place = f"stream {config.stream.name!r} in state_dir {config.state_dir}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(path(config))
            connection.sendall(json.dumps(dict(request)).encode() + b"\n")
            answer = json.loads(_read_line(connection, deadline))
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise NotSupervisedError(
            f"no supervisor runs for {place} on this host; an application that logs starts one, or: "
            f"redislogkit supervise {config.source or ''}".rstrip()
        ) from None
    except PermissionError as error:
        raise NotSupervisedError(
            f"the supervisor of {place} belongs to another user; run this as that user: {error}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise NotSupervisedError(
            f"the supervisor of {place} does not answer within {timeout:g} s: {error}"
        ) from None
    if not isinstance(answer, dict):
        raise NotSupervisedError(f"the supervisor of {place} answers with something that is no object")
    return answer


def _read_line(connection: socket.socket, deadline: float) -> bytes:
    parts = []
    while True:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        part = connection.recv(65536)
        parts.append(part)
        if not part or part.endswith(b"\n"):
            return b"".join(parts)

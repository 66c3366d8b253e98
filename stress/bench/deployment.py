"""redislogkit as its users run it: a ``log.toml``, the supervisor that the first ``configure()`` starts, its children."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import redislogkit
from redislogkit import config as configuration
from redislogkit.config import Config
from redislogkit.drill import victims
from redislogkit.errors import ConfigError
from stress import processes
from stress.bench.shapes import Shape
from stress.checker import rotated_files

CONFIG: Final = "log.toml"
#: Names of the children, as the kernel knows them.
SHIPPER: Final = "rlk-shipper"
FILE_WRITER: Final = "rlk-w-app"
SERVER: Final = "rlk-server"

_STATE: Final = "state"
_STOP_TIMEOUT: Final = 30.0
_POLL: Final = 0.01

_TOML: Final = """\
version = 1
state_dir = {state}
[formatters.bench]
format = {format}
[writers.app]
type = "file"
path = {path}
formatter = "bench"
max_bytes = {max_bytes}
backup_count = {backups}
"""

#: The key that makes loggers fast, for `available`.
FAST: Final[Mapping[str, Any]] = {"producer.fast_logger": True}


class Deployment:
    """The configuration below ``folder``, and whoever runs for it.

    ``overrides`` are dotted keys and values on top of it, ``more`` is TOML behind it. Raises ``ConfigError``.
    """

    def __init__(
        self, folder: str, shape: Shape, overrides: Mapping[str, Any] | None = None, more: str = ""
    ) -> None:
        self.path = os.path.join(folder, "logs", "app.log")
        self._source = os.path.join(folder, CONFIG)
        self._overrides = dict(overrides or {})
        text = _TOML.format(
            state=json.dumps(os.path.join(folder, _STATE)),
            format=json.dumps(shape.format),
            path=json.dumps(self.path),
            max_bytes=shape.max_bytes,
            backups=shape.backups,
        )
        with open(self._source, "w", encoding="utf-8") as file:
            file.write(text + more)
        self.config: Config = configuration.load(self._source, self._overrides)

    def configure(self) -> redislogkit.Handle:
        """Call ``configure()`` in this process."""
        return redislogkit.configure(self._source, **self._overrides)

    def files(self) -> list[str]:
        """Return the log file and its backups, oldest first."""
        return rotated_files(self.path)

    # -- who runs ---------------------------------------------------------------------------------

    def family(self) -> list[int]:
        """Return the supervisor and all processes below it, the server included."""
        found = victims.find_supervisor(self.config)
        return processes.family(found.victim.pid) if found else []

    def part(self, name: str) -> int:
        """Return the pid of a child of the supervisor; of the server, itself. Raises ``LookupError``."""
        for pid in self.family():
            if processes.name(pid) == name:
                return next(iter(processes.family(pid)[1:]), pid) if name == SERVER else pid
        raise LookupError(f"no {name} runs")

    @contextlib.contextmanager
    def stopped(self, name: str) -> Iterator[int]:
        """Stop a child with SIGSTOP; it goes on at the end. The supervisor must be patient enough for that."""
        pid = self.part(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def spools(self) -> list[str]:
        """Names of the spools that are not written and removed yet."""
        return os.listdir(os.path.join(self.config.stream_dir, "spool"))

    def stop(self) -> None:
        """End the supervisor once it has written everything, or its patience is at an end."""
        _stop(self.config)


def available(overrides: Mapping[str, Any]) -> bool:
    """True when these keys exist."""
    source = {"version": 1, "writers": {"app": {"type": "file", "path": "/dev/null"}}}
    try:
        configuration.load(source, dict(overrides))
    except ConfigError:
        return False
    return True


def end_supervisor(folder: str) -> None:
    """End the supervisor of a `Deployment` below ``folder``, where there is one."""
    source = os.path.join(folder, CONFIG)
    if os.path.exists(source):
        _stop(configuration.load(source))


def _stop(config: Config) -> None:
    """SIGTERM, and after a while SIGKILL to the whole family."""
    if (found := victims.find_supervisor(config)) is None:
        return
    family = processes.family(found.victim.pid)
    victims.send(found.victim, signal.SIGTERM)
    if not until(lambda: victims.find_supervisor(config) is None, _STOP_TIMEOUT):
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def until(condition: Callable[[], bool], timeout: float) -> bool:
    """Look now and then; return whether it has come true in time."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(_POLL)
    return True

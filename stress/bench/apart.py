"""Functions that run in a Python of their own: what one measurement imports, configures and forks is not the next one's.

The process that measures is a session of its own, so that whatever it leaves behind can be ended.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import typing
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import msgspec

from stress.bench import deployment

T = TypeVar("T")

_ROOT: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_ERROR: Final = re.compile(r"[A-Za-z_.]+(?:Error|Exception|Interrupt)\b")
_RESULT: Final = "result.json"


class FailedError(Exception):
    """A measurement has failed; says why."""


def call(function: Callable[..., T], *arguments: Any, timeout: float) -> T:
    """Return ``function(folder, *arguments)``, called in a new Python with a new folder, which is removed.

    Arguments and result are what msgspec makes of JSON with the function's annotations. Nothing that the function
    has started in its session, and no supervisor below the folder, is left. Raises `FailedError`.
    """
    with _folder() as folder:
        result = os.path.join(folder, _RESULT)
        spec = f"{function.__module__}:{function.__qualname__}"
        command = [sys.executable, "-m", __name__, spec, folder, msgspec.json.encode(arguments).decode()]
        output = _run(command, folder, timeout)
        if not os.path.exists(result):
            raise FailedError(output)
        with open(result, "rb") as file:
            found: T = msgspec.json.decode(file.read(), type=typing.get_type_hints(function)["return"])
        return found


def _run(command: list[str], folder: str, timeout: float) -> str:
    """Run to the end; return why it has failed, as far as is known."""
    log = os.path.join(folder, "output")
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            if not _ended(process, timeout):
                return f"not done within {timeout:g} s"
        finally:
            _end_session(process)
            deployment.end_supervisor(folder)
    with open(log, encoding="utf-8", errors="replace") as text:
        return _reason(text.read()) or f"ended with {process.returncode}"


def _reason(output: str) -> str:
    """Return the first error that a program has told of: what comes behind it often follows from it."""
    lines = output.strip().splitlines()
    return next(filter(_ERROR.match, lines), lines[-1] if lines else "")


def _environment() -> dict[str, str]:
    path = [_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def _ended(process: subprocess.Popen[bytes], timeout: float) -> bool:
    """Wait for its end, and leave it to be reaped: until then its number is nobody else's."""
    handle = os.pidfd_open(process.pid)
    try:
        return bool(select.select([handle], [], [], timeout)[0])
    finally:
        os.close(handle)


def _end_session(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    """A folder of our own; short, since unix sockets lie below it."""
    folder = tempfile.mkdtemp(prefix="rlk-bench-", dir="/tmp")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(spec: str, folder: str, arguments: str) -> None:
    """Call what ``spec`` names, and leave its result in the folder."""
    module, _, name = spec.partition(":")
    function = getattr(importlib.import_module(module), name)
    hints = typing.get_type_hints(function)
    hints.pop("return")
    _, *kinds = hints.values()
    given = msgspec.json.decode(arguments)
    values = [msgspec.convert(value, kind) for value, kind in zip(given, kinds, strict=True)]
    found = msgspec.json.encode(function(folder, *values))
    with open(os.path.join(folder, _RESULT), "wb") as file:
        file.write(found)


if __name__ == "__main__":
    main(*sys.argv[1:])

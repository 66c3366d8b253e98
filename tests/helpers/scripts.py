"""Real Python programs, in processes of their own, run from a file as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.processes import stop

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Finished:
    """How a program ended."""

    code: int
    """Its exit code; negative is a signal."""
    out: str
    err: str


class Scripts:
    """Writes programs into ``folder`` and runs them there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[str]] = []

    def start(
        self, source: str, *args: object, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a program whose stdin, stdout and stderr are pipes. It is stopped at the end of the test.

        It can import ``tests`` and ``stress``; ``env`` is added to the environment.
        """
        path = self._folder / f"script{len(self._processes)}.py"
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, str(path), *map(str, args)],
            cwd=self._folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._processes.append(process)
        return process

    def run(
        self,
        source: str,
        *args: object,
        env: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        check: bool = True,
    ) -> Finished:
        """Run a program to its end. Raises ``AssertionError`` when it fails (unless ``check`` is off) or hangs.

        It ends when the last holder of its stdout ends: a child that keeps it open is a hang.
        """
        process = self.start(source, *args, env=env)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(
                f"the program hangs (or a child holds its stdout), exit code so far {process.poll()}\n"
                f"stdout: {error.stdout!r}\nstderr: {error.stderr!r}"
            ) from error
        finished = Finished(process.returncode, out, err)
        if check:
            assert finished.code == 0, f"the program ended with {finished.code}\nstdout: {out}\nstderr: {err}"
        return finished

    def close(self) -> None:
        """Stop what still runs."""
        for process in self._processes:
            stop(process)

"""What ``import redislogkit`` and ``configure()`` cost a program that has ``logging`` already."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import Final

from stress.bench.deployment import CONFIG, Deployment
from stress.bench.goals import Figure
from stress.bench.shapes import LOGGER, Shape

_TIMEOUT: Final = 30.0
_PROGRAM: Final = """\
import logging, sys, time
began = time.process_time()
import redislogkit
imported = time.process_time()
redislogkit.configure(sys.argv[1])
print(1000 * (imported - began), 1000 * (time.process_time() - imported))
"""


def measure(folder: str, runs: int) -> list[Figure]:
    """Start so many programs one after the other; the supervisor runs."""
    deployment = Deployment(folder, Shape(producers=1))
    handle = deployment.configure()
    logging.getLogger(LOGGER).warning("somebody writes")
    handle.flush(_TIMEOUT)
    found = [_run(os.path.join(folder, CONFIG)) for _ in range(runs + 1)][1:]
    imports = sorted(first for first, _ in found)
    note = f"of it {imports[len(imports) // 2]:.1f} ms for the import"
    return [Figure("startup", [first + second for first, second in found], note)]


def _run(config: str) -> tuple[float, float]:
    """Return the CPU milliseconds of the import and of ``configure()``."""
    # An installed package has its bytecode beside it; where none may be written, compiling would be measured.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, config],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    first, second = map(float, done.stdout.split())
    return first, second

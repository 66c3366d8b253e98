"""What a race asks of a contender."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from stress.bench.shapes import LOGGER, PERCENT, Shape


def nothing() -> None:
    """There is nothing to do."""


class Producer(NamedTuple):
    """One process that logs."""

    log: Callable[..., object]
    """Takes the template and its arguments, at level INFO."""
    ready: Callable[[], object] = nothing
    """Returns when the first records are written, so that everything is known to run."""
    finish: Callable[[], object] = nothing
    """Called behind the last record: hand over what is still here."""


class Contender:
    """One way of logging. Made in the process that forks the producers."""

    template: ClassVar[str] = PERCENT

    def __init__(self, folder: str, shape: Shape) -> None:
        self.folder = folder
        self.shape = shape

    def open(self) -> None:
        """Start what runs beside the producers."""

    def attach(self, index: int) -> Producer:
        """Set up logging in producer ``index``, in its own process."""
        raise NotImplementedError

    def settle(self) -> None:
        """Return once everything is in the files; the producers have finished. Raises ``TimeoutError``."""

    def helpers(self) -> list[int]:
        """Pids of the processes, beside the producers, whose CPU counts."""
        return []

    def files(self) -> list[str]:
        """Paths of what was written; the records of each producer stand in them in their order."""
        raise NotImplementedError

    def close(self) -> None:
        """End what `open` has started."""


def use(handler: logging.Handler, finish: Callable[[], object] = nothing) -> Producer:
    """Log through ``handler`` and nothing else."""
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    return Producer(logging.getLogger(LOGGER).info, finish=finish)

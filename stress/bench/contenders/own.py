"""redislogkit as its users run it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

from stress.bench.contenders.base import Contender, Producer
from stress.bench.deployment import FAST, Deployment
from stress.bench.shapes import LOGGER


class Redislogkit(Contender):
    """``configure("log.toml")`` in each process, with the server that it brings; nothing else is set up."""

    overrides: ClassVar[Mapping[str, Any]] = {}

    def open(self) -> None:
        """Write the configuration; the first producer starts everything."""
        self._deployment = Deployment(self.folder, self.shape, self.overrides)

    def attach(self, index: int) -> Producer:
        """Configure this process."""
        handle = self._deployment.configure()
        logging.getLogger().setLevel(logging.INFO)

        def flush() -> None:
            if not handle.flush(self.shape.deadline):
                raise TimeoutError("not everything is written in time")
            if lost := sum(handle.stats()["lost"].values()):
                raise RuntimeError(f"{lost:,} records were dropped, which is quicker than keeping them")

        return Producer(logging.getLogger(LOGGER).info, flush, flush)

    def helpers(self) -> list[int]:
        """The supervisor and its children, the server among them."""
        return self._deployment.family()

    def files(self) -> list[str]:
        """The file and its backups."""
        return self._deployment.files()

    def close(self) -> None:
        """End the supervisor."""
        self._deployment.stop()


class RedislogkitFast(Redislogkit):
    """The same with fast loggers."""

    overrides: ClassVar[Mapping[str, Any]] = FAST

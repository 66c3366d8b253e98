"""What the standard library has: nothing at all, a file each, a shared file that rotates, a queue with a listener."""

from __future__ import annotations

import logging
import logging.handlers
import multiprocessing
import os

from stress.bench.contenders.base import Contender, Producer, use
from stress.checker import rotated_files


class Null(Contender):
    """``NullHandler``: what ``logging`` itself costs, and the limit of whoever uses its loggers."""

    def attach(self, index: int) -> Producer:
        """Nothing is kept."""
        return use(logging.NullHandler())

    def files(self) -> list[str]:
        """None."""
        return []


class PrivateFiles(Contender):
    """``FileHandler``, for each process a file of its own: the yardstick."""

    def attach(self, index: int) -> Producer:
        """Open this producer's file."""
        handler = logging.FileHandler(self._path(index))
        handler.setFormatter(logging.Formatter(self.shape.format))
        return use(handler)

    def files(self) -> list[str]:
        """All files."""
        return [self._path(index) for index in range(self.shape.producers)]

    def _path(self, index: int) -> str:
        return os.path.join(self.folder, f"app-{index}.log")


class OneFile(Contender):
    """Something that ends in one rotated file."""

    @property
    def path(self) -> str:
        """The live file."""
        return os.path.join(self.folder, "app.log")

    def files(self) -> list[str]:
        """The file and its backups."""
        return rotated_files(self.path)

    def rotating(self) -> logging.Handler:
        """A handler for that file."""
        handler = logging.handlers.RotatingFileHandler(
            self.path, maxBytes=self.shape.max_bytes, backupCount=self.shape.backups
        )
        handler.setFormatter(logging.Formatter(self.shape.format))
        return handler


class SharedFile(OneFile):
    """``RotatingFileHandler`` in each process, all for the same file; made for one process only."""

    def attach(self, index: int) -> Producer:
        """Open the file."""
        return use(self.rotating())


class Queue(OneFile):
    """``QueueHandler`` in each process, one process that writes; the recipe of the logging cookbook."""

    def open(self) -> None:
        """Start the process that writes."""
        context = multiprocessing.get_context("fork")
        self._queue = context.Queue()
        self._done = context.Event()
        self._listener = context.Process(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        handler = self.rotating()
        while (record := self._queue.get()) is not None:
            handler.handle(record)
        self._done.set()
        self._queue.get()  # until nobody reads its CPU any more

    def attach(self, index: int) -> Producer:
        """Log into the queue; formatted is over there."""
        return use(logging.handlers.QueueHandler(self._queue), self._hand_over)

    def _hand_over(self) -> None:
        self._queue.close()
        self._queue.join_thread()

    def settle(self) -> None:
        """Send an end through the queue, and wait until the process has seen it."""
        self._queue.put(None)
        if not self._done.wait(self.shape.deadline):
            raise TimeoutError("the listener has not come to the end of the queue")

    def helpers(self) -> list[int]:
        """The process that writes."""
        return [self._listener.pid or 0]

    def close(self) -> None:
        """End it."""
        self._listener.kill()
        self._listener.join()

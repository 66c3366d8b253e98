"""How many records each worker has logged, in a file that it maps: known also of one that was killed.

The count is raised after each logging call has returned. So of a killed worker at most one record is in
doubt: the one whose call had not returned, or whose count had not been raised.
"""

from __future__ import annotations

import logging
import mmap
import os

from stress.checker import message

_SIZE = 8


class Tally:
    """Logs the numbered records of one worker, and counts them. One thread at a time.

    Args:
        folder: Where the counts are; `counts` reads them.
        run: Names the run, as for `message`.
        worker: Names the worker, by default with a name that no other worker has.
    """

    def __init__(self, folder: str | os.PathLike[str], run: str, worker: str = "") -> None:
        self.run = run
        self.worker = worker or f"{os.getpid()}-{os.urandom(4).hex()}"
        fd = os.open(os.path.join(folder, self.worker), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.ftruncate(fd, _SIZE)
        self._count = memoryview(mmap.mmap(fd, _SIZE)).cast("Q")
        os.close(fd)

    @property
    def count(self) -> int:
        """Records logged so far."""
        return self._count[0]

    def log(
        self, logger: logging.Logger, records: int = 1, *, size: int = 0, level: int = logging.INFO
    ) -> None:
        """Log the next ``records`` records, each of ``size`` characters or as short as they can be."""
        first = self._count[0]
        for n in range(first, first + records):
            logger.log(level, message(self.run, self.worker, n, size))
            self._count[0] = n + 1


def counts(folder: str | os.PathLike[str]) -> dict[str, int]:
    """Return worker → records logged, of all workers that have counted in ``folder``."""
    return {name: _read(os.path.join(folder, name)) for name in os.listdir(folder)}


def _read(path: str) -> int:
    with open(path, "rb") as file:
        # Empty for the moment between the making of the file and its first size.
        return int.from_bytes(file.read(_SIZE), "little")

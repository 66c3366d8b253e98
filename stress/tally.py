"""How many records each worker has logged, in a file that it maps: known also of one that was killed.

The count is raised after each logging call has returned. So of a killed worker at most one record is in
doubt: the one whose call had not returned, or whose count had not been raised. Records that the process says
it has dropped (a full disk) are noted before the count is raised.
"""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Callable, Iterator

from stress.checker import message, same_message

_SIZE = 8
_DROPPED = ".dropped"


class Tally:
    """Logs the numbered records of one worker, and counts them. One thread at a time.

    Args:
        folder: Where the counts are; `counts` reads them.
        run: Names the run, as for `message`.
        worker: Names the worker, by default with a name that no other worker has.
        losses: Returns how many records the process has dropped so far. Where that has grown during a call,
            its record may be one of them.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        run: str,
        worker: str = "",
        losses: Callable[[], int] = lambda: 0,
    ) -> None:
        self.run = run
        self.worker = worker or f"{os.getpid()}-{os.urandom(4).hex()}"
        self._path = os.path.join(folder, self.worker)
        self._losses = losses
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.ftruncate(fd, _SIZE)
        self._count = memoryview(mmap.mmap(fd, _SIZE)).cast("Q")
        os.close(fd)

    @property
    def count(self) -> int:
        """Records logged so far."""
        return self._count[0]

    def log(
        self,
        logger: logging.Logger,
        records: int = 1,
        *,
        size: int = 0,
        level: int = logging.INFO,
        lines: int = 1,
        same: bool = False,
    ) -> None:
        """Log the next ``records`` records, each of ``size`` characters or as short as they can be.

        With ``lines`` they have as many lines; with ``same`` they are all the same to the letter.
        """
        # By its method, as programs do: ``log()`` takes no short way.
        log = getattr(logger, logging.getLevelName(level).lower())
        first = self._count[0]
        for n in range(first, first + records):
            before = self._losses()
            if same:
                log(same_message(self.run, self.worker))
            else:
                log(message(self.run, self.worker, n, size, lines))
            if self._losses() != before:
                self._note_drop(n)
            self._count[0] = n + 1

    def _note_drop(self, n: int) -> None:
        with open(self._path + _DROPPED, "ab") as file:
            file.write(b"%d\n" % n)


def counts(folder: str | os.PathLike[str]) -> dict[str, int]:
    """Return worker → records logged, of all workers that have counted in ``folder``."""
    return {name: _read(os.path.join(folder, name)) for name in _workers(folder)}


def dropped(folder: str | os.PathLike[str]) -> dict[str, frozenset[int]]:
    """Return worker → numbers of the records that may have been dropped, of those workers that have any."""
    found = {}
    for name in _workers(folder):
        path = os.path.join(folder, name + _DROPPED)
        if os.path.exists(path):
            with open(path, "rb") as file:
                found[name] = frozenset(map(int, file.read().split()))
    return found


def _workers(folder: str | os.PathLike[str]) -> Iterator[str]:
    return (name for name in os.listdir(folder) if not name.endswith(_DROPPED))


def _read(path: str) -> int:
    with open(path, "rb") as file:
        # Empty for the moment between the making of the file and its first size.
        return int.from_bytes(file.read(_SIZE), "little")

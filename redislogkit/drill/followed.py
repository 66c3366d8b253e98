"""The files that a writer writes during a drill, each kept open, so that retention takes none of them away.

Several rotations may happen between two looks, and backups change their names while one looks at them. Therefore the
order of the files is that of their names at the end; those that have been deleted come before, in the order of
their last changes. A compressed file is the one that has the same content.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec

from redislogkit.config import FileWriterConfig
from redislogkit.rotation import COMPRESSED_SUFFIXES
from redislogkit.verify.matching import ChangedError, LogFile, list_files
from redislogkit.writers import archive
from redislogkit.writers.archive import Identity

_PACKED: Final = tuple(COMPRESSED_SUFFIXES.values())
#: Seconds by which the times of files may be behind the clock.
_COARSE: Final = 1.0
_ATTEMPTS: Final = 50

#: Where the drill begins in it, what opens it, its name.
_Text: TypeAlias = "tuple[int, Callable[[], io.BufferedIOBase], str]"


@dataclass
class _Held:
    fd: int
    begin: int
    """Where the drill begins in it."""
    name: str

    def text(self, name: str) -> _Text:
        """Return it for reading."""
        return self.begin, lambda: open(os.dup(self.fd), "rb"), name

    def is_one_of(self, files: Sequence[LogFile]) -> bool:
        """True when it still has a name among these."""
        identity = Identity.of(os.fstat(self.fd))
        return any(file.identity == identity for file in files)


class Followed:
    """The live file of a writer and all that follow it. Only reads."""

    def __init__(self, config: FileWriterConfig) -> None:
        self._path = os.path.realpath(config.path)
        self._config = msgspec.structs.replace(config, path=self._path)
        self._since = time.time() - _COARSE
        self._held: dict[Identity, _Held] = {}
        self._look(skip=True)

    def look(self) -> None:
        """Keep hold of files that are new."""
        self._look(skip=False)

    def _look(self, *, skip: bool) -> None:
        for file in self._listed():
            if file.identity in self._held or file.path.endswith(_PACKED):
                continue
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(file.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                status = os.fstat(fd)
                # Renamed since, it is found under its new name; unchanged since the beginning, it has nothing of ours.
                if Identity.of(status) == file.identity and self._is_of_now(file.path, status):
                    begin = status.st_size if skip else 0
                    self._held[file.identity] = _Held(fd, begin, os.path.basename(file.path))
                else:
                    os.close(fd)

    def _is_of_now(self, path: str, status: os.stat_result) -> bool:
        changed = status.st_mtime >= self._since or path == self._path
        return stat.S_ISREG(status.st_mode) and changed

    def _listed(self) -> list[LogFile]:
        """The files, oldest first."""
        with contextlib.suppress(FileNotFoundError):
            return list_files([*(item.path for item in archive.list_archives(self._config)), self._path])
        return []

    # -- reading --------------------------------------------------------------------------------

    def lines(self) -> Iterator[tuple[bytes, str]]:
        """Yield each line since the beginning of the drill, and its place, oldest first. Raises ``OSError``."""
        for begin, opened, name in self._arranged():
            with opened() as file:
                file.seek(begin)
                for number, line in enumerate(file, 1):
                    yield line, f"{name}, line {number} of the drill"

    def _arranged(self) -> list[_Text]:
        for _ in range(_ATTEMPTS):
            self.look()
            with contextlib.suppress(ChangedError, FileNotFoundError):
                return self._arrange()
        raise OSError(f"the backups of {self._path} change faster than they can be read")

    def _arrange(self) -> list[_Text]:
        """Put those held, and those that came and went between two looks, into their order."""
        listed = self._listed()
        gone = {identity: held for identity, held in self._held.items() if not held.is_one_of(listed)}
        found: list[_Text] = []
        for file in listed:
            name = os.path.basename(file.path)
            if file.identity in self._held:
                found.append(self._held[file.identity].text(name))
            elif file.path.endswith(_PACKED) and os.stat(file.path).st_mtime >= self._since:
                with file.open() as unpacked:
                    data = unpacked.read()
                twin = self._same_as(data)
                if twin is None:
                    found.append((0, functools.partial(io.BytesIO, data), name))
                elif twin in gone:
                    found.append(gone.pop(twin).text(name))
        oldest = sorted(gone.values(), key=lambda held: os.fstat(held.fd).st_mtime_ns)
        return [*(held.text(held.name) for held in oldest), *found]

    def _same_as(self, data: bytes) -> Identity | None:
        """Return which of those held has this content."""
        for identity, held in self._held.items():
            if os.fstat(held.fd).st_size == len(data) and os.pread(held.fd, len(data), 0) == data:
                return identity
        return None

    def close(self) -> None:
        """Let go of the files."""
        for held in self._held.values():
            os.close(held.fd)
        self._held.clear()

"""Where everything of a writer is: log files, index, checkpoint."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import NamedTuple

from redislogkit import rotation
from redislogkit.config import Config, FileWriterConfig
from redislogkit.writers import archive, index


class Place(NamedTuple):
    """Where everything of one writer is."""

    config: Config
    name: str
    writer: FileWriterConfig
    given: list[str]
    """Files that were asked for."""
    others: list[str]
    """Live files of the other writers."""

    @property
    def index_folder(self) -> str:
        """Folder of its index files."""
        return index.folder(self.config.stream_dir, self.name)

    @property
    def checkpoint(self) -> str:
        """Path of its checkpoint."""
        return self.config.checkpoint_path(self.name)

    def own_paths(self) -> list[str]:
        """Live file and archives, oldest first."""
        with contextlib.suppress(FileNotFoundError):
            return [*(item.path for item in archive.list_archives(self.writer)), self.writer.path]
        return []

    def left_behind(self) -> list[str]:
        """Files of the paths that the writer had before, and those whose names begin like theirs."""
        found: list[str] = []
        for path in index.known_paths(self.index_folder):
            if path != self.writer.path:
                with contextlib.suppress(FileNotFoundError):
                    found += sorted(archive.similar(path))
        return found

    def similar_paths(self, own: Iterable[str]) -> list[str]:
        """Files that were given, that were left behind, or whose names begin like the log file's: somebody may have renamed one."""
        more = [*self.given, *self.left_behind()]
        folder, base = os.path.split(self.writer.path)
        with contextlib.suppress(FileNotFoundError):
            names = (
                os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.startswith(base)
            )
            similar = [path for path in names if not any(_belongs(path, other) for other in self.others)]
            return [path for path in dict.fromkeys([*similar, *more]) if path not in own]
        return more

    def journals(self) -> tuple[object, ...]:
        """Something that is equal as long as nothing is written."""
        return tuple(_status(path) for path in (self.checkpoint, *index.index_files(self.index_folder)))

    def everything(self) -> tuple[object, ...]:
        """Something that is equal as long as nothing changes."""
        own = self.own_paths()
        return (self.journals(), *(_status(path) for path in (*own, *self.similar_paths(own))))


def _belongs(path: str, live: str) -> bool:
    return path == live or rotation.is_archive_of(live, path)


def _status(path: str) -> object:
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(path)
        return path, status.st_ino, status.st_size, status.st_mtime_ns
    return path

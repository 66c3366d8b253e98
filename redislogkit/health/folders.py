"""Folders that a configuration names: can they be written to, and is the disk one for this work?"""

from __future__ import annotations

import os
import shutil
from typing import Final, NamedTuple

#: File systems over a network: neither locks nor mapped files work on them as they do on a disk.
_NETWORK: Final = frozenset(
    "9p afs beegfs ceph cifs davfs fuse.glusterfs fuse.s3fs fuse.sshfs gfs2 glusterfs lustre nfs nfs4 smb2 smb3 smbfs".split()
)
_MEMORY: Final = frozenset(["tmpfs", "ramfs"])


class Folder(NamedTuple):
    """What was found out about a folder, which need not exist yet."""

    path: str
    existing: str
    """The nearest folder that exists: itself, or one above."""
    writable: bool
    free: int
    """Bytes."""
    file_system: str
    """``ext4``, say; empty where the system does not tell."""

    @property
    def over_network(self) -> bool:
        """True for NFS and its like."""
        return self.file_system in _NETWORK

    @property
    def in_memory(self) -> bool:
        """True where a reboot takes it all."""
        return self.file_system in _MEMORY


def look(path: str) -> Folder:
    """Look at the folder ``path``. Raises ``OSError``."""
    existing = path
    while not os.path.lexists(existing) and existing != os.path.dirname(existing):
        existing = os.path.dirname(existing)
    writable = os.path.isdir(existing) and os.access(existing, os.W_OK | os.X_OK)
    return Folder(path, existing, writable, shutil.disk_usage(existing).free, _file_system(existing))


def _file_system(path: str) -> str:
    """Return the type of the file system on which ``path`` lies, by the longest mount point above it."""
    real = os.path.realpath(path)
    best, found = -1, ""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                _, point, kind, *_ = line.split(" ")
                point = _unescaped(point)
                if len(point) >= best and os.path.commonpath([point, real]) == point:
                    best, found = len(point), kind
    except (OSError, ValueError):
        return found
    return found


def _unescaped(point: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        point = point.replace(code, char)
    return point

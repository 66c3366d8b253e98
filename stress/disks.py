"""Disks that only this process and its children see, and that can be full (root on Linux)."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from typing import Final

_CLONE_NEWNS: Final = 0x00020000
_PAGE: Final = 4096
_USUAL_MIB: Final = 4096


def own_mounts() -> bool:
    """Begin a set of mounts of our own, which is gone with the last of us; False if not root."""
    if os.geteuid() != 0 or ctypes.CDLL(None).unshare(_CLONE_NEWNS) != 0:
        return False
    return _run("mount", "--make-rprivate", "/")


class Disk:
    """A folder that is a disk of its own, where that is possible (``small``)."""

    def __init__(self, folder: str, *, mounts: bool) -> None:
        os.makedirs(folder, exist_ok=True)
        self.folder = folder
        size = f"size={_USUAL_MIB}m"
        self.small = mounts and _run("mount", "-t", "tmpfs", "-o", size, "redislogkit-chaos", folder)

    def fill(self, pages_left: int) -> bool:
        """Leave so many pages; False where that can not be done."""
        if not self.small:
            return False
        status = os.statvfs(self.folder)
        used = (status.f_blocks - status.f_bfree) * status.f_frsize
        return self._resize(str(used + pages_left * _PAGE))

    def free(self) -> None:
        """End `fill`."""
        if self.small:
            self._resize(f"{_USUAL_MIB}m")

    def _resize(self, size: str) -> bool:
        return _run("mount", "-o", f"remount,size={size}", self.folder)

    def take_off(self) -> None:
        """Put its files into an ordinary folder of the same name. Nobody may use it any more."""
        if not self.small:
            return
        kept = f"{self.folder}.kept"
        shutil.copytree(self.folder, kept, ignore=_special, ignore_dangling_symlinks=True)
        _run("umount", "-l", self.folder)
        os.rmdir(self.folder)
        os.rename(kept, self.folder)
        self.small = False


def _special(folder: str, names: list[str]) -> list[str]:
    """Sockets and pipes: nothing that could be copied."""
    paths = {name: os.path.join(folder, name) for name in names}
    return [name for name, path in paths.items() if not (os.path.isfile(path) or os.path.isdir(path))]


def _run(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0

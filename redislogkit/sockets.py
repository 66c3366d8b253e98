"""Where a unix socket of ours lies: its path may have about a hundred bytes, and a folder's may have more."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from typing import Final

from redislogkit.errors import SocketFolderError

MAX_PATH: Final = 100
"""Bytes. Linux takes 107, macOS 103."""


def path_of(directory: str, name: str) -> str:
    """Return the path of socket ``name``: in ``directory``, or in a short private folder if that is too long.

    The same directory gives the same path in every process of a user. Raises ``SocketFolderError`` when the
    private folder can not be made or could belong to somebody else.
    """
    directory = os.path.abspath(directory)
    plain = os.path.join(directory, name)
    if len(os.fsencode(plain)) <= MAX_PATH:
        return plain
    digest = hashlib.sha256(os.fsencode(os.path.realpath(directory))).hexdigest()[:16]
    folder = os.path.join(_short_temp_dir(), f"rlk-{os.geteuid()}-{digest}")
    _private_folder(folder)
    return os.path.join(folder, "s")


def _short_temp_dir() -> str:
    # Not $TMPDIR first: it may be long, and may differ between the processes that must meet here.
    return "/tmp" if os.access("/tmp", os.W_OK | os.X_OK) else tempfile.gettempdir()  # noqa: S108 - see _private_folder


def _private_folder(path: str) -> None:
    """Make ``path`` a folder that only we can enter; refuse one that somebody may have planted."""
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        found = os.lstat(path)
    except OSError as error:
        raise SocketFolderError(f"the folder {path} of a socket can not be made: {error}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise SocketFolderError(
            f"{path} must be a folder with mode 0700 of user {os.geteuid()}, for a socket; "
            f"found mode {stat.filemode(found.st_mode)} of user {found.st_uid}. Remove it"
        )

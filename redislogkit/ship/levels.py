"""Brings levels that somebody has changed for a while from beside the stream to the producers of this host."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Final

from redislogkit import levels
from redislogkit.levels import Change, Found

#: Two times that are the same, found out by two shippers.
_SAME: Final = 1.0


class LevelsFile:
    """The file that producers look at. Written when something has changed, and by one shipper of several.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._known: Mapping[str, Change] | None = None

    def put(self, found: Found) -> None:
        """Make the file say what was ``found``. Raises ``OSError``; then it is tried again the next time."""
        if found.changes == self._known:
            return
        ahead = time.time() - found.now
        wanted = {name: change._replace(until=change.until + ahead) for name, change in found.changes.items()}
        if not _are_the_same(wanted, self._read()):
            levels.write(self._path, wanted)
        self._known = found.changes

    def _read(self) -> Mapping[str, Change] | None:
        """Return what it says; None where it says nothing that can be read."""
        if not os.path.exists(self._path):
            return {}
        try:
            return levels.read(self._path) or None
        except FileNotFoundError:
            return {}


def _are_the_same(wanted: Mapping[str, Change], there: Mapping[str, Change] | None) -> bool:
    return (
        there is not None
        and wanted.keys() == there.keys()
        and all(
            change[::2] == there[name][::2] and abs(change.until - there[name].until) < _SAME
            for name, change in wanted.items()
        )
    )

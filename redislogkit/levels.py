"""Levels of loggers that somebody has changed for a while, on their way to the producers of a host.

`redislogkit level` puts them beside the stream, the shipper of each host into the file ``levels`` in the stream's
folder, and producers look at that file. The server's clock says when they end; whoever writes the file translates
that to the clock of the host.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Final, NamedTuple

#: Name of the file in the stream folder.
NAME: Final = "levels"
_LARGEST: Final = 1024 * 1024


class Change(NamedTuple):
    """What a logger's level is for a while."""

    level: int
    until: float
    """Epoch seconds, by the clock of whoever holds this."""
    who: str


class Found(NamedTuple):
    """What stands beside the stream."""

    now: float
    """The server's clock, epoch seconds."""
    changes: Mapping[str, Change]
    """By logger; they end by the server's clock."""


def read(path: str) -> dict[str, Change]:
    """Return what the file says, by logger; what is not as `write` makes it is passed over. Raises ``OSError``."""
    with open(path, encoding="utf-8") as file:
        text = file.read(_LARGEST)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {
        name: Change(*values)
        for name, values in (found.items() if isinstance(found, dict) else ())
        if _is_change(values)
    }


def _is_change(values: object) -> bool:
    # By type: True is an int, too.
    return isinstance(values, list) and [type(value) for value in values] == [int, float, str]


def write(path: str, changes: Mapping[str, Change]) -> None:
    """Put the file in place of the old one; without a change there is none. Raises ``OSError``."""
    if not changes:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return
    beside = f"{path}.{os.getpid()}.new"
    try:
        with open(beside, "w", encoding="utf-8", opener=_private) as file:
            json.dump(changes, file)
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)

"""What became of a spool that its producer has closed: read from its header, or from its absence."""

from __future__ import annotations

import os

from redislogkit.errors import CorruptDataError
from redislogkit.spool import header


def is_done(root: str, producer: str, sequence: int, *, by_writers: bool) -> bool:
    """True when ``producer``'s records up to ``sequence`` are written, or in the stream where that is enough.

    A spool is removed once it is; so it is when there is none, too.
    """
    try:
        names = [name for name in os.listdir(root) if name.startswith(f"{producer}-")]
    except OSError:
        return True  # somebody has removed it all: nothing to wait for
    return all(_position(os.path.join(root, name), by_writers, sequence) >= sequence for name in names)


def _position(directory: str, by_writers: bool, default: int) -> int:
    try:
        page = header.Header.open(directory)
    except (OSError, CorruptDataError):
        return default  # removed meanwhile, or past all waiting
    position = page.words[header.WRITTEN if by_writers else header.SHIPPED]
    page.close()
    return position

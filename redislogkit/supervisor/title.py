"""Names of our processes, for ``ps`` and ``top``.

Every one has a short name that the kernel keeps: ``redislogkit`` the supervisor, ``rlk-shipper`` and the like its
children, by which our own tools know them (a child has its parent's name until it gives itself its own). Where
``setproctitle`` is installed (the extra ``cli``) the command line says more: ``redislogkit: writer app (shop)``.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

_PR_SET_NAME: Final = 15
#: Have the title take no room of the environment, which ``/proc`` then would show no longer.
_KEEP_ENVIRONMENT: Final = "SPT_NOENV"


def prepare() -> None:
    """Find the place of the title; it is looked for before the environment, so first of all, while that is as it was."""
    os.environ[_KEEP_ENVIRONMENT] = "1"
    try:
        import setproctitle
    except ImportError:
        return
    setproctitle.getproctitle()


def give(name: str, title: str) -> None:
    """Give this process a name, of which the kernel keeps 15 bytes, and, where that can be done, a title."""
    os.environ[_KEEP_ENVIRONMENT] = "1"
    try:
        import setproctitle
    except ImportError:
        pass
    else:
        setproctitle.setproctitle(title)
    if sys.platform == "linux":  # after the title, which sets the name, too
        ctypes.CDLL(None).prctl(_PR_SET_NAME, os.fsencode(name)[:15], 0, 0, 0)

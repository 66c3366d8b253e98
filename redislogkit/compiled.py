"""Parts of this package that are compiled where that is possible; each stands in Python, too."""

from __future__ import annotations

import importlib
import os
from typing import Any


def load(name: str) -> Any:
    """Return the compiled module ``name``; None where there was no compiler, or ``REDISLOGKIT_PURE_PYTHON`` is set."""
    if os.environ.get("REDISLOGKIT_PURE_PYTHON"):
        return None
    try:
        return importlib.import_module(name)
    except ImportError:
        return None

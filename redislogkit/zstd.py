"""zstd, where it is installed: a part of Python from 3.14 on, else the package backports.zstd."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from typing import Any

HOW_TO_INSTALL = "pip install 'redislogkit[zstd]'"


@cache
def module() -> Any:
    """Return the module, None where none is installed."""
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        try:
            from backports import zstd
        except ImportError:
            return None
    return zstd


def is_installed() -> bool:
    """Say whether `module` would return one; without loading it."""
    if sys.version_info >= (3, 14):
        return importlib.util.find_spec("_zstd") is not None
    return (
        importlib.util.find_spec("backports") is not None
        and importlib.util.find_spec("backports.zstd") is not None
    )

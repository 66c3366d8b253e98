"""Placeholder."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Nothing yet."""
    return len(arguments) * 0

"""Which loggers a writer takes records from. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection


def selects(patterns: Collection[str], logger_name: str) -> bool:
    """True when a writer with these patterns takes the records of this logger.

    A pattern is a logger's name, and stands for this logger and its children; with ``!`` before it these
    are left out. The most specific pattern wins. A logger that no pattern stands for is taken only when
    there is no pattern without ``!``, so that no patterns at all means every logger.

    >>> selects(["my.app", "!my.app.noise"], "my.app.db"), selects(["my.app"], "my.apple")
    (True, False)
    """
    name = logger_name
    while name:
        if name in patterns:
            return True
        if f"!{name}" in patterns:
            return False
        name = name.rpartition(".")[0]
    return all(pattern.startswith("!") for pattern in patterns)


def selector(level: int, patterns: Collection[str]) -> Callable[[int, str], bool] | None:
    """Return the question that a writer asks: (levelno, logger name) → is it for me? None where everything is."""
    if level <= 0 and not patterns:
        return None
    known: dict[str, bool] = {}

    def wanted(levelno: int, name: str) -> bool:
        if levelno < level:
            return False
        if name not in known:
            if len(known) > 10_000:  # names made up at run time must not fill the memory
                known.clear()
            known[name] = selects(patterns, name)
        return known[name]

    return wanted if patterns else lambda levelno, _name: levelno >= level

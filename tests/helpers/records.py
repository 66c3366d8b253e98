"""Records with other values."""

from __future__ import annotations

from typing import Any

from redislogkit.record import Record, build

NAMES = (
    "created", "levelno", "levelname", "name", "message", "pathname", "lineno", "function", "thread", "thread_name",
    "task_name", "exc_text", "stack_info", "extra", "overrides", "text",
)  # fmt: skip


def changed(record: Record, **changes: Any) -> Record:
    """Return ``record`` with ``changes``."""
    return build(**({name: getattr(record, name) for name in NAMES} | changes))

"""The trace and span that a record was logged in, where the program uses OpenTelemetry.

OpenTelemetry is never imported: only who has loaded its API can have a span. Without it, a call costs one look into
``sys.modules``, which callers make themselves.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import Any, Final

#: In ``sys.modules`` once the program uses OpenTelemetry.
API: Final = "opentelemetry.trace"
#: Extras by which a record says so itself: our own names, and those that OpenTelemetry's instrumentation sets.
_TOLD: Final = ("trace_id", "span_id", "otelTraceID", "otelSpanID")


def is_traced() -> bool:
    """True inside of a valid span. Raises nothing."""
    return _context() is not None


def fields(record: logging.LogRecord) -> dict[str, Any] | None:
    """Return ``trace_id`` and ``span_id`` in hexadecimal digits, None where there is nothing to add.

    That is so outside of a span, for a record that names its trace itself, and for one that is passed on from another
    thread or process, whose span is not ours. Raises nothing.
    """
    context = _context()
    attributes = record.__dict__
    if context is None or any(name in attributes for name in _TOLD):
        return None
    if attributes.get("thread") != threading.get_ident() or attributes.get("process") != os.getpid():
        return None
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def _context() -> Any:
    try:
        context = sys.modules[API].get_current_span().get_span_context()
        return context if context.is_valid else None
    except Exception:  # not loaded, being loaded this moment, or a span of somebody else's making
        return None

"""A record as code of the user's sees it: read-only, and without what the rules of ``redact`` find."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from redislogkit import formatting
from redislogkit.config import FormatterConfig
from redislogkit.json_lines import json_value
from redislogkit.lines import Numbered
from redislogkit.record import Facts, Loss, Record
from redislogkit.redaction import Redactor
from redislogkit.rendering import Formatter, exception_of, timestamp, trace_of

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class LoggedRecord:
    """One log event, as it was logged by any process of the application.

    ``id`` names the record for ever: whoever gets one twice can know by it. Where records were dropped, one in
    their place says so: its ``lost`` is their number, its ``logger`` is ``redislogkit``.
    """

    __slots__ = ("_facts", "_format", "_lost", "_record", "_redactor", "_sequence")

    def __init__(
        self,
        item: Record | Loss,
        facts: Facts,
        sequence: int,
        formatter: Formatter,
        redactor: Redactor | None = None,
    ) -> None:
        self._lost = item.last - item.first + 1 if isinstance(item, Loss) else 0
        self._record = formatting.loss_record(item, facts) if isinstance(item, Loss) else item
        self._facts = facts
        self._sequence = sequence
        self._format = formatter
        self._redactor = redactor

    def _safe(self, text: str) -> str:
        return text if self._redactor is None else self._redactor.text(text)

    @property
    def id(self) -> str:
        """``producer:sequence``, as ``5f0c…:42``; for a loss ``producer:sequence:lost``."""
        name = f"{self._facts.producer}:{self._sequence}"
        return f"{name}:lost" if self._lost else name

    @property
    def producer(self) -> str:
        """Identifier of the incarnation of a process that logged it."""
        return self._facts.producer

    @property
    def sequence(self) -> int:
        """The producer's own count of its records, from 1 on."""
        return self._sequence

    @property
    def time(self) -> float:
        """When it was logged, in seconds since the epoch."""
        return self._record.created

    @property
    def timestamp(self) -> str:
        """The same as RFC 3339 in UTC, with microseconds."""
        return timestamp(self._record.created) or ""

    @property
    def level(self) -> int:
        """Number of its level, as ``logging.ERROR``."""
        return self._record.levelno

    @property
    def level_name(self) -> str:
        """Name of its level, as ``ERROR``."""
        return self._record.levelname

    @property
    def logger(self) -> str:
        """Name of its logger."""
        return self._record.name

    @property
    def message(self) -> str:
        """Its message, with its arguments."""
        return self._safe(self._record.message)

    @property
    def text(self) -> str:
        """It as the writer's formatter shows it, without the end of the line."""
        return self._format(self._record, self._facts, self._sequence)

    @property
    def exception(self) -> str:
        """The rendered exception; empty where there was none."""
        return self._safe(self._record.exc_text or "")

    @property
    def exception_type(self) -> str:
        """Type of the exception, as ``shop.errors.Refused``; empty where there was none."""
        return exception_of(self._record.exc_text or "")[0]

    @property
    def exception_message(self) -> str:
        """Its message."""
        return self._safe(exception_of(self._record.exc_text or "")[1])

    @property
    def stack(self) -> str:
        """The rendered stack of ``stack_info=True``; else empty."""
        return self._safe(self._record.stack_info or "")

    @property
    def extra(self) -> Mapping[str, Any]:
        """What the caller has added with ``extra={...}``, read-only: plain data."""
        extra = self._record.extra
        if not extra:
            return _NOTHING
        return MappingProxyType(extra if self._redactor is None else self._redactor.value(extra))

    @property
    def trace_id(self) -> str:
        """Identifier of the trace it belongs to; empty where there is none."""
        return trace_of(self._record.extra)[0]

    @property
    def span_id(self) -> str:
        """The same of the span."""
        return trace_of(self._record.extra)[1]

    @property
    def path(self) -> str:
        """File of the logging call."""
        return self._record.pathname

    @property
    def line(self) -> int:
        """Line of the logging call."""
        return self._record.lineno

    @property
    def function(self) -> str:
        """Function of the logging call."""
        return self._record.function

    @property
    def host(self) -> str:
        """Name of the host."""
        return self._facts.host

    @property
    def pid(self) -> int:
        """Identifier of the process."""
        pid = (self._record.overrides or _NOTHING).get("process", self._facts.pid)
        return pid if isinstance(pid, int) else 0

    @property
    def process_name(self) -> str:
        """Name of the process, as ``multiprocessing`` has it."""
        return str((self._record.overrides or _NOTHING).get("processName", self._facts.process_name))

    @property
    def thread(self) -> int:
        """Identifier of the thread."""
        return self._record.thread or 0

    @property
    def thread_name(self) -> str:
        """Name of the thread."""
        return self._record.thread_name or ""

    @property
    def task_name(self) -> str:
        """Name of the asyncio task; empty where there was none."""
        return self._record.task_name or ""

    @property
    def lost(self) -> int:
        """Records in whose place it stands; 0 for a record."""
        return self._lost

    def as_dict(self) -> dict[str, Any]:
        """Return everything but `text` as plain data that JSON can take; what is empty is left out."""
        values: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS}
        values["extra"] = json_value(self.extra)
        return {name: value for name, value in values.items() if value not in _EMPTY or name in _ALWAYS}

    def __repr__(self) -> str:
        return f"<LoggedRecord {self.id} {self.level_name} {self.logger}>"


_FIELDS: Final = (
    "id", "timestamp", "level", "level_name", "logger", "message", "exception", "exception_type", "exception_message",
    "stack", "trace_id", "span_id", "path", "line", "function", "host", "pid", "process_name", "thread", "thread_name",
    "task_name", "producer", "sequence", "lost",
)  # fmt: skip
_ALWAYS: Final = frozenset(
    ["id", "timestamp", "level", "level_name", "logger", "message", "producer", "sequence"]
)
_EMPTY: Final[tuple[Any, ...]] = ("", 0, {}, None)


def viewer(config: FormatterConfig) -> Callable[[Numbered], LoggedRecord]:
    """Return what makes such a record of each item of a reading, with the formatter and the rules of ``config``."""
    formatter, redactor = formatting.build(config), formatting.redactor_of(config)
    return lambda numbered: LoggedRecord(*numbered, formatter, redactor)

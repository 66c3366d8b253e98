"""Which records one wants to see. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo
from typing import Any, Final, NamedTuple

from redislogkit.config_values import LEVEL, PATTERNS, RefusedError
from redislogkit.errors import ConfigError
from redislogkit.record import Record, attributes
from redislogkit.selection import selector
from redislogkit.view import moments
from redislogkit.view.seen import OWN_LOGGER, Seen

#: Names of standard fields as JSON lines have them → those of ``LogRecord``. An extra of that name comes first.
ALIASES: Final[Mapping[str, str]] = {
    "exception": "exc_text",
    "file": "pathname",
    "function": "funcName",
    "level": "levelname",
    "line": "lineno",
    "logger": "name",
    "pid": "process",
    "process_name": "processName",
    "stack": "stack_info",
    "task": "taskName",
    "thread_name": "threadName",
}

#: Attribute → attributes from which it can be made.
STANDS_FOR: Final[Mapping[str, tuple[str, ...]]] = {
    "asctime": ("created",),
    "filename": ("filename", "pathname"),
    "levelname": ("levelname", "levelno"),
    "levelno": ("levelno", "levelname"),
    "module": ("filename", "pathname"),
    "msecs": ("created",),
    "msg": ("message",),
    "relativeCreated": (),
}

_MISSING: Final = object()


class Filter(NamedTuple):
    """What is asked of a record; every part that is given has to hold. Made by `Filter.of`."""

    level: int = 0
    """Lowest level."""
    loggers: tuple[str, ...] = ()
    """Patterns, as those of a writer."""
    grep: re.Pattern[str] | None = None
    """Is searched in message, exception and stack."""
    fields: tuple[tuple[str, str], ...] = ()
    """Names and values of extras or standard fields, as text."""
    since: float | None = None
    """First moment, seconds since the epoch."""
    until: float | None = None
    """First moment that is too late."""
    selects: Callable[[int, str], bool] | None = None
    """Level and loggers as one question; None where all are wanted."""

    @classmethod
    def of(
        cls,
        *,
        now: float,
        level: str | int | None = None,
        loggers: Sequence[str] = (),
        grep: str | None = None,
        ignore_case: bool = False,
        fields: Sequence[str] = (),
        since: str | None = None,
        until: str | None = None,
        zone: tzinfo | None = None,
    ) -> Filter:
        """Return the filter that is meant.

        Args:
            now: Seconds since the epoch.
            level: Name or number.
            loggers: Names of loggers, ``!`` before one leaves it out; as ``loggers`` of a writer.
            grep: A regular expression.
            ignore_case: It does not tell capitals from small letters.
            fields: Texts ``name=value``.
            since: First moment, as `moments.parse` takes it.
            until: First moment that is too late.
            zone: Zone of moments that have none; None: the system's local time.

        Raises:
            ConfigError: with every problem.
        """
        problems: list[str] = []

        def parsed(name: str, value: Any, parse: Callable[[Any], Any], default: Any) -> Any:
            if value is None or value == ():
                return default
            try:
                return parse(value)
            except RefusedError as error:
                problems.append(error.told(name, value))
            return default

        lowest = parsed("level", level, _level, 0)
        patterns = parsed("logger", tuple(loggers), PATTERNS.parse, ())
        first = parsed("since", since, lambda text: moments.parse(text, now, zone), None)
        behind = parsed("until", until, lambda text: moments.parse(text, now, zone), None)
        if first is not None and behind is not None and first >= behind:
            problems.append(f"since must be earlier than until, got {since!r} and {until!r}")
        made = cls(
            level=lowest,
            loggers=patterns,
            grep=parsed("grep", grep, lambda text: _pattern(text, ignore_case=ignore_case), None),
            fields=tuple(parsed("field", text, _field, ("", "")) for text in fields),
            since=first,
            until=behind,
            selects=selector(lowest, patterns),
        )
        if problems:
            raise ConfigError(problems)
        return made

    def matches(self, seen: Seen) -> bool:
        """True for what is wanted. What redislogkit says in place of records passes level and loggers, as in a file."""
        record = seen.record
        return (
            self.admits(record.levelno, record.name, record.created)
            and (self.grep is None or _found(self.grep, record))
            and (not self.fields or self._has_fields(seen))
        )

    def admits(self, levelno: int, name: str, created: float) -> bool:
        """True where level, logger and time are right: the part that is quickly asked."""
        return (
            (self.selects is None or self.selects(levelno, name) or name == OWN_LOGGER)
            and (self.since is None or created >= self.since)
            and (self.until is None or created < self.until)
        )

    def _has_fields(self, seen: Seen) -> bool:
        values = attributes(seen.record, seen.facts, seen.sequence)
        return all(value in _texts(value_of(values, name)) for name, value in self.fields)

    def needs(self) -> dict[str, tuple[str, ...]]:
        """What it asks for: name as the user has written it → attributes of which a format has to show one."""
        wanted: dict[str, tuple[str, ...]] = {}
        if self.level > 0:
            wanted["level"] = ("levelno", "levelname")
        if self.loggers:
            wanted["logger"] = ("name",)
        if self.since is not None:
            wanted["since"] = ("created", "asctime")
        if self.until is not None:
            wanted["until"] = ("created", "asctime")
        for name, _ in self.fields:
            first = name.partition(".")[0]
            attribute = ALIASES.get(first, first)
            wanted[f"field {name}"] = (name, first, attribute, *STANDS_FOR.get(attribute, ()))
        return wanted


def value_of(values: Mapping[str, Any], name: str) -> Any:
    """Return the value of a field; a dot leads into an extra that is a mapping."""
    value = values.get(name, _MISSING)
    if value is _MISSING and name in ALIASES:
        value = values.get(ALIASES[name], _MISSING)
    first, dot, rest = name.partition(".")
    if value is _MISSING and dot and isinstance(values.get(first), Mapping):
        return value_of(values[first], rest)
    return value


def _texts(value: object) -> tuple[str, ...]:
    """How one may write a value: as Python shows it, or as JSON does."""
    if value is _MISSING:
        return ()
    if value is None:
        return "", "None", "null"
    return (str(value), str(value).lower()) if isinstance(value, bool) else (str(value),)


def _found(pattern: re.Pattern[str], record: Record) -> bool:
    texts = (record.message, record.exc_text, record.stack_info, record.text)
    return any(text and pattern.search(text) for text in texts)


def _level(value: str | int) -> int:
    if isinstance(value, str) and not value.strip():
        raise RefusedError(f"must be {LEVEL.noun}")
    level: int = LEVEL.parse(value.strip() if isinstance(value, str) else value)
    return level


def _pattern(text: str, *, ignore_case: bool) -> re.Pattern[str]:
    try:
        return re.compile(text, re.IGNORECASE if ignore_case else 0)
    except (re.error, OverflowError, RecursionError) as error:
        raise RefusedError(f"must be a regular expression ({error})") from None


def _field(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise RefusedError('must be like name=value, as "request_id=4711" or "user.id=7"')
    return name.strip(), value

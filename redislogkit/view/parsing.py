"""Lines of a log file → records, as far as the format of its writer shows them. Pure.

Theory of operation. A text format is a row of literals and fields, so it is also a regular expression. What stands
before the message (time, level, name …) tells where a record begins; every other line belongs to the record before
it: the lines of a traceback, of a message with newlines. Where nothing stands before the message each line is a record.

What a formatter makes of JSON is found out by letting it render a record whose values are known: where they come up in
the object, they will be in every other one. So any layout can be read back.

What does not look like the format (lines of others, of an earlier format, of an application's own formatter) is
*not understood*: it can be searched, but nobody knows its level or its time.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

from msgspec.structs import replace

from redislogkit import formatting, record
from redislogkit.config import FormatterConfig
from redislogkit.errors import ConfigError
from redislogkit.escaping import Multiline
from redislogkit.formatting import Field
from redislogkit.record import Facts
from redislogkit.view import times
from redislogkit.view.filter import Filter
from redislogkit.view.seen import UNKNOWN, Seen
from redislogkit.view.times import Times

#: Level of a record whose level has a name that is not known here: no filter hides it.
UNKNOWN_LEVEL: Final = 2**31 - 1

_TEXTS: Final = frozenset(["message", "msg", "exc_text", "stack_info"])
_NUMBERS: Final = {
    **dict.fromkeys(("levelno", "lineno", "process", "thread", "sequence"), r"(?:-?\d+|None|)"),
    **dict.fromkeys(("created", "msecs", "relativeCreated"), r"-?\d+(?:\.\d+)?"),
}
_NAMES: Final = frozenset(
    ["name", "levelname", "filename", "pathname", "module", "funcName", "host", "producer", "processName"]
)
_ONE_LINE: Final = r"[^\n]*?"
_INDENT: Final = "    "
_TRAILER: Final = re.compile(
    r"^(?:Traceback|Stack|  \+ Exception Group Traceback) \(most recent call last\)", re.MULTILINE
)


class Parser(Protocol):
    """Reads what one formatter has written."""

    def begins(self, line: str) -> bool:
        """True where a record begins with this line."""

    def parse(self, text: str) -> dict[str, Any] | None:
        """Return the attributes that the text of a record shows; None where it is not understood."""

    def shows(self, name: str) -> bool:
        """True where records that have this attribute, or extra, show it."""


def parser(config: FormatterConfig, multiline: Multiline) -> Parser:
    """Return the parser for what a writer with this formatter writes."""
    return _JsonParser(config) if config.type == "json" else _TextParser(config, multiline)


def check(parser: Parser, wanted: Filter, where: str) -> None:
    """Raise ``ConfigError`` where ``wanted`` asks for what the format does not show; ``where`` names writer and format."""
    problems = [
        f"--{option} asks for {' or '.join(dict.fromkeys(names))}, which {where} does not show; show it in the format "
        "(for what is logged from then on), or ask a writer whose format does: --writer NAME"
        for option, names in wanted.needs().items()
        if not any(map(parser.shows, names))
    ]
    if problems:
        raise ConfigError(problems)


def level_of(values: Mapping[str, Any]) -> int:
    """Return the number of the level that ``values``, attributes of a record, tell; 0 where they tell none."""
    levelno = values.get("levelno")
    if levelno is None and "levelname" in values:
        return _level_number(values["levelname"])
    return levelno or 0


@lru_cache(256)
def _level_number(levelname: str) -> int:
    number: object = logging.getLevelName(levelname.upper())
    return number if isinstance(number, int) else UNKNOWN_LEVEL


def seen(values: Mapping[str, Any]) -> Seen:
    """Return what was seen as far as ``values``, attributes of it, tell."""
    levelname, levelno = values.get("levelname"), level_of(values)
    extra = {
        name: value
        for name, value in values.items()
        if name not in record.STANDARD_ATTRIBUTES and name not in _FACTS
    }
    made = record.build(
        created=values.get("created", 0.0),
        levelno=levelno,
        levelname=str(levelname or logging.getLevelName(levelno)),
        name=values.get("name", ""),
        message=values.get("message", ""),
        pathname=values.get("pathname") or values.get("filename") or "",
        lineno=values.get("lineno") or 0,
        function=values.get("funcName") or "",
        thread=values.get("thread"),
        thread_name=values.get("threadName"),
        task_name=values.get("taskName"),
        exc_text=values.get("exc_text"),
        stack_info=values.get("stack_info"),
        extra=extra or None,
    )
    facts = replace(
        UNKNOWN,
        producer=values.get("producer", ""),
        host=values.get("host", ""),
        pid=values.get("process") or 0,
        process_name=values.get("processName", ""),
    )
    return Seen(made, facts, values.get("sequence") or 0)


_FACTS: Final = frozenset(["host", "producer", "sequence"])


# --- text --------------------------------------------------------------------------------------------------


class _Group(NamedTuple):
    """A group of the regular expression."""

    name: str
    """Of the attribute."""
    read: Callable[[str], Any]


class _TextParser:
    def __init__(self, config: FormatterConfig, multiline: Multiline) -> None:
        parsed = formatting.parse(config)
        self._multiline = multiline
        self._groups: dict[str, _Group] = {}
        self._head: re.Pattern[str] | None = None
        self._wholes: list[re.Pattern[str]] = []
        if parsed is None:  # only the operator itself understands it
            return
        self._times = _times_of(config)
        self._datefmt = config.datefmt
        *fields, end = parsed.fields
        names = [field.name for field in fields]
        self._has_message = bool(_TEXTS & set(names))
        first = next((index for index, name in enumerate(names) if name in _TEXTS), len(names))
        # Nothing but a time tells for certain that a record begins: "ValueError: ..." would be a level, too.
        self._strict = not {"asctime", "created"} & set(names[:first])
        # Names rarely have blanks; where they have, it is only guessed where they end.
        for name_pattern in (r"\S*?", _ONE_LINE):
            parts = [
                re.escape(field.literal) + self._expression(index, field, name_pattern)
                for index, field in enumerate(fields)
            ]
            options = "".join(
                rf"(?: - {re.escape(name)}: {self._group(f'o{index}', name, str, _ONE_LINE)})?"
                for index, name in enumerate(config.optional_fields)
            )
            whole = f"{''.join(parts)}{re.escape(end.literal)}{options}(?:\\n(?P<trailer>.*))?"
            self._wholes.append(re.compile(whole, re.DOTALL))
        head = "".join(parts[:first]) + re.escape(
            fields[first].literal if first < len(fields) else end.literal
        )
        if head:
            self._head = re.compile(head)

    def _group(self, key: str, name: str, read: Callable[[str], Any], pattern: str) -> str:
        self._groups[key] = _Group(name, read)
        return f"(?P<{key}>{pattern})"

    def _expression(self, index: int, field: Field, name_pattern: str) -> str:
        name, key = field.name, f"g{index}"
        kind = re.fullmatch(r"(?:%[- 0]*(\d*)(s|d|(?:\.\d+)?f)|\{0(?::[<>^]?(\d*)[sd]?)?\})", field.spec)
        if kind is None:  # changed (%r, %.3s, {x.y}): what the value was can not be told
            return _ONE_LINE
        blanks = " *" if kind[1] or kind[3] else ""
        if name in _TEXTS:
            group = self._group(key, "message" if name == "msg" else name, str, ".*?")
        elif name == "asctime":
            group = self._time(key)
        elif name in _NUMBERS:
            group = self._group(key, name, _number, _NUMBERS[name])
        elif name == "levelname" and self._strict:
            group = self._group(key, name, str, r"[A-Z][A-Z0-9_]*|Level \d+")
        else:
            group = self._group(key, name, str, name_pattern if name in _NAMES else _ONE_LINE)
        return f"{blanks}{group}{blanks}"

    def _time(self, key: str) -> str:
        if self._times is None:
            return f"(?:{times.pattern_of(self._datefmt)})"
        return self._group(key, "created", self._times.read, self._times.pattern)

    def begins(self, line: str) -> bool:
        if self._multiline == "indent" and line.startswith(_INDENT):
            return False
        return self._multiline == "escape" or self._head is None or self._head.match(line) is not None

    def parse(self, text: str) -> dict[str, Any] | None:
        for whole in self._wholes:
            match = whole.fullmatch(text)
            if match is not None:
                break
        else:
            return None
        values: dict[str, Any] = {}
        try:
            for (name, read), value in zip(self._groups.values(), match.groups(), strict=False):
                if value is not None and name not in values:
                    values[name] = value if read is str else read(value)
        except (ValueError, OverflowError):  # the 31st of February
            return None
        if "msecs" in values and "created" in values and values["created"] % 1 == 0:
            values["created"] += values["msecs"] / 1000
        if match["trailer"] is not None:
            self._add_trailer(values, match["trailer"])
        return values

    def _add_trailer(self, values: dict[str, Any], text: str) -> None:
        """What follows is the rest of the message, and then exception or stack."""
        found = _TRAILER.search(text)
        at = found.start() if found else len(text) if self._has_message else 0
        if at:
            values["message"] = f"{values.get('message', '')}\n{text[:at].removesuffix(chr(10))}"
        if at < len(text):
            values["exc_text"] = text[at:]

    def shows(self, name: str) -> bool:
        names = {group.name for group in self._groups.values()}
        return name in names or (name == "exc_text" and bool(self._wholes))


def _times_of(config: FormatterConfig) -> Times | None:
    only = replace(config, format="%(asctime)s", style="%", optional_fields=())
    text = formatting.build(only)(_probe(), UNKNOWN, 1)
    return times.find(text, config.datefmt)


def _number(text: str) -> Any:
    return None if text in ("", "None") else float(text) if "." in text else int(text)


# --- JSON --------------------------------------------------------------------------------------------------

_PROBE: Final = "rlk-probe-{}"
_PROBE_FACTS: Final = Facts(
    _PROBE.format("producer"), _PROBE.format("host"), 70_001, _PROBE.format("processName"), 0.0, 0
)
_PROBED: Final = ("message", "name", "funcName", "threadName", "exc_text", "stack_info", "taskName")
_PROBED_NUMBERS: Final = {"process": 70_001, "lineno": 70_002, "thread": 70_003, "sequence": 70_004}
_PROBED_PATH: Final = "/rlk/rlk-probe-filename"
_EXTRA: Final = "rlkprobeextra"


def _probe(**rich: Any) -> record.Record:
    return record.build(
        created=times.MOMENT,
        levelno=logging.WARNING,
        levelname="WARNING",
        name=_PROBE.format("name"),
        message=_PROBE.format("message"),
        pathname=_PROBED_PATH,
        lineno=_PROBED_NUMBERS["lineno"],
        function=_PROBE.format("funcName"),
        thread=_PROBED_NUMBERS["thread"],
        thread_name=_PROBE.format("threadName"),
        **rich,
    )


#: Apart from one another: a layout may put exception and stack into one field.
_PROBES: Final = (
    _probe(exc_text=_PROBE.format("exc_text"), extra={_EXTRA: _PROBE.format("extra")}),
    _probe(stack_info=_PROBE.format("stack_info"), task_name=_PROBE.format("taskName")),
    # Type and message that a layout reads off an exception are no extras.
    _probe(exc_text="Traceback (most recent call last):\nValueError: x"),
)


class _JsonParser:
    def __init__(self, config: FormatterConfig) -> None:
        # What each line has besides is read as if it were an extra.
        render = formatting.build(replace(config, fields={}))
        trees = [json.loads(render(probe, _PROBE_FACTS, 70_004)) for probe in _PROBES]
        self._paths: dict[tuple[str, ...], tuple[str, Callable[[Any], Any]]] = {}
        self._extras: tuple[str, ...] | None = None
        self._own: set[tuple[str, ...]] = set()
        """Places that are taken by what is no extra."""
        known = {_PROBE.format(name): name for name in (*_PROBED, "host", "producer", "processName")}
        known |= {_PROBED_PATH: "pathname", _PROBED_PATH.rpartition("/")[2]: "filename"}
        numbers = {number: name for name, number in _PROBED_NUMBERS.items()}
        for path, value in (leaf for tree in trees for leaf in _leaves(tree, ())):
            self._own.add(path)
            if value == _PROBE.format("extra"):
                self._extras = path[:-1]
            elif isinstance(value, str) and value in known:
                self._paths.setdefault(path, (known[value], _same))
            elif isinstance(value, str) and value.upper() in ("WARNING", "WARN"):
                self._paths.setdefault(path, ("levelname", _level_name))
            elif isinstance(value, (int, str)) and str(value).isdecimal() and int(value) in numbers:
                self._paths.setdefault(path, (numbers[int(value)], int))
            elif (read := times.number_reader(value)) is not None:
                self._paths.setdefault(path, ("created", read))

    def begins(self, line: str) -> bool:  # noqa: ARG002 - it is a Parser
        return True

    def parse(self, text: str) -> dict[str, Any] | None:
        try:
            tree = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(tree, dict):
            return None
        values: dict[str, Any] = {}
        for path, (name, read) in self._paths.items():
            value = _at(tree, path)
            try:
                if value is not None:
                    values.setdefault(name, read(value))
            except (TypeError, ValueError, OverflowError):
                continue
        # A line of somebody else's may be JSON as well.
        if "message" not in values or "created" not in values:
            return None
        extras = _at(tree, self._extras) if self._extras is not None else None
        if isinstance(extras, dict):
            taken = {
                path[len(self._extras or ())]
                for path in self._own
                if path[: len(self._extras or ())] == self._extras
            }
            for name, value in extras.items():
                if name not in taken:
                    values.setdefault(name, value)
        return values

    def shows(self, name: str) -> bool:
        return self._extras is not None or any(name == known for known, _ in self._paths.values())


def _same(value: Any) -> Any:
    return value


def _level_name(value: Any) -> str:
    return {"WARN": "WARNING", "FATAL": "CRITICAL"}.get(str(value).upper(), str(value).upper())


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    else:
        yield path, value


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree

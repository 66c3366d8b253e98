"""Record → line. Pure: no file, no clock; the only state is a small cache of rendered seconds.

A text format is compiled once: it is parsed into fields, and a function is generated that fetches only the
values which the format names and formats them in one step. Its lines equal those of ``logging.Formatter``
byte for byte. What that function can not render (a field that the record does not have, ``%d`` of a text)
is rendered field by field, and if that fails as well, without the format: a record is never lost over its
looks.

The order in which a writer applies the parts: format, then the rules of ``redact``, then `apply_multiline` (files)
or `sanitise_terminal` and `colourise` (terminals). In JSON the rules are applied to each value before it is encoded.
"""

from __future__ import annotations

import logging
import os
import re
import string
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast

from redislogkit import json_lines
from redislogkit.config import FormatterConfig
from redislogkit.errors import ConfigError
from redislogkit.escaping import apply_multiline
from redislogkit.record import Facts, Loss, Record, attributes, safe_repr, safe_str
from redislogkit.record import build as build_record
from redislogkit.redaction import Redactor
from redislogkit.rendering import Formatter, timestamp

Style: TypeAlias = Literal["%", "{", "$"]

#: The format of a text formatter that names none, by style.
DEFAULT_FORMATS: Final[Mapping[Style, str]] = {
    "%": "%(asctime)s %(levelname)-8s %(name)s: %(message)s",
    "{": "{asctime} {levelname:<8} {name}: {message}",
    "$": "$asctime $levelname $name: $message",
}

_NOTHING: Final[Mapping[str, Any]] = {}
#: The overrides that generated code knows; a record with others is rendered from all its attributes.
_KNOWN_OVERRIDES: Final = frozenset({"process", "processName", "msecs"})
_CACHED_SECONDS: Final = 64


def build(config: FormatterConfig) -> Formatter:
    """Return the formatter that ``config`` describes. Raises ``ConfigError`` when its format is none."""
    redactor = redactor_of(config)
    if config.type == "json":
        utc = config.utc is not False
        return json_lines.compile_layout(config.layout, utc=utc, redactor=redactor, constant=config.fields)
    render = compile_format(
        _format(config), config.datefmt, config.style, config.optional_fields, utc=bool(config.utc)
    )
    if redactor is None:
        return render
    without = redactor.text
    return lambda record, facts, sequence: without(render(record, facts, sequence))


def redactor_of(config: FormatterConfig) -> Redactor | None:
    """Return what applies the rules of ``config``; None where it has none."""
    return Redactor(config.redact, config.redact_with) if config.redact else None


def _format(config: FormatterConfig) -> str:
    return DEFAULT_FORMATS[config.style] if config.format is None else config.format


def parse(config: FormatterConfig) -> Parsed | None:
    """Divide the format of ``config``; None when only the operator itself understands it."""
    return _PARSERS[config.style](_format(config))


# --- text --------------------------------------------------------------------------------------------------


class Field(NamedTuple):
    """A field of a format and the text before it."""

    literal: str
    """The text before the field."""
    name: str
    spec: str
    """How one value is rendered: ``%-8s`` or ``{0!r:<8}``; empty for the text at the end of a format."""


class Parsed(NamedTuple):
    """A format, divided into its fields."""

    fields: list[Field]
    operator: Literal["%", "{"]

    def template(self) -> str:
        """Return the format with positions in place of names."""
        percent = self.operator == "%"
        parts = []
        for index, (literal, _, spec) in enumerate(self.fields):
            safe = literal.replace("%", "%%") if percent else literal.replace("{", "{{").replace("}", "}}")
            parts += [safe, spec if percent else spec.replace("{0", "{" + str(index), 1)]
        return "".join(parts)

    def source(self) -> str:
        """Return an expression for the text, of what `EXPRESSIONS` are about.

        Text of the configuration enters it only by ``repr``, so that it stays data.
        """
        values = "".join(expression(field.name) + ", " for field in self.fields if field.spec)
        template = repr(self.template())
        return f"{template} % ({values})" if self.operator == "%" else f"{template}.format({values})"

    def render(self, field: Field, value: object) -> str:
        """Render one field alone."""
        if not field.spec:
            return ""
        return field.spec % (value,) if self.operator == "%" else field.spec.format(value)


class _Lenient(dict[str, Any]):
    """Attributes of a record in which a missing one is an empty text."""

    def __missing__(self, key: str) -> str:
        return ""


def compile_format(
    fmt: str,
    datefmt: str | None = None,
    style: Style = "%",
    optional_fields: tuple[str, ...] = (),
    *,
    utc: bool = False,
) -> Formatter:
    """Return a formatter whose lines equal those of ``logging.Formatter(fmt, datefmt, style)``.

    With ``utc`` their times are those of UTC, and with the ``datefmt`` `RFC3339` they are times of that standard.

    Each of ``optional_fields`` that a record has is appended as `` - field: value``, before the traceback.
    A record that carries its finished text is returned as that text. Raises ``ConfigError``.
    """
    try:
        logging.Formatter(fmt, datefmt, style)
    except ValueError as error:
        problem = f"format must be a logging format in style {style!r}, got {fmt!r}: {error}"
        raise ConfigError([problem]) from error
    asctime = _rfc3339_asctime(utc=utc) if datefmt == RFC3339 else _asctime(datefmt, utc=utc)
    parsed = _PARSERS[style](fmt)
    lenient = _lenient(fmt, style, parsed, optional_fields, asctime)
    return lenient if parsed is None else _generate(parsed, optional_fields, asctime, lenient)


_PERCENT_FIELD: Final = re.compile(
    r"%(?:%|\((?P<name>[^()]*)\)(?P<format>[-+ #0]*[0-9]*(?:\.[0-9]*)?)[hlL]?(?P<conversion>[diouxXeEfFgGrsa]))"
)


def _parse_percent(fmt: str) -> Parsed | None:
    """Parse a format of ``%(name)s``; None when it has parts that only the operator itself understands."""
    fields = []
    literal, position = "", 0
    for match in _PERCENT_FIELD.finditer(fmt):
        literal += fmt[position : match.start()]
        position = match.end()
        if match["name"] is None:
            literal += "%"
        else:
            fields.append(Field(literal, match["name"], f"%{match['format']}{match['conversion']}"))
            literal = ""
    rest = fmt[position:]
    odd = any("%" in part for part in _between(_PERCENT_FIELD, fmt))
    return None if odd else Parsed([*fields, Field(literal + rest, "", "")], "%")


def _between(pattern: re.Pattern[str], text: str) -> list[str]:
    ends = [0, *(match.end() for match in pattern.finditer(text))]
    starts = [*(match.start() for match in pattern.finditer(text)), len(text)]
    return [text[end:start] for end, start in zip(ends, starts, strict=True)]


_BRACE_NAME: Final = re.compile(r"(?P<name>[A-Za-z_]\w*)(?P<rest>(?:\.\w+|\[[^\[\]{}]+\])*)")


def _parse_brace(fmt: str) -> Parsed | None:
    """Parse a format of ``{name}``; None when a field nests others, or may render as a lone surrogate."""
    fields = []
    tail = ""
    for literal, name, spec, conversion in string.Formatter().parse(fmt):
        if name is None:
            tail += literal
            continue
        match = _BRACE_NAME.fullmatch(name)
        if match is None or "{" in (spec or "") or (spec or "").endswith("c"):
            return None
        suffix = f"!{conversion}" if conversion else ""
        suffix += f":{spec}" if spec else ""
        fields.append(Field(tail + literal, match["name"], f"{{0{match['rest']}{suffix}}}"))
        tail = ""
    return Parsed([*fields, Field(tail, "", "")], "{")


def _parse_dollar(fmt: str) -> Parsed | None:
    fields = []
    literal, position = "", 0
    for match in string.Template.pattern.finditer(fmt):
        literal += fmt[position : match.start()]
        position = match.end()
        name = match["named"] or match["braced"]
        if match["escaped"] is not None:
            literal += "$"
        elif name is None:
            return None
        else:
            fields.append(Field(literal, name, "%s"))
            literal = ""
    return Parsed([*fields, Field(literal + fmt[position:], "", "")], "%")


_PARSERS: Final[Mapping[Style, Callable[[str], Parsed | None]]] = {
    "%": _parse_percent,
    "{": _parse_brace,
    "$": _parse_dollar,
}

#: How generated code fetches an attribute: r record, f facts, q sequence, x extras, o overrides.
EXPRESSIONS: Final[Mapping[str, str]] = {
    "args": "None",
    "asctime": "asctime(r, o)",
    "created": "r.created",
    "exc_info": "None",
    "exc_text": "r.exc_text",
    "filename": "filename(r.pathname)",
    "funcName": "r.function",
    "host": "x.get('host', f.host)",
    "levelname": "r.levelname",
    "levelno": "r.levelno",
    "lineno": "r.lineno",
    "message": "r.message",
    "module": "module(r.pathname)",
    "msecs": "msecs(r, o)",
    "msg": "r.message",
    "name": "r.name",
    "pathname": "r.pathname",
    "process": "o.get('process', f.pid)",
    "processName": "o.get('processName', f.process_name)",
    "producer": "x.get('producer', f.producer)",
    "relativeCreated": "(r.created - f.started) * 1000",
    "sequence": "x.get('sequence', q)",
    "stack_info": "r.stack_info",
    "taskName": "r.task_name",
    "thread": "r.thread",
    "threadName": "r.thread_name",
}


def _generate(
    parsed: Parsed, optional_fields: tuple[str, ...], asctime: Callable[..., str], lenient: Formatter
) -> Formatter:
    """Compile the function that renders a record; it takes a fifth of the time of `_lenient`."""
    source = [
        "def render(r, f, q):",
        "    if r.text is not None:",
        "        return r.text",
        "    try:",
        "        o = r.overrides or nothing",
        "        if not known.issuperset(o):",
        "            return lenient(r, f, q)",
        "        x = r.extra or nothing",
        f"        s = {parsed.source()}",
        *_optional_source(optional_fields),
        "    except Exception:",
        "        return lenient(r, f, q)",
        "    return trail(s, r.exc_text, r.stack_info) if r.exc_text or r.stack_info else s",
    ]
    names: dict[str, Any] = {
        **FUNCTIONS,
        "asctime": asctime,
        "known": _KNOWN_OVERRIDES,
        "lenient": lenient,
        "nothing": _NOTHING,
        "trail": _with_trailer,
    }
    exec("\n".join(source), names)  # noqa: S102 - the source is ours, see above
    return cast("Formatter", names["render"])


def expression(name: str) -> str:
    """Return how generated code fetches an attribute, or an extra of that name."""
    return EXPRESSIONS.get(name) or f"x.get({name!r}, '')"


def _optional_source(optional_fields: tuple[str, ...]) -> list[str]:
    lines = []
    for name in optional_fields:
        label = f"{f' - {name}: '!r}"
        if name in EXPRESSIONS:
            lines.append(f"        s += {label} + str({EXPRESSIONS[name]})")
        else:
            lines += [f"        if {name!r} in x:", f"            s += {label} + str(x[{name!r}])"]
    return lines


def _lenient(
    fmt: str,
    style: Style,
    parsed: Parsed | None,
    optional_fields: tuple[str, ...],
    asctime: Callable[[Record, Mapping[str, Any]], str],
) -> Formatter:
    """Return the formatter for what generated code can not do: slower, and it renders whatever it can."""

    def render(record: Record, facts: Facts, sequence: int) -> str:
        if record.text is not None:
            return record.text
        try:
            values = _Lenient(attributes(record, facts, sequence))
            values["asctime"] = asctime(record, record.overrides or _NOTHING)
            line = _apply(fmt, style, values) if parsed is None else _apply_each(parsed, values)
            line += "".join(f" - {name}: {values[name]}" for name in optional_fields if name in values)
        except Exception as error:
            line = (
                f"{record.levelname} {record.name} {record.message} "
                f"[redislogkit: the format does not fit: {safe_repr(error)}]"
            )
        return _with_trailer(_encodable(line), record.exc_text, record.stack_info)

    return render


def _apply(fmt: str, style: Style, values: _Lenient) -> str:
    if style == "%":
        return fmt % values
    return fmt.format_map(values) if style == "{" else string.Template(fmt).substitute(values)


def _apply_each(parsed: Parsed, values: _Lenient) -> str:
    parts = []
    for field in parsed.fields:
        parts.append(field.literal)
        value = values[field.name]
        try:
            parts.append(parsed.render(field, value))
        except Exception:  # a number is asked for, the extra is a text or missing
            parts.append(safe_str(value))
    return "".join(parts)


def _with_trailer(line: str, exc_text: str | None, stack_info: str | None) -> str:
    for text in (exc_text, stack_info):
        if text:
            line = f"{line}{text}" if line[-1:] == "\n" else f"{line}\n{text}"
    return line


def _encodable(text: str) -> str:
    # A conversion to a character (%c) can make a lone surrogate, which no file takes.
    return text.encode("utf-8", "backslashreplace").decode()


@lru_cache(1024)
def _filename(pathname: str) -> str:
    return os.path.basename(pathname)


@lru_cache(1024)
def _module(pathname: str) -> str:
    return os.path.splitext(os.path.basename(pathname))[0]


def _msecs(record: Record, overrides: Mapping[str, Any]) -> Any:
    created = record.created
    return overrides.get("msecs", int((created - int(created)) * 1000) + 0.0)


#: What generated code calls.
FUNCTIONS: Final[Mapping[str, Any]] = {"filename": _filename, "module": _module, "msecs": _msecs}


#: A ``datefmt`` of our own.
RFC3339: Final = "rfc3339"


def show_second(second: float, datefmt: str | None, *, utc: bool) -> str:
    """Render the part of ``asctime`` that a whole second decides."""
    broken_down = time.gmtime(second) if utc else time.localtime(second)
    return time.strftime(datefmt or "%Y-%m-%d %H:%M:%S", broken_down)


def _rfc3339_asctime(*, utc: bool) -> Callable[[Record, Mapping[str, Any]], str]:
    return lambda record, _overrides: timestamp(record.created, utc=utc) or ""


def _asctime(datefmt: str | None, *, utc: bool) -> Callable[[Record, Mapping[str, Any]], str]:
    """Return the renderer of ``asctime``; each second is rendered once."""
    seconds: dict[float, str] = {}

    def render(record: Record, overrides: Mapping[str, Any]) -> str:
        created = record.created
        second = created // 1
        text = seconds.get(second)
        if text is None:
            if len(seconds) >= _CACHED_SECONDS:
                seconds.clear()
            text = seconds[second] = show_second(second, datefmt, utc=utc)
        if datefmt:
            return text
        msecs = overrides["msecs"] if "msecs" in overrides else (created - int(created)) * 1000
        return f"{text},{int(msecs):03d}"

    return render


# --- the loss ledger ---------------------------------------------------------------------------------------


def render_loss(loss: Loss, facts: Facts) -> str:
    """Render one line of the loss ledger: when, who lost which records, and why."""
    return f"{timestamp(loss.created)} WARNING redislogkit: {_loss_message(loss, facts)}"


def loss_record(loss: Loss, facts: Facts) -> Record:
    """Return the loss as a record, so that any formatter can render it."""
    return build_record(
        created=loss.created,
        levelno=logging.WARNING,
        levelname="WARNING",
        name="redislogkit",
        message=_loss_message(loss, facts),
        pathname="",
        lineno=0,
        function="",
        thread=None,
        thread_name=None,
    )


def _loss_message(loss: Loss, facts: Facts) -> str:
    count = loss.last - loss.first + 1
    which = f"sequence {loss.first}" if count == 1 else f"sequences {loss.first} to {loss.last}"
    text = (
        f"{count} record{'s' if count != 1 else ''} dropped, {which} of producer {facts.producer} "
        f"(host {facts.host}, pid {facts.pid}, {facts.process_name}): {loss.cause}"
    )
    return apply_multiline(text, "escape")

"""Writes the reference in ``configuration.md`` from the schema: ``python docs/configuration_reference.py``.

The text before and after the two marks is written by hand; a test fails when what lies between them is not
what the schema says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec

from redislogkit.config_explain import bounds, choices
from redislogkit.config_reader import kind_of
from redislogkit.config_schema import (
    Config,
    CustomWriterConfig,
    FileWriterConfig,
    FormatterConfig,
    MetricsConfig,
    ProducerConfig,
    RedisConfig,
    Section,
    StderrWriterConfig,
    StdoutWriterConfig,
    StreamConfig,
    SupervisorConfig,
    TtyWriterConfig,
)

PAGE = Path(__file__).with_name("configuration.md")
BEGIN = "<!-- begin of the reference: python docs/configuration_reference.py writes it -->\n"
END = "<!-- end of the reference -->\n"

SECTIONS: dict[str, type[Section]] = {
    "Top of the file": Config,
    "`[redis]`": RedisConfig,
    "`[stream]`": StreamConfig,
    "`[producer]`": ProducerConfig,
    "`[formatters.NAME]`": FormatterConfig,
    '`[writers.NAME]` with `type = "file"`': FileWriterConfig,
    '`[writers.NAME]` with `type = "tty"`': TtyWriterConfig,
    '`[writers.NAME]` with `type = "stdout"`': StdoutWriterConfig,
    '`[writers.NAME]` with `type = "stderr"`': StderrWriterConfig,
    '`[writers.NAME]` with `type = "custom"`': CustomWriterConfig,
    "`[supervisor]`": SupervisorConfig,
    "`[metrics]`": MetricsConfig,
}


def reference() -> str:
    """Return the reference: a table for each section."""
    return "\n".join(_section(title, schema) for title, schema in SECTIONS.items())


def page(text: str) -> str:
    """Return the text of the page with the reference of today."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{reference()}\n{END}{after}"


def _section(title: str, schema: type[Section]) -> str:
    rows = [_row(field) for field in msgspec.structs.fields(schema) if _note(field.type) is not None]
    doc = "" if schema is Config else f"{schema.__doc__}\n\n"
    head = "| Key | Value | Default | Meaning |\n|---|---|---|---|\n"
    return f"### {title}\n\n{doc}{head}{''.join(rows)}"


def _row(field: msgspec.structs.FieldInfo) -> str:
    note = _note(field.type)
    assert note is not None
    cells = (f"`{field.name}`", _value(field.type), _default(field), note.description or "")
    return f"| {' | '.join(cells)} |\n"


def _note(schema: Any) -> msgspec.Meta | None:
    """Return what describes a field; fields of the resolved configuration alone have nothing that does."""
    notes = getattr(schema, "__metadata__", ())
    return next((note for note in notes if note.description), None)


def _value(schema: Any) -> str:
    if options := choices(schema):
        return ", ".join(f'`"{option}"`' for option in options)
    kind = kind_of(schema)
    inner = schema
    while get_origin(inner) is Annotated:
        inner = get_args(inner)[0]
    names = {
        bool: "`true`, `false`",
        bool | None: "`true`, `false`",
        str: "text",
        int: "whole number",
        FormatterConfig: "name",
        tuple[str, ...]: "list of texts",
    }
    label = kind.label if kind else names[inner]
    limits = bounds(schema, kind)
    return f"{label}, {limits}" if limits else label


def _default(field: msgspec.structs.FieldInfo) -> str:
    kind, value = kind_of(field.type), field.default
    if field.default_factory is dict:
        return "`{}`"
    if value is msgspec.NODEFAULT:
        return "required"
    if value is None:
        return "–"
    if isinstance(value, FormatterConfig):
        return '`"plain"`'
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`[]`"
    if isinstance(value, str):
        return f'`"{value}"`'
    shown = kind.show(value) if kind else str(value)
    return f'`"{shown}"`' if " " in shown else f"`{shown}`"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

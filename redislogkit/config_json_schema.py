"""The JSON Schema of a configuration, for editors: made from the sections and kinds that the reader goes by.

It says what may stand in a *file*, where sizes and durations are texts, a formatter is a name, and any value may come
from the environment. What depends on several keys is left to ``redislogkit check``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Final, get_args, get_origin

import msgspec
from msgspec import inspect

from redislogkit.config_explain import choices
from redislogkit.config_reader import DEFAULT_LOGGERS, WRITERS, kind_of
from redislogkit.config_schema import VERSION, Config, FormatterConfig, Section
from redislogkit.config_values import (
    CALLABLE,
    COLORS,
    DURATION,
    FIELDS,
    LEVEL,
    LEVEL_NAMES,
    MODE,
    NAME,
    OPTIONS,
    PATTERNS,
    REDACT,
    SIZE,
    SIZE_UNITS,
    TIME_UNITS,
    URL,
    WHEN,
    Kind,
)

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_TEXTS: Final[Schema] = {"type": "array", "items": _TEXT}
#: What comes from the environment is checked when it is there.
_VARIABLE: Final[Schema] = {"type": "string", "pattern": r"\$\{"}


def _quantity(units: Iterable[str]) -> Schema:
    """Return the schema of text such as ``10 MiB``: a number and a unit, in any case, or none."""
    names = "|".join("".join(f"[{char}{char.upper()}]" for char in unit) for unit in units)
    return {"type": "string", "pattern": rf"^\s*\+?\d+(\.\d+)?\s*({names})\s*$"}


#: What may stand in a file for each kind of value; a number has the bounds of its field.
_KINDS: Final[Mapping[Kind, list[Schema]]] = {
    SIZE: [{"type": "integer"}, _quantity(SIZE_UNITS)],
    DURATION: [{"type": "number"}, _quantity(TIME_UNITS)],
    LEVEL: [{"type": "integer", "minimum": 0}, {"type": "string", "examples": list(LEVEL_NAMES)}],
    MODE: [{"type": "string", "pattern": "^(0o)?0?[67][0-7]{2}$"}],
    WHEN: [{"type": "string", "pattern": "^([SMHDsmhd]|[mM][iI][dD][nN][iI][gG][hH][tT]|[wW][0-6])$"}],
    NAME: [{"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$"}],
    URL: [{"type": "string", "pattern": "^(embedded|rediss?|unix)://"}],
    PATTERNS: [_TEXTS],
    REDACT: [_TEXTS],
    CALLABLE: [_TEXT],
    FIELDS: [{"type": "object"}],
    COLORS: [{"type": "object", "additionalProperties": _TEXT}],
    OPTIONS: [{"type": "object"}],
}
#: These take a variable as they take any text, or in their items.
_ANY_TEXT: Final = frozenset([LEVEL, PATTERNS, REDACT, CALLABLE, COLORS, FIELDS, OPTIONS])
_BOUNDS: Final = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}


def schema() -> Schema:
    """Return the schema, of draft 7, which editors know."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "redislogkit",
        "description": "Configuration of redislogkit. 'redislogkit check' checks all of it.",
        **_object(Config, {"source"}, version={"const": VERSION, "default": VERSION}),
    }


def _object(section: type[Section], left_out: Collection[str] = (), **given: Schema) -> Schema:
    """Return what a table may hold; a section's own tag is among it."""
    fields = [field for field in msgspec.structs.fields(section) if field.name not in left_out]
    properties = {field.name: given.get(field.name) or _field(field) for field in fields}
    is_top = section is Config
    required = [field.name for field in fields if field.required and not is_top]
    tag = section.__struct_config__.tag
    if tag is not None:
        properties = {"type": {"const": tag}, **properties}
        required = ["type", *required]
    made: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**made, "required": required} if required else made


def _field(field: msgspec.structs.FieldInfo) -> Schema:
    bare = _bare(field.type)
    if isinstance(bare, type) and issubclass(bare, Section) and bare is not FormatterConfig:
        return {"description": bare.__doc__, **_object(bare)}
    if field.name in ("loggers", "formatters", "writers") and get_origin(bare) is dict:
        return _tables(field.name, get_args(bare)[1])
    made = _described(field.type, _value(field.type, bare))
    default = _default(field)
    return made if default is None else {**made, "default": default}


def _tables(name: str, inner: Any) -> Schema:
    """Return what stands below ``[loggers]``, ``[formatters.NAME]`` or ``[writers.NAME]``."""
    if name == "loggers":
        return {
            "type": "object",
            "additionalProperties": _described(inner, _value(inner, int)),
            "default": DEFAULT_LOGGERS,
        }
    if name == "writers":
        kinds = [
            {"title": tag, "description": kind.__doc__, **_object(kind)} for tag, kind in WRITERS.items()
        ]
        return {"type": "object", "additionalProperties": {"oneOf": kinds}}
    return {"type": "object", "additionalProperties": {"description": inner.__doc__, **_object(inner)}}


def _value(full: Any, bare: Any) -> Schema:
    if options := choices(full):
        return {"anyOf": [{"enum": list(options)}, _VARIABLE]}
    kind = kind_of(full)
    if kind is not None and kind in _KINDS:
        alternatives = [_bounded(full, one) for one in _KINDS[kind]]
        return _any_of(alternatives if kind in _ANY_TEXT else [*alternatives, _VARIABLE])
    if bare is bool:
        return _any_of([{"type": "boolean"}, _VARIABLE])
    if bare is int:
        return _any_of([_bounded(full, {"type": "integer"}), _VARIABLE])
    if get_origin(bare) is tuple:
        return _TEXTS
    return _TEXT


def _any_of(alternatives: list[Schema]) -> Schema:
    return alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}


def _bounded(full: Any, made: Schema) -> Schema:
    """Return the schema of a number with the bounds that its field has."""
    if made["type"] not in ("integer", "number"):
        return made
    info: Any = inspect.type_info(full)
    while not isinstance(info, (inspect.IntType, inspect.FloatType)):
        if isinstance(info, inspect.UnionType):
            info = next(one for one in info.types if not isinstance(one, inspect.NoneType))
        else:
            info = info.type
    limits = {_BOUNDS[name]: getattr(info, name) for name in _BOUNDS if getattr(info, name) is not None}
    return {**made, **limits}


def _described(full: Any, made: Schema) -> Schema:
    notes = [note for note in getattr(full, "__metadata__", ()) if getattr(note, "description", None)]
    return {"description": notes[0].description, **made} if notes else made


def _bare(schema: Any) -> Any:
    """Return a field's type without annotations and without ``| None``."""
    while get_origin(schema) is Annotated:
        schema = get_args(schema)[0]
    rest = [one for one in get_args(schema) if one is not type(None)]
    return _bare(rest[0]) if type(None) in get_args(schema) else schema


def _default(field: msgspec.structs.FieldInfo) -> Any:
    """Return the default as one writes it in the file; None where there is none."""
    value, kind = field.default, kind_of(field.type)
    if isinstance(value, FormatterConfig):
        return "plain"
    if value is msgspec.NODEFAULT or value is None or not isinstance(value, (str, int, float, tuple)):
        return None
    if kind is LEVEL:
        return LEVEL.show(value).strip('"')
    if kind is SIZE and not SIZE.show(value).isdecimal():
        return SIZE.show(value)
    return list(value) if isinstance(value, tuple) else value

"""A configuration as the TOML file that one would write for it: every key, defaults included, without secrets."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import tomli

from redislogkit.config_explain import KeyPath, choices, find_places
from redislogkit.config_reader import kind_of
from redislogkit.config_schema import Config, Section
from redislogkit.config_values import LEVEL, MODE, SIZE, redact, variables

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_ONE_VARIABLE: Final = re.compile(r"\$\{\w+\}")


class Written(NamedTuple):
    """A configuration's file as it stands there: variables are not expanded."""

    label: str
    """Name of the file, without its folder."""
    text: str
    tree: Mapping[str, Any]

    @classmethod
    def of(cls, config: Config) -> Written:
        """Read the file of ``config`` again. Raises ``OSError``, and ``ValueError`` where it is no TOML any more."""
        assert config.source is not None
        with open(config.source, encoding="utf-8-sig") as file:
            text = file.read()
        return cls(os.path.basename(config.source), text, tomli.loads(text))


class Line(NamedTuple):
    """A line of the TOML file, and the key that it sets; empty: a table's head or a blank line."""

    text: str
    path: KeyPath = ()


def effective(config: Config, written: Mapping[str, Any]) -> Iterator[Line]:
    """Yield the lines of a TOML file with every key of ``config``.

    Text that came from the environment is shown as ``written``, the tree of the file, has it; a url without
    user, password and parameters.
    """
    for field in msgspec.structs.fields(config):
        name, value = field.name, getattr(config, field.name)
        if name == "source":
            continue
        if isinstance(value, Section):
            yield from _table((name,), _values(value, written.get(name, {})))
        elif name == "loggers":
            yield from _table((name,), {logger: _level(level) for logger, level in value.items()})
        elif isinstance(value, Mapping):
            for key, section in value.items():
                yield from _table((name, key), _named(config, section, _below(written, name, key)))
        else:
            shown = _text(name, value, written.get(name)) if isinstance(value, str) else value
            yield Line(f"{name} = {_toml(shown)}", (name,))


def _named(config: Config, section: Section, written: Mapping[str, Any]) -> dict[str, Any]:
    values = _values(section, written)
    if "formatter" in values:
        values["formatter"] = _formatter_name(config, values["formatter"], written.get("formatter"))
    return values


def origins(written: Written) -> Callable[[KeyPath], str]:
    """Return what tells for a key where its value comes from: ``log.toml:7``, ``log.toml:7, $LEVEL`` or ``default``."""
    places = find_places(written.label, written.text, written.tree, {})

    def origin(path: KeyPath) -> str:
        if path not in places:
            return "default"
        value: Any = written.tree
        for key in path:
            value = value[key]
        # A format is not expanded: ``${...}`` is its own.
        names = [] if path[0] == "formatters" and path[-1] == "format" else variables(value)
        return ", ".join([places[path].label, *(f"${name}" for name in names)])

    return origin


def _below(written: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    for key in path:
        written = written.get(key, {})
    return written


def _values(section: Section, written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a section that have a value, as one would write them."""
    tag = section.__struct_config__.tag
    values: dict[str, Any] = {} if tag is None else {"type": tag}
    for field in msgspec.structs.fields(section):
        value = getattr(section, field.name)
        if value is None:
            continue
        if isinstance(value, Mapping):
            value = written.get(field.name, value)
        if isinstance(value, (str, tuple)) and not choices(field.type):
            value = _text(field.name, value, written.get(field.name))
        values[field.name] = _as_one_writes_it(field.type, value)
    return values


def _text(name: str, value: Any, written: Any) -> Any:
    """Return free text so that no secret shows."""
    parts = written if isinstance(written, (list, tuple)) else [written]
    expanded = value != written and any(isinstance(part, str) and "${" in part for part in parts)
    if name == "url":
        return (
            written
            if expanded and _ONE_VARIABLE.fullmatch(written)
            else redact(written if expanded else value)
        )
    return written if expanded else value


def _as_one_writes_it(schema: Any, value: Any) -> Any:
    kind = kind_of(schema)
    if kind is LEVEL:
        return _level(value)
    if kind is MODE:
        return f"{value:04o}"
    if kind is SIZE:
        text = SIZE.show(value)
        return value if text.isdecimal() else text
    return value


def _level(level: int) -> str | int:
    name: object = logging.getLevelName(level)
    return name if isinstance(name, str) and logging.getLevelName(name) == level else level


def _formatter_name(config: Config, formatter: object, written: object) -> str:
    named = [written] if isinstance(written, str) else []
    return next(name for name in [*named, *config.formatters] if config.formatters.get(name) == formatter)


def _table(path: tuple[str, ...], values: Mapping[str, Any]) -> Iterator[Line]:
    yield Line("")
    yield Line(f"[{'.'.join(map(_key, path))}]")
    yield from (Line(f"{_key(name)} = {_toml(value)}", (*path, name)) for name, value in values.items())


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _toml(name)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_key(str(key))} = {_toml(item)}' for key, item in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)

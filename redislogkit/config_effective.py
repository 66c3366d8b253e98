"""A configuration as the TOML file that one would write for it: every key, defaults included, without secrets."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import tomli

from redislogkit.config_explain import choices
from redislogkit.config_reader import kind_of
from redislogkit.config_schema import Config, Section
from redislogkit.config_values import LEVEL, MODE, SIZE, redact

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_ONE_VARIABLE: Final = re.compile(r"\$\{\w+\}")


def as_written(config: Config) -> Mapping[str, Any]:
    """Return the tree of the configuration's file, in which variables are not expanded."""
    assert config.source is not None
    with open(config.source, encoding="utf-8-sig") as file:
        return tomli.loads(file.read())


def effective(config: Config, written: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a TOML file with every key of ``config``.

    Text that came from the environment is shown as ``written``, the tree of the file, has it; a url without
    user, password and parameters.
    """
    yield f"version = {config.version}"
    yield f"state_dir = {_toml(_text('state_dir', config.state_dir, written.get('state_dir')))}"
    for name in ("redis", "stream", "producer"):
        yield from _table([name], _values(getattr(config, name), written.get(name, {})))
    yield from _table(["loggers"], {name: _level(level) for name, level in config.loggers.items()})
    for name, formatter in config.formatters.items():
        yield from _table(["formatters", name], _values(formatter, _below(written, "formatters", name)))
    for name, writer in config.writers.items():
        section = _below(written, "writers", name)
        values = _values(writer, section)
        values["formatter"] = _formatter_name(config, writer.formatter, section.get("formatter"))
        yield from _table(["writers", name], values)
    for name in ("supervisor", "metrics"):
        yield from _table([name], _values(getattr(config, name), written.get(name, {})))


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


def _table(path: list[str], values: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n[{'.'.join(map(_key, path))}]"
    yield from (f"{_key(name)} = {_toml(value)}" for name, value in values.items())


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _toml(name)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)

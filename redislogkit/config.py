"""One TOML file → frozen values, or one error that explains everything that is wrong with it.

The way of a configuration: `load` finds and parses the file and puts the overrides over it, ``config_reader``
turns the tree into the sections of ``config_schema``, with ``config_values`` for single values, and
``config_explain`` says what is wrong and where. Nothing half-configured is ever returned: every problem is
collected first, then `ConfigError` has all of them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec
import tomli

from redislogkit.config_explain import Place, Problem, explain, find_places
from redislogkit.config_reader import Reader
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
    WriterConfig,
)
from redislogkit.config_values import Code
from redislogkit.errors import ConfigError, CorruptDataError

__all__ = [
    "Config",
    "CustomWriterConfig",
    "FileWriterConfig",
    "FormatterConfig",
    "MetricsConfig",
    "ProducerConfig",
    "RedisConfig",
    "StderrWriterConfig",
    "StdoutWriterConfig",
    "StreamConfig",
    "SupervisorConfig",
    "TtyWriterConfig",
    "WriterConfig",
    "digest",
    "from_bytes",
    "load",
    "salvage",
    "to_bytes",
]

VARIABLE = "REDISLOGKIT_CONFIG"
DEFAULT_FILE = "log.toml"


class _Source(NamedTuple):
    """A configuration as it came: how messages call it, its text if it is a file, and its tree."""

    label: str
    tree: Mapping[Any, Any]
    text: str | None = None
    path: str | None = None


def load(
    source: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """Load a configuration.

    Args:
        source: path of a TOML file, a mapping of the same shape, or None for the file that
            ``$REDISLOGKIT_CONFIG`` names, else ``log.toml`` in the current directory.
        overrides: values that win over the source, nested or with dotted keys:
            ``{"producer.level": "INFO"}``. None as a value takes a key away.
        environ: where ``${NAME}`` is looked up.

    Raises:
        ConfigError: with every problem of the configuration.
        TypeError: ``source`` is something else.
    """
    found = _from_mapping(source) if isinstance(source, Mapping) else _from_file(source, environ)
    changes = _nested(overrides or {})
    reader = Reader(environ, os.path.dirname(found.path) if found.path else "")
    config = reader.config(_merged(found.tree, changes), found.path)
    if config is None:
        places = find_places(found.label, found.text, found.tree, changes)
        raise ConfigError(explain(reader.problems, places))
    return config


def salvage(
    source: str | os.PathLike[str] | None = None, *, environ: Mapping[str, str] = os.environ
) -> Config | None:
    """Return a configuration with the ``source``, ``state_dir`` and ``stream.name`` of a file that is wrong; None where they are, too.

    All else has its default. Lines that are no TOML are passed over, as far as there are few.
    """
    label, _ = _label(source, environ)
    path = os.path.abspath(os.path.expanduser(label))
    try:
        lines = _read(path, label, "").splitlines()
    except ConfigError:
        lines = []  # it may have been removed
    tree = _what_can_be_parsed(lines)
    stream = tree.get("stream")
    name = stream.get("name") if isinstance(stream, Mapping) else None
    where = {"state_dir": tree.get("state_dir"), "stream": {"name": name}}
    return Reader(environ, os.path.dirname(path)).config(where, path)


def _what_can_be_parsed(lines: list[str]) -> dict[str, Any]:
    for _ in range(_MOST_BAD_LINES):
        try:
            return tomli.loads("\n".join(lines))
        except tomli.TOMLDecodeError as error:
            bad = min(error.lineno, len(lines)) - 1
            lines = lines[:bad] + lines[bad + 1 :]
        except (ValueError, RecursionError):
            break
    return {}


_MOST_BAD_LINES = 20


def _from_mapping(tree: Mapping[Any, Any]) -> _Source:
    return _Source("configuration", tree)


def _from_file(source: object, environ: Mapping[str, str]) -> _Source:
    label, why = _label(source, environ)
    path = os.path.abspath(os.path.expanduser(label))
    text = _read(path, label, why)
    return _Source(label, _parse(text, label), text, path)


def _label(source: object, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return how a file is called, and why it is this one."""
    if source is None:
        named = environ.get(VARIABLE)
        why = f"named by ${VARIABLE}" if named else f"no path was given and ${VARIABLE} is not set"
        return named or DEFAULT_FILE, why
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source), ""
    raise TypeError(f"a configuration is a path, a mapping or None, got {type(source).__name__}")


def _read(path: str, label: str, why: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read()
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        fault = f"there is no such file, looked for {path}"
    except IsADirectoryError:
        fault = f"must be a file, but {path} is a directory"
    except OSError as error:
        fault = f"can not be read: {error.strerror}"
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        label, fault = f"{label}:{line}", "must be UTF-8"
    except ValueError:
        fault = "is no path, it has NUL in it"
    raise _refused(label, f"{fault} ({why})" if why else fault)


def _parse(text: str, label: str) -> dict[str, Any]:
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        label = f"{label}:{error.lineno}:{error.colno}"
        fault = f"is not TOML: {error.msg}"
    except (ValueError, RecursionError):  # a number of thousands of digits, hundreds of brackets
        fault = "is not TOML that any program would read"
    # Raised out here, because the parser's error holds the whole text, passwords included.
    raise _refused(label, fault)


def _refused(label: str, fault: str) -> ConfigError:
    return ConfigError(explain([Problem((), fault)], {(): Place(0, label)}))


def _nested(overrides: Mapping[Any, Any]) -> dict[Any, Any]:
    """Turn dotted keys into tables. A logger's name keeps its dots: ``loggers.my.app`` is one level deep."""
    tree: dict[Any, Any] = {}
    for key, value in overrides.items():
        depth = 2 if str(key).startswith(("writers.", "formatters.")) else 1
        *parts, last = key.split(".", depth) if isinstance(key, str) else [key]
        for part in reversed([*parts, last]):
            value = {part: value}  # noqa: PLW2901 - wrapped from the inside out
        tree = _merged(tree, value)
    return tree


def _merged(base: Mapping[Any, Any], changes: Mapping[Any, Any]) -> dict[Any, Any]:
    """Put ``changes`` over ``base``, table by table."""
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return merged


def to_bytes(config: Config) -> bytes:
    """Encode a configuration for another process. It holds passwords: send it through a pipe."""
    return msgspec.msgpack.encode(config)


def from_bytes(data: bytes) -> Config:
    """Decode what `to_bytes` made; raises `CorruptDataError`."""
    try:
        return msgspec.msgpack.decode(data, type=Config)
    except msgspec.DecodeError:
        pass
    # Not chained: the decoder's message may show a value.
    raise CorruptDataError("these bytes are no configuration that this version of redislogkit has made")


def digest(config: Config) -> str:
    """Return 64 hexadecimal digits that are equal for configurations of equal content.

    Code that can not be imported is equal where its fingerprint is.
    """
    writers = {name: _without_pickles(writer) for name, writer in config.writers.items()}
    content = msgspec.structs.replace(config, source=None, writers=writers)
    return hashlib.sha256(msgspec.msgpack.Encoder(order="sorted").encode(content)).hexdigest()


S = TypeVar("S", bound=Section)


def _without_pickles(section: S) -> S:
    changes = {
        name: msgspec.structs.replace(value, pickled=b"", name="")
        for name in section.__struct_fields__
        if isinstance(value := getattr(section, name), Code)
    }
    return msgspec.structs.replace(section, **changes) if changes else section

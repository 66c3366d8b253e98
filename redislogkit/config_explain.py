"""What is wrong with a configuration, and where it stands. Pure.

One line a problem: ``log.toml:9: writers.app.rotat: unknown key 'rotat'; did you mean 'rotate'?``. The
parser does not keep positions, so the text is read a second time for them, and only when something is wrong.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, get_args, get_origin

import tomli
from msgspec import inspect

from redislogkit.config_values import URL, Kind, nearest, redact

KeyPath: TypeAlias = "tuple[object, ...]"

_LONGEST = 60
_OVERRIDE_LINE = 1 << 30


class Problem(NamedTuple):
    """One fault: the key it is about, and a text that is safe to show."""

    path: KeyPath
    text: str


class Place(NamedTuple):
    """Where a key was set. The line orders the problems."""

    line: int
    label: str


def explain(problems: Iterable[Problem], places: Mapping[KeyPath, Place]) -> list[str]:
    """Return the lines of a `ConfigError`, in the order of the file; those about overrides come last."""
    located = [(_place(problem.path, places), problem) for problem in problems]
    located.sort(key=lambda item: item[0].line)
    return [
        f"{place.label}: {show_path(problem.path)}: {problem.text}"
        if problem.path
        else f"{place.label}: {problem.text}"
        for place, problem in located
    ]


def find_places(
    label: str, text: str | None, tree: Mapping[Any, Any], overrides: Mapping[Any, Any]
) -> dict[KeyPath, Place]:
    """Return where each key was set: in a line of the file, in the mapping, or by an override."""
    places: dict[KeyPath, Place] = {(): Place(0, label)}
    if text is not None:
        places |= {path: Place(line, f"{label}:{line}") for path, line in key_lines(text).items()}
    else:
        places |= {path: Place(0, label) for path, _ in _walk(tree)}
    override = Place(_OVERRIDE_LINE, "override")
    for path, value in _walk(overrides):
        if isinstance(value, Mapping):
            places.setdefault(path, override)
        else:
            places[path] = override
    return places


def _place(path: KeyPath, places: Mapping[KeyPath, Place]) -> Place:
    while path not in places:
        path = path[:-1]
    return places[path]


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the line at which each key of a valid TOML text is first set.

    Statement by statement: lines are put together until they parse, then the keys found are new ones.
    """
    found: dict[KeyPath, int] = {}
    header, statement, start = "", "", 1
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        statement += line + "\n"
        is_header = statement.lstrip().startswith("[")
        try:
            tree = tomli.loads(statement if is_header else header + statement)
        except ValueError:  # a value that goes on in the next line
            continue
        if is_header:
            header = statement
        for path, _ in _walk(tree):
            found.setdefault(path, start)
        statement, start = "", number + 1
    return found


def _walk(tree: Mapping[Any, Any], above: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    for key, value in tree.items():
        path = (*above, key)
        yield path, value
        if isinstance(value, Mapping):
            yield from _walk(value, path)


def show_path(path: KeyPath) -> str:
    """Return a key path as one writes it in TOML, on one line and not too long."""
    return ".".join(_show_key(key) for key in path)


def _show_key(key: object) -> str:
    if isinstance(key, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,60}", key):
        return key
    return shown(key).replace("'", '"')


def shown(value: object, kind: Kind | None = None) -> str:
    """Return a value for a message: on one line, shortened, without what a url or a table may hide."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, (list, tuple, set, frozenset)):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _shorten(repr(redact(value) if kind is URL or "://" in value else value))
    if isinstance(value, os.PathLike):
        return shown(os.fsdecode(value))
    if isinstance(value, (float, dt.date, dt.time)):
        return _shorten(str(value))
    if isinstance(value, int):
        return _shorten(str(value)) if abs(value) < 2**64 else "a huge number"
    return f"a {type(value).__name__}"


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 2]}…{text[-1]}"


def unknown_key(key: object, names: Iterable[str]) -> str:
    """Return the problem of a key that does not exist."""
    names = sorted(names)
    hint = nearest(str(key), names) or f"known here: {', '.join(names)}"
    return f"unknown key {shown(key)}; {hint}"


def describe(schema: Any, kind: Kind | None = None) -> str:
    """Return what a field takes, as ``a whole number >= 1``."""
    if values := choices(schema):
        return " or ".join(f'"{value}"' for value in values)
    info = _plain(inspect.type_info(schema))
    if isinstance(info, inspect.BoolType):
        return "true or false"
    if isinstance(info, (inspect.VarTupleType, inspect.ListType)):
        return "a list of texts"
    if kind is not None:
        noun = kind.noun
    elif isinstance(info, inspect.IntType):
        noun = "a whole number"
    else:
        noun = "text"
    bounds = _bounds(info, kind)
    return f"{noun}, {bounds}" if bounds and kind else f"{noun} {bounds}".rstrip()


def rule(schema: Any, value: object, kind: Kind | None = None) -> str:
    """Return the rule that ``value``, which msgspec refused, breaks."""
    info = _plain(inspect.type_info(schema))
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    is_number = is_whole or isinstance(value, float)
    if (isinstance(info, inspect.IntType) and is_whole) or (
        isinstance(info, inspect.FloatType) and is_number
    ):
        return f"must be {_bounds(info, kind)}"
    return f"must be {describe(schema, kind)}"


def hint(schema: Any, value: object) -> str:
    """Return ``did you mean 'x'?`` where ``value`` is nearly one of the choices."""
    return nearest(value, choices(schema)) if isinstance(value, str) else ""


def choices(schema: Any) -> tuple[str, ...]:
    """Return the texts that a field allows, as they are declared; empty where it takes others, too."""
    while get_origin(schema) is Annotated:
        schema = get_args(schema)[0]
    return get_args(schema) if get_origin(schema) is Literal else ()


def bounds(schema: Any, kind: Kind | None = None) -> str:
    """Return the bounds of a number, as ``>= 1 and <= 60``; empty where there are none."""
    return _bounds(_plain(inspect.type_info(schema)), kind)


def _bounds(info: Any, kind: Kind | None) -> str:
    show = kind.show if kind else str
    signs = (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
    limits = [(sign, getattr(info, name, None)) for name, sign in signs]
    return " and ".join(f"{sign} {show(limit)}" for sign, limit in limits if limit is not None)


def _plain(info: Any) -> Any:
    """Take annotations and ``| None`` off a type."""
    while isinstance(info, inspect.Metadata):
        info = info.type
    if isinstance(info, inspect.UnionType):
        return _plain(next(item for item in info.types if not isinstance(item, inspect.NoneType)))
    return info

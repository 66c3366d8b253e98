"""What stands in a configuration → values: sizes, durations, levels, modes, urls, formats. Pure.

A parser takes one value as it stood in the file, with ``${ENV}`` already expanded, and returns what the
program works with. What it can not take it refuses with `RefusedError`, which holds the rule but never the
value: how much of a value may be shown is decided in one place, `config_explain.shown`.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from string import Template
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import msgspec

from redislogkit.record import Facts, attributes, build

Style = Literal["%", "{", "$"]

_EXAMPLE_FORMATS: Final[Mapping[Style, str]] = {"%": "%(message)s", "{": "{message}", "$": "${message}"}
LEVEL_NAMES: Final = ("NOTSET", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
#: Query parameters of a redis url that are allowed. Time-outs and retries are not: they are the client's own.
URL_PARAMETERS: Final = ("db", "username", "password")
TLS_PARAMETERS: Final = (
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_password",
    "ssl_cert_reqs",
    "ssl_check_hostname",
)

SIZE_UNITS: Final = {"": 1, "b": 1} | {
    f"{prefix}{suffix}": base ** (power + 1)
    for power, prefix in enumerate("kmgt")
    for suffix, base in (("b", 1000), ("ib", 1024))
}
TIME_UNITS: Final = {
    unit: seconds
    for units, seconds in (
        ("ms millisecond milliseconds", 0.001),
        (" s sec second seconds", 1),
        ("m min minute minutes", 60),
        ("h hour hours", 3600),
        ("d day days", 86_400),
        ("w week weeks", 604_800),
    )
    for unit in units.split(" ")
}
_QUANTITY: Final = re.compile(r"\s*([+-]?\d{1,18}(?:\.\d{1,9})?)\s*([A-Za-z]*)\s*", re.ASCII)
_VARIABLE: Final = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|(\{))")
_WHEN: Final = re.compile(r"[SMHD]|MIDNIGHT|W[0-6]", re.IGNORECASE)
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|[0-9a-f:.]+:[0-9a-f:.]*", re.IGNORECASE)
_LISTEN: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})", re.ASCII)


_REFERENCE: Final = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*|\w[\w.-]*"


class Code(msgspec.Struct, frozen=True):
    """A callable that can not be imported, as a configuration carries it. See `redislogkit.callables`."""

    name: str
    """For messages."""
    fingerprint: str
    """Equal for callables that do the same."""
    pickled: bytes
    """Made by dill; bound to this version of Python."""

    def __repr__(self) -> str:
        return f"<{self.name}>"


class RefusedError(ValueError):
    """A value is refused. ``rule`` says what it must be, ``hint`` what to do; neither shows the value."""

    def __init__(self, rule: str, hint: str = "") -> None:
        self.rule = rule
        self.hint = hint
        super().__init__(rule)

    def told(self, name: str, value: object) -> str:
        """Return the sentence about the ``value`` of ``name``, where that is no secret."""
        return f"{name} {self.rule}, got {value!r}{f'; {self.hint}' if self.hint else ''}"


class Kind(NamedTuple):
    """A sort of value that TOML has no type for."""

    label: str
    """Its name in the reference."""
    noun: str
    """What a value must be, for messages."""
    parse: Callable[[Any], Any]
    """From what stands in the file to the value; raises `RefusedError`."""
    show: Callable[[Any], str] = str
    """From the value back to what one would write."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the name that is most like ``name``, or an empty text."""
    import difflib  # only ever needed for a message

    folded = {known.casefold(): known for known in names}
    found = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return f"did you mean {folded[found[0]]!r}?" if found else ""


def check_text(value: Any) -> None:
    """Refuse text that is no Unicode; bytes of the environment that are not UTF-8 come as such."""
    for item in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(item, str) and not item.isascii():
            try:
                item.encode()
            except UnicodeEncodeError:
                raise RefusedError("must be valid Unicode") from None


def expand(value: Any, environ: Mapping[str, str]) -> Any:
    """Expand ``${NAME}`` and ``${NAME:-default}`` in text, lists and tables of it; ``$$`` is a plain ``$``.

    As in a shell, the default stands in for a variable that is unset or empty. A ``$`` before anything
    else stays what it is. Raises `RefusedError`, which names the variable that is missing.
    """
    if type(value) in (list, tuple):
        return type(value)(expand(item, environ) for item in value)
    if isinstance(value, Mapping):
        return {name: expand(item, environ) for name, item in value.items()}
    if not isinstance(value, str) or "$" not in value:
        return value

    def replacement(match: re.Match[str]) -> str:
        dollar, name, default, opened = match.groups()
        if dollar:
            return "$"
        if opened:
            raise RefusedError("must not have an unfinished '${'", "write ${NAME}, or $$ for a plain '$'")
        found = environ.get(name)
        if default is not None:
            return found or default
        if found is None:
            raise RefusedError(
                "must not name an environment variable that is not set",
                f"set {name} or write ${{{name}:-default}}",
            )
        return found

    return _VARIABLE.sub(replacement, value)


def variables(value: Any) -> list[str]:
    """Return the names of the environment variables that `expand` takes for ``value``, each once."""
    texts = value if isinstance(value, (list, tuple)) else [value]
    found = [match[2] for text in texts if isinstance(text, str) for match in _VARIABLE.finditer(text)]
    return list(dict.fromkeys(name for name in found if name))


def _quantity(value: Any, noun: str, units: Mapping[str, float], usual: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number: float = value
    else:
        match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise RefusedError(f"must be {noun}")
        unit = match[2].casefold()
        if unit not in units:
            raise RefusedError(f"must be {noun}", f"units are {usual}")
        number = float(match[1]) * units[unit]
    if not -(2**60) < number < 2**60:  # nor is NaN
        raise RefusedError(f"must be {noun}, within reason")
    return number


def _parse_size(value: Any) -> int:
    if isinstance(value, float):
        raise RefusedError(f"must be {SIZE.noun}")
    return round(_quantity(value, SIZE.noun, SIZE_UNITS, "B, KiB, MiB, GiB, TiB, KB, MB, GB, TB"))


def _show_size(size: int) -> str:
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power} {unit}"
    return str(size)


def _parse_duration(value: Any) -> float:
    return float(_quantity(value, DURATION.noun, TIME_UNITS, "ms, s, min, hours, days, weeks"))


def _parse_level(value: Any) -> int:
    """Take a number, or a name that ``logging`` knows, custom ones included, in any case."""
    if isinstance(value, str):
        for name in (value, value.upper()):
            known: object = logging.getLevelName(name)
            if isinstance(known, int):
                return known
        if value.isdecimal() and len(value) < 6:  # a number that came through ${ENV}
            return int(value)
        raise RefusedError(f"must be {LEVEL.noun}", nearest(value, LEVEL_NAMES))
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise RefusedError(f"must be {LEVEL.noun}")
    return value


def _parse_mode(value: Any) -> int:
    """Take octal text only: a bare 640 in TOML is decimal and would set quite other bits."""
    if not isinstance(value, str) or not re.fullmatch(r"(?:0o)?0?[0-7]{3}", value):
        raise RefusedError(f"must be {MODE.noun}")
    mode = int(value.removeprefix("0o"), 8)
    if mode & 0o600 != 0o600:
        raise RefusedError('must let the owner read and write, as "0640" does')
    return mode


def _parse_when(value: Any) -> str:
    if not isinstance(value, str) or not _WHEN.fullmatch(value):
        raise RefusedError(f"must be {WHEN.noun}")
    return "midnight" if value.lower() == "midnight" else value.upper()


def _parse_path(value: Any) -> str:
    """Expand ``~``; joining with the folder of the configuration is left to the caller."""
    if not isinstance(value, (str, os.PathLike)):
        raise RefusedError(f"must be {PATH.noun}")
    path = os.path.expanduser(os.fsdecode(value))
    if not path or "\0" in path:
        raise RefusedError("must be a path, and neither empty nor with NUL in it")
    if path.startswith("~"):
        raise RefusedError(
            "must begin with the '~' of a user who has a home folder", "write ./~ for the name"
        )
    return path


def _parse_name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", value):
        raise RefusedError(f"must be {NAME.noun}")
    return value


def _parse_patterns(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise RefusedError(f"must be {PATTERNS.noun}")
    names = [item.removeprefix("!") for item in value]
    if not all(names) or any(name != name.strip() or name.startswith("!") for name in names):
        raise RefusedError(f"must be {PATTERNS.noun}", "each item is a logger's name, or '!' and a name")
    if len(set(names)) != len(names):
        raise RefusedError("must name a logger once, either with or without '!'")
    return tuple(value)


def _parse_url(value: Any) -> str:
    """Check a redis url as far as that goes without a connection. No message has a part of it."""
    if not isinstance(value, str) or not (match := _URL.match(value)):
        raise RefusedError(f"must be {URL.noun}")
    scheme = match[1]
    if scheme not in ("embedded", "redis", "rediss", "unix"):
        raise RefusedError(f"must be {URL.noun}; other schemes are not supported")
    if scheme == "embedded":
        if value != "embedded://":
            raise RefusedError("must be exactly 'embedded://' for the embedded server")
        return value
    if not _address_is_clean(value):
        raise RefusedError(
            "must be like unix:///path/to.sock?db=0"
            if scheme == "unix"
            else f"must be like {scheme}://user:password@host:6379/0",
            "in user and password write '@', '/', '?', '#', ':' and '%' percent-encoded, as %40 for '@'",
        )
    allowed = URL_PARAMETERS + (TLS_PARAMETERS if scheme == "rediss" else ())
    parameters = parse_qsl(urlsplit(value).query, keep_blank_values=True)
    if any(name not in allowed for name, _ in parameters):
        raise RefusedError(f"must have no parameter besides {', '.join(allowed)}")
    if not all(text.isdecimal() for name, text in parameters if name == "db"):
        raise RefusedError("must have a number as parameter db")
    return value


def _address_is_clean(url: str) -> bool:
    """True when scheme, host, port and path can be told from a password for certain."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    odd = parts.fragment or not url.isprintable() or " " in url or "@" in parts.path + parts.query
    if odd or parts.netloc.count("@") > 1 or "#" in url:
        return False
    if parts.scheme == "unix":
        return parts.path.startswith("/") and parts.path != "/" and not parts.hostname and port is None
    return bool(_HOST.fullmatch(parts.hostname or "")) and bool(re.fullmatch(r"/?\d{0,6}", parts.path))


def redact(text: str) -> str:
    """Return a url without user, password and the values of its parameters.

    Where these can not be told for certain from the rest, only the scheme is left. Text that is no
    url becomes ``***``.
    """
    match = _URL.match(text)
    if match is None:
        return "***"
    if text == "embedded://":
        return text
    if match[1] not in ("redis", "rediss", "unix") or not _address_is_clean(text):
        return f"{match[0]}***"
    parts = urlsplit(text)
    user, at, address = parts.netloc.rpartition("@")
    names = [f"{name}=***" for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    query = (
        f"?{'&'.join(names)}"
        if all(name[:-4] in URL_PARAMETERS + TLS_PARAMETERS for name in names)
        else "?***"
    )
    return f"{match[0]}{'***@' if user + at else ''}{address}{parts.path}{query if parts.query else ''}"


class _Sample(dict[str, Any]):
    """The attributes of a record; an extra, which any format may name, is whatever the format wants."""

    def __missing__(self, name: str) -> _Extra:
        return _Extra()


class _Extra(int):
    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return ""

    def __getattr__(self, name: str) -> _Extra:
        return self

    def __getitem__(self, key: object) -> _Extra:
        return self


def _sample() -> _Sample:
    facts = Facts("producer", "host", 1, "MainProcess", 0.0, 0)
    record = build(
        0.0, 20, "INFO", "name", "message", "/file.py", 1, "function", 1, "MainThread", task_name="task"
    )
    return _Sample(attributes(record, facts, 1), asctime="1970-01-01 00:00:00,000")


def check_format(text: str, style: Style) -> None:
    """Try a format on a record; raises `RefusedError` with the reason when it can not work."""
    try:
        logging.Formatter(text, style=style)
        if style == "%":
            text % _sample()
        elif style == "{":
            text.format_map(_sample())
        else:
            Template(text).substitute(_sample())
    except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
        reason = str(error)
        if text in reason:  # logging's message repeats a whole format that has no field
            reason = f"it has no field such as {_EXAMPLE_FORMATS[style]!r}"
        raise RefusedError(f"must be a format of style {style!r} ({reason})") from None


def split_listen(listen: str) -> tuple[str, int]:
    """Return host and port of an address as `LISTEN` has checked it; the host of ``[::1]:80`` is ``::1``."""
    host, _, port = listen.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _parse_listen(value: Any) -> str:
    match = _LISTEN.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[1]) > 65535:
        raise RefusedError(f"must be {LISTEN.noun}")
    return str(value)


def _parse_datefmt(value: Any) -> str:
    try:
        time.strftime(value, time.gmtime(0))
    except (TypeError, ValueError):
        raise RefusedError(f"must be {DATEFMT.noun}") from None
    return str(value)


def _parse_callable(value: Any) -> str | Code:
    """Take the name of something importable, or something callable as it is."""
    if isinstance(value, str):
        if re.fullmatch(_REFERENCE, value) is None:
            raise RefusedError(f"must be {CALLABLE.noun}", 'write "package.module:name"')
        return value
    if isinstance(value, Code):
        return value
    if not callable(value):
        raise RefusedError(f"must be {CALLABLE.noun}")
    from redislogkit import callables  # as below: an application that has no such thing need not load it

    try:
        return callables.carry(value)
    except ValueError as error:
        raise RefusedError(
            f"must be something that can be taken to another process ({error})",
            "define it in a module that can be imported, or have it open its connections and files when it is called",
        ) from None


def _parse_redact(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise RefusedError(f"must be {REDACT.noun}")
    from redislogkit import redaction

    for item in value:
        if fault := redaction.check(item):
            raise RefusedError(f"{fault.replace('must', 'each rule must', 1)}", f"this one is not: {item!r}")
    return tuple(value)


def _parse_colors(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise RefusedError(f"must be {COLORS.noun}")
    from redislogkit import escaping

    for level, style in value.items():
        _parse_level(int(level) if isinstance(level, str) and level.isdecimal() else level)
        try:
            escaping.sgr(style)
        except ValueError as error:
            raise RefusedError(f"must be {COLORS.noun}", str(error)) from None
    return {str(level): style for level, style in value.items()}


def _parse_fields(value: Any) -> dict[str, Any]:
    """Take a table; what is a table in it (TOML's ``service.name``) is a name with a dot."""
    if not isinstance(value, Mapping):
        raise RefusedError(f"must be {FIELDS.noun}")
    found: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, Mapping) and item:
            found |= {f"{name}.{inner}": each for inner, each in _parse_fields(item).items()}
        elif isinstance(name, str) and name and isinstance(item, (str, int, float)):
            found[name] = item
        else:
            raise RefusedError(f"must be {FIELDS.noun}", f"this is none: {name!r}")
    return found


def _parse_options(value: Any) -> dict[str, Any]:
    """Take what another process gets as it is here: plain data under names that a function's arguments may have."""
    if not isinstance(value, Mapping):
        raise RefusedError(f"must be {OPTIONS.noun}")
    for name in value:
        if not isinstance(name, str) or not name.isidentifier():
            raise RefusedError(
                "must have names that an argument of a function can have", f"this one can not be: {name!r}"
            )
    try:
        plain = msgspec.msgpack.decode(msgspec.msgpack.encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise RefusedError(f"must be {OPTIONS.noun} ({error})") from None
    return dict(plain)


SIZE: Final = Kind(
    "size", 'a size: a whole number of bytes, or text such as "10 MiB"', _parse_size, _show_size
)
DURATION: Final = Kind(
    "duration",
    'a duration: a number of seconds, or text such as "500 ms" or "2 hours"',
    _parse_duration,
    "{:g}".format,
)
LEVEL: Final = Kind(
    "level",
    "the name of a level or a number >= 0",
    _parse_level,
    lambda level: f'"{logging.getLevelName(level)}"',
)
MODE: Final = Kind("octal text", 'octal text such as "0640"', _parse_mode, lambda mode: f'"{mode:04o}"')
WHEN: Final = Kind(
    '`"S"`, `"M"`, `"H"`, `"D"`, `"midnight"`, `"W0"` – `"W6"`',
    'one of "S", "M", "H", "D", "midnight", "W0" to "W6", as for TimedRotatingFileHandler',
    _parse_when,
)
PATH: Final = Kind("path", "a path", _parse_path)
PATTERNS: Final = Kind('list, as `["my.app", "!my.app.noise"]`', "a list of loggers' names", _parse_patterns)
URL: Final = Kind("url", "a url of the scheme embedded://, redis://, rediss:// or unix://", _parse_url)
FORMAT: Final = Kind("text", "text", lambda value: value)
CALLABLE: Final = Kind(
    '`"package.module:name"`, or the name of an entry point',
    'the name of something that can be called, as "package.module:name", or of an entry point of redislogkit.writers',
    _parse_callable,
)
REDACT: Final = Kind(
    'list, as `["bearer", "pin=\\\\d+"]`', "a list of regular expressions and names of rules", _parse_redact
)
COLORS: Final = Kind(
    'table, as `{ INFO = "cyan" }`', 'a table of levels and styles, as { ERROR = "bold red" }', _parse_colors
)
FIELDS: Final = Kind(
    'table, as `{ "service.name" = "shop" }`',
    'a table of texts, numbers and booleans, as { "service.name" = "shop" }',
    _parse_fields,
)
OPTIONS: Final = Kind("table", "a table of texts, numbers, booleans, times, lists and tables", _parse_options)
NAME: Final = Kind(
    "name", 'of letters, digits, "_", "." and "-" (not first), at most 100 of them', _parse_name
)
DATEFMT: Final = Kind("text", "a format of time.strftime", _parse_datefmt)
LISTEN: Final = Kind(
    "host:port",
    'host and port to listen on, such as "127.0.0.1:9464" or "[::1]:9464"',
    _parse_listen,
)

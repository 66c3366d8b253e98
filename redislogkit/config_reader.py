"""Tree of a TOML file → `Config`. Collects every problem instead of stopping at the first."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

import msgspec

from redislogkit import zstd
from redislogkit.config_explain import KeyPath, Problem, hint, rule, shown, unknown_key
from redislogkit.config_schema import (
    VERSION,
    Config,
    CustomWriterConfig,
    FileWriterConfig,
    FormatterConfig,
    Level,
    MetricsConfig,
    ProducerConfig,
    RedisConfig,
    Section,
    StandardWriterConfig,
    StderrWriterConfig,
    StdoutWriterConfig,
    StreamConfig,
    SupervisorConfig,
    TtyWriterConfig,
    WriterConfig,
)
from redislogkit.config_values import (
    CALLABLE,
    FORMAT,
    LEVEL,
    PATH,
    REDACT,
    Code,
    Kind,
    RefusedError,
    check_format,
    check_text,
    expand,
    nearest,
)
from redislogkit.rotation import is_archive_of

S = TypeVar("S", bound=Section)
T = TypeVar("T")

WRITERS: Final[Mapping[str, type[WriterConfig]]] = {
    "file": FileWriterConfig,
    "tty": TtyWriterConfig,
    "stdout": StdoutWriterConfig,
    "stderr": StderrWriterConfig,
    "custom": CustomWriterConfig,
}
PREDEFINED: Final[Mapping[str, Mapping[str, str]]] = {"plain": {}, "json": {"type": "json"}}
LARGEST: Final = 2**53
DEFAULT_LOGGERS: Final[Mapping[str, str]] = {"root": "INFO"}


def kind_of(schema: Any) -> Kind | None:
    """Return the kind that a field was described with."""
    for note in getattr(schema, "__metadata__", ()):
        kind = (note.extra or {}).get("kind")
        if isinstance(kind, Kind):
            return kind
    return None


class Reader:
    """Reads one configuration; ``problems`` is empty afterwards if there is nothing wrong with it."""

    def __init__(self, environ: Mapping[str, str], folder: str) -> None:
        self.problems: list[Problem] = []
        self._environ = environ
        self._folder = folder

    def config(self, tree: Mapping[Any, Any], source: str | None) -> Config | None:
        """Return the configuration, or None after a problem was found."""
        tree = _given(tree)
        version = tree.get("version", VERSION)
        if type(version) is not int or version != VERSION:
            # Whatever else the file says, it says to another version.
            self._refuse(("version",), f"must be {VERSION}, the only version known here", version)
            return None
        names = [name for name in Config.__struct_fields__ if name != "source"]
        for key in tree:
            if key not in names:
                self.problems.append(Problem((key,), unknown_key(key, names)))
        state_dir = self._state_dir(tree)
        redis = self._section(RedisConfig, tree, "redis")
        stream = self._section(StreamConfig, tree, "stream")
        producer = self._section(
            ProducerConfig, tree, "producer", ack="writer" if tree.get("writers") else "stream"
        )
        supervisor = self._section(SupervisorConfig, tree, "supervisor")
        metrics = self._section(MetricsConfig, tree, "metrics")
        loggers = self._loggers(tree)
        formatters = self._formatters(tree)
        writers = self._writers(tree, formatters)
        if supervisor and supervisor.autostart:
            self._refuse_launched(writers, tree)
        if supervisor and supervisor.log:
            self._refuse_own_log(supervisor.log, writers, tree)
        if producer and supervisor and (producer.ship == "thread" or not supervisor.autostart):
            self._refuse_code(writers, tree)
        if self.problems:
            return None
        assert state_dir and redis and stream and producer and supervisor and metrics
        return Config(
            state_dir=state_dir,
            redis=redis,
            stream=stream,
            producer=producer,
            loggers=loggers,
            formatters={name: formatter for name, formatter in formatters.items() if formatter},
            writers=writers,
            supervisor=supervisor,
            metrics=metrics,
            source=source,
        )

    def _refuse_code(self, writers: Mapping[str, WriterConfig], tree: Mapping[Any, Any]) -> None:
        """Refuse what only a supervisor that this program starts would ever know."""
        for name, writer in writers.items():
            for key in ("target", "filter"):
                if isinstance(getattr(writer, key, None), Code):
                    raw = self._table(tree, "writers").get(name)
                    text = "must be something that can be imported where this program does not start the supervisor"
                    advice = 'define it in a module and write "package.module:name", or set supervisor.autostart = true'
                    value = raw.get(key) if isinstance(raw, Mapping) else raw
                    self._refuse(("writers", name, key), text, value, advice)

    def _refuse(
        self, path: KeyPath, text: str, raw: object, advice: str = "", kind: Kind | None = None
    ) -> None:
        text = f"{text}, got {shown(raw, kind)}"
        self.problems.append(Problem(path, f"{text}; {advice}" if advice else text))

    def _table(self, tree: Mapping[Any, Any], *path: object) -> Mapping[Any, Any]:
        raw = tree.get(path[-1], {})
        if isinstance(raw, Mapping):
            return raw
        self._refuse(path, "must be a table", raw)
        return {}

    def _section(self, schema: type[S], tree: Mapping[Any, Any], name: str, **defaults: object) -> S | None:
        return self._values(schema, {**defaults, **self._table(tree, name)}, (name,))

    def _values(self, schema: type[S], raw: Mapping[Any, Any], path: KeyPath, **ready: object) -> S | None:
        """Read the keys of a section; ``ready`` has those that need more than their own value."""
        before = len(self.problems)
        fields = {field.name: field for field in msgspec.structs.fields(schema)}
        values: dict[str, Any] = {}
        for key, value in raw.items():
            if key in ready:
                continue
            if key in fields:
                values[key] = self._value(fields[key].type, value, (*path, key))
            else:
                self.problems.append(Problem((*path, key), unknown_key(key, {*fields, *ready})))
        for name, field in fields.items():
            if field.required and name not in raw:
                advice = _CALLABLE_IS_MISSING if kind_of(field.type) is CALLABLE else ""
                self.problems.append(Problem((*path, name), f"is missing, and has no default{advice}"))
        if len(self.problems) > before:
            return None
        section = schema(**values, **{name: value for name, value in ready.items() if name in fields})
        for name, text in rules_of(section):
            self._refuse((*path, name), text, raw.get(name))
        return section

    def _value(self, schema: Any, raw: object, path: KeyPath) -> Any:
        """Return a value of the type that ``schema`` says, or None after a problem."""
        kind = kind_of(schema)
        try:
            expanded = raw if kind in (FORMAT, REDACT) else expand(raw, self._environ)
            check_text(expanded)
            value = kind.parse(expanded) if kind else expanded
        except RefusedError as error:
            self._refuse(path, error.rule, raw, error.hint, kind)
            return None
        if kind is PATH:
            value = os.path.abspath(os.path.join(self._folder, str(value)))
        try:
            # What came out of a variable is text, also where a number or a boolean is meant.
            value = msgspec.convert(value, schema, strict=expanded == raw)
        except msgspec.ValidationError:
            self._refuse(path, rule(schema, value, kind), raw, hint(schema, value), kind)
            return None
        if isinstance(value, int) and value > LARGEST:
            self._refuse(path, f"must be <= {LARGEST}", raw)
        return value

    def _state_dir(self, tree: Mapping[Any, Any]) -> str | None:
        field = next(field for field in msgspec.structs.fields(Config) if field.name == "state_dir")
        raw = tree.get("state_dir", field.default)
        path: str | None = self._value(field.type, raw, ("state_dir",))
        if path and os.path.exists(path) and not os.path.isdir(path):
            self._refuse(("state_dir",), "must be a folder, and there is something else", raw)
        return path

    def _loggers(self, tree: Mapping[Any, Any]) -> dict[str, int]:
        levels = {}
        for name, raw in {**DEFAULT_LOGGERS, **self._table(tree, "loggers")}.items():
            path = ("loggers", name)
            if not isinstance(name, str) or not name:
                self.problems.append(Problem(path, "must be the name of a logger"))
            elif isinstance(raw, Mapping):
                self._refuse(
                    path, f"must be {LEVEL.noun}", raw, 'write a name with dots in quotes: "my.app" = "INFO"'
                )
            else:
                levels[name] = self._value(Level, raw, path)
        return levels

    def _formatters(self, tree: Mapping[Any, Any]) -> dict[str, FormatterConfig | None]:
        """Return the formatters by name; None stands for one that has problems of its own."""
        table = self._table(tree, "formatters")
        names = [*PREDEFINED, *(name for name in table if name not in PREDEFINED)]
        return {name: self._formatter(table, name) for name in names}

    def _formatter(self, table: Mapping[Any, Any], name: object) -> FormatterConfig | None:
        path = ("formatters", name)
        if not isinstance(name, str) or not name:
            self.problems.append(Problem(path, "must be the name of a formatter"))
            return None
        raw = {**PREDEFINED.get(name, {}), **self._table(table, *path)}
        formatter = self._values(FormatterConfig, raw, path)
        if formatter is not None and formatter.format is not None:
            try:
                check_format(formatter.format, formatter.style)
            except RefusedError as error:
                self._refuse((*path, "format"), error.rule, formatter.format)
        return formatter

    def _writers(
        self, tree: Mapping[Any, Any], formatters: Mapping[str, FormatterConfig | None]
    ) -> dict[str, WriterConfig]:
        table = self._table(tree, "writers")
        writers = {}
        for name in table:
            if writer := self._writer(table, name, formatters):
                writers[name] = writer
        self._refuse_shared_files(writers, table)
        return writers

    def _writer(
        self, table: Mapping[Any, Any], name: object, formatters: Mapping[str, FormatterConfig | None]
    ) -> WriterConfig | None:
        path = ("writers", name)
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}", name):
            # It names the writer's consumer group and the file of its checkpoint.
            self.problems.append(
                Problem(path, 'a writer\'s name must be of letters, digits, "_" and "-" (not first)')
            )
            return None
        if callable(table[name]):
            table = {name: {"type": "custom", "target": table[name]}}
        raw = self._table(table, *path)
        if raw is not table[name]:  # no table; that is reported
            return None
        schema = self._choice(raw.get("type"), WRITERS, (*path, "type"), "type of writer")
        formatter = self._choice(raw.get("formatter", "plain"), formatters, (*path, "formatter"), "formatter")
        if schema is FileWriterConfig:
            raw = {"naming": "timestamp" if raw.get("when") else "number", **raw}
        return self._values(schema, raw, path, type=None, formatter=formatter) if schema else None

    def _choice(self, raw: object, known: Mapping[str, T], path: KeyPath, noun: str) -> T | None:
        if raw is None:
            self.problems.append(Problem(path, f"is missing; it must be a {noun}: {', '.join(known)}"))
            return None
        name = self._value(str, raw, path)
        if name is not None and name not in known:
            self._refuse(path, f"must be a {noun}: {', '.join(known)}", raw, nearest(name, known))
        return known.get(name)

    def _refuse_own_log(self, log: str, writers: Mapping[str, WriterConfig], tree: Mapping[Any, Any]) -> None:
        """What the supervisor says must not come among the records."""
        path = ("supervisor", "log")
        file = os.path.realpath(log)
        if os.path.isdir(file):
            self._refuse(path, "must be a file, and there is a folder", tree["supervisor"]["log"])
        for name, writer in writers.items():
            if isinstance(writer, FileWriterConfig) and (
                file == os.path.realpath(writer.path)
                or (_rotates(writer) and is_archive_of(os.path.realpath(writer.path), file))
            ):
                self._refuse(
                    path, f"must be a file of its own, no file of writers.{name}", tree["supervisor"]["log"]
                )

    def _refuse_launched(self, writers: Mapping[str, WriterConfig], tree: Mapping[Any, Any]) -> None:
        """A supervisor that an application starts has no streams that anybody reads."""
        for name, writer in writers.items():
            if isinstance(writer, StandardWriterConfig):
                self._refuse(
                    ("writers", name, "type"),
                    "must not be a stream of a supervisor that an application starts, which are in a log file",
                    tree["writers"][name]["type"],
                    "set supervisor.autostart = false and run: redislogkit supervise",
                )

    def _refuse_shared_files(self, writers: Mapping[str, WriterConfig], table: Mapping[Any, Any]) -> None:
        files = [
            (name, os.path.realpath(writer.path), _rotates(writer))
            for name, writer in writers.items()
            if isinstance(writer, FileWriterConfig)
        ]
        for index, (name, file, rotates) in enumerate(files):
            for other, other_file, other_rotates in files[:index]:
                text = ""
                if file == other_file:
                    text = f"must be a file of its own, but writers.{other} writes to this one"
                elif other_rotates and is_archive_of(other_file, file):
                    text = f"must not have the name of a backup of writers.{other}"
                elif rotates and is_archive_of(file, other_file):
                    text = f"must not have backups with the name of the file of writers.{other}"
                if text:
                    self._refuse(("writers", name, "path"), text, table[name]["path"])


def _given(tree: Mapping[Any, Any]) -> dict[Any, Any]:
    """Leave out what is None: a mapping says so that a key is not given."""
    return {
        key: _given(value) if isinstance(value, Mapping) else value
        for key, value in tree.items()
        if value is not None
    }


def rules_of(section: Section) -> Iterator[tuple[str, str]]:
    """Yield key and rule for values that are right in themselves, but not together or not here."""
    if isinstance(section, FileWriterConfig):
        yield from _file_rules(section)
    elif isinstance(section, FormatterConfig):
        for field in msgspec.structs.fields(section):
            other = {"layout": "text", "fields": "text"}.get(
                field.name, "json" if field.name not in _OF_ALL_FORMATTERS else ""
            )
            if section.type == other and getattr(section, field.name) != _default_of(field):
                yield field.name, f'has no effect with type = "{other}"'
    elif isinstance(section, StreamConfig):
        if section.layout == "records" and section.compression in ("zlib", "zstd"):
            yield "compression", 'has no effect with layout = "records"; it must be "auto" or "none"'
        if section.compression == "zstd" and not zstd.is_installed():
            yield "compression", f"must be something else, {_ZSTD_IS_MISSING}"
    elif isinstance(section, ProducerConfig) and section.on_full == "block" and not section.block_timeout:
        yield "block_timeout", 'must be > 0 with on_full = "block"'


#: Keys that are for text and for JSON.
_OF_ALL_FORMATTERS: Final = ("type", "utc", "redact", "redact_with")

_CALLABLE_IS_MISSING: Final = (
    '; write "package.module:name", or the name of an entry point. A callable that a program gives to configure() '
    "is known only to the supervisor that this program starts (supervisor.autostart)"
)


def _default_of(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _rotates(writer: FileWriterConfig) -> bool:
    return bool(writer.max_bytes or writer.when)


def _file_rules(writer: FileWriterConfig) -> Iterator[tuple[str, str]]:
    if writer.max_bytes and writer.naming == "number" and writer.backup_count == 0:
        # RotatingFileHandler takes this, and then never rotates; nobody means that.
        yield "backup_count", 'must be >= 1 with max_bytes and naming = "number"'
    needs = {} if writer.when else {"interval": "when"}
    if not writer.when and writer.naming == "number":
        needs["utc"] = "when"
    if not _rotates(writer):
        needs |= dict.fromkeys(("compress", "max_age", "max_total_bytes"), "max_bytes or when")
    defaults = {field.name: field.default for field in msgspec.structs.fields(writer)}
    for name, need in needs.items():
        if getattr(writer, name) != defaults[name]:
            yield name, f"has no effect without {need}"
    if writer.compress == "zstd" and not zstd.is_installed():
        yield "compress", f"must be something else, {_ZSTD_IS_MISSING}"
    if os.path.isdir(writer.path):
        yield "path", "must be a file, and there is a folder"


_ZSTD_IS_MISSING: Final = f"because zstd is not installed ({zstd.HOW_TO_INSTALL})"

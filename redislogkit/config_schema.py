"""The sections of a configuration: type, default, rule and meaning of every key.

They stand here and nowhere else; messages and the reference in ``docs/configuration.md`` are made from
them. Values are resolved ones: paths are absolute, sizes are bytes, durations seconds, levels and modes
numbers, and a writer holds its formatter instead of a name.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from redislogkit.config_values import (
    CALLABLE,
    COLORS,
    DATEFMT,
    DURATION,
    FIELDS,
    FORMAT,
    LEVEL,
    LISTEN,
    MODE,
    NAME,
    OPTIONS,
    PATH,
    PATTERNS,
    REDACT,
    SIZE,
    URL,
    WHEN,
    Code,
    Kind,
    redact,
)

VERSION: Final = 1
MIB: Final = 1024 * 1024

#: Fields with text of the user's, which may have come from an environment variable; no ``repr`` shows them.
_PRIVATE: Final = frozenset(
    {
        "datefmt",
        "dead_letter_path",
        "fields",
        "format",
        "log",
        "loggers",
        "name",
        "optional_fields",
        "options",
        "path",
        "redact",
        "redact_with",
        "state_dir",
        "url",
    }
)


def about(description: str, kind: Kind | None = None) -> Meta:
    """Describe a field for the reference, and say how its value is read."""
    return Meta(description=description, extra={"kind": kind})


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections. Its ``repr`` shows numbers and choices, but no text that may be a secret."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._shown())})"

    def __rich_repr__(self) -> Any:
        return iter(self._shown())

    def _shown(self) -> list[tuple[str, object]]:
        hidden = [name for name in self.__struct_fields__ if name in _PRIVATE and getattr(self, name)]
        return [(name, "***" if name in hidden else getattr(self, name)) for name in self.__struct_fields__]


Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]
Level = Annotated[int, about("Level of a logger and its children.", LEVEL)]


class RedisConfig(Section, frozen=True, kw_only=True):
    """Where the stream is."""

    url: Annotated[
        str,
        about(
            "`embedded://` starts a server of its own. Otherwise `redis://user:password@host:6379/0`, `rediss://` for "
            "TLS, or `unix:///path/to.sock?db=0`. Percent-encode odd characters of user and password.",
            URL,
        ),
    ] = "embedded://"

    @property
    def safe_url(self) -> str:
        """The url without user, password and values of parameters, for messages."""
        return redact(self.url)


class StreamConfig(Section, frozen=True, kw_only=True):
    """The redis stream that carries the records."""

    name: Annotated[
        str,
        about(
            "Name of the stream, of its keys in redis and of its folder below `state_dir`: at most 100 letters, "
            "digits, `_`, `.` and `-`, the first of them no `.` or `-`.",
            NAME,
        ),
    ] = "app"
    layout: Annotated[
        Literal["batches", "records"],
        about(
            "`batches` packs many records into an entry; `records` gives each an entry with readable fields."
        ),
    ] = "batches"
    compression: Annotated[
        Literal["auto", "none", "zlib", "zstd"],
        about("Compression of batches. `auto` is zstd where it is installed, else zlib."),
    ] = "auto"
    max_records: Annotated[
        Positive, about("Records that may wait in the stream; producers hold back beyond it.")
    ] = 10_000_000


class ProducerConfig(Section, frozen=True, kw_only=True):
    """What an application process does with a record, and its bounds."""

    level: Annotated[int, about("Records below this level are not taken.", LEVEL)] = 10
    flush_interval: Annotated[
        Annotated[float, Meta(gt=0, le=60)],
        about(
            "How long a record may wait for company. With a thousand producers on a host, up to five times as long.",
            DURATION,
        ),
    ] = 0.02
    buffer_size: Annotated[Positive, about("Number of records that ends the wait.")] = 1000
    spool_max_bytes: Annotated[
        Annotated[int, Meta(ge=MIB)], about("Bound of each process's spool on disk.", SIZE)
    ] = 256 * MIB
    on_full: Annotated[
        Literal["drop_new", "drop_old", "block"],
        about("What happens at that bound: drop the new record, drop the oldest ones, or wait for room."),
    ] = "drop_new"
    block_timeout: Annotated[
        Seconds, about('How long a call may wait with `on_full = "block"`.', DURATION)
    ] = 1.0
    shed_level: Annotated[
        int, about("Records of this level and below are dropped first, above 80 % of the bound.", LEVEL)
    ] = 10
    ack: Annotated[
        Literal["writer", "stream"],
        about(
            "When a spool is released: once the writers have written its records, or once they are in the stream. "
            "Where no writer is configured the default is `stream`."
        ),
    ] = "writer"
    shutdown_timeout: Annotated[
        Seconds, about("How long the exit of a process may wait until its records are written.", DURATION)
    ] = 2.0
    fast_logger: Annotated[
        bool,
        about(
            "Make no `LogRecord` where nothing could tell the difference: plain loggers cost a quarter. Filters, "
            "other handlers, `extra`, replaced record factories and the like have their calls take the ordinary way."
        ),
    ] = False
    capture_uncaught: Annotated[
        bool,
        about(
            "`configure()` has exceptions logged that nobody catches, also of threads. They are shown on stderr as before."
        ),
    ] = False
    capture_warnings: Annotated[
        bool, about("`configure()` has warnings logged instead of shown, as `logging.captureWarnings`.")
    ] = False
    ship: Annotated[
        Literal["supervisor", "thread"],
        about("Who ships the spool: the supervisor, or a thread of the process where no other may run."),
    ] = "supervisor"


class FormatterConfig(Section, frozen=True, kw_only=True):
    """How a record becomes text."""

    type: Annotated[Literal["text", "json"], about("Formatted text, or an object of JSON in each line.")] = (
        "text"
    )
    format: Annotated[
        str | None,
        about(
            "Format as for `logging.Formatter`; by default `%(asctime)s %(levelname)-8s %(name)s: %(message)s`. "
            "Only for text. `${...}` is not expanded here.",
            FORMAT,
        ),
    ] = None
    datefmt: Annotated[
        str | None,
        about(
            "Format of `asctime`, as for `time.strftime`; `rfc3339` is a time with microseconds and zone. Only for text.",
            DATEFMT,
        ),
    ] = None
    utc: Annotated[
        bool | None,
        about(
            "Times are those of UTC, or local ones. By default text has local times, and JSON those of UTC."
        ),
    ] = None
    style: Annotated[Literal["%", "{", "$"], about("Style of `format`. Only for text.")] = "%"
    optional_fields: Annotated[
        tuple[str, ...],
        about("Extras that are appended as ` - field: value` to the records that have them. Only for text."),
    ] = ()
    layout: Annotated[
        Literal["plain", "ecs", "otel"],
        about(
            "Names of the fields: our own, those of the Elastic Common Schema, or those of the log data model of "
            "OpenTelemetry. Only for JSON."
        ),
    ] = "plain"
    fields: Annotated[
        dict[str, Any],
        about(
            "What each object has besides, such as the name of the service; in `otel` it stands in `Resource`. A field "
            "of the record with the same name wins. Only for JSON.",
            FIELDS,
        ),
    ] = {}
    colors: Annotated[
        dict[str, str],
        about(
            "Colours on a terminal, of a level and those above it: words of `bold`, `dim`, `italic`, `underline`, "
            "`reverse`, a colour (`red`, `bright-red`, `0` – `255`), `on` and a colour; or `none`.",
            COLORS,
        ),
    ] = {}
    redact: Annotated[
        tuple[str, ...],
        about(
            "What is taken out of each line: `bearer`, `url-password`, `password`, `credit-card`, and regular "
            "expressions, of which the group `secret` is replaced where they have one. `${...}` is not expanded here.",
            REDACT,
        ),
    ] = ()
    redact_with: Annotated[str, about("What stands in its place.")] = "***"


# Keys that several types of writers have.
_LeastLevel: TypeAlias = Annotated[int, about("Records below this level are left out.", LEVEL)]
_Formatter: TypeAlias = Annotated[
    FormatterConfig, about("Name of a formatter; `plain` and `json` are predefined.")
]
_Multiline: TypeAlias = Annotated[
    Literal["keep", "escape", "indent"],
    about("Newlines in a message: keep them, write them as `\\n`, or indent the lines that follow."),
]
_Loggers: TypeAlias = Annotated[
    tuple[str, ...], about("Loggers to take, with `!` to leave out; all by default.", PATTERNS)
]
_Filter: TypeAlias = Annotated[
    str | Code | None,
    about(
        "Says of each record whether it is for this writer; called with a `redislogkit.LoggedRecord`.",
        CALLABLE,
    ),
]


class FileWriterConfig(Section, frozen=True, kw_only=True, tag_field="type", tag="file"):
    """A file, written by one process, with rotation and retention."""

    path: Annotated[str, about("The file. Two writers must not share one.", PATH)]
    level: _LeastLevel = 0
    formatter: _Formatter = FormatterConfig()
    max_bytes: Annotated[Count, about("Rotate before the file grows beyond this; 0 is never.", SIZE)] = 0
    backup_count: Annotated[
        Count,
        about(
            'Backups to keep. 0 keeps any number, and can not be had with `max_bytes` and `naming = "number"`.'
        ),
    ] = 5
    when: Annotated[str | None, about("Rotate by time, as `TimedRotatingFileHandler` does.", WHEN)] = None
    interval: Annotated[Positive, about("Rotate every so many of `when`.")] = 1
    utc: Annotated[bool, about("Reckon `when` and the names of backups in UTC.")] = False
    naming: Annotated[
        Literal["number", "timestamp"],
        about(
            "Name of backups: `app.log.1` is the newest, or the time. With `when` the default is `timestamp`."
        ),
    ] = "number"
    compress: Annotated[Literal["none", "gzip", "zstd"], about("Compression of backups.")] = "none"
    max_age: Annotated[
        Annotated[float, Meta(gt=0)] | None, about("Delete backups that are older than this.", DURATION)
    ] = None
    max_total_bytes: Annotated[
        Positive | None, about("Delete the oldest backups while all of them take more than this.", SIZE)
    ] = None
    fsync: Annotated[
        Literal["never", "rotation", "interval", "always"], about("When the file is forced onto the disk.")
    ] = "rotation"
    multiline: _Multiline = "keep"
    lock_timeout: Annotated[
        Seconds, about("How long to wait at start for another writer to let go of the file.", DURATION)
    ] = 5.0
    mode: Annotated[
        int | None, about("Mode of the file and its backups; by default as the umask says.", MODE)
    ] = None
    loggers: _Loggers = ()
    filter: _Filter = None


class TtyWriterConfig(Section, frozen=True, kw_only=True, tag_field="type", tag="tty"):
    """The terminal of the process that logged the record."""

    level: _LeastLevel = 0
    formatter: _Formatter = FormatterConfig()
    color: Annotated[
        Literal["auto", "always", "never"],
        about("Colours by level; `auto` obeys the terminal and `NO_COLOR`."),
    ] = "auto"
    loggers: _Loggers = ()
    filter: _Filter = None


class CustomWriterConfig(Section, frozen=True, kw_only=True, tag_field="type", tag="custom"):
    """Code of one's own, which is called with batches of records. See [writers](writers.md)."""

    target: Annotated[
        str | Code,
        about(
            "A function, called with a list of `redislogkit.LoggedRecord` and the options; or a class, made once with the "
            "options, whose object is called with the list. `configure()` also takes it as it is.",
            CALLABLE,
        ),
    ]
    options: Annotated[dict[str, Any], about("Arguments by name for `target`.", OPTIONS)] = {}
    level: _LeastLevel = 0
    formatter: Annotated[
        FormatterConfig,
        about(
            "Name of a formatter, for the `text` of each record. Its `redact` also holds for the other fields."
        ),
    ] = FormatterConfig()
    batch_size: Annotated[Positive, about("Most records of one call.")] = 500
    timeout: Annotated[
        Annotated[float, Meta(gt=0, le=86_400)],
        about("How long one call may take; then `TimeoutError` is raised in it.", DURATION),
    ] = 60.0
    max_attempts: Annotated[
        Positive,
        about(
            "Failed calls with the same records after which they are tried one by one, to find out whether it is the fault of "
            "one of them."
        ),
    ] = 10
    dead_letter_path: Annotated[
        str | None,
        about(
            "File of the records that were rejected, as JSON lines with the reason; by default `rejected/NAME.jsonl` in "
            "the stream folder.",
            PATH,
        ),
    ] = None
    dead_letter_max_bytes: Annotated[
        Annotated[int, Meta(ge=4096)],
        about("Size at which that file is rotated; 5 older ones are kept.", SIZE),
    ] = 10 * MIB
    loggers: _Loggers = ()
    filter: _Filter = None


class StandardWriterConfig(Section, frozen=True, kw_only=True):
    """One of the supervisor's own streams, for containers. `supervisor.autostart` must be `false`."""

    level: _LeastLevel = 0
    formatter: _Formatter = FormatterConfig()
    color: Annotated[
        Literal["auto", "always", "never"],
        about("Colours by level, of text; `auto` colours a terminal and obeys `NO_COLOR` and `FORCE_COLOR`."),
    ] = "auto"
    multiline: _Multiline = "keep"
    loggers: _Loggers = ()
    filter: _Filter = None


class StdoutWriterConfig(StandardWriterConfig, frozen=True, kw_only=True, tag_field="type", tag="stdout"):
    """Standard output of the supervisor, for containers; `supervisor.autostart` must be `false`."""


class StderrWriterConfig(StandardWriterConfig, frozen=True, kw_only=True, tag_field="type", tag="stderr"):
    """Standard error of the supervisor, with the same keys."""


class SupervisorConfig(Section, frozen=True, kw_only=True):
    """The process that keeps the shipper, the writers and the embedded server alive."""

    autostart: Annotated[
        bool, about("`configure()` starts the supervisor. Otherwise something else does, such as systemd.")
    ] = True
    max_restarts: Annotated[
        Count, about("Restarts within `restart_window` after which a failing child is given up.")
    ] = 10
    restart_window: Annotated[
        Annotated[float, Meta(gt=0)],
        about("Time in which restarts are counted for `max_restarts`.", DURATION),
    ] = 60.0
    heartbeat_timeout: Annotated[
        Annotated[float, Meta(ge=2)], about("A child that is silent for so long is restarted.", DURATION)
    ] = 10.0
    log: Annotated[
        str | None,
        about(
            "File of the supervisor's own log. By default stderr; where an application has started it, "
            "`supervisor.log` in the stream folder.",
            PATH,
        ),
    ] = None


class MetricsConfig(Section, frozen=True, kw_only=True):
    """Figures for Prometheus, served by a child of the supervisor. Needs the extra `redislogkit[metrics]`."""

    listen: Annotated[
        str | None,
        about(
            "Where `http://HOST:PORT/metrics` is served, as `127.0.0.1:9464`; nowhere by default. Whoever can reach it "
            "can read the figures, and the names of writers, but no record.",
            LISTEN,
        ),
    ] = None


WriterConfig: TypeAlias = (
    FileWriterConfig | TtyWriterConfig | StdoutWriterConfig | StderrWriterConfig | CustomWriterConfig
)


class Config(Section, frozen=True, kw_only=True):
    """A whole configuration, resolved. Made by `load`."""

    version: Annotated[int, about("Version of the file's layout; this is 1.")] = VERSION
    state_dir: Annotated[
        str, about("Folder of spools, checkpoints, locks and the embedded server. A local disk.", PATH)
    ] = "~/.local/state/redislogkit"
    redis: RedisConfig
    stream: StreamConfig
    producer: ProducerConfig
    loggers: dict[str, Level]
    """Level of each logger; ``root`` is always there."""
    formatters: dict[str, FormatterConfig]
    writers: dict[str, WriterConfig]
    supervisor: SupervisorConfig
    metrics: MetricsConfig = MetricsConfig()
    source: str | None = None
    """Absolute path of the file, for messages; no part of the digest."""

    @property
    def runs_code(self) -> bool:
        """True where a writer or filter is code of the user's."""
        return any(getattr(writer, "target", None) or writer.filter for writer in self.writers.values())

    @property
    def stream_dir(self) -> str:
        """Absolute path of the folder below which everything of this configuration lives."""
        return os.path.join(self.state_dir, self.stream.name)

    @property
    def spool_root(self) -> str:
        """The folder of all spools of this host."""
        return os.path.join(self.stream_dir, "spool")

    def checkpoint_path(self, writer: str) -> str:
        """Where the checkpoint of ``writer`` is kept."""
        return os.path.join(self.stream_dir, "checkpoints", writer)

    def _shown(self) -> list[tuple[str, object]]:
        # Keys are never expanded, and a source is a path that the caller gave.
        return [
            ("source", self.source),
            *(
                (name, getattr(self, name))
                for name in ("redis", "stream", "producer", "writers", "supervisor", "metrics")
            ),
        ]

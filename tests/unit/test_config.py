"""The configuration: what a file may say, and how it is told what is wrong with it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tomli

from redislogkit import config as configuration
from redislogkit import zstd
from redislogkit.config import (
    Config,
    CustomWriterConfig,
    FileWriterConfig,
    FormatterConfig,
    TtyWriterConfig,
    digest,
    from_bytes,
    load,
    to_bytes,
)
from redislogkit.config_explain import key_lines
from redislogkit.config_schema import (
    MetricsConfig,
    ProducerConfig,
    RedisConfig,
    StreamConfig,
    SupervisorConfig,
)
from redislogkit.config_values import RefusedError, expand, redact
from redislogkit.errors import ConfigError, CorruptDataError
from redislogkit.selection import selects

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.toml"))
MIB = 1024 * 1024
FILE = {"type": "file", "path": "/tmp/app.log"}


def problems(source: Any, overrides: Mapping[str, Any] | None = None, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(source, overrides, environ=environ)
    return caught.value.problems


def problem(source: Any, overrides: Mapping[str, Any] | None = None, **environ: str) -> str:
    (line,) = problems(source, overrides, **environ)
    return line


def one(path: str, value: object) -> dict[str, Any]:
    """Return a configuration with one key of interest."""
    tree: dict[str, Any] = {"writers": {"app": dict(FILE), "tty": {"type": "tty"}}}
    *above, key = path.split(".")
    table = tree
    for name in above:
        table = table.setdefault(name, {})
    table[key] = value
    return tree


def value_of(path: str, value: object, **environ: str) -> Any:
    found: Any = load(one(path, value), environ=environ)
    for name in path.split("."):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    return found


def app(**keys: object) -> FileWriterConfig:
    writer = load({"writers": {"app": {**FILE, **keys}}}).writers["app"]
    assert isinstance(writer, FileWriterConfig)
    return writer


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write ``log.toml`` into the current directory."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        Path("log.toml").write_text(text, encoding="utf-8")
        return Path("log.toml")

    return write


# --- defaults ----------------------------------------------------------------------------------------------


def test_four_lines_are_enough(toml, tmp_path):
    config = load(toml('version = 1\n[writers.app]\ntype = "file"\npath = "app.log"\n'))
    assert config == Config(
        version=1,
        state_dir=os.path.expanduser("~/.local/state/redislogkit"),
        redis=RedisConfig(url="embedded://"),
        stream=StreamConfig(name="app", layout="batches", compression="auto", max_records=10_000_000),
        producer=ProducerConfig(
            level=logging.DEBUG,
            flush_interval=0.02,
            buffer_size=1000,
            spool_max_bytes=256 * MIB,
            on_full="drop_new",
            block_timeout=1.0,
            shed_level=logging.DEBUG,
            ack="writer",
            shutdown_timeout=2.0,
            fast_logger=False,
            ship="supervisor",
        ),
        loggers={"root": logging.INFO},
        formatters={"plain": FormatterConfig(), "json": FormatterConfig(type="json")},
        writers={"app": FileWriterConfig(path=str(tmp_path / "app.log"))},
        supervisor=SupervisorConfig(
            autostart=True, max_restarts=10, restart_window=60.0, heartbeat_timeout=10.0
        ),
        source=str(tmp_path / "log.toml"),
    )
    assert config.stream_dir == os.path.expanduser("~/.local/state/redislogkit/app")


def test_defaults_obey_their_own_rules():
    for schema in (RedisConfig, StreamConfig, ProducerConfig, SupervisorConfig):
        section: msgspec.Struct = schema()
        assert msgspec.convert(msgspec.to_builtins(section), schema) == section


def test_without_a_writer_the_stream_acknowledges():
    assert load({}).producer.ack == "stream"
    assert load({"writers": {"app": FILE}}).producer.ack == "writer"
    assert load({"producer": {"ack": "writer"}}).producer.ack == "writer"


def test_naming_follows_the_way_of_rotation():
    assert app(max_bytes=10).naming == "number"
    assert app(when="D").naming == "timestamp"
    assert app(when="D", naming="number").naming == "number"


def test_predefined_formatters_can_be_changed_and_others_added():
    formatters = load(
        {"formatters": {"plain": {"datefmt": "%H"}, "mine": {"style": "{", "format": "{message}"}}}
    ).formatters
    assert formatters == {
        "plain": FormatterConfig(datefmt="%H"),
        "json": FormatterConfig(type="json"),
        "mine": FormatterConfig(style="{", format="{message}"),
    }


def test_a_writer_holds_its_formatter():
    writers = load({"writers": {"app": {**FILE, "formatter": "json"}, "tty": {"type": "tty"}}}).writers
    assert writers["app"].formatter == FormatterConfig(type="json")
    assert writers["tty"] == TtyWriterConfig(formatter=FormatterConfig())


def test_none_in_a_mapping_is_a_key_that_is_not_given():
    assert app(when=None, max_age=None) == app()


# --- values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("writers.app.max_bytes", 1024, 1024),
        ("writers.app.max_bytes", "1024", 1024),
        ("writers.app.max_bytes", "10 MiB", 10 * MIB),
        ("writers.app.max_bytes", "10MB", 10_000_000),
        ("writers.app.max_bytes", "512 KiB", 512 * 1024),
        ("writers.app.max_bytes", "1.5gib", 3 * 512 * MIB),
        ("writers.app.max_bytes", "3 B", 3),
        ("producer.spool_max_bytes", "1 MiB", MIB),
        ("producer.flush_interval", 1, 1.0),
        ("producer.flush_interval", "500 ms", 0.5),
        ("producer.flush_interval", 60, 60.0),
        ("producer.shutdown_timeout", 0, 0.0),
        ("producer.shutdown_timeout", "2 hours", 7200.0),
        ("producer.shutdown_timeout", "1.5 min", 90.0),
        ("producer.shutdown_timeout", "1 Week", 604_800.0),
        ("producer.level", "warning", logging.WARNING),
        ("producer.level", "WARN", logging.WARNING),
        ("producer.level", 7, 7),
        ("loggers.root", "ERROR", logging.ERROR),
        ("writers.app.level", "NOTSET", 0),
        ("writers.app.mode", "0640", 0o640),
        ("writers.app.mode", "600", 0o600),
        ("writers.app.mode", "0o664", 0o664),
        ("writers.app.when", "MIDNIGHT", "midnight"),
        ("writers.app.when", "w6", "W6"),
        ("writers.app.path", Path("/var/log/x.log"), "/var/log/x.log"),
        ("writers.app.path", "/var/log/../x.log", "/var/x.log"),
        ("writers.app.path", "~/x.log", os.path.expanduser("~/x.log")),
        ("state_dir", "/nowhere/state", "/nowhere/state"),
        ("writers.app.loggers", ["my.app", "!my.app.noise"], ("my.app", "!my.app.noise")),
        ("writers.tty.loggers", (), ()),
        ("formatters.plain.optional_fields", ["a", "b"], ("a", "b")),
        ("formatters.json.fields", {"a": True, "b": {"c": {"d": 1}}}, {"a": True, "b.c.d": 1}),
        ("stream.name", "a.b_c-9", "a.b_c-9"),
        ("redis.url", "rediss://u:p%40@h:1/0?ssl_ca_certs=/x", "rediss://u:p%40@h:1/0?ssl_ca_certs=/x"),
        ("redis.url", "unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
        ("redis.url", "redis://[::1]:6379/3", "redis://[::1]:6379/3"),
        ("redis.url", "redis://:@host", "redis://:@host"),
        ("formatters.plain.format", "%(request_id)d %(message).80s %%", "%(request_id)d %(message).80s %%"),
    ],
)
def test_a_value_is_resolved(path, value, expected):
    found = value_of(path, value)
    assert found == expected
    assert type(found) is type(expected)


def test_custom_level_names_count(request):
    name, level = "CONFIGTRACE", 3
    logging.addLevelName(level, name)
    request.addfinalizer(lambda: logging.addLevelName(level, f"Level {level}"))
    assert value_of("producer.level", "configTrace") == level


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path):
    folder = tmp_path / "conf"
    folder.mkdir()
    (folder / "x.toml").write_text('state_dir = "state"\n[writers.a]\ntype = "file"\npath = "../a.log"\n')
    config = load(os.path.relpath(folder / "x.toml"))
    assert config.state_dir == str(folder / "state")
    assert getattr(config.writers["a"], "path") == str(tmp_path / "a.log")  # noqa: B009 - a union


def test_relative_paths_of_a_mapping_start_at_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert app(path="a.log").path == str(tmp_path / "a.log")


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("%", "%(message)s"),
        ("%", "%(asctime)s %(msecs)03d %(levelno)2d %(taskName)s %(host)s %(sequence)d"),
        ("%", "%(user)d%(user)s%(user)5.1f"),
        ("{", "{asctime} {levelname:<8} {name!r}: {message:.20}"),
        ("{", "{user:>10} {user.name} {user[id]}"),
        ("$", "$asctime ${levelname} ${user}: $$5 $message"),
    ],
)
def test_every_style_of_format_is_taken(style, text):
    keys = {"style": style, "format": text}
    assert load({"formatters": {"f": keys}}).formatters["f"] == FormatterConfig(**keys)


# --- environment -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${A}", "one"),
        ("x${A}y${A}z", "xoneyonez"),
        ("${EMPTY}", ""),
        ("${EMPTY:-d}", "d"),
        ("${NONE:-d e}", "d e"),
        ("${NONE:-}", ""),
        ("$${A}", "${A}"),
        ("$$$A 5$ $", "$$A 5$ $"),
        (["${A}", "b"], ["one", "b"]),
        (5, 5),
    ],
)
def test_environment_variables_are_expanded(text, expected):
    assert expand(text, {"A": "one", "EMPTY": ""}) == expected


@pytest.mark.parametrize("text", ["${NONE}", "${", "${A", "${9}", "${a-b}"])
def test_what_can_not_be_expanded_is_refused(text):
    with pytest.raises(RefusedError):
        expand(text, {"A": "one"})


def test_a_missing_variable_is_named():
    assert problem(one("redis.url", "redis://:${PW}@h")) == (
        "configuration: redis.url: must not name an environment variable that is not set, "
        "got 'redis://***@h'; set PW or write ${PW:-default}"
    )


def test_variables_stand_for_numbers_and_booleans_too():
    assert value_of("writers.app.backup_count", "${N}", N="7") == 7
    assert value_of("supervisor.autostart", "${B:-false}") is False
    assert value_of("writers.app.max_bytes", "${S}", S="1 KiB") == 1024
    assert value_of("producer.level", "${L}", L="40") == 40
    assert value_of("writers.app.formatter", "${F}", F="json") == FormatterConfig(type="json")
    assert "must be a whole number" in problem(one("writers.app.backup_count", "7"))


def test_formats_and_keys_are_not_expanded():
    formats = {"f": {"style": "$", "format": "${message} $$"}, "${A}": {}}
    config = load({"formatters": formats}, environ={"message": "no", "A": "no"})
    assert config.formatters["f"].format == "${message} $$"
    assert "${A}" in config.formatters


# --- explained errors --------------------------------------------------------------------------------------

WRONG = """\
version = 1
partitions = 4
[producer]
level = "DEBG"
flush_interval = [
  # a value of two lines
  0.1]
zoom = true

[writers.app]
type = "file"
path = "${LOGS}/app.log"
max_byte = 1
max_bytes = -5
formatter = "jason"

[writers."my app"]
type = "tty"

[writers.other]
type = "fil"
[writers.third]
type = "file"
[formatters."a.b"]
colour = 1
"""


def test_every_problem_of_a_file_is_reported_at_once(toml):
    assert problems(toml(WRONG)) == [
        (
            "log.toml:2: partitions: unknown key 'partitions'; known here: formatters, loggers, metrics, producer, "
            "redis, state_dir, stream, supervisor, version, writers"
        ),
        (
            "log.toml:4: producer.level: must be the name of a level or a number >= 0, got 'DEBG'; "
            "did you mean 'DEBUG'?"
        ),
        (
            "log.toml:5: producer.flush_interval: must be a duration: a number of seconds, or text such as "
            '"500 ms" or "2 hours", got a list'
        ),
        (
            "log.toml:8: producer.zoom: unknown key 'zoom'; known here: ack, block_timeout, "
            "buffer_size, capture_uncaught, capture_warnings, fast_logger, flush_interval, level, on_full, shed_level, ship, shutdown_timeout, spool_max_bytes"
        ),
        (
            "log.toml:12: writers.app.path: must not name an environment variable that is not set, "
            "got '${LOGS}/app.log'; set LOGS or write ${LOGS:-default}"
        ),
        "log.toml:13: writers.app.max_byte: unknown key 'max_byte'; did you mean 'max_bytes'?",
        "log.toml:14: writers.app.max_bytes: must be >= 0, got -5",
        (
            "log.toml:15: writers.app.formatter: must be a formatter: plain, json, a.b, got 'jason'; "
            "did you mean 'json'?"
        ),
        'log.toml:17: writers."my app": a writer\'s name must be of letters, digits, "_" and "-" (not first)',
        "log.toml:21: writers.other.type: must be a type of writer: file, tty, stdout, stderr, custom, got 'fil'; did you mean 'file'?",
        "log.toml:22: writers.third.path: is missing, and has no default",
        "log.toml:25: formatters.\"a.b\".colour: unknown key 'colour'; did you mean 'colors'?",
    ]


def test_the_error_shows_all_problems_and_can_be_pickled(toml):
    with pytest.raises(ConfigError) as caught:
        load(toml(WRONG))
    assert str(caught.value).splitlines() == caught.value.problems
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("state_dir", "", "must be a path, and neither empty"),
        ("state_dir", 5, "must be a path, got 5"),
        ("state_dir", "a\0b", "must be a path"),
        ("state_dir", "~no-such-user/x", "must begin with the '~' of a user"),
        ("state_dir", __file__, "must be a folder"),
        ("redis", "redis://:pw@h", "must be a table, got 'redis://***@h'"),
        ("redis.url", "redis+sentinel://h", "other schemes are not supported"),
        ("redis.url", "redis+cluster://h", "other schemes are not supported"),
        ("redis.url", "http://h", "must be a url of the scheme embedded://, redis://, rediss:// or unix://"),
        ("redis.url", "localhost", "must be a url of the scheme"),
        ("redis.url", 6379, "must be a url"),
        ("redis.url", "embedded://x", "must be exactly 'embedded://'"),
        ("redis.url", "redis://", "must be like redis://user:password@host:6379/0"),
        ("redis.url", "redis://h:99999", "must be like redis://"),
        ("redis.url", "redis://h/one", "must be like redis://"),
        ("redis.url", "unix://run/redis.sock", "must be like unix:///path/to.sock"),
        ("redis.url", "redis://h?socket_timeout=1", "must have no parameter besides db, username, password"),
        ("redis.url", "redis://h?ssl_ca_certs=1", "must have no parameter besides db, username, password"),
        ("redis.url", "redis://h?db=x", "must have a number as parameter db"),
        ("stream.name", "../x", 'must be of letters, digits, "_", "." and "-" (not first)'),
        ("stream.name", "..", "must be of letters"),
        ("stream.name", ".hidden", "must be of letters"),
        ("stream.name", "a/b", "must be of letters"),
        ("stream.name", "a\n", "must be of letters"),
        ("stream.name", "", "must be of letters"),
        ("stream.name", "x" * 101, "at most 100 of them"),
        (
            "stream.layout",
            "record",
            "must be \"batches\" or \"records\", got 'record'; did you mean 'records'?",
        ),
        ("stream.compression", "gzip", 'must be "auto" or "none" or "zlib" or "zstd"'),
        ("stream.max_records", 0, "must be >= 1, got 0"),
        ("stream.max_records", 2**70, "must be <="),
        ("stream.max_records", True, "must be a whole number >= 1, got true"),
        ("producer.level", True, "must be the name of a level"),
        ("producer.level", -1, "must be the name of a level"),
        ("producer.level", 1.5, "must be the name of a level"),
        ("producer.flush_interval", 0, "must be > 0 and <= 60, got 0"),
        ("producer.flush_interval", 61, "must be > 0 and <= 60, got 61"),
        ("producer.flush_interval", float("nan"), "must be a duration"),
        ("producer.flush_interval", float("inf"), "must be a duration"),
        ("producer.flush_interval", True, "must be a duration"),
        ("producer.flush_interval", "2 parsecs", "units are ms, s, min, hours, days, weeks"),
        ("producer.shutdown_timeout", -1, "must be >= 0"),
        ("producer.block_timeout", "-1 s", "must be >= 0, got '-1 s'"),
        ("producer.buffer_size", 0, "must be >= 1"),
        ("producer.buffer_size", 1.5, "must be a whole number >= 1, got 1.5"),
        ("producer.spool_max_bytes", "1 KiB", "must be >= 1 MiB, got '1 KiB'"),
        ("producer.spool_max_bytes", "10 XB", "units are B, KiB"),
        ("producer.spool_max_bytes", 1e7, "must be a size"),
        ("producer.on_full", "drop", 'must be "drop_new" or "drop_old" or "block"'),
        ("producer.ship", 5, 'must be "supervisor" or "thread", got 5'),
        ("loggers.root", "LOUD", "must be the name of a level"),
        ("loggers.my", {"app": "INFO"}, 'write a name with dots in quotes: "my.app" = "INFO"'),
        ("loggers", ["root"], "must be a table, got a list"),
        ("formatters.f", "text", "must be a table"),
        ("formatters.f.type", "jsn", "did you mean 'json'?"),
        ("formatters.f.fields", {"a": 1}, 'has no effect with type = "text"'),
        ("formatters.json.fields", {"a": {"b": [1]}}, "must be a table of texts, numbers and booleans"),
        ("formatters.json.fields", "a", "must be a table of texts, numbers and booleans"),
        ("formatters.f.format", 5, "must be text, got 5"),
        (
            "formatters.f.format",
            "plain",
            "must be a format of style '%' (it has no field such as '%(message)s'",
        ),
        (
            "formatters.f.format",
            "%(message)s %(message)z",
            "must be a format of style '%' (unsupported format character",
        ),
        ("formatters.f.format", "%(levelname)d", "must be a format of style '%'"),
        ("formatters.f", {"style": "{", "format": "{message"}, "must be a format of style '{'"),
        ("formatters.f", {"style": "{", "format": "{message:d}"}, "must be a format of style '{'"),
        ("formatters.f", {"style": "$", "format": "${message} $"}, "must be a format of style '$'"),
        ("formatters.f.datefmt", 5, "must be a format of time.strftime"),
        ("formatters.f.style", "&", 'must be "%" or "{" or "$"'),
        ("formatters.f.optional_fields", "request_id", "must be a list of texts, got 'request_id'"),
        ("formatters.f.optional_fields", [1], "must be a list of texts, got a list"),
        ("formatters.json.format", "%(message)s", 'has no effect with type = "json"'),
        ("formatters.json.datefmt", "%H", 'has no effect with type = "json"'),
        ("writers.app", "app.log", "must be a table"),
        ("writers.app.type", "stdin", "must be a type of writer: file, tty, stdout, stderr"),
        ("writers.app.path", "/", "must be a file, and there is a folder"),
        ("writers.app.formatter", 5, "must be text"),
        ("writers.app.max_bytes", "-5 MiB", "must be >= 0"),
        ("writers.app.max_bytes", "ten", "must be a size: a whole number of bytes, or text such as"),
        ("writers.app.max_bytes", 2**70, "within reason"),
        ("writers.app.when", "noon", 'must be one of "S", "M", "H", "D", "midnight", "W0" to "W6"'),
        ("writers.app.when", "W7", "must be one of"),
        ("writers.app.interval", 0, "must be >= 1"),
        ("writers.app.utc", "yes", "must be true or false, got 'yes'"),
        ("writers.app.utc", 1, "must be true or false, got 1"),
        ("writers.app.mode", 640, 'must be octal text such as "0640", got 640'),
        ("writers.app.mode", "0888", "must be octal text"),
        ("writers.app.mode", "0440", "must let the owner read and write"),
        ("writers.app.fsync", "sometimes", 'must be "never" or "rotation" or "interval" or "always"'),
        ("writers.app.loggers", "my.app", "must be a list of loggers' names"),
        ("writers.app.loggers", ["!"], "each item is a logger's name, or '!' and a name"),
        ("writers.app.loggers", ["a", "!a"], "must name a logger once"),
        ("writers.tty.color", "alway", "did you mean 'always'?"),
        ("writers.tty.path", "x", "unknown key 'path'"),
        ("supervisor.autostart", "on", "must be true or false"),
        ("supervisor.max_restarts", -1, "must be >= 0"),
        ("supervisor.restart_window", 0, "must be > 0"),
        ("supervisor.heartbeat_timeout", 1, "must be >= 2"),
        ("metrics.listen", 9464, 'must be host and port to listen on, such as "127.0.0.1:9464"'),
        ("metrics.listen", ":9464", "must be host and port"),
        ("metrics.listen", "localhost:65536", "must be host and port"),
        ("metrics.listen", "::1:80", 'or "[::1]:9464"'),
        (
            "writers.app",
            {"type": "stdout"},
            "set supervisor.autostart = false and run: redislogkit supervise",
        ),
        ("supervisor.log", "/", "must be a file, and there is a folder"),
        ("supervisor.log", FILE["path"], "must be a file of its own, no file of writers.app"),
        ("version", 2, "must be 1, the only version known here, got 2"),
        ("version", "1", "must be 1"),
        ("version", True, "must be 1"),
    ],
)
def test_a_bad_value_is_explained(path, value, rule):
    line = problem(one(path, value))
    assert line.startswith(f"configuration: {path}")
    assert rule in line


@pytest.mark.parametrize(
    ("keys", "key", "rule"),
    [
        (
            {"max_bytes": 9, "backup_count": 0},
            "backup_count",
            'must be >= 1 with max_bytes and naming = "number", got 0',
        ),
        ({"interval": 2}, "interval", "has no effect without when, got 2"),
        ({"utc": True, "max_bytes": 9}, "utc", "has no effect without when"),
        ({"compress": "gzip"}, "compress", "has no effect without max_bytes or when"),
        ({"max_age": 5}, "max_age", "has no effect without max_bytes or when"),
        ({"max_total_bytes": 5}, "max_total_bytes", "has no effect without max_bytes or when"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(keys, key, rule):
    assert problem({"writers": {"app": {**FILE, **keys}}}).startswith(
        f"configuration: writers.app.{key}: {rule}"
    )


@pytest.mark.parametrize(
    "keys",
    [
        {"max_bytes": 9, "backup_count": 0, "naming": "timestamp"},
        {"when": "H", "backup_count": 0, "naming": "number"},
        {"backup_count": 0},
        {"max_bytes": 9, "naming": "timestamp", "utc": True},
    ],
)
def test_keys_that_go_together_are_taken(keys):
    app(**keys)


def test_other_combinations_that_can_not_work_are_refused():
    assert "must be > 0" in problem({"producer": {"on_full": "block", "block_timeout": 0}})
    assert "has no effect" in problem({"stream": {"layout": "records", "compression": "zlib"}})


def test_zstd_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(zstd, "is_installed", lambda: False)
    assert "pip install 'redislogkit[zstd]'" in problem(one("stream.compression", "zstd"))
    assert "pip install" in problem({"writers": {"app": {**FILE, "when": "D", "compress": "zstd"}}})


@pytest.mark.parametrize(
    ("other", "rule"),
    [
        ({"path": "/tmp/x/../app.log"}, "must be a file of its own, but writers.app writes to this one"),
        ({"path": "/tmp/app.log.1"}, "must not have the name of a backup of writers.app"),
    ],
)
def test_two_writers_can_not_share_a_file(other, rule):
    line = problem({"writers": {"app": {**FILE, "max_bytes": 9}, "b": {"type": "file", **other}}})
    assert line.startswith(f"configuration: writers.b.path: {rule}")


def test_backups_can_not_have_the_name_of_another_writers_file():
    rotated = {**FILE, "when": "D"}
    other = {"type": "file", "path": Path("/tmp/app.log.2026-11-22")}
    line = problem({"writers": {"b": other, "app": rotated}})
    assert "writers.app.path: must not have backups with the name of the file of writers.b" in line
    line = problem({"writers": {"app": rotated, "b": other}})
    assert line.endswith("a backup of writers.app, got '/tmp/app.log.2026-11-22'")
    assert len(load({"writers": {"app": FILE, "b": other}}).writers) == 2


def test_zstd_is_found_where_it_can_be_imported():
    names = ("compression.zstd", "backports.zstd")
    importable = False
    for name in names:
        with contextlib.suppress(ImportError):
            importable = bool(importlib.import_module(name))
    assert zstd.is_installed() is importable


def test_odd_keys_are_refused_on_one_line():
    lines = problems(
        {5: 1, "a\nb": 2, "loggers": {"": "INFO"}, "writers": {7: FILE}, "formatters": {None: {}}}
    )
    assert len(lines) == 5
    assert not any("\n" in line for line in lines)


def test_long_values_are_shortened():
    assert len(problem(one("stream.layout", "x" * 10_000))) < 150
    assert len(problem({"k" * 10_000: 1})) < 400


ODD_VALUES: tuple[object, ...] = (
    None,
    True,
    -1,
    10**400,
    1e400,
    "",
    "\ud800",
    "${",
    "x" * 200,
    b"x",
    [],
    [[]],
    {},
    {"a": {}},
    object(),
)


@pytest.mark.usefixtures("untraced")
def test_no_value_of_any_key_raises_anything_else():
    paths = [
        f"{section}.{key}"
        for section, schema in (
            ("redis", RedisConfig),
            ("stream", StreamConfig),
            ("producer", ProducerConfig),
            ("formatters.f", FormatterConfig),
            ("writers.app", FileWriterConfig),
            ("writers.tty", TtyWriterConfig),
            ("supervisor", SupervisorConfig),
            ("metrics", MetricsConfig),
        )
        for key in schema.__struct_fields__
    ]
    paths += [*Config.__struct_fields__, "loggers.x", "writers.x", "writers.app.type"]
    for number, path in enumerate(paths):
        for value in ODD_VALUES[number % 2 :: 2]:
            config = load_or_none(one(path, value))
            assert config is None or from_bytes(to_bytes(config)) == config


def load_or_none(source: Mapping[str, Any]) -> Config | None:
    with contextlib.suppress(ConfigError):
        return load(source)
    return None


# --- places ------------------------------------------------------------------------------------------------


def test_lines_of_keys_are_found():
    text = (
        "# comment\r\n"
        "a = 1\r\n"
        'text = """\n[not.a.table]\nx = 1\n"""\n'
        "list = [\n  1, # one\n  2,\n]\n"
        "in.line = {x = 1, y = {z = 2}}\n"
        '\n[b . "c.d"]\n'
        "e = 1\n"
        "[[tables]]\n"
        "f = 1\n"
        "[b]\n"
        "g = 1"
    )
    assert tomli.loads(text)
    lines = key_lines(text)
    assert {path: line for path, line in lines.items() if path != ("b", "g")} == {
        ("a",): 2,
        ("text",): 3,
        ("list",): 7,
        ("in",): 11,
        ("in", "line"): 11,
        ("in", "line", "x"): 11,
        ("in", "line", "y"): 11,
        ("in", "line", "y", "z"): 11,
        ("b",): 13,
        ("b", "c.d"): 13,
        ("b", "c.d", "e"): 14,
        ("tables",): 15,
    }
    assert lines["b", "g"] == 18


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_lines_of_ready_made_files_are_those_of_their_keys(file):
    text = file.read_text()
    for path, line in key_lines(text).items():
        assert str(path[-1]) in text.splitlines()[line - 1]


# --- sources -----------------------------------------------------------------------------------------------


def test_a_missing_file_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert problem("conf/x.toml") == (
        f"conf/x.toml: there is no such file, looked for {tmp_path}/conf/x.toml"
    )
    assert problem(None) == (
        f"log.toml: there is no such file, looked for {tmp_path}/log.toml "
        "(no path was given and $REDISLOGKIT_CONFIG is not set)"
    )
    assert problem(None, REDISLOGKIT_CONFIG="/none.toml") == (
        "/none.toml: there is no such file, looked for /none.toml (named by $REDISLOGKIT_CONFIG)"
    )


def test_the_variable_wins_over_the_default_file(toml, tmp_path):
    toml('[stream]\nname = "default"')
    (tmp_path / "other.toml").write_text('[stream]\nname = "named"')
    assert load(environ={}).stream.name == "default"
    assert load(environ={"REDISLOGKIT_CONFIG": ""}).stream.name == "default"
    assert load(environ={"REDISLOGKIT_CONFIG": "other.toml"}).stream.name == "named"


def test_what_is_no_readable_file_is_explained(toml, tmp_path):
    assert problem(tmp_path).endswith(f"must be a file, but {tmp_path} is a directory")
    assert problem(toml("") / "x").endswith("can not be read: Not a directory")
    assert problem("a\0b").endswith("is no path, it has NUL in it")
    Path("log.toml").write_bytes(b"a = 1\n# \xff\n")
    assert problem("log.toml") == "log.toml:2: must be UTF-8"


def test_an_unreadable_file_is_explained(toml, monkeypatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = toml("")
    monkeypatch.setattr("builtins.open", refuse)
    line = problem(path)
    monkeypatch.undo()
    assert line == "log.toml: can not be read: Permission denied"


def test_a_syntax_error_has_line_and_column(toml):
    assert problem(toml("version = 1\n[redis]\nurl = embedded\n")) == (
        "log.toml:3:7: is not TOML: Invalid value"
    )
    assert "is not TOML" in problem(toml("a = " + "9" * 5000))
    assert "is not TOML" in problem(toml("a = " + "[" * 5000))


def test_a_byte_order_mark_is_no_syntax_error(toml):
    assert load(toml("\ufeffversion = 1")).version == 1


def test_an_odd_source_is_a_type_error():
    with pytest.raises(TypeError, match="a path, a mapping or None, got int"):
        load(5)  # type: ignore[arg-type]


# --- overrides ---------------------------------------------------------------------------------------------


def test_overrides_win_nested_or_dotted(toml):
    path = toml(
        '[producer]\nlevel = "ERROR"\nbuffer_size = 5\n[loggers]\n"my.app" = "INFO"\n'
        '[writers.app]\ntype = "file"\npath = "a.log"\n[writers.tty]\ntype = "tty"\n'
    )
    config = load(
        path,
        {
            "producer.level": "INFO",
            "stream": {"name": "mine"},
            "loggers.my.app": "DEBUG",
            "writers.app.max_bytes": "1 KiB",
            "writers.tty": None,
        },
    )
    assert config.producer == ProducerConfig(level=logging.INFO, buffer_size=5)
    assert config.stream.name == "mine"
    assert config.loggers == {"root": logging.INFO, "my.app": logging.DEBUG}
    assert config.writers == {"app": FileWriterConfig(path=os.path.abspath("a.log"), max_bytes=1024)}


def test_problems_of_overrides_say_so(toml):
    path = toml('[producer]\nlevel = "DEBG"\n[writers.app]\ntype = "file"\nbackup_count = -1\n')
    overrides = {"producer.levl": 1, "stream": {"name": "/"}, "writers.new.type": "file", "redis": 5}
    assert [line.partition(":  ")[0].split(": ")[:2] for line in problems(path, overrides)] == [
        ["log.toml:2", "producer.level"],
        ["log.toml:3", "writers.app.path"],
        ["log.toml:5", "writers.app.backup_count"],
        ["override", "redis"],
        ["override", "stream.name"],
        ["override", "producer.levl"],
        ["override", "writers.new.path"],
    ]


def test_the_source_is_not_changed_by_overrides():
    source = {"producer": {"level": "INFO"}}
    load(source, {"producer.level": "ERROR"})
    assert source == {"producer": {"level": "INFO"}}


# --- secrets -----------------------------------------------------------------------------------------------

SECRET = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}@h:x/0",
        f"redis://{SECRET}@h/one",
        f"redis://:{SECRET}",
        f"redis://:{SECRET}/x@h",
        f"redis://:x/{SECRET}@h",
        f"redis://:x#{SECRET}@h",
        f"redis://:x?{SECRET}=1@h",
        f"redis://:x?y={SECRET}@h",
        f"redis://:x@{SECRET}@h",
        f"redis://h?password={SECRET}&nope=1",
        f"redis://h?ssl_password=x@{SECRET}",
        f"redis://h?{SECRET}=1",
        f"redis://h/{SECRET}",
        f"redis+sentinel://:{SECRET}@h",
        f"redis:/:{SECRET}@h",
        f"see redis://:{SECRET}@h",
        f"embedded://{SECRET}",
        f"unix://{SECRET}@h/x",
        SECRET,
    ],
)
def test_no_message_shows_a_part_of_a_url_that_may_be_secret(url, toml):
    for source in (one("redis.url", url), toml(f"[redis]\nurl = '{url}'\n")):
        with pytest.raises(ConfigError) as caught:
            load(source)
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert SECRET not in repr(caught.value)
    assert SECRET not in problem(one("redis.url", [url]))
    if "://" in url:
        assert SECRET not in problem({"redis": url})
        assert SECRET not in problem({url: 1})


def test_no_message_shows_what_a_variable_held():
    wrong = {
        "state_dir": "${S}\0",
        "redis": {"url": "redis://${S}/${S}"},
        "stream": {"name": "${S}/", "layout": "${S}"},
        "producer": {"level": "${S}", "flush_interval": "${S}", "buffer_size": "${S}"},
        "loggers": {"x": "${S}"},
        "formatters": {"f": {"type": "${S}", "optional_fields": "${S}"}},
        "writers": {
            "a": {"type": "file", "path": "/tmp/${S}", "mode": "${S}", "loggers": ["${S}", "${S}"]},
            "b": {"type": "${S}", "formatter": "${S}"},
            "c": {"type": "file", "path": "/tmp/${S}"},
            "d": {"type": "file", "path": "/tmp/${S}"},
        },
    }
    lines = problems(wrong, S=SECRET)
    assert len(lines) == 15
    assert not any(SECRET in line for line in lines)


def test_a_syntax_error_does_not_show_the_file(toml):
    with pytest.raises(ConfigError) as caught:
        load(toml(f'[redis]\nurl = "redis://:{SECRET}@h\n'))
    assert (
        caught.value.__context__ is sys.exc_info()[1]
    )  # none of ours: what an interrupted test was at may stay
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_no_repr_shows_a_secret():
    config = load(
        {
            "state_dir": "/tmp/${S}",
            "redis": {"url": f"redis://user:{SECRET}@h/0?password=${{S}}"},
            "stream": {"name": "${S}"},
            "formatters": {"f": {"datefmt": "${S}", "optional_fields": ["${S}"]}},
            "writers": {
                "a": {"type": "file", "path": "/tmp/${S}", "loggers": ["${S}"], "formatter": "f"},
                "b": {"type": "tty", "loggers": ["${S}"]},
            },
        },
        environ={"S": SECRET},
    )
    for part in (
        config,
        config.redis,
        config.stream,
        config.writers,
        config.formatters,
        *config.writers.values(),
    ):
        assert SECRET not in f"{part!r} {part}"
        assert SECRET not in repr(list(getattr(part, "__rich_repr__", list)()))
    assert config.redis.safe_url == "redis://***@h/0?password=***"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("embedded://", "embedded://"),
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://u:p@h:1/0?db=3", "redis://***@h:1/0?db=***"),
        ("redis://h?x=1", "redis://h?***"),
        ("unix://u:p@/run/r.sock", "unix://***@/run/r.sock"),
        ("http://u:p@h", "http://***"),
        ("nothing", "***"),
    ],
)
def test_urls_are_redacted(url, expected):
    assert redact(url) == expected


# --- bytes and digest --------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_a_configuration_survives_the_way_to_another_process(file):
    config = load(file)
    assert from_bytes(to_bytes(config)) == config


@pytest.mark.parametrize("data", [b"", b"\x80", b"x", msgspec.msgpack.encode({"version": "hunter2"})])
def test_bytes_that_are_no_configuration_are_refused(data):
    with pytest.raises(CorruptDataError) as caught:
        from_bytes(data)
    assert (
        caught.value.__context__ is sys.exc_info()[1]
    )  # none of ours: what an interrupted test was at may stay


def test_the_digest_is_that_of_the_content(toml, tmp_path):
    a = {"type": "file", "path": str(tmp_path / "a.log")}
    b = {"type": "tty"}
    config = load({"writers": {"a": a, "b": b}})
    text = '[writers.b]\ntype = "tty"\n[writers.a]\ntype = "file"\npath = "a.log"\n[redis]\nurl = "embedded://"\n'
    same = load(toml(text))
    assert same.source != config.source
    assert digest(same) == digest(config) == digest(from_bytes(to_bytes(config)))
    assert digest(load({"writers": {"a": a}})) != digest(config)
    assert len(digest(config)) == 64


def test_a_configuration_is_frozen():
    with pytest.raises(AttributeError):
        load({}).stream.name = "other"  # type: ignore[misc]


# --- selection ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "name", "taken"),
    [
        ([], "any", True),
        (["my.app"], "my.app", True),
        (["my.app"], "my.app.db", True),
        (["my.app"], "my.apple", False),
        (["my.app"], "my", False),
        (["my.app"], "root", False),
        (["my.app", "!my.app.noise"], "my.app.noise.x", False),
        (["my.app", "!my.app.noise", "my.app.noise.keep"], "my.app.noise.keep.x", True),
        (["!noise"], "noise", False),
        (["!noise"], "other", True),
        (["!noise"], "root", True),
        (["!root"], "root", False),
        (["!root"], "my", True),
        (["my"], "", False),
    ],
)
def test_a_writer_selects_loggers(patterns, name, taken):
    assert selects(tuple(patterns), name) is taken


# --- files and pages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_every_ready_made_file_loads(file):
    assert load(file, environ={}).source == str(file)


def test_the_ready_made_files_are_there():
    names = {file.name for file in CONFIGS}
    assert names >= {
        "minimal.toml",
        "seed.toml",
        "json.toml",
        "external-redis.toml",
        "full.toml",
        "container.toml",
    }


def test_the_seed_file_says_what_the_seed_example_says():
    config = load(ROOT / "configs/seed.toml")
    assert (config.redis.url, config.stream.name) == ("redis://localhost:6379/0", "my_log_stream")
    assert (config.producer.buffer_size, config.producer.flush_interval) == (10, 0.05)
    assert config.stream.layout == "records"
    assert config.writers == {
        "console": TtyWriterConfig(),
        "file": FileWriterConfig(path="/var/log/my_app.log", max_bytes=10 * MIB, backup_count=5),
    }


def test_the_external_file_takes_host_and_password_from_the_environment():
    environ = {"REDIS_HOST": "there", "REDIS_PASSWORD": "p%40"}
    assert (
        load(ROOT / "configs/external-redis.toml", environ=environ).redis.url == "redis://:p%40@there:6379/0"
    )


def test_the_full_file_names_every_key():
    tree = tomli.loads((ROOT / "configs/full.toml").read_text())
    fields = Config.__struct_fields__
    assert set(tree) == set(fields) - {"source"}
    formatters = tree["formatters"]
    assert {*formatters["plain"], *formatters["json"]} == set(FormatterConfig.__struct_fields__)
    assert set(tree["writers"]["app"]) == {"type", *FileWriterConfig.__struct_fields__}
    assert set(tree["writers"]["console"]) == {"type", *TtyWriterConfig.__struct_fields__}
    assert set(tree["writers"]["hook"]) == {"type", *CustomWriterConfig.__struct_fields__}
    for name, schema in (
        ("redis", RedisConfig),
        ("stream", StreamConfig),
        ("producer", ProducerConfig),
        ("supervisor", SupervisorConfig),
        ("metrics", MetricsConfig),
    ):
        assert set(tree[name]) == set(schema.__struct_fields__)


def test_the_full_file_shows_defaults_where_it_does_not_say_example():
    config = load(ROOT / "configs/full.toml")
    default = load({"writers": {"app": FILE}})
    assert config.redis == default.redis
    assert config.producer == default.producer
    assert msgspec.structs.replace(config.supervisor, log=None) == default.supervisor
    assert msgspec.structs.replace(config.stream, name="app") == default.stream


def reference() -> Any:
    """Return the generator of the reference, a script beside the page."""
    path = ROOT / "docs/configuration_reference.py"
    spec = importlib.util.spec_from_file_location("configuration_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_holds_the_reference_of_the_schema():
    module = reference()
    text = module.PAGE.read_text(encoding="utf-8")
    assert text == module.page(text), "run: python docs/configuration_reference.py"


def test_every_key_is_described_in_the_reference():
    module = reference()
    resolved = {
        "redis",
        "stream",
        "producer",
        "loggers",
        "formatters",
        "writers",
        "supervisor",
        "metrics",
        "source",
    }
    for title, schema in module.SECTIONS.items():
        table = module.reference().split(f"### {title}\n")[1].split("###")[0]
        documented = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
        assert documented == set(schema.__struct_fields__) - (resolved if schema is Config else set())


def test_the_examples_of_the_page_are_right(toml):
    blocks = (ROOT / "docs/configuration.md").read_text().split("```toml\n")[1:]
    for block in blocks:
        load(toml(block.split("```")[0]), environ={})


def test_loading_imports_nothing_heavy():
    program = (
        "import sys, redislogkit.config as c; c.load({'writers': {'a': {'type': 'tty'}}}); "
        "print([m for m in ('redis', 'multiprocess', 'filelock', 'difflib', 'asyncio') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout == "[]\n"


# --- what can be known of a file that is wrong -----------------------------------------------------------------


@pytest.mark.parametrize("fault", ["[writers.app", 'type = "file', "]", "level = ", "[wirters.b]", "\0"])
def test_a_file_that_is_wrong_still_says_where_its_stream_is(tmp_path, fault):
    path = tmp_path / "log.toml"
    head, where, writer = (
        'state_dir = "here"',
        '[stream]\nname = "shop"\nmax_records = 0',
        "[writers.app]\nlevel = 1",
    )
    for text in ([head, where, fault, writer], [head, where, writer, fault]):
        path.write_text("\n".join(text))
        with pytest.raises(ConfigError):
            configuration.load(path)
        known = configuration.salvage(path)
        assert known is not None
        assert (known.state_dir, known.stream.name, known.source) == (
            str(tmp_path / "here"),
            "shop",
            str(path),
        )


def test_what_is_not_known_of_a_file_that_is_wrong_has_its_default(tmp_path):
    gone = configuration.salvage(tmp_path / "gone.toml")
    assert gone is not None and gone.stream.name == "app"
    (tmp_path / "log.toml").write_text("a = " + "[" * 5000)
    hopeless = configuration.salvage(tmp_path / "log.toml")
    assert hopeless is not None and hopeless.stream.name == "app"
    (tmp_path / "log.toml").write_text('stream = 7\nstate_dir = "${NOBODY_SETS_THIS}"')
    assert configuration.salvage(tmp_path / "log.toml") is None

"""The command line: ``python -m redislogkit`` or ``redislogkit``.

Exit codes: 0 done; 1 demo, drill or verify have missed a record; 2 wrong usage or configuration; 3 and 4 as
``redislogkit.supervise`` has them; 130 interrupted.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from redislogkit.config import Config
    from redislogkit.config_schema import Section

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130

_EXIT_CODES: Final = (
    "exit codes: 0 done; 1 demo, drill or verify have missed a record; 2 wrong usage or configuration; "
    "3 a part of the supervisor's work is not done; 4 another supervisor runs already; 130 interrupted"
)
_CONFIG_HELP: Final = "configuration file (default: $REDISLOGKIT_CONFIG, else log.toml)"
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_ONE_VARIABLE: Final = re.compile(r"\$\{\w+\}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line ``arguments`` (by default those of the process); return the exit code."""
    options = _parser().parse_args(arguments)
    if options.command == "demo":
        from redislogkit import demo

        return demo.run()
    if options.command == "supervise":
        from redislogkit import supervise

        return supervise.main([] if options.config is None else [options.config])
    if options.command == "writers":
        return _writers(options.config, options.drop)
    if options.command == "verify":
        return _verify(options.config, options.files, as_json=options.json)
    if options.command == "drill":
        return _drill(options)
    return _check(options.config)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="redislogkit",
        description="Log records of many processes, through a Redis or Valkey stream, into files and terminals.",
        epilog=_EXIT_CODES,
    )
    # Whoever runs this module has imported the package; nothing in it may import the package itself.
    version = sys.modules["redislogkit"].__version__
    parser.add_argument("--version", action="version", version=f"redislogkit {version}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("demo", help="several processes log into one rotated file and onto this terminal")
    supervise = commands.add_parser(
        "supervise", help="run shipper, writers and embedded server in the foreground"
    )
    check = commands.add_parser(
        "check", help="check a configuration and print all of it, defaults included, without secrets"
    )
    writers = commands.add_parser(
        "writers", help="list the writers that the stream is kept for, or drop one that is gone for good"
    )
    writers.add_argument(
        "--drop", metavar="NAME", help="forget writer NAME: what only it has not written may be trimmed"
    )
    for command in (supervise, check, writers):
        command.add_argument("config", nargs="?", help=_CONFIG_HELP)
    _add_verify(commands)
    _add_drill(commands)
    return parser


def _add_verify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verify = commands.add_parser(
        "verify",
        help="prove that log files are complete, or name what is missing or doubled in them",
        epilog="exit codes: 0 complete; 1 not complete, and it says what is wrong; 2 wrong usage or configuration, "
        "or a file can not be read. Nothing is written or locked; writers may be at work.",
    )
    verify.add_argument("--config", metavar="FILE", help=_CONFIG_HELP)
    verify.add_argument("--json", action="store_true", help="print one JSON object")
    verify.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="log files; the writers that they belong to are verified with all their files (default: all writers of "
        "files). Instead of --config, the configuration may stand here first: a file that ends in .toml",
    )


def _add_drill(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    drill = commands.add_parser(
        "drill",
        help="log through a configuration while its processes are killed and stopped, then count the records",
        epilog="exit codes: 0 every record is there once, whole and in order; 1 not so, or not everything was written; "
        "2 wrong usage or configuration, nothing was done; 130 interrupted. Its records stay in the log files.",
    )
    drill.add_argument("config", nargs="?", help=_CONFIG_HELP)
    drill.add_argument(
        "--seconds", type=_positive, default=15.0, help="how long to log (default: %(default)g)"
    )
    drill.add_argument("--faults", type=_count, help="how many (default: one every two seconds)")
    drill.add_argument(
        "--processes", type=_processes, default=3, help="that log, 1 to 50 (default: %(default)s)"
    )
    drill.add_argument(
        "--rate",
        type=_positive,
        help="records a second of each process (default: 50, less where they would push others out of the backups)",
    )
    drill.add_argument("--seed", type=int, help="of the faults (default: a new one, printed)")
    drill.add_argument(
        "--drain",
        type=_positive,
        default=60.0,
        metavar="SECONDS",
        help="how long writing the rest may take at the end (default: %(default)g)",
    )
    drill.add_argument("--dry-run", action="store_true", help="only say what would be done")


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be more than 0, got {text}")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more, got {text}")
    return number


def _processes(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 50:
        raise argparse.ArgumentTypeError(f"must be from 1 to 50, got {text}")
    return number


# --- writers -----------------------------------------------------------------------------------------------


def _writers(source: str | None, drop: str | None) -> int:
    from redislogkit import config as configuration
    from redislogkit.errors import RedislogkitError
    from redislogkit.stream import address
    from redislogkit.stream.client import StreamClient

    try:
        config = configuration.load(source)
        client = StreamClient(address.resolve(config), config.stream.name)
        registered = client.registered_writers()
        if drop is not None and drop not in registered:
            print(
                f"--drop must name a registered writer, got {drop!r}; registered: {', '.join(registered) or 'none'}",
                file=sys.stderr,
            )
            return EXIT_USAGE
        if drop is not None:
            client.leave(drop)
            print(f"{drop} is dropped; it held the stream back to entry {registered[drop]}")
            return EXIT_OK
    except RedislogkitError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    configured = address.groups(config)
    for name, position in sorted(registered.items()):
        note = "" if name in configured else "   not configured here"
        print(f"{name:30} written up to {position}{note}")
    return EXIT_OK


# --- verify ------------------------------------------------------------------------------------------------


def _verify(source: str | None, files: list[str], *, as_json: bool) -> int:
    from redislogkit import config as configuration
    from redislogkit.errors import RedislogkitError
    from redislogkit.verify import verdict, verification

    if source is None and files and files[0].endswith(".toml"):
        source, *files = files
    try:
        config = configuration.load(source)
        results = verification.verify(config, files)
        waiting = verification.waiting(config)
    except (RedislogkitError, OSError) as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    if as_json:
        print(json.dumps({**verdict.as_json(results), "waiting": waiting}))
    else:
        print("\n".join(line for result in results for line in verdict.tell(result)))
        if waiting:
            print(waiting)
    return EXIT_OK if all(result.complete for result in results) else EXIT_FAILED


# --- drill -------------------------------------------------------------------------------------------------


def _drill(options: argparse.Namespace) -> int:
    import signal

    from redislogkit import config as configuration
    from redislogkit.drill import conduct
    from redislogkit.errors import RedislogkitError

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        config = configuration.load(options.config)
        chosen = {name: getattr(options, name) for name in conduct.Options._fields}
        drill = conduct.Drill(config, conduct.Options(**chosen), lambda text: print(text, flush=True))
        drill.introduce()
        if options.dry_run:
            return EXIT_OK
        result = drill.run()
    except (RedislogkitError, OSError) as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print(
            "drill: interrupted; nobody stays stopped, and what was logged will be written", file=sys.stderr
        )
        return EXIT_INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    for finding in conduct.tell(result):
        print(f"drill: {finding}", file=sys.stderr)
    print(result)
    return EXIT_OK if result.ok else EXIT_FAILED


# --- check -------------------------------------------------------------------------------------------------


def _check(source: str | None) -> int:
    from redislogkit import config as configuration
    from redislogkit.errors import ConfigError

    try:
        config = configuration.load(source)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    print(f"# {config.source} is right. With its defaults, and without secrets, it says:")
    print("\n".join(effective(config, _as_written(config))))
    return EXIT_OK


def _as_written(config: Config) -> Mapping[str, Any]:
    """Return the tree of the configuration's file, in which variables are not expanded."""
    import tomli

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
    yield from _table(["supervisor"], _values(config.supervisor, written.get("supervisor", {})))


def _below(written: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    for key in path:
        written = written.get(key, {})
    return written


def _values(section: Section, written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a section that have a value, as one would write them."""
    import msgspec

    from redislogkit.config_explain import choices

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
    from redislogkit.config_values import redact

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
    from redislogkit.config_reader import kind_of
    from redislogkit.config_values import LEVEL, MODE, SIZE

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
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(name)} = {_toml(item)}' for name, item in value.items())} }}"
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


if __name__ == "__main__":
    sys.exit(main())

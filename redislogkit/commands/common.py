"""What the commands share: exit codes, the option for the configuration, types of arguments."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, TypeAlias

from redislogkit.errors import ConfigError, ServerAwayError

if TYPE_CHECKING:
    from redislogkit.config import Config

    Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
#: What a shell reports for a program that a closed pipe has ended.
EXIT_CLOSED_PIPE: Final = 141

CONFIG_HELP: Final = "configuration file (default: $REDISLOGKIT_CONFIG, else log.toml)"


def add_parser(
    commands: Commands, name: str, summary: str, *, examples: str = "", exit_codes: str = "", about: str = ""
) -> argparse.ArgumentParser:
    """Add the parser of a command. ``examples`` are lines of a shell, ``about`` is the text above the options."""
    parts = [
        f"examples:\n{_indented(examples)}" if examples else "",
        exit_codes and f"exit codes: {exit_codes}",
    ]
    return commands.add_parser(
        name,
        help=summary,
        description=about or f"{summary[:1].upper()}{summary[1:]}.",
        epilog="\n\n".join(part for part in parts if part),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _indented(text: str) -> str:
    return "\n".join(f"  {line.strip()}" for line in text.strip().splitlines())


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the configuration as an argument that may be left out; as an option it is taken, too."""
    # A default would be set over what the option has given.
    parser.add_argument("config", nargs="?", default=argparse.SUPPRESS, help=CONFIG_HELP)
    parser.add_argument("-c", "--config", metavar="FILE", help="the same, as an option")


def add_config_option(parser: argparse.ArgumentParser) -> None:
    """Add the configuration as an option, for a command that has arguments of its own."""
    parser.add_argument("-c", "--config", metavar="FILE", help=CONFIG_HELP)


def add_url(parser: argparse.ArgumentParser) -> None:
    """Add what names a stream without a configuration, or another one; see `config_or_url`."""
    parser.add_argument("--url", help="the server, instead of redis.url; no configuration is needed then")
    parser.add_argument(
        "--stream", metavar="NAME", help='name of the stream (default: stream.name, else "app")'
    )


def config_or_url(options: argparse.Namespace) -> Config:
    """Return the configuration that the options mean. Raises ``ConfigError``."""
    from redislogkit import config as configuration

    values = {"redis.url": options.url, "stream.name": options.stream}
    overrides = {name: value for name, value in values.items() if value is not None}
    try:
        if options.config is None and options.url is not None:
            return configuration.load({}, overrides)
        return configuration.load(options.config, overrides)
    except ConfigError as error:
        if options.config is None and options.url is None:
            raise ConfigError([*error.problems, "or name the server: --url redis://host:6379/0"]) from None
        raise


@contextlib.contextmanager
def explained(config: Config, embedded: str = "", other: str = "") -> Iterator[None]:
    """Say what it means and what to do when the server is away; the texts are advice for either kind of server."""
    from redislogkit.stream import address

    try:
        yield
    except ServerAwayError as error:
        if address.is_embedded(config):
            text = f"the embedded server of {config.source} does not run: nobody logs, or the supervisor is down ({error})"
            advice = embedded or "'redislogkit status' says which"
        else:
            text = f"redis.url: no answer from {config.redis.safe_url} ({error})"
            advice = other or "'redislogkit doctor' looks for the reason"
        raise ServerAwayError(f"{text}; {advice}") from None


def positive(text: str) -> float:
    """Return a number above 0, for an argument."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be more than 0, got {text}")
    return number


def count(text: str) -> int:
    """Return a whole number, 0 included, for an argument."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more, got {text}")
    return number


def duration(value: str) -> float:
    """Return seconds above 0, for an argument such as ``90s``, ``10m`` or ``2 hours``."""
    from redislogkit.config_values import DURATION, RefusedError

    try:
        seconds: float = DURATION.parse(value)
    except RefusedError as error:
        raise argparse.ArgumentTypeError(f"{error.rule}, got {value!r}") from None
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"must be more than 0, got {value!r}")
    return seconds


def level(value: str) -> int:
    """Return a level by its name or number. Raises ``ConfigError``."""
    from redislogkit.config_values import LEVEL, RefusedError
    from redislogkit.errors import ConfigError

    try:
        number: int = LEVEL.parse(value)
    except RefusedError as error:
        raise ConfigError([error.told("LEVEL", value)]) from None
    return number


def check_name(option: str, name: str, known: Iterable[str]) -> None:
    """Raise ``ConfigError`` unless ``name``, which ``option`` has given, is one of those ``known``."""
    from redislogkit.config_values import nearest
    from redislogkit.errors import ConfigError

    if name not in known:
        hint = nearest(name, known)
        advice = f"; {hint}" if hint else ""
        raise ConfigError([f"{option} must be one of {', '.join(known)}; got {name!r}{advice}"])


def level_name(number: int) -> str:
    """Return the name of a level, as ``logging`` has it."""
    import logging

    return str(logging.getLevelName(number))


def user() -> str:
    """Return the name of who runs this, or the number where there is none."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.geteuid())

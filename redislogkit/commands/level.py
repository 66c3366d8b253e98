"""``redislogkit level``: another level for a logger, in all running producers, for a while."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from typing import TYPE_CHECKING, Final

from redislogkit.commands import common, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redislogkit.commands.common import Commands
    from redislogkit.config import Config
    from redislogkit.levels import Change
    from redislogkit.stream.client import StreamClient

NAME: Final = "level"

_LONGEST: Final = 30 * 86_400.0


def add(commands: Commands) -> None:
    """Add the parser."""
    parser = common.add_parser(
        commands,
        NAME,
        "change a logger's level in all running producers, on all hosts, for a while",
        about="Change a logger's level in all running producers, on all hosts; it is taken back by itself.\n"
        "Without LEVEL, list what is in force.",
        examples="redislogkit level shop.db DEBUG --for 10m\nredislogkit level urllib3 ERROR --for '2 hours'\n"
        "redislogkit level\nredislogkit level shop.db --reset",
        exit_codes="0 done; 1 there is nothing to take back; 2 wrong usage or configuration, or the server\n"
        "can not be reached",
    )
    common.add_config_option(parser)
    parser.add_argument("name", nargs="?", metavar="NAME", help="a logger's name; root is the root logger")
    parser.add_argument("level", nargs="?", metavar="LEVEL", help="DEBUG, INFO, ..., or a number")
    parser.add_argument(
        "--for",
        dest="seconds",
        metavar="TIME",
        type=common.duration,
        default=600.0,
        help="how long: 90s, 10m, '2 hours', 1d (default: 10m)",
    )
    parser.add_argument("--reset", action="store_true", help="take it back now")
    parser.add_argument("--json", action="store_true", help="list as one JSON object")


def run(options: argparse.Namespace) -> int:
    """Change, take back, or list."""
    from redislogkit import config as configuration
    from redislogkit.stream import address
    from redislogkit.stream.client import StreamClient

    wrong = _wrong_usage(options)
    if wrong:
        print(wrong, file=sys.stderr)
        return common.EXIT_USAGE
    config = configuration.load(options.config)
    level = None if options.level is None else common.level(options.level)
    client = StreamClient(address.resolve(config), config.stream.name)
    with contextlib.closing(client), common.explained(config):
        if options.reset:
            return _reset(client, options.name)
        if level is None:
            return _list(client, options.name, as_json=options.json)
        return _change(client, config, options.name, level, options.seconds)


def _wrong_usage(options: argparse.Namespace) -> str:
    if options.reset and (not options.name or options.level is not None):
        return "--reset takes the NAME of a logger and no LEVEL"
    if options.name == "":
        return "NAME must be the name of a logger, got ''; the root logger is root"
    if options.seconds > _LONGEST:
        return f"--for must be at most {text.span(_LONGEST)}, got {text.span(options.seconds)}; for good, set it in [loggers]"
    return ""


def _change(client: StreamClient, config: Config, name: str, level: int, seconds: float) -> int:
    from redislogkit import identity

    who = f"{common.user()}@{identity.host_name()}"
    client.set_level(name, level, seconds, who)
    ends = time.strftime("%H:%M:%S", time.localtime(time.time() + seconds))
    print(
        f"{name} is {common.level_name(level)} for {text.span(seconds)} (until {ends}) in all producers of stream "
        f"{config.stream.name!r}, a few seconds from now; in one that is silent with its next record"
    )
    for note in _notes(config, name, level):
        print(f"note: {note}", file=sys.stderr)
    return common.EXIT_OK


def _notes(config: Config, name: str, level: int) -> Iterator[str]:
    """Say what keeps records of that level away although the logger lets them pass."""
    if config.producer.level > level:
        least = common.level_name(config.producer.level)
        yield f"producer.level is {least}: what is below does not leave a producer"
    refusals = {
        writer: _refusal(section.level, section.loggers, name, level)
        for writer, section in config.writers.items()
    }
    takers = [writer for writer, why in refusals.items() if not why]
    if takers and len(takers) < len(refusals):
        yield f"of the writers, {', '.join(takers)} will write it"
    elif not takers:
        yield from (f"writers.{writer}.{why}" for writer, why in refusals.items())


def _refusal(least: int, patterns: tuple[str, ...], name: str, level: int) -> str:
    from redislogkit.selection import selects

    if least > level:
        return f"level is {common.level_name(least)}: what is below is not written there"
    if name != "root" and not selects(patterns, name):
        return f"loggers leaves {name} out"
    return ""


def _reset(client: StreamClient, name: str) -> int:
    if not client.reset_level(name):
        print(f"nothing is in force for {name}; 'redislogkit level' lists what is", file=sys.stderr)
        return common.EXIT_FAILED
    print(f"{name} has its own level again within a few seconds")
    return common.EXIT_OK


def _list(client: StreamClient, name: str | None, *, as_json: bool) -> int:
    from redislogkit.errors import StreamError

    found = client.levels()
    if found is None:
        raise StreamError(
            "the server does not let us read the levels; 'redislogkit doctor' says which right is missing"
        )
    changes = {
        logger: change for logger, change in sorted(found.changes.items()) if name is None or logger == name
    }
    if as_json:
        print(json.dumps({logger: _as_json(change, found.now) for logger, change in changes.items()}))
    elif not changes:
        print("no level is changed" if name is None else f"no level is changed for {name}")
    else:
        rows = [
            [logger, common.level_name(change.level), text.span(change.until - found.now), change.who]
            for logger, change in changes.items()
        ]
        print(text.table(["LOGGER", "LEVEL", "LEFT", "BY"], rows))
    return common.EXIT_OK


def _as_json(change: Change, now: float) -> dict[str, object]:
    return {
        "level": change.level,
        "name": common.level_name(change.level),
        "until": change.until,
        "left": round(change.until - now, 3),
        "who": change.who,
    }

"""``redislogkit writers``: who holds the stream back, and letting go of who is gone for good."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final

from redislogkit.commands import common

if TYPE_CHECKING:
    from redislogkit.commands.common import Commands
    from redislogkit.stream.client import StreamClient

NAME: Final = "writers"


def add(commands: Commands) -> None:
    """Add the parser."""
    parser = common.add_parser(
        commands,
        NAME,
        "list the writers that the stream is kept for, or drop one that is gone for good",
        examples="redislogkit writers\nredislogkit writers log.toml --drop old",
        exit_codes="0 done; 2 wrong usage or configuration, or the server can not be reached",
    )
    common.add_config(parser)
    parser.add_argument(
        "--drop", metavar="NAME", help="forget writer NAME: what only it has not written may be trimmed"
    )


def run(options: argparse.Namespace) -> int:
    """List or drop."""
    from redislogkit import config as configuration
    from redislogkit.stream import address
    from redislogkit.stream.client import StreamClient

    config = configuration.load(options.config)
    client = StreamClient(address.resolve(config), config.stream.name)
    with common.explained(config):
        registered = client.registered_writers()
    if options.drop is not None:
        return _drop(client, options.drop, registered)
    configured = address.groups(config)
    for name, position in sorted(registered.items()):
        note = "" if name in configured else "   not configured here"
        print(f"{name:30} written up to {position}{note}")
    return common.EXIT_OK


def _drop(client: StreamClient, name: str, registered: dict[str, str]) -> int:
    if name not in registered:
        known = ", ".join(registered) or "none"
        print(f"--drop must name a registered writer, got {name!r}; registered: {known}", file=sys.stderr)
        return common.EXIT_USAGE
    client.leave(name)
    print(f"{name} is dropped; it held the stream back to entry {registered[name]}")
    return common.EXIT_OK

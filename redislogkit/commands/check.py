"""``redislogkit check``: is the configuration right, what does it say with its defaults, what is odd about it?"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from redislogkit.commands import common
from redislogkit.commands.text import Style, tell

if TYPE_CHECKING:
    from redislogkit.commands.common import Commands
    from redislogkit.config import Config

NAME: Final = "check"

#: Where the origins of values begin, at the furthest.
_WIDEST: Final = 60


def add(commands: Commands) -> None:
    """Add the parser."""
    parser = common.add_parser(
        commands,
        NAME,
        "check a configuration and print all of it, defaults included, without secrets",
        about="Check a configuration and print all of it as TOML, defaults included, without secrets; behind each\n"
        "value stands where it comes from. What is allowed but odd is told on stderr.",
        examples="redislogkit check\nredislogkit check /etc/shop/log.toml --quiet --strict",
        exit_codes="0 it is right; 1 with --strict: there are warnings; 2 it is wrong, and every fault is named",
    )
    common.add_config(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="print only what is wrong or odd")
    parser.add_argument("--strict", action="store_true", help="warnings are faults, too")


def run(options: argparse.Namespace) -> int:
    """Check, print, warn."""
    from redislogkit import config as configuration
    from redislogkit.health.notes import notes

    config = configuration.load(options.config)
    if not options.quiet:
        named = options.config is None and os.environ.get(configuration.VARIABLE)
        by = f" (named by ${configuration.VARIABLE})" if named else ""
        print(f"# {config.source}{by} is right. With its defaults, and without secrets, it says:")
        print("\n".join(_lines(config)))
    found = notes(config)
    style = Style.of(sys.stderr)
    for note in found:
        print("\n".join(tell(note, style)), file=sys.stderr)
    return common.EXIT_FAILED if found and options.strict else common.EXIT_OK


def _lines(config: Config) -> Iterator[str]:
    from redislogkit.config_effective import Written, effective, origins

    written = Written.of(config)
    origin = origins(written)
    lines = list(effective(config, written.tree))
    width = min(max(len(line.text) for line in lines if line.path), _WIDEST)
    for line in lines:
        yield f"{line.text:{width}}  # {origin(line.path)}" if line.path else line.text

"""``redislogkit check``: is the configuration right, and what does it say with all its defaults?"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from redislogkit.commands import common

if TYPE_CHECKING:
    from redislogkit.commands.common import Commands

NAME: Final = "check"


def add(commands: Commands) -> None:
    """Add the parser."""
    parser = common.add_parser(
        commands,
        NAME,
        "check a configuration and print all of it, defaults included, without secrets",
        examples="redislogkit check\nredislogkit check /etc/shop/log.toml",
        exit_codes="0 it is right; 2 it is not, and every fault is named",
    )
    common.add_config(parser)


def run(options: argparse.Namespace) -> int:
    """Check, and print."""
    from redislogkit import config as configuration
    from redislogkit.config_effective import as_written, effective

    config = configuration.load(options.config)
    print(f"# {config.source} is right. With its defaults, and without secrets, it says:")
    print("\n".join(effective(config, as_written(config))))
    return common.EXIT_OK

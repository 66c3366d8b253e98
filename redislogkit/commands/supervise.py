"""``redislogkit supervise``, as ``python -m redislogkit.supervise``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from redislogkit.commands import common

if TYPE_CHECKING:
    from redislogkit.commands.common import Commands

NAME: Final = "supervise"


def add(commands: Commands) -> None:
    """Add the parser."""
    parser = common.add_parser(
        commands,
        NAME,
        "run shipper, writers and embedded server in the foreground",
        examples="redislogkit supervise /etc/shop/log.toml",
        exit_codes="0 everything was written; 2 wrong usage or configuration; 3 a part of the work is not done, "
        "what is\nnot written waits in the spools; 4 another supervisor runs already",
    )
    common.add_config(parser)


def run(options: argparse.Namespace) -> int:
    """Supervise until a signal ends it."""
    from redislogkit import supervise

    return supervise.main([] if options.config is None else [options.config])

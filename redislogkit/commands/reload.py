"""``redislogkit reload``: the supervisor takes the configuration as it is now."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Final

from redislogkit.commands import common

if TYPE_CHECKING:
    from redislogkit.commands.common import Commands

NAME: Final = "reload"

_PAUSE: Final = 0.05


def add(commands: Commands) -> None:
    """Add the parser."""
    parser = common.add_parser(
        commands,
        NAME,
        "have the supervisor take the configuration as it is now",
        about="Have the supervisor of this host load its configuration again, as SIGHUP does, and wait until what is\n"
        "different has been carried out. A configuration that is wrong changes nothing.",
        examples="redislogkit reload\nredislogkit reload /etc/shop/log.toml",
        exit_codes="0 done; 1 the supervisor has not taken it, or is not done in time; 2 wrong usage or configuration,\n"
        "or there is no supervisor",
    )
    common.add_config(parser)
    parser.add_argument(
        "--timeout",
        metavar="TIME",
        type=common.duration,
        default=60.0,
        help="how long to wait until it is done (default: 60s)",
    )


def run(options: argparse.Namespace) -> int:
    """Ask, say what becomes of it, wait."""
    from redislogkit import config as configuration
    from redislogkit import control

    config = configuration.load(options.config)
    answer = control.ask(config, {"do": control.RELOAD})
    if not answer["ok"]:
        print(answer["error"], file=sys.stderr)
        return common.EXIT_FAILED
    print("\n".join(answer["changes"]) or "nothing that concerns the supervisor has changed")
    deadline = time.monotonic() + options.timeout
    while control.ask(config, {"do": control.STATUS}).get("reloading"):
        if time.monotonic() >= deadline:
            print(f"not done within {options.timeout:g} s; it goes on", file=sys.stderr)
            return common.EXIT_FAILED
        time.sleep(_PAUSE)
    return common.EXIT_OK

"""``redislogkit verify``: prove that log files are complete."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Final

from redislogkit.commands import common

if TYPE_CHECKING:
    from redislogkit.commands.common import Commands

NAME: Final = "verify"


def add(commands: Commands) -> None:
    """Add the parser."""
    parser = common.add_parser(
        commands,
        NAME,
        "prove that log files are complete, or name what is missing or doubled in them",
        examples="redislogkit verify\nredislogkit verify app.log*\nredislogkit verify -c /etc/shop/log.toml --json",
        exit_codes="0 complete; 1 not complete, and it says what is wrong; 2 wrong usage or configuration,\n"
        "or a file can not be read. Nothing is written or locked; writers may be at work.",
    )
    common.add_config_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="log files; the writers that they belong to are verified with all their files (default: all writers of "
        "files). Instead of --config, the configuration may stand here first: a file that ends in .toml",
    )


def run(options: argparse.Namespace) -> int:
    """Verify, and say what was found."""
    from redislogkit import config as configuration
    from redislogkit.verify import verdict, verification

    source, files = options.config, options.files
    if source is None and files and files[0].endswith(".toml"):
        source, *files = files
    config = configuration.load(source)
    results = verification.verify(config, files)
    waiting = verification.waiting(config)
    if options.json:
        print(json.dumps({**verdict.as_json(results), "waiting": waiting}))
    else:
        print("\n".join(line for result in results for line in verdict.tell(result)))
        if waiting:
            print(waiting)
    return common.EXIT_OK if all(result.complete for result in results) else common.EXIT_FAILED

"""``redislogkit drill``: break things on purpose, then count the records."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING, Final

from redislogkit.commands import common

if TYPE_CHECKING:
    from redislogkit.commands.common import Commands

NAME: Final = "drill"


def add(commands: Commands) -> None:
    """Add the parser."""
    parser = common.add_parser(
        commands,
        NAME,
        "log through a configuration while its processes are killed and stopped, then count the records",
        examples="redislogkit drill log.toml --dry-run\nredislogkit drill log.toml --seconds 60",
        exit_codes="0 every record is there once, whole and in order; 1 not so, or not everything was written;\n"
        "2 wrong usage or configuration, nothing was done; 130 interrupted. Its records stay in the log files.",
    )
    common.add_config(parser)
    parser.add_argument(
        "--seconds", type=common.positive, default=15.0, help="how long to log (default: %(default)g)"
    )
    parser.add_argument("--faults", type=common.count, help="how many (default: one every two seconds)")
    parser.add_argument(
        "--processes", type=_processes, default=3, help="that log, 1 to 50 (default: %(default)s)"
    )
    parser.add_argument(
        "--rate",
        type=common.positive,
        help="records a second of each process (default: 50, less where they would push others out of the backups)",
    )
    parser.add_argument("--seed", type=int, help="of the faults (default: a new one, printed)")
    parser.add_argument(
        "--drain",
        type=common.positive,
        default=60.0,
        metavar="SECONDS",
        help="how long writing the rest may take at the end (default: %(default)g)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")


def run(options: argparse.Namespace) -> int:
    """Do it, unless it is only to be said; SIGTERM ends it as Ctrl-C does."""
    from redislogkit import config as configuration
    from redislogkit.drill import conduct

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        config = configuration.load(options.config)
        chosen = {name: getattr(options, name) for name in conduct.Options._fields}
        drill = conduct.Drill(config, conduct.Options(**chosen), lambda text: print(text, flush=True))
        drill.introduce()
        if options.dry_run:
            return common.EXIT_OK
        result = drill.run()
    except KeyboardInterrupt:
        print(
            "drill: interrupted; nobody stays stopped, and what was logged will be written", file=sys.stderr
        )
        return common.EXIT_INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    for finding in conduct.tell(result):
        print(f"drill: {finding}", file=sys.stderr)
    print(result)
    return common.EXIT_OK if result.ok else common.EXIT_FAILED


def _processes(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 50:
        raise argparse.ArgumentTypeError(f"must be from 1 to 50, got {text}")
    return number

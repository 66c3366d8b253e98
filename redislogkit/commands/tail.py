"""``redislogkit tail``: follow the stream live, from any machine."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Final

from redislogkit.commands import common, viewing
from redislogkit.errors import ServerAwayError

if TYPE_CHECKING:
    from redislogkit.commands.common import Commands
    from redislogkit.view.filter import Filter
    from redislogkit.view.follow import Follower
    from redislogkit.view.seen import Seen

NAME: Final = "tail"
_LAST: Final = 10
_BLOCK: Final = 1.0


def add(commands: Commands) -> None:
    """Add the parser."""
    parser = common.add_parser(
        commands,
        NAME,
        "show the newest records of the stream, and follow it live",
        about="Show the newest records of the stream, and with -f those that come. It only reads: no writer waits for it,"
        "\nand nothing is taken from anybody. The stream keeps what is not written yet and a little more; what is older"
        "\nis in the log files: see 'redislogkit cat'.",
        examples="""
            redislogkit tail -f
            redislogkit tail -f --level WARNING --logger shop --logger '!shop.noise'
            redislogkit tail -f --grep 'time.?out' --field request_id=4711
            redislogkit tail --since '10m ago' --output json | jq .message
            redislogkit tail -f --url redis://logs.example.com:6379/0 --stream shop
        """,
        exit_codes="0 done; 2 wrong usage or configuration, or the server can not be reached;\n"
        "130 interrupted; 141 the reader of the pipe has gone.",
    )
    common.add_config(parser)
    common.add_url(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    viewing.add_filter(parser)
    viewing.add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Show what is there, and what comes."""
    from redislogkit.stream import address
    from redislogkit.stream.client import StreamClient
    from redislogkit.view.follow import Follower
    from redislogkit.view.show import show

    config = common.config_or_url(options)
    wanted = viewing.wanted(options)
    formatter = viewing.formatter(options, config, viewing.usual_formatter(config))
    stdout = viewing.Stdout(options)
    render = show(formatter, colour=stdout.colour, verbatim=stdout.verbatim)
    follower = Follower(
        lambda: StreamClient(address.resolve(config), config.stream.name), partial(viewing.say, NAME), wanted
    )
    lines = options.lines
    if lines is None:
        lines = _LAST if wanted.since is None else viewing.ALL
    try:
        if not options.follow:
            with common.explained(
                config,
                "-f waits for it; what is written is in the log files: redislogkit cat",
                "-f waits for it, 'redislogkit doctor' looks for the reason",
            ):
                shown = stdout.write(map(render, _present(follower, wanted, lines)))
                cut = follower.cut_until() if 0 < shown < lines else None
            _say_where_it_begins(cut, wanted)
            if not shown:
                viewing.say(
                    NAME,
                    "nothing that is wanted is in the stream; what is written is in the log files: redislogkit cat",
                )
            return common.EXIT_OK
        shown = stdout.write(map(render, _begin(follower, wanted, lines, stdout)))
        if options.lines is not None and shown < lines != viewing.ALL:
            with contextlib.suppress(ServerAwayError):
                _say_where_it_begins(follower.cut_until(), wanted)
        follower.fetch_ahead()
        while True:
            shown = stdout.write(map(render, follower.read(_BLOCK)))
            stdout.check()
            if not shown and _is_over(wanted):
                return common.EXIT_OK
    finally:
        follower.close()


def _say_where_it_begins(cut: float | None, wanted: Filter) -> None:
    """Say it where more was asked for than the stream still has."""
    if cut is not None and cut > (wanted.since or 0.0):
        begin = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(cut))
        viewing.say(
            NAME, f"the stream goes back to {begin}; what is older is in the log files: redislogkit cat"
        )


def _present(follower: Follower, wanted: Filter, lines: int) -> Iterable[Seen]:
    """Return the last of what is there. Raises ``ServerAwayError``, also while it is gone through."""
    if wanted.since is not None:
        follower.start_since(wanted.since)
    return follower.read_to(follower.newest_id()) if lines == viewing.ALL else follower.start_with_last(lines)


def _begin(follower: Follower, wanted: Filter, lines: int, stdout: viewing.Stdout) -> list[Seen]:
    """Return the last of what is there, once the server answers."""
    if wanted.since is not None:
        follower.start_since(wanted.since)
    while lines != viewing.ALL:
        try:
            return follower.start_with_last(lines)
        except ServerAwayError as error:
            stdout.check()
            follower.wait_after(error)
    return []


def _is_over(wanted: Filter) -> bool:
    """True when nothing more can come: a record is there a moment after it was logged."""
    return wanted.until is not None and time.time() > wanted.until + 1.0

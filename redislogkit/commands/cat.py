"""``redislogkit cat``: archives, live file and stream as one sequence."""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from redislogkit.commands import common, viewing
from redislogkit.errors import ConfigError

if TYPE_CHECKING:
    from redislogkit.commands.common import Commands
    from redislogkit.config import Config, FormatterConfig
    from redislogkit.view.filter import Filter
    from redislogkit.view.whole import Line, Whole

NAME: Final = "cat"


def add(commands: Commands) -> None:
    """Add the parser."""
    parser = common.add_parser(
        commands,
        NAME,
        "show the records of a log file: archives, live file and what is only in the stream so far, as one sequence",
        about="Show the records of a log file on this host as one sequence, in the order of writing: archives (gzip and zstd"
        "\nas well), the live file, and what is only in the stream so far. Nothing is written or locked; writers may be"
        "\nat work. Log lines are text: what can be asked for is what their format shows.",
        examples="""
            redislogkit cat --level ERROR --since 'yesterday 22:00' --until 'today 06:00'
            redislogkit cat -n 100
            redislogkit cat --writer app --grep 'order 4711' --color always | less -R
            redislogkit cat --since '1h ago' --output json | jq 'select(.level == "ERROR") | .message'
            redislogkit cat --writer app --writer access --since 22:00
        """,
        exit_codes="0 done; 1 something could not be read, and it says what; 2 wrong usage or configuration;\n"
        "130 interrupted; 141 the reader of the pipe has gone.",
    )
    common.add_config(parser)
    parser.add_argument(
        "-w",
        "--writer",
        action="append",
        default=[],
        metavar="NAME",
        help="a writer of files; several ones are shown in the order of their times (default: the only one there is)",
    )
    viewing.add_filter(parser)
    viewing.add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Show them."""
    from redislogkit import config as configuration
    from redislogkit.stream import address
    from redislogkit.stream.client import StreamClient
    from redislogkit.view.whole import Whole

    config = configuration.load(options.config)
    wanted = viewing.wanted(options)
    stdout = viewing.Stdout(options)
    reports = viewing.Reports(NAME)
    shows: dict[str, Callable[[Line], str]] = {}
    with contextlib.ExitStack() as stack:
        wholes = []
        for name in _chosen(config, options.writer):
            whole = Whole(
                config,
                name,
                wanted,
                reports,
                lambda: StreamClient(address.resolve(config), config.stream.name),
                plain=options.output == "text"
                and not options.formatter
                and not stdout.colour
                and len(options.writer) < 2,
            )
            shows[name] = _shower(options, config, whole, name, stdout)
            _check(whole, wanted, name, several=len(options.writer) > 1)
            stack.callback(whole.close)
            whole.open()
            wholes.append((name, whole))
        merged: Iterator[tuple[float, str, Line]] = heapq.merge(
            *(_timed(name, _lines(whole, options.lines)) for name, whole in wholes), key=_time
        )
        if options.lines not in (None, viewing.ALL):
            merged = iter(deque(merged, options.lines))
        stdout.write(shows[name](line) for _, name, line in merged)
        for name, whole in wholes:
            _conclude(config, name, whole, reports)
    return common.EXIT_FAILED if reports.any else common.EXIT_OK


def _chosen(config: Config, names: list[str]) -> list[str]:
    """Return the writers that are meant. Raises ``ConfigError``."""
    from redislogkit.config import FileWriterConfig

    files = [name for name, writer in config.writers.items() if isinstance(writer, FileWriterConfig)]
    if not files:
        raise ConfigError(
            [f"{config.source} has no writer of files; 'redislogkit tail' shows what is in the stream"]
        )
    for name in names:
        common.check_name("--writer", name, files)
    if not names and len(files) > 1:
        raise ConfigError(
            [
                f"--writer must say which one, as {config.source} has several writers of files: {', '.join(files)}; one or more of them"
            ]
        )
    return list(dict.fromkeys(names)) or files


def _check(whole: Whole, wanted: Filter, name: str, *, several: bool) -> None:
    """Raise ``ConfigError`` where something is asked for that the lines do not show."""
    from redislogkit.view import parsing

    where = f"the format of writer {name!r}"
    parsing.check(whole.parser, wanted, where)
    if several and not whole.parser.shows("created"):
        raise ConfigError(
            [f"--writer: {where} shows no times by which its lines could be sorted; show it alone"]
        )


def _lines(whole: Whole, number: int | None) -> Iterator[Line]:
    return whole.lines() if number in (None, viewing.ALL) else iter(whole.last(number or 0))


def _timed(name: str, lines: Iterator[Line]) -> Iterator[tuple[float, str, Line]]:
    """Yield lines with times that never go back, so that each writer's order stays as it is."""
    latest = float("-inf")
    for line in lines:
        if line.seen is not None:
            latest = max(latest, line.seen.record.created)
        yield latest, name, line


def _time(timed: tuple[float, str, Line]) -> float:
    return timed[0]


# --- how they look -----------------------------------------------------------------------------------------


def _shower(
    options: argparse.Namespace, config: Config, whole: Whole, name: str, stdout: viewing.Stdout
) -> Callable[[Line], str]:
    """Return what renders the lines of a writer. Raises ``ConfigError``."""
    from redislogkit.escaping import palette
    from redislogkit.view.show import finish, show

    own = whole.writer.formatter
    formatter = viewing.formatter(options, config, own)
    render = show(formatter, colour=stdout.colour, verbatim=stdout.verbatim)

    colour_of = palette(own.colors)

    def as_it_is(line: Line) -> str:
        record = line.seen.record if line.seen else None
        return finish(
            line.text,
            record.levelno if record else 0,
            record.levelname if record else "",
            colour=stdout.colour and record is not None and own.type == "text",
            verbatim=stdout.verbatim,
            colour_of=colour_of,
        )

    def as_json(line: Line) -> str:
        from redislogkit.view.whole import as_json

        if line.seen is not None and line.shown is None:
            return render(line.seen)
        return finish(
            json.dumps(as_json(line), ensure_ascii=False), 0, "", colour=False, verbatim=stdout.verbatim
        )

    def anew(line: Line) -> str:
        return render(line.seen) if line.seen is not None else as_it_is(line)

    if options.output == "json":
        return lambda line: as_it_is(line) if own.type == "json" and line.seen else as_json(line)
    if options.formatter is None:
        return as_it_is
    _check_fields(whole, formatter, name)
    return anew


def _check_fields(whole: Whole, formatter: FormatterConfig, name: str) -> None:
    """Raise ``ConfigError`` where ``formatter`` shows what the lines in the files do not have."""
    from redislogkit import formatting
    from redislogkit.view.filter import STANDS_FOR

    if formatter.type == "json":
        return
    parsed = formatting.parse(formatter)
    names = [field.name for field in parsed.fields if field.spec] if parsed else []
    missing = [each for each in names if not any(map(whole.parser.shows, STANDS_FOR.get(each, (each,))))]
    if missing:
        text = (
            f"--formatter needs {', '.join(dict.fromkeys(missing))}, which the format of writer {name!r} does not show; "
            "choose another formatter, or leave it out to see the lines as they are"
        )
        raise ConfigError([text])


# --- the end -----------------------------------------------------------------------------------------------


def _conclude(config: Config, name: str, whole: Whole, reports: viewing.Reports) -> None:
    """Say what is missing, and why."""
    from redislogkit.stream import address

    if whole.not_understood:
        number = whole.not_understood
        viewing.say(
            NAME,
            f"{number} text{'s' if number > 1 else ''} in the files of writer {name!r} did not look like its format "
            "(as it was changed, or somebody else writes into the file), and whether they are wanted can not be told: "
            "they are left out; without a filter, or with --grep alone, they are shown",
        )
    if whole.away and address.is_embedded(config):
        waiting = _waiting(config)
        if waiting:
            reports(f"the embedded server does not run, and {waiting}: see 'redislogkit spool ls'")
    elif whole.away:
        reports(
            f"redis.url: no answer from {config.redis.safe_url}: what is not in the files yet is missing ({whole.away}); "
            "what waits on this host is shown by 'redislogkit spool show'"
        )


def _waiting(config: Config) -> str:
    from redislogkit.verify import verification

    return verification.waiting(config) if os.path.isdir(config.stream_dir) else ""

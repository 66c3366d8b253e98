"""``redislogkit spool``: what waits on this host, and what to do with it when no stream will ever take it."""

from __future__ import annotations

import argparse
import heapq
import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from redislogkit.commands import common, viewing
from redislogkit.errors import ConfigError

if TYPE_CHECKING:
    from redislogkit.commands.common import Commands
    from redislogkit.config import Config
    from redislogkit.view.seen import Seen
    from redislogkit.view.spools import Spool

NAME: Final = "spool"


def add(commands: Commands) -> None:
    """Add the parser."""
    parser = common.add_parser(
        commands,
        NAME,
        "list, show or drain the spools of this host: what its programs have logged and is not written yet",
        examples="redislogkit spool ls\nredislogkit spool show --level ERROR\n"
        "redislogkit spool drain --to /var/log/rescued.log",
        exit_codes="0 done; 1 something could not be read, and it says what; 2 wrong usage or configuration,\n"
        "or a supervisor is at work on what is to be drained; 130 interrupted.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_ls(actions)
    _add_show(actions)
    _add_drain(actions)


def _add_ls(actions: Commands) -> None:
    ls = common.add_parser(
        actions,
        "ls",
        "list the spools: whose they are, and what waits in them",
        examples="redislogkit spool ls\nredislogkit spool ls --json | jq '.[] | select(.alive | not)'",
    )
    common.add_config(ls)
    ls.add_argument("--json", action="store_true", help="print a list of objects")


def _add_show(actions: Commands) -> None:
    show = common.add_parser(
        actions,
        "show",
        "show the records that wait in spools, without touching them",
        examples="""
            redislogkit spool show
            redislogkit spool show 4711 --grep timeout
            redislogkit spool show 8f3b2c90-1 --all --output json
        """,
    )
    common.add_config_option(show)
    show.add_argument(
        "spools", nargs="*", metavar="SPOOL", help="names of spools, producers or pids (default: all spools)"
    )
    show.add_argument(
        "--all", action="store_true", help="also what is written already, as far as it is still there"
    )
    viewing.add_filter(show)
    viewing.add_output(show)


def _add_drain(actions: Commands) -> None:
    drain = common.add_parser(
        actions,
        "drain",
        "write what waits in spools to a file, when their stream is gone for good",
        about="Write what waits in the spools of programs that have ended to a file, and remove these spools. For the day when"
        "\nredis is gone for good; as long as it may come back, leave the spools to the supervisor. What the file writers"
        "\nof this host have in their log files is not written again. Killed at any moment, it goes on when it is run again"
        "\n(do so before a supervisor is started): the file has each record once. Refused while a supervisor runs.",
        examples="""
            redislogkit spool drain --to /var/log/rescued.log
            redislogkit spool drain --to rescued.jsonl --output json --all
        """,
        exit_codes="0 done; 1 something could not be read, and it says what; 2 nothing was done, and it says why.",
    )
    common.add_config(drain)
    drain.add_argument("--to", required=True, metavar="FILE", help="the file; what is in it stays")
    drain.add_argument(
        "--all", action="store_true", help="also what waits in the spools of programs that still run"
    )
    drain.add_argument(
        "-o", "--output", choices=("text", "json"), default="text", help="json: an object a line"
    )
    drain.add_argument(
        "--formatter", metavar="NAME", help="text as this formatter of the configuration has it"
    )


def run(options: argparse.Namespace) -> int:
    """List, show or drain."""
    from redislogkit import config as configuration

    config = configuration.load(options.config)
    reports = viewing.Reports(f"spool {options.action}")
    actions = {"ls": _ls, "show": _show, "drain": _drain}
    actions[options.action](options, config, reports)
    return common.EXIT_FAILED if reports.any else common.EXIT_OK


def _spools(config: Config, reports: viewing.Reports) -> list[Spool]:
    from redislogkit.view import spools

    return spools.look(config.spool_root, reports)


def _after(config: Config, spool: Spool) -> int:
    """Sequence behind which records wait: for the writers, or for the stream where that is the end of the promise."""
    return max(spool.written, spool.shipped) if config.producer.ack == "stream" else spool.written


# --- ls ----------------------------------------------------------------------------------------------------


def _ls(options: argparse.Namespace, config: Config, reports: viewing.Reports) -> None:
    from redislogkit.view import spools

    found = [
        _described(spool, *spools.waiting(spool, _after(config, spool), reports))
        for spool in _spools(config, reports)
    ]
    if options.json:
        print(json.dumps(found))
    elif found:
        print("\n".join(_table(found)))
    else:
        print(f"no spools below {config.stream_dir}: nothing waits on this host")


def _described(spool: Spool, records: int, oldest: float | None) -> dict[str, object]:
    facts = spool.facts
    return {
        "spool": spool.name,
        "producer": facts.producer,
        "host": facts.host,
        "pid": facts.pid,
        "process_name": facts.process_name,
        "program": _program(facts.pid) if spool.alive else "",
        "alive": spool.alive,
        "bytes": spool.size,
        "waiting": records,
        "oldest": oldest,
        "lost": spool.lost,
    }


def _program(pid: int) -> str:
    """Return what runs as ``pid``: program and script, but no arguments, as those may hold secrets."""
    try:
        with open(f"/proc/{pid:d}/cmdline", "rb") as file:
            words = [word.decode("utf-8", "backslashreplace") for word in file.read().split(b"\0")]
    except OSError:
        return ""
    shown = [os.path.basename(words[0])]
    if words[1:2] == ["-m"]:
        shown += words[1:3]
    elif words[1:] and not words[1].startswith("-"):
        shown.append(words[1])
    return " ".join(shown)


def _table(found: list[dict[str, object]]) -> Iterator[str]:
    from redislogkit.escaping import sanitise_terminal

    head = ("SPOOL", "HOST", "PID", "PROGRAM", "STATE", "BYTES", "WAITING", "OLDEST", "LOST")
    rows = [head, *map(_row, found)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
    for row in rows:
        cells = (
            cell.rjust(width) if name in ("PID", "BYTES", "WAITING") else cell.ljust(width)
            for cell, width, name in zip(row, widths, head, strict=True)
        )
        yield sanitise_terminal("  ".join(cells).rstrip())


def _row(one: dict[str, object]) -> tuple[str, ...]:
    lost = one["lost"]
    assert isinstance(lost, dict)
    return (
        str(one["spool"]),
        str(one["host"]),
        str(one["pid"]),
        str(one["program"] or one["process_name"]),
        "alive" if one["alive"] else "dead",
        str(one["bytes"]),
        str(one["waiting"]),
        _ago(one["oldest"]),
        ", ".join(f"{number} {cause}" for cause, number in lost.items()) or "-",
    )


def _ago(moment: object) -> str:
    if not isinstance(moment, float):
        return "-"
    seconds = max(time.time() - moment, 0.0)
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f}{unit} ago"
    return f"{seconds:.0f}s ago"


# --- show --------------------------------------------------------------------------------------------------


def _show(options: argparse.Namespace, config: Config, reports: viewing.Reports) -> None:
    from redislogkit.view import spools
    from redislogkit.view.show import show

    wanted = viewing.wanted(options)
    stdout = viewing.Stdout(options)
    formatter = viewing.formatter(options, config, viewing.usual_formatter(config))
    render = show(formatter, colour=stdout.colour, verbatim=stdout.verbatim)

    def after(spool: Spool) -> int:
        return 0 if options.all else _after(config, spool)

    producers: dict[str, list[Spool]] = {}
    for spool in _chosen(_spools(config, reports), options.spools):
        producers.setdefault(spool.facts.producer, []).append(spool)
    sources = [_timed(spools.records(group, after, reports)) for group in producers.values()]
    merged: Iterator[Seen] = (seen for _, seen in heapq.merge(*sources, key=lambda timed: timed[0]))
    found = filter(wanted.matches, merged)
    if options.lines not in (None, viewing.ALL):
        stdout.write(map(render, deque(found, options.lines)))
    else:
        stdout.write(map(render, found))


def _chosen(found: list[Spool], names: list[str]) -> list[Spool]:
    """Return the spools that are meant. Raises ``ConfigError``."""
    chosen: set[str] = set()
    for name in names:
        meant = {one.name for one in found if name in (one.name, one.facts.producer, str(one.facts.pid))}
        if not meant:
            known = ", ".join(one.name for one in found) or "none"
            raise ConfigError(
                [f"SPOOL must be the name, producer or pid of a spool, got {name!r}; spools: {known}"]
            )
        chosen |= meant
    return [one for one in found if one.name in chosen or not names]


def _timed(records: Iterator[Seen]) -> Iterator[tuple[float, Seen]]:
    """Yield records with times that never go back, so that each producer's order stays as it is."""
    latest = float("-inf")
    for seen in records:
        latest = max(latest, seen.record.created)
        yield latest, seen


# --- drain -------------------------------------------------------------------------------------------------


def _drain(options: argparse.Namespace, config: Config, reports: viewing.Reports) -> None:
    from redislogkit.draining import Drain

    if not _spools(config, reports) and not os.path.isdir(os.path.join(config.stream_dir, "drain")):
        print(f"no spools below {config.stream_dir}: there is nothing to drain")
        return
    formatter = viewing.formatter(options, config, viewing.usual_formatter(config))
    done = Drain(config, options.to, formatter, reports, all_spools=options.all).run()
    print(
        f"{_counted(done.records, 'record')} written to {options.to}; {_counted(done.spools, 'spool')} drained and removed"
    )
    if done.unsure:
        print(
            f"{_counted(done.unsure, 'record')} of these had been in the stream: a writer on another host may have them "
            "in its log files as well",
            file=sys.stderr,
        )
    if done.living:
        print(
            f"{_counted(done.living, 'spool')} left alone, as the programs still run: end them, or use --all",
            file=sys.stderr,
        )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

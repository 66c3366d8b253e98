"""``redislogkit status``: what runs, what waits, who is behind."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from redislogkit.commands import common, text
from redislogkit.commands.text import Cell, Style

if TYPE_CHECKING:
    from redislogkit.commands.common import Commands
    from redislogkit.config import Config
    from redislogkit.health.findings import Finding
    from redislogkit.health.overview import Seen, WriterRow

NAME: Final = "status"

#: Seconds between the two looks that a rate needs.
_APART: Final = 0.5
_MOST_PRODUCERS: Final = 15
_CLEAR: Final = "\x1b[H\x1b[J"
_COLOUR_OF_STATE: Final = {
    "running": "ok",
    "elsewhere": "ok",
    "starting": "dim",
    "draining": "dim",
    "waiting": "warning",
    "restarting": "warning",
    "set aside": "problem",
    "ended": "problem",
    "-": "dim",
}


def add(commands: Commands) -> None:
    """Add the parser."""
    parser = common.add_parser(
        commands,
        NAME,
        "show producers, spools, stream and writers: what runs, what waits, who is behind",
        examples="redislogkit status\nredislogkit status /etc/shop/log.toml --watch\n"
        "redislogkit status --json | jq '.writers[].behind'",
        exit_codes="0 all is well, or only warnings; 1 there is a problem: nobody ships or writes, a child is set\n"
        "aside, redis can not be reached, the stream is full; 2 wrong usage or configuration",
    )
    common.add_config(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object, with --watch one a line")
    parser.add_argument("-w", "--watch", action="store_true", help="show it again and again, until Ctrl-C")
    parser.add_argument(
        "--every",
        metavar="TIME",
        type=common.duration,
        default=2.0,
        help="with --watch: how often (default: 2s)",
    )


def run(options: argparse.Namespace) -> int:
    """Look twice, for the rates, and show."""
    from redislogkit.health import in_force, overview

    config, wrong = in_force.load(options.config)
    before = overview.look(config)
    pause = _APART
    while True:
        seen = before
        if before.stream is not None:  # without it there is no rate to wait for
            time.sleep(pause)
            seen = overview.look(config)
        code = _show(config, seen, before, wrong, options)
        if not options.watch:
            return code
        pause = options.every
        if before.stream is None:
            time.sleep(pause)
        before = seen if before.stream is not None else overview.look(config)


def _show(config: Config, seen: Seen, before: Seen, wrong: list[Finding], options: argparse.Namespace) -> int:
    from redislogkit.health import findings, overview

    rows = overview.writers(config, seen, before)
    found = [*wrong, *overview.findings(config, seen, rows)]
    bad = findings.worst(found) == "problem"
    if options.json:
        shown = json.dumps(_as_json(config, seen, rows, found))
    else:
        style = Style.of(sys.stdout)
        shown = "\n".join(_page(config, seen, rows, found, style))
        if options.watch:
            shown = f"{_CLEAR}{shown}" if sys.stdout.isatty() else f"{shown}\n"
    print(shown, flush=True)
    if wrong:
        return common.EXIT_USAGE
    return common.EXIT_FAILED if bad else common.EXIT_OK


# --- for people --------------------------------------------------------------------------------------------


def _page(
    config: Config, seen: Seen, rows: list[WriterRow], found: list[Finding], style: Style
) -> Iterator[str]:
    yield from _summary(config, seen, style)
    if rows:
        yield ""
        head = [
            "WRITER",
            "TYPE",
            "STATE",
            "RATE",
            "BEHIND",
            "OLDEST",
            "RESTARTS",
            "POSITION",
            "HOST",
            "ERROR",
        ]
        yield text.table(head, [_writer(row) for row in rows], style)
    others = [_child(child) for child in _children(seen) if child["kind"] != "writer"]
    if others:
        yield ""
        yield text.table(["PROCESS", "PID", "STATE", "FOR", "RESTARTS", "ERROR"], others, style)
    if seen.spools.states:
        yield ""
        yield from _producers(seen, style)
    if found:
        yield ""
    for finding in found:
        yield from text.tell(finding, style)


def _summary(config: Config, seen: Seen, style: Style) -> Iterator[str]:
    from redislogkit import identity
    from redislogkit.config_values import redact
    from redislogkit.health.findings import counted, waits

    name = style.paint(config.stream.name, "bold")
    if seen.supervisor is None:
        yield f"stream {name} on {identity.host_name()}: no supervisor answers"
    else:
        told = seen.supervisor
        since = text.span(time.time() - told["since"])
        how = "started by an application" if told.get("launched") else "run on purpose"
        yield f"stream {name} on {told['host']}: supervisor {told['pid']} for {since}, {how}"
    source = seen.supervisor.get("config") if seen.supervisor else config.source
    yield f"configuration {text.one_line(str(source or 'a mapping'))}, redis {redact(config.redis.url)}"
    if seen.stream is not None:
        slowest = max(map(seen.stream.behind, seen.stream.writers), default=0)
        share = 100 * slowest / config.stream.max_records
        yield (
            f"stream: {counted(seen.stream.added, 'record')} so far, {counted(seen.stream.entries, 'entry')} in it, "
            f"{waits(slowest)} ({share:.0f} % of max_records)"
        ).replace("entrys", "entries")
    states = seen.spools.states
    waiting = sum(spool.waiting for spool in states)
    alive = len({spool.facts.producer for spool in states if spool.alive})
    size = text.size(sum(spool.bytes for spool in states))
    yield f"producers: {alive} alive; {counted(len(states), 'spool')}, {size}, {waits(waiting)}"


def _children(seen: Seen) -> list[Any]:
    from redislogkit.health import overview

    return overview.children(seen)


def _state(name: str) -> Cell:
    return Cell(name, _COLOUR_OF_STATE.get(name, ""))


def _writer(row: WriterRow) -> list[str | Cell]:
    return [
        row.name,
        row.type or "-",
        _state(row.state),
        "-" if row.rate is None else f"{text.number(row.rate)}/s",
        "-" if row.behind is None else text.number(row.behind),
        "-" if row.age is None or not row.behind else text.span(row.age),
        str(row.restarts),
        row.position or "-",
        row.holder or "-",
        Cell(row.error, "problem") if row.state != "running" else row.error,
    ]


def _child(child: Any) -> list[str | Cell]:
    name = child["name"] if child["name"] == child["kind"] else f"{child['kind']} {child['name']}"
    lasts = text.span(time.time() - child["since"]) if child.get("since") else "-"
    error = str(child.get("error") or child.get("last_exit") or "")
    return [
        name,
        str(child.get("pid") or "-"),
        _state(child["state"]),
        lasts,
        str(child.get("restarts") or 0),
        error,
    ]


def _producers(seen: Seen, style: Style) -> Iterator[str]:
    from redislogkit.health.findings import counted

    states = sorted(seen.spools.states, key=lambda spool: (-spool.waiting, not spool.alive, spool.facts.pid))
    rows: list[list[str | Cell]] = [
        [
            str(spool.facts.pid),
            spool.facts.process_name,
            Cell("alive", "ok") if spool.alive else Cell("dead", "dim"),
            text.number(spool.waiting),
            text.number(spool.written),
            text.size(spool.bytes),
            text.span(time.time() - spool.facts.started) if spool.facts.started else "-",
            spool.facts.producer[:8],
        ]
        for spool in states[:_MOST_PRODUCERS]
    ]
    yield text.table(
        ["PID", "PROCESS", "STATE", "WAITING", "WRITTEN", "SPOOL", "SINCE", "PRODUCER"], rows, style
    )
    if len(states) > _MOST_PRODUCERS:
        yield style.paint(f"... and {counted(len(states) - _MOST_PRODUCERS, 'spool')} more, in --json", "dim")


# --- for programs ------------------------------------------------------------------------------------------


def _as_json(config: Config, seen: Seen, rows: list[WriterRow], found: list[Finding]) -> dict[str, Any]:
    from redislogkit import identity
    from redislogkit.config_values import redact
    from redislogkit.health import findings

    stream = seen.stream
    return {
        "health": findings.worst(found),
        "time": time.time(),
        "host": identity.host_name(),
        "stream": config.stream.name,
        "config": config.source,
        "supervisor": seen.supervisor,
        "supervisor_error": seen.supervisor_error,
        "redis": {
            "url": redact(config.redis.url),
            "error": seen.stream_error,
            "entries": stream.entries if stream else None,
            "records": stream.added if stream else None,
            "dropped": stream.overflow if stream else None,
            "max_records": config.stream.max_records,
        },
        "writers": [row._asdict() for row in rows],
        "producers": [
            {
                "producer": spool.facts.producer,
                "spool": spool.name,
                "host": spool.facts.host,
                "pid": spool.facts.pid,
                "process": spool.facts.process_name,
                "started": spool.facts.started,
                "alive": spool.alive,
                "stored": spool.stored,
                "shipped": spool.shipped,
                "written": spool.written,
                "waiting": spool.waiting,
                "bytes": spool.bytes,
            }
            for spool in seen.spools.states
        ],
        "unreadable_spools": seen.spools.unreadable,
        "findings": [finding.as_json() for finding in found],
    }

"""``redislogkit doctor``: look at everything that records pass, and say what to do."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Final

from redislogkit.commands import common, text
from redislogkit.commands.text import Style

if TYPE_CHECKING:
    from redislogkit.commands.common import Commands
    from redislogkit.health.doctor import Part

NAME: Final = "doctor"


def add(commands: Commands) -> None:
    """Add the parser."""
    parser = common.add_parser(
        commands,
        NAME,
        "look at configuration, server, disks and processes, and say what to do",
        about="Look at everything that records pass: configuration, server (version, eviction, memory, persistence,\n"
        "rights, clock), disks and their permissions, supervisor and its children, spools. Each finding says what to\n"
        "do. Nothing is changed; one key beside the stream is made, to try the rights, and removed again.",
        examples="redislogkit doctor\nredislogkit doctor /etc/shop/log.toml --quiet\nredislogkit doctor --json",
        exit_codes="0 no problem, perhaps warnings; 1 at least one problem; 2 wrong usage or configuration",
    )
    common.add_config(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="only what is not as it should be")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Examine, and tell."""
    from redislogkit.health import doctor, findings, in_force

    config, wrong = in_force.load(options.config)
    parts = doctor.examine(config, wrong)
    found = [finding for part in parts for finding in part.findings]
    worst = findings.worst(found)
    if options.json:
        told = [{"part": part.title, **finding.as_json()} for part in parts for finding in part.findings]
        print(json.dumps({"health": worst, "config": config.source, "findings": told}))
    else:
        _tell(parts, quiet=options.quiet)
        counts = [
            (sum(finding.severity == name for finding in found), name) for name in ("problem", "warning")
        ]
        print(", ".join(findings.counted(*count) for count in counts))
    if wrong:
        return common.EXIT_USAGE
    return common.EXIT_FAILED if worst == "problem" else common.EXIT_OK


def _tell(parts: list[Part], *, quiet: bool) -> None:
    style = Style.of(sys.stdout)
    for part in parts:
        shown = [finding for finding in part.findings if not quiet or finding.severity != "ok"]
        if shown:
            print(style.paint(part.title, "bold"))
            for finding in shown:
                print("\n".join(f"  {line}" for line in text.tell(finding, style)))

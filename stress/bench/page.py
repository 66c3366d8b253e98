"""``python -m stress.bench page results.json docs/performance.md``: put stored results into a page of the docs.

What stands between the two marks is made anew; the drawing lies beside the page, with its name and the suffix .svg.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from stress.bench import results, svg, table
from stress.bench.results import Results
from stress.bench.table import Table

BEGIN: Final = "<!-- begin: made by python -m stress.bench, not by hand -->"
END: Final = "<!-- end -->"

_EXIT_OK: Final = 0
_EXIT_USAGE: Final = 2


def main(arguments: Sequence[str]) -> int:
    """Parse the command line and do it; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m stress.bench page", description=(__doc__ or "").partition(": ")[2]
    )
    parser.add_argument("results", help="written with --json")
    parser.add_argument("page", help="page that has both marks")
    given = parser.parse_args(arguments)
    try:
        with open(given.results, "rb") as file:
            refresh(given.page, results.decode(file.read()))
    except (OSError, ValueError, msgspec.DecodeError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return _EXIT_USAGE
    return _EXIT_OK


def refresh(path: str, found: Results) -> None:
    """Put ``found`` into the page, and the drawing beside it. Raises ``ValueError`` for a page without marks."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    drawing = os.path.splitext(path)[0] + ".svg"
    renewed = replaced(text, render(found, os.path.basename(drawing)))
    with open(drawing, "w", encoding="utf-8") as file:
        file.write(svg.draw(found))
    with open(path, "w", encoding="utf-8") as file:
        file.write(renewed)


def replaced(text: str, block: str) -> str:
    """Return the page with ``block`` between the marks. Raises ``ValueError``."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page must have the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{block}\n{END}{after}"


def render(found: Results, drawing: str) -> str:
    """Return the results in Markdown."""
    machine = "; ".join(f"{name} {value}" for name, value in found.machine.items())
    parts = [f"Measured on: {machine}."]
    if found.standings:
        parts += [
            "### Beside others",
            table.introduction(found).replace("\n", " "),
            f"![Rates of all contenders]({drawing})",
            _table(table.COMPARISON_HEAD, table.comparison(found)),
        ]
    if found.figures:
        parts += ["### Goals", _table(table.GOALS_HEAD, table.goals(found.figures))]
        parts.append("\n".join(f"- {_escaped(note)}" for note in table.notes(found.figures)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(head: Sequence[str], rows: Table) -> str:
    lines = [head, ["---"] * len(head)]
    lines += [[*row, *[""] * (len(head) - len(row))] for row in rows]
    return "\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in lines)


def _escaped(text: str) -> str:
    return re.sub(r"([|<*_])", r"\\\1", text)

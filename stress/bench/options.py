"""The command line of the benchmark."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from stress.bench.contenders.entry import ENTRIES, OWN, YARDSTICK
from stress.bench.measurements import MEASUREMENTS, Size
from stress.bench.shapes import FORMAT, Shape

_DEFAULT: Final = Shape()
_ROUNDS: Final = 5
_BACKLOG: Final = 5.0
_QUICK: Final = Shape(producers=2, records=300, deadline=30)


@dataclass(frozen=True)
class Options:
    """What to measure, and where the results go."""

    size: Size
    contenders: Sequence[str]
    measurements: Sequence[str]
    json: str | None = None
    svg: str | None = None
    docs: str | None = None


def parse(arguments: Sequence[str]) -> Options:
    """Exits with 2 where they are wrong."""
    given = _parser().parse_args(arguments)
    if given.quick:
        size = Size(_QUICK, 1, 0)
        return Options(size, [YARDSTICK, OWN], [], given.json, given.svg, given.docs)
    shape = Shape(given.producers, given.records, given.size, given.format, given.max_bytes)
    only: Sequence[str] = given.only or [*ENTRIES, *MEASUREMENTS]
    contenders = [name for name in ENTRIES if name in only]
    if contenders and YARDSTICK not in contenders:
        contenders.insert(0, YARDSTICK)
    return Options(
        size=Size(shape, given.rounds, int(given.backlog * 1_000_000)),
        contenders=contenders,
        measurements=[name for name in MEASUREMENTS if name in only],
        json=given.json,
        svg=given.svg,
        docs=given.docs,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stress.bench",
        description="Measure redislogkit beside other ways of logging from several processes, and against its goals.",
        epilog="python -m stress.bench guard compares instruction counts with those recorded; "
        "python -m stress.bench page FILE.json docs/performance.md puts stored results into the page.",
    )
    add = parser.add_argument
    add("--producers", type=_positive, default=_DEFAULT.producers, help="processes that log (%(default)s)")
    add("--records", type=_positive, default=_DEFAULT.records, help="records of each of them (%(default)s)")
    add("--size", type=_positive, default=_DEFAULT.size, help="characters of a message (%(default)s)")
    add("--format", default=FORMAT, help=f"format of a line ({FORMAT.replace('%', '%%')})")
    add("--max-bytes", type=_positive, default=_DEFAULT.max_bytes, help="rotate at this size (%(default)s)")
    add("--rounds", type=_positive, default=_ROUNDS, help="rounds of the comparison (%(default)s)")
    add("--backlog", type=float, default=_BACKLOG, metavar="MILLIONS", help="of records (%(default)g)")
    add("--only", type=_names, metavar="NAMES", help=f"some of {', '.join([*ENTRIES, *MEASUREMENTS])}")
    add("--quick", action="store_true", help="a few records of two contenders, to see that it works")
    add("--json", metavar="FILE", help="write the results there")
    add("--svg", metavar="FILE", help="draw the comparison there")
    add("--docs", metavar="FILE", help="put the results into this page, and the drawing beside it")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {number}")
    return number


def _names(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in ENTRIES and name not in MEASUREMENTS:
            known = ", ".join([*ENTRIES, *MEASUREMENTS])
            raise argparse.ArgumentTypeError(
                f"must be some of {known}, with commas between them, got {name!r}"
            )
    return names

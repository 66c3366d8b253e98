"""``python -m stress.bench``: this package beside others, and its own figures beside their goals.

Exit code 0 when everything was measured, whatever came out; 1 when something could not be; 2 for wrong usage.
``python -m stress.bench guard`` exits with 1 when the code needs more instructions than recorded.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from stress.bench import apart, comparison, guard, machine, measurements, page, results, svg, table
from stress.bench.options import Options, parse
from stress.bench.results import Results

EXIT_OK = 0
EXIT_FAILED = 1
_EXIT_TERMINATED = 128 + signal.SIGTERM


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run; return the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["guard"]:
        return guard.main(given[1:])
    if given[:1] == ["page"]:
        return page.main(given[1:])
    options = parse(given)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_EXIT_TERMINATED))  # so that nothing is left behind
    try:
        found = _measure(options)
    except apart.FailedError as failure:
        print(
            f"bench: the FileHandlers, which everything is compared with, have failed: {failure}",
            file=sys.stderr,
        )
        return EXIT_FAILED
    _store(options, found)
    print(table.render(found), end="")
    return EXIT_OK if found.complete else EXIT_FAILED


def _measure(options: Options) -> Results:
    size, described = options.size, machine.describe()
    standings = comparison.run(options.contenders, size.shape, size.rounds, _say)
    figures = results.compared(standings)
    for name in options.measurements:
        _say(measurements.MEASUREMENTS[name].title)
        figures += measurements.take(name, size)
    return Results(described, size.shape, size.rounds, standings, results.in_order(figures))


def _store(options: Options, found: Results) -> None:
    if options.json:
        with open(options.json, "wb") as file:
            file.write(results.encode(found))
    if options.svg:
        with open(options.svg, "w", encoding="utf-8") as drawing:
            drawing.write(svg.draw(found))
    if options.docs:
        page.refresh(options.docs, found)


def _say(what: str) -> None:
    print(f"bench: {what} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

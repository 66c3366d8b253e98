"""The results as text for people: the comparison, then the rows with target and floor. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from stress.bench.figures import Spread
from stress.bench.goals import GOALS, Figure, Goal
from stress.bench.lines import Check
from stress.bench.results import Results, Standing

COMPARISON_HEAD: Final = (
    "contender",
    "records/s",
    "rate",
    "spread",
    "calls/s",
    "CPU",
    "spread",
    "us/record",
    "lines",
)
GOALS_HEAD: Final = ("figure", "measured", "spread", "target", "floor", "unit", "verdict")
MICRO: Final = 1e6

Table = list[Sequence[str]]


def render(results: Results) -> str:
    """Return everything."""
    parts = [aligned([(f"{name}:", value) for name, value in results.machine.items()])]
    if results.standings:
        parts += [
            introduction(results),
            aligned([COMPARISON_HEAD, *comparison(results)], numbers=range(1, 8)),
        ]
    if results.figures:
        parts.append(aligned([GOALS_HEAD, *goals(results.figures)], numbers=(1, 2, 3, 4)))
        parts += notes(results.figures)
    return "\n\n".join(parts) + "\n"


def introduction(results: Results) -> str:
    """Say what the comparison is."""
    shape = results.shape
    disturbed = (
        f" Others had up to {results.others:.0%} of the machine meanwhile." if results.others > 0.02 else ""
    )
    return (
        f"{shape.producers} processes log {shape.records:,} records each (slow contenders fewer), "
        f"messages of {shape.size} characters; {results.rounds} round{'s' if results.rounds > 1 else ''}.\n"
        f"rate and CPU are ratios to the FileHandlers of the same round, medians with their spread.{disturbed}"
    )


def comparison(results: Results) -> Table:
    """Return a row for each contender."""
    yardstick = results.yardstick
    return [_standing(standing, yardstick) for standing in results.standings]


def _standing(standing: Standing, yardstick: Standing | None) -> Sequence[str]:
    if not standing.runs or yardstick is None or len(standing.runs) != len(yardstick.runs):
        return (standing.title, standing.reason or "not measured")
    rate = standing.against(yardstick, lambda run: run.rate)
    cpu = standing.against(yardstick, lambda run: run.cpu_per_record)
    return (
        standing.title,
        f"{standing.spread(lambda run: run.rate).median:,.0f}",
        f"{rate.median:.2f}",
        spread(rate),
        f"{standing.spread(lambda run: run.calls).median:,.0f}",
        f"{cpu.median:.2f}",
        spread(cpu),
        f"{standing.spread(lambda run: run.cpu_per_record).median * MICRO:.1f}",
        _lines(standing),
    )


def _lines(standing: Standing) -> str:
    findings = standing.findings()
    if findings == Check():
        return "-"  # it keeps none, and says so
    if findings.ok:
        return "all"
    share = findings.lost / (findings.records + findings.lost)
    return f"{findings.flaw} ({share:.1%})" if findings.lost else findings.flaw


def goals(figures: Iterable[Figure]) -> Table:
    """Return a row for each figure."""
    return [_goal(figure, GOALS[figure.goal]) for figure in figures]


def _goal(figure: Figure, goal: Goal) -> Sequence[str]:
    found = figure.spread
    measured = number(found.median) if found else figure.note or "not measured"
    between = spread(found) if found and len(figure.values) > 1 else ""
    return (goal.title, measured, between, number(goal.target), number(goal.floor), goal.unit, figure.verdict)


def notes(figures: Iterable[Figure]) -> list[str]:
    """Return what else was seen, a line for each figure that has a note."""
    told = [(GOALS[figure.goal].title, _note(figure)) for figure in figures if figure.values]
    return [f"{title}: {note}" for title, note in told if note]


def _note(figure: Figure) -> str:
    return "; ".join(filter(None, [f"WRONG LINES: {figure.flaw}" if figure.flaw else "", figure.note]))


def number(value: float) -> str:
    """Return a value with as many digits as say something."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(found: Spread) -> str:
    """Return the least and the most."""
    return f"{number(found.low)}-{number(found.high)}"


def aligned(rows: Sequence[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """Return rows with their columns below each other; those in ``numbers`` on the right. Short rows end early."""
    right = frozenset(numbers)
    width: dict[int, int] = {}
    for row in rows:
        # What ends a short row is a remark, which makes no column wider.
        for index, cell in enumerate(row if len(row) == len(rows[0]) else row[:-1]):
            width[index] = max(width.get(index, 0), len(cell))
    lines = []
    for row in rows:
        whole = len(row) == len(rows[0])
        cells = [
            cell.rjust(width[index]) if index in right and whole else cell.ljust(width.get(index, 0))
            for index, cell in enumerate(row)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)

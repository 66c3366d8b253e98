"""What the commands print for people: tables, spans of time, sizes, colours. Pure, but for what `Style.of` asks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TextIO

from redislogkit.escaping import sanitise_terminal

if TYPE_CHECKING:
    from redislogkit.health.findings import Finding

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_CODES: Final = {"ok": "32", "warning": "33", "problem": "31", "dim": "2", "bold": "1"}
_GAP: Final = "  "


class Style(NamedTuple):
    """Whether what is printed has colours."""

    colours: bool

    @classmethod
    def of(cls, stream: TextIO) -> Style:
        """Colours for a terminal, unless ``NO_COLOR`` or ``TERM`` say no; ``FORCE_COLOR`` has them anywhere."""
        if os.environ.get("NO_COLOR"):
            return cls(colours=False)
        return cls(
            bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and os.environ.get("TERM") != "dumb")
        )

    def paint(self, text: str, name: str) -> str:
        """Return ``text`` in the colour of ``ok``, ``warning`` or ``problem``, ``dim`` or ``bold``."""
        return f"\x1b[{_CODES[name]}m{text}\x1b[0m" if self.colours and name in _CODES else text


PLAIN: Final = Style(colours=False)


class Cell(NamedTuple):
    """Text of a table with a colour."""

    text: str
    colour: str = ""


def table(head: Sequence[str], rows: Sequence[Sequence[str | Cell]], style: Style = PLAIN) -> str:
    """Return rows below one another, in columns; what may have come from elsewhere is made harmless."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [
        max(len(row[i].text) for row in [[Cell(name) for name in head], *cells]) for i in range(len(head))
    ]
    lines = [_line([Cell(name, "dim") for name in head], widths, style)]
    return "\n".join([*lines, *(_line(row, widths, style) for row in cells)])


def _cell(value: str | Cell) -> Cell:
    text, colour = value if isinstance(value, Cell) else (value, "")
    return Cell(one_line(text), colour)


def _line(row: Sequence[Cell], widths: Sequence[int], style: Style) -> str:
    last = len(row) - 1
    padded = [
        style.paint(cell.text, cell.colour) + ("" if i == last else " " * (widths[i] - len(cell.text)))
        for i, cell in enumerate(row)
    ]
    return _GAP.join(padded).rstrip()


def one_line(text: str) -> str:
    """Return text that came from elsewhere for a line of a terminal."""
    return sanitise_terminal(text).replace("\n", "\\n").replace("\t", " ")


def tell(finding: Finding, style: Style) -> Iterator[str]:
    """Yield the lines of a finding."""
    mark = style.paint(f"{finding.severity:8}", finding.severity)
    yield f"{mark} {one_line(f'{finding.subject}: {finding.text}')}"
    if finding.advice:
        yield f"{'':8} {style.paint(one_line(finding.advice), 'dim')}"


def span(seconds: float) -> str:
    """Return a span of time in its two largest units, as ``2h 5m``; below 10 s with a tenth.

    >>> span(7500), span(0.25), span(86400)
    ('2h 5m', '0.2s', '1d')
    """
    if seconds < 10:
        return f"{max(seconds, 0):.1f}".removesuffix(".0") + "s"
    left = round(seconds)
    parts: list[str] = []
    for size, unit in _UNITS:
        number, left = divmod(left, size)
        if number or parts:
            parts.append(f"{number}{unit}" if number else "")
    return " ".join(part for part in parts[:2] if part)


def size(number: float) -> str:
    """Return a number of bytes as people read it: ``512 B``, ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def number(value: float) -> str:
    """Return a whole number with its thousands apart."""
    return f"{value:,.0f}"

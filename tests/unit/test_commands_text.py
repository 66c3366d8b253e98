"""What the commands print for people."""

from __future__ import annotations

import io

import pytest

from redislogkit.commands import text
from redislogkit.commands.text import Cell, Style
from redislogkit.health.findings import ok, problem, warning, worst


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0s"), (0, "0s"), (0.25, "0.2s"), (9.96, "10s"), (59.6, "1m"), (61, "1m 1s"),
        (3600, "1h"), (3601, "1h"), (7500, "2h 5m"), (86400 * 3 + 3700, "3d 1h"),
    ],
)  # fmt: skip
def test_a_span_has_its_two_largest_units(seconds, shown):
    assert text.span(seconds) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**30, "1.0 GiB"), (2**50, "1024.0 TiB")],
)
def test_a_size_has_the_unit_that_people_read(number, shown):
    assert text.size(number) == shown


def test_a_table_is_in_columns_and_ends_without_blanks():
    lines = text.table(["A", "LONG"], [["x", "1"], [Cell("wide", "ok"), ""]]).splitlines()
    assert lines == ["A     LONG", "x     1", "wide"]


def test_a_table_obeys_no_terminal_controls_of_others():
    made = text.table(["A"], [["\x1b[31mred\nsecond\u202e"]])
    assert "\x1b" not in made
    assert len(made.splitlines()) == 2


def test_colours_take_no_room():
    plain = text.table(["A", "B"], [[Cell("x", "problem"), "y"]], Style(colours=False))
    coloured = text.table(["A", "B"], [[Cell("x", "problem"), "y"]], Style(colours=True))
    assert "\x1b[31mx\x1b[0m" in coloured
    assert len(coloured) - len(plain) == 3 * len("\x1b[31m\x1b[0m") - 2  # two heads are dim, with one digit


@pytest.mark.parametrize(
    ("stream", "environ", "colours"),
    [
        (io.StringIO, {}, False),
        (Terminal, {"TERM": "xterm"}, True),
        (Terminal, {"TERM": "dumb"}, False),
        (Terminal, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (io.StringIO, {"FORCE_COLOR": "1"}, True),
        (io.StringIO, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_are_for_terminals_unless_the_environment_says_otherwise(
    stream, environ, colours, monkeypatch
):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert Style.of(stream()).colours is colours


def test_a_finding_is_told_with_what_to_do():
    assert list(text.tell(problem("disk", "full\n", "make room"), text.PLAIN)) == [
        "problem  disk: full\\n",
        "         make room",
    ]


def test_the_worst_of_findings_counts():
    assert worst([]) == "ok"
    assert worst([ok("a", "b"), warning("a", "b", "c")]) == "warning"
    assert worst([problem("a", "b", "c"), warning("a", "b", "c")]) == "problem"

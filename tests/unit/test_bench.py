"""The benchmark's arithmetic: what it says follows from what it has measured."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from stress.bench import (
    apart,
    comparison,
    goals,
    guard,
    lines,
    measurements,
    options,
    page,
    results,
    svg,
    table,
)
from stress.bench.contenders.entry import ENTRIES, FAST, OWN, YARDSTICK, Entry
from stress.bench.contenders.packages import loguru_format
from stress.bench.contenders.stdlib import SharedFile
from stress.bench.figures import Spread, quantile, ratios
from stress.bench.goals import GOALS, Figure, Goal
from stress.bench.lines import Check
from stress.bench.race import Run
from stress.bench.results import Results, Standing
from stress.bench.shapes import PERCENT, TEXTS, Shape, texts

CLEAN = Check(records=4000, bytes=600_000)


def a_run(rate: float, cpu: float = 10.0, check: Check = CLEAN) -> Run:
    """``cpu`` is in microseconds a record."""
    return Run(
        records=4000,
        seconds=4000 / rate,
        calling=2000 / rate,
        cpu=4000 * cpu / 1e6,
        helpers_cpu=0.0,
        others=0.0,
        check=check,
    )


def some_results(*more: Standing, figures: tuple[Figure, ...] = ()) -> Results:
    files = Standing(YARDSTICK, "FileHandler", [a_run(100_000, 8), a_run(50_000, 8), a_run(80_000, 10)])
    own = Standing(OWN, "redislogkit", [a_run(200_000, 4), a_run(125_000, 4), a_run(160_000, 4)])
    standings = [files, own, *more]
    found = [*results.compared(standings), *figures]
    return Results({"CPU": "a | b", "Python": "3.11"}, Shape(), 3, standings, results.in_order(found))


# --- figures -----------------------------------------------------------------------------------------------


def test_a_spread_is_the_median_with_the_least_and_the_most():
    assert Spread.of([3, 1, 2]) == (2, 1, 3)
    assert Spread.of([4, 1]) == (2.5, 1, 4)
    with pytest.raises(ValueError, match="at least one value"):
        Spread.of([])


def test_ratios_are_taken_round_by_round():
    assert ratios([10, 30], [5, 10]) == Spread(2.5, 2, 3)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_quantile_is_a_value_that_was_measured(share, expected):
    assert quantile(reversed(range(1, 101)), share) == expected


def test_a_quantile_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"got 0 and 0\.5"):
        quantile([], 0.5)


@pytest.mark.parametrize(
    ("more", "value", "verdict"),
    [
        (True, 3.0, goals.PASS), (True, 2.9, goals.FLOOR), (True, 2.2, goals.FLOOR), (True, 2.1, goals.FAIL),
        (False, 2.1, goals.PASS), (False, 2.2, goals.PASS), (False, 3.0, goals.FLOOR), (False, 3.1, goals.FAIL),
    ],
)  # fmt: skip
def test_a_verdict_tells_target_and_floor_apart(more, value, verdict):
    target, floor = (3.0, 2.2) if more else (2.2, 3.0)
    assert Goal("", "x", target, floor, more).verdict(value) == verdict


def test_a_figure_is_judged_by_its_median_and_says_whether_all_rounds_agree():
    assert Figure("rate-fast", [2.3, 2.5, 2.9]).verdict == goals.FLOOR
    assert Figure("rate-fast", [9.0, 2.5, 1.0]).verdict == "floor ?"
    assert Figure("rate-fast", []).verdict == goals.NONE


def test_every_goal_is_answered_by_one_measurement_or_by_the_comparison():
    answered = [goal for each in measurements.MEASUREMENTS.values() for goal in each.goals]
    compared = [figure.goal for figure in results.compared([Standing(name, "") for name in ENTRIES])]
    assert sorted([*answered, *compared]) == sorted(GOALS)


# --- lines -------------------------------------------------------------------------------------------------


def test_texts_have_one_length_are_all_different_and_are_the_same_every_time():
    found = texts(60)
    assert {len(text) for text in found} == {60}
    assert len(set(found)) == TEXTS
    assert found == texts(60)
    assert not set("<>%{}\n") & set("".join(found))


def a_line(producer: int, number: int, text: str = "abc") -> str:
    return f"2026-11-22 18:00:00,000 INFO shop 7 {PERCENT % (producer, number, text)}\n"


def checked(tmp_path: Path, *files: str, producers: int = 2, records: int = 3) -> Check:
    paths = []
    for number, text in enumerate(files):
        paths.append(tmp_path / str(number))
        paths[-1].write_text(text)
    return lines.check(map(str, paths), producers, records, 3)


def test_lines_that_are_all_there_are_no_finding(tmp_path):
    first = "".join(a_line(0, n) for n in range(3))
    second = "".join(a_line(1, n) for n in range(3))
    found = checked(tmp_path, first, second)
    assert found.ok
    assert (found.records, found.bytes) == (6, len(first + second))
    assert found.flaw == ""


def test_lost_doubled_and_disordered_lines_are_counted_across_files(tmp_path):
    found = checked(tmp_path, a_line(0, 0) + a_line(1, 2), a_line(1, 0) + a_line(0, 0) + a_line(0, 2))
    assert found == Check(4, found.bytes, lost=2, doubled=1, torn=0, disordered=1)
    assert found.flaw == "2 lost, 1 doubled, 1 disordered"


@pytest.mark.parametrize(
    "damage",
    [
        a_line(0, 0)[:-1] + a_line(0, 1),  # two on one line
        a_line(0, 0) + a_line(0, 1)[:20] + "\n" + a_line(0, 1),
        a_line(0, 0) + a_line(0, 1, "ab"),
        a_line(0, 0) + a_line(0, 7),
        a_line(0, 0) + a_line(9, 1),
    ],
)
def test_a_line_that_is_not_one_whole_record_is_torn(tmp_path, damage):
    assert checked(tmp_path, damage).torn == 1


def test_there_are_enough_backups_for_all_lines_and_no_thousands():
    shape = Shape(records=50_000, size=100, max_bytes=1024 * 1024)
    assert shape.backups * shape.max_bytes > 4 * shape.total * 200
    assert shape.backups < 500


# --- comparison --------------------------------------------------------------------------------------------


def test_in_each_round_everybody_races_once_and_slow_ones_log_less():
    raced: list[tuple[str, int]] = []

    def race(name: str, shape: Shape) -> Run:
        raced.append((name, shape.records))
        return a_run(1000)

    names = [YARDSTICK, "rotating", "queue"]
    found = comparison.run(names, Shape(records=500), 4, lambda what: None, race)
    assert [len(standing.runs) for standing in found] == [4, 4, 4]
    rounds = [raced[begin : begin + 3] for begin in range(0, 12, 3)]
    assert all(sorted(each) == [(YARDSTICK, 500), ("queue", 100), ("rotating", 500)] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1


def test_who_fails_is_out_and_the_others_go_on():
    def race(name: str, _: Shape) -> Run:
        if name == "rotating":
            raise apart.FailedError("the disk is full")
        return a_run(1000)

    files, rotating = comparison.run([YARDSTICK, "rotating"], Shape(), 2, lambda what: None, race)
    assert len(files.runs) == 2
    assert rotating == Standing("rotating", rotating.title, (), "failed: the disk is full")
    assert not Results({}, Shape(), 2, [files, rotating]).complete


def test_what_nobody_has_foreseen_costs_one_figure_not_all(monkeypatch, capsys):
    def take(_: object) -> list[Figure]:
        raise OSError("no more processes")

    broken = measurements.Measurement("", ("idle-producer", "idle-supervisor"), take)
    monkeypatch.setattr(measurements, "MEASUREMENTS", {"idle": broken})
    found = measurements.take("idle", measurements.Size(Shape(), 1, 0))
    assert [figure.note for figure in found] == ["failed: OSError('no more processes')"] * 2
    assert "no more processes" in capsys.readouterr().err
    assert not Results({}, Shape(), 1, (), found).complete


def test_a_yardstick_that_does_not_keep_its_lines_is_no_yardstick():
    def race(name: str, shape: Shape) -> Run:
        return a_run(1000, check=Check(lost=4000))

    with pytest.raises(apart.FailedError, match="4,000 lost"):
        comparison.run([YARDSTICK], Shape(), 1, lambda what: None, race)


def test_no_speed_makes_up_for_a_lost_line():
    losing = Standing(FAST, "fast", [a_run(900_000, 1, replace(CLEAN, lost=1))] * 3)
    found = {figure.goal: figure for figure in some_results(losing).figures}
    assert [found[goal].verdict for goal in ("rate-fast", "cpu-fast")] == [goals.FAIL] * 2
    assert "WRONG LINES: 3 lost" in table.render(some_results(losing))


def test_who_keeps_nothing_on_purpose_is_told_from_who_loses_everything():
    keeps_none = Standing("null", "keeps none", [a_run(1, check=Check())] * 3)
    loses_all = Standing("queue", "loses all", [a_run(1, check=Check(lost=5))] * 3)
    rows = {row[0]: row for row in table.comparison(some_results(keeps_none, loses_all))}
    assert rows["keeps none"][-1] == "-"
    assert rows["loses all"][-1] == "15 lost (100.0%)"


def test_who_is_not_installed_is_no_failure(monkeypatch):
    monkeypatch.setitem(ENTRIES, "rotating", Entry("absent", SharedFile, 1.0, "absent", "no_such_module"))
    found = comparison.run(
        [YARDSTICK, "rotating"], Shape(), 1, lambda what: None, lambda name, shape: a_run(1000)
    )
    assert found[1].reason == "not installed"
    assert Results({}, Shape(), 1, found).complete


def test_the_rows_of_the_comparison_are_ratios_of_the_same_round():
    by_goal = {figure.goal: figure for figure in some_results().figures}
    assert by_goal["rate-stock"].values == [2.0, 2.5, 2.0]
    assert by_goal["cpu-stock"].values == pytest.approx([0.5, 0.5, 0.4])
    assert by_goal["rate-stock"].verdict == goals.PASS


def test_a_contender_with_fewer_rounds_is_not_compared():
    fast = Standing(FAST, "fast", [a_run(300_000)], "failed: killed")
    found = {figure.goal: figure for figure in some_results(fast).figures}
    assert found["rate-fast"] == Figure("rate-fast", [], "failed: killed")


def test_results_come_back_from_json_as_they_were():
    found = some_results(
        Standing(FAST, "fast", (), "not available"), figures=(Figure("latency", [21.5], "p50 12 ms"),)
    )
    again = results.decode(results.encode(found))
    assert table.render(again) == table.render(found)
    assert again.yardstick is not None
    assert again.yardstick.runs == found.standings[0].runs


# --- what people see ---------------------------------------------------------------------------------------


def test_the_table_shows_ratios_losses_and_reasons():
    losing = Standing(
        "rotating", "RotatingFileHandler", [a_run(90_000, 8, replace(CLEAN, records=3000, lost=1000))] * 3
    )
    text = table.render(some_results(losing, Standing(FAST, "fast", (), "not available")))
    rows = {line.partition("  ")[0]: line.split() for line in text.splitlines()}
    assert rows["redislogkit"][1:4] == ["160,000", "2.00", "2.00-2.50"]
    assert rows["redislogkit"][-1] == "all"
    assert "3,000 lost (25.0%)" in text
    assert rows["fast"][1:] == ["not", "available"]
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_columns_stand_below_each_other_whatever_a_short_row_says():
    text = table.aligned([("a", "b", "c"), ("name", "1", "x"), ("n", "a long remark")], numbers=(1,))
    assert text.splitlines() == ["a     b  c", "name  1  x", "n     a long remark"]


@pytest.mark.parametrize(
    ("value", "shown"), [(0.123, "0.12"), (12.34, "12.3"), (-205.6, "-205.6"), (335_866.2, "335,866")]
)
def test_numbers_have_as_many_digits_as_say_something(value, shown):
    assert table.number(value) == shown


def test_the_drawing_is_whole_and_each_bar_as_long_as_its_figure():
    odd = Standing("queue", "Queue <&> co", [a_run(20_000, 8, replace(CLEAN, lost=7))] * 3)
    root = ET.fromstring(svg.draw(some_results(odd)))
    bars = [float(bar.get("width", "")) for bar in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert bars[1] / bars[0] == pytest.approx(2.0, rel=0.01)
    words = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "Queue <&> co" in words
    assert "0.25, loses lines" in words
    assert "prefers-color-scheme: dark" in svg.draw(some_results())


def test_a_drawing_without_a_yardstick_is_empty():
    ET.fromstring(svg.draw(Results({}, Shape(), 1)))


def test_a_page_keeps_what_stands_around_the_marks():
    text = f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n"
    assert page.replaced(text, "new") == f"before\n{page.BEGIN}\n\nnew\n{page.END}\nafter\n"
    with pytest.raises(ValueError, match="the page must have"):
        page.replaced("no marks", "new")


def test_the_page_has_tables_with_escaped_cells_and_the_drawing(tmp_path):
    path = tmp_path / "performance.md"
    path.write_text(f"{page.BEGIN}\n{page.END}\n")
    (tmp_path / "results.json").write_bytes(results.encode(some_results()))
    assert page.main([str(tmp_path / "results.json"), str(path)]) == 0
    text = path.read_text()
    assert "![Rates of all contenders](performance.svg)" in text
    assert "a | b" in text
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")}
    assert widths == {len(table.COMPARISON_HEAD) + 1, len(table.GOALS_HEAD) + 1}
    assert (tmp_path / "performance.svg").read_text().startswith("<svg")


def test_a_page_that_can_not_be_made_is_wrong_usage(tmp_path, capsys):
    assert page.main([str(tmp_path / "absent.json"), "absent.md"]) == 2
    assert "absent.json" in capsys.readouterr().err


# --- options -----------------------------------------------------------------------------------------------


def test_without_options_everything_is_measured():
    found = options.parse([])
    assert list(found.contenders) == list(ENTRIES)
    assert list(found.measurements) == list(measurements.MEASUREMENTS)
    assert (found.size.shape, found.size.rounds, found.size.backlog) == (Shape(), 5, 5_000_000)


def test_only_some_are_measured_and_the_yardstick_with_any_contender():
    found = options.parse(["--only", "redislogkit,caller"])
    assert (found.contenders, found.measurements) == ([YARDSTICK, OWN], ["caller"])
    assert options.parse(["--only", "caller"]).contenders == []


def test_a_name_that_is_none_is_refused(capsys):
    with pytest.raises(SystemExit):
        options.parse(["--only", "redislog"])
    assert "must be some of files, null" in capsys.readouterr().err


def test_a_format_is_translated_for_loguru_or_refused():
    assert loguru_format("%(asctime)s %(levelname)-8s 100%% %(message)s") == (
        "{time:YYYY-MM-DD HH:mm:ss,SSS} {level} 100% {message}"
    )
    with pytest.raises(ValueError, match="no field like 'taskName'"):
        loguru_format("%(taskName)s")


# --- guard -------------------------------------------------------------------------------------------------


def test_the_guard_tells_slower_equal_and_unknown_apart():
    counts = {"emit": 104.0, "write": 102.0, "emit-fast": 90.0, "new": 5.0}
    found = guard.compare(counts, {"emit": 100.0, "write": 100.0, "emit-fast": 100.0}, 0.03)
    assert [verdict.slower for verdict in found] == [True, False, False, False]
    assert [verdict.row()[-1] for verdict in found] == [
        "TOO MUCH", "ok", "less: record it with --record", "not recorded, see --record"
    ]  # fmt: skip


def test_the_guard_records_and_fails_by_what_is_recorded(tmp_path, monkeypatch, capsys):
    path = tmp_path / "recorded.json"
    path.write_text("{}\n")
    monkeypatch.setattr(guard, "RECORDED", str(path))
    counts = {"emit": 1000.0}
    monkeypatch.setattr(guard, "COUNTERS", {"valgrind": lambda: counts})
    arguments = ["--counter", "valgrind"]
    assert guard.main(arguments) == 0
    assert guard.main([*arguments, "--record"]) == 0
    counts["emit"] = 1020.0
    assert guard.main(arguments) == 0
    counts["emit"] = 1100.0
    assert guard.main(arguments) == 1
    assert guard.main([*arguments, "--tolerance", "0.2"]) == 0
    assert "+10.0%" in capsys.readouterr().out

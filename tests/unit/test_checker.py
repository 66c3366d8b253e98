"""The checker finds what it is there to find."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from stress.checker import Report, check, message, rotated_files, same_message

RUN = "r1"


def lines(worker: str, numbers: Sequence[int], size: int = 60) -> list[str]:
    return [f"2026-11-22 INFO {message(RUN, worker, n, size)} - request_id: 7\n" for n in numbers]


def report_of(tmp_path: Path, text: str, expected: dict[str, int], **options: Any) -> Report:
    file = tmp_path / "app.log"
    file.write_text(text)
    return check([file], expected, RUN, **options)


def test_a_message_has_the_size_asked_for():
    assert len(message(RUN, "w", 12, 500)) == 500
    assert len(message(RUN, "w", 12, 500_000)) == 500_000
    assert message(RUN, "w", 12).startswith("rlk[r1 w 12 ")


def test_all_records_of_all_workers_over_several_files_are_ok(tmp_path):
    older, newer = tmp_path / "app.log.1", tmp_path / "app.log"
    older.write_text("".join(lines("a", range(5)) + lines("b", range(3))) + "a line of somebody else\n")
    newer.write_text("".join(lines("a", range(5, 9)) + lines("b", range(3, 4))))
    report = check([older, newer], {"a": 9, "b": 4}, RUN)
    assert report == Report(13, 0, 0, 0, 0, 0)
    assert report.ok
    assert str(report) == "13 records, 0 lost, 0 doubled, 0 torn, 0 disordered"


def test_workers_may_be_named_by_number(tmp_path):
    file = tmp_path / "app.log"
    file.write_text(message(RUN, 3, 0) + "\n")
    assert check([file], {3: 1}, RUN).ok


def test_a_missing_record_is_lost(tmp_path):
    report = report_of(tmp_path, "".join(lines("a", [0, 1, 3])), {"a": 5, "b": 1})
    assert (report.lost, report.records, report.ok) == (3, 3, False)
    assert "lost 2 of a, 2 to 4" in str(report)


def test_a_missing_file_loses_its_records_and_is_named(tmp_path):
    report = check([tmp_path / "app.log"], {"a": 2}, RUN)
    assert report.lost == 2
    assert "app.log can not be read" in str(report)


def test_a_repeated_record_is_doubled_and_not_disordered(tmp_path):
    report = report_of(tmp_path, "".join(lines("a", [0, 1, 2, 1])), {"a": 3})
    assert (report.doubled, report.disordered, report.lost, report.records) == (1, 0, 0, 3)


def test_an_earlier_record_behind_a_later_one_is_disordered(tmp_path):
    report = report_of(tmp_path, "".join(lines("a", [0, 2, 1, 3])), {"a": 4})
    assert (report.disordered, report.doubled, report.lost) == (1, 0, 0)


def test_order_counts_over_files_too(tmp_path):
    first, second = tmp_path / "one", tmp_path / "two"
    first.write_text("".join(lines("a", [2, 3])))
    second.write_text("".join(lines("a", [0, 1])))
    assert check([first, second], {"a": 4}, RUN).disordered == 2
    assert check([second, first], {"a": 4}, RUN).ok


def test_other_runs_are_ignored(tmp_path):
    text = "".join(lines("a", [0])) + message("r2", "a", 5) + "\n"
    assert report_of(tmp_path, text, {"a": 1}).ok


def test_records_that_nobody_logged_are_unexpected(tmp_path):
    report = report_of(tmp_path, "".join(lines("a", [0, 1]) + lines("x", [0])), {"a": 1})
    assert (report.unexpected, report.ok) == (2, False)
    assert "2 unexpected" in str(report)


def test_the_record_in_the_making_at_a_kill_may_be_there_or_not(tmp_path):
    for numbers in ([0, 1], [0, 1, 2]):
        assert report_of(tmp_path, "".join(lines("a", numbers)), {"a": 2}, in_doubt=1).ok
    assert not report_of(tmp_path, "".join(lines("a", [0, 1, 2, 3])), {"a": 2}, in_doubt=1).ok


def cut_head(text: str) -> str:
    return text[:-30] + "\n"


def cut_newline(text: str) -> str:
    return text[:-1]


def changed_padding(text: str) -> str:
    return text.replace("bcd", "bxd")


def two_in_a_line(text: str) -> str:
    return text[:-1] + text


def one_inside_another(text: str) -> str:
    return text[:40] + text + text[40:]


def cut_in_the_token(text: str) -> str:
    return text[:24] + "\n" + text[24:]


@pytest.mark.parametrize(
    "damage", [cut_head, cut_newline, changed_padding, two_in_a_line, one_inside_another, cut_in_the_token]
)
def test_a_damaged_line_is_torn(tmp_path, damage: Callable[[str], str]):
    good = "".join(lines("a", range(3)))
    (last,) = lines("a", [3], size=80)
    report = report_of(tmp_path, good + damage(last), {"a": 4})
    assert (report.torn, report.ok) == (1, False)
    assert "torn at app.log:4" in str(report)


def test_a_cut_compressed_file_is_torn(tmp_path):
    file = tmp_path / "app.log.1.gz"
    file.write_bytes(gzip.compress("".join(lines("a", range(1000))).encode())[:-400])
    report = check([file], {"a": 1000}, RUN)
    assert report.torn == 1
    assert report.lost > 0


def test_compressed_files_are_read(tmp_path):
    zstd = pytest.importorskip("backports.zstd")
    oldest, older = tmp_path / "app.log.2.zst", tmp_path / "app.log.1.gz"
    oldest.write_bytes(zstd.compress("".join(lines("a", range(3))).encode()))
    older.write_bytes(gzip.compress("".join(lines("a", range(3, 6))).encode()))
    (tmp_path / "app.log").write_text("".join(lines("a", range(6, 7))))
    files = rotated_files(tmp_path / "app.log")
    assert [Path(file).name for file in files] == ["app.log.2.zst", "app.log.1.gz", "app.log"]
    assert check(files, {"a": 7}, RUN).ok


def test_numbered_backups_come_by_number_and_strangers_stay_out(tmp_path):
    names = ["app.log", "app.log.1", "app.log.2", "app.log.10", "app.log.9.gz"]
    strangers = ["app.log.lock", "app.log.1.gz.tmp", "app.log.bak", "app.logs", "other.log.1"]
    for name in names + strangers:
        (tmp_path / name).touch()
    found = [Path(file).name for file in rotated_files(tmp_path / "app.log")]
    assert found == ["app.log.10", "app.log.9.gz", "app.log.2", "app.log.1", "app.log"]


def test_backups_by_time_come_by_time_and_copy(tmp_path):
    for name in ["app.log", "app.log.2026-11-22.1", "app.log.2026-11-22", "app.log.2026-11-09_23-59-59.gz"]:
        (tmp_path / name).touch()
    found = [Path(file).name for file in rotated_files(tmp_path / "app.log")]
    assert found == [
        "app.log.2026-11-09_23-59-59.gz",
        "app.log.2026-11-22",
        "app.log.2026-11-22.1",
        "app.log",
    ]


def test_without_any_file_there_is_nothing(tmp_path):
    assert rotated_files(tmp_path / "app.log") == []
    assert rotated_files(tmp_path / "nowhere" / "app.log") == []


def check_lines(tmp_path: Path, texts: list[str], expected: dict[str, int], **options: Any) -> Report:
    path = tmp_path / "app.log"
    path.write_text("".join(text + "\n" for text in texts))
    return check([path], expected, "r", **options)


def test_a_record_of_several_lines_is_whole_when_all_follow_one_another(tmp_path):
    parts = [line for n in range(2) for line in message("r", "w", n, 30, lines=3).split("\n")]
    assert len(parts) == 6
    assert check_lines(tmp_path, parts, {"w": 2}).ok


@pytest.mark.parametrize("order", [[0, 1, 3, 4, 5], [0, 3, 1, 2, 4, 5], [1, 2, 3, 4, 5]])
def test_a_record_that_lacks_a_line_or_has_a_stranger_in_it_is_torn(tmp_path, order):
    parts = [line for n in range(2) for line in message("r", "w", n, 30, lines=3).split("\n")]
    assert check_lines(tmp_path, [parts[index] for index in order], {"w": 2}).torn > 0


def test_several_lines_may_stand_in_one_of_json(tmp_path):
    texts = [message("r", "w", n, 30, lines=3).replace("\n", "\\n") for n in range(2)]
    assert check_lines(tmp_path, texts, {"w": 2}).ok


def test_lines_that_are_all_the_same_are_counted(tmp_path):
    texts = [same_message("r", "w")] * 3
    assert check_lines(tmp_path, texts, {"w": 3}).ok
    assert check_lines(tmp_path, texts, {"w": 2}).doubled == 1
    assert check_lines(tmp_path, texts, {"w": 5}).lost == 2
    assert check_lines(tmp_path, [texts[0][:-3]], {"w": 0}).torn == 1


def test_dropped_records_may_be_absent_and_no_others(tmp_path):
    texts = [message("r", "w", n) for n in (0, 3)]
    report = check_lines(tmp_path, texts, {"w": 4}, dropped={"w": [1]})
    assert (report.lost, report.dropped) == (1, 1)
    assert check_lines(tmp_path, texts, {"w": 4}, dropped={"w": [1, 2]}).ok


def test_where_the_oldest_files_are_removed_only_the_first_records_may_be_absent(tmp_path):
    texts = [message("r", "w", n) for n in (2, 3)]
    assert check_lines(tmp_path, texts, {"w": 4, "gone": 7}, oldest_removed=True).ok
    assert check_lines(tmp_path, texts, {"w": 5}, oldest_removed=True).lost == 1
    assert check_lines(tmp_path, [texts[0], message("r", "w", 4)], {"w": 5}, oldest_removed=True).lost == 1

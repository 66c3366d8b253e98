"""The supervisor's own log, which must never hold the supervisor up."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from redislogkit.supervisor import log as module
from redislogkit.supervisor.log import Log


@pytest.fixture
def pipe(monkeypatch) -> Iterator[int]:
    """The reading end of what is stderr to the log."""
    reader, writer = os.pipe()
    monkeypatch.setattr(module, "_STDERR", writer)
    yield reader
    os.close(reader)
    os.close(writer)


def test_a_line_has_time_and_pid(pipe):
    Log()("hello\udcff")
    line = os.read(pipe, 999).decode()
    assert re.fullmatch(
        rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d redislogkit\[{os.getpid()}\] hello\\udcff\n", line
    )


def test_lines_that_nobody_reads_are_left_out_counted_and_told(pipe):
    log = Log()
    for _ in range(50):
        log("x" * 10_000)  # in pieces
    read = os.read(pipe, 1 << 20)
    whole = read.count(b"\n")
    assert whole > 3
    log("again")
    told = os.read(pipe, 999).decode()
    assert told.startswith("\n" if not read.endswith(b"\n") else "2")  # on a line of its own
    assert f"({50 - whole} lines were left out, as nobody read this log) again\n" in told
    log("and again")
    assert "left out" not in os.read(pipe, 999).decode()


def test_a_file_can_be_moved_away_at_any_time(tmp_path):
    path = tmp_path / "own.log"
    log = Log(str(path))
    log("one")
    path.rename(tmp_path / "own.log.1")
    log("two")
    assert path.read_text().endswith("] two\n")
    assert (tmp_path / "own.log.1").read_text().endswith("] one\n")


def test_where_the_file_can_not_be_had_stderr_takes_the_line(tmp_path, pipe):
    Log(str(tmp_path))("hello")
    assert os.read(pipe, 999).endswith(b"] hello\n")


def test_a_file_that_nobody_rotates_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LARGEST", 1000)
    with (tmp_path / "supervisor.log").open("ab") as file:
        monkeypatch.setattr(module, "_STDERR", file.fileno())
        log = Log(bounded=True)
        for number in range(100):
            log(f"line {number}")
    text = (tmp_path / "supervisor.log").read_text()
    assert len(text) < 1100
    assert text.endswith("line 99\n")


def test_a_closed_stderr_is_no_reason_to_fail(monkeypatch):
    monkeypatch.setattr(module, "_STDERR", 9999)
    Log()("hello")

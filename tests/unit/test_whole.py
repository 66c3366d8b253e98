"""Archives, live file and stream as one sequence."""

from __future__ import annotations

import gzip
import os
import random
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redislogkit import LoggedRecord, zstd
from redislogkit.record import Loss
from redislogkit.view import files
from redislogkit.view.parsing import Parser
from redislogkit.writers import archive
from tests.helpers.desk import START, Desk, messages
from tests.helpers.filewriter import memory_folder
from tests.helpers.looking import entry, record

TRACE = "Traceback (most recent call last):\n  File x\nKeyError: 'id'"


@pytest.fixture
def desks() -> Iterator[Callable[..., Desk]]:
    made: list[Desk] = []
    with memory_folder() as folder:

        def make(**settings: object) -> Desk:
            made.append(Desk(folder / str(len(made)), **settings))
            return made[-1]

        yield make
        for desk in made:
            desk.close()


def numbers(first: int, last: int) -> list[str]:
    return [f"m{n}" for n in range(first, last + 1)]


def test_archives_live_file_and_stream_are_one_sequence(desks):
    desk = desks(max_bytes=300)
    for n in range(1, 21):
        desk.log(f"m{n}")
    desk.ship("m21", "m22")
    assert len(os.listdir(desk.path.parent)) > 3
    assert desk.messages() == numbers(1, 22)
    assert desk.said == []


def test_lines_are_as_the_file_has_them_and_those_of_the_stream_as_it_will_have_them(desks):
    desk = desks(multiline="indent")
    desk.log("first\nsecond", exc_text=TRACE)
    desk.ship("third\nfourth", exc_text=TRACE)
    shown = "".join(f"{line.text}\n" for line in desk.lines())
    desk.write()
    assert shown == desk.path.read_text()


def test_what_the_writer_does_not_take_is_not_shown_from_the_stream_either(desks):
    desk = desks(level="WARNING", loggers=["shop"])
    desk.ship("info", name="shop")
    desk.ship("other", levelno=40, levelname="ERROR", name="app")
    desk.ship("mine", levelno=40, levelname="ERROR", name="shop.db")
    assert desk.messages() == ["mine"]


def test_the_filter_of_the_writer_is_asked_for_what_is_only_in_the_stream(desks, capsys):
    def is_wanted(record: LoggedRecord) -> bool:
        print("asked")
        return record.message != "m2"

    desk = desks(filter=is_wanted)
    desk.ship("m1", "m2", "m3")
    assert desk.messages() == ["m1", "m3"]
    assert capsys.readouterr().out == ""


def test_without_the_filter_of_the_writer_all_is_shown_and_that_is_said(desks):
    desk = desks(filter="nowhere:nothing")
    desk.ship("m1")
    assert desk.messages() == ["m1"]
    assert "without the writer's own filter" in desk.said[0]


def test_an_entry_of_which_a_part_is_written_is_shown_once(desks):
    desk = desks()
    desk.log("m1", "m2")
    desk.server.entries[:] = [entry("9-9", 1, [record(f"m{n}", START + n) for n in range(1, 5)])]
    assert desk.messages() == numbers(1, 4)


def test_a_write_that_was_not_committed_is_shown_once(desks):
    desk = desks()
    desk.log("m1")
    desk.ship("m2")
    desk.write(commit=False, trim=False)
    assert desk.messages() == numbers(1, 2)
    del desk.server.entries[:]
    assert desk.messages() == numbers(1, 2)


def test_a_write_that_was_not_committed_is_shown_also_behind_a_rotation(desks):
    desk = desks(max_bytes=120)
    desk.log("m1")
    desk.ship("m2")
    desk.ship("m3")
    desk.ship("m4")
    desk.write(commit=False, trim=True)
    del desk.server.entries[:]
    assert len(os.listdir(desk.path.parent)) > 2
    assert desk.messages() == numbers(1, 4)


def test_a_torn_write_is_left_to_the_stream(desks):
    desk = desks()
    desk.log("m1")
    desk.ship("m2")
    desk.write(commit=False, trim=False)
    with open(desk.path, "r+b") as file:
        file.truncate(desk.path.stat().st_size - 3)
    assert desk.messages() == numbers(1, 2)
    assert desk.lines()[-1].text.endswith("app: m2")


def test_a_write_that_was_announced_in_a_new_file_and_is_not_there_is_left_to_the_stream(desks):
    desk = desks(max_bytes=120)
    desk.log("m1")
    desk.ship("m2")
    desk.ship("m3")
    desk.write(commit=False, trim=False)
    with open(desk.path, "r+b") as file:
        file.truncate(0)
    assert desk.messages() == numbers(1, 3)


def test_lines_of_others_in_the_file_are_part_of_it(desks):
    desk = desks()
    desk.log("m1")
    with open(desk.path, "a") as file:
        file.write("by hand\n")
    desk.log("m2")
    with open(desk.path, "a") as file:
        file.write("2026-11-22 19:00:00,000 INFO     app: like ours\n")
    assert [line.text.partition("app: ")[2] for line in desk.lines()] == ["m1\nby hand", "m2", "like ours"]


def test_files_without_a_checkpoint_are_shown_and_what_the_server_knows_to_be_written_is_not_doubled(desks):
    desk = desks()
    desk.ship("m1", "m2")
    desk.write(trim=False)
    desk.ship("m3")
    os.unlink(desk.checkpoint.path)
    desk.server.published = {"p1": 2}
    assert desk.messages() == numbers(1, 3)


def test_on_a_host_without_files_the_stream_is_shown(desks):
    desk = desks()
    desk.ship("m1", "m2")
    shutil.rmtree(desk.path.parent)
    os.unlink(desk.checkpoint.path)
    desk.server.published = {"p1": 2}
    assert desk.messages() == numbers(1, 2)


def test_without_a_server_the_files_are_shown_and_it_is_known_why_the_rest_is_missing(desks):
    desk = desks()
    desk.log("m1")
    desk.server.away = True
    whole = desk.whole()
    assert messages(list(whole.lines())) == ["m1"]
    assert "connection refused" in whole.away
    whole.close()


def test_losses_are_shown_as_the_file_has_them(desks):
    desk = desks()
    desk.log("m1")
    desk.sequence = 4
    desk.ship(Loss(2, 5, "spool_full", START), "m6")
    (_, from_stream, _) = desk.lines()
    desk.write()
    (_, from_file, _) = desk.lines()
    assert from_stream.text == from_file.text
    assert "4 records dropped, sequences 2 to 5" in from_file.text


def test_filters_hold_for_files_and_stream_alike(desks):
    desk = desks()
    desk.log("a1", name="shop", exc_text=TRACE)
    desk.log("b1", levelno=40, levelname="ERROR")
    desk.ship("a2", name="shop", exc_text=TRACE)
    desk.ship("b2", levelno=40, levelname="ERROR")
    assert desk.messages(level="error") == ["b1", "b2"]
    assert desk.messages(loggers=["shop"]) == ["a1", "a2"]
    assert desk.messages(grep="KeyError") == ["a1", "a2"]
    assert desk.messages(since=f"@{START + 2}", until=f"@{START + 4}") == ["b1", "a2"]
    assert desk.messages(fields=["levelno=40"]) == ["b1", "b2"]


def test_what_is_not_understood_is_searched_but_not_judged(desks):
    desk = desks()
    desk.path.write_text("an old format: one\nan old format: two\n")
    desk.log("m1")
    assert desk.messages() == ["an old format: one", "an old format: two", "m1"]
    assert desk.messages(grep="two|m1") == ["an old format: two", "m1"]
    whole = desk.whole(level="INFO")
    assert messages(list(whole.lines())) == ["m1"]
    assert whole.not_understood == 2
    whole.close()


def test_the_last_ones_are_found_without_reading_older_files(desks, monkeypatch):
    desk = desks(max_bytes=120)
    for n in range(1, 31):
        desk.log(f"m{n}")
    desk.ship("m31")
    read: list[str] = []
    texts = files.Files.texts

    def noted(self: files.Files, part: files.Part, parser: Parser) -> Iterator[str]:
        read.append(part.path)
        return texts(self, part, parser)

    monkeypatch.setattr(files.Files, "texts", noted)
    whole = desk.whole()
    assert messages(whole.last(4)) == numbers(28, 31)
    assert 0 < len(read) <= 4
    assert messages(whole.last(100)) == numbers(1, 31)
    assert whole.last(0) == []
    whole.close()


def test_archives_that_were_last_written_before_the_moment_are_not_read(desks, monkeypatch):
    desk = desks(max_bytes=120, naming="timestamp", when="S")
    for n in range(1, 11):
        desk.log(f"m{n}")
    for path in desk.path.parent.glob("app.log.*"):
        os.utime(path, (START - 3600, START - 3600))
    monkeypatch.setattr(files.Files, "_lines", _refusing(files.Files._lines, r"app.log."))
    assert desk.messages(since=f"@{START + 10}") == ["m10"]


def _refusing(lines: Callable[..., Iterator[str]], name: str) -> Callable[..., Iterator[str]]:
    def refuse(self: files.Files, part: files.Part) -> Iterator[str]:
        assert name not in part.path
        return lines(self, part)

    return refuse


@pytest.mark.parametrize("compress", ["gzip", "zstd"])
def test_compressed_archives_are_read_and_a_damaged_one_is_named_and_read_as_far_as_it_goes(desks, compress):
    if compress == "zstd" and not zstd.is_installed():
        pytest.skip("zstd is not installed")
    desk = desks(max_bytes=120, compress=compress)
    for n in range(1, 11):
        desk.log(f"m{n}")
    archivist = archive.Archivist(desk.destination._config, pytest.fail)
    archivist.release()
    archivist.work()
    packed = sorted(desk.path.parent.glob("app.log.*z*"))
    assert packed
    assert desk.messages() == numbers(1, 10)
    packed[0].write_bytes(packed[0].read_bytes()[:-9])
    assert desk.messages()[-1] == "m10"
    assert f"{packed[0]} can not be read to its end" in desk.said[0]


def test_an_original_beside_its_compressed_twin_is_not_shown_twice(desks):
    desk = desks(max_bytes=120)
    for n in range(1, 6):
        desk.log(f"m{n}")
    plain = Path(f"{desk.path}.1")
    packed = Path(f"{desk.path}.1.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    shutil.copystat(plain, packed)
    assert desk.messages() == numbers(1, 5)


def test_a_record_of_any_length_is_bounded(desks, monkeypatch):
    monkeypatch.setattr(files, "_MOST_LINES", 3)
    desk = desks()
    desk.log("m1\n2\n3\n4\n5")
    desk.log("m2")
    assert [line.text.splitlines()[0][-2:] for line in desk.lines()] == ["m1", "4", "5", "m2"]


def test_a_file_that_somebody_else_has_renamed_is_read_while_the_checkpoint_names_it(desks):
    desk = desks()
    desk.log("m1")
    desk.path.rename(f"{desk.path}-20261122")
    assert desk.messages() == ["m1"]


def test_nothing_at_all_is_nothing(desks):
    assert desks().messages() == []


def test_many_files_take_more_descriptors(desks, monkeypatch):
    desk = desks()
    desk.log("m1")
    real, refused = open, [OSError(24, "too many open files")]

    def open_file(path: str, mode: str):
        if refused and str(path) == str(desk.path):
            raise refused.pop()
        return real(path, mode)

    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(files, "open", open_file, raising=False)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: raised.append(limits))
    assert desk.messages() == ["m1"]
    assert raised == [(4096, 4096)]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_writer_does_meanwhile_nothing_is_missing_or_doubled(desks, seed, monkeypatch):
    chance = random.Random(seed)
    desk = desks(max_bytes=chance.choice([0, 150, 400]), naming=chance.choice(["number", "timestamp"]))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    logged, left = 0, 30

    def go_on(probability: float) -> None:
        nonlocal logged, left
        while left and chance.random() < probability:
            left -= 1
            for _ in range(chance.randrange(3)):
                logged += 1
                desk.ship(f"m{logged}")
            if chance.random() < 0.8:
                if chance.random() < 0.2:
                    desk.write(commit=False, trim=chance.random() < 0.5)
                    desk.close()
                    desk.open()
                desk.write()

    def disturbed(real: Callable[..., object]) -> Callable[..., object]:
        def run(*given: object) -> object:
            go_on(0.15)
            return real(*given)

        return run

    go_on(0.95)
    before = logged
    for owner, name in (
        (archive, "list_archives"),
        (archive, "identity_of"),
        (files, "_open_file"),
        (files, "_load"),
    ):
        monkeypatch.setattr(owner, name, disturbed(getattr(owner, name)))
    desk.server.meanwhile = lambda: go_on(0.3)
    whole = desk.whole()
    monkeypatch.undo()
    desk.server.meanwhile = lambda: None
    lines, left = whole.lines(), 30
    shown = [next(lines, None)]
    go_on(0.9)  # rotation, while it is read
    shown += lines
    found = messages([line for line in shown if line])
    whole.close()
    assert found == numbers(1, len(found)), f"seed {seed}"
    assert len(found) >= before
    assert desk.said == []

"""The index: what was noted is read back, also after a kill, and a restart goes on where the checkpoint was."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redislogkit import journal
from redislogkit.writers import index as module
from redislogkit.writers.chunk import Chunk, Lost, Span
from redislogkit.writers.index import Index, Position


def a_chunk(number: int, *producers: str) -> Chunk:
    spans = [Span(producer, number, number + 1, 2) for producer in producers or ("p",)]
    return Chunk(number * 10, number * 10 + 10, number, spans, [Lost("p", number, number, "shed")])


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def index(tmp_path: Path, reports: list[str]) -> Index:
    found = Index(str(tmp_path / "index"), reports.append)
    found.take_up(Position(0, 0))
    return found


def contents(index: Index) -> list[module.FileIndex]:
    return [module.read(path) for path in module.index_files(index._folder)]


def test_chunks_are_read_back_file_by_file(index):
    index.begin(1, 2)
    index.add(a_chunk(1, "p", "q"))
    index.add(a_chunk(2, "q", "r"))
    index.begin(1, 2)
    index.begin(1, 3)
    index.add(a_chunk(3))
    assert contents(index) == [
        module.FileIndex(1, 2, [a_chunk(1, "p", "q"), a_chunk(2, "q", "r")]),
        module.FileIndex(1, 3, [a_chunk(3)]),
    ]


def test_what_stands_behind_the_checkpoint_is_cut_off_and_told(index, tmp_path, reports):
    index.begin(1, 2)
    index.add(a_chunk(1))
    position = index.position
    index.add(a_chunk(2, "q"))
    index.begin(1, 3)
    index.add(a_chunk(3))
    again = Index(str(tmp_path / "index"), reports.append)
    assert again.take_up(position) == [(1, 2, a_chunk(2, "q")), (1, 3, a_chunk(3))]
    assert contents(again) == [module.FileIndex(1, 2, [a_chunk(1)])]
    again.add(a_chunk(2, "r"))
    again.begin(1, 3)
    assert contents(again) == [
        module.FileIndex(1, 2, [a_chunk(1), a_chunk(2, "r")]),
        module.FileIndex(1, 3, []),
    ]
    assert reports == []


def test_however_many_producers_there_were_few_are_remembered(index, tmp_path, monkeypatch, reports):
    monkeypatch.setattr(module, "_MOST_NUMBERED", 3)
    index.begin(1, 2)
    chunks = [a_chunk(n, f"p{n}", "stays", "") for n in range(1, 20)]
    for chunk in chunks[:15]:
        index.add(chunk)
        assert len(index._producers) <= 3 + 2
    position = index.position
    index.add(a_chunk(99, "cut off"))
    again = Index(str(tmp_path / "index"), reports.append)
    again.take_up(position)
    for chunk in chunks[15:]:
        again.add(chunk)
    assert contents(again) == [module.FileIndex(1, 2, chunks)]


def test_without_a_checkpoint_it_goes_on_with_what_there_is(index, tmp_path, reports):
    index.begin(1, 2)
    index.add(a_chunk(1))
    again = Index(str(tmp_path / "index"), reports.append)
    assert again.take_up(Position(0, 0)) == []
    again.begin(1, 2)
    again.add(a_chunk(2))
    assert contents(again) == [module.FileIndex(1, 2, [a_chunk(1), a_chunk(2)])]


@pytest.mark.parametrize("length", [0, 5])
def test_an_index_file_that_was_being_begun_is_removed(index, tmp_path, reports, length):
    index.begin(1, 2)
    index.add(a_chunk(1))
    position = index.position
    (tmp_path / "index" / "00000002.index").write_bytes(journal.frame([1, 3])[:length])
    again = Index(str(tmp_path / "index"), reports.append)
    assert again.take_up(position) == []
    assert contents(again) == [module.FileIndex(1, 2, [a_chunk(1)])]
    assert reports == []


def test_index_files_of_log_files_that_are_gone_are_removed(index):
    for number in range(5):
        index.begin(1, number)
        index.add(a_chunk(number + 1))
    index.keep(2)
    assert [found.inode for found in contents(index)] == [3, 4]
    index.begin(1, 9)
    assert [found.inode for found in contents(index)] == [3, 4, 9]


@pytest.mark.parametrize("written", [0, 5])
def test_a_full_disk_is_waited_for(index, reports, monkeypatch, written):
    index.begin(1, 2)
    index.add(a_chunk(1))
    real = os.write

    def short(fd: int, data: bytes) -> int:
        if not written:
            raise OSError(errno.EDQUOT, "quota")
        return real(fd, data[:written])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short)
        with pytest.raises(OSError, match=r"no space left for the index|quota"):
            index.add(a_chunk(2, "q"))
    index.add(a_chunk(2, "q"))
    assert [found.chunks for found in contents(index)] == [[a_chunk(1), a_chunk(2, "q")]]
    assert reports == []


def test_another_failure_is_reported_once_and_stops_nothing(index, reports, monkeypatch):
    def refuse(*_: object) -> int:
        raise OSError(errno.EIO, "broken")

    index.begin(1, 2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        index.add(a_chunk(1))
        index.add(a_chunk(2))
    index.add(a_chunk(3))
    assert [found.chunks for found in contents(index)] == [[a_chunk(3)]]
    assert len(reports) == 1
    assert "verify will miss it" in reports[0]


def test_the_paths_of_the_log_file_are_remembered_the_present_one_last(index, tmp_path, reports):
    folder = str(tmp_path / "index")
    assert module.known_paths(folder) == []
    for path in ("/a.log", "/b\udcff.log", "/a.log", "/a.log"):
        index.note_path(path)
    assert module.known_paths(folder) == index.known_paths() == ["/b\udcff.log", "/a.log"]
    for number in range(100):
        index.note_path(f"/{number}.log")
    assert index.known_paths() == [f"/{number}.log" for number in range(68, 100)]
    for damaged in (b"", journal.frame(7), journal.frame([7])):
        (tmp_path / "index/paths").write_bytes(damaged)
        assert index.known_paths() == []
    assert reports == []


def test_a_folder_that_can_not_be_made_is_reported_and_stops_nothing(tmp_path, reports):
    (tmp_path / "index").write_text("a file")
    index = Index(str(tmp_path / "index"), reports.append)
    assert index.take_up(Position(3, 20)) == []
    index.begin(1, 2)
    index.add(a_chunk(1))
    assert index.position == Position(0, 0)
    assert len(reports) == 1


@settings(max_examples=100)
@given(data=st.data())
def test_a_damaged_index_is_read_up_to_the_damage_or_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    index = Index(str(folder), lambda line: None)
    index.take_up(Position(0, 0))
    index.begin(1, 2)
    chunks = [a_chunk(number, "p", f"q{number}") for number in range(1, 5)]
    for chunk in chunks:
        index.add(chunk)
    [path] = module.index_files(str(folder))
    content = bytearray(Path(path).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    Path(path).write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        found = module.read(path)
    except ValueError:
        return
    assert found.chunks == chunks[: len(found.chunks)]


def test_whole_frames_that_are_not_ours_are_refused(tmp_path):
    path = tmp_path / "00000001.index"
    for content in (
        [5],
        [["a"], [1], [0, 1, 2, [["", 1, 2, 3]], []]],
        [["a"], [-1], [0, 1, 2, [["", 1, 2, 3]], []]],
    ):
        path.write_bytes(journal.frame([1, 2]) + journal.frame(content))
        with pytest.raises(ValueError):
            module.read(str(path))
        reports: list[str] = []
        index = Index(str(tmp_path), reports.append)
        index.take_up(Position(0, 0))
        index.begin(1, 2)
        index.add(a_chunk(1))
        assert module.read(module.index_files(str(tmp_path))[-1]).chunks == [a_chunk(1)]
        assert len(reports) == 1
        os.unlink(module.index_files(str(tmp_path))[-1])

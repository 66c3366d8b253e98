"""What a torn write is mended to, at every length, with and without bytes of others around it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redislogkit.writers import chunk, repair

BEFORE = b"before\n"
DATA = b"".join(b"2026-11-22 18:00:00 record %d of a write\n" % n for n in range(6))
CHUNK = chunk.describe(len(BEFORE), DATA, [chunk.Span("p", 1, 6, 6)], [])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


def settled(path: Path, content: bytes, data: bytes | None = DATA) -> tuple[chunk.Chunk | None, bytes]:
    path.write_bytes(content)
    return repair.settle(str(path), CHUNK, data), path.read_bytes()


def test_a_whole_write_is_found_also_without_its_bytes(path):
    assert settled(path, BEFORE + DATA, None) == (CHUNK, BEFORE + DATA)
    assert settled(path, BEFORE + DATA + b"later") == (CHUNK, BEFORE + DATA + b"later")


def test_a_front_part_at_the_end_is_cut_off_whatever_its_length(path):
    for length in range(len(DATA)):
        assert settled(path, BEFORE + DATA[:length]) == (None, BEFORE), length


def test_without_its_bytes_nothing_is_cut(path):
    torn = BEFORE + DATA[:50]
    assert settled(path, torn, None) == (None, torn)


def test_bytes_of_others_in_the_place_of_a_write_stay(path):
    for others in (b"theirs\n", b"2026-11-22 18:00:00 theirs\n", DATA[:20] + b"x", b"x" * 500):
        assert settled(path, BEFORE + others) == (None, BEFORE + others)


def test_a_write_behind_bytes_that_others_appended_at_that_moment_is_found(path):
    found, content = settled(path, BEFORE + b"theirs\n" + DATA + b"and later\n")
    assert content == BEFORE + b"theirs\n" + DATA + b"and later\n"
    assert found is not None
    assert content[found.start : found.end] == DATA


@pytest.mark.parametrize("length", [64, 70, 100, len(DATA) - 1])
def test_a_torn_write_behind_bytes_of_others_is_cut_off(path, length):
    assert settled(path, BEFORE + b"theirs\n" + DATA[:length]) == (None, BEFORE + b"theirs\n")


@pytest.mark.parametrize("length", [64, 70, 100, len(DATA) - 1])
def test_in_front_of_bytes_of_others_a_torn_write_is_completed_behind_them(path, length):
    torn = BEFORE + DATA[:length] + b"theirs\n"
    found, content = settled(path, torn)
    assert content.startswith(torn)
    assert found is not None
    assert found.end == len(content)
    assert set(DATA.splitlines()) <= set(content.splitlines())
    # What was appended is whole by itself; only the line that was torn is there in part, too.
    whole = DATA[:length].count(b"\n")
    assert content[len(torn) :] == b"".join(DATA.splitlines(keepends=True)[whole:])
    assert repair.settle(str(path), found, None) == found


def test_a_file_that_can_not_be_cut_is_completed(path, monkeypatch):
    monkeypatch.setattr(
        os, "ftruncate", lambda fd, size: (_ for _ in ()).throw(PermissionError("append only"))
    )
    assert settled(path, BEFORE + DATA[:70]) == (CHUNK, BEFORE + DATA)


def test_a_write_is_taken_back_only_from_the_end(path):
    path.write_bytes(BEFORE + DATA)
    repair.take_back(str(path), CHUNK)
    assert path.read_bytes() == BEFORE
    path.write_bytes(BEFORE + DATA + b"theirs")
    repair.take_back(str(path), CHUNK)
    assert path.read_bytes() == BEFORE + DATA + b"theirs"


@settings(max_examples=200)
@given(data=st.binary(min_size=1, max_size=40), length=st.integers(0, 40), others=st.binary(max_size=20))
def test_nothing_of_others_is_ever_lost(tmp_path_factory, data, length, others):
    path = tmp_path_factory.getbasetemp() / "others.log"
    ours = data[:length]
    path.write_bytes(BEFORE + ours + others)
    announced = chunk.describe(len(BEFORE), data, [], [])
    found = repair.settle(str(path), announced, data)
    content = path.read_bytes()
    if found is None:
        assert content.startswith(BEFORE)
        assert content[len(BEFORE) :] in (
            ours + others,
            b"",
            (ours + others)[: max(len(ours + others) - len(data), 0)],
        )
        if content == BEFORE:
            assert data.startswith(ours + others)
    else:
        assert content.startswith(BEFORE + ours + others)
        assert repair.settle(str(path), found, None) == found

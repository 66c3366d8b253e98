"""Segments: frames are read whole or not at all, whatever happens to the bytes."""

from __future__ import annotations

import errno
import mmap
import os
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redislogkit.errors import CorruptDataError
from redislogkit.record import Facts
from redislogkit.spool import header, segment

payloads = st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=8)
first_sequences = st.integers(1, 2**40) | st.sampled_from([2**32 - 2, 2**24 - 2])


def filled(contents: list[bytes], first: int = 1, size: int = 2048) -> mmap.mmap:
    """A segment in memory with these payloads in frames."""
    mapped = mmap.mmap(-1, size)
    position = segment.FIRST_FRAME
    for sequence, payload in enumerate(contents, first):
        position = segment.put_frame(mapped, position, payload, sequence)
    return mapped


def cut(mapped: mmap.mmap, size: int) -> mmap.mmap:
    shorter = mmap.mmap(-1, size)
    shorter[:] = mapped[:size]
    return shorter


def frames(mapped: mmap.mmap, position: int = segment.FIRST_FRAME) -> list[tuple[int, bytes]]:
    found = []
    while (frame := segment.read_frame(mapped, position)) is not None:
        found.append((frame.sequence, frame.payload))
        position = frame.end
    return found


@given(contents=payloads, first=first_sequences)
def test_frames_are_read_as_they_were_stored(contents, first):
    assert frames(filled(contents, first)) == list(enumerate(contents, first))


@settings(max_examples=60)
@given(contents=payloads, data=st.data())
def test_of_a_cut_segment_the_whole_frames_are_read(contents, data):
    mapped = filled(contents)
    size = data.draw(st.integers(segment.FIRST_FRAME, 700))
    end = segment.FIRST_FRAME
    whole = 0
    for payload in contents:
        end += segment.FRAME_SIZE + len(payload)
        whole += end <= size
    assert frames(cut(mapped, size)) == list(enumerate(contents[:whole], 1))


@settings(max_examples=200)
@given(contents=payloads, first=first_sequences, data=st.data())
def test_a_flipped_byte_costs_its_own_frame_and_no_other(contents, first, data):
    mapped = filled(contents, first)
    used = segment.FIRST_FRAME + sum(segment.FRAME_SIZE + len(payload) for payload in contents)
    at = data.draw(st.integers(segment.FIRST_FRAME, used - 1))
    mapped[at] ^= data.draw(st.integers(1, 255))
    stored = list(enumerate(contents, first))
    before = frames(mapped)
    assert before == stored[: len(before)]
    assert len(before) < len(stored)
    position = segment.FIRST_FRAME + sum(segment.FRAME_SIZE + len(payload) for _, payload in before)
    behind = segment.find_frame(mapped, position, first + len(before) - 1)
    rest = [] if behind is None else frames(mapped, behind)
    assert rest == stored[len(before) + 1 :]


def test_a_zero_more_never_passes_whatever_the_sum_is():
    mapped = filled([b"?\xa7"])
    for sequence in range(1, 65_522):  # each remainder by Adler's prime
        segment.put_frame(mapped, segment.FIRST_FRAME, b"?\xa7", sequence)
        mapped[segment.FIRST_FRAME] += 1
        assert segment.read_frame(mapped, segment.FIRST_FRAME) is None


@settings(max_examples=100)
@given(data=st.binary(max_size=300), position=st.integers(0, 400), after=st.integers(0, 2**40))
def test_bytes_that_are_no_frames_are_never_taken_for_one(data, position, after):
    mapped = mmap.mmap(-1, 400)
    mapped[: len(data)] = data
    assert segment.read_frame(mapped, position) is None
    assert not segment.continues(mapped, position)
    assert segment.find_frame(mapped, position, after) is None


def test_a_page_of_zeros_amid_a_segment_hides_nothing_behind_it():
    contents = [b"record %04d" % number + b"x" * 100 for number in range(400)]
    mapped = filled(contents, size=64 * 1024)
    mapped[8192 : 8192 + 4096] = bytes(4096)
    before = frames(mapped)
    position = segment.FIRST_FRAME + sum(segment.FRAME_SIZE + len(payload) for _, payload in before)
    behind = segment.find_frame(mapped, position, len(before))
    assert behind is not None and 12288 <= behind < 12288 + 200
    rest = frames(mapped, behind)
    assert rest == list(enumerate(contents, 1))[-len(rest) :]
    assert len(before) + len(rest) > 360


def test_the_mark_of_the_next_segment_is_read_and_is_no_frame():
    mapped = filled([b"a"])
    end = segment.FIRST_FRAME + segment.FRAME_SIZE + 1
    assert not segment.continues(mapped, end)
    segment.put_continues(mapped, end, 2)
    assert segment.continues(mapped, end)
    assert segment.read_frame(mapped, end) is None
    mapped[end + 9] ^= 1
    assert not segment.continues(mapped, end)


def test_a_created_segment_is_reserved_on_disk_and_opens_for_reading(tmp_path):
    mapped = segment.create(str(tmp_path), 7, 41, segment.SMALLEST)
    segment.put_frame(mapped, segment.FIRST_FRAME, b"payload", 41)
    assert os.stat(tmp_path / "000007.seg").st_blocks * 512 >= segment.SMALLEST
    read, first = segment.open_for_reading(str(tmp_path), 7)
    assert (first, frames(read)) == (41, [(41, b"payload")])
    with pytest.raises(TypeError):
        read[0] = 1


def test_creating_a_segment_again_keeps_what_is_there(tmp_path):
    segment.put_frame(segment.create(str(tmp_path), 1, 1, 4096), 64, b"x", 1)
    again = segment.create(str(tmp_path), 1, 1, 4096)
    assert frames(again) == [(1, b"x")]


def test_no_room_for_a_segment_is_an_error_that_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match="no space"):
        segment.create(str(tmp_path), 1, 1, 4096)
    assert segment.numbers(str(tmp_path)) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"RLKSEG01",
        bytes(64),
        b"RLKSEG02" + bytes(100),
        segment.HEAD.pack(segment.MAGIC, 2, 1) + bytes(99),
    ],
)
def test_a_file_that_is_no_segment_of_this_number_is_refused(tmp_path, content):
    (tmp_path / "000001.seg").write_bytes(content)
    with pytest.raises(CorruptDataError, match=r"000001\.seg"):
        segment.open_for_reading(str(tmp_path), 1)


def test_segments_are_listed_by_number_and_strangers_are_passed_over(tmp_path):
    for name in ("000010.seg", "000002.seg", "1000000.seg", "header", "x.seg", "000003.seg.bak", "3.seg"):
        (tmp_path / name).touch()
    assert segment.numbers(str(tmp_path)) == [2, 10, 1000000]


# --- the header --------------------------------------------------------------------------------------------

FACTS = Facts("f00d", "web1", 4711, "MainProcess", 1.5, 1000, "/dev/pts/3", 34816, "boot", True)


def test_a_header_keeps_facts_and_words(tmp_path):
    page = header.Header.create(str(tmp_path), FACTS)
    page.words[header.SHIPPED] = 2**63
    other = header.Header.open(str(tmp_path))
    assert (other.facts(), other.words[header.SHIPPED]) == (FACTS, 2**63)
    assert not other.try_lock()
    page.close()
    assert other.try_lock()
    other.close()


def test_facts_that_are_too_long_are_cut_and_cost_no_record(tmp_path):
    long = Facts("f00d", "web1", 1, "é" * 5000, 0.0, 0, "/dev/" + "x" * 5000)
    page = header.Header.create(str(tmp_path), long)
    assert page.facts().process_name == "é" * 256
    assert (page.facts().producer, page.facts().host) == ("f00d", "web1")
    page.close()


def test_a_header_that_nobody_refers_to_frees_its_lock(tmp_path):
    page = header.Header.create(str(tmp_path), FACTS)
    del page
    other = header.Header.open(str(tmp_path))
    assert other.try_lock()
    other.close()


@settings(max_examples=100)
@given(at=st.integers(1024, 1100), flip=st.integers(1, 255))
def test_damaged_facts_are_refused(tmp_path_factory, at, flip):
    directory = tmp_path_factory.mktemp("header")
    header.Header.create(str(directory), FACTS).close()
    with open(directory / "header", "r+b") as file:
        page = bytearray(file.read())
        page[at] ^= flip
        file.seek(0)
        file.write(page)
    damaged = header.Header.open(str(directory))
    try:
        facts = damaged.facts()
    except CorruptDataError:
        pass
    else:
        assert facts == FACTS  # a byte behind them
    damaged.close()


@pytest.mark.parametrize("content", [b"", bytes(4096), b"RLKSPL01", b"RLKSPL99" + bytes(4088)])
def test_a_file_that_is_no_header_is_refused(tmp_path, content):
    (tmp_path / "header").write_bytes(content)
    with pytest.raises(CorruptDataError, match="header"):
        header.Header.open(str(tmp_path))


def test_hostile_facts_with_a_right_checksum_are_refused(tmp_path):
    header.Header.create(str(tmp_path), FACTS).close()
    for facts in (b"\x91\xc1", b"\xa2\xff\xff", b"\x91" * 2000 + b"\xc0", b""):
        with open(tmp_path / "header", "r+b") as file:
            file.seek(1024)
            file.write(struct.pack("<II", len(facts), zlib.crc32(facts)) + facts)
        damaged = header.Header.open(str(tmp_path))
        with pytest.raises(CorruptDataError, match="facts"):
            damaged.facts()
        damaged.close()


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "endless"])
def test_what_is_no_regular_file_is_no_segment(tmp_path, kind):
    path = tmp_path / segment.file_name(1)
    {
        "link": lambda: path.symlink_to(tmp_path / "elsewhere"),
        "fifo": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "endless": lambda: path.symlink_to("/dev/zero"),
    }[kind]()
    with pytest.raises(CorruptDataError, match="no regular file"):
        segment.open_for_reading(str(tmp_path), 1)

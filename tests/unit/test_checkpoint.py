"""The checkpoint: whatever happens to its journal, what is read back is what was committed up to some point."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redislogkit import journal
from redislogkit.writers import checkpoint as module
from redislogkit.writers import chunk
from redislogkit.writers.checkpoint import Checkpoint, Intent, Mark
from redislogkit.writers.index import Position


class State(NamedTuple):
    """Everything that a checkpoint remembers."""

    entry_id: bytes
    total: int
    mark: Mark | None
    highest: dict[str, int]
    ended: dict[str, int]
    intents: list[Intent]


def state(checkpoint: Checkpoint) -> State:
    return State(
        checkpoint.entry_id,
        checkpoint.total,
        checkpoint.mark,
        dict(checkpoint.highest),
        dict(checkpoint.ended),
        list(checkpoint.intents),
    )


def opened(path: Path) -> Checkpoint:
    checkpoint = Checkpoint(str(path))
    checkpoint.open()
    return checkpoint


class Commit(NamedTuple):
    entry_id: bytes
    total: int
    mark: Mark | None
    written: dict[str, int]
    ended: list[str]


def put(checkpoint: Checkpoint, step: Commit | bytes) -> None:
    """Commit, or announce a write of some bytes."""
    if isinstance(step, bytes):
        span = chunk.Span("a", 1, 1, 1)
        checkpoint.intend(Intent(1, 2, chunk.describe(7, step, [span], [])), step)
    else:
        checkpoint.commit(*step)


producers = st.sampled_from(["a", "b", "c", "é"])
commits = st.lists(
    st.binary(max_size=20)
    | st.builds(
        Commit,
        st.integers(0, 99).map(lambda number: b"%d-0" % number),
        st.integers(0, 2**53),
        st.none()
        | st.builds(Mark, *[st.integers(0, 2**40)] * 3, st.builds(Position, *[st.integers(0, 9)] * 2)),
        st.dictionaries(producers, st.integers(0, 2**63 - 1), max_size=3),
        st.lists(producers, max_size=2, unique=True),
    ),
    min_size=1,
    max_size=8,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.checkpoint"


def fresh(path: Path) -> Path:
    path.unlink(missing_ok=True)
    return path


@settings(max_examples=40)
@given(commits=commits)
def test_what_was_committed_is_read_back(tmp_path_factory, commits):
    path = fresh(tmp_path_factory.getbasetemp() / "read-back")
    checkpoint = opened(path)
    for commit in commits:
        put(checkpoint, commit)
    checkpoint.close()
    again = opened(path)
    assert state(again) == state(checkpoint)
    assert again.damage == ""
    again.close()


@settings(max_examples=60)
@given(commits=commits, data=st.data())
def test_of_a_cut_journal_a_prefix_of_the_commits_is_read_and_writing_goes_on(
    tmp_path_factory, commits, data
):
    path = fresh(tmp_path_factory.getbasetemp() / "cut")
    checkpoint = opened(path)
    states, sizes = [state(checkpoint)], [0]
    for commit in commits:
        put(checkpoint, commit)
        states.append(state(checkpoint))
        sizes.append(os.path.getsize(path))
    checkpoint.close()
    size = data.draw(st.integers(0, sizes[-1]))
    os.truncate(path, size)
    again = opened(path)
    whole = max(number for number, end in enumerate(sizes) if end <= size)
    assert state(again) == states[whole]
    assert bool(again.damage) == (size not in sizes)
    again.commit(b"100-0", 1, None, {"z": 1}, [])
    expected = state(again)
    again.close()
    last = opened(path)
    assert (state(last), last.damage) == (expected, "")
    last.close()


@settings(max_examples=100)
@given(commits=commits, data=st.data())
def test_of_a_damaged_journal_a_prefix_of_the_commits_is_read(tmp_path_factory, commits, data):
    path = fresh(tmp_path_factory.getbasetemp() / "damaged")
    checkpoint = opened(path)
    states = [state(checkpoint)]
    for commit in commits:
        put(checkpoint, commit)
        states.append(state(checkpoint))
    checkpoint.close()
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    again = opened(path)
    assert state(again) in states
    assert again.damage
    again.close()


@settings(max_examples=60)
@given(commits=commits, threshold=st.integers(1, 400))
def test_a_journal_that_is_written_anew_says_the_same(tmp_path_factory, commits, threshold):
    path = fresh(tmp_path_factory.getbasetemp() / "anew")
    checkpoint = opened(path)
    rewritten = []
    for number, commit in enumerate(commits):
        checkpoint._rewrite_at = threshold
        inode = os.stat(path).st_ino
        put(checkpoint, commit)
        rewritten.append(os.stat(path).st_ino != inode)
        if number % 2:
            checkpoint.close()
            again = opened(path)
            assert (state(again), again.damage) == (state(checkpoint), "")
            checkpoint = again
    checkpoint.close()
    assert os.listdir(path.parent).count("anew.new") == 0


def test_the_journal_stays_small_however_often_it_is_committed(path, monkeypatch):
    monkeypatch.setattr(module, "_LARGEST_JOURNAL", 4096)
    checkpoint = opened(path)
    checkpoint._rewrite_at = 4096
    for number in range(2000):
        checkpoint.commit(b"%d-0" % number, number, Mark(1, 2, number), {"producer": number}, [])
        assert os.path.getsize(path) < 8192
    checkpoint.close()
    assert opened(path).highest == {"producer": 1999}


def test_producers_that_have_ended_are_remembered_but_not_for_ever(path, monkeypatch):
    monkeypatch.setattr(module, "_MAX_ENDED", 100)
    checkpoint = opened(path)
    for number in range(500):
        checkpoint.commit(b"1-0", 0, None, {f"p{number}": number + 1}, [f"p{number}"])
    assert checkpoint.highest == {}
    assert (checkpoint.seen("p499"), checkpoint.seen("p400"), checkpoint.seen("p399")) == (500, 401, 0)
    checkpoint._rewrite()
    checkpoint.close()
    assert opened(path).seen("p450") == 451


def test_a_producer_that_logs_on_after_its_end_is_known_by_its_newest_record(path):
    checkpoint = opened(path)
    checkpoint.commit(b"1-0", 0, None, {"p": 5}, ["p"])
    assert checkpoint.seen("p") == 5
    checkpoint.commit(b"2-0", 0, None, {"p": 9}, [])
    assert checkpoint.seen("p") == 9
    checkpoint.commit(b"3-0", 0, None, {}, ["p"])
    assert (checkpoint.seen("p"), checkpoint.highest) == (9, {})


def test_an_end_of_somebody_unknown_is_no_gap_in_the_memory(path):
    checkpoint = opened(path)
    checkpoint.commit(b"1-0", 0, None, {}, ["stranger"])
    checkpoint.commit(b"1-0", 0, None, {}, ["stranger"])
    assert checkpoint.seen("stranger") == 0


@pytest.mark.parametrize("written", [0, 5])
def test_a_full_disk_leaves_the_journal_as_it_was(path, monkeypatch, written):
    checkpoint = opened(path)
    checkpoint.commit(b"1-0", 1, None, {"a": 1}, [])
    before = state(checkpoint)
    real = os.write

    def short(fd: int, data: bytes) -> int:
        if not written:
            raise OSError(errno.ENOSPC, "no space")
        return real(fd, data[:written])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", short)
        with pytest.raises(OSError, match="no space"):
            checkpoint.commit(b"2-0", 2, None, {"a": 2}, [])
    assert state(checkpoint) == before
    checkpoint.commit(b"3-0", 3, None, {"a": 3}, [])
    checkpoint.close()
    again = opened(path)
    assert (again.entry_id, again.highest, again.damage) == (b"3-0", {"a": 3}, "")


def test_a_torn_commit_that_can_not_be_cut_off_at_once_is_cut_off_before_the_next(path, monkeypatch):
    checkpoint = opened(path)
    checkpoint.commit(b"1-0", 1, None, {"a": 1}, [])
    real = os.write

    def refuse(*_: Any) -> None:
        raise OSError(errno.EIO, "no")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
        patch.setattr(os, "ftruncate", refuse)
        for _ in range(2):
            with pytest.raises(OSError, match="no"):
                checkpoint.commit(b"2-0", 2, None, {"a": 2}, [])
    checkpoint.commit(b"3-0", 3, None, {"a": 3}, [])
    checkpoint.close()
    again = opened(path)
    assert (again.entry_id, again.damage) == (b"3-0", "")


@pytest.mark.parametrize("name", ["write", "fdatasync", "rename"])
def test_a_journal_that_can_not_be_written_anew_serves_on(path, monkeypatch, name):
    checkpoint = opened(path)
    checkpoint.commit(b"1-0", 1, None, {"a": 1}, [])
    with monkeypatch.context() as patch:

        def refuse(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "no space")

        patch.setattr(os, name, refuse)
        checkpoint._rewrite()
    assert sorted(os.listdir(path.parent)) == [path.name, f"{path.name}.data"]
    checkpoint.commit(b"2-0", 2, None, {"a": 2}, [])
    checkpoint.close()
    assert opened(path).highest == {"a": 2}


def test_a_rewrite_that_was_killed_half_way_leaves_the_old_journal_valid(path):
    checkpoint = opened(path)
    checkpoint.commit(b"1-0", 1, Mark(1, 2, 3), {"a": 1}, [])
    checkpoint.close()
    Path(str(path) + ".new").write_bytes(b"half a state")
    again = opened(path)
    assert again.highest == {"a": 1}
    again._rewrite()
    again.close()
    assert opened(path).mark == Mark(1, 2, 3)
    assert not os.path.exists(f"{path}.new")


def test_nobody_else_may_read_it(path):
    opened(path).close()
    assert {os.stat(name).st_mode & 0o777 for name in (path, f"{path}.data")} == {0o600}


def test_of_what_was_announced_the_newest_bytes_are_known(path):
    checkpoint = opened(path)
    put(checkpoint, b"one\n")
    put(checkpoint, b"longer\n")
    put(checkpoint, b"two\n")
    checkpoint.close()
    again = opened(path)
    assert [again.announced(intent) for intent in again.intents] == [None, None, b"two\n"]
    again.commit(b"1-0", 1, None, {}, [])
    assert again.intents == []


def test_the_bytes_of_a_large_write_do_not_stay_when_small_ones_follow(path, monkeypatch):
    monkeypatch.setattr(module, "_LARGE_DATA", 100)
    checkpoint = opened(path)
    data = path.with_name(f"{path.name}.data")
    put(checkpoint, bytes(10_000))
    put(checkpoint, bytes(5_000))
    checkpoint.intend_end(["p"])  # has no bytes of its own
    assert data.stat().st_size == 10_000
    assert checkpoint.announced(checkpoint.intents[1]) == bytes(5_000)
    checkpoint.close()
    again = opened(path)
    assert again.announced(again.intents[1]) == bytes(5_000)
    put(again, b"small\n")
    assert data.stat().st_size == 6
    assert again.announced(again.intents[-1]) == b"small\n"
    put(again, bytes(90))
    assert data.stat().st_size == 90


@pytest.mark.parametrize(
    "content",
    [
        [1, 2, 3], {"a": 1}, None, [5, 0, None, {}, []], [b"1-0", -1, None, {}, []], [b"1-0", 0, [1], {}, []],
        [b"1-0", 0, None, {"a": "x"}, []], [b"1-0", 0, None, {}, [1]], [b"1-0", 0, [1, 2, -3], {}, []],
        [b"1-0", 0, None, {"a": -1}, []], [1, 2, [7, 8, 9, [["a", 1, "x", 1]], []]],
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [0, 1, 2, -3, "x", None])
def test_whole_frames_with_content_that_is_not_ours_are_refused(path, content, kind):
    good = journal.frame((0, [b"1-0", 1, None, {"a": 1}, []]))
    path.write_bytes(good + journal.frame((kind, content)) + good)
    checkpoint = opened(path)
    assert checkpoint.highest == {"a": 1}
    assert f"byte {len(good)} are no whole frame" in checkpoint.damage
    assert os.path.getsize(path) == len(good)


@settings(max_examples=100)
@given(data=st.binary(max_size=200))
def test_a_file_of_anything_is_refused_and_begun_anew(tmp_path_factory, data):
    path = fresh(tmp_path_factory.getbasetemp() / "anything")
    for content in (data, journal_frame_of(data)):
        path.write_bytes(content)
        checkpoint = opened(path)
        assert checkpoint.highest == {}
        checkpoint.commit(b"1-0", 1, None, {"a": 1}, [])
        checkpoint.close()
        assert opened(path).highest == {"a": 1}


def journal_frame_of(body: bytes) -> bytes:
    """A frame with a right checksum around any bytes."""
    whole = bytearray(journal.frame(msgspec.Raw(body)))
    return bytes(whole)

"""The loop that every writer runs: what is written, checkpointed and confirmed, in which order, after what."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from redislogkit import record
from redislogkit.errors import GroupMissingError, LeaseLostError, LockHeldError, ServerAwayError
from redislogkit.lines import Numbered
from redislogkit.record import NOT_IN_STREAM, End, Facts, Loss, Record
from redislogkit.stream import batch
from redislogkit.stream.client import Claim, Confirmation, RawEntry
from redislogkit.writers import base
from redislogkit.writers.base import Writer
from redislogkit.writers.checkpoint import Checkpoint, Mark
from redislogkit.writers.counts import Counts
from redislogkit.writers.reading import Reading

CODEC = batch.compressor("none")


class Stream:
    """One stream with one group, in memory: what a `StreamClient` shows to a writer."""

    def __init__(self) -> None:
        self.entries: list[RawEntry] = []
        self.delivered = 0
        self.pending: list[bytes] = []
        self.confirmations: list[Confirmation] = []
        self.joined = 0
        self.holder = "here"
        self.token = 0
        self.published: dict[str, int] = {}
        self.fail_next: Exception | None = None
        self.left = 0

    def add(
        self, *runs: tuple[Facts, int, Sequence[object]], fields: dict[bytes, bytes] | None = None
    ) -> None:
        if fields is None:
            raw = [
                batch.RawRun(f, first, [record.encode(item) for item in items]) for f, first, items in runs
            ]
            flat = batch.encode(raw, *CODEC).fields
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
        self.entries.append((b"%d-0" % (len(self.entries) + 1), fields))

    def client(self) -> Stream:
        return self

    def join(self, writer: str, after: str) -> None:
        self.joined += 1

    def read(
        self, writer: str, after: str, count: int, block: float, wake: Sequence[int] = ()
    ) -> list[RawEntry]:
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error
        if after != ">":
            return [entry for entry in self.entries if entry[0] in self.pending][:count]
        fresh = self.entries[self.delivered : self.delivered + count]
        self.delivered += len(fresh)
        self.pending += [entry_id for entry_id, _ in fresh]
        return fresh

    def claim(self, writer: str, owner: str, seconds: float, token: int = 0) -> Claim:
        if self.holder != owner:
            return Claim(0, self.holder)
        self.token += not token
        return Claim(self.token, owner)

    def written(self, writer: str) -> dict[str, int]:
        return self.published

    def leave(self, writer: str) -> bool:
        if self.fail_next is not None:
            raise self.fail_next
        self.left += 1
        return True

    def confirm(self, writer: str, confirmation: Confirmation) -> None:
        if self.holder != "here":
            raise LeaseLostError("the lease is somebody else's by now")
        self.confirmations.append(confirmation)
        self.pending = [entry_id for entry_id in self.pending if entry_id not in confirmation.ids]

    def close(self) -> None:
        pass


class Lines:
    """A destination that keeps what is written, forgets what is not checkpointed, and fails when told to."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.items: list[Numbered] = []
        self.fail_before: set[int] = set()
        self.failures: list[OSError] = []
        self.held = 0
        self.reached: dict[str, int] = {}
        self.retracted = 0

    def recover(self, checkpoint: Checkpoint, *, retract: bool = False) -> dict[str, int]:
        if self.held:
            self.held -= 1
            raise LockHeldError("in use by process 4711")
        self.retracted += retract
        if self.items and self.reached:
            return self.reached
        del self.items[checkpoint.mark.offset if checkpoint.mark else 0 :]
        return {}

    def write(self, reading: Reading) -> None:
        for item in reading.items:
            if item[2] in self.fail_before and self.failures:
                raise self.failures.pop()
            self.items.append(item)

    def mark(self) -> Mark:
        return Mark(1, 2, len(self.items))

    def service(self) -> float | None:
        return None

    def close(self) -> None:
        pass

    def texts(self) -> list[str]:
        return [item.message if isinstance(item, Record) else item.cause for item, _, _ in self.items]


def facts(name: str) -> Facts:
    return Facts(name, "host", 1, "MainProcess", 0.0, 0)


def logged(text: str, levelno: int = 20, name: str = "a") -> Record:
    return record.build(1.0, levelno, "INFO", name, text, "", 1, "", None, None)


A, B = facts("aaaa"), facts("bbbb")


class Run:
    """A writer on a stream in memory, run until it has read the stream to its end."""

    def __init__(self, folder: Path) -> None:
        self.stream = Stream()
        self.lines = Lines()
        self.reports: list[str] = []
        self._path = str(folder / "checkpoints" / "w")
        (folder / "checkpoints").mkdir()
        self.selects: Callable[[int, str], bool] = lambda _level, _name: True

    def go(self, rounds: int = 0, *, retiring: bool = False, abandoned: bool = False) -> bool:
        """Write until the stream is read, or for ``rounds`` readings more (failures included)."""
        left = iter(range(rounds))
        self.checkpoint = Checkpoint(self._path)
        writer = Writer(
            "w",
            self.stream.client,  # type: ignore[arg-type]
            self.lines,
            self.checkpoint,
            self.selects,
            self.reports.append,
            block=0.0,
            lock_timeout=5.0,
            owner="here",
        )
        done = writer.run(
            lambda: next(left, None) is None, retiring=lambda: retiring, abandoned=lambda: abandoned
        )
        self.status = writer.status()
        return done


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_records_are_written_in_order_and_confirmed(run):
    run.stream.add((A, 1, [logged("a1"), logged("a2")]), (B, 1, [logged("b1")]))
    run.stream.add((A, 3, [logged("a3")]))
    run.go()
    assert run.lines.texts() == ["a1", "a2", "b1", "a3"]
    assert run.stream.confirmations[-1] == Confirmation(
        b"2-0", 0, {"aaaa": 3, "bbbb": 1}, [b"1-0", b"2-0"], 1
    )
    assert run.checkpoint.seen("aaaa") == 3
    assert run.checkpoint.entry_id == b"2-0"
    assert run.stream.pending == []


def test_what_comes_again_is_dropped(run):
    run.stream.add((A, 1, [logged("a1"), logged("a2")]))
    run.stream.add((A, 1, [logged("a1"), logged("a2"), logged("a3")]))
    run.stream.add((A, 2, [logged("a2")]))
    run.go()
    run.go()
    assert run.lines.texts() == ["a1", "a2", "a3"]


def test_a_restart_publishes_the_positions_again(run):
    run.stream.add((A, 1, [logged("a1")]))
    run.go()
    run.stream.confirmations.clear()
    run.go()
    assert run.stream.confirmations[0] == Confirmation(b"", 0, {"aaaa": 1}, (), 2)


def test_pending_entries_of_a_killed_writer_are_written_first(run):
    run.stream.add((A, 1, [logged("a1")]))
    run.stream.add((A, 2, [logged("a2")]))
    run.stream.read("w", ">", 1, 0.0)
    run.go()
    assert run.lines.texts() == ["a1", "a2"]


def test_level_and_logger_select_records_but_not_positions(run):
    run.selects = lambda level, name: level >= 30 and name == "keep"
    run.stream.add((A, 1, [logged("x", 20, "keep"), logged("y", 30, "other"), logged("z", 30, "keep")]))
    run.stream.add((A, 4, [logged("w", 10)]))
    run.go()
    assert run.lines.texts() == ["z"]
    assert run.checkpoint.seen("aaaa") == 4


def test_a_failed_write_is_made_good_without_doubling(run):
    run.stream.add((A, 1, [logged("a1")]))
    run.stream.add((A, 2, [logged("a2"), logged("a3")]), (B, 1, [logged("b1")]))
    run.lines.fail_before = {3}
    run.lines.failures = [OSError(errno.ENOSPC, "no space")] * 2
    run.go(rounds=5)
    assert run.lines.texts() == ["a1", "a2", "a3", "b1"]
    assert run.checkpoint.seen("aaaa") == 3


def test_what_is_found_to_be_written_after_a_failure_is_not_written_again(run):
    run.stream.add((A, 1, [logged("a1"), logged("a2")]))
    run.lines.fail_before = {2}
    run.lines.failures = [OSError(errno.EIO, "reported late")]
    run.lines.reached = {"aaaa": 1}
    run.go(rounds=3)
    assert run.lines.texts() == ["a1", "a2"]


def test_nothing_is_checkpointed_before_the_stream_has_taken_the_confirmation(run, monkeypatch):
    run.stream.add((A, 1, [logged("a1")]))
    commits = []
    real = Checkpoint.commit

    def commit(self, *args):
        commits.append((args[3], len(run.stream.confirmations)))
        real(self, *args)

    monkeypatch.setattr(Checkpoint, "commit", commit)
    run.go()
    assert commits[-1] == ({"aaaa": 1}, 2)  # the first one publishes positions at the beginning


def test_a_gap_that_nobody_explains_is_noted_at_its_place(run):
    run.stream.add((A, 1, [logged("a1")]))
    run.stream.add((A, 5, [logged("a5")]))
    run.go()
    assert run.lines.texts() == ["a1", NOT_IN_STREAM, "a5"]
    assert run.lines.items[1][0] == Loss(2, 4, NOT_IN_STREAM, 1.0)


def test_a_gap_that_the_producer_explains_is_noted_once(run):
    run.stream.add((A, 1, [logged("a1")]))
    run.stream.add((A, 5, [Loss(2, 4, "spool_full", 1.0), logged("a6")]))
    run.go()
    assert run.lines.texts() == ["a1", "spool_full", "a6"]


def test_a_producer_that_has_ended_is_forgotten_by_the_stream_but_not_doubled(run):
    run.stream.add((A, 1, [logged("a1")]))
    run.stream.add((A, 2, [End()]))
    run.stream.add((A, 1, [logged("a1")]))
    run.go()
    assert run.lines.texts() == ["a1"]
    assert run.checkpoint.highest == {}
    assert run.stream.confirmations[-1].positions == {"aaaa": -1}


def test_a_producer_that_was_taken_for_ended_has_its_position_published_when_its_records_come_again(run):
    """Else the spool that they come from would wait for ever for them to be written."""
    run.stream.add((A, 1, [logged("a1")]))
    run.stream.add((A, 2, [End()]))
    run.go()
    run.stream.add((A, 1, [logged("a1")]))
    run.go()
    assert run.lines.texts() == ["a1"]
    assert run.checkpoint.ended == {"aaaa": 1}
    assert run.stream.confirmations[-1].positions == {"aaaa": 1}


@pytest.mark.parametrize("confirmed", [True, False])
def test_a_kill_around_the_confirmation_of_an_end_forgets_nothing(run, monkeypatch, confirmed):
    run.stream.add((A, 1, [logged("a1")]), (B, 1, [logged("b1")]))
    run.go()
    run.stream.add((A, 2, [End()]))
    with monkeypatch.context() as patch:
        where, what = (Writer, "_commit") if confirmed else (Stream, "confirm")
        real = Stream.confirm
        patch.setattr(
            where, what,
            lambda *given: real(*given) if given[-1].__class__ is Confirmation and not given[-1].ids else 1 / 0,
        )  # fmt: skip
        with pytest.raises(ZeroDivisionError):
            run.go()
    run.go()
    assert run.checkpoint.highest == {"bbbb": 1}
    assert run.checkpoint.ended == {"aaaa": 1}
    assert run.lines.texts() == ["a1", "b1"]


def test_an_entry_that_is_no_log_entry_is_set_aside_and_reported(run, tmp_path):
    run.stream.add(fields={b"v": b"1", b"c": b"none", b"d": b"\xc1garbage"})
    run.stream.add(fields={b"hello": b"world"})
    run.stream.add((A, 1, [logged("a1")]))
    run.go()
    assert run.lines.texts() == ["a1"]
    assert len(run.reports) == 2
    assert sorted(path.name for path in (tmp_path / "damaged").iterdir()) == ["entry-1-0", "entry-2-0"]
    assert run.stream.pending == []


def test_a_missing_group_is_made_again_and_the_positions_are_published(run):
    run.stream.add((A, 1, [logged("a1")]))
    run.go()
    run.stream.fail_next = GroupMissingError("NOGROUP")
    run.stream.add((A, 2, [logged("a2")]))
    run.go()
    assert run.lines.texts() == ["a1", "a2"]
    assert any("group is gone" in line for line in run.reports)


def test_a_server_that_is_away_for_a_moment_is_worth_no_line(run):
    run.stream.add((A, 1, [logged("a1")]))
    run.stream.fail_next = ServerAwayError("refused")
    run.go(rounds=2)
    assert run.lines.texts() == ["a1"]
    assert run.reports == []


def test_a_lock_that_is_freed_in_time_is_waited_for(run):
    run.lines.held = 3
    run.stream.add((A, 1, [logged("a1")]))
    run.go(rounds=5)
    assert run.lines.texts() == ["a1"]


def test_who_waits_for_a_lock_says_for_whom_and_that_it_is_over(run, monkeypatch):
    monkeypatch.setattr(base, "_PATIENCE", 0.0)
    run.lines.held = 3
    run.stream.add((A, 1, [logged("a1")]))
    run.go(rounds=5)
    assert (run.lines.texts(), run.status.error) == (["a1"], "")
    assert run.reports == ["waiting: in use by process 4711", "goes on"]
    run.lines.held = 1000
    run.go(rounds=2)
    assert run.status.error == "in use by process 4711"


def test_a_writer_that_is_told_to_stop_at_once_has_opened_its_destination_before_it_reads(run):
    run.lines.items = [(logged("left by a kill"), A, 1)]
    run.stream.add((A, 1, [logged("a1")]))
    run.go()
    assert run.lines.texts() == ["a1"]


def test_a_writer_that_is_told_to_stop_before_it_has_the_lock_reads_nothing(run):
    run.lines.held = 1000
    run.stream.add((A, 1, [logged("a1")]))
    run.go()
    assert run.lines.texts() == []
    assert run.stream.joined == 0


def test_records_of_programs_that_do_not_number_them_are_written_once(run):
    fields = {b"formatted_message": b"hello", b"level": b"INFO", b"created": b"1.5", b"name": b"other"}
    run.stream.add(fields=fields)
    run.stream.add(fields=fields)
    run.go()
    run.stream.delivered = 0
    run.go()
    assert [item.text for item, _, _ in run.lines.items] == ["hello", "hello"]


def test_a_writer_that_another_host_runs_stands_by(run):
    run.stream.holder = "elsewhere"
    run.stream.add((A, 1, [logged("a1")]))
    run.go()
    assert run.lines.texts() == []
    assert run.stream.pending == []


def test_who_takes_over_begins_with_the_positions_of_its_predecessor(run):
    run.stream.published = {"aaaa": 2}
    run.stream.add((A, 1, [logged("a1"), logged("a2"), logged("a3")]))
    run.go()
    assert run.lines.texts() == ["a3"]


def test_who_was_stopped_beyond_its_lease_takes_back_what_it_has_just_written(run, monkeypatch):
    run.stream.add((A, 1, [logged("a1")]))
    run.go()
    run.stream.add((A, 2, [logged("a2")]))
    monkeypatch.setattr("time.monotonic", iter(range(0, 10_000, 4)).__next__)

    def written_late(reading):
        run.lines.items += reading.items
        run.stream.holder = "elsewhere"

    run.lines.write = written_late
    run.go()
    assert run.lines.texts() == ["a1"]
    assert run.lines.retracted
    assert run.checkpoint.seen("aaaa") == 1


def test_what_was_confirmed_without_an_answer_is_kept_when_the_lease_is_lost(run, monkeypatch):
    run.stream.add((A, 1, [logged("a1")]))
    real = Stream.confirm

    def answer_lost(self, writer, confirmation):
        real(self, writer, confirmation)
        if confirmation.ids:
            self.holder = "elsewhere"
            raise ServerAwayError("reset by peer")

    monkeypatch.setattr(Stream, "confirm", answer_lost)
    run.lines.reached = {"aaaa": 1}
    run.go(rounds=3)
    assert run.lines.texts() == ["a1"]
    assert not run.lines.retracted
    assert run.checkpoint.seen("aaaa") == 1


def test_readings_that_take_long_become_smaller_and_quick_ones_larger(run, monkeypatch):
    monkeypatch.setattr(base, "_MOST_ENTRIES", 16)
    for number in range(1, 200):
        run.stream.add((A, number, [logged(f"a{number}")]))
    sizes: list[int] = []
    real = Stream.read

    def read(self, writer, after, count, block, wake):
        sizes.append(count)
        return real(self, writer, after, count, block, wake)

    monkeypatch.setattr(Stream, "read", read)
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    write = run.lines.write

    def slow(reading):
        write(reading)
        clock[0] += 0.2 if len(run.lines.items) < 100 else 0.0

    run.lines.write = slow
    run.go(rounds=150)
    assert len(run.lines.items) == 199
    assert min(sizes) == 1
    assert sizes[-1] > 8


# -- a writer that is not configured any more --------------------------------------------------------


def test_who_retires_reads_to_the_end_and_leaves_the_stream(run):
    run.stream.add((A, 1, [logged("a1")]))
    assert run.go(retiring=True)
    assert run.lines.texts() == ["a1"]
    assert run.stream.left == 1


def test_who_retires_and_can_not_read_to_the_end_keeps_its_place(run):
    run.stream.add((A, 1, [logged("a1")]))
    assert not run.go(retiring=True, abandoned=True)
    assert run.stream.left == 0


def test_who_can_not_leave_says_so(run, monkeypatch):
    def refuse(self, writer):
        raise ServerAwayError("OOM")

    monkeypatch.setattr(Stream, "leave", refuse)
    assert not run.go(retiring=True)
    assert run.reports == ["its place in the stream can not be given up: OOM"]


def test_who_stands_by_retires_without_a_word_to_the_host_that_goes_on(run):
    run.stream.holder = "elsewhere"
    assert run.go(retiring=True)
    assert run.stream.left == 0


# -- what is counted --------------------------------------------------------------------------------


def test_each_reading_gives_one_age_that_of_its_newest_record(run, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 3.0)  # records are of 1.0
    run.stream.add((A, 1, [logged("a1"), logged("a2")]))
    run.go()
    assert (run.status.written, run.status.last_write) == (2, 3.0)
    assert run.status.latency.as_json()["sum"] == 2.0
    assert run.status.latency.as_json()["count"] == 1

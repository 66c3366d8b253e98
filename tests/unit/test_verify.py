"""``verify``: what index and checkpoint say against what stands in the files."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from redislogkit import __main__, zstd
from redislogkit import config as configuration
from redislogkit.errors import ConfigError
from redislogkit.verify.sequences import Range
from redislogkit.verify.verdict import Fault, Result
from redislogkit.verify.verification import verify
from redislogkit.writers.checkpoint import Checkpoint, Intent, Mark
from redislogkit.writers.chunk import Chunk, Lost, Span, describe
from redislogkit.writers.index import Index, folder, index_files
from tests.helpers.settings import toml


class Log:
    """A log file that is written chunk by chunk, with its index and checkpoint, as a writer does it."""

    def __init__(self, tmp_path: Path, **settings: Any) -> None:
        self.path = tmp_path / "logs" / "app.log"
        self.path.parent.mkdir()
        self.tree: dict[str, Any] = {
            "state_dir": str(tmp_path / "state"),
            "writers": {"app": {"type": "file", "path": str(self.path), "max_bytes": 100, **settings}},
        }
        self.config = configuration.load(self.tree)
        self.index = Index(folder(self.config.stream_dir, "app"), pytest.fail)
        checkpoints = Path(self.config.stream_dir, "checkpoints")
        checkpoints.mkdir(parents=True)
        self.checkpoint = Checkpoint(str(checkpoints / "app"))
        self.checkpoint.open()
        self.sequences: dict[str, int] = {}
        self.begin()

    def begin(self) -> None:
        self.path.touch()
        self.index.begin(self.path.stat().st_dev, self.path.stat().st_ino)

    def chunk(
        self,
        lines: int,
        producer: str = "abcd",
        *,
        data: bytes = b"",
        losses: Sequence[Lost] = (),
        commit: bool = True,
    ) -> Chunk:
        """Write so many lines of a producer, and note them."""
        first = self.sequences.get(producer, 0) + 1
        last = self.sequences[producer] = first + lines - 1
        data = data or b"".join(b"%b line %d\n" % (producer.encode(), n) for n in range(first, last + 1))
        start = self.path.stat().st_size
        with self.path.open("ab") as file:
            file.write(data)
        chunk = describe(start, data, [Span(producer, first, last, lines - len(losses))], list(losses))
        self.index.add(chunk)
        if commit:
            self.commit()
        return chunk

    def commit(self, **written: int) -> None:
        status = self.path.stat()
        mark = Mark(status.st_dev, status.st_ino, status.st_size)
        self.checkpoint.commit(b"1-0", 0, mark, {**self.sequences, **written}, [])

    def rotate(self) -> None:
        for number in (3, 2, 1):
            if (older := self.backup(number)).exists():
                older.rename(self.backup(number + 1))
        self.path.rename(self.backup(1))
        self.begin()

    def backup(self, number: int) -> Path:
        return Path(f"{self.path}.{number}")

    def index_file(self, number: int) -> str:
        return index_files(folder(self.config.stream_dir, "app"))[number]

    def verify(self, *paths: object) -> Result:
        (result,) = verify(self.config, list(map(str, paths)))
        return result

    def fault(self, *paths: object) -> Fault:
        (fault,) = self.verify(*paths).faults
        return fault


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Two chunks in app.log.2, one in app.log.1, one in app.log."""
    log = Log(tmp_path)
    log.chunk(3)
    log.chunk(2)
    log.rotate()
    log.chunk(4)
    log.rotate()
    log.chunk(1)
    return log


def abcd(first: int, last: int) -> list[Range]:
    return [Range("abcd", first, last)]


def compressed(path: Path, pack: Callable[[bytes], bytes], suffix: str) -> Path:
    target = Path(f"{path}{suffix}")
    target.write_bytes(pack(path.read_bytes()))
    path.unlink()
    return target


# --- complete ----------------------------------------------------------------------------------------------


def test_untouched_files_are_complete(log):
    result = log.verify()
    assert result.complete
    assert [os.path.basename(path) for path in result.files] == ["app.log.2", "app.log.1", "app.log"]
    assert (result.records, result.producers, result.foreign_bytes, result.notes) == (10, 1, 0, [])


def test_a_gzip_backup_is_known_by_its_content(log):
    compressed(log.backup(2), gzip.compress, ".gz")
    result = log.verify()
    assert (result.faults, result.records) == ([], 10)


@pytest.mark.skipif(not zstd.is_installed(), reason="zstd is not installed")
def test_a_zstd_backup_is_known_by_its_content(log):
    compressed(log.backup(1), zstd.module().compress, ".zst")
    result = log.verify()
    assert (result.faults, result.records) == ([], 10)


def test_files_that_were_copied_elsewhere_and_back_are_known_by_their_content(log):
    for path in (log.backup(2), log.backup(1), log.path):
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    assert log.verify().complete


def test_records_that_the_writer_leaves_out_are_accounted_for(log):
    log.sequences["abcd"] = 60
    log.index.add(Chunk(0, 0, 0, [Span("abcd", 11, 60, 0)], []))
    log.commit()
    log.chunk(2)
    result = log.verify()
    assert (result.faults, result.records) == ([], 12)


def test_a_producer_that_was_known_before_the_first_index_may_begin_later(tmp_path):
    log = Log(tmp_path)
    log.sequences["abcd"] = 100
    log.chunk(3)
    assert log.verify().complete


def test_lines_of_a_torn_write_that_were_found_may_come_before_those_that_were_not(log):
    for first, last in ((12, 13), (11, 11)):
        start = log.path.stat().st_size
        with log.path.open("ab") as file:
            file.write(b"%d\n" % first)
        log.index.add(describe(start, b"%d\n" % first, [Span("abcd", first, last, 1)], []))
    log.commit(abcd=13)
    assert log.verify().complete


def test_a_write_that_was_announced_and_not_carried_out_is_no_fault(log):
    status = log.path.stat()
    data = b"abcd line 11\nabcd line 12\n"
    chunk = describe(status.st_size, data, [Span("abcd", 11, 12, 2)], [])
    log.checkpoint.intend(Intent(status.st_dev, status.st_ino, chunk), data)
    with log.path.open("ab") as file:
        file.write(data[:20])
    result = log.verify()
    assert (result.faults, result.foreign_bytes) == ([], 0)
    assert "producer abcd sequences 11 to 12" in result.notes[0]


def test_a_file_that_was_cut_by_copytruncate_is_complete_with_its_copy(log):
    shutil.copy(log.path, f"{log.path}-20261123")
    os.truncate(log.path, 0)
    log.chunk(2)
    result = log.verify()
    assert (result.faults, result.records) == ([], 12)


def test_a_file_that_was_renamed_from_outside_is_found(log):
    log.path.rename(f"{log.path}-20261123")
    log.begin()
    log.chunk(2)
    assert log.verify().complete


def moved(log: Log, path: Path) -> Log:
    """The writer is given another path, and goes on there."""
    log.index.note_path(str(log.path))
    log.path = path
    path.parent.mkdir(exist_ok=True)
    log.index.note_path(str(path))
    log.tree["writers"]["app"]["path"] = str(path)
    log.config = configuration.load(log.tree)
    log.begin()
    log.chunk(2)
    return log


@pytest.mark.parametrize("name", ["logs/other.log", "elsewhere/app.log"])
def test_files_that_were_left_behind_under_another_path_are_found(log, tmp_path, name):
    compressed(log.backup(1), gzip.compress, ".gz")
    result = moved(log, tmp_path / name).verify()
    assert (result.faults, result.records, len(result.files)) == ([], 12, 4)


def test_of_files_that_were_left_behind_one_that_is_gone_or_changed_is_named(tmp_path):
    log = Log(tmp_path, max_bytes=0)
    log.chunk(5)
    old = log.path
    moved(log, tmp_path / "other.log")
    old.write_bytes(old.read_bytes().replace(b"line 3", b"line x"))
    fault = log.fault()
    assert (fault.kind, fault.path, fault.records) == ("damaged", str(old), abcd(1, 5))
    old.unlink()
    assert (log.fault().kind, log.fault().records) == ("missing", abcd(1, 5))


def test_nothing_written_yet_is_complete(tmp_path):
    config = configuration.load(
        {"state_dir": str(tmp_path), "writers": {"app": {"type": "file", "path": str(tmp_path / "l")}}}
    )
    (result,) = verify(config)
    assert (result.complete, result.notes) == (True, ["nothing has been written yet"])


# --- damaged, missing --------------------------------------------------------------------------------------


def test_a_changed_byte_is_named_with_its_records_and_nothing_else(log):
    log.backup(2).write_bytes(log.backup(2).read_bytes().replace(b"line 4", b"line X"))
    fault = log.fault()
    assert (fault.kind, fault.path, fault.records) == ("damaged", str(log.backup(2)), abcd(4, 5))
    assert log.verify().records == 8


def test_a_line_that_was_taken_out_in_the_middle_is_named(log):
    path = log.backup(2)
    path.write_bytes(path.read_bytes().replace(b"abcd line 2\n", b""))
    fault = log.fault()
    assert (fault.kind, fault.path, fault.records) == ("damaged", str(path), abcd(1, 3))


def test_the_only_chunk_of_a_file_that_an_editor_has_saved_anew_is_damaged_not_gone(log):
    path = log.backup(1)
    data = path.read_bytes().replace(b"line 7", b"line Y")
    path.rename(path.with_name("kept"))  # its inode must not be given to the new one
    path.write_bytes(data)
    fault = log.fault()
    assert (fault.kind, fault.path, fault.records) == ("damaged", str(path), abcd(6, 9))


def test_a_file_of_which_an_editor_has_left_little_is_known_by_that(log):
    path = log.backup(2)
    path.rename(path.with_name("kept"))
    path.write_bytes(b"abcd line 4\nabcd line 5\n")
    fault = log.fault()
    assert (fault.kind, fault.path, fault.records) == ("missing", str(path), abcd(1, 3))


def test_an_end_that_was_cut_off_is_named(log):
    os.truncate(log.backup(1), 12)
    fault = log.fault()
    assert (fault.kind, fault.path, fault.records) == ("damaged", str(log.backup(1)), abcd(6, 9))


def test_a_whole_chunk_that_was_cut_off_is_missing(log):
    os.truncate(log.backup(2), 36)
    fault = log.fault()
    assert (fault.kind, fault.path, fault.records) == ("missing", str(log.backup(2)), abcd(4, 5))


def test_an_emptied_file_is_missing(log):
    os.truncate(log.backup(1), 0)
    fault = log.fault()
    assert (fault.kind, fault.path, fault.records) == ("missing", str(log.backup(1)), abcd(6, 9))


@pytest.mark.parametrize("number", [1, 2])
def test_a_deleted_backup_is_missing(log, number):
    log.backup(number).unlink()
    fault = log.fault()
    assert (fault.kind, fault.records) == ("missing", abcd(6, 9) if number == 1 else abcd(1, 5))
    assert "gone" in fault.text


def test_a_deleted_live_file_is_missing(log):
    log.path.unlink()
    assert (log.fault(log.path).kind, log.fault().records) == ("missing", abcd(10, 10))


def test_a_gzip_file_that_was_cut_off_is_damaged(log):
    path = compressed(log.backup(2), gzip.compress, ".gz")
    path.write_bytes(path.read_bytes()[:-12])
    kinds = {(fault.kind, fault.path) for fault in log.verify().faults}
    assert ("damaged", str(path)) in kinds


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: b"no gzip at all"], ids=["cut off", "nonsense"])
def test_an_archive_of_which_nothing_can_be_read_is_damaged_and_not_gone(log, pack):
    path = compressed(log.backup(1), pack, ".gz")
    path.write_bytes(path.read_bytes()[:14])
    result = log.verify()
    assert "can not be read behind byte" in result.faults[0].text
    assert {fault.path for fault in result.faults} == {str(path)}
    assert [fault.records for fault in result.faults if fault.records] == [abcd(6, 9)]
    assert result.notes == []


def test_every_flipped_byte_of_a_gzip_file_is_seen(log):
    text = log.backup(2).read_bytes()
    path = compressed(log.backup(2), lambda data: gzip.compress(data, mtime=0), ".gz")
    data = path.read_bytes()
    for place in range(10, len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :])
        assert not log.verify().complete or gzip.decompress(path.read_bytes()) == text, place


def test_every_flipped_byte_of_a_file_is_seen(log):
    data = log.path.read_bytes()
    for place in range(len(data)):
        log.path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert log.fault().path == str(log.path)


# --- retention ---------------------------------------------------------------------------------------------


def test_backups_beyond_the_count_may_be_gone(tmp_path):
    log = Log(tmp_path, backup_count=2)
    for _ in range(4):
        log.chunk(2)
        log.rotate()
    for number in (4, 3):
        log.backup(number).unlink()
    result = log.verify()
    assert (result.faults, result.expired, result.records) == ([], 2, 4)
    log.backup(2).unlink()
    assert not log.verify().complete


def test_backups_beyond_the_age_may_be_gone(tmp_path):
    log = Log(tmp_path, backup_count=9, max_age="1 hour")
    for _ in range(2):
        log.chunk(2)
        log.rotate()
    log.backup(2).unlink()
    assert not log.verify().complete
    long_ago = time.time() - 3_601
    os.utime(log.index_file(0), (long_ago, long_ago))
    assert log.verify().complete


def test_backups_beyond_the_total_size_may_be_gone(tmp_path):
    log = Log(tmp_path, backup_count=9, max_total_bytes=50)
    for _ in range(3):
        log.chunk(2)
        log.rotate()
    log.backup(3).unlink()
    assert log.verify().complete
    log.backup(2).unlink()
    assert not log.verify().complete


def test_what_somebody_else_has_rotated_away_he_may_have_deleted(tmp_path):
    log = Log(tmp_path, max_bytes=0)
    for name in ("app.log-1", "app.log-2"):
        log.chunk(2)
        log.path.rename(log.path.with_name(name))
        log.begin()
    log.chunk(2)
    log.path.with_name("app.log-1").unlink()
    result = log.verify()
    assert (result.faults, result.expired) == ([], 1)


# --- bytes of others, doubled ------------------------------------------------------------------------------


def test_lines_of_others_are_counted_wherever_they_stand(log):
    log.path.write_bytes(log.path.read_bytes() + b"not ours\n")
    log.backup(1).write_bytes(b"nor this\n" + log.backup(1).read_bytes())
    log.backup(2).write_bytes(log.backup(2).read_bytes().replace(b"abcd line 2", b"in between\nabcd line 2"))
    result = log.verify()
    assert (result.faults, result.records, result.foreign_bytes) == ([], 10, 29)


def test_what_was_in_the_file_before_is_not_taken_for_doubled(tmp_path):
    (tmp_path / "logs").mkdir()
    log = Log.__new__(Log)
    (tmp_path / "logs").rmdir()
    log.__init__(tmp_path)  # type: ignore[misc]
    log.path.write_bytes(b"started\n")
    log.chunk(1, data=b"started\n")
    result = log.verify()
    assert (result.faults, result.foreign_bytes) == ([], 8)


@pytest.mark.parametrize("line", [1, 4, 8, 10])
def test_a_line_that_was_appended_again_is_doubled(log, line):
    log.path.write_bytes(log.path.read_bytes() + b"abcd line %d\n" % line)
    fault = log.fault()
    assert (fault.kind, fault.path) == ("doubled", str(log.path))
    assert any(found.first <= line <= found.last for found in fault.records)


def test_a_line_that_was_repeated_in_its_place_is_doubled(log):
    path = log.backup(2)
    path.write_bytes(path.read_bytes().replace(b"abcd line 2\n", b"abcd line 2\nabcd line 2\n"))
    fault = log.fault()
    assert (fault.kind, fault.path, fault.records) == ("doubled", str(path), abcd(1, 3))


def test_a_compression_that_was_interrupted_is_noted(log):
    twin = Path(f"{log.backup(2)}.gz")
    twin.write_bytes(gzip.compress(log.backup(2).read_bytes()))
    result = log.verify()
    assert result.complete
    assert "compression was interrupted" in result.notes[0]
    twin.write_bytes(gzip.compress(log.backup(2).read_bytes() + b"more\n"))
    assert not log.verify().complete


@pytest.mark.parametrize("name", ["app.log.3", "app.log.4.gz", "app.log.1.copy"])
def test_a_copy_of_a_backup_is_doubled(log, name):
    copy = log.path.with_name(name)
    copy.write_bytes(
        gzip.compress(log.backup(2).read_bytes()) if name.endswith("gz") else log.backup(1).read_bytes()
    )
    fault = log.fault(log.path, copy)
    assert (fault.kind, len(fault.records)) == ("doubled", 1)


def test_a_copy_under_a_name_that_is_not_the_writers_counts_only_when_it_is_given(log):
    copy = log.path.with_name("app.log.bak")
    copy.write_bytes(log.backup(1).read_bytes())
    assert log.verify().complete
    assert log.fault(log.path, copy).path == str(copy)


def test_a_strange_file_among_the_given_ones_is_noted(log):
    other = log.path.with_name("app.log.swp")
    other.write_bytes(b"something\n")
    result = log.verify(log.path, other)
    assert (result.faults, result.notes) == ([], [f"{other}: nothing of this writer is in it"])


# --- sequences ---------------------------------------------------------------------------------------------


def test_a_gap_in_the_sequences_is_named(log):
    log.sequences["abcd"] = 12
    log.chunk(2)
    fault = log.fault()
    assert (fault.kind, fault.records) == ("missing", abcd(11, 12))


def test_sequences_that_are_accounted_for_twice_are_doubled(log):
    log.sequences["abcd"] = 7
    log.chunk(2, data=b"other text 1\nother text 2\n", commit=False)
    fault = log.fault()
    assert (fault.kind, fault.path, fault.records) == ("doubled", str(log.path), abcd(8, 9))


def test_losses_that_the_file_has_a_line_for_are_named(log):
    log.chunk(10, data=b"10 records dropped\n", losses=[Lost("abcd", 11, 20, "spool_full")])
    result = log.verify()
    assert dict(result.dropped) == {"spool_full": 10}
    (fault,) = result.faults
    assert (fault.kind, fault.path, fault.records) == ("dropped", str(log.path), abcd(11, 20))


# --- index and checkpoint ----------------------------------------------------------------------------------


def test_a_checkpoint_ahead_of_the_index_names_what_nothing_accounts_for(log):
    log.commit(abcd=14, other=3)
    assert [(fault.kind, fault.records) for fault in log.verify().faults] == [
        ("missing", abcd(11, 14)),
        ("missing", [Range("other", 1, 3)]),
    ]


def test_a_checkpoint_behind_the_index_is_noted(log):
    log.chunk(2, commit=False)
    result = log.verify()
    assert result.complete
    assert "older than the index, for 1 producer" in result.notes[0]


def test_an_index_without_a_checkpoint_proves_nothing(log):
    os.unlink(log.checkpoint.path)
    fault = log.fault()
    assert (fault.kind, log.checkpoint.path in fault.text) == ("unproven", True)


def test_a_checkpoint_without_an_index_proves_nothing(log):
    shutil.rmtree(folder(log.config.stream_dir, "app"))
    assert [fault.kind for fault in log.verify().faults] == ["unproven"]


def test_files_without_any_state_are_unproven(log):
    shutil.rmtree(log.config.stream_dir)
    assert [fault.kind for fault in log.verify().faults] == ["unproven"]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_lost_index_file_leaves_its_log_file_unproven(log, number):
    os.unlink(log.index_file(number))
    assert not log.verify().complete


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_torn_index_file_is_seen(log, number):
    path = log.index_file(number)
    os.truncate(path, os.path.getsize(path) - 3)
    assert any(fault.kind == "missing" for fault in log.verify().faults)


def test_an_index_file_of_nonsense_is_named(log):
    Path(log.index_file(1)).write_bytes(b"nonsense" * 10)
    assert any(fault.kind == "unproven" and "damaged" in fault.text for fault in log.verify().faults)
    Path(log.index_file(1)).write_bytes(b"")
    assert not log.verify().complete


def test_an_index_file_that_was_just_made_when_its_writer_was_killed_is_no_fault(log):
    folder_ = folder(log.config.stream_dir, "app")
    Path(folder_, "00000004.index").write_bytes(Path(log.index_file(0)).read_bytes()[:10])
    assert log.verify().complete


# --- choosing, telling -------------------------------------------------------------------------------------


def test_only_the_writers_of_the_given_files_are_verified(tmp_path):
    files = {name: {"type": "file", "path": str(tmp_path / name)} for name in ("app.log", "app.log.errors")}
    config = configuration.load(
        {
            "state_dir": str(tmp_path / "state"),
            "writers": {"a": files["app.log"], "b": files["app.log.errors"]},
        }
    )
    assert [
        result.writer for result in verify(config, [str(tmp_path / "app.log.1"), str(tmp_path / "app.log")])
    ] == ["a"]
    assert [result.writer for result in verify(config, [str(tmp_path / "app.log.errors")])] == ["b"]
    assert [result.writer for result in verify(config)] == ["a", "b"]


def test_a_file_that_is_no_writers_is_refused(log, tmp_path):
    with pytest.raises(ConfigError, match=r"other\.log is no file; files of its writers"):
        verify(log.config, [str(tmp_path / "other.log")])
    (tmp_path / "other.log").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"other\.log is no file of a writer of"):
        verify(log.config, [str(tmp_path / "other.log")])


def test_a_configuration_without_files_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="nothing to verify"):
        verify(configuration.load({"state_dir": str(tmp_path), "writers": {"tty": {"type": "tty"}}}))


def test_a_renamed_file_is_known_by_its_identity(log, tmp_path):
    log.backup(2).rename(tmp_path / "old.log")
    assert log.verify(tmp_path / "old.log").complete


def _run(log: Log, tmp_path: Path, *arguments: object) -> int:
    config = tmp_path / "log.toml"
    config.write_text(toml(log.tree), encoding="utf-8")
    return __main__.main(["verify", "--config", str(config), *map(str, arguments)])


def test_the_command_says_complete_and_ends_with_0(log, tmp_path, capsys):
    assert _run(log, tmp_path, log.path, log.backup(1)) == 0
    assert capsys.readouterr().out == f"app: complete, 10 records of 1 producer in 3 files of {log.path}\n"


def test_the_command_names_what_is_missing_and_ends_with_1(log, tmp_path, capsys):
    log.backup(1).unlink()
    assert _run(log, tmp_path) == 1
    out = capsys.readouterr().out
    assert out.startswith("app: NOT complete (1 missing), 6 records of 1 producer in 2 files")
    assert "missing" in out
    assert "producer abcd sequences 6 to 9" in out


def test_the_command_tells_the_same_to_a_program(log, tmp_path, capsys):
    log.backup(1).unlink()
    assert _run(log, tmp_path, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["complete"] is False
    assert found["writers"][0]["faults"][0]["records"] == [{"producer": "abcd", "first": 6, "last": 9}]


def test_the_configuration_may_stand_before_the_files(log, tmp_path, capsys, monkeypatch):
    _run(log, tmp_path)
    assert __main__.main(["verify", str(tmp_path / "log.toml"), str(log.path)]) == 0
    monkeypatch.chdir(tmp_path)
    assert __main__.main(["verify", "logs/app.log"]) == 0
    assert __main__.main(["verify"]) == 0


@pytest.mark.parametrize("arguments", [["--config", "none.toml"], ["other.log"]])
def test_wrong_usage_ends_with_2(log, tmp_path, arguments, capsys, monkeypatch):
    _run(log, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert __main__.main(["verify", *arguments]) == 2
    assert "there is no such file" in capsys.readouterr().err or arguments == ["other.log"]

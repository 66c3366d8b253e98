"""``verify``: what the index says against what stands in the files."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from redislogkit import config as configuration
from redislogkit import verify
from redislogkit.errors import ConfigError
from redislogkit.record import Facts, Loss, Record
from redislogkit.writers.checkpoint import Mark
from redislogkit.writers.index import Index, index_files, read

FACTS = Facts("abcd", "host", 1, "MainProcess", 0.0, 0)


def numbered(sequence: int):
    return Record(1.0, 20, "INFO", "a", f"line {sequence}", "", 1, "", None, None), FACTS, sequence


class Log:
    """A log file that is written chunk by chunk, with its index."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "app.log"
        self.config = configuration.load(
            {
                "state_dir": str(folder / "state"),
                "writers": {"app": {"type": "file", "path": str(self.path), "max_bytes": 100}},
            }
        )
        self.index = Index(verify.index_folder(self.config, "app"), pytest.fail)
        self.sequence = 0

    def begin(self) -> None:
        self.path.touch()
        self.index.begin(self._mark())

    def _mark(self) -> Mark:
        status = self.path.stat()
        return Mark(status.st_dev, status.st_ino, status.st_size)

    def chunk(self, lines: int) -> None:
        items = [numbered(self.sequence + n) for n in range(1, lines + 1)]
        data = "".join(f"{item.message}\n" for item, _, _ in items).encode()
        start = self.path.stat().st_size
        with self.path.open("ab") as file:
            file.write(data)
        self.index.add(start, data, items)
        self.sequence += lines

    def rotate(self) -> None:
        for number in (2, 1):
            if (older := Path(f"{self.path}.{number}")).exists():
                older.rename(f"{self.path}.{number + 1}")
        self.path.rename(f"{self.path}.1")
        self.begin()

    def verify(self) -> verify.Result:
        (result,) = verify.verify(self.config)
        return result


@pytest.fixture
def log(tmp_path: Path) -> Log:
    log = Log(tmp_path)
    log.begin()
    log.chunk(3)
    log.chunk(2)
    log.rotate()
    log.chunk(4)
    log.rotate()
    log.chunk(1)
    return log


def test_untouched_files_are_complete(log):
    result = log.verify()
    assert result.complete
    assert (result.files, result.lines, result.producers, result.foreign_bytes) == (3, 10, 1, 0)
    assert str(result).startswith("app: complete; files 3, lines 10, producers 1,")


def test_a_compressed_backup_is_recognised_by_its_content(log):
    backup = Path(f"{log.path}.2")
    Path(f"{backup}.gz").write_bytes(gzip.compress(backup.read_bytes()))
    backup.unlink()
    assert log.verify().complete


def test_a_changed_byte_is_named_with_its_records(log):
    backup = Path(f"{log.path}.2")
    backup.write_bytes(backup.read_bytes().replace(b"line 4", b"line X"))
    (finding,) = log.verify().findings
    assert finding.path == str(backup)
    assert "producer abcd sequences 4 to 5" in finding.text


def test_a_missing_end_is_named(log):
    os.truncate(f"{log.path}.1", 10)
    (finding,) = log.verify().findings
    assert "sequences 6 to 9" in finding.text


def test_a_damaged_archive_is_named(log):
    backup = Path(f"{log.path}.2")
    Path(f"{backup}.gz").write_bytes(gzip.compress(backup.read_bytes())[:-12])
    backup.unlink()
    assert not log.verify().complete


def test_a_missing_file_is_named(log):
    os.unlink(f"{log.path}.1")
    assert ["sequences 6 to 9" in finding.text for finding in log.verify().findings] == [True]


def test_the_oldest_file_may_have_expired(log):
    os.unlink(f"{log.path}.2")
    assert log.verify().complete


def test_bytes_of_others_are_counted(log):
    with log.path.open("ab") as file:
        file.write(b"not ours\n")
    result = log.verify()
    assert result.complete
    assert result.foreign_bytes == 9


def test_losses_that_the_file_has_a_line_for_are_counted(log):
    log.index.add(log.path.stat().st_size, b"", [(Loss(20, 29, "spool_full", 1.0), FACTS, 30)])
    assert log.verify().lost == {"spool_full": 10}


def test_a_file_that_is_no_writers_is_refused(log, tmp_path):
    with pytest.raises(ConfigError, match=r"other\.log is no file of a writer"):
        verify.verify(log.config, [str(tmp_path / "other.log")])


def test_taking_up_a_file_cuts_what_is_not_checkpointed(log):
    status = log.path.stat()
    log.chunk(5)
    log.index.take_up(Mark(status.st_dev, status.st_ino, status.st_size))
    (path,) = index_files(verify.index_folder(log.config, "app"))[-1:]
    assert [chunk.end for chunk in read(path).chunks] == [status.st_size]


def test_a_torn_end_of_an_index_is_passed_over(log):
    path = index_files(verify.index_folder(log.config, "app"))[0]
    os.truncate(path, os.path.getsize(path) - 3)
    assert [chunk.spans[0].last for chunk in read(path).chunks] == [3]


def test_only_the_newest_index_files_are_kept(log):
    log.index.keep(2)
    assert len(index_files(verify.index_folder(log.config, "app"))) == 2

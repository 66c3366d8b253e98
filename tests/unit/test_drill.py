"""``drill``: its plan, its victims, the files it follows, and the count."""

from __future__ import annotations

import gzip
import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redislogkit import __main__, identity, launch
from redislogkit import config as configuration
from redislogkit.config import Config
from redislogkit.drill import plan, victims
from redislogkit.drill.followed import Followed
from redislogkit.drill.plan import KILL, PRODUCER
from redislogkit.drill.records import Count, Report, message
from redislogkit.drill.victims import SERVER, SUPERVISOR, Victim
from tests.helpers.settings import toml


def load(folder: Path | str = "/nowhere", **sections: Any) -> Config:
    writers = {"app": {"type": "file", "path": f"{folder}/app.log"}}
    return configuration.load({"state_dir": f"{folder}/state", "writers": writers, **sections})


# --- counting ----------------------------------------------------------------------------------------------


def counted(*lines: str, in_line: int = 1, **logged: int) -> Report:
    count = Count("a1", in_line)
    for number, line in enumerate(lines):
        count.line(line.encode(), f"line {number}")
    return count.report({int(name[1:]): number for name, number in logged.items()} or {0: 3})


def line(n: int, producer: int = 0, run: str = "a1") -> str:
    return f"INFO {message(run, producer, n)}\n"


def test_records_that_are_all_there_once_and_in_order_are_fine():
    report = counted(line(0), "somebody else's\n", line(0, 1), line(1), line(2), line(1, 1), p0=3, p1=2)
    assert report.ok
    assert report.records == 5


def test_the_record_in_which_a_producer_was_killed_may_be_there():
    assert counted(line(0), line(1), p0=1).ok
    assert counted(line(0), line(1), line(2), p0=1).unexpected == 1


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ([line(0), line(2)], "lost"),
        ([line(0), line(1)], "lost"),
        ([line(0), line(1), line(1), line(2)], "doubled"),
        ([line(0), line(2), line(1)], "disordered"),
        ([line(0), line(1), line(2), line(3, 5)], "unexpected"),
        ([line(0), line(1), line(2), line(1)[:20] + "\n"], "torn"),
        ([line(0), line(1), line(2)[:-1]], "torn"),
        ([line(0), line(1)[:-1] + line(2)], "torn"),
    ],
)
def test_each_kind_of_finding_is_counted_and_nothing_else(lines, kind):
    report = counted(*lines)
    found = {
        name for name in ("lost", "doubled", "torn", "disordered", "unexpected") if getattr(report, name)
    }
    assert (found, getattr(report, kind), len(report.examples)) == ({kind}, 1, 1)


def test_a_changed_number_does_not_pass_for_another_record():
    report = counted(line(0), line(1).replace(" 1 ", " 2 "), p0=3)
    assert (report.torn, report.lost) == (1, 2)


def test_a_format_may_have_the_message_twice():
    twice = [f"{message('a1', 0, n)} | {message('a1', 0, n)}\n" for n in range(3)]
    assert counted(*twice, in_line=2).ok
    assert counted(*twice[:2], line(2), in_line=2).torn == 1


def test_records_of_another_drill_are_not_ours():
    assert counted(line(0), line(0, run="b2"), line(1), line(2)).ok


# --- the plan ----------------------------------------------------------------------------------------------


def only_target(formatter: dict[str, Any] | None = None, **writer: Any) -> plan.Target:
    sections: dict[str, Any] = {"formatters": {"own": formatter}} if formatter else {}
    named = {"formatter": "own"} if formatter else {}
    app = {"type": "file", "path": "/nowhere/app.log", **named, **writer}
    (target,) = plan.targets(load(writers={"app": app}, **sections), logging.INFO)
    return target


@pytest.mark.parametrize(
    "formatter",
    [
        None,
        {"type": "json"},
        {"format": "{message} {host}", "style": "{"},
        {"format": "%(levelname)s\n%(message)s"},
    ],
)
@pytest.mark.parametrize("multiline", ["keep", "escape", "indent"])
def test_a_format_with_the_message_can_be_counted(formatter, multiline):
    target = only_target(formatter=formatter, multiline=multiline)
    if formatter and "\n" in formatter.get("format", "") and multiline != "escape":
        assert "message" in target.why_not
    else:
        assert (target.why_not, target.in_line) == ("", 1)


@pytest.mark.parametrize("text", ["%(levelname)s", "%(message).10s", "%(asctime)s %(name)s"])
def test_a_format_without_the_whole_message_can_not_be_counted(text):
    assert "does not have the whole message" in only_target(formatter={"format": text}).why_not


@pytest.mark.parametrize(
    ("writer", "why_not"),
    [
        ({"level": "ERROR"}, "takes no INFO"),
        ({"loggers": ["shop"]}, "does not take the logger redislogkit.drill"),
        ({"loggers": ["!redislogkit"]}, "does not take the logger redislogkit.drill"),
        ({"loggers": ["redislogkit.drill"]}, ""),
    ],
)
def test_a_writer_that_leaves_the_records_out_can_not_be_counted(writer, why_not):
    found = only_target(**writer).why_not
    assert why_not in found
    assert bool(found) == bool(why_not)


def test_the_level_is_one_that_producers_take():
    assert plan.usual_level(load(producer={"level": "DEBUG"})) == logging.INFO
    assert plan.usual_level(load(producer={"level": "ERROR"})) == logging.ERROR


def test_the_rate_leaves_most_of_the_backups_alone():
    target = only_target(max_bytes=10_000, backup_count=4)
    rate = plan.usual_rate([target], producers=3, seconds=10)
    assert rate * 3 * 10 * target.size <= 40_000 / 8
    assert plan.usual_rate([only_target()], producers=3, seconds=10) == 50


def faults(
    seed: int = 1, number: int = 60, embedded: bool = True, supervisor: bool = True, **of: Any
) -> list[plan.Fault]:
    return plan.faults(load(supervisor=of), seed, 30.0, number, embedded=embedded, supervisor=supervisor)


def test_the_same_seed_makes_the_same_plan():
    assert faults(7) == faults(7) != faults(8)


def test_faults_come_in_time_and_in_order():
    times = [fault.at for fault in faults()]
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < 30
    assert len(times) == 60


def test_who_is_not_ours_is_not_hit():
    assert {fault.whom for fault in faults(embedded=False, supervisor=False)}.isdisjoint({SERVER, SUPERVISOR})
    assert {SERVER, SUPERVISOR} <= {fault.whom for fault in faults()}


@pytest.mark.parametrize("most", [0, 1, 4])
def test_no_child_is_killed_so_often_that_it_is_given_up(most):
    kills = [fault.whom for fault in faults(max_restarts=most) if fault.what == KILL]
    for whom in set(kills) - {PRODUCER, SUPERVISOR}:
        assert kills.count(whom) <= most


def test_nobody_is_stopped_for_so_long_that_he_is_killed():
    assert all(fault.seconds < 2 for fault in faults(heartbeat_timeout=2))


# --- victims -----------------------------------------------------------------------------------------------


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def own_lock(config: Config, pid: int, changed: dict[str, object] | None = None) -> None:
    owner = {**identity.owner(), "pid": pid, "start": identity.process_start(pid), **(changed or {})}
    path = Path(launch.lock_path(config))
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(owner), encoding="utf-8")


def test_the_supervisor_is_the_one_that_its_lock_names(tmp_path, sleeper):
    config = load(tmp_path)
    assert victims.find_supervisor(config) is None
    own_lock(config, sleeper.pid)
    found = victims.find_supervisor(config)
    assert found is not None
    assert (found.victim.pid, found.launched) == (sleeper.pid, False)


@pytest.mark.parametrize(
    "changed", [{"start": "1"}, {"boot_id": "other"}, {"host": "other"}, {"pid": 1}, {"pid": "x"}]
)
def test_somebody_else_with_that_number_is_nobody(tmp_path, sleeper, changed):
    config = load(tmp_path)
    own_lock(config, sleeper.pid, changed)
    assert victims.find_supervisor(config) is None
    assert victims.find(config) == []


def test_a_supervisor_that_nobody_has_launched_is_no_victim(tmp_path, sleeper):
    config = load(tmp_path)
    own_lock(config, sleeper.pid)
    assert victims.find(config) == []


def test_a_process_that_took_over_the_number_gets_no_signal(sleeper):
    assert not victims.send(Victim("writer", sleeper.pid, "1", "w"), signal.SIGKILL)
    assert sleeper.poll() is None
    start = identity.process_start(sleeper.pid)
    assert start is not None
    assert victims.send(Victim("writer", sleeper.pid, start, "w"), signal.SIGKILL)
    assert sleeper.wait(5) == -signal.SIGKILL
    assert not victims.send(Victim("writer", sleeper.pid, start, "w"), signal.SIGKILL)


# --- the files ---------------------------------------------------------------------------------------------


class Rotated:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "app.log"
        writer = load(folder).writers["app"]
        assert isinstance(writer, configuration.FileWriterConfig)
        self.config = writer

    def write(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)

    def rotate(self) -> None:
        if (first := Path(f"{self.path}.1")).exists():
            first.rename(f"{self.path}.2")
        self.path.rename(first)


def texts(followed: Followed) -> list[bytes]:
    return [line for line, _ in followed.lines()]


def test_only_what_comes_after_the_beginning_is_followed_in_order(tmp_path):
    log = Rotated(tmp_path)
    log.write("very old\n")
    log.rotate()
    log.write("old\n")
    followed = Followed(log.config)
    log.write("1\n")
    log.rotate()
    log.write("2\n")
    followed.look()
    log.write("3\n")
    assert texts(followed) == [b"1\n", b"2\n", b"3\n"]
    followed.close()


def test_a_file_that_appears_later_is_followed_from_its_beginning(tmp_path):
    log = Rotated(tmp_path)
    followed = Followed(log.config)
    log.write("1\n")
    followed.look()
    assert texts(followed) == [b"1\n"]
    followed.close()


def test_a_file_that_is_compressed_is_counted_once(tmp_path):
    log = Rotated(tmp_path)
    log.write("1\n")
    followed = Followed(log.config)
    log.write("2\n")
    log.rotate()
    packed(Path(f"{log.path}.1"))
    log.write("3\n")
    assert texts(followed) == [b"2\n", b"3\n"]
    followed.close()


def packed(path: Path) -> Path:
    """What the archivist makes of a backup."""
    status = path.stat()
    target = Path(f"{path}.gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    path.unlink()
    return target


def test_files_that_came_and_went_between_two_looks_are_in_their_place(tmp_path):
    log = Rotated(tmp_path)
    followed = Followed(log.config)
    for text in ("1\n", "2\n"):
        log.write(text)
        followed.look()
        log.rotate()
    packed(Path(f"{log.path}.2")).rename(f"{log.path}.3.gz")
    log.write("3\n")
    log.rotate()
    packed(Path(f"{log.path}.1"))
    log.write("4\n")
    assert texts(followed) == [b"1\n", b"2\n", b"3\n", b"4\n"]
    followed.close()


def test_a_backup_and_its_compressed_twin_are_counted_once(tmp_path):
    log = Rotated(tmp_path)
    log.write("1\n")
    followed = Followed(log.config)
    log.write("2\n")
    log.rotate()
    Path(f"{log.path}.1.gz").write_bytes(gzip.compress(Path(f"{log.path}.1").read_bytes()))
    assert texts(followed) == [b"2\n"]
    followed.close()


def test_what_retention_has_deleted_stays_readable(tmp_path):
    log = Rotated(tmp_path)
    followed = Followed(log.config)
    for number in range(4):
        log.write(f"{number}\n")
        followed.look()
        log.rotate()
        os.utime(f"{log.path}.1", ns=(0, time.time_ns() + number))
        Path(f"{log.path}.2").unlink(missing_ok=True)
    assert texts(followed) == [b"0\n", b"1\n", b"2\n", b"3\n"]
    followed.close()


# --- the command -------------------------------------------------------------------------------------------


def run(tmp_path: Path, tree: dict[str, Any], *arguments: str) -> int:
    path = tmp_path / "log.toml"
    path.write_text(toml({"state_dir": str(tmp_path / "state"), **tree}), encoding="utf-8")
    return __main__.main(["drill", str(path), *arguments])


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        ({"writers": {"tty": {"type": "tty"}}}, "there is no file writer"),
        (
            {"writers": {"app": {"type": "file", "path": "/nowhere/a", "level": "ERROR"}}},
            "app: it takes no INFO",
        ),
        (
            {"writers": {"app": {"type": "file", "path": "/nowhere/a"}}, "supervisor": {"autostart": False}},
            "start it before",
        ),
    ],
)
def test_a_drill_that_could_show_nothing_is_refused(tmp_path, capsys, tree, text):
    assert run(tmp_path, tree) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


def test_a_dry_run_says_what_would_be_done_and_does_nothing(tmp_path, capsys):
    files = {"app": "app.log", "errors": "errors.log"}
    writers = {name: {"type": "file", "path": str(tmp_path / path)} for name, path in files.items()}
    writers["errors"]["level"] = "ERROR"
    tree = {"writers": writers, "redis": {"url": "redis://u:secret@localhost"}}
    assert run(tmp_path, tree, "--dry-run", "--seed", "1") == 0
    out = capsys.readouterr().out
    assert "3 processes log about 50 records a second each for 15 s" in out
    assert f"into {tmp_path}/app.log, about" in out
    assert "not counted: writer errors, for it takes no INFO" in out
    assert "faults: 8 (" in out
    assert "the server redis://***@localhost is left in peace" in out
    assert "kill.server" not in out
    assert os.listdir(tmp_path) == ["log.toml"]


def test_a_drill_that_would_push_others_out_of_the_backups_is_refused(tmp_path, capsys):
    tree = {"writers": {"app": {"type": "file", "path": str(tmp_path / "app.log"), "max_bytes": 10_000}}}
    assert run(tmp_path, tree, "--dry-run") == 0
    assert run(tmp_path, tree, "--dry-run", "--rate", "100") == 2
    assert "choose a lower --rate" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--seconds", "0"], ["--rate", "-1"], ["--faults", "-1"], ["--processes", "0"]]
)
def test_wrong_numbers_are_refused(tmp_path, arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, {}, *arguments)
    assert ended.value.code == 2

"""``redislogkit spool``: spools are listed, shown without being touched, and drained exactly once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redislogkit import __main__, launch
from redislogkit.config import FormatterConfig
from redislogkit.draining import Drain
from redislogkit.errors import LockHeldError, RedislogkitError
from redislogkit.locking import OwnedLock
from redislogkit.record import Facts, encode
from redislogkit.ship.spools import SpoolSet
from redislogkit.spool.producer_end import ProducerEnd, SpoolSettings
from redislogkit.spool.shipper_end import ShipperEnd
from redislogkit.writers.checkpoint import Checkpoint
from redislogkit.writers.file import FileDestination
from tests.helpers.desk import START, Desk
from tests.helpers.filewriter import memory_folder
from tests.helpers.looking import record
from tests.helpers.settings import toml

MESSAGES = FormatterConfig(format="%(message)s")


class Host:
    """Programs that log on one host, and a writer of a file."""

    def __init__(self, folder: Path) -> None:
        self.desk = Desk(folder)
        self.root = os.path.join(self.desk.config.stream_dir, "spool")
        os.mkdir(self.root)
        self.settings = SpoolSettings(
            self.root, os.path.join(folder, "nobody"), 1024 * 1024, "drop_new", 0.0, 10
        )
        self.ends: list[ProducerEnd] = []
        self.config = folder / "log.toml"
        self.config.write_text(toml(self.desk.tree))
        self.target = folder / "rescued.log"
        self.moment = START
        self.said: list[str] = []

    def program(self) -> ProducerEnd:
        self.ends.append(
            ProducerEnd(
                self.settings, lambda producer: Facts(producer, "web1", os.getpid(), "MainProcess", 0.0, 0)
            )
        )
        return self.ends[-1]

    def log(self, end: ProducerEnd, *messages: str, levelno: int = 20) -> None:
        for message in messages:
            self.moment += 1
            level = {"levelno": levelno, "levelname": "ERROR" if levelno == 40 else "INFO"}
            end.append(encode(record(message, self.moment, **level)), levelno)

    def die(self, end: ProducerEnd) -> None:
        """What ``kill -9`` leaves."""
        page, mapped = end._header, end._map
        end._header = end._map = None
        if page is not None:
            page.close()
        if mapped is not None:
            mapped.close()
        self.ends.remove(end)

    def dead(self, *messages: str) -> ProducerEnd:
        end = self.program()
        self.log(end, *messages)
        self.die(end)
        return end

    def run(self, *arguments: object) -> int:
        action, *rest = map(str, arguments)
        config = ["-c", str(self.config)] if action == "show" else [str(self.config)]
        return __main__.main(["spool", action, *config, *rest])

    def drain(self, **options: bool) -> None:
        Drain(self.desk.config, str(self.target), MESSAGES, self.said.append, **options).run()

    def drained(self) -> list[str]:
        return self.target.read_text().splitlines()

    def content(self) -> dict[str, tuple[int, str]]:
        """Everything in the spools, with the times of its last change."""
        found = {}
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = os.path.join(folder, name)
                found[path] = (os.stat(path).st_mtime_ns, hashlib.sha1(Path(path).read_bytes()).hexdigest())
        return found

    def segments(self) -> list[Path]:
        return sorted(Path(self.root).glob("*/*.seg"))


@pytest.fixture
def host() -> Iterator[Host]:
    with memory_folder() as folder:
        made = Host(folder)
        yield made
        for end in list(made.ends):
            made.die(end)
        made.desk.close()


# --- ls ----------------------------------------------------------------------------------------------------


def test_spools_are_listed_with_what_waits_in_them(host, capsys):
    host.dead("m1", "m2")
    living = host.program()
    host.log(living, "m3")
    assert host.run("ls", "--json") == 0
    dead, alive = sorted(json.loads(capsys.readouterr().out), key=lambda one: one["alive"])
    assert (dead["alive"], dead["waiting"], dead["oldest"], dead["lost"]) == (False, 2, START + 1, {})
    assert (alive["alive"], alive["waiting"], alive["oldest"]) == (True, 1, START + 3)
    assert alive["pid"] == os.getpid()
    assert alive["program"]  # whatever the test runner calls itself
    assert dead["program"] == ""
    assert dead["bytes"] > 4096
    assert host.run("ls") == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["SPOOL", "HOST", "PID", "PROGRAM", "STATE", "BYTES", "WAITING", "OLDEST", "LOST"]
    assert sorted("dead" in row for row in rows) == [False, True]


def test_losses_are_listed_by_cause(host, capsys):
    end = host.program()
    host.log(end, *["x" * 60_000] * 30)
    host.die(end)
    host.run("ls", "--json")
    (one,) = json.loads(capsys.readouterr().out)
    assert one["waiting"] + one["lost"]["spool_full"] == 30
    host.run("ls")
    assert f"{one['lost']['spool_full']} spool_full" in capsys.readouterr().out


def test_where_there_is_nothing_that_is_said(host, capsys):
    assert host.run("ls") == 0
    assert "nothing waits on this host" in capsys.readouterr().out
    assert host.run("drain", "--to", host.target) == 0
    assert "nothing to drain" in capsys.readouterr().out
    assert not host.target.exists()


def test_a_spool_that_can_not_be_read_is_named_and_the_others_are_listed(host, capsys):
    host.dead("m1")
    host.dead("m2")
    broken = Path(host.segments()[0].parent, "header")
    broken.write_bytes(b"x")
    assert host.run("ls", "--json") == 1
    told = capsys.readouterr()
    assert len(json.loads(told.out)) == 1
    assert str(broken.parent) in told.err


# --- show --------------------------------------------------------------------------------------------------


def test_what_waits_is_shown_in_time_order_and_nothing_is_touched(host, capsys):
    first, second = host.program(), host.program()
    host.log(first, "m1")
    host.log(second, "m2", levelno=40)
    host.log(first, "m3")
    host.die(second)
    before = host.content()
    assert host.run("show") == 0
    assert [line.split("app: ")[1] for line in capsys.readouterr().out.splitlines()] == ["m1", "m2", "m3"]
    assert host.run("show", "--level", "ERROR", "--output", "json") == 0
    assert json.loads(capsys.readouterr().out)["message"] == "m2"
    assert host.run("show", "-n", "1") == 0
    assert capsys.readouterr().out.endswith("app: m3\n")
    assert host.content() == before
    host.log(first, "m4")
    assert host.run("show", first.producer, "--grep", "4") == 0
    assert "m4" in capsys.readouterr().out


def test_what_is_written_is_shown_only_when_all_is_asked_for(host, capsys):
    end = host.program()
    host.log(end, "m1", "m2")
    (spool,) = os.listdir(host.root)
    reader = ShipperEnd(os.path.join(host.root, spool), print)
    reader.set_written(1)
    reader.close()
    assert host.run("show") == 0
    assert "m1" not in capsys.readouterr().out
    assert host.run("show", spool, "--all") == 0
    assert "m1" in capsys.readouterr().out


def test_damaged_frames_are_named_and_the_rest_is_shown(host, capsys):
    host.dead("m1", "m2", "m3")
    (segment,) = host.segments()
    data = bytearray(segment.read_bytes())
    data[data.index(b"m2")] ^= 255
    segment.write_bytes(data)
    assert host.run("show") == 1
    told = capsys.readouterr()
    assert [line[-2:] for line in told.out.splitlines()] == ["m1", "m3"]
    assert f"{segment} is damaged at byte" in told.err


def test_a_spool_that_is_not_there_is_an_error_that_names_those_that_are(host, capsys):
    host.dead("m1")
    assert host.run("show", "nobody") == 2
    told = capsys.readouterr().err
    assert "got 'nobody'" in told
    assert os.listdir(host.root)[0] in told


# --- drain -------------------------------------------------------------------------------------------------


def test_what_dead_programs_have_left_gets_into_the_file_and_their_spools_go(host, capsys):
    host.target.write_text("was there\n")
    host.dead("m1", "m2")
    host.dead("m3")
    living = host.program()
    host.log(living, "m4")
    assert host.run("drain", "--to", host.target) == 0
    told = capsys.readouterr()
    assert "3 records written" in told.out
    assert "2 spools drained and removed" in told.out
    assert "1 spool left alone, as the programs still run" in told.err
    was_there, *drained = [line[-2:] for line in host.drained()]
    assert was_there == "re"
    assert sorted(drained) == ["m1", "m2", "m3"]
    assert drained.index("m1") < drained.index("m2")
    assert len(os.listdir(host.root)) == 1
    assert host.run("drain", "--to", host.target) == 0
    assert len(host.drained()) == 4
    assert not os.path.exists(os.path.join(host.desk.config.stream_dir, "drain"))


def test_with_all_living_programs_are_drained_and_log_on(host, capsys):
    living = host.program()
    host.log(living, "m1", "m2")
    host.drain(all_spools=True)
    host.log(living, "m3")
    assert host.drained() == ["m1", "m2"]
    host.drain(all_spools=True)
    assert host.drained() == ["m1", "m2", "m3"]
    host.run("ls", "--json")
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["alive"], one["waiting"]) == (True, 0)


def test_drained_as_json(host):
    host.dead("m1")
    assert host.run("drain", "--to", host.target, "--output", "json") == 0
    assert json.loads(host.target.read_text())["message"] == "m1"


def test_what_the_log_files_have_is_not_written_again(host):
    end = host.program()
    host.log(end, "m1", "m2", "m3")
    producer = end.producer
    host.die(end)
    host.desk.ship("m1", "m2", facts=Facts(producer, "web1", 1, "MainProcess", 0.0, 0))
    host.desk.write()
    host.drain()
    assert host.drained() == ["m3"]


def test_losses_get_into_the_file_as_they_would_have_into_a_log_file(host):
    end = host.program()
    host.log(end, *["x" * 60_000] * 30)
    host.die(end)
    host.drain()
    *records, notice = host.drained()
    assert f"{30 - len(records)} records dropped" in notice


def test_records_that_the_stream_had_are_counted_as_unsure(host, capsys):
    end = host.program()
    host.log(end, "m1", "m2", "m3")
    reader = ShipperEnd(os.path.join(host.root, os.listdir(host.root)[0]), print)
    reader.set_shipped(2)
    reader.close()
    host.die(end)
    assert host.run("drain", "--to", host.target) == 0
    assert "2 records of these had been in the stream" in capsys.readouterr().err


def test_it_is_refused_while_a_supervisor_runs(host, capsys):
    host.dead("m1")
    before = host.content()
    with OwnedLock(launch.lock_path(host.desk.config), "x"):
        assert host.run("drain", "--to", host.target) == 2
    told = capsys.readouterr().err
    assert "a supervisor is at work on these spools" in told
    assert str(os.getpid()) in told
    assert host.content() == before
    with OwnedLock(launch.lock_path(host.desk.config), "x"), pytest.raises(LockHeldError):
        host.drain()


class Killed(BaseException):
    """What the test throws into a drain."""


def _kill_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], bool]:
    """A drain is killed at its ``step``-th point, before or after what is done there; says whether it was."""
    count = 0

    def at(real: Callable[..., object]) -> Callable[..., object]:
        def run(*given: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count == step:
                raise Killed
            result = real(*given, **options)
            count += 1
            if count == step:
                raise Killed
            return result

        return run

    for owner, name in (
        (FileDestination, "_append"),
        (Checkpoint, "commit"),
        (Checkpoint, "intend"),
        (ShipperEnd, "set_written"),
        (ShipperEnd, "release"),
        (SpoolSet, "remove"),
        (Drain, "_begin"),
        (Drain, "_end"),
    ):
        monkeypatch.setattr(owner, name, at(getattr(owner, name)))
    return lambda: count >= step


@pytest.mark.parametrize("step", range(1, 60, 4))
def test_killed_anywhere_and_run_again_it_writes_each_record_once(host, step, monkeypatch):
    host.dead(*(f"a{n}" for n in range(3)))
    host.dead(*(f"b{n}" for n in range(3)))
    for at in (step, step + 2):
        with monkeypatch.context() as patched:
            killed = _kill_at(patched, at)
            try:
                host.drain()
            except Killed:
                pass
            else:
                assert not killed()
    if step == 1:
        assert os.listdir(host.root), "nothing was done yet"
    host.drain()
    assert sorted(host.drained()) == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert os.listdir(host.root) == []
    assert host.said == []


def test_a_drain_that_was_killed_is_finished_in_the_same_file(host, monkeypatch):
    host.dead("m1")
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "commit", lambda *given: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            host.drain()
    first, host.target = host.target, host.target.with_name("other.log")
    with pytest.raises(RedislogkitError, match=f"--to must be {first}"):
        host.drain()
    host.target = first
    host.drain()
    assert host.drained() == ["m1"]

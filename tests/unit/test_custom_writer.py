"""Code of the user's gets every record, whatever it raises; what it rejects is in the dead-letter file."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from redislogkit import LoggedRecord, Reject, config, record
from redislogkit.config import CustomWriterConfig, FormatterConfig
from redislogkit.errors import ConfigError
from redislogkit.record import Facts, Loss
from redislogkit.writers import custom
from redislogkit.writers.base import Writer
from redislogkit.writers.checkpoint import Checkpoint
from redislogkit.writers.custom import CustomDestination
from redislogkit.writers.dead_letters import BACKUPS, DeadLetters
from tests.unit.test_writer_loop import A, B, Stream, logged


class Target:
    """Takes records; fails as it is told to."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.calls: list[list[str]] = []
        self.bad: dict[str, BaseException] = {}
        self.away = 0
        self.closed = 0

    def __call__(self, records: list[LoggedRecord]) -> None:
        messages = [each.message for each in records]
        self.calls.append(messages)
        if self.away:
            self.away -= 1
            raise ConnectionError("refused")
        for message in messages:
            if message in self.bad:
                raise self.bad[message]
        self.taken += messages

    def close(self) -> None:
        self.closed += 1


class Run:
    """A writer on a stream in memory with a target, run until it has read the stream to its end."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(custom, "_FIRST_PAUSE", 0.0)
        self.stream, self.target = Stream(), Target()
        self.reports: list[str] = []
        self.path = folder / "rejected" / "w.jsonl"
        self.settings: dict[str, Any] = {"max_attempts": 3}
        self.filter: Any = None
        (folder / "checkpoints").mkdir()
        self._checkpoint = str(folder / "checkpoints" / "w")

    def go(self, drain_timeout: float = 5.0) -> None:
        section = CustomWriterConfig(target="a:b", **self.settings)
        self.checkpoint = Checkpoint(self._checkpoint)
        self.destination = CustomDestination(
            section,
            lambda: custom.make(self.target, {}),
            DeadLetters(str(self.path), section.dead_letter_max_bytes, "w", self.reports.append),
            lambda *done: self.writer.settle(*done),
            lambda: self.writer.stay_alive(),
            self.reports.append,
        )
        self.writer = Writer(
            "w",
            self.stream.client,  # type: ignore[arg-type]
            self.destination,
            self.checkpoint,
            None,
            self.reports.append,
            block=0.0,
            owner="here",
            filter=self.filter,
        )
        self.writer.run(lambda: True, drain_timeout=drain_timeout)

    def dead(self) -> list[tuple[str, str]]:
        """Message and reason of the records in the dead-letter file."""
        lines = (
            [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []
        )
        return [(line["record"]["message"], line["reason"]) for line in lines]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path, monkeypatch)


def items(*names: str) -> list[object]:
    return [logged(name) for name in names]


NAMES = [f"m{number}" for number in range(20)]


def test_records_come_in_batches_and_are_counted_and_confirmed(run):
    run.settings["batch_size"] = 8
    run.stream.add((A, 1, items(*NAMES)), (B, 1, items("b")))
    run.go()
    assert run.target.taken == [*NAMES, "b"]
    assert list(map(len, run.target.calls)) == [8, 8, 5]
    status = run.writer.status()
    assert (status.written, status.position, status.error, status.rejected) == (21, "1-0", "", 0)
    assert run.stream.pending == []
    assert run.target.closed == 1


def test_while_it_raises_the_same_records_are_tried_again_and_nothing_is_rejected(run):
    run.target.away = 2
    run.stream.add((A, 1, items("a", "b")))
    run.go()
    assert run.target.calls == [["a", "b"]] * 3
    assert run.dead() == []


@pytest.mark.parametrize("failures", range(3, 40))
def test_a_target_that_comes_back_at_any_moment_gets_all_once(run, failures):
    run.target.away = failures
    run.stream.add((A, 1, items(*NAMES)))
    run.go()
    assert sorted(run.target.taken) == sorted(NAMES)
    assert run.dead() == []


def test_the_pauses_grow_up_to_a_bound(run, monkeypatch):
    monkeypatch.setattr(custom, "_FIRST_PAUSE", 0.1)
    run.go()
    pauses = []
    for failed in range(1, 40):
        run.destination._failed = failed
        pauses.append(run.destination._away("x").pause)
    assert pauses[0] <= 0.1
    assert all(15 <= pause <= 30 for pause in pauses[9:])


def test_what_a_batch_has_taken_is_not_given_again_when_the_next_one_fails(run):
    run.settings["batch_size"] = 2
    run.target.bad = {"m3": ConnectionError("away")}
    run.stream.add((A, 1, items("m0", "m1", "m2", "m3")))
    run.settings["max_attempts"] = 10_000
    run.go(drain_timeout=0.1)
    assert run.checkpoint.seen("aaaa") == 2
    assert run.stream.pending == [b"1-0"]
    run.target.bad.clear()
    run.go()
    assert run.target.taken == ["m0", "m1", "m2", "m3"]
    assert run.writer.status().written == 2


def test_a_record_at_fault_does_not_hold_back_the_others(run):
    run.target.bad = {"m7": ValueError("no such field"), "m8": KeyError("x"), "m19": ValueError("no")}
    run.stream.add((A, 1, items(*NAMES)))
    run.stream.add((B, 1, items("later")))
    run.go()
    assert sorted(run.target.taken) == sorted(({*NAMES} | {"later"}) - run.target.bad.keys())
    dead = dict(run.dead())
    assert dead.keys() == run.target.bad.keys()
    assert dead["m7"].startswith("ValueError: no such field, ")
    assert "(others go through)" in dead["m7"]
    assert run.writer.status().rejected == 3
    assert run.checkpoint.seen("aaaa") == 20


def test_a_record_at_fault_that_is_alone_waits_for_company(run):
    run.target.bad = {"m0": ValueError("bad")}
    run.stream.add((A, 1, items("m0")))
    run.go(drain_timeout=0.1)
    assert run.dead() == []
    assert run.checkpoint.seen("aaaa") == 0
    run.stream.add((A, 2, items("m1")))
    run.go()
    assert run.target.taken == ["m1"]
    assert [message for message, _ in run.dead()] == ["m0"]


def test_any_number_of_records_at_fault_in_a_row_is_passed(run):
    run.target.bad = {name: ValueError("bad") for name in NAMES[:15]}
    run.stream.add((A, 1, items(*NAMES)))
    run.go()
    assert run.target.taken == NAMES[15:]
    assert [message for message, _ in run.dead()] == NAMES[:15]


def test_what_is_rejected_by_name_is_set_aside_and_the_rest_tried_again(run):
    seen = []

    def target(records: list[LoggedRecord]) -> None:
        seen.append([each.message for each in records])
        refused = [each for each in records if each.message in ("m1", "m4")]
        if refused:
            raise Reject("HTTP 400", refused)

    run.target = target
    run.stream.add((A, 1, items(*NAMES[:5])))
    run.go()
    assert seen == [NAMES[:5], ["m0", "m2", "m3"]]
    assert run.dead() == [("m1", "HTTP 400"), ("m4", "HTTP 400")]


def test_the_rest_of_what_was_rejected_may_be_written_already(run):
    calls = []

    def target(records: list[LoggedRecord]) -> None:
        calls.append(len(records))
        raise Reject("two are bad", records[:2], rest_written=True)

    run.target = target
    run.stream.add((A, 1, items(*NAMES)))
    run.go()
    assert calls == [20]
    assert [message for message, _ in run.dead()] == ["m0", "m1"]
    assert run.checkpoint.seen("aaaa") == 20


def test_a_batch_that_is_refused_as_a_whole_is_divided_at_once(run):
    run.target.bad = {"m11": Reject("HTTP 400: m11")}
    run.settings["max_attempts"] = 1000
    run.stream.add((A, 1, items(*NAMES)))
    run.go()
    assert run.target.taken == [name for name in NAMES if name != "m11"]
    assert run.dead() == [("m11", "HTTP 400: m11")]


def test_a_call_that_does_not_return_is_interrupted(run):
    run.settings |= {"timeout": 0.05, "max_attempts": 1}
    slow = True

    def target(records: list[LoggedRecord]) -> None:
        nonlocal slow
        if slow:
            slow = False
            time.sleep(20)
        run.taken = [each.message for each in records]

    run.target = target
    run.stream.add((A, 1, items("a")))
    began = time.monotonic()
    run.go()
    assert run.taken == ["a"]
    assert time.monotonic() - began < 5


async def never_awaited(records):
    raise AssertionError(records)


def never_begun(records):
    yield records


@pytest.mark.parametrize("target", [never_awaited, never_begun])
def test_a_call_that_has_done_nothing_yet_has_taken_nothing(run, target):
    run.target = target
    run.settings["max_attempts"] = 1000
    run.stream.add((A, 1, items("a")))
    run.go(drain_timeout=0.05)
    assert run.checkpoint.seen("aaaa") == 0


def test_an_exit_is_a_failure_as_any_other(run):
    run.target.bad = {"m1": SystemExit(3)}
    run.stream.add((A, 1, items("m0", "m1", "m2")))
    run.go()
    assert run.target.taken == ["m0", "m2"]


def test_a_reason_can_neither_forge_a_line_nor_tell_a_secret(run):
    run.settings["formatter"] = FormatterConfig(redact=("password",))
    run.target.bad = {"m1": Reject("bad\n2026-11-22 forged \x1b[2J password=hunter2")}
    run.stream.add((A, 1, items("m0", "m1", "m2")))
    run.go()
    assert run.dead() == [("m1", "bad 2026-11-22 forged \\x1b[2J password=***")]
    assert all(line.isprintable() for line in run.reports)


def test_one_record_may_be_rejected_without_a_list(run):
    refused = []

    def target(records):
        if records[0].message == "m0":
            refused.append(records[0].message)
            raise Reject("no", records[0])

    run.target = target
    run.stream.add((A, 1, items("m0", "m1")))
    run.go()
    assert run.dead() == [("m0", "no")]
    assert refused == ["m0"]


def test_a_dead_letter_file_that_can_not_be_written_loses_nothing(run):
    run.path.parent.write_text("a file where the folder should be")
    run.target.bad = {"m1": Reject("bad")}
    run.stream.add((A, 1, items("m0", "m1", "m2")))
    run.go(drain_timeout=0.1)
    assert run.checkpoint.seen("aaaa") == 0
    run.path.parent.unlink()
    run.go()
    assert run.dead() == [("m1", "bad")]
    assert run.target.taken[-1] == "m2"


def test_what_a_full_disk_keeps_out_of_the_checkpoint_is_not_given_again(run, monkeypatch):
    real, failures = Checkpoint.commit, iter([OSError(28, "no space left")])

    def commit(self, *args):
        if self.seen("aaaa") == 0 and args[3] and (error := next(failures, None)):
            raise error
        real(self, *args)

    monkeypatch.setattr(Checkpoint, "commit", commit)
    run.stream.add((A, 1, items("a")))
    run.go()
    assert run.target.calls == [["a"]]
    assert run.checkpoint.seen("aaaa") == 1


def test_who_has_lost_the_lease_gives_no_more(run):
    def target(records: list[LoggedRecord]) -> None:
        run.target_calls = getattr(run, "target_calls", 0) + 1
        run.stream.holder = "elsewhere"
        run.writer._kept = -1e9

    run.target = target
    run.settings["batch_size"] = 1
    run.stream.add((A, 1, items("a", "b")))
    run.go(drain_timeout=0.1)
    assert run.target_calls == 1
    assert run.stream.pending == [b"1-0"]


def test_a_loss_is_told_in_its_place(run):
    got: list[LoggedRecord] = []
    run.target = got.extend
    run.stream.add((A, 1, [logged("a"), Loss(2, 4, "spool full", 2.0)]))
    run.go()
    assert [(each.message[:17], each.lost, each.logger) for each in got] == [
        ("a", 0, "a"),
        ("3 records dropped", 3, "redislogkit"),
    ]
    assert got[0].id != got[1].id


def test_a_filter_is_asked_for_each_record_and_positions_go_on(run):
    run.filter = lambda numbered: numbered[0].message != "b"
    run.stream.add((A, 1, items("a", "b", "c", "b")))
    run.go()
    assert run.target.taken == ["a", "c"]
    assert run.checkpoint.seen("aaaa") == 4


# -- what the code is called with -------------------------------------------------------------------


def view(item: record.Record, **formatter: Any) -> LoggedRecord:
    from redislogkit import logged as module

    facts = Facts("f00d", "web1", 4711, "MainProcess", 0.0, 0)
    return module.viewer(FormatterConfig(**formatter))((item, facts, 42))


FULL = record.build(
    1_795_370_400.5, 40, "ERROR", "shop.orders", "card 4111111111111111 refused", "/srv/orders.py", 7, "pay", 9, "T",
    task_name="task", exc_text="Traceback (most recent call last):\n  x\nshop.Refused: no",
    extra={"order": 4, "password": "x", "trace_id": "ab", "raw": b"\xff"},
)  # fmt: skip


def test_a_record_shows_all_that_is_known_of_it():
    assert view(FULL).as_dict() == {
        "id": "f00d:42",
        "timestamp": "2026-11-22T18:00:00.500000+00:00",
        "level": 40,
        "level_name": "ERROR",
        "logger": "shop.orders",
        "message": "card 4111111111111111 refused",
        "exception": FULL.exc_text,
        "exception_type": "shop.Refused",
        "exception_message": "no",
        "trace_id": "ab",
        "path": "/srv/orders.py",
        "line": 7,
        "function": "pay",
        "host": "web1",
        "pid": 4711,
        "process_name": "MainProcess",
        "thread": 9,
        "thread_name": "T",
        "task_name": "task",
        "producer": "f00d",
        "sequence": 42,
        "extra": {"order": 4, "password": "x", "trace_id": "ab", "raw": "\\xff"},
    }
    json.dumps(view(FULL).as_dict())


def test_a_record_can_not_be_changed():
    seen: Any = view(FULL)
    with pytest.raises(AttributeError):
        seen.message = "x"
    with pytest.raises(TypeError):
        seen.extra["order"] = 5


def test_the_rules_of_its_formatter_hold_for_all_of_a_record():
    seen = view(FULL, redact=("credit-card", "password"), format="%(levelname)s %(message)s")
    assert seen.message == "card *** refused"
    assert seen.text == f"ERROR card *** refused\n{FULL.exc_text}"
    assert seen.extra["password"] == "***"


# -- targets ----------------------------------------------------------------------------------------


class Kind:
    def __init__(self, url: str, retries: int = 1) -> None:
        self.url = url

    def __call__(self, records: list[str]) -> str:
        return f"{self.url} {records}"


def test_a_class_is_made_once_with_the_options_and_a_function_called_with_them():
    call, _ = custom.make(Kind, {"url": "u"})
    assert call(["a"]) == "u ['a']"  # type: ignore[list-item]
    call, _ = custom.make(lambda records, url: (records, url), {"url": "u"})
    assert call(["a"]) == (["a"], "u")  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("target", "options"), [(Kind, {}), (Kind, {"url": 1, "x": 2}), (lambda records: 1, {"a": 1})]
)
def test_options_that_the_target_does_not_take_are_refused(target, options):
    with pytest.raises(ConfigError, match=r"writers\.w\.target must take a list of records and the options"):
        custom.check_options(target, options, "writers.w.target")


def test_options_may_come_from_the_environment():
    section = {
        "type": "custom",
        "target": "a:b",
        "options": {"token": "${TOKEN}", "more": [{"x": "${TOKEN}"}]},
    }
    writer = config.load({"writers": {"w": section}}, environ={"TOKEN": "t"}).writers["w"]
    assert isinstance(writer, CustomWriterConfig)
    assert writer.options == {"token": "t", "more": [{"x": "t"}]}
    assert "'t'" not in repr(writer)


# -- the dead-letter file ---------------------------------------------------------------------------


def test_the_dead_letter_file_is_bounded(tmp_path, monkeypatch):
    reports: list[str] = []
    path = tmp_path / "rejected" / "w.jsonl"
    letters = DeadLetters(str(path), 4096, "w", reports.append)
    for number in range(100):
        letters.add([(view(FULL), f"reason {number}")])
    files = sorted(path.parent.iterdir())
    assert len(files) == 1 + BACKUPS
    assert all(file.stat().st_size <= 4096 for file in files)
    assert json.loads(path.read_text().splitlines()[-1])["reason"] == "reason 99"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "is deleted" in reports[0]


def test_a_dead_letter_that_does_not_fit_the_disk_leaves_no_part(tmp_path, monkeypatch):
    path = tmp_path / "w.jsonl"
    letters = DeadLetters(str(path), 4096, "w", print)
    letters.add([(view(FULL), "first")])
    before = path.read_bytes()
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:10]))
    with pytest.raises(OSError, match="space"):
        letters.add([(view(FULL), "second")])
    assert path.read_bytes() == before


def test_a_target_that_refuses_everything_does_not_fill_the_log_of_the_supervisor(run, monkeypatch):
    run.settings["batch_size"] = 2
    run.target.bad = {name: Reject("no") for name in NAMES}
    for number in range(0, 20, 2):
        run.stream.add((A, number + 1, items(*NAMES[number : number + 2])))
    run.go()
    told = [line for line in run.reports if "rejected: record" in line]
    assert len(run.dead()) == 20
    assert len(told) == 1
    run.destination._next_told = 0.0  # a while later
    run.destination._set_aside([(mock.Mock(id="later", message="x", as_dict=dict), "no")])
    assert "rejected: record later, and 19 more: no" in run.reports[-1]

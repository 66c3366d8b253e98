"""Levels of loggers that are others for a while: the file between shipper and producers, and both its ends."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time

import pytest

import redislogkit
from redislogkit import levels
from redislogkit.levels import Change, Found
from redislogkit.producer import levels as obeyed
from redislogkit.producer.fast import _FastLogger
from redislogkit.producer.handler import SpoolHandler
from redislogkit.ship.levels import LevelsFile

NAME = "test_levels.shop"


class Seeing(logging.Handler):
    """Keeps messages."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self._seen = seen

    def emit(self, record: logging.LogRecord) -> None:
        self._seen.append(record.getMessage())


LOCK = logging._lock  # type: ignore[attr-defined]


@pytest.fixture
def path(tmp_path):
    made = str(tmp_path / "levels")
    yield made
    obeyed.leave(made)
    logging.getLogger(NAME).setLevel(logging.NOTSET)


@pytest.fixture
def logger(path):
    logger = logging.getLogger(NAME)
    logger.setLevel(logging.WARNING)
    return logger


def change(level=logging.DEBUG, seconds=60.0):
    return {NAME: Change(level, time.time() + seconds, "me@here")}


def put(path, changes):
    levels.write(path, changes)
    obeyed.follow(path)
    obeyed.look()


# --- the file ----------------------------------------------------------------------------------------------


def test_what_is_written_is_read(path):
    levels.write(path, change())
    assert levels.read(path)[NAME].who == "me@here"
    assert os.stat(path).st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "[" * 100_000, '{"a": 1}', '{"a": [true, 1.5, "x"]}', '{"a": [10, 1, "x", 2]}']
)
def test_what_nobody_of_us_has_written_changes_nothing(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    assert levels.read(path) == {}


def test_without_a_change_there_is_no_file(path):
    levels.write(path, change())
    levels.write(path, {})
    levels.write(path, {})
    assert os.listdir(os.path.dirname(path)) == []


# --- the producer's end ------------------------------------------------------------------------------------


def test_a_level_is_set_and_put_back_when_the_file_is_gone(path, logger):
    put(path, change())
    assert logger.level == logging.DEBUG
    put(path, {})
    assert logger.level == logging.WARNING


def test_a_level_is_put_back_when_its_time_is_over(path, logger, monkeypatch):
    put(path, change(seconds=60))
    assert logger.level == logging.DEBUG
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    obeyed.look()
    assert logger.level == logging.WARNING


def test_a_time_that_is_over_when_it_is_read_changes_nothing(path, logger):
    put(path, change(seconds=-1))
    assert logger.level == logging.WARNING


def test_who_has_changed_the_level_meanwhile_keeps_his_own(path, logger):
    put(path, change())
    logger.setLevel(logging.ERROR)
    obeyed.look()
    put(path, {})
    assert logger.level == logging.ERROR


def test_another_change_counts_and_what_was_first_is_put_back(path, logger):
    put(path, change())
    put(path, change(logging.CRITICAL))
    assert logger.level == logging.CRITICAL
    put(path, {})
    assert logger.level == logging.WARNING


def test_what_the_configuration_says_meanwhile_is_what_is_put_back(path, logger):
    put(path, change())
    obeyed.configured(NAME, logging.ERROR)
    assert logger.level == logging.DEBUG
    put(path, {})
    assert logger.level == logging.ERROR
    obeyed.configured(NAME, logging.INFO)
    assert logger.level == logging.INFO


@pytest.mark.parametrize("end", ["time", "reset"])
@pytest.mark.parametrize("fast", [False, True])
def test_a_process_that_a_raised_level_silences_has_its_level_back(path, logger, monkeypatch, end, fast):
    monkeypatch.setattr(obeyed, "_WATCH", 0.0)
    below = logging.getLogger(f"{NAME}.below")
    seen: list[str] = []
    for each in (logger, below):
        monkeypatch.setattr(each, "__class__", _FastLogger if fast else logging.Logger)
        monkeypatch.setattr(each, "handlers", [Seeing(seen)])
        monkeypatch.setattr(each, "propagate", False)
    put(path, change(logging.ERROR))
    below.warning("one")
    logger.warning("two")
    assert seen == []
    if end == "time":
        monkeypatch.setattr(time, "time", lambda now=time.time: now() + 3600)
    else:
        os.unlink(path)
    below.warning("three")
    logger.warning("four")
    assert seen == ["three", "four"]
    assert logger.level == logging.WARNING
    assert {type(vars(each)["_cache"]) for each in (logger, below)} == {dict}


def test_root_is_the_root_logger(path, monkeypatch):
    root = logging.getLogger()
    before = root.level
    put(path, {"root": change(45)[NAME]})
    assert root.level == 45
    put(path, {})
    assert root.level == before


def test_nobody_waits_for_the_lock_of_logging(path, logger):
    taken, leave = threading.Event(), threading.Event()

    def hold():
        with LOCK:
            taken.set()
            leave.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(10)
    put(path, change())
    assert logger.level == logging.WARNING
    leave.set()
    holder.join()
    obeyed.look()
    assert logger.level == logging.DEBUG


def test_who_is_inside_of_logging_is_not_disturbed(path, logger):
    with LOCK:
        put(path, change())
        assert logger.level == logging.WARNING
    obeyed.look()
    assert logger.level == logging.DEBUG


def test_a_handler_that_has_taken_no_record_follows_the_levels_until_it_is_closed(tmp_path, logger):
    handler = SpoolHandler({"state_dir": str(tmp_path), "supervisor": {"autostart": False}})
    try:
        levels.write(str(tmp_path / "app" / "levels"), change())
        obeyed.look()
        assert logger.level == logging.DEBUG
    finally:
        handler.close()
    assert logger.level == logging.WARNING


def test_a_process_that_logs_nothing_can_ask_for_a_look(path, logger):
    obeyed.follow(path)
    levels.write(path, change())
    redislogkit.look_at_levels()
    assert logger.level == logging.DEBUG


def test_the_garbage_collector_is_left_alone(path):
    """What a signal handler raises during a collection would be lost in a callback."""
    put(path, change())
    assert not [callback for callback in gc.callbacks if callback.__module__.startswith("redislogkit")]


def test_a_file_that_can_not_be_read_leaves_the_levels_alone(path, logger):
    put(path, change())
    os.unlink(path)
    os.symlink(path, path)
    obeyed.look()
    assert logger.level == logging.DEBUG


def test_who_follows_no_longer_has_its_levels_back(path, logger):
    put(path, change())
    obeyed.leave(path)
    assert logger.level == logging.WARNING


# --- the shipper's end -------------------------------------------------------------------------------------


def test_an_end_by_the_server_is_one_by_this_host(path):
    LevelsFile(path).put(Found(1000.0, {"a": Change(10, 1060.0, "x")}))
    assert levels.read(path)["a"].until == pytest.approx(time.time() + 60, abs=5)


def test_what_is_there_already_is_not_written_again(path):
    first = LevelsFile(path)
    first.put(Found(1000.0, {"a": Change(10, 1060.0, "x")}))
    before = os.stat(path).st_ino, os.stat(path).st_mtime_ns
    LevelsFile(path).put(Found(1000.0, {"a": Change(10, 1060.0, "x")}))
    first.put(Found(1030.0, {"a": Change(10, 1060.0, "x")}))
    assert (os.stat(path).st_ino, os.stat(path).st_mtime_ns) == before
    first.put(Found(1030.0, {"a": Change(20, 1060.0, "x")}))
    assert levels.read(path)["a"].level == 20


@pytest.mark.parametrize("there", ["", '{"old": [10, 99999999999.0, "x"]}', "nonsense"])
def test_what_was_left_there_is_removed(path, there):
    with open(path, "w", encoding="utf-8") as file:
        file.write(there)
    LevelsFile(path).put(Found(1000.0, {}))
    assert not os.path.exists(path)

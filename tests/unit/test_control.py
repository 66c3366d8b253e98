"""Asking a supervisor, and what it makes of another configuration."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

import pytest

from redislogkit import config as configuration
from redislogkit import control, launch
from redislogkit.config import Config
from redislogkit.errors import NotSupervisedError, SpoolError
from redislogkit.producer.handler import SpoolHandler
from redislogkit.supervisor import reloading
from redislogkit.supervisor.answering import ControlSocket
from redislogkit.writers.latency import BOUNDS, Ages


def load(folder: str, **overrides: Any) -> Config:
    tree = {
        "state_dir": folder,
        "writers": {name: {"type": "file", "path": f"{folder}/{name}.log"} for name in ("app", "audit")},
    }
    return configuration.load(tree, overrides)


@pytest.fixture
def config(tmp_path) -> Config:
    config = load(str(tmp_path))
    os.makedirs(config.stream_dir)
    return config


@contextmanager
def answering(config: Config) -> Iterator[ControlSocket]:
    """A control socket that answers with the request, until the block is left."""
    ending, end = socket.socketpair()
    listening = ControlSocket(control.path(config), lambda request: {"ok": True, **request})

    def loop() -> None:
        while ending not in wait([ending, *listening.sources()], timeout=5):
            listening.serve()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield listening
    finally:
        end.close()
        thread.join()
        ending.close()
        listening.close()


def raw(config: Config, *parts: bytes) -> Mapping[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect(control.path(config))
        for part in parts:
            connection.sendall(part)
        return json.loads(connection.makefile().readline())  # type: ignore[no-any-return]


def test_a_request_is_answered(config):
    with answering(config):
        assert control.ask(config, {"do": "status", "n": "é"}) == {"ok": True, "do": "status", "n": "é"}


def test_only_its_user_can_reach_the_socket_and_it_goes_with_the_supervisor(config):
    with answering(config):
        assert stat.S_IMODE(os.stat(control.path(config)).st_mode) == 0o600
    assert not os.path.exists(control.path(config))


def test_a_socket_that_a_killed_supervisor_has_left_is_replaced(config):
    ControlSocket(control.path(config), dict).abandon()
    with pytest.raises(NotSupervisedError, match="no supervisor runs for stream 'app'"):
        control.ask(config, {"do": "status"})
    with answering(config):
        assert control.ask(config, {"do": "status"})["ok"]


def test_the_socket_of_a_successor_is_left_alone(config):
    first = ControlSocket(control.path(config), dict)
    with answering(config):
        first.close()
        assert control.ask(config, {"do": "status"})["ok"]


def test_without_a_supervisor_it_says_how_to_start_one(config):
    with pytest.raises(NotSupervisedError, match="redislogkit supervise"):
        control.ask(config, {"do": "status"})


def test_a_supervisor_that_hangs_is_not_waited_for(config):
    listening = ControlSocket(control.path(config), dict)
    with pytest.raises(NotSupervisedError, match=r"does not answer within 0\.05 s"):
        control.ask(config, {"do": "status"}, timeout=0.05)
    listening.close()


def test_a_folder_with_a_long_path_has_its_socket_elsewhere(tmp_path):
    config = load(str(tmp_path / ("x" * 100)))
    os.makedirs(config.stream_dir)
    with answering(config):
        assert len(os.fsencode(control.path(config))) <= 100
        assert control.ask(config, {"do": "status"})["ok"]
    os.rmdir(os.path.dirname(control.path(config)))


@pytest.mark.parametrize("garbage", [b"hello\n", b"[]\n", b"\xff\n", b"[" * 5000 + b"\n", b"x" * 70_000])
def test_what_is_no_request_is_refused(config, garbage):
    with answering(config):
        answer = raw(config, garbage)
    assert answer == {"ok": False, "error": answer["error"]}
    assert "JSON object" in answer["error"]


def test_a_request_may_come_in_pieces_while_others_say_nothing(config):
    with answering(config):
        silent = [socket.socket(socket.AF_UNIX) for _ in range(20)]  # more than are waited for
        for each in silent:
            each.connect(control.path(config))
        assert raw(config, b'{"do": ', b'"status"}\n')["ok"]
        for each in silent:
            each.close()


def test_who_belongs_to_the_supervisor_can_not_log_into_its_stream(config, monkeypatch):
    monkeypatch.setattr(launch, "supervised", config.stream_dir)
    with pytest.raises(SpoolError, match="a writer can not log into stream 'app', which it reads"):
        SpoolHandler(config)


# -- another configuration --------------------------------------------------------------------------

WRITER = {"type": "file", "path": "/x/new.log"}


@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        ({}, []),
        ({"loggers": {"x": "DEBUG"}, "producer.level": "ERROR"}, []),  # of the applications
        ({"supervisor.max_restarts": 3}, []),
        ({"writers.app.level": "ERROR"}, ["writer app: started anew"]),
        ({"formatters.plain": {"format": "%(message)s"}}, ["writer app: started anew", "writer audit: started anew"]),
        ({"producer.flush_interval": 1}, ["shipper: started anew"]),
        ({"stream.compression": "none"}, ["shipper: started anew"]),
        ({"writers.new": WRITER}, ["writer new: added", "shipper: started anew"]),
        ({"writers.app": None}, ["writer app: removed", "shipper: started anew"]),
        (
            {"writers.app": {"type": "tty", "path": None}},
            ["writer app: started anew", "shipper: started anew"],
        ),
        (
            {"supervisor.heartbeat_timeout": 4},
            ["writer app: started anew", "writer audit: started anew", "shipper: started anew"],
        ),
        (
            {"redis.url": "redis://other", "stream.name": "other", "state_dir": "/elsewhere"},
            [
                f"{name} can not be changed while the supervisor runs; restart it for that"
                for name in ("state_dir", "stream.name", "redis.url")
            ],
        ),
    ],
)  # fmt: skip
def test_only_what_goes_by_another_setting_is_touched(config, overrides, lines):
    changes = reloading.compare(config, load(config.state_dir, **overrides))
    assert changes.lines() == lines
    assert (changes.config.stream_dir, changes.config.redis) == (config.stream_dir, config.redis)


def test_a_writer_that_reads_under_another_name_leaves_the_old_one(config):
    changed = load(config.state_dir, **{"writers.app": {"type": "tty", "path": None}})
    assert reloading.compare(config, changed).regrouped == ("app",)


def test_the_url_of_a_server_that_is_not_ours_can_be_changed(config):
    old, new = (load(config.state_dir, **{"redis.url": f"redis://:{p}@host"}) for p in ("old", "new"))
    changes = reloading.compare(old, new)
    assert changes.config.redis == new.redis
    assert changes.moved
    assert changes.changed == ("app", "audit")
    assert changes.shipper


# -- ages -------------------------------------------------------------------------------------------


def test_ages_are_counted_below_their_bounds_and_the_oldest_in_the_sum_only():
    ages = Ages()
    for seconds in (-1.0, 0.005, 0.006, 7200.0):
        ages = ages.add(seconds)
    found = ages.as_json()
    assert found["buckets"][:2] == [[0.005, 2], [0.01, 3]]
    assert found["buckets"][-1] == [BOUNDS[-1], 3]
    assert (found["sum"], found["count"]) == (7200.011, 4)

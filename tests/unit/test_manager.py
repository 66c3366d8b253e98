"""When children are started again, and how a supervisor tells of them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from redislogkit import config as configuration
from redislogkit.supervisor import child as inside
from redislogkit.supervisor.child import ChildSpec, Link, ServerStatus
from redislogkit.supervisor.children import Child
from redislogkit.supervisor.manager import Manager
from redislogkit.supervisor.restarts import SET_ASIDE_PAUSE, STABLE_AFTER, Restarts


class History(Restarts):
    """A history under fixed settings."""

    def __init__(self, max_restarts: int, restart_window: float) -> None:
        super().__init__()
        self._settings = (max_restarts, restart_window)

    def pause(self, now, ran, *settings, refused, jitter=1.0):
        return super().pause(now, ran, *(settings or self._settings), refused=refused, jitter=jitter)


def test_pauses_double_with_each_failure_in_a_row_up_to_ten_seconds():
    restarts = History(100, 60)
    pauses = [restarts.pause(float(now), 0.0, refused=False) for now in range(10)]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]


def test_a_child_that_has_run_for_a_while_has_not_failed_in_a_row():
    restarts = History(100, 60)
    for now in range(5):
        restarts.pause(float(now), 0.0, refused=False)
    assert restarts.pause(20.0, STABLE_AFTER + 1, refused=False) == 0.1


def test_jitter_shortens_every_pause():
    assert History(10, 60).pause(0.0, 0.0, refused=False, jitter=0.5) == 0.05
    assert History(0, 60).pause(0.0, 0.0, refused=False, jitter=0.5) == SET_ASIDE_PAUSE / 2


@pytest.mark.parametrize("max_restarts", [0, 1, 3])
def test_more_failures_than_allowed_within_the_window_set_a_child_aside(max_restarts):
    restarts = History(max_restarts, 60)
    for now in range(max_restarts):
        restarts.pause(float(now), 0.0, refused=False)
        assert not restarts.set_aside
    assert restarts.pause(float(max_restarts), 0.0, refused=False) == SET_ASIDE_PAUSE
    assert restarts.set_aside
    assert restarts.recent == max_restarts + 1


def test_failures_before_the_window_do_not_count():
    restarts = History(1, 60)
    for now in range(0, 600, 60):
        restarts.pause(float(now), 0.0, refused=False)
        assert not restarts.set_aside


def test_a_child_set_aside_stays_so_until_it_works():
    restarts = History(0, 1)
    restarts.pause(0.0, 0.0, refused=False)
    assert restarts.pause(1000.0, 0.5, refused=False) == SET_ASIDE_PAUSE
    restarts.runs_again()
    assert not restarts.set_aside
    restarts.pause(2000.0, 0.0, refused=False)
    assert restarts.set_aside


def test_a_refusal_sets_aside_at_once_and_is_tried_again_ever_more_slowly():
    restarts = History(10, 60)
    pauses = [restarts.pause(float(now), 0.0, refused=True) for now in range(6)]
    assert restarts.set_aside
    assert pauses == [1.0, 2.0, 4.0, 8.0, SET_ASIDE_PAUSE, SET_ASIDE_PAUSE]


def test_a_thousand_failures_in_a_row_overflow_nothing():
    restarts = History(10**6, 10**9)
    assert {restarts.pause(float(now), 0.0, refused=False) for now in range(2000)} <= {
        0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0,
    }  # fmt: skip


# -- a child, as it is seen -------------------------------------------------------------------------


class Seen:
    """A child whose process does what a test says: beats, then waits for a word, then ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self.reports: list[str] = []
        config = configuration.load({"state_dir": "/nowhere", "writers": {"app": {"type": "tty"}}})
        self.child = Child(ChildSpec("writer", "app"), config, self.reports.append)

    def start(self, code: int, *, beats: str | None = None, fails: str = "", waits: bool = False) -> None:
        def main(*given: Any) -> None:
            link = Link(given[2], 10.0)
            if beats is not None:
                link.beat(ServerStatus(beats))
            if fails:
                link.fail(fails)
            while waits and not link.stopping():
                time.sleep(0.002)
            os._exit(code)

        self._patch.setattr(inside, "main", main)
        self.child.start(lambda: None)
        assert self.child.state in ("starting", "set aside")

    def until(self, *states: str) -> dict[str, Any]:
        end = time.monotonic() + 10
        while self.child.state not in states:
            assert time.monotonic() < end, (self.child.state, self.reports)
            if self.child.alive:
                self.child.tend()
            time.sleep(0.001)
        return self.child.facts()

    def until_it_has_ended(self) -> None:
        end = time.monotonic() + 10
        while self.child.alive:
            assert time.monotonic() < end, self.reports
            self.child.tend()
            time.sleep(0.001)


@pytest.fixture
def seen(monkeypatch, untraced) -> Iterator[Seen]:
    made = Seen(monkeypatch)
    yield made
    made.child.kill()
    if made.child.alive:
        made.child.reap()


def test_a_child_that_can_not_begin_is_told_apart_from_one_that_crashes_at_work(seen):
    seen.start(3)
    facts = seen.until("restarting")
    assert (facts["pid"], facts["last_exit"]) == (None, "ended with exit code 3")
    assert 0 <= facts["next_start"] - time.time() <= 0.1
    assert seen.reports == [
        "writer app: has ended with exit code 3 before its first sign of life, starting it again"
    ]
    seen.start(3, beats="")
    seen.until("restarting")
    assert seen.reports[1:] == ["writer app: has ended with exit code 3, starting it again"]
    assert seen.child.facts()["restarts"] == 1


def test_why_a_child_has_ended_is_known_until_it_works_again(seen):
    seen.start(78, fails="no such folder")
    assert seen.until("set aside")["error"] == "no such folder"
    assert seen.reports[0] == "writer app: no such folder"
    seen.start(1)  # and says nothing of it
    seen.until_it_has_ended()
    assert seen.child.facts()["error"] == ""
    seen.start(0, fails="too late", waits=True)
    seen.child.tell("end")
    seen.until_it_has_ended()
    assert seen.child.facts()["error"] == "too late"
    seen.start(0, beats="", waits=True)
    while not seen.child.status:
        seen.child.tend()
    assert seen.child.facts()["error"] == ""


def test_a_child_that_says_why_it_waits_is_waiting(seen):
    seen.start(0, beats="no server", waits=True)
    facts = seen.until("waiting")
    assert (facts["error"], facts["type"], facts["written"]) == ("no server", "tty", 0)
    assert seen.child.hindered


def test_a_child_that_is_to_leave_is_draining_and_then_starts_anew_without_a_failure(seen):
    seen.start(0, beats="", waits=True)
    seen.until("running")
    seen.child.leave(inside.END, 5.0)
    assert seen.child.state == "draining"
    seen.until("restarting")
    assert not seen.child.leaving
    assert seen.child.to_be_started
    assert seen.child.next_start <= time.monotonic()
    assert seen.reports == []


def test_a_child_that_does_not_leave_in_time_is_killed(seen):
    seen.start(0, beats="", waits=True)
    seen.until("running")
    seen.child.tell = lambda message: None
    seen.child.leave(inside.END, 0.01)
    seen.until("restarting")
    assert seen.child.last_exit == "ended with signal SIGKILL"
    assert seen.child.unfinished


def test_a_child_that_has_been_drained_is_not_started_before_it_is_wanted_again(seen):
    seen.start(0, beats="", waits=True)
    seen.until("running")
    seen.child.drain()
    seen.until("ended")
    assert not seen.child.to_be_started
    seen.child.go_on()
    assert seen.child.to_be_started
    assert seen.child.facts()["last_exit"] == ""  # nothing has failed


def test_one_that_had_just_failed_when_everything_stops_has_not_finished(seen):
    seen.start(1)
    seen.until("restarting")
    seen.child.drain()
    assert seen.child.unfinished


def test_where_no_writer_of_files_runs_that_is_the_answer_to_a_rotation(tmp_path):
    tree = {
        "state_dir": str(tmp_path),
        "writers": {"app": {"type": "file", "path": str(tmp_path / "app.log")}},
    }
    manager = Manager(configuration.load(tree), print)
    answer = manager._answer_rotate({})
    assert (answer["ok"], "writer app does not run now" in answer["error"]) == (False, True)

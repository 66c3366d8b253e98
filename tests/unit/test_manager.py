"""When children are started again; what a supervisor makes of signals and ends."""

from __future__ import annotations

import pytest

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

"""What a child has counted never goes back, however often it is started again."""

from __future__ import annotations

from redislogkit.supervisor.totals import Totals
from redislogkit.writers.latency import Ages


def test_a_new_life_goes_on_counting():
    totals = Totals()
    totals.begin()
    totals.note({"written": 10, "bytes": 100, "latency": Ages().add(0.01), "skipped": (("closed", 2),)})
    totals.note(
        {"written": 12, "bytes": 120, "latency": Ages().add(0.01).add(3.0), "skipped": (("closed", 3),)}
    )
    assert (totals.number("written"), totals.by_cause("skipped")) == (12, {"closed": 3})
    totals.begin()
    assert (totals.number("written"), totals.number("bytes")) == (12, 120)
    totals.note({"written": 1, "bytes": 7, "latency": Ages().add(0.02), "skipped": (("stopped", 1),)})
    assert (totals.number("written"), totals.number("bytes")) == (13, 127)
    assert totals.by_cause("skipped") == {"closed": 3, "stopped": 1}
    assert totals.ages().as_json()["count"] == 3
    assert round(totals.ages().sum, 6) == 3.03


def test_what_is_counted_in_files_counts_once():
    totals = Totals()
    totals.begin()
    totals.note({"dropped": (("shed", 5), ("spool_full", 1))})
    totals.begin()
    assert totals.by_cause("dropped") == {"shed": 5, "spool_full": 1}
    totals.note({"dropped": (("shed", 6), ("spool_full", 1))})  # the files are still there
    assert totals.by_cause("dropped") == {"shed": 6, "spool_full": 1}
    totals.begin()
    totals.note({"dropped": (("shed", 2),)})  # some are gone
    assert totals.by_cause("dropped") == {"shed": 6, "spool_full": 1}
    totals.note({"dropped": (("shed", 3),)})
    assert totals.by_cause("dropped") == {"shed": 7, "spool_full": 1}


def test_what_was_never_told_is_nothing():
    totals = Totals()
    assert (totals.number("written"), totals.by_cause("dropped"), totals.ages()) == (0, {}, Ages())

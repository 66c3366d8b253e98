"""Which sequences a reading accounts for, however it is divided."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from redislogkit.record import NOT_IN_STREAM, End, Facts, Loss, Record, build
from redislogkit.stream.batch import DecodedRun
from redislogkit.writers.chunk import Lost, Span
from redislogkit.writers.reading import Reading


def facts(name: str) -> Facts:
    return Facts(name, "host", 1, "MainProcess", 0.0, 0)


def logged(level: int = 20) -> Record:
    return build(1.0, level, "INFO", "a", "text", "", 1, "", None, None)


def reading(seen: dict[str, int] | None = None) -> Reading:
    known = seen or {}
    return Reading(lambda producer: known.get(producer, 0), lambda level, name: level >= 20)


def test_what_the_filters_leave_out_is_accounted_for():
    found = reading({"a": 3})
    found.add(DecodedRun(facts("a"), 4, [logged(10), logged(), logged(10)]))
    found.add(DecodedRun(facts("b"), 1, [logged(10)]))
    assert found.spans(0, 1) == [Span("a", 4, 6, 1), Span("b", 1, 1, 0)]
    assert found.highest == {"a": 6, "b": 1}


def test_a_reading_without_a_line_accounts_for_its_sequences():
    found = reading()
    found.add(DecodedRun(facts("a"), 1, [logged(10), logged(10)]))
    assert found.items == []
    assert found.spans(0, 0) == [Span("a", 1, 2, 0)]


def test_a_gap_is_a_loss_and_accounted_for():
    found = reading({"a": 1})
    found.add(DecodedRun(facts("a"), 5, [logged()]))
    assert found.items[0][0] == Loss(2, 4, NOT_IN_STREAM, 1.0)
    assert found.spans(0, 2) == [Span("a", 2, 5, 1)]
    assert found.losses(0, 2) == [Lost("a", 2, 4, NOT_IN_STREAM)]
    assert found.losses(1, 2) == []


def test_what_another_host_has_written_is_accounted_for_without_a_line():
    found = reading({"a": 1})
    found.skip("a", 9)
    assert (found.items, found.highest, found.spans(0, 0)) == ([], {"a": 9}, [Span("a", 2, 9, 0)])


def test_a_producer_that_logs_on_behind_its_end_has_not_ended():
    found = reading({"a": 217})
    found.add(DecodedRun(facts("a"), 218, [End()]))
    found.add(DecodedRun(facts("a"), 218, [logged(), logged()]))
    assert (found.ended, found.highest) == ([], {"a": 219})
    found.add(DecodedRun(facts("a"), 220, [logged(), End()]))
    assert (found.ended, found.highest) == (["a"], {"a": 220})


def test_an_end_that_comes_late_or_again_is_none():
    found = reading({"a": 241})
    found.add(DecodedRun(facts("a"), 195, [End()]))
    found.add(DecodedRun(facts("b"), 1, [logged()]))
    found.add(DecodedRun(facts("b"), 1, [End()]))
    assert (found.ended, found.highest) == ([], {"b": 1})


def test_an_end_stands_although_what_was_before_it_comes_again():
    found = reading({"a": 2})
    found.add(DecodedRun(facts("a"), 3, [End()]))
    found.add(DecodedRun(facts("a"), 1, [logged(), logged()]))
    assert (found.ended, found.highest) == (["a"], {})
    assert found.again == {"a": 2}


def test_what_comes_again_of_a_known_producer_has_its_position_told_again():
    found = reading({"a": 241})
    found.add(DecodedRun(facts("a"), 194, [logged(), logged()]))
    found.add(DecodedRun(facts("a"), 242, [End()]))
    assert (found.again, found.items, found.ended) == ({"a": 241}, [], ["a"])
    again = reading({"a": 241})
    again.add(DecodedRun(facts("a"), 195, [End()]))
    assert again.again == {}


runs = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.integers(0, 3),
        st.lists(st.sampled_from([10, 20, 0]), max_size=5),
        st.booleans(),
    ),
    max_size=8,
)


@given(runs=runs, cuts=st.lists(st.integers(0, 40), max_size=4))
def test_however_a_reading_is_divided_every_sequence_is_accounted_for_once(runs, cuts):
    found = reading({"a": 5})
    reached = {"a": 5, "b": 0, "c": 0}
    lines = 0
    for producer, gap, levels, ends in runs:
        first = reached[producer] + 1 + (gap if reached[producer] else 0)
        items: list[Record | Loss | End] = [
            logged(level) if level else Loss(first + n, first + n, "shed", 1.0)
            for n, level in enumerate(levels)
        ]
        if not items and not ends:
            continue
        found.add(DecodedRun(facts(producer), first, [*items, End()] if ends else items))
        if items:
            reached[producer] = first + len(items) - 1
            lines += levels.count(20)
    places = sorted({0, len(found.items), *(cut for cut in cuts if cut < len(found.items))})
    parts = list(itertools.pairwise(places)) or [(0, 0)]
    spans = [span for part in parts for span in found.spans(*part)]
    for producer, before in (("a", 5), ("b", 0), ("c", 0)):
        own = [span for span in spans if span.producer == producer]
        assert [span.first for span in own] == [before + 1, *(span.last + 1 for span in own)][: len(own)]
        assert (own[-1].last if own else before) == reached[producer]
    assert sum(span.lines for span in spans) == lines


def test_of_what_the_server_has_lost_only_what_was_missed_is_told():
    for known, told in ((0, (1, 50)), (30, (31, 50)), (50, None)):
        found = reading({"a": known})
        found.add(DecodedRun(facts("a"), 50, [Loss(1, 50, NOT_IN_STREAM, 1.0), logged()]))
        losses = [(loss.first, loss.last) for loss, _, _ in found.items if isinstance(loss, Loss)]
        assert losses == ([told] if told else [])
        assert found.highest == {"a": 51}
        assert found.spans(0, len(found.items)) == [Span("a", known + 1, 51, 1)]
        assert [(lost.first, lost.last) for lost in found.losses(0, 2)] == losses

"""Whatever comes again, in whatever pieces, after whichever restart: each sequence once, in order, or named as missing."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from redislogkit import record
from redislogkit.stream import batch
from redislogkit.stream.client import RawEntry
from tests.helpers import filewriter
from tests.helpers.filewriter import a_record, everything, facts, memory_folder, run_writer

_LOSS = re.compile(r"sequences? (\d+)(?: to (\d+))? of producer (\w+)")

#: Producer; how far back the piece begins before its newest sequence; how many it skips instead; its length.
pieces = st.tuples(
    st.sampled_from("abc"), st.integers(0, 6), st.sampled_from([0, 0, 0, 0, 1, 3]), st.integers(1, 5)
)


def entry(number: int, runs: list[tuple[str, int, int]]) -> RawEntry:
    """One entry with the records ``first`` to ``last`` of each producer."""
    raw = [
        batch.RawRun(
            facts(producer),
            first,
            [record.encode(a_record(f"{producer}:{n}")) for n in range(first, last + 1)],
        )
        for producer, first, last in runs
    ]
    fields = batch.encode(raw, "none", bytes).fields
    return b"%d-0" % number, dict(zip(fields[::2], fields[1::2], strict=True))


@settings(max_examples=80)
@given(
    shape=st.lists(st.lists(pieces, min_size=1, max_size=4), min_size=1, max_size=8),
    stops=st.lists(st.integers(0, 8), max_size=3),
    at_once=st.integers(1, 4),
    max_bytes=st.sampled_from([0, 40]),
)
def test_each_sequence_is_written_once_in_order_or_named(
    shape: list[list[tuple[str, int, int, int]]], stops: list[int], at_once: int, max_bytes: int
) -> None:
    newest: dict[str, int] = {}
    skipped: dict[str, set[int]] = {}
    stream: list[RawEntry] = []
    for number, part in enumerate(shape, 1):
        runs = []
        for producer, back, skip, length in part:
            known = newest.get(producer, 0)
            first = known + 1 + skip if skip and known else max(1, known + 1 - back)
            last = first + length - 1
            if first > known + 1:
                skipped.setdefault(producer, set()).update(range(known + 1, first))
            elif skipped.get(producer, set()) & set(range(first, last + 1)):
                first, last = known + 1, known + length  # what is lost does not come after all
            runs.append((producer, first, last))
            newest[producer] = max(known, last)
        stream.append(entry(number, runs))
    with memory_folder() as folder:
        config = filewriter.config(folder / "app.log", max_bytes=max_bytes, backup_count=1000)
        for stop in [*sorted(stops), len(stream)]:
            run_writer(config, stream[:stop], Path(folder, "checkpoint"), at_once=at_once)
        text = everything(config).decode()
    for producer, last in newest.items():
        found = [int(n) for n in re.findall(rf"^{producer}:(\d+)$", text, re.MULTILINE)]
        lost = [
            n
            for begin, end, name in _LOSS.findall(text)
            if name == producer
            for n in range(int(begin), int(end or begin) + 1)
        ]
        assert found == [n for n in range(1, last + 1) if n not in skipped.get(producer, ())]
        assert lost == sorted(skipped.get(producer, ()))

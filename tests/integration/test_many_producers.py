"""Tens of thousands of producers that come, log a little and go: whoever remembers them forgets them again."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path as FilePath
from typing import Any

import pytest

from redislogkit import record
from redislogkit.record import End, Facts, Record
from redislogkit.stream import batch
from redislogkit.stream.client import StreamClient
from redislogkit.writers import checkpoint as checkpoints
from redislogkit.writers import index
from redislogkit.writers.base import Writer
from redislogkit.writers.checkpoint import Checkpoint
from redislogkit.writers.file import FileDestination
from tests.helpers import filewriter
from tests.helpers.path import Loop, Path
from tests.helpers.server import client as plain_client
from tests.helpers.waiting import wait_until

MIB = 1024 * 1024
EPOCH = "e1"
#: Producers in one entry.
AT_ONCE = 100
RECORDS = 2


@pytest.fixture
def command(server_url: str) -> Iterator[Callable[..., Any]]:
    with plain_client(server_url) as connection:
        yield connection.execute_command


class Crowd:
    """A writer at work, and the shipper's end of the stream that feeds it."""

    def __init__(self, folder: str, url: str, stream: str) -> None:
        self.path = FilePath(folder, "app.log")
        self.stream = StreamClient(url, stream)
        self.stream.attach(EPOCH, ["app"])
        self.checkpoint = Checkpoint(os.path.join(folder, "app"))
        self.destination = FileDestination(
            filewriter.config(self.path), print, index_folder=os.path.join(folder, "index")
        )
        self.writer = Writer(
            "app", lambda: StreamClient(url, stream), self.destination, self.checkpoint,
            lambda level, name: True, print, block=0.02,
        )  # fmt: skip
        self.loop = Loop(self.writer)
        self.count = 0

    def come_and_go(self, producers: int) -> None:
        """So many producers log `RECORDS` records each and end, as a shipper would tell of them."""
        for _ in range(0, producers, AT_ONCE):
            names = [f"{self.count + n:016x}" for n in range(AT_ONCE)]
            self.count += AT_ONCE
            facts = [Facts(name, "web1", 4711, "MainProcess", 0.0, 0) for name in names]
            texts = [[record.encode(_record(name, n)) for n in range(RECORDS)] for name in names]
            runs = [batch.RawRun(who, 1, items) for who, items in zip(facts, texts, strict=True)]
            ends = [batch.RawRun(who, RECORDS + 1, [record.encode(End())]) for who in facts]
            said = batch.encode(ends, "none", bytes)._replace(last=[])
            assert self.stream.append([batch.encode(runs, "none", bytes), said], EPOCH, 10**9) == 2
            self.stream.forget_producers(names)
        wait_until(
            lambda: self.writer._written >= self.count * RECORDS and not self.checkpoint.highest,
            what="all is written and every producer has ended",
            deadline=60,
        )

    def close(self) -> None:
        self.loop.stop()
        self.stream.close()


def _record(name: str, n: int) -> Record:
    return record.build(1.0, 20, "INFO", "x", f"{name} {n}", "", 1, "", 1, "T")


def _resident() -> int:
    return int(FilePath("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.usefixtures("untraced")
def test_tens_of_thousands_of_producers_leave_nothing_behind(state_dir, server_url, stream_name, command):
    crowd = Crowd(state_dir, server_url, stream_name)
    keys = [
        f"{{{stream_name}}}:redislogkit:{name}" for name in ("sequences", "written:app", "writers", "leases")
    ]
    try:
        crowd.come_and_go(12_000)  # more than are remembered after their end
        few = [command("HLEN", key) for key in keys]
        resident = _resident()
        crowd.come_and_go(18_000)
        assert _resident() - resident < 8 * MIB
        assert [command("HLEN", key) for key in keys] == few
        assert max(few) < 10
        assert command("XLEN", stream_name) < 300  # trimmed by whole nodes of a hundred
        assert crowd.stream._stored == {}
        assert crowd.checkpoint.highest == {}
        assert len(crowd.checkpoint.ended) == checkpoints._MAX_ENDED
        assert crowd.checkpoint._size < 2 * MIB
        assert os.path.getsize(crowd.checkpoint.path) == crowd.checkpoint._size
        crowd.come_and_go(AT_ONCE)  # numbers begin anew with the next write
        assert crowd.destination._index is not None
        assert len(crowd.destination._index._producers) < index._MOST_NUMBERED + AT_ONCE
    finally:
        crowd.close()
    lines = crowd.path.read_text().splitlines()
    assert len(lines) == len(set(lines)) == crowd.count * RECORDS
    (label,) = index.index_files(os.path.join(state_dir, "index"))
    spans = [span for chunk in index.read(label).chunks for span in chunk.spans]
    assert sum(span.lines for span in spans) == len(lines)
    assert len({span.producer for span in spans}) == crowd.count


@pytest.mark.usefixtures("untraced")
def test_a_shipper_forgets_the_producers_that_it_has_buried(state_dir, server_url, stream_name, command):
    path = Path(state_dir, server_url, stream_name)
    try:
        path.start()
        for _ in range(3):
            for _ in range(200):
                end = path.producer()
                path.log(end, 1)
                end.close()
                end.forget()
            path.ends.clear()
            wait_until(lambda: not os.listdir(path.root), what="the dead are buried")
            path.check()
            writer: Any = path.loops["app"]._what
            ended = partial(operator.not_, writer._checkpoint.highest)
            wait_until(ended, what="every end is written")
            shipper: Any = path.shipper and path.shipper._what
            spools = shipper._spools
            remembered = (
                shipper._client._stored, spools._spools, spools._reported, spools._elsewhere,
                shipper._caught_up, shipper._pending, shipper._entries,
            )  # fmt: skip
            assert not any(remembered), remembered
            assert not [name for name in command("HKEYS", path.key("sequences")) if name[:1] != b"@"]
            assert not [name for name in command("HKEYS", path.key("written:app")) if name[:1] != b"@"]
        assert path.reports == []
    finally:
        path.close()

"""Looking at a real stream: the same questions get the same answers from the double of the unit tests."""

from __future__ import annotations

import pytest

from redislogkit.stream.client import StreamClient
from tests.helpers.looking import LookedAt, entry, record
from tests.helpers.server import client


@pytest.fixture(params=["server", "double"])
def looked_at(request, server_url, stream_name):
    """A stream with five entries."""
    entries = [entry(f"{n}-{n}", n, [record(f"m{n}")]) for n in range(1, 6)]
    if request.param == "double":
        return LookedAt(*entries)
    with client(server_url) as connection:
        for entry_id, fields in entries:
            connection.xadd(stream_name, fields, id=entry_id)
    return StreamClient(server_url, stream_name)


def ids(found):
    return [entry_id for entry_id, _ in found]


def test_entries_are_read_forward_behind_an_id(looked_at):
    assert ids(looked_at.look("2-2", 2)) == [b"3-3", b"4-4"]
    assert ids(looked_at.look("0-0", 10)) == [b"1-1", b"2-2", b"3-3", b"4-4", b"5-5"]
    assert looked_at.look("5-5", 10) == looked_at.look("5-5", 10, 0.01) == []
    assert looked_at.look("4-4", 1)[0][1][b"p"] == b"p1:5:1"


def test_entries_are_read_back_before_an_id(looked_at):
    assert ids(looked_at.look_back("+", 2)) == [b"5-5", b"4-4"]
    assert ids(looked_at.look_back("2-2", 2)) == [b"1-1"]
    assert looked_at.look_back("1-1", 2) == []


def test_the_newest_id_is_told(looked_at):
    assert looked_at.newest_id() == "5-5"


def test_a_stream_that_is_not_there_is_empty(server_url, stream_name):
    nothing = StreamClient(server_url, stream_name)
    assert nothing.newest_id() == "0-0"
    assert nothing.look("0-0", 1, 0.01) == nothing.look_back("+", 1) == []

"""The client and its scripts on a real server: what each promises, and what becomes of the server's errors."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest.mock import ANY

import pytest

from redislogkit import record
from redislogkit.errors import ConfigError, GroupMissingError, LeaseLostError, ServerAwayError
from redislogkit.record import Facts
from redislogkit.stream import batch, client, entries
from redislogkit.stream.client import FULL, LOST, Confirmation, Position, StreamClient
from stress.proxy import Proxy
from tests.helpers.server import Server
from tests.helpers.server import client as plain_client
from tests.helpers.tcp import TcpServer
from tests.helpers.waiting import wait_until

EPOCH = "e1"
PLENTY = 1_000_000


@pytest.fixture
def connect(server_url: str, stream_name: str) -> Iterator[Callable[..., StreamClient]]:
    made: list[StreamClient] = []

    def make(url: str = server_url, **options: Any) -> StreamClient:
        made.append(StreamClient(url, stream_name, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def stream(connect: Callable[..., StreamClient]) -> StreamClient:
    attached = connect()
    attached.attach(EPOCH)
    return attached


@pytest.fixture
def command(server_url: str) -> Iterator[Callable[..., Any]]:
    with plain_client(server_url) as connection:
        yield connection.execute_command


@pytest.fixture
def all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reading ends with its number of entries only."""
    monkeypatch.setattr(client, "ENOUGH_BYTES", 2**40)
    monkeypatch.setattr(client, "ENOUGH_RECORDS", 2**40)


def an_entry(first: int, count: int = 1, *, producer: str = "p", size: int = 10) -> batch.Entry:
    """An entry of ``count`` records from ``first`` on."""
    facts = Facts(producer, "web1", 1, "MainProcess", 0.0, 0)
    payloads = [
        record.encode(
            record.build(1.0, 20, "INFO", "app", f"{sequence} ".ljust(size, "x"), "", 1, "", None, None)
        )
        for sequence in range(first, first + count)
    ]
    return batch.encode([batch.RawRun(facts, first, payloads)], "none", bytes)


def sequences(found: Sequence[client.RawEntry]) -> list[int]:
    """Sequences of all items in these entries."""
    return [
        run.first + number
        for entry_id, fields in found
        for run in entries.decode(entry_id, fields)
        for number in range(len(run.items))
    ]


def stored(command: Callable[..., Any], stream_name: str) -> list[int]:
    found = command("XRANGE", stream_name, "-", "+")
    return sequences([(entry_id, client._pairs(fields)) for entry_id, fields in found])


def joined(one: StreamClient, writer: str = "app") -> int:
    """Register ``writer`` and take its lease; returns the token."""
    one.join(writer)
    return one.claim(writer, "me", 60.0).token


def confirm(
    one: StreamClient, token: int, found: Sequence[client.RawEntry], *, writer: str = "app", **written: int
) -> None:
    total = max(entries.total(fields) for _, fields in found)
    one.confirm(
        writer, Confirmation(found[-1][0], total, written, [entry_id for entry_id, _ in found], token)
    )


# --- attach ------------------------------------------------------------------------------------------------


def test_attaching_makes_the_stream_once_and_keeps_its_epoch(connect, command, stream_name):
    assert connect().attach("one") == "one"
    assert connect().attach("two") == "one"
    assert command("TYPE", stream_name) == b"stream"
    assert command("XLEN", stream_name) == 0


@pytest.mark.parametrize("lost", ["stream", "memory", "both"])
def test_a_lost_stream_and_a_lost_memory_are_a_new_epoch(stream, connect, command, stream_name, lost):
    stream.append([an_entry(1)], EPOCH, PLENTY)
    memory = f"{{{stream_name}}}:redislogkit:sequences"
    command("DEL", *{"stream": [stream_name], "memory": [memory], "both": [stream_name, memory]}[lost])
    assert stream.positions(["p"], ["app"])[0] == ""
    assert stream.append([an_entry(2)], EPOCH, PLENTY) == LOST
    assert stream.attach("e2") == "e2"
    assert stream.positions(["p"], [])[1]["p"].stored == 0
    assert stream.append([an_entry(1), an_entry(2)], "e2", PLENTY) == 2
    assert stream.append([an_entry(3)], EPOCH, PLENTY) == LOST


@pytest.mark.parametrize("who", ["writer", "writer and stranger", "stranger", "stranger with an entry"])
def test_a_lost_stream_is_noticed_although_somebody_has_made_it_again(
    stream, connect, command, stream_name, who
):
    stream.append([an_entry(1)], EPOCH, PLENTY)
    command("DEL", stream_name)
    if "writer" in who:
        joined(connect())
        if who != "writer":
            command("XADD", stream_name, "*", "message", "of another program")
    elif who == "stranger with an entry":
        command("XADD", stream_name, "*", "message", "of another program")
    else:
        command("XGROUP", "CREATE", stream_name, "others", "0", "MKSTREAM")
    assert stream.append([an_entry(2)], EPOCH, PLENTY) == LOST
    assert stream.positions(["p"], [])[0] == ""
    assert stream.attach("e2") == "e2"
    assert stream.append([an_entry(1), an_entry(2)], "e2", PLENTY) == 2
    assert stored(command, stream_name)[-2:] == [1, 2]


def test_attaching_registers_writers_so_that_nothing_is_trimmed_before_they_come(
    stream, connect, command, stream_name
):
    stream.attach("x", ["app", "late"])
    assert set(stream.registered_writers()) == {"app", "late"}
    token = joined(stream)
    for number in range(1, 300):
        stream.append([an_entry(number, size=4000)], EPOCH, PLENTY)
    confirm(stream, token, stream.read("app", ">", 1000, 0), p=299)
    assert command("XLEN", stream_name) == 299


# --- append ------------------------------------------------------------------------------------------------


def test_appending_is_idempotent_and_keeps_the_order(stream, command, stream_name):
    batches = [an_entry(1, 3), an_entry(4, 2), an_entry(1, 1, producer="q")]
    assert stream.append(batches, EPOCH, PLENTY) == 3
    assert stream.append(batches, EPOCH, PLENTY) == 0
    assert stream.append([an_entry(4, 2), an_entry(6)], EPOCH, PLENTY) == 1
    assert stored(command, stream_name) == [1, 2, 3, 4, 5, 1, 6]
    assert stream.positions(["p", "q", "r"], [])[1] == {
        "p": Position(6, 0),
        "q": Position(1, 0),
        "r": Position(0, 0),
    }


def test_each_entry_says_how_many_items_the_stream_has_had(stream, command, stream_name):
    stream.append([an_entry(1, 3), an_entry(4, 2)], EPOCH, PLENTY)
    stream.append([an_entry(6, 1)], EPOCH, PLENTY)
    found = [client._pairs(fields) for _, fields in command("XRANGE", stream_name, "-", "+")]
    assert [entries.total(fields) for fields in found] == [3, 5, 6]


def test_an_entry_of_several_producers_moves_no_position_back(stream):
    stream.append([an_entry(1, 9)], EPOCH, PLENTY)
    mixed = batch.Entry(an_entry(5).fields, [("p", 5), ("q", 1)], 2)
    assert stream.append([mixed], EPOCH, PLENTY) == 1
    positions = stream.positions(["p", "q"], [])[1]
    assert (positions["p"].stored, positions["q"].stored) == (9, 1)


def test_an_entry_without_producers_is_added_in_any_case(stream):
    goodbye = an_entry(1)._replace(last=[])
    assert stream.append([goodbye, goodbye], EPOCH, PLENTY) == 2


def test_a_full_stream_takes_nothing_until_the_slowest_writer_has_moved(stream):
    token = joined(stream)
    stream.join("other")
    other = stream.claim("other", "me", 60.0).token
    assert stream.append([an_entry(1, 6), an_entry(7, 6)], EPOCH, 10) == 2
    assert stream.append([an_entry(13)], EPOCH, 10) == FULL
    confirm(stream, token, stream.read("app", ">", 10, 0), p=12)
    assert stream.append([an_entry(13)], EPOCH, 10) == FULL
    confirm(stream, other, stream.read("other", ">", 1, 0), writer="other", p=6)
    assert stream.append([an_entry(13)], EPOCH, 10) == 1


def test_the_bound_holds_after_a_loss_of_memory_too(stream, command, stream_name):
    token = joined(stream)
    stream.append([an_entry(1, 50)], EPOCH, 100)
    confirm(stream, token, stream.read("app", ">", 10, 0), p=50)
    command("DEL", stream_name, f"{{{stream_name}}}:redislogkit:sequences")
    stream.attach("e2")
    stream.join("app")
    stream.append([an_entry(51, 5)], "e2", 100)
    (found,) = stream.read("app", ">", 10, 0)
    # The writer counts on from its checkpoint, where the server began anew.
    stream.confirm("app", Confirmation(found[0], 50, {"p": 55}, [found[0]], token))
    added = 0
    while (answer := stream.append([an_entry(56 + added, 10)], "e2", 100)) == 1:
        added += 10
        assert added <= 110
    assert answer == FULL
    assert added >= 90


@pytest.mark.parametrize("size", [1, 7, 50, 500])
def test_without_any_writer_the_oldest_records_make_room_and_are_counted(stream, command, stream_name, size):
    for first in range(1, 2001, size):
        assert stream.append([an_entry(first, size)], EPOCH, 200) == 1
    newest = (2000 + size - 1) // size * size
    held = stored(command, stream_name)
    assert held == list(range(held[0], newest + 1))
    assert len(held) <= max(200, size)
    assert len(held) > 200 - size
    assert stream.overflow == newest - len(held)
    again = command("HGET", f"{{{stream_name}}}:redislogkit:sequences", "@overflow")
    assert int(again) == stream.overflow


def test_entries_of_strangers_do_not_disturb_the_bound(stream, command, stream_name):
    for number in range(1, 301):
        command("XADD", stream_name, "*", "message", "of another program", "t", 10**12 if number % 2 else "x")
        stream.append([an_entry(number)], EPOCH, 20)
    assert 20 <= command("XLEN", stream_name) <= 42
    assert stream.overflow == 280


def test_a_writer_that_comes_late_finds_the_bound_kept_for_it(stream, command, stream_name):
    for number in range(1, 101):
        stream.append([an_entry(number)], EPOCH, 20)
    token = joined(stream)
    assert stream.append([an_entry(101)], EPOCH, 20) == FULL
    confirm(stream, token, stream.read("app", ">", 100, 0), p=100)
    assert stream.append([an_entry(101)], EPOCH, 20) == 1


# --- nothing behind a gap ----------------------------------------------------------------------------------


def test_nothing_is_appended_behind_a_gap(stream, command, stream_name):
    memory = f"{{{stream_name}}}:redislogkit:sequences"
    stream.append([an_entry(1, 10), an_entry(1, 5, producer="q")], EPOCH, PLENTY)
    command("HSET", memory, "p", 4)
    assert (
        stream.append([an_entry(6, producer="q"), an_entry(11), an_entry(7, producer="q")], EPOCH, PLENTY)
        == LOST
    )
    # What stands before the gap is whole, and accounted for.
    assert command("XLEN", stream_name) == 3
    assert command("HGET", memory, "q") == b"6"
    assert command("HGET", memory, "@added") == b"16"
    assert stream.positions(["q"], [])[0] == ""  # until somebody attaches
    assert stream.attach("e2") == "e2"
    assert stream.positions(["p", "q"], []) == ("e2", {"p": Position(4, 0), "q": Position(6, 0)})
    assert stream.append([an_entry(5, 6), an_entry(7, producer="q")], "e2", PLENTY) == 2
    assert stream.append([an_entry(11)], "e2", PLENTY) == 1


def test_an_entry_may_name_one_producer_twice(stream, command, stream_name):
    facts = Facts("p", "web1", 1, "MainProcess", 0.0, 0)
    for first in (1, 11):
        payloads = [
            record.encode(record.Loss(first, first, "shed", 1.0)),
            record.encode(record.Loss(first + 1, first + 8, "shed", 1.0)),
        ]
        runs = [batch.RawRun(facts, first, payloads[:1]), batch.RawRun(facts, first + 8, payloads[1:])]
        entry = batch.encode(runs, "none", bytes)
        assert len(entry.last) == 2
        assert stream.append([entry, an_entry(first + 9)], EPOCH, PLENTY) == 2
        assert stream.append([entry, an_entry(first + 9)], EPOCH, PLENTY) == 0
    assert command("XLEN", stream_name) == 4
    assert stream.positions(["p"], [])[1]["p"].stored == 20


def test_a_position_that_has_gone_back_is_a_loss_of_memory(stream, connect, command, stream_name):
    stream.append([an_entry(1, 10)], EPOCH, PLENTY)
    assert stream.positions(["p", "q"], [])[0] == EPOCH
    command("HDEL", f"{{{stream_name}}}:redislogkit:sequences", "p")
    assert stream.positions(["q"], [])[0] == EPOCH
    assert stream.positions(["p"], [])[0] == ""
    other = connect()
    assert other.attach("e3") == EPOCH  # which knows of no other state
    assert stream.attach("e2") == "e2"
    assert other.append([an_entry(1)], EPOCH, PLENTY) == LOST


def test_a_resend_that_comes_after_the_producer_is_forgotten_is_refused(
    stream, connect, command, stream_name
):
    late = connect()
    late.attach("x")
    late.append([an_entry(1)], EPOCH, PLENTY)
    stream.append([an_entry(2, 9)], EPOCH, PLENTY)
    stream.forget_producers(["p"])
    assert late.append([an_entry(2, 9)], EPOCH, PLENTY) == LOST
    assert command("XLEN", stream_name) == 2
    assert command("HGET", f"{{{stream_name}}}:redislogkit:sequences", "p") is None


def test_large_calls_pass_the_scripts(stream, command, stream_name):
    many = [an_entry(number) for number in range(1, 3001)]
    assert stream.append(many, EPOCH, PLENTY) == 3000
    wide = batch.Entry([part for number in range(2000) for part in (b"k%d" % number, b"v")], [("w", 1)], 1)
    assert stream.append([wide], EPOCH, PLENTY) == 1
    names = [f"producer{number}" for number in range(20_000)]
    answer = stream.positions([*names, "p"], ["app", "other"])[1]
    assert len(answer) == 20_001
    assert answer["p"].stored == 3000
    token = joined(stream)
    found = stream.read("app", ">", 5000, 0)
    stream.confirm(
        "app", Confirmation(found[-1][0], 3001, dict.fromkeys(names, 7), [i for i, _ in found], token)
    )
    assert stream.positions(names[-3:], ["app"])[1] == {name: Position(0, 7) for name in names[-3:]}
    assert stream.read("app", "0", 10, 0) == []


# --- positions, confirm ------------------------------------------------------------------------------------


def test_written_is_what_the_slowest_writer_has_published(stream):
    for writer in ("app", "console"):
        joined(stream, writer)
    stream.append([an_entry(1, 9)], EPOCH, PLENTY)
    app, console = (stream.claim(writer, "me", 60.0).token for writer in ("app", "console"))
    stream.confirm("app", Confirmation(b"", 0, {"p": 9, "q": 3}, (), app))
    assert stream.positions(["p", "q"], ["app", "console"])[1]["p"] == Position(9, 0)
    stream.confirm("console", Confirmation(b"", 0, {"p": 4}, (), console))
    answer = stream.positions(["p", "q"], ["app", "console"])[1]
    assert answer == {"p": Position(9, 4), "q": Position(0, 0)}
    assert stream.positions(["p"], ["app"])[1]["p"] == Position(9, 9)
    assert stream.positions(["p"], [])[1]["p"] == Position(9, 0)
    assert stream.written("app") == {"p": 9, "q": 3}


@pytest.mark.usefixtures("all_at_once")
def test_confirming_acknowledges_and_trims_behind_the_slowest_writer(stream, command, stream_name):
    tokens = {writer: joined(stream, writer) for writer in ("app", "console")}
    for number in range(1, 301):
        stream.append([an_entry(number, size=4000)], EPOCH, PLENTY)
    found = stream.read("app", ">", 1000, 0)
    confirm(stream, tokens["app"], found, p=300)
    assert stream.read("app", "0", 10, 0) == []
    assert command("XLEN", stream_name) == 300
    confirm(stream, tokens["console"], stream.read("console", ">", 200, 0), writer="console", p=200)
    assert 100 <= command("XLEN", stream_name) < 220
    assert stored(command, stream_name)[-101:] == list(range(200, 301))
    assert sequences(stream.read("console", ">", 1000, 0)) == list(range(201, 301))


def test_the_newest_entry_is_never_trimmed(stream, command, stream_name):
    token = joined(stream)
    for number in range(1, 301):
        stream.append([an_entry(number, size=4000)], EPOCH, PLENTY)
        confirm(stream, token, stream.read("app", ">", 10, 0), p=number)
        assert command("XLEN", stream_name) >= 1
    assert stream.append([an_entry(301)], EPOCH, PLENTY) == 1


def test_a_producer_that_has_ended_leaves_nothing_behind(stream, command, stream_name):
    token = joined(stream)
    stream.append([an_entry(1)], EPOCH, PLENTY)
    stream.confirm("app", Confirmation(b"", 0, {"p": 1}, (), token))
    stream.confirm("app", Confirmation(b"", 0, {"p": -1}, (), token))
    stream.forget_producers(["p", "unknown"])
    assert command("HKEYS", f"{{{stream_name}}}:redislogkit:written:app") == [b"@confirmed"]
    assert all(name[:1] == b"@" for name in command("HKEYS", f"{{{stream_name}}}:redislogkit:sequences"))


def test_a_writer_without_the_lease_changes_nothing(stream, command, stream_name):
    joined(stream)
    stream.append([an_entry(1)], EPOCH, PLENTY)
    found = stream.read("app", ">", 10, 0)
    with pytest.raises(LeaseLostError, match="app"):
        confirm(stream, 5, found, p=1)
    assert stream.written("app") == {}
    assert len(stream.read("app", "0", 10, 0)) == 1


@pytest.mark.usefixtures("all_at_once")
def test_a_writer_that_wakes_up_long_after_its_lease_trims_nothing_that_others_need(
    stream, command, stream_name
):
    token = joined(stream, "console@web1")
    lease = f"{{{stream_name}}}:redislogkit:leases"
    command("HSET", lease, "console@web1", f"{token} 1000 me")  # it ran out in 1970, and nobody has taken it
    for number in range(1, 301):
        stream.append([an_entry(number, size=4000)], EPOCH, PLENTY)
    found = stream.read("console@web1", ">", 100, 0)
    confirm(stream, token, found, writer="console@web1", p=100)
    assert sequences(stream.read("console@web1", ">", 1000, 0)) == list(range(101, 301))
    assert "console@web1" in stream.registered_writers()


@pytest.mark.usefixtures("all_at_once")
def test_a_writer_of_a_host_that_is_gone_holds_back_nothing(stream, command, stream_name):
    gone = joined(stream, "console@web2")
    stream.confirm("console@web2", Confirmation(b"", 0, {"p": 0}, (), gone))
    lease = f"{{{stream_name}}}:redislogkit:leases"
    command("HSET", lease, "console@web2", f"{gone} 1000 me")
    token = joined(stream)
    for number in range(1, 301):
        stream.append([an_entry(number, size=4000)], EPOCH, PLENTY)
    confirm(stream, token, stream.read("app", ">", 1000, 0), p=300)
    # It may be the clock that has jumped: it has another ten minutes, which it may keep the lease in.
    assert set(stream.registered_writers()) == {"app", "console@web2"}
    command("HSET", lease, "console@web2", command("HGET", lease, "console@web2").replace(b" 1", b" ", 1))
    stream.append([an_entry(301)], EPOCH, PLENTY)
    confirm(stream, token, stream.read("app", ">", 1000, 0), p=301)
    assert set(stream.registered_writers()) == {"app"}
    assert 1 <= command("XLEN", stream_name) < 120
    assert command("HGET", f"{{{stream_name}}}:redislogkit:sequences", "@writers") == b"app\n"
    assert not [key for key in command("KEYS", f"*{stream_name}*") if b"web2" in key]


def test_a_writer_that_was_only_ever_registered_is_gone_some_day_too(stream, command, stream_name):
    stream.attach(EPOCH, ["app", "console@web2"])
    lease = f"{{{stream_name}}}:redislogkit:leases"
    token = joined(stream)

    def write(number: int) -> None:
        stream.append([an_entry(number)], EPOCH, PLENTY)
        confirm(stream, token, stream.read("app", ">", 10, 0), p=number)

    write(1)
    assert "console@web2" in stream.registered_writers()
    first = command("HGET", lease, "console@web2")
    assert first.startswith(b"0 ")
    assert first.endswith(b" nobody")
    command("HSET", lease, "console@web2", "0 1000 nobody")
    write(2)
    late = command("HGET", lease, "console@web2")
    assert late.endswith(b" nobody late")
    command("HSET", lease, "console@web2", "0 1000 nobody late")
    write(3)
    assert set(stream.registered_writers()) == {"app"}
    # One that comes after all takes the lease that nobody had.
    command("HSET", lease, "console@web2", first)
    assert joined(stream, "console@web2") > 0


def test_a_writer_that_lives_is_not_taken_for_gone_when_the_clock_jumps(stream, command, stream_name):
    lease = f"{{{stream_name}}}:redislogkit:leases"
    console = joined(stream, "console@web2")
    token = joined(stream)
    for number in range(1, 4):
        command("HSET", lease, "console@web2", f"{console} 1000 me")  # the clock has jumped by far
        stream.append([an_entry(number)], EPOCH, PLENTY)
        confirm(stream, token, stream.read("app", ">", 10, 0), p=number)
        assert stream.claim("console@web2", "me", 60.0, console).token == console
    assert "console@web2" in stream.registered_writers()


@pytest.mark.parametrize("day", [-86_400_000, 86_400_000])
def test_a_clock_that_jumps_makes_no_lease_last_longer_and_lets_no_stale_one_pass(
    stream, connect, command, stream_name, day
):
    leases = f"{{{stream_name}}}:redislogkit:leases"

    def shift() -> None:
        token, ends, owner = command("HGET", leases, "app").split(b" ")
        command("HSET", leases, "app", b"%b %d %b" % (token, int(ends) - day, owner))

    stream.join("app")
    mine = stream.claim("app", "web1", 0.2).token
    shift()
    other = connect()
    if day < 0:
        assert other.claim("app", "web2", 0.2).token == 0
        taken = wait_until(lambda: other.claim("app", "web2", 0.2).token, deadline=2.0)
    else:
        taken = other.claim("app", "web2", 0.2).token
    assert taken not in (0, mine)
    assert stream.claim("app", "web1", 0.2, mine).token != mine
    stream.append([an_entry(1)], EPOCH, PLENTY)
    found = stream.read("app", ">", 10, 0)
    with pytest.raises(LeaseLostError):
        confirm(stream, mine, found, p=1)
    assert stream.written("app") == {}


def test_two_claims_in_one_millisecond_of_a_server_without_memory_have_two_tokens(
    stream, command, stream_name, monkeypatch
):
    numbers = iter(range(1000))
    monkeypatch.setattr(random, "randrange", lambda below: next(numbers) % below)
    tokens = []
    for owner in range(50):
        command("DEL", f"{{{stream_name}}}:redislogkit:leases")
        tokens.append(stream.claim("app", f"web{owner}", 10.0).token)
    assert [token % 1000 for token in tokens] == list(range(50))


def test_a_late_read_of_a_fenced_writer_takes_nothing(stream, connect, command, stream_name):
    joined(stream)
    stream.append([an_entry(1)], EPOCH, PLENTY)
    other = connect()
    assert other.claim("app", "me", 60.0).token
    for after in ("0", ">"):
        with pytest.raises(LeaseLostError, match="app"):
            stream.read("app", after, 10, 0.05)
    assert sequences(other.read("app", ">", 10, 0)) == [1]


@pytest.mark.parametrize("lost", ["deleted", "older"])
def test_positions_that_are_no_longer_there_are_asked_for_again(stream, connect, command, stream_name, lost):
    key = f"{{{stream_name}}}:redislogkit:written:app"
    token = joined(stream)
    stream.append([an_entry(1), an_entry(2)], EPOCH, PLENTY)
    stream.confirm("app", Confirmation(b"", 0, {"p": 0, "q": 5}, (), token))
    older = command("DUMP", key)
    confirm(stream, token, stream.read("app", ">", 1, 0), p=1)
    command("RESTORE", key, 0, older, "REPLACE") if lost == "older" else command("DEL", key)
    found = stream.read("app", ">", 10, 0)
    with pytest.raises(GroupMissingError, match="published"):
        confirm(stream, token, found, p=2)
    assert stream.written("app") == ({"p": 0, "q": 5} if lost == "older" else {})
    assert stream.claim("app", "me", 60.0, token).token == token
    with pytest.raises(GroupMissingError, match="published"):
        stream.read("app", ">", 10, 0)
    again = connect()
    token = again.claim("app", "me", 60.0).token
    again.confirm("app", Confirmation(b"", 0, {"p": 2, "q": 5}, (), token))
    assert again.claim("app", "me", 60.0, token).token == token
    assert again.read("app", ">", 10, 0) == []
    confirm(again, token, found, p=2)


# --- join, read, leave -------------------------------------------------------------------------------------


def test_joining_again_changes_nothing(stream):
    token = joined(stream)
    stream.append([an_entry(1)], EPOCH, PLENTY)
    confirm(stream, token, stream.read("app", ">", 10, 0), p=1)
    newest = stream.registered_writers()["app"]
    stream.join("app")
    assert stream.registered_writers() == {"app": newest}
    assert stream.read("app", ">", 10, 0) == []


def test_a_writer_may_begin_behind_an_entry(stream):
    stream.append([an_entry(1)], EPOCH, PLENTY)
    stream.join("app", "$")
    stream.append([an_entry(2)], EPOCH, PLENTY)
    assert sequences(stream.read("app", ">", 10, 0)) == [2]


@pytest.mark.parametrize("after", [">", "0"])
@pytest.mark.parametrize(("count", "size", "enough"), [(400, 10, 14), (1, 30_000, 4)])
def test_a_reading_of_large_entries_has_few_of_them_and_the_next_one_goes_on(
    stream, count, size, enough, after
):
    joined(stream)
    small = [an_entry(n) for n in range(1, 301)]
    large = [an_entry(301 + n * count, count, size=size) for n in range(60)]
    stream.append([*small, *large], EPOCH, PLENTY)
    found: list[client.RawEntry] = []
    if after == "0":  # those that are pending
        while stream.read("app", ">", 1000, 0.0):
            pass
    lengths = []
    while part := stream.read(
        "app", after if after == ">" or not found else found[-1][0].decode(), 1000, 0.0
    ):
        found += part
        lengths.append(len(part))
    assert sequences(found) == list(range(1, 301 + 60 * count))
    assert lengths[0] >= 300
    assert all(1 <= length <= enough + 16 for length in lengths[1:])
    assert len(stream.read("app", "0", 3, 0.0)) == 3


def test_what_was_read_and_not_confirmed_is_read_again(stream, connect):
    stream.join("app")
    stream.append([an_entry(1), an_entry(2)], EPOCH, PLENTY)
    assert sequences(stream.read("app", ">", 10, 0)) == [1, 2]
    again = connect()
    assert sequences(again.read("app", "0", 10, 0)) == [1, 2]
    assert again.read("app", ">", 10, 0) == []


def test_a_pending_entry_that_was_removed_has_no_fields(stream, command, stream_name):
    stream.join("app")
    stream.append([an_entry(1), an_entry(2)], EPOCH, PLENTY)
    first = stream.read("app", ">", 10, 0)[0][0]
    command("XDEL", stream_name, first)
    assert stream.read("app", "0", 10, 0)[0] == (first, {})


def test_reading_waits_for_an_entry_and_not_longer_than_asked(stream, connect):
    stream.join("app")
    begin = time.monotonic()
    assert stream.read("app", ">", 10, 0.1) == []
    assert 0.09 <= time.monotonic() - begin < 3.0


@pytest.mark.usefixtures("all_at_once")
def test_leaving_frees_the_stream_from_a_writer(stream, command, stream_name):
    token = joined(stream)
    joined(stream, "gone")
    assert stream.leave("gone") is True
    assert stream.leave("gone") is False
    assert set(stream.registered_writers()) == {"app"}
    for number in range(1, 301):
        stream.append([an_entry(number, size=4000)], EPOCH, PLENTY)
    confirm(stream, token, stream.read("app", ">", 1000, 0), p=300)
    assert command("XLEN", stream_name) < 120
    with pytest.raises(GroupMissingError):
        stream.read("gone", ">", 10, 0)


def test_leaving_a_stream_that_is_gone_is_no_error(connect, command, stream_name):
    one = connect()
    assert one.leave("app") is False


def test_a_missing_group_and_a_missing_stream_are_told_apart_from_a_server_that_is_away(
    stream, command, stream_name
):
    with pytest.raises(GroupMissingError):
        stream.read("nobody", ">", 10, 0)
    stream.join("app")
    command("DEL", stream_name)
    with pytest.raises(GroupMissingError):
        stream.read("app", ">", 10, 0)


def test_deleting_the_stream_leaves_no_key(stream, command, stream_name):
    token = joined(stream)
    stream.append([an_entry(1)], EPOCH, PLENTY)
    stream.confirm("app", Confirmation(b"", 0, {"p": 1}, (), token))
    assert len(command("KEYS", f"*{stream_name}*")) == 5
    stream.delete_stream()
    assert command("KEYS", f"*{stream_name}*") == []


def test_the_scripts_are_loaded_again_when_the_server_has_forgotten_them(stream, command):
    command("SCRIPT", "FLUSH")
    assert stream.append([an_entry(1)], EPOCH, PLENTY) == 1


# --- a server that can not serve ---------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["stream", "sequences", "writers", "written:app", "leases"])
def test_a_key_of_another_type_is_no_bad_record(connect, command, stream_name, what):
    one = connect()
    one.attach(EPOCH)
    token = joined(one)
    one.append([an_entry(1)], EPOCH, PLENTY)
    found = one.read("app", ">", 1, 0)
    key = stream_name if what == "stream" else f"{{{stream_name}}}:redislogkit:{what}"
    command("SET", key, "somebody else's")
    failed = []
    for call in (
        lambda: one.attach("e2", ["app"]),
        lambda: one.append([an_entry(2)], EPOCH, PLENTY),
        lambda: one.join("app"),
        lambda: one.positions(["p"], ["app"]),
        lambda: one.read("app", ">", 1, 0),
        lambda: confirm(one, token, found, p=1),
    ):
        try:
            call()
        except ServerAwayError as error:
            failed.append(str(error))
    assert failed
    assert all("WRONGTYPE" in text or "wrong kind of value" in text for text in failed)
    assert command("GET", key) == b"somebody else's"
    command("DEL", key)


def test_a_server_without_memory_is_away_and_takes_the_same_batch_later(own_server, stream_name):
    one = StreamClient(own_server.url, stream_name)
    one.attach(EPOCH)
    entry = an_entry(1, 3)
    own_server.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(ServerAwayError, match=r"used memory > 'maxmemory'$"):
        one.append([entry, an_entry(4)], EPOCH, PLENTY)
    own_server.command("CONFIG", "SET", "maxmemory", "0")
    assert one.append([entry, an_entry(4)], EPOCH, PLENTY) == 2
    assert own_server.command("XLEN", stream_name) == 2
    one.close()


@pytest.mark.usefixtures("all_at_once")
def test_a_server_without_memory_lets_writers_make_room_and_tells_positions(own_server, stream_name):
    shipper, writer = (StreamClient(own_server.url, stream_name) for _ in range(2))
    shipper.attach(EPOCH, ["app"])
    joined(writer)
    for number in range(1, 301):
        shipper.append([an_entry(number, size=4000)], EPOCH, PLENTY)
    own_server.command("CONFIG", "SET", "maxmemory", "1")
    writer.close()
    writer = StreamClient(own_server.url, stream_name)
    writer.join("app")
    writer.join("another")
    token = writer.claim("app", "me", 60.0).token
    assert writer.claim("app", "me", 60.0, token).token == token
    writer.confirm("app", Confirmation(b"", 0, {"p": 0}, (), token))
    found = writer.read("app", ">", 1000, 0)
    assert writer.leave("another")
    confirm(writer, token, found, p=300)
    shipper.close()
    shipper = StreamClient(own_server.url, stream_name)
    assert shipper.attach("e2", ["app"]) == EPOCH
    assert shipper.positions(["p"], ["app"]) == (EPOCH, {"p": Position(300, 300)})
    for _ in range(3):
        with pytest.raises(ServerAwayError, match="maxmemory"):
            shipper.append([an_entry(301)], EPOCH, PLENTY)
    own_server.command("CONFIG", "SET", "maxmemory", "0")
    assert shipper.append([an_entry(301)], EPOCH, PLENTY) == 1
    assert own_server.command("XLEN", stream_name) < 120
    for one in (shipper, writer):
        one.close()


REFUSED = [
    "hset",
    "xadd",
    "hget",
    "hmget",
    "exists",
    "xrange",
    "xack",
    "xtrim",
    "hgetall",
    "xgroup",
    "hsetnx",
    "hdel",
]


@pytest.mark.parametrize("refused", REFUSED)
def test_a_script_that_is_refused_half_way_leaves_nothing_half_done(own_server, stream_name, refused):
    own_server.command("ACL", "SETUSER", "limited", "on", ">pw", "~*", "&*", "+@all")
    url = f"{own_server.url}{'&' if '?' in own_server.url else '?'}username=limited&password=pw"
    one, plain = StreamClient(url, stream_name), StreamClient(own_server.url, stream_name)
    plain.attach(EPOCH, ["app"])
    token = joined(plain)
    plain.append([an_entry(1)], EPOCH, PLENTY)
    found = plain.read("app", ">", 10, 0)
    own_server.command("ACL", "SETUSER", "limited", f"-{refused}")
    refusals = 0
    for call in (
        lambda: confirm(one, token, found, p=1),
        lambda: one.append([an_entry(2), an_entry(3)], EPOCH, PLENTY),
        lambda: one.attach("e2", ["app", "late"]),
        lambda: one.join("later"),
        lambda: one.claim("later", "me", 60.0),
    ):
        for _ in range(2):
            try:
                call()
            except ServerAwayError:
                refusals += 1
    assert refusals or refused == "hsetnx"
    own_server.command("ACL", "SETUSER", "limited", "+@all")
    assert one.append([an_entry(2), an_entry(3)], EPOCH, PLENTY) in (0, 2)
    with plain_client(own_server.url) as connection:
        assert stored(connection.execute_command, stream_name) == [1, 2, 3]
        memory = connection.hgetall(f"{{{stream_name}}}:redislogkit:sequences")
    assert (memory[b"p"], memory[b"@added"]) == (b"3", b"3")
    for client_ in (one, plain):
        client_.close()


def test_an_entry_that_is_refused_does_not_take_its_neighbours_with_it(stream, command, stream_name):
    wrong = batch.Entry([b"k", b"v", b"odd"], [("p", 2)], 1)
    for _ in range(3):
        with pytest.raises(ServerAwayError, match="wrong number of arguments"):
            stream.append([an_entry(1), wrong, an_entry(3)], EPOCH, PLENTY)
    assert stored(command, stream_name) == [1]
    memory = f"{{{stream_name}}}:redislogkit:sequences"
    assert command("HMGET", memory, "p", "@added") == [b"1", b"1"]
    assert stream.append([an_entry(2), an_entry(3)], EPOCH, PLENTY) == 2


def test_a_password_is_asked_for_and_never_shown(own_server, stream_name):
    own_server.command("CONFIG", "SET", "requirepass", "s3cret")
    try:
        nobody = StreamClient(own_server.url, stream_name)
        with pytest.raises(ServerAwayError, match=r"NOAUTH|Authentication required"):
            nobody.ping()
        wrong = StreamClient(
            f"{own_server.url}{'&' if '?' in own_server.url else '?'}password=wr0ng", stream_name
        )
        with pytest.raises(ServerAwayError) as refused:
            wrong.attach(EPOCH)
        right = StreamClient(
            f"{own_server.url}{'&' if '?' in own_server.url else '?'}password=s3cret", stream_name
        )
        right.ping()
        for one in (nobody, wrong, right):
            one.close()
    finally:
        with plain_client(
            f"{own_server.url}{'&' if '?' in own_server.url else '?'}password=s3cret"
        ) as connection:
            connection.execute_command("CONFIG", "SET", "requirepass", "")
    assert "wr0ng" not in complete_text(refused.value)


def complete_text(error: BaseException | None) -> str:
    """Everything that a traceback would show of an error."""
    text = ""
    while error is not None:
        text += f"{error!r} {error}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return text


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:s3cret@127.0.0.1:1/0",
        "redis://:s3cret@127.0.0.1:1/0",
        "rediss://:s3cret@127.0.0.1:1/0",
        "unix://:s3cret@/nonexistent/socket",
        "redis://:s3cret@nonexistent.invalid:1/0",
    ],
)
def test_credentials_are_in_no_message_of_a_server_that_is_not_there(url):
    one = StreamClient(url, "app", timeout=0.5)
    begin = time.monotonic()
    with pytest.raises(ServerAwayError) as away:
        one.ping()
    assert time.monotonic() - begin < 3.0
    assert "s3cret" not in complete_text(away.value)
    one.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://:s3cret@host",
        "redis://:s3cret#s3cret@host:6379/0",
        "redis://u:s3cret@h:s3cret/0",
        "s3cret@host",
        "",
    ],
)
def test_a_url_that_is_none_is_explained_without_its_credentials(url):
    with pytest.raises(ConfigError, match=r"redis\.url") as wrong:
        StreamClient(url, "app")
    assert "s3cret" not in complete_text(wrong.value)


def test_a_stalled_server_is_away_in_bounded_time_and_nothing_is_doubled(own_server, stream_name):
    one = StreamClient(own_server.url, stream_name, timeout=0.3)
    one.attach(EPOCH)
    own_server.pause()
    for _ in range(3):
        begin = time.monotonic()
        with pytest.raises(ServerAwayError):
            one.append([an_entry(1, 5)], EPOCH, PLENTY)
        assert time.monotonic() - begin < 3.0
    own_server.resume()
    wait_until(lambda: answers(one), what="the server answers again")
    assert one.append([an_entry(1, 5)], EPOCH, PLENTY) in (0, 1)
    assert own_server.command("XLEN", stream_name) == 1
    one.close()


def answers(one: StreamClient) -> bool:
    try:
        one.ping()
    except ServerAwayError:
        return False
    return True


def test_a_lost_reply_is_no_reason_for_a_second_entry(tmp_path, reaped, stream_name):
    server = TcpServer(str(tmp_path))
    proxy = Proxy(server.port)
    try:
        one = StreamClient(f"redis://127.0.0.1:{proxy.port}/0", stream_name, timeout=0.3)
        one.attach(EPOCH)
        one.append([an_entry(1)], EPOCH, PLENTY)
        proxy.deafen()
        with pytest.raises(ServerAwayError):
            one.append([an_entry(2, 5)], EPOCH, PLENTY)
        assert server.connection.xlen(stream_name) == 2
        proxy.heal()
        proxy.cut()
        wait_until(lambda: answers(one), what="the way to the server is free")
        assert one.append([an_entry(2, 5)], EPOCH, PLENTY) == 0
        assert server.connection.xlen(stream_name) == 2
        one.close()
    finally:
        proxy.close()
        server.stop()


def test_a_killed_server_is_away_and_comes_back_with_what_it_had(
    own_server: Server, stream_name: str
) -> None:
    one = StreamClient(own_server.url, stream_name)
    one.attach(EPOCH)
    one.append([an_entry(1)], EPOCH, PLENTY)
    own_server.settle()
    own_server.kill()
    with pytest.raises(ServerAwayError):
        one.append([an_entry(2)], EPOCH, PLENTY)
    own_server.start()
    assert one.append([an_entry(1), an_entry(2)], EPOCH, PLENTY) == 1
    one.close()


def test_a_flushed_server_has_lost_the_epoch(own_server, stream_name):
    one = StreamClient(own_server.url, stream_name)
    one.attach(EPOCH)
    token = joined(one)
    one.append([an_entry(1)], EPOCH, PLENTY)
    own_server.flush()
    assert one.append([an_entry(2)], EPOCH, PLENTY) == LOST
    assert one.positions(["p"], ["app"]) == ("", {"p": Position(0, 0)})
    with pytest.raises(GroupMissingError):
        one.read("app", ">", 1, 0)
    with pytest.raises(LeaseLostError):
        one.confirm("app", Confirmation(b"", 0, {"p": 1}, (), token))
    one.close()


@contextlib.contextmanager
def listener(answer: bytes, *, once: bool = False) -> Iterator[int]:
    """A port on which every request gets the same answer; ``once``: and then the end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = server.accept()
                    with connection:
                        connection.settimeout(0.05)
                        speak(connection)

        def speak(connection: socket.socket) -> None:
            while not stop.is_set():
                try:
                    if not connection.recv(65536):
                        return
                except TimeoutError:
                    continue
                connection.sendall(answer)
                if once:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize(
    "error",
    [
        "LOADING",
        "READONLY",
        "CLUSTERDOWN",
        "TRYAGAIN",
        "MOVED 1 h:1",
        "MISCONF",
        "BUSY",
        "MASTERDOWN",
        "NOPERM",
    ],
)
def test_whatever_a_server_says_of_itself_means_away(error):
    with listener(f"-{error} not now\r\n".encode()) as port:
        one = StreamClient(f"redis://127.0.0.1:{port}/0", "app", timeout=1.0)
        with pytest.raises(ServerAwayError):
            one.append([an_entry(1)], EPOCH, PLENTY)
        one.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"$-",
        b"hello\r\n",
        b"*99999999\r\n",
        b"\x00" * 100,
        b"*x\r\n",
        b":x\r\n",
        b"-MOVED to nowhere\r\n",
    ],
)
def test_a_server_that_speaks_something_else_is_away(answer):
    with listener(answer, once=True) as port:
        one = StreamClient(f"redis://127.0.0.1:{port}/0", "app", timeout=0.5)
        begin = time.monotonic()
        with pytest.raises(ServerAwayError):
            one.positions(["p"], [])
        assert time.monotonic() - begin < 3.0
        one.close()


def test_the_overview_tells_how_far_each_writer_is_in_time(stream):
    stream.join("app")
    stream.append([an_entry(1, 3)], EPOCH, PLENTY)
    time.sleep(0.002)  # entries of different milliseconds
    stream.append([an_entry(4, 2)], EPOCH, PLENTY)
    before = stream.overview()
    assert before.behind("app") == 5
    assert 0 < before.lag("app") <= before.oldest_unread("app") < 60
    assert 0 <= time.time() - before.newest < 60

    token = stream.claim("app", "web1", 60).token
    (first, _), (second, _) = stream.read("app", ">", 10, 0)
    stream.confirm("app", Confirmation(first, 3, {"p": 3}, [first], token))
    behind = stream.overview()
    assert behind.behind("app") == 2
    assert behind.lag("app") > 0

    stream.confirm("app", Confirmation(second, 5, {"p": 5}, [second], token))
    after = stream.overview()
    assert (after.behind("app"), after.lag("app"), after.oldest_unread("app")) == (0, 0.0, 0.0)


def test_a_descriptor_that_can_be_read_ends_the_waiting_for_records(stream):
    stream.join("app")
    reading, writing = os.pipe()
    try:
        threading.Timer(0.05, os.write, [writing, b"."]).start()
        with pytest.raises(client.WokenError):
            stream.read("app", ">", 10, 60.0, (reading,))
    finally:
        os.close(reading)
        os.close(writing)


# -- levels -----------------------------------------------------------------------------------------


def test_a_level_is_told_until_it_is_over_or_taken_back(stream, command, stream_name):
    found = stream.levels()
    assert found is not None and not found.changes
    end = stream.set_level("shop", 10, 60.0, "me@web1")
    stream.set_level("short", 30, 0.001, "me@web1")
    found = stream.levels()
    assert found is not None
    assert dict(found.changes) in (
        {"shop": (10, end, "me@web1")},
        {"shop": (10, end, "me@web1"), "short": ANY},
    )
    assert found.now == pytest.approx(end - 60, abs=30)
    wait_until(lambda: "short" not in stream.levels().changes, what="the end of a short time")
    assert 0 < command("PTTL", f"{{{stream_name}}}:redislogkit:levels") <= 60_000
    assert stream.reset_level("shop")
    assert not stream.reset_level("shop")


def test_a_level_that_is_over_is_removed_with_the_next_change(stream, command, stream_name):
    key = f"{{{stream_name}}}:redislogkit:levels"
    stream.set_level("short", 30, 0.001, "me")
    stream.set_level("long", 30, 60.0, "me")
    wait_until(lambda: "short" not in stream.levels().changes, what="the end of a short time")
    stream.set_level("other", 30, 1.0, "me")
    assert sorted(command("HKEYS", key)) == [b"long", b"other"]
    assert command("PTTL", key) > 30_000


def test_what_stands_there_and_is_no_level_is_passed_over(stream, command, stream_name):
    key = f"{{{stream_name}}}:redislogkit:levels"
    stream.set_level("good", 30, 60.0, "me")
    command(
        "HSET",
        key,
        b"\xff",
        "10 99999999999999 x",
        "b",
        "x",
        "c",
        "10 9 ",
        "d",
        "99999999999 99999999999999 x",
    )
    assert sorted(stream.levels().changes) == ["\\xff", "good"]


def test_levels_that_can_not_be_read_are_none(stream, command, stream_name):
    command("SET", f"{{{stream_name}}}:redislogkit:levels", "x")
    assert stream.levels() is None
    stream.ping()


def test_all_scripts_are_read_with_the_first_one(stream, monkeypatch):
    """A shipper whose descriptors are used up goes on, also with a script that it has not needed before."""
    monkeypatch.setattr("importlib.resources.files", lambda package: pytest.fail("a script is read late"))
    assert stream.levels() is not None

"""A server that loses a part of its memory, or goes back to an earlier state, behind an open connection."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from redislogkit.ship import shipper
from redislogkit.spool.producer_end import ProducerEnd
from redislogkit.writers import base
from tests.helpers.path import Path
from tests.helpers.server import client as plain_client
from tests.helpers.waiting import wait_until


@pytest.fixture
def command(server_url: str) -> Iterator[Callable[..., Any]]:
    with plain_client(server_url) as connection:
        yield connection.execute_command


@pytest.fixture
def paths(state_dir, server_url, stream_name, monkeypatch) -> Iterator[Callable[..., Path]]:
    monkeypatch.setattr(base, "LEASE", 0.6)
    made: list[Path] = []

    def make(*writers: str, **settings: Any) -> Path:
        made.append(Path(state_dir, server_url, stream_name, *writers, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def path(paths: Callable[..., Path]) -> Path:
    return paths()


def snapshot(command: Callable[..., Any], path: Path) -> dict[bytes, bytes]:
    """All keys of the stream, as they are."""
    return {key: command("DUMP", key) for key in command("KEYS", f"*{path.stream}*")}


def restore(command: Callable[..., Any], path: Path, kept: dict[bytes, bytes]) -> None:
    """Put the server back to what it was, in one step and without a connection cut."""
    script = (
        "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end "
        "for i, key in ipairs(KEYS) do redis.call('RESTORE', key, 0, ARGV[i + 1]) end"
    )
    command("EVAL", script, len(kept), *kept, f"*{path.stream}*", *kept.values())


def spools(path: Path) -> list[str]:
    return [name for name in os.listdir(path.root) if not name.startswith(".")]


MEMORIES = ["written:app", "sequences", "leases", "writers"]


@pytest.mark.parametrize("name", MEMORIES)
def test_a_part_of_the_memory_that_is_lost_while_records_flow_costs_and_doubles_nothing(path, command, name):
    path.start()
    busy, quiet = path.producer(), path.producer()
    path.log(quiet, 50)
    for _ in range(20):
        path.log(busy, 50)
        command("DEL", path.key(name))
    path.check()


@pytest.mark.parametrize("name", MEMORIES)
def test_a_part_of_the_memory_that_is_lost_while_all_is_quiet_holds_nothing_for_ever(path, command, name):
    path.start()
    quiet, dying = path.producer(), path.producer()
    path.log(quiet, 10)
    path.log(dying, 10)
    path.check()
    path.stop("shipper")  # which has not seen all positions yet
    path.log(quiet, 10)
    path.log(dying, 10)
    path.start("shipper")
    wait_until(lambda: path.lines() >= path.expected, what="the file has all")
    path.stop("shipper")
    command("DEL", path.key(name))
    path.start("shipper")
    path.check()
    dying.close()
    wait_until(lambda: len(spools(path)) == 1, what="the spool of the one that has gone is buried")
    path.check()
    lines = [line for line in path.reports if "published" in line]
    assert len(lines) == (name == "written:app")


def test_the_slowest_writer_misses_nothing_when_the_list_of_writers_is_lost(paths, command):
    path = paths("app", "slow", max_records=100_000)
    path.start("shipper", "app", "slow")
    end = path.producer()
    path.log(end, 10)
    path.check()
    path.stop("slow")
    path.log(end, 200, size=4000)
    wait_until(lambda: path.lines("app") >= path.expected, what="the quick one has all")
    command("DEL", path.key("writers"))
    path.log(end, 200, size=4000)
    wait_until(lambda: path.lines("app") >= path.expected, what="the quick one has all")
    path.start("slow")
    path.check()


def test_without_its_list_of_writers_the_stream_is_not_cut_to_its_bound(paths, command):
    path = paths(max_records=20)
    path.start()
    end = path.producer()
    path.log(end, 10)
    path.check()
    path.stop("app")
    command("DEL", path.key("writers"))
    for _ in range(300):
        path.log(end, 1)
        if not shipped(end, within=0.2):
            break
    assert end.position(False) <= 50
    path.start("app")
    path.check()


def shipped(end: ProducerEnd, *, within: float) -> bool:
    deadline = time.monotonic() + within
    while end.position(False) < end.sequence and time.monotonic() < deadline:
        time.sleep(0.001)
    return end.position(False) >= end.sequence


def test_an_earlier_state_of_the_server_is_noticed_by_the_next_record(path, command):
    path.start()
    busy, quiet = path.producer(), path.producer()
    path.log(busy, 100)
    path.log(quiet, 100)
    path.check()
    kept = snapshot(command, path)
    path.log(busy, 50)
    path.log(quiet, 50)
    path.check()
    path.stop("app")  # what comes now is in the stream only
    path.log(busy, 50)
    path.log(quiet, 50)
    late = path.producer()
    path.log(late, 50)
    wait_until(
        lambda: all(end.position(False) >= end.sequence for end in path.ends), what="it is in the stream"
    )
    restore(command, path, kept)
    path.log(late, 10)  # a producer that the earlier state knows nothing of
    path.start("app")
    path.check()
    assert [line for line in path.reports if "lost its memory" in line] == [
        "shipper: redis has lost its memory of the stream; everything that is not written yet is sent again"
    ]


def test_an_earlier_state_of_the_server_is_noticed_while_all_is_quiet(path, command):
    path.start()
    end = path.producer()
    path.log(end, 100)
    path.check()
    kept = snapshot(command, path)
    path.stop("app")
    path.log(end, 50)
    wait_until(lambda: end.position(False) >= 150, what="it is in the stream")
    restore(command, path, kept)
    path.start("app")
    path.check()


def test_positions_that_are_restored_from_an_earlier_state_are_published_again(path, command):
    path.start()
    end, dying = path.producer(), path.producer()
    path.log(end, 100)
    path.log(dying, 100)
    path.check()
    kept = snapshot(command, path)
    path.stop("shipper")
    path.log(dying, 50)
    path.start("shipper")
    wait_until(lambda: path.lines() >= path.expected, what="the file has all")
    path.stop("shipper")
    dying.close()
    restore(command, path, kept)
    path.start("shipper")
    wait_until(lambda: len(spools(path)) == 1, what="the spool of the one that has gone is buried")
    path.check()


def forget(command: Callable[..., Any], path: Path) -> None:
    for key in command("KEYS", f"*{path.stream}*"):
        command("DEL", key)


def log_one(path: Path, end: ProducerEnd) -> None:
    """Log a record that makes an entry of its own."""
    path.log(end, 1)
    wait_until(lambda: end.position(True) >= end.sequence, what="it is in the stream")


def told_as_lost(path: Path) -> list[tuple[int, int, str]]:
    """First and last sequence and producer of each loss that the file has a line for."""
    found = re.findall(
        r"(?m)sequences? (\d+)(?: to (\d+))? of producer (\w+).*not in the stream", "\n".join(path.lines())
    )
    return sorted((int(first), int(last or first), producer) for first, last, producer in found)


@pytest.mark.parametrize("noticed_by", ["the same shipper", "the next shipper"])
def test_what_redis_lost_before_any_writer_had_seen_it_is_named_where_redis_is_trusted(
    paths, command, noticed_by
):
    path = paths(ack="stream")
    path.start("shipper", "app")
    early, quiet = path.producer(), path.producer()
    path.log(early, 10)
    path.log(quiet, 10)
    wait_until(lambda: path.lines() >= path.expected, what="the file has all")
    path.stop("app")
    late, gone = path.producer(), path.producer()
    for end, count in ((early, 20), (late, 50), (gone, 5)):
        for _ in range(count):
            log_one(path, end)
    if noticed_by == "the next shipper":
        path.stop("shipper")
    forget(command, path)
    before = dict(path.expected)
    if noticed_by == "the next shipper":
        path.start("shipper")
    path.log(late, 3)  # 51 to 53
    gone.close()
    path.start("app")
    lost = [(1, 5, gone.producer), (1, 50, late.producer), (11, 30, early.producer)]
    wait_until(lambda: told_as_lost(path) == sorted(lost), what=f"the loss is told; {path.lines()}")
    wait_until(
        lambda: all(path.lines()[text] for text in path.expected if text not in before), what="the rest"
    )
    assert max(path.lines().values()) == 1
    # Whoever comes again, and whoever loses its memory again, tells nothing twice.
    path.stop("shipper", "app")
    forget(command, path)
    path.start("shipper", "app")
    for end in (early, quiet, late):
        path.log(end, 1)
    wait_until(
        lambda: all(
            path.lines()[f"{end.producer}-{end.sequence}".ljust(40, ".")] for end in (early, quiet, late)
        ),
        what="all go on",
    )
    assert told_as_lost(path) == sorted(lost)
    assert max(path.lines().values()) == 1


def test_an_earlier_state_names_exactly_what_it_lacks_where_redis_is_trusted(paths, command):
    path = paths(ack="stream")
    path.start("shipper", "app")
    end = path.producer()
    path.log(end, 1)
    wait_until(lambda: path.lines() >= path.expected, what="the file has it")
    path.stop("app")
    late = path.producer()

    for _ in range(10):
        log_one(path, late)
    kept = snapshot(command, path)
    for _ in range(20):
        log_one(path, late)
    restore(command, path, kept)
    path.log(late, 5)  # 31 to 35
    path.start("app")
    wait_until(lambda: sum(path.lines().values()) >= 1 + 10 + 1 + 5, what="the rest is written")
    assert told_as_lost(path) == [(11, 30, late.producer)]
    assert max(path.lines().values()) == 1


def test_a_writer_that_joins_late_says_nothing_of_what_it_was_never_to_see(paths, command):
    path = paths("app", "late", ack="stream")
    path.writers = ("app",)  # so far
    path.start("shipper", "app")
    ends = [path.producer() for _ in range(3)]
    for _ in range(40):
        for end in ends:
            path.log(end, 10, size=2000)
    wait_until(lambda: path.lines() >= path.expected, what="the first one has all")
    assert command("XLEN", path.stream) < 110  # the oldest are trimmed
    path.stop("shipper")
    path.writers = ("app", "late")
    path.start("shipper", "late")
    before = dict(path.expected)
    for end in ends:
        path.log(end, 10)
    new = [text for text in path.expected if text not in before]
    wait_until(lambda: all(path.lines("late")[text] for text in new), what="the late one has what is new")
    assert not [line for line in path.lines("late") if "not in the stream" in line]


@pytest.mark.parametrize("stranger", [False, True])
def test_a_stream_that_is_deleted_alone_comes_again_also_when_a_stranger_was_quicker(path, command, stranger):
    path.start("shipper")
    end = path.producer()
    path.log(end, 300)
    wait_until(lambda: end.position(False) >= 300, what="it is in the stream")
    command("DEL", path.stream)
    if stranger:
        command("XADD", path.stream, "*", "v", "of another program")
    path.start("app")
    path.check()


def test_a_flushed_server_is_one_line_of_each_and_no_hot_loop(path, command):
    path.start()
    end = path.producer()
    path.log(end, 100)
    path.check()
    for key in command("KEYS", f"*{path.stream}*"):
        command("DEL", key)
    calls = command("INFO", "commandstats")["cmdstat_evalsha"]["calls"]
    path.log(end, 100)
    path.check()
    assert command("INFO", "commandstats")["cmdstat_evalsha"]["calls"] - calls < 300
    assert sum("lost its memory" in line for line in path.reports) == 1
    assert sum(line.startswith("app:") for line in path.reports) <= 1


def test_what_a_stream_without_writers_has_no_room_for_is_said_once(
    state_dir, server_url, stream_name, command
):
    path = Path(state_dir, server_url, stream_name, max_records=50)
    path.writers = ()
    path.start("shipper")
    end = path.producer()
    for _ in range(20):
        path.log(end, 10)
        wait_until(lambda: end.position(True) >= end.sequence, what="the stream has them")
    path.close()
    assert command("XLEN", stream_name) <= 50
    (line,) = [line for line in path.reports if "dropped from the stream" in line]
    assert "max_records = 50" in line


#: Commands that make a server refuse, and those that end it.
REFUSALS = {
    "OOM": (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]),
    "READONLY": (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]),
    "NOPERM": (["ACL", "SETUSER", "default", "-evalsha"], ["ACL", "SETUSER", "default", "+@all"]),
    "NOREPLICAS": (
        ["CONFIG", "SET", "min-replicas-to-write", "1"],
        ["CONFIG", "SET", "min-replicas-to-write", "0"],
    ),
    "MAXCLIENTS": (["CONFIG", "SET", "maxclients", "1"], ["CONFIG", "SET", "maxclients", "1000"]),
}


@pytest.mark.parametrize("error", list(REFUSALS))
def test_a_server_that_refuses_is_waited_for_and_reported_once(
    own_server, state_dir, stream_name, monkeypatch, error
):
    monkeypatch.setattr(base, "LEASE", 0.6)
    monkeypatch.setattr(base, "_PATIENCE", 0.0)
    monkeypatch.setattr(shipper, "_PATIENCE", 0.0)
    path = Path(state_dir, own_server.url, stream_name)
    with plain_client(own_server.url) as connection:
        command = connection.execute_command
        refuse, allow = REFUSALS[error]
        try:
            path.start()
            end = path.producer()
            path.log(end, 100)
            path.check()
            command(*refuse)
            if error == "MAXCLIENTS":
                command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            path.log(end, 100)
            wait_until(lambda: path.reports, what="somebody says why he waits")
            path.log(end, 100)
            time.sleep(0.3)  # as long as it lasts it is the same line
            told = list(path.reports)
            command(*allow)
            path.check()
        finally:
            path.close()
    assert max(Counter(told).values()) == 1, told
    assert len(told) <= 4  # with MAXCLIENTS the server's reason and the socket's come in turn

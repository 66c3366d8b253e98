"""The shipper's loop against a stream in memory that can fail in every way a server can."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator

import pytest

from redislogkit import levels, record
from redislogkit.levels import Change, Found
from redislogkit.record import End, Facts, Loss, Record
from redislogkit.ship import shipper as shipping
from redislogkit.ship import spools
from redislogkit.ship.shipper import Shipper, ShipperSettings, StreamEnd
from redislogkit.spool import header, segment
from redislogkit.spool.doorbell import Doorbell
from redislogkit.spool.producer_end import ProducerEnd, SpoolSettings
from redislogkit.spool.shipper_end import Run, ShipperEnd
from redislogkit.stream import batch
from redislogkit.stream.client import FULL, LOST, StreamClient
from tests.helpers.memory_stream import MemoryServer
from tests.helpers.waiting import wait_until


def facts(producer: str, *, ships_itself: bool = False) -> Facts:
    return Facts(
        producer=producer, host="h", pid=1, process_name="p", started=0.0, uid=0, ships_itself=ships_itself
    )


class Bench:
    """One state directory with producers, a server, and shippers."""

    def __init__(self, folder: str) -> None:
        self.root = os.path.join(folder, "spool")
        os.makedirs(self.root)
        self.bell = Doorbell(os.path.join(folder, "doorbell"))
        self.bell_path = os.path.join(folder, "doorbell")
        self.server = MemoryServer()
        self.reports: list[str] = []
        self._open: list[Shipper] = []

    def producer(self, name: str = "", *, ships_itself: bool = False) -> ProducerEnd:
        settings = SpoolSettings(
            root=self.root, doorbell=self.bell_path, max_bytes=2**26, on_full="drop_new", block_timeout=0,
            shed_level=10,
        )  # fmt: skip
        end = ProducerEnd(settings, lambda producer: facts(producer, ships_itself=ships_itself))
        end.producer = name or end.producer
        return end

    def shipper(self, **settings: object) -> Shipper:
        values: dict[str, object] = {
            "root": self.root, "flush_interval": 0.0, "buffer_size": 1000, "max_records": 10**7,
            "writers": ("app",),
        }  # fmt: skip
        made = Shipper(
            ShipperSettings(**{**values, **settings}),  # type: ignore[arg-type]
            self.server.connect,
            lambda runs: [batch.encode(runs, "none", bytes)],
            self.bell,
            self.reports.append,
        )
        self._open.append(made)
        return made

    def close(self) -> None:
        for made in self._open:
            made.close()
        self.bell.close()

    def shipped(self) -> list[tuple[str, int]]:
        """Producer and number of each record in the stream, in order."""
        return [(p, item.lineno) for p, _, item in self.server.items() if isinstance(item, Record)]

    def spools(self) -> list[str]:
        return sorted(os.listdir(self.root))


def log(end: ProducerEnd, *numbers: int, size: int = 0) -> None:
    for n in numbers:
        end.append(record.encode(record.build(1.0, 30, "WARNING", "x", "m" * size, "", n, "", 1, "T")), 30)


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Iterator[Bench]:
    monkeypatch.setattr(shipping, "_HOUSEKEEPING", 0.0)
    monkeypatch.setattr(shipping, "_POSITIONS_PAUSE", 0.0)
    made = Bench(str(tmp_path))
    yield made
    made.close()


def until(shipper: Shipper, condition: Callable[[], object], *, draining: bool = False) -> None:
    def stepped() -> object:
        shipper.step(draining=draining)
        return condition()

    wait_until(stepped, what="what the shipper should come to")


# -- the contract of the stream's end ---------------------------------------------------------------


@pytest.fixture(params=["memory", "real"])
def connect(request, stream_name) -> Iterator[Callable[[], StreamEnd]]:
    """Connections to one stream."""
    if request.param == "memory":
        yield MemoryServer().connect
        return
    url = request.getfixturevalue("server_url")
    yield lambda: StreamClient(url, stream_name)
    client = StreamClient(url, stream_name)
    client.delete_stream()
    client.close()


def entry(producer: str, first: int, count: int = 1) -> batch.Entry:
    payloads = [record.encode(Loss(1, 1, "x", 1.0))] * count
    return batch.encode([batch.RawRun(facts(producer), first, payloads)], "none", bytes)


class TestContract:
    """What the shipper relies on, of the double and of the real client."""

    def test_an_epoch_stays_and_is_everybodys(self, connect):
        client, other = connect(), connect()
        assert client.attach("e1", []) == "e1"
        assert client.attach("e2", []) == other.attach("e3", []) == "e1"
        client.close()
        other.close()

    def test_an_entry_is_added_once(self, connect):
        client = connect()
        client.attach("e1", [])
        assert client.append([entry("p", 1, 2), entry("p", 3)], "e1", 100) == 2
        assert client.append([entry("p", 1, 2), entry("p", 3)], "e1", 100) == 0
        assert client.append([entry("p", 3), entry("p", 4)], "e1", 100) == 1
        assert client.positions(["p", "q"], []) == ("e1", {"p": (4, 0), "q": (0, 0)})
        client.close()

    def test_an_entry_without_producers_is_added_in_any_case(self, connect):
        client = connect()
        client.attach("e1", [])
        goodbye = entry("p", 1)._replace(last=[])
        assert [client.append([goodbye], "e1", 100) for _ in range(2)] == [1, 1]
        assert client.positions(["p"], [])[1]["p"].stored == 0
        client.close()

    def test_another_epoch_is_lost_and_adds_nothing(self, connect):
        client = connect()
        assert client.append([entry("p", 1)], "e1", 100) == LOST
        client.attach("e1", [])
        assert client.append([entry("p", 1)], "e0", 100) == LOST
        assert client.positions(["p"], [])[1]["p"].stored == 0
        client.close()

    def test_a_forgotten_producer_is_unknown(self, connect):
        client = connect()
        client.attach("e1", [])
        client.append([entry("p", 1, 5)], "e1", 100)
        client.forget_producers(["p"])
        assert client.positions(["p"], [])[1]["p"].stored == 0
        client.close()


# -- collecting and sending -------------------------------------------------------------------------


def test_records_of_many_producers_leave_in_one_entry_in_each_ones_order(bench):
    ends = [bench.producer(f"p{n}") for n in range(5)]
    for number in range(3):
        for end in ends:
            log(end, number)
    bench.shipper().step()
    assert len(bench.server.entries) == 1
    assert bench.shipped() == [(f"p{n}", number) for n in range(5) for number in range(3)]


def test_a_record_waits_for_company_for_the_flush_interval(bench):
    end, shipper = bench.producer(), bench.shipper(flush_interval=0.05)
    log(end, 0)
    shipper.step()
    assert not bench.server.entries
    log(end, 1)
    until(shipper, lambda: bench.server.entries)
    assert len(bench.server.entries) == 1
    assert len(bench.shipped()) == 2


def test_who_rings_a_sleeping_shipper_has_no_company_to_wait_for(bench):
    end, shipper = bench.producer("p"), bench.shipper(flush_interval=3600.0)
    shipper.step()
    shipper._be_sleeping(True)
    log(end, 1)
    shipper.step()
    assert bench.shipped() == [("p", 1)]


@pytest.mark.parametrize(("settings", "size"), [({"buffer_size": 10}, 0), ({}, 10_000)])
def test_enough_records_or_bytes_end_the_wait(bench, settings, size):
    end, shipper = bench.producer(), bench.shipper(flush_interval=3600.0, **settings)
    log(end, *range(10), size=size)
    until(shipper, lambda: len(bench.shipped()) >= 6)


def test_no_producer_waits_for_busier_ones(bench, monkeypatch):
    busy = [bench.producer(f"a{n}") for n in range(10)]
    quiet, shipper = bench.producer("z"), bench.shipper()
    for end in busy:
        log(end, *range(100), size=10_000)
    log(quiet, 0)
    for _ in range(4):
        shipper.step()
        if ("z", 0) in bench.shipped():
            break
    assert ("z", 0) in bench.shipped()
    assert any(end.sequence > end.position(False) for end in busy)


def test_a_lost_reply_stores_nothing_twice(bench):
    end, shipper = bench.producer(), bench.shipper()
    log(end, *range(5))
    bench.server.lose_replies = 1
    until(shipper, lambda: end.position(False) == 5)
    assert [number for _, number in bench.shipped()] == [0, 1, 2, 3, 4]
    log(end, 5)
    until(shipper, lambda: end.position(False) == 6)
    assert [number for _, number in bench.shipped()] == [0, 1, 2, 3, 4, 5]


def test_a_payload_that_nobody_can_decode_becomes_a_note_of_its_loss(bench):
    end = bench.producer()
    shipper = bench.shipper()
    log(end, 0)
    end.append(b"\xc1 no msgpack", 30)
    log(end, 1)

    def strict(runs: list[batch.RawRun]) -> list[batch.Entry]:
        for run in runs:
            record.decode_items(b"\xdd" + len(run.payloads).to_bytes(4, "big") + b"".join(run.payloads))
        return [batch.encode(runs, "none", bytes)]

    shipper._encode = strict  # as layout "records" decodes what it sends
    shipper.step()
    kinds = [(sequence, type(item)) for _, sequence, item in bench.server.items()]
    assert kinds == [(1, Record), (2, Loss), (3, Record)]
    assert "can not be encoded" in bench.reports[0]


# -- the server is away, refuses, forgets -----------------------------------------------------------


def test_what_comes_while_the_server_is_away_is_shipped_afterwards_in_order(bench):
    end, shipper = bench.producer(), bench.shipper()
    log(end, 0)
    shipper.step()
    bench.server.away = True
    for number in range(1, 50):
        log(end, number)
        shipper.step()
    bench.server.away = False
    until(shipper, lambda: end.position(False) == 50)
    assert [number for _, number in bench.shipped()] == list(range(50))


def test_a_short_absence_is_not_worth_a_line_and_a_long_one_is_worth_two(bench, monkeypatch):
    end, shipper = bench.producer(), bench.shipper()
    log(end, 0)
    bench.server.away = True
    for _ in range(3):
        shipper.step()
    assert bench.reports == []
    monkeypatch.setattr(shipping, "_PATIENCE", 0.0)
    until(shipper, lambda: bench.reports)
    assert shipper.status().error == "connection refused"
    bench.server.away = False
    until(shipper, lambda: end.position(False) == 1)
    assert bench.reports == ["waiting: connection refused", "the stream takes records again"]


def test_a_server_that_answers_but_takes_nothing_is_reported_once_and_asked_ever_more_slowly(
    bench, monkeypatch
):
    monkeypatch.setattr(shipping, "_PATIENCE", 0.0)
    end, shipper = bench.producer(), bench.shipper()
    log(end, 0)
    bench.server.refusing = True
    until(shipper, lambda: bench.server.appends >= 4)
    assert bench.reports == ["waiting: OOM command not allowed"]
    assert shipper._trouble.failures == 4
    bench.server.refusing = False
    until(shipper, lambda: end.position(False) == 1)
    assert bench.reports[1:] == ["the stream takes records again"]


def test_a_full_stream_is_waited_for(bench):
    end, shipper = bench.producer(), bench.shipper(max_records=3)
    log(end, 0, 1, 2)
    until(shipper, lambda: end.position(False) == 3)
    log(end, 3)
    until(shipper, lambda: bench.server.appends >= 3)
    assert FULL == -2
    assert end.position(False) == 3
    bench.server.entries.clear()  # trimmed
    until(shipper, lambda: end.position(False) == 4)
    assert [number for _, number in bench.shipped()] == [3]


def test_a_server_that_has_lost_its_memory_gets_all_that_is_not_written_again(bench):
    end, shipper = bench.producer(), bench.shipper()
    log(end, 0, 1)
    until(shipper, lambda: end.position(False) == 2)
    bench.server.write("app")
    until(shipper, lambda: end.position(True) == 2)
    log(end, 2, 3)
    until(shipper, lambda: end.position(False) == 4)
    bench.server.flush()
    log(end, 4)
    until(shipper, lambda: end.position(False) == 5)
    assert [number for _, number in bench.shipped()] == [2, 3, 4]
    assert len(bench.reports) == 1
    assert "everything that is not written yet is sent again" in bench.reports[0]


def test_a_loss_of_memory_is_noticed_while_nothing_is_logged(bench):
    end, shipper = bench.producer(), bench.shipper()
    log(end, 0)
    until(shipper, lambda: end.position(False) == 1)
    bench.server.flush()
    until(shipper, bench.shipped)
    assert bench.shipped() == [(end.producer, 0)]


def test_positions_are_asked_for_in_parts(bench, monkeypatch):
    monkeypatch.setattr(shipping, "_PRODUCERS_AT_ONCE", 2)
    ends, shipper = [bench.producer() for _ in range(5)], bench.shipper()
    for end in ends:
        log(end, 0)
    until(shipper, lambda: bench.shipped())
    bench.server.write("app")
    until(shipper, lambda: all(end.position(True) == 1 for end in ends))


# -- a shipper that was killed ----------------------------------------------------------------------


def test_the_next_shipper_goes_on_behind_what_the_stream_has(bench):
    end, first = bench.producer(), bench.shipper()
    log(end, 0, 1)
    first.step()
    log(end, 2)
    first.close()
    log(end, 3)
    until(bench.shipper(), lambda: end.position(False) == 4)
    assert [number for _, number in bench.shipped()] == [0, 1, 2, 3]


def test_a_shipper_killed_between_append_and_position_sends_nothing_twice(bench):
    end, first = bench.producer(), bench.shipper()
    log(end, 0, 1)
    first.step()
    end._words[header.SHIPPED] = 0  # as if it had not come to store it
    first.close()
    log(end, 2)
    until(bench.shipper(), lambda: end.position(False) == 3)
    assert [number for _, number in bench.shipped()] == [0, 1, 2]


# -- positions and release --------------------------------------------------------------------------


def test_written_is_what_the_slowest_writer_has_written(bench):
    end, shipper = bench.producer(), bench.shipper(writers=("app", "console"))
    log(end, 0)
    until(shipper, lambda: end.position(False) == 1)
    bench.server.write("app")
    for _ in range(3):
        shipper.step()
    assert end.position(True) == 0
    bench.server.write("console")
    until(shipper, lambda: end.position(True) == 1)


def test_segments_are_kept_until_all_in_them_is_written(bench):
    end, shipper = bench.producer(), bench.shipper()
    log(end, *range(100), size=10_000)
    until(shipper, lambda: end.position(False) == 100)
    end.used_bytes()
    assert len(end._bound.segments) > 2
    bench.server.write("app")
    until(shipper, lambda: end.position(True) == 100)
    end.used_bytes()
    assert len(end._bound.segments) == 1


def test_without_writers_the_stream_releases(bench):
    end, shipper = bench.producer(), bench.shipper(writers=())
    log(end, *range(100), size=10_000)
    until(shipper, lambda: end.position(True) == end.position(False) == 100)
    end.used_bytes()
    assert len(end._bound.segments) == 1


# -- dead producers ---------------------------------------------------------------------------------


def test_the_spool_of_a_dead_producer_is_removed_when_all_of_it_is_written_and_not_before(bench):
    end, shipper = bench.producer("p"), bench.shipper()
    log(end, 0)
    end.close()
    until(shipper, bench.shipped)
    for _ in range(5):
        shipper.step()
    assert bench.spools() == ["p-0"]
    assert shipper.status()[:3] == (0, 1, 1)
    bench.server.write("app")
    until(shipper, lambda: not bench.spools())
    assert [
        (producer, sequence) for producer, sequence, item in bench.server.items() if isinstance(item, End)
    ] == [("p", 2)]
    assert shipper.status()[:3] == (0, 0, 0)
    assert bench.server.positions(["p"], [])[1]["p"].stored == 0


def test_a_goodbye_to_a_server_that_has_lost_its_memory_is_said_again(bench):
    end, shipper = bench.producer("p"), bench.shipper()
    log(end, 0)
    until(shipper, bench.shipped)
    bench.server.write("app")
    until(shipper, lambda: end.position(True) == 1)
    bench.server.flush()
    end.close()
    until(shipper, lambda: not bench.spools())
    assert [type(item) for _, _, item in bench.server.items()] == [End]


def test_a_producer_whose_next_spool_another_shipper_has_gets_no_goodbye(bench):
    """A daemon has closed its descriptors: a thread that ships finds the lock free, and takes the spool for its own."""
    end = bench.producer("p")
    log(end, 1, 2)
    fcntl.flock(end._header.fd, fcntl.LOCK_UN)  # as closing it does
    of_a_thread, of_the_host = bench.shipper(own="somebody else"), bench.shipper()
    until(of_a_thread, lambda: bench.shipped() == [("p", 1), ("p", 2)])
    log(end, 3)
    until(of_the_host, lambda: ("p", 3) in bench.shipped())
    bench.server.written["app"] = {"p": 2}
    for _ in range(5):
        of_a_thread.step()
    assert not any(isinstance(item, End) for _, _, item in bench.server.items())
    end.close()
    bench.server.write("app")
    until(of_the_host, lambda: not bench.spools())
    assert [(p, n) for p, n, item in bench.server.items() if isinstance(item, End)] == [("p", 4)]


def test_of_a_producers_two_spools_the_older_is_read_to_its_end_first(bench):
    end, shipper = bench.producer("p"), bench.shipper()
    log(end, 0, 1)
    end.close()
    log(end, 2, 3)
    assert bench.spools() == ["p-0", "p-1"]
    until(shipper, lambda: end.position(False) == 4)
    assert [number for _, number in bench.shipped()] == [0, 1, 2, 3]
    bench.server.write("app")
    until(shipper, lambda: bench.spools() == ["p-1"])
    assert not [item for _, _, item in bench.server.items() if isinstance(item, End)]


def test_order_over_two_spools_survives_a_server_that_forgets(bench):
    end, shipper = bench.producer("p"), bench.shipper()
    log(end, 0, 1)
    end.close()
    log(end, 2, 3)
    until(shipper, lambda: end.position(False) == 4)
    bench.server.flush()
    until(shipper, lambda: len(bench.shipped()) == 4)
    assert [number for _, number in bench.shipped()] == [0, 1, 2, 3]


def test_in_thread_mode_the_own_closed_spool_is_drained_before_the_next(bench):
    end, shipper = bench.producer("p", ships_itself=True), bench.shipper(own="p")
    log(end, 0)
    end.close()
    log(end, 1)
    until(shipper, lambda: end.position(False) == 2)
    assert [number for _, number in bench.shipped()] == [0, 1]


def test_a_producer_that_ships_itself_is_left_alone_while_it_lives_and_counts_as_one(bench):
    end, shipper = bench.producer("p", ships_itself=True), bench.shipper()
    log(end, 0)
    for _ in range(5):
        shipper.step()
    assert not bench.shipped()
    assert shipper.status()[:3] == (1, 0, 0)
    end.close()
    until(shipper, bench.shipped)
    bench.server.write("app")
    until(shipper, lambda: not bench.spools())
    assert shipper.status()[:3] == (0, 0, 0)


# -- spools that can not be read --------------------------------------------------------------------


def test_spools_that_can_not_be_listed_are_reported_once_and_those_that_are_open_go_on(bench, monkeypatch):
    """Where no descriptor is free, not even a folder can be looked into."""
    end, late, shipper = bench.producer("p"), bench.producer("late"), bench.shipper()
    log(end, 1)
    until(shipper, bench.shipped)

    def refuse(root: str) -> list[str]:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("redislogkit.ship.spools.spool_names", refuse)
        log(late, 1)
        log(end, 2)
        until(shipper, lambda: len(bench.shipped()) == 2)
        shipper.step()
    assert [line for line in bench.reports if "can not be listed" in line] == bench.reports != []
    until(shipper, lambda: bench.shipped() == [("p", 1), ("p", 2), ("late", 1)])
    assert len(bench.reports) == 1


def test_an_unreadable_spool_is_reported_once_and_stops_nobody(bench):
    os.mkdir(os.path.join(bench.root, "bad-0"))
    with open(os.path.join(bench.root, "bad-0", "header"), "wb") as file:
        file.write(b"nonsense")
    end, shipper = bench.producer(), bench.shipper()
    log(end, 0)
    until(shipper, bench.shipped)
    for _ in range(5):
        shipper.step()
    assert len(bench.reports) == 1
    assert "bad-0 can not be read and is left alone for now" in bench.reports[0]
    assert shipper.status()[:3] == (1, 1, 1)


def test_more_spools_than_descriptors_are_shipped_a_few_at_a_time(bench, monkeypatch):
    monkeypatch.setattr(spools, "_most_open", lambda: 4)
    first = bench.producer("ab")
    log(first, 0)
    first.close()
    log(first, 1)  # in a second spool
    first.close()
    for n in range(2, 30):
        end = bench.producer()
        log(end, n)
        end.close()
    shipper = bench.shipper()
    most = 0

    def all_gone():
        nonlocal most
        most = max(most, len(shipper._spools))
        assert shipper.status().spools == len(bench.spools()) or not bench.server.connections
        bench.server.write("app")
        return not bench.spools()

    until(shipper, all_gone, draining=True)
    assert most == 4
    assert shipper.is_drained()
    assert sorted(n for _, n in bench.shipped()) == list(range(30))
    ends = [producer for producer, _, item in bench.server.items() if isinstance(item, End)]
    assert len(ends) == len(set(ends)) == 29
    (line,) = bench.reports
    assert "26 spools" in line
    assert "RLIMIT_NOFILE" in line


def test_spools_that_wait_for_room_are_not_drained_and_not_forgotten(bench, monkeypatch):
    monkeypatch.setattr(spools, "_most_open", lambda: 2)
    ends = [bench.producer() for _ in range(3)]
    for end in ends:
        log(end, 1)
    shipper = bench.shipper()
    until(shipper, lambda: len(bench.shipped()) == 2)
    bench.server.write("app")
    for _ in range(20):
        shipper.step(draining=True)
    assert not shipper.is_drained()
    assert shipper.status()[1:3] == (1, 3)
    for end in ends:
        end.close()
    until(shipper, lambda: bench.server.write("app") or shipper.is_drained(), draining=True)
    assert len(bench.shipped()) == 3


def test_a_thread_keeps_few_descriptors_whatever_others_have_left(bench):
    for _ in range(50):
        end = bench.producer(ships_itself=True)
        log(end, 1)
        end.close()
    own = bench.producer("own", ships_itself=True)
    log(own, 1)
    shipper = bench.shipper(own="own", writers=())
    most = 0

    def all_gone():
        nonlocal most
        most = max(most, len(shipper._spools))
        return bench.spools() == ["own-0"]

    until(shipper, all_gone)
    assert most == spools._MOST_IN_A_THREAD
    assert len(bench.shipped()) == 51
    own.close()


def test_a_record_for_which_there_is_no_memory_now_is_no_broken_one(bench, monkeypatch):
    end = bench.producer()
    log(end, *range(3))
    shipper = bench.shipper()

    def no_memory(*args: object) -> None:
        raise MemoryError

    def no_map(*args: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    for place, name, fails in ((shipper, "_encode", no_memory), (segment, "open_for_reading", no_map)):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, fails)
            with pytest.raises(MemoryError):
                until(bench.shipper() if place is segment else shipper, lambda: False)
    next_one = bench.shipper()
    until(next_one, lambda: len(bench.shipped()) == 3)
    assert [n for _, n in bench.shipped()] == [0, 1, 2]
    assert bench.reports == []


def test_burials_are_interrupted_for_the_living(bench, monkeypatch):
    monkeypatch.setattr(shipping, "_LONGEST_BURIAL", -1.0)
    for _ in range(5):
        end = bench.producer()
        log(end, 1)
        end.close()
    shipper = bench.shipper()
    until(shipper, lambda: len(bench.shipped()) == 5)
    bench.server.write("app")
    for _ in range(10):
        shipper.step()
    assert len(bench.spools()) == 5
    assert shipper._next_housekeeping <= time.monotonic()
    monkeypatch.setattr(shipping, "_LONGEST_BURIAL", 1.0)
    until(shipper, lambda: not bench.spools())


def test_a_spool_that_fails_while_it_is_read_stops_nobody_and_is_tried_again(bench, monkeypatch):
    first, second, shipper = bench.producer("a"), bench.producer("b"), bench.shipper()
    log(first, 0)
    log(second, 0)
    real, failing = ShipperEnd.read, [True]

    def read(spool: ShipperEnd, max_bytes: int) -> list[Run]:
        if spool.facts.producer == "a" and failing[0]:
            raise OSError("too many open files")
        return real(spool, max_bytes)

    monkeypatch.setattr(ShipperEnd, "read", read)
    until(shipper, lambda: second.position(False) == 1)
    assert bench.shipped() == [("b", 0)]
    failing[0] = False
    until(shipper, lambda: first.position(False) == 1)
    assert len(bench.reports) == 1


def test_a_spool_that_somebody_else_has_removed_costs_no_descriptor(bench):
    shipper = bench.shipper()
    shipper.step()
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        end = bench.producer()
        log(end, 0)
        shipper.step()
        end.close()
        other = bench.shipper()
        until(other, bench.shipped)
        bench.server.write("app")
        until(other, lambda: not bench.spools())
        other.close()
        shipper.step()
    assert len(os.listdir("/proc/self/fd")) <= descriptors


# -- sleeping ---------------------------------------------------------------------------------------


def note_waits(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Instead of waiting, only note for how long."""
    waits: list[float] = []

    def wait(timeout: float, *_others: int) -> bool:
        waits.append(timeout)
        return False

    monkeypatch.setattr(bench.bell, "wait", wait)
    return waits


def test_a_sleeping_shipper_wakes_at_the_first_record_and_lets_the_producer_ring_no_more(bench):
    end, shipper = bench.producer(), bench.shipper()
    log(end, 0)
    until(shipper, lambda: end.position(False) == 1)
    bench.server.write("app")
    until(shipper, lambda: end.position(True) == 1)
    shipper._be_sleeping(True)
    assert end._words[header.MARK] == header.SLEEPING
    bench.bell.clear()
    log(end, 1)
    shipper._sleep(())
    shipper.step()
    assert len(bench.shipped()) == 2
    shipper._rest(0.0, ())
    assert shipper.status().rings == 1
    assert end._words[header.MARK] == 0


def test_while_the_server_is_away_no_producer_rings(bench):
    end, shipper = bench.producer(), bench.shipper()
    bench.server.away = True
    log(end, 0)
    shipper.step()
    shipper._wait(())
    assert end._words[header.MARK] == 0


def test_a_frame_that_never_becomes_whole_does_not_keep_the_shipper_awake(bench, monkeypatch):
    end, shipper = bench.producer(), bench.shipper()
    log(end, 0)
    until(shipper, lambda: end.position(False) == 1)
    bench.server.write("app")
    until(shipper, lambda: end.position(True) == 1)
    end._map[end._position : end._position + 4] = b"\x05\0\0\0"  # a head without its frame
    bench.bell.clear()
    waits = note_waits(bench, monkeypatch)
    for _ in range(10):
        shipper.step()
        shipper._last_active = 0.0
        shipper._next_housekeeping = time.monotonic() + 100
        shipper._wait(())
    assert len(waits) >= 8
    assert set(waits) == {shipping._LONGEST_SLEEP}


def test_a_backlog_is_shipped_without_pauses(bench, monkeypatch):
    end, shipper = bench.producer(), bench.shipper(flush_interval=0.02)
    log(end, *range(100), size=10_000)
    waits = note_waits(bench, monkeypatch)
    while len(bench.shipped()) < 90:
        shipper.step()
        shipper._wait(())
    assert not waits


def test_a_kill_between_the_goodbye_and_the_end_of_a_spool_sends_nothing_twice(bench):
    """The server has forgotten the producer by then; that a reply was lost before makes no difference."""
    end = bench.producer("p")
    log(end, 1, 2)
    end.close()
    first = bench.shipper(writers=())
    bench.server.lose_replies = 1
    until(first, bench.shipped)
    first.close()
    second = bench.shipper(writers=())
    second._spools.remove = lambda spool: second.close()
    until(second, lambda: any(isinstance(item, End) for _, _, item in bench.server.items()))
    assert bench.spools() == ["p-0"]
    third = bench.shipper(writers=())
    until(third, lambda: not bench.spools())
    assert bench.shipped() == [("p", 1), ("p", 2)]


# -- draining ---------------------------------------------------------------------------------------


def test_draining_ships_all_waits_for_the_writers_and_buries_the_dead(bench):
    living, dead, shipper = bench.producer("a"), bench.producer("b"), bench.shipper(flush_interval=3600.0)
    log(living, 0)
    log(dead, 0)
    dead.close()
    stages: list[int] = []

    def beat(status: shipping.Status) -> None:
        stages.append(status.outstanding)
        bench.server.write("app")

    assert shipper.run(lambda: True, beat, drain_timeout=20)
    assert sorted(bench.shipped()) == [("a", 0), ("b", 0)]
    assert living.position(True) == 1
    assert bench.spools() == ["a-0"]
    assert living._words[header.MARK] == header.SLEEPING  # who logs now rings, and finds nobody


def test_a_producer_that_goes_on_logging_does_not_keep_a_draining_shipper(bench):
    end, shipper = bench.producer(), bench.shipper()
    log(end, 0)
    numbers = iter(range(1, 10**6))

    def abandoned() -> bool:  # asked once a round
        log(end, next(numbers))
        bench.server.write("app")
        return False

    assert shipper.run(lambda: True, drain_timeout=20, abandoned=abandoned)
    assert 0 < len(bench.shipped()) < next(numbers)


def test_a_producer_that_dies_after_a_drain_has_caught_up_with_it_does_not_hold_it_up(bench):
    end = bench.producer("p")
    log(end, 1)
    shipper = bench.shipper()
    until(shipper, lambda: not shipper._pending and bench.shipped(), draining=True)
    shipper.step(draining=True)
    assert not shipper.is_drained()
    end.close()
    until(shipper, lambda: shipper.status().producers == 0, draining=True)
    bench.server.write("app")
    until(shipper, shipper.is_drained, draining=True)
    assert bench.spools() == []


def test_a_drain_that_can_not_end_in_time_says_so(bench):
    end, shipper = bench.producer(), bench.shipper()
    log(end, 0)
    assert not shipper.run(lambda: True, drain_timeout=0.05)
    assert bench.shipped()


def test_an_abandoned_drain_ends_at_once(bench):
    end, shipper = bench.producer(), bench.shipper()
    log(end, 0)
    assert not shipper.run(lambda: True, drain_timeout=3600, abandoned=lambda: True)


def test_with_the_server_away_and_everything_safe_a_drain_ends_at_once(bench):
    end, shipper = bench.producer(), bench.shipper()
    log(end, 0)
    until(shipper, lambda: end.position(False) == 1)
    bench.server.write("app")
    until(shipper, lambda: end.position(True) == 1)
    bench.server.away = True
    assert shipper.run(lambda: True, drain_timeout=3600)


# -- levels that somebody has changed for a while ----------------------------------------------------


def test_a_changed_level_comes_to_the_producers_of_the_host(bench, tmp_path):
    path = str(tmp_path / "levels")
    shipper = bench.shipper(levels=path)
    bench.server.levels = Found(time.time(), {"shop": Change(10, time.time() + 60, "me")})
    until(shipper, lambda: os.path.exists(path))
    assert levels.read(path)["shop"].level == 10


def test_a_server_that_does_not_tell_levels_takes_records_all_the_same(bench, tmp_path):
    path = str(tmp_path / "levels")
    levels.write(path, {"shop": Change(10, time.time() + 60, "me")})
    bench.server.levels = None
    shipper = bench.shipper(levels=path)
    log(bench.producer("a"), 1)
    until(shipper, bench.shipped)
    assert "shop" in levels.read(path)


def test_looking_after_many_spools_takes_a_small_part_of_the_time(bench, monkeypatch):
    monkeypatch.setattr(shipping, "_HOUSEKEEPING", 1.0)
    shipper, end = bench.shipper(), bench.producer()
    log(end, 1)
    for took, pause in [(0.001, 1.0), (0.1, 5.0), (3.0, 10.0)]:
        shipper._houses.extend([took] * 4)
        shipper._next_housekeeping = 0.0
        began = time.monotonic()
        shipper.step()
        assert pause <= shipper._next_housekeeping - began < pause + 1
    end.close()  # the dead are buried as soon as ever
    shipper._houses.extend([3.0] * 4)
    shipper._next_housekeeping = 0.0
    shipper.step()
    assert shipper._next_housekeeping <= time.monotonic() + 1.0


@pytest.mark.parametrize(("took", "rest"), [(0.0001, 0.02), (0.0006, 0.06), (0.5, 0.1)])
def test_where_a_look_at_all_spools_takes_long_the_next_comes_later(bench, took, rest):
    shipper = bench.shipper(flush_interval=0.02)
    shipper._looks.extend([9.0, took, 9.0, 9.0])
    began = time.monotonic()
    shipper._pause(0.02, ())
    assert shipper._next_collect - began == pytest.approx(rest, abs=0.005)
    assert time.monotonic() - began >= rest


def test_what_is_found_already_leaves_in_time_however_long_a_look_takes(bench):
    shipper, end = bench.shipper(flush_interval=0.02), bench.producer()
    log(end, 1)
    shipper.step()
    assert shipper._pending
    shipper._looks.extend([9.0] * 4)
    began = time.monotonic()
    shipper._pause(0.02, ())
    assert time.monotonic() - began < 0.09

"""Looking at a stream: moments, filters, following."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from redislogkit.config_values import RefusedError
from redislogkit.errors import ConfigError, ServerAwayError
from redislogkit.record import End, Loss, encode
from redislogkit.stream import records
from redislogkit.stream.batch import RawRun
from redislogkit.view import moments
from redislogkit.view.filter import Filter
from redislogkit.view.follow import Follower
from redislogkit.view.seen import Seen, decode, seen
from tests.helpers.looking import FACTS, LookedAt, entry, record
from tests.helpers.waiting import wait_until

ZONE = timezone(timedelta(hours=2))
NOW = datetime(2026, 11, 28, 9, 0, tzinfo=ZONE).timestamp()


# --- moments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-11-28T07:00:00Z", "2026-11-28T09:00:00"),
        ("2026-11-28T09:00:00.250+02:00", "2026-11-28T09:00:00.250"),
        ("2026-11-28 02:30 -0500", "2026-11-28T09:30:00"),
        ("2026-11-27 22:00", "2026-11-27T22:00:00"),
        ("2026-11-27 22:00:01,5", "2026-11-27T22:00:01.500"),
        ("2026-11-27T22:00", "2026-11-27T22:00:00"),
        ("2026-11-27", "2026-11-27T00:00:00"),
        ("08:00", "2026-11-28T08:00:00"),
        ("22:00", "2026-11-27T22:00:00"),
        ("yesterday", "2026-11-27T00:00:00"),
        ("Yesterday 22:00", "2026-11-27T22:00:00"),
        ("today", "2026-11-28T00:00:00"),
        ("now", "2026-11-28T09:00:00"),
        ("10m ago", "2026-11-28T08:50:00"),
        ("10m", "2026-11-28T08:50:00"),
        ("2 hours ago", "2026-11-28T07:00:00"),
        ("1h30m ago", "2026-11-28T07:30:00"),
        ("1 day ago", "2026-11-27T09:00:00"),
    ],
)
def test_a_moment_is_what_people_mean_by_it(text, meant):
    wanted = datetime.fromisoformat(meant).replace(tzinfo=ZONE).timestamp()
    assert moments.parse(text, NOW, ZONE) == pytest.approx(wanted, abs=1e-3)


def test_a_moment_in_seconds_is_taken_as_it_is():
    assert moments.parse("@12.5", NOW) == 12.5


def test_a_moment_without_a_zone_is_in_local_time():
    assert moments.parse("2026-11-27 22:00", NOW) == datetime(2026, 11, 27, 22).astimezone().timestamp()


@pytest.mark.parametrize(
    "text",
    ["", "ago", "tomorrow", "10", "2026-02-30", "25:00", "yesterday 7", "m", "10 apples ago", "@x", "-"],
)
def test_what_is_no_moment_is_refused_with_the_rule(text):
    with pytest.raises(RefusedError, match="must be a moment"):
        moments.parse(text, NOW, ZONE)


# --- filters -----------------------------------------------------------------------------------------------


def one(message: str = "hello", **values: object) -> Seen:
    found = seen(record(message, **values), FACTS, 5)  # type: ignore[arg-type]
    assert found is not None
    return found


def wanted(seen: Seen, **options: object) -> bool:
    return Filter.of(now=NOW, zone=ZONE, **options).matches(seen)  # type: ignore[arg-type]


def test_a_level_is_a_name_or_a_number_and_the_lowest_one():
    assert wanted(one(), level="info")
    assert wanted(one(), level="20")
    assert not wanted(one(), level=21)


def test_loggers_are_matched_as_those_of_a_writer():
    assert wanted(one(name="my.app.db"), loggers=["my.app"])
    assert not wanted(one(name="my.apple"), loggers=["my.app"])
    assert not wanted(one(name="my.app.noise"), loggers=["my.app", "!my.app.noise"])


def test_grep_searches_message_exception_and_stack():
    failed = one("went wrong", exc_text="Traceback\nKeyError: 'id'", stack_info="Stack\nf()")
    assert all(wanted(failed, grep=text) for text in ("w.nt", "^KeyError|Key", r"f\(\)"))
    assert not wanted(failed, grep="Went")
    assert wanted(failed, grep="Went", ignore_case=True)


def test_a_field_is_an_extra_or_a_standard_one_by_either_name():
    seen = one(extra={"request_id": 7, "ok": True, "user": {"name": "eve"}, "level": "mine"}, function="run")
    for text in ("request_id=7", "ok=true", "user.name=eve", "level=mine", "levelname=INFO", "function=run"):
        assert wanted(seen, fields=[text]), text
    for text in ("pid=4711", "host=web1", "sequence=5", "process=4711", "line=7"):
        assert wanted(seen, fields=[text]), text
    assert not wanted(seen, fields=["request_id=7", "host=web2"])
    assert not wanted(seen, fields=["absent="])


def test_since_is_the_first_moment_and_until_the_first_that_is_too_late():
    at = one(created=NOW - 60)
    assert wanted(at, since="1m ago")
    assert not wanted(at, until="1m ago")
    assert wanted(at, since="08:58", until="now")


def test_notices_of_losses_pass_level_and_loggers_but_not_what_is_searched():
    notice = seen(Loss(3, 5, "spool_full", NOW), FACTS, 5)
    assert notice is not None
    assert notice.loss is not None
    assert "3 records dropped" in notice.record.message
    assert wanted(notice, level="CRITICAL", loggers=["my.app"])
    assert not wanted(notice, grep="KeyError")
    assert not wanted(notice, since="now", until="@9999999999.5", fields=["request_id=7"])


def test_every_problem_of_a_filter_is_told_at_once_with_name_rule_and_value():
    with pytest.raises(ConfigError) as raised:
        Filter.of(now=NOW, level="LOUD", loggers=[""], grep="(", fields=["x"], since="soon", until="later")
    told = raised.value.problems
    assert [line.split()[0] for line in told] == ["level", "logger", "since", "until", "grep", "field"]
    assert "got 'soon'" in told[2]
    assert "got 'x'" in told[5]


def test_since_behind_until_is_refused():
    with pytest.raises(ConfigError, match="since must be earlier than until"):
        Filter.of(now=NOW, since="1h ago", until="2h ago")


# --- what is in a frame ------------------------------------------------------------------------------------


def test_a_frame_that_can_not_be_decoded_is_seen_as_that():
    (found,) = decode(b"\xc1", FACTS, 9)
    assert "can not be decoded" in found.record.message
    assert found.sequence == 9
    assert found.is_notice


# --- following ---------------------------------------------------------------------------------------------


def ids(number: int) -> str:
    return f"{1_000_000 + number}-0"


def stream(count: int = 5) -> LookedAt:
    """One entry for each of so many records, with the sequences 1, 2 …"""
    return LookedAt(*(entry(ids(n), n, [record(f"m{n}", created=float(n))]) for n in range(1, count + 1)))


class Following:
    """A follower of a stream in memory, and what it says."""

    def __init__(self, server: LookedAt, wanted: Filter | None = None) -> None:
        self.said: list[str] = []
        self.slept: list[float] = []
        self.follower = Follower(server.connect, self.said.append, wanted, sleep=self.slept.append)  # type: ignore[arg-type]

    def read(self) -> list[str]:
        return messages(self.follower.read(0.5))


def messages(found: list[Seen]) -> list[str]:
    return [one.record.message for one in found]


def test_it_begins_at_the_oldest_entry_and_says_which_one_has_brought_a_record():
    (first, *_) = Follower(stream().connect, print).read()  # type: ignore[arg-type]
    assert (first.record.message, first.facts, first.sequence, first.entry_id) == ("m1", FACTS, 1, ids(1))


def test_both_layouts_are_followed_also_records_of_other_programs():
    one = record("plain", extra={"request_id": 7})
    (made,) = records.encoder(lambda r, f, q: r.message)([RawRun(FACTS, 3, [encode(one)])])
    fields = dict(zip(made.fields[::2], made.fields[1::2], strict=True))
    foreign = {b"message": b"of another program", b"level": b"ERROR", b"levelno": b"40", b"name": b"other"}
    server = LookedAt((ids(1).encode(), fields), (ids(2).encode(), foreign), (ids(3).encode(), foreign))
    ours, *others = Follower(server.connect, print).read()  # type: ignore[arg-type]
    assert (ours.record, ours.facts, ours.sequence, ours.entry_id) == (one, FACTS, 3, ids(1))
    assert messages(others) == ["of another program"] * 2
    assert others[0].record.levelno == 40


def test_from_the_end_on_only_what_comes_later_is_seen():
    server = stream()
    following = Following(server)
    following.follower.start_at_end()
    assert following.read() == []
    server.entries.append(entry(ids(6), 6, [record("m6"), End()]))
    assert following.read() == ["m6"]


def test_the_last_ones_are_the_last_that_are_wanted():
    server = LookedAt(
        *(entry(ids(n), 100 * n + 1, [record(f"m{n}.{i}", lineno=i) for i in range(100)]) for n in range(200))
    )
    following = Following(server, Filter.of(now=NOW, fields=["line=50"]))
    assert messages(following.follower.start_with_last(3)) == ["m197.50", "m198.50", "m199.50"]
    assert following.read() == []
    assert following.said == []


def test_asking_for_more_than_there_is_gives_what_there_is():
    assert messages(Following(stream()).follower.start_with_last(10)) == ["m1", "m2", "m3", "m4", "m5"]


def test_the_last_none_are_none():
    following = Following(stream())
    assert following.follower.start_with_last(0) == []
    assert following.read() == []


def test_since_a_time_begins_at_the_entries_of_that_time_and_a_minute_before():
    server = LookedAt(*(entry(f"{n * 60_000}-0", n, [record(f"m{n}")]) for n in range(1, 9)))
    following = Following(server)
    following.follower.start_since(300.5)
    assert following.read() == ["m5", "m6", "m7", "m8"]
    following = Following(server)
    following.follower.start_since(300.5)
    assert messages(following.follower.start_with_last(100)) == ["m5", "m6", "m7", "m8"]


def test_a_moment_behind_the_newest_entry_shows_nothing_old():
    server = stream()
    following = Following(server)
    following.follower.start_since(2_000_000.0)
    assert following.read() == []
    assert following.read() == []


def test_what_comes_twice_is_seen_once():
    server = LookedAt(
        entry(ids(1), 1, [record("a"), record("b")]), entry(ids(2), 2, [record("b"), record("c")])
    )
    following = Following(server)
    assert following.read() == ["a", "b", "c"]
    assert following.said == []


def test_a_server_that_is_away_is_waited_for_and_said_once_and_nothing_is_doubled():
    server = stream()
    following = Following(server)
    assert len(following.read()) == 5
    server.away = True
    assert following.read() + following.read() + following.read() == []
    assert len(following.said) == 1
    assert "away" in following.said[0]
    assert following.slept == sorted(following.slept)
    assert all(0 < pause <= 0.5 for pause in following.slept)
    server.away = False
    server.entries.append(entry(ids(6), 6, [record("m6")]))
    assert following.read() == ["m6"]
    assert following.said[1:] == ["the server is back"]
    assert server.connections >= 2


def test_where_to_begin_can_not_be_said_without_a_server():
    server = stream()
    server.away = True
    with pytest.raises(ServerAwayError):
        Following(server).follower.start_with_last(10)


def test_a_stream_that_was_made_anew_is_read_from_its_beginning_without_doubles():
    server = stream()
    following = Following(server)
    following.read()
    server.entries = [entry("17-0", 4, [record("m4"), record("m5"), record("m6")])]
    assert following.read() == []
    assert following.read() == ["m6"]


def test_records_that_were_trimmed_before_they_were_read_are_told():
    server = stream()
    following = Following(server)
    following.read()
    server.entries.append(entry(ids(9), 9, [record("m9")]))
    assert following.read() == ["m9"]
    assert "records 6 to 8 of producer p1 (web1, pid 4711) are no longer in the stream" in following.said[0]


def test_a_gap_that_the_producer_explains_is_no_surprise():
    server = stream()
    following = Following(server)
    following.read()
    server.entries.append(entry(ids(9), 8, [Loss(6, 8, "spool_full", NOW), record("m9")]))
    shown = following.read()
    assert "3 records dropped, sequences 6 to 8" in shown[0]
    assert shown[1:] == ["m9"]
    assert following.said == []


def test_entries_are_fetched_ahead_of_a_slow_reader_up_to_a_bound():
    server = LookedAt()
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        del server.entries[:]  # the writers are done with it
        server.entries.append(entry(ids(looks), looks, [record(f"m{looks}")]))

    server.meanwhile = look
    following = Following(server)
    following.follower.fetch_ahead(max_bytes=2_000)
    wait_until(lambda: looks > 5, what="it has fetched")
    shown: list[str] = []
    while len(shown) < 50:
        shown += following.read()
    following.follower.close()
    wait_until(lambda: server.closed == server.connections == 1, what="its connection is closed")
    first = int(shown[0][1:])
    assert shown == [f"m{n}" for n in range(first, first + len(shown))]
    assert following.said == []


def test_what_ends_the_fetching_reaches_the_reader():
    server = LookedAt()

    def refuse() -> None:
        raise ConfigError(["redis.url must be another one"])

    server.meanwhile = refuse
    following = Following(server)
    following.follower.fetch_ahead()
    with pytest.raises(ConfigError):
        wait_until(following.read, what="it is told")


def test_an_entry_that_is_none_of_ours_is_told_and_passed_over():
    server = LookedAt((ids(1).encode(), {b"x": b"y"}), entry(ids(2), 1, [record("a")]))
    following = Following(server)
    assert following.read() == ["a"]
    assert f"entry {ids(1)} can not be shown: it is no log entry" in following.said[0]

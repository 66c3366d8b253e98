"""What stands behind the page: rows, the feed, who may look, and the answers."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from redislogkit import __main__
from redislogkit import config as configuration
from redislogkit.commands import web as command
from redislogkit.errors import ConfigError, RedislogkitError, ServerAwayError
from redislogkit.stream.client import StreamClient
from redislogkit.view.filter import Filter
from redislogkit.web import app, feed
from redislogkit.web.archives import Archives
from redislogkit.web.feed import Feed
from redislogkit.web.guard import Guard
from redislogkit.web.rows import LONGEST, plain, row
from redislogkit.web.state import State
from tests.helpers.desk import START, Desk
from tests.helpers.page import FakeSource, busy_state, seen
from tests.helpers.waiting import wait_until

EVERYTHING = Filter.of(now=0.0)


def a_feed(count: int = 0, keep: int = 1_000) -> Feed:
    made = Feed(lambda report: FakeSource([]), keep)
    made.add([seen(number, f"record {number}") for number in range(1, count + 1)])
    return made


def numbers(rows: list[dict[str, Any]]) -> list[int]:
    return [each["n"] for each in rows]


# -- rows -------------------------------------------------------------------------------------------


def test_a_row_says_all_that_there_is_and_nothing_that_there_is_not():
    one = row(7, seen(3, "hello", 30, "shop.db", created=1.5, extra={"a": 1}, exc_text="Oops", task_name="t"))
    assert one == {
        "n": 7, "t": 1.5, "l": 30, "L": "WARNING", "g": "shop.db", "m": "hello", "x": "Oops", "e": {"a": 1}, "h": "web1",
        "p": 4711, "P": "MainProcess", "T": "MainThread", "r": 1, "a": "t", "f": "/srv/shop/cart.py", "i": 42,
        "u": "checkout", "d": "p4711", "s": 3,
    }  # fmt: skip
    passed_on = row(1, seen(1, "x", overrides={"process": 9, "processName": "Worker", "msecs": 1.0}))
    assert (passed_on["p"], passed_on["P"]) == (9, "Worker")


def test_values_survive_json():
    value = {
        "big": 2**60,
        "nan": float("nan"),
        "inf": float("inf"),
        "bytes": b"\xff",
        "list": (1, None, True),
        "d": {"x": 1.5},
    }
    there = json.loads(msgspec.json.encode(plain(value)))
    assert there == {
        "big": str(2**60),
        "nan": "nan",
        "inf": "inf",
        "bytes": "b'\\xff'",
        "list": [1, None, True],
        "d": {"x": 1.5},
    }
    long = row(1, seen(1, "x" * (LONGEST + 5)))["m"]
    assert long.endswith(" … [5 characters more]")


# -- the feed ---------------------------------------------------------------------------------------


def test_watchers_get_what_is_new_and_are_told_what_they_have_missed(monkeypatch):
    made = a_feed(10, keep=6)
    assert numbers(made.behind(7, 100, 100).rows) == [8, 9, 10]
    late = made.behind(0, 100, 100)
    assert (numbers(late.rows), late.skipped, late.last) == ([5, 6, 7, 8, 9, 10], 4, 10)
    assert numbers(made.behind(4, 2, 100).rows) == [5, 6]  # the rest comes with the next event
    hurried = made.behind(4, 2, 3)
    assert (numbers(hurried.rows), hurried.skipped) == ([9, 10], 4)
    assert made.behind(10, 100, 100) == ([], 10, 0)


def test_history_goes_back_in_pages_and_is_filtered():
    made = a_feed(10)
    rows, more = made.before(2**53, EVERYTHING, 4)
    assert (numbers(rows), more) == ([7, 8, 9, 10], True)
    rows, more = made.before(7, EVERYTHING, 6)
    assert (numbers(rows), more) == ([1, 2, 3, 4, 5, 6], False)
    rows, more = made.before(9, Filter.of(now=0.0, grep="record [18]"), 10)
    assert (numbers(rows), more) == ([1, 8], False)


def test_memory_is_bounded_by_bytes_too(monkeypatch):
    monkeypatch.setattr(feed, "MOST_BYTES", 50_000)
    made = a_feed()
    made.add([seen(number, "x" * 1_000) for number in range(100)])
    rows, _ = made.before(2**53, EVERYTHING, 1_000)
    assert 20 < len(rows) < 50
    assert rows[-1]["n"] == 100


def test_seconds_and_producers_are_counted():
    made = a_feed()
    made.add([seen(1, "a", 10, created=time.time() - 3), seen(2, "b", 50, pid=2), seen(1, "c", 40)])
    (second,) = made.seconds()
    assert second[1:6] == [1, 1, 0, 0, 1]
    assert 3 <= second[6] < 4
    assert made.seconds(second[0] + 1) == []
    first, other = made.producers()
    assert (first["pid"], first["records"], first["errors"]) == (4711, 2, 1)
    assert (other["pid"], other["records"], other["errors"]) == (2, 1, 1)


def test_old_records_count_when_they_were_logged():
    made = a_feed()
    now = time.time()
    made.add(
        [seen(1, "a", created=now - 50), seen(2, "b", created=now - 20), seen(3, "c", created=now - 9_000)],
        old=True,
    )
    assert [second[0] for second in made.seconds()] == [int(now - 50), int(now - 20)]


class Away(FakeSource):
    """A server that is away at first, and later can not be read."""

    tries = 0

    def start_with_last(self, count: int) -> Any:
        self.tries += 1
        if self.tries < 3:
            raise ServerAwayError("not yet")
        return super().start_with_last(count)

    def wait_after(self, error: RedislogkitError, block: float) -> None:
        assert str(error) == "not yet"

    def read(self, block: float) -> Any:
        found = super().read(0.01)
        if found and found[0].record.message == "broken":
            raise ConfigError(["zstd is not installed"])
        return found


def test_a_server_that_is_away_is_waited_for_and_one_that_can_not_be_read_is_told():
    source = Away([seen(1, "old")])
    made = Feed(lambda report: source, 10)
    woken = threading.Event()
    unwatch = made.watch(woken.set)
    made.start()
    wait_until(lambda: made.last == 1, what="the old record is there")
    source.coming.put([seen(2, "new")])
    wait_until(lambda: made.last == 2, what="the new record is there")
    assert woken.is_set()
    source.coming.put([seen(3, "broken")])
    wait_until(lambda: made.failure, what="it says why it has ended")
    assert made.failure == "zstd is not installed"
    unwatch()
    made.close()


# -- answers ----------------------------------------------------------------------------------------


class Answer:
    """What an ASGI application answers to one GET."""

    def __init__(self, application: Any, path: str, headers: dict[str, str] | None = None) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        asyncio.run(self._ask(application, path, headers or {}))

    async def _ask(self, application: Any, path: str, headers: dict[str, str]) -> None:
        path, _, query = path.partition("?")
        named = {"host": "127.0.0.1:8425", **headers}
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": "GET",
            "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in named.items()],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8425),
        }  # fmt: skip

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                self.body += message.get("body", b"")

        await application(scope, receive, send)

    def json(self) -> Any:
        return json.loads(self.body)


def served(
    token: str = "", hosts: tuple[str, ...] = (), closing: Callable[[], bool] = lambda: True, count: int = 0
) -> Any:
    return app.application(
        a_feed(count),
        busy_state,
        {"stream": "app", "host": "web1", "version": "1"},
        hosts=hosts,
        token=token,
        closing=closing,
    )


def test_files_come_with_a_policy_that_lets_nothing_else_in():
    for path, kind in (
        ("/", "text/html"),
        ("/app.js", "text/javascript"),
        ("/app.css", "text/css"),
        ("/icon.svg", "image/svg"),
    ):
        answer = Answer(served(), path)
        assert answer.status == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    page = Answer(served(), "/").body.decode()
    for forbidden in ("http://", "https://", " style=", " onclick", "<script>"):
        assert forbidden not in page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert Answer(served(), "/app.py").status == 404


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8425", "localhost", "[::1]:8425", "10.0.0.7", "LOGS.example.org:8425"]
)
def test_hosts_that_are_ours_are_answered(host):
    assert Answer(served(hosts=("logs.example.org",)), "/", {"host": host}).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example.org", "127.0.0.1.evil.org", "", "localhost.evil.org:8425", "[::1.evil]"]
)
def test_names_that_somebody_else_has_given_us_are_refused(host):
    answer = Answer(served(), "/api/history", {"host": host})
    assert answer.status == 421
    assert b"rows" not in answer.body


def test_a_token_is_asked_for_everywhere():
    application = served("s3cret")
    for path in ("/", "/app.js", "/api/history", "/api/events", "/api/state", "/nothing"):
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "s3cret"},
            {"cookie": "redislogkit=s3cret"},
        ):
            assert Answer(application, path, headers).status == 401
    assert Answer(application, "/?token=").status == 401
    assert Answer(application, "/?token=s3cre\u00e9").status == 401
    assert Answer(application, "/api/history", {"authorization": "Bearer s3cret"}).status == 200


def test_the_token_of_the_link_becomes_a_cookie():
    application = served("s3cret")
    answer = Answer(application, "/?x=1&token=s3cret")
    assert (answer.status, answer.headers["location"]) == (303, "/?x=1")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert Answer(application, "/", {"cookie": cookie.partition(";")[0]}).status == 200
    # A cookie of another page of this host, which has another token, is none of ours.
    assert Answer(served("other"), "/", {"cookie": cookie.partition(";")[0]}).status == 401


def test_a_guard_leaves_alone_what_is_no_request():
    seen_scopes = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen_scopes.append(scope["type"])

    asyncio.run(Guard(inner, (), "token")({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen_scopes == ["lifespan"]


def test_history_takes_filters_and_explains_wrong_ones():
    application = served(count=20)
    answer = Answer(application, "/api/history?limit=2&grep=record+1&before=20").json()
    assert (numbers(answer["rows"]), answer["more"]) == ([18, 19], True)
    assert Answer(application, "/api/history?level=ERROR").json()["rows"] == []
    assert len(Answer(application, "/api/history?logger=shop,!shop.x&field=pid%3D4711").json()["rows"]) == 20
    assert Answer(application, "/api/history?grep=RECORD&ignore_case=1&limit=3").json()["rows"]
    for query, said in (
        ("level=LOUD", "level must be the name of a level"),
        ("grep=(", "grep must be a regular expression"),
        ("field=x", "field must be like name=value"),
        ("limit=x", "limit must be a whole number, got 'x'"),
    ):
        wrong = Answer(application, f"/api/history?{query}")
        assert wrong.status == 400
        assert said in wrong.json()["error"]


def test_files_are_searched_where_there_are_some():
    def refused(application: Any, query: str) -> str:
        answer = Answer(application, f"/api/files?{query}")
        assert answer.status == 400
        return str(answer.json()["error"])

    assert refused(served(), "writer=app&time=1") == "writer must be one of none, got 'app'"
    config = configuration.load({"writers": {"app": {"type": "file", "path": "/nowhere/x.log", "level": "ERROR"}, "all": {
        "type": "file", "path": "/nowhere/y.log", "formatter": "bare"}, "tty": {"type": "tty"}},
        "formatters": {"bare": {"format": "%(message)s"}}})  # fmt: skip
    archives = Archives(config, lambda: pytest.fail("nothing is asked for"))
    assert archives.writers == ["all", "app"]
    application = app.application(a_feed(), busy_state, {}, archives)
    assert refused(application, "writer=tty&time=1") == "writer must be one of all, app, got 'tty'"
    assert "time must be seconds since the epoch, got 'x'" in refused(application, "writer=app&time=x")
    assert "the format of writer 'all'" in refused(application, "writer=all&time=1&level=ERROR")


def test_what_any_writer_takes_out_is_not_in_the_page_and_can_not_be_searched_for(tmp_path):
    desk = Desk(tmp_path)
    desk.tree["formatters"] = {"clean": {"type": "json", "redact": ["password"], "redact_with": "-"}}
    desk.tree["writers"]["hook"] = {"type": "custom", "target": "builtins:print", "formatter": "clean"}
    config = configuration.load(desk.tree)
    assert command._redactor(desk.config) is None
    redactor = command._redactor(config)
    rich: dict[str, Any] = {
        "extra": {"a": {"token": "hush"}, "n": 1},
        "exc_text": "password=hush",
        "stack_info": "pwd=hush",
    }
    made = Feed(lambda report: FakeSource([]), 10, redactor)
    made.add([seen(1, "password=hush"), seen(2, "all is well", **rich)])
    assert "hush" not in json.dumps(made.behind(0, 10, 10).rows)
    assert made.before(3, Filter.of(now=0.0, grep="hush"), 10) == ([], False)
    (one,) = made.before(3, Filter.of(now=0.0, fields=["n=1"]), 10)[0]
    assert (one["e"], one["x"], one["k"]) == ({"a": {"token": "-"}, "n": 1}, "password=-", "pwd=-")

    desk.ship("password=hush in the file")
    desk.write()
    desk.ship("password=hush in the stream")
    archives = Archives(config, desk.server.connect, redactor)  # type: ignore[arg-type]
    search = partial(archives.search, "app", number=0, before=START + 60)
    assert [each["m"] for each in search(EVERYTHING).rows] == [
        "password=- in the file",
        "password=- in the stream",
    ]
    assert search(Filter.of(now=0.0, grep="hush")).rows == []
    assert len(search(Filter.of(now=0.0, grep="in the")).rows) == 2
    desk.close()


def test_events_begin_where_the_page_has_stopped(monkeypatch):
    monkeypatch.setattr(app, "_IDLE", 0.01)
    rounds = iter([False, True])
    application = served(closing=lambda: next(rounds, True), count=5)
    lines = Answer(application, "/api/events").body.decode().split("\n\n")
    kinds = [line.partition("\n")[0] for line in lines if line]
    assert kinds == ["event: hello", "event: rows", "event: state", "event: producers", "event: seconds"]
    head, data = lines[1].split("\ndata: ")
    assert numbers(json.loads(data)["rows"]) == [1, 2, 3, 4, 5]
    name = json.loads(lines[0].split("\ndata: ")[1])["feed"]
    assert head.endswith(f"id: {name}:5")

    made = a_feed(5)
    rounds = iter([False, True])
    application = app.application(made, busy_state, {}, closing=lambda: next(rounds, True))
    resumed = Answer(application, "/api/events", {"last-event-id": f"{made.name}:3"}).body.decode()
    assert numbers(
        json.loads(resumed.split("event: rows\n")[1].split("data: ")[1].split("\n")[0])["rows"]
    ) == [4, 5]


def test_the_state_is_asked_for_once_for_all_who_look():
    asked = []

    def state() -> dict[str, Any]:
        asked.append(1)
        return busy_state()

    async def look() -> None:
        looker = app.Looker(state)
        await asyncio.gather(*(looker.look() for _ in range(20)))

    asyncio.run(look())
    assert len(asked) == 1


def test_the_state_says_who_does_not_answer():
    class Broken:
        closed = False

        def overview(self) -> Any:
            raise ServerAwayError("away")

        def close(self) -> None:
            self.closed = True

    broken: Any = Broken()
    config: Any = object()

    def connect() -> StreamClient:
        made: StreamClient = broken
        return made

    def ask(asked: Any, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        assert (asked, request) == (config, {"do": "status"})
        return {"ok": False, "error": "busy"}

    found = State(config, connect, ask)()
    assert found == {"supervisor": None, "supervisor_error": "busy", "stream": None, "stream_error": "away"}
    assert broken.closed


# -- the command ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--listen", "8425"), "--listen must be host and port to listen on"),
        (
            ("--listen", "203.0.113.1:1"),
            "--listen must be an address where this host can listen, got 203.0.113.1:1",
        ),
        (("--keep", "5"), "must be from 1000 to 10000000, got 5"),
    ],
)
def test_wrong_usage_is_explained(tmp_path, capsys, arguments, said):
    file = tmp_path / "log.toml"
    file.write_text(f'state_dir = "{tmp_path}"\n')
    code: Any
    try:
        code = __main__.main(["web", str(file), *arguments])
    except SystemExit as ended:
        code = ended.code
    assert (code, said in capsys.readouterr().err) == (2, True)


def test_an_address_that_is_taken_is_named_once(tmp_path, capsys):
    file = tmp_path / "log.toml"
    file.write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        assert __main__.main(["web", str(file), "--listen", listen]) == 2
    assert capsys.readouterr().err.endswith(f"got {listen}: Address already in use\n")


def test_a_stream_can_be_named_without_a_configuration(tmp_path, monkeypatch):
    served: list[configuration.Config] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REDISLOGKIT_CONFIG", raising=False)

    def serve(config: configuration.Config, *rest: Any) -> int:
        served.append(config)
        return 0

    monkeypatch.setattr(command, "_serve", serve)
    options = ["--url", "redis://logs:6379/0", "--stream", "shop", "--listen", "127.0.0.1:0"]
    assert __main__.main(["web", *options]) == 0
    assert [(config.redis.url, config.stream.name) for config in served] == [("redis://logs:6379/0", "shop")]


def test_without_its_packages_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    file = tmp_path / "log.toml"
    file.write_text("")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert __main__.main(["web", str(file)]) == 2
    assert "pip install 'redislogkit[web]'" in capsys.readouterr().err


def test_the_link_has_what_is_to_be_opened():
    with socket.create_server(("127.0.0.1", 0)) as here, socket.create_server(("0.0.0.0", 0)) as everywhere:
        port, other = here.getsockname()[1], everywhere.getsockname()[1]
        assert command._link("127.0.0.1", here, "") == f"http://127.0.0.1:{port}/"
        assert command._link("0.0.0.0", everywhere, "t") == f"http://{socket.gethostname()}:{other}/?token=t"
        assert (command._is_loopback(here), command._is_loopback(everywhere)) == (True, False)

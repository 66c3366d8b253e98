"""What Prometheus gets to see: names, meanings, and a real scrape."""

from __future__ import annotations

import json
import re
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from redislogkit.errors import ConfigError, ServerAwayError
from redislogkit.metrics.families import families
from redislogkit.metrics.server import Collector, Server
from redislogkit.spool.header import CAUSES
from tests.helpers import status as examples
from tests.helpers.scripts import ROOT
from tests.helpers.waiting import wait_until

DASHBOARD = Path(ROOT, "configs", "grafana-dashboard.json")


class Scraped:
    """A server in a thread, and what it says."""

    def __init__(self, collector: Collector) -> None:
        self._wake, self._told = socket.socketpair()
        self._stopping = False
        self.beats = 0
        self.server = Server("127.0.0.1:0", collector)
        self._thread = threading.Thread(
            target=self.server.run, args=(lambda: self._stopping, self._beat, self._told.fileno())
        )
        self._thread.start()

    def _beat(self) -> None:
        self.beats += 1

    def text(self, path: str = "/metrics") -> str:
        address = self.server.url.removesuffix("/metrics") + path
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            body: bytes = answer.read()
        return body.decode()

    def values(self) -> dict[tuple[str, tuple[str, ...]], float]:
        return {_key(sample): sample.value for sample in samples(self.text())}

    def close(self) -> None:
        self._stopping = True
        self._wake.close()
        self._thread.join(10)
        self.server.server_close()
        self._told.close()


def samples(text: str) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def _key(sample: Sample) -> tuple[str, tuple[str, ...]]:
    return sample.name.removeprefix("redislogkit_"), tuple(
        value for _, value in sorted(sample.labels.items())
    )


@pytest.fixture
def scrape() -> Iterator[Callable[..., Scraped]]:
    made: list[Scraped] = []

    def make(status: Any = examples.status, stream: Any = examples.stream) -> Scraped:
        made.append(Scraped(Collector(status, stream, "0.1.0")))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_scrape_has_every_figure(scrape):
    values = scrape().values()
    expected = {
        ("up", ()): 1,
        ("redis_up", ()): 1,
        ("records_emitted_total", ()): 90_010,
        ("records_shipped_total", ()): 90_000,
        ("records_written_total", ("app",)): 89_000,
        ("written_bytes_total", ("app",)): 12_345_678,
        ("records_dropped_total", ("spool_full",)): 7,
        ("records_dropped_total", ("shed",)): 3,
        ("records_rejected_total", ("app",)): 2,
        ("records_skipped_total", ("gone", "console")): 5,
        ("stream_overflow_total", ()): 0,
        ("rotations_total", ("app",)): 6,
        ("lag_records", ("app",)): 0,
        ("lag_records", ("console@web1",)): 1_000,
        ("lag_seconds", ("console@web1",)): 100,
        ("oldest_unread_seconds", ("console@web1",)): 99.5,
        ("spool_bytes", ()): 1_048_576,
        ("producers", ()): 4,
        ("child_restarts_total", ("app", "writer")): 2,
        ("child_up", ("app", "writer")): 1,
        ("child_up", ("console", "writer")): 0,
        ("child_set_aside", ("console", "writer")): 1,
        ("latency_seconds_bucket", ("0.1", "app")): 60,
        ("latency_seconds_bucket", ("+Inf", "app")): 71,
        ("latency_seconds_count", ("app",)): 71,
        ("latency_seconds_sum", ("app",)): 12.5,
        ("config_reload_ok", ()): 1,
        ("stream_entries", ()): 12,
    }
    assert expected.items() <= values.items()
    build = next(sample for sample in samples(scrape().text()) if sample.name == "redislogkit_build_info")
    assert build.labels["version"] == "0.1.0"
    assert build.value == 1


def test_a_cause_has_its_series_before_anything_is_dropped():
    status = {**examples.status(), "dropped": {}}
    (family,) = (each for each in families(status, None, "1") if each.name == "redislogkit_records_dropped")
    assert {sample.labels["cause"]: sample.value for sample in family.samples} == dict.fromkeys(CAUSES, 0)


def test_names_and_texts_follow_the_conventions():
    for family in families(examples.status(), examples.stream(), "1"):
        assert re.fullmatch(r"redislogkit_[a-z]+(_[a-z]+)*", family.name)
        assert family.documentation.endswith(".")
        assert family.samples, family.name
        assert family.type != "unknown"
        assert "milli" not in family.name  # base units: seconds, bytes


def test_what_is_not_known_is_left_out_and_not_zero(scrape):
    def away() -> Any:
        raise ServerAwayError("no")

    values = scrape(stream=away).values()
    assert values["redis_up", ()] == 0
    assert not [name for name, _ in values if name.startswith(("lag", "oldest", "stream"))]
    assert values["records_written_total", ("app",)] == 89_000
    assert ("records_written_total", ("console",)) not in values  # it has not said anything yet

    values = scrape(status=away).values()
    assert (values["up", ()], values["redis_up", ()]) == (0, 1)
    assert not [name for name, _ in values if name.startswith("records")]


def test_only_the_figures_are_served(scrape):
    scraped = scrape()
    with pytest.raises(HTTPError, match="404"):
        scraped.text("/secret")
    assert scraped.text("/?x=1").startswith("# HELP")


def test_clients_that_say_nothing_hold_up_nobody(scrape):
    scraped = scrape()
    address = ("127.0.0.1", scraped.server.server_port)
    silent = [socket.create_connection(address) for _ in range(7)]
    beats = scraped.beats
    assert scraped.values()["up", ()] == 1
    assert scraped.beats > beats

    def one_more_is_turned_away() -> bool:
        # The place of the client before may be free only a moment later; whoever came in between was turned away.
        silent.append(socket.create_connection(address))
        return _turned_away(scraped)

    wait_until(one_more_is_turned_away, what="a ninth client is turned away")
    for connection in silent:
        connection.close()


def _turned_away(scraped: Scraped) -> bool:
    try:
        scraped.text()
    except OSError:
        return True
    return False


def test_an_address_that_is_taken_is_explained():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            ConfigError, match=f"metrics.listen must be .* got {listen}: Address already in use"
        ):
            Server(listen, Collector(examples.status, examples.stream, "1"))


def test_without_prometheus_client_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client", None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'redislogkit[metrics]'")):
        Server("127.0.0.1:0", Collector(examples.status, examples.stream, "1"))


def _expressions(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        found = (tree.get("expr"), tree.get("query"))
        yield from (value for value in found if isinstance(value, str) and value != "prometheus")
        for value in tree.values():
            yield from _expressions(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _expressions(value)


def test_the_dashboard_asks_for_metrics_and_labels_that_exist():
    known: dict[str, set[str]] = {}
    for family in families(examples.status(), examples.stream(), "1"):
        for sample in family.samples:
            known.setdefault(sample.name, {"job", "instance"}).update(sample.labels)
    expressions = list(_expressions(json.loads(DASHBOARD.read_text())))
    assert len(expressions) > 10
    used = set()
    for expression in expressions:
        names = re.findall(r"redislogkit_\w+", expression)
        assert names, expression
        assert not set(names) - known.keys(), expression
        used |= set(names)
        labels = {label for name in names for label in known[name]}
        asked = re.findall(r"[{,]\s*(\w+)\s*[=!]", expression)
        for group in re.findall(r"by \(([^)]*)\)", expression):
            asked += re.findall(r"\w+", group)
        assert not set(asked) - labels, expression
    series = {"_bucket", "_sum", "_count"}
    shown = {name for name in known if not any(name.endswith(end) for end in series)}
    assert {"redislogkit_up", "redislogkit_records_dropped_total", "redislogkit_lag_seconds"} <= used & shown


def test_every_metric_is_in_the_documentation():
    page = Path(ROOT, "docs", "metrics.md").read_text()
    for family in families(examples.status(), examples.stream(), "1"):
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        assert f"`{family.name}{suffix}" in page, family.name

"""A real server that takes nothing for a while, or has a stranger's key under our name: all wait, say so once, go on."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import redis

from redislogkit.ship import shipper
from redislogkit.writers import base
from tests.helpers.path import Path
from tests.helpers.server import client
from tests.helpers.tcp import TcpServer, free_port
from tests.helpers.waiting import wait_until

BOTH = frozenset(["shipper", "app"])


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(base, "LEASE", 0.6)
    monkeypatch.setattr(base, "_PATIENCE", 0.0)
    monkeypatch.setattr(shipper, "_PATIENCE", 0.0)


class Ordeal:
    """A path over a server that refuses for a while, and what is said meanwhile."""

    def __init__(self, folder: str, url: str, stream: str) -> None:
        self.path = Path(folder, url, stream)
        self.path.start()
        self.end = self.path.producer()

    def pass_over(
        self, state: contextlib.AbstractContextManager[object], word: str, by: frozenset[str] = BOTH
    ) -> None:
        """Records flow before, in and after ``state``; both sides name it by ``word``, once."""
        path, end = self.path, self.end
        path.log(end, 100)
        path.check()
        path.reports.clear()
        with state:

            def both_noticed() -> bool:
                path.log(end, 1)  # who has nothing to ship asks the server nothing
                return self.who_said(word) >= by

            with contextlib.suppress(AssertionError):
                wait_until(both_noticed)
            assert self.who_said(word) >= by, path.reports
            shipped = end.position(False)
            path.log(end, 100)
            time.sleep(0.3)  # as long as it lasts it is the same line
            told = [line for line in path.reports if word in line]
            assert max(Counter(told).values()) == 1, told
            assert len(told) <= 4
            assert end.position(False) == shipped or "shipper" not in by
        path.check()
        assert not [line for line in path.reports if "passed over" in line or "encoded" in line]

    def who_said(self, word: str) -> set[str]:
        return {line.partition(":")[0] for line in self.path.reports if word in line}


@contextlib.contextmanager
def ordeal(folder: str, url: str, stream: str) -> Iterator[Ordeal]:
    running = Ordeal(folder, url, stream)
    try:
        yield running
    finally:
        running.path.close()


@contextlib.contextmanager
def tcp(folder: str, **options: str) -> Iterator[TcpServer]:
    server = TcpServer(folder, **options)
    try:
        yield server
    finally:
        server.stop()


# -- states of the server -----------------------------------------------------------------------------------


def test_a_password_that_is_asked_for_all_at_once_is_waited_for(own_server, state_dir, stream_name):
    @contextlib.contextmanager
    def asked() -> Iterator[None]:
        with client(own_server.url) as connection:
            connection.config_set("requirepass", "s3cret")
            connection.execute_command("AUTH", "s3cret")
            connection.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            yield
            connection.config_set("requirepass", "")

    with ordeal(state_dir, own_server.url, stream_name) as running:
        running.pass_over(asked(), "Authentication required")


def test_a_password_that_is_wrong_for_a_while_is_waited_for_and_not_shown(tmp_path, state_dir, stream_name):
    with tcp(str(tmp_path), requirepass="s3cret") as server:

        @contextlib.contextmanager
        def changed() -> Iterator[None]:
            with client(server.url) as connection:
                connection.config_set("requirepass", "another")
                connection.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                yield
                connection.config_set("requirepass", "s3cret")

        with ordeal(state_dir, server.url, stream_name) as running:
            running.pass_over(changed(), "password")
            assert "s3cret" not in "\n".join(running.path.reports)


def test_a_server_that_is_busy_with_a_script_is_waited_for(own_server, state_dir, stream_name):
    @contextlib.contextmanager
    def busy() -> Iterator[None]:
        with client(own_server.url) as connection:
            connection.execute_command("CONFIG", "SET", "busy-reply-threshold", "50")

            def run() -> None:
                with client(own_server.url) as other, contextlib.suppress(redis.RedisError):
                    other.eval("while true do end", 0)

            thread = threading.Thread(target=run)
            thread.start()
            try:
                yield
            finally:
                connection.execute_command("SCRIPT", "KILL")
                thread.join()

    with ordeal(state_dir, own_server.url, stream_name) as running:
        running.pass_over(busy(), "busy")


def test_a_server_that_is_loading_is_waited_for(tmp_path, state_dir, stream_name):
    options = {
        "enable_debug_command": "yes", "loading_process_events_interval_bytes": "1024", "key_load_delay": "1000",
    }  # fmt: skip
    with tcp(str(tmp_path), **options) as server:
        server.connection.mset({f"other{n}": "x" * 100 for n in range(2_000)})

        @contextlib.contextmanager
        def loading() -> Iterator[None]:
            def run() -> None:
                with client(server.url) as other, other.pipeline(transaction=False) as commands:
                    # Whoever is in the middle of a blocking read would sleep through it.
                    commands.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                    commands.execute_command("DEBUG", "RELOAD")
                    commands.execute()

            thread = threading.Thread(target=run)
            thread.start()
            yield
            thread.join()

        with ordeal(state_dir, server.url, stream_name) as running:
            running.pass_over(loading(), "loading the dataset")


def test_a_cluster_node_that_serves_no_slots_yet_is_waited_for(tmp_path, state_dir, stream_name):
    options = {
        "cluster_enabled": "yes", "cluster_config_file": str(tmp_path / "nodes"), "cluster_port": str(free_port()),
    }  # fmt: skip
    with tcp(str(tmp_path), **options) as server:
        command = server.connection.execute_command
        command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        wait_until(lambda: b"cluster_state:ok" in _raw(command("CLUSTER INFO")), what="the node serves all")

        @contextlib.contextmanager
        def down() -> Iterator[None]:
            command("CONFIG", "SET", "cluster-require-full-coverage", "yes")
            slot = command("CLUSTER KEYSLOT", "somebody else")
            command("CLUSTER DELSLOTS", slot)
            wait_until(lambda: b"cluster_state:fail" in _raw(command("CLUSTER INFO")), what="it is down")
            yield
            command("CLUSTER ADDSLOTS", slot)

        with ordeal(state_dir, server.url, stream_name) as running:
            running.pass_over(down(), "cluster is down")


def _raw(answer: object) -> bytes:
    if isinstance(answer, dict):
        return b"\n".join(f"{k}:{v}".encode() for k, v in answer.items())
    return answer if isinstance(answer, bytes) else str(answer).encode()


# -- a stranger's key ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("", BOTH),
        ("sequences", frozenset(["shipper"])),
        ("writers", frozenset(["app"])),
        ("leases", frozenset(["app"])),
        ("written:app", BOTH),
    ],
)
def test_a_key_of_another_type_under_our_name_is_waited_for_and_left_alone(
    server_url, state_dir, stream_name, name, by
):
    with client(server_url) as connection, ordeal(state_dir, server_url, stream_name) as running:
        key = running.path.key(name) if name else stream_name

        @contextlib.contextmanager
        def taken() -> Iterator[None]:
            with connection.pipeline() as both:
                both.rename(key, f"{{{stream_name}}}:aside").set(key, "a stranger's").execute()
            yield
            assert connection.get(key) == b"a stranger's"
            connection.rename(f"{{{stream_name}}}:aside", key)

        running.pass_over(taken(), "wrong kind of value", by)

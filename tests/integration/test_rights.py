"""The rights that ``doctor`` asks for are enough for everything, and it finds each that is missing."""

from __future__ import annotations

import re
import time

import pytest

from redislogkit.stream import rights
from redislogkit.stream.client import Confirmation, StreamClient
from tests.helpers.pages import ROOT
from tests.helpers.server import client as plain_client
from tests.integration.test_client import an_entry


@pytest.fixture
def user(server_url, stream_name):
    """Returns a client as a user with these rules."""
    made = []
    name = f"user-{stream_name}"

    def login(rule):
        with plain_client(server_url) as connection:
            connection.execute_command("ACL", "SETUSER", name, "reset", "on", ">secret", *rule.split())
        url = server_url.replace("unix://", f"unix://{name}:secret@")
        made.append(StreamClient(url, stream_name))
        return made[-1]

    yield login
    for client in made:
        client.close()
    with plain_client(server_url) as connection:
        connection.execute_command("ACL", "DELUSER", name)


def test_the_list_has_every_command_that_scripts_and_client_send():
    source = "".join(path.read_text("utf-8") for path in (ROOT / "redislogkit/stream/lua").glob("*.lua"))
    called = set(re.findall(r"(?:redis\.p?call\(|\{)'([A-Z]+)'(?:, '(CREATE|DESTROY)')?", source))
    client = (ROOT / "redislogkit/stream/client.py").read_text("utf-8")
    called |= {(name, "") for name in re.findall(r"(?:_call|_execute|send_command)\(\"([A-Z]+)\"", client)}
    assert {" ".join(filter(None, pair)) for pair in called} == set(rights.COMMANDS)


def test_the_rights_of_the_rule_are_enough_for_all_that_is_done(user, stream_name):
    client = user(rights.rule(stream_name))
    assert rights.missing(client, stream_name) == {}
    client.ping()
    client.attach("e1", ["app"])
    assert client.append([an_entry(1), an_entry(2)], "e1", 1000) == 2
    client.join("app")
    token, _ = client.claim("app", "here", 10.0)
    entries = client.read("app", ">", 10, 0.01)
    ids = [entry_id for entry_id, _ in entries]
    assert len(ids) == 2
    client.confirm("app", Confirmation(ids[-1], 2, {"p": 2}, ids, token))
    assert client.positions(["p"], ["app"])[1]["p"] == (2, 2)
    assert client.written("app") == {"p": 2}
    assert client.read("app", ">", 10, 0.01) == []
    client.set_level("x", 10, 5, "me")
    assert client.levels() is not None
    assert client.overview().writers["app"].position == ids[-1].decode()
    assert list(client.registered_writers()) == ["app"]
    client.forget_producers(["p"])
    assert client.leave("app")
    client.delete_stream()


@pytest.mark.parametrize("name", [name for name in rights.COMMANDS if name not in ("PING", "EVAL")])
def test_a_command_that_is_not_allowed_is_named(name, user, stream_name):
    rule = rights.rule(stream_name).replace(f"+{name.lower().replace(' ', '|')} ", "")
    rule = rule.removesuffix(f"+{name.lower().replace(' ', '|')}")
    assert set(rights.missing(user(rule), stream_name)) == {name}


def test_a_key_that_is_not_allowed_is_named(user, stream_name):
    rule = rights.rule(stream_name).replace(f"~{stream_name} ", "")
    assert set(rights.missing(user(rule), stream_name)) == {f"key {stream_name}"}


def test_the_stream_is_not_touched(user, stream_name, server_url):
    rights.missing(user("allkeys allcommands"), stream_name)
    with plain_client(server_url) as connection:
        assert list(connection.scan_iter(match=f"*{stream_name}*")) == []


# -- the overview -----------------------------------------------------------------------------------


def test_an_overview_tells_how_far_each_writer_is(server_url, stream_name):
    client = StreamClient(server_url, stream_name)
    try:
        assert client.overview().writers == {}
        client.attach("e1", ["app", "late"])
        client.append([an_entry(1, 3), an_entry(4, 2)], "e1", 1000)
        for name in ("app", "late"):
            client.join(name)
        token, _ = client.claim("app", "web1:/state", 10.0)
        ids = [entry_id for entry_id, _ in client.read("app", ">", 10, 0.0)]
        client.confirm("app", Confirmation(ids[0], 3, {"p": 3}, ids[:1], token))
        seen = client.overview()
        assert (seen.entries, seen.added) == (2, 5)
        assert (seen.behind("app"), seen.behind("late")) == (2, 5)
        app, late = seen.writers["app"], seen.writers["late"]
        assert (app.position, app.holder, late.holder) == (ids[0].decode(), "web1:/state", "")
        assert app.lease_ends > seen.now == pytest.approx(time.time(), abs=30)
        assert app.unread_since == int(ids[1].split(b"-")[0]) / 1000
        client.confirm("app", Confirmation(ids[1], 5, {"p": 5}, ids[1:], token))
        assert client.overview().writers["app"].unread_since is None
    finally:
        client.delete_stream()
        client.close()

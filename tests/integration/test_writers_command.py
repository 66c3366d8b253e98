"""``redislogkit writers``: who holds the stream back, and letting go of who is gone for good."""

from __future__ import annotations

import pytest

from redislogkit import __main__ as command
from redislogkit.stream.client import Confirmation, StreamClient


@pytest.fixture
def config(tmp_path, server_url, stream_name):
    path = tmp_path / "log.toml"
    path.write_text(
        f'state_dir = "state"\n[redis]\nurl = "{server_url}"\n[stream]\nname = "{stream_name}"\n'
        '[writers.app]\ntype = "file"\npath = "app.log"\n'
    )
    return str(path)


@pytest.fixture
def client(server_url, stream_name):
    client = StreamClient(server_url, stream_name)
    client.attach("e1", ["app", "old"])
    for name in ("app", "old"):
        client.join(name)
    token, _ = client.claim("app", "here", 10.0)
    client.confirm("app", Confirmation(b"5-0", 7, {}, [], token))
    yield client
    client.delete_stream()
    client.close()


def test_writers_are_listed_with_their_positions(config, client, capsys):
    assert command.main(["writers", config]) == 0
    app, old = capsys.readouterr().out.splitlines()
    assert app.split() == ["app", "written", "up", "to", "5-0"]
    assert old.endswith("written up to 0-0   not configured here")


def test_a_dropped_writer_holds_nothing_back_any_more(config, client, capsys):
    assert command.main(["writers", config, "--drop", "old"]) == 0
    assert "old is dropped" in capsys.readouterr().out
    assert list(client.registered_writers()) == ["app"]


def test_a_writer_that_nobody_knows_is_an_error_that_names_the_known(config, client, capsys):
    assert command.main(["writers", config, "--drop", "odl"]) == 2
    assert "got 'odl'; registered: " in capsys.readouterr().err


def test_an_unreachable_server_is_an_error_without_a_traceback(tmp_path, capsys):
    path = tmp_path / "log.toml"
    path.write_text(f'state_dir = "{tmp_path}"\n[redis]\nurl = "unix://{tmp_path}/none.sock"\n')
    assert command.main(["writers", str(path)]) == 2
    assert "none.sock" in capsys.readouterr().err
    path.write_text(f'state_dir = "{tmp_path}"\n')
    assert command.main(["writers", str(path)]) == 2
    assert "the embedded server of" in capsys.readouterr().err

"""Failures that chaos runs have found, each as a small test of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from redislogkit.errors import ServerAwayError
from redislogkit.stream.client import Claim, StreamClient
from redislogkit.writers import base
from redislogkit.writers.base import Writer
from redislogkit.writers.checkpoint import Checkpoint
from redislogkit.writers.file import FileDestination
from tests.helpers.filewriter import MemoryStream, config, entries, numbered


def test_a_server_that_restarts_between_two_commands_is_noticed(own_server):
    # It may remember less than before, and then an append behind a gap would be taken.
    client = StreamClient(own_server.url, "app")
    client.ping()
    own_server.kill()
    own_server.start()
    with pytest.raises(ServerAwayError):
        client.ping()
    client.close()


class AwayBehindTheBytes(MemoryStream):
    """The server is away when the lease is kept between the bytes and their checkpoint, once."""

    claims = 0

    def claim(self, writer: str, owner: str, seconds: float, token: int = 0) -> Claim:
        self.claims += 1
        if self.claims == 3:  # 1 when joining, 2 before writing, 3 behind the bytes
            raise ServerAwayError("connection reset")
        return super().claim(writer, owner, seconds, token)


def test_a_server_that_goes_away_between_bytes_and_checkpoint_doubles_nothing(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(base, "LEASE", 0.0)
    stream = AwayBehindTheBytes(entries(numbered(["one", "two", "three"]), 3))
    writer = Writer(
        "app",
        stream.connect,
        FileDestination(config(tmp_path / "app.log"), pytest.fail),
        Checkpoint(str(tmp_path / "checkpoint")),
        lambda _level, _name: True,
        pytest.fail,
        block=0.01,
    )
    rounds = iter(range(20))
    writer.run(lambda: next(rounds, None) is None)
    assert (tmp_path / "app.log").read_text() == "one\ntwo\nthree\n"

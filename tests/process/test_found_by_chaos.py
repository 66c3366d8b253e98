"""Failures that chaos runs have found, each as a small test of its own."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, ClassVar

import pytest

from redislogkit.errors import ServerAwayError
from redislogkit.stream.client import Claim, Confirmation, RawEntry, StreamClient
from redislogkit.writers import base
from redislogkit.writers.base import Writer
from redislogkit.writers.checkpoint import Checkpoint
from redislogkit.writers.file import FileDestination
from stress.memory_stream import MemoryStream
from tests.helpers.filewriter import config, entries, numbered


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


class KilledError(BaseException):
    """Ends the writer where a SIGKILL would, as far as the files can tell."""


class DeadlyStream(MemoryStream):
    """Kills the writer at its n-th confirmation of entries."""

    def __init__(self, stream: list[RawEntry], at_once: int, kill: int) -> None:
        super().__init__(stream, at_once)
        self._left = kill

    def confirm(self, writer: str, confirmation: Confirmation) -> None:
        self._left -= bool(confirmation.last_id)
        if self._left == 0:
            raise KilledError


class DeadlyCheckpoint(Checkpoint):
    """Kills the writer in front of its n-th commit: behind the bytes of a reading, say."""

    left = 0

    def commit(self, *arguments: Any, **others: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise KilledError
        super().commit(*arguments, **others)


def write(folder: Path, stream: MemoryStream, kill: int = 0) -> None:
    """Run a writer of ``app.log`` until it has read the stream, or is killed at its n-th commit."""
    destination = FileDestination(
        config(folder / "app.log"), lambda text: None, index_folder=str(folder / "index")
    )
    checkpoint = DeadlyCheckpoint(str(folder / "checkpoint"))
    checkpoint.left = kill
    writer = Writer(
        "app", stream.connect, destination, checkpoint, lambda level, name: True, lambda text: None, block=0.0
    )
    writer.run(stream.is_read)


@pytest.mark.parametrize("foreign", ["", "from outside\n", "from outside"])
@pytest.mark.parametrize("texts", [["a", "b", "c", "d"], ["same"] * 4], ids=["different", "the same"])
@pytest.mark.parametrize("at_once", [1, 3, 8])
@pytest.mark.parametrize("kill", ["confirm", 1, 2, 3])
def test_two_kills_around_a_loss_of_memory_double_and_lose_nothing(
    tmp_path: Path, at_once, texts, foreign, kill
):
    """Killed behind its bytes; redis forgets, and gives the producers in another order; killed again."""
    one, two = numbered(texts, producer="p1"), numbered(texts, producer="p2")
    orders = [[*one, *two], [*two, *one], [*one[:2], *two, *one[2:]]]
    for order in orders:
        with contextlib.suppress(KilledError):
            if kill == "confirm":
                write(tmp_path, DeadlyStream(entries(order, 1), at_once, kill=1))
            else:
                write(tmp_path, MemoryStream(entries(order, 1), at_once), kill)
        with open(tmp_path / "app.log", "a", encoding="utf-8") as file:
            file.write(foreign)
    write(tmp_path, MemoryStream(entries([*two, *one], 1), at_once))
    lines = (tmp_path / "app.log").read_text().splitlines()
    assert sorted(line for line in lines if "outside" not in line) == sorted(texts * 2)
    assert "".join(lines).count("from outside") == (3 if foreign else 0)


def test_a_producer_missing_from_the_published_positions_is_not_taken_for_ended(tmp_path: Path):
    """The server has come back some confirmations older: whoever is not there lives on, and is published again."""

    class Older(MemoryStream):
        published: ClassVar[dict[str, int]] = {}

        def written(self, writer: str) -> dict[str, int]:
            return {"p1": 3}

        def confirm(self, writer: str, confirmation: Confirmation) -> None:
            self.published.update(confirmation.positions)

    stream = entries([*numbered("abc", producer="p1"), *numbered("abc", producer="p2")], 1)
    write(tmp_path, MemoryStream(stream))
    write(tmp_path, Older(stream))
    assert Older.published == {"p1": 3, "p2": 3}

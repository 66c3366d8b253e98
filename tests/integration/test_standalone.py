"""``AsyncRedisFileWriter`` and ``AsyncRedisTTYWriter`` on a stream that another program fills."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from redislogkit import AsyncRedisFileWriter, AsyncRedisTTYWriter, LockHeldError
from stress.checker import rotated_files
from tests.helpers.scripts import Finished, Scripts
from tests.helpers.tcp import TcpServer
from tests.helpers.waiting import wait_until

Run = Callable[..., Finished]


@pytest.fixture
def home(state_dir: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A home directory: the writers keep their checkpoints below it."""
    monkeypatch.setenv("HOME", state_dir)
    return state_dir


@pytest.fixture
def server(home: str) -> Iterator[TcpServer]:
    running = TcpServer(home)
    yield running
    running.stop()


@pytest.fixture
def closing() -> Iterator[contextlib.ExitStack]:
    """Closes writers at the end of the test, whatever it did."""
    with contextlib.ExitStack() as stack:
        yield stack


def add(server: TcpServer, *texts: str, stream: str = "s", **fields: object) -> None:
    """Add entries as a program does that has never heard of us."""
    for text in texts:
        entry = {
            "formatted_message": text,
            "level": "INFO",
            "levelno": 20,
            "name": "foreign",
            "message": text,
            "created": 1700000000.5,
            "process": 1,
            "tty": "no_tty",
            **fields,
        }
        server.connection.xadd(stream, {name: str(value) for name, value in entry.items()})


def lines(path: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
        return file.read().splitlines()
    return []


def wait_for(path: str, *expected: str) -> None:
    wait_until(lambda: lines(path) == list(expected), what=f"{expected} in {path}")


def test_entries_of_a_foreign_program_are_written_as_they_are(
    server: TcpServer, home: str, closing: contextlib.ExitStack
):
    path = f"{home}/app.log"
    add(server, "before 1", "before 2")
    writer = AsyncRedisFileWriter(redis_port=server.port, stream_name="s", filename=path)
    closing.callback(writer.close)
    wait_for(path, "before 1", "before 2")
    add(server, "after", "with\nnewline")
    server.connection.xadd("s", {"message": "bare"})
    server.connection.xadd("s", {"something": "else", "created": "yesterday"})
    wait_until(lambda: len(lines(path)) >= 6)
    assert lines(path)[2:5] == ["after", "with", "newline"]
    assert "bare" in lines(path)[5]
    assert writer.error is None


@pytest.mark.parametrize("make", [threading.Event, multiprocessing.Event])
def test_stop_event_ends_a_writer_and_the_next_one_goes_on(server: TcpServer, home: str, make: Any):
    path = f"{home}/app.log"
    expected: list[str] = []
    for n in range(3):
        add(server, f"while away {n}")
        event = make()
        writer = AsyncRedisFileWriter(
            redis_port=server.port, stream_name="s", filename=path, stop_event=event, block=20
        )
        add(server, f"while there {n}")
        expected += [f"while away {n}", f"while there {n}"]
        wait_for(path, *expected)
        event.set()
        wait_until(lambda w=writer: not w.is_alive())  # type: ignore[misc]
        assert writer.error is None


def test_writer_in_a_process_of_its_own_is_killed_and_the_next_one_goes_on(
    scripts: Scripts, server: TcpServer, home: str, closing: contextlib.ExitStack
):
    path = f"{home}/app.log"
    process = scripts.start(
        "import sys; from redislogkit import AsyncRedisFileWriter\n"
        "AsyncRedisFileWriter(redis_port=int(sys.argv[1]), stream_name='s', filename=sys.argv[2])",
        server.port,
        path,
    )
    add(server, *map(str, range(100)))
    wait_for(path, *map(str, range(100)))
    process.kill()
    process.wait()
    add(server, "100")
    writer = AsyncRedisFileWriter(redis_port=server.port, stream_name="s", filename=path)
    closing.callback(writer.close)
    wait_for(path, *map(str, range(101)))


def test_last_id_passes_over_what_came_before(server: TcpServer, home: str, closing: contextlib.ExitStack):
    add(server, "old")
    last: Any = server.connection.xrevrange("s", count=1)
    add(server, "new")
    writer = AsyncRedisFileWriter(
        redis_port=server.port, stream_name="s", filename=f"{home}/app.log", last_id=last[0][0].decode()
    )
    closing.callback(writer.close)
    wait_for(f"{home}/app.log", "new")


def test_file_is_rotated_by_size(server: TcpServer, home: str):
    path = f"{home}/app.log"
    add(server, *(f"{i:04d} {'x' * 95}" for i in range(100)))
    writer = AsyncRedisFileWriter(
        redis_port=server.port, stream_name="s", filename=path, max_bytes=1020, backup_count=20
    )
    writer.close()
    files = rotated_files(path)
    assert len(files) == 10
    assert [line[:4] for file in files for line in lines(file)] == [f"{i:04d}" for i in range(100)]


def test_second_writer_on_a_file_is_refused_and_told_who_has_it(
    run_python: Run, server: TcpServer, home: str, closing: contextlib.ExitStack
):
    path = f"{home}/app.log"
    writer = AsyncRedisFileWriter(redis_port=server.port, stream_name="s", filename=path)
    closing.callback(writer.close)
    add(server, "one")
    wait_for(path, "one")
    with pytest.raises(LockHeldError, match=rf"log file {path} is in use by process {os.getpid()} on "):
        AsyncRedisFileWriter(redis_port=server.port, stream_name="t", filename=path, lock_timeout=0)
    done = run_python(
        "import sys; from redislogkit import AsyncRedisFileWriter\n"
        "AsyncRedisFileWriter(redis_port=int(sys.argv[1]), stream_name='s', filename=sys.argv[2], lock_timeout=0.1)",
        server.port,
        path,
        check=False,
    )
    assert done.code == 1
    assert f"is in use by process {os.getpid()} " in done.err.splitlines()[-1]
    add(server, "two")
    wait_for(path, "one", "two")


def test_terminal_writer_writes_to_the_terminal_that_an_entry_names(
    server: TcpServer, home: str, closing: contextlib.ExitStack
):
    master, slave = os.openpty()
    try:
        name, now = os.ttyname(slave), time.time() + 1
        add(server, "for you", tty=name, process=os.getpid(), processName="Foreign", created=now)
        add(server, "for nobody", tty="no_tty")
        add(server, "for a file", tty=f"{home}/file")
        writer = AsyncRedisTTYWriter(redis_port=server.port, stream_name="s")
        closing.callback(writer.close)
        seen = b""

        def look() -> bool:
            nonlocal seen
            while select.select([master], [], [], 0)[0]:
                seen += os.read(master, 65536)
            return b"last" in seen

        add(server, "last", tty=name, created=now)
        wait_until(look)
        second = AsyncRedisTTYWriter(redis_port=server.port, stream_name="s")
        closing.callback(second.close)
        assert seen.count(b"for you") == 1
        assert b"for nobody" not in seen and b"for a file" not in seen
        wait_until(lambda: any("standing by" in line for line in second.reports))
        writer.close()
        add(server, "second's", tty=name, created=now)
        wait_until(lambda: look() and b"second's" in seen)
        second.close()
        assert not writer.is_alive() and not second.is_alive()
        assert (writer.error, second.error) == (None, None)
    finally:
        os.close(master)
        os.close(slave)


def test_writer_waits_for_a_server_that_is_not_there_yet(home: str):
    writer = AsyncRedisFileWriter(redis_port=1, stream_name="s", filename=f"{home}/app.log", block=10)
    assert writer.is_alive()
    writer.close(0.3)
    assert not writer.is_alive()


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [
        (AsyncRedisFileWriter, {"filename": "x"}, "stream_name"),
        (AsyncRedisFileWriter, {"stream_name": "s"}, "filename"),
        (AsyncRedisTTYWriter, {}, "stream_name"),
    ],
)
def test_missing_arguments_are_named(
    home: str, kind: Any, arguments: dict[str, Any], said: str, tmp_path: Any
):
    if arguments.get("filename"):
        arguments = {**arguments, "filename": tmp_path / "x"}
    with pytest.raises(ValueError, match=said):
        kind(**arguments)

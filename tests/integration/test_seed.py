"""``AsyncBufferedRedisHandler`` in programs as they are, apart from the import line."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from redislogkit import AsyncBufferedRedisHandler
from stress.checker import check, rotated_files
from tests.helpers.scripts import ROOT, Finished, Scripts
from tests.helpers.tcp import TcpServer
from tests.helpers.waiting import wait_until

Run = Callable[..., Finished]

FIELDS = {
    *(
        "formatted_message",
        "level",
        "levelno",
        "name",
        "pathname",
        "filename",
        "module",
        "lineno",
        "funcName",
    ),
    *("created", "asctime", "msecs", "thread", "threadName", "process", "processName", "message", "tty"),
    "exc_info",
}

#: The example of the README, with places of the test's own.
EXAMPLE = """
import logging, os, sys
from redislogkit import AsyncBufferedRedisHandler

logger = logging.getLogger('my_logger')
logger.setLevel(logging.DEBUG)
redis_handler = AsyncBufferedRedisHandler(
    redis_host='localhost',
    redis_port=int(sys.argv[1]),
    stream_name='my_log_stream',
    buffer_size=10,
    flush_interval=0.05,
    start_tty_writer=True,
    filename=sys.argv[2],
    max_bytes=10*1024*1024,
    backup_count=5
)
logger.addHandler(redis_handler)
logger.info('This is a test log message.')
"""

ASYNCIO_EXAMPLE = """
import asyncio, logging, os, sys
from redislogkit import AsyncBufferedRedisHandler, ConditionalFormatter

async def main():
    logger = logging.getLogger('my_logger')
    logger.setLevel(logging.DEBUG)
    handler = AsyncBufferedRedisHandler(redis_port=int(sys.argv[1]), stream_name='s', filename=sys.argv[2],
                                        start_tty_writer=False, max_bytes=20_000, backup_count=50)
    handler.setFormatter(ConditionalFormatter(
        fmt='%(asctime)s - %(name)s - %(levelname)s - %(message)s', optional_fields=['pid', 'ZZZpid']))
    logger.addHandler(handler)

    async def worker(name):
        for i in range(500):
            logger.info(f'{name} {i}', extra={'ZZZpid': os.getpid()})
            await asyncio.sleep(0)
    await asyncio.gather(*(worker(f'w{n}') for n in range(4)))
    try:
        1 / 0
    except ZeroDivisionError:
        logger.exception('failed')
    handler.close()

asyncio.run(main())
print(os.getpid())
"""


@pytest.fixture
def home(state_dir: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A home directory: the handler keeps its state below it."""
    monkeypatch.setenv("HOME", state_dir)
    return state_dir


@pytest.fixture
def server(home: str) -> Iterator[TcpServer]:
    running = TcpServer(home)
    yield running
    running.stop()


def lines(path: str) -> list[str]:
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
        return file.read().splitlines()
    return []


def wait_for(path: str, expected: list[str]) -> None:
    """The exit of a program waits for its records, but on a busy machine perhaps not long enough."""
    wait_until(lambda: lines(path) == expected, what=f"{len(expected)} lines in {path}")


def entries(server: TcpServer, stream: str) -> list[dict[str, str]]:
    found: Any = server.connection.xrange(stream)
    return [{k.decode(): v.decode() for k, v in fields.items()} for _, fields in found]


def on_a_terminal(source: str, *args: object) -> str:
    """Run a program on a terminal of its own; return what was to be seen there until it ended."""
    master, slave = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", source, *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    try:
        assert process.wait(30) == 0
        seen = b""
        while select.select([master], [], [], 0)[0]:
            seen += os.read(master, 65536)
    finally:
        process.kill()
        os.close(slave)
        os.close(master)
    return seen.decode()


def test_readme_example_writes_to_file_and_terminal(server: TcpServer, home: str):
    seen = on_a_terminal(EXAMPLE, server.port, f"{home}/my_app.log")
    wait_for(f"{home}/my_app.log", ["This is a test log message."])
    assert re.sub(r"\x1b\[[0-9;]*m", "", seen) == "This is a test log message.\r\n"


def test_running_the_example_again_writes_nothing_again(run_python: Run, server: TcpServer, home: str):
    for n in (1, 2, 3):
        done = run_python(EXAMPLE, server.port, f"{home}/my_app.log")
        assert (done.out, done.err) == ("", "")
        wait_for(f"{home}/my_app.log", ["This is a test log message."] * n)


def test_asyncio_loop_with_conditional_fields_and_rotation(run_python: Run, server: TcpServer, home: str):
    path = f"{home}/app.log"
    done = run_python(ASYNCIO_EXAMPLE, server.port, path)
    assert done.err == ""
    wait_until(lambda: lines(path)[-1:] == ["ZeroDivisionError: division by zero"])
    files = rotated_files(path)
    assert len(files) > 5
    assert all(os.path.getsize(file) <= 20_000 for file in files)
    found = [line for file in files for line in lines(file)]
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
    pattern = re.compile(rf"{stamp} - my_logger - INFO - (w\d) (\d+) - ZZZpid: {done.out.strip()}")
    matches = [pattern.fullmatch(line) for line in found[:2000]]
    numbers = [(match[1], int(match[2])) for match in matches if match]
    assert len(numbers) == 2000
    for worker in ("w0", "w1", "w2", "w3"):
        assert [n for name, n in numbers if name == worker] == list(range(500))
    assert found[2000].endswith("my_logger - ERROR - failed")
    assert found[-1] == "ZeroDivisionError: division by zero"


def test_records_have_their_fields_and_every_extra_in_the_stream(
    run_python: Run, server: TcpServer, home: str
):
    """No writer of ours here: the process ships by thread, and whoever wants reads the stream."""
    done = run_python(
        """
        import logging, sys
        from redislogkit import AsyncBufferedRedisHandler
        handler = AsyncBufferedRedisHandler('localhost', int(sys.argv[1]), 0, 's', start_tty_writer=False)
        log = logging.getLogger('app')
        log.addHandler(handler)
        log.warning('with extras', extra={'flag': True, 'none': None, 'list': [1, 'a'], 'map': {'k': False},
                                          'number': 1.5, 'text': 'x'})
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception('failed')
        handler.close()
        """,
        server.port,
    )
    assert (done.out, done.err) == ("", "")
    first, second = (entry for entry in entries(server, "s") if entry.get("name") == "app")
    assert set(first) >= FIELDS
    assert {
        name: first[name] for name in ("level", "levelno", "message", "tty", "exc_info", "formatted_message")
    } == {
        "level": "WARNING",
        "levelno": "30",
        "message": "with extras",
        "tty": "no_tty",
        "exc_info": "",
        "formatted_message": first["formatted_message"],
    }
    assert "with extras" in first["formatted_message"]
    assert first["flag"].lower() == "true"
    assert (
        first["none"],
        json.loads(first["list"]),
        json.loads(first["map"]),
        first["number"],
        first["text"],
    ) == (
        "",
        [1, "a"],
        {"k": False},
        "1.5",
        "x",
    )
    assert second["exc_info"].endswith("ZeroDivisionError: division by zero")


def test_signal_handlers_stay_and_emit_never_exits_with_no_server_at_all(run_python: Run, home: str):
    done = run_python(
        """
        import logging, signal, sys, time
        from redislogkit import AsyncBufferedRedisHandler
        before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
        handler = AsyncBufferedRedisHandler('localhost', 1, filename=sys.argv[1], start_tty_writer=False,
                                            retry_attempts=1, retry_delay=0.2)
        logging.getLogger().addHandler(handler)
        for i in range(100):
            logging.error('%d', i)
        assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
        handler.close()
        print(time.monotonic())
        """,
        f"{home}/app.log",
    )
    assert time.monotonic() - float(done.out) < 3
    assert done.err == ""


def test_close_keeps_a_stream_that_others_have_not_read(run_python: Run, server: TcpServer, home: str):
    source = """
        import logging, sys
        from redislogkit import AsyncBufferedRedisHandler
        handler = AsyncBufferedRedisHandler('localhost', int(sys.argv[1]), stream_name='s', filename=sys.argv[2],
                                            start_tty_writer=False)
        logging.getLogger('x').addHandler(handler)
        for i in range(300):
            logging.getLogger('x').error('%d', i)
        handler.close()
        handler.close()
    """
    server.connection.xgroup_create("s", "mine", "0", mkstream=True)
    server.connection.hset("{s}:redislogkit:writers", "mine", "0-0 0")
    run_python(source, server.port, f"{home}/app.log")
    wait_for(f"{home}/app.log", [str(i) for i in range(300)])
    answer: Any = server.connection.xreadgroup("mine", "me", {"s": ">"}, count=1000)
    read = [fields[b"message"].decode() for _, fields in answer[0][1] if fields.get(b"message")]
    assert read == [str(i) for i in range(300)]


@pytest.mark.usefixtures("uncovered")
def test_processes_with_the_same_arguments_share_one_file(scripts: Scripts, server: TcpServer, home: str):
    source = """
        import logging, sys
        from redislogkit import AsyncBufferedRedisHandler
        from stress.checker import message
        handler = AsyncBufferedRedisHandler(redis_port=int(sys.argv[1]), filename=sys.argv[2], max_bytes=20_000,
                                            backup_count=100, start_tty_writer=False, buffer_size=50)
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel('DEBUG')
        for i in range(1000):
            logging.info(message('r', sys.argv[3], i, 60))
    """
    path = f"{home}/app.log"
    running = [scripts.start(source, server.port, path, n) for n in range(4)]
    for process in running:
        assert process.communicate(timeout=30) == ("", "")
        assert process.returncode == 0
    wait_until(lambda: sum(map(len, map(lines, rotated_files(path)))) >= 4000)
    report = check(rotated_files(path), dict.fromkeys(range(4), 1000), "r")
    assert report.ok, report


def test_two_files_of_one_stream_are_two_readers_of_it(run_python: Run, server: TcpServer, home: str):
    done = run_python(
        """
        import logging, sys
        from redislogkit import AsyncBufferedRedisHandler
        for name in 'ab':
            handler = AsyncBufferedRedisHandler(redis_port=int(sys.argv[1]), stream_name='s',
                                                filename=f'{sys.argv[2]}/{name}.log', start_tty_writer=False)
            logger = logging.getLogger(name)
            logger.addHandler(handler)
        for i in range(50):
            logging.getLogger('ab'[i % 2]).error('%d', i)
        """,
        server.port,
        home,
    )
    assert done.err == ""
    # What the other one has logged is there too, from the time on at which the file's writer has joined.
    for own, name in enumerate("ab"):
        wait_until(lambda name=name, own=own: str(48 + own) in lines(f"{home}/{name}.log"))  # type: ignore[misc]
        found = [int(line) for line in lines(f"{home}/{name}.log")]
        assert [n for n in found if n % 2 == own] == list(range(own, 50, 2))
        assert len(found) == len(set(found))


def test_both_layouts_give_byte_identical_files(run_python: Run, server: TcpServer, home: str):
    source = """
        import json, logging, sys
        import redislogkit
        handle = redislogkit.configure(json.loads(sys.argv[1]))
        def feed(handler):
            for i in range(50):
                extra = {'flag': i % 2 == 0, 'none': None, 'list': [i, 'a'], 'map': {'k': 1.5}, 'n': i, 's': str(i),
                         'process': 4711, 'processName': 'P', 'text': 'a\\nb'}
                exc = (KeyError, KeyError(i), None) if i % 5 == 0 else None
                record = {'name': 'app.x', 'levelno': 20, 'levelname': 'INFO', 'msg': 'm %d \\x1b \\udc80', 'args': (i,),
                          'created': 1700000000.25 + i, 'msecs': 250.0, 'thread': 7, 'threadName': 'T',
                          'pathname': '/a/b.py', 'filename': 'b.py', 'module': 'b', 'lineno': i, 'funcName': 'f',
                          'exc_info': exc, 'stack_info': 'S' if i == 3 else None, 'taskName': 'task', **extra}
                handler.handle(logging.makeLogRecord(record))
        feed(handle.handler)
    """
    contents = {}
    for layout in ("batches", "records"):
        tree = {
            "state_dir": f"{home}/{layout}",
            "redis": {"url": server.url},
            "stream": {"name": layout, "layout": layout},
            "producer": {"shutdown_timeout": 10},
            "formatters": {
                "all": {"format": ALL, "optional_fields": ["flag", "none", "list", "map", "n", "s"]}
            },
            "writers": {
                "text": {"type": "file", "path": f"{home}/{layout}.log", "formatter": "all"},
                "json": {"type": "file", "path": f"{home}/{layout}.json", "formatter": "json"},
            },
        }
        done = run_python(source, json.dumps(tree))
        assert done.err == ""
        contents[layout] = [Path(home, f"{layout}.{kind}").read_bytes() for kind in ("log", "json")]
    assert contents["batches"] == contents["records"]
    assert contents["batches"][1].count(b"\n") == 50


ALL = (
    "%(asctime)s %(levelname)s %(levelno)s %(name)s %(message)s %(pathname)s %(filename)s %(module)s %(lineno)s "
    "%(funcName)s %(created)s %(msecs)s %(thread)s %(threadName)s %(taskName)s %(process)s %(processName)s %(text)s"
)


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"filename": "/nowhere/at/all.log"}, "FileNotFoundError", "/nowhere/at"),
        ({"filename": "/tmp"}, "IsADirectoryError", "/tmp"),
        ({"buffer_size": 0}, "ConfigError", "buffer_size"),
        ({"flush_interval": -1}, "ConfigError", "flush_interval"),
        ({"stream_name": "a b"}, "ConfigError", "stream.name"),
        ({"redis_port": "high"}, "ConfigError", "url"),
    ],
)
def test_wrong_arguments_are_named(home: str, wrong: dict[str, Any], error: str, said: str):
    with pytest.raises(Exception, match=re.escape(said)) as caught:
        AsyncBufferedRedisHandler(**wrong)
    assert type(caught.value).__name__ == error

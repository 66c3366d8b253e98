"""A writer into a stream that is somebody else's, too: what it takes, what it does when nothing is taken."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
import tty
from collections.abc import Iterator
from typing import Any

import pytest

from redislogkit import record
from redislogkit.config import FormatterConfig, StderrWriterConfig, StdoutWriterConfig
from redislogkit.errors import DestinationClosedError
from redislogkit.record import Facts, Loss, Record
from redislogkit.writers import standard
from redislogkit.writers.checkpoint import Checkpoint
from redislogkit.writers.reading import Reading
from redislogkit.writers.standard import StandardDestination
from tests.helpers.scripts import ROOT

PLAIN = FormatterConfig(format="%(levelname)s %(message)s")
FACTS = Facts("aaaa", "host", 1, "MainProcess", 0.0, 0)
NOTHING = Checkpoint("")


def logged(text: str, levelno: int = 20, levelname: str = "INFO") -> Record:
    return record.build(1.0, levelno, levelname, "a", text, "", 1, "", None, None)


def reading(*items: Record | Loss | str, first: int = 1) -> Reading:
    """What one reading brings; texts become records."""
    found = Reading(lambda _producer: 0, None)
    found.add((FACTS, first, [logged(item) if isinstance(item, str) else item for item in items]))  # type: ignore[arg-type]
    return found


@pytest.fixture
def pipe() -> Iterator[list[int]]:
    ends = list(os.pipe())
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def opened() -> Iterator[Any]:
    made: list[StandardDestination] = []

    def open_(fd: int, **settings: Any) -> StandardDestination:
        environ = settings.pop("environ", {})
        config = StdoutWriterConfig(**{"formatter": PLAIN, **settings})
        made.append(StandardDestination(config, fd=fd, environ=environ))
        made[-1].recover(NOTHING)
        return made[-1]

    yield open_
    for each in made:
        each.close()


def test_lines_reach_a_pipe_without_what_a_terminal_would_obey(pipe, opened):
    destination = opened(pipe[1])
    destination.write(reading("one", "two \x1b[2J\nthree", Loss(3, 4, "shed", 1.0)))
    text = os.read(pipe[0], 9999).decode()
    assert text.startswith("INFO one\nINFO two \\x1b[2J\nthree\nWARNING ")
    assert destination.counts.bytes == len(text)
    assert destination.mark() is destination.service() is None


def test_newlines_can_be_escaped(pipe, opened):
    opened(pipe[1], multiline="escape").write(reading("a\nb"))
    assert os.read(pipe[0], 99) == b"INFO a\\nb\n"


@pytest.mark.parametrize(
    ("color", "environ", "coloured"),
    [
        ("auto", {}, False),
        ("auto", {"FORCE_COLOR": "1"}, True),
        ("auto", {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ("always", {"NO_COLOR": "1"}, True),
        ("never", {"FORCE_COLOR": "1"}, False),
    ],
)
def test_a_pipe_has_colours_when_they_are_asked_for(pipe, opened, color, environ, coloured):
    opened(pipe[1], color=color, environ=environ).write(reading(logged("x", 40, "ERROR")))
    assert os.read(pipe[0], 99) == (b"\x1b[31mERROR\x1b[0m x\n" if coloured else b"ERROR x\n")


def test_json_is_never_coloured(pipe, opened):
    opened(pipe[1], color="always", formatter=FormatterConfig(type="json")).write(reading("x"))
    assert json.loads(os.read(pipe[0], 999))["message"] == "x"


def test_a_terminal_has_colours_and_is_left_as_it_was(opened):
    master, slave = pty.openpty()
    tty.setraw(slave)
    opened(slave).write(reading(logged("x", 40, "ERROR"), Loss(2, 2, "shed", 1.0)))
    assert os.read(master, 999).startswith(b"\x1b[31mERROR\x1b[0m x\n\x1b[33mWARNING")
    assert os.get_blocking(slave)
    os.close(master)
    os.close(slave)


def test_a_pipe_that_is_not_read_is_not_waited_for_long_and_nothing_is_torn_or_doubled(
    pipe, opened, monkeypatch
):
    monkeypatch.setattr(standard, "_PATIENCE", 0.02)
    texts = [f"{number:05} {'x' * 200}" for number in range(2000)]  # 400 KB, a pipe takes 64
    texts[5] += "y" * 10_000  # more than a pipe takes as a whole
    destination = opened(pipe[1])
    read = bytearray()
    last, failures = 1000, 0
    while _fails(destination, reading(*texts[:last])):
        read += os.read(pipe[0], 30_000)
        last = 2000  # the entries come again, and more with them
        failures += 1
        destination.recover(NOTHING)
    assert failures > 3
    os.close(pipe[1])
    destination.close()
    while part := os.read(pipe[0], 1 << 16):
        read += part
    pipe[1] = os.dup(pipe[0])
    assert read.decode().splitlines() == [f"INFO {text}" for text in texts]
    assert destination.counts.bytes == len(read)


def _fails(destination: StandardDestination, what: Reading) -> bool:
    """Whether whoever reads is too slow for it."""
    try:
        destination.write(what)
    except BlockingIOError:
        return True
    return False


def test_others_that_write_to_the_same_pipe_can_go_on_to_wait_for_room(pipe, opened, monkeypatch):
    monkeypatch.setattr(standard, "_PATIENCE", 0.0)
    with pytest.raises(BlockingIOError, match="whoever reads stdout is too slow"):
        opened(pipe[1]).write(reading(*["x" * 9000] * 20))
    assert os.get_blocking(pipe[1])


def test_what_another_host_writes_is_not_written_here(pipe, opened, monkeypatch):
    destination = opened(pipe[1])
    with monkeypatch.context() as patch:
        patch.setattr(standard, "_PATIENCE", 0.0)
        assert _fails(destination, reading(*["x" * 9000] * 20))
    destination.recover(NOTHING, retract=True)
    os.set_blocking(pipe[0], False)
    read = os.read(pipe[0], 1 << 17)
    destination.write(reading("next", first=21))
    read += os.read(pipe[0], 1 << 17)
    *lines, last = read.decode().splitlines()
    assert {len(line) for line in lines} == {9005}  # the one that was begun was ended
    assert len(lines) < 20
    assert last == "INFO next"


def test_who_reads_slowly_is_not_waited_for_beyond_a_sign_of_life(pipe, opened, monkeypatch):
    monkeypatch.setattr(standard, "_LONGEST_WRITE", 0.0)
    with pytest.raises(BlockingIOError):
        opened(pipe[1]).write(reading(*["x" * 4000] * 2))


def test_a_pipe_that_nobody_reads_any_more_is_told(opened):
    reader, writer = os.pipe()
    destination = opened(writer)
    os.close(reader)
    with pytest.raises(DestinationClosedError, match="nobody reads the supervisor's stdout any more"):
        destination.write(reading("x"))
    with pytest.raises(DestinationClosedError):
        destination.recover(NOTHING)
    os.close(writer)


def test_a_descriptor_that_is_closed_is_told():
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    with pytest.raises(DestinationClosedError, match="stderr of the supervisor is closed"):
        StandardDestination(StderrWriterConfig(), fd=writer).recover(NOTHING)


def test_a_file_is_written_where_its_descriptor_stands(tmp_path, opened):
    path = tmp_path / "out"
    with path.open("wb", buffering=0) as file:
        file.write(b"before\n")
        opened(file.fileno()).write(reading("x"))
        file.write(b"behind\n")
    assert path.read_text() == "before\nINFO x\nbehind\n"


def test_a_socket_is_written_to_without_waiting(opened, monkeypatch):
    monkeypatch.setattr(standard, "_PATIENCE", 0.02)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        destination = opened(ours.fileno())
        destination.write(reading("x"))
        assert theirs.recv(99) == b"INFO x\n"
        with pytest.raises(BlockingIOError):
            destination.write(reading(*["y" * 10_000] * 100, first=2))
        assert ours.getblocking()
        theirs.close()
        with pytest.raises(DestinationClosedError):
            destination.write(reading("z", first=200))


def test_a_closed_stdout_of_the_supervisor_is_nobody_elses_file(tmp_path):
    source = (
        "import os\n"
        "from redislogkit.supervise import occupy_standard_descriptors\n"
        "from redislogkit.config import StdoutWriterConfig\n"
        "from redislogkit.writers.standard import StandardDestination\n"
        "occupy_standard_descriptors()\n"
        f"assert os.open({str(tmp_path / 'file')!r}, os.O_CREAT) > 2\n"
        "StandardDestination(StdoutWriterConfig()).recover(None)\n"
    )
    shell = ["sh", "-c", 'exec "$0" -c "$1" <&- >&-', sys.executable, source]
    done = subprocess.run(shell, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    assert "DestinationClosedError: nobody reads the supervisor's stdout any more" in done.stderr

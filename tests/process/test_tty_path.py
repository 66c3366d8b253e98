"""From a logging call to the terminal of the process that made it, through everything in between."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from redislogkit import locking
from tests.helpers import processes
from tests.helpers.scripts import ROOT
from tests.helpers.supervision import Supervision
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.usefixtures("reaped")

PROGRAM = """
import json, logging, sys
import redislogkit
redislogkit.configure(json.loads(sys.argv[1]))
log = logging.getLogger("shop")
log.debug("%s debug", sys.argv[2])
log.info("%s info", sys.argv[2])
log.error("%s error", sys.argv[2])
"""


class Terminal:
    """A terminal with a user who reads everything at once."""

    def __init__(self) -> None:
        self._master, self._slave = pty.openpty()
        self.text = ""

    def run(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program on it."""
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            **options,
        )

    def read(self) -> str:
        """Take what is there now; return all there has been."""
        while select.select([self._master], [], [], 0)[0]:
            self.text += os.read(self._master, 65536).decode()
        return self.text

    def lines(self) -> list[str]:
        """The messages that have been shown, without colours and what stands before them."""
        return re.findall(r"(\w+ (?:debug|info|error))", self.read())

    def close(self) -> None:
        os.close(self._master)
        os.close(self._slave)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened = [Terminal(), Terminal()]
    yield opened
    for terminal in opened:
        terminal.close()


@pytest.fixture
def supervision(state_dir: str) -> Supervision:
    """A terminal from INFO on and a file, and exits that may take longer than usual on a busy machine."""
    made = Supervision(state_dir, producer={"shutdown_timeout": 15}, loggers={"root": "DEBUG"})
    made.sections["writers"]["console"] = {"type": "tty", "level": "INFO"}
    return made


def run(terminal: Terminal, supervision: Supervision, name: str) -> list[str]:
    """Run the program to its end; return what stood on the terminal when it had ended."""
    with terminal.run(supervision.argument, name) as process:
        assert process.wait(30) == 0
        return terminal.lines()


def test_the_last_lines_are_on_the_terminal_before_the_prompt_is(terminals, supervision):
    assert supervision.pid == 0
    assert run(terminals[0], supervision, "cold") == ["cold info", "cold error"]
    assert supervision.pid
    assert run(terminals[0], supervision, "warm") == ["cold info", "cold error", "warm info", "warm error"]
    with open(supervision.path) as file:
        assert re.findall(r"(\w+ debug)", file.read()) == ["cold debug", "warm debug"]


def test_each_terminal_gets_the_lines_of_its_own_processes_only(terminals, supervision):
    left, right = terminals
    with left.run(supervision.argument, "left") as one, right.run(supervision.argument, "right") as other:
        assert (one.wait(30), other.wait(30)) == (0, 0)
    assert left.lines() == ["left info", "left error"]
    assert right.lines() == ["right info", "right error"]


def test_lines_are_coloured_by_their_level_and_the_file_is_not(terminals, supervision):
    run(terminals[0], supervision, "a")
    info, error = (line for line in terminals[0].read().splitlines() if line)
    colours = [re.findall(r"\x1b\[([\d;]+)m", line) for line in (info, error)]
    assert all(colours)
    assert colours[0] != colours[1]
    with open(supervision.path) as file:
        assert "\x1b" not in file.read()


def test_the_terminals_of_a_supervisor_in_the_foreground_are_the_programs_own(terminals, supervision):
    supervision.sections["supervisor"] = {"autostart": False}
    process = supervision.start()
    assert run(terminals[0], supervision, "a") == ["a info", "a error"]
    process.terminate()
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "a info" not in out


def test_a_killed_terminal_writer_shows_every_line_again_at_most_once_more(terminals, supervision):
    with terminals[0].run(supervision.argument, "a"), terminals[1].run(supervision.argument, "b"):
        wait_until(lambda: terminals[0].lines() and terminals[1].lines(), what="the first lines")
        os.kill(supervision.child("w-console"), 9)
    assert run(terminals[0], supervision, "c")
    for terminal, names in zip(terminals, ("ac", "b"), strict=True):
        for name in names:
            for level in ("info", "error"):
                assert 1 <= terminal.lines().count(f"{name} {level}") <= 2


def test_a_forked_worker_writes_to_the_terminal_of_its_own_session(terminals, supervision):
    source = """
import json, logging, os, sys
import redislogkit
redislogkit.configure(json.loads(sys.argv[1]))
logging.getLogger("shop").info("parent info")
pid = os.fork()
logging.getLogger("shop").info("child info" if not pid else "after info")
if pid:
    os.waitpid(pid, 0)
"""
    terminal = terminals[0]
    with subprocess.Popen(
        [sys.executable, "-c", source, json.dumps(supervision.sections)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=terminal._slave,
        stdout=terminal._slave,
        stderr=terminal._slave,
        start_new_session=True,
    ) as process:
        assert process.wait(30) == 0
    assert sorted(terminal.lines()) == ["after info", "child info", "parent info"]


def test_a_launched_supervisor_holds_no_terminal(terminals, supervision):
    run(terminals[0], supervision, "a")
    lock = os.path.join(supervision.stream_dir, "supervisor.lock")
    pid = locking.read_owner(lock)["pid"]
    assert processes.is_running(pid)
    for role, child in supervision.everybody().items():
        held = [os.readlink(f"/proc/{child}/fd/{fd}") for fd in os.listdir(f"/proc/{child}/fd")]
        assert not [name for name in held if name.startswith("/dev/pts/")], role

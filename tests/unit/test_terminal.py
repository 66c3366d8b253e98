"""A process finds its terminal and its identity, whatever became of its descriptors."""

from __future__ import annotations

import ast
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from redislogkit import identity, terminal
from tests.helpers.scripts import ROOT

FIND = """
import os, sys
sys.path.insert(0, {root!r})
report = os.dup(0)
{before}
from redislogkit.terminal import find_terminal
os.write(report, repr(find_terminal()).encode())
os._exit(0)
"""


@pytest.fixture
def slave() -> Iterator[int]:
    master, slave = pty.openpty()
    yield slave
    os.close(master)
    os.close(slave)


def found_by(before: str = "", **streams: Any) -> Any:
    """What a program finds that runs ``before`` first; it reports through its stdin."""
    reader, writer = os.pipe()
    source = FIND.format(root=str(ROOT), before=before)
    process = subprocess.run(
        [sys.executable, "-c", source], stdin=writer, start_new_session=True, check=False, **streams
    )
    os.close(writer)
    with os.fdopen(reader) as file:
        answer = file.read()
    assert process.returncode == 0
    return ast.literal_eval(answer)


def place(slave: int) -> tuple[str, int]:
    return os.ttyname(slave), os.fstat(slave).st_rdev


def test_stdout_is_the_terminal(slave: int) -> None:
    assert found_by(stdout=slave, stderr=subprocess.PIPE) == place(slave)


def test_stderr_is_the_terminal_where_stdout_is_none(slave: int) -> None:
    assert found_by(stdout=subprocess.PIPE, stderr=slave) == place(slave)
    assert found_by("os.close(1)", stdout=subprocess.PIPE, stderr=slave) == place(slave)


def test_without_a_terminal_there_is_none() -> None:
    assert found_by(stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) == ("", 0)


def test_closed_descriptors_are_no_terminal() -> None:
    assert found_by("os.close(1); os.close(2)") == ("", 0)


def test_replaced_streams_do_not_matter(slave: int) -> None:
    before = "sys.stdout = sys.__stdout__ = None; sys.stderr = object()"
    assert found_by(before, stdout=slave, stderr=slave) == place(slave)


def test_the_alias_dev_tty_is_resolved(slave: int) -> None:
    path = os.ttyname(slave)
    before = f"os.open({path!r}, os.O_RDWR); os.dup2(os.open('/dev/tty', os.O_RDWR), 1)"
    assert found_by(before, stdout=subprocess.PIPE, stderr=subprocess.PIPE) == place(slave)


def test_a_pseudo_terminal_beyond_the_first_256_has_its_path() -> None:
    assert terminal._path_of(
        terminal._decode_device((136 << 8) | (300 & 0xFF) | ((300 & 0xFFF00) << 12))
    ) == ("/dev/pts/300")
    assert terminal._path_of(os.makedev(4, 1)) == "/dev/tty1"


@pytest.mark.parametrize("module", [identity, terminal])
def test_every_application_can_afford_the_imports(module: ModuleType) -> None:
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    froms = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names | froms <= {"__future__", "os", "sys", "typing"}


def test_a_process_has_one_start_time_and_another_process_another() -> None:
    own = identity.process_start(os.getpid())
    assert own == identity.process_start(os.getpid())
    assert own is not None
    assert own.isdigit()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        started = identity.process_start(child.pid)
        child.communicate(b"\n")
    assert started is not None
    assert int(started) >= int(own)
    assert identity.process_start(child.pid) is None


def test_brackets_in_a_program_name_do_not_confuse_the_start_time(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = " ".join(str(number) for number in range(3, 53))
    monkeypatch.setattr(identity, "_read", lambda _: b"7 (a) b) (c) " + fields.encode())
    assert identity.process_start(7) == "22"


def test_an_owner_is_named_without_the_arguments_of_its_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/srv/app\udcff.py", "--password=secret"])
    owner = identity.owner()
    assert owner["pid"] == os.getpid()
    assert (owner["host"], owner["boot_id"]) == (identity.host_name(), identity.boot_id())
    assert str(owner["program"]).endswith("/srv/app\\udcff.py")
    assert "secret" not in repr(owner)

"""The demo, and every program shown in README and docs, run as a person would run them."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from redislogkit import demo
from redislogkit.stream.embedded import find_server
from tests.helpers import processes
from tests.helpers.pages import ROOT, blocks
from tests.helpers.waiting import wait_until

DEMO = "import sys; from redislogkit import demo; sys.exit(demo.run(orders=200))"
RECORDS = 4 * (200 * 5 + 7)
QUICKSTART = ROOT / "docs/quickstart.md"


def _environment(folder: str, **more: str) -> dict[str, str]:
    return {**os.environ, "HOME": folder, "TMPDIR": folder, "PYTHONPATH": str(ROOT), **more}


def _lines(path: Path, at_least: int = 0) -> list[str]:
    """Return the lines of a file, once it has as many."""
    if at_least:
        wait_until(lambda: len(_lines(path)) >= at_least, what=f"{path.name} has {at_least} lines")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


# --- the demo ----------------------------------------------------------------------------------------------


def test_the_demo_passes_where_there_is_no_terminal_and_leaves_no_process(state_dir, reaped):
    done = subprocess.run(
        [sys.executable, "-c", DEMO],
        check=False,
        env=_environment(state_dir),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"logged         {RECORDS:,} records by 4 processes" in done.stdout
    assert f"written        {RECORDS:,} records" in done.stdout
    assert "neither stdout nor stderr is a terminal" in done.stdout
    assert "exactly once" in done.stdout
    rotated = re.search(r"rotated +(\d+) times", done.stdout)
    assert rotated and int(rotated[1]) >= 3
    # The supervisor frees its lock a moment before its process is gone.
    wait_until(lambda: not processes.started(reaped, state_dir), what="no process is left")
    (folder,) = Path(state_dir).glob("redislogkit-demo-*")
    assert not list((folder / "state/app/spool").iterdir())


def test_the_demo_shows_coloured_lines_on_a_terminal(state_dir):
    controller, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", DEMO],
        env=_environment(state_dir, TERM="xterm-256color"),
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    with open(controller, "rb", buffering=0) as screen:
        while True:
            try:
                shown += screen.read(65536)
            except OSError:  # the last program on the terminal has ended
                break
    assert process.wait(10) == 0, shown.decode()
    text = shown.decode()
    coloured = re.findall(
        r"^\d\d:\d\d:\d\d \x1b\[\d+m(INFO|WARNING|ERROR)\x1b\[\d*m +(.*?)\r$", text, re.MULTILINE
    )
    messages = [message for _, message in coloured]
    assert sum(message.endswith("opens") for message in messages) == 4
    assert sum(message.endswith("closes") for message in messages) == 4
    assert [message for level, message in coloured if level == "ERROR"] == [
        "order 3-00100 4/5 not paid - customer: Smith"
    ]
    assert "Declined: the card has expired" in text
    assert " DEBUG " not in text
    assert text.index("counter 1 closes") < text.index("checked ")


def test_the_demo_says_what_to_install_where_no_server_is_found(monkeypatch, capsys):
    monkeypatch.setenv("REDISLOGKIT_SERVER", "/nowhere/valkey-server")
    assert demo.run() == 2
    assert "/nowhere/valkey-server" in capsys.readouterr().err


def _log(path: Path, counter: int, places: list[tuple[int, int]], orders: int) -> None:
    formatter = logging.Formatter("%(asctime)s %(levelname)-8s shop.orders[1]: %(message)s")
    texts = {0: f"counter {counter} opens", orders + 1: f"counter {counter} closes"}
    with path.open("a", encoding="utf-8") as file:
        for order, step in places:
            served = f"counter {counter} has served {order} of {orders}"
            usual = served if step == 6 else f"order {counter}-{order:05d} {step}/5 something"
            record = logging.makeLogRecord({"msg": texts.get(order, usual), "levelname": "DEBUG"})
            file.write(formatter.format(record) + "\n")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda places: places, []),
        (lambda places: places[:7] + places[8:], ["counter 1: 1 of 38 lost, 0 doubled, in order"]),
        (lambda places: places[:7] + places[6:], ["counter 1: 0 of 38 lost, 1 doubled, in order"]),
        (
            lambda places: [places[1], places[0], *places[2:]],
            ["counter 1: 0 of 38 lost, 0 doubled, out of order"],
        ),
        (lambda places: [], ["counter 1: 38 of 38 lost, 0 doubled, in order"]),
    ],
    ids=["right", "lost", "doubled", "disordered", "empty"],
)
def test_the_demo_finds_what_is_wrong_in_the_files(tmp_path, change, fault):
    orders = 6
    expected = demo.expected_places(orders)
    places = change(expected)
    _log(tmp_path / "shop.log.10", 1, places[:5], orders)
    _log(tmp_path / "shop.log.2", 1, places[5:9], orders)
    _log(tmp_path / "shop.log", 1, places[9:], orders)
    (tmp_path / "shop.log.toml").touch()
    files = demo.log_files(str(tmp_path / "shop.log"))
    assert [os.path.basename(file) for file in files] == ["shop.log.10", "shop.log.2", "shop.log"]
    assert demo.read_files(files, expected).faults(["1"]) == fault


# --- the pages ---------------------------------------------------------------------------------------------


def test_the_six_lines_of_the_readme_write_into_the_file(scripts, state_dir, tmp_path):
    folder = tmp_path / "scripts"
    (folder / "log.toml").write_text(blocks(ROOT / "README.md", "toml")[0], encoding="utf-8")
    finished = scripts.run(blocks(ROOT / "README.md", "python")[0], env={"HOME": state_dir})
    assert (finished.out, finished.err) == ("", "")
    lines = _lines(folder / "app.log", at_least=2)
    assert len(lines) == 2
    assert lines[0].endswith(" INFO     shop: open for business")
    assert lines[1].endswith(" WARNING  shop: only 3 boxes of bolts left")


@pytest.mark.usefixtures("uncovered")
def test_every_program_of_the_quickstart_does_what_the_page_says(scripts, state_dir, tmp_path):
    folder = tmp_path / "scripts"
    (folder / "log.toml").write_text(blocks(QUICKSTART, "toml")[0], encoding="utf-8")
    results = [scripts.run(program, env={"HOME": state_dir}) for program in blocks(QUICKSTART, "python")]
    assert len(results) == 5
    assert [finished.err for finished in results] == [""] * 5
    assert results[2].out == "written: True\nrecords: 1\n"
    ends = ["open for business", "only 3 boxes of bolts left", "the bill is paid", "set up by dictConfig"]
    ends += [f"order {n} is served" for n in range(20)]
    ends += ["WARNING few bolts left - shelf: 17"]
    lines = _lines(folder / "app.log", at_least=len(ends))
    assert sorted(line.partition("shop: ")[2] or line for line in lines) == sorted(ends)


def test_the_handler_of_the_readme_works_as_printed(scripts, state_dir, tmp_path):
    example = blocks(ROOT / "README.md", "python")[1]
    file = tmp_path / "my_app.log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [find_server(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", state_dir],
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _answers(port), what="the server answers")
        program = example.replace("/var/log/my_app.log", str(file)).replace("6379", str(port))
        assert program != example
        finished = scripts.run(program, env={"HOME": state_dir})
        assert (finished.out, finished.err) == ("", "")
        wait_until(lambda: _lines(file) == ["This is a test log message."], what="the line is in the file")
    finally:
        processes.stop(server)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False

"""The demo, run as a person would run it."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from redislogkit import demo
from tests.helpers import processes
from tests.helpers.pages import ROOT
from tests.helpers.waiting import wait_until

DEMO = "import sys; from redislogkit import demo; sys.exit(demo.run(orders=200))"
RECORDS = 4 * (200 * 5 + 7)


def _environment(folder: str, **more: str) -> dict[str, str]:
    return {**os.environ, "HOME": folder, "TMPDIR": folder, "PYTHONPATH": str(ROOT), **more}


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

"""``tail`` and ``cat`` beside real programs, writers and a real server."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from redislogkit import config as configuration
from redislogkit.stream import address
from redislogkit.stream.client import StreamClient
from redislogkit.view.filter import Filter
from redislogkit.view.whole import Whole
from tests.helpers.scripts import ROOT
from tests.helpers.supervision import Producers, Supervision
from tests.helpers.waiting import wait_until

COMMAND = [sys.executable, "-m", "redislogkit"]


def _numbers(texts: list[str]) -> dict[str, list[int]]:
    """Worker → numbers of its records, in the order in which they are shown."""
    found: dict[str, list[int]] = {}
    for text in texts:
        match = re.search(r"rlk\[r (\w+) (\d+)", text)
        assert match, text
        found.setdefault(match[1], []).append(int(match[2]))
    return found


def _wait_for_more(path: str) -> None:
    def stamp() -> tuple[int, ...]:
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(path)
            return status.st_ino, status.st_size
        return 0, 0

    before = stamp()
    wait_until(lambda: stamp() not in (before, (0, 0)), what="records are written")


def _start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


@pytest.mark.usefixtures("uncovered")
def test_records_are_followed_and_shown_whole_while_they_are_written_rotated_and_packed(
    state_dir, scripts, tmp_path
):
    supervision = Supervision(state_dir)
    supervision.sections["writers"]["app"] |= {"max_bytes": "16 KiB", "backup_count": 500, "compress": "gzip"}
    config = supervision.file()
    producers = Producers(scripts, supervision, pause=0.004)
    _wait_for_more(supervision.path)
    following = _start("tail", config, "-f", "-n", "5", "-o", "json")
    quiet = _start("tail", config, "-f", "-n", "0", "--level", "CRITICAL")

    # Each look has all that is written so far, once and in order.
    loaded = configuration.load(supervision.sections)
    for _ in range(6):
        _wait_for_more(supervision.path)
        written = _numbers(Path(supervision.path).read_text().splitlines())
        said: list[str] = []
        whole = Whole(
            loaded, "app", Filter.of(now=0), said.append, lambda: StreamClient(address.resolve(loaded), "app")
        )
        whole.open()
        shown = _numbers([line.text for line in whole.lines()])
        whole.close()
        assert not whole.away
        assert said == []
        for worker, numbers in shown.items():
            assert numbers == list(range(len(numbers)))
            assert numbers[-1] >= max(written.get(worker, [0]))

    # The follower has all from some record on.
    assert following.stdout is not None
    lines = [json.loads(following.stdout.readline())["message"] for _ in range(200)]
    for numbers in _numbers(lines).values():
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))

    # Interrupted, and without a reader; both have missed nothing, although nobody has read for a while.
    os.kill(following.pid, signal.SIGINT)
    assert following.communicate(timeout=20)[1] == ""
    assert following.returncode == 130
    assert quiet.stdout is not None
    quiet.stdout.close()
    assert quiet.wait(20) == 141
    assert quiet.stderr is not None
    with quiet.stderr as stderr:
        assert stderr.read() == ""

    # A regular file gets the bytes of the log files.
    supervision.wait_complete(producers.finish())
    copy = tmp_path / "copy.log"
    with open(copy, "wb") as file:
        subprocess.run([*COMMAND, "cat", config], stdout=file, check=True, cwd=ROOT, stderr=subprocess.PIPE)
    shown = _numbers(copy.read_text().splitlines())
    assert all(numbers == list(range(len(numbers))) for numbers in shown.values())
    assert copy.read_text().endswith(Path(supervision.path).read_text())
    assert len(list(Path(supervision.path).parent.glob("*.gz"))) > 1

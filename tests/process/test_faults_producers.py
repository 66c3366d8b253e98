"""Producers that come and go by the hundred, or are killed while they fork: nothing grows, nothing is lost."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from redislogkit.spool.shipper_end import spool_names
from tests.helpers.scripts import Finished, Scripts
from tests.helpers.server import Server
from tests.helpers.settings import CONFIGURED, messages, settings
from tests.helpers.supervision import Supervision
from tests.helpers.waiting import wait_until

Run = Callable[..., Finished]

#: Forks children that log three records each, and waits for each ten of them.
_MANY = (
    CONFIGURED
    + """
for begin in range(0, int(sys.argv[3]), 10):
    pids = []
    for child in range(begin, begin + 10):
        pid = os.fork()
        if not pid:
            for n in range(3): log.info("%s %d %d", sys.argv[2], child, n)
            os._exit(0)
        pids.append(pid)
    for pid in pids: os.waitpid(pid, 0)
"""
)


@pytest.fixture
def tree(own_server: Server, state_dir: str, stream_name: str) -> dict[str, Any]:
    return settings(state_dir, stream_name, own_server.url, producer={"shutdown_timeout": 20})


def has_lines(path: str, number: int) -> bool:
    return len(messages(path)) >= number


def footprint(tree: dict[str, Any], supervision: Supervision, server: Server) -> dict[str, Any]:
    """What could grow with the number of producers there have been."""
    folder = os.path.join(tree["state_dir"], tree["stream"]["name"])
    names = sorted(
        os.path.relpath(os.path.join(place, name), folder)
        for place, _, files in os.walk(folder)
        for name in files
        if not name.endswith(".index")
    )
    keys = {key: _length(server, key) for key in sorted(server.command("KEYS", "*"))}
    pids = [supervision.pid, *supervision.children().values()]
    return {"files": names, "keys": keys, "descriptors": [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]}


def _length(server: Server, key: bytes) -> int:
    kind = server.command("TYPE", key)
    command = {b"hash": "HLEN", b"stream": "XLEN", b"string": "STRLEN", b"set": "SCARD", b"zset": "ZCARD"}
    return int(server.command(command[kind if isinstance(kind, bytes) else str(kind).encode()], key))


@pytest.mark.usefixtures("uncovered")
def test_nothing_grows_with_many_short_lived_producers(
    scripts: Scripts, tree: dict[str, Any], own_server: Server
) -> None:
    supervision = Supervision(tree["state_dir"], stream=tree["stream"])
    path = tree["writers"]["app"]["path"]
    keeper = scripts.start(CONFIGURED + "log.info('keeper'); sys.stdin.read()", json.dumps(tree))
    prints = []
    written = 1
    for name, number in (("few", 10), ("many", 120)):
        scripts.run(_MANY, json.dumps(tree), name, number)
        written += 3 * number
        wait_until(partial(has_lines, path, written), what="all is written")
        wait_until(lambda: len(supervision.spools()) == 1, what="the spools of the dead are gone")
        prints.append(_settled(lambda: footprint(tree, supervision, own_server)))
    few, many = prints
    assert many["files"] == few["files"]
    assert many["descriptors"] == few["descriptors"]
    # The stream is trimmed by whole nodes of a hundred entries; no hash keeps a producer that has ended.
    stream = tree["stream"]["name"].encode()
    assert many["keys"].pop(stream) < 300
    few["keys"].pop(stream)
    assert many["keys"] == few["keys"]
    assert _size(supervision) < 64 * 1024
    assert len(messages(path)) == len(set(messages(path))) == written
    keeper.communicate("", timeout=20)


def _size(supervision: Supervision) -> int:
    """Bytes of the writer's journal: 200 producers that have ended stand in it by name."""
    return Path(supervision.stream_dir, "checkpoints", "app").stat().st_size


def _settled(look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is seen twice in a row, a tenth of a second apart."""
    seen: list[dict[str, Any]] = [look()]

    def same() -> bool:
        time.sleep(0.1)
        seen.append(look())
        return seen[-1] == seen[-2]

    wait_until(same, what="nothing changes any more")
    return seen[-1]


@pytest.mark.usefixtures("uncovered")
def test_more_dead_producers_than_a_shipper_has_descriptors_for_are_shipped(
    scripts: Scripts, state_dir: str, server_url: str, stream_name: str
) -> None:
    supervision = Supervision(
        state_dir,
        redis={"url": server_url},
        stream={"name": stream_name},
        producer={"shutdown_timeout": 0},
        supervisor={"autostart": False},
        formatters={"bare": {"format": "%(message)s"}},
    )
    supervision.sections["writers"]["app"]["formatter"] = "bare"
    scripts.run(_MANY, supervision.argument, "dead", 250)  # their spools would take 500 descriptors and more
    process = supervision.start(preexec_fn=partial(resource.setrlimit, resource.RLIMIT_NOFILE, (256, 256)))
    wait_until(lambda: not spool_names(os.path.join(supervision.stream_dir, "spool")), what="all are gone")
    process.terminate()
    out, _ = process.communicate(timeout=20)
    lines = Path(supervision.path).read_text().splitlines()
    assert sorted(lines) == sorted(f"dead {child} {n}" for child in range(250) for n in range(3))
    assert process.returncode == 0
    assert sum("RLIMIT_NOFILE" in line for line in out.splitlines()) == 1, out
    assert "Too many open files" not in out


@pytest.mark.usefixtures("uncovered")
def test_children_killed_in_a_fork_storm_of_threads_lose_no_record_whose_call_returned(
    scripts: Scripts, state_dir: str, stream_name: str, server_url: str, tmp_path: Path
) -> None:
    tree = settings(state_dir, stream_name, server_url, producer={"shutdown_timeout": 20})
    counts = tmp_path / "counts"
    counts.write_bytes(bytes(8 * 64))
    done = scripts.run(
        CONFIGURED
        + """
import mmap, random, signal, threading, time
with open(sys.argv[2], "r+b") as file:
    returned = memoryview(mmap.mmap(file.fileno(), 8 * 64)).cast("Q")
def child(number):
    while True:  # until it is killed
        log.info("%d %d", number, returned[number])
        returned[number] += 1
def storm(thread):
    generator = random.Random(thread)
    for number in range(thread * 10, thread * 10 + 10):
        pid = os.fork()
        if not pid:
            child(number)
        log.info("%d %d", 40 + thread, returned[40 + thread])
        returned[40 + thread] += 1
        time.sleep(generator.uniform(0.0, 0.02))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
threads = [threading.Thread(target=storm, args=(n,)) for n in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
        json.dumps(tree),
        counts,
    )
    assert (done.out, done.err) == ("", "")
    supervision = Supervision(tree["state_dir"], stream=tree["stream"])
    root = os.path.join(supervision.stream_dir, "spool")
    # Hidden ones were being made when their maker was killed: nothing is in them, the next shipper sweeps them.
    wait_until(lambda: not spool_names(root), what="all spools are written and gone")
    found: dict[int, list[int]] = {}
    for text in messages(tree["writers"]["app"]["path"]):
        number, n = map(int, text.split())
        found.setdefault(number, []).append(n)
    returned = memoryview(counts.read_bytes()).cast("Q")
    assert sum(returned[:40]) > 0
    for number in range(44):
        numbers = found.get(number, [])
        assert numbers == list(range(len(numbers)))
        # The record in the making may be there or not.
        assert returned[number] <= len(numbers) <= returned[number] + (number < 40)

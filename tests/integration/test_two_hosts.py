"""Two hosts with writers of one name: one works, and whoever was stopped for too long neither doubles nor confirms."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path as FilePath

import pytest

from tests.helpers.path import Path
from tests.helpers.scripts import Scripts
from tests.helpers.waiting import wait_until

#: A file writer of another host, until its stdin ends.
_HOST = """
    import os, select, sys
    from redislogkit.stream.client import StreamClient
    from redislogkit.writers import base
    from redislogkit.writers.checkpoint import Checkpoint
    from redislogkit.writers.file import FileDestination
    from tests.helpers import filewriter

    base.LEASE = 0.6
    name, folder, url, stream = sys.argv[1:]
    os.makedirs(folder)
    destination = FileDestination(
        filewriter.config(f"{folder}/app.log"), lambda line: print(line, flush=True), index_folder=f"{folder}/index"
    )
    writer = base.Writer(
        "app", lambda: StreamClient(url, stream), destination, Checkpoint(f"{folder}/checkpoint"),
        lambda level, logger: True, lambda line: print(line, flush=True), block=0.02, owner=name,
    )
    writer.run(lambda: bool(select.select([sys.stdin], [], [], 0)[0]))
"""


@pytest.mark.usefixtures("untraced")
def test_a_writer_that_is_stopped_beyond_its_lease_doubles_nothing_when_it_goes_on(
    scripts: Scripts, state_dir: str, server_url: str, stream_name: str
) -> None:
    path = Path(state_dir, server_url, stream_name)
    folders = [os.path.join(state_dir, name) for name in ("web1", "web2")]

    def lines() -> Counter[str]:
        found: Counter[str] = Counter()
        for folder in folders:
            with open(f"{folder}/app.log", encoding="utf-8") as file:
                found.update(line.rstrip("\n") for line in file)
        return found

    hosts = [scripts.start(_HOST, os.path.basename(f), f, server_url, stream_name) for f in folders]
    try:
        path.start("shipper")
        end = path.producer()
        wait_until(lambda: all(os.path.exists(f"{folder}/app.log") for folder in folders), what="both run")
        for turn in range(6):
            path.log(end, 500)
            wait_until(lambda: lines() >= path.expected, what="all is written")
            path.log(end, 3000)  # somewhere in these
            host = hosts[max((0, 1), key=lambda n: FilePath(folders[n], "app.log").stat().st_mtime_ns)]
            os.kill(host.pid, signal.SIGSTOP)
            path.log(end, 500)
            if turn % 2:
                wait_until(lambda: lines() >= path.expected, what="the other one has taken over")
            else:
                wait_until(lambda: end.position(True) > 0, what="it goes on at once")
            os.kill(host.pid, signal.SIGCONT)
        path.log(end, 500)
        wait_until(lambda: lines() >= path.expected, what="all is written")
        wait_until(lambda: end.position(True) >= end.sequence, what="the producer knows it")
        assert lines() == path.expected
        sizes = [os.path.getsize(f"{folder}/app.log") for folder in folders]
        assert min(sizes) > 0  # both have written
    finally:
        for host in hosts:
            host.kill()
        path.close()

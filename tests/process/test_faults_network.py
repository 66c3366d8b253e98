"""The way to redis is slow, frozen or cut: records arrive once and in order, and no logging call waits for it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stress.proxy import Proxy
from tests.helpers.scripts import Scripts
from tests.helpers.settings import CONFIGURED, messages, settings
from tests.helpers.tcp import TcpServer
from tests.helpers.waiting import wait_until

#: Logs numbered records until its stdin ends; prints how many, and what share of the calls took how long.
_TIMED = (
    CONFIGURED
    + """
import select, time
n, took = 0, []
while not select.select([sys.stdin], [], [], 0)[0]:
    for _ in range(20):
        began = time.thread_time()
        log.info("%d", n)
        took.append(time.thread_time() - began)
        n += 1
    time.sleep(0.005)
slept = time.monotonic()
for _ in range(2000): log.info("%d", n); n += 1
waited = time.monotonic() - slept
took.sort()
print(json.dumps([n, took[int(len(took) * 0.999)], waited]), flush=True)
"""
)


@pytest.fixture
def way(tmp_path, reaped) -> Iterator[Proxy]:
    server = TcpServer(str(tmp_path))
    proxy = Proxy(server.port)
    try:
        yield proxy
    finally:
        proxy.close()
        server.stop()


def lines(path: str) -> int:
    """Whole lines in the file, which somebody is writing to."""
    return Path(path).read_bytes().count(b"\n") if os.path.exists(path) else 0


@pytest.mark.usefixtures("uncovered")
def test_a_slow_frozen_or_cut_way_to_redis_doubles_nothing_and_slows_no_call(
    way: Proxy, scripts: Scripts, state_dir: str, stream_name: str
) -> None:
    url = f"redis://127.0.0.1:{way.port}/0"
    tree = settings(state_dir, stream_name, url, supervisor={"heartbeat_timeout": 4})
    tree["producer"]["shutdown_timeout"] = 20
    path = tree["writers"]["app"]["path"]
    program = scripts.start(_TIMED, json.dumps(tree))
    wait_until(lambda: lines(path), what="records flow")

    def flows_on() -> None:
        before = lines(path)
        wait_until(lambda: lines(path) > before + 100, what="records flow again")

    way.slow(3.0, 0.1)
    time.sleep(1.5)
    for fault in (way.break_replies, way.break_requests, way.cut, way.deafen, way.cut):
        fault()
        time.sleep(0.3)
    way.heal()
    flows_on()
    way.stall(2.0)
    time.sleep(2.0)
    flows_on()
    way.slow(30.0, 0.1)
    out, err = program.communicate("", timeout=60)
    way.heal()
    assert err == ""
    logged, usual, waited = json.loads(out)
    assert usual < 0.001
    assert waited < 1.0  # 2,000 calls while each reply takes 100 ms
    wait_until(lambda: lines(path) >= logged, what="all is written")
    assert messages(path) == [str(n) for n in range(logged)]

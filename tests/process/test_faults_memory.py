"""Memory runs out: in the application, whose calls return as ever, and in the shipper, which is started again."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.scripts import Finished, Scripts
from tests.helpers.settings import CONFIGURED, messages, settings
from tests.helpers.supervision import PRODUCER, Supervision
from tests.helpers.waiting import wait_until

Run = Callable[..., Finished]


@pytest.fixture
def tree(state_dir: str, stream_name: str, server_url: str) -> dict[str, Any]:
    return settings(state_dir, stream_name, server_url)


@pytest.mark.usefixtures("uncovered")
@pytest.mark.parametrize("fast", [False, True])
def test_a_call_in_which_any_allocation_fails_returns_and_stores_its_record_or_a_note_once(
    run_python: Run, tree: dict[str, Any], fast: bool
) -> None:
    tree["producer"]["fast_logger"] = fast
    pytest.importorskip("_testcapi", reason="needs CPython's own way to have allocations fail")
    done = run_python(
        CONFIGURED
        + """
import threading, _testcapi
def calls(error):
    found, at = [], error.__traceback__
    while at:
        found.append(at.tb_frame.f_code.co_filename)
        at = at.tb_next
    return found
def attempt(failing, begin):
    caught = None
    try:
        _testcapi.set_nomemory(begin, begin + failing)
        log.info("%d %d", failing, begin)
    except MemoryError as error:  # else the record could not even be made by the stdlib
        caught = error
    finally:
        _testcapi.remove_mem_hooks()
    return caught
log.info("first")  # opens the spool
end, escaped, counts = handle.handler._end, 0, set()
for failing in (1, 2, 3, 5, 8, 13):  # so many in a row; where all of them fail, Python ends by itself
    for begin in range(200):
        before = end.sequence
        error = attempt(failing, begin)
        if error is None: counts.add(end.sequence - before)
        elif any("/redislogkit/" in name for name in calls(error)): escaped += 1
other = threading.Thread(target=log.info, args=["other thread"], daemon=True)
other.start()
other.join(10)
print(escaped, counts, other.is_alive(), handle.stats()["emitted"], handle.flush(15))
""",
        json.dumps(tree),
    )
    escaped, counts, hangs, emitted, flushed = done.out.split()
    assert (escaped, counts, hangs, flushed) == ("0", "{1}", "False", "True")
    assert done.err == ""
    texts = messages(tree["writers"]["app"]["path"])
    assert len(texts) == int(emitted)
    whole = [text for text in texts if re.fullmatch(r"\d+ \d+", text)]
    assert len(whole) == len(set(whole)) > 600
    assert all("redislogkit:" in text for text in texts if text not in {*whole, "first", "other thread"})


@pytest.mark.usefixtures("uncovered")
def test_an_application_at_its_limit_of_memory_lives_and_loses_nothing_silently(
    run_python: Run, tree: dict[str, Any]
) -> None:
    done = run_python(
        CONFIGURED
        + """
import resource, time
for n in range(200): log.info("before %d", n)
pages = int(open("/proc/self/statm").read().split()[0])
unlimited = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), unlimited[1]))
held, size = [], 2**20
while size >= 64:
    try: held.append(bytearray(size))
    except MemoryError: size //= 2
began, raised = time.monotonic(), 0
for n in range(5000):
    try: log.info("within %d %s", n, "x" * 100)
    except MemoryError: raised += 1
took = time.monotonic() - began
held.clear()
resource.setrlimit(resource.RLIMIT_AS, unlimited)
handle.handler._end._next_segment_try = 0.0
for n in range(10): log.info("after %d", n)
print(raised, took < 10, json.dumps(handle.stats()["lost"]), handle.flush(15))
""",
        json.dumps(tree),
    )
    raised, in_time, lost_text, flushed = re.fullmatch(r"(\d+) (\w+) (\{.*\}) (\w+)\n", done.out).groups()  # type: ignore[union-attr]
    assert (raised, in_time, flushed, done.err) == ("0", "True", "True", "")
    lost = json.loads(lost_text)
    texts = messages(tree["writers"]["app"]["path"])
    assert [text for text in texts if text.startswith("before")] == [f"before {n}" for n in range(200)]
    assert [text for text in texts if text.startswith("after")] == [f"after {n}" for n in range(10)]
    within = [text for text in texts if text.startswith("within")]
    assert len(within) == len(set(within)) == 5000 - lost["spool_error"]
    assert lost["spool_error"] == sum(lost.values()) > 0
    (told,) = [text for text in texts if "dropped" in text]
    assert told.startswith(f"{lost['spool_error']} records dropped")


@pytest.mark.usefixtures("uncovered")
def test_a_shipper_without_memory_is_started_again_and_loses_nothing(
    scripts: Scripts, state_dir: str
) -> None:
    supervision = Supervision(state_dir, supervisor={"max_restarts": 1000})
    program = scripts.start(PRODUCER, supervision.argument, "w0", 0, 0.001)
    shipper = supervision.child("shipper")
    wait_until(lambda: os.path.exists(supervision.path), what="records flow")
    for _ in range(3):
        pages = int(Path(f"/proc/{shipper}/statm").read_text().split()[0])
        resource.prlimit(shipper, resource.RLIMIT_AS, (pages * resource.getpagesize(), -1))
        large = scripts.run(
            CONFIGURED + "for n in range(3): log.warning('large %s', 'x' * 20_000_000)", supervision.argument
        )
        assert (large.out, large.err) == ("", "")
        shipper = supervision.child("shipper", other_than=shipper)
    # What a kernel without memory does.
    os.kill(shipper, signal.SIGKILL)
    supervision.child("shipper", other_than=shipper)
    counts = {"w0": int(program.communicate(timeout=30)[0])}
    supervision.wait_complete(counts)
    wait_until(lambda: not supervision.spools(), what="every spool is written and gone", deadline=30)
    with open(supervision.path, encoding="utf-8") as file:
        sizes = [line.count("x") for line in file if "large x" in line]
    assert sizes == [20_000_000] * 9
    assert "can not be encoded" not in supervision.log()

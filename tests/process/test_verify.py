"""``verify`` on the files of real writers, at work, killed, and after losses."""

from __future__ import annotations

import os
import signal

import pytest

from redislogkit import config as configuration
from redislogkit.verify.verdict import Result, tell
from redislogkit.verify.verification import verify
from tests.helpers import processes
from tests.helpers.supervision import Producers, Supervision
from tests.helpers.waiting import wait_until

#: Fills its spool while nobody ships, and says how many calls there were.
FILLER = """
    import json, logging, sys
    import redislogkit

    redislogkit.configure(json.loads(sys.argv[1]))
    for n in range(300):
        logging.getLogger("test").warning("%d %s", n, "x" * 8000)
    print(300)
"""


def _verify(supervision: Supervision) -> dict[str, Result]:
    return {result.writer: result for result in verify(configuration.load(supervision.sections))}


def _faults(supervision: Supervision) -> list[str]:
    return [line for result in _verify(supervision).values() if not result.complete for line in tell(result)]


def _wait_for_more(supervision: Supervision) -> None:
    """Wait for records; nothing may be wrong with those that are there meanwhile."""
    before = _verify(supervision)["app"].records

    def more() -> bool:
        assert _faults(supervision) == []
        return _verify(supervision)["app"].records >= before + 40

    wait_until(more, what="records are written")


def test_files_are_complete_while_writers_work_are_killed_and_when_all_is_written(state_dir, scripts):
    some = {"type": "file", "path": f"{state_dir}/out/some.log", "level": "ERROR"}
    supervision = Supervision(state_dir, supervisor={"autostart": False}, writers={"some": some})
    supervision.sections["writers"]["app"] |= {"max_bytes": "8 KiB", "backup_count": 1000, "compress": "gzip"}
    supervisor = supervision.start()
    producers = Producers(scripts, supervision)
    writer = supervision.child("w-app")
    for _ in range(3):
        _wait_for_more(supervision)
        os.kill(writer, signal.SIGKILL)
        assert _faults(supervision) == []
        writer = supervision.child("w-app", other_than=writer)
    logged = producers.finish()
    supervision.wait_complete(logged)
    wait_until(lambda: not supervision.spools(), what="everything is confirmed")
    assert processes.stop(supervisor, 15) == 0
    results = _verify(supervision)
    assert _faults(supervision) == []
    assert (results["app"].records, results["some"].records) == (sum(logged.values()), 0)
    assert len(results["app"].files) > 2
    os.unlink(results["app"].files[-2])
    assert [fault.kind for fault in _verify(supervision)["app"].faults] == ["missing"]


@pytest.mark.parametrize(("on_full", "cause"), [("drop_new", "spool_full"), ("drop_old", "drop_old")])
def test_what_was_dropped_is_named_and_nothing_else_is_missing(on_full, cause, state_dir, scripts):
    producer = {"spool_max_bytes": "1 MiB", "on_full": on_full, "shutdown_timeout": 0}
    supervision = Supervision(state_dir, supervisor={"autostart": False}, producer=producer)
    logged = int(scripts.run(FILLER, supervision.argument).out)
    supervisor = supervision.start()
    wait_until(lambda: not supervision.spools(), what="everything is written")
    assert processes.stop(supervisor, 15) == 0
    result = _verify(supervision)["app"]
    assert {fault.kind for fault in result.faults} == {"dropped"}
    assert set(result.dropped) == {cause}
    assert result.records + sum(result.dropped.values()) == logged
    named = [found for fault in result.faults for found in fault.records]
    assert sum(found.last - found.first + 1 for found in named) == sum(result.dropped.values())

"""Ends at the wrong moment: of a compression, and of logging itself while nobody takes the records."""

from __future__ import annotations

import gzip
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redislogkit.writers import archive
from redislogkit.writers.archive import Archivist
from tests.helpers import filewriter
from tests.helpers.scripts import Finished, Scripts
from tests.helpers.server import Server
from tests.helpers.settings import CONFIGURED, arrived, messages, settings, timed
from tests.helpers.waiting import wait_until

Run = Callable[..., Finished]


def test_a_compression_that_is_killed_in_the_middle_is_done_again_and_takes_nothing_along(
    scripts: Scripts, tmp_path: Path
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    content = b"".join(b"%d of many lines that are worth a compression\n" % n for n in range(400_000))
    (folder / "app.log").write_bytes(b"live\n")
    (folder / "app.log.1").write_bytes(content)
    stranger = folder / ".app.log.tmp"
    stranger.touch()
    worker = scripts.start(
        """
        import sys
        from redislogkit.writers.archive import Archivist
        from tests.helpers import filewriter
        archivist = Archivist(filewriter.config(sys.argv[1], backup_count=3, compress="gzip"), print)
        archivist.release()
        archivist.work()
        """,
        folder / "app.log",
    )
    wait_until(lambda: list(folder.glob(".app.log.*.gz.tmp")), what="a compression has begun")
    worker.kill()
    assert worker.wait() == -signal.SIGKILL
    (left,) = folder.glob(".app.log.*.gz.tmp")
    assert (folder / "app.log.1").read_bytes() == content
    reports: list[str] = []
    config = filewriter.config(folder / "app.log", backup_count=3, compress="gzip")
    archivist = Archivist(config, reports.append)
    archivist.open()
    assert not left.exists()
    assert stranger.exists()
    archivist.release()
    assert archivist.work()
    assert [Path(item.path).name for item in archive.list_archives(config)] == ["app.log.1.gz"]
    assert gzip.decompress((folder / "app.log.1.gz").read_bytes()) == content
    assert reports == []


@pytest.mark.parametrize(
    "ending",
    [
        "logging.config.dictConfig({'version': 1})",
        "logging.shutdown()",
        """logging.config.dictConfig({"version": 1, "root": {"handlers": ["h"]}, "handlers": {
            "h": {"class": "redislogkit.SpoolHandler", "config": json.loads(sys.argv[1])}}})""",
    ],
)
def test_taking_logging_down_or_setting_it_up_again_with_a_stalled_server_does_not_wait(
    own_server: Server, run_python: Run, state_dir: str, stream_name: str, ending: str
) -> None:
    tree: dict[str, Any] = settings(
        state_dir, stream_name, own_server.url, producer={"shutdown_timeout": 0.3}
    )
    run_python(CONFIGURED + "log.info('first'); handle.flush(15)", json.dumps(tree))
    own_server.pause()
    done = run_python(timed(ending), json.dumps(tree))
    took, ended = map(float, done.out.split())
    assert done.err == ""
    assert took < 0.3 + 1.0  # other people's load on the machine
    assert time.monotonic() - ended < 0.3 + 2.0
    own_server.resume()
    arrived(tree["writers"]["app"]["path"], "second")
    assert sorted(messages(tree["writers"]["app"]["path"])) == ["first", "second"]

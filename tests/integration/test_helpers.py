"""The test helpers do what the other tests rely on: nothing that a test started outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.helpers import processes
from tests.helpers.processes import is_running
from tests.helpers.waiting import wait_until

DAEMON = """
    import os, signal, sys
    for ignored in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    if os.fork():
        os._exit(0)
    os.setsid()
    for name in ("stdin", "stdout", "stderr"):
        getattr(sys, name).close()
    os.closerange(0, 3)
    with open(sys.argv[1], "w") as file:
        file.write(str(os.getpid()))
    while True:
        signal.pause()
"""


def test_a_daemon_that_ignores_sigterm_is_reaped(scripts, reaped, tmp_path):
    note = tmp_path / "pid"
    scripts.start(DAEMON, note).wait(20)
    pid = int(wait_until(lambda: note.exists() and note.read_text(), what="the daemon runs"))
    assert pid in processes.started(reaped)
    processes.reap(processes.started(reaped), timeout=0.2)
    assert not is_running(pid)


def test_a_process_without_the_mark_is_found_by_its_open_file(state_dir, reaped):
    source = "import sys, time; file = open(sys.argv[1], 'w'); print(flush=True); time.sleep(100)"
    process = subprocess.Popen(
        ["/bin/sh", "-c", '"$@" & wait', "sh", sys.executable, "-c", source, f"{state_dir}/file"],
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    found = processes.started("no such mark", state_dir, before=[process.pid])
    assert len(found) == 1
    assert found[0] != process.pid
    processes.reap_all(reaped, state_dir)
    assert processes.stop(process) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)


def test_the_shared_server_is_not_a_process_of_a_test(server_url, reaped):
    assert not processes.started(reaped) or os.environ.get("REDISLOGKIT_TEST_URL")


def test_a_program_is_run_to_its_end(run_python):
    finished = run_python("import sys; print(sys.argv[1:]); sys.exit(3)", 1, "b", check=False)
    assert (finished.code, finished.out) == (3, "['1', 'b']\n")


def test_a_failing_program_shows_its_output(run_python):
    with pytest.raises(AssertionError, match=r"ended with 1(?s:.*)ZeroDivisionError"):
        run_python("1 / 0")


def test_a_child_that_keeps_stdout_open_is_a_hang(run_python):
    with pytest.raises(AssertionError, match="a child holds its stdout"):
        run_python("import os, time\nif not os.fork():\n    time.sleep(100)", timeout=1)


def test_waiting_names_what_did_not_come():
    with pytest.raises(AssertionError, match=r"the tide: not within 0\.01 s, last value 0"):
        wait_until(lambda: 0, deadline=0.01, what="the tide")

"""Fixtures of all tests: a real server, names and folders of one's own, and the end of everything started."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from coverage import Coverage

from tests.helpers import processes
from tests.helpers.scripts import Finished, Scripts
from tests.helpers.server import Server, client

# Hundreds of processes import the same modules, and most of their time would go into compiling them anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell has its jobs in the background ignore Ctrl-C, and what they start does then, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Other people's load on the machine is no reason to fail.
hypothesis.settings.register_profile(
    "redislogkit", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("redislogkit")

_RUN = uuid.uuid4().hex[:6]


#: What waits for tens of seconds.
_LONGEST = (
    "test_four_zeros_after_a_seeded_run_of_faults",
    "test_a_kill_anywhere_in_it_loses_doubles_tears_and_leaves_nothing[the shipper]",
    "test_a_writer_that_is_stopped_beyond_its_lease_doubles_nothing_when_it_goes_on",
    "test_code_that_hangs_and_will_not_be_interrupted_is_killed_and_gets_the_records_again",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests begin first: nobody waits for them at the end. Each worker begins with one part of all."""
    longest = [item for item in items if item.name in _LONGEST]
    items[:] = [item for item in items if item.name not in _LONGEST]
    part = len(items) // max(1, len(longest))
    for number, item in reversed([*enumerate(longest)]):
        items.insert(number * part, item)


@pytest.fixture(autouse=True)
def _neutral_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests reaches them."""
    for name in ("REDISLOGKIT_CONFIG", "NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The url of a running server: ``$REDISLOGKIT_TEST_URL``, or an embedded one for each xdist worker.

    Other tests use it too: only touch keys named after your own `stream_name`.
    """
    external = os.environ.get("REDISLOGKIT_TEST_URL")
    if external:
        yield external
        _remove_keys(external)
        return
    folder = tempfile.mkdtemp(prefix="rlk-", dir="/tmp")
    server = Server(folder)
    try:
        server.start()
        processes.SHARED.add(server.pid)
        yield server.url
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _remove_keys(url: str) -> None:
    with client(url) as connection:
        for key in connection.scan_iter(match=f"*t{_RUN}*"):
            connection.delete(key)


@pytest.fixture
def stream_name() -> str:
    """A stream name that no other test has."""
    return f"t{_RUN}{uuid.uuid4().hex[:8]}"


@pytest.fixture
def reaped(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Stops every process that the test started, whatever the test did. Its value is the test's mark."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(processes.MARK, mark)
    before = processes.children()
    yield mark
    processes.reap_all(mark, before=before)


@pytest.fixture
def state_dir(reaped: str) -> Iterator[str]:
    """A short path for ``state_dir``. Every process of the test is stopped before it is removed."""
    folder = tempfile.mkdtemp(prefix="rlk-", dir="/tmp")
    before = processes.children()
    try:
        yield folder
        processes.reap_all(reaped, folder, before)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def own_server(reaped: str) -> Iterator[Server]:
    """A running server that the test may kill, pause and flush."""
    folder = tempfile.mkdtemp(prefix="rlk-", dir="/tmp")
    server = Server(folder).start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def scripts(tmp_path: Path, reaped: str) -> Iterator[Scripts]:
    """Starts and runs real programs; see `Scripts`."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    running = Scripts(folder)
    yield running
    running.close()


@pytest.fixture
def run_python(scripts: Scripts) -> Callable[..., Finished]:
    """``run_python(source, *args, env=None, timeout=60, check=True)``: run a real program to its end."""
    return scripts.run


@pytest.fixture
def uncovered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of the test run without coverage: its lock survives no fork beside a thread, and no interrupt."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    # A forked child would write down all that its parent has collected so far.
    monkeypatch.setattr(Coverage, "save", lambda _coverage: None)


@pytest.fixture
def untraced(uncovered: None) -> Iterator[None]:
    """The test itself runs without coverage, too: what is done thousands of times takes a third, and a fork is cheap.

    A forked child that is covered begins its coverage anew, which takes seconds in a process with much behind it.
    """
    running = Coverage.current()
    if running is not None:
        running.stop()
    yield
    if running is not None:
        running.start()

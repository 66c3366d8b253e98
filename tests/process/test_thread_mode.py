"""``ship = "thread"``: the shipper as a thread of the application, with nothing else running."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.helpers.scripts import Finished, Scripts
from tests.helpers.server import Server, client
from tests.helpers.settings import CONFIGURED, arrived, messages, settings, timed
from tests.helpers.waiting import wait_until

Run = Callable[..., Finished]
#: Seconds that a process may need beyond what it waits for, on a busy machine.
SLACK = 3.0


@pytest.fixture
def tree(state_dir: str, stream_name: str, server_url: str) -> dict[str, Any]:
    """A process that ships by thread, and nobody who writes."""
    alone = settings(
        state_dir,
        stream_name,
        server_url,
        producer={"ship": "thread", "shutdown_timeout": 5.0},
        stream={"layout": "records"},
    )
    return {**alone, "writers": {}}


def in_stream(tree: dict[str, Any]) -> list[str]:
    with client(tree["redis"]["url"]) as connection:
        entries: Any = connection.xrange(tree["stream"]["name"])
    return [fields[b"message"].decode() for _, fields in entries if b"message" in fields]


def spools(tree: dict[str, Any]) -> list[str]:
    """Spools that are there; one with a leading dot is just being removed."""
    names = os.listdir(f"{tree['state_dir']}/{tree['stream']['name']}/spool")
    return [name for name in names if not name.startswith(".")]


def bells(tree: dict[str, Any]) -> list[str]:
    folder = f"{tree['state_dir']}/{tree['stream']['name']}"
    return [name for name in os.listdir(folder) if name.startswith("doorbell")]


def test_process_ships_alone_and_leaves_nothing_running(run_python: Run, tree: dict[str, Any]):
    done = run_python(
        CONFIGURED
        + """
import threading
assert threading.active_count() == 1
for i in range(500): log.info("%d", i)
print([t.name for t in threading.enumerate()], "redis" in sys.modules)
""",
        json.dumps(tree),
    )
    assert (done.out, done.err) == ("['MainThread', 'redislogkit-shipper'] True\n", "")
    assert in_stream(tree) == [str(i) for i in range(500)]
    assert not os.path.exists(f"{tree['state_dir']}/{tree['stream']['name']}/supervisor.lock")
    assert bells(tree) == []


def test_writers_of_a_supervisor_write_what_the_thread_ships(run_python: Run, tree: dict[str, Any]):
    path = f"{tree['state_dir']}/app.log"
    tree["writers"] = {"app": {"type": "file", "path": path, "formatter": "json"}}
    tree["producer"]["shutdown_timeout"] = 10
    done = run_python(CONFIGURED + "for i in range(500): log.info('%d', i)", json.dumps(tree))
    assert (done.out, done.err) == ("", "")
    assert messages(path) == [str(i) for i in range(500)]


@pytest.mark.parametrize(
    "ending",
    [
        "logging.config.dictConfig({'version': 1})",
        "logging.shutdown()",
        "logging.config.dictConfig({'version': 1, 'root': {'handlers': []}}); handle.close(0.1)",
    ],
)
@pytest.mark.usefixtures("uncovered")
def test_taking_logging_down_with_a_stalled_server_does_not_wait(
    run_python: Run, tree: dict[str, Any], own_server: Server, ending: str
):
    tree["redis"]["url"] = own_server.url
    tree["producer"]["shutdown_timeout"] = 0.3
    run_python(CONFIGURED + "log.info('first')", json.dumps(tree))
    own_server.pause()
    done = run_python(timed(ending), json.dumps(tree))
    took, ended = map(float, done.out.split())
    assert done.err == ""
    assert took < 0.3
    assert time.monotonic() - ended < 0.3 + SLACK
    own_server.resume()
    # The next process adopts what this one has left.
    run_python(CONFIGURED + "log.info('third'); handle.flush(10)", json.dumps(tree))
    wait_until(lambda: sorted(in_stream(tree)) == ["first", "second", "third"])


def test_the_thread_never_logs_whatever_happens_to_the_server(
    scripts: Scripts, tree: dict[str, Any], own_server: Server
):
    tree["redis"]["url"] = own_server.url
    process = scripts.start(
        CONFIGURED
        + """
others = []
class Look(logging.Handler):
    def emit(self, record): others.append((record.name, record.threadName))
logging.getLogger().addHandler(Look())
logging.getLogger().setLevel(1)
for line in sys.stdin:
    log.info(line.strip())
    print(json.dumps([who for who in others if who != ["app", "MainThread"] and who[0] != "app"]), flush=True)
""",
        json.dumps(tree),
    )

    def say(text: str) -> str:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{text}\n")
        process.stdin.flush()
        return process.stdout.readline()

    assert say("before") == "[]\n"
    wait_until(lambda: in_stream(tree) == ["before"])
    for n in range(3):  # on an open connection, and on none
        own_server.settle()
        own_server.kill()
        assert say(f"while {n}") == "[]\n"
        own_server.start()
    assert say("after") == "[]\n"
    wait_until(lambda: in_stream(tree) == ["before", "while 0", "while 1", "while 2", "after"])
    own_server.flush()
    assert say("flushed") == "[]\n"
    wait_until(lambda: in_stream(tree)[-1:] == ["flushed"])
    assert say("end") == "[]\n"


def test_what_the_application_logs_about_its_own_client_arrives(run_python: Run, tree: dict[str, Any]):
    done = run_python(CONFIGURED + "logging.getLogger('redis.client').debug('mine')", json.dumps(tree))
    assert (done.out, done.err) == ("", "")
    assert in_stream(tree) == ["mine"]


@pytest.mark.usefixtures("uncovered")
def test_forked_child_ships_its_own_and_closes_what_was_the_parents(run_python: Run, tree: dict[str, Any]):
    done = run_python(
        CONFIGURED
        + """
for i in range(100): log.info("parent %d", i)
assert handle.flush(10)
pid = os.fork()
if pid == 0:
    fds = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if n != "3"
           and os.path.islink(f"/proc/self/fd/{n}")]
    print(json.dumps([fd for fd in fds if "doorbell" in fd or "/spool/" in fd]), flush=True)
    for i in range(100): log.info("child %d", i)
    os._exit(0 if handle.flush(10) else 9)
assert os.waitpid(pid, 0)[1] == 0
for i in range(100, 200): log.info("parent %d", i)
""",
        json.dumps(tree),
    )
    assert (done.out, done.err) == ("[]\n", "")
    found = in_stream(tree)
    assert [text for text in found if text.startswith("parent")] == [f"parent {i}" for i in range(200)]
    assert [text for text in found if text.startswith("child")] == [f"child {i}" for i in range(100)]
    assert len(found) == 300


@pytest.mark.usefixtures("uncovered")
def test_handler_that_was_closed_ships_again(run_python: Run, tree: dict[str, Any]):
    done = run_python(
        CONFIGURED
        + """
import threading
for i in range(4):
    log.info("%d", i)
    handle.handler.close()
log.info("4")
print(handle.flush(10))
""",
        json.dumps(tree),
    )
    assert (done.out, done.err) == ("True\n", "")
    assert in_stream(tree) == ["0", "1", "2", "3", "4"]


@pytest.mark.usefixtures("uncovered")
def test_spool_and_doorbell_of_a_killed_process_are_cleared_by_the_next(
    run_python: Run, tree: dict[str, Any]
):
    killed = run_python(
        CONFIGURED
        + "log.info('warm'); handle.flush(10)\nfor i in range(2000): log.info('%d', i)\n"
        + f"os.kill(os.getpid(), {signal.SIGKILL:d})",
        json.dumps(tree),
        check=False,
    )
    assert killed.code == -signal.SIGKILL
    assert len(bells(tree)) == 1
    run_python(
        CONFIGURED
        + """
import time
log.info("next")
assert handle.flush(10)
root = os.path.join(handle.config.stream_dir, "spool")
end = time.monotonic() + 20
while len([n for n in os.listdir(root) if not n.startswith(".")]) > 1 and time.monotonic() < end:
    time.sleep(0.01)
""",
        json.dumps(tree),
    )
    found = in_stream(tree)
    assert [text for text in found if text.isdigit()] == [str(i) for i in range(2000)]
    assert bells(tree) == []
    assert len(spools(tree)) <= 1


@pytest.mark.usefixtures("uncovered")
def test_records_logged_while_the_server_is_away_do_not_slow_the_caller(
    run_python: Run, tree: dict[str, Any], state_dir: str
):
    tree["redis"]["url"] = f"unix://{state_dir}/nobody.sock"
    tree["producer"]["shutdown_timeout"] = 0.2
    done = run_python(
        CONFIGURED
        + """
import time
times = []
for i in range(2000):
    began = time.perf_counter()
    log.info("%d", i)
    times.append(time.perf_counter() - began)
print(sorted(times)[1000], time.monotonic())
""",
        json.dumps(tree),
    )
    median, ended = map(float, done.out.split())
    assert done.err == ""
    assert median < 0.002
    assert time.monotonic() - ended < 0.2 + SLACK


def test_embedded_server_is_kept_by_a_supervisor(run_python: Run, tree: dict[str, Any]):
    path = f"{tree['state_dir']}/app.log"
    tree["redis"]["url"] = "embedded://"
    tree["writers"] = {"app": {"type": "file", "path": path, "formatter": "json"}}
    run_python(CONFIGURED + "log.info('embedded')", json.dumps(tree))
    assert arrived(path, "embedded") == ["embedded"]

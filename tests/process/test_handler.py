"""The handler in real application processes: what it leaves alone, where it installs, how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redislogkit.record import Loss, Record, decode_items
from tests.helpers.processes import stop
from tests.helpers.scripts import Finished, Scripts
from tests.helpers.server import Server
from tests.helpers.settings import CONFIGURED, arrived, messages, settings, spooled, toml
from tests.helpers.waiting import wait_until

Run = Callable[..., Finished]
#: Seconds that a process may need beyond what it waits for, on a busy machine.
SLACK = 3.0


@pytest.fixture
def tree(state_dir: str, stream_name: str, server_url: str) -> dict[str, Any]:
    return settings(state_dir, stream_name, server_url)


@pytest.fixture
def lonely(state_dir: str, stream_name: str) -> dict[str, Any]:
    """A configuration that nobody serves: no supervisor, no server."""
    return settings(
        state_dir,
        stream_name,
        f"unix://{state_dir}/nobody.sock",
        supervisor={"autostart": False},
        producer={"shutdown_timeout": 1.0},
    )


def path(tree: dict[str, Any]) -> str:
    return f"{tree['state_dir']}/app.log"


#: A program that logs what it reads, and answers with the seconds that each call took.
TALKER = """
import time
for line in sys.stdin:
    began = time.perf_counter()
    log.info(line.strip())
    print(time.perf_counter() - began, flush=True)
"""
SUPERVISE = "import sys; from redislogkit.supervise import main\nif __name__ == '__main__': sys.exit(main())"


def say(process: subprocess.Popen[str], text: str) -> float:
    """Have a talker log ``text``; return the seconds that the call took."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{text}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def supervisors(tree: dict[str, Any]) -> list[int]:
    """Pids of the processes that have files of the supervisor open: itself and its children."""
    folder = f"{tree['state_dir']}/{tree['stream']['name']}/supervisor.log"
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/fd/2") == folder:
                found.append(int(pid))
    return found


# -- what an application process has of ours ------------------------------------------------------


def test_application_has_no_redis_no_thread_and_no_socket_of_ours(run_python: Run, tree: dict[str, Any]):
    found = json.loads(
        run_python(
            """
            import logging, os, signal, sys, threading, json
            def look():
                fds = {}
                for name in os.listdir("/proc/self/fd"):
                    try:
                        fds[name] = os.readlink(f"/proc/self/fd/{name}")
                    except OSError:
                        pass  # the descriptor of the listing itself
                return set(sys.modules), os.listdir("/proc/self/task"), fds
            def state():
                handlers = [str(signal.getsignal(n)) for n in signal.valid_signals()]
                return [handlers, str(sys.excepthook), str(threading.excepthook), str(sys.unraisablehook),
                        os.getcwd(), os.umask(0o22), str(sys.stdout), str(sys.stderr)]
            before, was = state(), look()
            import redislogkit
            handle = redislogkit.configure(json.loads(sys.argv[1]))
            logging.getLogger("app").info("one")
            assert handle.flush(10)
            modules, tasks, fds = look()
            print(json.dumps({
                "modules": sorted(modules - was[0]), "tasks": len(tasks),
                "fds": [target for name, target in fds.items() if name not in was[2]],
                "unchanged": state() == before, "children": os.path.exists("/proc/self/task") and
                open(f"/proc/self/task/{os.getpid()}/children").read().split(),
            }))
            """,
            json.dumps(tree),
        ).out
    )
    roots = {name.partition(".")[0] for name in found["modules"]}
    assert not roots & {"redis", "multiprocess", "multiprocessing", "asyncio", "ssl", "dill", "subprocess"}
    assert "redislogkit.stream.client" not in found["modules"]
    assert "redislogkit.ship.thread" not in found["modules"]
    assert found["tasks"] == 1
    assert found["children"] == []
    assert all("/spool/" in target for target in found["fds"]), found["fds"]
    assert found["unchanged"]


def test_process_writes_nothing_to_stdout_or_stderr_and_keeps_its_exit_code(
    run_python: Run, tree: dict[str, Any]
):
    done = run_python(CONFIGURED + "log.info('bye'); sys.exit(7)", json.dumps(tree), check=False)
    assert (done.code, done.out, done.err) == (7, "", "")
    assert messages(path(tree)) == ["bye"]


def test_unhandled_exception_ends_as_without_us(run_python: Run, tree: dict[str, Any]):
    done = run_python(CONFIGURED + "log.info('bye'); raise ValueError('x')", json.dumps(tree), check=False)
    assert done.code == 1
    assert done.err.startswith("Traceback")
    assert done.err.rstrip().endswith("ValueError: x")
    assert messages(path(tree)) == ["bye"]


def test_sigterm_ends_a_process_as_without_us_and_its_records_arrive(scripts: Scripts, tree: dict[str, Any]):
    process = scripts.start(
        CONFIGURED + "log.info('last'); print('up', flush=True); import time; time.sleep(60)",
        json.dumps(tree),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.terminate()
    assert process.wait(10) == -signal.SIGTERM
    arrived(path(tree), "last")


# -- nobody there ---------------------------------------------------------------------------------


def test_without_supervisor_records_wait_and_the_exit_does_not(run_python: Run, lonely: dict[str, Any]):
    done = run_python(
        CONFIGURED + "for i in range(100): log.info('%d', i)\nimport time; print(time.monotonic())",
        json.dumps(lonely),
    )
    assert time.monotonic() - float(done.out) < SLACK
    assert done.err == ""
    assert len(spooled(lonely)) == 100


@pytest.mark.usefixtures("uncovered")
def test_records_arrive_when_supervisor_and_server_come_later(
    run_python: Run, scripts: Scripts, lonely: dict[str, Any], own_server: Server, tmp_path: Path
):
    lonely["redis"]["url"] = own_server.url
    run_python(CONFIGURED + "log.info('early')", json.dumps(lonely))
    assert messages(path(lonely)) == []
    file = tmp_path / "log.toml"
    file.write_text(toml(lonely))
    own_server.kill()
    supervisor = scripts.start(SUPERVISE, file)
    own_server.start()
    arrived(path(lonely), "early")
    run_python(CONFIGURED + "log.info('late')", json.dumps(lonely))
    assert messages(path(lonely)) == ["early", "late"]
    assert stop(supervisor, 20) == 0


def test_application_runs_on_while_the_server_is_dead_and_all_arrives_later(
    scripts: Scripts, tree: dict[str, Any], own_server: Server
):
    tree["redis"]["url"] = own_server.url
    process = scripts.start(CONFIGURED + TALKER, json.dumps(tree))
    say(process, "before")
    arrived(path(tree), "before")
    own_server.settle()
    own_server.kill()
    times = [say(process, f"while {i}") for i in range(50)]
    assert sorted(times)[25] < 0.01
    own_server.start()
    say(process, "after")
    assert arrived(path(tree), "after") == ["before", *(f"while {i}" for i in range(50)), "after"]


def test_exit_with_a_stalled_server_takes_no_longer_than_shutdown_timeout(
    run_python: Run, tree: dict[str, Any], own_server: Server
):
    tree["redis"]["url"] = own_server.url
    tree["producer"]["shutdown_timeout"] = 0.5
    run_python(CONFIGURED + "log.info('first'); assert handle.flush(10)", json.dumps(tree))
    own_server.pause()
    # Three handlers have something to wait for, and there is one shutdown_timeout for all of them.
    done = run_python(
        CONFIGURED
        + """
import time
others = [redislogkit.SpoolHandler(json.loads(sys.argv[1])) for _ in range(2)]
for other in others:
    log.addHandler(other)
log.info("second")
others[0].close()
print(time.monotonic())
""",
        json.dumps(tree),
    )
    assert time.monotonic() - float(done.out) < 0.5 + SLACK
    assert done.err == ""
    own_server.resume()
    arrived(path(tree), "first", "second")
    wait_until(lambda: messages(path(tree)).count("second") == 3)


def test_exit_with_a_stopped_supervisor_takes_no_longer_than_shutdown_timeout(
    run_python: Run, tree: dict[str, Any]
):
    tree["producer"]["shutdown_timeout"] = 0.3
    run_python(CONFIGURED + "log.info('first'); assert handle.flush(10)", json.dumps(tree))
    pids = supervisors(tree)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    done = run_python(
        CONFIGURED + "import time; log.info('second'); print(time.monotonic())", json.dumps(tree)
    )
    assert time.monotonic() - float(done.out) < 0.3 + SLACK
    assert done.err == ""
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    arrived(path(tree), "second")


# -- a disk that refuses --------------------------------------------------------------------------


def test_state_dir_that_can_no_longer_be_written_to_costs_records_but_not_the_application(
    run_python: Run, lonely: dict[str, Any]
):
    """A limit of the file size stands for the full disk: the spool's files can not be reserved."""
    done = run_python(
        CONFIGURED
        + """
import resource, time
def lost(): return handle.stats()["lost"]["spool_error"]
log.info("fits")
resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
for i in range(5000):
    log.info("x" * 100)
assert 0 < lost() < 5000
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for n in range(1000):
    before = lost()
    log.info("fits again")
    if lost() == before:
        break
    time.sleep(0.01)
print(json.dumps([handle.stats()["emitted"] == 5002 + n, handle.stats()["emitted"], lost()]))
""",
        json.dumps(lonely),
    )
    assert done.err == ""
    all_counted, emitted, lost = json.loads(done.out)
    assert all_counted
    items = [item for payload in spooled(lonely) for item in decode_items(b"\x91" + payload)]
    assert sum(isinstance(item, Record) for item in items) == emitted - lost
    assert sum(item.last - item.first + 1 for item in items if isinstance(item, Loss)) == lost
    assert isinstance(items[-1], Record) and items[-1].message == "fits again"


def test_state_dir_that_is_removed_while_in_use_does_not_hurt(run_python: Run, lonely: dict[str, Any]):
    done = run_python(
        CONFIGURED
        + """
import shutil
log.info("one")
shutil.rmtree(handle.config.stream_dir)
for i in range(5000):
    log.info("x" * 100)
shutil.rmtree(handle.config.stream_dir, ignore_errors=True)
open(handle.config.stream_dir, "w").close()
handle.handler.close()
log.info("nowhere")
print(handle.stats()["lost"]["spool_error"] > 0)
""",
        json.dumps(lonely),
    )
    assert (done.out, done.err) == ("True\n", "")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_full_disk_drops_records_and_never_kills_the_application(run_python: Run, lonely: dict[str, Any]):
    folder = lonely["state_dir"]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], check=True)
    try:
        done = run_python(
            CONFIGURED + "for i in range(20000): log.info('%d', i)\nprint(json.dumps(handle.stats()))",
            json.dumps(lonely),
        )
        stats = json.loads(done.out)
        assert done.err == ""
        assert stats["emitted"] == 20000
        assert stats["lost"]["spool_error"] > 0
        assert len(spooled(lonely)) == 20000 - stats["lost"]["spool_error"]
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


# -- closed handlers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ending",
    [
        "handle.handler.close()",
        "handle.close(0)",
        "logging.config.dictConfig({'version': 1})",
        "logging.shutdown()",
        "logging.config.dictConfig({'version': 1}); del handle; import gc; gc.collect()",
        "redislogkit.shutdown(0)",
    ],
)
def test_exit_waits_for_what_a_closed_handler_has_left(run_python: Run, tree: dict[str, Any], ending: str):
    done = run_python(
        CONFIGURED + f"import logging.config\nfor i in range(300): log.info('%d', i)\n{ending}",
        json.dumps(tree),
    )
    assert messages(path(tree)) == [str(i) for i in range(300)]
    assert (done.out, done.err) == ("", "")


def test_records_after_close_are_taken_in_order(run_python: Run, tree: dict[str, Any]):
    run_python(
        CONFIGURED
        + """
for i in range(5):
    log.info("%d", i)
    handle.handler.close()
""",
        json.dumps(tree),
    )
    assert messages(path(tree)) == [str(i) for i in range(5)]


def test_a_hundred_closed_handlers_leave_no_descriptor(run_python: Run, tree: dict[str, Any]):
    done = run_python(
        CONFIGURED
        + """
before = len(os.listdir("/proc/self/fd"))
for i in range(100):
    other = redislogkit.SpoolHandler(handle.config)
    log.addHandler(other)
    log.info("%d", i)
    log.removeHandler(other)
    other.close()
handle.handler.close()
print(before, len(os.listdir("/proc/self/fd")))
""",
        json.dumps(tree),
    )
    before, after = map(int, done.out.split())
    assert after <= before
    assert messages(path(tree)).count("7") == 2


# -- the fast logger ------------------------------------------------------------------------------

LAST_WORDS = """
import atexit
class Late:
    def __del__(self):
        logging.getLogger("app").info("of a finaliser")
log.debug("%s", "first")
for _ in range(3):
    log.info("one of %d", 3)
atexit.register(log.info, "at exit, of no code")
atexit.register(logging.getLogger().warning, "of the root %s", "at exit")
try:
    log.info()
except TypeError as error:
    print(error)
logging.getLogger("app.deep").addHandler(logging.StreamHandler(sys.stdout))
logging.getLogger("app.deep").error("also to stdout %s", 1)
late = Late()
"""


def test_a_program_with_fast_loggers_says_the_same_to_its_end(run_python: Run, lonely: dict[str, Any]):
    lonely["producer"]["shutdown_timeout"] = 0.0
    said = []
    for fast in (False, True):
        lonely["stream"]["name"] += "x"
        lonely["producer"]["fast_logger"] = fast
        done = run_python(CONFIGURED + LAST_WORDS, json.dumps(lonely))
        items = [item for payload in spooled(lonely) for item in decode_items(b"\x91" + payload)]
        places = [
            (
                i.levelname,
                i.name,
                i.message,
                os.path.basename(i.pathname)[-3:],
                i.lineno,
                i.function,
                i.thread_name,
            )
            for i in items
            if isinstance(i, Record)
        ]
        said.append((done.out, done.err, places))
    assert said[0] == said[1]
    assert len(said[0][2]) == 8

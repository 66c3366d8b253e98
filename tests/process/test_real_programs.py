"""Programs as users write them lose, double, tear and disorder nothing, however their processes come and go."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from stress.checker import Report, check, rotated_files
from stress.tally import counts
from tests.helpers import pages, processes
from tests.helpers.scripts import ROOT
from tests.helpers.waiting import wait_until

#: What they go through is covered elsewhere; without it they take two thirds of the time.
pytestmark = pytest.mark.usefixtures("uncovered")

PROGRAMS = ROOT / "tests" / "programs"
RUN = "real"


class Application:
    """A configuration, the programs that use it, and the count of what they have logged."""

    def __init__(self, folder: Path, state_dir: str, url: str, stream: str, extra: str = "") -> None:
        self.folder = folder
        self.state = Path(state_dir) / stream
        self.log_file = folder / "logs" / "app.log"
        self.config = folder / "log.toml"
        self.tallies = folder / "tallies"
        self.tallies.mkdir()
        self.config.write_text(
            f'version = 1\nstate_dir = "{state_dir}"\n[redis]\nurl = "{url}"\n[stream]\nname = "{stream}"\n'
            f'[writers.app]\ntype = "file"\npath = "{self.log_file}"\nmax_bytes = 20_000\nbackup_count = 1_000\n'
            + extra
        )
        self.environment = {
            **os.environ,
            "REDISLOGKIT_CONFIG": str(self.config),
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore::DeprecationWarning",  # of a fork with threads, since Python 3.12
            "TALLIES": str(self.tallies),
            "RUN": RUN,
        }

    def start(self, *command: object, **options: int | tuple[int, ...]) -> subprocess.Popen[str]:
        """Start a command of Python; its output is one pipe."""
        process: subprocess.Popen[str] = subprocess.Popen(  # type: ignore[call-overload]
            [sys.executable, *map(str, command)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )
        return process

    def run(self, program: str, *arguments: object, code: int = 0) -> str:
        """Run a program to its end, which is the end of all who hold its output; return that."""
        return finish(self.start(PROGRAMS / program, *arguments), code)

    def check(self, *, in_doubt: int = 0) -> Report:
        """Wait until the last producer is dead and everything of it written; then count."""
        spool = self.state / "spool"
        wait_until(lambda: not os.listdir(spool), what=f"{spool} is empty")
        report = check(rotated_files(self.log_file), counts(self.tallies), RUN, in_doubt=in_doubt)
        assert report.ok, f"{report}\n{self.supervisor_log()}"
        assert len(rotated_files(self.log_file)) > 3
        return report

    def has_logged(self, pid: int, records: int) -> bool:
        """True when that process has logged more than that."""
        return any(w.startswith(f"{pid}-") and count > records for w, count in counts(self.tallies).items())

    def supervisor_log(self) -> str:
        """What the supervisor had to say."""
        with contextlib.suppress(FileNotFoundError):
            return (self.state / "supervisor.log").read_text()
        return ""


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    try:
        out, _ = process.communicate(timeout=30)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise AssertionError(f"a program hangs, or somebody holds its output: {error.output!r}") from error
    assert process.returncode == code, out
    return out


@pytest.fixture
def app(tmp_path: Path, state_dir: str, server_url: str, stream_name: str) -> Application:
    return Application(tmp_path, state_dir, server_url, stream_name)


# -- pools ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_process_pool_executor_loses_nothing(app, method):
    assert app.run("executor.py", method) == ""
    assert app.check().records == 100 + 80 * 25 + 80
    assert app.supervisor_log() == ""


@pytest.mark.usefixtures("uncovered")
def test_a_pool_that_replaces_its_workers_loses_nothing(app):
    assert app.run("pool.py") == ""
    assert app.check().records == 60 * 40 + 60
    assert len(counts(app.tallies)) > 4
    assert app.supervisor_log() == ""


@pytest.mark.usefixtures("uncovered")
def test_a_pool_loses_nothing_under_a_supervisor_in_the_foreground(
    tmp_path, state_dir, server_url, stream_name
):
    app = Application(tmp_path, state_dir, server_url, stream_name, "[supervisor]\nautostart = false\n")
    assert app.run("pool.py") == ""
    supervisor = app.start("-m", "redislogkit.supervise", app.config)
    assert app.check().records == 60 * 40 + 60
    supervisor.terminate()
    out = finish(supervisor)
    assert "supervising" in out
    assert "draining" in out


# -- hard ends -----------------------------------------------------------------------------------


def test_what_was_logged_before_os_exit_arrives(app):
    assert app.run("hard_exit.py", "exit", code=7) == ""
    assert app.check().records == 2000


def test_what_was_logged_before_sigkill_arrives_to_the_last_record(app):
    assert app.run("hard_exit.py", "kill", code=-signal.SIGKILL) == ""
    assert app.check().records == 2000
    assert app.supervisor_log() == ""


def test_sigkill_in_the_middle_of_logging_loses_no_record_whose_call_returned(app):
    running = [app.start(PROGRAMS / "hard_exit.py", "endless") for _ in range(3)]
    for process in running:
        wait_until(partial(app.has_logged, process.pid, 500), what="500 records are logged")
        process.kill()
        finish(process, -signal.SIGKILL)
    assert app.check(in_doubt=1).records > 1500


# -- threads, tasks, children --------------------------------------------------------------------


@pytest.mark.usefixtures("uncovered")
def test_threads_that_fork_while_others_log_neither_hang_nor_lose(app):
    assert app.run("fork_storm.py") == ""
    assert app.check().records == 6 * 8 * (40 + 30)
    assert app.supervisor_log() == ""


@pytest.mark.usefixtures("uncovered")
def test_fast_loggers_in_threads_and_children_lose_nothing(tmp_path, state_dir, server_url, stream_name):
    app = Application(tmp_path, state_dir, server_url, stream_name, "[producer]\nfast_logger = true\n")
    assert app.run("fast_storm.py") == ""
    assert app.check().records == 4 * 6 * (200 + 150)
    assert app.supervisor_log() == ""


def test_an_asyncio_program_loses_nothing(app):
    assert app.run("event_loop.py") == ""
    assert app.check().records == 50 * 40 + 10 * 100


def test_children_that_configure_themselves_share_one_supervisor(app):
    assert app.run("children.py") == ""
    assert app.check().records == 600 + 6 * 200
    assert app.supervisor_log() == ""


def test_a_launched_supervisor_with_an_embedded_server_ends_when_the_program_has(
    tmp_path, state_dir, stream_name, reaped
):
    app = Application(tmp_path, state_dir, "embedded://", stream_name)
    assert app.run("children.py") == ""
    app.check()
    wait_until(lambda: not processes.started(reaped, state_dir), what="nothing of the program runs")
    assert app.supervisor_log() == ""


def test_a_daemon_that_has_closed_all_descriptors_logs_on(app):
    own_file, stop = app.folder / "own", app.folder / "stop"
    assert app.run("daemon.py", own_file, stop) == ""
    spool = app.state / "spool"
    wait_until(
        lambda: any(name.endswith("-1") for name in os.listdir(spool)),
        what="the daemon has noticed the loss of its lock",
    )
    retired_at = sum(counts(app.tallies).values())
    wait_until(lambda: sum(counts(app.tallies).values()) > retired_at + 200, what="the daemon logs on")
    stop.touch()
    app.check()
    assert set(own_file.read_bytes().splitlines()) == {b"only the daemon writes here"}
    assert app.supervisor_log() == ""


@pytest.mark.parametrize("framework", ["takes over", "leaves the root alone"])
def test_a_framework_may_set_up_logging_after_us(app, framework):
    with app.config.open("a") as file:
        file.write("[producer]\nshutdown_timeout = 20\n")  # a slow machine is no reason to fail
    assert app.run("framework.py", framework) == ""
    report = check(rotated_files(app.log_file), counts(app.tallies), RUN)
    assert report.ok, f"the end of the program has waited for its records: {report}"
    assert app.check().records == 1000
    assert app.supervisor_log() == ""


# -- servers, as the pages of the integrations have them -----------------------------------------

PAGES = ROOT / "docs" / "integrations"


def put(app: Application, page: str, server: str = "") -> None:
    """Write the programs of a page into the application's folder, where ``log.toml`` is."""
    for block in pages.read(PAGES / page):
        if "file" in block.marks:
            text = block.text.replace("redis://localhost:6379/1", server)
            (app.folder / block.marks["file"]).write_text(text, encoding="utf-8")


def written(app: Application) -> list[str]:
    """Wait until the last producer is dead and everything of it written; return all lines, oldest first."""
    spool = app.state / "spool"
    wait_until(lambda: not os.listdir(spool), what=f"{spool} is empty")
    files = rotated_files(app.log_file)
    assert len(files) > 1
    return [line for path in files for line in Path(path).read_text(encoding="utf-8").splitlines()]


@contextlib.contextmanager
def gunicorn(app: Application) -> Iterator[int]:
    """Run it with workers that serve few requests; its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        process = app.start(
            "-m", "gunicorn", "--max-requests", 20, "--max-requests-jitter", 10,
            # A worker that has just been forked misses its SIGTERM and is killed when that time is over.
            "--graceful-timeout", 2, "--no-control-socket", "--bind", f"fd://{listener.fileno()}", "shop:app",
            pass_fds=(listener.fileno(),),
        )  # fmt: skip
        try:
            yield listener.getsockname()[1]
        finally:
            process.terminate()
            assert finish(process) == ""


def request(port: int, order: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", f"/orders/{order}")
    response = connection.getresponse()
    assert response.status == 200
    pid = int(response.read())
    connection.close()
    return pid


def test_recycled_gunicorn_workers_lose_nothing(app):
    put(app, "flask-gunicorn.md")
    worker_of: dict[int, int] = {}

    def ask(client: int) -> None:
        for order in range(client, 200, 4):
            worker_of[order] = request(port, order)

    with gunicorn(app) as port:
        clients = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    pids = set(worker_of.values())
    assert len(pids) > 4, "workers were recycled"
    lines = written(app)
    of = {
        name: [line for line in lines if f" INFO     {name}: " in line]
        for name in ("shop", "gunicorn.access")
    }
    served = [int(line.partition(": order ")[2].split()[0]) for line in of["shop"]]
    assert sorted(served) == list(range(200))
    for number in range(4):
        for pid in pids:
            in_file = [order for order in served if order % 4 == number and worker_of[order] == pid]
            assert in_file == sorted(in_file), "the order of a worker's records is kept"
    asked = [line.partition("/orders/")[2].split()[0] for line in of["gunicorn.access"]]
    assert sorted(map(int, asked)) == list(range(200))
    booted = [int(line.rpartition(" ")[2]) for line in lines if "Booting worker with pid: " in line]
    assert pids <= set(booted)
    assert len(booted) == len(set(booted))
    assert app.supervisor_log() == ""


#: What a test wants of the page's application: names that no other has, and no waiting.
QUICKER = """
import os
from celery.concurrency.asynpool import AsynPool
from shop import app

prefix = {"global_keyprefix": os.environ["RUN"]}
app.conf.update(
    task_default_queue=os.environ["RUN"], broker_transport_options=prefix, result_backend_transport_options=prefix,
    worker_prefetch_multiplier=1, worker_enable_remote_control=False,
)
# Celery often misses the end of a recycled process until it looks for it, five seconds later.
AsynPool.timers = property(lambda pool: {pool.maintain_pool: 0.1})
"""


def test_recycled_celery_workers_lose_nothing(app, server_url):
    put(app, "celery.md", server_url.replace("unix:", "redis+socket:"))
    (app.folder / "quicker.py").write_text(QUICKER)
    app.environment["C_FORCE_ROOT"] = "1"
    worker = app.start(
        "-m", "celery", "-q", "-A", "quicker", "worker", "--pool", "prefork", "--concurrency", 3,
        "--max-tasks-per-child", 8, "--without-gossip", "--without-mingle", "--without-heartbeat",
    )  # fmt: skip
    out = finish(app.start("-c", "import quicker, client"))
    worker.terminate()
    finish(worker)
    assert int(out.removesuffix(" processes\n")) > 3, "workers were recycled"
    steps = [line.partition(": order ")[2].split() for line in written(app) if "step" in line]
    found = [(int(order), int(step)) for order, _, step in steps]
    assert len(found) == 36 * 60
    for number in range(36):
        assert [step for order, step in found if order == number] == list(range(1, 61))
    assert app.supervisor_log() == ""

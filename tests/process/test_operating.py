"""A supervisor that is run on purpose: what it is asked, told and given anew while records flow; containers; systemd."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redislogkit import config as configuration
from redislogkit import control
from redislogkit.__main__ import main
from redislogkit.stream import address
from redislogkit.stream.client import StreamClient
from stress import checker
from stress import processes as found
from tests.helpers import processes
from tests.helpers.processes import is_running
from tests.helpers.scripts import ROOT
from tests.helpers.supervision import PRODUCER, Producers, Supervision
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.usefixtures("uncovered")

FOREGROUND = {"supervisor": {"autostart": False}, "producer": {"shutdown_timeout": 0}}


class Asked:
    """The supervisor of a `Supervision`, by its control socket."""

    def __init__(self, supervision: Supervision) -> None:
        self._config = configuration.load(supervision.sections)

    def __call__(self, do: str, **more: Any) -> dict[str, Any]:
        return control.ask(self._config, {"do": do, **more})

    def children(self) -> dict[str, dict[str, Any]]:
        """Name → what it says of each child."""
        return {each["name"]: each for each in self("status")["children"]}

    def wait_for(self, name: str, state: str) -> dict[str, Any]:
        """Wait until a child is in ``state``; return what is said of it."""

        def child() -> dict[str, Any]:
            facts = self.children().get(name, {})
            return facts if facts.get("state") == state else {}

        return wait_until(child, what=f"{name} is {state}")


@pytest.fixture
def service_manager(monkeypatch, state_dir) -> Iterator[Told]:
    """What a service manager is told, line by line; ask `hear` for more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"{state_dir}/notify")
        receiver.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", f"{state_dir}/notify")
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        told = Told(receiver)
        yield told


@contextlib.contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A process that is killed where the test fails."""
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
    ) as process:
        try:
            yield process
        finally:
            process.kill()


class Told(list[str]):
    """The lines, those that have come meanwhile with `hear`."""

    def __init__(self, receiver: socket.socket) -> None:
        super().__init__()
        self._receiver = receiver

    def hear(self) -> list[str]:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.extend(self._receiver.recv(4096).decode().splitlines())
        return self


def test_a_reload_touches_only_what_has_changed_and_loses_nothing(
    state_dir, scripts, service_manager, capsys
):
    supervision = Supervision(state_dir, **FOREGROUND)
    writers = supervision.sections["writers"]
    folder = Path(supervision.path).parent
    writers["old"] = {"type": "file", "path": f"{folder}/old.log"}
    supervision.sections["supervisor"]["log"] = f"{state_dir}/own.log"
    process = supervision.start()
    asked = Asked(supervision)
    wait_until(lambda: "READY=1" in service_manager.hear(), what="it is ready")
    producers = Producers(scripts, supervision)
    producers.wait_flowing()
    before = asked.children()
    assert {each["state"] for each in before.values()} == {"running"}
    assert before["app"]["type"] == "file"
    assert before["app"]["latency"]["count"]

    del writers["old"]
    writers["new"] = {"type": "file", "path": f"{folder}/new.log"}
    Path(supervision.file()).write_text(Path(supervision.file()).read_text() + "[[[")
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: "is not TOML" in asked("status")["config_error"], what="the broken file is told")
    assert {name: each["pid"] for name, each in asked.children().items()} == {
        name: each["pid"] for name, each in before.items()
    }
    assert main(["reload", supervision.file()]) == 0
    assert "writer new: added\nwriter old: removed\nshipper: started anew\n" in capsys.readouterr().out
    asked.wait_for("new", "running")
    after = asked.children()
    assert after.keys() == {"server", "shipper", "app", "new"}
    assert {each["last_exit"] for each in after.values()} == {""}  # none has failed
    assert [before[name]["pid"] == after[name]["pid"] for name in ("server", "app", "shipper")] == [
        True,
        True,
        False,
    ]
    assert asked("status")["config_error"] == ""
    steps = re.compile(r"READY=1.*RELOADING=1,MONOTONIC_USEC=\d+.*READY=1")
    wait_until(lambda: steps.search(",".join(service_manager.hear())), what="it is ready again")
    assert service_manager.count("WATCHDOG=1") > 2

    # What was removed has all that was logged before, and no longer holds the stream back.
    config = configuration.load(supervision.sections)
    client = StreamClient(address.resolve(config), "app")
    assert set(client.registered_writers()) == {"app", "new"}
    client.close()
    old = checker.rotated_files(f"{folder}/old.log")
    written = {
        worker: sum(path.read_text().count(f"rlk[r {worker} ") for path in map(Path, old))
        for worker in ("w0", "w1")
    }
    assert checker.check(old, written, "r").ok

    # Rotation and opening again, with nothing that has to be written.
    counts = producers.finish()
    supervision.wait_complete(counts)
    assert asked("rotate", writers=["app"]) == {"ok": True, "writers": ["app"]}
    wait_until(lambda: os.path.exists(supervision.path + ".1"), what="the archive")
    wait_until(lambda: asked.children()["app"]["rotations"] == 1, what="it is counted")
    os.rename(f"{folder}/new.log", f"{folder}/new.log.moved")
    process.send_signal(signal.SIGUSR1)
    wait_until(lambda: os.path.exists(f"{folder}/new.log"), what="the file is there again")
    report = supervision.check(counts)
    assert report.ok, report

    service_manager.hear()  # so that there is room for more
    process.terminate()
    wait_until(lambda: "STOPPING=1" in service_manager.hear(), what="the service manager knows")
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert "writer old: removed; shipper: started anew" in Path(state_dir, "own.log").read_text()
    assert not os.path.exists(control.path(config))


def test_a_pipe_that_is_not_read_holds_back_only_its_own_writer(state_dir, scripts):
    supervision = Supervision(state_dir, **FOREGROUND)
    supervision.sections["writers"]["out"] = {"type": "stdout"}
    # The supervisor itself, which must not hang either, says what it says into the same pipe.
    with running([sys.executable, "-m", "redislogkit.supervise", supervision.file()]) as process:
        stdout = process.stdout
        assert stdout is not None
        wait_until(lambda: len(supervision.children()) == supervision.roles, what="the children run")
        asked = Asked(supervision)
        scripts.run(PRODUCER, supervision.argument, "w0", 3000, 0)
        supervision.wait_complete({"w0": 3000})
        waiting = asked.wait_for("out", "waiting")
        assert "whoever reads stdout is too slow" in waiting["error"]
        read = bytearray()

        def complete() -> bool:
            while select.select([stdout], [], [], 0)[0]:
                read.extend(os.read(stdout.fileno(), 1 << 16))
            return read.count(b"rlk[r w0 ") >= 3000

        wait_until(complete, what="all is there")
        out = Path(state_dir, "read")
        out.write_bytes(read)
        assert checker.check([str(out)], {"w0": 3000}, "r").ok
        asked.wait_for("out", "running")
        pid = asked.children()["app"]["pid"]

        stdout.close()
        scripts.run(PRODUCER, supervision.argument, "w1", 10, 0)
        closed = asked.wait_for("out", "set aside")
        assert closed["last_exit"] == "ended with exit code 78"
        assert closed["error"] == "nobody reads the supervisor's stdout any more"
        supervision.wait_complete({"w0": 3000, "w1": 10})
        assert asked.children()["app"]["pid"] == pid
        process.terminate()
        assert process.wait(30) == 3


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be the first process of a namespace")
def test_the_first_process_of_a_container_buries_orphans_and_stops_on_sigterm(state_dir, scripts):
    supervision = Supervision(state_dir, **FOREGROUND)
    command = [sys.executable, "-m", "redislogkit.supervise", supervision.file()]
    with running(
        ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *command], text=True
    ) as outside:
        init = wait_until(lambda: next(iter(found.children(outside.pid)), 0), what="the first process")
        server = wait_until(lambda: named(init, "rlk-server"), what="who looks after the server")
        wait_until(lambda: found.children(server), what="the server")
        os.kill(server, signal.SIGKILL)
        wait_until(lambda: named(init, "rlk-server") not in (0, server), what="the next one")
        scripts.run(PRODUCER, supervision.argument, "w0", 100, 0)
        supervision.wait_complete({"w0": 100})
        wait_until(lambda: all(map(is_running, found.children(init))), what="nobody is left unburied")
        os.kill(init, signal.SIGTERM)
        out, _ = outside.communicate(timeout=30)
    assert outside.returncode == 0, out
    assert not is_running(init)


def named(parent: int, name: str) -> int:
    return next((pid for pid in found.children(parent) if found.name(pid) == name), 0)


def test_the_unit_file_is_right_and_starts_what_is_there(tmp_path):
    unit = (ROOT / "configs" / "redislogkit.service").read_text()
    started = re.search(r"^ExecStart=(\S+) supervise (\S+)$", unit, re.MULTILINE)
    assert started
    own = tmp_path / "redislogkit.service"
    own.write_text(unit.replace(started[1], f"{os.path.dirname(sys.executable)}/redislogkit"))
    assert f"ExecReload={started[1]} reload {started[2]}\n" in unit
    try:
        done = subprocess.run(
            ["systemd-analyze", "verify", str(own)], capture_output=True, text=True, check=False, timeout=60
        )
    except FileNotFoundError:
        pytest.skip("systemd-analyze is not installed")
    about_ours = [line for line in done.stderr.splitlines() if "redislogkit" in line]
    assert about_ours == []


def test_processes_have_titles_and_keep_their_names(state_dir, reaped):
    pytest.importorskip("setproctitle")
    supervision = Supervision(state_dir, **FOREGROUND)
    # What is taken out of the environment may stand first in it, beside the command line.
    process = supervision.start(env={"NOTIFY_SOCKET": f"{state_dir}/nobody", **os.environ})
    titles = {found.name(pid): title(pid) for pid in (process.pid, *supervision.children().values())}
    assert titles == {
        "redislogkit": "redislogkit: supervisor (app)",
        "rlk-server": "redislogkit: server (app)",
        "rlk-shipper": "redislogkit: shipper (app)",
        "rlk-w-app": "redislogkit: writer app (app)",
    }
    assert processes.stop(process) == 0


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()

"""How supervisors begin and end: by signals in the foreground, by themselves when an application started them."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import socket
import subprocess
import sys

import pytest

from redislogkit import locking
from stress.processes import children as child_pids
from tests.helpers import processes
from tests.helpers.processes import is_running
from tests.helpers.scripts import ROOT
from tests.helpers.supervision import PRODUCER, Producers, Supervision
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.usefixtures("reaped")

IN_THE_FOREGROUND = {"supervisor": {"autostart": False}, "producer": {"shutdown_timeout": 0}}


def everything_started() -> list[int]:
    return [pid for pid in processes.started(os.environ[processes.MARK]) if is_running(pid)]


# -- in the foreground ------------------------------------------------------------------------------


def test_a_signal_drains_in_order_and_everything_is_written(state_dir, scripts):
    supervision = Supervision(state_dir, **IN_THE_FOREGROUND)
    process = supervision.start()
    everybody = supervision.everybody()
    scripts.run(PRODUCER, supervision.argument, "w0", 5000, 0)  # does not wait for its records at its end
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, out
    assert out.rstrip().endswith("draining")
    report = supervision.check({"w0": 5000})
    assert report.ok, report
    assert supervision.spools() == []
    assert not any(map(is_running, everybody.values()))


@pytest.mark.usefixtures("uncovered")
def test_a_signal_to_every_process_at_once_drains_all_the_same(state_dir, scripts):
    # As systemd does it with its default KillMode.
    supervision = Supervision(state_dir, **IN_THE_FOREGROUND)
    process = supervision.start()
    scripts.run(PRODUCER, supervision.argument, "w0", 2000, 0)
    for pid in supervision.everybody().values():
        os.kill(pid, signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, out
    report = supervision.check({"w0": 2000})
    assert report.ok, report


@pytest.mark.usefixtures("uncovered")
def test_ctrl_c_at_the_terminal_drains_all_the_same(state_dir, scripts):
    supervision = Supervision(state_dir, **IN_THE_FOREGROUND)
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(ROOT)
        with contextlib.suppress(OSError):
            os.execv(sys.executable, [sys.executable, "-m", "redislogkit.supervise", supervision.file()])
        os._exit(127)
    try:
        wait_until(lambda: len(supervision.children()) == supervision.roles, what="the children run")
        scripts.run(PRODUCER, supervision.argument, "w0", 2000, 0)
        os.write(terminal, b"\x03")
        wait_until(lambda: not is_running(pid), what="the supervisor ends")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.close(terminal)
    report = supervision.check({"w0": 2000})
    assert report.ok, report


@pytest.mark.usefixtures("uncovered")
def test_a_second_signal_stops_at_once_and_what_is_left_arrives_later(state_dir, scripts):
    supervision = Supervision(state_dir, **IN_THE_FOREGROUND)
    process = supervision.start()
    writer = supervision.child("w-app")
    os.kill(writer, signal.SIGSTOP)  # the shipper's drain waits for it
    scripts.run(PRODUCER, supervision.argument, "w0", 500, 0)
    everybody = supervision.everybody()
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    wait_until(lambda: "draining" in process.stdout.readline(), what="it drains")  # type: ignore[union-attr]
    process.send_signal(signal.SIGTERM)
    assert process.wait(3) == 3
    process.stdout.close()
    assert not any(map(is_running, everybody.values()))
    again = supervision.start()
    supervision.wait_complete({"w0": 500})
    assert processes.stop(again) == 0


@pytest.mark.usefixtures("uncovered")
def test_a_producer_that_goes_on_logging_does_not_hold_up_the_drain(state_dir, scripts):
    supervision = Supervision(state_dir, **IN_THE_FOREGROUND)
    process = supervision.start()
    producers = Producers(scripts, supervision, number=1, pause=0.0001)
    producers.wait_flowing()
    process.send_signal(signal.SIGTERM)
    assert process.wait(8) == 0
    assert process.stdout is not None
    process.stdout.close()
    counts = producers.finish()
    again = supervision.start()
    supervision.wait_complete(counts)
    assert processes.stop(again) == 0


@pytest.mark.usefixtures("uncovered")
def test_a_writer_that_can_not_write_makes_itself_known_in_the_exit_code(state_dir, scripts):
    supervision = Supervision(state_dir, **IN_THE_FOREGROUND)
    process = supervision.start()
    producers = Producers(scripts, supervision, number=1)
    producers.wait_flowing()
    os.rename(supervision.path, supervision.path + ".1")
    os.mkdir(supervision.path)
    assert process.stdout is not None
    wait_until(lambda: "waiting: " in process.stdout.readline(), what="the writer says so")  # type: ignore[union-attr]
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 3, out
    os.rmdir(supervision.path)
    counts = producers.finish()
    again = supervision.start()
    supervision.wait_complete(counts)
    assert processes.stop(again) == 0


# -- started by an application ----------------------------------------------------------------------


def test_a_launched_supervisor_ends_when_nobody_needs_it_and_the_next_program_starts_another(
    state_dir, scripts
):
    supervision = Supervision(state_dir)
    # A spool that nobody can read is reported, and keeps nobody.
    bad = os.path.join(supervision.stream_dir, "spool", "bad-0")
    os.makedirs(bad)
    with open(os.path.join(bad, "header"), "wb") as file:
        file.write(b"nonsense")
    scripts.run(PRODUCER, supervision.argument, "w0", 10, 0)
    assert supervision.pid
    wait_until(lambda: not everything_started(), what="all processes have ended")
    assert supervision.spools() == ["bad-0"]
    assert len(supervision.log().splitlines()) == 1
    scripts.run(PRODUCER, supervision.argument, "w1", 10, 0)
    supervision.wait_complete({"w0": 10, "w1": 10})


def test_a_producer_that_comes_while_the_supervisor_ends_is_not_left_alone(state_dir, scripts):
    supervision = Supervision(state_dir)
    source = """
        import json, logging, os, sys, time
        import redislogkit
        from redislogkit import locking
        from stress.checker import message
        from tests.helpers.processes import is_running
        from stress.processes import children

        # Children of one program that each log when the supervisor has got so far with its end.
        lock = os.path.join(sys.argv[2], "app", "supervisor.lock")
        for stage in range(8):
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
                continue
            deadline = time.monotonic() + 10
            supervisor = locking.read_owner(lock).get("pid", 0)
            while is_running(supervisor) and len(children(supervisor)) > 3 - stage % 4:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            redislogkit.configure(json.loads(sys.argv[1]))
            logging.getLogger("test").warning(message("r", f"w{stage}", 0))
            logging.shutdown()
            os._exit(0)
    """
    scripts.run(source, supervision.argument, state_dir)
    supervision.wait_complete({f"w{stage}": 1 for stage in range(8)})
    wait_until(lambda: not everything_started(), what="all processes have ended")
    assert supervision.spools() == []


def test_the_application_has_no_child_and_no_descriptor_of_the_supervisor(state_dir, scripts):
    supervision = Supervision(state_dir)
    source = (
        PRODUCER
        + """
    from stress.processes import children
    import os
    print(children(os.getpid()))
    """
    )
    finished = scripts.run(source, supervision.argument, "w0", 10, 0)
    assert finished.out.split("\n")[1] == "[]"
    assert finished.err == ""
    supervision.wait_complete({"w0": 10})


def test_ctrl_c_for_the_application_does_not_reach_the_supervisor(state_dir, reaped):
    supervision = Supervision(state_dir)
    path = os.path.join(state_dir, "program.py")
    with open(path, "w") as file:
        file.write(
            "import json, logging, signal, sys, time, redislogkit\n"
            "from stress.checker import message\n"
            # Whoever runs the tests in the background of a shell has it ignored.
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "redislogkit.configure(json.loads(sys.argv[1]))\n"
            "logging.warning(message('r', 'w0', 0))\n"
            "print('ready', flush=True)\n"
            "try:\n    time.sleep(60)\n"
            "except KeyboardInterrupt:\n    logging.warning(message('r', 'w0', 1))\n"
        )
    with subprocess.Popen(
        [sys.executable, path, supervision.argument],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        supervision.wait_complete({"w0": 1})
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(10) == 0
    report = supervision.check({"w0": 2})
    assert report.ok, report
    assert "draining" not in supervision.log()


def test_a_supervisor_keeps_no_socket_of_the_application_open(state_dir, scripts):
    supervision = Supervision(state_dir)
    source = PRODUCER.replace(
        "redislogkit.configure",
        "import socket; listener = socket.create_server(('127.0.0.1', 0)); listener.set_inheritable(True); "
        "print(listener.getsockname()[1]); redislogkit.configure",
        1,
    )
    port = int(scripts.run(source, supervision.argument, "w0", 1, 0).out.split()[0])
    assert supervision.pid
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()


def test_a_supervisor_hears_sigterm_also_when_the_application_had_blocked_it(state_dir, scripts):
    supervision = Supervision(state_dir)
    source = PRODUCER.replace(
        "redislogkit.configure",
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); redislogkit.configure",
        1,
    )
    scripts.run(source, supervision.argument, "w0", 1, 0)
    os.kill(supervision.pid, signal.SIGTERM)
    wait_until(lambda: not everything_started(), what="all processes have ended")


@pytest.mark.usefixtures("uncovered")
def test_children_are_named_and_hold_neither_lock_nor_doorbell(state_dir, scripts):
    supervision = Supervision(state_dir)
    process = supervision.start()
    children = supervision.children()
    assert set(children) == {"server", "shipper", "w-app"}
    lock = os.path.join(supervision.stream_dir, "supervisor.lock")
    for role, pid in children.items():
        held = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        assert lock not in held
        assert (os.path.join(supervision.stream_dir, "doorbell") in held) == (role == "shipper")
    assert locking.read_owner(lock)["pid"] == process.pid
    assert sorted(child_pids(process.pid)) == sorted(children.values())
    assert processes.stop(process) == 0

"""Children and supervisors are killed, stopped and refused while records flow; the file shows nothing of it."""

from __future__ import annotations

import functools
import os
import re
import signal
from pathlib import Path

import pytest

from redislogkit import locking
from tests.helpers import processes
from tests.helpers.processes import is_running
from tests.helpers.supervision import PRODUCER, Producers, Supervision
from tests.helpers.waiting import wait_until

#: What they go through is covered elsewhere; without it they take two thirds of the time.
pytestmark = pytest.mark.usefixtures("uncovered")

ROTATED = {"app": {"max_bytes": "20 KiB", "backup_count": 1000}}


def rotated(state_dir: str, **sections: object) -> Supervision:
    supervision = Supervision(state_dir, **sections)
    supervision.sections["writers"]["app"] |= ROTATED["app"]
    supervision.sections["writers"]["console"] = {"type": "tty"}
    return supervision


# -- kills ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["server", "shipper", "w-app", "w-console"])
def test_a_killed_child_is_started_again_and_nothing_is_lost_or_doubled(role, state_dir, scripts):
    supervision = rotated(state_dir)
    producers = Producers(scripts, supervision)
    for _ in range(2):
        producers.wait_flowing()
        victim = supervision.child(role)
        os.kill(victim, signal.SIGKILL)
        assert supervision.child(role, other_than=victim)
    producers.wait_flowing()
    supervision.wait_complete(producers.finish())
    assert "ended with signal SIGKILL, starting it again" in supervision.log()


def test_the_server_itself_is_killed_and_started_again_with_its_data(state_dir, scripts):
    supervision = rotated(state_dir)
    producers = Producers(scripts, supervision)
    producers.wait_flowing()
    server = supervision.everybody()["below server"]
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: supervision.everybody().get("below server", server) != server, what="a new server")
    producers.wait_flowing()
    supervision.wait_complete(producers.finish())
    assert "lost its memory" not in supervision.log()


def test_children_end_with_a_killed_supervisor_and_the_next_one_takes_over(state_dir, scripts):
    supervision = rotated(state_dir)
    producers = Producers(scripts, supervision)
    producers.wait_flowing()
    killed = supervision.everybody()
    os.kill(killed["supervisor"], signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, killed.values())), deadline=2, what="no orphan is left")
    producers.wait_flowing()
    assert supervision.pid not in (0, killed["supervisor"])
    supervision.wait_complete(producers.finish())


def test_a_supervisor_whose_folder_was_taken_away_ends_with_its_children(state_dir, scripts):
    """The next one finds nothing locked; two of them would quarrel over the lease, and over the file."""
    supervision = rotated(state_dir)
    producers = Producers(scripts, supervision)
    producers.wait_flowing()
    first = supervision.everybody()
    os.rename(supervision.stream_dir, supervision.stream_dir + ".gone")
    wait_until(lambda: not any(map(is_running, first.values())), deadline=20, what="everybody has ended")
    producers.finish()


def test_all_are_killed_at_once_and_nothing_is_lost_or_doubled(state_dir, scripts):
    supervision = rotated(state_dir)
    producers = Producers(scripts, supervision)
    producers.wait_flowing()
    everybody = supervision.everybody()
    for pid in everybody.values():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, everybody.values())), what="all are dead")
    scripts.run(PRODUCER, supervision.argument, "late", 1, 0)  # starts the next one at once
    producers.wait_flowing()
    supervision.wait_complete({**producers.finish(), "late": 1})


def test_a_flushed_server_costs_no_record(state_dir, scripts, own_server):
    supervision = rotated(state_dir, redis={"url": own_server.url})
    producers = Producers(scripts, supervision)
    for _ in range(3):
        producers.wait_flowing()
        own_server.flush()
    producers.wait_flowing()
    supervision.wait_complete(producers.finish())
    assert "lost its memory" in supervision.log()


# -- silence, failure, refusal ----------------------------------------------------------------------


def test_stopped_children_are_noticed_and_replaced(state_dir, scripts):
    supervision = rotated(state_dir, supervisor={"heartbeat_timeout": 2})
    producers = Producers(scripts, supervision)
    producers.wait_flowing()
    victims = {role: supervision.child(role) for role in ("shipper", "w-app")}
    for victim in victims.values():
        os.kill(victim, signal.SIGSTOP)
    for role, victim in victims.items():
        assert supervision.child(role, other_than=victim)
    producers.wait_flowing()
    supervision.wait_complete(producers.finish())
    log = supervision.log()
    for name in ("shipper", "writer app"):
        assert re.search(f"{name}.*silent for more than 2 s, killed", log), log


def test_a_child_that_keeps_failing_is_set_aside_and_the_others_go_on(state_dir, scripts):
    supervision = rotated(state_dir, supervisor={"max_restarts": 1})
    process = supervision.start()
    for _ in range(2):
        victim = supervision.child("w-console")
        os.kill(victim, signal.SIGKILL)
        wait_until(functools.partial(supervision.lacks, victim), what="the writer is dead")
    producers = Producers(scripts, supervision)
    producers.wait_flowing()
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "writer console: set aside, it has failed 2 times; tried again every 15 s" in out
    counts = producers.finish()
    # The foreground supervisor is gone: an application's own one takes over what is left.
    supervision.wait_complete(counts)


def test_a_writer_whose_file_is_locked_names_the_owner_and_the_others_go_on(state_dir, scripts):
    supervision = rotated(state_dir)
    supervision.sections["writers"]["app"]["lock_timeout"] = 0.1
    other = Path(state_dir, "out", "other.log")
    supervision.sections["writers"]["other"] = {"type": "file", "path": str(other)}
    os.mkdir(os.path.join(state_dir, "out"))
    with locking.OwnedLock(locking.beside(supervision.path), "the file"):
        process = supervision.start()
        producers = [scripts.start(PRODUCER, supervision.argument, "w0", 50, 0)]
        wait_until(lambda: other.exists() and "w0 49 " in other.read_text(), what="the other file")
    wait_until(lambda: not supervision.check({"w0": 50}).lost, what="the first file once it is free")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, out
    refusals = re.findall(r"writer app: .*", out)
    assert f"log file {supervision.path} is in use by process {os.getpid()} on " in refusals[0]
    assert "writer app: set aside, it can not work as configured" in refusals[1]
    assert producers[0].wait(30) == 0


# -- two supervisors --------------------------------------------------------------------------------


def test_a_second_supervisor_is_refused_at_once_and_told_who_the_first_is(state_dir, reaped):
    supervision = Supervision(state_dir)
    first = supervision.start()
    second = supervision.start()
    out, _ = second.communicate(timeout=5)
    assert second.returncode == 4
    assert f"is in use by process {first.pid} on {os.uname().nodename}" in out
    assert processes.stop(first) == 0


def test_thirty_processes_that_begin_at_once_start_one_supervisor(state_dir, scripts):
    supervision = Supervision(state_dir)
    gate = os.path.join(state_dir, "gate")
    source = """
        import json, logging, multiprocessing, os, sys, time
        import redislogkit
        from stress.checker import message

        def work(worker):
            while not os.path.exists(sys.argv[2]):
                time.sleep(0.001)
            redislogkit.configure(json.loads(sys.argv[1]))
            logging.warning(message("r", f"w{worker}", 0))

        context = multiprocessing.get_context("fork")
        running = [context.Process(target=work, args=(n,)) for n in range(30)]
        for process in running:
            process.start()
        open(sys.argv[2], "w").close()
        for process in running:
            process.join()
    """
    scripts.run(source, supervision.argument, gate)
    supervision.wait_complete({f"w{n}": 1 for n in range(30)})
    assert supervision.pid
    pids = {pid for pid in processes.started(os.environ[processes.MARK]) if is_running(pid)}
    assert pids <= set(supervision.everybody().values())  # nobody else, and no second supervisor
    assert "is in use by" not in supervision.log()


# -- secrets ----------------------------------------------------------------------------------------


def test_the_password_is_in_no_command_line_and_no_log(state_dir, scripts):
    secret = "s3cr3t-of-redis"
    url = f"redis://user:{secret}@127.0.0.1:1/0"
    supervision = Supervision(state_dir, redis={"url": "${RLK_TEST_URL}"}, producer={"shutdown_timeout": 0})
    finished = scripts.run(PRODUCER, supervision.argument, "w0", 3, 0, env={"RLK_TEST_URL": url})
    wait_until(lambda: "waiting: " in supervision.log(), what="the shipper says that it waits")
    wait_until(lambda: supervision.log().count("waiting: ") == 2, what="so does the writer")
    for pid in supervision.everybody().values():
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            assert secret.encode() not in file.read()
    assert secret not in supervision.log() + finished.out + finished.err
    assert os.path.getsize(os.path.join(supervision.stream_dir, "supervisor.log"))
    for _ in range(2):  # the second one, since it can not drain
        os.kill(supervision.pid, signal.SIGTERM)

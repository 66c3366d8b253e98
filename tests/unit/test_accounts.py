"""What becomes of each record: counted by cause, named at its place, and the sum holds at any moment."""

from __future__ import annotations

import errno
import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import msgspec
import pytest

from redislogkit import launch
from redislogkit.producer.handler import SpoolHandler
from redislogkit.spool import header
from redislogkit.spool.header import Gap
from tests.helpers import accounts
from tests.helpers.spools import DEBUG, INFO, MIB, Rig, interrupted


def account(rig: Rig) -> tuple[int, int, dict[str, int], int]:
    """Emitted, written, what was lost, and spooled; true and adding up."""
    rig.check_account()
    emitted, written, lost, spooled = rig.end.account(True)
    return emitted, written, {cause: count for cause, count in lost.items() if count}, spooled


def look_and_read(rig: Rig) -> None:
    rig.look()
    while rig.read():
        pass


# --- the sum -------------------------------------------------------------------------------------


def test_records_are_spooled_then_written(rig):
    for _ in range(10):
        rig.append()
    assert account(rig) == (10, 0, {}, 10)
    look_and_read(rig)
    assert account(rig) == (10, 0, {}, 10)
    rig.write()
    assert account(rig) == (10, 10, {}, 0)
    rig.append()
    assert account(rig) == (11, 10, {}, 1)


@pytest.mark.parametrize("policy", ["drop_new", "block", "drop_old"])
def test_at_each_policys_bound_the_sum_holds_after_every_record(rigs, policy):
    rig = rigs(on_full=policy)
    for number in range(200):
        rig.append(10_000, DEBUG if number % 3 else INFO)
        rig.check_account()
    assert rig.end.account(True).spooled < 120
    rig.look()
    while rig.read(30_000):
        rig.check_account()
        rig.write()
        rig.check_account()
    rig.append()
    rig.drain(dead=False)
    emitted, written, lost, spooled = account(rig)
    assert (emitted, spooled) == (201, 0)
    assert lost == Counter(rig.check().values())
    assert written == emitted - sum(lost.values())


def test_a_position_in_the_middle_of_many_notices_is_exact(rigs):
    rig = rigs(max_bytes=4 * MIB)
    for _ in range(340):
        rig.append(10_000)
    for number in range(2000):
        rig.append(50, DEBUG if number % 2 else INFO)
    assert rig.end._ledger.told()[1] == 1000 - 1 * bool(rig.end._losses)
    rig.look()
    seen = set()
    while rig.read(4000):
        rig.written |= rig.stored
        for spool in rig.spools.values():
            spool.set_written(rig.written[rig.end.producer])  # and nothing is released
        _, written, lost, _ = account(rig)
        seen.add(written)
        assert lost == {"shed": 1000}
    assert max(seen) == 1340
    assert len(seen) > 50


def test_after_a_close_and_over_several_spools_the_sum_goes_on(rig):
    for _ in range(3):
        for _ in range(120):
            rig.append(10_000)
        rig.check_account()
        rig.close()
        rig.check_account()
    emitted, written, lost, spooled = account(rig)
    assert (emitted, written) == (360, 0)
    assert spooled == 360 - lost["spool_full"]
    rig.drain(dead=False)
    assert account(rig) == (360, 360 - lost["spool_full"], lost, 0)
    rig.append()
    assert account(rig) == (361, 360 - lost["spool_full"], lost, 1)


def test_what_is_found_in_a_closed_spool_counts(rigs):
    rig = rigs(on_full="drop_old")
    for _ in range(150):
        rig.append(10_000)
    rig.close()
    rig.drain(dead=False)
    emitted, written, lost, spooled = account(rig)
    assert (emitted, spooled) == (150, 0)
    assert 40 < lost["drop_old"] < 80
    assert written == 150 - lost["drop_old"]


def test_what_drop_old_gave_up_later_of_a_gap_that_was_told_counts_too(rigs):
    rig = rigs(on_full="drop_old")
    for _ in range(150):
        rig.append(10_000)
    look_and_read(rig)
    first = account(rig)[2]["drop_old"]
    for _ in range(50):
        rig.append(10_000)
    rig.lose_memory()
    rig.append(10_000)
    rig.drain(dead=False)
    emitted, written, lost, _ = account(rig)
    assert lost["drop_old"] > first + 30
    assert written + lost["drop_old"] == emitted


def test_notices_that_were_given_up_themselves_count_as_the_file_tells_them(rigs):
    rig = rigs(on_full="drop_old")
    for number in range(150):
        rig.append(10_000, DEBUG if number % 2 else INFO)
    for _ in range(120):
        rig.append(10_000)
    assert account(rig)[2]["shed"] > 10
    rig.drain(dead=False)
    lost = account(rig)[2]
    assert lost == Counter(rig.check().values())
    assert "shed" not in lost


def test_of_the_notices_that_were_given_up_in_a_long_outage_few_numbers_stay(rigs):
    rig = rigs(on_full="drop_old")
    for number in range(1000):
        rig.append(1000, DEBUG if number % 2 else INFO)
    rig.look()
    rig.read(800_000)  # here the shipper is waiting for redis, its segment mapped
    for number in range(5000):
        rig.append(1000, DEBUG if number % 2 else INFO)
    assert account(rig)[2]["shed"] > 2000
    assert len(rig.end._ledger._known.told) < 3 * 1300
    rig.append()
    rig.drain(dead=False)
    lost = account(rig)[2]
    assert lost == Counter(rig.check().values())
    assert 0 < lost["shed"] < 1300
    assert lost["drop_old"] > 3000


# --- the table of gaps ---------------------------------------------------------------------------


def test_each_sequence_of_a_gap_counts_once(rig):
    rig.append()
    words = rig.end._words
    for first, last in [(10, 20), (15, 18), (10, 20), (30, 40), (5, 35)]:
        header.note_gap(words, first, last, 2)
    assert header.gaps(words) == [Gap(5, 40, 2)]
    header.note_gap(words, 50, 50, 4)
    assert header.gaps(words) == [Gap(5, 40, 2), Gap(50, 50, 4)]
    assert rig.end.lost[2:] == [36, 0, 1]


def test_a_full_table_goes_on_counting(rig):
    rig.append()
    words = rig.end._words
    for number in range(1, 200):
        header.note_gap(words, 10 * number, 10 * number + 4, 2 if number % 2 else 4)
        header.note_gap(words, 10 * number, 10 * number + 4, 2 if number % 2 else 4)
    assert len(header.gaps(words)) == 32
    header.note_gap(words, 10, 1000, 2)  # long counted
    assert sum(rig.end.lost) == 199 * 5
    assert rig.end.lost[4] == 99 * 5


def test_a_hostile_table_is_no_error(rig):
    rig.append()
    words = rig.end._words
    for at in range(header.GAPS, header.GAPS + 98):
        words[at] = 2**64 - 1
    assert header.gaps(words) == []
    header.note_gap(words, 5, 6, 2)
    assert header.gaps(words) == [Gap(5, 6, 2)]
    rig.end.account(True)


# --- the ledger ----------------------------------------------------------------------------------


def test_a_daemon_killed_between_two_spools_hides_no_loss(rig, monkeypatch):
    for _ in range(200):
        rig.append(10_000)
    assert rig.end._losses
    named = rig.end._losses[0][1]
    rig.lose_lock(reuse=True)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refuse)
        rig.append(10_000)  # the old spool is left, and there is no other one
        assert rig.end._header is None
        assert rig.end._losses
    rig.returned.popitem()  # with no spool at all, nobody could tell of this one
    rig.drain()
    losses = rig.check()
    assert {sequence for _, sequence in losses} == set(range(named, 201))


def test_losses_told_by_both_ends_stand_there_once(rig):
    for number in range(150):
        rig.append(10_000, DEBUG if number % 2 else INFO)
    assert rig.end._losses
    rig.lose_lock(reuse=True)
    for _ in range(5):
        rig.append(10_000)
    rig.drain(dead=False)
    rig.check_account()
    rig.drain()
    rig.check()  # of each sequence there is one record or one name


def test_notices_take_no_sequences(rig):
    for _ in range(150):
        rig.append(10_000)
    look_and_read(rig)
    rig.write()
    rig.append()
    assert rig.end.sequence == 151
    assert account(rig)[0] == 151


# --- bounds --------------------------------------------------------------------------------------


def test_a_new_spool_may_wait_again(rigs):
    rig = rigs(on_full="block", block_timeout=0.05)
    for _ in range(120):
        rig.append(10_000)
    rig.close()
    for _ in range(90):
        rig.append(10_000)
    began = time.monotonic()
    for _ in range(30):
        rig.append(10_000)
    assert 0.05 <= time.monotonic() - began < 1.0


def test_an_exception_at_the_last_instruction_parks_no_record_for_ever(rig):
    end = rig.end
    rig.append()
    del end._turn[1]  # what an exception may leave that comes between two instructions
    end._parked.append((rig.payload(), INFO))
    for _ in range(3):
        end.append(rig.payload(), INFO)
    assert (end._parked, end._turn) == ([], [None, None])
    assert end.sequence == 5


def test_a_turn_that_got_lost_is_restored_once_however_many_wait_for_it(rig):
    end = rig.end
    rig.append()
    del end._turn[1]
    threads = [threading.Thread(target=lambda: end.append(rig.payload(), INFO)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert end._turn == [None, None]
    assert end.sequence == 9


# --- who ships -----------------------------------------------------------------------------------


@pytest.fixture
def handler(tmp_path) -> Iterator[SpoolHandler]:
    made = SpoolHandler(
        {
            "state_dir": str(tmp_path),
            "supervisor": {"autostart": False},
            "writers": {"app": {"type": "file", "path": str(tmp_path / "app.log")}},
        }
    )
    yield made
    made.close()


def test_who_ships_is_replaced_soon_and_without_a_storm(handler, monkeypatch):
    now, starts = [1000.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(launch, "ensure_supervisor", lambda config: starts.append(now[0]))
    monkeypatch.setattr(launch, "needs_supervisor", lambda config: True)
    supervisor = msgspec.structs.replace(handler.config.supervisor, autostart=True)
    monkeypatch.setattr(handler, "config", msgspec.structs.replace(handler.config, supervisor=supervisor))

    def ask(seconds: float) -> list[float]:
        begin = len(starts)
        end = now[0] + seconds
        while now[0] < end:
            handler._somebody_must_ship()
            now[0] += 0.05
        return starts[begin:]

    failing = ask(60.0)  # starting fails again and again
    assert failing[0] == 1000.0
    assert failing[1] - failing[0] <= 0.5
    assert 12 <= len(failing) <= 20
    assert 4.9 <= failing[-1] - failing[-2] <= 5.2
    now[0] += 60.0  # it went well for a while; then it is killed, twice
    again = ask(0.5)
    assert len(again) == 2
    assert again[0] == pytest.approx(now[0] - 0.5, abs=0.06)


def test_the_counts_of_a_handler_add_up(handler):
    for number in range(20):
        handler.handle(logging.makeLogRecord({"msg": f"{number}", "levelno": 20}))
    stats = handler.stats()
    accounts.check(stats)
    assert (stats["emitted"], stats["spooled"], stats["cut"]) == (20, 20, 0)
    handler._max_payload = 5000
    handler.handle(logging.makeLogRecord({"msg": "x" * 10_000, "levelno": 20}))
    assert handler.stats()["cut"] == 1
    handler.close()
    stats = handler.stats()
    accounts.check(stats)
    assert (stats["emitted"], stats["spooled"]) == (21, 21)


def test_nobody_waits_for_what_was_dropped(handler, monkeypatch):
    end = handler._end
    handler.handle(logging.makeLogRecord({"msg": "stored", "levelno": 20}))
    monkeypatch.setattr(type(end), "_fits", lambda end, size: False)
    monkeypatch.setattr(end._bound, "admits", lambda wanted, wake: False)
    end._limit = 0
    handler.handle(logging.makeLogRecord({"msg": "dropped", "levelno": 20}))
    assert handler.stats()["lost"]["spool_full"] == 1
    assert not handler.wait_until_written(0.0)
    end._words[header.WRITTEN] = 1
    assert handler.wait_until_written(0.0)
    stats = handler.stats()
    accounts.check(stats)
    assert (stats["written"], stats["spooled"]) == (1, 0)


# --- forks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["posix_fallocate", "rename", "mkdir"])
def test_a_fork_while_another_thread_opens_the_spool_leaves_no_lock_in_the_child(
    run_python, tmp_path, moment
):
    """As long as any process has a copy of the lock's descriptor, the producer would count as alive."""
    done = run_python(
        f"""
import fcntl, logging, os, signal, threading, time, sys
from redislogkit import SpoolHandler
from redislogkit.spool import header
handler = SpoolHandler({{"state_dir": {str(tmp_path)!r}, "supervisor": {{"autostart": False}},
    "writers": {{"app": {{"type": "file", "path": {str(tmp_path / "app.log")!r}}}}}}})
log = logging.getLogger("x"); log.addHandler(handler)
there, go = threading.Event(), threading.Event()
real = os.{moment}
def slow(*args, **kwargs):
    result = real(*args, **kwargs)
    there.set(); go.wait()
    return result
os.{moment} = slow
thread = threading.Thread(target=log.warning, args=("first",)); thread.start()
there.wait()
os.{moment} = real
ready, tell = os.pipe()
child = os.fork()
if not child:
    os.write(tell, b".")
    signal.pause()
go.set(); thread.join(); os.read(ready, 1)
log.warning("second")
root = os.path.join(handler.config.stream_dir, "spool")
(name,) = os.listdir(root)
page = header.Header.open(os.path.join(root, name))
alive = not page.try_lock()
handler._end._header.close()
print(alive, page.try_lock(), flush=True)
os.kill(child, signal.SIGKILL); os.waitpid(child, 0)
os._exit(0)
""",
        env={"PYTHONWARNINGS": "ignore::DeprecationWarning"},  # of a fork with threads, since Python 3.12
    )
    assert (done.out, done.err) == ("True True\n", "")


def drawn_appends(rig: Rig, chance: random.Random, size: int, *, mixed: bool) -> None:
    for _ in range(chance.randrange(1, 150 if mixed else 60)):
        if mixed:
            rig.append(chance.choice([60, size]), chance.choice([DEBUG, INFO]))
        else:
            rig.append(chance.choice([100, size]))


def drawn_interrupt(rig: Rig, chance: random.Random, size: int) -> bool:
    """Ctrl-C somewhere; True when a record has come since."""
    what, step = chance.choice(["append", "close", "account"]), chance.randrange(0, 900)
    if what == "append":
        rig.interrupted_append(chance.choice([100, size]), step)
    else:
        interrupted(step, rig.close if what == "close" else lambda: (rig.end.account(True), None)[1])
    if chance.random() < 0.5:
        return False
    rig.append()
    return True


def drawn_operations(rig: Rig, chance: random.Random) -> None:
    """Do to a producer's spools what ``chance`` wants; the account is looked at in between."""
    size = chance.choice([300, 3000, 10_000])
    names = ["append", "mixed", "look", "write", "close", "lose", "restart", "retire", "stats", "ctrlc"]
    others: dict[str, Callable[[], None]] = {
        "write": rig.write,
        "close": rig.close,
        "lose": rig.lose_memory,
        "restart": rig.restart_shipper,
        "retire": lambda: rig.lose_lock(reuse=True),
    }
    for _ in range(chance.randrange(10, 60)):
        name = chance.choices(names, [6, 8, 5, 4, 1, 1, 1, 1, 2, 2])[0]
        if name in ("append", "mixed"):
            drawn_appends(rig, chance, size, mixed=name == "mixed")
        elif name == "look":
            rig.look()
            for _ in range(chance.randrange(1, 6)):
                rig.read(chance.choice([4000, 64_000, 200_000]))
        elif name in others:
            others[name]()
        elif name == "ctrlc" and not drawn_interrupt(rig, chance, size):
            continue
        if name != "mixed" or chance.random() < 0.7:
            rig.check_account()


@pytest.mark.parametrize("seed", [100497, 700122, *range(5)])
def test_the_account_is_true_whatever_happens(seed):
    # The first two: a record in doubt was given up although redis could still forget that it had it.
    chance = random.Random(seed)
    rig = Rig(on_full=chance.choice(["drop_new", "drop_old", "drop_old"]))
    try:
        drawn_operations(rig, chance)
        for _ in range(2):
            rig.append()
            rig.drain(dead=False)
        rig.check_account()
    finally:
        rig.remove()

"""Both ends of a spool: every returned append is read once and in order, or a notice names it."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import random
import shutil
import signal
import subprocess
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from redislogkit.errors import CorruptDataError
from redislogkit.spool import doorbell, header, segment
from redislogkit.spool.producer_end import ProducerEnd
from redislogkit.spool.shipper_end import ShipperEnd, spool_names, sweep_hidden
from tests.helpers.spools import (
    DEBUG,
    INFO,
    MIB,
    Rig,
    at_step,
    facts,
    interrupted,
    loss_in,
    segment_files,
    used_on_disk,
)


def causes(losses: dict[tuple[str, int], str]) -> Counter[str]:
    return Counter(losses.values())


# --- the ordinary way --------------------------------------------------------------------------------------


def test_what_was_appended_is_read_in_order_over_many_segments(rigs):
    rig = rigs(max_bytes=16 * MIB)
    for size in [150] * 3000 + [70_000, 10, 300_000, 4_000_000] + [500] * 3000:
        rig.append(max(size, 12))
    rig.look()
    assert len(segment_files(rig)) >= 5
    rig.drain()
    assert rig.check() == {}
    assert len(rig.arrived) == 6004
    assert os.listdir(rig.root) == []


def test_a_living_producers_records_are_read_while_it_goes_on(rig):
    for number in range(50):
        rig.append(5000)
        if number % 7 == 0:
            rig.look()
            rig.read(8192)
            rig.write()
    rig.drain(dead=False)
    assert len(rig.arrived) == 50
    assert used_on_disk(rig) <= 256 * 1024
    rig.drain()
    assert rig.check() == {}


def test_segments_are_kept_until_their_last_record_is_written_and_read_again_until_then(rig):
    for _ in range(100):
        rig.append(5000)
    rig.look()
    while rig.read():
        pass
    before = segment_files(rig)
    assert len(before) >= 3
    rig.lose_memory()
    assert rig.arrived == {}
    while rig.read():
        pass
    assert len(rig.arrived) == 100
    rig.write()
    assert len(segment_files(rig)) == 1
    rig.drain()
    assert rig.check() == {}


def test_rewinding_passes_no_segment_over_because_an_empty_one_lies_behind(rig):
    rig.append(100_000)
    rig.append(5000)
    directory = os.path.join(rig.root, spool_names(rig.root)[0])
    # A segment that an interrupted change has left without a record.
    end = rig.end
    mapped = segment.create(directory, 2, 3, segment.SMALLEST)
    segment.put_continues(end._map, end._position, 2)
    end._number, end._map, end._position = 2, mapped, segment.FIRST_FRAME
    end._bound.add(2, 3, len(mapped))
    rig.append(segment.SMALLEST)
    rig.look()
    while rig.read():
        pass
    spool = next(iter(rig.spools.values()))
    spool.rewind(1)
    assert [(run.first, run.last) for run in spool.read(MIB)] == [(2, 3)]


def test_what_comes_while_the_reader_looks_for_the_next_segment_is_not_passed_over(rig, monkeypatch):
    rig.append()
    rig.look()
    real = segment.continues
    moments: list[int] = []

    def continues(mapped: mmap.mmap, position: int) -> bool:
        if not moments:
            moments.append(position)
            rig.append(1000)
            rig.append(125_000)  # into the next segment
        return real(mapped, position)

    monkeypatch.setattr(segment, "continues", continues)
    while rig.read():
        pass
    assert moments
    rig.drain()
    assert rig.check() == {}
    assert len(rig.arrived) == 3


def test_a_spool_appears_complete_or_not_at_all(rig):
    assert spool_names(rig.root) == []
    rig.append()
    (name,) = spool_names(rig.root)
    assert sorted(os.listdir(os.path.join(rig.root, name))) == ["000001.seg", "header"]
    assert name == f"{rig.end.producer}-0"


def test_names_that_are_no_spools_are_passed_over(rig):
    for name in ("lost+found", "x-y", "-3", "b-10", "b-9", "a-0", ".a-1", "b-9999999999999999999999"):
        os.mkdir(os.path.join(rig.root, name))
    assert spool_names(rig.root) == ["a-0", "b-9", "b-10"]


def test_closing_leaves_the_spool_and_a_later_record_opens_the_next(rig):
    rig.append()
    rig.close()
    rig.close()
    rig.append()
    assert [name[-2:] for name in spool_names(rig.root)] == ["-0", "-1"]
    rig.drain()
    assert rig.check() == {}


def test_a_closed_spool_is_left_although_somebody_holds_its_lock(rig):
    rig.append()
    page = header.Header.open(os.path.join(rig.root, spool_names(rig.root)[0]))
    rig.close()
    assert page.try_lock()
    rig.look()
    assert next(iter(rig.spools.values())).owner_dead
    page.close()


def test_positions_flow_back(rig):
    rig.append()
    rig.look()
    spool = next(iter(rig.spools.values()))
    spool.set_shipped(1)
    assert (rig.end.position(False), rig.end.position(True)) == (1, 0)
    spool.set_written(1)
    assert rig.end.position(True) == 1
    rig.close()
    assert rig.end.position(True) == 1


# --- the doorbell ------------------------------------------------------------------------------------------


def test_a_sleeping_shipper_is_rung_and_one_that_is_awake_is_not(rig):
    bell = doorbell.Doorbell(rig.settings.doorbell)
    rig.append()
    assert bell.wait(0)
    rig.look()
    spool = next(iter(rig.spools.values()))
    spool.set_sleeping(False)
    rig.append()
    assert not bell.wait(0)
    spool.set_sleeping(True)
    rig.append()
    assert bell.wait(0)
    assert not bell.wait(0)
    bell.close()
    assert not doorbell.ring(rig.settings.doorbell)


def test_nobody_at_the_doorbell_is_told_at_most_once_in_a_while(rig):
    calls: list[int] = []
    rig.end._on_nobody = lambda: calls.append(1)
    for _ in range(1000):
        rig.append()
    assert len(calls) == 1
    assert rig.end.nudge() is False


def test_a_full_doorbell_blocks_nobody(rig):
    bell = doorbell.Doorbell(rig.settings.doorbell)
    for _ in range(70_000):
        assert doorbell.ring(rig.settings.doorbell)
    assert bell.wait(0)
    bell.close()


# --- the bound ---------------------------------------------------------------------------------------------


def test_drop_new_keeps_what_is_there_and_names_what_did_not_fit(rig):
    for _ in range(300):
        rig.append(10_000)
    assert used_on_disk(rig) <= MIB
    assert rig.end.used_bytes() <= MIB
    lost = rig.end.lost[header.CAUSES.index("spool_full")]
    assert 180 < lost < 220
    rig.drain(dead=False)
    rig.append(10_000)
    rig.append(10_000)
    rig.drain(dead=False)
    losses = rig.check()
    assert causes(losses) == {"spool_full": lost}
    first_missing = min(sequence for _, sequence in losses)
    order = [sequence for _, sequence in rig.arrived]
    assert order[: first_missing - 1] == list(range(1, first_missing))
    assert rig.end.sequence == 302


def test_a_full_spool_still_says_at_the_close_what_is_missing(rig):
    for number in range(300):
        rig.append(10_000, DEBUG if number % 2 else INFO)
    rig.close()
    assert used_on_disk(rig) <= MIB
    rig.drain(dead=False)
    losses = rig.check()
    assert causes(losses) == {
        "spool_full": rig.end.lost[0],
        "shed": rig.end.lost[1],
    }
    assert len(losses) + sum(loss_in(p) is None for p in rig.arrived.values()) == 300


def test_a_full_spool_of_a_killed_producer_says_so_too(rig):
    for _ in range(300):
        rig.append(10_000)
    rig.drain()
    losses = rig.check()
    assert set(losses.values()) == {"spool_full"}
    assert len(losses) + sum(loss_in(p) is None for p in rig.arrived.values()) == 300


def test_drop_old_gives_up_the_oldest_and_exactly_what_was_not_read_is_named(rigs):
    rig = rigs(on_full="drop_old")
    for _ in range(20):
        rig.append(10_000)
    rig.look()
    rig.read(50_000)
    for _ in range(300):
        rig.append(10_000)
    assert used_on_disk(rig) <= MIB
    assert rig.end.lost == [0, 0, 0, 0, 0]
    rig.drain(dead=False)
    losses = rig.check()
    assert rig.end.lost[header.CAUSES.index("drop_old")] == len(losses)
    assert 200 < len(losses) < 300
    assert set(losses.values()) == {"drop_old"}
    assert (rig.end.producer, 320) in rig.arrived


def test_what_drop_old_gave_up_is_named_once_however_often_it_is_read(rigs):
    rig = rigs(on_full="drop_old")
    for _ in range(200):
        rig.append(10_000)
    rig.look()
    while rig.read():
        pass
    counted = list(rig.end.lost)
    rig.lose_memory()
    while rig.read():
        pass
    rig.restart_shipper()
    while rig.read():
        pass
    assert rig.end.lost == counted
    assert rig.end.lost[header.CAUSES.index("drop_old")] == len(rig.losses())
    rig.drain()
    rig.check()


def test_after_a_loss_of_memory_what_drop_old_gave_up_meanwhile_is_named(rigs):
    rig = rigs(on_full="drop_old")
    for _ in range(50):
        rig.append(10_000)
    rig.look()
    while rig.read():
        pass  # in the stream, not written yet
    for _ in range(200):
        rig.append(10_000)
    rig.lose_memory()
    rig.drain()
    losses = rig.check()
    assert (rig.returned.keys() - losses.keys()) and set(losses.values()) == {"drop_old"}
    assert min(sequence for _, sequence in losses) == 1


def test_block_waits_for_room_and_loses_nothing_when_it_comes(rigs):
    rig = rigs(on_full="block", block_timeout=20.0)
    for _ in range(70):
        rig.append(10_000)
    rig.look()
    stop = threading.Event()

    def ship() -> None:
        while not stop.wait(0.001):
            rig.look()
            rig.read()
            rig.write()

    shipper = threading.Thread(target=ship)
    shipper.start()
    try:
        for _ in range(200):
            rig.append(10_000)
    finally:
        stop.set()
        shipper.join()
    rig.drain()
    assert rig.check() == {}


def test_block_ends_after_its_time_and_costs_that_time_once(rigs):
    rig = rigs(on_full="block", block_timeout=0.05)
    begin = time.monotonic()
    for _ in range(200):
        rig.append(10_000)
    assert 0.05 <= time.monotonic() - begin < 1.0
    assert rig.end.lost[0] > 80
    rig.drain()
    assert set(rig.check().values()) == {"spool_full"}


def test_low_levels_are_shed_before_the_spool_is_full(rig):
    for _ in range(60):
        rig.append(10_000, DEBUG)
        rig.append(10_000, INFO)
    shed, full = rig.end.lost[1], rig.end.lost[0]
    assert shed > 5
    levels = Counter(cause for cause in rig.losses().values())
    assert levels == {}
    rig.drain(dead=False)
    rig.append(100, DEBUG)
    assert rig.end.lost[1] == shed
    rig.drain()
    assert causes(rig.check()) == {"shed": shed, "spool_full": full}


def test_a_record_larger_than_its_segment_gets_a_segment_of_its_size(rig):
    rig.append(rig.settings.max_payload)
    rig.append(100)
    rig.drain()
    assert rig.check() == {}
    assert max(map(len, rig.arrived.values())) == rig.settings.max_payload


# --- the disk ----------------------------------------------------------------------------------------------


def test_a_disk_that_refuses_costs_records_that_are_counted_and_named(rig, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    real = os.posix_fallocate
    full = [True]

    def fallocate(fd: int, start: int, size: int) -> None:
        if full[0]:
            raise OSError(errno.ENOSPC, "no space")
        real(fd, start, size)

    monkeypatch.setattr(os, "posix_fallocate", fallocate)
    for _ in range(5):
        rig.append()
    assert os.listdir(rig.root) == []
    full[0] = False
    rig.append()  # too soon to try again
    now[0] += 2
    for _ in range(12):
        rig.append(10_000)
    full[0] = True
    rig.append(60_000)
    full[0] = False
    now[0] += 2
    rig.append()
    assert rig.end.lost[header.CAUSES.index("spool_error")] == 7
    rig.drain()
    assert causes(rig.check()) == {"spool_error": 7}


def test_notices_that_a_failing_disk_held_up_are_not_forgotten(rig, monkeypatch):
    for _ in range(300):
        rig.append(10_000)
    rig.drain(dead=False)
    create = segment.create

    def refuse(*_: object) -> mmap.mmap:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(segment, "create", refuse)
    rig.append(10_000)
    monkeypatch.setattr(segment, "create", create)
    rig.end._next_segment_try = 0.0
    rig.append(10_000)
    rig.drain()
    losses = rig.check()
    assert set(losses.values()) == {"spool_full", "spool_error"}


def test_a_removed_spool_is_opened_anew(rig):
    for _ in range(10):
        rig.append(10_000)
    shutil.rmtree(rig.root)
    rig.returned.clear()
    rig.end.sequence = 0
    for _ in range(20):
        rig.append(10_000)
    names = spool_names(rig.root)
    assert [name[-2:] for name in names] == ["-1"]


@pytest.mark.root
def test_a_full_file_system_kills_nobody_and_is_left_behind(rigs, tmp_path):
    mount = tmp_path / "small"
    mount.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(mount)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("a small file system can not be mounted here")
    rig = rigs(max_bytes=64 * MIB)
    try:
        os.rmdir(rig.root)
        rig.root = str(mount / "spool")
        rig.settings = rig.settings._replace(root=rig.root, doorbell=str(mount / "bell"))
        os.mkdir(rig.root)
        rig.start()
        for _ in range(500):
            rig.append(5000)
        lost = rig.end.lost[header.CAUSES.index("spool_error")]
        assert 300 < lost < 500
        rig.drain(dead=False)
        rig.end._next_segment_try = 0.0
        for _ in range(50):
            rig.append(5000)
        assert rig.end.lost[header.CAUSES.index("spool_error")] == lost
        rig.drain()
        assert causes(rig.check()) == {"spool_error": lost}
        # And full from the start.
        with open(mount / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(bytes(4096)):
                pass
        rig.append(5000)
        assert rig.end.lost[header.CAUSES.index("spool_error")] == 1
        assert spool_names(rig.root) == []
    finally:
        rig.remove()
        subprocess.run(["umount", "-l", str(mount)], check=False)


# --- damage ------------------------------------------------------------------------------------------------


def test_damage_costs_the_damaged_record_and_the_bytes_are_kept(rig):
    for _ in range(100):
        rig.append(5000)
    with open(segment_files(rig)[1], "r+b") as file:
        file.seek(30_000)
        file.write(b"\xff\xff\xff")
    rig.drain()
    losses = rig.check()
    assert list(losses.values()) == ["damaged"]
    assert any("damaged at byte" in line for line in rig.reports)
    (kept,) = os.listdir(os.path.join(rig.folder, "damaged"))
    assert kept.endswith("-0-000002.seg")


@pytest.mark.parametrize("size", [0, 10, 63, 64, 70, 5000, 60_000])
def test_a_cut_segment_costs_its_tail_and_stops_nobody(rig, size):
    for _ in range(100):
        rig.append(5000)
    os.truncate(segment_files(rig)[1], size)
    rig.drain()
    losses = rig.check()
    assert set(losses.values()) == {"damaged"}
    assert 10 < len(losses) < 100


def test_a_lost_last_segment_is_noticed(rig):
    for _ in range(100):
        rig.append(5000)
    rig.close()
    os.unlink(segment_files(rig)[-1])
    rig.drain()
    assert set(rig.check().values()) == {"damaged"}


def test_pages_of_zeros_in_a_dead_producers_segment_are_damage_not_its_end(rig):
    for _ in range(20):
        rig.append(5000)
    with open(segment_files(rig)[0], "r+b") as file:
        file.seek(20_480)
        file.write(bytes(8192))
    rig.drain()
    losses = rig.check()
    assert set(losses.values()) == {"damaged"}
    assert 2 <= len(losses) <= 3


def test_damage_in_a_living_producers_segment_waits_until_it_has_gone_on(rig):
    for _ in range(5):
        rig.append(5000)
    (path,) = segment_files(rig)
    with open(path, "r+b") as file:
        file.seek(segment.FIRST_FRAME + 2 * 5016 + 100)
        file.write(b"\xff")
    rig.look()
    assert rig.read() == 2
    assert rig.read() == 0
    for _ in range(50):
        rig.append(5000)
    rig.read()
    rig.read()
    rig.drain(dead=False)
    assert list(rig.check().values()) == ["damaged"]


def test_the_record_that_was_being_stored_at_death_is_reported_and_nothing_else_is_lost(rig):
    rig.append()
    end = rig.end
    end._map[end._position + 16 : end._position + 40] = b"half a record, no head.."
    rig.drain()
    assert rig.check() == {}
    assert [line for line in rig.reports if "its logging call had not returned" in line]


def test_a_damaged_header_is_refused_and_left_alone(rig):
    rig.append()
    directory = os.path.join(rig.root, spool_names(rig.root)[0])
    with open(os.path.join(directory, "header"), "r+b") as file:
        file.write(b"garbage!")
    with pytest.raises(CorruptDataError):
        ShipperEnd(directory, rig.reports.append)


def test_a_hostile_count_in_the_header_makes_no_sequence_that_nobody_can_store(rig):
    rig.append()
    rig.end._words[header.EMITTED] = 2**64 - 1
    rig.drain()
    assert len(rig.arrived) == 1


# --- deaths ------------------------------------------------------------------------------------------------


def test_spools_that_were_never_finished_are_swept_once_their_maker_is_dead(rig):
    living = os.path.join(rig.root, ".living-0")
    dead = os.path.join(rig.root, ".dead-0")
    blank, old = os.path.join(rig.root, ".blank-0"), os.path.join(rig.root, ".old-0")
    for path in (living, dead, blank, old):
        os.mkdir(path)
    page = header.Header.create(living, facts("living"))
    header.Header.create(dead, facts("dead")).close()
    os.utime(old, (1, 1))
    sweep_hidden(rig.root)
    assert sorted(os.listdir(rig.root)) == [".blank-0", ".living-0"]
    page.close()


def test_a_spool_half_removed_by_a_dying_shipper_is_swept_and_not_read(rig):
    rig.append()
    rig.die()
    (name,) = spool_names(rig.root)
    os.rename(os.path.join(rig.root, name), os.path.join(rig.root, "." + name))
    os.unlink(os.path.join(rig.root, "." + name, "000001.seg"))
    rig.look()
    assert os.listdir(rig.root) == []


@pytest.mark.parametrize("reuse", [False, True])
def test_a_producer_without_its_lock_logs_on_in_another_spool_and_nothing_is_doubled(rig, reuse):
    for _ in range(30):
        rig.append()
        rig.look()
        rig.read()
        rig.append()
        rig.lose_lock(reuse=reuse)
        rig.append()
        rig.look()
        rig.append()
        rig.append()
        rig.write()
    rig.drain(dead=False)
    rig.drain()
    assert rig.check() == {}
    assert len(rig.arrived) == 150


def test_losses_that_the_shipper_has_told_of_a_retired_spool_are_not_told_again(rig):
    for _ in range(120):
        rig.append(10_000)
    rig.lose_lock(reuse=False)
    rig.look()
    while rig.read():
        pass
    for _ in range(3):
        rig.append(10_000)
    lost = list(rig.end.lost)
    rig.drain(dead=False)
    rig.drain()
    assert causes(rig.check()) == {"spool_full": lost[0]}


def test_a_retired_producer_without_disk_keeps_the_record_in_doubt(rig, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    rig.append()
    rig.lose_lock(reuse=False)
    rig.look()
    assert rig.read() == 1
    rig.write()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refuse)
        # The shipper has read on, and removed the spool: nobody will find this record there.
        rig.append()
        rig.append()
    rig.look()
    rig.read()
    rig.write()
    now[0] += 2
    rig.append()
    rig.drain()
    losses = rig.check()
    assert list(losses) == [(next(iter(rig.last)), 3)]


def test_a_double_closed_descriptor_ends_the_spool_though_its_lock_is_held(rig):
    rig.append(1000)
    page = rig.end._header
    assert page is not None
    with open(os.devnull, "rb") as stranger:
        os.dup2(stranger.fileno(), page.fd)  # the map's own descriptor still carries the lock
    for _ in range(200):
        rig.append(1000)
    rig.drain(dead=False)
    assert len(rig.arrived) == 201
    rig.drain()
    assert rig.check() == {}


def test_closed_descriptors_that_became_strangers_files_are_never_closed(rig, tmp_path):
    rig.append(1000)
    page = rig.end._header
    assert page is not None
    with open(tmp_path / "stranger", "w", encoding="ascii") as stranger:
        os.dup2(stranger.fileno(), page.fd)
        for _ in range(200):
            rig.append(1000)
        rig.close()
        os.fstat(page.fd)
        assert os.path.samestat(os.fstat(page.fd), os.fstat(stranger.fileno()))


def fork(child: Callable[[], None]) -> int:
    """Run ``child`` in a forked process; return its pid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a thread of pytest's is there; the child only appends
        pid = os.fork()
    if not pid:
        try:
            child()
        finally:
            os._exit(0)
    return pid


def killed_at(step: int, returned: mmap.mmap, end: ProducerEnd, sizes: list[int]) -> int:
    """In a forked child append payloads of ``sizes``; SIGKILL before the ``step``-th line. Returns its status."""

    def child() -> None:
        with at_step(step, lambda: os.kill(os.getpid(), signal.SIGKILL), lines=True):
            for number, size in enumerate(sizes):
                end.append((b"r%08d " % number).ljust(size, b"x"), INFO)
                returned[0] = number + 1

    _, status = os.waitpid(fork(child), 0)
    return status


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize(
    ("sizes", "every"),
    [([200, 200], 3), ([60_000, 60_000, 60_000, 200], 5)],
    ids=["opening", "leaving a segment"],
)
def test_killed_at_any_line_every_returned_append_is_there(rig, sizes, every):
    returned = mmap.mmap(-1, 1)
    killed = 0
    for step in range(0, 100_000, every):
        returned[0] = 0
        status = killed_at(step, returned, rig.start(), sizes)
        killed += os.WIFSIGNALED(status)
        rig.arrived.clear()
        for _ in range(50):
            rig.look()
            rig.read(MIB)
            rig.write()
        assert spool_names(rig.root) == []
        numbers = [int(payload[1:9]) for payload in rig.arrived.values()]
        assert numbers in (list(range(returned[0])), list(range(returned[0] + 1)))
        if not os.WIFSIGNALED(status):
            break
    assert killed > 20
    sweep_hidden(rig.root)


# --- interruptions -----------------------------------------------------------------------------------------


def opened(rig: Rig) -> None:
    rig.append()


def almost_full_segment(rig: Rig) -> None:
    rig.append(110_000)


def with_losses(rig: Rig) -> None:
    for _ in range(120):
        rig.append(10_000)
    rig.append(10_000, DEBUG)
    rig.look()
    while rig.read():
        pass
    rig.write()
    rig.look()


def losing(rig: Rig) -> None:
    for _ in range(120):
        rig.append(10_000)


def retired(rig: Rig) -> None:
    rig.append()
    rig.lose_lock(reuse=False)
    rig.look()
    rig.read()


def without_descriptor(rig: Rig) -> None:
    rig.append(110_000)
    rig.lose_lock(reuse=True)
    rig.look()
    rig.read()


SITUATIONS: dict[str, tuple[Callable[[Rig], None], int, str]] = {
    "first record": (lambda rig: None, 200, "drop_new"),
    "ordinary record": (opened, 200, "drop_new"),
    "change of segment": (almost_full_segment, 20_000, "drop_new"),
    "record behind losses": (with_losses, 10_000, "drop_new"),
    "record that is dropped": (losing, 10_000, "drop_new"),
    "oldest segment given up": (losing, 10_000, "drop_old"),
    "retired spool": (retired, 200, "drop_new"),
    "closed descriptor": (without_descriptor, 20_000, "drop_new"),
}


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("situation", SITUATIONS)
def test_an_exception_between_any_two_instructions_loses_and_doubles_nothing(rigs, situation):
    prepare, size, on_full = SITUATIONS[situation]
    # The whole way is long where files are made: each run takes others of its steps.
    stride = 1 if situation == "ordinary record" else 12
    step = random.randrange(stride)
    print("from step", step)
    while True:
        rig = rigs(on_full=on_full)
        prepare(rig)
        more = rig.interrupted_append(size, step)
        rig.append(500)
        rig.append(size)
        rig.look()
        while rig.read():
            pass
        rig.append(300)
        rig.drain()
        rig.check()
        assert rig.end.sequence == 0
        rig.remove()
        if not more:
            break
        step += stride
    assert step > 30


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_signal_handler_that_logs_between_any_two_instructions_loses_nothing(rigs, situation):
    prepare, size, on_full = SITUATIONS[situation]
    step = random.randrange(14)
    print("from step", step)
    while True:
        rig = rigs(on_full=on_full)
        prepare(rig)
        called: list[bytes] = []

        def handler(rig: Rig = rig, called: list[bytes] = called) -> None:
            called.append(rig.payload(120))
            rig.end.append(called[0], INFO)

        outer = rig.payload(size)
        with at_step(step, handler):
            rig.end.append(outer, INFO)
        rig.append(300)
        rig.drain()
        losses = rig.losses()
        come = Counter(payload for payload in rig.arrived.values() if loss_in(payload) is None)
        for payload in [outer, *called]:
            come[payload] += 0
            assert come[payload] == 1 or (come[payload] == 0 and losses)
        rig.interrupted |= {outer, *called}
        rig.check()
        rig.remove()
        if not called:
            break
        step += 14
    assert step > 30


@pytest.mark.usefixtures("untraced")
def test_an_exception_between_any_two_instructions_of_the_close_keeps_everything(rigs):
    step = 0
    while True:
        rig = rigs()
        with_losses(rig)
        for _ in range(3):
            rig.append(10_000)
        rig.end._losses.append((0, rig.end.sequence + 1, rig.end.sequence + 2))
        rig.end.sequence += 2
        more = interrupted(step, rig.close)
        rig.close()
        rig.append()
        rig.drain()
        rig.check()
        rig.remove()
        if not more:
            break
        step += 7


def test_what_an_interrupted_append_has_left_is_no_frame_to_anybody(rig):
    rig.append()
    payload = rig.payload(5000)
    end = rig.end
    end._map[end._position + 16 : end._position + 16 + 5000] = payload
    end._settle(payload)
    rig.append(20)
    rig.look()
    rig.read()
    assert not next(iter(rig.spools.values())).has_news()


# --- other processes ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("uncovered")
def test_a_child_forked_while_another_thread_appends_harms_neither(run_python):
    finished = run_python(
        """
        import os, threading, warnings
        warnings.simplefilter("ignore")
        from tests.helpers.spools import Rig, INFO, loss_in
        from redislogkit.spool.producer_end import ProducerEnd

        rig = Rig(max_bytes=64 * 1024 * 1024)
        lock, stop, counts = threading.RLock(), threading.Event(), []

        def log():
            while not stop.is_set():
                with lock:
                    rig.append(300)

        thread = threading.Thread(target=log)
        thread.start()
        for number in range(20):
            pid = os.fork()
            if not pid:
                rig.end.forget()
                own = rig.start()
                for record in range(50):
                    own.append(b"r%08d child %d" % (record, number), INFO)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        stop.set()
        thread.join()
        producer = rig.end.producer
        rig.drain()
        mine = {key: value for key, value in rig.arrived.items() if key[0] == producer}
        assert mine == rig.returned, (len(mine), len(rig.returned))
        others = [value for key, value in rig.arrived.items() if key[0] != producer]
        assert len(others) == len(set(others)) == 20 * 50
        assert os.listdir(rig.root) == []
        rig.remove()
        """
    )
    assert finished.err == ""


def test_a_thousand_records_are_logged_without_a_system_call(scripts, tmp_path):
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    source = f"""
        import logging, os, subprocess
        from redislogkit import SpoolHandler
        from redislogkit.spool import header

        config = {{"state_dir": {str(tmp_path / "state")!r}, "redis": {{"url": "redis://127.0.0.1:1"}},
                  "supervisor": {{"autostart": False}}}}
        logger = logging.getLogger("app")
        logger.propagate = False
        logger.setLevel(1)
        handler = SpoolHandler(config)
        logger.addHandler(handler)
        logger.info("the first record opens the spool")
        handler._end._words[header.MARK] = 0  # a shipper that is awake
        handler._looked_at, handler._look_at = 0.0, 1e12  # and was there a moment ago
        tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", {str(tmp_path / "trace")!r}, "-p", str(os.getpid())])
        while not os.path.exists({str(tmp_path / "trace")!r}) or not os.path.getsize({str(tmp_path / "trace")!r}):
            os.access("/rlk-waiting", os.F_OK)
            if tracer.poll() is not None:
                raise SystemExit("no tracing here")
        os.access("/rlk-begin", os.F_OK)
        for number in range(1000):
            logger.info("request %d took %s ms", number, 1.5, extra={{"request_id": "r1"}})
        os.access("/rlk-end", os.F_OK)
        tracer.terminate()
        tracer.wait()
        """
    finished = scripts.run(source, check=False)
    if "no tracing here" in finished.err:
        pytest.skip("strace may not trace here")
    assert finished.code == 0, finished.err
    trace = (tmp_path / "trace").read_text()
    between = trace.partition("/rlk-begin")[2].partition("/rlk-end")[0].splitlines()[1:-1]
    # Memory is asked for now and then, and logging itself asks for the pid, once for each record.
    ordinary = (" brk(", " mmap(", " munmap(", " futex(", " getpid(")
    calls = [line for line in between if not any(name in line for name in ordinary)]
    # A change of the segment, once in hundreds of records, takes eight.
    assert len(calls) <= 16, "\n".join(calls[:20])


# --- all of it, at random ----------------------------------------------------------------------------------


class SpoolMachine(RuleBasedStateMachine):
    """Producers, a shipper and writers of one host, in any order of events."""

    def __init__(self) -> None:
        super().__init__()
        self.rig: Rig | None = None

    @initialize(on_full=st.sampled_from(["drop_new", "drop_old", "block"]))
    def begin(self, on_full: str) -> None:
        self.rig = Rig(on_full=on_full, block_timeout=0.001)

    @property
    def it(self) -> Rig:
        assert self.rig is not None
        return self.rig

    @rule(
        count=st.integers(1, 5),
        size=st.sampled_from([12, 150, 5000, 40_000]),
        level=st.sampled_from([10, 20]),
    )
    def append(self, count: int, size: int, level: int) -> None:
        for _ in range(count):
            self.it.append(size, level)

    @rule(count=st.integers(5, 30))
    def append_much(self, count: int) -> None:
        for _ in range(count):
            self.it.append(60_000)

    @rule(count=st.integers(5, 60), size=st.sampled_from([150, 10_000]))
    def append_of_both_levels(self, count: int, size: int) -> None:
        for number in range(count):
            self.it.append(size, DEBUG if number % 3 else INFO)

    @rule(size=st.sampled_from([150, 60_000]), step=st.integers(0, 400))
    def append_interrupted(self, size: int, step: int) -> None:
        self.it.interrupted_append(size, step)

    @rule(size=st.sampled_from([150, 60_000]), step=st.integers(0, 400))
    def append_from_a_signal_handler(self, size: int, step: int) -> None:
        rig = self.it
        outer, inner = rig.payload(size), rig.payload(150)
        rig.interrupted |= {outer, inner}  # their sequences depend on the moment
        with at_step(step, lambda: rig.end.append(inner, INFO)):
            rig.end.append(outer, INFO)

    @rule()
    def die(self) -> None:
        self.it.die()

    @rule()
    def close(self) -> None:
        self.it.close()

    @rule(reuse=st.booleans())
    def lose_lock(self, reuse: bool) -> None:
        self.it.lose_lock(reuse=reuse)

    @rule(step=st.integers(0, 3))
    def lose_lock_and_be_retired(self, step: int) -> None:
        self.it.lose_lock(reuse=False)
        self.it.look()
        for _ in range(step):
            self.it.read(1000)

    @rule()
    def look(self) -> None:
        self.it.look()

    @rule(max_bytes=st.sampled_from([1, 1000, 64 * 1024, MIB]))
    def read(self, max_bytes: int) -> None:
        self.it.read(max_bytes)

    @rule()
    def write(self) -> None:
        self.it.write()

    @rule()
    def lose_memory(self) -> None:
        self.it.lose_memory()

    @rule()
    def restart_shipper(self) -> None:
        self.it.restart_shipper()

    @precondition(lambda self: self.rig is not None)
    @invariant()
    def stays_within_its_bound(self) -> None:
        assert self.it.end.used_bytes() <= MIB

    @precondition(lambda self: self.rig is not None)
    @invariant()
    def names_only_what_is_missing(self) -> None:
        assert not self.it.losses().keys() & {
            key for key, payload in self.it.arrived.items() if loss_in(payload) is None
        }

    @precondition(lambda self: self.rig is not None)
    @invariant()
    def knows_what_has_become_of_each_record(self) -> None:
        self.it.check_account()

    def teardown(self) -> None:
        if self.rig is not None:
            try:
                self.rig.drain(dead=False)
                self.rig.check_account()
                self.rig.drain()
                self.rig.check()
            finally:
                self.rig.remove()


TestSpoolAtRandom = SpoolMachine.TestCase
TestSpoolAtRandom.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)

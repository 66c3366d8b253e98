"""A lock lasts as long as its owner, and says who that is."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest

from redislogkit import identity, locking
from redislogkit.errors import LockHeldError
from tests.helpers.processes import is_running
from tests.helpers.waiting import wait_until


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / ".app.log.lock")


def test_a_second_owner_is_refused_and_told_who_the_first_is_and_what_to_do(path):
    with locking.OwnedLock(path, "log file app.log"), pytest.raises(LockHeldError) as caught:
        locking.OwnedLock(path, "log file app.log").acquire()
    message = str(caught.value)
    assert message.startswith(
        f"log file app.log is in use by process {os.getpid()} on {os.uname().nodename} ("
    )
    assert message.endswith(f"stop that process or choose another place (lock: {path})")


def test_the_lock_is_free_again_after_the_release(path):
    with locking.OwnedLock(path, "x"):
        pass
    with locking.OwnedLock(path, "x"):
        pass


def test_releasing_what_is_not_held_is_harmless(path):
    locking.OwnedLock(path, "x").release()
    assert not os.path.exists(path)


@pytest.mark.usefixtures("untraced")
def test_the_lock_waits_for_an_owner_that_is_about_to_end(path):
    ready, tell = os.pipe()
    owner = os.fork()
    if not owner:
        try:
            held = locking.OwnedLock(path, "x")
            held.acquire()
            os.write(tell, b".")
            time.sleep(0.05)
        finally:
            os._exit(0)
    os.read(ready, 1)
    with pytest.raises(LockHeldError):
        locking.OwnedLock(path, "x").acquire()
    lock = locking.OwnedLock(path, "x")
    lock.acquire(timeout=10)
    lock.release()
    os.waitpid(owner, 0)
    os.close(ready)
    os.close(tell)


def _hold_in_child(path: str, *, abandon: bool) -> int:
    """A child takes the lock, forks a grandchild that lives on, and is killed. Return the grandchild's pid."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            lock = locking.OwnedLock(path, "x")
            lock.acquire()
            grandchild = os.fork()
            if not grandchild:
                if abandon:
                    lock.abandon()
                os.write(write, b"%d\n" % os.getpid())
                signal.pause()
            signal.pause()
        finally:
            os._exit(1)
    pid = int(os.read(read, 100))
    os.close(read)
    os.close(write)
    with pytest.raises(LockHeldError, match=f"process {child} "):
        locking.OwnedLock(path, "x").acquire()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return pid


@pytest.mark.usefixtures("untraced")
def test_a_forked_child_that_abandons_the_lock_does_not_keep_it_alive(path):
    grandchild = _hold_in_child(path, abandon=True)
    try:
        assert is_running(grandchild)
        with locking.OwnedLock(path, "x"):
            pass
    finally:
        os.kill(grandchild, signal.SIGKILL)
        wait_until(lambda: not is_running(grandchild))


@pytest.mark.usefixtures("untraced")
def test_abandoning_closes_what_an_older_filelock_leaves_open_after_a_fork(path):
    lock = locking.OwnedLock(path, "x")
    lock.acquire()
    context: Any = lock._lock._context
    fd = context.lock_file_fd
    assert fd is not None
    pid = os.fork()
    if not pid:
        code = 1
        try:
            copy = os.open(path, os.O_RDWR)
            context.lock_file_fd = copy  # as it is there without the hook that newer releases have
            lock.abandon()
            try:
                os.fstat(copy)
            except OSError:
                code = 0 if context.lock_file_fd is None else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    with pytest.raises(LockHeldError):
        locking.OwnedLock(path, "x").acquire()
    lock.release()


def test_the_owner_in_the_file_can_be_told_from_a_later_process_with_its_pid(path):
    with locking.OwnedLock(path, "x"):
        owner = locking.read_owner(path)
    assert owner["pid"] == os.getpid()
    assert owner["start"] == identity.process_start(os.getpid())
    assert owner["boot_id"] == identity.boot_id()


@pytest.mark.parametrize("content", ["", "{", "[]", "17", "\0\0"])
def test_an_unreadable_owner_is_another_process(path, content):
    with open(path, "w") as file:
        file.write(content)
    assert locking.describe(locking.read_owner(path)) == "another process"


def test_an_owner_that_can_not_be_noted_holds_the_lock_all_the_same(path, monkeypatch):
    def refuse(*_args: object, **_options: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(json, "dump", refuse)
    with locking.OwnedLock(path, "x"), pytest.raises(LockHeldError, match="another process"):
        locking.OwnedLock(path, "x").acquire()


def test_only_the_user_can_read_the_lock_file(path):
    with locking.OwnedLock(path, "x"):
        assert os.stat(path).st_mode & 0o777 == 0o600


def test_the_lock_of_a_log_file_lies_hidden_beside_it():
    assert locking.beside("/var/log/app.log") == "/var/log/.app.log.lock"


def test_a_lock_whose_file_was_removed_or_replaced_is_lost(tmp_path):
    lock = locking.OwnedLock(str(tmp_path / "lock"), "it")
    assert lock.is_lost()
    with lock:
        assert not lock.is_lost()
        (tmp_path / "lock").rename(tmp_path / "elsewhere")
        assert lock.is_lost()
        (tmp_path / "lock").touch()
        assert lock.is_lost()

"""What systemd is told, over a real datagram socket."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator

import pytest

from redislogkit.supervisor.notify import Notifier

Heard = Callable[[], list[str]]


@pytest.fixture(params=["path", "abstract"])
def told(request, tmp_path) -> Iterator[tuple[str, Heard]]:
    """The value of ``$NOTIFY_SOCKET``, and what has come there since it was asked last."""
    name = f"@rlk-{os.getpid()}-{tmp_path.name}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0", 1))
        receiver.setblocking(False)

        def heard() -> list[str]:
            found = []
            try:
                while True:
                    found.append(receiver.recv(4096).decode())
            except BlockingIOError:
                return found

        yield name, heard


@pytest.fixture
def notifier() -> Iterator[Callable[[dict[str, str]], Notifier]]:
    """Makes notifiers."""
    made: list[Notifier] = []

    def make(environ: dict[str, str]) -> Notifier:
        made.append(Notifier(environ))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_each_step_is_told_once(told, notifier):
    name, heard = told
    environ = {"NOTIFY_SOCKET": name, "PATH": "/bin"}
    hears = notifier(environ)
    assert environ == {"PATH": "/bin"}  # the embedded server is not who is waited for
    for _ in range(2):
        hears.status("starting")
        hears.ready()
    assert heard() == ["STATUS=starting", "READY=1"]
    hears.reloading()
    hears.ready()
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+,READY=1", ",".join(heard()))
    for _ in range(2):
        hears.stopping()
        hears.ready()
    assert heard() == ["STOPPING=1"]
    hears.close()
    hears.stopping()
    hears.status("more")
    assert heard() == []


def test_the_watchdog_is_satisfied_twice_in_a_period(told, notifier, monkeypatch):
    name, heard = told
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    hears = notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())})
    assert hears.sign_of_life() == 1.5
    now += 1.0
    assert hears.sign_of_life() == 0.5
    assert heard() == ["WATCHDOG=1"]
    now += 0.5
    assert hears.sign_of_life() == 1.5
    assert heard() == ["WATCHDOG=1"]


@pytest.mark.parametrize("more", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}])
def test_a_watchdog_of_another_process_or_none_is_left_alone(told, notifier, more):
    name, heard = told
    hears = notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000", **more})
    assert hears.sign_of_life() == float("inf")
    assert heard() == []


def test_without_systemd_nothing_is_told_and_nothing_fails(notifier):
    for environ in ({}, {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "1000000"}):
        hears = notifier(dict(environ))
        hears.ready()
        hears.status("x")
        hears.sign_of_life()
        hears.stopping()


def test_a_service_manager_that_is_slow_holds_nobody_up_and_misses_no_step(told, notifier):
    name, heard = told
    hears = notifier({"NOTIFY_SOCKET": name})
    for number in range(2000):  # more than the socket keeps
        hears.status(str(number))
    hears.ready()
    hears.stopping()
    hears.status("last")
    assert "READY=1" not in heard()
    hears.sign_of_life()
    hears.status("last")
    assert heard() == ["READY=1", "STOPPING=1", "STATUS=last"]

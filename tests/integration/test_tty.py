"""Each record is on the terminal of its producer and on no other; a terminal that does not move costs only itself."""

from __future__ import annotations

import errno
import os
import pty
import stat
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyte
import pytest

from redislogkit import identity
from redislogkit.config import FormatterConfig, TtyWriterConfig
from redislogkit.lines import Numbered
from redislogkit.record import Facts, Loss, Record, build
from redislogkit.writers import tty
from redislogkit.writers.base import Destination
from redislogkit.writers.checkpoint import Checkpoint
from redislogkit.writers.reading import Reading
from redislogkit.writers.tty import TtyDestination, refusal, wants_colour
from tests.helpers.scripts import Finished
from tests.helpers.waiting import wait_until

PLAIN = FormatterConfig(format="%(levelname)s %(message)s")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Screen:
    """A pseudo terminal; what the writer does reaches it as it reaches a user."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        os.set_blocking(self.master, False)
        self.path = os.ttyname(self.slave)
        self._reader: threading.Thread | None = None
        self._seen = bytearray()

    def facts(self, **changes: Any) -> Facts:
        """The facts of a producer on this terminal."""
        values: dict[str, Any] = {
            "producer": "p1",
            "host": identity.host_name(),
            "pid": 4711,
            "process_name": "MainProcess",
            "started": 0.0,
            "uid": os.getuid(),
            "tty": self.path,
            "tty_device": os.stat(self.path).st_rdev,
            "boot_id": identity.boot_id(),
        }
        return Facts(**(values | changes))

    def stop(self) -> None:
        """As Ctrl-S does."""
        termios.tcflow(self.slave, termios.TCOOFF)

    def resume(self) -> None:
        termios.tcflow(self.slave, termios.TCOON)

    def read(self, most: int = 1 << 30) -> bytes:
        """Everything that has arrived so far; at most about ``most`` bytes more are taken from the terminal."""
        try:
            while most > 0 and (data := os.read(self.master, 1024)):
                self._seen += data
                most -= len(data)
        except BlockingIOError:
            pass
        return bytes(self._seen)

    def lines(self) -> list[str]:
        return self.read().decode().split("\r\n")[:-1]

    def display(self) -> pyte.Screen:
        """The screen as a terminal shows it."""
        screen = pyte.Screen(120, 30)
        pyte.ByteStream(screen).feed(self.read())
        return screen

    def read_steadily(self) -> threading.Thread:
        """Read in the background, as a terminal emulator does, until the other end is closed."""
        os.set_blocking(self.master, True)

        def loop() -> None:
            try:
                while data := os.read(self.master, 65536):
                    self._seen.extend(data)
            except OSError:
                pass

        self._reader = threading.Thread(target=loop, daemon=True)
        self._reader.start()
        return self._reader

    def text(self) -> str:
        return bytes(self._seen).decode()

    def close_slave(self) -> None:
        """As the last program on the terminal does by ending."""
        if self.slave >= 0:
            os.close(self.slave)
        self.slave = -1

    def close(self) -> None:
        self.close_slave()
        if self._reader is not None:
            self._reader.join(5)
        if self.master >= 0:
            os.close(self.master)
        self.master = -1


@pytest.fixture
def screens() -> Iterator[Callable[[], Screen]]:
    opened: list[Screen] = []

    def make() -> Screen:
        opened.append(Screen())
        return opened[-1]

    yield make
    for screen in opened:
        screen.close()


@pytest.fixture
def screen(screens: Callable[[], Screen]) -> Screen:
    return screens()


@pytest.fixture
def destinations() -> Iterator[Callable[..., TtyDestination]]:
    opened: list[TtyDestination] = []

    def make(color: Any = "never", formatter: FormatterConfig = PLAIN, **options: Any) -> TtyDestination:
        destination = TtyDestination(
            TtyWriterConfig(color=color, formatter=formatter), environ=options.pop("environ", {}), **options
        )
        a_destination: Destination = destination  # what the writers' loop asks for
        a_destination.recover(Checkpoint(""))
        opened.append(destination)
        return destination

    yield make
    for destination in opened:
        for waiting in destination._waiting.values():  # left there by the test: not waited for
            waiting.abandon()
        destination.close()


@pytest.fixture
def destination(destinations: Callable[..., TtyDestination]) -> TtyDestination:
    return destinations()


def record(message: str, levelno: int = 20, levelname: str = "INFO", **changes: Any) -> Record:
    values: dict[str, Any] = {
        "created": time.time(),
        "levelno": levelno,
        "levelname": levelname,
        "name": "app",
        "message": message,
        "pathname": "app.py",
        "lineno": 1,
        "function": "main",
        "thread": 1,
        "thread_name": "MainThread",
    }
    return build(**(values | changes))


def items(facts: Facts, *messages: str) -> list[Numbered]:
    return [(record(message), facts, number) for number, message in enumerate(messages, 1)]


def write(destination: TtyDestination, numbered: list[Numbered]) -> None:
    found = Reading(lambda _producer: 0, lambda _level, _name: True)
    found.items = numbered
    destination.write(found)


def refused(destination: TtyDestination, facts: Facts) -> str:
    """The one cause for which a record of these facts is skipped."""
    write(destination, items(facts, "secret"))
    assert destination.written == 0
    [(cause, count)] = destination.skipped.items()
    assert count == 1
    return cause


# --- whose terminal ----------------------------------------------------------------------------------------


def test_each_record_is_on_the_terminal_of_its_producer_in_order(
    screens: Callable[[], Screen], destination: TtyDestination
) -> None:
    left, right = screens(), screens()
    numbered: list[Numbered] = []
    for n in range(20):
        numbered += items((left if n % 2 else right).facts(), f"record {n}")
    write(destination, numbered)
    assert left.lines() == [f"INFO record {n}" for n in range(1, 20, 2)]
    assert right.lines() == [f"INFO record {n}" for n in range(0, 20, 2)]
    assert (destination.written, dict(destination.skipped)) == (20, {})


def test_more_terminals_than_may_be_open_at_once_get_their_records(
    screens: Callable[[], Screen], destination: TtyDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tty, "TERMINALS", 2)
    several = [screens() for _ in range(5)]
    opened: list[int] = []
    queue = destination._queue

    def spy(rest: Sequence[Numbered]) -> Any:
        touched, rest = queue(rest)
        opened.append(len(touched))
        return touched, rest

    monkeypatch.setattr(destination, "_queue", spy)
    write(destination, [item for screen in several * 2 for item in items(screen.facts(), screen.path)])
    assert [screen.lines() for screen in several] == [[f"INFO {screen.path}"] * 2 for screen in several]
    assert opened == [2] * 5


def test_a_terminal_takes_the_records_of_a_dead_producer(screen: Screen, destination: TtyDestination) -> None:
    write(destination, items(screen.facts(pid=2**22 - 1), "last words"))
    assert screen.lines() == ["INFO last words"]


def test_the_writer_does_not_keep_a_terminal_open(screen: Screen, destination: TtyDestination) -> None:
    write(destination, items(screen.facts(), "one"))
    assert screen.lines() == ["INFO one"]
    screen.close_slave()
    with pytest.raises(OSError, match="Input/output") as caught:
        os.read(screen.master, 1)
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"tty": "", "tty_device": 0}, "no_terminal"),
        ({"host": "elsewhere"}, "other_host"),
        ({"boot_id": "before"}, "other_host"),
        ({"uid": os.getuid() + 1}, "other_owner"),
        ({"tty_device": 1}, "other_device"),
        ({"tty": "/dev/pts/999999"}, "gone"),
        ({"tty": "/dev/tty"}, "not_a_terminal"),
        ({"tty": "/dev/null"}, "not_a_terminal"),
        ({"tty": "/dev/watchdog0"}, "not_a_terminal"),
        ({"tty": "/dev/pts/../null"}, "not_a_terminal"),
        ({"tty": "/dev/pts/0\n"}, "not_a_terminal"),
        ({"tty": "/dev/fd/1"}, "not_a_terminal"),
        ({"tty": "pts/0"}, "not_a_terminal"),
    ],
)
def test_a_record_that_names_no_terminal_of_its_own_is_counted_and_skipped(
    screen: Screen, destination: TtyDestination, changes: dict[str, Any], cause: str
) -> None:
    assert refused(destination, screen.facts(**changes)) == cause
    assert screen.read() == b""


@pytest.mark.root
@needs_root
def test_a_terminal_that_another_user_has_now_gets_nothing(
    screen: Screen, destination: TtyDestination
) -> None:
    facts = screen.facts()
    os.chown(screen.path, 12345, -1)
    assert refused(destination, facts) == "other_owner"
    assert screen.read() == b""


def test_a_terminal_given_out_again_after_the_record_gets_nothing(
    screen: Screen, destination: TtyDestination
) -> None:
    opened = os.stat(screen.path).st_ctime
    late = [(record("old", created=opened - 10), screen.facts(started=opened - 20), 1)]
    write(destination, late)  # type: ignore[arg-type]
    assert (screen.read(), dict(destination.skipped)) == (b"", {"reused": 1})


def test_a_producer_that_was_started_on_the_terminal_may_log_with_any_time(
    screen: Screen, destination: TtyDestination
) -> None:
    write(destination, [(record("replayed", created=1.0), screen.facts(started=time.time()), 1)])
    assert screen.lines() == ["INFO replayed"]


def test_a_clock_that_was_set_back_hides_nothing(
    screen: Screen, destinations: Callable[..., TtyDestination]
) -> None:
    destination = destinations(clock=lambda: 1000.0)
    write(destination, [(record("yesterday", created=999.0), screen.facts(started=900.0), 1)])
    assert screen.lines() == ["INFO yesterday"]


@pytest.mark.parametrize("kind", ["file", "fifo", "read_fifo", "link"])
def test_what_is_planted_outside_dev_is_never_opened(
    screen: Screen, destination: TtyDestination, tmp_path: Any, kind: str
) -> None:
    planted = str(tmp_path / "pts0")
    plant(planted, kind, screen.path)
    assert refused(destination, screen.facts(tty=planted)) == "not_a_terminal"
    assert screen.read() == b""


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("file", "not_a_terminal"),
        ("fifo", "gone"),
        ("read_fifo", "not_a_terminal"),
        ("link", "not_a_terminal"),
    ],
)
def test_what_is_planted_in_dev_is_never_written_to(
    screen: Screen, destination: TtyDestination, kind: str, cause: str
) -> None:
    planted = f"/dev/ttyplanted{os.getpid()}"
    reader = plant(planted, kind, screen.path)
    try:
        assert refused(destination, screen.facts(tty=planted)) == cause
        if kind == "file":
            assert os.stat(planted).st_size == 0
        if reader is not None:
            assert os.read(reader, 1) == b""
            os.close(reader)
    finally:
        os.unlink(planted)
    assert screen.read() == b""


def plant(path: str, kind: str, target: str) -> int | None:
    """Put something that is no terminal at ``path``; return the reading end of a FIFO that is read."""
    if kind == "file":
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o666))
    elif kind == "link":
        os.symlink(target, path)
    else:
        os.mkfifo(path)
        if kind == "read_fifo":
            return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    return None


@pytest.mark.root
@needs_root
def test_a_device_that_is_no_terminal_is_never_written_to(
    screen: Screen, destination: TtyDestination
) -> None:
    planted = f"/dev/ttynull{os.getpid()}"
    null = os.stat("/dev/null").st_rdev
    os.mknod(planted, 0o666 | stat.S_IFCHR, null)
    try:
        assert refused(destination, screen.facts(tty=planted, tty_device=null)) == "not_a_terminal"
    finally:
        os.unlink(planted)


def test_the_opened_file_is_judged_not_its_path(screen: Screen, tmp_path: Any) -> None:
    status = os.fstat(screen.slave)
    assert refusal(status, device=status.st_rdev, uid=status.st_uid) == ""
    assert refusal(status, device=status.st_rdev + 1, uid=status.st_uid) == "other_device"
    assert refusal(status, device=status.st_rdev, uid=status.st_uid + 1) == "other_owner"
    alias = os.stat("/dev/tty")
    assert refusal(alias, device=alias.st_rdev, uid=alias.st_uid) == "not_a_terminal"
    assert refusal(os.stat(tmp_path), device=0, uid=os.getuid()) == "not_a_terminal"


# --- what is on it -----------------------------------------------------------------------------------------


def test_hostile_text_is_shown_and_not_obeyed(screen: Screen, destination: TtyDestination) -> None:
    hostile = (
        "\x1b[2J\x1b]0;title\x07 over\rwrite b\x08 \x9b31m bidi \u202e\u2066 \x85 \u2028 nul \x00 \udcff"
    )
    write(destination, items(screen.facts(), "above", hostile, "below"))
    shown = screen.display()
    rows = [row.rstrip() for row in shown.display[:3]]
    assert rows[0] == "INFO above"
    assert rows[1].startswith(
        "INFO \\x1b[2J\\x1b]0;title\\x07 over\\rwrite b\\x08 \\u009b31m bidi \\u202e\\u2066"
    )
    assert rows[2] == "INFO below"
    assert shown.title == ""
    assert b"\x1b" not in screen.read()


def test_text_that_the_application_formatted_is_escaped_too(
    screen: Screen, destinations: Callable[..., TtyDestination]
) -> None:
    destination = destinations("always")
    write(destination, [(record("-", text="mine \x1b[31m", levelname="\x1b[0m"), screen.facts(), 1)])
    assert screen.lines() == ["\x1b[32mmine \\x1b[31m\x1b[0m"]


def test_levels_have_colours(screen: Screen, destinations: Callable[..., TtyDestination]) -> None:
    destination = destinations("auto")
    levels = [(10, "DEBUG"), (20, "INFO"), (30, "WARNING"), (40, "ERROR"), (50, "CRITICAL")]
    write(destination, [(record("message", *level), screen.facts(), 1) for level in levels])
    shown = screen.display()
    assert [shown.buffer[row][0].fg for row in range(5)] == ["blue", "green", "brown", "red", "white"]
    assert [row.rstrip() for row in shown.display[:2]] == ["DEBUG message", "INFO message"]
    assert shown.buffer[0][10].fg == "default"


def test_colours_and_secrets_are_as_the_formatter_says(
    screen: Screen, destinations: Callable[..., TtyDestination]
) -> None:
    formatter = FormatterConfig(
        format="%(levelname)s %(message)s", colors={"INFO": "bold cyan"}, redact=("password",)
    )
    write(destinations("always", formatter), [(record("password=x \x1b[2J"), screen.facts(), 1)])
    assert screen.lines() == ["\x1b[1;36mINFO\x1b[0m password=*** \\x1b[2J"]


def test_no_color_takes_the_colours_away(screen: Screen, destinations: Callable[..., TtyDestination]) -> None:
    write(destinations("auto", environ={"NO_COLOR": "1"}), items(screen.facts(), "plain"))
    assert screen.lines() == ["INFO plain"]


@pytest.mark.parametrize(
    ("color", "environ", "coloured"),
    [
        ("auto", {}, True),
        ("auto", {"NO_COLOR": ""}, True),
        ("auto", {"NO_COLOR": "0"}, False),
        ("auto", {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ("auto", {"TERM": "dumb"}, False),
        ("auto", {"TERM": "dumb", "FORCE_COLOR": "1"}, True),
        ("always", {"NO_COLOR": "1"}, True),
        ("never", {"FORCE_COLOR": "1"}, False),
    ],
)
def test_the_setting_goes_before_the_environment(color: str, environ: dict[str, str], coloured: bool) -> None:
    assert wants_colour(color, environ) is coloured


def test_lines_of_a_traceback_begin_at_the_left_also_in_raw_mode(
    screen: Screen, destination: TtyDestination
) -> None:
    traceback = record("failed", exc_text="Traceback:\n  File\nValueError")
    write(destination, [(traceback, screen.facts(), 1)])
    attributes = termios.tcgetattr(screen.slave)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(screen.slave, termios.TCSANOW, attributes)
    write(destination, [(traceback, screen.facts(), 2)])
    assert screen.lines() == ["INFO failed", "Traceback:", "  File", "ValueError"] * 2


def test_a_loss_is_told_on_the_terminal_of_its_producer(screen: Screen, destination: TtyDestination) -> None:
    write(destination, [(Loss(3, 5, "spool full", time.time()), screen.facts(), 3)])
    [line] = screen.lines()
    assert line.startswith("WARNING 3 records dropped, sequences 3 to 5 of producer p1")


def test_what_comes_again_after_a_failed_checkpoint_is_shown_once(
    screen: Screen, destination: TtyDestination
) -> None:
    checkpoint = Checkpoint("")
    first = items(screen.facts(), "one", "two")
    for _ in range(3):  # the disk of the checkpoint is full for a while
        write(destination, first)
        destination.recover(checkpoint)
    write(destination, [*first, (record("three"), screen.facts(), 3)])
    checkpoint.highest["p1"] = 3
    write(destination, items(screen.facts(producer="another"), "four"))
    assert screen.lines() == ["INFO one", "INFO two", "INFO three", "INFO four"]
    assert not destination._known


# --- terminals that do not move ----------------------------------------------------------------------------


def test_a_burst_is_on_a_terminal_that_is_read_when_writing_returns(
    screen: Screen, destination: TtyDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tty, "_GRACE", 5.0)  # the machine may be busy
    monkeypatch.setattr(tty, "_LONGEST_WAIT", 10.0)
    reader = screen.read_steadily()
    messages = [f"record {n} " + "x" * 100 for n in range(20_000)]
    for start in range(0, len(messages), 5_000):
        write(destination, items(screen.facts(), *messages[start : start + 5_000]))
        assert destination.written == start + 5_000
    screen.close_slave()
    reader.join(10)
    assert not reader.is_alive()
    assert screen.text() == "".join(f"INFO {message}\r\n" for message in messages)
    assert (destination.written, dict(destination.skipped)) == (20_000, {})


def test_a_stopped_terminal_delays_only_its_own_lines(
    screens: Callable[[], Screen], destination: TtyDestination
) -> None:
    stopped, moving = screens(), screens()
    stopped.stop()
    write(destination, items(stopped.facts(), "a", "b") + items(moving.facts(), "c"))
    assert (stopped.read(), moving.lines()) == (b"", ["INFO c"])
    before = time.monotonic()
    for n in range(50):
        write(destination, items(stopped.facts(), f"s{n}") + items(moving.facts(), f"m{n}"))
    assert time.monotonic() - before < 50 * tty._GRACE  # it is waited for once, not each time
    assert len(moving.lines()) == 51
    assert stopped.read() == b""
    stopped.resume()
    wait_until(lambda: destination.service() is None, deadline=5)
    assert stopped.lines() == ["INFO a", "INFO b", *(f"INFO s{n}" for n in range(50))]
    assert (destination.written, dict(destination.skipped)) == (103, {})


def test_lines_beyond_the_bound_are_skipped_and_told_when_the_terminal_moves_again(
    screens: Callable[[], Screen], destination: TtyDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tty, "PENDING_BYTES", 2_000)
    stopped, moving = screens(), screens()
    stopped.stop()
    messages = [f"{n:04d}" for n in range(1_000)]
    for start in range(0, 1_000, 100):
        write(destination, items(stopped.facts(), *messages[start : start + 100]))
    write(destination, items(moving.facts(), "on time"))
    assert moving.lines() == ["INFO on time"]
    assert stopped.read() == b""
    stopped.resume()
    wait_until(lambda: destination.service() is None, deadline=5)
    write(destination, items(stopped.facts(), "after"))
    *shown, told, after = stopped.lines()
    assert shown == [f"INFO {n:04d}" for n in range(len(shown))]
    assert told == f"… skipped {1_000 - len(shown)} lines"
    assert after == "INFO after"
    assert destination.skipped == {"stopped": 1_000 - len(shown)}
    assert destination.written == len(shown) + 2


def test_skipped_lines_are_told_where_they_are_missing(
    screen: Screen, destination: TtyDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tty, "PENDING_BYTES", 10_000)
    sent = 0
    for _ in range(30):  # it takes less than it gets
        write(destination, items(screen.facts(), *(f"{n:06d}" for n in range(sent, sent + 500))))
        sent += 500
        screen.read(4_000)
        destination.service()
    wait_until(lambda: [screen.read(), destination.service()][1] is None, deadline=5)
    expected = 0
    for line in screen.lines():
        if line.startswith("INFO "):
            assert line == f"INFO {expected:06d}"
            expected += 1
        else:
            expected += int(line.removeprefix("… skipped ").split()[0])
    assert expected == sent
    assert destination.written + destination.skipped["stopped"] == sent
    assert screen.text().count("skipped") > 1


def test_a_terminal_that_is_read_in_drops_is_not_waited_for_long(
    screens: Callable[[], Screen], destination: TtyDestination
) -> None:
    slow, moving = screens(), screens()
    enough = threading.Event()

    def read_in_drops() -> None:
        while not enough.wait(0.02):
            slow.read(500)

    reader = threading.Thread(target=read_in_drops)
    reader.start()
    try:
        before = time.monotonic()
        for n in range(10):
            write(destination, items(slow.facts(), "x" * 20_000) + items(moving.facts(), f"{n}"))
        assert time.monotonic() - before < tty._LONGEST_WAIT / 2
    finally:
        enough.set()
        reader.join()
    assert len(moving.lines()) == 10


def test_a_line_that_the_terminal_has_begun_is_finished(
    screen: Screen, destination: TtyDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tty, "PENDING_BYTES", 2_000)
    long = "x" * 200_000  # more than the terminal takes while nobody reads, and more than may wait
    write(destination, items(screen.facts(), long, "next"))
    wait_until(lambda: [screen.read(), destination.service()][1] is None, deadline=5)
    assert screen.lines() == [f"INFO {long}", "… skipped 1 line"]
    assert (destination.written, dict(destination.skipped)) == (1, {"stopped": 1})


def test_a_terminal_closed_while_lines_wait_is_gone_and_a_new_one_is_not_reached(
    screens: Callable[[], Screen], destination: TtyDestination
) -> None:
    old = screens()
    facts = old.facts()
    old.stop()
    write(destination, items(facts, "one", "two"))
    old.close()
    new = screens()
    assert new.path != facts.tty  # held by the lines that wait
    late = items(facts, "three")
    assert destination.service() is None
    assert destination.skipped == {"gone": 2}
    write(destination, late)
    assert destination.skipped["gone"] + destination.skipped["reused"] == 3
    assert new.read() == b""


def test_a_closed_terminal_found_when_the_next_record_comes(
    screen: Screen, destination: TtyDestination
) -> None:
    facts = screen.facts()
    screen.stop()
    write(destination, items(facts, "one"))
    screen.close()
    write(destination, items(facts, "two"))
    assert (destination.written, dict(destination.skipped)) == (0, {"gone": 2})
    assert destination.service() is None


def test_the_longest_stuck_terminals_give_way(
    screens: Callable[[], Screen], destination: TtyDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tty, "TERMINALS", 2)
    several = [screens() for _ in range(3)]
    for n, screen in enumerate(several):
        screen.stop()
        write(destination, items(screen.facts(), f"{n}"))
    for screen in several:
        screen.resume()
    wait_until(lambda: destination.service() is None, deadline=5)
    assert [screen.lines() for screen in several] == [[], ["INFO 1"], ["INFO 2"]]
    assert (destination.written, dict(destination.skipped)) == (2, {"stopped": 1})


def test_service_asks_less_often_the_longer_nothing_moves(
    screen: Screen, destination: TtyDestination
) -> None:
    assert destination.service() is None
    screen.stop()
    write(destination, items(screen.facts(), "one"))
    pauses = [destination.service() or 0.0 for _ in range(8)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == tty._LONGEST_PAUSE


def test_closing_hands_over_what_waits_or_gives_up_in_a_second(
    screens: Callable[[], Screen], destination: TtyDestination
) -> None:
    stopped, resumed = screens(), screens()
    for screen in (stopped, resumed):
        screen.stop()
        write(destination, items(screen.facts(), "last"))
    resumed.resume()
    before = time.monotonic()
    destination.close()
    assert time.monotonic() - before < 3
    assert (stopped.read(), resumed.lines()) == (b"", ["INFO last"])
    assert (destination.written, dict(destination.skipped)) == (1, {"stopped": 1})


def test_a_terminal_in_tostop_mode_does_not_stop_the_writer(
    screen: Screen, run_python: Callable[..., Finished]
) -> None:
    finished = run_python(
        """
        import os, sys, termios, time
        from redislogkit import identity
        from redislogkit.config import TtyWriterConfig
        from redislogkit.record import Facts, build
        from redislogkit.writers.checkpoint import Checkpoint
        from redislogkit.writers.tty import TtyDestination
        from tests.helpers.filewriter import reading

        def write_in_background(path, fd):
            os.setpgid(0, 0)
            device = os.fstat(fd).st_rdev
            facts = Facts("p", identity.host_name(), 1, "", 0.0, os.getuid(), path, device, identity.boot_id())
            destination = TtyDestination(TtyWriterConfig(color="never"))
            destination.recover(Checkpoint(""))
            item = build(time.time(), 20, "INFO", "a", "hello", "", 1, "", 1, "")
            destination.write(reading([(item, facts, 1)]))
            os._exit(destination.written)

        os.setsid()
        fd = os.open(sys.argv[1], os.O_RDWR)  # our controlling terminal from now on
        mode = termios.tcgetattr(fd)
        mode[3] |= termios.TOSTOP
        termios.tcsetattr(fd, termios.TCSANOW, mode)
        child = os.fork() or write_in_background(sys.argv[1], fd)
        print(os.waitpid(child, os.WUNTRACED)[1] >> 8)
        """,
        screen.path,
    )
    assert finished.out == "1\n"
    assert [line[-4:] for line in screen.lines()] == ["ello"]

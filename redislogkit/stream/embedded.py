"""The embedded server: a real Valkey or Redis on a private unix socket below one directory.

Theory of operation: one directory is one server. Everything it has lies there (configuration, append-only
file, log, lock), reachable only by its owner; there is no TCP port.

- The lock (``server.lock``) is held by the *server process*: it inherits the locked descriptor, so the lock
  lives exactly as long as the server does, whoever started it and however that one ended. A second server on
  the same directory would unlink the first one's socket and write into its append-only file; it is refused.
- The server never outlives its starter: `serve` waits for the end of both, and on Linux the kernel sends the
  server SIGTERM when the starter is killed. Where that fails, the next `serve` asks the orphan to shut down.
- SIGTERM makes the server flush its append-only file. After SIGKILL the file may end in the middle of a
  command; the server cuts that by itself. Other damage at the end (a power cut) is cut by `repair`, with a
  copy kept.

Nothing here imports redis: readiness is a PING on the bare socket.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from redislogkit.errors import EmbeddedServerError
from redislogkit.stream.server_binary import BINARY_VARIABLE, find_server
from redislogkit.stream.server_files import (
    LOG,
    bound_log,
    log_tail,
    own_directory,
    private,
    repair,
    says_damaged,
    set_aside,
    socket_path,
    take_lock,
    url,
    write_config,
)

__all__ = [
    "BINARY_VARIABLE",
    "STOP_TIMEOUT",
    "find_server",
    "repair",
    "serve",
    "set_aside",
    "socket_path",
    "start",
    "stop",
    "url",
    "wait_ready",
    "write_config",
]

STOP_TIMEOUT: Final = 5.0
"""Seconds between SIGTERM and SIGKILL."""

_PR_SET_PDEATHSIG: Final = 1
#: Seconds between two questions whether the server answers, and after which one that does not is taken for hung. One
#: that loads its data answers, and a disk that is slow for long is rare.
_ASK_INTERVAL: Final = 10.0
_HUNG_AFTER: Final = 30.0


def start(directory: str) -> subprocess.Popen[bytes]:
    """Start the server of ``directory`` and return its process, which may not answer yet (`wait_ready`).

    Started from the main thread of a Linux process, the server gets SIGTERM when that process dies.
    Raises `EmbeddedServerError` when no server is found, the directory can not be used, or a server of this
    directory lives already, `SocketFolderError` when its socket has no place.
    """
    directory = os.path.abspath(directory)
    binary = find_server()
    own_directory(directory)
    lock = take_lock(directory)
    try:
        config = write_config(directory)
        bound_log(directory)
        with open(os.path.join(directory, LOG), "ab", opener=private) as log:
            process = subprocess.Popen(
                [binary, config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock,),  # the server itself holds the lock from now on
                start_new_session=True,  # Ctrl-C at the terminal must not stop it before the writers are done
                umask=0o077,
                preexec_fn=_death_signal_setter(),  # noqa: PLW1509 - a system call, all looked up beforehand
            )
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % process.pid, 0)
    except OSError as error:
        raise EmbeddedServerError(f"the embedded server does not start in {directory}: {error}") from error
    finally:
        os.close(lock)
    return process


def _death_signal_setter() -> Callable[[], None] | None:
    """What the child does between fork and exec, so that it dies with us; None where that does not work."""
    # The signal is bound to the thread that forks: from any thread but the main one it would come too early.
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def set_death_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the signal was set
            os._exit(1)

    return set_death_signal


def wait_ready(directory: str, process: subprocess.Popen[bytes], timeout: float = 10.0) -> None:
    """Return once the server answers and has loaded its data, at most ``timeout`` seconds later.

    Raises `EmbeddedServerError`, with the end of the server's log, when it ends or stays silent.
    """
    deadline = time.monotonic() + timeout
    while not _answers(directory):
        if process.poll() is not None:
            problem = f"ended with {process.returncode}"
        elif time.monotonic() >= deadline:
            problem = f"is not ready after {timeout:g} s"
        else:
            time.sleep(0.005)
            continue
        raise EmbeddedServerError(
            f"the embedded server in {directory} {problem}; its log ends:\n{log_tail(directory)}"
        )


def _answers(directory: str) -> bool:
    reply = _command(directory, b"PING")
    # Any other error (disk full, say) comes from a server that has loaded its data.
    return bool(reply) and not reply.startswith(b"-LOADING")


def _command(directory: str, command: bytes) -> bytes:
    """The first bytes of the reply to an inline command; empty without a server."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1.0)
            connection.connect(socket_path(directory))
            connection.sendall(command + b"\r\n")
            return connection.recv(256)
    except OSError:
        return b""


def serve(directory: str, alive_fd: int, tick: Callable[[], None] = lambda: None) -> int:
    """Run the server until it ends or ``alive_fd`` reaches its end of file; return its exit code.

    Made for a process of its own below the one supervisor of the directory, which holds the other end of
    ``alive_fd`` and writes nothing of use into it. ``tick`` is called about every two seconds. A server that has not
    answered for half a minute is killed. However this
    function is left, by an exception too, the server is stopped first: SIGTERM, and SIGKILL `STOP_TIMEOUT`
    seconds later. Damage that keeps the server from loading its data is repaired, once by cutting and once
    by setting aside. Raises `EmbeddedServerError` as `start` does.
    """
    _end_orphan(directory)
    code = _serve_once(directory, alive_fd, tick)
    for mend in (repair, set_aside):
        if code <= 0 or not says_damaged(directory):
            break
        mend(directory)
        code = _serve_once(directory, alive_fd, tick)
    return code


def _serve_once(directory: str, alive_fd: int, tick: Callable[[], None]) -> int:
    process = start(directory)
    answered = asked = time.monotonic()
    try:
        while process.poll() is None and not _at_end(alive_fd):
            tick()
            bound_log(directory)
            now = time.monotonic()
            if now - asked >= _ASK_INTERVAL:
                asked = now
                if _command(directory, b"PING"):
                    answered = now
                elif now - answered >= _HUNG_AFTER:
                    process.kill()
            _wait_for_either(process, alive_fd, 2.0)
    finally:
        stop(process)
    return process.returncode


def _at_end(descriptor: int) -> bool:
    if not _readable([descriptor], 0):
        return False
    try:
        return not os.read(descriptor, 4096)
    except ConnectionResetError:  # the other end was closed before it had read all that we sent
        return True


def _wait_for_either(process: subprocess.Popen[bytes], alive_fd: int, timeout: float) -> None:
    """Wait until the server ends or ``alive_fd`` can be read, at most ``timeout`` seconds."""
    ended = _end_descriptor(process)
    if ended is None:
        _readable([alive_fd], timeout / 5)
        return
    try:
        _readable([alive_fd, ended], timeout)
    finally:
        os.close(ended)


def _end_descriptor(process: subprocess.Popen[bytes]) -> int | None:
    """A descriptor that becomes readable when the process ends; None on systems without such a thing."""
    if sys.platform == "linux":
        try:
            return os.pidfd_open(process.pid)
        except OSError:  # a kernel before 5.3
            return None
    else:
        return None


def _readable(descriptors: list[int], timeout: float) -> bool:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def stop(process: subprocess.Popen[bytes], timeout: float = STOP_TIMEOUT) -> int:
    """Stop the server, by force after ``timeout`` seconds; return its exit code."""
    process.terminate()
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _end_orphan(directory: str) -> None:
    """Ask a server that outlived its starter to shut down; `start` refuses while it holds the lock."""
    if not os.path.isdir(directory):
        return
    deadline = time.monotonic() + STOP_TIMEOUT
    while time.monotonic() < deadline:
        try:
            os.close(take_lock(directory))
        except EmbeddedServerError:
            _command(directory, b"SHUTDOWN")
            time.sleep(0.02)
        else:
            return

"""Starting the supervisor from an application: one process spawn, no thread, nothing left to reap.

Any number of processes may notice at once that nobody ships. The one that gets the start lock spawns; the
lock travels into the new process, which frees it when its doorbell can be heard.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys

from redislogkit import config as configuration
from redislogkit.config import Config
from redislogkit.spool import doorbell

#: Descriptors that the new supervisor finds: its configuration, and the start lock.
CONFIG_FD = 3
START_LOCK_FD = 4

_CODE = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; "
    "sys.argv[1] in sys.path or sys.path.append(sys.argv[1]); "
    "from redislogkit.supervise import main; sys.exit(main(['--launched']))"
)
_SHELL = "/bin/sh"


def doorbell_path(config: Config) -> str:
    """The doorbell of the supervisor for ``config``."""
    return os.path.join(config.stream_dir, doorbell.NAME)


def log_path(config: Config) -> str:
    """Where a supervisor that was started by an application writes its own log."""
    return os.path.join(config.stream_dir, "supervisor.log")


def prepare(config: Config) -> None:
    """Make the folders that producers and supervisor share. Raises ``OSError``."""
    for folder in ("spool", "checkpoints"):
        os.makedirs(os.path.join(config.stream_dir, folder), 0o700, exist_ok=True)


def ensure_supervisor(config: Config) -> None:
    """Start a supervisor for ``config`` unless one listens or is just starting. Raises ``OSError``."""
    if doorbell.ring(doorbell_path(config)):
        return
    lock = os.open(
        os.path.join(config.stream_dir, "start.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not doorbell.ring(doorbell_path(config)):
            _spawn(config, lock)
    except BlockingIOError:
        pass  # somebody is starting it
    finally:
        os.close(lock)


def _spawn(config: Config, lock: int) -> None:
    content = _unnamed_file(config)
    # Numbers that the moves to 3 and 4 can not run into.
    handed = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (content, lock)]
    os.close(content)
    log = log_path(config)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        (os.POSIX_SPAWN_DUP2, handed[0], CONFIG_FD),
        (os.POSIX_SPAWN_DUP2, handed[1], START_LOCK_FD),
    ]
    package_parent = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    command = [_interpreter(), "-c", _CODE, package_parent]
    # The shell ends at once and leaves the supervisor to init: the application never has it as a child.
    through_shell = os.path.exists(_SHELL)
    if through_shell:
        command = [_SHELL, "-c", '"$0" "$@" </dev/null &', *command]
    try:
        pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions, setsid=True)
    finally:
        for fd in handed:
            os.close(fd)
    if through_shell:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _unnamed_file(config: Config) -> int:
    """A file with the configuration that has no name, for it may hold a password."""
    path = os.path.join(config.stream_dir, f".configuration-{os.urandom(8).hex()}")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    os.write(fd, configuration.to_bytes(config))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _interpreter() -> str:
    """The Python that runs us, also where the program embeds it and ``sys.executable`` is the program."""
    if "python" in os.path.basename(sys.executable):
        return sys.executable
    return os.path.join(sys.exec_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")

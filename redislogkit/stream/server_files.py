"""What lies in the embedded server's directory: socket, configuration, log and data, and the data's repair."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from typing import Final

from redislogkit import sockets
from redislogkit.errors import EmbeddedServerError
from redislogkit.stream.server_binary import find_server

MAX_LOG_BYTES: Final = 1024 * 1024

_MAX_MEMORY: Final = 1024**3
_MIN_MEMORY: Final = 64 * 1024**2
_LOCK: Final = "server.lock"
_CONFIG: Final = "server.conf"
LOG: Final = "server.log"
_DAMAGED: Final = re.compile(
    "Bad file format reading|Unrecoverable error reading|Unexpected end of file reading"
)


def socket_path(directory: str) -> str:
    """Return the path of the server's socket, the same in every process of a user. Raises ``SocketFolderError``."""
    return sockets.path_of(directory, "server.sock")


def url(directory: str) -> str:
    """Return the url of the server of ``directory``, for a redis client."""
    return "unix://" + urllib.parse.quote(socket_path(directory))


def own_directory(directory: str) -> None:
    """Make the server's directory, or close an existing one of ours to others."""
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        if os.stat(directory).st_uid != os.geteuid():
            raise EmbeddedServerError(
                f"{directory} must belong to user {os.geteuid()}, who runs the embedded server, "
                f"but belongs to user {os.stat(directory).st_uid}; set another state_dir"
            )
        os.chmod(directory, 0o700)
    except OSError as error:
        raise EmbeddedServerError(
            f"the embedded server's directory {directory} can not be used: {error}"
        ) from error


def private(path: str, flags: int) -> int:
    """An opener for `open`: what it creates only we can read."""
    return os.open(path, flags, 0o600)


def write_config(directory: str) -> str:
    """Write the server's configuration below ``directory`` and return its path."""
    directory = os.path.abspath(directory)
    lines = [
        b"port 0",
        b"unixsocket " + _quoted(socket_path(directory)),
        b"unixsocketperm 700",
        b"daemonize no",
        b"dir " + _quoted(directory),
        b"logfile " + _quoted(os.path.join(directory, LOG)),
        b"loglevel notice",
        b"always-show-logo no",
        b"appendonly yes",
        b"appendfsync everysec",
        b"hz 1",  # its housekeeping ten times a second is half of what an idle deployment costs
        b"aof-load-truncated yes",
        b'save ""',  # the append-only file is enough; a snapshot would only cost a fork and the disk
        b"maxmemory %d" % _memory_bound(),
        b"maxmemory-policy noeviction",  # a full server refuses, and the records wait in the spools
        b"stream-node-max-bytes 16384",  # 5 % less memory than the default for the layout "records"
    ]
    path = os.path.join(directory, _CONFIG)
    with open(f"{path}.new", "wb", opener=private) as file:
        file.write(b"\n".join(lines) + b"\n")
    os.replace(f"{path}.new", path)
    return path


def _quoted(path: str) -> bytes:
    """``path`` as a quoted string of the server's configuration; any byte may stand in it."""
    plain = b"".join(
        bytes([byte]) if 32 <= byte != 127 and byte not in b'"\\' else b"\\x%02x" % byte
        for byte in os.fsencode(path)
    )
    return b'"' + plain + b'"'


def _memory_bound() -> int:
    """A quarter of what this machine or its control group has, between 64 MiB and 1 GiB."""
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            available = min(available, int(file.read()))
    except (OSError, ValueError):
        pass  # no control group, or "max"
    return max(_MIN_MEMORY, min(_MAX_MEMORY, available // 4))


def bound_log(directory: str) -> None:
    """Keep the log and one older one, `MAX_LOG_BYTES` each. The server opens its log anew for each line."""
    path = os.path.join(directory, LOG)
    with contextlib.suppress(FileNotFoundError):
        if os.stat(path).st_size > MAX_LOG_BYTES:
            os.replace(path, f"{path}.1")


def log_tail(directory: str, size: int = 1500) -> str:
    """The last ``size`` bytes of the log as text."""
    try:
        with open(os.path.join(directory, LOG), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read().decode("utf-8", "replace").strip()
    except OSError as error:
        return f"({error})"


def says_damaged(directory: str) -> bool:
    """True when the server's last words were that it can not read its append-only file."""
    return bool(_DAMAGED.search(log_tail(directory).rpartition("\n")[2]))


def take_lock(directory: str) -> int:
    """Return the descriptor of the locked ``server.lock``; raises `EmbeddedServerError` while a server lives.

    A plain flock, because only that can be handed on to another program.
    """
    path = os.path.join(directory, _LOCK)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EmbeddedServerError(f"the embedded server's lock {path} can not be opened: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise EmbeddedServerError(
            f"an embedded server runs already in {directory} (process {owner}); "
            "use that one, stop it, or set another state_dir"
        ) from error
    return descriptor


def repair(directory: str) -> str:
    """Cut the damaged end off the append-only file and return what was done. The server must not run.

    A copy of the file is kept as ``damaged.aof``. Where nothing can be cut, the data is set aside (`set_aside`).
    Raises `EmbeddedServerError`.
    """
    with _locked(directory):
        file = _last_append_only_file(directory)
        if file and _cut(file, os.path.join(directory, "damaged.aof")):
            return f"cut the damaged end of {file}"
        return _move_data(directory)


def set_aside(directory: str) -> str:
    """Move unreadable data into ``damaged-<time>`` and return what was done. The server must not run.

    It starts empty then: the spools and checkpoints, not the server, keep records safe. Raises
    `EmbeddedServerError`.
    """
    with _locked(directory):
        return _move_data(directory)


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    lock = take_lock(directory)
    try:
        yield
    except OSError as error:
        raise EmbeddedServerError(
            f"the embedded server's data in {directory} can not be repaired: {error}"
        ) from error
    finally:
        os.close(lock)


def _last_append_only_file(directory: str) -> str:
    """The file that the server appends to: named in the manifest, or a single file before version 7."""
    folder = os.path.join(directory, "appendonlydir")
    try:
        with open(os.path.join(folder, "appendonly.aof.manifest"), encoding="utf-8") as manifest:
            names = re.findall(r"^file (\S+) seq \d+ type i", manifest.read(), re.MULTILINE)
    except FileNotFoundError:
        single = os.path.join(directory, "appendonly.aof")
        return single if os.path.exists(single) else ""
    return os.path.join(folder, names[-1]) if names else ""


def _cut(file: str, copy: str) -> bool:
    """Let the server's own checker cut ``file`` behind its last whole command; False if nothing was cut."""
    size = os.stat(file).st_size
    shutil.copyfile(file, copy)
    # The server is its checker too when it is called by that name.
    checker = subprocess.run(
        ["redis-check-aof", "--fix", file],  # noqa: S607 - a name, not a path: see executable
        executable=find_server(),
        input=b"y\n",
        capture_output=True,
        check=False,
    )
    return checker.returncode == 0 and os.stat(file).st_size < size


def _move_data(directory: str) -> str:
    target = os.path.join(directory, f"damaged-{time.time_ns()}")
    os.mkdir(target, 0o700)
    for name in ("appendonlydir", "appendonly.aof"):
        if os.path.exists(os.path.join(directory, name)):
            os.rename(os.path.join(directory, name), os.path.join(target, name))
    return f"set the unreadable data aside in {target}"

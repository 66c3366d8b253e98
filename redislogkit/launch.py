"""Starting the supervisor from an application: one process spawn, no thread, nothing left to reap.

Any number of processes may notice at once that nobody ships. The one that gets the start lock spawns; the
lock travels into the new process, which frees it when its doorbell can be heard.

One supervisor serves one stream on a host, so all its producers must mean the same server, stream and
writers. Whoever starts a supervisor leaves a note about its configuration beside it. A producer that comes
with another one is refused as long as that supervisor is needed: its records would end in the wrong files
without a word. A supervisor that was launched by an application makes way, though: one that has no producer left
is asked to end, and the new configuration takes over; one that goes by a file, and nothing but the file, is asked to
load it again where a producer comes that goes by the same file as it is now. So the programs of an application can be
started anew one after the other. Which contents the file has had is in the note: a producer that still has one of
them, and has to start the next supervisor, starts it with the file as it is.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from redislogkit import config as configuration
from redislogkit import identity, locking
from redislogkit.config import Config, ProducerConfig, SupervisorConfig
from redislogkit.errors import ConfigError, CorruptDataError, LockHeldError, SpoolError
from redislogkit.spool import doorbell, header

#: Descriptors that the new supervisor finds: its configuration, and the start lock.
CONFIG_FD = 3
START_LOCK_FD = 4

_CODE = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; "
    "sys.path += [p for p in sys.argv[1:] if p not in sys.path]; "
    "sys.argv[:] = ['redislogkit supervise']; "  # as its lock names it
    "from redislogkit.supervise import main; sys.exit(main(['--launched']))"
)
_SHELL = "/bin/sh"
_START_LOCK: Final = "start.lock"
_GATE: Final = "start.gate"
#: Seconds to wait at the gate, which is held for less than a millisecond unless its holder is stopped there.
_GATE_TIMEOUT: Final = 0.1
_NOTE: Final = "supervised.json"
#: Seconds that a supervisor nobody needs any more gets to drain and end, and those between two looks whether it has.
_HANDOVER: Final = 15.0
_LONGEST_PAUSE: Final = 0.1
#: How often a supervisor is asked to load its file again: between two changes it may be at the one before.
_MOST_ASKED: Final = 3
#: Former contents of a file that are remembered.
_MOST_SUPERSEDED: Final = 50
#: Errors of a machine that has run out of something for a while.
_PASSING: Final = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM])


#: In a supervisor and its children: the folder of their stream, into which nothing of what they log may go.
supervised = ""


def doorbell_path(config: Config) -> str:
    """The doorbell of the supervisor for ``config``."""
    return os.path.join(config.stream_dir, doorbell.NAME)


def log_path(config: Config) -> str:
    """Where a supervisor that was started by an application writes its own log."""
    return os.path.join(config.stream_dir, "supervisor.log")


def lock_path(config: Config) -> str:
    """The lock that a supervisor of the stream holds for as long as it lives."""
    return os.path.join(config.stream_dir, "supervisor.lock")


def needs_supervisor(config: Config) -> bool:
    """False where a process ships its own records to a server elsewhere and nothing is written here."""
    alone = config.producer.ship == "thread" and not config.writers
    return not alone or config.redis.url.startswith("embedded:")


def prepare(config: Config) -> None:
    """Make the folders that producers and supervisor share.

    Raises ``OSError`` where that can not be done as things are set up. What passes (a full disk, no descriptor
    left) is no error: whoever needs a folder later makes it, and counts what it can not keep until then.
    """
    try:
        for name in ("spool", "checkpoints"):
            folder = os.path.join(config.stream_dir, name)
            os.makedirs(folder, 0o700, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(f"no permission to write to {folder}")
    except OSError as error:
        if error.errno not in _PASSING:
            raise


# -- which configuration is in force --------------------------------------------------------------


def announce(
    config: Config,
    *,
    launched: bool,
    supervising: bool = False,
    loads: bool = False,
    instead_of: Config | None = None,
    error: str = "",
) -> bool:
    """Note that the supervisor of the stream works for ``config``; True when that is done.

    Where it can not be done now (a full disk, say) there is no note at all rather than an old one: it is not
    worth keeping anybody from shipping. ``supervising`` says that the caller is that supervisor, and ``loads`` that it
    goes by its file alone and can load it again; then ``instead_of`` is what the file has said before, and ``error`` why
    it is not taken as it is now.
    """
    path = os.path.join(config.stream_dir, _NOTE)
    digest = shared_digest(config)
    before = _read_note(config)
    superseded = _superseded(before) if before.get("source") == config.source else []
    superseded += [shared_digest(instead_of)] if instead_of is not None else []
    note = {
        "digest": digest,
        "source": config.source,
        "launched": launched,
        "loads": loads,
        "at": time.time(),
        "error": error,
        "superseded": [each for each in dict.fromkeys(superseded) if each != digest][-_MOST_SUPERSEDED:],
    }
    # One who launches holds the start lock, one who supervises the supervisor's: two names are enough.
    beside = f"{path}.{'supervisor' if supervising else 'launcher'}"
    try:
        with open(beside, "w", encoding="utf-8") as file:
            json.dump(note, file)
        os.replace(beside, path)
    except OSError:
        for name in (beside, path):
            with contextlib.suppress(OSError):
                os.unlink(name)
        return False
    return True


def check(config: Config, *, apart_from: str = "") -> None:
    """Make sure that no supervisor works for another configuration of this stream.

    Only what producers share counts: the sections redis, stream and writers. Waits for a supervisor that is
    launched and no longer needed to end; the producer ``apart_from``, whose place is being taken, does not need
    it. Raises ``LockHeldError``, which names the owner and both sources, and ``SpoolError`` where nobody could be
    asked for another reason than a machine that has run out of something just now.
    """
    try:
        _check(config, apart_from)
    except OSError as error:
        if error.errno in _PASSING or isinstance(error, FileNotFoundError):
            return  # no room, so nobody could begin here either
        raise SpoolError(
            f"state_dir must be a folder that this process can use, got {config.state_dir}: {error}"
        ) from error


def _check(config: Config, apart_from: str) -> None:
    wanted = shared_digest(config)
    deadline = time.monotonic() + _HANDOVER
    pause = 0.01
    asked = needed = False
    answers: list[dict[str, Any]] = []  # notes that it had left before it was asked to load its file
    while True:
        with _gate(config):
            heard = doorbell.is_heard(doorbell_path(config))
            there = heard or _is_starting(config)
            note = _read_note(config)
        if not there or note.get("digest", wanted) == wanted:
            return
        # Twice, for a producer may be dying just now.
        was_needed, needed = needed, heard and _is_needed(config, note, apart_from)
        stays = needed and was_needed and note not in answers
        if stays and len(answers) < _MOST_ASKED and _has_changed_its_file(config, note):
            stays = not _tell(config, signal.SIGHUP)
            answers.append(note)
        if stays or time.monotonic() >= deadline:
            raise LockHeldError(_refusal(config, note, asked=bool(answers)))
        if heard and not needed and not asked:
            asked = _tell(config, signal.SIGTERM)
        time.sleep(pause)
        pause = min(1.5 * pause, _LONGEST_PAUSE)  # many may be waiting at once


def _has_changed_its_file(config: Config, note: dict[str, Any]) -> bool:
    """True where the launched supervisor goes by the file that ``config`` is, as it was once."""
    theirs = (
        note.get("launched") and note.get("loads") and config.source and note.get("source") == config.source
    )
    return bool(theirs) and says_the_same(config)


def says_the_same(config: Config) -> bool:
    """True where the file of ``config`` says now what ``config`` does, as far as producers share it."""
    now = _load(config.source)
    return now is not None and shared_digest(now) == shared_digest(config)


def _load(source: str | None) -> Config | None:
    try:
        return configuration.load(source) if source else None
    except ConfigError:
        return None


def _in_force(config: Config) -> Config:
    """Return what the next supervisor is to go by: ``config``, or its file as the last one has gone by it since."""
    note = _read_note(config)
    if note.get("source") != config.source or shared_digest(config) not in _superseded(note):
        return config
    now = _load(config.source)
    return now if now is not None and shared_digest(now) == note.get("digest") else config


def shared_digest(config: Config) -> str:
    """Return what is equal for configurations that one supervisor can serve: redis, stream, writers."""
    shared = msgspec.structs.replace(
        config, producer=ProducerConfig(), supervisor=SupervisorConfig(), loggers={}, formatters={}
    )
    return configuration.digest(shared)


def is_announced(config: Config) -> bool:
    """True when the supervisor of the stream works for ``config``, or when there is no note that says otherwise."""
    wanted = shared_digest(config)
    return bool(_read_note(config).get("digest", wanted) == wanted)


def _read_note(config: Config) -> dict[str, Any]:
    try:
        with open(os.path.join(config.stream_dir, _NOTE), encoding="utf-8") as file:
            note = json.load(file)
    except (OSError, ValueError, RecursionError):
        return {}
    return note if isinstance(note, dict) else {}


def _superseded(note: dict[str, Any]) -> list[str]:
    """Digests of what the file has said before, for as long as the supervisors of this note went by it."""
    former = note.get("superseded")
    return [each for each in former if isinstance(each, str)] if isinstance(former, list) else []


def _is_needed(config: Config, note: dict[str, Any], apart_from: str) -> bool:
    """True for a supervisor that somebody else runs on purpose, or that has living producers."""
    return not note.get("launched") or _has_producers(config.spool_root, apart_from)


def _has_producers(root: str, apart_from: str) -> bool:
    for name in os.listdir(root):
        if apart_from and name.startswith(f"{apart_from}-"):
            continue
        try:
            page = header.Header.open(os.path.join(root, name))
        except (FileNotFoundError, CorruptDataError):
            continue
        except OSError as error:
            if error.errno in _PASSING:
                return True  # it could not even be looked at
            continue
        # The lock of a dead producer is the shipper's, which says so in the mark.
        alive = not page.words[header.MARK] & header.RETIRED and not page.try_lock()
        page.close()
        if alive:
            return True
    return False


def _tell(config: Config, signal_number: int) -> bool:
    """Send the supervisor a signal; False while it is not known who it is, and where it is not ours."""
    owner = locking.read_owner(lock_path(config))
    pid = owner.get("pid")
    here = (owner.get("host"), owner.get("boot_id")) == (identity.host_name(), identity.boot_id())
    if not (here and isinstance(pid, int) and pid > 1):
        return False
    start = identity.process_start(pid)  # None: there is no such process
    if start is None or start != owner.get("start"):
        return False
    try:
        os.kill(pid, signal_number)
    except OSError:
        return False
    return True


def _refusal(config: Config, note: dict[str, Any], *, asked: bool) -> str:
    theirs, ours = note.get("source") or "a mapping", config.source or "a mapping"
    others = (
        "an older content of it, or with other values from its program" if theirs == ours else str(theirs)
    )
    return (
        f"stream {config.stream.name!r} in state_dir {config.state_dir} is supervised by "
        f"{locking.describe(locking.read_owner(lock_path(config)))} for another configuration than {ours}: {others}. "
        f"Redis, stream and writers must be the same in both. {_advice(config, note, asked=asked)}"
    )


def _advice(config: Config, note: dict[str, Any], *, asked: bool) -> str:
    own_name = "give this configuration a stream.name of its own"
    same_file = config.source is not None and note.get("source") == config.source
    if not note.get("launched"):
        if same_file:
            return f"Has the file changed? Have it taken: redislogkit reload {config.source}. Else {own_name}"
        return f"Stop that supervisor, or {own_name}"
    to_do = f"It makes way when all programs that log through it have ended; end them all, or {own_name}"
    if asked and note.get("error"):
        return f"It was to load the file again, and does not take it: {note['error']}. {to_do}"
    return to_do


def _is_starting(config: Config) -> bool:
    lock = _take_start_lock(config)
    if lock is not None:
        os.close(lock)
    return lock is None


# -- starting -------------------------------------------------------------------------------------


def ensure_supervisor(config: Config) -> bool:
    """Start a supervisor for ``config`` unless one listens; False when somebody else is just starting one.

    Never waits. Raises ``OSError``.
    """
    if doorbell.ring(doorbell_path(config)):
        return True
    os.makedirs(config.stream_dir, 0o700, exist_ok=True)  # the disk may have been full when we began
    config = _in_force(config)
    with contextlib.ExitStack() as held:
        with _gate(config):
            lock = _take_start_lock(config)
            if lock is None:
                return False
            held.callback(os.close, lock)  # whatever fails: the next attempt needs it
            if not doorbell.ring(doorbell_path(config)):
                announce(config, launched=True)
        if not doorbell.ring(doorbell_path(config)):
            _spawn(config, lock)
    return True


@contextlib.contextmanager
def _gate(config: Config) -> Iterator[None]:
    """Make taking the start lock and leaving the note one step for others."""
    deadline = time.monotonic() + _GATE_TIMEOUT
    gate = _open_lock_file(config, _GATE)
    try:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.001)
        yield
    finally:
        os.close(gate)


def _open_lock_file(config: Config, name: str) -> int:
    return os.open(os.path.join(config.stream_dir, name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _take_start_lock(config: Config) -> int | None:
    """Return a descriptor that holds the lock, None when somebody is just starting a supervisor."""
    lock = _open_lock_file(config, _START_LOCK)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return lock


def _spawn(config: Config, lock: int) -> None:
    with contextlib.ExitStack() as held:
        content = _unnamed_file(config)
        held.callback(os.close, content)
        # Numbers that the moves to 3 and 4 can not run into.
        handed = []
        for fd in (content, lock):
            handed.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10))
            held.callback(os.close, handed[-1])
        _run_detached(config, handed)


def _run_detached(config: Config, handed: list[int]) -> None:
    """Run the supervisor, which finds the descriptors ``handed`` as `CONFIG_FD` and `START_LOCK_FD`."""
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
    if config.runs_code or config.source:  # where this program finds code, also what the file will name later
        command += [os.path.abspath(folder) for folder in sys.path]
    # The shell ends at once and leaves the supervisor to init: the application never has it as a child.
    through_shell = os.path.exists(_SHELL)
    if through_shell:
        command = [_SHELL, "-c", '"$0" "$@" </dev/null &', *command]
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions, setsid=True)
    if through_shell:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _unnamed_file(config: Config) -> int:
    """A file with the configuration that has no name, for it may hold a password."""
    path = os.path.join(config.stream_dir, f".configuration-{os.urandom(8).hex()}")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.unlink(path)
        content = configuration.to_bytes(config)
        if os.write(fd, content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _interpreter() -> str:
    """The Python that runs us, also where the program embeds it and ``sys.executable`` is the program."""
    if "python" in os.path.basename(sys.executable):
        return sys.executable
    return os.path.join(sys.exec_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")

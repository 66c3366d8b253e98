"""The handler: a ``logging.Handler`` that copies each record into this process's spool, and nothing else.

No socket, no thread, no lock shared with I/O. User code (``__str__`` of arguments, formatters, filters) runs
outside of every lock of ours; only the copy into the spool is serialised. Whatever goes wrong inside stays
inside: the application sees no exception and no output, the record gets a text that says what failed.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any, Final, Protocol

from redislogkit import config as configuration
from redislogkit import identity, launch, record, terminal
from redislogkit.config import Config
from redislogkit.errors import SpoolError
from redislogkit.levels import NAME as LEVELS
from redislogkit.producer import compiled, leftover, levels, tracing
from redislogkit.spool import doorbell
from redislogkit.spool.producer_end import ProducerEnd, SpoolSettings

#: Seconds after a start before the next one: doubled with each, up to the longest, until none was needed for a while.
_START_PAUSE: Final = 0.2
_LONGEST_START_PAUSE: Final = 5.0
_CALM: Final = 20.0
_LOOK_INTERVAL: Final = 1.0
#: Frames that a record may need beyond the recursion limit, when it is logged right below it.
_MORE_STACK: Final = 200
#: Methods that a record passes through, and the attributes that decide, with them, on `SpoolHandler.takes_fields`.
_PATCHABLE: Final = frozenset(["emit", "filter", "format", "handle"])
_DECISIVE: Final = _PATCHABLE | {"_own_shipper", "_pid", "formatter"}
_FAST_MODULE: Final = "redislogkit.producer.fast"
_THREAD_MODULE: Final = "redislogkit.ship.thread"
_CUT_NOTE: Final = " … [redislogkit: cut, the record had {} bytes]"


class OwnShipper(Protocol):
    """What ``ship = "thread"`` needs of the thread that ships. Implemented elsewhere, as it imports redis."""

    ident: int | None
    """The thread's identifier; None as soon as it has ended."""

    def close(self, timeout: float) -> None:
        """Tell it to ship what is left, at most ``timeout`` seconds long, and to end; do not wait for it."""

    def forget(self) -> None:
        """In a forked child: close the descriptors that were the parent's."""

    def silence(self) -> None:
        """The process ends: remove what would be left of it on disk, the doorbell."""


_muted = False


def mute() -> None:
    """Have no handler of this process take anything any more: it writes what others have logged.

    What runs there may well call ``configure()``, as its module does everywhere.
    """
    global _muted
    _muted = True
    SpoolHandler.handle = lambda self, record: False  # type: ignore[method-assign]


class SpoolHandler(logging.Handler):
    """Puts records into the spool; the supervisor ships them.

    Usable from a ``dictConfig`` of one's own: ``{"class": "redislogkit.SpoolHandler", "config": "log.toml"}``.
    With a formatter set, the text is made in the calling process and written verbatim by text writers.

    Args:
        config: As for `redislogkit.configure`: a path, a mapping, or None; or a loaded configuration.
        level: Level of the handler; by default ``producer.level`` of the configuration.
        follows: Handler of this process whose place this one will take; it does not count as one that needs
            the present supervisor.

    Raises:
        ConfigError: The configuration is wrong.
        SpoolError: ``state_dir`` can not be used, or this is a process of the stream's own supervisor.
        LockHeldError: A supervisor with another configuration is responsible for this stream on this host.
    """

    #: True while nothing asks for a whole record: the fast logger may append what it has.
    takes_fields = False
    _patched = False
    _pid = 0
    _own_shipper: OwnShipper | None = None
    formatter: logging.Formatter | None = None

    def __init__(
        self,
        config: str | os.PathLike[str] | Mapping[str, Any] | Config | None = None,
        level: int | str | None = None,
        *,
        follows: SpoolHandler | None = None,
    ) -> None:
        self.config = config if isinstance(config, Config) else configuration.load(config)
        if self.config.stream_dir == launch.supervised and not _muted:
            raise SpoolError(
                f"a writer can not log into stream {self.config.stream.name!r}, which it reads: its records would come "
                "back to it. Leave redislogkit out of the logging of this process, and have it log to stderr"
            )
        try:
            launch.prepare(self.config)
        except OSError as error:
            raise SpoolError(
                f"state_dir must be a folder that this process can write to, got {self.config.state_dir}: {error}"
            ) from error
        if self.config.producer.fast_logger:
            importlib.import_module(_FAST_MODULE).install()
        if self.config.producer.ship == "thread":
            # Now and not in the first logging call, which may come under anybody's lock.
            importlib.import_module(_THREAD_MODULE)
        before = "" if follows is None else follows._end.producer
        if launch.needs_supervisor(self.config) and not _muted:
            launch.check(self.config, apart_from=before)
        # Only now: ``logging`` must not learn of a handler that could not be made.
        super().__init__(self.config.producer.level if level is None else level)
        self.errors = 0
        """Records that could only be kept as a note that they failed."""
        self.cut = 0
        """Records that were too large for the spool; their texts are cut, with a note."""
        self._terminal = terminal.find_terminal()
        # Read now: the first record may come from a ``__del__`` at interpreter teardown, without ``open``.
        self._host, self._boot_id = identity.host_name(), identity.boot_id()
        self.levels_path = os.path.join(self.config.stream_dir, LEVELS)
        """File with the levels that loggers have for a while."""
        self._next_start = 0.0
        self._start_pause = _START_PAUSE
        self._begin()
        _handlers.add(self)
        # Not looked at yet: ``dictConfig`` sets the levels of loggers when it has made the handlers.
        levels.follow(self.levels_path)
        if self.config.supervisor.autostart and launch.needs_supervisor(self.config) and not _muted:
            self._start_supervisor(before)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name in _PATCHABLE:
            self._patched = True
        if name in _DECISIVE:
            whole = self._patched or self.formatter is not None or self._own_shipper is not None
            self.takes_fields = bool(self._pid) and not whole

    def _begin(self) -> None:
        """Take up a spool of this process's own; its files are made by the first record."""
        config = self.config
        self._pid = 0
        self._process_name = ""
        self._looked_at = self._look_at = 0.0
        self._own_shipper = None
        self._closed_at = -1
        bell = launch.doorbell_path(config)
        if config.producer.ship == "thread":
            bell += f"-{os.getpid()}-{os.urandom(4).hex()}"
        self._settings = SpoolSettings(
            root=config.spool_root,
            doorbell=bell,
            max_bytes=config.producer.spool_max_bytes,
            on_full=config.producer.on_full,
            block_timeout=config.producer.block_timeout,
            shed_level=config.producer.shed_level,
        )
        self._end = ProducerEnd(self._settings, self._facts, self._somebody_must_ship)
        self._max_payload = self._settings.max_payload

    # -- the path of a record -------------------------------------------------------------------

    def handle(self, record: logging.LogRecord) -> bool:
        """Filter and emit, without ``logging``'s lock around it. A filter that raises lets the record pass.

        Raises only what reaches it from outside (``KeyboardInterrupt``, say), and ``RecursionError`` where the
        stack has no room for a single call more.
        """
        if self.filters:
            try:
                passed: Any = self.filter(record)
                rejected = not passed
            except Exception:
                passed, rejected = True, False
            if rejected:
                return False
            if isinstance(passed, logging.LogRecord):
                record = passed
        try:
            self.emit(record)
        except RecursionError:
            self._emit_with_more_stack(record)
        except MemoryError:
            try:  # noqa: SIM105 - suppress() would need memory
                self._emit_without_memory(record)
            except MemoryError:  # not even for a note that there was none
                pass
        return True

    def _emit_with_more_stack(self, record: logging.LogRecord) -> None:
        """Logged right below the recursion limit: a second try with a few frames more."""
        global _stretched
        with _limit_lock:
            if _stretched:
                raise RecursionError("logging calls itself")  # by an argument's __str__, say
            limit = sys.getrecursionlimit()
            sys.setrecursionlimit(limit)  # fails where it could not be put back either
            sys.setrecursionlimit(limit + _MORE_STACK)
            try:
                _stretched = True
                self.emit(record)
            finally:
                sys.setrecursionlimit(limit)
                _stretched = False

    def _emit_without_memory(self, record: logging.LogRecord) -> None:
        """Nothing of it is stored. What has failed may have given some back: a second try, or else a note."""
        try:
            self.emit(record)
        except MemoryError:
            self.errors += 1
            self._end.append(_NO_MEMORY, logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        """Copy one record into the spool. Of ``Exception``, raises only ``RecursionError`` and ``MemoryError``.

        Nothing of the record is stored then.
        """
        created: Any = None
        try:
            fields: Any = None
            more = None
            if _TRACING in _modules:
                more = _traced_fields(record)
            if self.formatter is None and self._own_shipper is None and more is None:
                if _put_record is not None:
                    fields = _put_record(self._end, record, self._pid, self._process_name, self._max_payload)
                if fields is None:
                    fields = _plain_fields(record, self._pid, self._process_name)
            if fields.__class__ is float:  # stored
                created = fields
            else:
                if fields is None:
                    fields = self._fields(record, more)
                if fields is None:
                    return
                created = fields[1]
                self._append(fields, getattr(record, "levelno", None))
        except RecursionError:
            raise
        except Exception as error:
            self._keep_note(record, error)
        if type(created) is not float or not self._looked_at <= created < self._look_at:
            try:  # noqa: SIM105 - right below the recursion limit, calling suppress() would be a call too many
                self.look_for_shipper()
            except (RecursionError, MemoryError):  # the record is stored: no second try
                pass

    def _append(self, fields: tuple[Any, ...], levelno: object) -> None:
        payload: Any = bytearray()  # as in `record.encode_fields`; as good as bytes to the spool
        try:
            _encode_into(fields, payload)
        except Exception:
            payload = _encode_anything(fields)
        if len(payload) > self._max_payload:
            payload = self._cut_down(fields)
        self._end.append(payload, levelno)

    def _fields(self, record: logging.LogRecord, more: dict[str, Any] | None) -> tuple[Any, ...] | None:
        """Return the fields of any record; None for what the thread that ships has logged."""
        # A replaced record factory may leave out anything; in the dictionary that is no error.
        attributes = record.__dict__
        if attributes.get("process") != self._pid:
            self._identify(attributes)
        elif self._own_shipper is not None and attributes.get("thread") == self._own_shipper.ident:
            return None
        return _any_fields(record, self._pid, self._process_name, self._text(record), more)

    def _cut_down(self, fields: tuple[Any, ...]) -> bytes:
        """Encode a record that is too large for the spool with its texts cut."""
        self.cut += 1
        return shortened(fields, self._max_payload)

    def look_for_shipper(self) -> None:
        """Once in a while, by the records' own clock: is there still somebody who ships, has a level changed?"""
        now = time.time()
        if self._looked_at <= now < self._look_at:
            return  # a record passed on from elsewhere, or without a time
        self._looked_at, self._look_at = now, now + _LOOK_INTERVAL
        levels.follow(self.levels_path)  # again, where it has been closed and is used all the same
        levels.look()
        with contextlib.suppress(Exception):
            if not doorbell.is_heard(self._settings.doorbell):
                self._somebody_must_ship()

    def _text(self, record: logging.LogRecord) -> str | None:
        """Format in the caller where a formatter is set."""
        formatter = self.formatter
        if formatter is None:
            return None
        try:
            return _safe_str(formatter.format(record))
        except Exception:
            return None

    def _identify(self, attributes: Mapping[str, Any]) -> None:
        """On a process's first record, and after a fork that ran no Python hook."""
        pid = os.getpid()
        if self._pid and self._pid != pid:
            self._after_fork()
        if not self._pid:
            self._pid = pid
            name = attributes.get("processName") if attributes.get("process") == pid else None
            self._process_name = _safe_str(name or "MainProcess")

    def _keep_note(self, log_record: logging.LogRecord, error: Exception) -> None:
        """A record that nothing can be made of (no memory, no ``LogRecord`` at all): what can be said of it."""
        self.errors += 1
        with contextlib.suppress(Exception):
            said = record.safe_str(getattr(log_record, "msg", log_record))[:1000]
            note = f"{said} [redislogkit: this is all of a record that could not be read: {record.safe_repr(error)}]"
            created = getattr(log_record, "created", None)
            name = record.safe_str(getattr(log_record, "name", ""))
            site = record.encode_site(logging.ERROR, "ERROR", name, "", 0, "")
            when = created if type(created) is float else time.time()
            fields = (1, when, note, site, record.encode_thread(None, None))
            self._end.append(_encode_anything(fields), logging.ERROR)

    def _facts(self, producer: str) -> record.Facts:
        path, device = self._terminal
        return record.Facts(
            producer=producer,
            host=self._host,
            pid=self._pid,
            process_name=self._process_name,
            started=_logging_started(),
            uid=os.geteuid(),
            tty=path,
            tty_device=device,
            boot_id=self._boot_id,
            ships_itself=self.config.producer.ship == "thread",
        )

    # -- who ships ------------------------------------------------------------------------------

    def _somebody_must_ship(self) -> None:
        """Called when nobody hears the doorbell: start who does, at most once in a while."""
        now = time.monotonic()
        if now < self._next_start:
            return
        if now - self._next_start > _CALM:
            self._start_pause = _START_PAUSE
        self._next_start = now + self._start_pause
        self._start_pause = min(2 * self._start_pause, _LONGEST_START_PAUSE)
        with contextlib.suppress(Exception):  # no room for a process or thread: the spool keeps everything
            if self.config.producer.ship == "thread":
                self._start_thread()
            if self.config.supervisor.autostart and launch.needs_supervisor(self.config):
                launch.ensure_supervisor(self.config)

    def _start_supervisor(self, before: str) -> None:
        try:
            ready = launch.ensure_supervisor(self.config)
        except OSError:
            return  # no room for a process: it is tried again while records come
        if not ready:
            launch.check(self.config, apart_from=before)

    def _start_thread(self) -> None:
        if _exiting or (self._own_shipper is not None and self._own_shipper.ident is not None):
            return
        # Loaded by name: only here does an application import redis, and only when asked to.
        module = importlib.import_module(_THREAD_MODULE)
        self._own_shipper = module.start(self.config, self._settings.doorbell, self._end.producer)

    # -- waiting, closing -----------------------------------------------------------------------

    def wait_until_written(self, timeout: float) -> bool:
        """Wait until every record up to now is written (``ack = "stream"``: is in the stream).

        Returns False when ``timeout`` seconds have not been enough, or when nobody is there to ship and nobody
        can be started.
        """
        target = self._end.stored  # nobody can wait for what was dropped behind that
        deadline = time.monotonic() + timeout
        pause = 0.0005
        while not self._has_reached(target):
            left = deadline - time.monotonic()
            if left <= 0 or not (self._end.nudge() or self._can_start_shipper()):
                return False
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, 0.01)
        return True

    def _has_reached(self, target: int) -> bool:
        by_writers = self.config.producer.ack == "writer"
        if target == self._closed_at:
            return leftover.is_done(self._settings.root, self._end.producer, target, by_writers=by_writers)
        return self._end.position(by_writers) >= target

    def _can_start_shipper(self) -> bool:
        by_thread = self.config.producer.ship == "thread" and not _exiting
        return by_thread or (self.config.supervisor.autostart and launch.needs_supervisor(self.config))

    def stats(self) -> dict[str, Any]:
        """Counts of this process: ``emitted`` records are ``written``, ``lost`` by cause, or still ``spooled``.

        That sum holds at any moment. ``spooled`` are those on their way, in the spool or in the stream;
        with ``ack = "stream"`` those in the stream count as written.
        """
        end = self._end
        account = end.account(self.config.producer.ack == "writer")
        return {
            "producer": end.producer,
            **account._asdict(),
            "spool_bytes": end.used_bytes(),
            "cut": self.cut,
            "errors": self.errors,
        }

    def close(self) -> None:
        """Leave the spool to the shipper. Waits only at interpreter exit, and not for long.

        A record that is logged later is taken all the same. The exit of the process waits for what was left
        here, too.
        """
        if _exiting:
            self._wait_at_exit()
            if self._own_shipper is not None:
                self._own_shipper.silence()
        else:
            self._leave_spool()
            levels.leave(self.levels_path)
        super().close()

    def _leave_spool(self) -> None:
        if self._closed_at != self._end.sequence:
            self._closed_at = self._end.close()
            _leave_behind(self)
        own, self._own_shipper = self._own_shipper, None
        self._next_start = 0.0
        if own is not None:
            # Not waited for: ``dictConfig`` holds logging's own lock while it closes handlers.
            own.close(self.config.producer.shutdown_timeout)

    def _wait_at_exit(self) -> None:
        """Wait as long as the ``shutdown_timeout`` is not used up, over all handlers. Ctrl-C ends it."""
        global _waited
        began = time.monotonic()
        try:
            self.wait_until_written(self.config.producer.shutdown_timeout - _waited)
        except KeyboardInterrupt:
            _waited = float("inf")
        _waited += time.monotonic() - began

    def _after_fork(self) -> None:
        """In a forked child: another process is another producer, with a spool of its own."""
        self._end.forget()
        if self._own_shipper is not None:
            self._own_shipper.forget()
        self._next_start = 0.0
        self._begin()


def shortened(fields: tuple[Any, ...], limit: int) -> bytes:
    """Encode a record that is too large for the spool with its texts cut."""
    size = len(record.encode_fields(fields))
    share = max(limit // 16, 64)

    def cut(value: Any) -> Any:
        if isinstance(value, str) and len(value) > share:
            return value[:share] + _CUT_NOTE.format(size)
        if isinstance(value, dict):
            text = record.safe_repr(value)
            return value if len(text) <= min(share, record.MAX_REPR) else {"cut": text[:share]}
        return value

    return record.encode_fields(tuple(cut(record.sanitise(field)) for field in fields))


def _logging_started() -> float:
    started: float = getattr(logging, "_startTime", 0.0)
    return started / 1e9 if started > 1e12 else float(started)  # nanoseconds since Python 3.13


_any_fields = record.record_fields
_plain_fields = record.plain_fields
_put_record: Any = compiled.MODULE and compiled.MODULE.put_record
_encode_into = record.encode_into
_encode_anything = record.encode_fields
_modules: Final = sys.modules
_TRACING: Final = tracing.API
_traced_fields = tracing.fields
#: Of a record for which there was no memory. When it was is not known any more.
_NO_MEMORY: Final = record.encode(record.unreadable("there was no memory for it"))
_safe_str = record.safe_str

#: Handlers of this process, for the hooks below.
_handlers: weakref.WeakSet[SpoolHandler] = weakref.WeakSet()
#: Closed handlers whose spools were not yet written: the exit waits for them.
_left_behind: list[SpoolHandler] = []
_exiting = False
_waited = 0.0  # seconds spent at exit so far
_limit_lock = threading.RLock()
_stretched = False


def _leave_behind(handler: SpoolHandler) -> None:
    _left_behind[:] = [
        other for other in _left_behind if other is not handler and not other._has_reached(other._closed_at)
    ]
    _left_behind.append(handler)


def _at_exit() -> None:
    """Wait for everything there is; ``logging.shutdown`` then closes the handlers that it still knows.

    ``dictConfig`` makes it forget those that were there before, and what is logged by other exit hooks
    comes in between.
    """
    global _exiting
    _exiting = True
    for handler in [*_left_behind, *_handlers]:
        handler._wait_at_exit()


def _renew_in_child() -> None:
    global _limit_lock
    _limit_lock = threading.RLock()
    _left_behind.clear()
    for handler in list(_handlers):
        handler._after_fork()


# Runs before ``logging.shutdown``, which is registered when ``logging`` is loaded: atexit goes backwards.
atexit.register(_at_exit)
os.register_at_fork(after_in_child=_renew_in_child)

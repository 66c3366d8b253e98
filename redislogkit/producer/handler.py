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
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any, Final, Protocol

from redislogkit import config as configuration
from redislogkit import identity, launch, record, terminal
from redislogkit.config import Config
from redislogkit.errors import SpoolError
from redislogkit.spool import doorbell, header
from redislogkit.spool.producer_end import ProducerEnd, SpoolSettings

_START_PAUSE: Final = 5.0
_LOOK_INTERVAL: Final = 1.0
_CUT_NOTE: Final = " … [redislogkit: cut, the record had {} bytes]"


class OwnShipper(Protocol):
    """What ``ship = "thread"`` needs of the thread that ships. Implemented elsewhere, as it imports redis."""

    ident: int | None

    def close(self, timeout: float) -> None:
        """Tell it to ship what is left, at most ``timeout`` seconds long, and to end; do not wait for it."""


class SpoolHandler(logging.Handler):
    """Puts records into the spool; the supervisor ships them.

    Usable from a ``dictConfig`` of one's own: ``{"class": "redislogkit.SpoolHandler", "config": "log.toml"}``.
    With a formatter set, the text is made in the calling process and written verbatim by text writers.

    Args:
        config: As for `redislogkit.configure`: a path, a mapping, or None; or a loaded configuration.
        level: Level of the handler; by default ``producer.level`` of the configuration.

    Raises:
        ConfigError: The configuration is wrong.
        SpoolError: ``state_dir`` can not be used.
    """

    def __init__(
        self,
        config: str | os.PathLike[str] | Mapping[str, Any] | Config | None = None,
        level: int | str | None = None,
    ) -> None:
        self.config = config if isinstance(config, Config) else configuration.load(config)
        super().__init__(self.config.producer.level if level is None else level)
        try:
            launch.prepare(self.config)
        except OSError as error:
            raise SpoolError(
                f"state_dir must be a folder that this process can write to, got {self.config.state_dir}: {error}"
            ) from error
        self.errors = 0
        """Records that could only be kept as a note that they failed."""
        self._terminal = terminal.find_terminal()
        self._next_start = 0.0
        self._own_shipper: OwnShipper | None = None
        self._own_thread: int | None = None
        self._begin()
        _handlers.add(self)
        if self.config.producer.ship == "supervisor":
            self._somebody_must_ship()

    def _begin(self) -> None:
        """Take up a spool of this process's own; its files are made by the first record."""
        config = self.config
        self._pid = 0
        self._process_name = ""
        self._append_lock = threading.RLock()
        self._looked_at = self._look_at = 0.0
        self._own_shipper = None
        self._own_thread = None
        bell = launch.doorbell_path(config)
        if config.producer.ship == "thread":
            bell += f"-{os.getpid()}-{os.urandom(4).hex()}"
        self._settings = SpoolSettings(
            root=os.path.join(config.stream_dir, "spool"),
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
        """Filter and emit, without ``logging``'s lock around it. A filter that raises lets the record pass."""
        try:
            passed: Any = self.filter(record)
        except Exception:
            passed = True
        if isinstance(passed, logging.LogRecord):
            record = passed
        if passed:
            self.emit(record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        """Copy one record into the spool. Never raises ``Exception``."""
        if record.process != self._pid:
            self._identify(record)
        elif record.thread == self._own_thread is not None:
            return
        try:
            fields = _fields(record, self._pid, self._process_name, self._text(record))
            payload = _encode(fields)
            if len(payload) > self._max_payload:
                payload = shortened(fields, self._max_payload)
            with self._append_lock:
                self._end.append(payload, record.levelno)
            if not self._looked_at <= record.created < self._look_at:
                self._look_for_shipper(record.created)
        except Exception as error:
            self._keep_note(record, error)

    def _look_for_shipper(self, created: float) -> None:
        """Once in a while, by the records' own clock: is there still somebody who ships?"""
        self._looked_at, self._look_at = created, created + _LOOK_INTERVAL
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

    def _identify(self, record: logging.LogRecord) -> None:
        """On a process's first record, and after a fork that ran no Python hook."""
        pid = os.getpid()
        if self._pid and self._pid != pid:
            self._after_fork()
        if not self._pid:
            self._pid = pid
            name = record.processName if record.process == pid else None
            self._process_name = _safe_str(name or "MainProcess")

    def _keep_note(self, log_record: logging.LogRecord, error: Exception) -> None:
        """A record that nothing can be made of (no stack left, no memory): what can be said about it."""
        self.errors += 1
        with contextlib.suppress(Exception):
            note = f"[redislogkit: record lost: {record.safe_repr(error)}] {record.safe_str(log_record.msg)[:1000]}"
            created = float(log_record.created)
            place = (record.safe_str(log_record.name), note, "", 0, "", None, None)
            payload = record.encode((1, created, 40, "ERROR", *place))
            with self._append_lock:
                self._end.append(payload, 40)

    def _facts(self, producer: str) -> record.Facts:
        path, device = self._terminal
        return record.Facts(
            producer=producer,
            host=identity.host_name(),
            pid=self._pid,
            process_name=self._process_name,
            started=_logging_started(),
            uid=os.geteuid(),
            tty=path,
            tty_device=device,
            boot_id=identity.boot_id(),
            ships_itself=self.config.producer.ship == "thread",
        )

    # -- who ships ------------------------------------------------------------------------------

    def _somebody_must_ship(self) -> None:
        """Called when nobody hears the doorbell: start who does, at most once in a while."""
        now = time.monotonic()
        if now < self._next_start:
            return
        self._next_start = now + _START_PAUSE
        with contextlib.suppress(Exception):  # no room for a process or thread: the spool keeps everything
            if self.config.producer.ship == "thread":
                self._start_thread()
            if self.config.supervisor.autostart and _needs_supervisor(self.config):
                launch.ensure_supervisor(self.config)

    def _start_thread(self) -> None:
        if self._own_shipper is None and not _exiting:
            # Loaded by name: only here does an application import redis, and only when asked to.
            module = importlib.import_module("redislogkit.ship.thread")
            self._own_shipper = module.start(self.config, self._settings.doorbell, self._end.producer)
            self._own_thread = self._own_shipper.ident

    # -- waiting, closing -----------------------------------------------------------------------

    def wait_until_written(self, timeout: float) -> bool:
        """Wait until every record up to now is written (``ack = "stream"``: is in the stream).

        Returns False when ``timeout`` seconds have not been enough.
        """
        target = self._end.sequence
        by_writers = self.config.producer.ack == "writer"
        deadline = time.monotonic() + timeout
        pause = 0.0005
        while self._end.position(by_writers) < target:
            left = deadline - time.monotonic()
            if left <= 0 or not (self._end.nudge() or self.config.supervisor.autostart):
                return False
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, 0.01)
        return True

    def stats(self) -> dict[str, Any]:
        """Counts of this process: sequences, what was lost by cause, what waits."""
        end = self._end
        written = end.position(self.config.producer.ack == "writer")
        lost = dict(zip(header.CAUSES, end.lost, strict=True))
        return {
            "producer": end.producer,
            "emitted": end.sequence - end.notices,
            "written": written - end.notices - sum(end.lost) if written == end.sequence else None,
            "lost": lost,
            "spooled": end.sequence - written,
            "spool_bytes": end.used_bytes(),
            "errors": self.errors,
        }

    def close(self) -> None:
        """Leave the spool to the shipper. At interpreter exit wait for the writers, but not for long."""
        timeout = self.config.producer.shutdown_timeout
        if _exiting:
            self.wait_until_written(timeout)
        else:
            with self._append_lock:
                self._end.close()
            if self._own_shipper is not None:
                # Not waited for: ``dictConfig`` holds logging's own lock while it closes handlers.
                self._own_shipper.close(timeout)
                self._own_shipper = self._own_thread = None
        super().close()

    def _after_fork(self) -> None:
        """In a forked child: another process is another producer, with a spool of its own."""
        self._end.forget()
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


def _needs_supervisor(config: Config) -> bool:
    """False where a process ships its own records to a server elsewhere and nothing is written here."""
    alone = config.producer.ship == "thread" and not config.writers
    return not alone or config.redis.url.startswith("embedded:")


def _logging_started() -> float:
    started: float = getattr(logging, "_startTime", 0.0)
    return started / 1e9 if started > 1e12 else float(started)  # nanoseconds since Python 3.13


_fields = record.record_fields
_encode = record.encode_fields
_safe_str = record.safe_str

#: Handlers of this process, for the hooks below.
_handlers: weakref.WeakSet[SpoolHandler] = weakref.WeakSet()
_exiting = False


def _note_exit() -> None:
    global _exiting
    _exiting = True


def _renew_in_child() -> None:
    for handler in list(_handlers):
        handler._after_fork()


# Runs before ``logging.shutdown``, which is registered when ``logging`` is loaded: atexit goes backwards.
atexit.register(_note_exit)
os.register_at_fork(after_in_child=_renew_in_child)

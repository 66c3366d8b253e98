"""Two hierarchies of loggers, one of the stdlib's and one of fast ones, and everything that can be seen of a call."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, Final
from unittest import mock

from redislogkit.producer import fast
from redislogkit.producer.handler import SpoolHandler
from redislogkit.record import Facts, Loss, Record, RichRecord, decode_items
from redislogkit.spool.shipper_end import ShipperEnd, spool_names
from tests.helpers.records import NAMES

NAME: Final = "app.db"
#: Names of threads that each side has its own of.
HAS_A_THREAD_OF_ITS_OWN: Final = frozenset(["Worker", "fake", "before", "after", "\\ud812", "\ud812"])
_ADDRESS: Final = re.compile(r"0x[0-9a-f]{6,}|(?<=id=')[0-9]+")
_FRAME_OF_LOGGING: Final = re.compile(
    rf'  File "{re.escape(logging.__file__)}", line \d+, in (\w+)\n(?:    .*(?:\n|$))*'
)
_emit: Final = SpoolHandler.emit
INSIDE: Final = (logging.__file__, os.path.dirname(os.path.dirname(fast.__file__)))
_METHODS: Final = {
    name: getattr(logging.Logger, name) for name in ("debug", "info", "warning", "error", "critical")
}


def without_addresses(text: str) -> str:
    """Return ``text`` with the same for every address."""
    return _ADDRESS.sub("0x", text) if "0x" in text or "id='" in text else text


def _now() -> float:
    """Return the time by the clock that ``logging`` asks, which may be patched."""
    return time.time_ns() / 1e9 if sys.version_info >= (3, 13) else time.time()


def printable(value: object) -> str:
    """Return its ``repr``, in which no address differs."""
    try:
        return without_addresses(repr(value))
    except Exception as error:
        return f"a {type(value).__name__} without repr: {error!r}"


class Keeper(logging.Handler):
    """Another handler: keeps what it is given."""

    def __init__(self, level: int = 0) -> None:
        super().__init__(level)
        self.kept: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep all that does not depend on the moment."""
        moment = ("created", "msecs", "relativeCreated")
        values = {key: value for key, value in vars(record).items() if key not in moment}
        if record.threadName in HAS_A_THREAD_OF_ITS_OWN:
            values["thread"] = "its own"
        self.kept.append({key: printable(value) for key, value in values.items()})


class Side:
    """One hierarchy with a manager of its own: ``root``, ``app``, ``app.db``. Its handler is the root's."""

    def __init__(self, folder: str, logger_class: type[logging.Logger], root_class: type) -> None:
        self.kinds = (logger_class, root_class)
        self.folder = folder
        self.handler = SpoolHandler(
            {
                "state_dir": folder,
                "supervisor": {"autostart": False},
                "producer": {"spool_max_bytes": 2**22},
                "writers": {"app": {"type": "file", "path": f"{folder}/app.log"}},
            }
        )
        self.reader: ShipperEnd | None = None
        self.emitted = 0
        self.keepers: list[Keeper] = []
        self.renew()

    def renew(self) -> None:
        """Begin with new loggers."""
        logger_class, root_class = self.kinds
        self.root: logging.Logger = root_class(logging.DEBUG)
        self.root.manager = self.manager = logging.Manager(self.root)
        self.manager.loggerClass = logger_class
        self.log = self.manager.getLogger(NAME)
        self.app = self.manager.getLogger("app")
        self.root.addHandler(self.handler)
        self.keepers = []

    def keep(self, logger: logging.Logger, level: int = 0) -> Keeper:
        """Add another handler to a logger of this side."""
        keeper = Keeper(level)
        self.keepers.append(keeper)
        logger.addHandler(keeper)
        return keeper

    @property
    def root_folder(self) -> str:
        """Where its spools are."""
        return os.path.join(self.handler.config.stream_dir, "spool")

    def read(self) -> list[Record]:
        """Return what this process has spooled since the last time."""
        names = spool_names(self.root_folder) if os.path.isdir(self.root_folder) else []
        if self.reader is None and names:
            (name,) = names
            self.reader = ShipperEnd(os.path.join(self.root_folder, name), print)
        if self.reader is None:
            return []
        found = decoded(payload for run in self.reader.read(2**40) for payload in run.payloads)
        self.reader.set_written(self.reader.read_sequence)
        self.reader.release(self.reader.read_sequence)
        return found

    def read_others(self) -> list[Record]:
        """Return what other producers have spooled below this folder: children."""
        found = []
        for name in spool_names(self.root_folder):
            if not name.startswith(self.handler._end.producer):
                end = ShipperEnd(os.path.join(self.root_folder, name), print)
                found += decoded(payload for run in end.read(2**40) for payload in run.payloads)
                end.close()
        return found

    def other_facts(self) -> list[Facts]:
        """Return what other producers below this folder say of themselves."""
        found = []
        for name in spool_names(self.root_folder):
            if not name.startswith(self.handler._end.producer):
                end = ShipperEnd(os.path.join(self.root_folder, name), print)
                found.append(end.facts)
                end.close()
        return found

    def close(self) -> None:
        """Leave nothing open."""
        self.handler.close()
        if self.reader is not None:
            self.reader.close()


def decoded(payloads: Any) -> list[Record]:
    """Decode; none may be a notice of a loss."""
    items: list[Any] = []
    for payload in payloads:
        items += decode_items(b"\x91" + payload)
    assert not [item for item in items if isinstance(item, Loss)]
    return items


def _is_patched(name: str) -> bool:
    """True where a method of the class is patched: ours, which calls it, stands in the stack as well."""
    return name in _METHODS and getattr(logging.Logger, name) is not _METHODS[name]


def _stack_without_ours(stack: str) -> str:
    return _FRAME_OF_LOGGING.sub(lambda found: "" if _is_patched(found[1]) else found[0], stack)


def seen(record: Record) -> dict[str, Any]:
    """Return every field of a record but its time."""
    values = {name: getattr(record, name) for name in NAMES if name != "created"}
    values["stack_info"] = record.stack_info and _stack_without_ours(record.stack_info)
    values["rich"] = type(record) is RichRecord and record.created != 0.0
    if record.thread_name in HAS_A_THREAD_OF_ITS_OWN:
        values["thread"] = "its own"
    if record.overrides is not None:
        values["overrides"] = own = dict(record.overrides)
        # Nanoseconds just below a whole millisecond: those of the fraction of ``created`` may be one more, or less.
        own["msecs"] = abs(own.get("msecs", -9) - record.created % 1.0 * 1000) < 1.001
        if own == {"process": os.getpid(), "processName": "MainProcess", "msecs": True}:
            others = (record.task_name, record.exc_text, record.stack_info, record.extra, record.text)
            values |= {"overrides": None, "rich": others != (None,) * 5}
    return {
        key: without_addresses(value) if isinstance(value, str) else value for key, value in values.items()
    }


def raised(error: BaseException) -> tuple[Any, ...]:
    """Return what can be seen of an exception: also the stack that it has come through.

    An interrupted call is interrupted where it is.
    """
    stack = []
    for entry in traceback.extract_tb(error.__traceback__):
        ours = entry.filename == logging.__file__ and _is_patched(entry.name)
        inside = (
            not isinstance(error, Exception) and entry.filename.startswith(INSIDE)
        ) or entry.name == "emit"
        if not ours and not inside:
            stack += traceback.format_list([entry])
    return type(error), without_addresses(str(error)), without_addresses("".join(stack))


def difference(stock: Any, quick: Any) -> str:
    """Say where they differ."""
    if isinstance(stock, list) and isinstance(quick, list) and len(stock) == len(quick):
        return "; ".join(difference(*pair) for pair in zip(stock, quick, strict=True) if pair[0] != pair[1])
    if isinstance(stock, dict) and isinstance(quick, dict):
        return "; ".join(
            f"{key}: {stock[key]!r:.1500} {quick[key]!r:.1500}" for key in stock if stock[key] != quick[key]
        )
    return f"\n{stock!s:.3000}\n and not \n{quick!s:.3000}"


class Twins:
    """A stock side and a fast side, and the calls that both have seen."""

    def __init__(self, folder: str) -> None:
        self.stock = Side(f"{folder}/stock", logging.Logger, logging.RootLogger)
        self.fast = Side(f"{folder}/fast", fast._FastLogger, fast._FastRootLogger)
        self.sides = (self.stock, self.fast)
        self.calls = 0
        self.fast_ways = 0
        """Records of the fast side that no handler has emitted."""

    def renew(self) -> None:
        """Begin with new loggers, under the same handlers."""
        for side in self.sides:
            side.renew()

    def compare(self, call: Callable[[Side], object], passes: int = 3) -> int:
        """Have both make the call, again and again; return how often the fast way was taken.

        Raises ``AssertionError`` where a difference shows.
        """
        before = self.fast_ways
        for number in range(passes):
            stock, quick = (self._observe(side, call) for side in self.sides)
            for what, value in stock.items():
                if quick[what] != value:
                    raise AssertionError(f"pass {number}, {what}: {difference(value, quick[what])}")
            self.calls += 1
        return self.fast_ways - before

    def _observe(self, side: Side, call: Callable[[Side], object]) -> dict[str, Any]:
        errors, emitted = io.StringIO(), 0

        def emit(handler: SpoolHandler, record: logging.LogRecord) -> None:
            nonlocal emitted
            before = handler._end.sequence
            _emit(handler, record)
            emitted += handler._end.sequence > before

        counts = (side.handler.errors, side.handler.cut)
        result: Any = None
        thrown: Any = None
        begin = _now()
        with mock.patch.object(SpoolHandler, "emit", emit), mock.patch.object(sys, "stderr", errors):
            try:
                result = call(side)
            except BaseException as error:
                thrown = raised(error)
        end = _now()
        records = side.read()
        for record in records:
            assert begin <= record.created <= end or record.created == 0.0, (begin, record.created, end)
        kept = [keeper.kept[:] for keeper in side.keepers]
        for keeper in side.keepers:
            keeper.kept.clear()
        if side is self.fast:
            self.fast_ways += len(records) - emitted
        return {
            "result": printable(result),
            "raised": thrown,
            "stderr": without_addresses(errors.getvalue()),
            "records": [seen(record) for record in records],
            "kept": kept,
            "counts": (side.handler.errors - counts[0], side.handler.cut - counts[1]),
        }

    def close(self) -> None:
        """Leave nothing open."""
        for side in self.sides:
            side.close()


@contextmanager
def attribute(owner: Any, name: str, value: Any) -> Any:
    """Set an attribute for a while, as ``owner.name = value`` does."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)

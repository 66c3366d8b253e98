"""What is killed at each of its points: producer, shipper, writer, and all of them in one process.

Every scene logs numbered records of its own producers and ends with the files: each record that was taken is
there once, whole, in its producer's order, and nothing is left over on disk or in the server.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import random
import re
import signal
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Final

from redislogkit import config as redislogkit_config
from redislogkit import formatting, launch, locking, record
from redislogkit.config import FormatterConfig
from redislogkit.producer.handler import SpoolHandler
from redislogkit.record import Facts, Loss, Record
from redislogkit.ship.shipper import Encode, Shipper, ShipperSettings
from redislogkit.spool import header, segment
from redislogkit.spool.doorbell import Doorbell
from redislogkit.spool.producer_end import ProducerEnd, SpoolSettings
from redislogkit.spool.shipper_end import ShipperEnd, spool_names
from redislogkit.stream import batch, entries, records
from redislogkit.stream.batch import RawRun
from redislogkit.stream.client import RawEntry, StreamClient
from redislogkit.supervisor import manager
from redislogkit.writers import checkpoint, index
from redislogkit.writers.archive import Archivist
from redislogkit.writers.base import Writer
from redislogkit.writers.checkpoint import Checkpoint
from redislogkit.writers.file import FileDestination
from stress import checker
from tests.helpers import crashes, filewriter, settings
from tests.helpers.crashes import Faults, Place, Scene
from tests.helpers.filewriter import START
from tests.helpers.server import client

RUN: Final = "crash"
WRITER: Final = "app"
INFO: Final = 20
#: Segments so small that a few records fill one.
SEGMENT: Final = 12 * 1024
_BOUND: Final = 8 * SEGMENT


def record_of(worker: str, n: int, size: int = 0, created: float = START) -> Record:
    text = checker.message(RUN, worker, n, size)
    return record.build(created, INFO, "INFO", "app", text, "/app.py", 1, "main", 1, "MainThread")


def encoder(layout: str) -> Encode:
    if layout == "records":
        return records.encoder(formatting.build(FormatterConfig(format="%(message)s")))
    return lambda runs: [batch.encode(runs, "none", bytes)]


# -- parts ------------------------------------------------------------------------------------------------------


class Worker:
    """A producer whose appends are counted; its name in the file is ``name``."""

    def __init__(self, root: str, name: str, max_bytes: int = _BOUND) -> None:
        settings = SpoolSettings(root, os.path.join(root, "nobody"), max_bytes, "drop_new", 0.0, 10)
        self.name = name
        self.logged = 0
        self.end = ProducerEnd(settings, lambda producer: facts(producer))
        self.end.producer = f"{name}{os.urandom(4).hex()}"

    def log(self, count: int, size: int = 0) -> Worker:
        for _ in range(count):
            self.end.append(record.encode(record_of(self.name, self.logged, size)), INFO)
            self.logged += 1
        return self

    def tear(self) -> None:
        """Begin a record that will never be whole."""
        position, mapped = self.end._position, self.end._map
        payload = record.encode(record_of(self.name, self.logged))
        mapped[position + segment.FRAME_SIZE : position + segment.FRAME_SIZE + 20] = payload[:20]
        mapped[position : position + 4] = len(payload).to_bytes(4, "little")

    def die(self) -> None:
        """Descriptors are closed, nothing else."""
        page, mapped = self.end._header, self.end._map
        self.end._header = self.end._map = None
        for part in (page, mapped):
            if part is not None:
                part.close()


def facts(producer: str) -> Facts:
    return Facts(producer, "web1", 4711, "MainProcess", START, os.getuid())


class SmallReadings(StreamClient):
    """Gives few entries at once, so that a short stream makes several readings."""

    at_once = 3

    def read(
        self, writer: str, after: str, count: int, block: float, wake: Sequence[int] = ()
    ) -> list[RawEntry]:
        return super().read(writer, after, min(count, self.at_once), block, wake)


def make_shipper(
    place: Place, bell: Doorbell, layout: str = "batches", writers: tuple[str, ...] = (WRITER,)
) -> Shipper:
    settings = ShipperSettings(
        root=place.spool, flush_interval=0.0, buffer_size=1000, max_records=10**7, writers=writers,
        registered=writers,
    )  # fmt: skip
    return Shipper(settings, place.connect, encoder(layout), bell, lambda line: None)


def make_writer(place: Place, reports: list[str], *, at_once: bool = True, **keys: Any) -> Writer:
    """The real writer of ``app.log``.

    With ``at_once`` its archivist works in the same thread, so that runs make the same steps.
    """
    if at_once:
        Archivist.submit = _work_at_once  # type: ignore[method-assign, assignment]
    # As in the time of the records; the files' own times are those of today, and not looked at.
    destination = FileDestination(
        config(place, **keys),
        reports.append,
        lambda: START + 60,
        index_folder=index.folder(place.state, WRITER),
    )
    os.makedirs(os.path.join(place.state, "checkpoints"), exist_ok=True)
    return Writer(
        WRITER, lambda: SmallReadings(place.url, place.stream), destination,
        Checkpoint(os.path.join(place.state, "checkpoints", WRITER)), lambda level, name: True, reports.append, block=0.0,
        owner="here",
    )  # fmt: skip


def config(place: Place, **keys: Any) -> Any:
    return filewriter.config(place.path("log", "app.log"), **keys)


def _work_at_once(archivist: Archivist) -> None:
    archivist.release()
    archivist.work()


def ship_and_write(
    place: Place,
    *,
    layout: str = "batches",
    on_round: Callable[[Shipper], None] = lambda shipper: None,
    until: Callable[[Shipper], bool] = Shipper.is_drained,
    **keys: Any,
) -> list[str]:
    """Shipper and writer take turns until everything is safe; return what they reported."""
    reports: list[str] = []
    bell = Doorbell(place.path("doorbell"))
    shipper = make_shipper(place, bell, layout)
    writer = make_writer(place, reports, **keys)
    rounds = 0

    def turn(_: object) -> None:
        nonlocal rounds
        rounds += 1
        assert rounds < 2_000, f"never drained: {shipper.status()}, {reports}, {_positions(shipper)}"
        shipper.step(draining=True)
        on_round(shipper)

    try:
        writer.run(lambda: rounds > 3 and until(shipper), turn)
    finally:
        shipper.close()
        bell.close()
    return reports


def _positions(shipper: Shipper) -> list[str]:
    """Where each spool stands, for a message."""
    return [
        f"{os.path.basename(spool.directory)}: read {spool.read_sequence}, shipped {spool.shipped}, "
        f"written {spool.written}, dead {spool.owner_dead}, finished {spool.finished}, news {spool.has_news()}"
        for spool in shipper._spools.values()
    ]


# -- what must be true at the end -------------------------------------------------------------------------------


def check_files(place: Place, expected: dict[str, int], in_doubt: int = 0) -> None:
    """Every record once, whole, in order; so many more of each worker may be there or not."""
    paths = checker.rotated_files(place.path("log", "app.log"))
    report = checker.check(paths, expected, RUN, in_doubt=in_doubt)
    assert report.ok, f"{report} in {[(os.path.basename(path), os.path.getsize(path)) for path in paths]}"


def other_lines(place: Place) -> list[bytes]:
    """Lines that are no records of ours: notices of losses."""
    found: list[bytes] = []
    for path in checker.rotated_files(place.path("log", "app.log")):
        with checker.open_log(path) as lines:
            found += [line for line in lines if checker.MARKER not in line]
    return found


def check_nothing_is_left(
    place: Place, *, producers: bool = False, resent: bool = False, forgotten: bool = False
) -> None:
    """No temporary file, no spool, nothing pending or remembered in the server.

    ``producers``: there are more, so only files count. ``resent``: what a second shipper has sent after the burial
    lets the server remember a producer's last sequence; the writers have dropped it. ``forgotten``: so has the server
    the goodbye of a producer before the writers had read it; they remember how far it came.
    """
    for folder, _, names in os.walk(place.folder):
        strange = [name for name in names if name.endswith((".tmp", ".new"))]
        assert not strange, f"left in {folder}: {strange}"
    if producers:
        return
    if os.path.isdir(place.spool):
        assert os.listdir(place.spool) == []
    if not resent:
        assert producers_known(place, "sequences") == {}
    if not forgotten:
        assert producers_known(place, f"written:{WRITER}") == {}
    with client(place.url) as connection:
        pending = connection.xpending(place.stream, WRITER)
        assert pending["pending"] == 0, f"entries are pending for ever: {pending}"


def check_index(place: Place) -> None:
    """What the index says is in the files: each chunk's bytes, and each producer's sequences without a gap.

    Only where nothing has expired.
    """
    reached: dict[str, int] = {}
    about = [index.read(path) for path in index.index_files(index.folder(place.state, WRITER))]
    about = [each for each in about if any(chunk.end > chunk.start for chunk in each.chunks)]
    contents = [
        content for path in checker.rotated_files(place.path("log", "app.log")) if (content := _read(path))
    ]
    assert len(about) == len(contents), f"{len(about)} files have an index, {len(contents)} have lines"
    for each, content in zip(about, contents, strict=True):
        for chunk in each.chunks:
            assert zlib.crc32(content[chunk.start : chunk.end]) == chunk.crc, chunk
            for span in chunk.spans:
                follows = reached.get(span.producer, span.first - 1)  # the first ones may have been dropped
                assert span.first == follows + 1, (span, reached)
                reached[span.producer] = span.last


def _read(path: str) -> bytes:
    with checker.open_log(path) as lines:
        return b"".join(lines)


def producers_known(place: Place, key: str) -> dict[str, int]:
    """What the server remembers of producers under one of the product's keys; ``@`` is for other things."""
    with client(place.url) as connection:
        found = connection.hgetall(f"{{{place.stream}}}:redislogkit:{key}")
    return {name.decode(): int(value) for name, value in found.items() if not name.startswith(b"@")}


# -- shipper ----------------------------------------------------------------------------------------------------


class Shipping(Scene):
    """Dead and living producers, two spools of one producer, a torn record, a burial; then the server forgets.

    The writer works in the same process, as only what it has written lets the shipper go on.
    """

    name = "shipping"
    steps = 90
    layout = "batches"
    forgets = True
    """The server loses its memory when the first records have been shipped and none is written."""

    def prepare(self) -> None:
        root = self.place.spool
        os.makedirs(root)
        self.twice = Worker(root, "twice").log(3)
        self.twice.end.close()
        self.twice.log(2)
        self.torn = Worker(root, "torn").log(2)
        self.torn.tear()
        self.living = Worker(root, "living").log(5, size=3_000)
        for worker in (self.twice, self.torn):
            worker.die()

    @property
    def workers(self) -> list[Worker]:
        return [self.twice, self.torn, self.living]

    def run(self, faults: Faults) -> None:
        self.living.end.forget()
        self._ship(faults, forgets=self.forgets)

    def again(self, faults: Faults) -> None:
        self.living.end.forget()
        self._ship(faults, forgets=False)

    def _ship(self, faults: Faults, *, forgets: bool) -> None:
        def on_round(shipper: Shipper) -> None:
            nonlocal forgets
            if forgets and shipper.shipped_records:
                forgets = False
                with faults.suspended():
                    self.place.flush()

        ship_and_write(self.place, layout=self.layout, on_round=on_round)

    def between(self, turn: int) -> None:
        self.living.log(1)
        if not self.forgets:
            self.place.flush(only_stream=turn % 2 > 0)

    def before_check(self) -> None:
        self.living.log(1)
        self.living.die()

    def check(self, faults: Faults) -> None:
        ship_and_write(self.place, layout=self.layout)
        check_files(self.place, {worker.name: worker.logged for worker in self.workers})
        assert other_lines(self.place) == []
        resent = self.races or os.path.exists(self.place.path(crashes.LATE))
        check_nothing_is_left(self.place, resent=resent, forgotten=not self.forgets)

    races = False

    def close(self) -> None:
        for worker in self.workers:
            worker.die()


class ShippingRecords(Shipping):
    """The same with the layout of one entry a record, and a server that forgets after each kill."""

    name = "shipping-records"
    layout = "records"
    forgets = False


class ShippingOnly(Shipping):
    """Without a writer the stream's word releases the spools; then it is the stream that has each record once."""

    name = "shipping-only"
    ways: ClassVar[tuple[str, ...]] = ("before", "twice")

    def _ship(self, faults: Faults, *, forgets: bool) -> None:
        bell = Doorbell(self.place.path("doorbell"))
        shipper = make_shipper(self.place, bell, writers=())
        assert shipper.run(lambda: True)
        bell.close()

    def between(self, turn: int) -> None:
        self.living.log(1)

    def check(self, faults: Faults) -> None:
        self._ship(faults, forgets=False)
        assert os.listdir(self.place.spool) == []
        assert producers_known(self.place, "sequences") == {}
        found: dict[str, list[bytes]] = {worker.name: [] for worker in self.workers}
        with client(self.place.url) as connection:
            for entry_id, fields in connection.xrange(self.place.stream):
                for run in entries.decode(entry_id, fields):
                    texts = [item.message.encode() for item in run.items if isinstance(item, Record)]
                    found[run.facts.producer[:-8]] += texts
        for worker in self.workers:
            numbers = [int(text.split()[2]) for text in found[worker.name]]
            assert numbers == list(range(worker.logged)), (worker.name, numbers)


# -- writer -----------------------------------------------------------------------------------------------------


class Writing(Scene):
    """Several readings of two producers, one of which has lost records and one says goodbye, over rotations."""

    name = "writing"
    steps = 60
    settings: ClassVar[dict[str, Any]] = {"max_bytes": 500, "backup_count": 60}
    layout = "batches"
    #: Compression and retention in the writer's own thread.
    at_once = True
    #: After a kill the server forgets everything, and it comes again, the producers mixed in another way.
    forgets = False
    #: Somebody else's half line, which is there before.
    foreign = b""
    #: Archives may go by the rules.
    expires = False
    length = 12

    def prepare(self) -> None:
        os.mkdir(self.place.path("log"))
        if self.foreign:
            with open(self.place.path("log", "app.log"), "wb") as file:
                file.write(self.foreign)
        self.fill(0)

    def runs(self, seed: int) -> list[RawRun]:
        """What the shipper would send; each producer's runs in their order, else mixed by ``seed``."""
        waiting = {name: list(self._runs_of(name)) for name in ("left", "gone")}
        chance = random.Random(seed)
        found = []
        while waiting:
            name = chance.choice(list(waiting))
            found.append(waiting[name].pop(0))
            if not waiting[name]:
                del waiting[name]
        return found

    def _runs_of(self, name: str) -> Iterator[RawRun]:
        """Half of them are followed by a loss of three, which takes the sequences behind them and its own."""
        payloads = [record.encode(record_of(name, n, 60, START + n)) for n in range(self.length)]
        first, middle = 1, self.length // 2
        for begin in range(0, self.length, 2):
            if begin == middle and name == "left":
                loss = record.encode(Loss(first, first + 2, "shed", START))
                yield RawRun(facts(name), first + 3, [loss])
                first += 4
            yield RawRun(facts(name), first, payloads[begin : begin + 2])
            first += 2
        if name == "gone":
            yield RawRun(facts(name), first, [record.encode(record.End())])

    def fill(self, seed: int) -> None:
        """Append everything."""
        encode = encoder(self.layout)
        source = self.place.connect()
        try:
            epoch = source.attach("epoch", [WRITER])
            for run in self.runs(seed):
                added = encode([run])
                if len(run.payloads) == 1 and run.facts.producer == "gone":
                    added = [entry._replace(last=[]) for entry in added]
                assert source.append(added, epoch, 10**6) == len(added)
        finally:
            source.close()

    def run(self, faults: Faults) -> None:
        self.reports = self.write()

    def write(self) -> list[str]:
        """Run the writer until it has read the stream to its end."""
        reports: list[str] = []
        begun: list[object] = []
        make_writer(self.place, reports, at_once=self.at_once, **self.settings).run(
            lambda: len(begun) > 1, begun.append
        )
        return reports

    def between(self, turn: int) -> None:
        if self.forgets:
            self.place.flush(only_stream=turn % 2 > 0)
            self.fill(turn + 1)

    def check(self, faults: Faults) -> None:
        self.write()  # where the last run has lost its lease to a command of its predecessor
        self.check_content()
        assert producers_known(self.place, f"written:{WRITER}") == {"left": self.length + 4}
        with client(self.place.url) as connection:
            assert connection.xpending(self.place.stream, WRITER)["pending"] == 0
        check_nothing_is_left(self.place, producers=True)
        if self.forgets:  # what is written is known for ever
            before = self.content()
            self.place.flush()
            self.fill(99)
            self.write()
            assert self.content() == before

    def content(self) -> list[bytes]:
        """The lines of all files, oldest first."""
        found: list[bytes] = []
        for path in checker.rotated_files(self.place.path("log", "app.log")):
            with checker.open_log(path) as lines:
                found += lines
        return found

    def check_content(self) -> None:
        if self.expires:
            self._check_rest()
            return
        check_files(self.place, {"left": self.length, "gone": self.length})
        notices = other_lines(self.place)
        if self.foreign:
            assert notices.pop(0) == self.foreign + b"\n"
        assert len(notices) == 1 and b"shed" in notices[0], notices
        check_index(self.place)
        lines = [line for line in self.content() if b" left " in line or line == notices[0]]
        assert lines.index(notices[0]) == self.length // 2, "the loss is told at another place"

    def _check_rest(self) -> None:
        """What is left has no hole, and no more is gone than had to go."""
        lines = [line for line in self.content() if checker.MARKER in line]
        for name in ("left", "gone"):
            own = [int(line.split()[2]) for line in lines if line.split()[1] == name.encode()]
            assert own == list(range(self.length - len(own), self.length)), (name, own)
        assert len(lines) >= self.length, f"{len(lines)} lines are left"


class WritingNumbers(Writing):
    """Backups by number, all numbers taken, compressed."""

    name = "writing-numbers"
    settings: ClassVar[dict[str, Any]] = {"max_bytes": 400, "backup_count": 3, "compress": "gzip"}
    expires = True


class WritingThreads(Writing):
    """Archives are compressed by a thread while writing goes on: the steps of both come in any order."""

    name = "writing-threads"
    ways: ClassVar[tuple[str, ...]] = ("before", "half", "twice")
    settings: ClassVar[dict[str, Any]] = {"max_bytes": 300, "backup_count": 60, "compress": "gzip"}
    at_once = False
    steps = 150


class WritingStamps(Writing):
    """Backups by time, compressed otherwise, bounded by their size."""

    name = "writing-stamps"
    settings: ClassVar[dict[str, Any]] = {
        "max_bytes": 400, "naming": "timestamp", "backup_count": 50, "compress": "zstd", "max_total_bytes": 1_000,
    }  # fmt: skip
    expires = True


class WritingTimes(Writing):
    """A new file every four seconds, none of which goes."""

    name = "writing-times"
    settings: ClassVar[dict[str, Any]] = {
        "when": "S", "interval": 4, "naming": "timestamp", "backup_count": 50, "compress": "gzip",
    }  # fmt: skip


class WritingAlways(Writing):
    """One entry a record, each forced to the disk, behind somebody else's half line."""

    name = "writing-always"
    settings: ClassVar[dict[str, Any]] = {"fsync": "always"}
    layout = "records"
    foreign = b"half a line of somebody"


class WritingAgain(Writing):
    """After each kill the server has forgotten everything."""

    name = "writing-again"
    forgets = True


class WritingAgainPlain(WritingAgain):
    """The same in one file that always stands behind somebody else's half line."""

    name = "writing-again-plain"
    settings: ClassVar[dict[str, Any]] = {}
    foreign = b"half a line of somebody"


class WritingMoved(Writing):
    """After each kill somebody moves the file away, as an outside logrotate does; the server may forget as well."""

    name = "writing-moved"
    settings: ClassVar[dict[str, Any]] = {}
    forgets = True

    def between(self, turn: int) -> None:
        path = self.place.path("log", "app.log")
        if os.path.exists(path):
            os.rename(path, f"{path}.{9 - turn}")
        if turn:
            super().between(turn)


class WritingStrangers(Writing):
    """After each kill somebody else appends a line. Not in the middle of a line: nobody could tell the parts apart."""

    name = "writing-strangers"
    ways: ClassVar[tuple[str, ...]] = ("before",)

    def between(self, turn: int) -> None:
        with open(self.place.path("log", "app.log"), "ab") as file:
            file.write(b"a stranger\n")
        self.strangers += 1

    strangers = 0

    def check_content(self) -> None:
        assert self.content().count(b"a stranger\n") == self.strangers
        check_files(self.place, {"left": self.length, "gone": self.length})


class WritingJournal(Writing):
    """The checkpoint is written anew again and again."""

    name = "writing-journal"
    settings: ClassVar[dict[str, Any]] = {}

    def write(self) -> list[str]:
        checkpoint._LARGEST_JOURNAL = 150  # type: ignore[misc]
        return super().write()

    def check(self, faults: Faults) -> None:
        super().check(faults)
        journal = os.path.join(self.place.state, "checkpoints", WRITER)
        assert os.path.getsize(journal) < 2_000


# -- producer ---------------------------------------------------------------------------------------------------

_LOST: Final = re.compile(rb"(\d+) records? dropped, .*: (\w+)")


def configured(place: Place, *, autostart: bool) -> dict[str, Any]:
    """A configuration with the writer that all scenes have."""
    tree = settings.settings(place.folder, place.stream, place.url, supervisor={"autostart": autostart})
    tree["formatters"] = {"plain": {"format": "%(message)s"}}
    tree["writers"][WRITER] |= {"path": place.path("log", "app.log"), "formatter": "plain"}
    return tree


class Logging(Scene):
    """An application logs: the first record, a full segment, a close, and a record after that.

    A shared page counts the calls that have returned.
    """

    name = "logging"
    ways: ClassVar[tuple[str, ...]] = ("before", "half", "instruction")

    def prepare(self) -> None:
        self._page = mmap.mmap(-1, 4096)
        # Where the handler would put them.
        self.root = self.place.spool

    @property
    def returned(self) -> dict[str, int]:
        """Logging calls that have returned in the process of each turn."""
        counts = struct.unpack_from("<16Q", self._page)
        return {f"w{turn}": count for turn, count in enumerate(counts) if turn <= self.turn}

    def log(self, count: int, size: int = 0) -> None:
        """Log so many records, and note each call that returns."""
        name = f"w{self.turn}"
        for _ in range(count):
            n = self.returned[name]
            self.logger.info(checker.message(RUN, name, n, size))
            with self.faults.suspended():
                struct.pack_into("<Q", self._page, 8 * self.turn, n + 1)

    def open(self, faults: Faults) -> None:
        """Make the handler; none of that is a step."""
        self.faults = faults
        with faults.suspended():
            tree = configured(self.place, autostart=False)
            self.handler = SpoolHandler(tree)
            self.handler._settings = self.handler._settings._replace(
                max_bytes=self.max_bytes, on_full=self.on_full
            )
            self.handler._end._settings = self.handler._settings
            self.logger = logging.Logger("app")
            self.logger.addHandler(self.handler)

    max_bytes = _BOUND
    on_full = "drop_new"

    def run(self, faults: Faults) -> None:
        self.open(faults)
        self.log(2)
        self.log(4, size=3_000)
        self.handler.close()
        self.log(1)

    def again(self, faults: Faults) -> None:
        self.finish()

    def before_check(self) -> None:
        # What dies while it makes a folder leaves it; it is anybody's only when it is old.
        for name in os.listdir(self.root) if os.path.isdir(self.root) else []:
            if name.startswith("."):
                os.utime(os.path.join(self.root, name), (0, 0))

    def check(self, faults: Faults) -> None:
        self.finish()
        lost = sum(int(match[1]) for line in other_lines(self.place) if (match := _LOST.search(line)))
        if lost:
            self.check_losses(lost)
        else:
            assert other_lines(self.place) == []
            check_files(self.place, self.returned, in_doubt=1)
        check_nothing_is_left(self.place)

    def finish(self) -> None:
        """Ship and write all there is."""
        os.makedirs(self.root, exist_ok=True)
        ship_and_write(self.place)

    def check_losses(self, lost: int) -> None:
        """Of the returned ones, as many are missing as the notices say; nothing else is wrong."""
        paths = checker.rotated_files(self.place.path("log", "app.log"))
        report = checker.check(paths, self.returned, RUN, in_doubt=1)
        assert not (report.torn or report.doubled or report.disordered or report.unexpected), report
        returned = sum(self.returned.values())
        assert returned <= report.records + lost <= returned + 1, (report, lost, returned)

    def close(self) -> None:
        self._page.close()


class LoggingLosses(Logging):
    """The spool is full, records are dropped; then there is room again, and the notices are written."""

    name = "logging-losses"
    ways: ClassVar[tuple[str, ...]] = ("before", "half")
    max_bytes = 3 * SEGMENT

    def run(self, faults: Faults) -> None:
        self.open(faults)
        self.log(1)
        self.log(9, size=3_000)
        assert self.has_dropped(), "nothing was dropped"
        self._make_room(faults)
        self.log(2)
        self.log(9, size=3_000)
        self.handler.close()

    def has_dropped(self) -> bool:
        return any(self.handler._end.lost)

    def _make_room(self, faults: Faults) -> None:
        with faults.suspended():
            ship_and_write(self.place)

    def check(self, faults: Faults) -> None:
        super().check(faults)
        causes = {match[2] for line in other_lines(self.place) if (match := _LOST.search(line))}
        assert causes <= {b"spool_full", b"shed"}, causes


class LoggingOld(LoggingLosses):
    """The same where the oldest records go."""

    name = "logging-old"
    on_full = "drop_old"

    def has_dropped(self) -> bool:
        return bool(self.handler._end._words[header.DISCARDED])

    def check(self, faults: Faults) -> None:
        Logging.check(self, faults)
        causes = {match[2] for line in other_lines(self.place) if (match := _LOST.search(line))}
        assert causes <= {b"drop_old"}, causes


class LoggingRetired(Logging):
    """A daemon has closed its descriptors: the shipper takes the spool for a dead one's and retires it."""

    name = "logging-retired"

    def run(self, faults: Faults) -> None:
        self.open(faults)
        self.log(2)
        with faults.suspended():
            self._retire()
        self.log(1)
        with faults.suspended():
            self._lose_lock()
            ship_and_write(self.place)
            assert not spool_names(self.root), "it has not been taken for dead"
        self.log(2, size=3_000)
        self.handler.close()

    def _lose_lock(self) -> None:
        page = self.handler._end._header
        assert page is not None
        fcntl.flock(page.fd, fcntl.LOCK_UN)

    def _retire(self) -> None:
        self._lose_lock()
        (*_, newest) = spool_names(self.root)
        spool = ShipperEnd(os.path.join(self.root, newest), lambda line: None)
        assert spool.check_owner()
        spool.close()


# -- everything -------------------------------------------------------------------------------------------------


class Everything(Logging):
    """Application, shipper and writer in one process, so that a kill takes all of them: a machine goes down."""

    name = "everything"
    ways: ClassVar[tuple[str, ...]] = ("before", "half", "late", "twice")
    steps = 170

    def run(self, faults: Faults) -> None:
        self.open(faults)
        self.log(2)
        ship_and_write(self.place, **self.rotation)
        self.log(3, size=3_000)
        ship_and_write(self.place, **self.rotation)
        self.handler.close()
        ship_and_write(self.place, **self.rotation)

    rotation: ClassVar[dict[str, Any]] = {"max_bytes": 4_000, "backup_count": 50, "compress": "gzip"}

    def finish(self) -> None:
        os.makedirs(self.root, exist_ok=True)
        ship_and_write(self.place, **self.rotation)

    def check(self, faults: Faults) -> None:
        super().check(faults)
        check_index(self.place)


class EverythingFull(Everything):
    """The same with a spool whose oldest records go, which the shipper has to find out and tell."""

    name = "everything-full"
    max_bytes = 3 * SEGMENT
    on_full = "drop_old"

    def run(self, faults: Faults) -> None:
        self.open(faults)
        self.log(12, size=3_000)
        ship_and_write(self.place, **self.rotation)
        self.handler.close()
        ship_and_write(self.place, **self.rotation)


# -- two at once ------------------------------------------------------------------------------------------------


class Racing(Shipping):
    """Two supervisors' shippers at work on the same spools; one of them is killed, the other goes on."""

    name = "racing"
    ways: ClassVar[tuple[str, ...]] = ("before", "late")
    races = True
    deterministic = False
    longest = 60

    def run(self, faults: Faults) -> None:
        self.living.end.forget()
        bell = Doorbell(self.place.path("other-doorbell"))
        shipper = make_shipper(self.place, bell)
        shipper.run(lambda: True, drain_timeout=0.05)
        bell.close()

    def companion(self, faults: Faults) -> None:
        self.living.end.forget()
        self._ship(faults, forgets=False)


# -- supervisors ------------------------------------------------------------------------------------------------


class Supervising(Scene):
    """A supervisor takes its locks, says who it is, starts its children, drains and ends. It alone is killed."""

    name = "supervising"
    ways: ClassVar[tuple[str, ...]] = ("before",)
    deterministic = False

    def prepare(self) -> None:
        os.makedirs(self.place.spool)
        self.worker = Worker(self.place.spool, "w").log(5)
        self.worker.die()

    def run(self, faults: Faults) -> None:
        manager._LINGER = 0.02  # type: ignore[misc]
        loaded = redislogkit_config.load(configured(self.place, autostart=False))
        launch.prepare(loaded)
        supervisor = manager.Manager(loaded, lambda line: None, launched=True)
        supervisor.acquire(5.0)
        assert supervisor.run() == 0

    def check(self, faults: Faults) -> None:
        check_files(self.place, {"w": self.worker.logged})
        assert other_lines(self.place) == []
        check_nothing_is_left(self.place)

    def close(self) -> None:
        self.worker.die()


class Launching(Logging):
    """An application finds nobody who ships and starts a supervisor; it is killed on the way."""

    name = "launching"
    ways: ClassVar[tuple[str, ...]] = ("before",)
    deterministic = False

    def run(self, faults: Faults) -> None:
        self.faults = faults
        self.handler = SpoolHandler(configured(self.place, autostart=True))
        self.logger = logging.Logger("app")
        self.logger.addHandler(self.handler)
        self.log(2)

    def again(self, faults: Faults) -> None:
        self.run(faults)
        assert self.handler.wait_until_written(10), "nobody ships"

    def check(self, faults: Faults) -> None:
        lock = self.place.path(self.place.stream, "supervisor.lock")
        os.kill(locking.read_owner(lock)["pid"], signal.SIGTERM)
        locking.OwnedLock(lock, "the supervisor").acquire(10)
        os.unlink(lock)
        self.finish()
        check_files(self.place, self.returned, in_doubt=1)
        assert other_lines(self.place) == []
        check_nothing_is_left(self.place)

    def finish(self) -> None:
        """What a program that was killed has left."""
        os.makedirs(self.root, exist_ok=True)

"""The path of a record in one process: real spools, shipper, server and file writer, each loop in a thread."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

from redislogkit import record
from redislogkit.config import FileWriterConfig, FormatterConfig
from redislogkit.record import Facts
from redislogkit.ship.shipper import Shipper, ShipperSettings
from redislogkit.spool import doorbell
from redislogkit.spool.producer_end import ProducerEnd, SpoolSettings
from redislogkit.stream import batch
from redislogkit.stream.client import StreamClient
from redislogkit.writers.base import Writer
from redislogkit.writers.checkpoint import Checkpoint
from redislogkit.writers.file import FileDestination
from tests.helpers.waiting import wait_until

MIB = 1024 * 1024


class Loop:
    """A shipper or writer in a thread of its own, until `stop`."""

    def __init__(self, what: Shipper | Writer) -> None:
        self._stopping = False
        self.error: BaseException | None = None
        self._what = what
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._what.run(lambda: self._stopping, drain_timeout=0.0)
        except BaseException as error:
            self.error = error

    def stop(self, bell: str = "") -> None:
        self._stopping = True
        doorbell.ring(bell)
        self._thread.join(20)
        assert not self._thread.is_alive(), "the loop does not end"
        assert self.error is None, self.error


class Path:
    """Producers, one shipper, one stream and file writers below ``folder``; ``settings``: max_records, timeout, ack."""

    def __init__(self, folder: str, url: str, stream: str, *writers: str, **settings: Any) -> None:
        self.folder, self.url, self.stream = folder, url, stream
        self.root = os.path.join(folder, "spool")
        os.makedirs(self.root, exist_ok=True)
        self.writers = writers or ("app",)
        self.settings = settings
        self.reports: list[str] = []
        self.expected: Counter[str] = Counter()
        self.ends: list[ProducerEnd] = []
        self.bell = doorbell.Doorbell(self.bell_path)
        self.shipper: Loop | None = None
        self.loops: dict[str, Loop] = {}

    @property
    def bell_path(self) -> str:
        return os.path.join(self.folder, "doorbell")

    def connect(self) -> StreamClient:
        return StreamClient(self.url, self.stream, timeout=self.settings.get("timeout", 5.0))

    def key(self, name: str) -> str:
        """A key beside the stream."""
        return f"{{{self.stream}}}:redislogkit:{name}"

    # -- producers ------------------------------------------------------------------------------

    def producer(self, **settings: Any) -> ProducerEnd:
        values: dict[str, Any] = {
            "root": self.root, "doorbell": self.bell_path, "max_bytes": 4 * MIB, "on_full": "drop_new",
            "block_timeout": 0.0, "shed_level": 10,
        }  # fmt: skip
        end = ProducerEnd(
            SpoolSettings(**{**values, **settings}),
            lambda name: Facts(name, "web1", os.getpid(), "P", 0.0, 0),
        )
        self.ends.append(end)
        return end

    def log(self, end: ProducerEnd, count: int, size: int = 40) -> None:
        """Log ``count`` records whose texts no other record has."""
        for _ in range(count):
            text = f"{end.producer}-{end.sequence + 1}".ljust(size, ".")
            end.append(record.encode(record.build(1.0, 20, "INFO", "x", text, "", 1, "", 1, "T")), 20)
            self.expected[text] += 1

    # -- loops ----------------------------------------------------------------------------------

    def start(self, *which: str) -> None:
        """Start the shipper and the writers; with ``which`` only these."""
        for name in which or ("shipper", *self.writers):
            if name == "shipper":
                self.start_shipper()
            else:
                self.loops[name] = Loop(self._writer(name))

    def start_shipper(self) -> None:
        settings = ShipperSettings(
            root=self.root, flush_interval=0.0, buffer_size=1000,
            max_records=self.settings.get("max_records", 10**7),
            writers=() if self.settings.get("ack") == "stream" else self.writers, registered=self.writers,
        )  # fmt: skip

        def report(line: str) -> None:
            self.reports.append(f"shipper: {line}")

        def encode(runs: Sequence[batch.RawRun]) -> list[batch.Entry]:
            return [batch.encode(runs, "none", bytes)]

        self.shipper = Loop(Shipper(settings, self.connect, encode, self.bell, report))

    def _writer(self, name: str) -> Writer:
        config = FileWriterConfig(
            path=self.file(name), formatter=FormatterConfig(format="%(message)s"), utc=True
        )
        checkpoints = os.path.join(self.folder, "checkpoints")
        os.makedirs(checkpoints, exist_ok=True)

        def report(line: str) -> None:
            self.reports.append(f"{name}: {line}")

        return Writer(
            name, self.connect, FileDestination(config, report), Checkpoint(os.path.join(checkpoints, name)),
            lambda level, logger: True, report, block=0.02, owner="web1",
        )  # fmt: skip

    def stop(self, *which: str) -> None:
        for name in which or ("shipper", *self.loops):
            if name == "shipper":
                loop, self.shipper = self.shipper, None
            else:
                loop = self.loops.pop(name, None)
            if loop is not None:
                loop.stop(self.bell_path)

    def close(self) -> None:
        self.stop()
        for end in self.ends:
            end.forget()
        self.bell.close()

    # -- what has come --------------------------------------------------------------------------

    def file(self, writer: str = "app") -> str:
        return os.path.join(self.folder, f"{writer}.log")

    def lines(self, writer: str = "app") -> Counter[str]:
        try:
            with open(self.file(writer), encoding="utf-8") as file:
                return Counter(line.rstrip("\n") for line in file)
        except FileNotFoundError:
            return Counter()

    def all_is_written(self) -> bool:
        """True when each line is in each file and every producer knows it."""
        return all(end.position(True) >= end.sequence for end in self.ends) and all(
            self.lines(name) >= self.expected for name in self.writers
        )

    def check(self, deadline: float = 20.0) -> None:
        """Wait until all is written; nothing is there twice, and nothing is said to be lost."""
        wait_until(self.all_is_written, deadline=deadline, what=f"all is written; {self.reports}")
        for name in self.writers:
            assert self.lines(name) == self.expected, self.lines(name) - self.expected

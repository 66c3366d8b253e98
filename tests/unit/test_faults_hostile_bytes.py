"""Hostile bytes where our processes read: refused with a report, neighbours unharmed, nothing followed, nothing run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redislogkit import config as configuration
from redislogkit import identity, journal, launch, locking, record
from redislogkit.errors import LockHeldError
from redislogkit.record import Facts, Loss, Record
from redislogkit.ship import shipper as shipping
from redislogkit.ship.shipper import Shipper, ShipperSettings
from redislogkit.spool import header, segment
from redislogkit.spool.doorbell import Doorbell
from redislogkit.spool.producer_end import ProducerEnd, SpoolSettings
from redislogkit.stream import batch
from redislogkit.writers.checkpoint import Checkpoint
from tests.helpers.memory_stream import MemoryServer

pytestmark = pytest.mark.filterwarnings("error")

SECRET = "what stands outside of the state directory"
quickly = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


# --- spools ------------------------------------------------------------------------------------------------


def facts(producer: str) -> Facts:
    return Facts(producer, "host", 4711, "MainProcess", 0.0, 0)


class Host:
    """Two dead producers: ``victim``, whose spool somebody has been at, and its ``neighbour``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "state" / "spool"
        self.root.mkdir(parents=True)
        self.outside = folder / "outside"
        self.outside.write_text(SECRET)
        self.reports: list[str] = []
        self.server = MemoryServer()
        self.logged: dict[tuple[str, int], bytes] = {}
        for producer in ("victim", "neighbour"):
            self._log(producer)
        self.newest = self.files()[-2].name

    def _log(self, producer: str) -> None:
        bound = SpoolSettings(str(self.root), str(self.folder / "nobody"), 2**22, "drop_new", 0.0, 0)
        end = ProducerEnd(bound, facts)
        end.producer = producer
        for number in range(8):
            text = f"{producer} {number} " + "x" * 40_000
            payload = record.encode(record.build(1.0, 30, "WARNING", "app", text, "", number, "", 1, "T"))
            end.append(payload, 30)
            self.logged[producer, end.sequence] = payload
        page, mapped = end._header, end._map  # what a kill leaves
        end._header = end._map = None
        assert page is not None
        page.close()
        mapped.close()

    def files(self) -> list[Path]:
        """The header and the segments of the victim."""
        return sorted(
            (self.root / "victim-0").iterdir(), key=lambda path: (path.name == header.NAME, path.name)
        )

    def ship(self) -> list[tuple[str, int, record.Item]]:
        """Run a shipper until it finds nothing more; return what is in the stream."""
        bell = Doorbell(str(self.folder / "bell"))
        shipper = Shipper(
            ShipperSettings(str(self.root), 0.0, 1000, 10**6, ("app",)),
            self.server.connect,
            lambda runs: [batch.encode(runs, "none", bytes)],
            bell,
            self.reports.append,
        )
        try:
            for _ in range(12):
                shipper.step()
                self.server.write("app")
        finally:
            shipper.close()
            bell.close()
        return self.server.items()


def flip(file: Path, where: float, value: int) -> None:
    data = bytearray(file.read_bytes())
    data[int(where * len(data)) % len(data)] ^= value % 255 + 1
    file.write_bytes(data)


def cut(file: Path, where: float, value: int) -> None:
    os.truncate(file, int(where * file.stat().st_size))


def overwrite(file: Path, where: float, value: int) -> None:
    """Words of all ones, of zeros, or of anything."""
    data = bytearray(file.read_bytes())
    at = int(where * (len(data) // 8)) * 8
    data[at : at + 64] = (b"\xff" * 64, bytes(64), bytes((value * n) % 256 for n in range(64)))[value % 3]
    file.write_bytes(data)


def swap(file: Path, where: float, value: int) -> None:
    other = file.with_name(segment.file_name(value % 4 + 1))
    if other.is_file() and not other.is_symlink():
        content = file.read_bytes()
        file.write_bytes(other.read_bytes())
        other.write_bytes(content)


def remove(file: Path, where: float, value: int) -> None:
    file.unlink()


def rename(file: Path, where: float, value: int) -> None:
    file.rename(file.with_name(("999999.seg", "000000.seg", "0000001.seg", "header.old")[value % 4]))


def link(file: Path, where: float, value: int) -> None:
    file.unlink()
    file.symlink_to(("../../../outside", "nowhere", ".")[value % 3])


def folder(file: Path, where: float, value: int) -> None:
    file.unlink()
    file.mkdir()
    (file / "stranger").touch()


def pipe(file: Path, where: float, value: int) -> None:
    file.unlink()
    os.mkfifo(file)


Harm = Callable[[Path, float, int], None]
harms = st.tuples(
    st.sampled_from([flip, flip, cut, overwrite, overwrite, swap, remove, rename, link, folder, pipe]),
    st.integers(0, 3),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 1000),
)


@quickly
@given(chosen=st.lists(harms, min_size=1, max_size=3))
def test_a_spool_of_anything_stops_nobody_and_makes_nothing_up(
    chosen: list[tuple[Harm, int, float, int]],
) -> None:
    with pytest.MonkeyPatch.context() as patch, _folder() as place:
        patch.setattr(shipping, "_HOUSEKEEPING", 0.0)
        patch.setattr(shipping, "_POSITIONS_PAUSE", 0.0)
        host = Host(place)
        words_are_damaged = False
        for harm, index, where, value in chosen:
            files = [
                path
                for path in host.files()
                if path.is_file() and not path.is_symlink() and path.stat().st_size
            ]
            if files:
                file = files[index % len(files)]
                words_are_damaged |= file.name == header.NAME and harm in (flip, overwrite)
                harm(file, where, value)
        newest_is_there = (host.root / "victim-0" / host.newest).is_file()
        items = host.ship()
        assert host.outside.read_text() == SECRET
        whole = [(p, n, record.encode(item)) for p, n, item in items if isinstance(item, Record)]
        assert [n for p, n, _ in whole if p == "neighbour"] == list(range(1, 9))
        assert all(host.logged.get((p, n)) == payload for p, n, payload in whole), "made up"
        victims = [n for p, n, item in items if p == "victim" and isinstance(item, Record)]
        assert victims == sorted(set(victims))
        named = {
            n
            for p, _, item in items
            if p == "victim" and isinstance(item, Loss)
            for n in range(item.first, item.last + 1)
        }
        assert not named & set(victims)
        # The words of a header have no checksum, and only the producer itself could have told what a newest
        # segment held that is not there at all.
        if not words_are_damaged and newest_is_there:
            left_alone = (host.root / "victim-0").exists()
            assert left_alone or named | set(victims) >= set(range(1, max(victims, default=0) + 1))
            assert host.reports or named or len(victims) == 8


@pytest.mark.parametrize("word", [*header.POSITIONS, header.CAUSE, header.LOST])
def test_a_header_with_impossible_numbers_costs_no_record(word: int) -> None:
    with pytest.MonkeyPatch.context() as patch, _folder() as place:
        patch.setattr(shipping, "_HOUSEKEEPING", 0.0)
        patch.setattr(shipping, "_POSITIONS_PAUSE", 0.0)
        host = Host(place)
        page = host.root / "victim-0" / header.NAME
        data = bytearray(page.read_bytes())
        data[word * 8 : word * 8 + 8] = b"\xff" * 8
        page.write_bytes(data)
        numbers = [n for p, n, item in host.ship() if p == "victim" and isinstance(item, Record)]
        assert numbers == list(range(1, 9))


# --- the note of the supervisor, locks ---------------------------------------------------------------------

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
owner_like = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ["pid", "host", "boot_id", "start", "program", "digest", "source", "launched"], anything
    ),
)
contents = st.binary(max_size=200) | (anything | owner_like).map(lambda value: json.dumps(value).encode())


@settings(quickly, max_examples=25)
@given(note=contents, lock=contents)
def test_a_note_and_a_lock_file_of_anything_hurt_nobody(note: bytes, lock: bytes) -> None:
    with _folder() as place:
        config = configuration.load({"state_dir": str(place), "writers": {"app": {"type": "tty"}}})
        launch.prepare(config)
        stream = Path(config.stream_dir)
        (stream / "supervised.json").write_bytes(note)
        (stream / "supervisor.lock").write_bytes(lock)
        with contextlib.suppress(LockHeldError):
            launch.check(config)  # nobody listens at the doorbell: the note says nothing
        bell = Doorbell(launch.doorbell_path(config))
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(launch, "_HANDOVER", 0.0)
                patch.setattr(os, "kill", _no_kill)
                with contextlib.suppress(LockHeldError):
                    launch.check(config)
        finally:
            bell.close()
        assert isinstance(locking.describe(locking.read_owner(launch.lock_path(config))), str)
        with locking.OwnedLock(launch.lock_path(config), "it"):
            assert locking.read_owner(launch.lock_path(config))["pid"] == os.getpid()


def test_a_note_and_a_lock_file_nested_without_end_are_nothing(tmp_path: Path) -> None:
    config = configuration.load({"state_dir": str(tmp_path), "writers": {"app": {"type": "tty"}}})
    launch.prepare(config)
    for name in ("supervised.json", "supervisor.lock"):
        Path(config.stream_dir, name).write_text("[" * 200_000)
    bell = Doorbell(launch.doorbell_path(config))
    launch.check(config)
    assert locking.describe(locking.read_owner(launch.lock_path(config))) == "another process"
    bell.close()


@pytest.mark.parametrize("pid", [2**70, 2**22 - 1, 1, 0, -1, True, "1", None])
def test_no_process_is_ended_for_what_a_lock_file_of_anything_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pid: object
) -> None:
    config = configuration.load({"state_dir": str(tmp_path), "writers": {"app": {"type": "tty"}}})
    launch.prepare(config)
    owner = identity.owner() | {"pid": pid, "start": None}
    Path(launch.lock_path(config)).write_text(json.dumps(owner))
    monkeypatch.setattr(os, "kill", _no_kill)
    assert not launch._tell(config, signal.SIGTERM)


def _no_kill(pid: int, number: int) -> None:
    raise AssertionError(f"process {pid} would have got signal {number}")


# --- the checkpoint ----------------------------------------------------------------------------------------


storable = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=8,
)
frames = (storable | st.tuples(st.integers(-3, 3), storable)).map(journal.frame)


@quickly
@given(parts=st.lists(st.binary(max_size=60) | frames, max_size=4))
def test_a_checkpoint_of_anything_is_refused_with_a_report_and_written_on(parts: list[bytes]) -> None:
    with _folder() as place:
        path = place / "app"
        path.write_bytes(b"".join(parts))
        first = Checkpoint(str(path))
        first.open()
        size = path.stat().st_size
        assert bool(first.damage) == (size < sum(map(len, parts)))
        first.close()
        again = Checkpoint(str(path))
        again.open()
        assert again.damage == ""
        again.close()


@contextlib.contextmanager
def _folder():
    path = tempfile.mkdtemp(prefix="rlk-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    try:
        yield Path(path)
    finally:
        shutil.rmtree(path)

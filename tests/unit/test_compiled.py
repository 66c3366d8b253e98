"""What was compiled does the same as what is written in Python, to the byte, and leaves the rest to it."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from redislogkit import record
from redislogkit.producer import compiled
from redislogkit.producer.handler import SpoolHandler
from redislogkit.spool import header, segment, shipper_end
from redislogkit.spool.producer_end import ProducerEnd
from redislogkit.spool.shipper_end import ShipperEnd
from tests.helpers.spools import MIB

pytestmark = pytest.mark.skipif(compiled.MODULE is None, reason="there was no compiler")

LARGE = "é" * 40_000


@pytest.fixture(scope="module")
def handlers(tmp_path_factory) -> Iterator[tuple[SpoolHandler, SpoolHandler]]:
    made = [
        SpoolHandler(
            {
                "state_dir": str(tmp_path_factory.mktemp("state")),
                "supervisor": {"autostart": False},
                "producer": {"spool_max_bytes": 64 * MIB},
                "writers": {"app": {"type": "file", "path": "app.log"}},
            }
        )
        for _ in range(2)
    ]
    yield made[0], made[1]
    for handler in made:
        handler.close()


class Text(str):
    __slots__ = ()


class Angry:
    def __str__(self) -> str:
        raise LookupError("no text")


texts = st.text(max_size=40) | st.sampled_from(
    ["", "a" * 31, "b" * 32, "c" * 255, "d" * 256, "e" * 65_535, "f" * 65_536, LARGE, "\ud800"]
)
odd: st.SearchStrategy[Any] = st.sampled_from(
    [None, 0, 7, True, 1.5, "", "x", Text("of a class"), ("a", 1), [], b"bytes"]
)
levels = st.integers(-5, 60) | odd


def both(handlers: tuple[SpoolHandler, SpoolHandler], made: logging.LogRecord) -> tuple[bytes, bytes]:
    """Have one handler take a record the compiled way and the other not; return what is in their spools."""
    stored = []
    for handler, on in zip(handlers, (True, False), strict=True):
        end = handler._end
        left, at = end._map, end._position
        compiled.MODULE.switch(on)
        try:
            handler.handle(made)
        finally:
            compiled.MODULE.switch(True)
        frame = segment.read_frame(end._map, at if end._map is left else segment.FIRST_FRAME)
        assert frame is not None  # a reader's look: the checksum counts
        assert (frame.sequence, frame.end) == (end.sequence, end._position)
        stored.append(frame.payload)
    return stored[0], stored[1]


@settings(max_examples=300, deadline=None)
@given(
    message=texts | odd,
    args=st.tuples() | st.tuples(texts | odd) | st.tuples(st.integers(), texts) | st.just(None),
    changes=st.dictionaries(
        st.sampled_from([*record.STANDARD_ATTRIBUTES, "extra"]) | st.text(max_size=3),
        odd | st.floats() | st.integers(),
        max_size=2,
    ),
    removed=st.none() | st.sampled_from(sorted(record.STANDARD_ATTRIBUTES)),
)
@example("%s", (Angry(),), {}, None)
@example("a", (), {"created": 1e9 + 0.999_999_9}, None)
@example("a", (), {"process": -1}, None)
@example("a", (), {"exc_text": "done"}, "msg")
def test_a_record_is_stored_as_python_would(handlers, message, args, changes, removed):
    made = logging.LogRecord("app", 20, "/srv/app.py", 7, message, args, None, "work")
    made.__dict__.update(changes)
    if removed is not None:
        made.__dict__.pop(removed, None)
    for _ in range(2):  # the second time, its site is known
        found, expected = both(handlers, made)
        assert found == expected


def test_an_ordinary_record_is_stored_without_python(handlers, monkeypatch):
    log = logging.getLogger("test_compiled")
    made = log.makeRecord("app", 20, "/srv/ordinary.py", 7, "%s", ("ö" * 300,), None, "work")
    both(handlers, made)
    handlers[0]._end._words[header.MARK] = 0
    monkeypatch.setattr(ProducerEnd, "append", None)
    for _ in range(3):
        before = handlers[0]._end.sequence
        handlers[0].handle(made)
        assert handlers[0]._end.sequence == before + 1


@given(size=st.integers(0, 20_000), sequence=st.integers(1, 2**63 - 2), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(5552 * 3, 2**63 - 2, 0)
def test_its_checksum_is_the_one_that_readers_expect(rig, size, sequence, seed):
    text = "".join(random.Random(seed).choices(["a", "\x7f", "\0", "z"], k=size))
    end = rig.start()
    end.append(b"the first opens the spool", 20)
    end._words[header.MARK] = 0
    end.sequence = sequence - 1
    position = end._position
    made = new_record(text)
    assert put(end, made) == made.created
    frame = segment.read_frame(end._map, position)
    assert frame is not None
    assert (frame.sequence, frame.end) == (sequence, end._position)


def new_record(text: str = "text") -> logging.LogRecord:
    made = logging.LogRecord("app", 20, "/srv/app.py", 7, text, (), None, "work")
    record.plain_fields(made, os.getpid(), "MainProcess")  # its site becomes known
    return made


def put(end: ProducerEnd, made: logging.LogRecord, most: int = MIB) -> Any:
    return compiled.MODULE.put_record(end, made, os.getpid(), "MainProcess", most)


@pytest.fixture
def opened(rig) -> ProducerEnd:
    end: ProducerEnd = rig.end
    end.append(b"the first opens the spool", 20)
    end._words[header.MARK] = 0  # somebody reads
    return end


@pytest.mark.parametrize(
    "prepare",
    [
        lambda end: end._parked.append((b"", 20)),
        lambda end: end._turn.pop(),
        lambda end: setattr(end, "_limit", end._position + 60),
        lambda end: end._words.__setitem__(header.MARK, header.SLEEPING),
        lambda end: compiled.MODULE.switch(False),
    ],
    ids=["parked records", "somebody inside", "no room", "a mark", "switched off"],
)
def test_whatever_is_out_of_the_ordinary_is_left_to_python(opened, prepare):
    made = new_record()
    assert put(opened, made) == made.created
    before = (opened.sequence, opened._position, bytes(opened._map))
    prepare(opened)
    try:
        assert type(put(opened, made)) is not float
        assert (opened.sequence, opened._position, bytes(opened._map)) == before
    finally:
        compiled.MODULE.switch(True)


def marked_while_storing(
    end: ProducerEnd, obey: Callable[[ProducerEnd, bytes], None], monkeypatch: Any
) -> None:
    """Let the word with the mark lie in the frame that comes next: the store sets it."""
    at = end._position + 16 + 16
    monkeypatch.setattr(ProducerEnd, "_obey_mark", obey)
    end._words = memoryview(end._map)[at - 8 : at - 8 + 4096].cast("Q")


class Obedient:
    """Sees what `ProducerEnd._obey_mark` is called with, and by whom."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.seen: list[bytes] = []
        self.turns: list[int] = []
        self.error = error

    def __call__(self, end: ProducerEnd, payload: bytes) -> None:
        """As that method."""
        self.seen.append(payload)
        self.turns.append(len(end._turn))
        end.append(b"of a signal handler", 20)  # finds its own thread inside, and is parked
        end._words = memoryview(bytearray(4096)).cast("Q")
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [None, OSError("of the disk"), KeyboardInterrupt()])
def test_a_mark_that_comes_while_a_frame_is_stored_is_obeyed_before_any_other_record(
    opened, monkeypatch, error
):
    obey = Obedient(error)
    position = opened._position
    marked_while_storing(opened, lambda end, payload: obey(end, payload), monkeypatch)
    made = new_record()
    try:
        assert put(opened, made) == made.created
        assert not isinstance(error, KeyboardInterrupt)
    except KeyboardInterrupt:
        assert isinstance(error, KeyboardInterrupt)
    stored = segment.read_frame(opened._map, position)
    assert stored is not None
    assert set(obey.seen) == {stored.payload}
    assert set(obey.turns) == {1}
    assert len(opened._turn) == 2
    behind = stored
    for _ in obey.seen:
        frame = segment.read_frame(opened._map, behind.end)
        assert frame is not None
        assert frame.payload == b"of a signal handler"
        behind = frame
    assert (behind.sequence, behind.end) == (opened.sequence, opened._position)


def test_an_interrupt_while_a_parked_record_is_appended_reaches_the_caller(opened, monkeypatch):
    marked_while_storing(opened, lambda end, payload: Obedient()(end, payload), monkeypatch)
    monkeypatch.setattr(ProducerEnd, "_append_parked", mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        put(opened, new_record())
    assert len(opened._turn) == 2


def test_what_comes_in_front_of_obeying_a_mark_does_not_keep_it_from_being_obeyed(opened, monkeypatch):
    """Ctrl-C that arrives when Python is entered again, before its first line."""
    obey, calls = Obedient(), []
    marked_while_storing(opened, lambda end, payload: obey(end, payload), monkeypatch)
    after_mark = ProducerEnd._after_mark

    def interrupted(end: ProducerEnd, size: int) -> None:
        calls.append(size)
        if len(calls) == 1:
            raise KeyboardInterrupt
        after_mark(end, size)

    monkeypatch.setattr(ProducerEnd, "_after_mark", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put(opened, new_record())
    assert len(obey.seen) == 1
    assert len(opened._turn) == 2


def test_a_retired_spool_that_is_marked_meanwhile_is_left_and_its_last_record_kept(rig, monkeypatch):
    end = rig.end
    end.append(b"the first opens the spool", 20)
    first = end._directory
    obey_mark = ProducerEnd._obey_mark
    page = end._header.words

    def obey(end: ProducerEnd, payload: bytes) -> None:
        end._words = page
        page[header.MARK] = header.RETIRED
        obey_mark(end, payload)

    marked_while_storing(end, obey, monkeypatch)
    made = new_record("in doubt")
    assert put(end, made) == made.created
    assert end._directory != first
    frame = segment.read_frame(end._map, segment.FIRST_FRAME)
    assert frame is not None
    assert b"in doubt" in frame.payload


def test_without_it_everything_is_done_in_python(run_python):
    program = (
        "import logging, redislogkit; from redislogkit.producer import compiled; assert compiled.MODULE is None\n"
        "logs = redislogkit.configure({'version': 1, 'supervisor': {'autostart': False}, 'producer': {'fast_logger': True,"
        " 'shutdown_timeout': 0}, 'writers': {'app': {'type': 'file', 'path': 'app.log'}}, 'state_dir': 'state'})\n"
        "for _ in range(3): logging.getLogger().warning('text')\n"
        "assert logs.stats()['emitted'] == 3\n"
    )
    run_python(program, env={"REDISLOGKIT_PURE_PYTHON": "1"})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=60),
    damaged=st.lists(st.tuples(st.integers(0, 40_000), st.binary(min_size=1, max_size=20)), max_size=3),
    limits=st.lists(st.integers(1, 20_000), min_size=1, max_size=3),
    skipped=st.integers(0, 5),
)
def test_frames_are_read_as_python_would(rigs, sizes, damaged, limits, skipped):
    rig = rigs()
    rig.end = rig.start()
    for size in sizes:
        rig.end.append(os.urandom(size), 20)
    for at, garbage in damaged:
        at = segment.FIRST_FRAME + at % (rig.end._position - segment.FIRST_FRAME)  # noqa: PLW2901
        rig.end._map[at : at + len(garbage)] = garbage
    read_run = shipper_end._read_run
    found: list[Any] = []
    for way in (read_run, None):
        shipper_end._read_run = way  # type: ignore[misc]
        try:
            reader = ShipperEnd(rig.end._directory, lambda line: None)
            reader.rewind(skipped)
            reader._accounted = skipped
            found.append([(run.first, run.payloads) for limit in limits * 40 for run in reader.read(limit)])
            found.append([reader.read_sequence, reader._current and reader._current.position])
            reader.close()
        finally:
            shipper_end._read_run = read_run  # type: ignore[misc]
    assert found[:2] == found[2:]
    assert damaged or sum(len(payloads) for _, payloads in found[0]) == max(len(sizes) - skipped, 0)

"""Layout ``batches``: what goes into an entry comes out of it, and anything else is refused."""

from __future__ import annotations

import contextlib
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redislogkit import record, zstd
from redislogkit.errors import ConfigError, CorruptDataError
from redislogkit.record import End, Facts, Loss, Record
from redislogkit.stream import batch, entries


def facts(producer: str = "f00d") -> Facts:
    return Facts(producer, "web1", 1, "MainProcess", 0.0, 0, "/dev/pts/1", 34817, "boot", False)


def a_record(message: str = "hello", **extra: Any) -> Record:
    return record.build(
        1.5, 20, "INFO", "app", message, "/a/b.py", 3, "f", 1, "MainThread", extra=extra or None
    )


def fields_of(entry: batch.Entry) -> dict[bytes, bytes]:
    return dict(zip(entry.fields[::2], entry.fields[1::2], strict=True))


def raw(first: int, *items: Any, producer: str = "f00d") -> batch.RawRun:
    return batch.RawRun(facts(producer), first, [record.encode(item) for item in items])


CODECS = ["none", "zlib", "zstd"]
messages = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
items = st.one_of(
    messages.map(a_record),
    st.builds(
        lambda first, last: Loss(first, last, "shed", 1.0), st.integers(0, 9), st.integers(9, 2**63 - 1)
    ),
    st.just(End()),
)
runs = st.lists(
    st.builds(
        lambda producer, first, items: raw(first, *items, producer=producer),
        st.sampled_from(["a", "b", "c"]),
        st.integers(1, 2**62),
        st.lists(items, min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=40)
@given(runs=runs)
def test_runs_come_out_as_they_went_in(codec, runs):
    entry = batch.encode(runs, *batch.compressor(codec))
    decoded = entries.decode(b"1-0", fields_of(entry))
    assert [(run.facts, run.first) for run in decoded] == [(run.facts, run.first) for run in runs]
    for out, into in zip(decoded, runs, strict=True):
        assert [record.encode(item) for item in out.items] == list(into.payloads)
    assert entry.records == sum(len(run.payloads) for run in runs)
    assert entry.last == [(run.facts.producer, run.first + len(run.payloads) - 1) for run in runs]


def test_the_fields_say_what_is_inside_without_unpacking_it():
    entry = batch.encode([raw(7, a_record(), a_record()), raw(1, End(), producer="b")], "none", bytes)
    fields = fields_of(entry)
    assert (fields[b"v"], fields[b"p"], fields[b"n"], fields[b"c"]) == (
        b"1",
        b"f00d:7:2 b:1:1",
        b"3",
        b"none",
    )
    assert entries.total(fields | {b"t": b"55"}) == 55
    for odd in (b"", b"-1", b"x", b"9" * 30, "²".encode()):
        assert entries.total({b"t": odd}) == 0


def test_an_odd_field_costs_itself_and_no_neighbour():
    odd = record.encode((1, "noon", b"bytes", 20, None))
    run = batch.RawRun(facts(), 1, [record.encode(a_record("one")), odd, record.encode(a_record("three"))])
    (decoded,) = batch.decode(fields_of(batch.encode([run], *batch.compressor("zlib"))))
    assert [item.message for item in decoded.items if isinstance(item, Record)] == [
        "one",
        "b'bytes'",
        "three",
    ]


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=60)
@given(data=st.data())
def test_a_cut_entry_is_refused(codec, data):
    fields = fields_of(batch.encode([raw(1, *[a_record("x" * 50)] * 9)], *batch.compressor(codec)))
    size = data.draw(st.integers(0, len(fields[b"d"]) - 1))
    with pytest.raises(CorruptDataError):
        batch.decode(fields | {b"d": fields[b"d"][:size]})


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=150)
@given(data=st.data())
def test_a_flipped_byte_is_refused_or_stays_in_its_place(codec, data):
    fields = fields_of(
        batch.encode([raw(1, a_record("one"), Loss(1, 2, "shed", 1.0))], *batch.compressor(codec))
    )
    damaged = bytearray(fields[b"d"])
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decoded = batch.decode(fields | {b"d": bytes(damaged)})
    except CorruptDataError:
        return
    check_harmless(decoded)


def check_harmless(decoded: list[batch.DecodedRun]) -> None:
    """A writer can take it: times can be shown, sequences counted and stored."""
    for run in decoded:
        assert 0 <= run.first < 2**63
        assert run.facts.producer.encode() is not None  # an empty one is a producer without a name
        for item in run.items:
            if isinstance(item, (Record, Loss)):
                assert record.EARLIEST <= item.created < record.LATEST
            if isinstance(item, Record):
                record.attributes(item, run.facts, run.first)


# Structures that look like an entry, with anything in any place.
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5)
    | st.binary(max_size=5) | st.sampled_from([1, 2, 3]),
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)  # fmt: skip
GOOD_FACTS = list(msgspec.structs.astuple(facts()))
GOOD_RECORD = [1, *msgspec.structs.astuple(a_record())]


@st.composite
def almost_entries(draw: st.DrawFn) -> Any:
    whole: list[Any] = [[list(GOOD_FACTS), 5, [list(GOOD_RECORD), [2, 1, 4, "shed", 1.0], [3]]]]
    for _ in range(draw(st.integers(1, 3))):
        target: Any = whole
        while isinstance(target, list) and target:
            at = draw(st.integers(0, len(target) - 1))
            if not isinstance(target[at], list) or not target[at] or draw(st.booleans()):
                target[at] = draw(anything)
                break
            target = target[at]
    return whole


@settings(max_examples=120)
@given(content=almost_entries() | anything)
def test_hostile_content_is_refused_or_harmless(content):
    fields = {b"v": b"1", b"c": b"none", b"d": msgspec.msgpack.encode(content)}
    try:
        decoded = entries.decode(b"1-0", fields)
    except CorruptDataError:
        return
    check_harmless(decoded)


@settings(max_examples=150)
@given(
    data=st.binary(max_size=80),
    codec=st.sampled_from([*CODECS, "lzma", "", "é"]),
    version=st.sampled_from(b"012"),
)
def test_hostile_bytes_are_refused(data, codec, version):
    fields = {b"v": bytes([version]), b"c": codec.encode(), b"d": data}
    with contextlib.suppress(CorruptDataError):
        check_harmless(entries.decode(b"1-0", fields))


@pytest.mark.parametrize(
    "data",
    [
        b"\x91" * 100_000 + b"\xc0",  # deeper than any stack
        b"\xdd\xff\xff\xff\xff",  # an array of four thousand million
        b"\xdb\xff\xff\xff\xff",
        msgspec.msgpack.encode([[GOOD_FACTS, float("inf"), []]]),
        msgspec.msgpack.encode([[GOOD_FACTS, 2**63, []]]),
        msgspec.msgpack.encode([[GOOD_FACTS, -1, []]]),
        b"\x91\x93\x9a\xa1\xff" + b"\x00" * 9 + b"\x01\x90",  # a producer that is no UTF-8
    ],
)
def test_well_known_traps_are_refused(data):
    with pytest.raises(CorruptDataError, match="can not be decoded"):
        batch.decode({b"v": b"1", b"c": b"none", b"d": data})


def test_a_bomb_is_refused_before_it_fills_the_memory(monkeypatch):
    monkeypatch.setattr(batch, "MAX_INFLATED", 1_000_000)
    for codec in ("zlib", "zstd"):
        name, compress = batch.compressor(codec)
        assert len(batch.decompress(name, compress(bytes(900_000)))) == 900_000
        with pytest.raises(CorruptDataError, match="inflates to more than 1000000 bytes"):
            batch.decompress(name, compress(bytes(1_100_000)))


def test_a_zlib_stream_without_its_checksum_is_refused():
    with pytest.raises(CorruptDataError):
        batch.decompress("zlib", zlib.compress(b"content")[:-4])


def test_codecs_are_chosen_by_what_is_installed(monkeypatch):
    assert batch.compressor("auto")[0] == "zstd"
    assert batch.compressor("none")[0] == "none"
    monkeypatch.setattr(zstd, "module", lambda: None)
    assert batch.compressor("auto")[0] == "zlib"
    with pytest.raises(ConfigError, match=r"backports\.zstd"):
        batch.compressor("zstd")
    with pytest.raises(ConfigError, match="not installed"):  # which is waited for: the entry is sound
        batch.decompress("zstd", b"x")


def test_entries_of_no_layout_are_refused_and_named():
    with pytest.raises(CorruptDataError, match="trimmed"):
        entries.decode(b"1-0", {})
    with pytest.raises(CorruptDataError, match=r"no log entry \(fields: field, x\)"):
        entries.decode(b"1-0", {b"field": b"1", b"x": b"2"})
    with pytest.raises(CorruptDataError, match="format version b'9'"):
        entries.decode(b"1-0", {b"v": b"9", b"d": b""})


def test_a_frame_that_claims_to_need_a_huge_window_is_corrupt():
    with pytest.raises(CorruptDataError, match="can not be decompressed"):
        batch.decompress("zstd", b"\x28\xb5\x2f\xfd\x00\xf8" + bytes(20))


def test_what_there_is_no_memory_to_compress_for_now_is_no_bad_record(monkeypatch):
    class Codec:
        FLUSH_FRAME = 2

        def __init__(self, level: int) -> None:
            pass

        def compress(self, data: bytes, mode: int) -> bytes:
            raise RuntimeError("Unable to compress Zstandard data: Allocation error : not enough memory")

    class Module:
        ZstdCompressor = Codec

    monkeypatch.setattr(zstd, "module", lambda: Module)
    _, compress = batch.compressor("zstd")
    with pytest.raises(MemoryError):
        compress(b"data")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("Allocation error : not enough memory")])
def test_an_entry_for_which_there_is_no_memory_now_is_no_corrupt_one(monkeypatch, error):
    class Codec:
        eof = True

        def decompress(self, data: bytes, limit: int) -> bytes:
            raise error

    class Module:
        ZstdDecompressor = Codec

    monkeypatch.setattr(zstd, "module", lambda: Module)
    with pytest.raises(MemoryError):
        batch.decompress("zstd", b"")

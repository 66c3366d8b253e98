"""Runs of frames ↔ stream entries. Pure.

Layout ``batches``: one entry carries the items of one or more producers. Its fields:

=====  ==========================================================================
``v``  version of the entry's format, ``1``
``p``  ``producer:first:count`` for each run, separated by spaces
``n``  number of items
``c``  codec of ``d``: ``none``, ``zlib`` or ``zstd``
``d``  msgpack array of runs, each ``[facts, first sequence, [item, …]]``, compressed
``t``  items that the stream has had in all, this entry included (put in by the server)
=====  ==========================================================================

Payloads are msgpack already, so a run is put together without decoding a single record.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from redislogkit import record
from redislogkit import zstd as zstandard
from redislogkit.errors import ConfigError, CorruptDataError
from redislogkit.record import Facts, Item

VERSION: Final = b"1"
#: An entry that inflates to more than this is refused: nothing of ours is that large.
MAX_INFLATED: Final = 512 * 1024 * 1024

Compress = Callable[[bytes], bytes]


class Entry(NamedTuple):
    """What goes into the stream: its fields, and the highest sequence of each producer in it."""

    fields: list[bytes]
    last: list[tuple[str, int]]
    records: int


class DecodedRun(NamedTuple):
    """Items of one producer; the sequence of the n-th is ``first + n``."""

    facts: Facts
    first: int
    items: list[Item]


class RawRun(NamedTuple):
    """Encoded items of one producer; the sequence of the n-th is ``first + n``."""

    facts: Facts
    first: int
    payloads: Sequence[bytes]


_decoder: Final = msgspec.msgpack.Decoder(list[tuple[Facts, record.Sequence, list[Item]]])


def encode(runs: Sequence[RawRun], codec: str, compress: Compress) -> Entry:
    """Put ``runs`` into one entry of layout ``batches``."""
    parts = [_array_head(len(runs))]
    summary = []
    total = 0
    for facts, first, payloads in runs:
        count = len(payloads)
        parts += (b"\x93", record.encode_facts(facts), record.encode(first), _array_head(count), *payloads)
        summary.append(f"{facts.producer}:{first}:{count}")
        total += count
    fields = [b"v", VERSION, b"p", " ".join(summary).encode(), b"n", b"%d" % total]
    fields += [b"c", codec.encode(), b"d", compress(b"".join(parts))]
    return Entry(fields, [(facts.producer, first + len(p) - 1) for facts, first, p in runs], total)


def decode(fields: dict[bytes, bytes]) -> list[DecodedRun]:
    """Return the runs of an entry of layout ``batches``. Raises ``CorruptDataError``."""
    if fields.get(b"v") != VERSION:
        raise CorruptDataError(
            f"entry has format version {fields.get(b'v')!r}, this release reads {VERSION!r}"
        )
    data = decompress(fields.get(b"c", b"none").decode("ascii", "replace"), fields.get(b"d", b""))
    try:
        return [DecodedRun(*run) for run in _decoder.decode(data)]
    except msgspec.ValidationError:
        return _decode_leniently(data)
    except (ValueError, RecursionError) as error:
        raise CorruptDataError(f"entry can not be decoded: {error}") from error


def _decode_leniently(data: bytes) -> list[DecodedRun]:
    """Decode item by item where a field has an odd type, so that it costs only that field."""
    try:
        runs = msgspec.msgpack.decode(data, type=list[tuple[Facts, record.Sequence, msgspec.Raw]])
        return [DecodedRun(facts, first, record.decode_items(items)) for facts, first, items in runs]
    except (ValueError, RecursionError) as error:
        raise CorruptDataError(f"entry can not be decoded: {error}") from error


def compressor(setting: str) -> tuple[str, Compress]:
    """Return codec name and function for ``stream.compression``. Raises ``ConfigError``."""
    if setting in ("auto", "zstd"):
        zstd = zstandard.module()
        if zstd is not None:
            # One for all, each time from the beginning: 0.04 us a record less than a new one each time.
            return "zstd", _zstd_with(zstd.ZstdCompressor(1))
        if setting == "zstd":
            raise ConfigError(
                ['stream.compression: "zstd" needs the package backports.zstd; install redislogkit[zstd]']
            )
    if setting == "none":
        return "none", bytes
    return "zlib", lambda data: zlib.compress(data, 1)


def _zstd_with(compressor: Any) -> Compress:
    def compress(data: bytes) -> bytes:
        try:
            compressed: bytes = compressor.compress(data, compressor.FLUSH_FRAME)
        except Exception as error:
            _check_memory(error)
            raise
        return compressed

    return compress


def _check_memory(error: Exception) -> None:
    """Raise ``MemoryError`` where zstd means that; "too much memory" is a frame that claims to be huge."""
    if "not enough memory" in str(error).lower():
        raise MemoryError(str(error)) from error


def decompress(codec: str, data: bytes) -> bytes:
    """Undo `compressor`. Raises ``CorruptDataError``, also for what inflates beyond `MAX_INFLATED`.

    Raises ``ConfigError`` where the codec is not installed, ``MemoryError`` where there is no memory for it:
    that is no fault of the entry.
    """
    try:
        if codec == "none":
            return data
        if codec == "zlib":
            inflater = zlib.decompressobj()
            return _bounded(inflater.decompress(data, MAX_INFLATED), not inflater.eof)
        if codec == "zstd":
            zstd = zstandard.module()
            if zstd is None:
                # Nothing is wrong with the entry: it is waited for whoever can read it.
                raise ConfigError(
                    [
                        "an entry is compressed with zstd, which is not installed here; install redislogkit[zstd]"
                    ]
                )
            unzstd = zstd.ZstdDecompressor()
            return _bounded(unzstd.decompress(data, MAX_INFLATED), not unzstd.eof)
    except (CorruptDataError, ConfigError, MemoryError):
        raise
    except Exception as error:  # each codec has an error class of its own
        _check_memory(error)
        raise CorruptDataError(f"entry can not be decompressed ({codec}): {error}") from error
    raise CorruptDataError(f"entry has the unknown codec {codec!r}")


def _bounded(data: bytes, more: bool) -> bytes:
    if more:
        raise CorruptDataError(f"entry is cut off or inflates to more than {MAX_INFLATED} bytes")
    return data


def _array_head(count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big")

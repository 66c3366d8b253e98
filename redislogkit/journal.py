"""Frames of a journal: length, CRC-32 and a msgpack value. Pure.

A journal is appended to, one frame at a time. A kill in mid-write leaves a frame that is not whole; the
reader stops there, and the owner cuts it off when it opens the journal again.
"""

from __future__ import annotations

import struct
from typing import Any, Final
from zlib import crc32

import msgspec

_HEAD: Final = struct.Struct("<II")
_LARGEST: Final = 256 * 1024 * 1024


def frame(content: Any) -> bytes:
    """Return ``content`` as one frame."""
    data = msgspec.msgpack.encode(content)
    return _HEAD.pack(len(data), crc32(data)) + data


def read_frame(data: bytes, position: int) -> tuple[Any, int] | None:
    """Return the value of the frame at ``position`` and where the next one begins; None if it is not whole."""
    if position + _HEAD.size > len(data):
        return None
    length, crc = _HEAD.unpack_from(data, position)
    start = position + _HEAD.size
    body = data[start : start + length]
    if not 0 < length <= _LARGEST or len(body) != length or crc32(body) != crc:
        return None
    try:
        return msgspec.msgpack.decode(body), start + length
    except msgspec.DecodeError:
        return None

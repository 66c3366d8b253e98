"""Stream entries of either layout → runs of numbered items. Pure."""

from __future__ import annotations

from redislogkit.errors import CorruptDataError
from redislogkit.stream import batch, records
from redislogkit.stream.batch import DecodedRun

__all__ = ["DecodedRun", "decode", "total"]


def decode(entry_id: bytes, fields: dict[bytes, bytes]) -> list[DecodedRun]:
    """Return the runs of an entry. Raises ``CorruptDataError``."""
    if not fields:
        raise CorruptDataError("its content was trimmed before it was written")
    # Our own field first: an extra may be called "d" or "v".
    if b"redislogkit" not in fields and b"d" in fields and b"v" in fields:
        return batch.decode(fields)
    if b"message" in fields or b"formatted_message" in fields or b"redislogkit" in fields:
        return records.decode(entry_id, fields)
    names = ", ".join(sorted(name.decode("ascii", "replace")[:40] for name in list(fields)[:10]))
    raise CorruptDataError(f"it is no log entry (fields: {names})")


def total(fields: dict[bytes, bytes]) -> int:
    """Items that the stream had had in all with this entry; 0 where the entry does not say."""
    value = fields.get(b"t", b"")
    return int(value) if value.isdigit() and len(value) < 20 else 0

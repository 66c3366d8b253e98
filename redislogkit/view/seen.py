"""What one looks at: a record, where it comes from, and which entry has brought it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from redislogkit import formatting, record
from redislogkit.record import Facts, Item, Loss, Record

#: Name of the logger of what redislogkit itself says in place of records: losses, and what can not be decoded.
OWN_LOGGER: Final = "redislogkit"

#: Who has logged what is only known from a file.
UNKNOWN: Final = Facts(producer="", host="", pid=0, process_name="", started=0.0, uid=-1)


class Seen(NamedTuple):
    """One record that was seen, or one notice of a loss."""

    record: Record
    """The record; of a loss what the log files have in its place."""
    facts: Facts
    """Who has logged it."""
    sequence: int
    """Its number; of a loss that of the last record lost; 0 where only a file tells of it."""
    entry_id: str = ""
    """The entry of the stream that has brought it; empty where it comes from a file or a spool."""
    loss: Loss | None = None
    """The loss, where it is the notice of one."""

    @property
    def is_notice(self) -> bool:
        """True for what redislogkit itself says in place of records."""
        return self.record.name == OWN_LOGGER


def seen(item: Item, facts: Facts, sequence: int, entry_id: str = "") -> Seen | None:
    """Return what is to be seen of an item; None for the mark of a producer's end."""
    if isinstance(item, Record):
        return Seen(item, facts, sequence, entry_id)
    if isinstance(item, Loss):
        return Seen(formatting.loss_record(item, facts), facts, sequence, entry_id, item)
    return None


def decode(payload: bytes, facts: Facts, sequence: int) -> Iterator[Seen]:
    """Yield what a frame of a spool holds: one item, or none for the mark of an end."""
    if found := seen(item_of(payload), facts, sequence):
        yield found


def item_of(payload: bytes) -> Item:
    """Return the item in a frame of a spool; of one that can not be decoded what says so."""
    try:
        return record.decode_items(b"\x91" + payload)[0]
    except (ValueError, RecursionError) as error:
        return record.unreadable(str(error))

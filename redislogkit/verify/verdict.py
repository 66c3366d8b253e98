"""What `verification` has found out, and how it is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from redislogkit.verify.sequences import Range, named


class Fault(NamedTuple):
    """One thing that is wrong."""

    kind: str
    """``missing``, ``doubled``, ``damaged``, ``dropped`` (with a line in the file that says so) or ``unproven``."""
    path: str
    """The file; empty where it is none."""
    text: str
    records: list[Range]
    """Records that it is about, some of which may be there."""


@dataclass
class Result:
    """What was found out about the files of one writer."""

    writer: str
    path: str
    """Its live file."""
    files: list[str] = field(default_factory=list)
    """Files that were looked at, oldest first."""
    records: int = 0
    """Records that are there."""
    producers: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Records that were dropped before they could be written, by cause, as lines in the files say."""
    expired: int = 0
    """Files that retention has deleted and that the index still knows."""
    foreign_bytes: int = 0
    """Bytes of others."""
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is worth knowing and no fault."""

    @property
    def complete(self) -> bool:
        """True when every record is there, once."""
        return not self.faults


def tell(result: Result) -> Iterator[str]:
    """Yield the lines that say it to a person."""
    yield f"{result.writer}: {_verdict(result)}"
    for fault in result.faults:
        place = f"{fault.path}: " if fault.path else ""
        records = f": {named(fault.records)}" if fault.records else ""
        yield f"  {fault.kind:<8}  {place}{fault.text}{records}"
    yield from (f"  note      {note}" for note in result.notes)


def _verdict(result: Result) -> str:
    files = len(result.files)
    there = (
        f"{result.records} record{plural(result.records)} of {result.producers} producer{plural(result.producers)} "
        f"in {files} file{plural(files)} of {result.path}"
    )
    if result.expired:
        there += f"; {result.expired} older one{plural(result.expired)} deleted by retention"
    if result.complete:
        return f"complete, {there}"
    kinds = Counter(fault.kind for fault in result.faults)
    dropped = sum(result.dropped.values())
    texts = [f"{count} {kind}" for kind, count in sorted(kinds.items()) if kind != "dropped"]
    texts += [f"{dropped} record{plural(dropped)} dropped, as the files say"] if dropped else []
    return f"NOT complete ({', '.join(texts)}), {there}"


def as_json(results: Sequence[Result]) -> dict[str, object]:
    """Return the same for a program."""
    return {
        "complete": all(result.complete for result in results),
        "writers": [
            {
                "writer": result.writer,
                "path": result.path,
                "complete": result.complete,
                "records": result.records,
                "producers": result.producers,
                "files": result.files,
                "expired": result.expired,
                "foreign_bytes": result.foreign_bytes,
                "dropped": dict(result.dropped),
                "faults": [
                    {**fault._asdict(), "records": [found._asdict() for found in fault.records]}
                    for fault in result.faults
                ],
                "notes": result.notes,
            }
            for result in results
        ],
    }


def plural(count: int) -> str:
    """Return what a noun gets behind that count."""
    return "" if count == 1 else "s"

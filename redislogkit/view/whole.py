"""Archives, live file and stream of one writer as one sequence, in the order of writing.

Theory of operation. What the writer has in its files and what is only in the stream so far must meet without a gap and
without doubles, while the writer goes on:

1. the entries of the stream that it may not have written yet are put aside (in memory, or in a temporary file);
2. only then the files are opened, and the checkpoint says up to which sequence of each producer they go;
3. the files are shown up to there, then of what was put aside that which lies behind it.

A record that is trimmed from the stream before step 1 is in the files by then. One that is written between 1 and
2 is in the files and known to be. So in each case exactly one of the two has it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO, Final, NamedTuple, cast

import msgspec

from redislogkit import callables, lines
from redislogkit.config import Config, FileWriterConfig
from redislogkit.errors import ConfigError, CorruptDataError, StreamError
from redislogkit.selection import selector
from redislogkit.stream import address, entries
from redislogkit.stream.client import RawEntry, StreamClient
from redislogkit.supervisor import code
from redislogkit.view import parsing
from redislogkit.view.files import Files, Part
from redislogkit.view.filter import Filter
from redislogkit.view.seen import Seen, seen
from redislogkit.writers.reading import Reading

_AT_ONCE: Final = 64
_IN_MEMORY: Final = 16 * 1024 * 1024


class Line(NamedTuple):
    """The text of one record, as its writer writes it."""

    text: str
    """Without the newline at its end."""
    seen: Seen | None = None
    """As far as the text tells; None where it is not understood."""
    shown: dict[str, object] | None = None
    """The attributes that the text shows; None where it comes from the stream, and all are known."""


class Whole:
    """Everything of one writer, as it is at the moment of `open`. `close` it.

    Args:
        config: The configuration.
        name: Of the writer, one of files.
        wanted: Which records.
        report: Takes one line about what can not be read, or judged.
        connect: Makes the client.
        plain: The text alone will do: where nothing is filtered, the lines of files are not understood then.
    """

    def __init__(
        self,
        config: Config,
        name: str,
        wanted: Filter,
        report: Callable[[str], None],
        connect: Callable[[], StreamClient],
        *,
        plain: bool = False,
    ) -> None:
        writer = config.writers[name]
        assert isinstance(writer, FileWriterConfig)
        self.writer = msgspec.structs.replace(writer, path=os.path.realpath(writer.path))
        self.parser = parsing.parser(self.writer.formatter, self.writer.multiline)
        self._config, self._name = config, name
        self._group = address.group(config, name)
        self._journal = config.checkpoint_path(name)
        self._wanted = wanted
        self._as_they_are = plain and wanted.grep is None and not wanted.needs()
        self._report = report
        self._connect = connect
        self._aside: BinaryIO | None = None
        self._files: Files | None = None
        self._published: dict[str, int] = {}
        self.not_understood = 0
        """Texts that were left out, as nobody can say whether they are wanted."""
        self.away = ""
        """Why the stream's part is missing; empty where it is not."""

    def open(self) -> None:
        """Take hold of everything. Raises what `Files` raises."""
        try:
            self._put_aside()
        except StreamError as error:
            self.away = str(error)
        self._files = Files(self.writer, self._journal, self._report, self._wanted.since)

    def close(self) -> None:
        """Let go of it."""
        if self._files is not None:
            self._files.close()
        if self._aside is not None:
            self._aside.close()

    # -- the stream -----------------------------------------------------------------------------

    def _put_aside(self) -> None:
        """Copy what the writer may not have written yet."""
        client = self._connect()
        known = Files(self.writer, self._journal, self._report, since=float("inf"))
        try:
            end, after = client.newest_id(), "0-0"
            if known.state is None and os.path.exists(self.writer.path):
                # Files without a checkpoint: what the writer has told the server is the best that there is.
                self._published = client.written(self._group)
            aside = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - `close` does
            self._aside = cast("BinaryIO", aside)
            while _key(after) < _key(end) and (found := client.look(after, _AT_ONCE)):
                after = found[-1][0].decode()
                for entry in found:
                    if not _is_known(entry, known.seen):
                        data = msgspec.msgpack.encode(entry)
                        self._aside.write(len(data).to_bytes(8, "big") + data)
        finally:
            known.close()
            client.close()

    def _stream_lines(self) -> Iterator[Line]:
        assert self._files is not None
        highest: dict[str, int] = {}

        def known(producer: str) -> int:
            return highest.get(producer) or max(self._files.seen(producer), self._published.get(producer, 0))  # type: ignore[union-attr]

        render = lines.build(self.writer.formatter, self.writer.multiline)
        selects = selector(self.writer.level, self.writer.loggers)
        wants = self._own_filter()
        for entry_id, fields in self._entries():
            reading = Reading(known, selects, wants)
            try:
                for run in entries.decode(entry_id, fields):
                    reading.add(run)
            except CorruptDataError as error:
                self._report(f"entry {entry_id.decode()} can not be shown: {error}")
            highest |= reading.highest
            for item, text in zip(reading.items, render(reading.items), strict=True):
                one = seen(*item, entry_id.decode())
                if one is not None and self._wanted.matches(one):
                    yield Line(text.removesuffix("\n"), one)

    def _own_filter(self) -> Callable[[lines.Numbered], bool] | None:
        """Return the filter that the writer has, where it has one: code of the user's."""
        if self.writer.filter is None:
            return None
        callables.extend_path([os.path.dirname(self._config.source)] if self._config.source else [])
        try:
            ask = code.record_filter(self._config, self._name, self._report)
        except ConfigError as error:
            self._report(f"what is only in the stream is shown without the writer's own filter: {error}")
            return None

        def wants(numbered: lines.Numbered) -> bool:
            with contextlib.redirect_stdout(sys.stderr):  # what it prints is no record
                return ask(numbered)

        return wants

    def _entries(self) -> Iterator[RawEntry]:
        if self._aside is None:
            return
        self._aside.seek(0)
        while head := self._aside.read(8):
            data = self._aside.read(int.from_bytes(head, "big"))
            yield msgspec.msgpack.decode(data, type=tuple[bytes, dict[bytes, bytes]])

    # -- the files ------------------------------------------------------------------------------

    def _file_lines(self, part: Part) -> Iterator[Line]:
        assert self._files is not None
        for text in self._files.texts(part, self.parser):
            if self._as_they_are:
                yield Line(text)
                continue
            values = self.parser.parse(text)
            if values is None:
                if self._is_wanted_text(text):
                    yield Line(text)
                continue
            created = values.get("created", 0.0)
            if self._wanted.admits(parsing.level_of(values), values.get("name", ""), created):
                one = parsing.seen(values)
                if self._wanted.matches(one):
                    yield Line(text, one, values)

    def _is_wanted_text(self, text: str) -> bool:
        """Of what is not understood only the text is known."""
        if self._wanted.needs():
            self.not_understood += 1
            return False
        return self._wanted.grep is None or self._wanted.grep.search(text) is not None

    # -- all of it ------------------------------------------------------------------------------

    def lines(self) -> Iterator[Line]:
        """Yield what is wanted."""
        for source in self._sources():
            yield from source()

    def last(self, count: int) -> list[Line]:
        """Return the last ``count`` that are wanted; no more files are read than have them."""
        found: list[Line] = []
        for source in reversed(self._sources()):
            if len(found) >= count:
                break
            found[:0] = deque(source(), maxlen=count - len(found))
        return found

    def _sources(self) -> list[Callable[[], Iterator[Line]]]:
        assert self._files is not None
        parts = [partial(self._file_lines, part) for part in self._files.parts]
        return [*parts, self._stream_lines]


def _is_known(entry: RawEntry, known: Callable[[str], int]) -> bool:
    """True where all of an entry stands in the files; batches say so without being unpacked."""
    for run in entry[1].get(b"p", b"").decode("ascii", "replace").split():
        producer, _, rest = run.partition(":")
        first, _, count = rest.partition(":")
        if not (first.isdecimal() and count.isdecimal()) or int(first) + int(count) - 1 > known(producer):
            return False
    return b"p" in entry[1] and b"redislogkit" not in entry[1]


def _key(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)


def as_json(line: Line) -> dict[str, object]:
    """Return what a text line shows, by the names that JSON lines have."""
    from redislogkit.rendering import timestamp
    from redislogkit.view.filter import ALIASES

    if line.shown is None:
        return {"message": line.text}
    names = {attribute: name for name, attribute in ALIASES.items() if name != "pid"}
    values = {names.get(name, name): value for name, value in line.shown.items()}
    created = values.pop("created", None)
    return {"timestamp": timestamp(created), **values} if isinstance(created, float) else values

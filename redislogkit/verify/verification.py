"""``python -m redislogkit verify``: prove from a writer's files, index and checkpoint that all is there, once.

Theory of operation. The index says for each log file which bytes were written into it and which sequences of which
producers they are; the checkpoint says how far each producer has come. So three things are looked at:

1. Every chunk is in its file.
2. The sequences of a producer follow one another over all chunks: what no chunk accounts for is missing, what two
   account for is doubled. They end where the checkpoint says.
3. What no chunk accounts for is somebody else's, and left alone, unless the same lines stand in the writer's own
   part: then they are doubled.

Everything is only read, and nothing is locked, so a writer may be at work. What is found wrong while files change is
looked at again, until it is the same in files that have not changed meanwhile.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from redislogkit import rotation
from redislogkit.config import Config, FileWriterConfig
from redislogkit.errors import ConfigError, RedislogkitError
from redislogkit.spool.shipper_end import spool_names
from redislogkit.verify import matching
from redislogkit.verify.comparison import Foreign
from redislogkit.verify.matching import LogFile, Part
from redislogkit.verify.places import Place
from redislogkit.verify.sequences import Accounts, Range, merged, named, ranges_of
from redislogkit.verify.verdict import Fault, Result, plural
from redislogkit.writers import archive, checkpoint, index
from redislogkit.writers.archive import Identity
from redislogkit.writers.checkpoint import State
from redislogkit.writers.chunk import Chunk

#: How often a writer at work may change what is being looked at.
_ATTEMPTS: Final = 8
_PAUSE: Final = 0.05


def verify(config: Config, paths: Sequence[str] = ()) -> list[Result]:
    """Verify the writers whose files are among ``paths``, with all their files; all file writers without ``paths``.

    Raises:
        ConfigError: There is no file writer; a path is no file of one, or can not be read without zstd.
        RedislogkitError: The files change faster than they can be read.
        OSError: Something can not be read.
    """
    writers = {
        name: msgspec.structs.replace(writer, path=os.path.realpath(writer.path))
        for name, writer in config.writers.items()
        if isinstance(writer, FileWriterConfig)
    }
    if not writers:
        raise ConfigError(
            [f"{config.source or 'this configuration'} has no file writer: there is nothing to verify"]
        )
    given: dict[str, list[str]] = {} if paths else {name: [] for name in writers}
    for path in paths:
        given.setdefault(_owner(config, writers, path), []).append(os.path.realpath(path))
    return [
        _settled(
            Place(config, name, writer, given[name], [w.path for w in writers.values() if w is not writer])
        )
        for name, writer in writers.items()
        if name in given
    ]


def waiting(config: Config) -> str:
    """Say what is not written yet and thus can not be judged; empty if nothing."""
    count = len(spool_names(config.spool_root))
    if not count:
        return ""
    return f"{count} spool{plural(count)} below {config.stream_dir}: what waits there is not written yet, and not judged"


def _owner(config: Config, writers: Mapping[str, FileWriterConfig], path: str) -> str:
    """Return the name of the writer that a file belongs to, by its name or else by its identity."""
    full = os.path.realpath(path)
    folder, base = os.path.split(full)
    named = [
        (os.path.dirname(writer.path) == folder, len(writer.path), name)
        for name, writer in writers.items()
        if base.startswith(os.path.basename(writer.path))
    ]
    if named:
        name = max(named)[2]
        if (
            os.path.exists(full)
            or full == writers[name].path
            or rotation.is_archive_of(writers[name].path, full)
        ):
            return name
    found = archive.identity_of(full)
    for name in writers if found else ():
        for label in index.index_files(index.folder(config.stream_dir, name)):
            if index.read(label)[:2] == found:
                return name
    known = ", ".join(writer.path for writer in writers.values()) or "none"
    problem = f"is no file of a writer of {config.source or 'this configuration'}" if found else "is no file"
    raise ConfigError([f"{path} {problem}; files of its writers: {known}"])


def _settled(place: Place) -> Result:
    """Verify, again while what is wrong may be due to a writer at work."""
    before: Result | None = None
    for attempt in range(_ATTEMPTS):
        time.sleep(_PAUSE * attempt)
        stamp = place.everything()
        try:
            result = _Verification(place).run()
        except (matching.ChangedError, FileNotFoundError):
            before = None
            continue
        same = before is not None and _outline(before) == _outline(result)
        if result.complete or same or place.everything() == stamp:
            return result
        before = result
    if before is None:
        raise RedislogkitError(
            f"the files of writer {place.name!r} change faster than they can be read; try again"
        )
    return before


def _outline(result: Result) -> list[object]:
    return [(fault.kind, fault.records) for fault in result.faults]


# --- judging -----------------------------------------------------------------------------------------------


class _Verification:
    """One look at everything of a writer."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._journals = place.journals()
        # In this order, against that of the writer: what is known to be written is looked for afterwards.
        self._has_checkpoint = os.path.exists(place.checkpoint)
        self._state = checkpoint.load(place.checkpoint) if self._has_checkpoint else State()
        self._result = Result(place.name, place.writer.path)
        self._oldest = 0
        """Number of the oldest index file."""
        self._is_quiet = False
        """Nothing has been written since."""
        self._index_is_whole = True
        """From the first file on, and readable."""
        # Before the index: what comes later may not be in it yet.
        self._there_before = {file.identity for file in self._list()}
        self._parts = self._read_index()
        self._announced = [
            Range(span.producer, span.first, span.last) for i in self._state.intents for span in i.chunk.spans
        ]

    def _list(self) -> list[LogFile]:
        """List the files: the writer's own, oldest first, and then others of which one may be a renamed one."""
        own = self._place.own_paths()
        self._own = matching.list_files(own)
        return self._own + matching.list_files(self._place.similar_paths(own))

    def run(self) -> Result:
        """Return what is found."""
        result = self._result
        files, left = matching.match(self._parts, self._list)
        self._is_quiet = self._journals == self._place.journals()
        expired = self._expired()
        kept = [part for part in self._parts if not any(part is one for one in expired)]
        matching.match_by_place(kept, self._own, left)
        result.expired = len(expired)
        result.files = [file.path for file in files if any(_is(part.file, file) for part in kept)]
        self._judge_proof()
        for part in kept:
            self._judge_part(part)
        self._judge_sequences()
        asked = [file for file in left if file in self._own or file.path in self._place.given]
        self._judge_others(kept, [file for file in asked if file.identity in self._there_before])
        self._note_intents()
        return result

    def _fault(self, kind: str, path: str, text: str, records: Iterable[Range] = ()) -> None:
        self._result.faults.append(Fault(kind, path, text, list(records)))

    # -- the index ------------------------------------------------------------------------------

    def _read_index(self) -> list[Part]:
        parts: list[Part] = []
        number = 0
        paths = index.index_files(self._place.index_folder)
        for path in paths:
            before, number = number, int(os.path.basename(path).partition(".")[0])
            self._oldest = self._oldest or number
            if number != before + 1:
                self._index_is_whole = False
            if before and number != before + 1:
                self._fault(
                    "unproven",
                    "",
                    f"index files {before + 1} to {number - 1} in {self._place.index_folder} are gone",
                )
            try:
                found, changed = index.read(path), os.stat(path).st_mtime
            except FileNotFoundError:  # its file has been deleted
                continue
            except ValueError as error:
                self._index_is_whole = False
                # A writer that was killed when it had just made it leaves one without a chunk.
                if os.path.getsize(path) > index.LONGEST_HEAD:
                    self._fault("unproven", "", f"the index {path} is damaged: {error}")
                continue
            for chunks in _generations(found.chunks):
                _add_part(parts, Part(Identity(found.device, found.inode), chunks, changed, path))
        return parts

    def _expired(self) -> list[Part]:
        """Parts whose files retention may have deleted: the oldest, where a bound is reached."""
        expired: list[Part] = []
        writer = self._place.writer
        archives = [file for file in self._own if file.path != writer.path]
        total = sum(file.size for file in archives)
        # Where somebody else rotates, he deletes as well.
        moved = {writer.path, *self._place.left_behind()}
        rotated = any(part.file and part.file.path not in moved for part in self._parts)
        foreign = rotated and not writer.max_bytes and writer.when is None
        there = len(archives) + self._rotation_was_interrupted()
        for part in self._parts:
            if part.file is not None:
                break
            if part.first is None:
                continue
            surplus = foreign or 0 < writer.backup_count <= there
            too_old = writer.max_age is not None and part.changed < time.time() - writer.max_age
            too_much = writer.max_total_bytes is not None and total + part.size > writer.max_total_bytes
            if not (surplus or too_old or too_much):
                break
            expired.append(part)
        return expired

    def _rotation_was_interrupted(self) -> bool:
        """True when a rotation may have been killed between the deletion of the oldest backup and its last step."""
        writer = self._place.writer
        live = [file for file in self._own if file.path == writer.path]
        if writer.naming != "number" or not live:
            return False
        numbers = [
            found.number for file in self._own if (found := rotation.parse_archive(writer.path, file.path))
        ]
        longest = max((c.end - c.start for part in self._parts for c in part.chunks), default=0)
        due = writer.when is not None or live[0].size + longest >= writer.max_bytes > 0
        return due or max(numbers, default=0) > len(numbers)

    def _judge_proof(self) -> None:
        """Is there anything to go by?"""
        place = self._place
        if self._state.damage:
            self._result.notes.append(
                f"checkpoint: {self._state.damage}; a writer that was killed leaves that"
            )
        if self._parts and not self._has_checkpoint:
            self._fault(
                "unproven", "", f"the checkpoint {place.checkpoint} is gone; how far was written is not known"
            )
        if self._has_checkpoint and self._state.entry_id != b"0-0" and not self._parts:
            self._fault(
                "unproven", "", f"there is no index in {place.index_folder}; what was written is not known"
            )
        if not self._parts and not self._has_checkpoint:
            if any(file.size for file in self._own):
                self._fault(
                    "unproven",
                    place.writer.path,
                    f"nothing in {place.config.stream_dir} tells of these files",
                )
            else:
                self._result.notes.append("nothing has been written yet")

    # -- bytes ----------------------------------------------------------------------------------

    def _judge_part(self, part: Part) -> None:
        result, found = self._result, part.comparison
        if part.file is None:
            if part.first is not None:
                text = (
                    f"a file with {part.size} bytes is gone{self._neighbours(part)} (its index: {part.label})"
                )
                self._fault("missing", "", text, ranges_of(part.chunks))
            return
        path = part.file.path
        if found.error:
            self._fault("damaged", path, f"can not be read behind byte {found.size}: {found.error}")
        for start, end, chunks in found.damage:
            written = sum(chunk.end - chunk.start for chunk in chunks)
            if end == start:
                self._fault("missing", path, f"{written} bytes are gone at byte {start}", ranges_of(chunks))
            else:
                text = f"bytes {start} to {end} are not the {written} bytes that were written"
                self._fault("damaged", path, text, ranges_of(chunks))
        spans = [span for each in found.found for span in each.chunk.spans]
        result.records += sum(span.lines for span in spans)
        for each in found.found:
            for loss in each.chunk.losses:
                result.dropped[loss.cause] += loss.last - loss.first + 1
                lost = Range(loss.producer, loss.first, loss.last)
                self._fault("dropped", path, f"dropped before they were written: {loss.cause}", [lost])

    def _neighbours(self, part: Part) -> str:
        """Say where a file that is gone should be."""
        at = next(number for number, other in enumerate(self._parts) if other is part)
        older = [other.file.path for other in self._parts[:at] if other.file][-1:]
        newer = [other.file.path for other in self._parts[at + 1 :] if other.file][:1]
        if older and newer:
            return f" between {older[0]} and {newer[0]}"
        return f" after {older[0]}" if older else f" before {newer[0]}" if newer else ""

    # -- sequences ------------------------------------------------------------------------------

    def _judge_sequences(self) -> None:
        known: dict[str, Accounts] = {}
        for part in self._parts:
            for chunk in part.chunks:
                for span in chunk.spans:
                    known.setdefault(span.producer, Accounts()).add(span, part.name)
        self._result.producers = len(known)
        for producer, sequences in known.items():
            for kind, path, text, found in sequences.faults(producer):
                self._fault(kind, path, text, [found])
        self._judge_end({producer: sequences.last for producer, sequences in known.items()})

    def _judge_end(self, reached: Mapping[str, int]) -> None:
        """Compare where the index ends with what the checkpoint says."""
        if not self._parts or not self._has_checkpoint:
            return
        state = self._state
        ahead = 0
        for producer, highest in {**state.ended, **state.highest}.items():
            last = reached.get(producer, 0 if self._oldest == 1 else highest)
            ahead += last > highest
            if last < highest:
                text = "the checkpoint says that they are written, and no index says where"
                self._fault("missing", "", text, [Range(producer, last + 1, highest)])
        if ahead and not state.intents and self._is_quiet:
            text = f"the checkpoint is older than the index, for {ahead} producer{plural(ahead)}"
            self._result.notes.append(f"{text}: was another one put back?")

    def _note_intents(self) -> None:
        if self._state.intents and self._is_quiet:
            self._result.notes.append(
                f"the writer was interrupted in the middle of a write: {named(merged(self._announced))} "
                "will be looked for, and written where they are not there, when it is started again"
            )

    # -- what nobody knows ----------------------------------------------------------------------

    def _judge_others(self, parts: Sequence[Part], strangers: Sequence[LogFile]) -> None:
        """Bytes and files that no chunk accounts for: do they repeat what is there?"""
        regions = [(part.name, found) for part in parts for found in self._foreign(part)]
        self._result.foreign_bytes = sum(found.end - found.start for _, found in regions)
        for path, found in regions:
            self._result.notes.append(f"{path}: bytes {found.start} to {found.end} are not this writer's")
        suspects = [
            (path, f"of bytes {found.start} to {found.end} ", found.data)
            for path, found in regions
            if not self._was_there_before(parts, path, found)
        ]
        twins = [file for file in strangers if any(matching.is_twin(file, part) for part in parts)]
        self._result.notes.extend(
            f"{file.path}: here compression was interrupted; the file is there twice until the writer starts again"
            for file in twins
        )
        files = {file.path: file for file in strangers if file.size and file not in twins}
        suspects += [(path, "", file.head()) for path, file in files.items()]
        for path, text, records in _repeated(parts, suspects):
            self._fault("doubled", path, text, records)
            files.pop(path, None)
        for path, file in files.items():
            if file in self._own and self._parts and not self._index_is_whole:
                self._fault("unproven", path, "no index says what should be in it")
            elif self._parts:
                self._result.notes.append(f"{path}: nothing of this writer is in it")

    def _foreign(self, part: Part) -> Iterator[Foreign]:
        """Yield the bytes of others in a file: neither announced ones nor those that are being written now."""
        announced = [
            (i.chunk.start, part.comparison.size)
            for i in self._state.intents
            if (i.device, i.inode) == part.identity
        ]
        for found in part.comparison.foreign:
            at_end = found.end == part.comparison.size and part.name == self._place.writer.path
            if (self._is_quiet or not at_end) and not any(
                a < found.end and found.start < b for a, b in announced
            ):
                yield found

    def _was_there_before(self, parts: Sequence[Part], path: str, found: Foreign) -> bool:
        return self._oldest == 1 and found.start == 0 and parts[0].name == path


def _is(one: LogFile | None, other: LogFile) -> bool:
    return one is not None and one.identity == other.identity


def _generations(chunks: Sequence[Chunk]) -> Iterator[list[Chunk]]:
    """Divide chunks where the file has been cut from outside and was begun anew."""
    generation: list[Chunk] = []
    end = 0
    for chunk in chunks:
        if chunk.start < end and chunk.end > chunk.start:
            yield generation
            generation = []
        generation.append(chunk)
        end = chunk.end
    yield generation


def _add_part(parts: list[Part], part: Part) -> None:
    """Add a part to those before, or to the one about the same file: writing has come back to it."""
    for other in reversed(parts):
        if other.identity == part.identity:
            if part.first and part.first.start >= other.size > 0:
                other.chunks += part.chunks
                other.changed = part.changed
                return
            break
    parts.append(part)


def _repeated(
    parts: Sequence[Part], suspects: Sequence[tuple[str, str, bytes]]
) -> Iterator[tuple[str, str, list[Range]]]:
    """Yield path, text and records for those ``suspects`` (path, place, bytes) that repeat lines of the ``parts``."""
    lines = [set(data.split(b"\n")) - {b""} for _, _, data in suspects]
    wanted = set().union(*lines)
    hits: dict[int, tuple[set[bytes], set[str], list[Chunk]]] = {}
    for part in parts if wanted else ():
        for chunk, text in part.texts():
            repeated = wanted.intersection(text.split(b"\n"))
            for number in range(len(suspects)) if repeated else ():
                if both := repeated & lines[number]:
                    of_it = hits.setdefault(number, (set(), set(), []))
                    of_it[0].update(both)
                    of_it[1].add(part.name)
                    of_it[2].append(chunk)
    for number, (which, files, chunks) in sorted(hits.items()):
        path, where, _ = suspects[number]
        count = f"{len(which)} line{plural(len(which))}"
        verb = "stands" if len(which) == 1 else "stand"
        yield path, f"{count} {where}{verb} in {', '.join(sorted(files))}, too", ranges_of(chunks)

"""The typed adapter to redis and valkey: about ten operations, and the only module that imports redis.

The library's own retries are off: with them, one append against a stalled server stored two entries and
reported success. Every reading command blocks for less than the socket's time-out. Errors come out as
`ServerAwayError` ("try again later") or `GroupMissingError`; callers loop, with their own pauses.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import random
import re
import select
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from redislogkit.errors import ConfigError, GroupMissingError, LeaseLostError, ServerAwayError
from redislogkit.levels import Change, Found
from redislogkit.stream.batch import Entry

#: Seconds that a command may take, and the part of it that a reading waits at most.
TIMEOUT: Final = 5.0
_WAITING: Final = 0.8
#: Milliseconds by which a server may be late to say that nothing has come: it looks as often as its ``hz`` says.
_LATE: Final = 1000

#: Bytes of an entry that may as well come twice, when the next one is waited for.
_LITTLE: Final = 8 * 1024

#: What ends a reading, beside its number of entries: compressed bytes and records. Larger ones do not stay in the
#: caches of a processor: 60,000 records at once take a third longer than 5,000, and twenty times the memory.
ENOUGH_BYTES: Final = 96 * 1024
ENOUGH_RECORDS: Final = 5_000

LOST: Final = -1
FULL: Final = -2
FENCED: Final = -1
#: Answers of scripts that are not passed on.
_BEHIND: Final = -3
_UNPUBLISHED: Final = -2

RawEntry: TypeAlias = tuple[bytes, dict[bytes, bytes]]

_CREDENTIALS: Final = re.compile(r"//\S*@")
#: Where in which of our scripts an error came up: nothing that a user could do anything with.
_SCRIPT: Final = re.compile(r"\.? script: .*")
_CHANGE: Final = re.compile(r"(\d{1,10}) (\d{1,15}) (.*)", re.DOTALL)

#: Some connection errors are not wrapped, nor is what the library's parser makes of an answer that is none.
_FAILURES: Final = (RedisError, OSError, ValueError)
_FENCED_TEXT: Final = "the lease of writer {} is somebody else's by now"
_UNPUBLISHED_TEXT: Final = "the positions that it had published are no longer there"


class Position(NamedTuple):
    """How far one producer has come: highest sequence in the stream, and written by every writer."""

    stored: int
    written: int


class Claim(NamedTuple):
    """Answer to the wish for a lease."""

    token: int
    """Fencing token of the lease; 0 when somebody else holds it."""
    holder: str
    """Who holds it now."""


class Confirmation(NamedTuple):
    """What a writer has durably written."""

    last_id: bytes
    """Newest entry written; empty to publish positions only."""
    total: int
    """Items that the stream had had in all with that entry."""
    positions: dict[str, int]
    """Producer → highest sequence written; -1 takes the producer out."""
    ids: Sequence[bytes]
    """Entries to acknowledge."""
    token: int
    """Fencing token of the writer's lease."""


class WokenError(Exception):
    """There is something else to do than to wait for records."""


class WriterState(NamedTuple):
    """How far a registered writer has come."""

    position: str
    """Newest entry that it has written."""
    total: int
    """Items that the stream had had in all with that entry."""
    holder: str
    """Who holds its lease, or has held it last; empty: nobody yet."""
    lease_ends: float
    """When that lease ends, or has ended: epoch seconds by the server's clock."""
    unread_since: float | None
    """When the first entry that it has not written was added, by the same clock; None: it has written all."""


class Overview(NamedTuple):
    """What the server tells of the stream as a whole."""

    now: float
    """The server's clock, epoch seconds."""
    entries: int
    added: int
    """Items that were ever added."""
    overflow: int
    """Records that were ever dropped from the stream, for want of a writer."""
    writers: dict[str, WriterState]
    newest: float = 0.0
    """When the newest entry was added, by the same clock; 0.0: there has been none."""

    def behind(self, writer: str) -> int:
        """Items that ``writer`` has not written yet."""
        return max(self.added - self.writers[writer].total, 0)

    def lag(self, writer: str) -> float:
        """Seconds from the newest entry that ``writer`` has written to the newest one; 0.0 when it has written all."""
        state = self.writers[writer]
        if state.unread_since is None:
            return 0.0
        since = _moment(state.position) or state.unread_since  # one that has written nothing yet
        return max(self.newest - since, 0.0)

    def oldest_unread(self, writer: str) -> float:
        """Age in seconds of the oldest entry that ``writer`` has not written; 0.0 when it has written all."""
        since = self.writers[writer].unread_since
        return 0.0 if since is None else max(self.now - since, 0.0)


class StreamClient:
    """One connection to one stream. Not for several threads at once.

    Raises ``ConfigError`` for a url that is none; the connection is made by the first command.
    """

    def __init__(self, url: str, stream: str, *, timeout: float = TIMEOUT) -> None:
        self._stream = stream
        self._seqs = f"{{{stream}}}:redislogkit:sequences"
        self._writers = f"{{{stream}}}:redislogkit:writers"
        self._leases = f"{{{stream}}}:redislogkit:leases"
        self._levels = f"{{{stream}}}:redislogkit:levels"
        self._pool = _pool(url, timeout)
        self._longest_wait = _WAITING * timeout
        self._redis: redis.Redis | None = None
        self._stored: dict[str, int] = {}
        """Producer → sequence that the stream has been seen to have, since `attach`."""
        self._rolled_back = False  # the server has less than that
        self._tokens: dict[str, int] = {}
        """Writer → fencing token of the lease that this client has claimed."""
        self._confirmed: dict[str, str] = {}
        """Writer → mark beside its published positions, as it was left by the last `confirm`."""
        self._quiet: dict[str, bytes] = {}
        """Writer → the only entry that its last reading has found: it begins to wait behind it, without a look."""
        self._unpublished: set[str] = set()  # writers beside whose positions another mark stands
        self.overflow = 0
        """Records that were dropped from the stream since it is: nobody was registered to read them."""

    def _written(self, writer: str) -> str:
        return f"{{{self._stream}}}:redislogkit:written:{writer}"

    # -- commands -------------------------------------------------------------------------------

    def _execute(self, *command: Any) -> Any:
        if self._redis is None:
            # Out of a pool, a dead connection would be replaced without a word. What the server remembers may
            # be another thing then, and whoever holds this client has to ask: it gets the error instead.
            self._redis = redis.Redis(connection_pool=self._pool, single_connection_client=True)
        execute: Callable[..., Any] = self._redis.execute_command
        return execute(*command)

    def _call(self, *command: Any) -> Any:
        try:
            return self._execute(*command)
        except _FAILURES as error:
            raise _translated(error) from None

    def _script(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        source, digest = _scripts(name)
        try:
            return self._execute("EVALSHA", digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return self._call("EVAL", source, len(keys), *keys, *arguments)
        except _FAILURES as error:
            raise _translated(error) from None

    def ping(self) -> None:
        """Raise ``ServerAwayError`` unless the server answers."""
        self._call("PING")

    # -- the shipper's side ---------------------------------------------------------------------

    def attach(self, epoch: str, writers: Sequence[str] = ()) -> str:
        """Make sure that the stream exists; return its epoch, which is ``epoch`` where it had none.

        ``writers`` are registered: nothing is trimmed before they have read it, also when they join late.
        Where the server has been found to have gone back to an earlier state, ``epoch`` becomes the new one.
        """
        arguments = [epoch, int(self._rolled_back), *writers]
        answer = _text(self._script("attach", [self._stream, self._seqs, self._writers], arguments))
        self._rolled_back = False
        self._stored.clear()
        return answer

    def append(self, entries: Iterable[Entry], epoch: str, max_records: int) -> int:
        """Append entries in order, once. Return how many were new, or `LOST` or `FULL`.

        Nothing is appended behind a gap: a server that has less of a producer than it had has `LOST` its memory.
        """
        arguments: list[Any] = [epoch, max_records]
        stored = _Overlay(self._stored)
        for entry in entries:
            # A producer perhaps twice: what counts is what is there before the entry.
            known = [(producer, stored.get(producer), sequence) for producer, sequence in entry.last]
            arguments.append(_texts(known))
            for producer, sequence in entry.last:
                stored.raise_to(producer, sequence)
            arguments += (entry.records, len(entry.fields), *entry.fields)
        answer, self.overflow = map(
            int, self._script("append", [self._stream, self._seqs, self._writers], arguments)
        )
        if answer == _BEHIND:
            self._rolled_back = True
            return LOST
        if answer >= 0:
            self._stored |= stored.changes
        return answer

    def positions(self, producers: Sequence[str], writers: Sequence[str]) -> tuple[str, dict[str, Position]]:
        """Return the epoch ("" when the stream is gone) and the position of each producer.

        The epoch is "" also when the stream has less of one of them than it had: all memory is in doubt then.
        """
        keys = [self._stream, self._seqs, *map(self._written, writers)]
        answer = self._script("positions", keys, [_texts([producers])])
        numbers = [int(value) for value in answer[1].split()]
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        found = {p: Position(*pair) for p, pair in zip(producers, pairs, strict=False)}
        behind = any(position.stored < self._stored.get(p, 0) for p, position in found.items())
        if behind or self._rolled_back:
            self._rolled_back = True
            return "", found
        self._stored |= {p: position.stored for p, position in found.items() if position.stored}
        return _text(answer[0]), found

    def forget_producers(self, producers: Sequence[str]) -> None:
        """Drop what the server remembers of producers whose spools are gone."""
        for producer in producers:
            self._stored.pop(producer, None)
        self._call("HDEL", self._seqs, *producers)

    def levels(self) -> Found | None:
        """Return the levels that loggers have for a while; None when the server refuses to tell.

        That is worth nothing else: a shipper whose rights do not reach that far ships all the same.
        """
        source, _ = _scripts("levels")
        try:
            now, *found = self._execute("EVAL", source, 1, self._levels)
        except ResponseError:
            return None
        except _FAILURES as error:
            raise _translated(error) from None
        return Found(int(now) / 1000, dict(filter(None, map(_change, found[::2], found[1::2]))))

    # -- the writers' side ----------------------------------------------------------------------

    def join(self, writer: str, after: str = "0") -> None:
        """Register a writer and make its group, behind entry ``after``, where it is missing."""
        self._script("join", [self._stream, self._seqs, self._writers], [writer, after])

    def claim(self, writer: str, owner: str, seconds: float, token: int = 0) -> Claim:
        """Take the lease of ``writer`` for ``owner``, or with its ``token`` keep it, for so many seconds."""
        arguments = [writer, owner, int(seconds * 1000), token, random.randrange(1000)]
        got, holder, confirmed = self._script("claim", [self._leases, self._written(writer)], arguments)
        # Told by the next `read`: whoever keeps a lease may be in the middle of writing.
        if writer in self._confirmed and _text(confirmed) != self._confirmed[writer] and int(got):
            self._unpublished.add(writer)
        self._tokens[writer] = int(got)
        return Claim(int(got), _text(holder))

    def written(self, writer: str) -> dict[str, int]:
        """Return the positions that ``writer`` has published: producer → highest sequence written."""
        found = {
            _text(name): value for name, value in _pairs(self._call("HGETALL", self._written(writer))).items()
        }
        return {producer: int(sequence) for producer, sequence in found.items() if producer[:1] != "@"}

    def leave(self, writer: str) -> bool:
        """Drop a writer that is gone for good: it no longer holds back trimming. False if unknown."""
        keys = [self._stream, self._seqs, self._writers, self._written(writer), self._leases]
        return bool(self._script("leave", keys, [writer]))

    def registered_writers(self) -> dict[str, str]:
        """Writers that the stream is kept for, each with the newest entry that it has written."""
        found = _pairs(self._call("HGETALL", self._writers))
        return {_text(name): _text(value).partition(" ")[0] for name, value in found.items()}

    def read(
        self, writer: str, after: str, count: int, block: float, wake: Sequence[int] = ()
    ) -> list[RawEntry]:
        """Read entries as ``writer``: its own pending ones ``after`` an id, or new ones (``">"``).

        Waits up to ``block`` seconds for new ones, and raises ``WokenError`` when one of the descriptors ``wake`` can
        be read meanwhile; the connection is of no use then. Fewer than ``count`` where they are large. An entry that was
        trimmed while pending has no fields.
        Raises ``LeaseLostError``, and reads nothing, when the lease that `claim` got is somebody else's by now;
        ``GroupMissingError`` also when the positions that the writer had published are gone.
        """
        if writer in self._unpublished:
            raise GroupMissingError(_UNPUBLISHED_TEXT)
        newest = self._quiet.pop(writer, None) if after == ">" and block > 0 else None
        if newest is not None and not self._wait_for_more(newest, block, wake):
            return []
        answer = self._read(writer, after, count)
        if not answer[0] and block > 0 and self._wait_for_more(answer[1], block, wake):
            answer = self._read(writer, after, count)
        if len(answer[0]) == 1 and sum(map(len, answer[0][0][1] or ())) < _LITTLE:
            self._quiet[writer] = answer[0][0][0]
        return [(entry_id, _pairs(fields)) for entry_id, fields in answer[0]]

    def _wait_for_more(self, newest: Any, block: float, wake: Sequence[int]) -> bool:
        """Wait for an entry behind ``newest``; a plain read takes nothing from anybody, however late it comes."""
        wait = max(1, int(min(block, self._longest_wait) * 1000))
        assert self._redis is not None
        connection: Any = self._redis.connection
        try:
            connection.send_command("XREAD", "COUNT", 1, "BLOCK", wait, "STREAMS", self._stream, newest)
            poll = select.poll()
            for descriptor in (connection._sock.fileno(), *wake):
                poll.register(descriptor, select.POLLIN)
            ready = [descriptor for descriptor, _ in poll.poll(wait + _LATE)]
            if ready and connection._sock.fileno() not in ready:
                raise WokenError
            return bool(connection.read_response())
        except _FAILURES as error:
            raise _translated(error) from None

    def _read(self, writer: str, after: str, count: int) -> Any:
        arguments = [writer, self._tokens.get(writer, 0), count, after, ENOUGH_BYTES, ENOUGH_RECORDS]
        answer = self._script("read", [self._stream, self._leases], arguments)
        if answer == FENCED:
            raise LeaseLostError(_FENCED_TEXT.format(writer))
        return answer

    def confirm(self, writer: str, confirmation: Confirmation) -> None:
        """Acknowledge and publish what ``writer`` has durably written; trim behind the slowest writer.

        The first one has to publish all positions. Raises ``LeaseLostError`` when the token is not that of the
        lease, ``GroupMissingError`` when what was published before is gone; nothing is done then.
        """
        last_id, total, positions, ids, token = confirmation
        before = self._confirmed.get(writer, "")
        mark = f"{token}:{random.getrandbits(64):x}"
        arguments = [writer, token, before, mark, last_id, total, _texts(positions.items())]
        keys = [self._stream, self._seqs, self._writers, self._written(writer), self._leases]
        answer = int(self._script("confirm", keys, [*arguments, *ids]))
        if answer == FENCED:
            raise LeaseLostError(_FENCED_TEXT.format(writer))
        if answer == _UNPUBLISHED:
            raise GroupMissingError(_UNPUBLISHED_TEXT)
        self._confirmed[writer] = mark

    # -- levels ---------------------------------------------------------------------------------

    def set_level(self, logger: str, level: int, seconds: float, who: str) -> float:
        """Have ``logger`` at ``level`` in all producers for so many seconds; return the end by the server's clock."""
        arguments = [logger, level, max(1, int(seconds * 1000)), who]
        return int(self._script("level", [self._levels], arguments)) / 1000

    def reset_level(self, logger: str) -> bool:
        """Take back what `set_level` has done; False if there is nothing to take back."""
        return bool(self._call("HDEL", self._levels, logger))

    # -- looking at it --------------------------------------------------------------------------

    def overview(self) -> Overview:
        """Return how much there is in the stream, and how far its writers are."""
        keys = [self._stream, self._seqs, self._writers, self._leases]
        now, entries, added, trimmed, overflow, newest, *rest = self._script("overview", keys, [])
        rows = [[_text(value) for value in rest[at : at + 4]] for at in range(0, len(rest), 4)]
        return Overview(
            int(now) / 1000,
            int(entries),
            max(int(added), int(trimmed)),  # a server that has lost its memory counts on from what is trimmed
            int(overflow),
            {name: _writer_state(*values) for name, *values in rows},
            _moment(_text(newest)),
        )

    def ask(self, *command: Any) -> Any:
        """Run a command of an inspection. Raises ``StreamError`` with what the server says."""
        return self._call(*command)

    def may(self, *command: Any) -> str:
        """Run a command to see whether this user has the right to; return what the server refuses it with, or "".

        Any other error of the command is no answer to that. Raises ``ServerAwayError``.
        """
        try:
            self._execute(*command)
        except NoPermissionError as error:
            return _without_credentials(str(error))
        except ResponseError:
            return ""
        except _FAILURES as error:
            raise _translated(error) from None
        return ""

    def own_keys(self) -> tuple[str, ...]:
        """The stream and the keys beside it, without those of single writers."""
        return (self._stream, self._seqs, self._writers, self._leases, self._levels)

    def look(self, after: str, count: int, block: float = 0.0) -> list[RawEntry]:
        """Return up to ``count`` entries behind the id ``after`` ("0-0": from the first one on).

        Where there are none, waits up to ``block`` seconds for one; 0: not at all.
        """
        command = ["XREAD", "COUNT", count, *_blocking(block), "STREAMS", self._stream, after]
        found = self._call(*command) or [[b"", []]]
        return [(entry_id, _pairs(fields)) for entry_id, fields in found[0][1]]

    def look_back(self, before: str, count: int) -> list[RawEntry]:
        """Return up to ``count`` entries before the id ``before`` ("+": from the newest one on), newest first."""
        end = before if before == "+" else f"({before}"
        found = self._call("XREVRANGE", self._stream, end, "-", "COUNT", count)
        return [(entry_id, _pairs(fields)) for entry_id, fields in found or ()]

    def newest_id(self) -> str:
        """Return the id of the newest entry; "0-0" where there is none."""
        found = self.look_back("+", 1)
        return _text(found[0][0]) if found else "0-0"

    # -- the stream as a whole ------------------------------------------------------------------

    def delete_stream(self) -> None:
        """Delete the stream and everything kept beside it."""
        names = self.registered_writers()
        beside = (self._seqs, self._writers, self._leases, self._levels, *map(self._written, names))
        self._call("DEL", self._stream, *beside)

    def close(self) -> None:
        """Close the connection."""
        if self._redis is not None:
            self._redis.close()
        self._pool.disconnect()


class _Overlay:
    """Positions as they will be when the entries looked at so far are in the stream."""

    def __init__(self, below: dict[str, int]) -> None:
        self._below = below
        self.changes: dict[str, int] = {}

    def get(self, producer: str) -> int:
        return self.changes.get(producer) or self._below.get(producer, 0)

    def raise_to(self, producer: str, sequence: int) -> None:
        self.changes[producer] = max(sequence, self.get(producer))


def _pool(url: str, timeout: float) -> redis.ConnectionPool:
    """Return where the one connection comes from; nothing is connected yet. Raises ``ConfigError``."""
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "health_check_interval": 15,
        "protocol": 2,
        "client_name": "redislogkit",
    }
    if not url.startswith("unix:"):
        options |= {"socket_connect_timeout": timeout, "socket_keepalive": True}
    try:
        return redis.ConnectionPool.from_url(url, **options)
    except ValueError:  # whose message may quote parts of a password, as where that is not percent-encoded
        explained = (
            "redis.url must be like redis://user:password@host:6379/0, got one that can not be understood "
            "(not shown, as it may hold a password); what is no letter or digit in a password is written as %XX"
        )
        raise ConfigError([explained]) from None


def _texts(groups: Iterable[Iterable[object]]) -> bytes:
    """One argument for many values: to the client library, each one by itself costs 3 us."""
    return msgspec.json.encode([str(value) for group in groups for value in group])


def _blocking(seconds: float) -> tuple[Any, ...]:
    return ("BLOCK", max(1, int(seconds * 1000))) if seconds > 0 else ()


def _pairs(fields: Any) -> dict[bytes, bytes]:
    if not fields:
        return {}
    if isinstance(fields, dict):
        return fields
    return dict(zip(fields[::2], fields[1::2], strict=True))


def _change(name: Any, value: Any) -> tuple[str, Change] | None:
    """Return a logger and its level as they stand in redis; None for what none of us has put there."""
    match = _CHANGE.fullmatch(_text(value))
    return match and (_text(name), Change(int(match[1]), int(match[2]) / 1000, match[3]))


def _moment(entry_id: str) -> float:
    """When an entry was added, in seconds since the epoch; 0.0 for the id of none."""
    return int(entry_id.partition("-")[0] or 0) / 1000


def _writer_state(value: str, lease: str, unread: str) -> WriterState:
    position, _, total = value.partition(" ")
    _, _, rest = lease.partition(" ")
    ends, _, holder = rest.partition(" ")
    return WriterState(
        position,
        int(total) if total.isdecimal() else 0,
        "" if holder == "nobody" else holder.removesuffix(" late"),
        int(ends) / 1000 if ends.isdecimal() else 0.0,
        _moment(unread) if unread else None,
    )


def _translated(error: Exception) -> Exception:
    # The original is not chained: its text, or that of its own cause, may hold what `text` no longer does.
    text = _SCRIPT.sub("", _without_credentials(str(error))) or type(error).__name__
    if "NOGROUP" in text or "UNBLOCKED" in text:
        return GroupMissingError(text)
    if isinstance(error, ResponseError) and "no such key" in text.lower():
        return GroupMissingError(text)
    # Whatever else the server says is about the server (LOADING, OOM, READONLY, NOAUTH, CLUSTERDOWN,
    # MISCONF, a key of the wrong type), never about a record: wait, report once, go on when it is over.
    return ServerAwayError(text)


def _without_credentials(text: str) -> str:
    return _CREDENTIALS.sub("//***@", text)


def _text(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _scripts(name: str) -> tuple[str, str]:
    return _all_scripts()[f"{name}.lua"]


@cache
def _all_scripts() -> dict[str, tuple[str, str]]:
    """Source and digest of each script. All at once: when one is needed first, no descriptor may be free."""
    found = {}
    for file in importlib.resources.files(__package__).joinpath("lua").iterdir():
        source = file.read_text("utf-8")
        found[file.name] = source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return found

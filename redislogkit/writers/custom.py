"""Code of the user's as a destination: it is called with batches of records.

Theory of operation. What a call has taken is put into the checkpoint at once, so that a kill repeats one call at most,
and an error in the middle of a reading repeats none that has succeeded. Whatever the code raises, the same records
are tried again: the writer's loop waits, and gives them anew.

*Whose fault is it?* Most errors are those of a target that is away, and then no record is to blame. After
``max_attempts`` failed calls the records are tried in smaller parts, down to one by one. A record that fails alone
is a suspect. When another one goes through, the target is there: each suspect gets one more chance, and then goes
to the dead-letter file. As long as none goes through, nothing is rejected. A suspect that has no company waits for
some: the loop is asked to read on.

*A call that does not return* gets a ``TimeoutError`` by a signal. One that swallows it, or hangs in a library, is
silent for too long; the supervisor kills the process, and what the call was about comes again.

*Order* is that of the stream, but for a suspect that is taken in the end: it comes behind those that cleared it.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import random
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, Final, NamedTuple

from redislogkit import formatting, logged
from redislogkit.config import CustomWriterConfig
from redislogkit.errors import ConfigError, Reject, TargetAwayError
from redislogkit.escaping import apply_multiline
from redislogkit.logged import LoggedRecord
from redislogkit.record import safe_str
from redislogkit.writers import chunk
from redislogkit.writers.checkpoint import Checkpoint
from redislogkit.writers.counts import Counts
from redislogkit.writers.dead_letters import DeadLetters
from redislogkit.writers.reading import Reading

#: Called with a list of records.
Target = Callable[[list[LoggedRecord]], object]

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 30.0
_LONGEST_REASON: Final = 1000
#: Seconds between two lines about what is rejected.
_TOLD_PAUSE: Final = 10.0
#: Suspects in a row that are taken for a target that is away; each time that nothing goes through it doubles.
_FEWEST_SUSPECTS: Final = 2


class _Failure(NamedTuple):
    """What a call has raised."""

    reason: str
    rejected: tuple[LoggedRecord, ...] = ()
    """Which of its records it has named."""
    refuses: bool = False
    """It was `Reject`: the target is there."""
    rest_written: bool = False


def make(target: Any, options: dict[str, Any]) -> tuple[Target, Callable[[], object]]:
    """Return what is called with records, and what is called at the end.

    A class is made once, with the options; anything else gets them with each call. Raises what the class raises,
    and ``TypeError`` where what it makes can not be called.
    """
    if isinstance(target, type):
        made = target(**options)
        if not callable(made):
            raise TypeError(
                f"objects of {target.__qualname__} can not be called; it needs __call__(self, records)"
            )
        return made, _closer(made)
    if not options:
        return target, _closer(target)
    return lambda records: target(records, **options), _closer(target)


def _closer(target: Any) -> Callable[[], object]:
    close = getattr(target, "close", None)
    return close if callable(close) else lambda: None


def check_options(target: Any, options: dict[str, Any], key: str) -> None:
    """Make sure that ``target``, the value of ``key``, takes these options. Raises ``ConfigError``."""
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # of something that is not written in Python
        return
    try:
        signature.bind(*([] if isinstance(target, type) else [[]]), **options)
    except TypeError as error:
        shown = ", ".join(options) or "none"
        raise ConfigError(
            [
                f"{key} must take a list of records and the options ({shown}), got {target.__qualname__}{signature}: {error}"
            ]
        ) from None


class CustomDestination:
    """Gives records to a user's code.

    Args:
        config: The writer's section.
        load: Returns what is called with records, and what is called at the end, as `make` does. May raise anything.
        dead_letters: Where rejected records go.
        settled: Told of what is done and need not come again: producer → sequence, and how many records. May raise.
        alive: Called before each call.
        report: Takes a line about what has happened.
    """

    def __init__(
        self,
        config: CustomWriterConfig,
        load: Callable[[], tuple[Target, Callable[[], object]]],
        dead_letters: DeadLetters,
        settled: Callable[[dict[str, int], int], None],
        alive: Callable[[], None],
        report: Callable[[str], None],
    ) -> None:
        self.counts = Counts()
        self._config = config
        self._load = load
        self._dead_letters = dead_letters
        self._settled = settled
        self._alive = alive
        self._report = report
        self._view = logged.viewer(config.formatter)
        self._redactor = formatting.redactor_of(config.formatter)
        self._target: Target | None = None
        self._close: Callable[[], object] = lambda: None
        self._done: set[str] = set()
        """Records of the present reading that need not be tried again, and are not settled yet."""
        self._failed = 0  # calls in a row
        self._suspects = _FEWEST_SUSPECTS
        self._lone = False  # all records there are have failed alone
        self._untold = 0  # rejected since the last line about it
        self._next_told = 0.0

    # -- the seam -------------------------------------------------------------------------------

    def recover(self, checkpoint: Checkpoint, *, retract: bool = False) -> dict[str, int]:  # noqa: ARG002
        """Nothing can be found out of what is written, and nothing can be taken back."""
        return {}

    def mark(self) -> None:
        """Return None: there is no place to go on from."""
        return

    def service(self) -> float | None:
        """Nothing is ever pending."""
        return None

    def close(self) -> None:
        """Tell the code that it is over."""
        try:
            with _time_limit(self._config.timeout):
                self._close()
        except Exception as error:
            self._report(f"its close() has failed: {self._shown(_describe(error))}")
        self._target, self._close = None, lambda: None

    def write(self, reading: Reading) -> None:
        """Give the records to the code, batch by batch.

        Raises ``TargetAwayError``, and then wants those that are not settled again; ``OSError`` where the dead-letter
        file can not be written.
        """
        records = [self._view(item) for item in reading.items]
        size = self._config.batch_size
        for begin in range(0, len(records), size):
            end = min(begin + size, len(records))
            self._deliver(records[begin:end], records[end : end + 1])
            self._settle(reading, begin, end, records)

    # -- one batch ------------------------------------------------------------------------------

    def _settle(self, reading: Reading, begin: int, end: int, records: Sequence[LoggedRecord]) -> None:
        self._settled(chunk.reached(reading.spans(begin, end)), end - begin)
        self._done.difference_update(record.id for record in records[begin:end])

    def _undone(self, records: Sequence[LoggedRecord]) -> list[LoggedRecord]:
        return [record for record in records if record.id not in self._done]

    def _deliver(self, batch: Sequence[LoggedRecord], following: Sequence[LoggedRecord]) -> None:
        """Have each record of the batch taken or rejected; else raise ``TargetAwayError``."""
        while rest := self._undone(batch):
            failure = self._call(rest)
            if failure is None:
                continue
            if failure.refuses and (failure.rejected or len(rest) == 1):
                self._reject(failure, rest)
                continue
            self._failed += 1
            # Not each time: where the target is away, it may come back in the middle, and then the order is another one.
            if failure.refuses or self._lone or self._failed % self._config.max_attempts == 0:
                self._divide(rest, following)
            else:
                raise self._away(failure.reason)

    def _reject(self, failure: _Failure, records: Sequence[LoggedRecord]) -> None:
        """Set aside what a `Reject` has named, or its only record."""
        self._set_aside([(record, failure.reason) for record in failure.rejected or records])
        if failure.rest_written:
            self._have_taken(records)

    def _have_taken(self, records: Sequence[LoggedRecord]) -> None:
        self._done.update(record.id for record in records)
        self._failed, self._suspects, self._lone = 0, _FEWEST_SUSPECTS, False

    def _set_aside(self, rejected: Sequence[tuple[LoggedRecord, str]]) -> None:
        fresh = [(record, reason) for record, reason in rejected if record.id not in self._done]
        if not fresh:
            return
        self._dead_letters.add(fresh)
        self._done.update(record.id for record, _ in fresh)
        self.counts.rejected += len(fresh)
        self._untold += len(fresh)
        now = time.monotonic()
        if now >= self._next_told:  # a target that refuses everything must not fill the supervisor's log
            record, reason = fresh[0]
            more = f", and {self._untold - 1} more" if self._untold > 1 else ""
            self._report(f"rejected: record {record.id}{more}: {reason}; see {self._dead_letters.path}")
            self._untold, self._next_told = 0, now + _TOLD_PAUSE

    def _away(self, reason: str, *, alone: bool = False) -> TargetAwayError:
        self._lone = alone
        doubled = _FIRST_PAUSE * 2.0 ** min(self._failed - 1, 20)
        pause = min(doubled, _LONGEST_PAUSE) * random.uniform(0.5, 1.0)
        return TargetAwayError(reason, pause, alone=alone)

    def _divide(self, batch: Sequence[LoggedRecord], following: Sequence[LoggedRecord]) -> None:
        """Find out which records are at fault; raises ``TargetAwayError`` where that can not be told."""
        suspects: list[tuple[LoggedRecord, str]] = []
        # The first ones alone: where the target is away, these few calls tell.
        parts = [[record] for record in batch[: self._suspects]]
        parts += [list(batch[self._suspects :]), self._undone(following)]
        parts.reverse()
        while parts:
            part = self._undone(parts.pop())
            failure = self._call(part) if part else None
            if failure is None:
                if part:
                    self._judge(suspects)
                    suspects = []
            elif failure.refuses and (failure.rejected or len(part) == 1):
                self._reject(failure, part)
                parts.append(part)  # what is left of it
            elif len(part) > 1:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
            else:
                suspects.append((part[0], failure.reason))
                if len(suspects) > self._suspects:
                    break
        if suspects:
            self._suspects = min(2 * self._suspects, self._config.batch_size)
            raise self._away(suspects[-1][1], alone=not parts)

    def _judge(self, suspects: Sequence[tuple[LoggedRecord, str]]) -> None:
        """Another record has gone through: give each suspect one more chance."""
        guilty = []
        for record, _ in suspects:
            failure = self._call([record])
            if failure is not None:
                guilty.append((record, f"{failure.reason} (others go through)"))
        self._set_aside(guilty)

    # -- one call -------------------------------------------------------------------------------

    def _call(self, records: list[LoggedRecord]) -> _Failure | None:
        """Call the code with the records; return what has gone wrong."""
        self._alive()
        try:
            with _time_limit(self._config.timeout):
                if self._target is None:
                    self._target, self._close = self._load()
                _make_sure_it_has_run(self._target(list(records)))
        except Reject as refusal:
            ids = {safe_str(getattr(record, "id", record)) for record in refusal.records}
            named = tuple(record for record in records if record.id in ids)
            rest_written = refusal.rest_written and bool(named)
            return _Failure(self._shown(refusal.reason), named, refuses=True, rest_written=rest_written)
        except (Exception, SystemExit) as error:
            return _Failure(self._shown(_describe(error)))
        self._have_taken(records)
        return None

    def _shown(self, reason: object) -> str:
        """Return a reason, which may well quote a record, fit for a log and a file."""
        text = " ".join(safe_str(reason).split())[:_LONGEST_REASON]
        return apply_multiline(text if self._redactor is None else self._redactor.text(text), "escape")


def _make_sure_it_has_run(result: object) -> None:
    """Raise ``TypeError`` for a coroutine and the like: nothing has happened yet, and the records would be lost."""
    if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError(
            f"it must have written the records when it returns, and has returned a {type(result).__name__}; "
            "call asyncio.run() in it"
        )


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise ``TimeoutError`` in what runs for longer."""

    def on_alarm(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler
        raise TimeoutError(f"it has taken more than {seconds:g} s (timeout)")

    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _describe(error: BaseException) -> str:
    """Return type, text and place of an error, on one line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = next((f", {frame.filename}:{frame.lineno}" for frame in frames if _is_theirs(frame.filename)), "")
    said = safe_str(error)[: _LONGEST_REASON // 2]
    return f"{type(error).__name__}: {said}{place}" if said else f"{type(error).__name__}{place}"


def _is_theirs(filename: str) -> bool:
    return os.path.dirname(filename) != os.path.dirname(__file__)

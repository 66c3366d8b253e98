"""Code of the user's in a writer's process: writers and filters of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from redislogkit import callables, logged
from redislogkit.config import Config, CustomWriterConfig
from redislogkit.lines import Numbered
from redislogkit.record import safe_repr
from redislogkit.writers import custom
from redislogkit.writers.custom import CustomDestination
from redislogkit.writers.dead_letters import DeadLetters


def prepare(config: Config) -> None:
    """Make this process one in which code of the user's may run.

    It finds its modules, also beside the configuration. What it logs and prints goes to the supervisor's own log, and
    never into the stream that it is called for: it would come back, be logged about, and so on.
    """
    from redislogkit.producer import handler

    callables.extend_path([os.path.dirname(config.source)] if config.source else [])
    handler.mute()
    sys.stdout = sys.stderr


def destination(
    config: Config,
    name: str,
    report: Callable[[str], None],
    settled: Callable[[dict[str, int], int], None],
    alive: Callable[[], None],
) -> CustomDestination:
    """Return the destination of the writer ``name``. Raises ``ConfigError`` where its target can not be found."""
    section = config.writers[name]
    assert isinstance(section, CustomWriterConfig)
    target = callables.find(section.target, f"writers.{name}.target")
    custom.check_options(target, section.options, f"writers.{name}.target")
    path = section.dead_letter_path or os.path.join(config.stream_dir, "rejected", f"{name}.jsonl")
    return CustomDestination(
        section,
        lambda: custom.make(target, section.options),
        DeadLetters(path, section.dead_letter_max_bytes, name, report),
        settled,
        alive,
        report,
    )


def record_filter(config: Config, name: str, report: Callable[[str], None]) -> Callable[[Numbered], bool]:
    """Return what asks the filter of the writer ``name``. One that fails lets the record pass: nothing is lost by it.

    Raises ``ConfigError`` where it can not be found.
    """
    section = config.writers[name]
    assert section.filter is not None
    ask = callables.find(section.filter, f"writers.{name}.filter")
    view = logged.viewer(section.formatter)
    told: set[str] = set()

    def is_wanted(numbered: Numbered) -> bool:
        try:
            return bool(ask(view(numbered)))
        except Exception as error:
            reason = safe_repr(error)
            if reason not in told and len(told) < _MOST_TOLD:
                told.add(reason)
                report(f"its filter has failed, such records pass: {reason}")
            return True

    return is_wanted


_MOST_TOLD = 100

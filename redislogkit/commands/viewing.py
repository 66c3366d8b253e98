"""What ``tail``, ``cat`` and ``spool show`` share: options, and how records get onto stdout."""

from __future__ import annotations

import argparse
import os
import select
import stat
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from redislogkit.commands import common
from redislogkit.errors import ConfigError

if TYPE_CHECKING:
    from redislogkit.config import Config, FormatterConfig
    from redislogkit.view.filter import Filter

MOMENT_HELP: Final = '"2026-11-28T22:00:00Z", "2026-11-28 22:00", "22:00" (the latest one), "10m ago", "yesterday 22:00", "today"'


def add_filter(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which records are wanted."""
    group = parser.add_argument_group("which records")
    group.add_argument("-l", "--level", help="of this level and above: a name or a number")
    group.add_argument(
        "--logger",
        action="append",
        default=[],
        metavar="NAME",
        help="of this logger and its children; !NAME leaves them out; may be given several times",
    )
    group.add_argument(
        "-g", "--grep", metavar="REGEX", help="whose message, exception or stack the expression is found in"
    )
    group.add_argument("-i", "--ignore-case", action="store_true", help="the expression ignores case")
    group.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="with this extra, or standard field (host, process, threadName, lineno …); may be given several times",
    )
    group.add_argument("-S", "--since", metavar="MOMENT", help=f"from this moment on: {MOMENT_HELP}")
    group.add_argument("-U", "--until", metavar="MOMENT", help="before this moment")
    group.add_argument(
        "-n",
        "--lines",
        type=_lines,
        metavar="N",
        help='the last N of them; "all" of them is the other choice',
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how they look."""
    group = parser.add_argument_group("how they look")
    group.add_argument(
        "-o", "--output", choices=("text", "json"), default="text", help="json: an object a line"
    )
    group.add_argument(
        "--formatter", metavar="NAME", help="text as this formatter of the configuration has it"
    )
    group.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="colours by level (default: auto)",
    )


#: What ``-n all`` gives.
ALL: Final = sys.maxsize


def _lines(text: str) -> int:
    if text == "all":
        return ALL
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f'must be a number, 0 or more, or "all", got {text!r}')
    return int(text)


def wanted(options: argparse.Namespace) -> Filter:
    """Return the filter that the options mean. Raises ``ConfigError``, which names the options."""
    from redislogkit.view.filter import Filter

    try:
        return Filter.of(
            now=time.time(),
            level=options.level,
            loggers=options.logger,
            grep=options.grep,
            ignore_case=options.ignore_case,
            fields=options.field,
            since=options.since,
            until=options.until,
        )
    except ConfigError as error:
        raise ConfigError(
            [f"--{problem.replace('than until', 'than --until')}" for problem in error.problems]
        ) from None


def usual_formatter(config: Config) -> FormatterConfig:
    """Return the formatter of the first writer that writes text, so that nothing is shown that it takes out.

    Where all write JSON it is ``plain``, with what the first of them takes out.
    """
    from msgspec.structs import replace

    used = [writer.formatter for writer in config.writers.values()]
    plain = config.formatters["plain"]
    texts = [one for one in used if one.type == "text"]
    if used and not texts:
        return replace(plain, redact=used[0].redact, redact_with=used[0].redact_with)
    return texts[0] if texts else plain


def formatter(options: argparse.Namespace, config: Config, default: FormatterConfig) -> FormatterConfig:
    """Return the formatter that the options name. Raises ``ConfigError``."""
    from msgspec.structs import replace

    name = options.formatter
    if name is not None and options.output == "json":
        raise ConfigError(
            [f"--formatter is for text, got {name!r} beside --output json; leave out one of them"]
        )
    if options.output == "json":  # whatever else the formatter has, rules for what is not to be shown, stays
        return replace(default, type="json", format=None, datefmt=None, style="%", optional_fields=())
    if name is None:
        return default
    common.check_name("--formatter", name, config.formatters)
    return config.formatters[name]


def say(command: str, text: str) -> None:
    """Say something that is no record."""
    print(f"{command}: {text}", file=sys.stderr, flush=True)


class Reports:
    """Says on stderr what could not be read, each thing once."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._said: set[str] = set()

    def __call__(self, text: str) -> None:
        """Say it."""
        if text not in self._said:
            self._said.add(text)
            say(self._command, text)

    @property
    def any(self) -> bool:
        """True when there was something."""
        return bool(self._said)


class Stdout:
    """Where records are shown: stdout, whatever that is.

    A terminal gets colours. Only a regular file gets text as it was logged; everywhere else what a terminal would
    obey is made visible, since a pipe mostly ends in one.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        from redislogkit.view import show

        self._poll = select.poll()
        self.verbatim = False
        try:
            fd = sys.stdout.fileno()
        except (OSError, ValueError):  # a test's, or another program's own
            pass
        else:
            self.verbatim = stat.S_ISREG(os.fstat(fd).st_mode)
            self._poll.register(fd, 0)
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace")  # whatever the locale can not show
        self.colour = show.coloured(options.color, os.environ, is_terminal=sys.stdout.isatty())

    def write(self, texts: Iterable[str]) -> int:
        """Write texts, and have them seen; return how many. Raises ``BrokenPipeError``."""
        number = 0
        for text in texts:
            sys.stdout.write(text)
            number += 1
        sys.stdout.flush()
        return number

    def check(self) -> None:
        """Raise ``BrokenPipeError`` where the reader has gone: without a record, no write would tell."""
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in self._poll.poll(0)):
            raise BrokenPipeError

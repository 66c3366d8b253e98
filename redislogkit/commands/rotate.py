"""``redislogkit rotate``: live log files become archives now."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from redislogkit.commands import common

if TYPE_CHECKING:
    from redislogkit.commands.common import Commands
    from redislogkit.config import Config

NAME: Final = "rotate"

_PAUSE: Final = 0.05


def add(commands: Commands) -> None:
    """Add the parser."""
    parser = common.add_parser(
        commands,
        NAME,
        "make the live files of file writers archives now",
        about="Make the live files of file writers archives now, whatever their size and age. The supervisor of this\n"
        "host is told, and it is waited until that is done. An empty file stays.",
        examples="redislogkit rotate\nredislogkit rotate app errors --config /etc/shop/log.toml",
        exit_codes="0 done; 1 not done in time, or a writer does not run; 2 wrong usage or configuration, or there\n"
        "is no supervisor",
    )
    common.add_config_option(parser)
    parser.add_argument("writers", nargs="*", metavar="WRITER", help="default: all writers of files")
    parser.add_argument(
        "--timeout",
        metavar="TIME",
        type=common.duration,
        default=10.0,
        help="how long to wait for it (default: 10s)",
    )


def run(options: argparse.Namespace) -> int:
    """Tell, wait, report."""
    from redislogkit import config as configuration
    from redislogkit import control

    config = configuration.load(options.config)
    files = _files(config)
    if not files:
        print(f"{config.source} has no writer of files: there is nothing to rotate", file=sys.stderr)
        return common.EXIT_USAGE
    for name in options.writers:
        if name not in files:
            print(
                f"WRITER must be one of {', '.join(files)}, got {name!r}",
                file=sys.stderr,
            )
            return common.EXIT_USAGE
    full = {name for name, path in files.items() if _has_content(path)}
    before = _rotations(config)
    answer = control.ask(config, {"do": control.ROTATE, "writers": options.writers or None})
    if not answer["ok"]:
        print(answer["error"], file=sys.stderr)
        return common.EXIT_FAILED
    return _wait(config, answer["writers"], full, before, options.timeout)


def _wait(config: Config, told: list[str], full: set[str], before: dict[str, int], timeout: float) -> int:
    deadline = time.monotonic() + timeout
    waiting = [name for name in told if name in full]
    for name in told:
        if name not in full:
            print(f"{name}: its file is empty, and stays")
    while waiting:
        now = _rotations(config)
        for name in [name for name in waiting if now.get(name, 0) > before.get(name, 0)]:
            waiting.remove(name)
            print(f"{name}: rotated")
        if waiting and time.monotonic() >= deadline:
            print(
                f"not within {timeout:g} s: {', '.join(waiting)}; it will be done as soon as it can",
                file=sys.stderr,
            )
            return common.EXIT_FAILED
        if waiting:
            time.sleep(_PAUSE)
    return common.EXIT_OK


def _files(config: Config) -> dict[str, str]:
    from redislogkit.config import FileWriterConfig

    return {
        name: writer.path for name, writer in config.writers.items() if isinstance(writer, FileWriterConfig)
    }


def _has_content(path: str) -> bool:
    try:
        return os.path.getsize(path) > 0
    except OSError:
        return False


def _rotations(config: Config) -> dict[str, int]:
    from redislogkit import control

    children: list[dict[str, Any]] = control.ask(config, {"do": control.STATUS}).get("children", [])
    return {child["name"]: child.get("rotations", 0) for child in children if child["kind"] == "writer"}

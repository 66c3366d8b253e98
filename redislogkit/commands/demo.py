"""``redislogkit demo``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from redislogkit.commands import common

if TYPE_CHECKING:
    from redislogkit.commands.common import Commands

NAME: Final = "demo"


def add(commands: Commands) -> None:
    """Add the parser."""
    common.add_parser(
        commands,
        NAME,
        "several processes log into one rotated file and onto this terminal",
        exit_codes="0 everything arrived, once; 1 something did not",
    )


def run(options: argparse.Namespace) -> int:  # noqa: ARG001 - it has none
    """Run the demo."""
    from redislogkit import demo

    return demo.run()

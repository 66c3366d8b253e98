"""``redislogkit schema``: the JSON Schema of a configuration, for editors."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Final

from redislogkit.commands import common

if TYPE_CHECKING:
    from redislogkit.commands.common import Commands

NAME: Final = "schema"


def add(commands: Commands) -> None:
    """Add the parser."""
    common.add_parser(
        commands,
        NAME,
        "print the JSON Schema of a configuration, for editors",
        examples="redislogkit schema > log.schema.json\n"
        "# then, as the first line of log.toml:  #:schema ./log.schema.json",
        exit_codes="0",
    )


def run(options: argparse.Namespace) -> int:  # noqa: ARG001 - it has none
    """Print it."""
    from redislogkit.config_json_schema import schema

    print(json.dumps(schema(), indent=2, ensure_ascii=False))
    return common.EXIT_OK

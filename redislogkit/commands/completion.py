"""``redislogkit completion``: what a shell needs to complete commands, options and files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from redislogkit.commands import common

if TYPE_CHECKING:
    from redislogkit.commands.common import Commands

NAME: Final = "completion"

_SHELLS: Final = ("bash", "zsh", "fish")
#: Arguments that are files.
_FILES: Final = frozenset(["config", "files"])


def add(commands: Commands) -> None:
    """Add the parser."""
    parser = common.add_parser(
        commands,
        NAME,
        "print the completion script of a shell",
        about="Print the completion script of a shell. It is made from this command line, runs no Python when it\n"
        "completes, and is to be made again after an update. Needs: pip install 'redislogkit[cli]'",
        examples="redislogkit completion bash > ~/.local/share/bash-completion/completions/redislogkit\n"
        "redislogkit completion zsh > ~/.zfunc/_redislogkit   # with fpath+=~/.zfunc before compinit\n"
        "redislogkit completion fish > ~/.config/fish/completions/redislogkit.fish",
        exit_codes="0 printed; 2 wrong usage, or shtab is not installed",
    )
    parser.add_argument("shell", choices=_SHELLS)


def run(options: argparse.Namespace) -> int:
    """Print it."""
    try:
        import shtab
    except ImportError:
        print("completion needs shtab: pip install 'redislogkit[cli]'", file=sys.stderr)
        return common.EXIT_USAGE
    for action in _actions(options.parser):
        if action.dest in _FILES:
            action.complete = shtab.FILE
    print(shtab.complete(options.parser, options.shell))
    return common.EXIT_OK


def _actions(parser: argparse.ArgumentParser) -> Iterator[Any]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action

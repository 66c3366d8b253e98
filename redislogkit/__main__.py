"""The command line: ``python -m redislogkit`` or ``redislogkit``. What it can do stands in ``commands``.

Exit codes: 0 done; 1 it is not as it should be (``verify``, ``drill``, ``demo``); 2 wrong usage or
configuration, or something can not be read or reached; 3 and 4 as ``redislogkit.supervise`` has them;
130 interrupted; 141 the reader of a pipe has gone.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from types import ModuleType
from typing import Final, NoReturn

from redislogkit.commands import (
    cat,
    check,
    common,
    completion,
    demo,
    doctor,
    drill,
    level,
    reload,
    rotate,
    schema,
    spool,
    status,
    supervise,
    tail,
    verify,
    web,
    writers,
)
from redislogkit.errors import RedislogkitError

#: In the order of the help.
COMMANDS: Final[tuple[ModuleType, ...]] = (
    demo,
    check,
    schema,
    supervise,
    status,
    doctor,
    level,
    rotate,
    reload,
    writers,
    tail,
    cat,
    spool,
    verify,
    drill,
    web,
    completion,
)

_EXIT_CODES: Final = (
    "exit codes: 0 done; 1 it is not as it should be; 2 wrong usage or configuration, or something can not be read "
    "or reached; 3 a part of the supervisor's work is not done; 4 another supervisor runs already; 130 interrupted. "
    "'redislogkit COMMAND --help' has examples."
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line ``arguments`` (by default those of the process); return the exit code."""
    options = parser().parse_args(arguments)
    command = next(command for command in COMMANDS if options.command == command.NAME)
    try:
        code: int = command.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered has nowhere to go; without this, the interpreter would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return common.EXIT_CLOSED_PIPE
    except (RedislogkitError, OSError) as error:
        print(error, file=sys.stderr)
        return common.EXIT_USAGE
    except KeyboardInterrupt:
        return common.EXIT_INTERRUPTED
    return code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is meant by a word that is nearly right."""
        from redislogkit.config_values import nearest

        wrong = re.match(r"argument \S+: invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if wrong:
            hint = nearest(wrong[1], re.findall(r"[\w-]+", wrong[2]))
            message = f"{message}; {hint}" if hint else message
        super().error(message)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    made = _Parser(
        prog="redislogkit",
        description="Log records of many processes, through a Redis or Valkey stream, into files and terminals.",
        epilog=_EXIT_CODES,
    )
    # Whoever runs this module has imported the package; nothing in it may import the package itself.
    version = sys.modules["redislogkit"].__version__
    made.add_argument("--version", action="version", version=f"redislogkit {version}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    made.set_defaults(parser=made)
    return made


if __name__ == "__main__":
    sys.exit(main())

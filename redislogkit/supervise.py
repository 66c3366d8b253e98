"""``python -m redislogkit.supervise [log.toml]``: run shipper, writers and embedded server in the foreground.

Exit codes: 0 everything was written; 2 wrong usage or configuration; 3 a child was set aside or could not finish,
and what is not written waits in the spools; 4 another supervisor runs already.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

from redislogkit import config as configuration
from redislogkit import launch
from redislogkit.config import Config
from redislogkit.errors import ConfigError, LockHeldError, RedislogkitError
from redislogkit.supervisor import title
from redislogkit.supervisor.log import Log
from redislogkit.supervisor.manager import Manager
from redislogkit.supervisor.notify import Notifier

EXIT_USAGE = 2
EXIT_HELD = 4
#: A launched supervisor may find its predecessor still draining.
_PREDECESSOR_TIMEOUT = 20.0

_MAKES_WAY = (
    "supervisor.autostart is false now: the supervisor that an application has started makes way for "
    "'redislogkit supervise' when the programs have ended that log through it"
)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and supervise; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m redislogkit.supervise",
        description="Run the shipper, the writers and, where configured, the embedded server.",
        epilog="SIGTERM and Ctrl-C drain and stop; a second one stops at once. SIGHUP loads the configuration "
        "again, SIGUSR1 has files opened again. Exit codes: 0 everything is written; 2 wrong usage or configuration; "
        "3 a child was set aside or could not finish, the rest waits in the spools; 4 another supervisor runs already.",
    )
    parser.add_argument(
        "config", nargs="?", help="configuration file (default: $REDISLOGKIT_CONFIG, else log.toml)"
    )
    parser.add_argument("--launched", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    occupy_standard_descriptors()
    title.prepare()
    try:
        return _launched() if options.launched else _foreground(options.config)
    except LockHeldError as error:
        Log()(str(error))
        return EXIT_HELD
    except (RedislogkitError, OSError) as error:
        Log()(str(error))
        return EXIT_USAGE


def occupy_standard_descriptors() -> None:
    """Where 0, 1 or 2 is closed, have nothing of ours get that number: what goes to stdout would go into it.

    It becomes the end of a pipe that nobody reads, which says so to whoever writes.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            reader, writer = os.pipe()
            os.dup2(writer, fd)
            for end in {reader, writer} - {fd}:
                os.close(end)


def _foreground(source: str | None) -> int:
    config = configuration.load(source)
    launch.prepare(config)
    launch.supervised = config.stream_dir
    log = Log(config.supervisor.log)

    def reload() -> Config:
        again = configuration.load(source)
        log.path = again.supervisor.log
        return again

    manager = Manager(config, log, notifier=Notifier(), reload=reload)
    manager.acquire(timeout=0.0)
    log(f"supervising stream {config.stream.name!r}, writers: {', '.join(config.writers) or 'none'}")
    return manager.run()


def _launched() -> int:
    """Started by `redislogkit.launch`: configuration and start lock come as open files."""
    # The application's sockets and pipes, where it lets them be inherited, are not ours to keep open.
    os.closerange(launch.START_LOCK_FD + 1, os.sysconf("SC_OPEN_MAX"))
    with open(launch.CONFIG_FD, "rb") as file:
        config = configuration.from_bytes(file.read())
    os.set_inheritable(launch.START_LOCK_FD, False)
    launch.supervised = config.stream_dir
    os.chdir(config.stream_dir)
    # Who finds us there may tell us at once that the file has changed.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    log = Log(config.supervisor.log, bounded=True)

    def reload() -> Config:
        again = configuration.load(config.source)
        if not again.supervisor.autostart:
            raise ConfigError([_MAKES_WAY])
        log.path = again.supervisor.log
        return again

    by_file = launch.says_the_same(config)
    manager = Manager(config, log, launched=True, reload=reload if by_file else None)
    manager.acquire(_PREDECESSOR_TIMEOUT)
    os.close(launch.START_LOCK_FD)
    return manager.run()


if __name__ == "__main__":
    sys.exit(main())

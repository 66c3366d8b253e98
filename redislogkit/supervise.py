"""``python -m redislogkit.supervise [log.toml]``: run shipper, writers and embedded server in the foreground.

Exit codes: 0 everything was written; 2 wrong usage or configuration; 3 a child was set aside or could not finish,
and what is not written waits in the spools; 4 another supervisor runs already.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time

from redislogkit import config as configuration
from redislogkit import launch
from redislogkit.errors import LockHeldError, RedislogkitError
from redislogkit.supervisor.manager import Manager

EXIT_USAGE = 2
EXIT_HELD = 4
#: A launched supervisor may find its predecessor still draining.
_PREDECESSOR_TIMEOUT = 20.0
_LARGEST_LOG = 1024 * 1024


def report(message: str) -> None:
    """Write one line to the supervisor's own log, which is stderr; never raises ``OSError``."""
    with contextlib.suppress(OSError, ValueError):
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        sys.stderr.write(f"{stamp} redislogkit[{os.getpid()}] {message}\n")
        sys.stderr.flush()


def _report_bounded(message: str) -> None:
    """The same for a supervisor whose stderr is a file that nobody rotates."""
    with contextlib.suppress(OSError):
        if os.fstat(2).st_size > _LARGEST_LOG:
            os.ftruncate(2, 0)
    report(message)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and supervise; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m redislogkit.supervise",
        description="Run the shipper, the writers and, where configured, the embedded server.",
        epilog="SIGTERM and Ctrl-C drain and stop; a second one stops at once. SIGHUP checks the configuration.",
    )
    parser.add_argument(
        "config", nargs="?", help="configuration file (default: $REDISLOGKIT_CONFIG, else log.toml)"
    )
    parser.add_argument("--launched", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        return _launched() if options.launched else _foreground(options.config)
    except LockHeldError as error:
        report(str(error))
        return EXIT_HELD
    except (RedislogkitError, OSError) as error:
        report(str(error))
        return EXIT_USAGE


def _foreground(source: str | None) -> int:
    config = configuration.load(source)
    launch.prepare(config)
    manager = Manager(config, report, reload=lambda: configuration.load(source))
    manager.acquire(timeout=0.0)
    report(f"supervising stream {config.stream.name!r}, writers: {', '.join(config.writers) or 'none'}")
    return manager.run()


def _launched() -> int:
    """Started by `redislogkit.launch`: configuration and start lock come as open files."""
    # The application's sockets and pipes, where it lets them be inherited, are not ours to keep open.
    os.closerange(launch.START_LOCK_FD + 1, os.sysconf("SC_OPEN_MAX"))
    with open(launch.CONFIG_FD, "rb") as file:
        config = configuration.from_bytes(file.read())
    os.set_inheritable(launch.START_LOCK_FD, False)
    os.chdir(config.stream_dir)
    manager = Manager(config, _report_bounded, launched=True)
    manager.acquire(_PREDECESSOR_TIMEOUT)
    os.close(launch.START_LOCK_FD)
    return manager.run()


if __name__ == "__main__":
    sys.exit(main())

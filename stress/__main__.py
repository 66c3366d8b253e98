"""``python -m stress``: hit one stream from many processes, check the files, print one line of figures.

Exit code 0 only when every record arrived whole, once and in order; 1 otherwise; 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from redislogkit import config as configuration
from redislogkit.config import FileWriterConfig
from redislogkit.errors import RedislogkitError
from stress import load

EXIT_OK = 0
EXIT_FINDINGS = 1
EXIT_USAGE = 2


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run; return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["chaos"]:
        from stress import chaos

        return chaos.main(arguments[1:])
    if arguments[:1] == ["outage"]:
        from stress import outage

        return outage.main(arguments[1:])
    options = _parser().parse_args(arguments)
    with _place(keep=options.keep) as folder:
        try:
            return _run(_plan(options, folder), folder)
        except (RedislogkitError, OSError) as error:
            print(f"stress: {error}", file=sys.stderr)
            return EXIT_USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stress",
        description=__doc__.partition("\n\n")[0],
        epilog="python -m stress chaos --seed N --minutes M breaks things while records flow; "
        "python -m stress outage --minutes M --rate R takes redis away and measures memory.",
    )
    parser.add_argument("--producers", type=_positive, default=16, help="processes (default: %(default)s)")
    parser.add_argument(
        "--records", type=_positive, default=20_000, help="records of each producer (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", type=_positive, default=1, help="threads in each producer that share them"
    )
    parser.add_argument(
        "--size", type=int, default=100, help="characters of a message (default: %(default)s)"
    )
    parser.add_argument(
        "--start-method",
        choices=("fork", "spawn", "forkserver"),
        default="fork",
        help="how producers are started (default: %(default)s)",
    )
    parser.add_argument(
        "--kill",
        type=_share,
        default=0.0,
        metavar="FRACTION",
        help="share of the producers that get SIGKILL at a random moment, 0 to 1",
    )
    parser.add_argument("--seed", type=int, help="of the random moments (default: a new one, printed)")
    parser.add_argument(
        "--config", metavar="FILE", help="configuration to use (default: one of its own, embedded server)"
    )
    parser.add_argument("--url", help="redis.url to use")
    parser.add_argument("--max-bytes", metavar="SIZE", help='rotate at this size (default: "4 MiB")')
    parser.add_argument("--layout", choices=("batches", "records"), help="layout of the stream")
    parser.add_argument(
        "--deadline", type=float, default=300.0, metavar="SECONDS", help="for writing it all (%(default)g)"
    )
    parser.add_argument("--keep", action="store_true", help="keep log files and state, and tell where")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {number}")
    return number


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, got {text}")
    return share


@contextlib.contextmanager
def _place(*, keep: bool) -> Iterator[str]:
    """A folder of our own; short, since a unix socket lies below it."""
    folder = tempfile.mkdtemp(prefix=f"rlk-stress-{os.getpid()}-", dir="/tmp")
    try:
        yield folder
    finally:
        if keep:
            print(f"kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _plan(options: argparse.Namespace, folder: str) -> load.Plan:
    source = options.config or _own_configuration(folder)
    writers = configuration.load(source).writers
    name = next((name for name, writer in writers.items() if isinstance(writer, FileWriterConfig)), "")
    overrides = {
        "redis.url": options.url,
        "stream.layout": options.layout,
        f"writers.{name}.max_bytes": options.max_bytes,
    }
    return load.Plan(
        producers=options.producers,
        records=options.records,
        threads=options.threads,
        size=options.size,
        start_method=options.start_method,
        kill=options.kill,
        seed=random.randrange(1_000_000) if options.seed is None else options.seed,
        deadline=options.deadline,
        source=source,
        overrides={key: value for key, value in overrides.items() if value is not None},
        own=options.config is None,
    )


def _own_configuration(folder: str) -> dict[str, Any]:
    return {
        "version": 1,
        "state_dir": os.path.join(folder, "state"),
        # Not the name of anybody else's stream, for the server may be a shared one.
        "stream": {"name": f"stress{os.urandom(4).hex()}"},
        "writers": {
            "app": {
                "type": "file",
                "path": os.path.join(folder, "logs", "stress.log"),
                "max_bytes": "4 MiB",
                "backup_count": 100_000,
            }
        },
    }


def _run(plan: load.Plan, folder: str) -> int:
    tallies = os.path.join(folder, "tallies")
    os.mkdir(tallies)
    result = load.run(plan, tallies)
    _print(plan, result)
    return EXIT_OK if result.report.ok and not result.failures else EXIT_FINDINGS


def _print(plan: load.Plan, result: load.Result) -> None:
    for finding in (*result.failures, *result.report.examples):
        print(f"stress: {finding}", file=sys.stderr)
    report = result.report
    figures = {
        "producers": plan.producers,
        "records": report.records,
        "seconds": f"{result.seconds:.2f}",
        "records/s": f"{report.records / result.seconds:.0f}",
        "lost": report.lost,
        "doubled": report.doubled,
        "torn": report.torn,
        "disordered": report.disordered,
        "files": result.files,
        "seed": plan.seed,
    }
    print(" ".join(f"{name}={value}" for name, value in figures.items()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
